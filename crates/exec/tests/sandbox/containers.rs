//! What a container sees, what it may do, and what is left of it.

use pitcrew_conformance::{pod, pod_with, step, step_with};
use pitcrew_core::pod::{ContainerState, PodFailure, TerminationReason};
use pitcrew_core::state::Exit;
use serde_json::json;

use crate::world::{signal, until, world};

#[tokio::test]
async fn what_is_the_kernels_cannot_be_written_not_even_by_root() {
    let Some(mut world) = world().await else { return };
    let script = "for f in /proc/sys/kernel/domainname /sys/x /proc/sysrq-trigger; do
                    if (echo x > $f) 2>/dev/null; then echo wrote $f; fi; done; echo tried";
    let done = world.run("a", pod(json!([step("a", script)]))).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["tried"]);
}

#[tokio::test]
async fn a_link_of_a_step_leads_our_own_writing_nowhere() {
    let Some(mut world) = world().await else { return };
    let victim = world.root.join("victim");
    std::fs::write(&victim, "untouched").unwrap();
    let link = format!(
        "ln -s {} /tekton/run/0/status/exitCode; mv /tekton/run/1/status /tekton/run/1/x 2>/dev/null || true",
        victim.display()
    );
    let moved = "rm -rf /tekton/run/1/status; ln -s /etc /tekton/run/1/status";
    let done = world.run("a", pod(json!([step("a", &link), step("b", moved), step("c", "true")]))).await;
    done.assert_success();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "untouched");
    assert!(!std::path::Path::new("/etc/exitCode").exists());
}

#[tokio::test]
async fn parts_of_volumes_lie_inside_them_whatever_links_say() {
    let Some(mut world) = world().await else { return };
    let shared = world.root.join("claims/one");
    std::fs::create_dir_all(shared.join("etc")).unwrap();
    std::os::unix::fs::symlink("/etc", shared.join("out")).unwrap();
    std::os::unix::fs::symlink("../../..", shared.join("up")).unwrap();
    let volume = json!({"volumes": [{"name": "v", "source": {"shared": {"dir": "claims/one"}}}]});
    let mounts = json!({"mounts": [
        {"volume": "v", "at": "/a", "sub_path": "out"}, {"volume": "v", "at": "/b", "sub_path": "up/deep/er"},
        {"volume": "v", "at": "/c", "read_only": true}
    ]});
    let script = "ls /a | wc -l; echo b > /b/file; if (echo c > /c/file) 2>/dev/null; then echo wrote; fi";
    let done = world.run("a", pod_with(json!([step_with("a", script, mounts)]), volume.clone())).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["0"]);
    assert_eq!(std::fs::read_to_string(shared.join("deep/er/file")).unwrap(), "b\n");
    let up = json!({"mounts": [{"volume": "v", "at": "/a", "sub_path": "../x"}]});
    let done = world.run("b", pod_with(json!([step_with("a", "true", up)]), volume)).await;
    assert!(matches!(done.pod().failure, Some(PodFailure::Config { .. })), "{}", done.story());
}

#[tokio::test]
async fn files_are_read_only_have_their_modes_and_are_on_no_disk() {
    let Some(mut world) = world().await else { return };
    let file =
        |path: &str, text: &str| json!({"path": path, "bytes": text.as_bytes(), "mode": 0o400, "is_secret": true});
    let volume = json!({"volumes": [{"name": "s", "source": {"files": [file("key", "needle-in-a-haystack"), file("d/e", "deep")]}}]});
    let mounts =
        json!({"mounts": [{"volume": "s", "at": "/s"}, {"volume": "s", "at": "/workspace/one", "sub_path": "d/e"}]});
    let script = "stat -c %a /s/key; cat /s/d/e /workspace/one; echo; if (echo x > /s/key) 2>/dev/null; then echo wrote; fi; wc -c < /s/key; sleep 1000";
    let spec = world.spec("a", pod_with(json!([step_with("a", script, mounts)]), volume));
    let handle = world.start(spec).await;
    world.says(&handle, 0, "20").await;
    let text: Vec<_> = world.log(&handle).await.into_iter().map(|record| record.text).collect();
    assert_eq!(text, ["400", "deepdeep", "20"]);
    let mut grep = std::process::Command::new("grep");
    let found = grep.args(["-rl", "needle-in-a-haystack"]).arg(&world.root).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    world.cancel(&handle, jiff::SignedDuration::ZERO).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
}

#[tokio::test]
async fn the_machines_secrets_homes_and_processes_are_not_seen() {
    let Some(mut world) = world().await else { return };
    let script = format!(
        "ls -A /root /home /run /tmp /mnt | grep -v : | grep . || echo empty
         ls -A {data} 2>/dev/null | wc -l
         grep -c '\\$' /etc/shadow || true
         ls /proc | grep -c '^[0-9]*$'
         ls /dev/vda /dev/kmsg /dev/mem 2>/dev/null | wc -l
         cat /proc/1/environ 2>/dev/null | wc -c
         for c in sys_admin mknod sys_ptrace; do grep CapBnd /proc/self/status >/dev/null; done
         mount -t tmpfs x /mnt 2>/dev/null || echo no mount
         mknod /tmp/disk b 254 0 2>/dev/null || echo no device
         kill -9 1; echo alive",
        data = world.root.display()
    );
    let done = world.run("a", pod(json!([step("a", &script)]))).await;
    done.assert_success();
    let lines = done.lines(0);
    assert_eq!(lines[..3], ["empty", "0", "0"], "{}", done.story());
    assert!(lines[3].parse::<u32>().unwrap() < 8, "{}", done.story());
    assert_eq!(lines[4..], ["0", "0", "no mount", "no device", "alive"], "{}", done.story());
}

#[tokio::test]
async fn who_is_in_no_list_of_users_has_the_root_as_home_and_nobody_is_privileged() {
    let Some(mut world) = world().await else { return };
    let user = json!({"security": {"run_as_user": 1001}});
    let done = world.run("a", pod(json!([step_with("a", "echo $HOME; cd; pwd", user)]))).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["/", "/"]);
    let privileged = json!({"security": {"privileged": true}});
    let done = world.run("c", pod(json!([step_with("a", "true", privileged)]))).await;
    assert!(matches!(done.pod().failure, Some(PodFailure::Refused { .. })), "{}", done.story());
}

#[tokio::test]
async fn shells_entry_points_and_environments_are_those_of_the_image() {
    let Some(mut world) = world().await else { return };
    let image = |image: &str, fields: serde_json::Value| {
        let mut step = json!({"name": format!("step-{}", image.replace(['/', '.', ':'], "-")), "image": image});
        step.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        step
    };
    let env = json!([{"name": "A", "from": {"text": "1"}}, {"name": "B", "from": {"text": "$(A)2$$(A)"}}]);
    let steps = json!([
        image("mirror.gcr.io/alpine:3", json!({"script": "[[ a == a ]] && echo ash"})),
        image("ubuntu", json!({"args": ["-c", "echo $BASH_VERSION | grep -c ."]})),
        image("bash", json!({"args": ["-c", "echo in bash $0"]})),
        image("busybox", json!({"command": ["echo"], "args": ["$(B)", "$(C)"], "env": env})),
        image(
            "python",
            json!({"script": "#!/usr/bin/env python3\nimport os\nprint(os.getcwd(), os.environ['HOME'], 'PITCREW_RUNNER' in os.environ)"})
        ),
        image(
            "docker.io/library/debian",
            json!({"script": "pwd; echo $1", "args": ["arg"], "workdir": "/workspace/made/here"})
        ),
    ]);
    let done = world.run("a", pod(steps)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["ash"]);
    assert_eq!(done.lines(1), ["1"]);
    assert_eq!(done.lines(2), ["in bash bash"]);
    assert_eq!(done.lines(3), ["12$(A) $(C)"]);
    assert_eq!(done.lines(4), ["/ /root False"]);
    assert_eq!(done.lines(5), ["/workspace/made/here", "arg"]);
    assert!(done.pod().containers[0].image_id.contains("@sha256:"));
}

#[tokio::test]
async fn images_and_programs_that_are_not_there_are_told_by_name() {
    let Some(mut world) = world().await else { return };
    let unknown = json!([{"name": "step-a", "image": "corp/tool:1", "script": "true"}]);
    let done = world.run("a", pod(unknown)).await;
    let Some(PodFailure::ImagePull { container, image, message }) = &done.pod().failure else {
        panic!("{}", done.story())
    };
    assert_eq!((container.as_str(), image.as_str()), ("step-a", "corp/tool:1"));
    assert!(message.contains("`corp/tool:1`") && message.contains("ubuntu"), "{message}");
    assert!(matches!(done.ended.exit, Exit::StartFailed { lasting: true, .. }));
    assert!(matches!(done.pod().containers[0].state, ContainerState::Waiting { .. }));

    let missing = json!([step("a", "#!/no/such/interpreter\n"), step("b", "true")]);
    let done = world.run("b", pod(missing)).await;
    assert_eq!(done.ended.exit, Exit::Code { code: 127 }, "{}", done.story());
    assert!(done.story().contains("/no/such/interpreter"), "{}", done.story());
    let missing = json!([{"name": "step-a", "image": "alpine", "command": ["no-such-program"]}]);
    let done = world.run("c", pod(missing)).await;
    assert!(done.story().contains("no program `no-such-program`"), "{}", done.story());
}

#[tokio::test]
async fn a_step_that_takes_too_long_is_ended_with_all_its_processes() {
    let Some(mut world) = world().await else { return };
    let script = "(trap '' TERM; sleep 3600) & trap 'echo asked; exit 0' TERM; sleep 3600 & wait";
    let steps = json!([step_with("a", script, json!({"timeout": "1s"})), step("b", "echo b")]);
    let mut spec = world.spec("a", pod(steps));
    spec.grace = jiff::SignedDuration::from_millis(300);
    let done = world.run_spec(spec).await;
    assert_eq!(done.ended.exit, Exit::TimedOut, "{}", done.story());
    assert_eq!(done.pod().failure, Some(PodFailure::StepTimeout { container: "step-a".into() }));
    assert_eq!(done.states()[0].1, TerminationReason::TimeoutExceeded);
    assert_eq!(done.states()[1].1, TerminationReason::Skipped);
    assert_eq!(done.lines(0), ["asked"]);
}

#[tokio::test]
async fn with_its_runner_everything_ends_and_nothing_is_left() {
    let Some(mut world) = world().await else { return };
    let memory = json!({"volumes": [{"name": "m", "source": {"scratch": {"medium": "memory", "limit": null}}}]});
    let script = "echo > /m/only-here; echo here > /workspace/mark; setsid sleep 7654321 & sleep 7654321";
    let mounts = json!({"mounts": [{"volume": "m", "at": "/m"}]});
    let handle = world.start(world.spec("a", pod_with(json!([step_with("a", script, mounts)]), memory))).await;
    let mark = world.root.join("attempts/a/pod/workspace/mark");
    until(|| mark.exists()).await;
    let mounts_before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts_before.contains("attempts/a/pod"), "the machine sees mounts of the container");
    let runner = world.runner_pid();
    signal(runner, rustix::process::Signal::KILL);
    let over = world.over(&handle).await;
    assert!(matches!(over, pitcrew_conformance::Over::Lost(_)), "{over:?}");
    let of_ours = || {
        let output = std::process::Command::new("pgrep").args(["-f", "sleep 7654321"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    until(|| of_ours().is_empty()).await;
    world.cleanup(&handle).await;
    world.gone(&handle).await;
}

#[tokio::test]
async fn an_image_of_the_settings_is_a_directory_or_an_environment_of_this_machine() {
    let Some(mut world) = world().await else { return };
    let (environment, root) = (world.root.join("images/env"), world.root.join("images/root"));
    std::fs::create_dir_all(environment.join("bin")).unwrap();
    std::fs::write(environment.join("pyvenv.cfg"), "home = /usr/bin\n").unwrap();
    std::os::unix::fs::symlink("/usr/bin/python3", environment.join("bin/python")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("etc/mark"), "from the image\n").unwrap();
    for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    let bin = environment.join("bin");
    let settings = json!({"images": [
        {"match": "corp/*/python", "path": [bin], "bind": {environment.to_str().unwrap(): environment}, "env": {"LEVEL": "3"}, "user": 1000},
        {"match": "corp/rootfs", "root": root, "bind": {"/usr": "/usr"}, "cmd": ["cat", "/etc/mark"], "workdir": "/etc"},
    ]});
    let image = |name: &str, image: &str, script: &str| json!({"name": name, "image": image, "script": script});
    let python = "#!/usr/bin/env python\nimport os, sys\nprint(sys.prefix, os.environ['LEVEL'], os.getuid())\n";
    let steps = json!([
        image("step-a", "corp/team/python:3.12", python),
        {"name": "step-b", "image": "corp/rootfs@sha256:0123"},
        image("step-c", "corp/rootfs", "pwd; echo broken > /etc/mark; cat /etc/mark"),
        image("step-d", "alpine", "echo still there"),
    ]);
    let mut spec = world.spec("a", pod(steps));
    spec.pod.as_mut().unwrap().sandbox = serde_json::from_value(settings).unwrap();
    let done = world.run_spec(spec).await;
    done.assert_success();
    assert_eq!(done.lines(0), [format!("{} 3 1000", environment.display())]);
    assert_eq!(done.lines(1), ["from the image"]);
    assert_eq!(done.lines(2), ["/etc", "broken"]);
    assert_eq!(done.lines(3), ["still there"]);
    assert_eq!(done.pod().containers[1].image_id, "corp/rootfs@sha256:0123");
    assert_eq!(std::fs::read_to_string(root.join("etc/mark")).unwrap(), "from the image\n");
}

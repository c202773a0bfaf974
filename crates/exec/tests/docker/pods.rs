//! What is only about engines: what they hold, what they forget, and what they say.

use jiff::SignedDuration;
use pitcrew_conformance::{Bench, Over, pod, pod_with, step, step_with};
use pitcrew_core::pod::PodFailure;
use pitcrew_core::state::Exit;
use serde_json::json;

use pitcrew_exec::Runtime;
use pitcrew_exec::docker::keeper::EnginePlace;

use crate::engine::{Engine, script};
use crate::world::{Docker, signal, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_comes_once_and_whole() {
    let Some(mut bench) = world().await else { return };
    let script = "i=0; while [ $i -lt 20000 ]; do echo line-$i; echo err-$i >&2; i=$((i+1)); done";
    let done = bench.run("a", pod(json!([step("a", script)]))).await;
    done.assert_success();
    let of = |prefix: &str| -> Vec<String> {
        done.lines(0).iter().filter(|line| line.starts_with(prefix)).map(|line| (*line).to_owned()).collect()
    };
    let wanted = |prefix: &str| -> Vec<String> { (0..20_000).map(|number| format!("{prefix}{number}")).collect() };
    assert!(of("line-") == wanted("line-") && of("err-") == wanted("err-"), "{} lines", done.lines(0).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_memory_left_is_told_so() {
    let Some(mut bench) = world().await else { return };
    let limits = json!({"resources": {"limits": {"memory": "24Mi"}}});
    let script = "x=x; while true; do x=$x$x; done";
    let done = bench.run("a", pod(json!([step_with("a", script, limits)]))).await;
    assert_eq!(done.ended.exit, Exit::OutOfMemory, "{}", done.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_as_its_policy_says_and_the_engine_says_why_it_cannot() {
    let Some(mut bench) = world().await else { return };
    for (task, pull, image, words) in [
        ("never", "never", "registry.invalid/no:1", "imagePullPolicy: Never"),
        ("missing", "if_not_present", "registry.invalid/no:1", "registry.invalid"),
        // It is there, and asked for all the same.
        ("always", "always", "busybox", "busybox"),
    ] {
        let step = json!({"name": "step-a", "image": image, "pull": pull, "script": "echo ran"});
        let done = bench.run(task, pod(json!([step]))).await;
        let Some(PodFailure::ImagePull { message, .. }) = &done.pod().failure else { panic!("{}", done.story()) };
        assert!(message.contains(words), "{message}");
        assert!(!done.lines(0).contains(&"ran"));
        // A registry may have it a moment later.
        assert!(matches!(done.ended.exit, Exit::StartFailed { lasting: false, .. }), "{}", done.story());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_asked_for_and_the_engine_says_that_it_has_none() {
    let Some(mut bench) = world().await else { return };
    let mut spec = bench.spec("a", pod(json!([step("a", "echo ran")])));
    spec.gpus = Some(vec!["GPU-00000000-0000-0000-0000-000000000000".to_owned()]);
    let done = bench.run_spec(spec).await;
    let Some(PodFailure::Config { message, .. }) = &done.pod().failure else { panic!("{}", done.story()) };
    assert!(message.contains("nvidia") && message.contains("gpu"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_a_secret_is_on_no_disk_of_the_engine() {
    let Some(mut bench) = world().await else { return };
    let secret = "s3cr3t-of-the-volume";
    let file = json!({"path": "key", "bytes": secret.as_bytes(), "mode": 0o400, "is_secret": true});
    let mounts = json!({"mounts": [{"volume": "v", "at": "/secret"}]});
    let script = "mount | grep ' /secret ' | grep -c tmpfs; wc -c < /secret/key; if (echo x > /secret/key) 2>/dev/null; then echo wrote; fi";
    let volumes = json!({"volumes": [{"name": "v", "source": {"files": [file]}}]});
    let done = bench.run("a", pod_with(json!([step_with("a", script, mounts)]), volumes)).await;
    assert_eq!(done.lines(0), ["1", "20"], "{}", done.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_runner_leaves_nothing_once_there_is_another() {
    let Some(mut bench) = world().await else { return };
    let handle = bench.start(bench.spec("a", pod(json!([step("a", "echo up; sleep 3600")])))).await;
    bench.says(&handle, 0, "up").await;
    let label = format!("pitcrew.attempt={}", handle.id);
    assert!(bench.engine.labelled(&label).len() > 2);
    signal(bench.runner_pid(), rustix::process::Signal::KILL);
    let Over::Lost(_) = bench.over(&handle).await else { panic!("it was lost") };
    // The next pod begins with a new runner.
    let done = bench.run("b", pod(json!([step("a", "echo b")]))).await;
    done.assert_success();
    assert_eq!(bench.engine.labelled(&label), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_somebody_removes_is_lost() {
    let Some(mut bench) = world().await else { return };
    let handle = bench.start(bench.spec("a", pod(json!([step("a", "echo up; sleep 3600")])))).await;
    bench.says(&handle, 0, "up").await;
    let names = bench.engine.labelled(&format!("pitcrew.attempt={}", handle.id));
    let step = names.iter().find(|name| name.ends_with("step-a")).unwrap().trim_start_matches('/').to_owned();
    bench.engine.ask("DELETE", &format!("/containers/{step}?force=true"));
    let Over::Lost(reason) = bench.over(&handle).await else { panic!("it was lost") };
    assert!(reason.contains("removed"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_lasts_as_long_as_its_directory() {
    let Some(mut bench) = world().await else { return };
    let volumes = json!({"volumes": [{"name": "c", "source": {"shared": {"dir": "claims/default/c"}}}]});
    let mounts = json!({"mounts": [{"volume": "c", "at": "/c"}]});
    let parts = json!({"mounts": [{"volume": "c", "at": "/part", "sub_path": "deep/er"}]});
    let first = json!([step_with("a", "echo one > /c/f", mounts.clone()), step_with("b", "echo two > /part/f", parts)]);
    bench.run("a", pod_with(first, volumes.clone())).await.assert_success();
    let second = json!([step_with("a", "cat /c/f /c/deep/er/f", mounts)]);
    let done = bench.run("b", pod_with(second, volumes)).await;
    assert_eq!(done.lines(0), ["one", "two"], "{}", done.story());
    let label = "pitcrew.stands-for=claims/default/c";
    let own = |names: Vec<String>| names.len();
    let before = own(bench.engine.labelled(label));
    std::fs::remove_dir_all(bench.root.join("claims")).unwrap();
    bench.run("c", pod(json!([step("a", "true")]))).await.assert_success();
    assert!(own(bench.engine.labelled(label)) < before, "its volume is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_when_its_engine_is_stopped_is_lost_and_removed_when_it_is_back() {
    let Some(mut bench) = world().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("engine");
    bench.world = Docker::at(Engine::own(&folder));
    // It ends well when it is asked to: only the engine's end tells that nobody asked.
    let script_of = "trap 'exit 0' TERM; echo up; while true; do sleep 0.1; done";
    let mut spec = bench.spec("a", pod(json!([step("a", script_of), step("b", "echo b")])));
    spec.grace = SignedDuration::from_secs(1);
    let handle = bench.start(spec).await;
    bench.says(&handle, 0, "up").await;
    script("restart", &folder);
    let over = bench.over(&handle).await;
    let Over::Lost(reason) = over else { panic!("it was lost, and not {over:?}") };
    assert!(reason.contains("engine"), "{reason}");
    assert_eq!(bench.engine.labelled(&format!("pitcrew.attempt={}", handle.id)), Vec::<String>::new());
    // And it works as before.
    bench.run("b", pod(json!([step("a", "echo again")]))).await.assert_success();
    script("stop", &folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_over_tls_knows_who_has_its_certificates_and_nobody_else() {
    let Some(mut bench) = world().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("engine");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.world = Docker::at(Engine::with_port(&folder, port));
    let host = format!("tcp://localhost:{port}");
    let spec_of = |bench: &Bench<Docker>, certificates: Option<&std::path::Path>, task: &str| {
        let mut spec = bench.spec(task, pod(json!([step("a", "echo over tls")])));
        let engine = EnginePlace { host: host.clone(), certificates: certificates.map(Into::into) };
        spec.pod.as_mut().unwrap().runtime = Runtime::Docker { engine, registries: Vec::new() };
        spec
    };
    let spec = spec_of(&bench, Some(&folder.join("certificates")), "with");
    let done = bench.run_spec(spec).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["over tls"]);
    let spec = spec_of(&bench, None, "without");
    let done = bench.run_spec(spec).await;
    assert!(!done.ended.exit.is_success(), "{}", done.story());
    // Somebody else's certificate is nobody's.
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let own = folder.join("certificates");
    std::fs::copy(own.join("ca.pem"), other.join("ca.pem")).unwrap();
    let made = std::process::Command::new("openssl")
        .current_dir(&other)
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=other",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .output()
        .unwrap();
    assert!(made.status.success());
    let spec = spec_of(&bench, Some(&other), "other");
    let done = bench.run_spec(spec).await;
    assert!(!done.ended.exit.is_success(), "{}", done.story());
    script("stop", &folder);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_a_pod_are_those_that_it_says_and_what_has_no_effect_is_told() {
    let Some(mut bench) = world().await else { return };
    let cluster = json!({
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["store.test", "cache.test"]}],
        "dnsConfig": {"searches": ["ml.test"], "options": [{"name": "ndots", "value": "2"}]},
        "runtimeClassName": "gvisor", "affinity": {"podAffinity": {}}, "nodeSelector": {"a": "b"},
    });
    let script =
        "grep -c 192.0.2.7 /etc/hosts; grep -o 'search ml.test' /etc/resolv.conf; grep -o ndots:2 /etc/resolv.conf";
    let done = bench.run("a", pod_with(json!([step("a", script)]), json!({"cluster": cluster}))).await;
    assert_eq!(done.lines(0), ["2", "search ml.test", "ndots:2"], "{}", done.story());
    let told: Vec<_> = done.told().into_iter().filter(|line| line.contains("no effect")).collect();
    assert_eq!(told, ["`podAffinity`, `runtimeClassName` of the pod has no effect on a Docker engine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_volume_that_a_link_leads_out_of_is_refused() {
    let Some(mut bench) = world().await else { return };
    let volumes = json!({"volumes": [{"name": "v", "source": {"scratch": {"medium": "disk"}}}]});
    let whole = json!({"mounts": [{"volume": "v", "at": "/v"}]});
    for (task, part) in [("last", "out"), ("between", "out/etc")] {
        let parts = json!({"mounts": [{"volume": "v", "at": "/part", "sub_path": part}]});
        let steps =
            json!([step_with("a", "ln -s / /v/out", whole.clone()), step_with("b", "echo ran; ls /part", parts)]);
        let done = bench.run(task, pod_with(steps, volumes.clone())).await;
        let Some(PodFailure::Config { message, .. }) = &done.pod().failure else { panic!("{}", done.story()) };
        assert!(message.contains("`out` of its volume") && message.contains("no directory"), "{message}");
        assert!(done.lines(1).is_empty(), "{}", done.story());
    }
}

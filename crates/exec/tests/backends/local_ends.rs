//! How real processes end, and how their ends are told apart.

use std::path::PathBuf;

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::{Command, LogStream, Observation, StepSpec};

use crate::harness::{World, seconds, until};
use crate::program::write_program;

fn step(name: &str, text: &str) -> StepSpec {
    StepSpec::new(name, Command::shell(text))
}

#[tokio::test]
async fn steps_run_in_order_until_one_fails() {
    let mut world = World::local();
    let steps = vec![
        step("one", "echo one; exit 0"),
        StepSpec { continue_on_error: true, ..step("two", "echo two >&2; exit 9") },
        step("three", "echo three; false; echo never"),
        step("four", "echo four"),
    ];
    let handle = world.start(world.steps("a", steps)).await;
    let ended = world.ended(&handle).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::Code { code: 1 }, Some("three")));
    let exits: Vec<_> = ended.steps.iter().map(|s| (s.name.as_str(), s.exit.code())).collect();
    assert_eq!(exits, [("one", Some(0)), ("two", Some(9)), ("three", Some(1))]);
    assert_eq!(ended.tail, "one\ntwo\nthree");
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["one", "three"]);
    assert_eq!(
        world.lines(&handle, LogStream::System).await,
        ["step `two` failed (exit code 9); going on", "step `three` ended with exit code 1"]
    );
    let numbers: Vec<u32> =
        world.log(&handle).await.iter().filter(|r| r.stream != LogStream::System).map(|r| r.step).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

#[tokio::test]
async fn a_step_that_runs_too_long_is_stopped_by_the_runner() {
    let mut world = World::local();
    let slow = |name| StepSpec { timeout: Some(SignedDuration::from_millis(100)), ..step(name, "sleep 600") };
    let steps = vec![StepSpec { continue_on_error: true, ..slow("one") }, slow("two"), step("three", "true")];
    let handle = world.start(world.steps("a", steps)).await;
    let ended = world.ended(&handle).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::TimedOut, Some("two")));
    assert_eq!(ended.steps.len(), 2);
    let said = world.lines(&handle, LogStream::System).await;
    assert!(said[0].contains("step `one` ran longer than 0.1 s"), "{said:?}");

    let mut stubborn = world.steps("b", vec![slow("one")]);
    stubborn.steps[0].command = Command::shell("trap '' TERM; while :; do sleep 1; done");
    stubborn.grace = SignedDuration::from_millis(50);
    assert_eq!(world.run(stubborn).await.exit, Exit::TimedOut);
}

#[tokio::test]
async fn every_way_not_to_start_has_its_reason() {
    let mut world = World::local();
    std::fs::write(world.root.join("plain"), "#!/bin/sh\n").unwrap();
    write_program(&world.root.join("shebang"), "#!/nonexistent/sh\n");
    let argv = |words: &[&str]| StepSpec::new("main", Command::Argv(words.iter().map(|w| (*w).to_owned()).collect()));
    let script = |interpreter: &str| {
        let interpreter = vec![interpreter.to_owned()];
        StepSpec::new("main", Command::Script { text: "x".into(), interpreter })
    };
    let cases = [
        (argv(&["no-such-program-here"]), "there is no program `no-such-program-here` in PATH"),
        (argv(&["./gone"]), "there is no program `./gone`"),
        (argv(&["./plain"]), "`./plain` is not executable; try `chmod +x"),
        (argv(&["./shebang"]), "the interpreter that the first line of `./shebang` names does not exist"),
        (argv(&[]), "the command is empty"),
        (argv(&["echo", "a\0b"]), "contains a NUL byte"),
        (script("python9"), "there is no program `python9` in PATH"),
        (StepSpec { workdir: Some("gone".into()), ..step("main", "true") }, "gone` does not exist"),
        (StepSpec { workdir: Some("plain".into()), ..step("main", "true") }, "plain` is no directory"),
    ];
    for (n, (step, expected)) in cases.into_iter().enumerate() {
        let ended = world.run(world.steps(&format!("t{n}"), vec![step])).await;
        let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{expected}: {ended:?}") };
        assert!(reason.contains(expected), "{expected}: {reason}");
    }
    let mut spec = world.script("unwritable", "true");
    spec.dir = world.root.join("plain/attempt");
    let handle = world.start(spec).await;
    let ended = world.ended(&handle).await;
    let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("cannot write to the attempt's directory"), "{reason}");
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
}

#[tokio::test]
async fn a_signal_that_somebody_else_sent_is_told_as_that_signal() {
    let mut world = World::local();
    for (n, signal) in [("KILL", 9), ("SEGV", 11), ("TERM", 15)] {
        let ended = world.run(world.script(n, &format!("kill -{n} $$"))).await;
        assert_eq!(ended.exit, Exit::Signal { signal });
    }
    // A shell tells the death of its child as a code.
    let ended = world.run(world.script("child", "sh -c 'kill -KILL $$'")).await;
    assert_eq!(ended.exit, Exit::Code { code: 137 });
}

#[tokio::test]
async fn limits_hold_and_running_out_of_memory_is_told_apart() {
    let mut world = World::local();
    let capabilities = world.backend.capabilities().await;
    if !(capabilities.memory_limit && capabilities.cpu_limit) {
        eprintln!("not tested: {:?}", capabilities.remarks);
        return;
    }
    // `tail` keeps the whole of an endless line in memory, and `dd` a block. Once as the shell's child, and once as the step itself.
    for (name, script) in
        [("child", "head -c 200M /dev/zero | tail"), ("itself", "exec dd if=/dev/zero of=/dev/null bs=200M count=1")]
    {
        let mut spec = world.script(name, script);
        spec.limits.memory_bytes = Some(32 << 20);
        let handle = world.start(spec).await;
        let ended = world.ended(&handle).await;
        assert_eq!(ended.exit, Exit::OutOfMemory, "{name}");
        assert!(ended.usage.peak_memory_bytes.is_some_and(|b| (16 << 20..=32 << 20).contains(&b)), "{ended:?}");
        assert_eq!(world.lines(&handle, LogStream::System).await, ["step `main` ran out of memory"]);
    }
    let mut spec = world.script("fits", "cat /proc/self/cgroup; exit 3");
    spec.limits.memory_bytes = Some(64 << 20);
    spec.limits.cpu_milli = Some(500);
    let handle = world.start(spec).await;
    assert_eq!(world.ended(&handle).await.exit, Exit::Code { code: 3 });
    let own: Vec<String> =
        world.lines(&handle, LogStream::Stdout).await.into_iter().filter(|l| l.contains("/pitcrew-")).collect();
    assert!(!own.is_empty());
    for line in own {
        let name = line.rsplit('/').next().unwrap().to_owned();
        let found = std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &name]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the cgroup is still there");
    }
}

#[tokio::test]
async fn use_is_measured_gpus_included() {
    let mut world = World::local();
    let bin = world.root.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let smi = bin.join("nvidia-smi");
    write_program(
        &smi,
        "#!/bin/sh\necho \"0, GPU-a, 80, 1000\"; echo '1, GPU-b, 5, 7'; touch \"${0%/*}/asked\"; exit 15\n",
    );
    let path = format!("{}:{}", bin.display(), world.config.base_env["PATH"]);
    world.config.base_env.insert("PATH".into(), path);
    world.restart();
    let mut spec = world.script(
        "a",
        "while ! [ -e bin/asked ]; do sleep 0.01; done; sleep 0.2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
    );
    spec.gpus = Some(vec!["GPU-a".into()]);
    spec.sample_usage = true;
    let usage = world.run(spec).await.usage;
    assert_eq!(usage.gpus.len(), 1, "{usage:?}");
    assert_eq!((usage.gpus[0].uuid.as_str(), usage.gpus[0].max_utilization_percent), ("GPU-a", Some(80.0)));
    assert_eq!(usage.gpus[0].max_memory_bytes, Some(1000 << 20));
    assert!(usage.user_cpu_seconds > 0.0 && usage.wall_seconds > 0.2, "{usage:?}");
    assert!(usage.peak_memory_bytes.is_some_and(|b| b > 500_000), "{usage:?}");
}

/// A tiny file system that the log fills; needs the right to mount.
#[tokio::test]
async fn a_full_disk_costs_the_log_and_neither_the_task_nor_its_end() {
    let mut world = World::local();
    let Some(disk) = Disk::mount(world.root.join("attempts")) else {
        eprintln!("not tested: this user cannot mount a file system");
        return;
    };
    // What the runner itself has to say does not fit either.
    world.config.runner_dir = disk.0.join("runner");
    world.restart();
    let script = "cat /dev/zero > attempts/filler || true; seq 1000; echo done > finished";
    let handle = world.start(world.script("a", script)).await;
    let ended = world.ended(&handle).await;
    assert!(ended.exit.is_success(), "{ended:?}");
    assert!(world.root.join("finished").exists());
    // The end could not be written down, and is known all the same.
    assert!(!handle.dir.join("exit.json").exists());
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended.clone()));
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    until(async || handle.dir.join("exit.json").exists()).await;
    assert_eq!(world.backend.attach(&handle).await, Observation::Ended(ended));
}

struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir(&at).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&at);
        mount.status().is_ok_and(|s| s.success()).then_some(Disk(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_cancel_between_steps_is_seen() {
    let mut world = World::local();
    let steps = vec![step("one", "echo > began; while ! [ -e go ]; do sleep 0.01; done"), step("two", "echo > second")];
    let handle = world.start(world.steps("a", steps)).await;
    world.file("began").await;
    world.backend.cancel(&handle, seconds(60)).await.unwrap();
    let ended = world.ended(&handle).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::Cancelled, Some("one")));
    assert!(!world.root.join("second").exists());
}

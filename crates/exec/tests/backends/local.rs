//! The local backend's runner: one per directory, apart from the server, and what happens when it is killed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;

use pitcrew_core::state::Exit;
use pitcrew_exec::local::LocalBackend;
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Command, Handle, LogStream, Observation, StepSpec};
use tokio::sync::mpsc::unbounded_channel;

use crate::harness::{World, is_alive, is_running, read_pid, seconds, signal, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_start_at_once_share_one_runner_and_each_attempt_runs_once() {
    let world = World::local();
    let mut tasks = Vec::new();
    for n in 0..8 {
        let config = world.config.clone();
        let spec = world.script("same", "echo ran >> ran; echo $PPID");
        let own = world.script(&format!("own{n}"), "echo $PPID");
        tasks.push(tokio::spawn(async move {
            let (sender, mut events) = unbounded_channel();
            let backend = LocalBackend::new(config, sender).unwrap();
            for spec in [spec, own] {
                let handle = backend.prepare(&spec);
                backend.start(&handle, spec).await.unwrap();
                while !matches!(events.recv().await.unwrap(), BackendEvent::Ended { id, .. } if id == handle.id) {}
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(world.root.join("ran")).unwrap(), "ran\n");
    let runner = world.runner_pid().to_string();
    for n in 0..8 {
        let handle = world.backend.prepare(&world.script(&format!("own{n}"), ""));
        assert_eq!(world.lines(&handle, LogStream::Stdout).await, [runner.as_str()]);
    }
}

#[tokio::test]
async fn the_runner_is_out_of_reach_of_the_servers_terminal() {
    let mut world = World::local();
    world.run(world.script("a", "true")).await;
    let pid = rustix::process::Pid::from_raw(world.runner_pid()).unwrap();
    assert_eq!(rustix::process::getsid(Some(pid)).unwrap(), pid);
    let socket = world.root.join("runner/runner.sock").metadata().unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_killed_runner_loses_its_attempts_ends_their_processes_and_is_replaced() {
    let mut world = World::local();
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 600' &\n echo $$ > main\n sleep 600";
    let handle = world.start(world.script("a", script)).await;
    let pids = [world.file("main").await, world.file("daemon").await];
    until(async || pids.iter().all(|p| std::fs::read_to_string(p).is_ok_and(|t| t.ends_with('\n')))).await;
    let pids = pids.map(|path| read_pid(&path));
    let runner = world.runner_pid();
    world.kill_runner();
    let BackendEvent::Lost { reason, .. } = world.over(&handle).await else { panic!("not lost") };
    assert!(reason.contains("runner was killed"), "{reason}");
    // Nothing of it is left by the time that it is told: a new attempt may start at once.
    for pid in pids {
        assert!(!is_alive(pid), "process {pid} still runs");
    }
    assert!(world.run(world.script("b", "true")).await.exit.is_success());
    assert_ne!(world.runner_pid(), runner);
}

#[tokio::test]
async fn a_runner_that_is_told_to_end_takes_its_attempts_along_as_lost() {
    let mut world = World::local();
    let handle = world.start(world.script("a", "echo $$ > main; sleep 600")).await;
    let path = world.file("main").await;
    until(async || std::fs::read_to_string(&path).unwrap().ends_with('\n')).await;
    signal(world.runner_pid(), rustix::process::Signal::TERM);
    assert!(matches!(world.over(&handle).await, BackendEvent::Lost { .. }));
    assert!(!is_alive(read_pid(&path)));
}

#[tokio::test]
async fn a_runner_of_another_version_is_told_about_and_nothing_is_decided() {
    let world = World::local();
    std::fs::create_dir_all(world.root.join("runner")).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(world.root.join("runner/runner.sock")).unwrap();
    let old = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
        stream.write_all(b"{\"hello\":{\"version\":99,\"pid\":4242}}\n").unwrap();
    });
    let spec = world.script("a", "true");
    let handle = world.backend.prepare(&spec);
    let observation = world.backend.attach(&handle).await;
    let Observation::Unreachable { reason } = observation else { panic!("{observation:?}") };
    assert!(reason.contains("process 4242") && reason.contains("protocol 99"), "{reason}");
    old.join().unwrap();
}

#[tokio::test]
async fn a_runner_that_cannot_be_started_makes_the_backend_unreachable() {
    let world = World::local();
    let mut config = world.config.clone();
    config.runner = vec!["/nonexistent/pitcrew".into()];
    let backend = LocalBackend::new(config, unbounded_channel().0).unwrap();
    let spec = world.script("a", "true");
    let error = backend.start(&backend.prepare(&spec), spec).await.unwrap_err().to_string();
    assert!(
        error.starts_with("the `local` backend cannot be reached") && error.contains("/nonexistent/pitcrew"),
        "{error}"
    );
}

#[tokio::test]
async fn the_environment_is_clean_and_never_on_a_disk() {
    let mut world = World::local();
    let mut step = StepSpec::new("show", Command::shell("env; test \"$SECRET\" = hunter2-$USED"));
    step.env = BTreeMap::from([("USED".into(), "step".into()), ("PITCREW_ATTEMPT".into(), "forged".into())]);
    let mut spec = world.steps("a", vec![step]);
    spec.env = BTreeMap::from([("SECRET".into(), "hunter2-step".into()), ("USED".into(), "task".into())]);
    spec.gpus = Some(vec!["GPU-a".into(), "GPU-b".into()]);
    // What the test runner was started with stays with it.
    assert!(std::env::var("CARGO_MANIFEST_DIR").is_ok());
    let handle = world.start(spec).await;
    // `env` printed the secret; keep it out of the search below.
    assert!(world.ended(&handle).await.exit.is_success());
    let lines = world.lines(&handle, LogStream::Stdout).await;
    assert!(!lines.iter().any(|l| l.starts_with("CARGO")), "{lines:?}");
    for expected in ["PITCREW_ATTEMPT=1/a.1", "PITCREW_STEP=show", "CUDA_VISIBLE_DEVICES=GPU-a,GPU-b"] {
        assert!(lines.iter().any(|l| l == expected), "{expected}: {lines:?}");
    }
    std::fs::remove_file(handle.dir.join("log")).unwrap();
    let output = std::process::Command::new("grep").args(["-r", "hunter2-step"]).arg(&world.root).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");

    let mut none = world.script("none", "test -z \"$CUDA_VISIBLE_DEVICES\" -a \"${CUDA_VISIBLE_DEVICES+set}\" = set");
    none.gpus = Some(Vec::new());
    assert!(world.run(none).await.exit.is_success());
}

/// Every process must be gone when the end is told: those of the group, and those that left it.
#[tokio::test]
async fn a_cancel_reaches_every_process_and_gives_each_its_grace() {
    let mut world = World::local();
    // The shell dies at once by SIGTERM; the programs that it started must still get their grace.
    let script = r#"
        setsid sh -c 'trap "echo saved > daemon-saved; exit" TERM; echo $$ > daemon; while :; do sleep 0.01; done' &
        sh -c 'trap "sleep 0.3; echo saved > child-saved; exit" TERM; echo $$ > child; while :; do sleep 0.01; done'
    "#;
    let handle = world.start(world.script("a", script)).await;
    let pids = [world.file("daemon").await, world.file("child").await];
    until(async || pids.iter().all(|p| std::fs::read_to_string(p).is_ok_and(|t| t.ends_with('\n')))).await;
    world.backend.cancel(&handle, seconds(30)).await.unwrap();
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    for (pid, saved) in pids.iter().zip(["daemon-saved", "child-saved"]) {
        assert!(!is_alive(read_pid(pid)), "{pid:?} still runs");
        assert!(world.root.join(saved).exists(), "{saved} is missing");
    }
}

#[tokio::test]
async fn what_ignores_the_one_polite_request_is_killed_and_a_second_cancel_shortens_the_grace() {
    let mut world = World::local();
    let script = "trap 'echo asked >> asked' TERM; setsid sh -c 'trap : TERM; echo $$ > daemon; while :; do sleep 1; done' & echo $$ > main; while :; do sleep 0.01; done";
    let handle = world.start(world.script("a", script)).await;
    let pids = [world.file("daemon").await, world.file("main").await];
    until(async || pids.iter().all(|p| std::fs::read_to_string(p).is_ok_and(|t| t.ends_with('\n')))).await;
    world.backend.cancel(&handle, seconds(3600)).await.unwrap();
    assert!(is_running(&world.backend.attach(&handle).await));
    world.file("asked").await;
    world.backend.cancel(&handle, seconds(0)).await.unwrap();
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    assert_eq!(std::fs::read_to_string(world.root.join("asked")).unwrap(), "asked\n");
    assert!(pids.iter().all(|pid| !is_alive(read_pid(pid))));
}

#[tokio::test]
async fn what_a_step_leaves_in_its_group_ends_with_it_and_a_daemon_with_the_attempt() {
    let mut world = World::local();
    let first = "sleep 600 & echo $! > left; setsid sh -c 'echo $$ > daemon; exec sleep 600' >/dev/null 2>&1 & \
                 while ! [ -s daemon ]; do sleep 0.01; done";
    // A zombie is as good as gone.
    let second = "! grep -qs '^State:.[^Z]' /proc/$(cat left)/status; kill -0 $(cat daemon)";
    let steps = vec![StepSpec::new("first", Command::shell(first)), StepSpec::new("second", Command::shell(second))];
    let ended = world.run(world.steps("a", steps)).await;
    assert!(ended.exit.is_success(), "{ended:?}");
    assert!(!is_alive(read_pid(&world.root.join("daemon"))));
}

/// A thousand and more descriptors would be needed at once; the runner takes as many attempts as it can serve.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_attempts_at_once_all_end() {
    let mut world = World::local();
    let specs: Vec<AttemptSpec> = (0..300)
        .map(|n| world.steps(&format!("t{n}"), vec![StepSpec::new("s", Command::Argv(vec!["true".into()]))]))
        .collect();
    let mut waiting: std::collections::HashSet<_> = specs.iter().map(|s| s.id.clone()).collect();
    let handles: Vec<Handle> = specs.iter().map(|s| world.backend.prepare(s)).collect();
    futures::future::try_join_all(handles.iter().zip(specs).map(|(h, s)| world.backend.start(h, s))).await.unwrap();
    while !waiting.is_empty() {
        if let BackendEvent::Ended { id, ended } = world.events.recv().await.unwrap() {
            assert!(ended.exit.is_success() && waiting.remove(&id), "{id}: {ended:?}");
        }
    }
}

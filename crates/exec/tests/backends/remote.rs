//! What runs on a host as it runs here: environments, streams, steps, outputs; under every shell and tagger.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::{Command, LogStream, StepSpec};
use serde_json::json;

use crate::harness::{Kind, World, is_alive, is_running, read_pid, seconds, until};
use crate::program::write_program;
use crate::shell_host::{AWK, BASH, BUSYBOX, DASH, SH_ONLY, Shell};

const SHELLS: [&Shell; 5] = [&DASH, &BASH, &AWK, &SH_ONLY, &BUSYBOX];

fn step(name: &str, text: &str) -> StepSpec {
    StepSpec::new(name, Command::shell(text))
}

/// One attempt that uses everything, under every shell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shell_does_the_same() {
    for shell in SHELLS {
        let mut world = World::ssh(shell);
        let text = "it's\ttwo\nlines $HOME `x` \"q\" \\ €😀\u{81}\u{88}";
        let mut spec = world.steps(
            "a",
            vec![
                step("env", "printf '%s' \"$TEXT\" > text; echo one; echo two >&2; echo \"$PITCREW_STEP $MORE ${PITCREW_KEEPER-none} ${SSH_CONNECTION-none}\""),
                StepSpec { continue_on_error: true, ..step("fails", "echo to err >&2; exit 9") },
                StepSpec { capture_stdout: true, ..step("out", "echo answer=42 > $PITCREW_OUTPUT; echo kept; umask > mask") },
                step("signal", "kill -11 $$"),
                step("never", "echo never"),
            ],
        );
        spec.env = BTreeMap::from([
            ("TEXT".into(), text.into()),
            ("MORE".into(), "task".into()),
            // Names that the keeper uses itself, or that some shell does not give away.
            ("number".into(), "77".into()),
            ("dir".into(), "/nowhere".into()),
            ("UID".into(), "5".into()),
            ("PITCREW_OUTPUT".into(), "forged".into()),
        ]);
        spec.steps[0].env = BTreeMap::from([("MORE".into(), "step".into())]);
        spec.limits.memory_bytes = Some(1 << 30);
        let handle = world.start(spec).await;
        let ended = world.ended(&handle).await;
        let name = shell.name;
        assert_eq!(
            (&ended.exit, ended.failed_step.as_deref()),
            (&Exit::Signal { signal: 11 }, Some("signal")),
            "{name}: {ended:?}"
        );
        let codes: Vec<_> = ended.steps.iter().map(|s| (s.name.as_str(), s.exit.code())).collect();
        assert_eq!(codes, [("env", Some(0)), ("fails", Some(9)), ("out", Some(0)), ("signal", Some(139))], "{name}");
        assert_eq!(std::fs::read_to_string(world.root.join("text")).unwrap(), text, "{name}");
        assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["one", "env step none none", "kept"], "{name}");
        let errors = world.lines(&handle, LogStream::Stderr).await;
        let ours: Vec<_> = errors.iter().filter(|line| !line.contains("UID")).collect();
        assert_eq!(ours, ["two", "to err"], "{name}");
        assert_eq!(
            world.lines(&handle, LogStream::System).await,
            [
                "the limit on memory is not enforced: the task runs on a host over SSH",
                "step `fails` failed (exit code 9); going on",
                "step `signal` was killed by SIGSEGV"
            ],
            "{name}"
        );
        assert_eq!(ended.outputs.get("answer"), Some(&json!("42")), "{name}");
        assert_eq!(ended.stdout.as_deref(), Some("kept\n"), "{name}");
        assert_ne!(std::fs::read_to_string(world.root.join("mask")).unwrap().trim(), "0077", "{name}");
        // The clock of busybox has whole seconds.
        assert!((0.0..20.0).contains(&ended.usage.wall_seconds), "{name}: {ended:?}");
        assert!(ended.usage.connect_seconds.is_some_and(|seconds| seconds >= 0.0), "{name}: {ended:?}");
        // Nothing of it holds on.
        until(async || world.host.attempts().len() == 1).await;
        world.backend.cleanup(&handle).await.unwrap();
        until(async || world.host.attempts().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shell_stops_what_takes_too_long_and_ends_what_is_left() {
    for shell in SHELLS {
        let mut world = World::ssh(shell);
        let name = shell.name;
        let slow = |name| StepSpec { timeout: Some(SignedDuration::from_millis(200)), ..step(name, "sleep 600") };
        let steps = vec![StepSpec { continue_on_error: true, ..slow("one") }, slow("two"), step("three", "true")];
        let handle = world.start(world.steps("slow", steps)).await;
        let ended = world.ended(&handle).await;
        assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::TimedOut, Some("two")), "{name}: {ended:?}");
        let said = world.lines(&handle, LogStream::System).await;
        assert_eq!(
            said,
            [
                "step `one` ran longer than 0.200 s; ending it",
                "step `one` failed (timed out); going on",
                "step `two` ran longer than 0.200 s; ending it",
                "timed out"
            ],
            "{name}"
        );

        // A daemon that keeps the pipes of its step open, and a child in the group of the step.
        let left = "setsid sh -c 'echo $$ > daemon; exec sleep 600' & sleep 600 & echo $! > child; while ! [ -s daemon ]; do sleep 0.01; done; echo end";
        let begun = world.start(world.script("left", left)).await;
        let ended = world.ended(&begun).await;
        assert!(ended.exit.is_success(), "{name}: {ended:?}");
        assert!(ended.usage.wall_seconds < 10.0, "{name}");
        for file in ["daemon", "child"] {
            assert!(!is_alive(read_pid(&world.root.join(file))), "{name}: {file}");
        }
        assert_eq!(world.lines(&begun, LogStream::Stdout).await, ["end"], "{name}");
        // The child was killed with its step, and may be seen while it still dies.
        let said = world.lines(&begun, LogStream::System).await;
        let expected = [1, 2].map(|count| format!("ended {count} processes that were left running"));
        assert!(said.len() == 1 && expected.contains(&said[0]), "{name}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_shell_gives_each_process_its_grace_and_no_more() {
    for shell in SHELLS {
        let mut world = World::ssh(shell);
        let name = shell.name;
        let script = r#"
            setsid sh -c 'trap "echo saved > daemon-saved; exit" TERM; echo $$ > daemon; while :; do sleep 0.05; done' &
            sh -c 'trap "sleep 0.3; echo saved > child-saved; exit" TERM; echo $$ > child; while :; do sleep 0.05; done'
        "#;
        let handle = world.start(world.script("polite", script)).await;
        let pids = [world.file("daemon").await, world.file("child").await];
        until(async || pids.iter().all(|p| std::fs::read_to_string(p).is_ok_and(|t| t.ends_with('\n')))).await;
        world.backend.cancel(&handle, seconds(30)).await.unwrap();
        assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled, "{name}");
        for (pid, saved) in pids.iter().zip(["daemon-saved", "child-saved"]) {
            assert!(!is_alive(read_pid(pid)), "{name}: {pid:?} still runs");
            assert!(world.root.join(saved).exists(), "{name}: {saved} is missing");
        }
        let script = "trap 'echo asked >> asked' TERM; echo $$ > main; while :; do sleep 0.05; done";
        let handle = world.start(world.script("stubborn", script)).await;
        let main = world.file("main").await;
        until(async || std::fs::read_to_string(&main).is_ok_and(|t| t.ends_with('\n'))).await;
        world.backend.cancel(&handle, seconds(3600)).await.unwrap();
        world.file("asked").await;
        world.backend.cancel(&handle, seconds(0)).await.unwrap();
        assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled, "{name}");
        assert_eq!(std::fs::read_to_string(world.root.join("asked")).unwrap(), "asked\n", "{name}");
        assert!(!is_alive(read_pid(&main)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_not_to_start_has_its_reason() {
    for shell in [&DASH, &BASH, &BUSYBOX] {
        let mut world = World::ssh(shell);
        std::fs::write(world.root.join("plain"), "#!/bin/sh\n").unwrap();
        write_program(&world.root.join("shebang"), "#! /nonexistent/sh -x\n");
        let argv =
            |words: &[&str]| StepSpec::new("main", Command::Argv(words.iter().map(|w| (*w).to_owned()).collect()));
        let cases = [
            (argv(&["no-such-program-here"]), "there is no program `no-such-program-here` in PATH"),
            (argv(&["./gone"]), "there is no program `./gone`"),
            (argv(&["./plain"]), "`./plain` is not executable; try `chmod +x"),
            (argv(&["./shebang"]), "the interpreter that the first line of `./shebang` names does not exist"),
            (argv(&[]), "the command is empty"),
            (argv(&["echo", "a\0b"]), "contains a NUL byte"),
            (StepSpec { workdir: Some("gone".into()), ..step("main", "true") }, "gone` does not exist"),
            (StepSpec { workdir: Some("plain".into()), ..step("main", "true") }, "plain` is no directory"),
            (StepSpec { workdir: Some("-".into()), ..step("main", "true") }, "-` does not exist"),
            (
                StepSpec { env: BTreeMap::from([("A-B".into(), String::new())]), ..step("main", "true") },
                "`A-B` cannot be the name",
            ),
        ];
        for (n, (step, expected)) in cases.into_iter().enumerate() {
            let ended = world.run(world.steps(&format!("t{n}"), vec![step])).await;
            let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{}: {expected}: {ended:?}", shell.name) };
            assert!(reason.contains(expected), "{}: {expected}: {reason}", shell.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_arrive_whole_in_order_and_half_lines_live() {
    for shell in [&DASH, &BASH] {
        let mut world = World::ssh(shell);
        let name = shell.name;
        let script = "printf 'loading… '; while ! [ -e go ]; do sleep 0.01; done; printf 'done'";
        let handle = world.start(world.script("half", script)).await;
        until(async || !world.backend.logs(&handle, 0, 0).await.unwrap().records.is_empty()).await;
        let chunk = world.backend.logs(&handle, 0, 0).await.unwrap();
        assert_eq!(
            (chunk.records[0].text.as_str(), chunk.records[0].continues, chunk.ended),
            ("loading… ", true, false),
            "{name}"
        );
        std::fs::write(world.root.join("go"), "").unwrap();
        world.ended(&handle).await;
        assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["loading… done"], "{name}");

        let garbage = "head -c 300000 /dev/urandom; head -c 1000 /dev/zero; printf '\\n\\377\\376 1 o0 \\r\\033[31mred\\n'; echo end";
        let handle = world.start(world.script("garbage", garbage)).await;
        assert!(world.ended(&handle).await.exit.is_success(), "{name}");
        let lines = world.lines(&handle, LogStream::Stdout).await;
        assert_eq!(lines[lines.len() - 2..], ["\u{fffd}\u{fffd} 1 o0 \r\u{1b}[31mred", "end"], "{name}");

        let handle = world
            .start(world.script("long", "seq -f '%015.0f' 200000; head -c 70000 /dev/zero | tr '\\0' x >&2"))
            .await;
        world.ended(&handle).await;
        let lines = world.lines(&handle, LogStream::Stdout).await;
        assert_eq!(lines.len(), 200_000, "{name}");
        assert!(lines.iter().zip(1..).all(|(line, n)| line.parse() == Ok(n)), "{name}");
        assert_eq!(world.lines(&handle, LogStream::Stderr).await, ["x".repeat(70_000)], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outputs_files_and_limits_come_with_the_end() {
    let mut world = World::new(Kind::Ssh);
    let script = r#"
        echo plain=text >> "$PITCREW_OUTPUT"
        printf '{"big": "file"}' > "$PITCREW_OUTPUT.config"
        echo x > "$PITCREW_OUTPUT.bad name"
        mkdir -p "$PITCREW_WORKSPACE/sub dir"; printf 'a: 1\n' > "$PITCREW_WORKSPACE/sub dir/it's"
        head -c 2000000 /dev/zero > "$PITCREW_WORKSPACE/large"; mkfifo "$PITCREW_WORKSPACE/fifo"
        pwd > where; head -c 3000000 /dev/zero | tr '\0' x
    "#;
    let mut spec = world.steps("a", vec![StepSpec { capture_stdout: true, ..step("one", script) }]);
    spec.fetch = ["sub dir/it's", "large", "fifo", "missing"].map(str::to_owned).to_vec();
    spec.log_limit = 5000;
    let handle = world.start(spec).await;
    let ended = world.ended(&handle).await;
    assert!(ended.exit.is_success(), "{ended:?}");
    assert_eq!(
        serde_json::to_value(&ended.outputs).unwrap(),
        json!({"plain": "text", "config": "{\"big\": \"file\"}"})
    );
    assert_eq!(ended.files, BTreeMap::from([("sub dir/it's".to_owned(), "a: 1\n".to_owned())]));
    assert_eq!(ended.stdout.map(|text| text.len()), Some(1 << 20));
    assert_eq!(
        ended.output_problems,
        ["the stdout of step `one` exceeds 1048576 bytes", "`large` has more than 1048576 bytes; make it an artifact"]
    );
    assert!(handle.dir.join("log").metadata().unwrap().len() < 6000);
    assert!(world.lines(&handle, LogStream::System).await[0].contains("limit of 5000 bytes"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_on_no_disk_and_in_no_command_line() {
    let mut world = World::new(Kind::Ssh);
    let mut step = step(
        "main",
        "test \"$SECRET\" = hunter2-step; s=$(cat <&9); exec 9<&-; test \"${s#*-step}\" = \" it's\ntwo lines\"; echo > here; while ! [ -e go ]; do sleep 0.01; done",
    );
    step.env = BTreeMap::from([("SECRET".into(), "hunter2-step".into())]);
    step.secret = Some("hunter2-step it's\ntwo lines".into());
    let handle = world.start(world.steps("a", vec![step])).await;
    world.file("here").await;
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let words = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&words).contains("hunter2-step"), "{process:?}");
    }
    let keeper = world.host.keeper(&handle);
    let environ = std::fs::read(format!("/proc/{keeper}/environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environ).contains("hunter2-step"));
    let search = || std::process::Command::new("grep").args(["-rl", "hunter2-step"]).arg(&world.root).output().unwrap();
    // The script of this test names it.
    let found = String::from_utf8(search().stdout).unwrap();
    assert!(found.lines().all(|file| file.ends_with("/s/step-0")), "{found}");
    std::fs::write(world.root.join("go"), "").unwrap();
    assert!(world.ended(&handle).await.exit.is_success());
}

/// Also half a secret at the moment of a server's death.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_masked_stays_masked_when_another_server_goes_on() {
    let mut world = World::new(Kind::Ssh);
    let script = "echo a hunter2-hunter2 b; printf 'c hunter2-'; while ! [ -e go ]; do sleep 0.01; done; echo hunter2 d; \
                  echo out=hunter2-hunter2 > $PITCREW_OUTPUT; echo hunter2-hunter2 > $PITCREW_WORKSPACE/file; echo hunter2-hunter2";
    let mut spec = world.steps("a", vec![StepSpec { capture_stdout: true, ..step("one", script) }]);
    spec.masks = vec!["hunter2-hunter2".into()];
    spec.fetch = vec!["file".into()];
    let handle = world.start(spec).await;
    until(async || world.backend.logs(&handle, 0, 0).await.unwrap().records.len() > 1).await;
    world.restart();
    assert!(is_running(&world.backend.attach(&handle).await));
    std::fs::write(world.root.join("go"), "").unwrap();
    let ended = world.ended(&handle).await;
    assert!(ended.exit.is_success(), "{ended:?}");
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["a *** b", "c *** d", "***"]);
    assert_eq!((ended.outputs["out"].as_str(), ended.files["file"].as_str()), (Some("***"), "***\n"));
    for file in ["log", "exit.json", "sent.json", "cursor.json"] {
        let text = std::fs::read_to_string(handle.dir.join(file)).unwrap();
        assert!(!text.contains("hunter2"), "{file}: {text}");
    }
}

//! `docker.exec`: what a command in a container says and leaves, and that nothing of it goes on when its task is over.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::engine::{Engine, script};
use crate::harness::{Place, signal};

/// A workflow of one task; `with` are the lines below `with`.
fn workflow(place: &Place, engine: &str, container: &str, with: &str, task: &str) {
    let with: String = with.lines().map(|line| format!("      {}\n", line.trim_start_matches('|'))).collect();
    let task: String = task.lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "workflow: flow\ntasks:\n  inside:\n    uses: docker.exec\n    with:\n      host: {engine}\n      container: {container}\n{with}{task}\
         \x20 after:\n    needs: inside\n    run: echo it ended with {{{{ tasks.inside.outputs.exit_code }}}}\n"
    );
    place.file("flow.yaml", text);
}

#[allow(clippy::disallowed_methods, reason = "the limit of a wait for a fact, not a claim about time")]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 50_000_000 });
    }
}

/// Whether any file below has these bytes.
fn somewhere(dir: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return somewhere(&path, needle);
        }
        let is_file = path.symlink_metadata().is_ok_and(|meta| meta.is_file());
        is_file && std::fs::read(&path).unwrap_or_default().windows(needle.len()).any(|window| window == needle)
    })
}

#[test]
fn what_it_says_is_in_the_log_and_its_exit_code_is_an_output() {
    let Some(engine) = Engine::new() else { return };
    let (container, place) = (engine.container(&["sleep", "600"]), Place::new());
    let with = "run: |\n|  echo \"$PLACE $COLOR in $PWD as $(id -un)\"\n|  echo wrong >&2\nenv: {COLOR: dark red}\nuser: nobody\nworkdir: /tmp";
    workflow(&place, &engine.address(), &container.name, with, "");
    place.run("run flow.yaml").ends(0);
    let all = place.run("logs latest").ends(0).stdout;
    assert!(all.contains("inside dark red in /tmp as nobody"), "{all}");
    assert!(all.contains("wrong"), "{all}");
    assert!(all.contains("it ended with 0"), "{all}");
    assert!(!somewhere(&place.path("data"), b"dark red\0") && !somewhere(&place.path("data"), b"\"dark red\""));
}

#[test]
fn a_command_that_fails_fails_the_task_with_its_own_exit_code() {
    let Some(engine) = Engine::new() else { return };
    let (container, place) = (engine.container(&["sleep", "600"]), Place::new());
    workflow(&place, &engine.address(), &container.name, "command: [/bin/sh, -c, 'exit 41']", "");
    let ran = place.run("run flow.yaml").ends(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("exit code 41"), "{ran}");
    workflow(&place, &engine.address(), &container.name, "command: [/bin/nothing]", "");
    let ran = place.run("run flow.yaml").ends(1);
    assert!(format!("{}{}", ran.stdout, ran.stderr).contains("exit code 12"), "{ran}");
}

#[test]
fn what_is_wrong_is_said() {
    let Some(engine) = Engine::new() else { return };
    let place = Place::new();
    let says = |engine: &str, container: &str, with: &str, words: &str| {
        workflow(&place, engine, container, with, "");
        let ran = place.run("run flow.yaml");
        assert_ne!(ran.status, Some(0), "{ran}");
        assert!(ran.to_string().contains(words), "no `{words}` in\n{ran}");
    };
    let there = engine.address();
    says(&there, "nobody-has-it", "run: ls", "there is no container `nobody-has-it` at the engine at `unix://");
    says("unix:///nowhere.sock", "web", "run: ls", "the engine at `unix:///nowhere.sock` cannot be connected to");
    says("fd://3", "web", "run: ls", "write `unix:///path`, `ssh://user@host` or `tcp://host:port`");
    says(&there, "web", "run: ls\ncommand: [ls]", "docker.exec");
    let stopped = engine.container(&["sleep", "600"]);
    stopped.stop();
    says(&there, &stopped.name, "run: ls", "does not run: it is exited with exit code 137; start it first");
}

#[test]
fn nothing_goes_on_in_the_container_when_the_task_is_cancelled_or_too_slow() {
    let Some(engine) = Engine::new() else { return };
    let (container, place) = (engine.container(&["sleep", "600"]), Place::new());
    // It has children of its own, and hears nothing of a polite request.
    let with = "run: |\n|  trap '' TERM\n|  sleep 1111 &\n|  while :; do sleep 2222; done";
    workflow(&place, &engine.address(), &container.name, with, "");
    let mut run = place.start("run flow.yaml");
    let all = |count: usize| {
        move |list: Vec<String>| {
            list.iter().filter(|line| line.contains("111") || line.contains("222")).count() == count
        }
    };
    until("the command", || {
        all(2)(container.processes()) || container.processes().iter().any(|line| line == "sleep 2222")
    });
    signal(&run, Signal::INT);
    assert!(!run.wait().unwrap().success());
    until("the end of all of it", || container.processes() == ["sleep 600"]);

    workflow(&place, &engine.address(), &container.name, "command: [sleep, '3333']", "timeout: 1s");
    place.run("run flow.yaml").ends(1);
    until("the end of all of it", || container.processes() == ["sleep 600"]);
}

#[test]
fn a_later_attempt_ends_what_an_earlier_one_left() {
    let Some(engine) = Engine::new() else { return };
    let (container, place) = (engine.container(&["sleep", "600"]), Place::new());
    // The first attempt leaves a process behind; the second waits until it is gone.
    let with = "run: |\n|  if mkdir /tmp/first; then sleep 4444 & exit 1; fi\n|  ! pgrep -f 'sleep 4444'";
    workflow(&place, &engine.address(), &container.name, with, "retries: 1\nretry_delay: 0s");
    place.run("run flow.yaml").ends(0);
    let ran = place.run("logs latest").ends(0);
    assert!(ran.stdout.contains("that an earlier attempt had left in the container"), "{ran}");
}

#[test]
fn an_engine_that_is_restarted_is_not_taken_for_an_end_of_the_command() {
    let place = Place::new();
    let folder = place.path("engine");
    let Some(engine) = Engine::own(&folder) else { return };
    let container = engine.container(&["sleep", "600"]);
    workflow(&place, &engine.address(), &container.name, "run: echo begun; sleep 5555", "");
    let run = place.start("run flow.yaml");
    until("the command", || container.processes().iter().any(|line| line.contains("5555")));
    script("restart", &folder);
    let output = run.wait_with_output().unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{all}");
    let known = all.contains("how the command ended is not known any more") || all.contains("exit code 137");
    assert!(known, "{all}");
    drop(container);
    script("stop", &folder);
}

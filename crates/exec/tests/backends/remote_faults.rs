//! What can go wrong between a server and a host, and on the host: nothing may run twice, get lost or hang.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pitcrew_core::state::Exit;
use pitcrew_exec::place::Place;
use pitcrew_exec::ssh::remote::{SshBackend, SshConfig};
use pitcrew_exec::{Backend, BackendError, BackendEvent, Command, Handle, LogStream, Observation, StepSpec};
use tokio::sync::mpsc::unbounded_channel;

use crate::harness::{Backwards, Kind, World, is_alive, is_running, read_pid, seconds, until, within};

fn world() -> World {
    World::new(Kind::Ssh)
}

/// Starts it as the scheduler does: again and again while the host cannot be reached.
async fn start_stubbornly(backend: &dyn Backend, handle: &Handle, spec: &pitcrew_exec::AttemptSpec) {
    loop {
        match backend.start(handle, spec.clone()).await {
            Ok(()) => return,
            Err(BackendError::Unreachable { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_all_the_time_costs_no_line_and_nothing_runs_twice() {
    const ATTEMPTS: usize = 20;
    let mut world = world();
    let host = Arc::clone(&world.host);
    let often = world.root.join("often");
    let cutter = tokio::spawn(async move {
        // On a slow machine nothing gets through in 200 ms, so they grow. What is cut and comes back counts.
        let mut came_back = 0;
        for n in 0.. {
            let reached = host.reached.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200 << (n / 20).min(4))).await;
            host.cut();
            came_back += usize::from(host.reached.load(Ordering::Relaxed) > reached);
            if came_back == 5 {
                std::fs::write(&often, "").unwrap();
            }
        }
    });
    let script = "echo $PITCREW_ATTEMPT >> ran; i=0; while [ $i -lt 100 ]; do echo $i; i=$((i+1)); [ $i != 75 ] || until [ -e often ]; do sleep 0.05; done; done; exit 7";
    let specs: Vec<_> = (0..ATTEMPTS).map(|n| world.script(&format!("t{n}"), script)).collect();
    let handles: Vec<Handle> = specs.iter().map(|spec| world.backend.prepare(spec)).collect();
    let starts = handles.iter().zip(&specs).map(|(h, s)| start_stubbornly(&*world.backend, h, s));
    within(futures::future::join_all(starts)).await;
    let mut open: HashSet<_> = handles.iter().map(|h| h.id.clone()).collect();
    within(async {
        while !open.is_empty() {
            match world.events.recv().await.unwrap() {
                BackendEvent::Ended { id, ended } => {
                    assert_eq!(ended.exit, Exit::Code { code: 7 });
                    open.remove(&id);
                }
                BackendEvent::Started { .. } | BackendEvent::Placed { .. } | BackendEvent::Named { .. } => {}
                other @ (BackendEvent::Lost { .. } | BackendEvent::NeverBegan { .. }) => panic!("{other:?}"),
            }
        }
    })
    .await;
    cutter.abort();
    assert!(world.root.join("often").exists(), "the link was never cut");
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for handle in &handles {
        assert_eq!(world.lines(handle, LogStream::Stdout).await, expected);
    }
    let ran = std::fs::read_to_string(world.root.join("ran")).unwrap();
    let different: HashSet<_> = ran.lines().collect();
    assert_eq!((ran.lines().count(), different.len()), (ATTEMPTS, ATTEMPTS));
}

/// Everything in memory goes, at any moment; the log is the same in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_follow_each_other_make_one_log() {
    let mut world = world();
    // It goes on when it may: each part has a server of its own, or several.
    let script = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); \
                  [ $((i % 40)) != 0 ] || until [ -e part$((i / 40)) ]; do sleep 0.02; done; done; exit 7";
    let handle = world.start(world.script("a", script)).await;
    let mut restarts: u64 = 0;
    within(async {
        while !handle.dir.join("exit.json").exists() {
            world.restart();
            restarts += 1;
            assert!(!matches!(world.backend.attach(&handle).await, Observation::NeverBegan | Observation::Lost { .. }));
            if restarts <= 20 && restarts.is_multiple_of(2) {
                std::fs::write(world.root.join(format!("part{}", restarts / 2)), "").unwrap();
            }
            // At any moment of what it does then.
            tokio::time::sleep(Duration::from_millis(7 * (restarts % 20))).await;
        }
    })
    .await;
    assert!(restarts >= 20);
    world.restart();
    let Observation::Ended(ended) = world.backend.attach(&handle).await else { panic!("not over") };
    assert_eq!(ended.exit, Exit::Code { code: 7 });
    let expected: Vec<String> = (0..400).map(|n| format!("line {n}")).collect();
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, expected);
    assert_eq!(world.lines(&handle, LogStream::System).await, ["step `main` ended with exit code 7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_cut_at_any_byte_is_repeated_and_runs_once() {
    let mut world = world();
    let mut cuts: Vec<usize> = vec![0, 1, 100];
    // The length of all that is sent is about that of our scripts.
    cuts.extend((0..12).map(|n| 1500 * n));
    cuts.push(1 << 20);
    for (n, cut) in cuts.into_iter().enumerate() {
        let spec = world.script(&format!("t{n}"), &format!("echo ran >> ran{n}"));
        let handle = world.backend.prepare(&spec);
        *world.host.break_after.lock().unwrap() = Some(cut);
        let error = world.backend.start(&handle, spec.clone()).await.unwrap_err();
        assert!(matches!(error, BackendError::Unreachable { .. }), "{error}");
        // A new server knows nothing but what is written down.
        world.restart();
        let seen = world.backend.attach(&handle).await;
        assert!(
            matches!(seen, Observation::NeverBegan | Observation::Running { .. } | Observation::Ended(_)),
            "{seen:?}"
        );
        start_stubbornly(&*world.backend, &handle, &spec).await;
        assert!(world.ended(&handle).await.exit.is_success());
        assert_eq!(std::fs::read_to_string(world.root.join(format!("ran{n}"))).unwrap(), "ran\n", "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_that_start_the_same_at_once_start_it_once() {
    let world = world();
    let spec = world.script("a", "echo ran >> ran; echo said");
    let mut tasks = Vec::new();
    for n in 0..6 {
        // Each with a directory of its own, as on machines of their own.
        let mut spec = spec.clone();
        spec.dir = world.root.join(format!("server{n}"));
        let host = Arc::clone(&world.host);
        let state_dir = world.root.join(format!("ssh{n}"));
        tasks.push(tokio::spawn(async move {
            let (sender, mut events) = unbounded_channel();
            let config = SshConfig { instance: "test".into(), state_dir, seal: Arc::new(Backwards) };
            let backend = SshBackend::new(config, host, sender);
            let handle = backend.prepare(&spec);
            backend.start(&handle, spec).await.unwrap();
            loop {
                if let BackendEvent::Ended { ended, .. } = events.recv().await.unwrap() {
                    return ended.exit;
                }
            }
        }));
    }
    for task in tasks {
        assert!(within(task).await.unwrap().is_success());
    }
    assert_eq!(std::fs::read_to_string(world.root.join("ran")).unwrap(), "ran\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_and_a_cancel_at_once_end_cancelled_and_leave_nothing() {
    let mut world = world();
    for n in 0..15 {
        eprintln!("== {n}");
        let spec = world.script(&format!("t{n}"), "sleep 600");
        let handle = world.backend.prepare(&spec);
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(n * 6)).await;
            world.backend.cancel(&handle, seconds(0)).await.unwrap();
        };
        let (started, ()) = tokio::join!(world.backend.start(&handle, spec), cancel);
        started.unwrap();
        assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
        world.backend.cleanup(&handle).await.unwrap();
    }
    until(async || world.host.attempts().is_empty()).await;
    let mark = world.host.home.join(".pitcrew/a").display().to_string();
    // A helper that sleeps for a moment may be the last to go.
    until(async || marked(&mark).is_empty()).await;
}

/// Processes with this in their environment.
fn marked(text: &str) -> String {
    let found = std::process::Command::new("grep").args(["-lsF", text]).args(environments()).output().unwrap();
    String::from_utf8_lossy(&found.stdout).into_owned()
}

fn environments() -> Vec<PathBuf> {
    std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("environ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_never_taken_for_a_loss() {
    let world = world();
    let specs: Vec<_> = (0..12).map(|n| world.script(&format!("t{n}"), &format!("sleep 0.{n:02}; exit 3"))).collect();
    let mut handles = Vec::new();
    for spec in specs {
        handles.push(world.start(spec).await);
    }
    within(async {
        loop {
            let seen = world.backend.poll(&handles).await;
            let over =
                |o: &&Observation| matches!(o, Observation::Ended(ended) if ended.exit == Exit::Code { code: 3 });
            assert!(seen.iter().all(|o| is_running(o) || over(&o)), "{seen:?}");
            if seen.iter().filter(over).count() == seen.len() {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_keeper_loses_its_attempt_and_nothing_of_it_is_left() {
    let mut world = world();
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 600' &\n echo said; echo $$ > main\n sleep 600";
    let handle = world.start(world.script("a", script)).await;
    let pids = [world.file("main").await, world.file("daemon").await];
    until(async || pids.iter().all(|p| std::fs::read_to_string(p).is_ok_and(|t| t.ends_with('\n')))).await;
    until(async || !world.backend.logs(&handle, 0, 0).await.unwrap().records.is_empty()).await;
    world.kill_keeper(&handle);
    let BackendEvent::Lost { reason, .. } = world.over(&handle).await else { panic!("not lost") };
    assert!(reason.contains("its keeper on `there`, process ") && reason.contains("left no exit code"), "{reason}");
    for pid in &pids {
        assert!(!is_alive(read_pid(pid)), "{pid:?}");
    }
    let dir = world.host.dir(&handle).display().to_string();
    assert_eq!(marked(&dir), "", "its helpers are gone too");
    assert_eq!(world.lines(&handle, LogStream::Stdout).await, ["said"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_restarted_lost_what_ran_and_not_what_had_ended() {
    let mut world = world();
    let over = world.start(world.script("over", "exit 5")).await;
    until(async || world.host.dir(&over).join("exit").exists()).await;
    let running = world.start(world.script("running", "sleep 600")).await;
    for handle in [&over, &running] {
        let claim = world.host.dir(handle).join("claim");
        let text = std::fs::read_to_string(&claim).unwrap();
        let (before, _boot) = text.trim().rsplit_once(' ').unwrap();
        std::fs::write(&claim, format!("{before} 00000000-0000-0000-0000-000000000000\n")).unwrap();
    }
    let BackendEvent::Lost { reason, .. } = world.over(&running).await else { panic!("not lost") };
    assert_eq!(reason, "`there` was restarted while it ran");
    let Observation::Ended(ended) = world.backend.attach(&over).await else { panic!("not over") };
    assert_eq!(ended.exit, Exit::Code { code: 5 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_that_another_process_got_is_not_the_keeper() {
    let mut world = world();
    let handle = world.start(world.script("a", "echo said; sleep 600")).await;
    let keeper = world.host.keeper(&handle);
    let claim = world.host.dir(&handle).join("claim");
    let text = std::fs::read_to_string(&claim).unwrap();
    let boot = text.trim().rsplit_once(' ').unwrap().1.to_owned();
    // This process lives, and began at another time.
    std::fs::write(&claim, format!("{} 1 {boot}\n", std::process::id())).unwrap();
    assert!(matches!(world.over(&handle).await, BackendEvent::Lost { .. }));
    assert!(!is_alive(keeper));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_away_is_unreachable_and_holds_nobody_up() {
    let mut world = world();
    let running = world.start(world.script("running", "while ! [ -e go ]; do sleep 0.05; done; exit 4")).await;
    let ended = world.start(world.script("ended", "exit 3")).await;
    world.ended(&ended).await;
    let mut never = world.script("never", "echo ran > ran");
    if let Some(Place::Ssh(place)) = &mut never.place {
        place.timeout_s = 1;
    }
    let waits = world.script("waits", "true");
    world.host.away.store(true, Ordering::Relaxed);
    world.host.cut();

    until(async || {
        let Observation::Unreachable { reason } = world.backend.attach(&running).await else { return false };
        reason.contains("`there:22` refuses connections")
    })
    .await;
    assert!(matches!(world.backend.attach(&ended).await, Observation::Ended(_)));
    // What was never sent began nowhere, and can be cancelled.
    let handle = world.backend.prepare(&waits);
    let error = world.backend.start(&handle, waits).await.unwrap_err().to_string();
    assert!(error.contains("the `ssh` backend cannot be reached: `there:22` refuses"), "{error}");
    assert_eq!(world.backend.attach(&handle).await, Observation::NeverBegan);
    world.backend.cancel(&handle, seconds(9)).await.unwrap();
    assert_eq!(world.ended(&handle).await.exit, Exit::Cancelled);
    // What runs cannot, and will be as soon as the host is back.
    let doomed = world.backend.cancel(&running, seconds(0)).await.unwrap_err();
    assert!(matches!(doomed, BackendError::Unreachable { .. }));
    // After as long as a connect may take, a start is given up.
    let handle = world.backend.prepare(&never);
    let exit = within(async {
        loop {
            match world.backend.start(&handle, never.clone()).await {
                Ok(()) => return world.ended(&handle).await.exit,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    assert_eq!(exit, Exit::start_failed("`there:22` refuses connections"));
    // A cleanup is remembered, also by the next server.
    world.backend.cleanup(&ended).await.unwrap();
    assert!(world.host.dir(&ended).exists());
    world.restart();
    world.host.away.store(false, Ordering::Relaxed);
    until(async || !world.host.dir(&ended).exists()).await;
    until(async || is_running(&world.backend.attach(&running).await) || running.dir.join("exit.json").exists()).await;
    assert_eq!(world.ended(&running).await.exit, Exit::Cancelled, "the cancel was delivered");
    assert!(!world.root.join("ran").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_tells_that_the_link_was_lost_for_long_and_that_it_is_back() {
    let mut world = world();
    let handle = world.start(world.script("a", "echo said; while ! [ -e go ]; do sleep 0.05; done")).await;
    until(async || !world.backend.logs(&handle, 0, 0).await.unwrap().records.is_empty()).await;
    world.host.away.store(true, Ordering::Relaxed);
    world.host.cut();
    let said = async |word: &str| {
        let records = world.backend.logs(&handle, 0, 1 << 20).await.unwrap().records;
        records.iter().any(|r| r.stream == LogStream::System && r.text.contains(word))
    };
    until(async || said("the connection to `there` is lost; the task goes on there: `there:22` refuses").await).await;
    world.host.away.store(false, Ordering::Relaxed);
    until(async || said("`there` is back after ").await).await;
    std::fs::write(world.root.join("go"), "").unwrap();
    assert!(world.ended(&handle).await.exit.is_success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_ends_a_start_for_good_and_nothing_that_runs() {
    let mut world = world();
    let running = world.start(world.script("running", "sleep 600")).await;
    world.host.locked.store(true, Ordering::Relaxed);
    world.host.cut();
    let spec = world.script("refused", "true");
    let handle = world.backend.prepare(&spec);
    start_stubbornly(&*world.backend, &handle, &spec).await;
    let ended = world.ended(&handle).await;
    assert_eq!(ended.exit, Exit::cannot_start("`there` accepts none of the keys"));
    until(async || matches!(world.backend.attach(&running).await, Observation::Unreachable { .. })).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_host_for_tasks_says_so() {
    let mut world = world();
    let spec = world.script("plain", "true");
    let mut nowhere = spec.clone();
    nowhere.place = None;
    let ended = world.run(nowhere).await;
    assert_eq!(ended.exit, Exit::cannot_start("it does not say on which host it is to run"));
    // A home directory that is a file; a directory that nobody may make.
    let home = world.host.home.join(".pitcrew");
    std::fs::write(&home, "").unwrap();
    let ended = world.run(world.script("file", "true")).await;
    let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("no directory for pitcrew can be made on `me@there:22`: "), "{reason}");
    assert!(reason.contains("Not a directory"), "{reason}");
    std::fs::remove_file(home).unwrap();
    let mut spec = world.script("unmakable", "true");
    if let Some(Place::Ssh(place)) = &mut spec.place {
        place.workdir = Some("/dev/null/x".into());
    }
    let ended = world.run(spec).await;
    let Exit::StartFailed { reason, .. } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("/dev/null/x"), "{reason}");
}

/// A tiny file system that is the home directory; needs the right to mount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_of_the_host_costs_the_log_and_neither_the_task_nor_its_end() {
    let mut world = world();
    let Some(disk) = Disk::mount(world.host.home.clone()) else {
        eprintln!("not tested: this user cannot mount a file system");
        return;
    };
    let script = "echo before; while ! [ -e go ]; do sleep 0.01; done; cat /dev/zero > $HOME/filler || true; seq 1000; echo done > finished; exit 3";
    let handle = world.start(world.script("a", script)).await;
    until(async || !world.backend.logs(&handle, 0, 0).await.unwrap().records.is_empty()).await;
    std::fs::write(world.root.join("go"), "").unwrap();
    let ended = world.ended(&handle).await;
    assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::Code { code: 3 }, Some("main")));
    assert!(world.root.join("finished").exists());
    assert_eq!(world.lines(&handle, LogStream::Stdout).await[0], "before");
    // Nor can another begin there.
    let ended = world.run(world.script("next", "true")).await;
    let Exit::StartFailed { reason, lasting: true } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("the disk of `me@there:22` is full") && reason.contains("free space there"), "{reason}");
    std::fs::remove_file(disk.0.join("filler")).unwrap();
    assert!(world.run(world.script("later", "true")).await.exit.is_success());
}

struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Disk> {
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&at);
        mount.status().is_ok_and(|s| s.success()).then_some(Disk(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_attempts_at_once_all_end() {
    let mut world = world();
    let step = || StepSpec::new("s", Command::Argv(vec!["true".into()]));
    let specs: Vec<_> = (0..60).map(|n| world.steps(&format!("t{n}"), vec![step()])).collect();
    let handles: Vec<Handle> = specs.iter().map(|spec| world.backend.prepare(spec)).collect();
    let mut open: HashSet<_> = handles.iter().map(|h| h.id.clone()).collect();
    let starts = handles.iter().zip(specs).map(|(h, s)| world.backend.start(h, s));
    within(futures::future::try_join_all(starts)).await.unwrap();
    within(async {
        while !open.is_empty() {
            if let BackendEvent::Ended { id, ended } = world.events.recv().await.unwrap() {
                assert!(ended.exit.is_success(), "{id}: {ended:?}");
                open.remove(&id);
            }
        }
    })
    .await;
}

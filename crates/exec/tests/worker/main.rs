//! A worker, with real processes and real HTTP, against a server that does as it is told.

mod files;
mod merging;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::Exit;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::gpu::parse_probe;
use pitcrew_exec::local::{LocalConfig, base_environment};
use pitcrew_exec::worker::protocol::{About, Cancel, Order};
use pitcrew_exec::worker::{CourierError, Disk, Prober, Said, Wire, Worker, work};
use pitcrew_exec::{AttemptSpec, Command, Handle, StepSpec};
use server::{CREDENTIAL, Server};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

const ID: &str = "w1";
const LONG: Duration = Duration::from_secs(600);

struct Site {
    dir: tempfile::TempDir,
    server: Server,
    /// The directory of the worker.
    name: &'static str,
}

struct Running {
    task: JoinHandle<Result<(), CourierError>>,
    drain: oneshot::Sender<()>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Site {
    async fn new(lease: Duration) -> Site {
        Site::over(lease, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// One whose server has the runs of another.
    async fn over(lease: Duration, runs: Arc<tempfile::TempDir>) -> Site {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Site { dir: tempfile::tempdir().unwrap(), server: Server::start(lease, runs).await, name: "worker" }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().canonicalize().unwrap().join(self.name)
    }

    /// What it has as the worker that it is.
    fn own(&self) -> std::path::PathBuf {
        self.root().join("of").join(ID)
    }

    async fn worker(&self, slots: u32) -> Running {
        self.worker_with(slots, Box::new(|| Box::pin(async { None }))).await
    }

    async fn worker_with(&self, slots: u32, prober: Prober) -> Running {
        // One that was just aborted holds the lock until it is gone.
        let disk = loop {
            match Disk::open(&self.root()) {
                Ok(disk) => break disk.of(ID).unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let about = About {
            version: "0".to_owned(),
            host: "here".to_owned(),
            data_dir: disk.own().display().to_string(),
            program: "/bin/true".to_owned(),
            queues: vec!["default".to_owned()],
            slots,
            labels: BTreeMap::new(),
            cpu: None,
            memory_mib: None,
            resources: BTreeMap::new(),
            place: disk.place(),
            errands: Vec::new(),
        };
        let local = LocalConfig {
            runner_dir: disk.runner(),
            runner: vec![env!("CARGO_BIN_EXE_exec-test-runner").into()],
            base_env: base_environment(),
        };
        let wire = Wire::new(&self.server.url, CREDENTIAL).unwrap();
        let glance = Duration::from_millis(20);
        let worker = Worker { disk, wire, about, local, prober, glance, drain_deadline: LONG };
        let (drain, drained) = oneshot::channel();
        let drained = async {
            if drained.await.is_err() {
                pending::<()>().await;
            }
        };
        let (heard, said) = mpsc::unbounded_channel();
        let mut say = move |said: Said| drop(heard.send(said));
        let task = tokio::spawn(async move { work(worker, drained, &mut say).await });
        Running { task, drain, said }
    }

    fn order(&self, task: &str, script: &str) -> AttemptId {
        self.order_with(task, script, false)
    }

    fn order_with(&self, task: &str, script: &str, files: bool) -> AttemptId {
        let id = AttemptId { run: RunKey(7), task: TaskId::new(task).unwrap(), map_index: UNMAPPED, number: 1 };
        let run = self.own().join("runs/7");
        let mut spec = AttemptSpec::new(id.clone(), run.join("attempts").join(id.local_name()), run.join("workspace"));
        spec.steps = vec![StepSpec::new("main", Command::shell(script))];
        spec.env.insert("PITCREW_WORKSPACE".to_owned(), run.join("workspace").display().to_string());
        spec.fetch = vec!["result.txt".to_owned(), "missing.txt".to_owned()];
        let order = Order { handle: Handle::of(&spec), spec, files };
        self.server.with(|script| script.orders.push(order));
        id
    }

    fn held(&self) -> usize {
        std::fs::read_dir(self.own().join("held")).unwrap().count()
    }

    async fn all_forgotten(&self) {
        self.server.until("everything is forgotten", |s| s.last.as_ref().is_some_and(|sync| sync.has.is_empty())).await;
        assert_eq!(self.held(), 0);
    }
}

/// The number that a script wrote there.
async fn number_in(file: &Path) -> i32 {
    loop {
        if let Some(number) = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
            return number;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn exists(pid: i32) -> bool {
    rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid).unwrap()).is_ok()
}

/// The devices are asked often, and the server hears of it when something has changed: a GPU may go without a word.
#[tokio::test]
async fn a_device_that_goes_is_told_at_once_and_devices_that_are_as_they_were_are_not() {
    let site = Site::new(LONG).await;
    let machine = Arc::new(std::sync::Mutex::new((0, 2, 50)));
    let asked = Arc::clone(&machine);
    let worker = site
        .worker_with(
            1,
            Box::new(move || {
                let mut machine = asked.lock().unwrap();
                // It gets warmer with each question.
                machine.0 += 1;
                machine.2 += 1;
                let mut text = "pitcrew-probe\ncores 8\nsmi 0\n".to_owned();
                for gpu in 0..machine.1 {
                    text += &format!("gpu {gpu}, GPU-{gpu}, Disabled, 81920, 4, 0, 70, {}, NVIDIA A100\n", machine.2);
                }
                let probe = parse_probe(&text);
                Box::pin(async move { probe })
            }),
        )
        .await;
    site.server.until("it has two", |s| s.probes == [2]).await;
    let questions = || machine.lock().unwrap().0;
    let enough = questions() + 5;
    site.server.until("it is asked again and again", |_| questions() >= enough).await;
    assert_eq!(site.server.with(|s| s.probes.clone()), [2], "nothing has changed");
    machine.lock().unwrap().1 = 1;
    site.server.until("one is gone", |s| s.probes == [2, 1]).await;
    machine.lock().unwrap().1 = 2;
    site.server.until("it is back", |s| s.probes == [2, 1, 2]).await;
    worker.task.abort();
}

#[tokio::test]
async fn what_is_ordered_runs_and_its_log_outputs_and_files_come_back() {
    let site = Site::new(LONG).await;
    let worker = site.worker(2).await;
    let script = "echo hello; echo answer=42 >> $PITCREW_OUTPUT; echo deep > $PITCREW_WORKSPACE/result.txt";
    let id = site.order("short", script);
    let large = site.order("large", "i=0; while [ $i -lt 20000 ]; do echo \"line $i of many\"; i=$((i+1)); done");
    let odd = site.order("odd", "printf '\\377\\376 no text\\n'; exit 3");
    site.server.until("all ended", |s| s.ended.len() == 3).await;
    site.all_forgotten().await;
    let dir = site.own().join("runs/7/attempts");
    site.server.with(|s| {
        let ended = &s.ended[&id];
        assert_eq!((ended.exit.clone(), &ended.outputs["answer"]), (Exit::Code { code: 0 }, &"42".into()));
        assert_eq!(ended.files, BTreeMap::from([("result.txt".to_owned(), "deep\n".to_owned())]));
        assert_eq!(s.ended[&odd].exit, Exit::Code { code: 3 });
        for id in [&id, &large, &odd] {
            let here = std::fs::read(dir.join(id.local_name()).join("log")).unwrap();
            assert!(s.logs[id] == here, "the log of {id} is another at the server");
        }
        assert!(s.posted > 400_000);
    });
    worker.drain.send(()).unwrap();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_is_killed_finds_what_it_ran_and_does_not_run_it_again() {
    let site = Site::new(LONG).await;
    let worker = site.worker(4).await;
    let file = site.dir.path().join("begun");
    let stop = site.dir.path().join("stop");
    let script = format!(
        "echo $$ >> {}; echo first; while [ ! -e {} ]; do sleep 0.05; done; echo last",
        file.display(),
        stop.display()
    );
    let id = site.order("long", &script);
    site.server.until("it runs", |s| s.running.contains(&id)).await;
    let pid = number_in(&file).await;
    worker.task.abort();
    let _ = worker.task.await;
    assert!(exists(pid));
    let worker = site.worker(4).await;
    site.server.until("the next one tells of it", |s| s.incarnations.len() == 2 && s.running.contains(&id)).await;
    std::fs::write(&stop, "").unwrap();
    site.server.until("it ended", |s| s.ended.contains_key(&id)).await;
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 1);
    site.all_forgotten().await;
    let here = std::fs::read(site.own().join("runs/7/attempts/long.1/log")).unwrap();
    site.server.with(|s| assert!(s.logs[&id] == here));
    worker.task.abort();
}

#[tokio::test]
async fn without_an_answer_what_runs_goes_on_for_the_lease_and_no_longer() {
    // One worker lives through the cut, the other is dead; the runner ends what they ran.
    for alive in [true, false] {
        let site = Site::new(Duration::from_secs(3)).await;
        let worker = site.worker(1).await;
        let file = site.dir.path().join("begun");
        let id = site.order("long", &format!("echo $$ > {}; exec sleep 1000", file.display()));
        site.server.until("it runs", |s| s.running.contains(&id)).await;
        let pid = number_in(&file).await;
        let waits = site.order("waits", "true");
        site.server.until("another waits", |s| s.waiting.contains(&waits)).await;
        site.server.with(|s| s.silent = true);
        if !alive {
            worker.task.abort();
        }
        let gone = async {
            while exists(pid) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), gone).await.expect("the lease ends it");
        site.server.with(|s| (s.orders.clear(), s.silent = false));
        let next = if alive { worker } else { site.worker(1).await };
        site.server.until("it is told as lost", |s| s.lost.contains_key(&id)).await;
        site.server.with(|s| {
            assert!(s.lost[&id].contains("lease"), "{:?}", s.lost);
            assert!(s.ended.is_empty(), "{:?}", s.ended);
        });
        site.all_forgotten().await;
        next.task.abort();
    }
}

#[tokio::test]
async fn what_waits_and_what_runs_can_be_cancelled_and_a_drain_lets_the_rest_end() {
    let site = Site::new(LONG).await;
    let worker = site.worker(1).await;
    let stop = site.dir.path().join("stop");
    let runs = site.order("runs", "sleep 1000");
    site.server.until("it runs", |s| s.running.contains(&runs)).await;
    let waits = site.order("waits", "true");
    let last = site.order("last", &format!("while [ ! -e {} ]; do sleep 0.05; done", stop.display()));
    site.server.until("two wait", |s| s.waiting.len() == 2).await;
    site.server.with(|s| {
        let cancel = |id: &AttemptId| {
            let order = s.orders.iter().find(|order| order.handle.id == *id).unwrap();
            Cancel { handle: order.handle.clone(), grace_ms: 100 }
        };
        s.cancel = vec![cancel(&runs), cancel(&waits)];
    });
    site.server.until("both ended", |s| s.ended.contains_key(&runs) && s.ended.contains_key(&waits)).await;
    site.server.until("the last one runs", |s| s.running.contains(&last)).await;
    worker.drain.send(()).unwrap();
    site.server.until("it drains", |s| s.last.as_ref().is_some_and(|sync| sync.draining)).await;
    std::fs::write(&stop, "").unwrap();
    worker.task.await.unwrap().unwrap();
    site.server.with(|s| {
        assert_eq!(s.ended[&runs].exit, Exit::Cancelled);
        assert_eq!((s.ended[&waits].exit.clone(), s.ended[&waits].started_at), (Exit::Cancelled, None));
        assert!(s.ended[&last].exit.is_success());
    });
}

#[tokio::test]
async fn a_worker_that_was_shut_out_ends_what_it_runs_and_says_why() {
    let site = Site::new(LONG).await;
    let worker = site.worker(1).await;
    let file = site.dir.path().join("begun");
    let id = site.order("long", &format!("echo $$ > {}; exec sleep 1000", file.display()));
    site.server.until("it runs", |s| s.running.contains(&id)).await;
    let pid = number_in(&file).await;
    site.server.with(|s| s.revoked = true);
    let error = worker.task.await.unwrap().unwrap_err();
    assert!(matches!(&error, CourierError::Revoked { why, left: 0 } if why == "it was revoked"), "{error}");
    assert!(!exists(pid));
}

#[tokio::test]
async fn a_proxy_that_refuses_ends_nothing_and_each_reason_is_said_once() {
    let site = Site::new(LONG).await;
    let mut worker = site.worker(1).await;
    let file = site.dir.path().join("begun");
    let id = site.order("long", &format!("echo $$ > {}; exec sleep 1000", file.display()));
    site.server.until("it runs", |s| s.running.contains(&id)).await;
    let pid = number_in(&file).await;
    let mut heard = Vec::new();
    for status in [StatusCode::UNAUTHORIZED, StatusCode::BAD_GATEWAY, StatusCode::GATEWAY_TIMEOUT, StatusCode::CONFLICT]
    {
        site.server.with(|s| s.status = Some(status));
        if status != StatusCode::GATEWAY_TIMEOUT {
            let said = loop {
                match worker.said.recv().await.unwrap() {
                    Said::Connected { .. } => {}
                    said => break said,
                }
            };
            heard.push(said);
        }
    }
    let refused = |reason: &str| Said::Refused { reason: reason.to_owned() };
    assert_eq!((&heard[0], &heard[2]), (&refused("Unauthorized"), &refused("Conflict")));
    assert!(matches!(&heard[1], Said::Unreachable { .. }), "{heard:?}");
    site.server.with(|s| s.status = None);
    assert_eq!(worker.said.recv().await.unwrap(), Said::Connected { found: 0 });
    assert!(exists(pid) && !worker.task.is_finished());
    site.server.with(|s| s.revoked = true);
    worker.task.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_drain_that_is_taken_back_is_no_drain_and_a_drained_worker_stays() {
    let site = Site::new(LONG).await;
    let mut worker = site.worker(1).await;
    let stop = site.dir.path().join("stop");
    let id = site.order("a", &format!("while [ ! -e {} ]; do sleep 0.1; done", stop.display()));
    site.server.until("it runs", |s| s.running.contains(&id)).await;
    for drain in [true, false, true] {
        site.server.with(|s| s.drain = drain);
        let heard =
            |s: &server::Script| s.last.as_ref().is_some_and(|sync| (sync.drained, sync.draining) == (drain, drain));
        site.server.until("it heard that", heard).await;
        while worker.said.recv().await.unwrap() != (Said::Drained { on: drain }) {}
    }
    std::fs::write(&stop, "").unwrap();
    site.all_forgotten().await;
    // It has nothing to do, and is there when it is wanted again.
    site.server.with(|s| s.drain = false);
    site.server.until("it takes work", |s| s.last.as_ref().is_some_and(|sync| !sync.draining)).await;
    let next = site.order("b", "true");
    site.server.until("the next one ended", |s| s.ended.contains_key(&next)).await;
    worker.drain.send(()).unwrap();
    worker.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn directories_of_runs_that_are_over_go_though_nobody_said_so_at_their_end() {
    let site = Site::new(LONG).await;
    let runs = site.own().join("runs");
    // One is over, one goes on, one was about to be removed when an earlier process was killed; the last is nobody's.
    for name in ["5", "6", ".gone-4-x", "notes"] {
        std::fs::create_dir_all(runs.join(name).join("workspace/deep")).unwrap();
    }
    site.server.with(|s| s.over.insert(RunKey(5)));
    let worker = site.worker(1).await;
    site.server.until("it asks about them", |s| s.named == BTreeSet::from([RunKey(5), RunKey(6)])).await;
    let id = site.order("a", "true");
    site.server.until("it works beside that", |s| s.ended.contains_key(&id)).await;
    site.server.until("one is gone", |_| !runs.join("5").exists()).await;
    assert!(runs.join("6/workspace/deep").exists() && runs.join("notes").exists());
    assert!(!runs.join(".gone-4-x").exists());
    worker.task.abort();
}

#[tokio::test]
async fn another_server_gets_logs_from_the_start_of_what_runs_and_of_what_ended_before_it_came() {
    let site = Site::new(LONG).await;
    let worker = site.worker(2).await;
    let stop = site.dir.path().join("stop");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", stop.display());
    let runs = site.order("runs", &format!("echo begun; {wait}; echo last words"));
    let many = "i=0; while [ $i -lt 2000 ]; do echo \"line $i\"; i=$((i+1)); done";
    let over = site.order("over", many);
    // The end of one was told, and this server is killed before it can say that it may be forgotten.
    site.server.with(|s| s.never_forgets = true);
    let whole = |s: &server::Script, id: &AttemptId| {
        let here = std::fs::read(site.own().join("runs/7/attempts").join(id.local_name()).join("log"));
        here.is_ok_and(|here| s.logs.get(id) == Some(&here))
    };
    site.server.until("it began", |s| s.running.contains(&runs) && whole(s, &runs)).await;
    site.server.until("it ended", |s| s.ended.contains_key(&over)).await;
    site.server.with(|s| {
        (s.word, s.never_forgets) = ("s2".to_owned(), false);
        (s.logs, s.ended) = Default::default();
    });
    // Nothing comes that was not there before.
    site.server.until("the log of what runs is there", |s| whole(s, &runs)).await;
    site.server.until("the end came with its log", |s| s.ended.contains_key(&over) && whole(s, &over)).await;
    std::fs::write(&stop, "").unwrap();
    site.server.until("it ended", |s| s.ended.contains_key(&runs)).await;
    site.all_forgotten().await;
    site.server.with(|s| assert!(whole(s, &runs) && s.lacking.is_empty()));
    worker.task.abort();
}

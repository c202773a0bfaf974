//! The scheduler on the fake backend, with two nodes of two GPUs and somebody in the place of recovery who writes down
//! what is told.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::fleet::{Amount, Effect, Gpu, Node, Taint};
use pitcrew_core::ir::BackendKind;
use pitcrew_core::state::RunState;
use pitcrew_core::{TaskId, WorkflowId};
use pitcrew_exec::capabilities::Capabilities;
use pitcrew_exec::fake::FakeBackend;
use pitcrew_exec::log::LogChunk;
use pitcrew_exec::worker::{Hub, LEASE};
use pitcrew_exec::{AttemptSpec, Backend, BackendError, Handle, Observation};
use pitcrew_store::{InstanceFilter, Paging, Store, StoreUrl};
use tokio::sync::{mpsc, watch};

use super::*;
use crate::app::{App, Trigger};
use crate::backends::Backends;
use crate::catalog::{self, Catalog};
use crate::fleet::{Fleet, FleetNode, Reach};
use crate::metrics::Metrics;
use crate::paths::DataDir;
use crate::scheduler::{Claim, Clear, Parts, Pick};
use crate::vault::Vault;
use crate::{clock, folder};

struct Recorder {
    holds: AtomicBool,
    told: mpsc::UnboundedSender<Input>,
    /// Whether it knows what is stored; and whether anybody has asked.
    knows: watch::Sender<bool>,
    asked: watch::Sender<bool>,
}

impl Recoverer for Recorder {
    fn holds(&self, _node: &str, _job: &str) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    fn tell(&self, input: Input) {
        let _ = self.told.send(input);
    }

    /// Whoever holds nothing is off.
    fn is_on(&self) -> bool {
        self.holds.load(Ordering::Relaxed)
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        self.asked.send_replace(true);
        let mut knows = self.knows.subscribe();
        Box::pin(async move { drop(knows.wait_for(|knows| *knows).await) })
    }
}

/// The fake backend, and the environments that it was given.
struct Watched {
    fake: FakeBackend,
    environments: Mutex<BTreeMap<String, BTreeMap<String, String>>>,
}

#[async_trait]
impl Backend for Watched {
    fn name(&self) -> &'static str {
        self.fake.name()
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        self.fake.prepare(spec)
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        self.environments.lock().unwrap().insert(spec.id.local_name(), spec.env.clone());
        self.fake.start(handle, spec).await
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.fake.attach(handle).await
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        self.fake.poll(handles).await
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        self.fake.logs(handle, offset, max_bytes).await
    }

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        self.fake.cancel(handle, grace).await
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        self.fake.cleanup(handle).await
    }

    async fn capabilities(&self) -> Capabilities {
        self.fake.capabilities().await
    }
}

/// A server's scheduler. The store and the directory outlive it.
pub(crate) struct Rig {
    pub app: App,
    backend: Arc<Watched>,
    recorder: Arc<Recorder>,
    told: mpsc::UnboundedReceiver<Input>,
    dir: Arc<tempfile::TempDir>,
    nodes: watch::Sender<Arc<Vec<FleetNode>>>,
}

impl Rig {
    /// Of a workflow `w`. Recovery decides about every failure.
    pub async fn new(tasks: &str) -> Rig {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        for compiled in catalog::compile(&format!("workflow: w\ntasks:\n{tasks}"), "test.yaml").unwrap() {
            let row = folder::row(&compiled, "test.yaml");
            store.put_workflow(&row, &compiled.source, clock::now()).await.unwrap();
        }
        Rig::on(store, Arc::new(tempfile::tempdir().unwrap())).await
    }

    async fn on(store: Store, dir: Arc<tempfile::TempDir>) -> Rig {
        Rig::with(store, dir, true, true).await
    }

    async fn with(store: Store, dir: Arc<tempfile::TempDir>, holds: bool, knows: bool) -> Rig {
        let owner = Arc::new(store.register_owner().await.unwrap());
        let data = DataDir::open(dir.path()).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let backend = Arc::new(Watched { fake: FakeBackend::new(sender.clone()), environments: Mutex::default() });
        let workers = Hub::new(data.root().to_owned(), LEASE, sender);
        let (catalog, metrics) = (Arc::new(Catalog::default()), Metrics::default());
        let shared: Arc<dyn Backend> = backend.clone();
        let backends = Backends::new([BackendKind::Local, BackendKind::Fake].map(|kind| (kind, shared.clone())));
        let vault = Vault::new(&data, &|_| None).unwrap();
        let aws = crate::secrets::aws("us-east-1").unwrap();
        let node = |name: &str| {
            let gpus = (0..2).map(|at| Gpu::new(format!("GPU-{name}-{at}"), "NVIDIA A100", 81_920)).collect();
            FleetNode { node: Node::new(name, Amount::whole(8), 8_192, gpus), reach: Reach::Local }
        };
        let (nodes_of, nodes) = watch::channel(Arc::new(vec![node("n0"), node("n1")]));
        let fleet = Fleet::of(store.clone(), Vec::new());
        let (tell, told) = mpsc::unbounded_channel();
        let recorder = Arc::new(Recorder {
            holds: AtomicBool::new(holds),
            told: tell,
            knows: watch::channel(knows).0,
            asked: watch::channel(false).0,
        });
        let scheduler = Scheduler::start(Parts {
            store: store.clone(),
            owner,
            data: data.clone(),
            catalog: catalog.clone(),
            vault: vault.clone(),
            backends: backends.clone(),
            ssh: pitcrew_exec::ssh::Defaults::default(),
            secrets: crate::secrets::open(&store, &vault, &aws).unwrap(),
            aws_region: String::new(),
            sandbox: Default::default(),
            events,
            parallelism: 64,
            policy: pitcrew_core::fleet::Policy::default(),
            nodes,
            fleet: fleet.clone(),
            claim: Claim::Leading,
            notify: Arc::default(),
            base_url: String::new(),
            metrics: metrics.clone(),
            tracer: None,
            default_queue: None,
            recoverer: recorder.clone(),
        });
        let app = App {
            store,
            scheduler,
            catalog,
            aws,
            vault,
            data,
            metrics,
            backends,
            notify: Arc::default(),
            schedules: Arc::default(),
            hooks: Arc::default(),
            fleet,
            workers,
            recovery: crate::recovery::Desk::off(),
        };
        Rig { app, backend, recorder, told, dir, nodes: nodes_of }
    }

    /// Another server after this one.
    async fn again(self) -> Rig {
        self.then(true, true).await
    }

    async fn then(self, holds: bool, knows: bool) -> Rig {
        self.app.scheduler.shutdown().await;
        let (store, dir) = (self.app.store.clone(), self.dir.clone());
        drop(self);
        Rig::with(store, dir, holds, knows).await
    }

    pub async fn start(&self) -> RunKey {
        let trigger = Trigger { by: "ann".into(), ..Trigger::default() };
        self.app.trigger(&WorkflowId::new("w").unwrap(), trigger).await.unwrap().key
    }

    async fn told(&mut self) -> Input {
        self.told.recv().await.unwrap()
    }

    /// Waits until all instances of a task are in a state, by what the store says: so it is written.
    pub async fn until(&self, run: RunKey, task: &str, state: &str) {
        let mut changes = self.app.scheduler.subscribe();
        loop {
            let rows = self.app.store.instances(run, &InstanceFilter::default(), Paging::ALL).await.unwrap().rows;
            let mut of_task = rows.iter().filter(|row| row.task.as_str() == task).peekable();
            if of_task.peek().is_some() && of_task.all(|row| row.state.name() == state) {
                return;
            }
            changes.recv().await.unwrap();
        }
    }

    async fn state(&self, run: RunKey) -> RunState {
        self.app.store.run(run).await.unwrap().unwrap().state
    }

    /// The oldest first.
    async fn attempts(&self, run: RunKey, task: &str) -> Vec<AttemptRecord> {
        self.app.store.attempts(run, &TaskId::new(task).unwrap(), -1).await.unwrap()
    }

    /// A variable of an attempt, by its local name.
    fn env(&self, attempt: &str, name: &str) -> Option<String> {
        self.backend.environments.lock().unwrap()[attempt].get(name).cloned()
    }
}

fn pick(task: &str) -> Pick {
    Pick { task: task.to_owned(), map_index: None }
}

fn other(node: &str) -> &'static str {
    if node == "n0" { "n1" } else { "n0" }
}

/// Weaknesses 17 and 23: each attempt has a row of its own; the second one is told its number and its checkpoint.
#[tokio::test]
async fn a_failure_that_is_held_begins_anew_on_another_node() {
    let tasks = "  a: {run: x, resources: {gpu: 1}, retries: 3, resume_from: '/checkpoints/{{ run.id }}', env: {FAKE_FAIL_UNTIL_ATTEMPT: '2'}}\n";
    let mut rig = Rig::new(tasks).await;
    let run = rig.start().await;
    let job = format!("{run}/a");
    let Input::JobStarting { job: named, attempt: 1, ranks } = rig.told().await else { panic!("not starting") };
    let place = ranks[0].clone();
    assert_eq!((&named, ranks.len(), place.gpus.len()), (&job, 1, 1));
    let spec = JobSpec { application_restarts: 3, ..JobSpec::default() };
    assert_eq!(rig.told().await, Input::JobStarted { job: job.clone(), attempt: 1, ranks, spec });
    let ended = rig.told().await;
    let Input::RankEnded { attempt: 1, rank: 0, exit: Exit::Code { code: 1 }, message, .. } = ended else {
        panic!("{ended:?}")
    };
    // It was told because it is written.
    rig.until(run, "a", "recovering").await;
    let node = place.node;
    let why = rig.app.scheduler.explain(run, pick("a")).await.unwrap();
    assert_eq!(why, [format!("waits for the check of `{node}` after {}", message.lines().last().unwrap())]);
    assert!(why[0].ends_with("exit code 1"), "{why:?}");
    let scheduler = rig.app.scheduler.clone();
    assert_eq!(scheduler.look_at_job(&job, 1).await.unwrap(), JobAnswer::Already { live: false });
    assert_eq!(scheduler.stop_job(&job, 1, "XID 79", false).await.unwrap(), JobAnswer::Already { live: false });
    let again = || scheduler.restart_job(&job, 2, clock::now(), false, [node.clone()].into());
    assert_eq!(again().await.unwrap(), JobAnswer::Done { live: false });
    let twice = again().await.unwrap();
    assert!(matches!(twice, JobAnswer::Already { .. } | JobAnswer::Over), "{twice:?}");
    rig.until(run, "a", "success").await;
    let attempts = rig.attempts(run, "a").await;
    let nodes: Vec<_> = attempts.iter().map(|row| row.node.as_deref().unwrap()).collect();
    assert_eq!(nodes, [&node, other(&node)]);
    let started = rig.told().await;
    assert!(
        matches!(&started, Input::JobStarting { attempt: 2, ranks, .. } if ranks[0].node == other(&node)),
        "{started:?}"
    );
    assert!(matches!(rig.told().await, Input::JobStarted { attempt: 2, .. }));
    assert!(matches!(rig.told().await, Input::RankEnded { attempt: 2, exit: Exit::Code { code: 0 }, .. }));
    for order in [
        scheduler.stop_job(&job, 1, "XID 79", true).await,
        scheduler.stop_job(&job, 2, "XID 79", true).await,
        scheduler.fail_job(&job, 2, "no", false).await,
        scheduler.look_at_job(&job, 2).await,
        scheduler.stop_job("an ECS task", 1, "", true).await,
        scheduler.stop_job("999/a", 1, "", true).await,
        scheduler.stop_job(&format!("{run}/b"), 1, "", true).await,
    ] {
        assert_eq!(order.unwrap(), JobAnswer::Over);
    }
    let id = rig.app.store.run(run).await.unwrap().unwrap().run_id;
    assert_eq!((rig.env("a.1", "ATTEMPT").as_deref(), rig.env("a.1", "RESUME_FROM")), (Some("1"), None));
    let resumed = (rig.env("a.2", "ATTEMPT"), rig.env("a.2", "RESUME_FROM"));
    assert_eq!(resumed, (Some("2".to_owned()), Some(format!("/checkpoints/{id}"))));
}

#[tokio::test]
async fn a_failure_that_recovery_does_not_hold_is_tried_again_and_told() {
    let tasks = "  a: {run: x, resources: {gpu: 1}, retries: 1, retry_delay: 0s, env: {FAKE_FAIL_UNTIL_ATTEMPT: '2'}}\n  b: {run: x}\n";
    let mut rig = Rig::new(tasks).await;
    rig.recorder.holds.store(false, Ordering::Relaxed);
    let run = rig.start().await;
    rig.until(run, "a", "success").await;
    rig.until(run, "b", "success").await;
    // Of the task without GPUs, nothing is told.
    let job = format!("{run}/a");
    for attempt in [1, 2] {
        assert!(
            matches!(rig.told().await, Input::JobStarting { attempt: a, job: j, .. } if (a, &j) == (attempt, &job))
        );
        assert!(matches!(rig.told().await, Input::JobStarted { attempt: a, .. } if a == attempt));
        assert!(matches!(rig.told().await, Input::RankEnded { attempt: a, .. } if a == attempt));
    }
    assert_eq!(rig.attempts(run, "b").await.len(), 1);
    assert!(rig.told.try_recv().is_err());
}

#[tokio::test]
async fn a_gang_is_stopped_by_its_job_and_given_up() {
    let mut rig =
        Rig::new("  g: {run: x, nodes: 2, resources: {gpu: 1}, retries: 1, env: {FAKE_SLEEP_MS: '3600000'}}\n").await;
    let run = rig.start().await;
    let job = format!("{run}/g");
    assert!(matches!(rig.told().await, Input::JobStarting { .. }));
    let Input::JobStarted { ranks, attempt: 1, .. } = rig.told().await else { panic!("not started") };
    let nodes: BTreeSet<&str> = ranks.iter().map(|place| place.node.as_str()).collect();
    assert_eq!(nodes, ["n0", "n1"].into());
    let scheduler = rig.app.scheduler.clone();
    assert_eq!(scheduler.look_at_job(&job, 1).await.unwrap(), JobAnswer::Already { live: true });
    assert_eq!(scheduler.stop_job(&job, 2, "XID 79 on n0", false).await.unwrap(), JobAnswer::Over);
    assert_eq!(scheduler.stop_job(&job, 1, "XID 79 on n0", false).await.unwrap(), JobAnswer::Done { live: true });
    let mut ended = BTreeSet::new();
    for _ in 0..2 {
        let Input::RankEnded { rank, exit: Exit::Cancelled, attempt: 1, .. } = rig.told().await else {
            panic!("not ended")
        };
        ended.insert(rank);
    }
    assert_eq!(ended, [0, 1].into());
    rig.until(run, "g", "recovering").await;
    assert_eq!(scheduler.explain(run, pick("g")).await.unwrap().len(), 2);
    assert_eq!(
        scheduler.fail_job(&job, 1, "n0 cannot be repaired", false).await.unwrap(),
        JobAnswer::Done { live: false }
    );
    rig.until(run, "g", "failed").await;
    assert_eq!(scheduler.fail_job(&job, 1, "n0 cannot be repaired", false).await.unwrap(), JobAnswer::Over);
    let rows = rig.app.store.instances(run, &InstanceFilter::default(), Paging::ALL).await.unwrap().rows;
    assert!(rows.iter().all(|row| row.message == "n0 cannot be repaired"), "{rows:?}");
    assert_eq!(rig.state(run).await, RunState::Failed);
}

#[tokio::test]
async fn what_people_do_is_told_before_what_follows_from_it() {
    let tasks = "  a: {run: x, resources: {gpu: 1}, env: {FAKE_EXIT_CODE: '7'}}\n  b: {needs: [a], run: x, resources: {gpu: 1}, env: {FAKE_SLEEP_MS: '3600000'}}\n";
    let mut rig = Rig::new(tasks).await;
    let run = rig.start().await;
    rig.until(run, "a", "recovering").await;
    for _ in 0..3 {
        assert!(matches!(
            rig.told().await,
            Input::JobStarting { .. } | Input::JobStarted { .. } | Input::RankEnded { .. }
        ));
    }
    let scheduler = rig.app.scheduler.clone();
    let stopped = |task: &str, by: &str| Input::UserStop { job: format!("{run}/{task}"), by: by.to_owned() };
    scheduler.mark(run, pick("a"), true, "eve").await.unwrap();
    assert_eq!(rig.told().await, stopped("a", "eve"));
    rig.until(run, "b", "running").await;
    for _ in 0..2 {
        assert!(matches!(rig.told().await, Input::JobStarting { .. } | Input::JobStarted { .. }));
    }
    let picks = Clear::Picks { picks: vec![pick("b")], downstream: false };
    scheduler.clear(run, picks, "bob").await.unwrap();
    assert_eq!(rig.told().await, stopped("b", "bob"));
    assert!(matches!(rig.told().await, Input::RankEnded { exit: Exit::Cancelled, .. }));
    assert!(matches!(rig.told().await, Input::JobStarting { attempt: 2, .. }));
    assert!(matches!(rig.told().await, Input::JobStarted { attempt: 2, .. }));
    scheduler.cancel(run, "ann").await.unwrap();
    assert_eq!(rig.told().await, stopped("b", "ann"));
    assert!(matches!(rig.told().await, Input::RankEnded { exit: Exit::Cancelled, attempt: 2, .. }));
    rig.until(run, "b", "failed").await;
    assert_eq!(rig.state(run).await, RunState::Cancelled);
}

#[tokio::test]
async fn a_server_that_comes_back_tells_of_what_runs_and_of_what_waits() {
    let tasks = "  a: {run: x, resources: {gpu: 1}, env: {FAKE_EXIT_CODE: '7'}}\n  b: {run: x, resources: {gpu: 1}, env: {FAKE_SLEEP_MS: '3600000'}}\n";
    let rig = Rig::new(tasks).await;
    let run = rig.start().await;
    rig.until(run, "a", "recovering").await;
    rig.until(run, "b", "running").await;
    let mut rig = rig.again().await;
    let mut told = BTreeSet::new();
    while told.len() < 4 {
        told.insert(match rig.told().await {
            Input::JobStarting { job, .. } => (job, "starting"),
            Input::JobStarted { job, .. } => (job, "started"),
            Input::RankEnded { job, exit: Exit::Code { code: 7 }, .. } => (job, "ended"),
            other => panic!("{other:?}"),
        });
    }
    let (a, b) = (format!("{run}/a"), format!("{run}/b"));
    let expected = [(a.clone(), "started"), (a.clone(), "ended"), (b.clone(), "starting"), (b.clone(), "started")];
    assert_eq!(told, expected.into());
    let scheduler = rig.app.scheduler.clone();
    assert_eq!(scheduler.fail_job(&a, 1, "", true).await.unwrap(), JobAnswer::Done { live: false });
    rig.until(run, "a", "failed").await;
    assert_eq!(scheduler.stop_job(&b, 1, "XID 79 on n0", true).await.unwrap(), JobAnswer::Done { live: true });
    rig.until(run, "b", "recovering").await;
}

#[tokio::test]
async fn a_job_that_can_go_nowhere_else_goes_where_it_was() {
    let rig = Rig::new("  a: {run: x, resources: {gpu: 1}, env: {FAKE_FAIL_UNTIL_ATTEMPT: '2'}}\n").await;
    let run = rig.start().await;
    rig.until(run, "a", "recovering").await;
    let both = ["n0", "n1"].map(str::to_owned).into();
    let done = rig.app.scheduler.restart_job(&format!("{run}/a"), 2, clock::now(), false, both).await.unwrap();
    assert_eq!(done, JobAnswer::Done { live: false });
    rig.until(run, "a", "success").await;
}

#[tokio::test]
async fn a_job_that_waits_for_a_verdict_goes_on_by_its_own_retries_once_recovery_is_off() {
    let rig = Rig::new("  a: {run: x, resources: {gpu: 1}, retries: 0, env: {FAKE_EXIT_CODE: '1'}}\n").await;
    let run = rig.start().await;
    rig.until(run, "a", "recovering").await;
    let rig = rig.then(false, true).await;
    rig.until(run, "a", "failed").await;
}

#[tokio::test]
async fn nothing_is_taken_before_recovery_knows_what_is_stored() {
    let rig = Rig::new("  a: {run: x, resources: {gpu: 1}}\n").await.then(true, false).await;
    let run = rig.start().await;
    let mut asked = rig.recorder.asked.subscribe();
    asked.wait_for(|asked| *asked).await.unwrap();
    // It answers again once it has given up to wait, for now.
    assert!(rig.app.scheduler.figures().await.is_some());
    let rows = rig.app.store.instances(run, &InstanceFilter::default(), Paging::ALL).await.unwrap().rows;
    assert!(rig.state(run).await == RunState::Queued && rows.iter().all(|row| row.attempt == 0), "{rows:?}");
    rig.recorder.knows.send_replace(true);
    rig.until(run, "a", "success").await;
}

#[tokio::test]
async fn tasks_that_recovery_does_not_know_make_room_for_a_repair() {
    let rig = Rig::new(
        "  a: {run: x, resources: {cpu: 1}, node_selector: {pitcrew/node: n0}, env: {FAKE_SLEEP_MS: '3600000'}}\n",
    )
    .await;
    let run = rig.start().await;
    rig.until(run, "a", "running").await;
    let scheduler = rig.app.scheduler.clone();
    scheduler.make_room("n1", "n1 needs a repair").await.unwrap();
    assert_eq!(rig.attempts(run, "a").await.len(), 1, "it is on another one");
    scheduler.make_room("n0", "n0 needs a repair").await.unwrap();
    loop {
        // Told again until it runs for the second time, it is in the same place, since nothing is fenced here.
        let attempts = rig.attempts(run, "a").await;
        if attempts.iter().any(|row| row.number == 1 && row.exit == Some(Exit::Cancelled)) {
            break;
        }
        tokio::task::yield_now().await;
    }
}

/// An attempt of this number, once it has ended.
async fn ended(rig: &Rig, run: RunKey, task: &str, number: u32) -> AttemptRecord {
    loop {
        let attempts = rig.attempts(run, task).await;
        if let Some(row) = attempts.into_iter().find(|row| row.number == number && row.exit.is_some()) {
            return row;
        }
        tokio::task::yield_now().await;
    }
}

impl Rig {
    /// Its nodes are otherwise than before.
    fn taint(&self, node: &str, effect: Option<Effect>) {
        self.nodes.send_modify(|nodes| {
            let mut all = Vec::clone(nodes);
            let known = all.iter_mut().find(|known| known.node.name == node).unwrap();
            known.node.taints =
                effect.map(|effect| Taint { key: "old".into(), value: "yes".into(), effect }).into_iter().collect();
            *nodes = Arc::new(all);
        });
    }
}

#[tokio::test]
async fn a_taint_that_ends_what_runs_ends_tasks_that_do_not_tolerate_it_and_no_others() {
    let first = "affinity: {preferred: [{weight: 9, key: pitcrew/node, operator: In, values: [n0]}]}";
    let sleeps = "env: {FAKE_SLEEP_MS: '3600000'}";
    let tolerates = |seconds: &str| format!("tolerations: [{{key: old, operator: Exists{seconds}}}]");
    let rig = Rig::new(&format!(
        "  moves: {{run: x, resources: {{cpu: 1}}, {first}, {sleeps}}}\n  \
         stays: {{run: x, resources: {{cpu: 1}}, {}, {first}, {sleeps}}}\n  \
         lingers: {{run: x, resources: {{cpu: 1}}, {}, {first}, {sleeps}}}\n",
        tolerates(""),
        tolerates(", effect: NoExecute, tolerationSeconds: 1"),
    ))
    .await;
    let run = rig.start().await;
    for task in ["moves", "stays", "lingers"] {
        rig.until(run, task, "running").await;
    }
    let node = |rows: &[AttemptRecord]| rows[0].node.clone().unwrap_or_default();
    assert_eq!(node(&rig.attempts(run, "moves").await), "n0");
    // The others keep new work away, and end none.
    rig.taint("n0", Some(Effect::NoSchedule));
    rig.app.scheduler.settled().await.unwrap();
    rig.taint("n0", Some(Effect::NoExecute));
    let row = ended(&rig, run, "moves", 1).await;
    assert_eq!(row.exit, Some(Exit::Cancelled));
    let why = "its node `n0` has the taint `old=yes:NoExecute`, which it does not tolerate";
    assert!(row.message.contains(why), "{}", row.message);
    let row = ended(&rig, run, "lingers", 1).await;
    assert!(row.message.contains("which it tolerates for 1 s"), "{}", row.message);
    for task in ["moves", "lingers"] {
        // There are no retries that this could have drawn on.
        let second = loop {
            let rows = rig.attempts(run, task).await;
            if let Some(row) = rows.into_iter().find(|row| row.number == 2) {
                break row;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(second.node.as_deref(), Some("n1"), "{task}");
    }
    assert_eq!(rig.attempts(run, "stays").await.iter().map(|row| row.number).collect::<Vec<_>>(), [1]);
}

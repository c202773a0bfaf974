//! The nodes while the server runs: asks each from time to time, keeps what it told, and gives out the list.
//!
//! Invariants: what is given out is put together anew whenever a fact changes, and only then; the store is written only
//! when something changed, so an idle fleet writes nothing. A node that does not answer is asked less often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use futures::future::{join, join_all};
use jiff::Timestamp;
use pitcrew_core::fleet::{Held, Request, Standing, held};
use pitcrew_exec::GpuUsage;
use pitcrew_exec::gpu::{HeldGpu, Reading, with_exporter};
use pitcrew_store::{AuditEntry, NodeChange, NodeRow, NodeSample, Store, StoreError};
use tokio::sync::{Notify, watch};

use super::ask::{self, Answer, Asker};
use super::assemble::{Assembled, assemble};
use super::config::NodeConfig;
use super::seen::{Seen, SeenGpu};
use super::series::{Ended, KEPT, KEPT_HOURS, Sample, Series, usage};
use super::twins::{One, sort_out};
use super::view::NodeView;
use super::workers::Worker;
use super::{FleetNode, Instance, KubeSeen, LOCAL, Nodes, Reach};
use crate::clock;

/// How often a node with GPUs is asked.
const WITH_GPUS: Duration = Duration::from_secs(10);
/// How often one without is.
const WITHOUT: Duration = Duration::from_secs(60);
/// After a node did not answer for the first time, and at most.
const FAILED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(300));
/// How long a server waits at its start for nodes that are new to it.
const MEET: Duration = Duration::from_secs(10);
/// How soon what somebody did elsewhere is noticed.
const MARKS: Duration = Duration::from_secs(2);

/// All nodes. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) store: Store,
    /// The data directory of this server, where others share its store: each has a machine of its own.
    home: Option<String>,
    nodes: Mutex<Vec<Known>>,
    list: watch::Sender<Arc<Vec<FleetNode>>>,
    /// The list lacks something.
    is_stale: AtomicBool,
    /// Held while it is put together.
    publishing: Mutex<()>,
    /// Counts who asked for the rows of workers, and who began to read them; when the last reading began that ended well.
    pub(super) turns: AtomicU64,
    pub(super) last_read: tokio::sync::Mutex<u64>,
}

/// What is known of a node.
pub(super) struct Known {
    pub(super) config: NodeConfig,
    /// It is a worker: who that is, and what it told.
    pub(super) worker: Option<Worker>,
    pub(super) seen: Option<Seen>,
    /// The last words of its that the store has.
    written: Option<Seen>,
    marks: Option<NodeRow>,
    /// Recovery lets it have no new work, and why.
    fenced: Option<String>,
    /// Somebody else has asked it.
    found: Arc<Notify>,
    readings: Vec<Reading>,
    series: Series,
    /// The last five minutes, and the last hour, that the store does not have yet.
    unwritten: Ended,
}

/// A device of a node that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub id: String,
    pub why: String,
    /// It was there before; else it is there, and says itself that it is broken.
    pub since: Option<Timestamp>,
}

impl Fleet {
    /// These nodes, with what is known of them.
    pub fn of(store: Store, nodes: Vec<(NodeConfig, Option<Seen>)>) -> Fleet {
        Fleet::at(store, None, nodes)
    }

    fn at(store: Store, home: Option<String>, nodes: Vec<(NodeConfig, Option<Seen>)>) -> Fleet {
        let known = |(config, seen): (NodeConfig, Option<Seen>)| Known::new(config, seen, None);
        let inner = Inner {
            store,
            home,
            nodes: Mutex::new(nodes.into_iter().map(known).collect()),
            list: watch::channel(Arc::default()).0,
            is_stale: AtomicBool::new(false),
            publishing: Mutex::default(),
            turns: AtomicU64::new(1),
            last_read: tokio::sync::Mutex::default(),
        };
        let fleet = Fleet(Arc::new(inner));
        fleet.publish();
        fleet
    }

    /// The nodes of the configuration with what the store knows of them, and this machine as it is now. `home` is the data
    /// directory of this server, if others may have the same store.
    pub async fn open(
        store: Store,
        configs: &[NodeConfig],
        home: Option<String>,
        now: Timestamp,
    ) -> Result<Fleet, StoreError> {
        let fleet = Fleet::stored(store, configs, home).await?;
        fleet.find_this_machine(now).await;
        Ok(fleet)
    }

    /// The nodes of the configuration as whoever serves them last saw them.
    pub async fn look(
        store: Store,
        configs: &[NodeConfig],
        home: Option<String>,
        now: Timestamp,
    ) -> Result<Fleet, StoreError> {
        let fleet = Fleet::stored(store, configs, home).await?;
        let is_new = fleet.lock().iter().any(|known| known.is_here() && known.seen.is_none());
        if is_new {
            fleet.find_this_machine(now).await;
        }
        let elsewhere = |worker: &mut Worker| worker.is_elsewhere = true;
        fleet.lock().iter_mut().filter_map(|known| known.worker.as_mut()).for_each(elsewhere);
        Ok(fleet)
    }

    async fn stored(store: Store, configs: &[NodeConfig], home: Option<String>) -> Result<Fleet, StoreError> {
        let mut configs = configs.to_vec();
        if configs.iter().all(|config| config.connection.is_some()) {
            configs.insert(0, NodeConfig::plain(LOCAL));
        }
        let rows = by_name(store.nodes().await?);
        // What an older version wrote may be unreadable; the node will tell it again.
        let key = |config: &NodeConfig| key_of(&config.name, config.connection.is_none(), home.as_deref());
        let seen = |config: &NodeConfig| serde_json::from_value(rows.get(&key(config))?.seen.clone()).ok();
        let nodes = configs.into_iter().map(|config| (config.clone(), seen(&config))).collect();
        let fleet = Fleet::at(store, home, nodes);
        fleet.read_workers(&rows).await?;
        fleet.read_instances(&rows);
        fleet.read_kubernetes(&rows);
        fleet.mark(&rows);
        Ok(fleet)
    }

    async fn find_this_machine(&self, now: Timestamp) {
        let here = self.lock().iter().find(|known| known.is_here()).map(|k| k.config.name.clone());
        if let Some(name) = here {
            let answer = ask::this_machine().await.map(|probe| Answer { probe, dcgm: None });
            self.take(&name, answer, now);
        }
    }

    /// This machine alone, for a run in the foreground; devices are looked for only when they are `wanted`.
    pub async fn alone(store: Store, configs: &[NodeConfig], wanted: bool, now: Timestamp) -> Fleet {
        let config = configs.iter().find(|config| config.connection.is_none()).cloned();
        let config = config.unwrap_or_else(|| NodeConfig::plain(LOCAL));
        let name = config.name.clone();
        let fleet = Fleet::of(store, vec![(config, Some(Seen::of_machine()))]);
        if wanted {
            fleet.take(&name, ask::this_machine().await.map(|probe| Answer { probe, dcgm: None }), now);
        }
        fleet
    }

    /// The list, as it is and as it changes.
    pub fn nodes(&self) -> Nodes {
        self.0.list.subscribe()
    }

    /// Every node as people see it, in the order of the configuration.
    pub fn views(&self) -> Vec<NodeView> {
        let known = self.lock();
        known.iter().zip(together(&known)).map(|(known, assembled)| known.view(assembled)).collect()
    }

    pub fn view(&self, name: &str) -> Option<NodeView> {
        self.views().into_iter().find(|view| view.name == name)
    }

    /// As if a node's devices had told this; for tests of whatever shows it.
    pub fn told(&self, name: &str, readings: Vec<Reading>) {
        if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
            known.readings = readings;
        }
    }

    /// What the devices of a node did, the oldest first.
    pub fn samples(&self, name: &str) -> Option<Vec<Sample>> {
        self.lock().iter().find(|known| known.config.name == name).map(|known| known.series.all())
    }

    /// What devices of a node did in that time, as far as it was asked then, for whoever had them by this request.
    pub fn usage(
        &self,
        name: &str,
        gpus: &[String],
        request: &Request,
        from: Timestamp,
        to: Timestamp,
    ) -> Vec<GpuUsage> {
        let known = self.lock();
        let Some(known) = known.iter().find(|known| known.config.name == name) else { return Vec::new() };
        let of = |held: Held| HeldGpu { id: held.id, device: held.gpu, part: held.part };
        let held: Vec<HeldGpu> = held(&known.assembled().node, gpus, request).into_iter().map(of).collect();
        usage(&known.series, &held, from, to)
    }

    /// Does something to a node; it counts when this returns. `None`: there is no such node.
    pub async fn change(
        &self,
        name: &str,
        change: NodeChange,
        audit: AuditEntry,
    ) -> Result<Option<NodeView>, StoreError> {
        if self.view(name).is_none() {
            return Ok(None);
        }
        let row = self.0.store.change_node(&self.key(name), change, audit).await?;
        if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
            known.marks = Some(row);
        }
        self.publish();
        Ok(self.view(name))
    }

    /// Asks nodes that nobody has seen yet, once and not for long: a request that no node can ever meet is refused, so what
    /// they have should be known before anything is asked of them.
    pub async fn meet(&self, asker: &Asker) {
        let is_new = |known: &Known| known.seen.is_none() && known.is_asked();
        let new = |known: &Known| is_new(known).then(|| known.config.clone());
        let new: Vec<NodeConfig> = self.lock().iter().filter_map(new).collect();
        let asking = new.into_iter().map(async |config| {
            if let Ok(answer) = tokio::time::timeout(MEET, asker.ask(&config)).await {
                self.take(&config.name, answer, clock::now());
            }
        });
        join_all(asking).await;
    }

    /// Asks all nodes from time to time, for as long as this is polled. What they tell is written by the server that leads:
    /// of several, each may reach them in another way, and all write the same rows.
    pub async fn run(self, asker: Asker, leads: watch::Receiver<bool>) {
        let asked = |known: &&Known| known.is_asked();
        let configs: Vec<NodeConfig> = self.lock().iter().filter(asked).map(|known| known.config.clone()).collect();
        let asking = join_all(configs.into_iter().map(|config| self.follow(config, &asker, leads.clone())));
        join(asking, self.follow_marks()).await;
    }

    async fn follow(&self, config: NodeConfig, asker: &Asker, mut leads: watch::Receiver<bool>) {
        self.remember(&config.name).await;
        let leads_now = leads.clone();
        let keep = async {
            // Another server may have written since; whoever takes the lead writes what it knows.
            while leads.wait_for(|leads| *leads).await.is_ok() {
                self.forget_written(&config.name);
                self.write(&config.name, clock::now()).await;
                if leads.wait_for(|leads| !*leads).await.is_err() {
                    return;
                }
            }
        };
        join(keep, self.ask_again(&config, asker, leads_now)).await;
    }

    async fn ask_again(&self, config: &NodeConfig, asker: &Asker, leads: watch::Receiver<bool>) {
        let is_local = config.connection.is_none();
        if is_local && ask::is_pretended() {
            return;
        }
        let mut failures = 0;
        let mut wait = if is_local { self.pause(&config.name) } else { Duration::ZERO };
        let found = self.lock().iter().find(|k| k.config.name == config.name).map(|known| known.found.clone());
        let found = found.unwrap_or_default();
        loop {
            let due = tokio::time::sleep(wait);
            tokio::select! {
                () = due => {}
                // One that is well is asked when it is due.
                () = found.notified(), if failures > 0 => {}
            }
            let answer = asker.ask(config).await;
            self.take(&config.name, answer, clock::now());
            if *leads.borrow() {
                self.write(&config.name, clock::now()).await;
                self.write_sample(&config.name).await;
            }
            let is_down = self.lock().iter().any(|k| k.config.name == config.name && k.is_down());
            failures = if is_down { failures + 1 } else { 0 };
            wait = match failures {
                0 => self.pause(&config.name),
                n => FAILED.1.min(FAILED.0 * 2u32.saturating_pow(n - 1)),
            };
        }
    }

    fn pause(&self, name: &str) -> Duration {
        let nodes = self.lock();
        let gpus = nodes.iter().find(|known| known.config.name == name).and_then(|known| known.seen.as_ref());
        if gpus.is_some_and(|seen| !seen.gpus.is_empty()) { WITH_GPUS } else { WITHOUT }
    }

    /// What other processes did with the same store.
    async fn follow_marks(&self) {
        let mut before = None;
        loop {
            tokio::time::sleep(MARKS).await;
            let rows = async { Ok::<_, StoreError>((self.0.store.nodes().await?, self.0.store.workers().await?)) };
            match rows.await {
                // A thousand nodes to which nothing happened cost no more than looking.
                Ok(rows) if before.as_ref() == Some(&rows) => {}
                Ok(rows) => {
                    let nodes = by_name(rows.0.clone());
                    self.set_workers(&rows.1, &nodes).await;
                    self.mark(&nodes);
                    before = Some(rows);
                }
                Err(error) => tracing::warn!(%error, "what people did to nodes cannot be read"),
            }
        }
    }

    fn mark(&self, rows: &BTreeMap<String, NodeRow>) {
        for known in self.lock().iter_mut() {
            known.marks = rows.get(&key_of(&known.config.name, known.is_here(), self.0.home.as_deref())).cloned();
        }
        self.publish();
    }

    /// Takes what came of asking a node.
    pub(super) fn take(&self, name: &str, answer: Result<Answer, String>, now: Timestamp) {
        let mut nodes = self.lock();
        let Some(known) = nodes.iter_mut().find(|known| known.config.name == name) else { return };
        let before = known.seen.clone();
        let seen = known.seen.get_or_insert_default();
        match answer {
            Err(why) => {
                seen.unreachable(why);
                known.readings.clear();
            }
            Ok(Answer { mut probe, dcgm }) => {
                let exporter = match dcgm {
                    None => None,
                    Some(Ok(told)) => {
                        probe = with_exporter(probe, told);
                        None
                    }
                    // What it told before stands, with a word on how old it is; `nvidia-smi` may still know better.
                    Some(Err(why)) => Some(why),
                };
                seen.answered(&probe, now);
                seen.remarks.extend(exporter);
                let ended = known.series.add(&probe.gpus, now);
                known.unwritten.step = ended.step.or(known.unwritten.step.take());
                known.unwritten.hour = ended.hour.or(known.unwritten.hour.take());
                known.readings = probe.gpus;
            }
        }
        let is_news = known.seen != before;
        drop(nodes);
        // Nodes are put together from what is seen of them, and not from what their devices do: of a thousand nodes a hundred
        // a second say that nothing has changed.
        if is_news {
            self.publish();
        }
    }

    /// Somebody else has asked a node: it is as that has found it, and is asked as often as one that answers again.
    pub(crate) fn found(&self, name: &str, answer: Answer, now: Timestamp) {
        self.take(name, Ok(answer), now);
        let known = self.lock();
        if let Some(known) = known.iter().find(|known| known.config.name == name) {
            known.found.notify_one();
        }
    }

    /// Those that recovery lets have no new work, with the reason; all others may have some, as far as it is concerned.
    pub fn set_fenced(&self, fenced: BTreeMap<String, String>) {
        let mut changed = false;
        for known in self.lock().iter_mut() {
            let why = fenced.get(&known.config.name);
            changed |= known.fenced.as_ref() != why;
            known.fenced = why.cloned();
        }
        if changed {
            self.publish();
        }
    }

    /// What is configured of a node, if there is one of that name.
    pub fn config_of(&self, name: &str) -> Option<NodeConfig> {
        self.lock().iter().find(|known| known.config.name == name).map(|known| known.config.clone())
    }

    /// The devices of a node as it told of them last: their numbers there, and their UUIDs.
    pub fn devices(&self, name: &str) -> Vec<(u32, String)> {
        let nodes = self.lock();
        let readings = nodes.iter().find(|known| known.config.name == name).map(|known| &known.readings);
        readings.into_iter().flatten().map(|reading| (reading.index, reading.uuid.clone())).collect()
    }

    /// What a node has lost, as far as its configuration wants it.
    pub fn lost(&self, name: &str) -> Vec<Lost> {
        let nodes = self.lock();
        let Some(known) = nodes.iter().find(|known| known.config.name == name) else { return Vec::new() };
        let gone = known.gone().filter_map(|gpu| {
            Some(Lost { id: gpu.id.clone(), why: gpu.fault.clone().unwrap_or_default(), since: Some(gpu.gone_since?) })
        });
        let broken = known
            .readings
            .iter()
            .filter_map(|reading| Some(Lost { id: reading.uuid.clone(), why: reading.fault.clone()?, since: None }));
        gone.chain(broken).collect()
    }

    /// Under which name the store has a node.
    fn key(&self, name: &str) -> String {
        let is_here = self.lock().iter().any(|known| known.config.name == name && known.is_here());
        key_of(name, is_here, self.0.home.as_deref())
    }

    fn forget_written(&self, name: &str) {
        self.lock().iter_mut().filter(|known| known.config.name == name).for_each(|known| known.written = None);
    }

    /// Writes what a node told, if the store has something else.
    pub(super) async fn write(&self, name: &str, now: Timestamp) {
        let changed = {
            let nodes = self.lock();
            let known = nodes.iter().find(|known| known.config.name == name);
            known.filter(|known| known.seen != known.written).and_then(|known| known.seen.clone())
        };
        let Some(seen) = changed else { return };
        let row = match serde_json::to_value(&seen) {
            Ok(value) => self.0.store.see_node(&self.key(name), &value, now).await,
            Err(error) => return tracing::error!(%error, "what a node told cannot be written"),
        };
        match row {
            Ok(()) => {
                if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
                    known.written = Some(seen);
                }
            }
            Err(error) => tracing::warn!(%error, node = name, "what a node told cannot be stored"),
        }
    }

    /// Goes on after the samples that the store has.
    pub(super) async fn remember(&self, name: &str) {
        let (store, key) = (&self.0.store, self.key(name));
        let read = async {
            Ok::<_, StoreError>((store.node_samples(&key).await?, store.node_samples(&hours_of(&key)).await?))
        };
        let (steps, hours) = match read.await {
            Ok(rows) => rows,
            Err(error) => return tracing::warn!(%error, node = name, "the samples of a node cannot be read"),
        };
        let samples =
            |rows: Vec<NodeSample>| rows.into_iter().filter_map(|row| serde_json::from_value(row.sample).ok());
        if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
            known.series = Series::after(samples(steps), samples(hours));
        }
    }

    pub(super) async fn write_sample(&self, name: &str) {
        let known = |known: &mut Known| std::mem::take(&mut known.unwritten);
        let ended = self.lock().iter_mut().find(|known| known.config.name == name).map(known).unwrap_or_default();
        let key = self.key(name);
        for (sample, name, kept) in [(ended.step, key.clone(), KEPT), (ended.hour, hours_of(&key), KEPT_HOURS)] {
            let Some(sample) = sample else { continue };
            let Ok(value) = serde_json::to_value(&sample) else { continue };
            let row = NodeSample { node: name, at: sample.at, sample: value };
            if let Err(error) = self.0.store.put_node_sample(row, sample.at - kept).await {
                tracing::warn!(%error, "a sample of a node cannot be stored");
            }
        }
    }

    /// Gives out the list as it is now. When a thousand workers come at once, each call would put a thousand nodes together:
    /// whoever finds somebody at it leaves it to them to do it once more.
    pub(super) fn publish(&self) {
        self.0.is_stale.store(true, Ordering::SeqCst);
        while self.0.is_stale.load(Ordering::SeqCst) {
            let _alone = match self.0.publishing.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            while self.0.is_stale.swap(false, Ordering::SeqCst) {
                let list: Vec<FleetNode> = {
                    let known = self.lock();
                    known.iter().zip(together(&known)).map(|(known, assembled)| known.fleet_node(assembled)).collect()
                };
                self.0.list.send_if_modified(|old| {
                    let changed = **old != list;
                    if changed {
                        *old = Arc::new(list);
                    }
                    changed
                });
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        // Nothing is left half changed, so a panic elsewhere spoils nothing.
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    pub(super) fn new(config: NodeConfig, seen: Option<Seen>, worker: Option<Worker>) -> Known {
        Known {
            config,
            worker,
            written: seen.clone(),
            seen,
            marks: None,
            fenced: None,
            found: Arc::default(),
            readings: Vec::new(),
            series: Series::default(),
            unwritten: Ended::default(),
        }
    }

    /// Whether it is the machine of the server.
    fn is_here(&self) -> bool {
        self.config.connection.is_none() && self.is_asked()
    }

    /// Whether it is this server that asks it what it has.
    fn is_asked(&self) -> bool {
        self.worker.is_none() && self.instance().is_none() && self.kube().is_none()
    }

    /// What it is in its cluster of ECS.
    pub(super) fn instance(&self) -> Option<&Instance> {
        self.seen.as_ref()?.ecs.as_ref()
    }

    /// What it is in its cluster of Kubernetes.
    pub(super) fn kube(&self) -> Option<&KubeSeen> {
        self.seen.as_ref()?.kubernetes.as_ref()
    }

    /// Devices that it had, does not report, and should.
    fn gone(&self) -> impl Iterator<Item = &SeenGpu> {
        let used: BTreeSet<String> = self.assembled().node.gpus.into_iter().map(|gpu| gpu.id).collect();
        let told = self.seen.iter().flat_map(|seen| &seen.gpus);
        told.filter(move |gpu| gpu.gone_since.is_some() && used.contains(&gpu.id))
    }

    fn assembled(&self) -> Assembled {
        let assembled = assemble(&self.config, self.seen.as_ref(), self.marks.as_ref());
        let mut assembled = match &self.worker {
            Some(worker) => worker.over(assembled),
            None => assembled,
        };
        if let Some(instance) = self.instance() {
            assembled = instance.over(assembled);
        }
        if let Some(kube) = self.kube() {
            assembled = kube.over(assembled);
        }
        if let Some(why) = &self.fenced {
            assembled.remarks.push(format!("it gets no new work: {why}"));
            if assembled.node.standing == Standing::Ready {
                assembled.node.standing = Standing::Cordoned;
            }
        }
        assembled
    }

    fn fleet_node(&self, assembled: Assembled) -> FleetNode {
        let node = assembled.node;
        let reach = match (&self.worker, &self.config.connection, self.instance(), self.kube()) {
            (Some(worker), ..) => Reach::Worker(worker.place(&self.config.name)),
            (None, Some(id), ..) => Reach::Connection(id.clone()),
            (None, None, Some(instance), _) => Reach::Ecs(instance.at.clone()),
            (None, None, None, Some(kube)) => Reach::Kubernetes(kube.at.clone()),
            (None, None, None, None) => Reach::Local,
        };
        FleetNode { node, reach }
    }

    pub(super) fn view(&self, assembled: Assembled) -> NodeView {
        let mut view = NodeView::new(&self.config, assembled, self.marks.as_ref(), &self.readings);
        view.cluster = self.instance().map(|instance| instance.at.cluster.clone());
        view.cluster = view.cluster.or_else(|| self.kube().map(|kube| kube.at.cluster.clone()));
        if self.worker.as_ref().is_some_and(|worker| worker.is_elsewhere) {
            view.standing = "enrolled".to_owned();
            view.reason = Some("only the server knows whether it calls: `--server URL` asks it".to_owned());
        }
        view
    }

    fn is_down(&self) -> bool {
        self.seen.as_ref().is_none_or(|seen| seen.down.is_some())
    }
}

/// What each comes to, all of them held against each other.
pub(super) fn together(all: &[Known]) -> Vec<Assembled> {
    let ones = all.iter().map(|known| One {
        assembled: known.assembled(),
        seen: known.seen.as_ref(),
        enrolled: known.worker.as_ref().map(|worker| worker.enrolled),
    });
    let mut nodes: Vec<One<'_>> = ones.collect();
    sort_out(&mut nodes);
    nodes.into_iter().map(|one| one.assembled).collect()
}

/// Under which name the store has a node: the machine of a server is not that of another one, though both say `local`.
fn key_of(name: &str, is_here: bool, home: Option<&str>) -> String {
    match home.filter(|_| is_here) {
        Some(home) => format!("{name} of {home}"),
        None => name.to_owned(),
    }
}

/// Under which name the store has the samples of each hour; no node has a name like that.
fn hours_of(name: &str) -> String {
    format!("{name} by the hour")
}

fn by_name(rows: Vec<NodeRow>) -> BTreeMap<String, NodeRow> {
    rows.into_iter().map(|row| (row.name.clone(), row)).collect()
}

#[cfg(test)]
mod tests {
    use pitcrew_exec::gpu::parse_probe;
    use pitcrew_store::StoreUrl;

    use super::*;
    use crate::fleet::config::Declared;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn answer(lines: &str) -> Result<Answer, String> {
        Ok(Answer { probe: parse_probe(&format!("pitcrew-probe\ncores 8\n{lines}")).unwrap(), dcgm: None })
    }

    const GPU: &str = "smi 0\ngpu 0, GPU-a, Disabled, 81920, 5, 70, 300.5, 60, NVIDIA A100\n";

    #[tokio::test]
    async fn what_people_did_and_what_was_seen_survives_a_restart_and_is_written_once() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let mut config = NodeConfig::plain("s21");
        config.connection = Some("gpu".to_owned());
        let fleet = Fleet::open(store.clone(), std::slice::from_ref(&config), None, at(0)).await.unwrap();
        let names: Vec<String> = fleet.views().into_iter().map(|view| view.name).collect();
        assert_eq!(names, [LOCAL, "s21"], "the machine of the server is always a node");
        let mut nodes = fleet.nodes();
        nodes.mark_unchanged();
        fleet.take("s21", answer(GPU), at(1));
        assert!(nodes.has_changed().unwrap());
        fleet.write("s21", at(1)).await;
        nodes.mark_unchanged();
        fleet.take("s21", answer(&GPU.replace("70, 300.5", "71, 310")), at(2));
        fleet.write("s21", at(2)).await;
        assert!(!nodes.has_changed().unwrap(), "use and power are no reason to place anew");
        assert_eq!(store.nodes().await.unwrap()[0].seen_at, Some(at(1)), "nothing changed, so nothing was written");
        let view = fleet.view("s21").unwrap();
        assert_eq!((view.gpus[0].use_percent, view.gpus[0].power_watts), (Some(71.0), Some(310.0)));
        assert_eq!(fleet.samples("s21").unwrap().len(), 2);
        fleet.take("s21", answer(GPU), at(400));
        fleet.write_sample("s21").await;
        let change = NodeChange { cordoned: Some(true), ..NodeChange::default() };
        let audit = || AuditEntry::new(at(3), "ada", "node.cordon");
        assert_eq!(fleet.change("s21", change.clone(), audit()).await.unwrap().unwrap().standing, "cordoned");
        assert!(nodes.has_changed().unwrap());
        assert_eq!(fleet.change("s22", change, audit()).await.unwrap(), None);

        let again = Fleet::open(store, &[config], None, at(4)).await.unwrap();
        again.remember("s21").await;
        let samples = again.samples("s21").unwrap();
        assert_eq!((samples.len(), samples[0].gpus["GPU-a"].power_watts), (1, Some(305.3)), "two answers as one");
        let list = again.nodes().borrow().clone();
        let node = list.iter().find(|node| node.node.name == "s21").unwrap();
        assert_eq!((&node.node.standing, node.node.gpus[0].id.as_str()), (&Standing::Cordoned, "GPU-a"));
        assert_eq!(node.reach, Reach::Connection("gpu".to_owned()));
    }

    #[tokio::test]
    async fn what_a_node_lost_is_still_expected_of_it_but_what_differs_from_its_configuration_is_not_lost() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let mut config = NodeConfig::plain("s21");
        config.connection = Some("gpu".to_owned());
        config.gpus = Some(Declared::Count { count: 3, model: Some("h100".to_owned()), memory_mib: None });
        let fleet = Fleet::open(store, &[config], None, at(0)).await.unwrap();
        let other = "gpu 1, GPU-b, Disabled, 81920, 5, 70, 300.5, 60, NVIDIA A100\n";
        fleet.take("s21", answer(&format!("{GPU}{other}")), at(1));
        let faults = fleet.view("s21").unwrap().gpus.iter().filter(|gpu| gpu.fault.is_some()).count();
        assert_eq!((faults, fleet.lost("s21")), (3, Vec::new()), "one is not there, and the others are no H100");
        fleet.take("s21", answer(&format!("smi 0\n{}", other.replace("gpu 1", "gpu 0"))), at(2));
        let why = "the node does not report it any more".to_owned();
        assert_eq!(fleet.lost("s21"), [Lost { id: "GPU-a".to_owned(), why, since: Some(at(2)) }]);
        assert_eq!(fleet.devices("s21"), [(0, "GPU-b".to_owned())]);
    }

    #[tokio::test]
    async fn servers_that_share_a_store_keep_their_own_machines_apart() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let open = |home: &str| Fleet::look(store.clone(), &[], Some(home.to_owned()), at(0));
        let one = open("one").await.unwrap();
        let gpus = |fleet: &Fleet| fleet.view(LOCAL).unwrap().gpus.into_iter().map(|gpu| gpu.id).collect::<Vec<_>>();
        one.take(LOCAL, answer(GPU), at(1));
        one.take(LOCAL, answer(GPU), at(400));
        one.write(LOCAL, at(400)).await;
        one.write_sample(LOCAL).await;
        let change = NodeChange { cordoned: Some(true), ..NodeChange::default() };
        one.change(LOCAL, change, AuditEntry::new(at(3), "ada", "node.cordon")).await.unwrap().unwrap();
        let other = open("other").await.unwrap();
        other.remember(LOCAL).await;
        assert!(!gpus(&other).contains(&"GPU-a".to_owned()) && !other.view(LOCAL).unwrap().is_cordoned);
        assert!(other.samples(LOCAL).unwrap().is_empty());
        let again = open("one").await.unwrap();
        again.remember(LOCAL).await;
        assert_eq!((gpus(&again), again.view(LOCAL).unwrap().is_cordoned), (vec!["GPU-a".to_owned()], true));
        assert_eq!(again.samples(LOCAL).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_reached_is_down_and_an_exporter_stands_in_for_nvidia_smi() {
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let fleet = Fleet::of(store, vec![(NodeConfig::plain("s21"), None)]);
        fleet.take("s21", answer(GPU), at(0));
        fleet.take("s21", Err("no route to host".to_owned()), at(1));
        let view = fleet.view("s21").unwrap();
        assert_eq!((view.standing.as_str(), view.reason.as_deref()), ("down", Some("no route to host")));
        assert_eq!(view.gpus[0].use_percent, None, "what it did is not known any more");
        let mut told = answer("smi none\n").unwrap();
        let text = "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA A100\"} 9\n";
        told.dcgm = Some(Ok(pitcrew_exec::gpu::parse_dcgm(text)));
        fleet.take("s21", Ok(told), at(2));
        let view = fleet.view("s21").unwrap();
        assert_eq!(
            (view.standing.as_str(), view.gpus[0].use_percent, &view.gpus[0].fault),
            ("ready", Some(9.0), &None)
        );
        assert_eq!(view.gpus[0].memory_mib, 81920, "it is remembered what the exporter does not tell");
        let mut silent = answer("smi none\n").unwrap();
        silent.dcgm = Some(Err("the DCGM exporter cannot be asked".to_owned()));
        fleet.take("s21", Ok(silent), at(3));
        let view = fleet.view("s21").unwrap();
        assert!(view.gpus[0].fault.is_some() && view.remarks.len() == 1, "{view:?}");
    }
}

//! Workers as nodes: what they told of themselves and how they stand, put over what is put together for every node.
//!
//! Invariant: a worker's own labels never say which queues it serves or how it is reached; what it says of its queues
//! counts as far as the token that it enrolled with allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::fleet::{Amount, BACKEND_LABEL, QUEUE_LABEL, Standing, check_queue};
use pitcrew_core::ir::BackendKind;
use pitcrew_exec::WorkerPlace;
use pitcrew_exec::gpu::Probe;
use pitcrew_exec::worker::Hub;
use pitcrew_exec::worker::protocol::{About, Load, Sync};
use pitcrew_store::{NodeRow, StoreError, WorkerEnds, WorkerRow};
use serde::{Deserialize, Serialize};

use super::ask::Answer;
use super::assemble::Assembled;
use super::config::{NodeConfig, check_key, check_name, check_resource, check_value};
use super::service::{Known, together};
use super::{Fleet, NodeView};

/// After this long without a word, nothing new is given to a worker: it missed two waits.
const SILENT: SignedDuration = SignedDuration::from_secs(60);
/// The most attempts that a worker runs at a time, and the most queues and labels that it has.
const MOST_SLOTS: u32 = 10_000;
const MOST_NAMES: usize = 100;
/// Labels that begin so are ours.
const OURS: &str = "pitcrew/";

/// What a worker told of itself, and which queues it may serve: what the store keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub about: About,
    /// Empty: any.
    pub may_serve: Vec<String>,
    /// When it last came from another place than before; its earlier process may have gone on there for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Timestamp>,
}

/// A worker among the nodes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Worker {
    pub id: String,
    pub told: Told,
    pub drain: bool,
    pub enrolled: Timestamp,
    /// It was heard not long ago.
    pub is_heard: bool,
    /// Not this process hears it, but the server.
    pub is_elsewhere: bool,
    /// It takes no more work.
    pub is_draining: bool,
    pub prefetch: u32,
    pub load: Option<Load>,
    /// Its address is not remembered; but when it was heard is, for people.
    pub heard_at: Option<Timestamp>,
}

/// A worker as people and programs see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerView {
    pub name: String,
    pub id: String,
    /// `ready`, `cordoned`, `draining` or `down`.
    pub standing: String,
    pub reason: Option<String>,
    pub queues: Vec<String>,
    pub slots: u32,
    /// How many attempts it would take beyond its slots.
    pub prefetch: u32,
    pub running: usize,
    /// On it, and waiting for a slot.
    pub waiting: usize,
    /// Attempts that ended there since it enrolled, and how many of them did not succeed; cancelled ones are not failed.
    pub ended: u64,
    pub failed: u64,
    pub gpus: usize,
    pub version: String,
    pub host: String,
    pub labels: BTreeMap<String, String>,
    /// Somebody wants it to take no more work.
    pub drain: bool,
    /// The load average of its machine over 1, 5 and 15 minutes.
    pub load1: Option<f64>,
    #[serde(default)]
    pub load5: Option<f64>,
    #[serde(default)]
    pub load15: Option<f64>,
    pub memory_used_mib: Option<u64>,
    pub memory_mib: u64,
    pub cpu: f64,
    pub enrolled: Timestamp,
    pub heard_at: Option<Timestamp>,
}

impl WorkerView {
    /// Whether it is given what waits in its queues.
    pub fn takes_work(&self) -> bool {
        self.standing == "ready"
    }
}

/// Whether a worker can be what it says. The error is a sentence for whoever starts it.
pub fn check(name: &str, about: &About, may_serve: &[String]) -> Result<(), String> {
    check_name(name).map_err(|why| format!("`{name}` is no name of a worker: {why}"))?;
    if about.queues.is_empty() || about.queues.len() > MOST_NAMES {
        return Err(format!("a worker serves 1 to {MOST_NAMES} queues"));
    }
    for queue in &about.queues {
        check_queue(queue).map_err(|why| format!("`{queue}` is no name of a queue: {why}"))?;
        if !may_serve.is_empty() && !may_serve.contains(queue) {
            let may = may_serve.iter().map(|queue| format!("`{queue}`")).collect::<Vec<_>>().join(", ");
            return Err(format!("its token is for the queues {may}, and not for `{queue}`"));
        }
    }
    if about.slots == 0 || about.slots > MOST_SLOTS {
        return Err(format!("a worker has 1 to {MOST_SLOTS} slots, and this one has {}", about.slots));
    }
    if about.labels.len() > MOST_NAMES {
        return Err(format!("a worker has {MOST_NAMES} labels at most"));
    }
    for (key, value) in &about.labels {
        check_key(key).map_err(|why| format!("the label `{key}`: {why}"))?;
        check_value(value).map_err(|why| format!("the value of the label `{key}`: {why}"))?;
        if key.starts_with(OURS) {
            return Err(format!("the label `{key}`: what begins with `{OURS}` is Pitcrew's own"));
        }
    }
    if about.resources.len() > MOST_NAMES {
        return Err(format!("a worker has {MOST_NAMES} resources at most"));
    }
    for name in about.resources.keys() {
        check_resource(name).map_err(|why| format!("the resource `{name}`: {why}"))?;
    }
    if about.cpu.is_some_and(Amount::is_zero) || about.memory_mib == Some(0) {
        return Err("a worker has more than no cores and no memory".to_owned());
    }
    let is_path = |path: &str| path.starts_with('/') && path.len() < 4096 && !path.contains(['\0', '\n']);
    if !is_path(&about.data_dir) || !is_path(&about.program) {
        return Err("its data directory and its program must be absolute paths".to_owned());
    }
    let place = about.place.as_ref().map_or(0, String::len);
    if about.version.len() > 100 || about.host.len() > 255 || place > 255 {
        return Err("its version, the name of its host or its place is too long".to_owned());
    }
    Ok(())
}

impl Worker {
    fn new(row: &WorkerRow) -> Option<Worker> {
        Some(Worker {
            id: row.id.clone(),
            told: serde_json::from_value(row.about.clone()).ok()?,
            drain: row.drain,
            enrolled: row.enrolled,
            is_heard: false,
            is_elsewhere: false,
            is_draining: false,
            prefetch: 0,
            load: None,
            heard_at: None,
        })
    }

    pub fn place(&self, name: &str) -> WorkerPlace {
        let About { data_dir, program, .. } = self.told.about.clone();
        WorkerPlace { worker: self.id.clone(), name: name.to_owned(), data_dir, program }
    }

    /// The node with what only a worker has.
    pub fn over(&self, assembled: Assembled) -> Assembled {
        let Assembled { mut node, remarks } = assembled;
        let about = &self.told.about;
        node.labels.retain(|key, _| key.starts_with(QUEUE_LABEL) || !key.starts_with(OURS));
        node.labels.insert(BACKEND_LABEL.to_owned(), BackendKind::Worker.name().to_owned());
        node.labels.extend(about.queues.iter().map(|queue| (format!("{QUEUE_LABEL}{queue}"), "true".to_owned())));
        node.slots = Some(about.slots + self.prefetch.min(about.slots));
        node.standing = match (&node.standing, self.is_heard) {
            (_, false) => Standing::Down("it does not call".to_owned()),
            (Standing::Down(_), true) => node.standing,
            (Standing::Ready | Standing::Cordoned, true) if self.drain || self.is_draining => Standing::Cordoned,
            (Standing::Ready | Standing::Cordoned, true) => node.standing,
        };
        Assembled { node, remarks }
    }
}

/// What is configured of a worker: what it says itself.
fn config(name: &str, about: &About) -> NodeConfig {
    NodeConfig {
        labels: about.labels.clone(),
        cpu: about.cpu,
        memory_mib: about.memory_mib,
        resources: about.resources.clone(),
        ..NodeConfig::plain(name)
    }
}

impl Fleet {
    /// Takes notice of workers that enrolled, changed or were revoked.
    pub(super) async fn read_workers(&self, nodes: &BTreeMap<String, NodeRow>) -> Result<(), StoreError> {
        let rows = self.0.store.workers().await?;
        self.set_workers(&rows, nodes).await;
        Ok(())
    }

    pub(super) async fn set_workers(&self, rows: &[WorkerRow], nodes: &BTreeMap<String, NodeRow>) {
        let living: Vec<&WorkerRow> = rows.iter().filter(|row| row.revoked.is_none()).collect();
        let mut fresh = Vec::new();
        {
            let mut all = self.lock();
            let ids: BTreeSet<&str> = living.iter().map(|row| row.id.as_str()).collect();
            all.retain(|known| known.worker.as_ref().is_none_or(|worker| ids.contains(worker.id.as_str())));
            let places = all.iter().enumerate().map(|(place, known)| (known.config.name.clone(), place));
            let places: BTreeMap<String, usize> = places.collect();
            for row in living {
                let Some(read) = Worker::new(row) else { continue };
                let known = places.get(&row.name).map(|place| &mut all[*place]);
                match known.map(|known| (&mut known.config, &mut known.worker)) {
                    Some((at, Some(worker))) => {
                        *at = config(&row.name, &read.told.about);
                        (worker.told, worker.drain) = (read.told, read.drain);
                    }
                    // A node of that name was configured later; it has the name.
                    Some((_, None)) => {}
                    None => {
                        let seen = nodes.get(&row.name).and_then(|row| serde_json::from_value(row.seen.clone()).ok());
                        let at = config(&row.name, &read.told.about);
                        all.push(Known::new(at, seen, Some(read)));
                        fresh.push(row.name.clone());
                    }
                }
            }
        }
        for name in fresh {
            self.remember(&name).await;
        }
    }

    /// Takes notice of workers at once. All rows are read for it: so of many calls at a time, one reads for those that
    /// came while the one before it was reading.
    pub async fn workers_changed(&self) -> Result<(), StoreError> {
        let asked = self.0.turns.fetch_add(1, Ordering::Relaxed);
        let mut last_read = self.0.last_read.lock().await;
        if *last_read > asked {
            return Ok(());
        }
        let begun = self.0.turns.fetch_add(1, Ordering::Relaxed);
        let rows = self.0.store.nodes().await?.into_iter().map(|row| (row.name.clone(), row)).collect();
        self.read_workers(&rows).await?;
        // One that is new here may be cordoned since long.
        self.mark(&rows);
        *last_read = begun;
        Ok(())
    }

    /// Kinds of errands that the worker of this node does.
    pub fn errands_of(&self, node: &str) -> Vec<String> {
        let all = self.lock();
        all.iter().find(|known| known.config.name == node).map(|known| known.errands().to_vec()).unwrap_or_default()
    }

    /// The nodes whose workers do errands of this kind.
    pub fn who_does(&self, kind: &str) -> BTreeSet<String> {
        let all = self.lock();
        let does = |known: &&Known| known.errands().iter().any(|does| does == kind);
        all.iter().filter(does).map(|known| known.config.name.clone()).collect()
    }

    /// The node of a worker.
    pub fn node_of(&self, id: &str) -> Option<String> {
        let all = self.lock();
        all.iter()
            .find(|known| known.worker.as_ref().is_some_and(|worker| worker.id == id))
            .map(|known| known.config.name.clone())
    }

    pub fn knows_worker(&self, id: &str) -> bool {
        self.lock().iter().any(|known| known.worker.as_ref().is_some_and(|worker| worker.id == id))
    }

    /// Takes what a worker said beside its attempts.
    pub async fn worker_said(&self, id: &str, sync: &Sync, now: Timestamp) {
        // The list of all nodes is put together only for what its readers see: a thousand workers say every half minute that
        // nothing happened.
        let (name, is_news) = {
            let mut all = self.lock();
            let Some(known) = all.iter_mut().find(|known| known.worker.as_ref().is_some_and(|w| w.id == id)) else {
                return;
            };
            let mut is_news = false;
            if let Some(worker) = &mut known.worker {
                let before = (worker.is_heard, worker.is_draining, worker.prefetch);
                (worker.is_heard, worker.heard_at) = (true, Some(now));
                (worker.is_draining, worker.prefetch) = (sync.draining, sync.prefetch);
                worker.load = sync.load.or(worker.load);
                is_news = before != (worker.is_heard, worker.is_draining, worker.prefetch);
            }
            (known.config.name.clone(), is_news)
        };
        match &sync.probe {
            Some(probe) => {
                self.take(&name, Ok(Answer { probe: sound(probe), dcgm: None }), now);
                self.write(&name, now).await;
                self.write_sample(&name).await;
            }
            None if is_news => self.publish(),
            None => {}
        }
    }

    /// Finds out which workers are not heard any more; for as long as this is polled.
    pub async fn watch_workers(self, hub: Hub) {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let patience = SILENT.min(hub.lease());
            let mut is_news = false;
            for worker in self.lock().iter_mut().filter_map(|known| known.worker.as_mut()) {
                let silent = hub.standing(&worker.id).silent;
                let is_heard = silent.is_some_and(|silent| silent <= patience);
                is_news |= std::mem::replace(&mut worker.is_heard, is_heard) != is_heard;
            }
            if is_news {
                self.publish();
            }
        }
    }

    /// Every worker as people see it, by name, with what is counted of each by its id.
    pub fn workers(&self, hub: &Hub, ends: &BTreeMap<String, WorkerEnds>) -> Vec<WorkerView> {
        let known = self.lock();
        let all = known.iter().zip(together(&known));
        let mut all: Vec<WorkerView> = all.filter_map(|(known, assembled)| view(known, assembled, hub, ends)).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

fn view(known: &Known, assembled: Assembled, hub: &Hub, ends: &BTreeMap<String, WorkerEnds>) -> Option<WorkerView> {
    let worker = known.worker.as_ref()?;
    let WorkerEnds { ended, failed } = ends.get(&worker.id).copied().unwrap_or_default();
    let node: NodeView = known.view(assembled);
    let now = hub.standing(&worker.id);
    let about = &worker.told.about;
    let is_up = node.reason.is_none();
    let is_draining = worker.drain || worker.is_draining;
    Some(WorkerView {
        name: node.name,
        id: worker.id.clone(),
        standing: if is_up && is_draining { "draining".to_owned() } else { node.standing },
        reason: node.reason,
        queues: about.queues.clone(),
        slots: about.slots,
        prefetch: worker.prefetch,
        running: now.running,
        waiting: now.waiting,
        ended,
        failed,
        gpus: node.gpus.len(),
        version: about.version.clone(),
        host: about.host.clone(),
        labels: about.labels.clone(),
        drain: worker.drain,
        load1: worker.load.map(|load| load.load1),
        load5: worker.load.and_then(|load| load.load5),
        load15: worker.load.and_then(|load| load.load15),
        memory_used_mib: worker.load.map(|load| load.memory_used_mib),
        memory_mib: node.memory_mib,
        cpu: node.cpu.to_f64(),
        enrolled: worker.enrolled,
        heard_at: worker.heard_at,
    })
}

/// A probe of which nothing is there twice: a device that is told two times is one device.
fn sound(probe: &Probe) -> Probe {
    let mut probe = probe.clone();
    let mut ids = BTreeSet::new();
    let mut twice = Vec::new();
    probe.gpus.retain(|gpu| {
        let is_first = ids.insert(gpu.uuid.clone());
        if !is_first {
            twice.push(format!("it reports `{}` twice", gpu.uuid.chars().take(100).collect::<String>()));
        }
        is_first
    });
    probe.remarks.extend(twice);
    probe.remarks.truncate(20);
    probe
}

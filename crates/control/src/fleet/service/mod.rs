//! The nodes while the server runs: asks each from time to time, keeps what it told, and gives out the list.
//!
//! Invariants: what is given out is put together anew whenever a fact changes, and only then; the store is written only
//! when something changed, so an idle fleet writes nothing. A node that does not answer is asked less often.

mod kept;
mod known;
mod rounds;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use jiff::Timestamp;
use pitcrew_core::fleet::{Held, Request, held};
use pitcrew_exec::GpuUsage;
use pitcrew_exec::gpu::{HeldGpu, Reading};
use pitcrew_store::{AuditEntry, Marks, NodeChange, Store, StoreError};
use tokio::sync::watch;

use super::ask::{self, Answer};
use super::config::NodeConfig;
use super::seen::Seen;
use super::series::{Sample, usage};
use super::view::NodeView;
use super::workers::Worker;
use super::{FleetNode, LOCAL, Nodes};

use kept::{by_name, key_of};
pub(super) use known::{Known, together};

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
    /// Counts who asked for the rows of workers, and who began to read them.
    pub(super) turns: AtomicU64,
    /// When the last reading of workers began that ended well. Held by whoever reads rows, until they count, and by whoever
    /// changes one.
    pub(super) last_read: tokio::sync::Mutex<u64>,
    /// What other processes had done when that was last read.
    marks: tokio::sync::Mutex<Option<Marks>>,
}

/// A device of a node that is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub id: String,
    pub why: String,
    /// It was there before; else it is there, and says itself that it is broken.
    pub since: Option<Timestamp>,
}

/// What is known of a node beside what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// Kinds of errands that its worker does.
    pub errands: Vec<String>,
    pub lost: Vec<Lost>,
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
            marks: tokio::sync::Mutex::default(),
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
        fleet.read_clusters(&rows);
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
        let _alone = self.0.last_read.lock().await;
        let row = self.0.store.change_node(&self.key(name), change, audit).await?;
        if let Some(known) = self.lock().iter_mut().find(|known| known.config.name == name) {
            known.marks = Some(row);
        }
        self.publish();
        Ok(self.view(name))
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
        self.lock().iter().find(|known| known.config.name == name).map(Known::lost).unwrap_or_default()
    }

    /// What is known of each node that the list does not say, of all at once: whoever asks a thousand by name looks a thousand times
    /// through a thousand.
    pub fn beside(&self) -> BTreeMap<String, Beside> {
        let beside = |known: &Known| Beside { errands: known.errands().to_vec(), lost: known.lost() };
        self.lock().iter().map(|known| (known.config.name.clone(), beside(known))).collect()
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

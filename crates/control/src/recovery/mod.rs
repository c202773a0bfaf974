//! Recovery in a server: what [`pitcrew_core::recovery`] wants is written, and then done to nodes and jobs.
//!
//! Invariant: of all servers the one that leads decides, rows are written before anything is done, and whatever must not
//! happen twice is noted as begun before it begins. So a server that comes back finds what is open, and does that again.

mod check;
pub mod config;
mod desk;
mod each;
mod ecs;
mod facts;
mod hang;
mod hear;
mod jobs;
mod kubernetes;
mod look;
mod perform;
mod reach;
pub mod runbook;
mod signals;
mod signs;
mod spot;
mod tail;
mod tasks;
pub mod tell;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wish;
mod workers;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_core::recovery::{Input, Policy, Recovery};
use pitcrew_store::{Store, StoreError};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::fleet::Fleet;

pub use desk::{Opening, Service};
pub use perform::Hands;
pub use reach::Reached;
pub use signs::Signs;

use hear::Ears;
use look::Looks;
use tasks::Jobs;
use workers::Logs;

/// Where recovery is told what happened, and asked what it knows. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    /// `None`: recovery is off.
    sender: Option<mpsc::UnboundedSender<Told>>,
    recovery: Mutex<Recovery>,
    /// What tasks say by themselves.
    jobs: Jobs,
    logs: Logs,
    /// What was seen of nodes by looking at them.
    looks: Looks,
    ears: Ears,
    lead: Lead,
    /// Somebody has wished something.
    wished: Notify,
}

/// How far it is known here what is stored. Each time that this server comes to lead has a number.
struct Lead {
    /// The newest that began.
    began: AtomicU64,
    /// The newest for which the rows were read; nodes that they say are fenced are.
    ready: watch::Sender<u64>,
    /// The machine has failed, and nobody gives verdicts until it has begun anew.
    failed: AtomicBool,
}

impl Default for Lead {
    fn default() -> Lead {
        Lead { began: AtomicU64::default(), ready: watch::channel(0).0, failed: AtomicBool::default() }
    }
}

/// Something that was said, and who wants to know when it is written.
struct Told {
    input: Input,
    heard: Option<oneshot::Sender<()>>,
}

impl Desk {
    /// Of a server without recovery, or a command that only looks.
    pub fn off() -> Desk {
        Desk(Arc::new(Inner {
            sender: None,
            recovery: Mutex::default(),
            jobs: Jobs::default(),
            logs: Logs::default(),
            looks: Looks::default(),
            ears: Ears::default(),
            lead: Lead::default(),
            wished: Notify::new(),
        }))
    }

    fn open(recovery: Recovery, signs: Signs) -> (Desk, mpsc::UnboundedReceiver<Told>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            sender: Some(sender),
            recovery: Mutex::new(recovery),
            jobs: Jobs::new(signs),
            logs: Logs::default(),
            looks: Looks::default(),
            ears: Ears::default(),
            lead: Lead::default(),
            wished: Notify::new(),
        };
        (Desk(Arc::new(inner)), receiver)
    }

    /// Whether recovery is configured.
    pub fn is_on(&self) -> bool {
        self.0.sender.is_some()
    }

    /// Returns when what follows from it is written. The error says why it was not taken.
    pub async fn tell(&self, input: Input) -> Result<(), String> {
        let off = "recovery is off here: `recovery` in `pitcrew.yaml` turns it on";
        let sender = self.0.sender.as_ref().ok_or(off)?;
        let (heard, written) = oneshot::channel();
        let gone = "this server is ending";
        sender.send(Told { input, heard: Some(heard) }).map_err(|_| gone)?;
        written.await.map_err(|_| "this server does not lead, or is ending: ask again".to_owned())
    }

    /// Does not wait until it is written.
    pub fn mention(&self, input: Input) {
        if let Some(sender) = &self.0.sender {
            // Nobody listens only when the server ends; the next one finds out by itself.
            let _ = sender.send(Told { input, heard: None });
        }
    }

    /// What signs mean here.
    pub fn signs(&self) -> &Signs {
        self.0.jobs.signs()
    }

    /// Returns when what is stored is known, of the newest lead of this server.
    pub(crate) async fn is_ready(&self) {
        let mut ready = self.0.lead.ready.subscribe();
        let began = &self.0.lead.began;
        // Where recovery is off, nobody waits; where it has ended, the server ends.
        if self.is_on() {
            let _ = ready.wait_for(|ready| *ready >= began.load(Ordering::Acquire)).await;
        }
    }

    /// What people wish is looked at now, and not only soon.
    pub fn hurry(&self) {
        self.0.wished.notify_one();
    }

    pub fn look<T>(&self, at: impl FnOnce(&Recovery) -> T) -> T {
        at(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recovery> {
        // A panic in a step leaves the machine as it was written last, or the server ends.
        self.0.recovery.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the nodes that recovery has fenced get nothing new, by what is stored.
pub async fn fence(store: &Store, fleet: &Fleet) -> Result<(), StoreError> {
    let (recovery, _) = Recovery::restore(Policy::default(), store.recovery_records().await?);
    fleet.set_fenced(fenced(&recovery));
    Ok(())
}

/// Where recovery is off: says which nodes it has left fenced, since they get work again.
pub async fn let_go(store: &Store) -> Result<(), StoreError> {
    let (recovery, _) = Recovery::restore(Policy::default(), store.recovery_records().await?);
    for (node, why) in fenced(&recovery) {
        tracing::warn!(node, "`{node}` was fenced ({why}), and gets work again, since recovery is off now");
    }
    Ok(())
}

/// Nodes that get nothing new, and why.
fn fenced(recovery: &Recovery) -> std::collections::BTreeMap<String, String> {
    let why = |node: &str| match recovery.node(node).and_then(|row| row.incident) {
        Some(incident) => format!("recovery, {incident}"),
        None => "recovery".to_owned(),
    };
    recovery.fenced().map(|node| (node.to_owned(), why(node))).collect()
}

//! Recovery in a server: what [`pitcrew_core::recovery`] wants is written, and then done to nodes and jobs.
//!
//! Invariant: of all servers the one that leads decides, rows are written before anything is done, and whatever must not
//! happen twice is noted as begun before it begins. So a server that comes back finds what is open, and does that again.

mod check;
pub mod config;
mod desk;
mod facts;
mod hang;
mod jobs;
mod look;
mod perform;
mod reach;
mod signals;
mod signs;
mod tasks;
pub mod wish;

use std::sync::{Arc, Mutex, PoisonError};

use pitcrew_core::recovery::{Input, Policy, Recovery};
use pitcrew_store::{Store, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::fleet::Fleet;

pub use desk::{Opening, Service};
pub use perform::Hands;
pub use reach::Reached;

use signs::Signs;
use tasks::Jobs;

/// Where recovery is told what happened, and asked what it knows. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    /// `None`: recovery is off.
    sender: Option<mpsc::UnboundedSender<Told>>,
    recovery: Mutex<Recovery>,
    /// What tasks say by themselves.
    jobs: Jobs,
}

/// Something that was said, and who wants to know when it is written.
struct Told {
    input: Input,
    heard: Option<oneshot::Sender<()>>,
}

impl Desk {
    /// Of a server without recovery, or a command that only looks.
    pub fn off() -> Desk {
        Desk(Arc::new(Inner { sender: None, recovery: Mutex::default(), jobs: Jobs::default() }))
    }

    fn open(recovery: Recovery, signs: Signs) -> (Desk, mpsc::UnboundedReceiver<Told>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let jobs = Jobs::new(signs);
        (Desk(Arc::new(Inner { sender: Some(sender), recovery: Mutex::new(recovery), jobs })), receiver)
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

/// Nodes that get nothing new, and why.
fn fenced(recovery: &Recovery) -> std::collections::BTreeMap<String, String> {
    let why = |node: &str| match recovery.node(node).and_then(|row| row.incident) {
        Some(incident) => format!("recovery, {incident}"),
        None => "recovery".to_owned(),
    };
    recovery.fenced().map(|node| (node.to_owned(), why(node))).collect()
}

//! Machines of workers: their kernel logs, which they bring, and what is done there, which they are asked to do.
//!
//! A worker says what its log has until it hears that it was taken, and that is said once it is written; so nothing is lost
//! between the two, and what comes twice is known by its number. It does each errand once by its id ([`errands`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pitcrew_exec::gpu::kernel_log::KernelLog;
use pitcrew_exec::worker::errands;
use pitcrew_exec::worker::protocol::{Errand, ErrandEnd};
use tokio::sync::{mpsc, oneshot};

use super::Desk;
use super::perform::Hands;
use super::reach::{NotRun, Ran, Reached, late};
use super::signals::{remembered, take};
use crate::clock;

/// Logs that workers brought, until they are taken.
pub struct Logs {
    sender: mpsc::UnboundedSender<Brought>,
    inbox: tokio::sync::Mutex<mpsc::UnboundedReceiver<Brought>>,
    /// Nodes whose logs are being taken.
    under_way: Mutex<BTreeSet<String>>,
}

struct Brought {
    node: String,
    log: KernelLog,
    taken: oneshot::Sender<()>,
}

impl Default for Logs {
    fn default() -> Logs {
        let (sender, inbox) = mpsc::unbounded_channel();
        Logs { sender, inbox: tokio::sync::Mutex::new(inbox), under_way: Mutex::default() }
    }
}

impl Desk {
    /// A worker brings what the kernel log of its node has. Returns when that is written; `false`: it is to say it again.
    pub async fn worker_log(&self, node: String, log: KernelLog) -> bool {
        if !self.is_on() {
            // Nobody here wants to know.
            return true;
        }
        let busy = || self.0.logs.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy().insert(node.clone()) {
            // It says what is not taken with the next of its calls.
            return false;
        }
        let (taken, written) = oneshot::channel();
        let brought = Brought { node: node.clone(), log, taken };
        let is_taken = self.0.logs.sender.send(brought).is_ok() && written.await.is_ok();
        busy().remove(&node);
        is_taken
    }
}

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    let mut inbox = hands.desk.0.logs.inbox.lock().await;
    let mut places = BTreeMap::new();
    while let Some(Brought { node, log, taken }) = inbox.recv().await {
        if !places.contains_key(&node) {
            let Some(place) = remembered(&hands, &node).await else { continue };
            places.insert(node.clone(), place);
        }
        let Some(place) = places.get_mut(&node) else { continue };
        if take(&hands, &node, place, &log).await {
            // A worker that has gone says it again.
            let _ = taken.send(());
        }
    }
}

/// Something that must not happen twice: its kind, and its name for ever.
#[derive(Debug, Clone)]
pub struct Order {
    pub kind: &'static str,
    pub id: String,
}

impl Order {
    /// What changes nothing may be done again, so it has another name each time.
    pub fn ask() -> Order {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Order { kind: errands::ASK, id: format!("ask/{}/{number}", clock::now().as_nanosecond()) }
    }
}

impl Reached {
    /// By the worker, which is reached when it calls.
    pub(super) async fn by_worker(
        &self,
        worker: &str,
        node: &str,
        order: Order,
        script: &str,
        within: Duration,
    ) -> Result<Ran, NotRun> {
        let Order { kind, id } = order;
        if !self.fleet.errands_of(node).iter().any(|may| may == kind) {
            let why = match kind {
                errands::ASK => "its worker is of a version that does nothing but tasks: upgrade it",
                _ => "its worker may not repair its machine: `pitcrew worker --allow-repair` allows it",
            };
            return Err(NotRun::never(why));
        }
        let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let errand = Errand { id: id.clone(), kind: kind.to_owned(), script: script.to_owned(), within_ms };
        let answer = self.workers.errand(worker, errand);
        match tokio::time::timeout(within, answer).await {
            Ok(Ok(ErrandEnd::Ran { code, stdout, stderr })) => Ok(Ran { code, stdout, stderr }),
            Ok(Ok(ErrandEnd::NotRun { why, certain: true })) => Err(NotRun::never(why)),
            Ok(Ok(ErrandEnd::NotRun { why, certain: false })) => Err(NotRun::perhaps(why)),
            // This server leads no more, or asked again.
            Ok(Err(_)) => Err(NotRun::perhaps("nobody waits for its worker any more")),
            Err(_) if self.workers.withdraw(worker, &id) => Err(NotRun::never("its worker does not call")),
            Err(_) => Err(late(within)),
        }
    }
}

//! Machines of workers: their kernel logs, which they bring, and what is done there, which they are asked to do.
//!
//! A worker says what its log has until it hears that it was taken, and that is said once it is written; so nothing is lost
//! between the two, and what comes twice is known by its number. It does each errand once by its id ([`errands`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pitcrew_exec::gpu::kernel_log::KernelLog;
use pitcrew_exec::worker::errands;
use pitcrew_exec::worker::protocol::{Errand, ErrandEnd};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::Desk;
use super::perform::Hands;
use super::reach::{NotRun, Ran, Reached, late};
use super::tail::{Tail, Untold, answer};
use crate::clock;

/// Logs that workers brought, until they are taken.
#[derive(Default)]
pub struct Logs {
    /// By their nodes.
    doors: Mutex<BTreeMap<String, Arc<Door>>>,
    /// There is a door that was not there before.
    built: Notify,
}

/// Where one worker brings its log. It says all that is not taken each time, so only what it said last is kept.
#[derive(Default)]
struct Door {
    newest: Mutex<Option<Brought>>,
    knock: Notify,
}

struct Brought {
    log: KernelLog,
    taken: oneshot::Sender<()>,
}

impl Door {
    fn put(&self, brought: Brought) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(brought);
        self.knock.notify_one();
    }

    async fn next(&self) -> Brought {
        loop {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).take();
            match newest {
                Some(brought) => return brought,
                None => self.knock.notified().await,
            }
        }
    }
}

impl Logs {
    fn door(&self, node: &str) -> Arc<Door> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let door = doors.entry(node.to_owned()).or_insert_with(|| {
            self.built.notify_one();
            Arc::default()
        });
        door.clone()
    }

    fn doors(&self) -> BTreeMap<String, Arc<Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Desk {
    /// A worker brings what the kernel log of its node has. Returns when that is written; `false`: it is to say it again.
    pub async fn worker_log(&self, node: &str, log: KernelLog) -> bool {
        if !self.is_on() {
            // Nobody here wants to know.
            return true;
        }
        let (taken, written) = oneshot::channel();
        self.0.logs.door(node).put(Brought { log, taken });
        written.await.is_ok()
    }
}

/// Until it is aborted. Each has a task of its own, so that none waits for another.
pub(super) async fn watch(hands: Hands) {
    let logs = &hands.desk.0.logs;
    let mut tails = JoinSet::new();
    let mut begun = BTreeMap::new();
    loop {
        for (node, door) in logs.doors() {
            begun.entry(node.clone()).or_insert_with(|| tails.spawn(follow(hands.clone(), node, door)));
        }
        logs.built.notified().await;
    }
}

/// Takes what a worker brings, for as long as it is polled.
async fn follow(hands: Hands, node: String, door: Arc<Door>) {
    let mut tail = None;
    // What waits for the driver is taken when that has answered.
    let mut waits: Option<oneshot::Sender<()>> = None;
    loop {
        let Some(known) = &mut tail else {
            let Brought { log, taken } = door.next().await;
            tail = Tail::begin(&hands, &node).await;
            if tail.is_some() {
                door.put(Brought { log, taken });
            }
            continue;
        };
        let came = async {
            let came = tokio::select! {
                brought = door.next() => Some(brought),
                seen = answer(&mut known.asking) => {
                    known.answered(seen).await?;
                    None
                }
            };
            if let Some(Brought { log, taken }) = came {
                waits = Some(taken);
                known.hear(&log).await?;
            }
            Ok::<(), Untold>(())
        };
        if came.await.is_err() {
            (tail, waits) = (None, None);
        } else if known.is_settled()
            && let Some(taken) = waits.take()
        {
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

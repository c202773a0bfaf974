//! The server's side of all workers: a [`Backend`](crate::Backend) whose attempts run where somebody comes for them.
//!
//! Invariants: what a worker says of an attempt is believed only if the attempt's handle names that worker; an end is
//! recorded in the attempt's directory before anybody hears of it, and its log is whole by then; between two clocks that run at the same speed, a
//! worker has ended what it runs before it is called lost here.

mod attempts;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_core::{AttemptId, RunKey};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::ledger::{Fact, Ledger, Superseded};
use super::mirror;
use super::protocol::{Answer, End, Errand, ErrandEnd, LONGEST_WAIT, LogTaken, Sync};
use crate::backend::{BackendEvent, Ended, EventSender, Handle};
use crate::log::LogChunk;
use crate::{clock, local};

/// The shortest lease, and the one that workers have unless something else is configured.
pub const SHORTEST_LEASE: SignedDuration = SignedDuration::from_secs(10);
pub const LEASE: SignedDuration = SignedDuration::from_mins(5);
/// How long nobody may have named an attempt that a worker has, before it is looked up.
const NOBODYS: SignedDuration = SignedDuration::from_secs(30);
/// How many of them are looked up at a time: whoever claims a million costs no more than others.
const MOST_LOOKED_UP: usize = 100;

/// All workers of a server. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    events: EventSender,
    lease: SignedDuration,
    /// The longest that any server gave and that may not be over, in seconds; see [`Hub::were_given`].
    longest: AtomicI64,
    /// The data directory here; a worker has its attempts at the same places below its own.
    root: PathBuf,
    /// Where several servers have a data directory each.
    home: Option<Home>,
    state: Mutex<State>,
    /// Held while something of an attempt is written, by a part of its id.
    writing: [tokio::sync::Mutex<()>; 32],
}

struct State {
    /// Another word each time that this server begins to lead.
    server: String,
    leads_since: Instant,
    workers: HashMap<String, Desk>,
}

/// The data directory of a server that is one of several.
pub struct Home {
    pub id: String,
    pub others: Arc<dyn OtherLogs>,
}

/// Reads logs in the data directories of other servers. Errors are sentences.
#[async_trait]
pub trait OtherLogs: Send + std::marker::Sync {
    async fn log(&self, home: &str, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, String>;
    async fn log_size(&self, home: &str, handle: &Handle) -> Result<u64, String>;
}

/// Where a worker is talked with.
#[derive(Default)]
struct Desk {
    ledger: Ledger,
    revoked: bool,
    /// Of the attempts that somebody named here.
    dirs: HashMap<AttemptId, PathBuf>,
    /// Something changed that the waiting answer may have to say before it looks by itself.
    bell: Arc<Notify>,
    /// When that is.
    looks_at: SignedDuration,
    /// Beside attempts.
    errands: BTreeMap<String, Wanted>,
    heard: Vec<String>,
    kernel: Option<u64>,
}

/// An errand that somebody waits for.
struct Wanted {
    errand: Errand,
    is_sent: bool,
    done: oneshot::Sender<ErrandEnd>,
}

/// What comes of a look at what is to be said.
enum Next {
    Say(Answer),
    /// Nothing yet; it is looked again then, if no bell rings before.
    LookAt(Instant),
}

/// Why a sync is not answered.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    #[error(transparent)]
    Superseded(#[from] Superseded),
    #[error("it was revoked")]
    Revoked,
}

/// Why bytes of a log are not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    #[error("nobody here follows the attempt `{0}` on this worker")]
    Nobodys(AttemptId),
    #[error("the log cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// What is known of a worker since this server leads.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Standing {
    /// How long ago it was heard, if at all.
    pub silent: Option<SignedDuration>,
    /// It takes no more work.
    pub draining: bool,
    pub running: usize,
    pub waiting: usize,
}

impl Hub {
    /// One whose data directory is the only one.
    pub fn new(root: PathBuf, lease: SignedDuration, events: EventSender) -> Hub {
        Hub::make(root, None, lease, events)
    }

    /// One of several servers with a data directory each.
    pub fn of_home(root: PathBuf, home: Home, lease: SignedDuration, events: EventSender) -> Hub {
        Hub::make(root, Some(home), lease, events)
    }

    fn make(root: PathBuf, home: Option<Home>, lease: SignedDuration, events: EventSender) -> Hub {
        let state = Mutex::new(State { server: word(), leads_since: clock::instant(), workers: HashMap::new() });
        let lease = lease.max(SHORTEST_LEASE);
        let longest = AtomicI64::new(lease.as_secs());
        Hub(Arc::new(Shared { events, lease, longest, root, home, state, writing: Default::default() }))
    }

    /// The handle of an attempt whose end is recorded here: with it all of its log is.
    pub fn kept_here(&self, handle: Handle) -> Handle {
        match &self.0.home {
            Some(home) => Handle { home: Some(home.id.clone()), ..handle },
            None => handle,
        }
    }

    /// Leases of this length were given, by whichever server, and may not be over. Until it says otherwise, they are those
    /// that this one gives. Said before this server leads, and once [`Hub::has_outlived`] them.
    pub fn were_given(&self, longest: SignedDuration) {
        let longest = longest.max(self.0.lease).as_secs();
        self.0.longest.store(longest, Ordering::Relaxed);
    }

    /// See [`Hub::were_given`].
    pub fn longest(&self) -> SignedDuration {
        SignedDuration::from_secs(self.0.longest.load(Ordering::Relaxed))
    }

    /// Whether all leases are over by now that were given before this server led.
    pub fn has_outlived(&self) -> bool {
        self.0.state().now() > self.patience()
    }

    pub fn lease(&self) -> SignedDuration {
        self.0.lease
    }

    /// How long a worker may be silent before what it runs is lost.
    pub fn patience(&self) -> SignedDuration {
        let longest = self.longest();
        longest + (longest / 10).max(SignedDuration::from_secs(10))
    }

    /// Takes what a worker has, and answers when there is something to do for it, or when its time is up.
    pub async fn sync(&self, worker: &str, mut sync: Sync) -> Result<Answer, Unanswered> {
        let until = clock::instant() + wait(&sync);
        let done = std::mem::take(&mut sync.done);
        let (incarnation, seq) = (sync.incarnation, sync.seq);
        let is_greeting = sync.server.as_deref() != Some(self.0.state().server.as_str());
        let (facts, bell) = {
            let mut state = self.0.state();
            let now = state.now();
            let desk = state.desk(worker);
            let facts = desk.ledger.take(now, clock::now(), sync)?;
            for done in done {
                if let Some(wanted) = desk.errands.remove(&done.id) {
                    // Nobody waits for it any more: that is no reason to hear of it again.
                    let _ = wanted.done.send(done.end);
                }
                desk.heard.push(done.id);
            }
            // Whoever waits with an older question answers it now.
            desk.bell.notify_waiters();
            (facts, desk.bell.clone())
        };
        for fact in facts {
            self.tell(worker, fact).await;
        }
        loop {
            // Listens before it looks, so that no bell is missed.
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let look = match self.answer(worker, incarnation, seq, is_greeting, until)? {
                Next::Say(answer) => return Ok(answer),
                Next::LookAt(at) => at,
            };
            tokio::select! {
                () = rung => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }

    fn answer(
        &self,
        worker: &str,
        incarnation: u64,
        seq: u64,
        is_greeting: bool,
        until: Instant,
    ) -> Result<Next, Unanswered> {
        let mut state = self.0.state();
        let (now, server, since) = (state.now(), state.server.clone(), state.leads_since);
        let desk = state.desk(worker);
        if desk.revoked {
            return Err(Unanswered::Revoked);
        }
        if !desk.ledger.is_last(incarnation, seq) {
            return Ok(Next::Say(desk.ledger.nothing(&server, self.0.lease)));
        }
        desk.errands.retain(|_, wanted| !wanted.done.is_closed());
        let is_beside =
            desk.kernel.is_some() || !desk.heard.is_empty() || desk.errands.values().any(|one| !one.is_sent);
        if is_greeting || is_beside || clock::instant() >= until || desk.ledger.is_urgent(now) {
            let answer = desk.ledger.answer(now, &server, self.0.lease);
            desk.errands.values_mut().for_each(|wanted| wanted.is_sent = true);
            return Ok(Next::Say(Answer {
                errands: desk.errands.values().map(|wanted| wanted.errand.clone()).collect(),
                heard: std::mem::take(&mut desk.heard),
                kernel: desk.kernel.take(),
                ..answer
            }));
        }
        let due = desk.ledger.due().and_then(|at| Duration::try_from(at).ok()).map(|at| since + at);
        let look = due.map_or(until, |due| due.min(until));
        desk.looks_at = SignedDuration::try_from(look - since).unwrap_or(SignedDuration::MAX);
        Ok(Next::LookAt(look))
    }

    /// Has the worker do something on its machine, once by the id. It is withdrawn when nobody waits for the answer any more,
    /// so what a worker hears late is wanted still.
    pub fn errand(&self, worker: &str, errand: Errand) -> oneshot::Receiver<ErrandEnd> {
        let (done, answer) = oneshot::channel();
        let mut state = self.0.state();
        let desk = state.desk(worker);
        desk.errands.insert(errand.id.clone(), Wanted { errand, is_sent: false, done });
        desk.bell.notify_waiters();
        answer
    }

    /// Nobody waits for it any more. `true`: the worker never heard of it, and never will.
    pub fn withdraw(&self, worker: &str, id: &str) -> bool {
        let mut state = self.0.state();
        state.desk(worker).errands.remove(id).is_some_and(|wanted| !wanted.is_sent)
    }

    /// The kernel log of the worker was taken up to this record.
    pub fn kernel_taken(&self, worker: &str, last: u64) {
        let mut state = self.0.state();
        let desk = state.desk(worker);
        desk.kernel = Some(last);
        desk.bell.notify_waiters();
    }

    /// The worker is let in no more: a question of it that waits is not answered, and gets no order.
    pub fn revoke(&self, worker: &str) {
        let mut state = self.0.state();
        let desk = state.desk(worker);
        desk.revoked = true;
        desk.bell.notify_waiters();
    }

    /// A disk that is full is not the worker's fault: its sync is answered, and an end that cannot be kept now stays in the
    /// ledger until somebody asks for it.
    async fn tell(&self, worker: &str, fact: Fact) {
        match fact {
            Fact::Started(id, at) => self.0.tell(BackendEvent::Started { id, at }),
            Fact::Lost(id, reason) => self.0.tell(BackendEvent::Lost { id, reason }),
            Fact::NeverBegan(id) => self.0.tell(BackendEvent::NeverBegan { id }),
            Fact::Ended(id) => {
                let dir = self.0.state().desk(worker).dirs.get(&id).cloned();
                let Some(dir) = dir else { return };
                match self.take_end(worker, &id, dir).await {
                    Ok(Some(event)) => self.0.tell(event),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::error!("the end of {id} cannot be written now: {error}; it is tried again");
                    }
                }
            }
        }
    }

    /// Records an end that the worker told, if one is there to be taken.
    async fn take_end(&self, worker: &str, id: &AttemptId, dir: PathBuf) -> io::Result<Option<BackendEvent>> {
        let _alone = self.0.writing(id).lock().await;
        let (end, is_whole) = {
            let mut state = self.0.state();
            let now = state.now();
            let ledger = &mut state.desk(worker).ledger;
            let Some(end) = ledger.take_end(id) else { return Ok(None) };
            (end, ledger.brings_logs(now, self.patience()))
        };
        let (kept, id_there) = (end.clone(), id.clone());
        let written = local::blocking(move || match *kept {
            End::Ended { ended, log } => {
                let kept = mirror::end(&dir, ended, log.as_ref(), is_whole)?;
                Ok(kept.map(|ended| over(id_there, ended)))
            }
            End::Lost { reason } => Ok(Some(BackendEvent::Lost { id: id_there, reason })),
        });
        match written.await {
            Ok(Some(event)) => Ok(Some(event)),
            Ok(None) => {
                let mut state = self.0.state();
                let now = state.now();
                let desk = state.desk(worker);
                desk.ledger.want_log(now, id, end);
                desk.ring();
                Ok(None)
            }
            Err(error) => {
                self.0.state().desk(worker).ledger.give_back(id, end);
                Err(error)
            }
        }
    }

    /// Takes bytes of the log of an attempt that the worker runs.
    pub async fn log(&self, worker: &str, id: &AttemptId, offset: u64, bytes: Vec<u8>) -> Result<LogTaken, NotTaken> {
        let dir = {
            let mut state = self.0.state();
            let desk = state.desk(worker);
            desk.dirs.get(id).filter(|_| desk.ledger.takes_log(id)).cloned()
        };
        let Some(dir) = dir else { return Err(NotTaken::Nobodys(id.clone())) };
        let _alone = self.0.writing(id).lock().await;
        let offset = local::blocking(move || mirror::append(&dir, offset, &bytes)).await?;
        Ok(LogTaken { offset })
    }

    /// Lets a worker take no more work, or take work again.
    pub fn drain(&self, worker: &str, drain: bool) {
        let mut state = self.0.state();
        let now = state.now();
        let desk = state.desk(worker);
        desk.ledger.set_drain(now, drain);
        desk.ring();
    }

    /// Attempts that the worker has and that nobody here has named for a while: they may be over, or of no run any more.
    pub fn unclaimed(&self, worker: &str) -> Vec<AttemptId> {
        let mut state = self.0.state();
        let now = state.now();
        state.desk(worker).ledger.unclaimed(now, now - NOBODYS, MOST_LOOKED_UP)
    }

    /// Nobody wants to know any more of these: the worker may forget them.
    pub fn forget(&self, worker: &str, ids: &[AttemptId]) {
        let mut state = self.0.state();
        let now = state.now();
        let desk = state.desk(worker);
        ids.iter().for_each(|id| desk.ledger.forget(now, id));
        desk.ring();
    }

    /// These runs are over, of which the worker said that it keeps their directories.
    pub fn may_leave(&self, worker: &str, runs: &[RunKey]) {
        let mut state = self.0.state();
        let now = state.now();
        let desk = state.desk(worker);
        runs.iter().for_each(|run| desk.ledger.leave(now, *run));
        desk.ring();
    }

    /// The worker comes from another place than before; what it was given there may go on for a while.
    pub fn moved(&self, worker: &str) {
        self.0.state().desk(worker).ledger.moved(self.patience());
    }

    /// Whether the worker said something since this server leads.
    pub fn is_heard(&self, worker: &str) -> bool {
        self.0.state().desk(worker).ledger.is_heard()
    }

    /// Whether what this sync says is newer than all that its worker said before.
    pub fn is_new(&self, worker: &str, sync: &Sync) -> Result<bool, Superseded> {
        self.0.state().desk(worker).ledger.is_new(sync)
    }

    /// Whether the worker has this attempt, and it is not over; `None`: nobody here has named it yet, but it may be so.
    pub fn has(&self, worker: &str, id: &AttemptId) -> Option<bool> {
        let mut state = self.0.state();
        let ledger = &state.desk(worker).ledger;
        match ledger.is_live(id) {
            true => Some(true),
            false if ledger.is_unknown(id) => None,
            false => Some(false),
        }
    }

    /// How a worker stands, by what it said since this server leads.
    pub fn standing(&self, worker: &str) -> Standing {
        let state = self.0.state();
        let Some(desk) = state.workers.get(worker) else { return Standing::default() };
        let (running, waiting) = desk.ledger.counts();
        let silent = desk.ledger.silent(state.now());
        Standing { silent, draining: desk.ledger.is_draining(), running, waiting }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it is left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self, id: &AttemptId) -> &tokio::sync::Mutex<()> {
        let part = id.run.0.unsigned_abs().wrapping_mul(31).wrapping_add(u64::from(id.number));
        let part = id.task.as_str().bytes().fold(part, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        &self.writing[(part % self.writing.len() as u64) as usize]
    }

    fn tell(&self, event: BackendEvent) {
        // Nobody listens any more when the server ends.
        let _ = self.events.send(event);
    }
}

impl Desk {
    /// Wakes whoever waits, if it would look too late by itself.
    fn ring(&self) {
        if self.ledger.due().is_some_and(|due| due < self.looks_at) {
            self.bell.notify_waiters();
        }
    }

    /// Somebody works on the run of this attempt.
    fn claim(&mut self, now: SignedDuration, id: &AttemptId, dir: PathBuf) {
        self.ledger.claim(now, id);
        self.dirs.entry(id.clone()).or_insert(dir);
    }
}

impl State {
    fn now(&self) -> SignedDuration {
        SignedDuration::try_from(clock::instant() - self.leads_since).unwrap_or(SignedDuration::MAX)
    }

    fn desk(&mut self, worker: &str) -> &mut Desk {
        self.workers.entry(worker.to_owned()).or_default()
    }
}

fn word() -> String {
    let mut bytes = [0_u8; 12];
    // A word that was there before would only have ends told later; the time makes it another.
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    let random: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if filled.is_ok() { random } else { clock::now().as_nanosecond().to_string() }
}

fn wait(sync: &Sync) -> Duration {
    let most = Duration::try_from(LONGEST_WAIT).unwrap_or_default();
    Duration::from_millis(sync.wait_ms).min(most)
}

fn over(id: AttemptId, ended: Ended) -> BackendEvent {
    match ended.exit {
        Exit::Lost { reason } => BackendEvent::Lost { id, reason },
        _ => BackendEvent::Ended { id, ended },
    }
}

#[cfg(test)]
mod tests;

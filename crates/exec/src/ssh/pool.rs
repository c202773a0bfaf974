//! Connections that are kept and shared: few per user on a host, with many commands on each.
//!
//! Invariants: a connection is used only for the place that it was made for, keys and way there included, so nobody
//! rides on somebody else's, nor on one that was made with a key that was replaced since; a host that is down, or that
//! refuses, is not asked again before a time that is told to whoever asks meanwhile.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::connect::Setup;
use super::error::DialError;
use super::exec::Lease;
use super::host::{Host, Standing, Waiting};
use super::slot::{self, Hold, Slot};
use crate::clock;
use crate::place::SshPlace;

/// How often it is looked up whether keys are still those that a connection rests on; those of a refusal always are.
const CHECK: Duration = Duration::from_secs(1);
/// How long somebody who could have a session waits for that; what is found afterwards counts for the next one.
const CHECK_PATIENCE: Duration = Duration::from_millis(250);

/// Bytes that are under way to us on a connection for what moves much.
const WINDOW_OF_BULK: u32 = 2 << 20;

/// How much of a host is used.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Commands at a time on one connection; a host that takes fewer is learnt.
    pub sessions: usize,
    /// Connections per user on a host.
    pub connections: usize,
    /// Connects at a time: to one host, and in all.
    pub dials_per_host: usize,
    pub dials: usize,
    /// A connection without commands is closed after this.
    pub idle: Duration,
    /// After the first failed connect, and at most.
    pub backoff: (Duration, Duration),
    /// How long a refusal stands which waiting does not mend: of the sign-in, and of anything else.
    pub refused: (Duration, Duration),
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions: 8,
            connections: 4,
            dials_per_host: 5,
            dials: 64,
            idle: Duration::from_secs(300),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            // sshd shuts an address out that is refused more often than every few seconds.
            refused: (Duration::from_secs(30), Duration::from_secs(5)),
        }
    }
}

/// Hears of every connect: how long it took, or why it failed.
pub type Observer = Box<dyn Fn(&SshPlace, Result<Duration, &DialError>) + Send + Sync>;

/// What there is now, over all hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub connections: usize,
    /// Commands under way.
    pub sessions: usize,
}

/// All connections of this process. Cheap to clone; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

pub(super) struct Inner {
    pub setup: Setup,
    pub limits: Limits,
    hosts: Mutex<HashMap<SshPlace, Arc<Host>>>,
    pub dials: Arc<Semaphore>,
    pub dials_per_host: Mutex<HashMap<(String, u16), Arc<Semaphore>>>,
    is_swept: AtomicBool,
    pub observer: Arc<OnceLock<Observer>>,
    /// Those for what moves much.
    bulk: OnceLock<Pool>,
}

impl Pool {
    pub fn new(setup: Setup, limits: Limits) -> Pool {
        Pool::observed(setup, limits, Arc::default())
    }

    fn observed(setup: Setup, limits: Limits, observer: Arc<OnceLock<Observer>>) -> Pool {
        let dials = Arc::new(Semaphore::new(limits.dials));
        let pool = Arc::new(Inner {
            setup,
            dials,
            hosts: Mutex::default(),
            dials_per_host: Mutex::default(),
            is_swept: AtomicBool::new(false),
            observer,
            bulk: OnceLock::new(),
            limits,
        });
        Pool(pool)
    }

    /// Connections of their own for what moves much, so that nothing small waits behind it.
    pub fn bulk(&self) -> &Pool {
        self.0.bulk.get_or_init(|| {
            let setup = Setup { window: WINDOW_OF_BULK, ..self.0.setup.clone() };
            let limits = Limits { sessions: 4, connections: 2, ..self.0.limits.clone() };
            Pool::observed(setup, limits, self.0.observer.clone())
        })
    }

    /// What its connects go by.
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// Tells somebody of every connect from now on; the first one who asks for it is told.
    pub fn observe(&self, observer: Observer) {
        let _ = self.0.observer.set(observer);
    }

    pub fn figures(&self) -> Figures {
        let mut figures = self.0.bulk.get().map(Pool::figures).unwrap_or_default();
        for host in lock(&self.0.hosts).values() {
            let state = host.state();
            figures.connections += state.connections.len();
            figures.sessions += state.sessions().0;
        }
        figures
    }

    /// A session on the place, on a connection that is there if it has room. Waits while all sessions are in use; fails
    /// at once while the host is known to be down.
    pub async fn get(&self, place: &SshPlace) -> Result<Lease, DialError> {
        let host = self.host(place);
        loop {
            let slot = self.slot(&host, place.timeout_s).await?;
            // In a task: whoever waits may go away, and the session is closed then.
            match tokio::spawn(slot::open(slot)).await {
                Ok(Ok(Some(lease))) => return Ok(lease),
                Ok(Err(why)) => return Err(why),
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }

    /// A connection to the place, kept for something beside the sessions on it, which count no less for that.
    pub(super) async fn hold(&self, place: &SshPlace) -> Result<Hold, DialError> {
        let host = self.host(place);
        loop {
            if let Some(hold) = host.state().connections.first().map(Hold::new) {
                return Ok(hold);
            }
            // There is a connection then; the session is for somebody else.
            drop(self.slot(&host, place.timeout_s).await?);
        }
    }

    /// Room for a session.
    async fn slot(&self, host: &Arc<Host>, timeout_s: u32) -> Result<Slot, DialError> {
        let mut waiting = None;
        // What he hears of the host was found out since he asked.
        let mut is_news = false;
        loop {
            let mut changed = pin!(host.changed.notified());
            // From here on nothing that changes is missed.
            changed.as_mut().enable();
            match self.0.step(host, waiting.is_some(), is_news, timeout_s) {
                Step::Use(slot) => return Ok(slot),
                Step::Check(check) => {
                    let _ = tokio::time::timeout(CHECK_PATIENCE, check).await;
                }
                Step::Hear => {
                    changed.await;
                    is_news = true;
                }
                Step::Wait(until) => {
                    is_news = true;
                    waiting.get_or_insert_with(|| Waiting(host.clone()));
                    match until {
                        Some(until) => drop(tokio::time::timeout_at(until, changed).await),
                        None => changed.await,
                    }
                }
                Step::Down(why) => return Err(why),
            }
        }
    }

    /// What is known of the place, at once.
    pub fn standing(&self, place: &SshPlace) -> Standing {
        let host = lock(&self.0.hosts).get(&key(place)).cloned();
        host.map_or(Standing::Idle, |host| host.standing())
    }

    /// Whoever asks next for a place that was away connects anew. A refusal stands: sshd shuts an address out that comes too
    /// often.
    pub fn hurry(&self, place: &SshPlace) {
        if let Some(host) = lock(&self.0.hosts).get(&key(place)) {
            host.hurry();
        }
    }

    fn host(&self, place: &SshPlace) -> Arc<Host> {
        if !self.0.is_swept.swap(true, Ordering::Relaxed) {
            // From the first one on, idle ones are looked for as long as the pool lives.
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        lock(&self.0.hosts).entry(key(place)).or_insert_with(|| Arc::new(Host::new(place))).clone()
    }

    /// Closes connections that had no commands for so long; says how many.
    pub async fn close_idle(&self, idle: Duration) -> usize {
        let now = clock::instant();
        let mut closed = Vec::new();
        {
            let mut hosts = lock(&self.0.hosts);
            hosts.retain(|_, host| {
                let mut state = host.state();
                state.connections.retain(|shared| {
                    let load = lock(&shared.load);
                    let is_idle = load.open == 0 && load.held == 0 && now.saturating_duration_since(load.since) >= idle;
                    if is_idle {
                        closed.push(shared.clone());
                    }
                    !is_idle
                });
                let is_down = state.down.as_ref().is_some_and(|down| now < down.until + self.0.limits.backoff.1);
                let is_used = !state.connections.is_empty() || state.dialing > 0 || is_down;
                // Somebody may have looked it up just now.
                is_used || Arc::strong_count(host) > 1
            });
        }
        let count = closed.len();
        // Nobody else has them: a session is begun under the lock that took them out.
        let alone = closed.into_iter().filter_map(Arc::into_inner);
        futures::future::join_all(alone.map(|shared| shared.connection.close())).await;
        count
    }
}

enum Step {
    Use(Slot),
    /// It is being looked up whether a connection that is there may be used.
    Check(JoinHandle<()>),
    /// Until it is looked up whether a refusal still stands.
    Hear,
    /// Until a session is free or a connect is over, or it is worth another try.
    Wait(Option<Instant>),
    Down(DialError),
}

/// What makes a connection another one: all of the place but how long to wait for it, and where its steps start.
fn key(place: &SshPlace) -> SshPlace {
    SshPlace { timeout_s: 0, workdir: None, ..place.clone() }
}

impl Inner {
    /// What somebody does next who wants a session; `is_waiting`: he is among those who wait.
    fn step(self: &Arc<Self>, host: &Arc<Host>, is_waiting: bool, is_news: bool, timeout_s: u32) -> Step {
        let mut state = host.state();
        let now = clock::instant();
        let is_due = !state.is_checking && state.checked.is_none_or(|at| now >= at + CHECK);
        if is_due && !state.connections.is_empty() {
            return Step::Check(self.check(host, &mut state));
        }
        if let Some(slot) = state.connections.iter().find_map(|shared| shared.take(host)) {
            return Step::Use(slot);
        }
        // With connections that are there it is waited for one of them, and for more to be tried.
        let mut until = None;
        if let Some(down) = state.is_down() {
            until = Some(down.until);
            if state.connections.is_empty() {
                if is_news || down.basis.is_none() {
                    return Step::Down(down.why.clone());
                }
                if !state.is_checking {
                    drop(self.check(host, &mut state));
                }
                return Step::Hear;
            }
        }
        state.waiting += usize::from(!is_waiting);
        self.dial_needed(host, &mut state, timeout_s);
        Step::Wait(until)
    }
}

async fn sweep(pool: Weak<Inner>) {
    let Some(every) = pool.upgrade().map(|pool| pool.limits.idle / 5) else { return };
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    loop {
        ticks.tick().await;
        let Some(inner) = pool.upgrade() else { return };
        let idle = inner.limits.idle;
        Pool(inner).close_idle(idle).await;
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

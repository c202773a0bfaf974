//! Connections that are kept and shared: few per user on a host, with many commands on each.
//!
//! Invariants: a connection is used only for the place that it was made for, keys and way there included, so nobody
//! rides on somebody else's; a host that is down, or that refuses, is not asked again before a time that is told to
//! whoever asks meanwhile; what waits for a connection costs no connection of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::connect::{self, Connection, Setup};
use super::error::{DialError, Fault, LinkError};
use super::exec::Lease;
use crate::clock;
use crate::place::SshPlace;

/// How long a host may still count a session that is over, and how often it is asked meanwhile.
const LINGER: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(50);

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

/// What is known of a host without asking it.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// Nobody has asked for it, or nobody uses it now.
    Idle,
    Dialing,
    Up {
        connections: usize,
        /// Commands under way, and how many fit.
        sessions: (usize, usize),
    },
    /// It is not asked before `until`.
    Down {
        until: Instant,
        why: DialError,
    },
}

/// All connections of this process. Cheap to clone; clones are the same pool.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    setup: Setup,
    limits: Limits,
    hosts: Mutex<HashMap<SshPlace, Arc<Host>>>,
    dials: Arc<Semaphore>,
    dials_per_host: Mutex<HashMap<(String, u16), Arc<Semaphore>>>,
    is_swept: AtomicBool,
}

/// One place.
struct Host {
    place: SshPlace,
    label: Arc<str>,
    state: Mutex<State>,
    /// A session is free, or a connect is over.
    changed: Notify,
}

#[derive(Default)]
struct State {
    connections: Vec<Arc<Shared>>,
    is_dialing: bool,
    down: Option<Down>,
}

struct Down {
    until: Instant,
    why: DialError,
    /// Connects that failed one after the other.
    times: u32,
}

/// A connection and what runs on it.
struct Shared {
    connection: Connection,
    /// Sessions at a time, unless the host takes fewer.
    most: usize,
    load: Mutex<Load>,
}

struct Load {
    open: usize,
    /// Holds on the connection itself.
    held: usize,
    /// As far as is known; a refusal lowers it.
    most: usize,
    /// One was opened at least once.
    has_opened: bool,
    /// When one was given back that had been open.
    freed: Option<Instant>,
    since: Instant,
}

impl Pool {
    pub fn new(setup: Setup, limits: Limits) -> Pool {
        let dials = Arc::new(Semaphore::new(limits.dials));
        let pool = Arc::new(Inner {
            setup,
            dials,
            hosts: Mutex::default(),
            dials_per_host: Mutex::default(),
            is_swept: AtomicBool::new(false),
            limits,
        });
        Pool(pool)
    }

    /// What its connects go by.
    pub fn setup(&self) -> &Setup {
        &self.0.setup
    }

    /// A session on the place, on a connection that is there if it has room. Waits while all sessions are in use; fails
    /// at once while the host is known to be down.
    pub async fn get(&self, place: &SshPlace) -> Result<Lease, DialError> {
        let host = self.host(place);
        loop {
            let changed = host.changed.notified();
            let step = self.step(&host);
            match step {
                // In a task: whoever waits may go away, and the session is closed then.
                Step::Use(slot) => match tokio::spawn(open(slot)).await {
                    Ok(Ok(Some(lease))) => return Ok(lease),
                    Ok(Err(why)) => return Err(why),
                    Ok(Ok(None)) | Err(_) => continue,
                },
                Step::Dial => self.dial(host.clone(), place.timeout_s),
                Step::Wait => {}
                Step::Down(why) => return Err(why),
            }
            changed.await;
        }
    }

    /// A connection to the place, kept for something beside the sessions on it, which count no less for that.
    pub(super) async fn hold(&self, place: &SshPlace) -> Result<Hold, DialError> {
        let host = self.host(place);
        loop {
            let changed = host.changed.notified();
            let held = {
                let state = lock(&host.state);
                let up = state.connections.iter().find(|shared| !shared.connection.is_closed());
                up.inspect(|shared| lock(&shared.load).held += 1).cloned()
            };
            if let Some(shared) = held {
                // Whoever waits for a session may have been called instead of us.
                host.changed.notify_one();
                return Ok(Hold { shared });
            }
            match self.step(&host) {
                Step::Use(slot) => drop(slot),
                Step::Dial => self.dial(host.clone(), place.timeout_s),
                Step::Wait => {}
                Step::Down(why) => return Err(why),
            }
            changed.await;
        }
    }

    /// What is known of the place, at once.
    pub fn standing(&self, place: &SshPlace) -> Standing {
        let host = lock(&self.0.hosts).get(&key(place)).cloned();
        let Some(host) = host else { return Standing::Idle };
        let mut state = lock(&host.state);
        state.connections.retain(|shared| !shared.connection.is_closed());
        if !state.connections.is_empty() {
            let loads = state.connections.iter().map(|shared| {
                let load = lock(&shared.load);
                (load.open, load.most)
            });
            let sessions = loads.fold((0, 0), |(open, most), (o, m)| (open + o, most + m));
            return Standing::Up { connections: state.connections.len(), sessions };
        }
        match &state.down {
            _ if state.is_dialing => Standing::Dialing,
            Some(down) if clock::instant() < down.until => Standing::Down { until: down.until, why: down.why.clone() },
            _ => Standing::Idle,
        }
    }

    /// Closes connections that nobody uses now, and forgets that hosts were down: so a change of keys counts at once.
    pub async fn reset(&self) {
        self.close_idle(Duration::ZERO).await;
        for host in lock(&self.0.hosts).values() {
            lock(&host.state).down = None;
        }
    }

    fn host(&self, place: &SshPlace) -> Arc<Host> {
        if !self.0.is_swept.swap(true, Ordering::Relaxed) {
            // From the first one on, idle ones are looked for as long as the pool lives.
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
        let key = key(place);
        let new = || {
            let label = place.to_string().into();
            Arc::new(Host { place: place.clone(), label, state: Mutex::default(), changed: Notify::new() })
        };
        lock(&self.0.hosts).entry(key).or_insert_with(new).clone()
    }

    fn step(&self, host: &Arc<Host>) -> Step {
        let mut state = lock(&host.state);
        state.connections.retain(|shared| !shared.connection.is_closed());
        for shared in &state.connections {
            let mut load = lock(&shared.load);
            if load.open < load.most {
                load.open += 1;
                return Step::Use(Slot { shared: shared.clone(), host: host.clone(), is_open: false });
            }
        }
        if state.is_dialing || state.connections.len() >= self.0.limits.connections {
            return Step::Wait;
        }
        match &state.down {
            Some(down) if clock::instant() < down.until => match state.connections.is_empty() {
                true => return Step::Down(down.why.clone()),
                // Those that are there go on; more will be tried later.
                false => return Step::Wait,
            },
            _ => {}
        }
        state.is_dialing = true;
        Step::Dial
    }

    /// Connects in a task of its own: whoever waits for it may go away.
    fn dial(&self, host: Arc<Host>, timeout_s: u32) {
        let pool = self.0.clone();
        tokio::spawn(async move {
            let place = SshPlace { timeout_s, ..host.place.clone() };
            // Taken back even if connecting should panic.
            let mut dialing = Dialing { host: &host, pool: &pool, outcome: None };
            let first = place.jump.first().map_or((&place.host, place.port), |hop| (&hop.host, hop.port));
            let of_host = pool.dials_of(first.0, first.1);
            let (_one, _all) = (of_host.acquire().await, pool.dials.acquire().await);
            dialing.outcome = Some(connect::connect(&place, &pool.setup).await);
        });
    }

    /// Closes connections that had no commands for so long; says how many.
    pub async fn close_idle(&self, idle: Duration) -> usize {
        let now = clock::instant();
        let mut closed = Vec::new();
        {
            let mut hosts = lock(&self.0.hosts);
            hosts.retain(|_, host| {
                let mut state = lock(&host.state);
                state.connections.retain(|shared| {
                    let load = lock(&shared.load);
                    let is_idle = load.open == 0 && load.held == 0 && now.saturating_duration_since(load.since) >= idle;
                    if is_idle {
                        closed.push(shared.clone());
                    }
                    !is_idle && !shared.connection.is_closed()
                });
                let is_down = state.down.as_ref().is_some_and(|down| now < down.until + self.0.limits.backoff.1);
                let is_used = !state.connections.is_empty() || state.is_dialing || is_down;
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
    Dial,
    Wait,
    Down(DialError),
}

/// What makes a connection another one: all of the place but how long to wait for it, and where its steps start.
fn key(place: &SshPlace) -> SshPlace {
    SshPlace { timeout_s: 0, workdir: None, ..place.clone() }
}

/// Opens the session; `None`: this connection does not do, another one may.
async fn open(mut slot: Slot) -> Result<Option<Lease>, DialError> {
    let patience = Duration::from_secs(slot.host.place.timeout_s.into());
    loop {
        let opened = tokio::time::timeout(patience, slot.shared.connection.handle().channel_open_session()).await;
        match opened {
            Ok(Ok(channel)) => {
                lock(&slot.shared.load).has_opened = true;
                slot.is_open = true;
                return Ok(Some(Lease::new(channel, slot)));
            }
            // The host counts a command until its last process is gone, which can be after we heard of its end.
            Ok(Err(russh::Error::ChannelOpenFailure(_))) if slot.was_freed_lately() => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(Err(russh::Error::ChannelOpenFailure(_))) => {
                // It takes fewer than was thought: as many as there are besides this one.
                let mut load = lock(&slot.shared.load);
                load.most = load.open.saturating_sub(1);
                let (is_alone, has_opened) = (load.most == 0, load.has_opened);
                drop(load);
                if is_alone {
                    slot.drop_connection();
                }
                if is_alone && !has_opened {
                    return Err(Fault::NoSession { host: slot.host.place.host.clone() }.into());
                }
                return Ok(None);
            }
            Ok(Err(_)) | Err(_) => {
                slot.drop_connection();
                return Ok(None);
            }
        }
    }
}

/// Ends [`State::is_dialing`], with what came of it.
struct Dialing<'a> {
    host: &'a Arc<Host>,
    pool: &'a Arc<Inner>,
    outcome: Option<Result<Connection, DialError>>,
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.host.state);
        state.is_dialing = false;
        match self.outcome.take() {
            Some(Ok(connection)) => {
                state.down = None;
                let most = self.pool.limits.sessions;
                let load = Mutex::new(Load {
                    open: 0,
                    held: 0,
                    most,
                    has_opened: false,
                    freed: None,
                    since: clock::instant(),
                });
                state.connections.push(Arc::new(Shared { connection, most, load }));
            }
            Some(Err(why)) => {
                let times = state.down.as_ref().map_or(0, |down| down.times) + 1;
                let until = clock::instant() + self.pool.pause(&why, times);
                state.down = Some(Down { until, why, times });
            }
            None => {
                let why = Fault::Broke {
                    host: self.host.place.host.clone(),
                    stage: "connecting",
                    why: "it was given up".into(),
                };
                let until = clock::instant() + self.pool.limits.backoff.1;
                state.down = Some(Down { until, why: why.into(), times: 1 });
            }
        }
        drop(state);
        self.host.changed.notify_waiters();
    }
}

impl Inner {
    fn dials_of(&self, host: &str, port: u16) -> Arc<Semaphore> {
        let mut all = lock(&self.dials_per_host);
        all.retain(|_, one| Arc::strong_count(one) > 1);
        let new = || Arc::new(Semaphore::new(self.limits.dials_per_host));
        all.entry((host.to_owned(), port)).or_insert_with(new).clone()
    }

    /// Until the next connect, after `times` that failed.
    fn pause(&self, why: &DialError, times: u32) -> Duration {
        let (first, most) = self.limits.backoff;
        if why.fault.is_refused() {
            return self.limits.refused.0;
        }
        if why.lasting() {
            return self.limits.refused.1;
        }
        // A fifth more or less, so that many do not come back at the same time.
        first.saturating_mul(1 << (times - 1).min(16)).min(most).mul_f64(0.8 + 0.4 * random())
    }
}

/// From 0 to 1; for nothing that has to be secret.
fn random() -> f64 {
    use std::hash::BuildHasher as _;
    let hash = std::hash::RandomState::new().hash_one(0);
    (hash >> 11) as f64 / (1_u64 << 53) as f64
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

/// A connection that stays while this lives.
pub(super) struct Hold {
    shared: Arc<Shared>,
}

impl Hold {
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut load = lock(&self.shared.load);
        load.held -= 1;
        load.since = clock::instant();
    }
}

/// One session of a connection, given back when it goes.
pub struct Slot {
    shared: Arc<Shared>,
    host: Arc<Host>,
    /// The host opened it.
    is_open: bool,
}

impl Slot {
    /// As people write the place.
    pub fn host(&self) -> &Arc<str> {
        &self.host.label
    }

    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// The connection went.
    pub fn lost(&self, why: &str) -> LinkError {
        let why = match self.shared.connection.is_closed() {
            true => self.shared.connection.why_closed(),
            false if why.is_empty() => "its session ended without a word".to_owned(),
            false => why.to_owned(),
        };
        LinkError::Lost { host: self.host.label.to_string(), why }
    }

    pub fn refused(&self) -> LinkError {
        LinkError::Refused { host: self.host.place.host.clone(), user: self.host.place.user.clone() }
    }

    /// A session of this connection ended so short a time ago that the host may not have noticed.
    fn was_freed_lately(&self) -> bool {
        let freed = lock(&self.shared.load).freed;
        freed.is_some_and(|freed| clock::instant().saturating_duration_since(freed) < LINGER)
    }

    /// Nobody gets it any more; it ends with the last command on it.
    fn drop_connection(&self) {
        lock(&self.host.state).connections.retain(|shared| !Arc::ptr_eq(shared, &self.shared));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut load = lock(&self.shared.load);
        load.open -= 1;
        load.since = clock::instant();
        if self.is_open {
            load.freed = Some(load.since);
        }
        if load.open == 0 {
            // What was learnt may have been for a moment: the host counts a command until its last process is gone.
            load.most = self.shared.most;
        }
        drop(load);
        self.host.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

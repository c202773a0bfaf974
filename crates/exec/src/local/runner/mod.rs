//! The runner: the small, long-lived process that keeps the attempts of one data directory, so that they outlive the
//! server. It is this program itself, started with a hidden subcommand, on one thread.
//!
//! It decides nothing and remembers nothing that the attempts' directories do not say, except which attempts are alive.
//! Invariant: for each directory at most one runner lives; while it lives, an attempt that began and has no recorded end
//! is in its table. So one that is not in the table was lost with an earlier runner, whose leftovers were killed before
//! this runner answered anybody.

mod attempt;
mod connection;
mod oom;
mod output;
mod pod;
mod process;
mod reaper;
mod sampler;
mod step;
pub(crate) mod strays;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::AttemptId;
use pitcrew_core::state::Exit;
use rustix::process::{Resource, Rlimit};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::cgroup::Controllers;
use super::place::Place;
use crate::backend::{BackendEvent, Ended, Handle, Observation};
use crate::log::LogWriter;
use crate::spec::AttemptSpec;
use crate::{attempt_dir, clock, thrift};
use connection::Connections;
use oom::Victims;
use reaper::Reaper;
use sampler::Sampler;

/// Without an attempt and without a connection for this long, the runner ends.
const IDLE: Duration = Duration::from_secs(10);
/// Between tries to record an end that could not be written, and how many there are.
const RECORD_EVERY: Duration = Duration::from_secs(1);
const RECORD_TRIES: u32 = 3600;
const RECORD_TRIES_OF_NOTHING: u32 = 30;
/// Descriptors of one live attempt: its log, two pipes, and room for a script and a cgroup while a step starts.
const FILES_PER_ATTEMPT: u64 = 6;
const FILES_RESERVED: u64 = 64;
/// How long a new runner tries to end what a killed one left.
const SWEEP: Duration = Duration::from_secs(10);
/// How often the lease is looked at while something runs. A timer would not count the time that the machine sleeps.
const LOOK: Duration = Duration::from_millis(250);
const LEASE_OVER: &str = "its worker or server was cut off from the others for longer than its lease";

/// Runs the runner of `dir` until it is idle; at once when there is one already. Call it from a process of its own,
/// before anything else made a thread.
pub fn main(dir: &Path) -> ExitCode {
    // Out of the server's session, so that neither its terminal nor its end reaches us. Fails for a session's leader.
    let _ = rustix::process::setsid();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.and_then(|runtime| LocalSet::new().block_on(&runtime, run(dir)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&format!("the runner of `{}` ended: {error}", dir.display()));
            ExitCode::FAILURE
        }
    }
}

async fn run(dir: &Path) -> io::Result<()> {
    let place = Place::open(dir)?;
    let Some(_lock) = place.lock()? else { return Ok(()) };
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let reaper = Reaper::start()?;
    let engines = pod::Engines::of(&place, format!("{}-{}", std::process::id(), clock::now().as_millisecond()));
    sweep(&place, &reaper, &engines).await;
    std::fs::write(place.mark(), std::process::id().to_string())?;
    let listener = connection::listen(&place)?;
    let (open_files, slots) = raise_open_files();
    let runner = Rc::new(Runner {
        sampler: Sampler::new(Rc::clone(&reaper)),
        place,
        reaper,
        engines,
        live: RefCell::default(),
        connections: Connections::default(),
        changed: Notify::new(),
        slots: Semaphore::new(slots),
        open_files,
        buffer: RefCell::new(vec![0; 64 << 10].into_boxed_slice()),
        victims: Victims::default(),
        controllers: OnceCell::new(),
        cgroups: Cell::new(0),
        giving_up: Cell::new(false),
        lease: Cell::new(None),
    });
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = connection::accept(&runner, &listener) => {}
        () = runner.idle() => {}
        () = runner.end_with_lease() => {}
        _ = terminate.recv() => runner.give_up().await,
    }
    // In this order, and before the lock is freed: whoever finds no socket makes a new runner, which waits for the lock.
    let _ = std::fs::remove_file(runner.place.socket());
    let _ = std::fs::remove_file(runner.place.mark());
    Ok(())
}

/// Ends the processes that a killed runner left behind.
async fn sweep(place: &Place, reaper: &Reaper, engines: &pod::Engines) {
    if !place.mark().exists() {
        return;
    }
    let mark = format!("PITCREW_RUNNER={}", place.token());
    let deadline = clock::instant() + SWEEP;
    loop {
        let left = strays::find(&mark, &[]);
        if left.is_empty() || clock::instant() > deadline {
            break;
        }
        strays::kill(&left);
        reaper.settle().await;
    }
    Controllers::detect().sweep(&cgroup_prefix(place));
    pod::sweep(place.token());
    engines.sweep(reaper, &engines.life).await;
}

fn cgroup_prefix(place: &Place) -> String {
    format!("pitcrew-{}-", place.token())
}

/// Raises the limit on open files as far as it goes; gives the old limit, for the attempts, and how many of those the
/// new one allows at a time.
fn raise_open_files() -> (Option<Rlimit>, usize) {
    let old = rustix::process::getrlimit(Resource::Nofile);
    let raised = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum });
    let now = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let slots = (now.saturating_sub(FILES_RESERVED) / FILES_PER_ATTEMPT).clamp(1, 1 << 16);
    let changed = raised.is_ok() && old.current != old.maximum;
    (changed.then_some(old), usize::try_from(slots).unwrap_or(1 << 16))
}

pub struct Runner {
    place: Place,
    reaper: Rc<Reaper>,
    live: RefCell<HashMap<AttemptId, Rc<Live>>>,
    connections: Connections,
    engines: pod::Engines,
    /// Told when an attempt or a connection comes or goes.
    changed: Notify,
    slots: Semaphore,
    open_files: Option<Rlimit>,
    /// Shared by all attempts, since only one reads at a time.
    buffer: RefCell<Box<[u8]>>,
    victims: Victims,
    sampler: Rc<Sampler>,
    controllers: OnceCell<Controllers>,
    cgroups: Cell<u64>,
    giving_up: Cell<bool>,
    /// When everything ends, as time since the machine started. `None`: never.
    lease: Cell<Option<Duration>>,
}

/// An attempt that is not over, or whose end could not be recorded yet.
struct Live {
    accepted_at: Timestamp,
    stop: watch::Sender<Option<Instant>>,
    /// Why its end is a loss.
    lost: OnceCell<String>,
    ended: OnceCell<Ended>,
}

impl Live {
    /// Stops it; the end of the grace can only come nearer.
    fn stop_at(&self, wanted: Instant) {
        self.stop.send_if_modified(|stop| {
            let sooner = stop.is_none_or(|at| wanted < at);
            if sooner {
                *stop = Some(wanted);
            }
            sooner
        });
    }

    /// Stops it, and its end is a loss.
    fn end(&self, reason: String, wanted: Instant) {
        let _ = self.lost.set(reason);
        self.stop_at(wanted);
    }
}

impl Runner {
    /// Accepts an attempt, once. It begins before this returns, or its end says why it could not. What is already over
    /// is told again.
    fn start(self: &Rc<Self>, spec: Box<AttemptSpec>, base_env: Rc<BTreeMap<String, String>>) {
        let handle = Handle::of(&spec);
        match self.observe(&handle) {
            Observation::Waiting | Observation::Running { .. } => return,
            Observation::Ended(ended) => return self.tell_end(handle.id, ended),
            Observation::Lost { reason } => return self.tell(BackendEvent::Lost { id: handle.id, reason }),
            // What cannot be read cannot be written either, and then the end says so.
            Observation::NeverBegan | Observation::Unreachable { .. } => {}
        }
        let log = make_dir(&spec.dir).and_then(|()| LogWriter::create(&attempt_dir::log(&spec.dir), spec.log_limit));
        let (stop, stopped) = watch::channel(None);
        let live = Rc::new(Live { accepted_at: clock::now(), stop, lost: OnceCell::new(), ended: OnceCell::new() });
        if self.is_lease_over() {
            live.end(LEASE_OVER.to_owned(), clock::instant());
        }
        self.live.borrow_mut().insert(handle.id.clone(), Rc::clone(&live));
        self.changed.notify_waiters();
        let runner = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let ended = match log {
                Ok(log) => runner.run_attempt(spec, base_env, log, stopped).await,
                Err(error) => {
                    let dir = handle.dir.display();
                    let reason = format!("cannot write to the attempt's directory `{dir}`: {error}");
                    Ended::bare(Exit::start_failed(reason), clock::now())
                }
            };
            runner.finish(&live, handle, ended).await;
        });
    }

    async fn run_attempt(
        self: &Rc<Self>,
        spec: Box<AttemptSpec>,
        base_env: Rc<BTreeMap<String, String>>,
        log: LogWriter,
        stop: watch::Receiver<Option<Instant>>,
    ) -> Ended {
        let runner = Rc::clone(self);
        let mark = attempt::mark(&spec.dir);
        let work = tokio::task::spawn_local(async move {
            // The semaphore is never closed.
            let _slot = runner.slots.acquire().await;
            attempt::run(&runner, &spec, &base_env, log, stop).await
        });
        match work.await {
            Ok(ended) => ended,
            // A mistake of ours in one attempt must not leave it running for ever in everybody's eyes.
            Err(error) => {
                strays::kill(&strays::find(&mark, &[]));
                Ended::bare(Exit::Lost { reason: format!("the runner failed: {error}") }, clock::now())
            }
        }
    }

    /// Records and tells an end. What cannot be recorded now stays in the table, where it is found too.
    async fn finish(&self, live: &Live, handle: Handle, mut ended: Ended) {
        if self.giving_up.get() {
            ended.exit = Exit::Lost { reason: "its runner was told to end".to_owned() };
        }
        // What ended by itself before it was told to, ended so.
        if let (Exit::Cancelled, Some(reason)) = (&ended.exit, live.lost.get()) {
            ended.exit = Exit::Lost { reason: reason.clone() };
        }
        if let Err(error) = attempt_dir::record_end(&handle.dir, &ended) {
            note(&format!("cannot record the end of {}, trying again: {error}", handle.id));
            let _ = live.ended.set(ended.clone());
            self.tell_end(handle.id.clone(), ended.clone());
            // Where there is no mark that it began, nothing ran, and it may as well be started again.
            let tries = if attempt_dir::began(&handle.dir) { RECORD_TRIES } else { RECORD_TRIES_OF_NOTHING };
            for _ in 0..tries {
                tokio::time::sleep(RECORD_EVERY).await;
                if attempt_dir::record_end(&handle.dir, &ended).is_ok() {
                    break;
                }
            }
            self.live.borrow_mut().remove(&handle.id);
        } else {
            self.live.borrow_mut().remove(&handle.id);
            self.tell_end(handle.id, ended);
        }
        self.changed.notify_waiters();
    }

    fn observe(&self, handle: &Handle) -> Observation {
        if let Some(live) = self.live.borrow().get(&handle.id) {
            return match live.ended.get() {
                Some(ended) => attempt_dir::observed(ended.clone()),
                None => Observation::Running { started_at: live.accepted_at },
            };
        }
        match attempt_dir::recorded_end(&handle.dir) {
            Ok(Some(ended)) => attempt_dir::observed(ended),
            Ok(None) if !attempt_dir::began(&handle.dir) => Observation::NeverBegan,
            Ok(None) => {
                let reason = "its runner was killed, and its processes with it".to_owned();
                let lost = Ended::bare(Exit::Lost { reason: reason.clone() }, clock::now());
                // Only so that later questions need no runner; the answer is the same without.
                let _ = attempt_dir::record_end(&handle.dir, &lost);
                Observation::Lost { reason }
            }
            Err(error) => Observation::Unreachable {
                reason: format!("cannot read `{}`: {error}", attempt_dir::exit(&handle.dir).display()),
            },
        }
    }

    /// Stops an attempt; one that never began is over at once, and stays so.
    fn cancel(&self, handle: &Handle, grace: SignedDuration, lost: Option<String>) {
        let wanted = clock::deadline(grace);
        if let Some(live) = self.live.borrow().get(&handle.id) {
            match lost {
                Some(reason) => live.end(reason, wanted),
                None => live.stop_at(wanted),
            }
            return;
        }
        if attempt_dir::began(&handle.dir) || attempt_dir::exit(&handle.dir).exists() {
            return;
        }
        let exit = lost.map_or(Exit::Cancelled, |reason| Exit::Lost { reason });
        let ended = Ended::bare(exit, clock::now());
        let recorded = make_dir(&handle.dir).and_then(|()| attempt_dir::record_end(&handle.dir, &ended));
        if let Err(error) = recorded {
            note(&format!("cannot record that {} was cancelled: {error}", handle.id));
        }
        self.tell_end(handle.id.clone(), ended);
    }

    fn tell_end(&self, id: AttemptId, ended: Ended) {
        self.tell(match ended.exit {
            Exit::Lost { reason } => BackendEvent::Lost { id, reason },
            _ => BackendEvent::Ended { id, ended },
        });
    }

    fn tell(&self, event: BackendEvent) {
        self.connections.tell(event);
    }

    fn controllers(&self) -> &Controllers {
        self.controllers.get_or_init(Controllers::detect)
    }

    fn next_cgroup_name(&self) -> String {
        let number = self.cgroups.get() + 1;
        self.cgroups.set(number);
        format!("{}{number}", cgroup_prefix(&self.place))
    }

    /// Returns when there was nothing to do for a while.
    async fn idle(&self) {
        let mut is_resting = false;
        loop {
            let changed = self.changed.notified();
            let is_idle = self.live.borrow().is_empty();
            let (patience, ends) = match (is_idle, self.connections.is_empty()) {
                (true, true) => (Some(IDLE), true),
                (true, false) => ((!is_resting).then_some(thrift::REST), false),
                (false, _) => (None, false),
            };
            let deadline = patience.map(|patience| clock::instant() + patience);
            is_resting = tokio::select! {
                () = changed => false,
                () = clock::until(deadline) => true,
            };
            if is_resting && ends {
                return;
            }
            if is_resting {
                thrift::give_back();
            }
        }
    }

    /// What is kept is kept until then; see [`ToRunner::Lease`](super::protocol::ToRunner).
    fn lease(&self, until_ms: u64) {
        let until = Duration::from_millis(until_ms);
        // A repeated message may be older than what was said since.
        self.lease.set(Some(self.lease.get().map_or(until, |lease| lease.max(until))));
        self.changed.notify_waiters();
    }

    fn is_lease_over(&self) -> bool {
        self.lease.get().is_some_and(|until| clock::since_boot() >= until)
    }

    /// Ends what runs when the lease is over: by then somebody else may be given it. Never returns.
    async fn end_with_lease(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lease.get().is_none() || self.live.borrow().is_empty() {
                changed.await;
                continue;
            }
            if self.is_lease_over() {
                let now = clock::instant();
                self.live.borrow().values().for_each(|live| live.end(LEASE_OVER.to_owned(), now));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The machine shuts down, or somebody wants the runner gone: its attempts end with it, and are known as lost.
    async fn give_up(&self) {
        note(&format!("told to end, with {} attempts running", self.live.borrow().len()));
        self.giving_up.set(true);
        let mark = format!("PITCREW_RUNNER={}", self.place.token());
        let deadline = clock::instant() + SWEEP;
        while !self.live.borrow().is_empty() && clock::instant() < deadline {
            strays::kill(&strays::find(&mark, &[]));
            self.reaper.settle().await;
        }
        self.engines.sweep(&self.reaper, "").await;
    }
}

/// Below a directory that is ours to write; absolute, since the runner has no directory of its own.
fn make_dir(dir: &Path) -> io::Result<()> {
    if !dir.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    std::fs::create_dir_all(dir)
}

/// A line for `runner.log`. Unlike `eprintln`, it does not panic when the disk is full.
fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

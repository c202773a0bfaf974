//! Does what [`Duty`] says, and tells it what came of it: one loop that owns the duty, and a task for whatever waits.
//!
//! ```text
//! answers, ends, files that came ──► inbox ──► Duty ──► what to do ──► tasks
//! ```
//!
//! One sync waits at the server. News go with another, which the server takes in place of the older; so what one of them
//! says may be answered by either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::disk::{Disk, Kept};
use super::duty::{Do, Duty};
use super::files::{Depot, DepotError, LARGEST};
use super::logs::Logs;
use super::machine;
use super::protocol::{About, Answer, End, LONGEST_WAIT, Order, PROTOCOL, Sync};
use super::wire::{Wire, WireError};
use crate::backend::{Backend, BackendError, BackendEvent, Handle, Observation};
use crate::clock;
use crate::gpu::Probe;
use crate::local::{LocalBackend, LocalConfig, blocking};
use crate::spec::AttemptSpec;

/// Between two syncs with news: what comes at the same time goes together.
const GAP: Duration = Duration::from_millis(4);
/// Syncs under way at most: one that waits, and what overtakes it.
const FLIGHTS: usize = 3;
/// Between tries when nobody answers: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often logs that grow are copied, and the lease is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often the runner is asked about all that it should have; its events are hints.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often the machine is asked again what it has.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How long an answer may take beyond what it was asked to wait.
const LATE: Duration = Duration::from_secs(10);
/// How long a worker that must end waits for what it ended.
const BURIAL: Duration = Duration::from_secs(20);

/// What asks the machine what it has; `None` when it does not tell.
pub type Prober = Box<dyn Fn() -> BoxFuture<'static, Option<Probe>> + Send + std::marker::Sync>;

/// A worker that has a credential.
pub struct Worker {
    pub disk: Disk,
    pub wire: Wire,
    pub about: About,
    pub local: LocalConfig,
    pub prober: Prober,
    /// How long a drain may take before what runs is ended.
    pub drain_deadline: Duration,
}

/// What people are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The server answered, for the first time or again; so many attempts of an earlier process go on.
    Connected {
        found: usize,
    },
    Unreachable {
        reason: String,
    },
    /// It answers, and does not want what this worker says.
    Refused {
        reason: String,
    },
    Draining {
        left: usize,
    },
    /// The drain took too long: what is left is ended.
    DrainOver {
        left: usize,
    },
    /// The lease is over, and with it what ran.
    LeaseOver,
}

/// Why a worker ended, if not because it was told to and had nothing left.
#[derive(Debug, thiserror::Error)]
pub enum CourierError {
    /// The server does not know its credential any more.
    #[error("the server does not take this worker's credential any more: {0}")]
    Revoked(String),
    /// Somebody else goes by the same credential.
    #[error("another process works with this worker's credential: {0}")]
    Replaced(String),
    #[error("{0}")]
    Io(String),
}

enum News {
    Answered { seq: u64, sent: Duration, result: Result<Answer, WireError> },
    Looked(Vec<(Handle, Observation)>),
    NotBegun(AttemptId, String),
    Brought(AttemptId, Result<(), String>),
    Gone(AttemptId, End),
    Probed(Option<Probe>),
}

struct Courier<'a> {
    duty: Duty,
    disk: Disk,
    wire: Wire,
    backend: Arc<LocalBackend>,
    about: About,
    prober: Prober,
    logs: Logs,
    depot: Arc<Depot>,
    news: mpsc::UnboundedSender<News>,
    incarnation: u64,
    seq: u64,
    /// Syncs that are not answered: what each carried.
    flights: BTreeMap<u64, Flight>,
    last_sent: Option<Instant>,
    /// Not before this, since the last try failed.
    pause_until: Option<Instant>,
    failures: u32,
    connected: Option<bool>,
    found: usize,
    about_told: bool,
    probe: Option<Probe>,
    probing: bool,
    lease_ms: Option<u64>,
    lease_over: bool,
    files: BTreeMap<AttemptId, bool>,
    say: &'a mut (dyn FnMut(Said) + Send),
    fatal: Option<CourierError>,
}

#[derive(Default)]
struct Flight {
    about: bool,
    probe: bool,
    task: Option<tokio::task::AbortHandle>,
}

/// Works until `drain` resolves and all that runs is over, or until something makes it impossible.
pub async fn work(
    worker: Worker,
    drain: impl Future<Output = ()>,
    say: &mut (dyn FnMut(Said) + Send),
) -> Result<(), CourierError> {
    let Worker { disk, wire, about, local, prober, drain_deadline } = worker;
    let io = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| CourierError::Io(format!("{what}: {error}"))
    };
    let (sender, mut events) = mpsc::unbounded_channel();
    let backend = LocalBackend::new(local, sender).map_err(io("cannot make the directory of the runner"))?;
    let (news, mut inbox) = mpsc::unbounded_channel();
    let incarnation = disk.next_incarnation().map_err(io("cannot count the starts of this worker"))?;
    let mut duty = Duty::new(about.slots);
    let mut files = BTreeMap::new();
    for kept in disk.all_kept().map_err(io("cannot read what this worker began"))? {
        let handle = disk.handle(&kept.attempt);
        files.insert(kept.attempt.clone(), kept.files);
        duty.found(kept.attempt, kept.grace, backend.attach(&handle).await);
    }
    let found = duty.running();
    let depot = Arc::new(Depot::new(disk.root().join("blobs"), LARGEST));
    let mut courier = Courier {
        depot,
        duty,
        disk,
        wire,
        backend: Arc::new(backend),
        about,
        prober,
        logs: Logs::default(),
        news,
        incarnation,
        seq: 0,
        flights: BTreeMap::new(),
        last_sent: None,
        pause_until: None,
        failures: 0,
        connected: None,
        found,
        about_told: false,
        probe: None,
        probing: false,
        lease_ms: None,
        lease_over: false,
        files,
        say,
        fatal: None,
    };
    let mut drain = std::pin::pin!(drain);
    let mut asked_to_drain = false;
    let mut drain_at: Option<Instant> = None;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut probe = tokio::time::interval(PROBE_EVERY);
    // What it has is known before it is given any work.
    courier.probe = (courier.prober)().await;
    probe.reset();
    loop {
        courier.step();
        if let Some(error) = courier.fatal.take() {
            return Err(courier.give_up(&mut events, error).await);
        }
        if courier.duty.is_draining() {
            if drain_at.is_none() {
                (courier.say)(Said::Draining { left: courier.duty.running() });
                drain_at = Some(clock::instant() + drain_deadline);
            }
            if courier.duty.is_empty() && !courier.duty.has_news() {
                return Ok(());
            }
        }
        tokio::select! {
            Some(event) = events.recv() => {
                courier.event(event);
                while let Ok(event) = events.try_recv() {
                    courier.event(event);
                }
            }
            Some(news) = inbox.recv() => {
                courier.heard(news);
                while let Ok(news) = inbox.try_recv() {
                    courier.heard(news);
                }
            }
            () = &mut drain, if !asked_to_drain => {
                asked_to_drain = true;
                courier.duty.drain();
            }
            () = clock::until(drain_at) => {
                (courier.say)(Said::DrainOver { left: courier.duty.running() });
                courier.duty.end_all("its worker was drained, and it took longer than the drain may");
                drain_at = Some(clock::instant() + BURIAL + drain_deadline);
            }
            () = clock::until(courier.wake_at()) => {}
            _ = tick.tick(), if courier.duty.running() > 0 => courier.tick(),
            _ = look.tick(), if courier.duty.running() > 0 => courier.look(),
            _ = probe.tick() => courier.ask_machine(),
        }
    }
}

impl Courier<'_> {
    fn step(&mut self) {
        self.duty.settle(clock::since_boot());
        for what in self.duty.take() {
            self.perform(what);
        }
        self.exchange();
    }

    /// When something is to be done though nothing happens.
    fn wake_at(&self) -> Option<Instant> {
        if self.pause_until.is_some() {
            return self.pause_until;
        }
        let waits = self.duty.has_news() && self.flights.len() < FLIGHTS;
        self.last_sent.filter(|_| waits).map(|at| at + GAP)
    }

    /// Sends a sync if none is under way, or if there is news.
    fn exchange(&mut self) {
        let now = clock::instant();
        if self.pause_until.is_some_and(|at| now < at) {
            return;
        }
        self.pause_until = None;
        let news = self.duty.has_news() && self.last_sent.is_none_or(|at| now >= at + GAP);
        if self.flights.len() >= FLIGHTS || !(news || self.flights.is_empty()) {
            return;
        }
        self.seq += 1;
        let seq = self.seq;
        let wait = match self.lease_ms {
            // What is not known yet is asked for.
            None => Duration::ZERO,
            Some(lease) => Duration::try_from(LONGEST_WAIT).unwrap_or_default().min(Duration::from_millis(lease / 3)),
        };
        let late = self.lease_ms.map_or(LATE, |lease| LATE.min(Duration::from_millis(lease / 3)));
        let sync = Sync {
            protocol: PROTOCOL,
            incarnation: self.incarnation,
            seq,
            about: (!self.about_told).then(|| self.about.clone()),
            draining: self.duty.is_draining(),
            prefetch: self.duty.prefetch(),
            has: self.duty.has(seq),
            probe: self.probe.clone(),
            load: machine::load(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(0),
            server: self.duty.server().map(str::to_owned),
        };
        let (wire, news) = (self.wire.clone(), self.news.clone());
        let (about, probe) = (sync.about.is_some(), sync.probe.is_some());
        let sent = clock::since_boot();
        let task = tokio::spawn(async move {
            let result = wire.sync(&sync, wait + late).await;
            let _ = news.send(News::Answered { seq, sent, result });
        });
        self.flights.insert(seq, Flight { about, probe, task: Some(task.abort_handle()) });
        self.last_sent = Some(now);
    }

    fn heard(&mut self, news: News) {
        match news {
            News::Answered { seq, sent, result } => self.answered(seq, sent, result),
            News::Looked(seen) => {
                for (handle, observation) in seen {
                    self.duty.observed(&handle.id, observation);
                }
            }
            News::NotBegun(id, reason) => self.duty.not_begun(&id, reason, clock::now()),
            News::Brought(id, result) => self.duty.brought(&id, result, clock::now()),
            News::Gone(id, end) => self.duty.gone(&id, end),
            News::Probed(probe) => {
                self.probing = false;
                self.probe = probe.or(self.probe.take());
            }
        }
    }

    fn answered(&mut self, seq: u64, sent: Duration, result: Result<Answer, WireError>) {
        let Some(flight) = self.flights.remove(&seq) else { return };
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.duty.unanswered(seq);
                return self.failed(error);
            }
        };
        self.failures = 0;
        if self.connected != Some(true) {
            (self.say)(Said::Connected { found: std::mem::take(&mut self.found) });
            self.connected = Some(true);
        }
        self.about_told |= flight.about;
        if flight.probe && !self.probing {
            self.probe = None;
        }
        self.lease_ms = Some(answer.lease_ms);
        self.duty.answered(seq, sent, answer, clock::since_boot(), clock::now());
        self.lease_over = false;
        if let Some(until) = self.duty.lease() {
            self.backend.lease(until);
        }
    }

    fn failed(&mut self, error: WireError) {
        match error.status() {
            Some(401) => self.fatal = Some(CourierError::Revoked(message(&error))),
            Some(409) => self.fatal = Some(CourierError::Replaced(message(&error))),
            _ => {
                if self.connected != Some(false) {
                    let reason = message(&error);
                    (self.say)(match error {
                        WireError::Unreachable(_) => Said::Unreachable { reason },
                        WireError::Refused(..) => Said::Refused { reason },
                    });
                    self.connected = Some(false);
                }
                let longest = self.lease_ms.map_or(LONGEST_PAUSE, |lease| Duration::from_millis(lease / 4));
                let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(8));
                self.failures += 1;
                // So that a thousand workers do not come back in the same moment.
                let pause = pause.min(LONGEST_PAUSE).min(longest).mul_f64(machine::between_half_and_one());
                self.pause_until = Some(clock::instant() + pause);
                // Whatever else waits there would only be told the same.
                for (seq, flight) in std::mem::take(&mut self.flights) {
                    flight.task.iter().for_each(tokio::task::AbortHandle::abort);
                    self.duty.unanswered(seq);
                }
            }
        }
    }

    fn event(&mut self, event: BackendEvent) {
        let now = Some(clock::since_boot());
        match event {
            BackendEvent::Started { id, at } => self.duty.started(&id, at),
            BackendEvent::Ended { id, ended } => self.duty.ended(&id, End::Ended { ended, log: None }, now),
            BackendEvent::Lost { id, reason } => self.duty.ended(&id, End::Lost { reason }, now),
        }
    }

    fn tick(&mut self) {
        if self.duty.is_lease_over(clock::since_boot()) && !std::mem::replace(&mut self.lease_over, true) {
            (self.say)(Said::LeaseOver);
        }
        if self.connected != Some(true) {
            return;
        }
        for id in self.duty.begun() {
            let (logs, wire, handle) = (self.logs.clone(), self.wire.clone(), self.disk.handle(id));
            tokio::spawn(async move {
                if let Err(error) = logs.copy(&wire, &handle).await {
                    tracing::debug!("the log of {} cannot be copied now: {error}", handle.id);
                }
            });
        }
    }

    /// Asks the runner about all that was begun.
    fn look(&self) {
        let handles: Vec<Handle> = self.duty.begun().map(|id| self.disk.handle(id)).collect();
        let (backend, news) = (Arc::clone(&self.backend), self.news.clone());
        tokio::spawn(async move {
            let mut seen = Vec::new();
            for handle in handles {
                // One that is just being started is not there yet.
                match backend.attach(&handle).await {
                    Observation::NeverBegan => {}
                    observation => seen.push((handle, observation)),
                }
            }
            let _ = news.send(News::Looked(seen));
        });
    }

    fn ask_machine(&mut self) {
        if !std::mem::replace(&mut self.probing, true) {
            let (asked, news) = ((self.prober)(), self.news.clone());
            tokio::spawn(async move { drop(news.send(News::Probed(asked.await))) });
        }
    }

    fn perform(&mut self, what: Do) {
        match what {
            Do::Bring(id) => self.bring(id),
            Do::Begin(order) => self.begin(order),
            Do::Cancel(id, grace) => self.end(id, grace, None),
            Do::Lose(id, grace, reason) => self.end(id, grace, Some(reason)),
            Do::Send(id, end) => self.send(id, *end),
            Do::Clean(id) => {
                self.files.remove(&id);
                self.logs.forget(&id);
                if let Err(error) = self.disk.forget(&id) {
                    tracing::warn!("cannot forget {id}: {error}");
                }
                let (backend, handle) = (Arc::clone(&self.backend), self.disk.handle(&id));
                tokio::spawn(async move {
                    if let Err(error) = backend.cleanup(&handle).await {
                        tracing::debug!("{error}");
                    }
                });
            }
            Do::Leave(run) => {
                self.depot.leave(run);
                let dir = self.disk.run(run);
                tokio::spawn(async move {
                    let shown = dir.display().to_string();
                    match blocking(move || std::fs::remove_dir_all(dir)).await {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            tracing::warn!("cannot remove `{shown}`: {error}");
                        }
                        _ => {}
                    }
                });
            }
        }
    }

    fn bring(&self, id: AttemptId) {
        let (depot, wire, news) = (Arc::clone(&self.depot), self.wire.clone(), self.news.clone());
        let dir = self.disk.run(id.run);
        tokio::spawn(async move {
            let brought = loop {
                match depot.bring(&wire, &dir, &id).await {
                    Ok(()) => break Ok(()),
                    Err(DepotError::Later(reason)) => {
                        tracing::debug!("the files of {id} do not come now: {reason}");
                        tokio::time::sleep(TICK).await;
                    }
                    Err(error) => break Err(format!("the files of its run did not come from the server: {error}")),
                }
            };
            let _ = news.send(News::Brought(id, brought));
        });
    }

    fn begin(&mut self, order: Box<Order>) {
        let Order { handle: Handle { id, .. }, mut spec, files } = *order;
        let handle = self.disk.handle(&id);
        self.files.insert(id.clone(), files);
        let kept = Kept { attempt: id.clone(), grace: spec.grace, files };
        if let Err(error) = self.disk.keep(&kept).and_then(|()| self.make_dirs(&spec)) {
            let reason =
                format!("cannot write to the directory of the worker, `{}`: {error}", self.disk.root().display());
            let _ = self.news.send(News::NotBegun(id, reason));
            return;
        }
        self.logs.begin(&id);
        (spec.dir, spec.place) = (handle.dir.clone(), None);
        let (backend, news) = (Arc::clone(&self.backend), self.news.clone());
        tokio::spawn(async move {
            loop {
                match backend.start(&handle, spec.clone()).await {
                    Ok(()) => return,
                    Err(BackendError::Unreachable { reason, .. }) => {
                        tracing::warn!("cannot start {}: {reason}; trying again", handle.id);
                        tokio::time::sleep(TICK).await;
                    }
                    Err(error @ BackendError::Io { .. }) => {
                        let _ = news.send(News::NotBegun(handle.id.clone(), error.to_string()));
                        return;
                    }
                }
            }
        });
    }

    /// Where steps start, and what the environment of an attempt names.
    fn make_dirs(&self, spec: &AttemptSpec) -> std::io::Result<()> {
        let run = self.disk.run(spec.id.run);
        for dir in &spec.dirs {
            std::fs::create_dir_all(dir)?;
        }
        for name in ["workspace", "artifacts"] {
            std::fs::create_dir_all(run.join(name))?;
        }
        spec.dirs.iter().filter(|dir| dir.starts_with(&run)).try_for_each(std::fs::create_dir_all)
    }

    fn end(&self, id: AttemptId, grace: SignedDuration, lost: Option<String>) {
        let (backend, handle) = (Arc::clone(&self.backend), self.disk.handle(&id));
        tokio::spawn(async move {
            loop {
                let done = match &lost {
                    Some(reason) => backend.lose(&handle, grace, reason).await,
                    None => backend.cancel(&handle, grace).await,
                };
                match done {
                    Ok(()) => return,
                    Err(error) => tracing::warn!("cannot end {}: {error}; trying again", handle.id),
                }
                tokio::time::sleep(TICK).await;
            }
        });
    }

    fn send(&self, id: AttemptId, mut end: End) {
        let files =
            self.files.get(&id).copied().unwrap_or(false).then(|| (Arc::clone(&self.depot), self.disk.run(id.run)));
        let (logs, wire, news, handle) =
            (self.logs.clone(), self.wire.clone(), self.news.clone(), self.disk.handle(&id));
        tokio::spawn(async move {
            // Of what was lost nobody knows how far it came: its files would be as good as none.
            if let (Some((depot, dir)), End::Ended { ended, .. }) = (files, &mut end)
                && let Err(problem) = send_files(&depot, &wire, &dir, &id).await
            {
                ended.output_problems.push(format!("its files did not come to the server: {problem}"));
            }
            let inline = matches!(end, End::Ended { .. });
            let tail = loop {
                match logs.finish(&wire, &handle, inline).await {
                    Ok(tail) => break tail,
                    Err(WireError::Unreachable(reason)) => {
                        tracing::debug!("the log of {id} cannot be copied now: {reason}");
                        tokio::time::sleep(TICK).await;
                    }
                    Err(refused @ WireError::Refused(..)) => {
                        tracing::debug!("the server does not want the log of {id}: {refused}");
                        break None;
                    }
                }
            };
            let end = match end {
                End::Ended { ended, .. } => End::Ended { ended, log: tail },
                End::Lost { reason } => End::Lost { reason },
            };
            let _ = news.send(News::Gone(id, end));
        });
    }

    /// Ends all that runs: nobody would take what comes of it, and somebody else may be doing the same.
    async fn give_up(
        &mut self,
        events: &mut mpsc::UnboundedReceiver<BackendEvent>,
        error: CourierError,
    ) -> CourierError {
        self.duty.end_all("its worker was shut out by the server");
        for what in self.duty.take() {
            if let Do::Lose(id, _, reason) = what {
                self.end(id, SignedDuration::ZERO, Some(reason));
            }
        }
        let deadline = clock::instant() + BURIAL;
        while self.duty.running() > 0 {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(event)) => self.event(event),
                Ok(None) | Err(_) => break,
            }
        }
        error
    }
}

/// Until the server has them, or does not want them.
async fn send_files(depot: &Depot, wire: &Wire, dir: &std::path::Path, id: &AttemptId) -> Result<(), DepotError> {
    loop {
        match depot.send(wire, dir, id).await {
            Ok(left_out) => {
                left_out.iter().take(10).for_each(|what| tracing::warn!("of {id} stays on this worker: {what}"));
                return Ok(());
            }
            Err(DepotError::Later(reason)) => {
                tracing::debug!("the files of {id} cannot be sent now: {reason}");
                tokio::time::sleep(TICK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn message(error: &WireError) -> String {
    match error {
        WireError::Unreachable(text) | WireError::Refused(_, text) => text.clone(),
    }
}

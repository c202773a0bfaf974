//! Does what [`Duty`] says, and tells it what came of it: one loop that owns the duty, and a task for whatever waits.
//!
//! ```text
//! answers, ends, files that came ──► inbox ──► Duty ──► what to do ──► tasks
//! ```
//!
//! [`exchange`] talks with the server, [`errands`] does what takes time.

mod errands;
mod exchange;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::SignedDuration;
use pitcrew_core::{AttemptId, RunKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::disk::{Disk, runs_in};
use super::duty::{Do, Duty};
use super::errands::Errands;
use super::files::{Depot, LARGEST};
use super::kernel::KernelTail;
use super::logs::Logs;
use super::protocol::{About, Answer, End, ErrandDone, LogTail};
use super::wire::{Wire, WireError};
use crate::backend::{Backend, BackendEvent, Handle, Observation};
use crate::gpu::{Probe, Reading, Smi};
use crate::local::{LocalBackend, LocalConfig, blocking};
use crate::{clock, thrift};
use exchange::Flight;

/// How often logs that grow are copied, and the lease is looked at; and between tries of what may succeed later.
const TICK: Duration = Duration::from_secs(1);
/// How often the runner is asked about all that it should have; its events are hints.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How often the machine is asked again what it has.
const PROBE_EVERY: Duration = Duration::from_secs(60);
/// How often a machine that has devices is asked whether all of them are there, and as they were. The server hears of it only if not.
pub const GLANCE: Duration = Duration::from_secs(10);
/// How often the disk is looked at for directories of runs about which the server is asked.
const KEEPS_EVERY: Duration = Duration::from_secs(600);
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
    /// See [`GLANCE`].
    pub glance: Duration,
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
    /// Somebody drains it on the server, or does not any more.
    Drained {
        on: bool,
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
    /// The server does not know its credential any more. Of what ran, `left` did not end in time.
    #[error("the server does not take this worker's credential any more: {why}")]
    Revoked { why: String, left: usize },
    /// Somebody else goes by the same credential. Of what ran, `left` did not end in time.
    #[error("another process works with this worker's credential: {why}")]
    Replaced { why: String, left: usize },
    #[error("{0}")]
    Io(String),
}

/// What of the devices does not change by itself while they are well.
#[derive(PartialEq)]
struct Shown {
    is_bare: bool,
    smi: std::mem::Discriminant<Smi>,
    /// Each with why it cannot be used, and the instances that it is cut into.
    gpus: Vec<(String, Option<String>, Vec<String>)>,
}

impl Shown {
    fn of(probe: &Probe) -> Shown {
        let gpu = |gpu: &Reading| {
            let mig = gpu.mig.iter().map(|instance| instance.uuid.clone()).collect();
            (gpu.uuid.clone(), gpu.fault.clone(), mig)
        };
        let smi = std::mem::discriminant(&probe.smi);
        Shown { is_bare: probe.smi == Smi::Absent, smi, gpus: probe.gpus.iter().map(gpu).collect() }
    }
}

enum News {
    Answered {
        seq: u64,
        sent: Duration,
        result: Result<Answer, WireError>,
    },
    Looked(Vec<(Handle, Observation)>),
    NotBegun(AttemptId, String),
    /// A device that it was given is not there.
    NoDevice(AttemptId, String),
    Brought(AttemptId, Result<(), String>),
    Gone(AttemptId, End),
    /// The server has the log of an attempt that is over, but for this.
    Logged(AttemptId, Option<LogTail>),
    Probed(Option<Probe>),
    /// The same, of which the server is to hear only if something has changed.
    Glanced(Option<Probe>),
    /// An errand is over.
    Done(ErrandDone),
    /// Runs that have directories here.
    Kept(BTreeSet<RunKey>),
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
    errands: Errands,
    kernel: KernelTail,
    /// There is something beside attempts that the server should hear.
    tidings: bool,
    news: mpsc::UnboundedSender<News>,
    incarnation: u64,
    seq: u64,
    /// Syncs that are not answered: what each carried.
    flights: BTreeMap<u64, Flight>,
    last_sent: Option<Instant>,
    /// When the server was last told what the machine does.
    load_told: Option<Instant>,
    /// Since when there is something that the server should hear.
    news_since: Option<Instant>,
    /// Not before this, since the last try failed.
    pause_until: Option<Instant>,
    failures: u32,
    connected: bool,
    /// What was said last of a server that does not answer as it should.
    trouble: Option<Said>,
    found: usize,
    about_told: bool,
    probe: Option<Probe>,
    /// Which of all that were told, or are to be, that is.
    probes: u64,
    /// The devices as it told of them.
    shown: Option<Shown>,
    probing: bool,
    lease_ms: Option<u64>,
    lease_over: bool,
    files: BTreeMap<AttemptId, bool>,
    /// Those of which nothing is needed any more.
    forgotten: Vec<Handle>,
    /// Whose files come or go; without what is here, they are not tried again.
    transfers: BTreeMap<AttemptId, oneshot::Sender<()>>,
    say: &'a mut (dyn FnMut(Said) + Send),
    fatal: Option<CourierError>,
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Works until `drain` resolves and all that runs is over, or until something makes it impossible.
pub async fn work(
    worker: Worker,
    drain: impl Future<Output = ()>,
    say: &mut (dyn FnMut(Said) + Send),
) -> Result<(), CourierError> {
    let Worker { disk, wire, about, local, prober, glance, drain_deadline } = worker;
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
    Depot::clear(&disk.runs()).await.map_err(io("cannot remove what is left of runs that are over"))?;
    duty.keeps(runs_in(&disk.runs()).map_err(io("cannot look which runs have a directory"))?);
    files.iter().filter(|(_, files)| **files).for_each(|(id, _)| depot.begun(id));
    let (done, mut over) = mpsc::unbounded_channel();
    let errands =
        Errands::open(&disk.errands(), &about.errands, done).map_err(io("cannot read what this worker did"))?;
    let kernel = KernelTail::default();
    // It ends with this process, or with the last of its clones that anybody polls.
    let following = AbortOnDrop(tokio::spawn(kernel.clone().follow()).abort_handle());
    let mut courier = Courier {
        depot,
        errands,
        kernel: kernel.clone(),
        tidings: true,
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
        load_told: None,
        news_since: None,
        pause_until: None,
        failures: 0,
        connected: false,
        trouble: None,
        found,
        about_told: false,
        probe: None,
        probes: 0,
        shown: None,
        probing: false,
        lease_ms: None,
        lease_over: false,
        files,
        forgotten: Vec::new(),
        transfers: BTreeMap::new(),
        say,
        fatal: None,
    };
    let mut drain = std::pin::pin!(drain);
    let mut asked_to_drain = false;
    let mut drain_at: Option<Instant> = None;
    let mut is_drained = false;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut probe = tokio::time::interval(PROBE_EVERY);
    let mut glance = tokio::time::interval(glance);
    glance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut keeps = tokio::time::interval(KEEPS_EVERY);
    keeps.reset();
    // What it has is known before it is given any work.
    let first = (courier.prober)().await;
    courier.probed(first);
    probe.reset();
    glance.reset();
    let mut is_resting = false;
    loop {
        courier.step();
        if let Some(error) = courier.fatal.take() {
            return Err(courier.give_up(&mut events, error).await);
        }
        if is_drained != courier.duty.is_drained() {
            is_drained = !is_drained;
            (courier.say)(Said::Drained { on: is_drained });
        }
        if courier.duty.is_ending() {
            if drain_at.is_none() {
                (courier.say)(Said::Draining { left: courier.duty.running() });
                drain_at = Some(clock::instant() + drain_deadline);
            }
            if courier.duty.is_empty() && courier.duty.news().is_none() {
                drop(following);
                return Ok(());
            }
        }
        // With work here it looks after logs every second.
        let rests = !is_resting && courier.duty.is_empty();
        let rest_at = rests.then(|| clock::instant() + thrift::REST);
        is_resting = false;
        tokio::select! {
            () = clock::until(rest_at) => {
                thrift::give_back();
                is_resting = true;
            }
            Some(event) = events.recv() => {
                courier.event(event);
                while let Ok(event) = events.try_recv() {
                    courier.event(event);
                }
            }
            Some(done) = over.recv() => courier.heard(News::Done(done)),
            () = kernel.news() => courier.tidings = true,
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
            () = clock::until(courier.wake_at(clock::instant())) => {}
            _ = tick.tick(), if courier.duty.running() > 0 => courier.tick(),
            _ = look.tick(), if courier.duty.running() > 0 => courier.look(),
            _ = probe.tick() => courier.ask_machine(News::Probed),
            _ = glance.tick(), if courier.has_devices() => courier.ask_machine(News::Glanced),
            _ = keeps.tick() => courier.look_at_runs(),
        }
    }
}

impl Courier<'_> {
    fn step(&mut self) {
        self.duty.settle(clock::since_boot());
        self.transfers.retain(|id, _| self.duty.wants_files(id));
        // What begins comes first: a slot waits for it, and nobody for the rest.
        let (begin, rest): (Vec<Do>, Vec<Do>) =
            self.duty.take().into_iter().partition(|what| matches!(what, Do::Begin(_)));
        begin.into_iter().chain(rest).for_each(|what| self.perform(what));
        self.clean();
        self.exchange();
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
            News::NoDevice(id, reason) => self.duty.ended(&id, End::Lost { reason }, None),
            News::Brought(id, result) => self.duty.brought(&id, result, clock::now()),
            News::Gone(id, end) => self.duty.gone(&id, end),
            News::Logged(id, tail) => self.duty.logged(&id, tail),
            News::Probed(probe) => {
                self.probing = false;
                self.probed(probe);
            }
            News::Glanced(probe) => {
                self.probing = false;
                if let Some(probe) = probe.filter(|probe| self.shown.as_ref() != Some(&Shown::of(probe))) {
                    self.probed(Some(probe));
                    self.tidings = true;
                }
            }
            News::Kept(runs) => self.duty.keeps(runs),
            News::Done(done) => {
                self.errands.ended(done);
                self.tidings = true;
            }
        }
    }

    fn event(&mut self, event: BackendEvent) {
        let now = Some(clock::since_boot());
        match event {
            BackendEvent::Started { id, at } => self.duty.started(&id, at),
            BackendEvent::Ended { id, ended } => self.duty.ended(&id, End::Ended { ended, log: None }, now),
            BackendEvent::Lost { id, reason } => self.duty.ended(&id, End::Lost { reason }, now),
            // The runner forgets nothing that it took, and this machine is where it all runs.
            BackendEvent::NeverBegan { .. } | BackendEvent::Placed { .. } | BackendEvent::Named { .. } => {}
        }
    }

    fn tick(&mut self) {
        if self.duty.is_lease_over(clock::since_boot()) && !std::mem::replace(&mut self.lease_over, true) {
            (self.say)(Said::LeaseOver);
        }
        if !self.connected {
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

    /// Which runs have directories here: one of a run that is over stays if nobody could say so, or remove it, at its end.
    fn look_at_runs(&self) {
        let (dir, news) = (self.disk.runs(), self.news.clone());
        tokio::spawn(async move {
            match blocking(move || runs_in(&dir)).await {
                Ok(runs) => drop(news.send(News::Kept(runs))),
                Err(error) => tracing::warn!("cannot look which runs have a directory: {error}"),
            }
        });
    }

    fn ask_machine(&mut self, told: fn(Option<Probe>) -> News) {
        if !std::mem::replace(&mut self.probing, true) {
            let (asked, news) = ((self.prober)(), self.news.clone());
            tokio::spawn(async move { drop(news.send(told(asked.await))) });
        }
    }

    /// What it has, which the next sync tells.
    fn probed(&mut self, probe: Option<Probe>) {
        if let Some(probe) = probe {
            self.shown = Some(Shown::of(&probe));
            self.probe = Some(probe);
            self.probes += 1;
        }
    }

    fn has_devices(&self) -> bool {
        self.shown.as_ref().is_some_and(|shown| !shown.is_bare)
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
        match error {
            CourierError::Revoked { why, .. } => CourierError::Revoked { why, left: self.duty.running() },
            CourierError::Replaced { why, .. } => CourierError::Replaced { why, left: self.duty.running() },
            CourierError::Io(why) => CourierError::Io(why),
        }
    }
}

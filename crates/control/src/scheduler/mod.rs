//! The shell around the pure engine: one task owns all runs of this process, feeds them events, writes what changed,
//! and then does what they ask for.
//!
//! Invariant: *persist, then act*. The effects of an event are performed only after the rows that it changed are
//! committed; while one batch is being committed the next one gathers, so a busy scheduler commits many events at
//! once. A crash at any point is repaired by claiming the run again: its rows say what should be live, and the
//! backend says what is.

mod active;
mod asks;
mod claim;
mod core_loop;
mod evict;
mod gang;
mod languages;
mod launch;
mod lead;
mod leases;
mod measure;
mod nodes;
mod notices;
mod outputs;
mod past;
mod perform;
mod place;
mod queue;
pub mod recovery;
mod rendered;
pub mod schedules;
mod secrets;
mod settings;

use std::sync::Arc;

use lead::Lead;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, StopHow};
use pitcrew_core::fleet::Policy;
use pitcrew_core::state::State;
use pitcrew_core::{RunKey, TaskId};
use pitcrew_exec::BackendEvent;
use pitcrew_exec::secrets::Secrets;
use pitcrew_exec::ssh::Defaults;
use pitcrew_store::{ClaimFilter, Owner, Store};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub use queue::{Queue, Waiting};
pub use rendered::Rendered;

use crate::backends::Backends;
use crate::catalog::Catalog;
use crate::fleet::{Fleet, Nodes};
use crate::metrics::{Figures, Metrics};
use crate::paths::DataDir;
use crate::traces::Tracer;
use crate::vault::Vault;

/// What the scheduler works with.
pub struct Parts {
    pub store: Store,
    pub owner: Arc<Owner>,
    pub data: DataDir,
    pub catalog: Arc<Catalog>,
    /// Looks up what `secret(…)` names, when an attempt starts.
    pub secrets: Secrets,
    /// Of AWS, for actions, where nothing else names one.
    pub aws_region: String,
    /// What names of images stand for on this machine.
    pub sandbox: Arc<crate::sandbox::SandboxSettings>,
    pub vault: Vault,
    pub backends: Backends,
    /// For hosts of which a workflow says less.
    pub ssh: Defaults,
    /// What the backends tell; its senders were given to them.
    pub events: mpsc::UnboundedReceiver<BackendEvent>,
    /// Live instances at most, over all runs.
    pub parallelism: u32,
    /// Which of the nodes with room a task goes to.
    pub policy: Policy,
    /// Where work can run.
    pub nodes: Nodes,
    /// What the devices there did.
    pub fleet: Fleet,
    /// Which runs are ours to take.
    pub claim: Claim,
    /// Who is told of what, beside the rules of the workflows.
    pub notify: Arc<crate::notify::config::Config>,
    /// Where the pages of this server are, for links in templates; empty without one.
    pub base_url: String,
    pub metrics: Metrics,
    /// Makes a trace of each run, where that is wanted.
    pub tracer: Option<Tracer>,
    /// Whose workers take tasks that name no queue and that a worker can run.
    pub default_queue: Option<String>,
    /// Who decides about failures on machines under suspicion.
    pub recoverer: Arc<dyn recovery::Recoverer>,
}

/// Which runs a scheduler takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Those of a server: every run without a living owner, while this process leads.
    Leading,
    /// One run, whatever `max_active_runs` and a pause say.
    Only(RunKey),
}

impl Claim {
    fn filter(self) -> ClaimFilter {
        match self {
            Claim::Leading => ClaimFilter::All,
            Claim::Only(key) => ClaimFilter::Only(key),
        }
    }
}

/// Something changed in a run; look at the store or ask for a snapshot to see what.
#[derive(Debug, Clone)]
pub struct Changed {
    pub run: RunKey,
    /// Changes of state, in order, as they were committed.
    pub steps: Arc<Vec<Step>>,
    /// The run reached a final state.
    pub finished: bool,
}

/// One change of state of one instance.
#[derive(Debug, Clone)]
pub struct Step {
    pub task: TaskId,
    pub map_index: i32,
    pub to: State,
}

/// A run as it is in memory: what is committed, or is about to be.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub run: RunRecord,
    pub instances: Vec<InstanceRecord>,
}

/// Why the scheduler did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("there is no run {0}")]
    NoSuchRun(RunKey),
    #[error("run {0} belongs to another process of Pitcrew, which is working on it; ask that one")]
    OwnedElsewhere(RunKey),
    #[error("run {run} has no task `{task}`{}", map_suffix(*map_index))]
    NoSuchTask { run: RunKey, task: String, map_index: i32 },
    #[error("the task `{task}` has {} output `{name}`", if *exists { "an" } else { "no" })]
    Output { task: String, name: String, exists: bool },
    #[error("another server leads, and this one cannot do that itself; ask again in a moment")]
    Standby,
    #[error("the scheduler is shutting down")]
    ShuttingDown,
    #[error("{0}")]
    Other(String),
}

fn map_suffix(map_index: i32) -> String {
    if map_index < 0 { String::new() } else { format!(" with map index {map_index}") }
}

/// Names an instance from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub task: String,
    /// `None`: all instances of the task.
    pub map_index: Option<i32>,
}

/// A change by hand that no rule follows from.
#[derive(Debug, Clone, PartialEq)]
pub enum Edit {
    Note(String),
    /// An output of an instance, by task and map index; the old value is as `expects`.
    Output {
        task: String,
        map_index: i32,
        name: String,
        value: Option<Value>,
        expects: Expects,
    },
}

/// Whether an output must be there before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    Absent,
    Present,
}

enum Ask {
    /// Runs may have been made or changed, or pools and variables.
    Look,
    Cancel {
        run: RunKey,
        by: String,
        how: StopHow,
        /// Only if it has not begun.
        queued_only: bool,
        reply: oneshot::Sender<Result<(), AskError>>,
    },
    Clear {
        run: RunKey,
        picks: Clear,
        by: String,
        /// The backfill that the run belongs to from now on.
        backfill: Option<i64>,
        reply: oneshot::Sender<Result<Vec<(TaskId, i32)>, AskError>>,
    },
    Mark {
        run: RunKey,
        pick: Pick,
        success: bool,
        by: String,
        reply: oneshot::Sender<Result<(), AskError>>,
    },
    Edit {
        run: RunKey,
        edit: Edit,
        by: String,
        reply: oneshot::Sender<Result<(), AskError>>,
    },
    Explain {
        run: RunKey,
        pick: Pick,
        reply: oneshot::Sender<Result<Vec<String>, AskError>>,
    },
    Rendered {
        run: RunKey,
        pick: Pick,
        reply: oneshot::Sender<Result<Vec<Rendered>, AskError>>,
    },
    Snapshot {
        run: RunKey,
        reply: oneshot::Sender<Option<Snapshot>>,
    },
    /// Of recovery.
    Job {
        job: String,
        order: recovery::Order,
        reply: oneshot::Sender<Result<recovery::JobAnswer, AskError>>,
    },
    /// Of recovery: when fences hold, and what was placed before them is written.
    Settled {
        reply: oneshot::Sender<()>,
    },
    /// Of recovery: a node is to be free.
    MakeRoom {
        node: String,
        reason: String,
        reply: oneshot::Sender<()>,
    },
    Figures {
        reply: oneshot::Sender<Figures>,
    },
    Queue {
        limit: usize,
        reply: oneshot::Sender<Queue>,
    },
    /// A look at the backend, or a start of an attempt, came back.
    Observed(launch::Observed),
    Shutdown {
        reply: oneshot::Sender<()>,
    },
}

/// What to clear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clear {
    /// These, and everything after them if `downstream`.
    Picks {
        picks: Vec<Pick>,
        downstream: bool,
    },
    /// What failed or was held up by a failure, and everything after it.
    Failed,
    All,
}

/// Talks to the scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    asks: mpsc::UnboundedSender<Ask>,
    changes: broadcast::Sender<Changed>,
    lead: Lead,
}

impl Scheduler {
    /// Starts the scheduler as a task; it runs until [`Scheduler::shutdown`] or the end of the process.
    pub fn start(parts: Parts) -> Scheduler {
        let (asks, inbox) = mpsc::unbounded_channel();
        let (changes, _) = broadcast::channel(4096);
        let (standing, lead) = lead::standing(&parts.owner, parts.claim != Claim::Leading);
        let scheduler = Scheduler { asks, changes, lead };
        let weak = scheduler.asks.downgrade();
        // Looked up while the file is surely there.
        let _ = crate::actions::program();
        tokio::spawn(core_loop::run(parts, inbox, weak, scheduler.changes.clone(), standing));
        scheduler.look();
        scheduler
    }

    /// Takes notice of new runs, pools and variables. Without effect when there are none.
    pub fn look(&self) {
        let _ = self.asks.send(Ask::Look);
    }

    /// Whether this process works on runs: of several servers, one does.
    pub fn leads(&self) -> bool {
        self.lead.leads()
    }

    /// The same at this very moment: whoever answers by it promises that nobody else leads.
    pub fn holds_lead(&self) -> bool {
        self.lead.is_held()
    }

    /// Tells whenever that changes.
    pub fn standing(&self) -> watch::Receiver<bool> {
        self.lead.watched()
    }

    /// Changes as they are committed. A receiver that falls behind loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    async fn ask<T>(&self, make: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<T, AskError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(make(reply)).map_err(|_| AskError::ShuttingDown)?;
        answer.await.map_err(|_| AskError::ShuttingDown)
    }

    /// Stops a run: what runs is ended, what waits is skipped, teardowns and `finally` tasks run. A second time ends
    /// those too. Returns when that is written.
    pub async fn cancel(&self, run: RunKey, by: &str) -> Result<(), AskError> {
        self.stop(run, StopHow::ThenFinally, by).await
    }

    /// Stops a run so far; one that is being stopped further already stays so. Returns when that is written.
    pub async fn stop(&self, run: RunKey, how: StopHow, by: &str) -> Result<(), AskError> {
        let by = by.to_owned();
        self.ask(|reply| Ask::Cancel { run, by, how, queued_only: false, reply }).await?
    }

    /// Ends a run that has not begun; one that has goes on.
    pub async fn cancel_queued(&self, run: RunKey, by: &str) -> Result<(), AskError> {
        let by = by.to_owned();
        let how = StopHow::ThenFinally;
        self.ask(|reply| Ask::Cancel { run, by, how, queued_only: true, reply }).await?
    }

    /// Lets instances run again; also of a finished run. Returns those that were chosen.
    pub async fn clear(&self, run: RunKey, picks: Clear, by: &str) -> Result<Vec<(TaskId, i32)>, AskError> {
        let by = by.to_owned();
        self.ask(|reply| Ask::Clear { run, picks, by, backfill: None, reply }).await?
    }

    /// Lets a whole run run again as one of a backfill.
    pub async fn run_again(&self, run: RunKey, backfill: i64, by: &str) -> Result<(), AskError> {
        let (by, backfill) = (by.to_owned(), Some(backfill));
        self.ask(|reply| Ask::Clear { run, picks: Clear::All, by, backfill, reply }).await?.map(drop)
    }

    /// Says by hand how an instance ended.
    pub async fn mark(&self, run: RunKey, pick: Pick, success: bool, by: &str) -> Result<(), AskError> {
        let by = by.to_owned();
        self.ask(|reply| Ask::Mark { run, pick, success, by, reply }).await?
    }

    /// Changes a note or an output by hand; also of a finished run.
    pub async fn edit(&self, run: RunKey, edit: Edit, by: &str) -> Result<(), AskError> {
        let by = by.to_owned();
        self.ask(|reply| Ask::Edit { run, edit, by, reply }).await?
    }

    /// Why an instance is not running, as sentences about it.
    pub async fn explain(&self, run: RunKey, pick: Pick) -> Result<Vec<String>, AskError> {
        self.ask(|reply| Ask::Explain { run, pick, reply }).await?
    }

    /// What the templates of an instance come to, secrets left out; also of a finished run.
    pub async fn rendered(&self, run: RunKey, pick: Pick) -> Result<Vec<Rendered>, AskError> {
        self.ask(|reply| Ask::Rendered { run, pick, reply }).await?
    }

    /// The run as it is in memory, or `None` if this scheduler does not have it.
    pub async fn snapshot(&self, run: RunKey) -> Option<Snapshot> {
        self.ask(|reply| Ask::Snapshot { run, reply }).await.ok().flatten()
    }

    async fn order(&self, job: &str, order: recovery::Order) -> Result<recovery::JobAnswer, AskError> {
        let job = job.to_owned();
        self.ask(|reply| Ask::Job { job, order, reply }).await?
    }

    /// What the scheduler holds now; `None` when it is shutting down.
    pub async fn figures(&self) -> Option<Figures> {
        self.ask(|reply| Ask::Figures { reply }).await.ok()
    }

    /// What waits for its turn and what is in use, the best `limit` of the waiting; empty while it shuts down.
    pub async fn queue(&self, limit: usize) -> Queue {
        self.ask(|reply| Ask::Queue { limit, reply }).await.unwrap_or_default()
    }

    /// Writes what is pending and ends; attempts go on without it.
    pub async fn shutdown(&self) {
        let _ = self.ask(|reply| Ask::Shutdown { reply }).await;
    }
}

//! The contract between the engine and whatever executes attempts.
//!
//! A backend executes and observes; it decides nothing. Exit, loss and unreachability are three different facts, and
//! no backend turns one into another: an attempt that cannot be observed is [`Observation::Unreachable`], never failed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::AttemptId;
use pitcrew_core::pod::{ContainerState, PodEnded};
use pitcrew_core::state::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::attempt_dir;
use crate::capabilities::Capabilities;
use crate::log::{LogChunk, Masker};
use crate::place::Place;
use crate::spec::AttemptSpec;

/// Executes attempts somewhere.
///
/// **Order of calls.** `prepare`, store the handle, `start`; then any of the others, any number of times, from any
/// task, also after a restart of the caller with nothing but the stored handle. All calls may run at the same time,
/// for the same attempt too.
///
/// **Identity.** An [`AttemptId`] stands for at most one execution for ever. Whoever wants another execution makes
/// another attempt, with a higher number.
///
/// **Ends are told twice.** Each backend gets, when it is made, a channel for [`BackendEvent`]s. An event is a hint:
/// it may come late, twice or not at all. `poll` and `attach` are the truth, and a caller asks them now and then.
///
/// **Attempts outlive the caller.** Dropping the backend, or killing the process that holds it, ends no attempt.
#[async_trait]
pub trait Backend: Send + Sync {
    /// The word for it in the store: `local`, `fake`, …
    fn name(&self) -> &'static str;

    /// What finds the attempt again. Does no IO, and gives the same handle for the same spec: the caller stores it
    /// before it calls `start`, so that an attempt that began can always be found.
    fn prepare(&self, spec: &AttemptSpec) -> Handle;

    /// Starts the attempt, once: a second call for the same id does nothing and is a success, also when the attempt
    /// ended long ago, was cancelled before it began, or was started by an earlier process.
    ///
    /// Returns as soon as the attempt is accepted. An attempt that cannot run (no interpreter, no directory, …)
    /// *ends* with [`Exit::StartFailed`]; an error here means that nobody took it, and `start` may be called again.
    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError>;

    /// What is true of the attempt, and from now on its events: for the time after a restart.
    async fn attach(&self, handle: &Handle) -> Observation;

    /// What is true of many attempts: one answer per handle, in the same order.
    async fn poll(&self, handles: &[Handle]) -> Vec<Observation>;

    /// Records of the log from byte `offset`, about `max_bytes` of them, never half a record. Go on at
    /// [`LogChunk::next_offset`]. An offset inside a record continues with the next one; an attempt without a log
    /// has an empty one.
    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError>;

    /// How many bytes of log there are; 0 of an attempt without one.
    async fn log_size(&self, handle: &Handle) -> Result<u64, BackendError> {
        Ok(tokio::fs::metadata(attempt_dir::log(&handle.dir)).await.map_or(0, |meta| meta.len()))
    }

    /// Asks every process of the attempt to end, and after `grace` ends those that did not. Returns when that is
    /// under way; the end comes as an event, with [`Exit::Cancelled`].
    ///
    /// Without effect on an attempt that ended or was lost. An attempt that never began ends at once and can no more
    /// be started. A second call can only shorten the grace.
    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError>;

    /// Removes scripts and output files of an attempt that is over; keeps its log and how it ended.
    ///
    /// Without effect on an attempt that runs, never began, or was cleaned up before.
    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError>;

    /// The end of the run of these attempts is about to be written: notes what [`Backend::leave`] is to remove, so that
    /// it goes even if this process is killed before it could say so.
    async fn leaving(&self, handles: &[Handle]) -> Result<(), BackendError> {
        let _ = handles;
        Ok(())
    }

    /// The run of these attempts is over: what they shared on another machine may go, now or when it can be reached.
    async fn leave(&self, handles: &[Handle]) -> Result<(), BackendError> {
        let _ = handles;
        Ok(())
    }

    /// From now on this process alone works on runs: what it knew of attempts may be old.
    fn lead(&self) {}

    /// Another process may work on runs from now on.
    fn stand_down(&self) {}

    /// What it can do here: limits, devices. For `doctor` and for the inventory; may take seconds.
    async fn capabilities(&self) -> Capabilities;
}

/// Finds an attempt again. Small, without secrets, and the same for the same spec.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handle {
    pub id: AttemptId,
    /// On this machine: where its log and its end are kept, wherever it runs.
    pub dir: PathBuf,
    /// Where it runs, if not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The id of the data directory that `dir` lies in, where several servers have one each. `None`: that of whoever
    /// asks, as it was before directories had ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

impl Handle {
    /// The handle of an attempt with this spec.
    pub fn of(spec: &AttemptSpec) -> Self {
        Handle { id: spec.id.clone(), dir: spec.dir.clone(), place: spec.place.clone(), home: None }
    }
}

/// What is true of an attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// `start` was never accepted: nothing of it ran.
    NeverBegan,
    /// Accepted; its first step has not begun.
    Waiting,
    /// Accepted and not over.
    Running {
        started_at: Timestamp,
    },
    Ended(Ended),
    /// It began, and what kept it is gone; nobody knows how far it came. None of its processes is left.
    Lost {
        reason: String,
    },
    /// It cannot be observed now. This says nothing about the attempt.
    Unreachable {
        reason: String,
    },
}

/// Something happened to an attempt; see [`Backend`] for how far to trust it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendEvent {
    /// Its first step runs.
    Started {
        id: AttemptId,
        at: Timestamp,
    },
    /// Its backend chose a machine for it, and these of its devices. Told before it starts, or as soon as that is known.
    Placed {
        id: AttemptId,
        /// As the nodes of the server are called.
        node: String,
        /// UUIDs.
        gpus: Vec<String>,
    },
    /// What it is called where it runs, by kinds of names.
    Named {
        id: AttemptId,
        names: serde_json::Map<String, serde_json::Value>,
    },
    Ended {
        id: AttemptId,
        ended: Ended,
    },
    Lost {
        id: AttemptId,
        reason: String,
    },
    /// Nothing of it ran, and whoever accepted it knows nothing of it any more: it has to be started once more.
    NeverBegan {
        id: AttemptId,
    },
}

impl BackendEvent {
    pub fn id(&self) -> &AttemptId {
        match self {
            BackendEvent::Started { id, .. }
            | BackendEvent::Placed { id, .. }
            | BackendEvent::Named { id, .. }
            | BackendEvent::Ended { id, .. }
            | BackendEvent::Lost { id, .. }
            | BackendEvent::NeverBegan { id } => id,
        }
    }
}

/// Where a backend tells its events. Unbounded: a backend never waits for the engine.
pub type EventSender = tokio::sync::mpsc::UnboundedSender<BackendEvent>;

/// How an attempt ended, and what it left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub exit: Exit,
    /// When its first step began; `None` if none did.
    pub started_at: Option<Timestamp>,
    pub at: Timestamp,
    /// Name of the step that `exit` is about, unless that is a success.
    pub failed_step: Option<String>,
    /// One entry per step that began, in order.
    pub steps: Vec<StepEnded>,
    /// Texts as strings; what came as JSON with its type. Not yet parsed as the workflow declares.
    pub outputs: BTreeMap<String, Value>,
    /// What was wrong with outputs that are therefore missing; for people.
    pub output_problems: Vec<String>,
    /// Of the last step with `capture_stdout`.
    pub stdout: Option<String>,
    /// The files of [`AttemptSpec::fetch`] that are there and not too large, by their path.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// How the containers of its pod ended, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodEnded>>,
    /// The last lines that it wrote, when it failed: at most 10 lines and 4 KiB.
    pub tail: String,
    pub usage: Usage,
}

impl Ended {
    /// An end without anything to tell: no step, no output.
    pub fn bare(exit: Exit, at: Timestamp) -> Self {
        Ended {
            exit,
            started_at: None,
            at,
            failed_step: None,
            steps: Vec::new(),
            outputs: BTreeMap::new(),
            output_problems: Vec::new(),
            stdout: None,
            files: BTreeMap::new(),
            pod: None,
            tail: String::new(),
            usage: Usage::default(),
        }
    }

    /// What is kept of an attempt beside its log shows no secret either.
    pub fn mask(&mut self, masker: &Masker) {
        self.outputs = std::mem::take(&mut self.outputs)
            .into_iter()
            .map(|(name, mut value)| {
                masker.value(&mut value);
                (masker.text(&name), value)
            })
            .collect();
        let texts = self.output_problems.iter_mut().chain(&mut self.stdout).chain(self.files.values_mut());
        texts.for_each(|text| *text = masker.text(text));
        self.pod.iter_mut().for_each(|pod| mask_pod(pod, masker));
    }

    /// The last line of its log; none after a success.
    pub fn notice(&self) -> Option<String> {
        match (&self.exit, self.failed_step.as_deref()) {
            (Exit::Code { code: 0 }, _) => None,
            (Exit::Code { code }, Some(step)) => Some(format!("step `{step}` ended with exit code {code}")),
            (Exit::Signal { .. }, Some(step)) => Some(format!("step `{step}` was {}", self.exit)),
            (Exit::OutOfMemory, Some(step)) => Some(format!("step `{step}` ran out of memory")),
            (exit, _) => Some(exit.to_string()),
        }
    }
}

fn mask_pod(pod: &mut PodEnded, masker: &Masker) {
    masker.value(&mut pod.artifacts);
    pod.results.iter_mut().for_each(|(_, value)| masker.value(value));
    for container in &mut pod.containers {
        masker.value(&mut container.artifacts);
        container.results.iter_mut().for_each(|(_, value)| masker.value(value));
        match &mut container.state {
            ContainerState::Waiting { message, .. } | ContainerState::Terminated { message, .. } => {
                *message = masker.text(message);
            }
            ContainerState::Running { .. } => {}
        }
    }
}

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepEnded {
    pub name: String,
    pub exit: Exit,
    pub started_at: Timestamp,
    pub at: Timestamp,
}

/// What an attempt used, all steps together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub wall_seconds: f64,
    pub user_cpu_seconds: f64,
    pub system_cpu_seconds: f64,
    /// The highest memory use: of all processes together under a limit, else of the largest process.
    pub peak_memory_bytes: Option<u64>,
    /// How long it took to reach the host that it ran on; next to nothing over a connection that was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_seconds: Option<f64>,
    /// One entry per device of the attempt that could be sampled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gpus: Vec<GpuUsage>,
}

/// The sampled use of one device while an attempt held it, or a part of it. What the device does not tell is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuUsage {
    pub uuid: String,
    pub samples: u32,
    /// How much of it the attempt held; `None`: all. Use and memory are those of the whole device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_utilization_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_utilization_percent: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_memory_bytes: Option<u64>,
    /// Watt hours of that part, out of the samples of its power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy_wh: Option<f64>,
}

/// Why a backend did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Nobody answered; it is not known whether the call had an effect. Every call may be repeated.
    #[error("the `{backend}` backend cannot be reached: {reason}")]
    Unreachable { backend: &'static str, reason: String },
    /// `what` is a whole clause: "cannot read `/x/log`".
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
}

//! Questions over many runs at once, and their answers.

use jiff::Timestamp;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::RunState;

use super::RunCounts;

/// A span of time, both ends included; an end that is open is `None`. Times that are not there lie in no span
/// but the one that is open at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Between {
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

impl Between {
    pub fn is_open(&self) -> bool {
        self.from.is_none() && self.to.is_none()
    }

    pub fn holds(&self, at: Option<Timestamp>) -> bool {
        match at {
            Some(at) => self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to),
            None => self.is_open(),
        }
    }
}

/// A run without what may be large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBrief {
    pub key: RunKey,
    pub workflow: WorkflowId,
    pub run_id: RunId,
    pub run_type: RunType,
    pub version: String,
    pub logical_date: Option<Timestamp>,
    pub run_after: Timestamp,
    pub queued_at: Timestamp,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub state: RunState,
    pub backfill: Option<i64>,
}

impl From<&RunRecord> for RunBrief {
    fn from(run: &RunRecord) -> Self {
        RunBrief {
            key: run.key,
            workflow: run.workflow.clone(),
            run_id: run.run_id.clone(),
            run_type: run.run_type,
            version: run.version.clone(),
            logical_date: run.logical_date,
            run_after: run.run_after,
            queued_at: run.queued_at,
            start: run.start,
            end: run.end,
            state: run.state,
            backfill: run.backfill,
        }
    }
}

/// Which stored instances, of whatever runs, in which order. Empty lists allow all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceQuery {
    pub workflow: Option<WorkflowId>,
    /// Only of these workflows: what a token is limited to.
    pub among: Vec<WorkflowId>,
    pub run: Option<RunKey>,
    pub task: Option<TaskId>,
    pub map_index: Option<i32>,
    /// Words of `State::name`.
    pub states: Vec<&'static str>,
    pub queued: Between,
    pub start: Between,
    pub end: Between,
    pub order: InstanceOrder,
}

/// The order of a list of instances. Those without the time in question come last; equal ones by run, task and
/// map index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InstanceOrder {
    /// By run, the newest first; in a run by task and map index.
    #[default]
    Newest,
    Oldest,
    Start,
    StartDescending,
    End,
    EndDescending,
}

/// An instance with its run.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceOfRun {
    pub run: RunBrief,
    pub instance: InstanceRecord,
}

/// The newest runs of a workflow, and how many instances of each task are in which state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grid {
    /// Every task that has a stored instance in these runs, by id in order.
    pub tasks: Vec<TaskId>,
    /// The newest first.
    pub runs: Vec<GridRun>,
}

/// One column of a [`Grid`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GridRun {
    pub run: RunBrief,
    /// By task, then state.
    pub cells: Vec<GridCell>,
}

/// Instances of one task of one run in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GridCell {
    /// The place in [`Grid::tasks`].
    pub task: u32,
    /// A word of `State::name`.
    pub state: &'static str,
    pub count: u32,
}

/// Which finished runs and attempts the figures are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiguresOf {
    pub workflow: Option<WorkflowId>,
    /// What ended from here…
    pub since: Timestamp,
    /// …until before here.
    pub until: Timestamp,
}

/// How well the service does. Times are seconds; a figure that nothing is known for is `None`. Counts are
/// exact; the other figures are of the newest [`FIGURES_OF`] runs, and as many attempts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Runs that ended, by their state.
    pub runs: RunCounts,
    /// From the start to the end of successful runs.
    pub duration: Spread,
    /// From `queued_at` to the start of runs.
    pub queue: Spread,
    /// From the end of a failed run to the end of the next successful one of its workflow.
    pub recovery: Spread,
    /// Mean use of the devices that attempts held, in percent, weighted by device time.
    pub gpu_utilization: Option<f64>,
    /// Time that attempts held devices, summed over devices, where the use was measured.
    pub gpu_seconds: f64,
}

/// Runs, and attempts, that figures are computed from at most.
pub const FIGURES_OF: u32 = 10_000;

/// How a set of times is spread, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Spread {
    pub count: u64,
    pub mean: Option<f64>,
    pub p50: Option<f64>,
    pub p95: Option<f64>,
}

impl Spread {
    /// Of times in microseconds, in any order.
    pub(crate) fn of(mut micros: Vec<i64>) -> Spread {
        micros.sort_unstable();
        let seconds = |micros: i64| micros as f64 / 1e6;
        // The nearest rank: a value that occurred.
        let rank = |percent: usize| {
            micros.get((micros.len() * percent).div_ceil(100).saturating_sub(1)).map(|value| seconds(*value))
        };
        let sum: i128 = micros.iter().copied().map(i128::from).sum();
        Spread {
            count: micros.len() as u64,
            mean: (!micros.is_empty()).then(|| sum as f64 / micros.len() as f64 / 1e6),
            p50: rank(50),
            p95: rank(95),
        }
    }
}

//! Reading a run with its instances, wherever they are: in the scheduler while it is active, in the store after.
//!
//! An instance that was never tried has no row while its run is active, so rows are completed from the workflow; a
//! finished run has a row for each. A run of a hundred thousand rows is read by the page and never as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pitcrew_control::app::App;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{TaskIx, Workflow};
use pitcrew_core::state::State;
use pitcrew_core::{RunId, TaskId, WorkflowId};
use pitcrew_store::{InstanceFilter, Page, Paging, StateCounts};

use super::error::{ApiError, ApiResult};

/// Rows of a finished run that are read into memory at once; beyond, the store pages.
const SMALL: u64 = 5_000;

/// A run and what is known of it.
pub struct RunView {
    pub run: RunRecord,
    /// `None` if its source is no longer accepted: the rows can be shown all the same.
    pub workflow: Option<Arc<Workflow>>,
    pub instances: Instances,
}

/// The instances of a run.
pub enum Instances {
    /// All of them, in the order of the workflow, then by map index.
    Loaded(Vec<InstanceRecord>),
    /// In the store, by task name and map index; all have rows.
    Stored,
}

/// The run of that name, or 404 in Airflow's words.
pub async fn find_run(app: &App, workflow: &WorkflowId, run: &RunId) -> ApiResult<RunRecord> {
    app.store.run_by_id(workflow, run).await?.ok_or_else(|| {
        ApiError::not_found(format!("The DagRun with dag_id: `{workflow}` and run_id: `{run}` was not found"))
    })
}

impl RunView {
    /// Reads the run as it is now.
    pub async fn load(app: &App, run: RunRecord) -> ApiResult<RunView> {
        let workflow = workflow_of(app, &run).await;
        if !run.state.is_final()
            && let Some(snapshot) = app.scheduler.snapshot(run.key).await
        {
            let rows = complete(snapshot.instances, workflow.as_deref());
            return Ok(RunView { run: snapshot.run, workflow, instances: Instances::Loaded(rows) });
        }
        let all = InstanceFilter::default();
        if run.state.is_final() && app.store.instances(run.key, &all, Paging::first(1)).await?.total > SMALL {
            return Ok(RunView { run, workflow, instances: Instances::Stored });
        }
        let stored = app.store.instances(run.key, &all, Paging::ALL).await?;
        let instances = Instances::Loaded(complete(stored.rows, workflow.as_deref()));
        Ok(RunView { run, workflow, instances })
    }

    /// One instance; a mapped task without a map index is its first.
    pub async fn instance(&self, app: &App, task: &TaskId, map_index: i32) -> ApiResult<Option<InstanceRecord>> {
        match &self.instances {
            Instances::Loaded(rows) => {
                Ok(rows.iter().find(|row| row.task == *task && row.map_index == map_index).cloned())
            }
            Instances::Stored => Ok(app.store.instance(self.run.key, task, map_index).await?),
        }
    }

    /// Instances that `filter` lets pass, with the length of the whole list.
    pub async fn page(&self, app: &App, filter: &Filter, paging: Paging) -> ApiResult<Page<InstanceRecord>> {
        match &self.instances {
            Instances::Loaded(rows) => {
                let all: Vec<&InstanceRecord> = rows.iter().filter(|row| filter.allows(row)).collect();
                let total = all.len() as u64;
                let rows = all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).cloned().collect();
                Ok(Page { rows, total })
            }
            Instances::Stored => {
                let filter = InstanceFilter { states: filter.states.clone(), task: filter.task.clone() };
                Ok(app.store.instances(self.run.key, &filter, paging).await?)
            }
        }
    }

    /// How many instances are in which state.
    pub async fn counts(&self, app: &App) -> ApiResult<BTreeMap<&'static str, u64>> {
        match &self.instances {
            Instances::Loaded(rows) => Ok(count(rows.iter())),
            Instances::Stored => {
                Ok(app.store.state_counts(&[self.run.key]).await?.remove(&self.run.key).unwrap_or_default())
            }
        }
    }

    /// Summaries of these tasks, one each, in the same order.
    pub async fn tasks(&self, app: &App, tasks: &[TaskId]) -> ApiResult<Vec<TaskSummary>> {
        let mut summaries = Vec::with_capacity(tasks.len());
        match &self.instances {
            Instances::Loaded(rows) => {
                let wanted: BTreeMap<&TaskId, usize> = tasks.iter().enumerate().map(|(at, id)| (id, at)).collect();
                let mut found: Vec<Vec<&InstanceRecord>> = vec![Vec::new(); tasks.len()];
                for row in rows {
                    if let Some(at) = wanted.get(&row.task) {
                        found[*at].push(row);
                    }
                }
                for (task, rows) in tasks.iter().zip(found) {
                    summaries.push(TaskSummary::of(task.clone(), rows.into_iter().cloned().collect(), None));
                }
            }
            Instances::Stored => {
                for task in tasks {
                    summaries.push(self.stored_summary(app, task).await?);
                }
            }
        }
        Ok(summaries)
    }

    async fn stored_summary(&self, app: &App, task: &TaskId) -> ApiResult<TaskSummary> {
        let of = |states: Vec<&'static str>| InstanceFilter { states, task: Some(task.clone()) };
        let first = app.store.instances(self.run.key, &of(Vec::new()), Paging::first(100)).await?;
        if first.total <= first.rows.len() as u64 {
            return Ok(TaskSummary::of(task.clone(), first.rows, None));
        }
        let mut counts = BTreeMap::new();
        for state in STATES {
            let of_state = app.store.instances(self.run.key, &of(vec![state]), Paging::first(1)).await?;
            if of_state.total > 0 {
                counts.insert(state, of_state.total);
            }
        }
        Ok(TaskSummary::of(task.clone(), first.rows, Some(counts)))
    }

    /// The names of the tasks, in the order of the workflow; those that left it come last.
    pub fn task_ids(&self) -> Vec<TaskId> {
        let mut ids: Vec<TaskId> = self.workflow.iter().flat_map(|w| w.tasks.iter().map(|t| t.id.clone())).collect();
        if let Instances::Loaded(rows) = &self.instances {
            let known: BTreeSet<&TaskId> = ids.iter().collect();
            let others: BTreeSet<TaskId> =
                rows.iter().filter(|row| !known.contains(&row.task)).map(|row| row.task.clone()).collect();
            ids.extend(others);
        }
        ids
    }
}

/// Every attempt of an instance, from the first. The newest is asked of the scheduler too, which knows it first.
pub async fn attempts(app: &App, run: &RunRecord, task: &TaskId, map_index: i32) -> ApiResult<Vec<AttemptRecord>> {
    Ok(app.store.attempts(run.key, task, map_index).await?)
}

/// The workflow in the version that the run began with, if that is still understood.
pub async fn workflow_of(app: &App, run: &RunRecord) -> Option<Arc<Workflow>> {
    match app.catalog.load_for(&app.store, run).await {
        Ok(workflow) => Some(workflow),
        Err(error) => {
            tracing::warn!(run = run.key.0, "the workflow of run {} cannot be shown: {error:#}", run.run_id);
            None
        }
    }
}

/// Which instances.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Words of `State::name`; none: all.
    pub states: Vec<&'static str>,
    pub task: Option<TaskId>,
}

impl Filter {
    fn allows(&self, row: &InstanceRecord) -> bool {
        let state = self.states.is_empty() || self.states.contains(&row.state.name());
        state && self.task.as_ref().is_none_or(|task| row.task == *task)
    }
}

/// A task of a run, its instances taken together.
pub struct TaskSummary {
    pub task: TaskId,
    /// The instance, or the first hundred of a mapped task's.
    pub rows: Vec<InstanceRecord>,
    pub counts: BTreeMap<&'static str, u64>,
    /// Of the instance, or the one that stands out most.
    pub state: State,
}

/// Instances of one task that are listed under it.
pub const LISTED: usize = 100;

impl TaskSummary {
    fn of(task: TaskId, mut rows: Vec<InstanceRecord>, counts: Option<BTreeMap<&'static str, u64>>) -> Self {
        let counts = counts.unwrap_or_else(|| count(rows.iter()));
        let rank = |name: &str| STATES.iter().position(|state| *state == name).unwrap_or(STATES.len());
        let worst = counts.keys().min_by_key(|name| rank(name)).copied().unwrap_or("none");
        let state = rows.iter().map(|row| row.state).find(|state| state.name() == worst);
        // A state with a time that is not among the listed rows is shown without it.
        let state = state.or_else(|| State::from_name(worst, None)).unwrap_or_default();
        let total = rows.len();
        rows.truncate(LISTED.max(usize::from(total == 1)));
        TaskSummary { task, rows, counts, state }
    }

    /// Is it, or will it be, more than one instance?
    pub fn is_mapped(&self) -> bool {
        self.rows.first().is_some_and(|row| row.map_index != UNMAPPED)
    }

    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

/// Words of `State::name`, what stands out most first: the one state of many is the first of them.
pub const STATES: [&str; 13] = State::PROMINENCE;

/// Counts of states, what stands out most first.
pub fn by_rank(counts: &StateCounts) -> Vec<(&'static str, u64)> {
    STATES.into_iter().filter_map(|state| counts.get(state).map(|count| (state, *count))).collect()
}

/// The word of `State::name` that a text is.
pub fn state_name(text: &str) -> Option<&'static str> {
    STATES.into_iter().find(|state| *state == text)
}

fn count<'r>(rows: impl Iterator<Item = &'r InstanceRecord>) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(row.state.name()).or_default() += 1;
    }
    counts
}

/// Adds what has no row, and sorts as the workflow does.
fn complete(mut rows: Vec<InstanceRecord>, workflow: Option<&Workflow>) -> Vec<InstanceRecord> {
    let Some(workflow) = workflow else { return rows };
    let known: BTreeSet<TaskId> = rows.iter().map(|row| row.task.clone()).collect();
    let missing = workflow.tasks.iter().filter(|task| !known.contains(&task.id));
    rows.extend(missing.map(|task| untried(task.id.clone(), task.retry.retries)));
    let place = |id: &TaskId| workflow.by_name.get(id).copied().unwrap_or(TaskIx(u32::MAX));
    rows.sort_by_cached_key(|row| (place(&row.task), row.map_index));
    rows
}

fn untried(task: TaskId, retries: u32) -> InstanceRecord {
    InstanceRecord {
        task,
        map_index: UNMAPPED,
        state: State::None,
        attempt: 0,
        max_attempt: retries.saturating_add(1),
        lost: 0,
        queued_at: None,
        start: None,
        end: None,
        exit: None,
        message: String::new(),
        outputs: BTreeMap::new(),
        item: None,
        followed: None,
        stop: None,
        skip: None,
    }
}

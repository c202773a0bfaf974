//! Backfills: what the surfaces ask of them. The work is done by [`serve`], on the server that leads.
//!
//! Invariant: a backfill is a row that says what is wanted; which of its runs are there, and what is left to do, is
//! read from the runs. So making them can stop anywhere, and go on anywhere, without losing or doubling one.

pub mod serve;

use std::collections::HashMap;

use jiff::Timestamp;
use pitcrew_core::WorkflowId;
use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::ir::Workflow;
use pitcrew_core::state::RunState;
use pitcrew_core::timetable::Occurrence;
use pitcrew_lang::ParamError;
use pitcrew_store::{
    AuditEntry, Backfill, BackfillChange, Between, CreateRun, NewBackfill, Paging, Reprocess, RunFilter, Store,
    StoreError, WorkflowRow,
};
use serde_json::json;

use crate::catalog::Catalog;
use crate::scheduler::schedules;

/// More runs than this are asked for by mistake.
pub const MOST: usize = 10_000;
/// The limit of a backfill that names none; Airflow's.
pub const MAX_ACTIVE_RUNS: u32 = 10;

/// Why there is no backfill, or it was not changed. All but the last two are the caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    #[error("there is no workflow `{0}`")]
    NoSuchWorkflow(WorkflowId),
    #[error("there is no backfill {0}")]
    NoSuchBackfill(i64),
    #[error("`{0}` has no schedule, so there is nothing to make up for")]
    NoSchedule(WorkflowId),
    #[error("the last time, {to}, is before the first, {from}")]
    EndsFirst { from: Timestamp, to: Timestamp },
    #[error("the schedule of `{workflow}` names no time from {from} to {to}: choose a longer range")]
    NoTimes { workflow: WorkflowId, from: Timestamp, to: Timestamp },
    #[error("the schedule names more than {MOST} times there: choose a shorter range")]
    TooMany,
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Params(Vec<ParamError>),
    /// The workflow has one under way.
    #[error("{0}: cancel it, or wait until its runs have ended")]
    UnderWay(String),
    #[error("backfill {0} is over: make a new one")]
    Over(i64),
    #[error(transparent)]
    Store(StoreError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl From<StoreError> for BackfillError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(text) => BackfillError::UnderWay(text),
            error => BackfillError::Store(error),
        }
    }
}

/// What becomes of one time of a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// It gets a run.
    New,
    /// Its run is run again.
    Again,
    /// Its run stays as it is.
    Left,
    /// Its run is one of this backfill already.
    Done,
}

/// One time of a backfill.
#[derive(Debug, Clone)]
pub struct Step {
    pub occurrence: Occurrence,
    pub outlook: Outlook,
    /// The run that the time has.
    pub run: Option<RunRecord>,
}

/// A workflow whose backfill it is, in one version.
struct Subject {
    row: WorkflowRow,
    workflow: std::sync::Arc<Workflow>,
}

async fn subject(store: &Store, catalog: &Catalog, id: &WorkflowId) -> Result<Subject, BackfillError> {
    let row = store.workflow(id).await?.filter(|row| row.active);
    let row = row.ok_or_else(|| BackfillError::NoSuchWorkflow(id.clone()))?;
    let workflow = catalog.load(store, &row.id, &row.version).await?;
    Ok(Subject { row, workflow })
}

/// Every time of a backfill in its order, and what becomes of it. With an `id` it is the backfill of that number;
/// without, one that is not made yet: a dry run.
pub async fn steps(
    store: &Store,
    catalog: &Catalog,
    wish: &NewBackfill,
    id: Option<i64>,
) -> Result<Vec<Step>, BackfillError> {
    let subject = subject(store, catalog, &wish.workflow).await?;
    steps_of(store, &subject, wish, id).await
}

async fn steps_of(
    store: &Store,
    subject: &Subject,
    wish: &NewBackfill,
    id: Option<i64>,
) -> Result<Vec<Step>, BackfillError> {
    let (from, to) = (wish.from, wish.to);
    if to < from {
        return Err(BackfillError::EndsFirst { from, to });
    }
    let timetable = schedules::timetable(store, &wish.workflow, &subject.workflow).await?;
    let timetable = timetable.ok_or_else(|| BackfillError::NoSchedule(wish.workflow.clone()))?;
    let occurrences = timetable.between(from, to, MOST + 1);
    if occurrences.len() > MOST {
        return Err(BackfillError::TooMany);
    }
    let span = Between { from: Some(from), to: Some(to) };
    let filter = RunFilter { workflow: Some(wish.workflow.clone()), logical_date: span, ..RunFilter::default() };
    let runs = store.runs(&filter, Paging::ALL).await?.rows;
    let mut runs: HashMap<_, _> = runs.into_iter().map(|run| (run.logical_date, run)).collect();
    let mut steps: Vec<Step> = occurrences
        .into_iter()
        .map(|occurrence| {
            let run = runs.remove(&Some(occurrence.logical_date));
            Step { occurrence, outlook: outlook(run.as_ref(), wish.reprocess, id), run }
        })
        .collect();
    if wish.reverse {
        steps.reverse();
    }
    Ok(steps)
}

fn outlook(run: Option<&RunRecord>, reprocess: Reprocess, id: Option<i64>) -> Outlook {
    let Some(run) = run else { return Outlook::New };
    if id.is_some() && run.backfill == id {
        return Outlook::Done;
    }
    match (run.state, reprocess) {
        (RunState::Queued | RunState::Running, _) | (_, Reprocess::None) => Outlook::Left,
        (RunState::Success, Reprocess::Failed) => Outlook::Left,
        (RunState::Success | RunState::Failed | RunState::Cancelled, _) => Outlook::Again,
    }
}

/// Makes a backfill, and the runs of times that have none. Those that are run again follow on the server that leads,
/// as far as `max_active_runs` allows, and so does whatever a crash leaves undone.
pub async fn create(store: &Store, catalog: &Catalog, wish: NewBackfill) -> Result<Backfill, BackfillError> {
    let subject = subject(store, catalog, &wish.workflow).await?;
    let steps = steps_of(store, &subject, &wish, None).await?;
    pitcrew_lang::resolve_params(&subject.workflow, &wish.conf).map_err(BackfillError::Params)?;
    if steps.is_empty() {
        let (workflow, from, to) = (wish.workflow, wish.from, wish.to);
        return Err(BackfillError::NoTimes { workflow, from, to });
    }
    let mut audit = AuditEntry::new(wish.created, wish.by.clone(), "backfill.create");
    audit.workflow = Some(wish.workflow.clone());
    audit.detail = json!({
        "from": wish.from, "to": wish.to, "reprocess": wish.reprocess.name(), "conf": wish.conf,
        "max_active_runs": wish.max_active_runs, "times": steps.len(),
    });
    let backfill = store.create_backfill(wish, audit).await?;
    make_runs(store, &subject, &backfill, &steps).await?;
    if !steps.iter().any(|step| step.outlook == Outlook::Again) {
        store.update_backfill(backfill.id, BackfillChange::Planned, backfill.new.created, None).await?;
    }
    find(store, backfill.id).await
}

/// Makes the runs of times that have none. A backfill that is over by now gets no more.
async fn make_runs(store: &Store, subject: &Subject, backfill: &Backfill, steps: &[Step]) -> Result<(), BackfillError> {
    let wish = &backfill.new;
    for step in steps.iter().filter(|step| step.outlook == Outlook::New) {
        let (workflow, version) = (&subject.workflow, &subject.row.version);
        let mut new =
            schedules::scheduled(workflow, version, step.occurrence, RunType::Backfill, &wish.conf, &wish.by)?;
        new.backfill = Some(backfill.id);
        match store.create_run(new, None).await {
            Ok(CreateRun::Created(_) | CreateRun::Exists { .. }) => {}
            Err(StoreError::Conflict(_)) => return Ok(()),
            Err(error) => return Err(BackfillError::Store(error)),
        }
    }
    Ok(())
}

/// The backfill of a number.
pub async fn find(store: &Store, id: i64) -> Result<Backfill, BackfillError> {
    store.backfill(id).await?.ok_or(BackfillError::NoSuchBackfill(id))
}

/// Lets no more runs of a backfill begin, or lets them begin again. Says whether that changed anything.
pub async fn pause(store: &Store, id: i64, paused: bool, by: &str, now: Timestamp) -> Result<bool, BackfillError> {
    let event = if paused { "backfill.pause" } else { "backfill.unpause" };
    change(store, id, BackfillChange::Pause(paused), by, event, now).await
}

/// Ends a backfill: queued runs are cancelled, on the server that leads, and those that run come to their end. Says
/// whether that changed anything.
pub async fn cancel(store: &Store, id: i64, by: &str, now: Timestamp) -> Result<bool, BackfillError> {
    change(store, id, BackfillChange::Cancelled, by, "backfill.cancel", now).await
}

async fn change(
    store: &Store,
    id: i64,
    change: BackfillChange,
    by: &str,
    event: &str,
    now: Timestamp,
) -> Result<bool, BackfillError> {
    let backfill = find(store, id).await?;
    if !backfill.is_open() || backfill.cancelled {
        return Err(BackfillError::Over(id));
    }
    let mut audit = AuditEntry::new(now, by, event);
    audit.workflow = Some(backfill.new.workflow);
    audit.detail = json!({ "backfill": id });
    Ok(store.update_backfill(id, change, now, Some(audit)).await?)
}

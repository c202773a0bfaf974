//! Makes the runs that schedules ask for, and the next-run times that people see.
//!
//! Invariant: what is due follows from the schedule, the moment the workflow was first seen, and the runs that exist;
//! so a restart, a second server or a late wake-up makes no run twice and forgets none.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use pitcrew_core::engine::record::RunType;
use pitcrew_core::timetable::Timetable;
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_store::{BackfillFilter, CreateRun, NewRun, Owner, Paging, RunCounts, Store, WorkflowFilter, WorkflowRow};
use serde_json::{Map, Value};

use crate::app::{App, airflow_time};
use crate::clock;

/// How often the schedules are looked at when nothing is due and nobody says that they changed.
const LOOK: Duration = Duration::from_secs(60);
/// How often a standby looks whether it leads.
const STANDBY: Duration = Duration::from_secs(5);

/// Serves the schedules of all workflows, for as long as the process lives. Only the leading server makes runs.
pub async fn run(app: App, owner: Arc<Owner>) {
    loop {
        let wait = match app.store.try_lead(&owner).await {
            Ok(true) => match serve(&app).await {
                Ok(Some(next)) => clock::until(next).min(LOOK),
                Ok(None) => LOOK,
                Err(error) => {
                    tracing::warn!("cannot serve the schedules: {error:#}");
                    STANDBY
                }
            },
            Ok(false) => STANDBY,
            Err(error) => {
                tracing::warn!(%error, "cannot tell which server leads");
                STANDBY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.schedules.notified() => {}
        }
    }
}

/// Makes what is due. Returns when the next run is.
async fn serve(app: &App) -> anyhow::Result<Option<Timestamp>> {
    let filter = WorkflowFilter { active: Some(true), ..WorkflowFilter::default() };
    let mut next = None;
    for row in app.store.workflows(&filter, Paging::ALL).await?.rows {
        if row.schedule.is_none() {
            continue;
        }
        match serve_one(app, &row).await {
            Ok(at) => next = at.into_iter().chain(next).min(),
            Err(error) => tracing::warn!("cannot serve the schedule of `{}`: {error:#}", row.id),
        }
    }
    Ok(next)
}

async fn serve_one(app: &App, row: &WorkflowRow) -> anyhow::Result<Option<Timestamp>> {
    let workflow = app.catalog.load(&app.store, &row.id, &row.version).await?;
    let Some(timetable) = timetable(&app.store, &row.id, &workflow).await? else { return Ok(None) };
    let mut last = app.store.last_logical_date(&row.id, RunType::Scheduled).await?;
    loop {
        let occurrence = timetable.next(last, clock::now());
        if row.next_run != occurrence.map(|o| o.run_after) {
            app.store.set_next_run(&row.id, occurrence.map(|o| o.run_after)).await?;
        }
        let Some(occurrence) = occurrence else { return Ok(None) };
        if row.is_paused || occurrence.run_after > clock::now() {
            return Ok((!row.is_paused).then_some(occurrence.run_after));
        }
        // Making up for years of missed runs must not fill the store: the next one is made when there is room.
        if open_runs(&app.store, &row.id).await? >= u64::from(workflow.max_active_runs) {
            return Ok(Some(clock::now() + jiff::SignedDuration::from_secs(1)));
        }
        let run = scheduled(&workflow, &row.version, occurrence, RunType::Scheduled, &Map::new(), "schedule")?;
        match app.store.create_run(run, None).await? {
            CreateRun::Created(run) => {
                tracing::info!(run = run.key.0, "made run `{}` of `{}`", run.run_id, run.workflow);
                app.scheduler.look();
            }
            CreateRun::Exists { .. } => {}
        }
        last = Some(occurrence.logical_date);
    }
}

/// Runs of a workflow that are queued or running, but for those of backfills, which have a limit of their own.
async fn open_runs(store: &Store, id: &WorkflowId) -> anyhow::Result<u64> {
    let all = store.open_run_counts(id).await?.open();
    if all == 0 {
        return Ok(0);
    }
    let filter = BackfillFilter { workflow: Some(id.clone()), open: Some(true) };
    let backfills: Vec<i64> = store.backfills(&filter, Paging::ALL).await?.rows.iter().map(|row| row.id).collect();
    let counts = store.backfill_counts(&backfills).await?;
    Ok(all.saturating_sub(counts.values().map(RunCounts::open).sum()))
}

/// The schedule of a workflow, bound to the moment it was first seen.
pub async fn timetable(
    store: &Store,
    id: &WorkflowId,
    workflow: &pitcrew_core::ir::Workflow,
) -> anyhow::Result<Option<Timetable>> {
    let Some(schedule) = &workflow.schedule else { return Ok(None) };
    let first_seen = store.setting_or_insert(&format!("first-seen/{id}"), &clock::now().to_string()).await?;
    let anchor: Timestamp =
        first_seen.parse().context("the stored time at which the workflow was first seen is damaged")?;
    Ok(Some(schedule.timetable(anchor)?))
}

/// A run for one time of a schedule. Params have their defaults where `conf` has nothing for them.
pub fn scheduled(
    workflow: &pitcrew_core::ir::Workflow,
    version: &str,
    occurrence: pitcrew_core::timetable::Occurrence,
    run_type: RunType,
    conf: &Map<String, Value>,
    by: &str,
) -> anyhow::Result<NewRun> {
    let params = pitcrew_lang::resolve_params(workflow, conf).map_err(|errors| {
        let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("a scheduled run needs a default for every param: {}", text.join("; "))
    })?;
    let run_id = RunId::new(&format!("{}__{}", run_type.name(), airflow_time(occurrence.logical_date)))?;
    Ok(NewRun {
        workflow: workflow.id.clone(),
        run_id,
        run_type,
        version: version.to_owned(),
        params,
        conf: conf.clone(),
        logical_date: Some(occurrence.logical_date),
        data_interval: Some(occurrence.data_interval),
        run_after: occurrence.run_after,
        queued_at: clock::now(),
        triggered_by: by.to_owned(),
        note: String::new(),
        backfill: None,
        audit: Vec::new(),
    })
}

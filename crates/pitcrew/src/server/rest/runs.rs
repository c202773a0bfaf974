//! Runs, as DAG runs: list, get, trigger, cancel.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use jiff::Timestamp;
use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_store::{Page, Paging, RunFilter, RunOrder, Version};
use serde_json::{Value, json};

use super::{dags, shapes};
use crate::app::Trigger;
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::{ApiError, ApiResult};
use crate::server::input::{Body, Query, run_id, workflow_id};
use crate::server::view::find_run;

/// Runs that are looked through for a range of times, which the store does not know.
const MAX_SCANNED: u32 = 100_000;

/// Shapes runs, and reads the versions of each workflow once.
#[derive(Default)]
pub struct Shaper(BTreeMap<WorkflowId, Vec<Version>>);

impl Shaper {
    pub async fn run(&mut self, site: &Site, run: &RunRecord) -> ApiResult<Value> {
        Ok(shapes::run(run, self.version(site, run).await?.as_ref()))
    }

    pub async fn version(&mut self, site: &Site, run: &RunRecord) -> ApiResult<Option<shapes::DagVersion>> {
        if !self.0.contains_key(&run.workflow) {
            let versions = site.app.store.versions(&run.workflow).await?;
            self.0.insert(run.workflow.clone(), versions);
        }
        Ok(shapes::find_version(&self.0[&run.workflow], &run.version))
    }
}

pub async fn list(State(site): State<Site>, Path(dag): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let workflow = match dag.as_str() {
        "~" => None,
        dag => Some(dags::find(&site, dag).await?.id),
    };
    let filter = RunFilter {
        workflow,
        states: states(&query)?,
        run_type: run_type(&query)?,
        order: order(&query)?,
        ..RunFilter::default()
    };
    let page = within(&site, &filter, &Ranges::of(&query)?, query.paging()?).await?;
    let mut shaper = Shaper::default();
    let mut runs = Vec::with_capacity(page.rows.len());
    for run in &page.rows {
        runs.push(shaper.run(&site, run).await?);
    }
    Ok(Json(json!({
        "dag_runs": runs,
        "total_entries": page.total,
        "total_entries_limit": null,
        "next_cursor": null,
        "previous_cursor": null,
    })))
}

/// Airflow's `failed` includes our `cancelled`.
fn states(query: &Query) -> ApiResult<Vec<RunState>> {
    let mut states = Vec::new();
    for word in query.all("state") {
        let state = RunState::from_name(word).ok_or_else(|| {
            ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is not the state of a run"))
        })?;
        states.push(state);
        if state == RunState::Failed {
            states.push(RunState::Cancelled);
        }
    }
    Ok(states)
}

fn run_type(query: &Query) -> ApiResult<Option<RunType>> {
    let Some(word) = query.text("run_type") else { return Ok(None) };
    let known = RunType::from_name(word);
    known
        .map(Some)
        .ok_or_else(|| ApiError::invalid(&["query", "run_type"], "enum", format!("`{word}` is no type of run")))
}

fn order(query: &Query) -> ApiResult<RunOrder> {
    Ok(match query.text("order_by") {
        None | Some("id" | "queued_at" | "run_after") => RunOrder::Oldest,
        Some("-id" | "-queued_at" | "-run_after") => RunOrder::Newest,
        Some("logical_date") => RunOrder::LogicalDate,
        Some("-logical_date") => RunOrder::LogicalDateDescending,
        Some("start_date") => RunOrder::Start,
        Some("-start_date") => RunOrder::StartDescending,
        Some("end_date") => RunOrder::End,
        Some("-end_date") => RunOrder::EndDescending,
        Some(other) => {
            let message = format!("Ordering with `{other}` is disallowed or the attribute does not exist on the model");
            return Err(ApiError::bad_request(message));
        }
    })
}

/// Bounds of times, both inclusive.
#[derive(Default)]
struct Ranges(Vec<(fn(&RunRecord) -> Option<Timestamp>, bool, Timestamp)>);

impl Ranges {
    fn of(query: &Query) -> ApiResult<Self> {
        let times: [(&str, fn(&RunRecord) -> Option<Timestamp>); 4] = [
            ("run_after", |run| Some(run.run_after)),
            ("logical_date", |run| run.logical_date),
            ("start_date", |run| run.start),
            ("end_date", |run| run.end),
        ];
        let mut ranges = Vec::new();
        for (name, time) in times {
            for (suffix, is_lower) in [("_gte", true), ("_lte", false)] {
                if let Some(bound) = query.time(&format!("{name}{suffix}"))? {
                    ranges.push((time, is_lower, bound));
                }
            }
        }
        Ok(Ranges(ranges))
    }

    fn allow(&self, run: &RunRecord) -> bool {
        self.0.iter().all(|(time, is_lower, bound)| match time(run) {
            Some(at) if *is_lower => at >= *bound,
            Some(at) => at <= *bound,
            None => false,
        })
    }
}

/// A page of the runs that also lie in the ranges.
async fn within(site: &Site, filter: &RunFilter, ranges: &Ranges, paging: Paging) -> ApiResult<Page<RunRecord>> {
    if ranges.0.is_empty() {
        return Ok(site.app.store.runs(filter, paging).await?);
    }
    let all = site.app.store.runs(filter, Paging::first(MAX_SCANNED)).await?;
    let matching: Vec<RunRecord> = all.rows.into_iter().filter(|run| ranges.allow(run)).collect();
    let total = matching.len() as u64;
    let rows = matching.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(Page { rows, total })
}

pub async fn get(State(site): State<Site>, Path((dag, run)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let run = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    Ok(Json(Shaper::default().run(&site, &run).await?))
}

pub async fn trigger(
    State(site): State<Site>,
    Path(dag): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let workflow = dags::find(&site, &dag).await?.id;
    let trigger = Trigger {
        conf: body.object("conf").unwrap_or_default(),
        run_id: body.parsed("dag_run_id", RunId::new),
        logical_date: body.time("logical_date"),
        run_after: body.time("run_after"),
        note: body.text("note").unwrap_or_default(),
        by: user.name,
    };
    body.ignore(&["data_interval_start", "data_interval_end", "partition_key"]);
    body.finish()?;
    let run = site.app.trigger(&workflow, trigger).await?;
    Ok(Json(Shaper::default().run(&site, &run).await?))
}

/// `{"state": "failed"}` stops the run, as it does in Airflow.
pub async fn patch(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let (dag, run) = (workflow_id(&dag)?, run_id(&run)?);
    let found = find_run(&site.app, &dag, &run).await?;
    let state = body.text("state");
    let note = body.text("note");
    body.finish()?;
    if note.is_some() {
        return Err(ApiError::bad_request("the note of a run is given when it is triggered and cannot be changed"));
    }
    match state.as_deref() {
        Some("failed") if !found.state.is_final() => site.app.scheduler.cancel(found.key, &user.name).await?,
        Some("failed") if found.state != RunState::Success => {}
        Some("success" | "queued" | "failed") => {
            let message =
                "a run can be set to `failed` while it is active, which stops it; to run it again, clear its tasks";
            return Err(ApiError::bad_request(message));
        }
        Some(_) => {
            return Err(ApiError::invalid(&["body", "state"], "enum", "must be `queued`, `success` or `failed`"));
        }
        None => return Err(ApiError::invalid(&["body", "state"], "missing", "is missing")),
    }
    let found = find_run(&site.app, &dag, &run).await?;
    Ok(Json(Shaper::default().run(&site, &found).await?))
}

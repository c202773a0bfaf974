//! Lists of runs: by a query, or by the same filters in a body.

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_core::WorkflowId;
use pitcrew_core::engine::record::{RunRecord, RunType};
use pitcrew_core::state::RunState;
use pitcrew_store::{Page, Paging, RunFilter, RunOrder};
use serde_json::{Value, json};

use super::dags;
use super::runs::Shaper;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, workflow_id};

/// Runs that are looked through for what the store has no filter for.
const MAX_SCANNED: u32 = 100_000;

/// How the fields of a body are called in a query.
const FIELDS: [(&str, &str); 26] = [
    ("dag_ids", "dag_ids"),
    ("states", "state"),
    ("order_by", "order_by"),
    ("page_limit", "limit"),
    ("page_offset", "offset"),
    ("conf_contains", "conf_contains"),
    ("run_after_gte", "run_after_gte"),
    ("run_after_gt", "run_after_gt"),
    ("run_after_lte", "run_after_lte"),
    ("run_after_lt", "run_after_lt"),
    ("logical_date_gte", "logical_date_gte"),
    ("logical_date_gt", "logical_date_gt"),
    ("logical_date_lte", "logical_date_lte"),
    ("logical_date_lt", "logical_date_lt"),
    ("start_date_gte", "start_date_gte"),
    ("start_date_gt", "start_date_gt"),
    ("start_date_lte", "start_date_lte"),
    ("start_date_lt", "start_date_lt"),
    ("end_date_gte", "end_date_gte"),
    ("end_date_gt", "end_date_gt"),
    ("end_date_lte", "end_date_lte"),
    ("end_date_lt", "end_date_lt"),
    ("duration_gte", "duration_gte"),
    ("duration_gt", "duration_gt"),
    ("duration_lte", "duration_lte"),
    ("duration_lt", "duration_lt"),
];

pub async fn list(State(site): State<Site>, Path(dag): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    answer(&site, &dag, &query).await
}

pub async fn list_batch(State(site): State<Site>, Path(dag): Path<String>, body: Body) -> ApiResult<Json<Value>> {
    let query = Query::of_body(body, &FIELDS)?;
    answer(&site, &dag, &query).await
}

async fn answer(site: &Site, dag: &str, query: &Query) -> ApiResult<Json<Value>> {
    let workflow = match dag {
        "~" => None,
        dag => Some(dags::find(site, dag).await?.id),
    };
    let page = matching(site, workflow, query).await?;
    let mut shaper = Shaper::default();
    let mut runs = Vec::with_capacity(page.rows.len());
    for run in &page.rows {
        runs.push(shaper.run(site, run).await?);
    }
    Ok(Json(json!({
        "dag_runs": runs,
        "total_entries": page.total,
        "total_entries_limit": null,
        "next_cursor": null,
        "previous_cursor": null,
    })))
}

/// A page of the runs that a query means.
pub async fn matching(site: &Site, workflow: Option<WorkflowId>, query: &Query) -> ApiResult<Page<RunRecord>> {
    let filter = RunFilter {
        workflow,
        among: query.all("dag_ids").into_iter().map(workflow_id).collect::<ApiResult<_>>()?,
        states: states(query)?,
        run_type: run_type(query)?,
        contains: query.part("run_id"),
        logical_date: query.between("logical_date")?,
        run_after: query.between("run_after")?,
        start: query.between("start_date")?,
        end: query.between("end_date")?,
        order: order(query)?,
        ..RunFilter::default()
    };
    let tests = tests(query)?;
    let paging = query.paging()?;
    if tests.is_empty() {
        return Ok(site.app.store.runs(&filter, paging).await?);
    }
    let all = site.app.store.runs(&filter, Paging::first(MAX_SCANNED)).await?;
    let matching: Vec<RunRecord> = all.rows.into_iter().filter(|run| tests.iter().all(|test| test(run))).collect();
    let total = matching.len() as u64;
    let rows = matching.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(Page { rows, total })
}

/// Airflow's `failed` includes our `cancelled`.
fn states(query: &Query) -> ApiResult<Vec<RunState>> {
    let mut states = Vec::new();
    for word in query.all("state").into_iter().filter(|word| *word != "no_status") {
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
    let known = if word == "asset_triggered" { Some(RunType::Event) } else { RunType::from_name(word) };
    known
        .map(Some)
        .ok_or_else(|| ApiError::invalid(&["query", "run_type"], "enum", format!("`{word}` is no type of run")))
}

fn order(query: &Query) -> ApiResult<RunOrder> {
    Ok(match query.text("order_by") {
        None | Some("id" | "queued_at" | "run_after" | "run_id" | "dag_run_id") => RunOrder::Oldest,
        Some("-id" | "-queued_at" | "-run_after" | "-run_id" | "-dag_run_id") => RunOrder::Newest,
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

type Test = Box<dyn Fn(&RunRecord) -> bool + Send + Sync>;

/// What the store cannot be asked for.
fn tests(query: &Query) -> ApiResult<Vec<Test>> {
    let mut tests: Vec<Test> = Vec::new();
    let updated = query.range("updated_at", Query::time)?;
    if !updated.is_open() {
        tests.push(Box::new(move |run| updated.allows(run.end.or(run.start).unwrap_or(run.queued_at))));
    }
    let duration = query.range("duration", Query::number::<f64>)?;
    if !duration.is_open() {
        let took = |run: &RunRecord| Some(run.end?.duration_since(run.start?).as_secs_f64());
        tests.push(Box::new(move |run| took(run).is_some_and(|took| duration.allows(took))));
    }
    for (key, part) in [
        ("run_id", (|run| run.run_id.as_str()) as fn(&RunRecord) -> &str),
        ("dag_id", |run| run.workflow.as_str()),
        ("triggering_user_name", |run| run.triggered_by.as_str()),
    ] {
        // The store knows parts of the ids of runs.
        let is_asked = key == "run_id" && query.part(key).is_some();
        if let Some(pattern) = query.pattern(key).filter(|_| !is_asked) {
            tests.push(Box::new(move |run| pattern.allows(part(run))));
        }
    }
    if let Some(part) = query.text("conf_contains").map(str::to_owned) {
        tests.push(Box::new(move |run| serde_json::to_string(&run.conf).is_ok_and(|conf| conf.contains(&part))));
    }
    if let Some(version) = query.text("bundle_version").map(str::to_owned) {
        tests.push(Box::new(move |run| run.version == version));
    }
    Ok(tests)
}

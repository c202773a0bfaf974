//! Records as they are kept: what the command line of another machine shows and steers (`--server URL`).
//!
//! The shapes are those of the program itself, so client and server should be of one version.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::lookup::{self, LookupError};
use pitcrew_control::records::{Runs, What, WorkflowLine, Workflows};
use pitcrew_core::engine::record::{RunRecord, StoredRun};
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, TaskId};
use pitcrew_exec::LogChunk;
use pitcrew_store::{Paging, RunFilter};
use serde_json::{Value, json};

use super::find;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number, task_id, workflow_id};

/// Runs of a list at most.
const MOST: u32 = 10_000;
/// Read of a log at a time.
const CHUNK: usize = 1 << 20;

/// The run that a person means by `?name=`: its number, id, `latest`, or workflow.
pub async fn find_run(State(site): State<Site>, query: Query) -> ApiResult<Json<RunRecord>> {
    let Some(name) = query.text("name") else {
        return Err(ApiError::invalid(&["query", "name"], "missing", "is missing"));
    };
    lookup::run(&site.app.store, name, " on this server").await.map(Json).map_err(missing)
}

pub async fn workflows(State(site): State<Site>, query: Query) -> ApiResult<Json<Workflows>> {
    let all = query.boolean("all")?.unwrap_or(false);
    Ok(Json(Workflows::read(&site.app.store, all).await?))
}

pub async fn workflow(State(site): State<Site>, Path(workflow): Path<String>) -> ApiResult<Json<WorkflowLine>> {
    let row = lookup::workflow(&site.app.store, &workflow, " on this server").await.map_err(missing)?;
    Ok(Json(WorkflowLine::read(&site.app.store, row).await?))
}

pub async fn version(
    State(site): State<Site>,
    Path((workflow, version)): Path<(String, String)>,
) -> ApiResult<Json<Value>> {
    let id = workflow_id(&workflow)?;
    let source = site.app.store.version_source(&id, &version).await?;
    let source = source.ok_or_else(|| ApiError::not_found(format!("`{id}` has no version {version}")))?;
    Ok(Json(json!({ "workflow": id, "version": version, "source": source })))
}

pub async fn run_of(
    State(site): State<Site>,
    Path((workflow, run)): Path<(String, String)>,
) -> ApiResult<Json<RunRecord>> {
    let id = workflow_id(&workflow)?;
    let found = match RunId::new(&run) {
        Ok(run) => site.app.store.run_by_id(&id, &run).await?,
        Err(_) => None,
    };
    found.map(Json).ok_or_else(|| ApiError::not_found(format!("`{id}` has no run `{run}`")))
}

/// The newest first.
pub async fn runs(State(site): State<Site>, query: Query) -> ApiResult<Json<Runs>> {
    let state = |word: &&str| {
        RunState::from_name(word).ok_or_else(|| {
            ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is not the state of a run"))
        })
    };
    let states = query.all("state").iter().map(state).collect::<ApiResult<_>>()?;
    let workflow = query.text("workflow").map(workflow_id).transpose()?;
    let limit = query.number::<u32>("limit")?.unwrap_or(100).min(MOST);
    let filter = RunFilter { workflow, states, ..RunFilter::default() };
    let page = site.app.store.runs(&filter, Paging::first(limit)).await?;
    Ok(Json(Runs { runs: page.rows, total: page.total }))
}

/// A run with its instances. Handles of live attempts are for the server alone.
pub async fn record(State(site): State<Site>, Path(key): Path<String>) -> ApiResult<Json<StoredRun>> {
    let run = find(&site, &key).await?;
    let stored = site.app.store.stored_run(run.key).await?;
    let stored = stored.ok_or_else(|| ApiError::not_found(format!("there is no run {key}")))?;
    Ok(Json(StoredRun { live: Vec::new(), ..stored }))
}

/// Runs tasks again, and what comes after them; answers which were named by that.
pub async fn clear(
    State(site): State<Site>,
    Path(key): Path<String>,
    Extension(user): Extension<User>,
    body: Json<What>,
) -> ApiResult<Json<Vec<(TaskId, i32)>>> {
    let run = find(&site, &key).await?;
    Ok(Json(site.app.scheduler.clear(run.key, body.0.into(), &user.name).await?))
}

/// A part of the log of one attempt, from a byte offset.
pub async fn log(
    State(site): State<Site>,
    Path((key, task, map_index, attempt)): Path<(String, String, String, String)>,
    query: Query,
) -> ApiResult<Json<LogChunk>> {
    let run = find(&site, &key).await?;
    let (task, map_index) = (task_id(&task)?, number::<i32>("map_index", &map_index)?);
    let attempt = number::<u32>("attempt", &attempt)?;
    let offset = query.number::<u64>("offset")?.unwrap_or(0);
    let attempts = site.app.store.attempts(run.key, &task, map_index).await?;
    let found = attempts.into_iter().find(|row| row.number == attempt);
    let found = found.ok_or_else(|| ApiError::not_found(format!("`{task}` has no attempt {attempt}")))?;
    Ok(Json(site.app.logs(&found, offset, CHUNK).await?))
}

fn missing(error: LookupError) -> ApiError {
    match error {
        LookupError::Missing(message) => ApiError::not_found(message),
        LookupError::Store(error) => error.into(),
    }
}

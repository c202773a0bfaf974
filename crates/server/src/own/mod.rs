//! Our own API, for what Airflow has no word for: why a task waits, kept files, events as they happen, cancelling.
//!
//! Runs are named by their key, the number that orders them; it is unique on a server.

pub mod artifacts;
mod between;
mod connections;
pub mod deliveries;
mod digest;
mod ecs;
mod events;
pub mod incidents;
pub mod nodes;
mod notices;
pub mod quotas;
mod records;
mod reports;
mod worker_files;
pub mod workers;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::links;
use pitcrew_control::scheduler::{AskError, Pick};
use pitcrew_core::RunKey;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::RunState;
use serde_json::{Value, json};

use super::Site;
use super::auth::Role::Viewer;
use super::auth::{self, User};
use super::error::{ApiError, ApiResult};
use super::input::{Query, number, run_id, task_id, workflow_id};
use super::openapi::doc;
use super::routes::Access::Role;
use super::routes::Routes;
use super::view::{RunView, find_run};

pub fn routes() -> Routes {
    const RUN: &str = "/api/pitcrew/v1/runs/{run_key}";
    let at = |rest: &str| format!("{RUN}{rest}");
    Routes::api()
        .get(RUN, Role(Viewer), run)
        .doc(doc("Run", "Shows a run in our words").answer(200, "Run"))
        .post(at("/cancel"), Role(auth::Role::User), cancel)
        .doc(doc("Run", "Stops a run; it ends when its tasks have").answer(202, "Run"))
        .post("/api/pitcrew/v1/dags/{dag_id}/dagRuns/{dag_run_id}/cancel", Role(auth::Role::User), cancel_by_name)
        .doc(doc("Run", "Stops a run that is named as in Airflow").answer(202, "Run"))
        .get(at("/explain/{task}"), Role(Viewer), explain)
        .doc(doc("Run", "Says why a task is not running").query("map_index: int").answer(200, "Explanation"))
        .get(at("/artifacts"), Role(Viewer), artifacts::list)
        .doc(doc("Artifact", "Lists the kept files of a run").query("bring: bool").answer(200, "Artifacts"))
        .get(at("/artifacts/{*path}"), Role(Viewer), artifacts::download)
        .doc(doc("Artifact", "Gives a kept file").query("download: bool").answer(200, "any").media("*/*"))
        .get(at("/reports"), Role(Viewer), reports::list)
        .doc(doc("Artifact", "Lists the reports of a run").query("bring: bool").answer(200, "Reports"))
        .get(at("/events"), Role(Viewer), events::events)
        .doc(doc("Run", "Sends what happens to a run, as it happens").answer(200, "text").media("text/event-stream"))
        .get("/api/pitcrew/v1/digest", Role(Viewer), digest::digest)
        .doc(doc("Record", "Sums up the last days, a week unless told").query("hours: int").answer(200, "object"))
        .get("/api/pitcrew/v1/notices", Role(Viewer), notices::list)
        .doc(
            doc("Notice", "Lists the outbox of notifications")
                .query("state: text, channel: text, workflow: text")
                .paged()
                .answer(200, "object"),
        )
        .post("/api/pitcrew/v1/notices/{id}/retry", Role(auth::Role::Op), notices::retry)
        .doc(doc("Notice", "Lets a notice that waits or was given up be tried at once").answer(200, "object"))
        .post("/api/pitcrew/v1/connections/{connection_id}/test", Role(auth::Role::Op), connections::test)
        .doc(doc("Connection", "Signs in to where a connection leads, and says who answers").answer(200, "object"))
        .get("/api/pitcrew/v1/find/run", Role(Viewer), records::find_run)
        .doc(
            doc("Record", "Finds the run that a person means: by number, id, `latest` or workflow")
                .query("name: text")
                .answer(200, "object"),
        )
        .get("/api/pitcrew/v1/workflows", Role(Viewer), records::workflows)
        .doc(doc("Record", "Lists workflows as they are kept").query("all: bool").answer(200, "object"))
        .get("/api/pitcrew/v1/workflows/{workflow}", Role(Viewer), records::workflow)
        .doc(doc("Record", "Shows a workflow as it is kept").answer(200, "object"))
        .get("/api/pitcrew/v1/workflows/{workflow}/versions/{version}", Role(Viewer), records::version)
        .doc(doc("Record", "Shows a version of a workflow as it is kept").answer(200, "object"))
        .get("/api/pitcrew/v1/workflows/{workflow}/runs/{run}", Role(Viewer), records::run_of)
        .doc(doc("Record", "Shows a run by its id as it is kept").answer(200, "object"))
        .get("/api/pitcrew/v1/runs", Role(Viewer), records::runs)
        .doc(
            doc("Record", "Lists runs as they are kept")
                .query("state: [text], workflow: text, limit: int")
                .answer(200, "object"),
        )
        .get("/api/pitcrew/v1/runs/{run_key}/record", Role(Viewer), records::record)
        .doc(doc("Record", "Shows a run with its instances as it is kept").answer(200, "object"))
        .post("/api/pitcrew/v1/runs/{run_key}/clear", Role(auth::Role::User), records::clear)
        .doc(doc("Record", "Lets instances run again").answer(200, "any"))
        .get("/api/pitcrew/v1/runs/{run_key}/logs/{task}/{map_index}/{attempt}", Role(Viewer), records::log)
        .doc(doc("Record", "Reads the log of an attempt as it is kept").query("offset: int").answer(200, "object"))
        .get("/api/pitcrew/v1/records/incidents", Role(Viewer), incidents::records)
        .doc(
            doc("Record", "Lists incidents as they are kept, the newest first")
                .query("open: bool, node: text")
                .paged()
                .answer(200, "object"),
        )
        .get("/api/pitcrew/v1/records/incidents/{incident}", Role(Viewer), incidents::record)
        .doc(doc("Record", "Shows an incident as it is kept").answer(200, "object"))
        .merge(nodes::routes())
        .merge(incidents::routes())
        .merge(between::routes())
        .merge(quotas::routes())
        .merge(workers::routes())
        .merge(ecs::routes())
        .merge(deliveries::routes())
}

/// The run with that key, or 404.
pub async fn find(site: &Site, key: &str) -> ApiResult<RunRecord> {
    let missing = || ApiError::not_found(format!("there is no run {key}"));
    let key: i64 = key.parse().map_err(|_| missing())?;
    site.app.store.run(RunKey(key)).await?.ok_or_else(missing)
}

/// A run in our words: all of its states, and where its page is.
fn shape(run: &RunRecord) -> Value {
    json!({
        "key": run.key,
        "workflow": run.workflow,
        "run_id": run.run_id,
        "run_type": run.run_type.name(),
        "state": run.state.name(),
        "params": run.params,
        "logical_date": run.logical_date,
        "queued_at": run.queued_at,
        "start": run.start,
        "end": run.end,
        "triggered_by": run.triggered_by,
        "stop": run.stop,
        "note": run.note,
        "page": links::run(&run.workflow, &run.run_id),
    })
}

async fn run(State(site): State<Site>, Path(key): Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(shape(&find(&site, &key).await?)))
}

async fn cancel(
    State(site): State<Site>,
    Path(key): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let run = find(&site, &key).await?;
    stop(&site, run, &user).await
}

async fn cancel_by_name(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let run = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    stop(&site, run, &user).await
}

/// 202: the run ends when its tasks have. Of a cancelled run it is no error to ask again.
async fn stop(site: &Site, run: RunRecord, user: &User) -> ApiResult<(StatusCode, Json<Value>)> {
    match run.state {
        RunState::Queued | RunState::Running => site.app.scheduler.cancel(run.key, &user.name).await?,
        RunState::Cancelled => {}
        RunState::Success | RunState::Failed => {
            return Err(ApiError::conflict(format!("the run is over ({})", run.state.name())));
        }
    }
    let run = find(site, &run.key.to_string()).await?;
    Ok((StatusCode::ACCEPTED, Json(shape(&run))))
}

async fn explain(
    State(site): State<Site>,
    Path((key, task)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Json<Value>> {
    let run = find(&site, &key).await?;
    let map_index = match query.text("map_index") {
        None => None,
        Some(text) => Some(number::<i32>("map_index", text)?),
    };
    let view = RunView::load(&site.app, run).await?;
    let task = task_id(&task)?;
    let row = view.instance(&site.app, &task, map_index.unwrap_or(UNMAPPED)).await?;
    let reasons = reasons(&site, &view, task.as_str(), map_index).await?;
    let state = row.map(|row| row.state.name());
    Ok(Json(json!({ "task": task, "map_index": map_index.unwrap_or(UNMAPPED), "state": state, "reasons": reasons })))
}

/// Why an instance is not running, as sentences; of a run that is not in the scheduler's hands, what its row says.
pub async fn reasons(site: &Site, view: &RunView, task: &str, map_index: Option<i32>) -> ApiResult<Vec<String>> {
    let pick = Pick { task: task.to_owned(), map_index };
    if !view.run.state.is_final() {
        match site.app.scheduler.explain(view.run.key, pick).await {
            Ok(reasons) => return Ok(reasons),
            Err(AskError::NoSuchRun(_) | AskError::OwnedElsewhere(_) | AskError::Standby) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let row = view.instance(&site.app, &task_id(task)?, map_index.unwrap_or(UNMAPPED)).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("the run has no task `{task}` with this map index")))?;
    let last = row.message.lines().last().unwrap_or_default();
    Ok(vec![if last.is_empty() { format!("is {}", row.state) } else { format!("is {}: {last}", row.state) }])
}

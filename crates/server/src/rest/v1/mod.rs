//! The calls of Airflow 2's API that its users script. Each is answered by the call of version 2 that took its place;
//! here names, dates, shapes and statuses are translated, and errors become problem documents (RFC 7807).

mod shapes;

use axum::Json;
use axum::body::Body as AxumBody;
use axum::extract::{Extension, Path, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{clear, connections, dags, delete, instance_list, instances, logs, meta, pools, run_list, runs};
use super::{variables, xcoms};
use crate::auth::Role::{Op, User as UserRole, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, number};
use crate::openapi::doc;
use crate::routes::{Access::Open, Access::Role, Doc, Routes};
use crate::{Site, TEXT};

const DAG: &str = "/api/v1/dags/{dag_id}";
const RUNS: &str = "/api/v1/dags/{dag_id}/dagRuns";
const RUN: &str = "/api/v1/dags/{dag_id}/dagRuns/{dag_run_id}";
const TASK: &str = "/api/v1/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";

pub fn routes() -> Routes {
    run_routes()
        .merge(setting_routes())
        .get("/api/v1/health", Open, health)
        .doc(doc("Monitor", "Says whether the server and its database are well").answer(200, "Health"))
        .get("/api/v1/version", Open, meta::version)
        .doc(doc("Version", "Shows the version of the server").answer(200, "Version"))
        .get("/api/v1/dags", Role(Viewer), dag_list)
        .doc(
            doc("DAG", "Lists workflows")
                .paged()
                .query("order_by: text, tags: [text], only_active: bool, paused: bool, dag_id_pattern: text")
                .answer(200, "DAGCollection"),
        )
        .get(DAG, Role(Viewer), dag)
        .doc(doc("DAG", "Shows a workflow").answer(200, "DAG"))
        .patch(DAG, Role(UserRole), patch_dag)
        .doc(masked("DAG", "Pauses or unpauses a workflow").body("DAGPatch").answer(200, "DAG"))
        .get("/api/v1/importErrors", Role(Viewer), import_errors)
        .doc(
            doc("ImportError", "Lists files that give no workflow")
                .paged()
                .query("order_by: text")
                .answer(200, "ImportErrorCollection"),
        )
        .get("/api/v1/importErrors/{import_error_id}", Role(Viewer), import_error)
        .doc(doc("ImportError", "Shows why a file gives no workflow").answer(200, "ImportError"))
}

fn run_routes() -> Routes {
    let at = |rest: &str| format!("{TASK}{rest}");
    let dates = ["execution_date", "start_date", "end_date"];
    Routes::api()
        .get(RUNS, Role(Viewer), run_list)
        .doc(
            doc("DAGRun", "Lists the runs of a workflow, or with `~` of all workflows")
                .paged()
                .query("order_by: text, state: [text]")
                .ranges("time", &dates)
                .answer(200, "DAGRunCollection"),
        )
        .post(RUNS, Role(UserRole), trigger)
        .doc(doc("DAGRun", "Triggers a run").body("DAGRunBody").answer(200, "DAGRun"))
        .get(RUN, Role(Viewer), run)
        .doc(doc("DAGRun", "Shows a run").answer(200, "DAGRun"))
        .patch(RUN, Role(UserRole), patch_run)
        .doc(doc("DAGRun", "Stops a run (`failed`)").body("DAGRunState").answer(200, "DAGRun"))
        .delete(RUN, Role(Op), delete::run)
        .doc(doc("DAGRun", "Deletes a run that is over").nothing(204))
        .get(format!("{RUN}/taskInstances"), Role(Viewer), instance_list)
        .doc(
            doc("TaskInstance", "Lists the task instances of a run")
                .paged()
                .query("order_by: text, state: [text], pool: [text], queue: [text]")
                .ranges("time", &dates)
                .ranges("number", &["duration"])
                .answer(200, "TaskInstanceCollection"),
        )
        .get(TASK, Role(Viewer), instance)
        .doc(doc("TaskInstance", "Shows a task instance").answer(200, "TaskInstance"))
        .get(at("/logs/{task_try_number}"), Role(Viewer), log)
        .doc(
            doc("TaskInstance", "Reads the log of an attempt: as text, or as JSON for `Accept: application/json`")
                .query("full_content: bool, map_index: int, token: text")
                .answer(200, "Log"),
        )
        .get(at("/xcomEntries"), Role(Viewer), xcom_list)
        .doc(
            doc("XCom", "Lists the outputs of a task")
                .paged()
                .query("map_index: int, xcom_key: text")
                .answer(200, "XComCollection"),
        )
        .get(at("/xcomEntries/{*xcom_key}"), Role(Viewer), xcom)
        .doc(doc("XCom", "Shows an output").query("map_index: int, deserialize: bool").answer(200, "XCom"))
        .post(format!("{DAG}/clearTaskInstances"), Role(UserRole), clear_instances)
        .doc(
            doc("DAG", "Lets instances run again, or says which it would be")
                .body("ClearTaskInstances")
                .answer(200, "TaskInstanceReferenceCollection"),
        )
}

fn setting_routes() -> Routes {
    const VARIABLE: &str = "/api/v1/variables/{*variable_key}";
    const CONNECTION: &str = "/api/v1/connections/{connection_id}";
    const POOL: &str = "/api/v1/pools/{pool_name}";
    let list = |tag, summary, shape| doc(tag, summary).paged().query("order_by: text").answer(200, shape);
    Routes::api()
        .get("/api/v1/variables", Role(Viewer), variable_list)
        .doc(list("Variable", "Lists variables", "VariableCollection"))
        .post("/api/v1/variables", Role(Op), create_variable)
        .doc(doc("Variable", "Makes a variable").body("VariableBody").answer(200, "Variable"))
        .get(VARIABLE, Role(Viewer), variable)
        .doc(doc("Variable", "Shows a variable").answer(200, "Variable"))
        .patch(VARIABLE, Role(Op), patch_variable)
        .doc(masked("Variable", "Changes a variable").body("VariableBody").answer(200, "Variable"))
        .delete(VARIABLE, Role(Op), variables::delete)
        .doc(doc("Variable", "Deletes a variable").nothing(204))
        .get("/api/v1/connections", Role(Viewer), connection_list)
        .doc(list("Connection", "Lists connections", "ConnectionCollection"))
        .post("/api/v1/connections", Role(Op), create_connection)
        .doc(doc("Connection", "Makes a connection").body("ConnectionBody").answer(200, "Connection"))
        .get(CONNECTION, Role(Viewer), connection)
        .doc(doc("Connection", "Shows a connection").answer(200, "Connection"))
        .patch(CONNECTION, Role(Op), patch_connection)
        .doc(masked("Connection", "Changes a connection").body("ConnectionBody").answer(200, "Connection"))
        .delete(CONNECTION, Role(Op), connections::delete)
        .doc(doc("Connection", "Deletes a connection").nothing(204))
        .get("/api/v1/pools", Role(Viewer), pool_list)
        .doc(list("Pool", "Lists pools", "PoolCollection"))
        .post("/api/v1/pools", Role(Op), create_pool)
        .doc(doc("Pool", "Makes a pool").body("PoolBody").answer(200, "Pool"))
        .get(POOL, Role(Viewer), pool)
        .doc(doc("Pool", "Shows a pool").answer(200, "Pool"))
        .patch(POOL, Role(Op), patch_pool)
        .doc(masked("Pool", "Changes a pool").body("PoolBody").answer(200, "Pool"))
        .delete(POOL, Role(Op), pools::delete)
        .doc(doc("Pool", "Deletes a pool").nothing(204))
}

fn masked(tag: &'static str, summary: &'static str) -> Doc {
    doc(tag, summary).query("update_mask: [text]")
}

/// Turns errors of this API into problem documents.
pub async fn problems(request: Request, next: Next) -> Response {
    let is_ours = request.uri().path().starts_with("/api/v1/");
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().cloned().filter(|_| is_ours) else { return response };
    let status = error.status();
    let document = json!({
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": error.message(),
        "type": "about:blank",
    });
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, axum::http::HeaderValue::from_static("application/problem+json"));
    Response::from_parts(parts, AxumBody::from(document.to_string()))
}

/// Each entry of a list, translated.
fn collection(Json(mut list): Json<Value>, key: &str, shape: fn(Value) -> Value) -> Json<Value> {
    let total = list["total_entries"].take();
    let entries = match list[key].take() {
        Value::Array(entries) => entries.into_iter().map(shape).collect(),
        _ => Vec::new(),
    };
    Json(json!({ key: entries, "total_entries": total }))
}

/// Lists had 100 entries unless told otherwise, and dates another name.
fn translated(query: Query) -> Query {
    query.or("limit", "100").renamed("execution_date", "logical_date")
}

async fn health(state: State<Site>) -> Json<Value> {
    meta::health(state).await
}

async fn dag_list(state: State<Site>, query: Query) -> ApiResult<Json<Value>> {
    Ok(collection(dags::list(state, translated(query)).await?, "dags", shapes::dag))
}

async fn dag(state: State<Site>, path: Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::dag(dags::get(state, path).await?.0)))
}

async fn patch_dag(
    state: State<Site>,
    path: Path<String>,
    user: Extension<User>,
    body: Body,
) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::dag(dags::patch(state, path, user, body).await?.0)))
}

async fn import_errors(state: State<Site>, query: Query) -> ApiResult<Json<Value>> {
    Ok(collection(dags::import_errors(state, translated(query)).await?, "import_errors", shapes::import_error))
}

async fn import_error(state: State<Site>, path: Path<String>) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::import_error(dags::import_error(state, path).await?.0)))
}

async fn run_list(state: State<Site>, path: Path<String>, query: Query) -> ApiResult<Json<Value>> {
    Ok(collection(run_list::list(state, path, translated(query)).await?, "dag_runs", shapes::run))
}

async fn trigger(
    state: State<Site>,
    path: Path<String>,
    user: Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    body.rename("execution_date", "logical_date");
    // Read-only there, and sent by clients all the same.
    body.ignore(&["state", "dag_id", "start_date", "end_date", "external_trigger", "run_type"]);
    Ok(Json(shapes::run(runs::trigger(state, path, user, body).await?.0)))
}

async fn run(state: State<Site>, path: Path<(String, String)>) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::run(runs::get(state, path).await?.0)))
}

async fn patch_run(
    state: State<Site>,
    path: Path<(String, String)>,
    user: Extension<User>,
    query: Query,
    body: Body,
) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::run(runs::patch(state, path, user, query, body).await?.0)))
}

async fn instance_list(state: State<Site>, path: Path<(String, String)>, query: Query) -> ApiResult<Json<Value>> {
    let list = instance_list::list(state, path, translated(query)).await?;
    Ok(collection(list, "task_instances", shapes::instance))
}

async fn instance(state: State<Site>, path: Path<(String, String, String)>) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::instance(instances::get(state, path).await?.0)))
}

async fn log(
    State(site): State<Site>,
    Path((dag, run, task, attempt)): Path<(String, String, String, String)>,
    query: Query,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let attempt: u32 = number("task_try_number", &attempt)?;
    let log = logs::find(&site, (&dag, &run, &task), attempt, &query).await?;
    let (messages, token) = log.read(&site, query.boolean("full_content")?.unwrap_or(false)).await?;
    let mut text = String::new();
    for message in &messages {
        let at = message["timestamp"].as_str().map(|at| format!("[{at}] ")).unwrap_or_default();
        text.push_str(&format!("{at}{}\n", message["event"].as_str().unwrap_or_default()));
    }
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        return Ok(Json(json!({ "content": text, "continuation_token": token })).into_response());
    }
    Ok((TEXT, text).into_response())
}

async fn xcom_list(state: State<Site>, path: Path<(String, String, String)>, query: Query) -> ApiResult<Json<Value>> {
    Ok(collection(xcoms::list(state, path, translated(query)).await?, "xcom_entries", shapes::xcom_brief))
}

async fn xcom(
    state: State<Site>,
    path: Path<(String, String, String, String)>,
    query: Query,
) -> ApiResult<Json<Value>> {
    Ok(Json(shapes::xcom(xcoms::get(state, path, query).await?.0)))
}

async fn clear_instances(
    state: State<Site>,
    path: Path<String>,
    user: Extension<User>,
    query: Query,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    body.ignore(&["include_subdags", "include_parentdag"]);
    Ok(collection(clear::clear(state, path, user, query, body).await?, "task_instances", shapes::reference))
}

/// Lists, makes, shows and changes things of one kind: what version 2 answers, in the shapes of Airflow 2.
macro_rules! things {
    ($of:ident, $shape:ident: $list:ident, $create:ident, $get:ident, $patch:ident) => {
        async fn $list(state: State<Site>, query: Query) -> ApiResult<Json<Value>> {
            Ok(collection($of::list(state, translated(query)).await?, stringify!($of), shapes::$shape))
        }

        /// There, what was made is told with status 200.
        async fn $create(state: State<Site>, user: Extension<User>, body: Body) -> ApiResult<Json<Value>> {
            let (_, Json(made)) = $of::create(state, user, body).await?;
            Ok(Json(shapes::$shape(made)))
        }

        async fn $get(state: State<Site>, path: Path<String>) -> ApiResult<Json<Value>> {
            Ok(Json(shapes::$shape($of::get(state, path).await?.0)))
        }

        async fn $patch(
            state: State<Site>,
            path: Path<String>,
            user: Extension<User>,
            query: Query,
            body: Body,
        ) -> ApiResult<Json<Value>> {
            Ok(Json(shapes::$shape($of::patch(state, path, user, query, body).await?.0)))
        }
    };
}

things!(variables, variable: variable_list, create_variable, variable, patch_variable);
things!(connections, connection: connection_list, create_connection, connection, patch_connection);
things!(pools, pool: pool_list, create_pool, pool, patch_pool);

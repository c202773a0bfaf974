//! Outputs of tasks, as XComs. Changes go through the scheduler, which may have the run in its hands.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::scheduler::{Edit, Expects};
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_store::Paging;
use serde_json::{Map, Value, json};

use super::instances::Found;
use crate::Site;
use crate::auth::Role::{self as UserRole, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, task_id};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};
use crate::view::Filter;

/// Characters of the name of an output.
const MAX_NAME: usize = 512;

pub fn routes() -> Routes {
    const LIST: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/xcomEntries";
    // The name of an output may contain slashes.
    let entry = format!("{LIST}/{{*xcom_key}}");
    let filters = "xcom_key: text, map_index: int, xcom_key_pattern: text, xcom_key_prefix_pattern: text, \
                   task_id_pattern: text, task_id_prefix_pattern: text, order_by: text";
    Routes::api()
        .get(LIST, Role(Viewer), list)
        .doc(
            doc("XCom", "Lists the outputs of a task, or with `~` of all tasks of a run")
                .paged()
                .query(filters)
                .answer(200, "XComCollectionResponse"),
        )
        .post(LIST, Role(UserRole::User), create)
        .doc(doc("XCom", "Adds an output").body("XComCreateBody").answer(201, "XComResponseNative"))
        .get(entry.clone(), Role(Viewer), get)
        .doc(
            doc("XCom", "Shows an output")
                .query("map_index: int, deserialize: bool, stringify: bool")
                .answer(200, "XComResponseNative"),
        )
        .patch(entry.clone(), Role(UserRole::User), update)
        .doc(doc("XCom", "Replaces an output").body("XComUpdateBody").answer(200, "XComResponseNative"))
        .delete(entry, Role(UserRole::User), delete)
        .doc(doc("XCom", "Deletes an output").query("map_index: int").nothing(204))
}

type TaskPath = Path<(String, String, String)>;
type EntryPath = Path<(String, String, String, String)>;

pub async fn list(State(site): State<Site>, Path((dag, run, task)): TaskPath, query: Query) -> ApiResult<Json<Value>> {
    if dag == "~" || run == "~" {
        let message = "outputs are listed of one run at a time: name its `dag_id` and `dag_run_id`";
        return Err(ApiError::bad_request(message));
    }
    let found = Found::load(&site, &dag, &run).await?;
    let filter = Filter { states: Vec::new(), task: (task != "~").then(|| task_id(&task)).transpose()? };
    let map_index = query.number::<i32>("map_index")?;
    let key = query.text("xcom_key");
    let rows = found.view.page(&site.app, &filter, Paging::ALL).await?.rows;
    let mut entries: Vec<(&InstanceRecord, &str)> = Vec::new();
    for row in &rows {
        let wanted = map_index.is_none_or(|index| index == row.map_index) && query.allows("task_id", row.task.as_str());
        let names = row.outputs.keys().map(String::as_str).filter(|_| wanted);
        let named = names.filter(|name| key.is_none_or(|key| key == *name) && query.allows("xcom_key", name));
        entries.extend(named.map(|name| (row, name)));
    }
    let (order, backwards) = match query.text("order_by") {
        None => ("", false),
        Some(text) => text.strip_prefix('-').map_or((text, false), |key| (key, true)),
    };
    match order {
        "" | "id" => {}
        "key" => entries.sort_by_key(|(_, name)| *name),
        "timestamp" => entries.sort_by_key(|(row, _)| row.end),
        "map_index" => entries.sort_by_key(|(row, _)| row.map_index),
        "task_id" | "task_display_name" => entries.sort_by(|(a, _), (b, _)| a.task.cmp(&b.task)),
        "dag_id" | "run_id" | "logical_date" | "run_after" => {}
        other => return Err(ApiError::bad_request(format!("outputs cannot be ordered by `{other}`"))),
    }
    if backwards {
        entries.reverse();
    }
    let total = entries.len();
    let paging = query.paging()?;
    let shown = entries.into_iter().skip(paging.offset as usize).take(paging.limit as usize);
    let shown: Vec<Value> = shown.map(|(row, name)| Value::Object(shape(&found.view.run, row, name))).collect();
    Ok(Json(json!({ "xcom_entries": shown, "total_entries": total })))
}

fn shape(run: &RunRecord, row: &InstanceRecord, name: &str) -> Map<String, Value> {
    let value = json!({
        "key": name,
        "timestamp": row.end.or(row.start).unwrap_or(run.queued_at),
        "logical_date": run.logical_date,
        "run_after": run.run_after,
        "map_index": row.map_index,
        "task_id": row.task,
        "dag_id": run.workflow,
        "run_id": run.run_id,
        "dag_display_name": run.workflow,
        "task_display_name": row.task,
    });
    let Value::Object(map) = value else { unreachable!("an object literal") };
    map
}

async fn one(site: &Site, (dag, run, task): (&str, &str, &str), map_index: i32, name: &str) -> ApiResult<Value> {
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    let value = row.outputs.get(name);
    let value = value.ok_or_else(|| ApiError::not_found(format!("XCom entry with key: `{name}` not found")))?;
    let mut map = shape(&found.view.run, &row, name);
    map.insert("value".to_owned(), value.clone());
    Ok(Value::Object(map))
}

pub async fn get(
    State(site): State<Site>,
    Path((dag, run, task, name)): EntryPath,
    query: Query,
) -> ApiResult<Json<Value>> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    let mut entry = one(&site, (&dag, &run, &task), map_index, &name).await?;
    if query.boolean("stringify")?.unwrap_or(false) && !entry["value"].is_string() {
        entry["value"] = Value::String(entry["value"].to_string());
    }
    Ok(Json(entry))
}

pub async fn create(
    State(site): State<Site>,
    Path((dag, run, task)): TaskPath,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let name = body.required_text("key");
    if name.chars().count() > MAX_NAME {
        body.problem("key", "string_too_long", format!("must have {MAX_NAME} characters at most"));
    }
    let (map_index, value) = value(&mut body);
    body.finish()?;
    if name.is_empty() {
        return Err(ApiError::invalid(&["body", "key"], "string_too_short", "must not be empty"));
    }
    let place = (dag.as_str(), run.as_str(), task.as_str());
    change(&site, &user, place, map_index, &name, Some(value), Expects::Absent).await?;
    Ok((StatusCode::CREATED, Json(one(&site, place, map_index, &name).await?)))
}

pub async fn update(
    State(site): State<Site>,
    Path((dag, run, task, name)): EntryPath,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let (map_index, value) = value(&mut body);
    body.finish()?;
    let place = (dag.as_str(), run.as_str(), task.as_str());
    change(&site, &user, place, map_index, &name, Some(value), Expects::Present).await?;
    Ok(Json(one(&site, place, map_index, &name).await?))
}

pub async fn delete(
    State(site): State<Site>,
    Path((dag, run, task, name)): EntryPath,
    Extension(user): Extension<User>,
    query: Query,
) -> ApiResult<StatusCode> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    change(&site, &user, (&dag, &run, &task), map_index, &name, None, Expects::Present).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The new value, which may be `null` but not absent, and the instance it is for.
fn value(body: &mut Body) -> (i32, Value) {
    let map_index = body.integer("map_index", i64::from(UNMAPPED), i64::from(i32::MAX)).map_or(UNMAPPED, |i| i as i32);
    if !body.has("value") {
        body.problem("value", "missing", "is missing");
    }
    (map_index, body.value("value").unwrap_or_default())
}

async fn change(
    site: &Site,
    user: &User,
    (dag, run, task): (&str, &str, &str),
    map_index: i32,
    name: &str,
    value: Option<Value>,
    expects: Expects,
) -> ApiResult<()> {
    let found = Found::load(site, dag, run).await?;
    found.instance(site, task, map_index).await?;
    let edit = Edit::Output { task: task.to_owned(), map_index, name: name.to_owned(), value, expects };
    Ok(site.app.scheduler.edit(found.view.run.key, edit, &user.name).await?)
}

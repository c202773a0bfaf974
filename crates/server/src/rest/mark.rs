//! A person says how an instance ended: Airflow's PATCH of a task instance.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::scheduler::Pick;
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::State as TaskState;
use pitcrew_store::{Page, Paging};
use serde_json::Value;

use super::instances::Found;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, number, task_id};
use crate::view::Filter;

/// All instances of a task.
pub async fn task(
    State(site): State<Site>,
    Path((dag, run, task)): Path<(String, String, String)>,
    Extension(user): Extension<User>,
    body: Body,
) -> ApiResult<Json<Value>> {
    mark(&site, (&dag, &run, &task), None, &user, body).await
}

/// One instance of a mapped task.
pub async fn instance(
    State(site): State<Site>,
    Path((dag, run, task, index)): Path<(String, String, String, String)>,
    Extension(user): Extension<User>,
    body: Body,
) -> ApiResult<Json<Value>> {
    mark(&site, (&dag, &run, &task), Some(number("map_index", &index)?), &user, body).await
}

/// Says which instances would be marked.
pub async fn task_dry_run(
    State(site): State<Site>,
    Path((dag, run, task)): Path<(String, String, String)>,
    body: Body,
) -> ApiResult<Json<Value>> {
    would(&site, (&dag, &run, &task), None, body).await
}

pub async fn instance_dry_run(
    State(site): State<Site>,
    Path((dag, run, task, index)): Path<(String, String, String, String)>,
    body: Body,
) -> ApiResult<Json<Value>> {
    would(&site, (&dag, &run, &task), Some(number("map_index", &index)?), body).await
}

/// The instances that are not in the wanted state yet.
async fn would(site: &Site, place: (&str, &str, &str), map_index: Option<i32>, body: Body) -> ApiResult<Json<Value>> {
    let success = read(body)?;
    let (found, mut page) = marked(site, place, map_index).await?;
    let done = if success { TaskState::Success } else { TaskState::Failed };
    page.rows.retain(|row| row.state != done);
    page.total = page.rows.len() as u64;
    Ok(Json(found.collection(&page)))
}

async fn mark(
    site: &Site,
    place: (&str, &str, &str),
    map_index: Option<i32>,
    user: &User,
    body: Body,
) -> ApiResult<Json<Value>> {
    let success = read(body)?;
    let (found, _) = marked(site, place, map_index).await?;
    let pick = Pick { task: place.2.to_owned(), map_index: map_index.filter(|index| *index != UNMAPPED) };
    site.app.scheduler.mark(found.view.run.key, pick, success, &user.name).await?;
    let (found, page) = marked(site, place, map_index).await?;
    Ok(Json(found.collection(&page)))
}

/// Whether the body asks for success, or for failure.
fn read(mut body: Body) -> ApiResult<bool> {
    let state = body.text("new_state");
    let others = ["include_upstream", "include_downstream", "include_future", "include_past"];
    let wants_others = others.iter().filter(|key| body.boolean(key) == Some(true)).count() > 0;
    body.ignore(&["note"]);
    body.finish()?;
    if wants_others {
        return Err(ApiError::bad_request("tasks are marked one by one: leave out the `include_…` fields"));
    }
    match state.as_deref() {
        Some("success") => Ok(true),
        Some("failed") => Ok(false),
        _ => Err(ApiError::invalid(&["body", "new_state"], "enum", "must be `success` or `failed`")),
    }
}

/// The instances that a path means, as they are now.
async fn marked(
    site: &Site,
    (dag, run, task): (&str, &str, &str),
    map_index: Option<i32>,
) -> ApiResult<(Found, Page<InstanceRecord>)> {
    let found = Found::load(site, dag, run).await?;
    let filter = Filter { states: Vec::new(), task: Some(task_id(task)?) };
    let mut page = found.view.page(&site.app, &filter, Paging::ALL).await?;
    page.rows.retain(|row| map_index.is_none_or(|index| index == row.map_index));
    page.total = page.rows.len() as u64;
    if page.rows.is_empty() {
        return Err(ApiError::not_found(format!("The Task Instance with task_id: `{task}` was not found")));
    }
    Ok((found, page))
}

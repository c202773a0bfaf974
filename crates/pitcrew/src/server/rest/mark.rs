//! A person says how an instance ended: Airflow's PATCH of a task instance.

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_core::id::UNMAPPED;
use pitcrew_store::{Page, Paging};
use serde_json::Value;

use super::instances::Found;
use crate::scheduler::Pick;
use crate::server::Site;
use crate::server::auth::User;
use crate::server::error::{ApiError, ApiResult};
use crate::server::input::{Body, number, task_id};
use crate::server::view::Filter;

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

async fn mark(
    site: &Site,
    (dag, run, task): (&str, &str, &str),
    map_index: Option<i32>,
    user: &User,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let state = body.text("new_state");
    let others = ["include_upstream", "include_downstream", "include_future", "include_past"];
    let wants_others = others.iter().filter(|key| body.boolean(key) == Some(true)).count() > 0;
    body.ignore(&["note"]);
    body.finish()?;
    if wants_others {
        return Err(ApiError::bad_request("tasks are marked one by one: leave out the `include_…` fields"));
    }
    let success = match state.as_deref() {
        Some("success") => true,
        Some("failed") => false,
        _ => return Err(ApiError::invalid(&["body", "new_state"], "enum", "must be `success` or `failed`")),
    };
    let found = Found::load(site, dag, run).await?;
    let pick = Pick { task: task_id(task)?.to_string(), map_index: map_index.filter(|index| *index != UNMAPPED) };
    site.app.scheduler.mark(found.view.run.key, pick, success, &user.name).await?;
    let found = Found::load(site, dag, run).await?;
    let filter = Filter { states: Vec::new(), task: Some(task_id(task)?) };
    let mut page: Page<_> = found.view.page(&site.app, &filter, Paging::ALL).await?;
    page.rows.retain(|row| map_index.is_none_or(|index| index == row.map_index));
    page.total = page.rows.len() as u64;
    Ok(Json(found.collection(&page)))
}

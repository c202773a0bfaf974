//! Task instances, one by one, and their attempts.

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::state::State as InstanceState;
use pitcrew_store::{Page, Paging, RunBrief};
use serde_json::{Value, json};

use super::instance_list;
use super::runs::Shaper;
use super::shapes::{self, Around};
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number, run_id, task_id, workflow_id};
use crate::view::{Filter, RunView, attempts, find_run};
use crate::{Site, own};

/// A run with its instances, and the version for their shapes.
pub struct Found {
    pub view: RunView,
    brief: RunBrief,
    version: Option<shapes::DagVersion>,
}

impl Found {
    pub async fn load(site: &Site, dag: &str, run: &str) -> ApiResult<Found> {
        let run = find_run(&site.app, &workflow_id(dag)?, &run_id(run)?).await?;
        let view = RunView::load(&site.app, run).await?;
        let version = Shaper::default().version(site, &view.run).await?;
        let brief = RunBrief::from(&view.run);
        Ok(Found { view, brief, version })
    }

    pub fn around(&self) -> Around<'_> {
        Around { run: &self.brief, workflow: self.view.workflow.as_deref(), version: self.version.as_ref() }
    }

    pub fn collection(&self, page: &Page<InstanceRecord>) -> Value {
        let around = self.around();
        json!({
            "task_instances": page.rows.iter().map(|row| around.instance(row)).collect::<Vec<_>>(),
            "total_entries": page.total,
            "total_entries_limit": null,
            "next_cursor": null,
            "previous_cursor": null,
        })
    }

    /// The row, or 404 in Airflow's words.
    pub async fn instance(&self, site: &Site, task: &str, map_index: i32) -> ApiResult<InstanceRecord> {
        let row = self.view.instance(&site.app, &task_id(task)?, map_index).await?;
        row.ok_or_else(|| {
            let (dag, run) = (&self.view.run.workflow, &self.view.run.run_id);
            ApiError::not_found(format!(
                "The Task Instance with dag_id: `{dag}`, run_id: `{run}`, task_id: `{task}` and map_index: `{map_index}` \
                 was not found"
            ))
        })
    }
}

type TaskPath = Path<(String, String, String)>;
type MappedPath = Path<(String, String, String, String)>;

pub async fn get(State(site): State<Site>, Path((dag, run, task)): TaskPath) -> ApiResult<Json<Value>> {
    one(&site, &dag, &run, &task, UNMAPPED).await
}

pub async fn get_mapped(State(site): State<Site>, Path((dag, run, task, index)): MappedPath) -> ApiResult<Json<Value>> {
    one(&site, &dag, &run, &task, number("map_index", &index)?).await
}

async fn one(site: &Site, dag: &str, run: &str, task: &str, map_index: i32) -> ApiResult<Json<Value>> {
    let found = Found::load(site, dag, run).await?;
    if map_index == UNMAPPED {
        // A mapped task has no instance of its own; Airflow says so with this status.
        let filter = Filter { states: Vec::new(), task: Some(task_id(task)?) };
        let first = found.view.page(&site.app, &filter, Paging::first(1)).await?;
        if first.rows.first().is_some_and(|row| row.map_index != UNMAPPED) {
            return Err(ApiError::not_found("Task instance is mapped, add the map_index value to the URL"));
        }
    }
    let row = found.instance(site, task, map_index).await?;
    Ok(Json(found.around().instance(&row)))
}

pub async fn list_mapped(
    State(site): State<Site>,
    Path((dag, run, task)): TaskPath,
    query: Query,
) -> ApiResult<Json<Value>> {
    let found = Found::load(&site, &dag, &run).await?;
    let task = task_id(&task)?;
    let known = found.view.workflow.as_deref().is_none_or(|workflow| workflow.by_name.contains_key(&task));
    let mut page = instance_list::of_task(&site, &found, &task, &query).await?;
    if !known && page.total == 0 {
        return Err(ApiError::not_found(format!("Task id {task} not found")));
    }
    // The one row of a task that is not mapped, or not yet, is none of these.
    let before = page.rows.len();
    page.rows.retain(|row| row.map_index != UNMAPPED);
    page.total -= (before - page.rows.len()) as u64;
    Ok(Json(found.collection(&page)))
}

pub async fn tries(State(site): State<Site>, Path((dag, run, task)): TaskPath, query: Query) -> ApiResult<Json<Value>> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    history(&site, &dag, &run, &task, map_index).await
}

pub async fn tries_mapped(
    State(site): State<Site>,
    Path((dag, run, task, index)): MappedPath,
) -> ApiResult<Json<Value>> {
    history(&site, &dag, &run, &task, number("map_index", &index)?).await
}

/// One attempt, by its number.
pub async fn attempt(
    State(site): State<Site>,
    Path((dag, run, task, wanted)): MappedPath,
    query: Query,
) -> ApiResult<Json<Value>> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    one_attempt(&site, (&dag, &run, &task), map_index, &wanted).await
}

pub async fn attempt_mapped(
    State(site): State<Site>,
    Path((dag, run, task, index, wanted)): Path<(String, String, String, String, String)>,
) -> ApiResult<Json<Value>> {
    one_attempt(&site, (&dag, &run, &task), number("map_index", &index)?, &wanted).await
}

async fn one_attempt(
    site: &Site,
    (dag, run, task): (&str, &str, &str),
    map_index: i32,
    wanted: &str,
) -> ApiResult<Json<Value>> {
    let wanted: u32 = number("task_try_number", wanted)?;
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    let all = attempts(&site.app, &found.view.run, &row.task, map_index).await?;
    let attempt = all.iter().find(|attempt| attempt.number == wanted);
    let attempt = attempt.ok_or_else(|| ApiError::not_found(format!("the task `{task}` has no attempt {wanted}")))?;
    Ok(Json(found.around().attempt(attempt)))
}

/// Why an instance is not running, in Airflow's shape.
pub async fn dependencies(
    State(site): State<Site>,
    Path((dag, run, task)): TaskPath,
    query: Query,
) -> ApiResult<Json<Value>> {
    let map_index = query.number("map_index")?.unwrap_or(UNMAPPED);
    why(&site, (&dag, &run, &task), map_index).await
}

pub async fn dependencies_mapped(
    State(site): State<Site>,
    Path((dag, run, task, index)): MappedPath,
) -> ApiResult<Json<Value>> {
    why(&site, (&dag, &run, &task), number("map_index", &index)?).await
}

async fn why(site: &Site, (dag, run, task): (&str, &str, &str), map_index: i32) -> ApiResult<Json<Value>> {
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    // Airflow answers for instances that have yet to run; of others there is nothing to say.
    if !matches!(row.state, InstanceState::None | InstanceState::Scheduled | InstanceState::UpForRetry { .. }) {
        return Ok(Json(json!({ "dependencies": [] })));
    }
    let reasons = own::reasons(site, &found.view, task, Some(map_index)).await?;
    let shown: Vec<Value> = reasons.iter().map(|reason| json!({ "name": "Pitcrew", "reason": reason })).collect();
    Ok(Json(json!({ "dependencies": shown })))
}

/// Links that an operator adds; Pitcrew's actions add none.
pub async fn links(State(site): State<Site>, Path((dag, run, task)): TaskPath) -> ApiResult<Json<Value>> {
    let found = Found::load(&site, &dag, &run).await?;
    let filter = Filter { states: Vec::new(), task: Some(task_id(&task)?) };
    if found.view.page(&site.app, &filter, Paging::first(1)).await?.total == 0 {
        return Err(ApiError::not_found(format!("The Task with ID: `{task}` was not found")));
    }
    Ok(Json(json!({ "extra_links": {}, "total_entries": 0 })))
}

async fn history(site: &Site, dag: &str, run: &str, task: &str, map_index: i32) -> ApiResult<Json<Value>> {
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    let attempts = attempts(&site.app, &found.view.run, &row.task, map_index).await?;
    let around = found.around();
    let tries: Vec<Value> = attempts.iter().map(|attempt| around.attempt(attempt)).collect();
    Ok(Json(json!({ "task_instances": tries, "total_entries": attempts.len() })))
}

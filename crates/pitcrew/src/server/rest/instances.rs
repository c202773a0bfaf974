//! Task instances and their attempts.

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_store::{Page, Paging};
use serde_json::{Value, json};

use super::runs::Shaper;
use super::shapes::{self, Around};
use crate::server::Site;
use crate::server::error::{ApiError, ApiResult};
use crate::server::input::{Query, number, run_id, task_id, workflow_id};
use crate::server::view::{Filter, Instances, RunView, attempts, find_run, state_name};

/// A run with its instances, and the version for their shapes.
pub struct Found {
    pub view: RunView,
    version: Option<shapes::DagVersion>,
}

impl Found {
    pub async fn load(site: &Site, dag: &str, run: &str) -> ApiResult<Found> {
        let run = find_run(&site.app, &workflow_id(dag)?, &run_id(run)?).await?;
        let view = RunView::load(&site.app, run).await?;
        let version = Shaper::default().version(site, &view.run).await?;
        Ok(Found { view, version })
    }

    pub fn around(&self) -> Around<'_> {
        Around { run: &self.view.run, workflow: self.view.workflow.as_deref(), version: self.version.as_ref() }
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

pub async fn list(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Json<Value>> {
    if run == "~" || dag == "~" {
        let message = "task instances are listed of one run at a time: name its `dag_id` and `dag_run_id`";
        return Err(ApiError::bad_request(message));
    }
    let filter = Filter { states: states(&query)?, task: query.text("task_id").map(task_id).transpose()? };
    let found = Found::load(&site, &dag, &run).await?;
    let page = ordered(&site, &found, &filter, &query).await?;
    Ok(Json(found.collection(&page)))
}

fn states(query: &Query) -> ApiResult<Vec<&'static str>> {
    let words = query.all("state").into_iter().map(|word| match word {
        "no_status" | "null" => Ok("none"),
        "restarting" => Ok("recovering"),
        word => state_name(word).ok_or_else(|| {
            ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is not the state of a task"))
        }),
    });
    words.collect()
}

async fn ordered(site: &Site, found: &Found, filter: &Filter, query: &Query) -> ApiResult<Page<InstanceRecord>> {
    let paging = query.paging()?;
    let Some(order) = query.text("order_by") else { return found.view.page(&site.app, filter, paging).await };
    if matches!(found.view.instances, Instances::Stored) {
        return Err(ApiError::bad_request("this run is too large to be ordered: leave out `order_by`"));
    }
    let mut page = found.view.page(&site.app, filter, Paging::ALL).await?;
    let (key, backwards) = order.strip_prefix('-').map_or((order, false), |key| (key, true));
    // Without a time or duration comes last, in either order.
    match key {
        "map_index" | "id" => page.rows.sort_by_key(|row| row.map_index),
        "task_id" => page.rows.sort_by(|a, b| (&a.task, a.map_index).cmp(&(&b.task, b.map_index))),
        "state" => page.rows.sort_by_key(|row| row.state.name()),
        "start_date" => page.rows.sort_by_key(|row| (row.start.is_none() != backwards, row.start)),
        "end_date" => page.rows.sort_by_key(|row| (row.end.is_none() != backwards, row.end)),
        "duration" => page.rows.sort_by_key(|row| {
            let duration = row.start.zip(row.end).map(|(start, end)| end.duration_since(start));
            (duration.is_none() != backwards, duration)
        }),
        _ => {
            let message = format!("Ordering with `{order}` is disallowed or the attribute does not exist on the model");
            return Err(ApiError::bad_request(message));
        }
    }
    if backwards {
        page.rows.reverse();
    }
    page.rows = page.rows.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(page)
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
    let filter = Filter { states: states(&query)?, task: Some(task.clone()) };
    let mut page = ordered(&site, &found, &filter, &query).await?;
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

async fn history(site: &Site, dag: &str, run: &str, task: &str, map_index: i32) -> ApiResult<Json<Value>> {
    let found = Found::load(site, dag, run).await?;
    let row = found.instance(site, task, map_index).await?;
    let attempts = attempts(&site.app, &found.view.run, &row.task, map_index).await?;
    let around = found.around();
    let tries: Vec<Value> = attempts.iter().map(|attempt| around.attempt(attempt)).collect();
    Ok(Json(json!({ "task_instances": tries, "total_entries": attempts.len() })))
}

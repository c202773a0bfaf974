//! The tasks of a workflow, as its newest version has them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use jiff::SignedDuration;
use pitcrew_core::ir::{Task, TaskIx, Workflow};
use pitcrew_store::DEFAULT_POOL;
use serde_json::{Value, json};

use super::{dags, shapes};
use crate::Site;
use crate::auth::Role::Viewer;
use crate::error::{ApiError, ApiResult};
use crate::input::Query;
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

pub fn routes() -> Routes {
    Routes::api()
        .get("/api/v2/dags/{dag_id}/tasks", Role(Viewer), list)
        .doc(doc("Task", "Lists the tasks of a workflow").query("order_by: text").answer(200, "TaskCollectionResponse"))
        .get("/api/v2/dags/{dag_id}/tasks/{task_id}", Role(Viewer), get)
        .doc(doc("Task", "Shows a task of a workflow").answer(200, "TaskResponse"))
}

/// The definition in force; a workflow whose source is no longer accepted cannot be shown in parts.
async fn newest(site: &Site, dag: &str) -> ApiResult<Arc<Workflow>> {
    let row = dags::find(site, dag).await?;
    let loaded = site.app.catalog.load(&site.app.store, &row.id, &row.version).await;
    loaded.map_err(|error| ApiError::conflict(format!("{error:#}")))
}

pub async fn list(State(site): State<Site>, Path(dag): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let workflow = newest(&site, &dag).await?;
    let mut order: Vec<TaskIx> = workflow.indices().collect();
    let (key, backwards) = match query.text("order_by") {
        None => ("", false),
        Some(text) => text.strip_prefix('-').map_or((text, false), |key| (key, true)),
    };
    match key {
        "" => {}
        "task_id" | "task_display_name" => order.sort_by(|a, b| workflow.task(*a).id.cmp(&workflow.task(*b).id)),
        "priority_weight" => order.sort_by_key(|ix| workflow.task(*ix).priority),
        "retries" => order.sort_by_key(|ix| workflow.task(*ix).retry.retries),
        "trigger_rule" => order.sort_by_key(|ix| workflow.task(*ix).trigger_rule.name()),
        _ => return Err(ApiError::bad_request(format!("tasks cannot be ordered by `{key}`"))),
    }
    if backwards {
        order.reverse();
    }
    let tasks: Vec<Value> = order.iter().map(|ix| shape(&workflow, *ix)).collect();
    Ok(Json(json!({ "tasks": tasks, "total_entries": order.len() })))
}

pub async fn get(State(site): State<Site>, Path((dag, task)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let workflow = newest(&site, &dag).await?;
    let found = workflow.find(&task);
    let ix = found.ok_or_else(|| ApiError::not_found(format!("The Task with ID: `{task}` was not found")))?;
    Ok(Json(shape(&workflow, ix)))
}

fn shape(workflow: &Workflow, ix: TaskIx) -> Value {
    let task: &Task = workflow.task(ix);
    let schedule = workflow.schedule.as_ref();
    let operator = shapes::operator(&task.work);
    json!({
        "task_id": task.id,
        "task_display_name": task.id,
        "owner": null,
        "start_date": schedule.and_then(|s| s.start),
        "end_date": schedule.and_then(|s| s.end),
        "trigger_rule": task.trigger_rule.name(),
        "depends_on_past": task.depends_on_past,
        "wait_for_downstream": false,
        "retries": task.retry.retries,
        "queue": null,
        "pool": task.pool.as_deref().unwrap_or(DEFAULT_POOL),
        "pool_slots": task.pool_slots,
        "execution_timeout": task.timeout.map(delta),
        "retry_delay": delta(task.retry.delay),
        "retry_exponential_backoff": if task.retry.backoff > 1.0 { task.retry.backoff } else { 0.0 },
        "priority_weight": task.priority,
        "weight_rule": "absolute",
        "ui_color": null,
        "ui_fgcolor": null,
        "template_fields": [],
        "downstream_task_ids": workflow.downstream[ix.at()].iter().map(|ix| &workflow.task(*ix).id).collect::<Vec<_>>(),
        "doc_md": shapes::text_or_null(&task.description),
        "operator_name": operator,
        "params": {},
        "class_ref": { "module_path": "pitcrew", "class_name": operator },
        "is_mapped": workflow.mapping_of(ix).is_some(),
        "extra_links": [],
    })
}

/// A duration as Airflow's clients read it.
fn delta(duration: SignedDuration) -> Value {
    const DAY: i64 = 86_400;
    let seconds = duration.as_secs();
    json!({
        "__type": "TimeDelta",
        "days": seconds.div_euclid(DAY),
        "seconds": seconds.rem_euclid(DAY),
        "microseconds": duration.subsec_micros().max(0),
    })
}

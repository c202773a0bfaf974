//! Task instances of many runs at once, for `~` in place of a workflow or a run: what the store can answer by the page,
//! however many instances there are. What it cannot is refused, not looked through.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use pitcrew_core::ir::Workflow;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{InstanceOrder, InstanceQuery};
use serde_json::{Value, json};

use super::dags;
use super::instance_list::{RANGES, states};
use super::runs::Shaper;
use super::shapes::Around;
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, run_id, task_id, workflow_id};
use crate::view::find_run;

/// Filters that are known of instances of one run only.
const OF_ONE_RUN: [&str; 9] = [
    "pool",
    "queue",
    "executor",
    "operator",
    "try_number",
    "task_display_name_pattern",
    "task_display_name_prefix_pattern",
    "dag_id_pattern",
    "run_id_pattern",
];

pub async fn list(site: &Site, dag: &str, run: &str, query: &Query) -> ApiResult<Json<Value>> {
    let wish = wish(site, dag, run, query).await?;
    let page = site.app.store.task_instances(&wish, query.paging()?).await?;
    let mut workflows: BTreeMap<(WorkflowId, String), Option<Arc<Workflow>>> = BTreeMap::new();
    let mut shaper = Shaper::default();
    let mut shown = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let key = (row.run.workflow.clone(), row.run.version.clone());
        if !workflows.contains_key(&key) {
            let loaded = site.app.catalog.load(&site.app.store, &key.0, &key.1).await.ok();
            workflows.insert(key.clone(), loaded);
        }
        let version = shaper.version_of(site, &row.run.workflow, &row.run.version).await?;
        let around = Around { run: &row.run, workflow: workflows[&key].as_deref(), version: version.as_ref() };
        shown.push(around.instance(&row.instance));
    }
    Ok(Json(json!({
        "task_instances": shown,
        "total_entries": page.total,
        "total_entries_limit": null,
        "next_cursor": null,
        "previous_cursor": null,
    })))
}

async fn wish(site: &Site, dag: &str, run: &str, query: &Query) -> ApiResult<InstanceQuery> {
    let workflow = if dag == "~" { None } else { Some(dags::find(site, dag).await?.id) };
    let refused =
        |what: &str| ApiError::bad_request(format!("{what} takes one run: name its `dag_id` and `dag_run_id`"));
    if run != "~" {
        return Err(refused("a run of any workflow is not listed, so this"));
    }
    if let Some(key) = OF_ONE_RUN.into_iter().find(|key| query.text(key).is_some()) {
        return Err(refused(&format!("a filter by `{key}`")));
    }
    for key in [RANGES[0], RANGES[1], RANGES[4], "updated_at"] {
        let bounds = ["gte", "gt", "lte", "lt"].map(|bound| format!("{key}_{bound}"));
        if bounds.iter().any(|bound| query.text(bound).is_some()) {
            return Err(refused(&format!("a filter by `{key}`")));
        }
    }
    let mut tasks = query.all("task_id");
    let mut indices = query.all("map_index");
    let mut runs = query.all("dag_run_ids");
    for (key, list) in [("task_id", &tasks), ("map_index", &indices), ("dag_run_ids", &runs)] {
        if list.len() > 1 {
            return Err(refused(&format!("a filter by several `{key}`")));
        }
    }
    let run: Option<RunKey> = match (runs.pop(), &workflow) {
        (None, _) => None,
        (Some(run), Some(workflow)) => Some(find_run(&site.app, workflow, &run_id(run)?).await?.key),
        (Some(_), None) => return Err(refused("a filter by `dag_run_ids`")),
    };
    let (start, end) = (query.between("start_date")?, query.between("end_date")?);
    let order = match query.text("order_by") {
        // A span of time comes out of an index by that time; by run, all of it would have to be sorted.
        None if !start.is_open() => InstanceOrder::Start,
        None if !end.is_open() => InstanceOrder::End,
        None | Some("-id" | "-run_after" | "-logical_date") => InstanceOrder::Newest,
        Some("id" | "run_after" | "logical_date") => InstanceOrder::Oldest,
        Some("start_date") => InstanceOrder::Start,
        Some("-start_date") => InstanceOrder::StartDescending,
        Some("end_date") => InstanceOrder::End,
        Some("-end_date") => InstanceOrder::EndDescending,
        Some(other) => return Err(refused(&format!("an order by `{other}`"))),
    };
    let map_index = match indices.pop() {
        None => None,
        Some(_) => query.number("map_index")?,
    };
    Ok(InstanceQuery {
        workflow,
        among: query.all("dag_ids").into_iter().map(workflow_id).collect::<ApiResult<_>>()?,
        run,
        task: tasks.pop().map(task_id).transpose()?,
        map_index,
        states: states(query)?,
        start,
        end,
        order,
        ..InstanceQuery::default()
    })
}

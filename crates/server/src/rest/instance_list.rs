//! Lists of task instances: by a query, or by the same filters in a body.

use axum::Json;
use axum::extract::{Path, State};
use jiff::Timestamp;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::InstanceRecord;
use pitcrew_store::{DEFAULT_POOL, Page, Paging};
use serde_json::Value;

use super::instances::Found;
use super::{instances_across, shapes};
use crate::Site;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, task_id};
use crate::view::{Filter, Instances, state_name};

/// How the fields of a body are called in a query, besides the bounds of times.
const FIELDS: [(&str, &str); 10] = [
    ("dag_ids", "dag_ids"),
    ("dag_run_ids", "dag_run_ids"),
    ("task_ids", "task_id"),
    ("state", "state"),
    ("pool", "pool"),
    ("queue", "queue"),
    ("executor", "executor"),
    ("order_by", "order_by"),
    ("page_limit", "limit"),
    ("page_offset", "offset"),
];

/// Times and numbers that have bounds.
pub const RANGES: [&str; 5] = ["run_after", "logical_date", "start_date", "end_date", "duration"];

pub async fn list(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    query: Query,
) -> ApiResult<Json<Value>> {
    answer(&site, &dag, &run, &query).await
}

pub async fn list_batch(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    body: Body,
) -> ApiResult<Json<Value>> {
    let bounds: Vec<String> =
        RANGES.iter().flat_map(|name| ["gte", "gt", "lte", "lt"].map(|bound| format!("{name}_{bound}"))).collect();
    let names: Vec<(&str, &str)> =
        FIELDS.into_iter().chain(bounds.iter().map(|name| (name.as_str(), name.as_str()))).collect();
    let query = Query::of_body(body, &names)?;
    answer(&site, &dag, &run, &query).await
}

async fn answer(site: &Site, dag: &str, run: &str, query: &Query) -> ApiResult<Json<Value>> {
    if run == "~" || dag == "~" {
        return instances_across::list(site, dag, run, query).await;
    }
    let found = Found::load(site, dag, run).await?;
    let tasks = query.all("task_id").into_iter().map(task_id).collect::<ApiResult<Vec<TaskId>>>()?;
    let page = matching(site, &found, tasks, query).await?;
    Ok(Json(found.collection(&page)))
}

/// The instances of one task that a query means.
pub async fn of_task(site: &Site, found: &Found, task: &TaskId, query: &Query) -> ApiResult<Page<InstanceRecord>> {
    matching(site, found, vec![task.clone()], query).await
}

pub fn states(query: &Query) -> ApiResult<Vec<&'static str>> {
    let words = query.all("state").into_iter().map(|word| match word {
        "no_status" | "null" | "none" => Ok("none"),
        "restarting" => Ok("recovering"),
        word => state_name(word).ok_or_else(|| {
            ApiError::invalid(&["query", "state"], "enum", format!("`{word}` is not the state of a task"))
        }),
    });
    words.collect()
}

type Test<'a> = Box<dyn Fn(&InstanceRecord) -> bool + Send + Sync + 'a>;

/// A page of the instances of a run that have one of the tasks, if any are named, and pass the filters of a query.
async fn matching(
    site: &Site,
    found: &Found,
    mut tasks: Vec<TaskId>,
    query: &Query,
) -> ApiResult<Page<InstanceRecord>> {
    let one = if tasks.len() == 1 { tasks.pop() } else { None };
    let filter = Filter { states: states(query)?, task: one };
    let tests = tests(found, tasks, query)?;
    let order = query.text("order_by");
    let paging = query.paging()?;
    if tests.is_empty() && order.is_none() {
        return found.view.page(&site.app, &filter, paging).await;
    }
    if matches!(found.view.instances, Instances::Stored) && order.is_some() {
        return Err(ApiError::bad_request("this run is too large to be ordered: leave out `order_by`"));
    }
    let mut rows = found.view.page(&site.app, &filter, Paging::ALL).await?.rows;
    rows.retain(|row| tests.iter().all(|test| test(row)));
    if let Some(order) = order {
        sort(&mut rows, order)?;
    }
    let total = rows.len() as u64;
    let rows = rows.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(Page { rows, total })
}

fn tests<'a>(found: &'a Found, tasks: Vec<TaskId>, query: &'a Query) -> ApiResult<Vec<Test<'a>>> {
    let mut tests: Vec<Test<'a>> = Vec::new();
    if !tasks.is_empty() {
        tests.push(Box::new(move |row| tasks.contains(&row.task)));
    }
    let run = &found.view.run;
    for (key, value) in [("dag_ids", run.workflow.as_str()), ("dag_run_ids", run.run_id.as_str())] {
        let wanted = query.all(key);
        if !wanted.is_empty() && !wanted.contains(&value) {
            tests.push(Box::new(|_| false));
        }
    }
    for (key, at) in [("run_after", Some(run.run_after)), ("logical_date", run.logical_date)] {
        let range = query.range(key, Query::time)?;
        if !range.is_open() && !at.is_some_and(|at| range.allows(at)) {
            tests.push(Box::new(|_| false));
        }
    }
    let times: [(&str, fn(&InstanceRecord) -> Option<Timestamp>); 3] = [
        ("start_date", |row| row.start),
        ("end_date", |row| row.end),
        ("updated_at", |row| row.end.or(row.start).or(row.queued_at)),
    ];
    for (key, time) in times {
        let range = query.range(key, Query::time)?;
        if !range.is_open() {
            tests.push(Box::new(move |row| time(row).is_some_and(|at| range.allows(at))));
        }
    }
    let duration = query.range("duration", Query::number::<f64>)?;
    if !duration.is_open() {
        tests.push(Box::new(move |row| took(row).is_some_and(|took| duration.allows(took))));
    }
    for key in ["map_index", "try_number"] {
        let mut wanted = Vec::new();
        for text in query.all(key) {
            wanted.push(text.parse::<i64>().map_err(|_| {
                ApiError::invalid(&["query", key], "int_parsing", format!("`{text}` is not a whole number"))
            })?);
        }
        if !wanted.is_empty() {
            let of_index = key == "map_index";
            tests.push(Box::new(move |row| {
                wanted.contains(&if of_index { i64::from(row.map_index) } else { i64::from(row.attempt) })
            }));
        }
    }
    if let Some(pattern) = query.pattern("task_display_name") {
        tests.push(Box::new(move |row| pattern.allows(row.task.as_str())));
    }
    let workflow = found.view.workflow.as_deref();
    let task = move |row: &InstanceRecord| workflow.and_then(|w| w.find(row.task.as_str()).map(|ix| w.task(ix)));
    let pools = query.all("pool");
    if !pools.is_empty() {
        tests.push(Box::new(move |row| {
            pools.contains(&task(row).and_then(|task| task.pool.as_deref()).unwrap_or(DEFAULT_POOL))
        }));
    }
    let operators = query.all("operator");
    if !operators.is_empty() {
        tests.push(Box::new(move |row| task(row).is_some_and(|t| operators.contains(&shapes::operator(&t.work)))));
    }
    let executors = query.all("executor");
    if !executors.is_empty() {
        tests.push(Box::new(move |row| task(row).is_some_and(|task| executors.contains(&task.backend.name()))));
    }
    if !query.all("queue").is_empty() {
        tests.push(Box::new(|_| false));
    }
    Ok(tests)
}

/// Seconds from start to end.
fn took(row: &InstanceRecord) -> Option<f64> {
    Some(row.end?.duration_since(row.start?).as_secs_f64())
}

/// What has no time or duration comes last, in either order.
fn sort(rows: &mut [InstanceRecord], order: &str) -> ApiResult<()> {
    let (key, backwards) = order.strip_prefix('-').map_or((order, false), |key| (key, true));
    match key {
        "map_index" | "rendered_map_index" => rows.sort_by_key(|row| row.map_index),
        "id" | "task_id" | "task_display_name" => {
            rows.sort_by(|a, b| (&a.task, a.map_index).cmp(&(&b.task, b.map_index)));
        }
        "state" => rows.sort_by_key(|row| row.state.name()),
        "try_number" => rows.sort_by_key(|row| row.attempt),
        "start_date" => rows.sort_by_key(|row| (row.start.is_none() != backwards, row.start)),
        "end_date" => rows.sort_by_key(|row| (row.end.is_none() != backwards, row.end)),
        "duration" => rows.sort_by_key(|row| {
            let duration = row.start.zip(row.end).map(|(start, end)| end.duration_since(start));
            (duration.is_none() != backwards, duration)
        }),
        // The same for all instances of a run.
        "logical_date" | "run_after" | "data_interval_start" | "data_interval_end" | "dag_id" | "run_id" => {}
        _ => {
            let message = format!("Ordering with `{order}` is disallowed or the attribute does not exist on the model");
            return Err(ApiError::bad_request(message));
        }
    }
    if backwards {
        rows.reverse();
    }
    Ok(())
}

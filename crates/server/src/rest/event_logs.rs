//! The audit log, as event logs.

use axum::Json;
use axum::extract::{Path, State};
use pitcrew_core::RunId;
use pitcrew_store::{AuditFilter, AuditRow, Page, Paging};
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::Viewer;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number, workflow_id};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// Entries that are looked through for what the store has no filter for.
const MAX_SCANNED: u32 = 10_000;

pub fn routes() -> Routes {
    let filters = "order_by: text, dag_id: text, task_id: text, run_id: text, map_index: int, try_number: int, \
                   owner: text, event: text, excluded_events: [text], included_events: [text], before: time, \
                   after: time, dag_id_pattern: text, task_id_pattern: text, run_id_pattern: text, \
                   owner_pattern: text, event_pattern: text";
    Routes::api()
        .get("/api/v2/eventLogs", Role(Viewer), list)
        .doc(doc("Event Log", "Lists who did what").paged().query(filters).answer(200, "EventLogCollectionResponse"))
        .get("/api/v2/eventLogs/{event_log_id}", Role(Viewer), get)
        .doc(doc("Event Log", "Shows who did something").answer(200, "EventLogResponse"))
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let mut filter = AuditFilter {
        workflow: query.text("dag_id").map(workflow_id).transpose()?,
        event: query.text("event").map(str::to_owned),
        who: query.text("owner").map(str::to_owned),
        ..AuditFilter::default()
    };
    filter.at.from = query.time("after")?;
    filter.at.to = query.time("before")?;
    if let Some(run) = query.text("run_id") {
        match RunId::new(run) {
            Ok(run) => filter.run = Some(run),
            Err(_) => return Ok(answer(Page { rows: Vec::new(), total: 0 })),
        }
    }
    let oldest_first = match query.text("order_by") {
        // Airflow begins with the oldest.
        None | Some("id" | "when" | "dttm" | "event_log_id") => true,
        Some("-id" | "-when" | "-dttm" | "-event_log_id") => false,
        Some(other) => {
            let message = format!("Ordering with `{other}` is disallowed or the attribute does not exist on the model");
            return Err(ApiError::bad_request(message));
        }
    };
    let paging = query.paging()?;
    let tests = tests(&query)?;
    if tests.is_empty() && !oldest_first {
        return Ok(answer(site.app.store.audit(&filter, paging).await?));
    }
    if tests.is_empty() {
        return Ok(answer(from_the_end(&site, &filter, paging).await?));
    }
    let mut rows = site.app.store.audit(&filter, Paging::first(MAX_SCANNED)).await?.rows;
    rows.retain(|row| tests.iter().all(|test| test(row)));
    if oldest_first {
        rows.reverse();
    }
    let total = rows.len() as u64;
    let rows = rows.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(answer(Page { rows, total }))
}

/// The store lists the newest first; this is the same list from its end, as far as it is counted.
async fn from_the_end(site: &Site, filter: &AuditFilter, paging: Paging) -> ApiResult<Page<AuditRow>> {
    let total = site.app.store.audit(filter, Paging::first(1)).await?.total;
    let end = total.saturating_sub(paging.offset);
    let start = end.saturating_sub(u64::from(paging.limit));
    let window = Paging { limit: (end - start) as u32, offset: start };
    let mut rows = site.app.store.audit(filter, window).await?.rows;
    rows.reverse();
    Ok(Page { rows, total })
}

fn answer(page: Page<AuditRow>) -> Json<Value> {
    let shown: Vec<Value> = page.rows.iter().map(shape).collect();
    Json(json!({ "event_logs": shown, "total_entries": page.total }))
}

type Test = Box<dyn Fn(&AuditRow) -> bool + Send + Sync>;

/// What the store cannot be asked for.
fn tests(query: &Query) -> ApiResult<Vec<Test>> {
    let mut tests: Vec<Test> = Vec::new();
    let owned = |key: &str| query.all(key).into_iter().map(str::to_owned).collect::<Vec<String>>();
    let (included, excluded) = (owned("included_events"), owned("excluded_events"));
    if !included.is_empty() {
        tests.push(Box::new(move |row| included.contains(&row.entry.event)));
    }
    if !excluded.is_empty() {
        tests.push(Box::new(move |row| !excluded.contains(&row.entry.event)));
    }
    let texts: [(&str, fn(&AuditRow) -> &str); 5] = [
        ("dag_id", |row| row.entry.workflow.as_ref().map_or("", |id| id.as_str())),
        ("task_id", task),
        ("run_id", |row| row.entry.run.as_ref().map_or("", |id| id.as_str())),
        ("owner", |row| &row.entry.who),
        ("event", |row| &row.entry.event),
    ];
    for (key, text) in texts {
        if let Some(pattern) = query.pattern(key) {
            tests.push(Box::new(move |row| pattern.allows(text(row))));
        }
    }
    if let Some(wanted) = query.text("task_id").map(str::to_owned) {
        tests.push(Box::new(move |row| task(row) == wanted));
    }
    if let Some(wanted) = query.number::<i64>("map_index")? {
        tests.push(Box::new(move |row| row.entry.detail["map_index"].as_i64() == Some(wanted)));
    }
    // No entry is about one attempt.
    if query.number::<i64>("try_number")?.is_some() {
        tests.push(Box::new(|_| false));
    }
    Ok(tests)
}

/// The task that an entry is about.
fn task(row: &AuditRow) -> &str {
    let named = row.entry.task.as_ref().map(|id| id.as_str());
    named.or(row.entry.detail["task"].as_str()).unwrap_or_default()
}

pub async fn get(State(site): State<Site>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let number: i64 = number("event_log_id", &id)?;
    let row = site.app.store.audit_entry(number).await?;
    let row = row.ok_or_else(|| ApiError::not_found(format!("The Event Log with id: `{id}` not found")))?;
    Ok(Json(shape(&row)))
}

fn shape(row: &AuditRow) -> Value {
    let entry = &row.entry;
    let task = Some(task(row)).filter(|task| !task.is_empty());
    json!({
        "event_log_id": row.id,
        "when": entry.at,
        "event": entry.event,
        "dag_id": entry.workflow,
        "dag_display_name": entry.workflow,
        "task_id": task,
        "task_display_name": task,
        "run_id": entry.run,
        "map_index": entry.detail["map_index"].as_i64(),
        "try_number": null,
        "logical_date": null,
        "owner": entry.who,
        "extra": (!entry.detail.is_null()).then(|| entry.detail.to_string()),
    })
}

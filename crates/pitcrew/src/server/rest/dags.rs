//! Workflows, as DAGs.

use std::collections::BTreeSet;

use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::HeaderMap};
use pitcrew_store::{AuditEntry, WorkflowFilter, WorkflowRow};
use serde_json::{Value, json};

use super::shapes;
use crate::clock;
use crate::server::auth::User;
use crate::server::error::{ApiError, ApiResult};
use crate::server::input::{Body, Query, workflow_id};
use crate::server::{Site, TEXT};

/// The DAG of a path; also one whose file is gone, as long as the store has it.
pub async fn find(site: &Site, dag: &str) -> ApiResult<WorkflowRow> {
    let id = workflow_id(dag)?;
    let row = site.app.store.workflow(&id).await?;
    row.ok_or_else(|| ApiError::not_found(format!("The Dag with ID: `{dag}` was not found")))
}

async fn broken_files(site: &Site) -> ApiResult<BTreeSet<String>> {
    Ok(site.app.store.file_errors().await?.into_iter().map(|error| error.path).collect())
}

pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let active_only = query.boolean("only_active")?.unwrap_or(true) && query.boolean("exclude_stale")?.unwrap_or(true);
    let pattern = query.text("dag_id_pattern").or(query.text("dag_display_name_pattern"));
    let filter = WorkflowFilter {
        contains: pattern.map(|pattern| pattern.trim_matches(['%', '~']).to_owned()).filter(|p| !p.is_empty()),
        tags: query.all("tags").into_iter().map(str::to_owned).collect(),
        paused: query.boolean("paused")?,
        active: active_only.then_some(true),
    };
    let page = match query.text("order_by") {
        None | Some("dag_id" | "dag_display_name") => site.app.store.workflows(&filter, query.paging()?).await?,
        Some("-dag_id" | "-dag_display_name") => backwards(&site, &filter, query.paging()?).await?,
        Some(other) => {
            let message = format!("dags cannot be ordered by `{other}`, only by `dag_id` or `-dag_id`");
            return Err(ApiError::bad_request(message));
        }
    };
    let broken = broken_files(&site).await?;
    let mut dags = Vec::with_capacity(page.rows.len());
    for row in &page.rows {
        let workflow = site.app.catalog.load(&site.app.store, &row.id, &row.version).await.ok();
        dags.push(Value::Object(shapes::dag(row, workflow.as_deref(), broken.contains(&row.path))));
    }
    Ok(Json(json!({ "dags": dags, "total_entries": page.total })))
}

/// The same list from its end.
async fn backwards(
    site: &Site,
    filter: &WorkflowFilter,
    paging: pitcrew_store::Paging,
) -> ApiResult<pitcrew_store::Page<WorkflowRow>> {
    let total = site.app.store.workflows(filter, pitcrew_store::Paging::first(1)).await?.total;
    let end = total.saturating_sub(paging.offset);
    let start = end.saturating_sub(u64::from(paging.limit));
    let window = pitcrew_store::Paging { limit: (end - start) as u32, offset: start };
    let mut page = site.app.store.workflows(filter, window).await?;
    page.rows.reverse();
    Ok(page)
}

pub async fn get(State(site): State<Site>, Path(dag): Path<String>) -> ApiResult<Json<Value>> {
    let row = find(&site, &dag).await?;
    one(&site, &row).await
}

async fn one(site: &Site, row: &WorkflowRow) -> ApiResult<Json<Value>> {
    let workflow = site.app.catalog.load(&site.app.store, &row.id, &row.version).await.ok();
    let broken = broken_files(site).await?.contains(&row.path);
    Ok(Json(Value::Object(shapes::dag(row, workflow.as_deref(), broken))))
}

pub async fn details(State(site): State<Site>, Path(dag): Path<String>) -> ApiResult<Json<Value>> {
    let row = find(&site, &dag).await?;
    let workflow = site.app.catalog.load(&site.app.store, &row.id, &row.version).await.ok();
    let versions = site.app.store.versions(&row.id).await?;
    let latest = shapes::find_version(&versions, &row.version);
    let open = site.app.store.open_run_counts(&row.id).await?.open();
    let broken = broken_files(&site).await?.contains(&row.path);
    Ok(Json(shapes::dag_details(&row, workflow.as_deref(), latest.as_ref(), open, broken)))
}

/// Pauses and unpauses.
pub async fn patch(
    State(site): State<Site>,
    Path(dag): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let row = find(&site, &dag).await?;
    let paused = body.boolean("is_paused");
    body.finish()?;
    let Some(paused) = paused else {
        return Err(ApiError::invalid(&["body", "is_paused"], "missing", "is missing"));
    };
    pause(&site, &row, paused, &user).await?;
    let row = find(&site, &dag).await?;
    one(&site, &row).await
}

/// Pauses or unpauses, and wakes the schedules.
pub async fn pause(site: &Site, row: &WorkflowRow, paused: bool, user: &User) -> ApiResult<()> {
    let event = if paused { "workflow.pause" } else { "workflow.unpause" };
    let mut audit = AuditEntry::new(clock::now(), user.name.clone(), event);
    audit.workflow = Some(row.id.clone());
    if site.app.store.set_paused(&row.id, paused, audit).await? {
        site.app.schedules.notify_one();
    }
    Ok(())
}

pub async fn tags(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let paging = query.paging()?;
    let all = site.app.store.tags().await?;
    let total = all.len();
    let tags: Vec<String> = all.into_iter().skip(paging.offset as usize).take(paging.limit as usize).collect();
    Ok(Json(json!({ "tags": tags, "total_entries": total })))
}

/// The source, as JSON or, if the client asks for text, as it is.
pub async fn source(
    State(site): State<Site>,
    Path(dag): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let row = find(&site, &dag).await?;
    let versions = site.app.store.versions(&row.id).await?;
    let hash = match query.number::<usize>("version_number")? {
        None => row.version.clone(),
        Some(number) => {
            let place = versions.len().checked_sub(number).filter(|_| number > 0);
            let version = place.and_then(|place| versions.get(place));
            version
                .map(|version| version.hash.clone())
                .ok_or_else(|| ApiError::not_found(format!("The Dag with ID: `{dag}` has no version {number}")))?
        }
    };
    let content = site.app.store.version_source(&row.id, &hash).await?.unwrap_or_default();
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.starts_with("text/plain") {
        return Ok((TEXT, content).into_response());
    }
    let number = shapes::find_version(&versions, &hash).map(|found| found.number);
    let body = json!({ "content": content, "dag_id": row.id, "version_number": number, "dag_display_name": row.id });
    Ok(Json(body).into_response())
}

pub async fn import_errors(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let paging = query.paging()?;
    let all = site.app.store.file_errors().await?;
    let total = all.len();
    let shown = all.into_iter().enumerate().skip(paging.offset as usize).take(paging.limit as usize);
    let errors: Vec<Value> = shown
        .map(|(at, error)| {
            json!({
                "import_error_id": at + 1,
                "timestamp": error.at,
                "filename": error.path,
                "bundle_name": "workflows",
                "stack_trace": error.message,
            })
        })
        .collect();
    Ok(Json(json!({ "import_errors": errors, "total_entries": total })))
}

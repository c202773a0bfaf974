//! Workflows, as DAGs.

use std::collections::BTreeSet;

use axum::extract::{Extension, Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Json, http::HeaderMap};
use pitcrew_control::clock;
use pitcrew_store::{AuditEntry, FileError, WorkflowFilter, WorkflowRow};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{delete, shapes};
use crate::auth::Role::{self as UserRole, Viewer};
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, number, workflow_id};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};
use crate::{Site, TEXT};

pub fn routes() -> Routes {
    let filters = "order_by: text, tags: [text], dag_id_pattern: text, dag_display_name_pattern: text, paused: bool, \
                   exclude_stale: bool, only_active: bool";
    let patterns = "order_by: text, tag_name_pattern: text, tag_name_prefix_pattern: text";
    Routes::api()
        .get("/api/v2/dags", Role(Viewer), list)
        .doc(doc("DAG", "Lists workflows").paged().query(filters).answer(200, "DAGCollectionResponse"))
        .get("/api/v2/dags/{dag_id}", Role(Viewer), get)
        .doc(doc("DAG", "Shows a workflow").answer(200, "DAGResponse"))
        .patch("/api/v2/dags/{dag_id}", Role(UserRole::User), patch)
        .doc(
            doc("DAG", "Pauses or unpauses a workflow")
                .query("update_mask: [text]")
                .body("DAGPatchBody")
                .answer(200, "DAGResponse"),
        )
        .delete("/api/v2/dags/{dag_id}", Role(UserRole::Op), delete::dag)
        .doc(doc("DAG", "Deletes the runs of a workflow, and the workflow if its file is gone").answer(200, "any"))
        .get("/api/v2/dags/{dag_id}/details", Role(Viewer), details)
        .doc(doc("DAG", "Shows a workflow with its params").answer(200, "DAGDetailsResponse"))
        .get("/api/v2/dagTags", Role(Viewer), tags)
        .doc(doc("DAG", "Lists the tags of workflows").paged().query(patterns).answer(200, "DAGTagCollectionResponse"))
        .get("/api/v2/dagSources/{dag_id}", Role(Viewer), source)
        .doc(
            doc("DagSource", "Shows the source of a workflow; as it is for `Accept: text/plain`")
                .query("version_number: int")
                .answer(200, "DAGSourceResponse"),
        )
        .get("/api/v2/importErrors", Role(Viewer), import_errors)
        .doc(
            doc("Import Error", "Lists files that give no workflow, and why")
                .paged()
                .query("order_by: text, filename_pattern: text, filename_prefix_pattern: text")
                .answer(200, "ImportErrorCollectionResponse"),
        )
        .get("/api/v2/importErrors/{import_error_id}", Role(Viewer), import_error)
        .doc(doc("Import Error", "Shows why a file gives no workflow").answer(200, "ImportErrorResponse"))
}

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
    let mut all = site.app.store.tags().await?;
    all.retain(|tag| query.allows("tag_name", tag));
    if query.text("order_by").is_some_and(|order| order.starts_with('-')) {
        all.reverse();
    }
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
    let mut all = site.app.store.file_errors().await?;
    all.retain(|error| query.allows("filename", &error.path));
    match query.text("order_by") {
        None | Some("id" | "import_error_id" | "filename") => {}
        Some("-id" | "-import_error_id" | "-filename") => all.reverse(),
        Some("timestamp") => all.sort_by_key(|error| error.at),
        Some("-timestamp") => all.sort_by_key(|error| std::cmp::Reverse(error.at)),
        Some(other) => return Err(ApiError::bad_request(format!("import errors cannot be ordered by `{other}`"))),
    }
    let total = all.len();
    let shown = all.iter().skip(paging.offset as usize).take(paging.limit as usize);
    let errors: Vec<Value> = shown.map(error_shape).collect();
    Ok(Json(json!({ "import_errors": errors, "total_entries": total })))
}

pub async fn import_error(State(site): State<Site>, Path(id): Path<String>) -> ApiResult<Json<Value>> {
    let wanted: u32 = number("import_error_id", &id)?;
    let all = site.app.store.file_errors().await?;
    let found = all.iter().find(|error| error_id(&error.path) == wanted);
    let missing = || ApiError::not_found(format!("The ImportError with import_error_id: `{id}` was not found"));
    found.map(|error| Json(error_shape(error))).ok_or_else(missing)
}

fn error_shape(error: &FileError) -> Value {
    json!({
        "import_error_id": error_id(&error.path),
        "timestamp": error.at,
        "filename": error.path,
        "bundle_name": shapes::BUNDLE,
        "stack_trace": error.message,
    })
}

/// A number for the error of a file, the same as long as the file is broken.
fn error_id(path: &str) -> u32 {
    let digest = Sha256::digest(path);
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 1
}

//! Versions of a workflow: each source that it had, numbered from 1.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{dags, shapes};
use crate::Site;
use crate::auth::Role::Viewer;
use crate::error::{ApiError, ApiResult};
use crate::input::{Query, number};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

pub fn routes() -> Routes {
    let filters = "version_number: int, bundle_name: text, bundle_version: text, order_by: text";
    Routes::api()
        .get("/api/v2/dags/{dag_id}/dagVersions", Role(Viewer), list)
        .doc(
            doc("DagVersion", "Lists the versions of a workflow, the oldest first")
                .paged()
                .query(filters)
                .answer(200, "DAGVersionCollectionResponse"),
        )
        .get("/api/v2/dags/{dag_id}/dagVersions/{version_number}", Role(Viewer), get)
        .doc(doc("DagVersion", "Shows a version of a workflow").answer(200, "DagVersionResponse"))
}

pub async fn list(State(site): State<Site>, Path(dag): Path<String>, query: Query) -> ApiResult<Json<Value>> {
    let row = dags::find(&site, &dag).await?;
    let versions = site.app.store.versions(&row.id).await?;
    let mut numbers: Vec<usize> = (1..=versions.len()).collect();
    if let Some(wanted) = query.number::<usize>("version_number")? {
        numbers.retain(|number| *number == wanted);
    }
    if let Some(hash) = query.text("bundle_version") {
        numbers.retain(|number| versions[versions.len() - number].hash == hash);
    }
    if query.text("bundle_name").is_some_and(|name| name != shapes::BUNDLE) {
        numbers.clear();
    }
    match query.text("order_by") {
        None | Some("id" | "version_number" | "created_at") => {}
        Some("-id" | "-version_number" | "-created_at") => numbers.reverse(),
        Some(other) => return Err(ApiError::bad_request(format!("versions cannot be ordered by `{other}`"))),
    }
    let total = numbers.len();
    let paging = query.paging()?;
    let shown = numbers.into_iter().skip(paging.offset as usize).take(paging.limit as usize);
    let shaped = shown.map(|number| {
        let version = versions[versions.len() - number].clone();
        shapes::dag_version(&row.id, &shapes::DagVersion { number, version })
    });
    Ok(Json(json!({ "dag_versions": shaped.collect::<Vec<_>>(), "total_entries": total })))
}

pub async fn get(State(site): State<Site>, Path((dag, wanted)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let row = dags::find(&site, &dag).await?;
    let wanted: usize = number("version_number", &wanted)?;
    let versions = site.app.store.versions(&row.id).await?;
    let place = versions.len().checked_sub(wanted).filter(|_| wanted > 0);
    let version = place.and_then(|place| versions.get(place)).cloned().ok_or_else(|| {
        ApiError::not_found(format!("The DagVersion with dag_id: `{dag}` and version_number: `{wanted}` was not found"))
    })?;
    Ok(Json(shapes::dag_version(&row.id, &shapes::DagVersion { number: wanted, version })))
}

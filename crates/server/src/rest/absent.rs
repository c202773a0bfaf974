//! What Airflow's API has and Pitcrew has not: assets, plugins, warnings, questions to people. Lists of it are empty,
//! and nothing in them can be found.

use axum::Json;
use axum::extract::Path;
use serde_json::{Map, Value, json};

use crate::auth::Role::{User, Viewer};
use crate::error::{ApiError, ApiResult};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

/// Lists: path, the key of the list, the shape, the tag.
const LISTS: [(&str, &str, &str, &str); 8] = [
    ("/api/v2/assets", "assets", "AssetCollectionResponse", "Asset"),
    ("/api/v2/assets/aliases", "asset_aliases", "AssetAliasCollectionResponse", "Asset"),
    ("/api/v2/assets/events", "asset_events", "AssetEventCollectionResponse", "Asset"),
    ("/api/v2/dags/{dag_id}/assets/queuedEvents", "queued_events", "QueuedEventCollectionResponse", "Asset"),
    ("/api/v2/dagWarnings", "dag_warnings", "DAGWarningCollectionResponse", "DagWarning"),
    ("/api/v2/plugins", "plugins", "PluginCollectionResponse", "Plugin"),
    ("/api/v2/plugins/importErrors", "import_errors", "PluginImportErrorCollectionResponse", "Plugin"),
    (
        "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/upstreamAssetEvents",
        "asset_events",
        "AssetEventCollectionResponse",
        "DagRun",
    ),
];

pub fn routes() -> Routes {
    let mut routes = Routes::api();
    for (path, key, shape, tag) in LISTS {
        let summary = "An empty list: Pitcrew has none of these";
        let answer = async move || Json(empty(key));
        routes = routes.get(path, Role(Viewer), answer).doc(doc(tag, summary).paged().answer(200, shape));
    }
    let summary = "Not found: Pitcrew has no assets";
    routes
        .get("/api/v2/assets/{asset_id}", Role(Viewer), asset)
        .doc(doc("Asset", summary).answer(404, "HTTPExceptionResponse"))
        .get("/api/v2/assets/aliases/{asset_alias_id}", Role(Viewer), asset)
        .doc(doc("Asset", summary).answer(404, "HTTPExceptionResponse"))
        .get("/api/v2/assets/{asset_id}/queuedEvents", Role(Viewer), asset)
        .doc(doc("Asset", summary).answer(404, "HTTPExceptionResponse"))
        .post("/api/v2/assets/events", Role(User), no_event)
        .doc(doc("Asset", summary).answer(404, "HTTPExceptionResponse"))
        .post("/api/v2/assets/{asset_id}/materialize", Role(User), asset)
        .doc(doc("Asset", summary).answer(404, "HTTPExceptionResponse"))
}

fn empty(key: &str) -> Value {
    let mut map = Map::new();
    map.insert(key.to_owned(), json!([]));
    map.insert("total_entries".to_owned(), json!(0));
    Value::Object(map)
}

async fn asset(Path(id): Path<String>) -> ApiResult<Json<Value>> {
    Err(ApiError::not_found(format!("The Asset with ID: `{id}` was not found: Pitcrew has no assets")))
}

async fn no_event() -> ApiResult<Json<Value>> {
    Err(ApiError::not_found("Pitcrew has no assets"))
}

//! How many runs of each workflow are in which state.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use pitcrew_core::WorkflowId;
use pitcrew_store::RunCounts;
use serde_json::{Value, json};

use crate::Site;
use crate::auth::Role::Viewer;
use crate::error::ApiResult;
use crate::input::{Query, workflow_id};
use crate::openapi::doc;
use crate::routes::{Access::Role, Routes};

pub fn routes() -> Routes {
    Routes::api().get("/api/v2/dagStats", Role(Viewer), list).doc(
        doc("DagStats", "Counts the runs of workflows by state")
            .query("dag_ids: [text]")
            .answer(200, "DagStatsCollectionResponse"),
    )
}

/// Of all workflows with runs, or of the named ones that exist.
pub async fn list(State(site): State<Site>, query: Query) -> ApiResult<Json<Value>> {
    let mut counts = site.app.store.run_counts().await?;
    let named = query.all("dag_ids");
    let wanted: BTreeMap<WorkflowId, RunCounts> = if named.is_empty() {
        counts
    } else {
        let mut wanted = BTreeMap::new();
        for id in named {
            let Ok(id) = workflow_id(id) else { continue };
            let of_it = counts.remove(&id);
            if of_it.is_some() || site.app.store.workflow(&id).await?.is_some() {
                wanted.insert(id, of_it.unwrap_or_default());
            }
        }
        wanted
    };
    let dags: Vec<Value> = wanted.iter().map(|(id, counts)| shape(id, counts)).collect();
    Ok(Json(json!({ "total_entries": dags.len(), "dags": dags })))
}

/// Airflow has no cancelled runs; there they are failed.
fn shape(id: &WorkflowId, counts: &RunCounts) -> Value {
    let states = [
        ("queued", counts.queued),
        ("running", counts.running),
        ("success", counts.success),
        ("failed", counts.failed + counts.cancelled),
    ];
    let stats = states.map(|(state, count)| json!({ "state": state, "count": count }));
    json!({ "dag_id": id, "dag_display_name": id, "stats": stats })
}

//! Deleting runs, and workflows with their runs. What is not over is not deleted.

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use pitcrew_control::clock;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_store::{AuditEntry, Paging, RunFilter};
use serde_json::Value;

use super::dags;
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{run_id, workflow_id};
use crate::view::find_run;

/// Runs that are listed at a time.
const BATCH: u32 = 500;

pub async fn run(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
) -> ApiResult<StatusCode> {
    let run = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    remove(&site, &run, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The rows, then the files; if the server ends in between, retention finds them.
async fn remove(site: &Site, run: &RunRecord, user: &User) -> ApiResult<()> {
    let mut audit = AuditEntry::new(clock::now(), user.name.clone(), "run.delete");
    audit.workflow = Some(run.workflow.clone());
    audit.run = Some(run.run_id.clone());
    if !site.app.store.delete_run(run.key, audit).await? {
        return Ok(());
    }
    let (data, key) = (site.app.data.clone(), run.key);
    let removed = tokio::task::spawn_blocking(move || data.remove_run(key)).await.map_err(anyhow::Error::from)?;
    match removed {
        Ok(()) => {
            if let Some(local) = site.app.backends.homed() {
                local.deleted(&[key]).await?;
            }
            site.app.store.retention_done(&[key]).await?;
        }
        Err(error) => tracing::warn!(%error, "cannot remove the files of run {key}; retention will try again"),
    }
    Ok(())
}

/// All runs of a workflow; and the workflow itself, if its file is gone. As in Airflow, a workflow whose file is still
/// there stays, without its history.
pub async fn dag(
    State(site): State<Site>,
    Path(dag): Path<String>,
    Extension(user): Extension<User>,
) -> ApiResult<Json<Value>> {
    let row = dags::find(&site, &dag).await?;
    let open = site.app.store.open_run_counts(&row.id).await?.open();
    if open > 0 {
        let message = format!("`{dag}` has {open} runs that are not over: cancel them first, and wait for their end");
        return Err(ApiError::conflict(message));
    }
    let filter = RunFilter { workflow: Some(row.id.clone()), ..RunFilter::default() };
    loop {
        let runs = site.app.store.runs(&filter, Paging::first(BATCH)).await?.rows;
        if runs.is_empty() {
            break;
        }
        for run in &runs {
            remove(&site, run, &user).await?;
        }
    }
    if !row.active {
        let mut audit = AuditEntry::new(clock::now(), user.name.clone(), "workflow.delete");
        audit.workflow = Some(row.id.clone());
        site.app.store.delete_workflow(&row.id, audit).await?;
    }
    Ok(Json(Value::Null))
}

//! Runs, as DAG runs: show, trigger, change.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Extension, Path, State};
use pitcrew_control::app::Trigger;
use pitcrew_control::scheduler::{Clear, Edit};
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::state::{RunState, State as TaskState};
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_store::{Paging, Version};
use serde_json::{Value, json};

use super::bulk::Mask;
use super::instances::Found;
use super::{dags, shapes};
use crate::Site;
use crate::auth::User;
use crate::error::{ApiError, ApiResult};
use crate::input::{Body, Query, run_id, workflow_id};
use crate::view::{Filter, find_run};

/// Characters of a note.
const MAX_NOTE: usize = 1000;

/// Shapes runs, and reads the versions of each workflow once.
#[derive(Default)]
pub struct Shaper(BTreeMap<WorkflowId, Vec<Version>>);

impl Shaper {
    pub async fn run(&mut self, site: &Site, run: &RunRecord) -> ApiResult<Value> {
        Ok(shapes::run(run, self.version(site, run).await?.as_ref()))
    }

    pub async fn version(&mut self, site: &Site, run: &RunRecord) -> ApiResult<Option<shapes::DagVersion>> {
        self.version_of(site, &run.workflow, &run.version).await
    }

    /// The version of a workflow that has this hash.
    pub async fn version_of(
        &mut self,
        site: &Site,
        workflow: &WorkflowId,
        hash: &str,
    ) -> ApiResult<Option<shapes::DagVersion>> {
        if !self.0.contains_key(workflow) {
            let versions = site.app.store.versions(workflow).await?;
            self.0.insert(workflow.clone(), versions);
        }
        Ok(shapes::find_version(&self.0[workflow], hash))
    }
}

pub async fn get(State(site): State<Site>, Path((dag, run)): Path<(String, String)>) -> ApiResult<Json<Value>> {
    let run = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    Ok(Json(Shaper::default().run(&site, &run).await?))
}

pub async fn trigger(
    State(site): State<Site>,
    Path(dag): Path<String>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let workflow = dags::find(&site, &dag).await?.id;
    let trigger = Trigger {
        run_type: None,
        conf: body.object("conf").unwrap_or_default(),
        run_id: body.parsed("dag_run_id", RunId::new),
        logical_date: body.time("logical_date"),
        run_after: body.time("run_after"),
        note: body.text("note").unwrap_or_default(),
        report: None,
        by: user.name,
    };
    body.ignore(&["data_interval_start", "data_interval_end", "partition_key"]);
    body.finish()?;
    let run = site.app.trigger(&workflow, trigger).await?;
    Ok(Json(Shaper::default().run(&site, &run).await?))
}

/// `{"state": "failed"}` stops the run, as it does in Airflow; a note can be changed at any time.
pub async fn patch(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
    query: Query,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let (dag, run) = (workflow_id(&dag)?, run_id(&run)?);
    let found = find_run(&site.app, &dag, &run).await?;
    let mask = Mask::of_query(&query);
    let state = body.text("state").filter(|_| mask.has("state"));
    let has_note = body.has("note") && mask.has("note");
    let note = body.text("note").unwrap_or_default();
    if note.chars().count() > MAX_NOTE {
        body.problem("note", "string_too_long", format!("must have {MAX_NOTE} characters at most"));
    }
    body.finish()?;
    match state.as_deref() {
        None => {}
        Some("failed") if !found.state.is_final() => site.app.scheduler.cancel(found.key, &user.name).await?,
        Some("failed") if found.state != RunState::Success => {}
        Some("success" | "queued" | "failed") => {
            let message =
                "a run can be set to `failed` while it is active, which stops it; to run it again, clear its tasks";
            return Err(ApiError::bad_request(message));
        }
        Some(_) => {
            return Err(ApiError::invalid(&["body", "state"], "enum", "must be `queued`, `success` or `failed`"));
        }
    }
    if has_note {
        site.app.scheduler.edit(found.key, Edit::Note(note), &user.name).await?;
    }
    let found = find_run(&site.app, &dag, &run).await?;
    Ok(Json(Shaper::default().run(&site, &found).await?))
}

/// Lets all tasks of a run go again, or those that failed; without `dry_run: false` only says which.
pub async fn clear(
    State(site): State<Site>,
    Path((dag, run)): Path<(String, String)>,
    Extension(user): Extension<User>,
    mut body: Body,
) -> ApiResult<Json<Value>> {
    let dry_run = body.boolean("dry_run").unwrap_or(true);
    let only_failed = body.boolean("only_failed").unwrap_or(false);
    let only_new = body.boolean("only_new").unwrap_or(false);
    let note = body.text("note");
    // A cleared run goes on in the version that it began with.
    body.ignore(&["run_on_latest_version"]);
    body.finish()?;
    if only_new {
        return Err(ApiError::bad_request("`only_new` is not supported: a run keeps the tasks that it began with"));
    }
    let found = Found::load(&site, &dag, &run).await?;
    if dry_run {
        let rows = found.view.page(&site.app, &Filter::default(), Paging::ALL).await?.rows;
        let is_wanted = |row: &InstanceRecord| match only_failed {
            true => matches!(row.state, TaskState::Failed | TaskState::UpstreamFailed),
            false => true,
        };
        let around = found.around();
        let shown: Vec<Value> = rows.iter().filter(|row| is_wanted(row)).map(|row| around.instance(row)).collect();
        return Ok(Json(json!({ "total_entries": shown.len(), "task_instances": shown })));
    }
    let key = found.view.run.key;
    let picks = if only_failed { Clear::Failed } else { Clear::All };
    site.app.scheduler.clear(key, picks, &user.name).await?;
    if let Some(note) = note {
        site.app.scheduler.edit(key, Edit::Note(note), &user.name).await?;
    }
    let found = find_run(&site.app, &workflow_id(&dag)?, &run_id(&run)?).await?;
    Ok(Json(Shaper::default().run(&site, &found).await?))
}

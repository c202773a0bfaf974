//! What the surfaces (CLI, REST, pages) share: the store, the scheduler, and the few things that need both.

use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, RunRecord, RunType};
use pitcrew_core::{RunId, WorkflowId};
use pitcrew_exec::aws::Aws;
use pitcrew_exec::worker::Hub;
use pitcrew_exec::{Backend, Handle, LogChunk};
use pitcrew_lang::ParamError;
use pitcrew_store::{AuditEntry, CreateRun, NewRun, Store, StoreError, WorkflowRow};
use serde_json::{Map, Value, json};

use crate::backends::Backends;
use crate::catalog::Catalog;
use crate::clock;
use crate::fleet::Fleet;
use crate::metrics::Metrics;
use crate::paths::DataDir;
use crate::scheduler::Scheduler;
use crate::vault::Vault;

/// Cheap to clone.
#[derive(Clone)]
pub struct App {
    pub store: Store,
    pub scheduler: Scheduler,
    pub catalog: Arc<Catalog>,
    pub data: DataDir,
    pub vault: Vault,
    pub aws: Aws,
    pub backends: Backends,
    pub metrics: Metrics,
    pub fleet: Fleet,
    pub workers: Hub,
    pub recovery: crate::recovery::Desk,
    /// Channels, and rules for all workflows.
    pub notify: Arc<crate::notify::config::Config>,
    /// Wakes whoever serves the schedules: a workflow changed, or was paused or unpaused.
    pub schedules: Arc<tokio::sync::Notify>,
    /// What listeners share.
    pub hooks: Arc<crate::hooks::Desk>,
}

/// A wish for a run.
#[derive(Debug, Clone, Default)]
pub struct Trigger {
    pub conf: Map<String, Value>,
    pub run_id: Option<RunId>,
    pub logical_date: Option<Timestamp>,
    pub run_after: Option<Timestamp>,
    /// By hand, unless something else is said.
    pub run_type: Option<RunType>,
    pub note: String,
    /// The commit that its results are written to.
    pub report: Option<crate::hooks::report::Target>,
    /// Who asks, as shown.
    pub by: String,
}

/// Why no run was made.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    #[error("there is no workflow `{0}`")]
    NoSuchWorkflow(WorkflowId),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Params(Vec<ParamError>),
    #[error("`{}` has the run `{}` already", .0.workflow, .0.run_id)]
    Exists(Box<RunRecord>),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl App {
    /// Makes a run of the newest version of a workflow, after checking its params. It begins when its turn comes.
    pub async fn trigger(&self, id: &WorkflowId, trigger: Trigger) -> Result<RunRecord, TriggerError> {
        let row = self.store.workflow(id).await?.filter(|row| row.active);
        let row = row.ok_or_else(|| TriggerError::NoSuchWorkflow(id.clone()))?;
        let run = self.new_run(&row, trigger).await?;
        match self.store.create_run(run, None).await? {
            CreateRun::Created(run) => {
                self.scheduler.look();
                Ok(run)
            }
            CreateRun::Exists { run, .. } => Err(TriggerError::Exists(Box::new(run))),
        }
    }

    async fn new_run(&self, row: &WorkflowRow, trigger: Trigger) -> Result<NewRun, TriggerError> {
        let workflow = self.catalog.load(&self.store, &row.id, &row.version).await?;
        new_run(&workflow, &row.version, trigger, clock::now())
    }

    /// The backend that has an attempt, and the handle to find it there.
    pub fn backend_of(&self, attempt: &AttemptRecord) -> Result<(Arc<dyn Backend>, Handle), anyhow::Error> {
        let handle = serde_json::from_value(attempt.handle.clone())?;
        Ok((self.backends.named(&attempt.backend), handle))
    }

    /// Records of an attempt's log from a byte offset; also long after the attempt is over.
    pub async fn logs(&self, attempt: &AttemptRecord, offset: u64, max_bytes: usize) -> anyhow::Result<LogChunk> {
        let (backend, handle) = self.backend_of(attempt)?;
        Ok(backend.logs(&handle, offset, max_bytes).await?)
    }
}

/// Checks params and names the run.
pub fn new_run(
    workflow: &pitcrew_core::ir::Workflow,
    version: &str,
    trigger: Trigger,
    now: Timestamp,
) -> Result<NewRun, TriggerError> {
    let params = pitcrew_lang::resolve_params(workflow, &trigger.conf).map_err(TriggerError::Params)?;
    let mut conf = trigger.conf.clone();
    conf.extend(trigger.report.map(|target| (crate::hooks::report::CONF.to_owned(), json!(target))));
    let run_id = match trigger.run_id {
        Some(run_id) => run_id,
        None => RunId::new(&format!("manual__{}", airflow_time(now))).map_err(anyhow::Error::from)?,
    };
    let mut audit = AuditEntry::new(now, trigger.by.clone(), "run.trigger");
    audit.workflow = Some(workflow.id.clone());
    audit.run = Some(run_id.clone());
    audit.detail = json!({ "conf": trigger.conf });
    Ok(NewRun {
        workflow: workflow.id.clone(),
        run_id,
        run_type: trigger.run_type.unwrap_or(RunType::Manual),
        version: version.to_owned(),
        params,
        conf,
        logical_date: trigger.logical_date,
        data_interval: trigger.logical_date.map(|at| (at, at)),
        run_after: trigger.run_after.unwrap_or(now),
        queued_at: now,
        triggered_by: trigger.by,
        note: trigger.note,
        backfill: None,
        audit: vec![audit],
    })
}

/// A time as it stands in Airflow's run ids: `2026-01-02T03:04:05.000006+00:00`.
pub fn airflow_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6f+00:00").to_string()
}

//! Changes to runs and workflows: trigger, cancel, clear, pause; and why a task waits.
//!
//! Here they are asked of the process that works on the run. Where nobody does, only the caller can decide to become
//! that process, so those methods say that nobody was there.

use jiff::Timestamp;
use pitcrew_control::app::{self, Trigger, TriggerError};
use pitcrew_control::records::What;
use pitcrew_core::engine::Run;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::{RunId, TaskId, WorkflowId};
use pitcrew_store::CreateRun;
use serde_json::{Map, Value, json};

use super::{Target, WorkflowLine};
use crate::cli::context::{Context, who};
use crate::cli::control::Peers;
use crate::cli::error;

/// A run that is wished for.
pub struct Wish {
    pub conf: Map<String, Value>,
    pub run_id: Option<RunId>,
    pub logical_date: Option<Timestamp>,
    pub note: String,
}

impl Target {
    /// Makes a run of the newest version of a workflow.
    pub async fn trigger(&self, workflow: &WorkflowLine, wish: Wish) -> anyhow::Result<RunRecord> {
        match self {
            Target::Here(context) => {
                let definition = self.version(&workflow.workflow, &workflow.version).await?;
                let trigger = Trigger {
                    run_type: None,
                    report: None,
                    conf: wish.conf,
                    run_id: wish.run_id,
                    logical_date: wish.logical_date,
                    note: wish.note,
                    by: "cli".to_owned(),
                    run_after: None,
                };
                let new = app::new_run(&definition, &workflow.version, trigger, context.now());
                let mut new = new.map_err(error::trigger)?;
                new.audit.iter_mut().for_each(|entry| entry.who = who());
                let record = match context.store.create_run(new, None).await? {
                    CreateRun::Created(record) => record,
                    CreateRun::Exists { run, .. } => return Err(error::trigger(TriggerError::Exists(Box::new(run)))),
                };
                Peers::find(&context.data).await.look().await;
                Ok(record)
            }
            Target::There(remote) => {
                let body = json!({
                    "conf": wish.conf,
                    "dag_run_id": wish.run_id,
                    "logical_date": wish.logical_date,
                    "note": Some(wish.note).filter(|note| !note.is_empty()),
                });
                let made: Value =
                    remote.post(&["api", "v2", "dags", workflow.workflow.as_str(), "dagRuns"], body).await?;
                let run_id = made["dag_run_id"].as_str().unwrap_or_default();
                self.run_of(&workflow.workflow, run_id).await
            }
        }
    }

    /// The run of a workflow with that id.
    pub async fn run_of(&self, workflow: &WorkflowId, run_id: &str) -> anyhow::Result<RunRecord> {
        let missing = || error::invalid(format!("`{workflow}` has no run `{run_id}`"));
        match self {
            Target::Here(context) => {
                let id = RunId::new(run_id).map_err(error::refused)?;
                context.store.run_by_id(workflow, &id).await?.ok_or_else(missing)
            }
            Target::There(remote) => {
                let path = ["api", "pitcrew", "v1", "workflows", workflow.as_str(), "runs", run_id];
                remote.find(&path, &[]).await?.ok_or_else(missing)
            }
        }
    }

    /// Says whether that changed anything.
    pub async fn set_paused(&self, workflow: &WorkflowLine, paused: bool) -> anyhow::Result<bool> {
        match self {
            Target::Here(context) => {
                let mut audit = context.audit(if paused { "workflow.pause" } else { "workflow.unpause" });
                audit.workflow = Some(workflow.workflow.clone());
                let changed = context.store.set_paused(&workflow.workflow, paused, audit).await?;
                Peers::find(&context.data).await.look().await;
                Ok(changed)
            }
            Target::There(remote) => {
                let path = ["api", "v2", "dags", workflow.workflow.as_str()];
                remote.patch(&path, json!({ "is_paused": paused })).await?;
                Ok(workflow.is_paused != paused)
            }
        }
    }

    /// Asks whoever works on the run to stop it, and gives who that is; `None`: nobody does.
    pub async fn cancel(&self, run: &RunRecord) -> anyhow::Result<Option<String>> {
        match self {
            Target::Here(context) => {
                let mut peers = Peers::find(&context.data).await;
                let Some(peer) = peers.responsible(run.key).await else { return Ok(None) };
                peer.cancel(run.key, who()).await?;
                Ok(Some(format!("the process that works on it ({})", peer.hello.pid)))
            }
            Target::There(remote) => {
                let path = ["api", "pitcrew", "v1", "runs", &run.key.to_string(), "cancel"];
                remote.post::<Value>(&path, json!({})).await?;
                Ok(Some("the server".to_owned()))
            }
        }
    }

    /// Asks whoever works on the run to run tasks again, and gives their names; `None`: nobody works on it.
    pub async fn clear(&self, run: &RunRecord, what: &What) -> anyhow::Result<Option<Vec<(TaskId, i32)>>> {
        match self {
            Target::Here(context) => {
                let mut peers = Peers::find(&context.data).await;
                match peers.responsible(run.key).await {
                    Some(peer) => peer.clear(run.key, what.clone(), who()).await.map(Some),
                    None => Ok(None),
                }
            }
            Target::There(remote) => {
                let path = ["api", "pitcrew", "v1", "runs", &run.key.to_string(), "clear"];
                remote.post(&path, serde_json::to_value(what)?).await.map(Some)
            }
        }
    }

    /// Why a task is not running, as sentences; empty for one that the run does not have.
    pub async fn explain(&self, run: &RunRecord, task: &str, map_index: Option<i32>) -> anyhow::Result<Vec<String>> {
        match self {
            Target::Here(context) => explain_here(self, context, run, task, map_index).await,
            Target::There(remote) => {
                let query: Vec<_> = map_index.iter().map(|index| ("map_index", index.to_string())).collect();
                let path = ["api", "pitcrew", "v1", "runs", &run.key.to_string(), "explain", task];
                let mut found: Value = remote.get(&path, &query).await?;
                Ok(serde_json::from_value(found["reasons"].take())?)
            }
        }
    }

    /// Whether something begins the runs that are made here.
    pub async fn is_served(&self) -> bool {
        match self {
            Target::Here(context) => Peers::find(&context.data).await.server().is_some(),
            Target::There(_) => true,
        }
    }

    /// Says what to do about a run that is not over and that nobody works on.
    pub async fn hint_if_orphaned(&self, run: &RunRecord) {
        if let Target::Here(context) = self {
            context.hint_if_orphaned(run).await;
        }
    }
}

async fn explain_here(
    target: &Target,
    context: &Context,
    run: &RunRecord,
    task: &str,
    map_index: Option<i32>,
) -> anyhow::Result<Vec<String>> {
    // Only the process that works on the run knows who is in line before the task.
    if let Some(owner) = Peers::find(&context.data).await.owner_of(run.key).await {
        return owner.explain(run.key, task.to_owned(), map_index).await;
    }
    let workflow = target.definition(run).await?;
    let stored = context.store.stored_run(run.key).await?;
    let rows = stored.map(|stored| stored.instances).unwrap_or_default();
    let restored = Run::restore(run.clone(), workflow, rows);
    let Some(ix) = restored.workflow.find(task) else { return Ok(Vec::new()) };
    let slots: Vec<_> = match map_index {
        Some(index) => restored.find(ix, index).into_iter().collect(),
        None => restored.slots(ix).collect(),
    };
    let many = slots.len() > 1;
    let reasons = slots.into_iter().flat_map(|slot| {
        restored.explain(slot, None).into_iter().map(move |reason| match many {
            true => format!("[{}] {reason}", slot.index),
            false => reason.to_string(),
        })
    });
    Ok(reasons.collect())
}

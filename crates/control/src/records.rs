//! What a command line and the server that it talks to say to each other: lists of workflows and runs, and what to clear.
//!
//! The shapes are those of the program itself, so both should be of one version.

use jiff::Timestamp;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{Paging, Store, WorkflowFilter, WorkflowRow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::scheduler::{Clear, Pick};

/// A workflow of a server, as a list shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkflowLine {
    pub workflow: WorkflowId,
    pub description: String,
    pub tags: Vec<String>,
    /// As a person reads it; `None`: only by hand.
    pub schedule: Option<String>,
    pub is_paused: bool,
    pub is_active: bool,
    pub next_run: Option<Timestamp>,
    pub file: String,
    pub last_run: Option<RunBrief>,
    /// The hash of its newest source.
    pub version: String,
}

/// The latest run of a workflow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunBrief {
    pub run: RunKey,
    pub run_id: String,
    pub state: String,
    /// When it began, or was queued.
    pub at: Timestamp,
}

/// Every workflow, and the files that give none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Workflows {
    pub workflows: Vec<WorkflowLine>,
    pub broken: Vec<Broken>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Broken {
    pub path: String,
    pub message: String,
}

/// The runs of a list, with the length of the whole.
#[derive(Debug, Serialize, Deserialize)]
pub struct Runs {
    pub runs: Vec<RunRecord>,
    pub total: u64,
}

impl WorkflowLine {
    /// With the latest run of the workflow.
    pub async fn read(store: &Store, row: WorkflowRow) -> anyhow::Result<WorkflowLine> {
        let latest = store.latest_run(&row.id).await?;
        Ok(WorkflowLine {
            workflow: row.id,
            description: row.description,
            tags: row.tags,
            schedule: row.schedule,
            is_paused: row.is_paused,
            is_active: row.active,
            next_run: row.next_run,
            file: row.path,
            version: row.version,
            last_run: latest.map(|run| RunBrief {
                run: run.key,
                run_id: run.run_id.to_string(),
                state: run.state.name().to_owned(),
                at: run.start.unwrap_or(run.queued_at),
            }),
        })
    }

    /// The document of `dags list --output json`.
    pub fn document(&self) -> Value {
        json!({
            "workflow": self.workflow,
            "description": self.description,
            "tags": self.tags,
            "schedule": self.schedule,
            "is_paused": self.is_paused,
            "is_active": self.is_active,
            "next_run": self.next_run,
            "file": self.file,
            "last_run": self.last_run.as_ref().map(|run| json!({ "run": run.run, "run_id": run.run_id, "state": run.state })),
        })
    }
}

impl Workflows {
    pub async fn read(store: &Store, all: bool) -> anyhow::Result<Workflows> {
        let filter = WorkflowFilter { active: (!all).then_some(true), ..WorkflowFilter::default() };
        let mut workflows = Vec::new();
        for row in store.workflows(&filter, Paging::ALL).await?.rows {
            workflows.push(WorkflowLine::read(store, row).await?);
        }
        let broken = store.file_errors().await?.into_iter();
        let broken = broken.map(|error| Broken { path: error.path, message: error.message }).collect();
        Ok(Workflows { workflows, broken })
    }
}

/// What to clear; as the scheduler's own type, with a fixed form outside of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Failed,
    All,
    /// Tasks, each at one map index or at all, and everything after them.
    Tasks(Vec<(String, Option<i32>)>),
}

impl From<What> for Clear {
    fn from(what: What) -> Self {
        match what {
            What::Failed => Clear::Failed,
            What::All => Clear::All,
            What::Tasks(tasks) => {
                let picks = tasks.into_iter().map(|(task, map_index)| Pick { task, map_index }).collect();
                Clear::Picks { picks, downstream: true }
            }
        }
    }
}

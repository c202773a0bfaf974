//! Where a command looks and acts: the data directory here, or a server elsewhere (`--server URL`).
//!
//! One method per question, the same for both; so every command says and prints the same wherever it looks.

mod connections;
mod deliveries;
mod ecs;
mod incidents;
mod logs;
mod nodes;
mod notices;
mod quotas;
mod settings;
mod steer;
mod there;
mod workers;

use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use pitcrew_control::clock;
use pitcrew_control::config::Settings;
use pitcrew_control::records::{Runs, WorkflowLine, Workflows};
use pitcrew_core::engine::record::{RunRecord, StoredRun};
use pitcrew_core::ir::Workflow;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{Page, Paging, RunFilter};
use serde_json::Value;

use super::context::Context;
use super::ui::Ui;

pub use logs::{LogSource, Logs};
pub use steer::Wish;
pub use there::Remote;
pub use workers::{TokenView, WorkerDeed};

pub enum Target {
    Here(Box<Context>),
    There(Box<Remote>),
}

impl Target {
    pub async fn open(ui: Ui, settings: Settings) -> anyhow::Result<Target> {
        match settings.server() {
            Some(server) => Ok(Target::There(Box::new(Remote::new(ui, &settings, &server)?))),
            None => Ok(Target::Here(Box::new(Context::open(ui, settings).await?))),
        }
    }

    pub fn ui(&self) -> &Ui {
        match self {
            Target::Here(context) => &context.ui,
            Target::There(remote) => &remote.ui,
        }
    }

    pub fn now(&self) -> Timestamp {
        clock::now()
    }

    /// How to call this program for the same place, for hints.
    pub fn pitcrew(&self) -> String {
        match self {
            Target::Here(context) => context.pitcrew(),
            Target::There(remote) => format!("pitcrew --server {}", remote.address()),
        }
    }

    /// The place, for messages: `/var/lib/pitcrew`, `https://pitcrew.example`.
    pub fn place(&self) -> String {
        match self {
            Target::Here(context) => context.data.root().display().to_string(),
            Target::There(remote) => remote.address().to_owned(),
        }
    }

    pub async fn run(&self, text: &str) -> anyhow::Result<RunRecord> {
        match self {
            Target::Here(context) => context.run(text).await,
            Target::There(remote) => {
                remote.get(&["api", "pitcrew", "v1", "find", "run"], &[("name", text.to_owned())]).await
            }
        }
    }

    pub async fn workflow(&self, text: &str) -> anyhow::Result<WorkflowLine> {
        match self {
            Target::Here(context) => {
                let row = context.workflow(text).await?;
                WorkflowLine::read(&context.store, row).await
            }
            Target::There(remote) => remote.get(&["api", "pitcrew", "v1", "workflows", text], &[]).await,
        }
    }

    pub async fn workflows(&self, all: bool) -> anyhow::Result<Workflows> {
        match self {
            Target::Here(context) => Workflows::read(&context.store, all).await,
            Target::There(remote) => {
                remote.get(&["api", "pitcrew", "v1", "workflows"], &[("all", all.to_string())]).await
            }
        }
    }

    pub async fn runs(&self, filter: &RunFilter, limit: u32) -> anyhow::Result<Page<RunRecord>> {
        match self {
            Target::Here(context) => Ok(context.store.runs(filter, Paging::first(limit)).await?),
            Target::There(remote) => {
                let mut query = vec![("limit", limit.to_string())];
                query.extend(filter.workflow.iter().map(|id| ("workflow", id.to_string())));
                query.extend(filter.states.iter().map(|state| ("state", state.name().to_owned())));
                let found: Runs = remote.get(&["api", "pitcrew", "v1", "runs"], &query).await?;
                Ok(Page { rows: found.runs, total: found.total })
            }
        }
    }

    /// A run with its instances. The attempts that are live are known here only.
    pub async fn stored_run(&self, key: RunKey) -> anyhow::Result<Option<StoredRun>> {
        match self {
            Target::Here(context) => Ok(context.store.stored_run(key).await?),
            Target::There(remote) => {
                remote.find(&["api", "pitcrew", "v1", "runs", &key.to_string(), "record"], &[]).await
            }
        }
    }

    /// The definition that a run goes by.
    pub async fn definition(&self, run: &RunRecord) -> anyhow::Result<Arc<Workflow>> {
        match self {
            Target::Here(context) => context.definition(run).await,
            Target::There(_) => self.version(&run.workflow, &run.version).await,
        }
    }

    /// A workflow in one version, compiled.
    pub async fn version(&self, id: &WorkflowId, version: &str) -> anyhow::Result<Arc<Workflow>> {
        match self {
            Target::Here(context) => context.catalog.load(&context.store, id, version).await,
            Target::There(remote) => {
                if let Some(found) = remote.catalog.cached(id, version) {
                    return Ok(found);
                }
                let path = ["api", "pitcrew", "v1", "workflows", id.as_str(), "versions", version];
                let found: Value = remote.get(&path, &[]).await?;
                let source = found["source"].as_str().context("the server answered without a source")?;
                remote.catalog.compile(source, id, version)
            }
        }
    }
}

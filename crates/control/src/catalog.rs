//! Compiled workflows, by version.
//!
//! A run goes on with the definition that it began with, whatever its file says now; so the source of every version
//! is in the store, and compiling it is pure. The cache only saves the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow};
use pitcrew_core::WorkflowId;
use pitcrew_core::ir::{BackendKind, Workflow};
use pitcrew_lang::{Compiled, Diagnostic, Options, render_all};
use pitcrew_store::Store;

use crate::{actions, backends};

/// Ends the version of a workflow whose tasks all run on the `fake` backend, whatever its source says.
pub const ON_FAKE: &str = "+fake";

/// Versions kept compiled; a server rarely runs more at a time.
const KEPT: usize = 256;

#[derive(Default)]
pub struct Catalog {
    cache: Mutex<HashMap<(WorkflowId, String), Arc<Workflow>>>,
}

impl Catalog {
    /// The workflow in that version, from the cache or from the store.
    pub async fn load(&self, store: &Store, id: &WorkflowId, version: &str) -> anyhow::Result<Arc<Workflow>> {
        if let Some(found) = self.cached(id, version) {
            return Ok(found);
        }
        let source = store
            .version_source(id, version)
            .await?
            .with_context(|| format!("the store has no source of version {version} of `{id}`"))?;
        self.compile(&source, id, version)
    }

    /// Compiles the source of a version that is not in the cache.
    pub fn compile(&self, source: &str, id: &WorkflowId, version: &str) -> anyhow::Result<Arc<Workflow>> {
        let compiled = compile(source, id.as_str()).map_err(|found| {
            let text = render_all(&found, false);
            anyhow!("the stored source of `{id}` is no longer accepted; trigger it from its file again\n{text}")
        })?;
        let mut compiled = compiled
            .into_iter()
            .find(|compiled| compiled.workflow.id == *id)
            .with_context(|| format!("the stored source of `{id}` holds another workflow"))?;
        if version.ends_with(ON_FAKE) {
            compiled.workflow.tasks.iter_mut().for_each(|task| task.backend = BackendKind::Fake);
        }
        Ok(self.insert(version, compiled.workflow))
    }

    pub fn cached(&self, id: &WorkflowId, version: &str) -> Option<Arc<Workflow>> {
        self.lock().get(&(id.clone(), version.to_owned())).cloned()
    }

    /// Keeps a workflow that was compiled anyway.
    pub fn insert(&self, version: &str, workflow: Workflow) -> Arc<Workflow> {
        let workflow = Arc::new(workflow);
        let mut cache = self.lock();
        if cache.len() >= KEPT {
            // Whoever still runs an evicted version holds it; the next one compiles it again.
            cache.clear();
        }
        cache.insert((workflow.id.clone(), version.to_owned()), workflow.clone());
        workflow
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(WorkflowId, String), Arc<Workflow>>> {
        self.cache.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Compiles a source with the actions that this binary has. `file` is a name for messages.
pub fn compile(source: &str, file: &str) -> Result<Vec<Compiled>, Vec<Diagnostic>> {
    compile_for(source, file, None)
}

/// As [`compile`], with warnings of channels that are not among these.
pub fn compile_for(source: &str, file: &str, channels: Option<&[String]>) -> Result<Vec<Compiled>, Vec<Diagnostic>> {
    pitcrew_lang::parse(source, file, &Options { actions: actions::infos(), channels, backends: Some(backends::KINDS) })
}

//! Compiled workflows, by version.
//!
//! A run goes on with the definition that it began with, whatever its file says now; so the source of every version
//! is in the store, and compiling it is pure. The cache only saves the work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, anyhow};
use pitcrew_core::WorkflowId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::ir::{BackendKind, Work, Workflow};
use pitcrew_lang::tekton::compile::{self as tekton, Bundle};
use pitcrew_lang::{Compiled, Diagnostic, Options, render_all};
use pitcrew_store::Store;
use serde_json::{Map, Value};

use crate::{actions, backends};

/// Ends the version of a workflow whose tasks all run on the `fake` backend, whatever its source says.
pub const ON_FAKE: &str = "+fake";

/// Versions kept compiled; a server rarely runs more at a time.
const KEPT: usize = 256;

#[derive(Default)]
pub struct Catalog {
    cache: Mutex<HashMap<(WorkflowId, String), Arc<Workflow>>>,
}

/// In the `conf` of a run: its document, of which its workflow is made together with the source of its version.
pub const DOCUMENT: &str = "tekton";
/// There as well, where its pods run at a Docker engine: which.
pub const ENGINE: &str = "docker";
/// There as well, where the run has one machine: what its pods say of others has no effect.
pub const ONE_MACHINE: &str = "one_machine";
/// There as well, where a cluster of Kubernetes runs its pods: `{kubernetes: PLACE}`.
pub const ON: &str = "on";

impl Catalog {
    /// The workflow that a run goes by.
    pub async fn load_for(&self, store: &Store, run: &RunRecord) -> anyhow::Result<Arc<Workflow>> {
        let Some(document) = run.conf.get(DOCUMENT) else { return self.load(store, &run.workflow, &run.version).await };
        let name = own_version(run);
        if let Some(found) = self.cached(&run.workflow, &name) {
            return Ok(found);
        }
        let source = store
            .version_source(&run.workflow, &run.version)
            .await?
            .with_context(|| format!("the store has no source of version {} of `{}`", run.version, run.workflow))?;
        let bundle = Bundle::from_source(&source).map_err(|why| anyhow!(why))?;
        let options = options(&run.conf);
        let compiled = tekton::compile(&bundle, Some(document), &options)
            .map_err(|found| anyhow!("run {} is no longer understood\n{}", run.key, render_all(&found, false)))?;
        Ok(self.insert(&name, placed(&run.conf, compiled.workflow)))
    }

    /// Keeps the workflow of a run that was compiled anyway.
    pub fn insert_for(&self, run: &RunRecord, workflow: Workflow) -> Arc<Workflow> {
        let workflow = placed(&run.conf, workflow);
        match run.conf.contains_key(DOCUMENT) {
            true => self.insert(&own_version(run), workflow),
            false => self.insert(&run.version, workflow),
        }
    }

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
        if Bundle::is_source(source) {
            let bundle = Bundle::from_source(source).map_err(|why| anyhow!(why))?;
            let compiled = tekton::compile(&bundle, None, &tekton::Options::default()).map_err(|found| {
                anyhow!("the stored source of `{id}` is no longer accepted\n{}", render_all(&found, false))
            })?;
            return Ok(self.insert(version, Workflow { id: id.clone(), ..compiled.workflow }));
        }
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

/// Each of these runs has a workflow of its own.
fn own_version(run: &RunRecord) -> String {
    format!("{}#{}", run.version, run.key)
}

/// What the compiler is told of where a run's pods run.
pub fn options(conf: &Map<String, Value>) -> tekton::Options {
    let one_machine = conf.get(ONE_MACHINE).is_some_and(|one| *one == true);
    tekton::Options { one_machine, in_cluster: conf.contains_key(ON) }
}

/// The workflow with its pods where the run says.
fn placed(conf: &Map<String, Value>, mut workflow: Workflow) -> Workflow {
    if let Some(place) = conf.get(ON).and_then(|on| on.get(BackendKind::Kubernetes.name())) {
        for task in workflow.tasks.iter_mut().filter(|task| matches!(task.work, Work::Pod { .. })) {
            task.backend = BackendKind::Kubernetes;
            task.place = Some(place.clone());
        }
    }
    workflow
}

/// Compiles a source with the actions that this binary has. `file` is a name for messages.
pub fn compile(source: &str, file: &str) -> Result<Vec<Compiled>, Vec<Diagnostic>> {
    compile_for(source, file, None)
}

/// As [`compile`], with warnings of channels that are not among these.
pub fn compile_for(source: &str, file: &str, channels: Option<&[String]>) -> Result<Vec<Compiled>, Vec<Diagnostic>> {
    pitcrew_lang::parse(source, file, &Options { actions: actions::infos(), channels, backends: Some(backends::KINDS) })
}

//! What became of a run, in Tekton's words: read from its rows whenever somebody asks.

use anyhow::Context as _;
use pitcrew_core::RunKey;
use pitcrew_core::engine::record::{AttemptRecord, StoredRun};
use pitcrew_core::pod::PodEnded;
use pitcrew_lang::tekton::compile::Bundle;
use pitcrew_lang::tekton::status::{Attempt, StatusDocs, StatusInput, status};
use pitcrew_store::Store;

use crate::catalog::{Catalog, DOCUMENT};

/// The documents of a run with their status, and its rows. `None`: there is no such run.
pub async fn of_run(store: &Store, catalog: &Catalog, key: RunKey) -> anyhow::Result<Option<(StoredRun, StatusDocs)>> {
    let Some(stored) = store.stored_run(key).await? else { return Ok(None) };
    let doc = stored.run.conf.get(DOCUMENT);
    let doc = doc.with_context(|| format!("run {key} is one of a workflow, and no PipelineRun or TaskRun"))?;
    let run = &stored.run;
    let source = store.version_source(&run.workflow, &run.version).await?;
    let source = source.with_context(|| format!("the store has no source of version {}", run.version))?;
    let bundle = Bundle::from_source(&source).map_err(anyhow::Error::msg)?;
    let workflow = catalog.load_for(store, &stored.run).await?;
    let mut rows = Vec::new();
    for instance in stored.instances.iter().filter(|instance| instance.attempt > 0) {
        rows.extend(store.attempts(key, &instance.task, instance.map_index).await?);
    }
    let pods: Vec<Option<PodEnded>> = rows.iter().map(pod).collect();
    let attempts: Vec<Attempt<'_>> =
        rows.iter().zip(&pods).map(|(record, pod)| Attempt { record, pod: pod.as_ref() }).collect();
    let input = StatusInput {
        doc,
        bundle: &bundle,
        workflow: &workflow,
        run: &stored.run,
        instances: &stored.instances,
        attempts: &attempts,
    };
    let docs = status(&input);
    Ok(Some((stored, docs)))
}

/// How its pod ended, by its row.
fn pod(row: &AttemptRecord) -> Option<PodEnded> {
    serde_json::from_value(row.detail.clone()).ok()
}

//! Finds what a person means by a few words: a run by its number, id, `latest` or workflow; a workflow by its name.
//!
//! The command line and the server that it asks share this, so that a name means the same from everywhere.

use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::{RunId, RunKey, WorkflowId};
use pitcrew_lang::diagnostic::closest;
use pitcrew_store::{Paging, RunFilter, Store, StoreError, WorkflowFilter, WorkflowRow};

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// What to tell the person; may end in a line `hint: …`.
    #[error("{0}")]
    Missing(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The run that is meant. `place` ends the sentence "there is no run `x`", such as " in `/var/lib/pitcrew`".
pub async fn run(store: &Store, text: &str, place: &str) -> Result<RunRecord, LookupError> {
    if let Ok(number) = text.parse::<i64>()
        && let Some(run) = store.run(RunKey(number)).await?
    {
        return Ok(run);
    }
    if text == "latest" {
        let newest = store.runs(&RunFilter::default(), Paging::first(1)).await?.rows.pop();
        let none = || LookupError::Missing("there are no runs yet\nhint: `pitcrew run FILE` makes one".to_owned());
        return newest.ok_or_else(none);
    }
    let workflows = workflow_ids(store).await?;
    if let Ok(run_id) = RunId::new(text) {
        let mut found = Vec::new();
        for workflow in &workflows {
            found.extend(store.run_by_id(workflow, &run_id).await?);
        }
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            _ => {
                let keys = found.iter().map(|run| format!("{} of `{}`", run.key, run.workflow));
                let keys = keys.collect::<Vec<_>>().join(", ");
                let message = format!("several workflows have a run `{text}`\nhint: use its number: {keys}");
                return Err(LookupError::Missing(message));
            }
        }
    }
    if let Ok(workflow) = WorkflowId::new(text)
        && let Some(run) = store.latest_run(&workflow).await?
    {
        return Ok(run);
    }
    let hint = match closest(text, workflows.iter().map(WorkflowId::as_str)) {
        Some(meant) => format!("did you mean `{meant}`, for its latest run?"),
        None => "a run is named by its number, its id, `latest`, or its workflow; see `pitcrew runs list`".to_owned(),
    };
    Err(LookupError::Missing(format!("there is no run `{text}`{place}\nhint: {hint}")))
}

/// The workflow of that name, also one whose file is gone.
pub async fn workflow(store: &Store, text: &str, place: &str) -> Result<WorkflowRow, LookupError> {
    let id = WorkflowId::new(text).map_err(|error| LookupError::Missing(error.to_string()))?;
    if let Some(row) = store.workflow(&id).await? {
        return Ok(row);
    }
    let known = workflow_ids(store).await?;
    let hint = match closest(text, known.iter().map(WorkflowId::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`pitcrew dags list` shows all of them".to_owned(),
    };
    Err(LookupError::Missing(format!("there is no workflow `{text}`{place}\nhint: {hint}")))
}

async fn workflow_ids(store: &Store) -> Result<Vec<WorkflowId>, StoreError> {
    let rows = store.workflows(&WorkflowFilter::default(), Paging::ALL).await?.rows;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

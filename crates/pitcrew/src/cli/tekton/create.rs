//! Runs that somebody else works on: a server of this data directory, now or when it starts.

use pitcrew_control::tekton::objects;
use pitcrew_control::tekton::start::{self, DEFINITIONS, New};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_store::{CreateRun, ObjectFilter, Paging};
use serde_json::Value;

use crate::cli::context::Context;
use crate::cli::control::Peers;
use crate::cli::error::{invalid, refused};

/// What was applied to a namespace before, but for what `given` has anew.
pub async fn definitions(context: &Context, given: &[Value], namespace: &str) -> anyhow::Result<Vec<Value>> {
    let filter = ObjectFilter { kinds: DEFINITIONS.map(str::to_owned).to_vec(), ..ObjectFilter::default() };
    let rows = context.store.objects(&filter, Paging::ALL).await?.rows;
    let is_given = |row: &pitcrew_store::ObjectRow| {
        given.iter().any(|doc| {
            doc["kind"] == row.kind.as_str()
                && doc["metadata"]["name"] == row.name.as_str()
                && objects::namespace(doc, namespace) == row.namespace
        })
    };
    Ok(rows.iter().filter(|row| !is_given(row)).map(objects::document).collect())
}

/// Stores a run, and wakes whoever works on runs.
pub async fn create(context: &Context, mut new: New) -> anyhow::Result<RunRecord> {
    context.settings.pods().iter().for_each(|place| new.on_engine(place));
    let (kind, name) = (new.object.kind.clone(), new.object.name.clone());
    super::warn(&new.compiled.warnings, &context.ui);
    let path = format!("tekton:{}/{name}", new.object.namespace);
    let made = start::create(&context.store, new.run, new.object, &new.compiled, &path, None).await;
    match made.map_err(refused)? {
        CreateRun::Created(record) => {
            Peers::find(&context.data).await.look().await;
            context.hint_if_orphaned(&record).await;
            Ok(record)
        }
        CreateRun::Exists { run, .. } => Err(invalid(format!(
            "there is a {kind} `{name}` already: run {} of `{}`\nhint: give it another name, or a `generateName`",
            run.key, run.workflow
        ))),
    }
}

//! From the document of a PipelineRun or a TaskRun to a run of this program.

use jiff::Timestamp;
use pitcrew_core::RunId;
use pitcrew_core::engine::record::RunType;
use pitcrew_exec::docker::keeper::EnginePlace;
use pitcrew_lang::tekton::compile::resolver::{self, Asked, Resolve};
use pitcrew_lang::tekton::compile::{self, Bundle};
use pitcrew_lang::{Compiled, Diagnostic};
use pitcrew_store::{AuditEntry, CreateRun, NewObject, NewRun, Owner, Store, WorkflowRow};
use serde_json::{Map, Value, json};

use super::objects;
use crate::catalog::{DOCUMENT, ENGINE, ON, ONE_MACHINE, options};
use crate::vault::random;

/// What Kubernetes ends generated names with: no vowels, so that no words come about.
pub const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Kinds that a run reaches by their names.
pub const DEFINITIONS: [&str; 5] = ["Pipeline", "Task", "StepAction", "LimitRange", "ConfigMap"];

/// Why no run was made.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Each with its place.
    #[error("the run cannot be compiled")]
    Compile(Vec<Diagnostic>),
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// A run to be stored.
pub struct New {
    /// With the name and the ids that it has from now on.
    pub document: Value,
    pub compiled: Compiled,
    pub run: NewRun,
    pub object: NewObject,
}

impl New {
    /// Its pods run at this Docker engine.
    pub fn on_engine(&mut self, place: &EnginePlace) {
        let place = json!({ "host": place.host, "certificates": place.certificates });
        self.run.conf.insert(ENGINE.to_owned(), place);
    }
}

/// Who starts it, and where.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// Of a document that names none.
    pub namespace: &'a str,
    /// It runs on this machine alone.
    pub one_machine: bool,
    /// Where else its pods run: `{kubernetes: PLACE}`.
    pub on: Option<&'a Value>,
    pub by: &'a str,
    pub now: Timestamp,
}

/// Names the run and compiles it together with what it reaches among `documents`.
pub fn new(document: Value, documents: &[Value], how: How<'_>) -> Result<New, StartError> {
    new_resolving(document, documents, how, &|asked| {
        Err(format!("the resolver `{}` is for runs that a person starts; apply what it finds", asked.resolver))
    })
}

/// [`new`], where `remote` finds what other resolvers than `cluster` are asked for.
pub fn new_resolving(
    mut document: Value,
    documents: &[Value],
    how: How<'_>,
    remote: Resolve<'_>,
) -> Result<New, StartError> {
    name(&mut document, how)?;
    let metadata = &document["metadata"];
    let text = |field: &str| metadata[field].as_str().unwrap_or_default().to_owned();
    let (name, namespace, uid) = (text("name"), text("namespace"), text("uid"));
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let near: Vec<Value> =
        documents.iter().filter(|doc| objects::namespace(doc, how.namespace) == namespace).cloned().collect();
    let bundle = Bundle::resolved(&document, &near, &|asked: &Asked| match asked.resolver.as_str() {
        "cluster" => resolver::in_cluster(asked, documents, &namespace, how.namespace).cloned(),
        _ => remote(asked),
    });
    let run_id = RunId::new(&name).map_err(anyhow::Error::from)?;
    let mut conf = Map::new();
    conf.insert(DOCUMENT.to_owned(), document.clone());
    if how.one_machine {
        conf.insert(ONE_MACHINE.to_owned(), json!(true));
    }
    if let Some(on) = how.on {
        conf.insert(ON.to_owned(), on.clone());
    }
    let compiled = compile::compile(&bundle, Some(&document), &options(&conf)).map_err(StartError::Compile)?;
    let mut audit = AuditEntry::new(how.now, how.by, "run.trigger");
    audit.workflow = Some(compiled.workflow.id.clone());
    audit.run = Some(run_id.clone());
    audit.detail = json!({ "kind": kind, "namespace": namespace, "name": name });
    let run = NewRun {
        workflow: compiled.workflow.id.clone(),
        run_id,
        run_type: RunType::Manual,
        version: compiled.hash.clone(),
        params: Map::new(),
        conf,
        logical_date: None,
        data_interval: None,
        run_after: how.now,
        queued_at: how.now,
        triggered_by: how.by.to_owned(),
        note: String::new(),
        backfill: None,
        audit: vec![audit],
    };
    // What it says is in the run's row; this is its name among all objects.
    let object = NewObject { kind, namespace, name, uid, doc: Value::Null, sealed: None, at: how.now };
    Ok(New { document, compiled, run, object })
}

/// Stores the run and what it goes by. `path` is what its definition is called; a run without an owner is taken by a server.
pub async fn create(
    store: &Store,
    new: NewRun,
    object: NewObject,
    compiled: &Compiled,
    path: &str,
    owner: Option<&Owner>,
) -> anyhow::Result<CreateRun> {
    let workflow = &compiled.workflow;
    if store.workflow(&workflow.id).await?.is_some_and(|row| row.active) {
        anyhow::bail!("there is a workflow `{}` already: call the Pipeline, or the run, by another name", workflow.id);
    }
    let row = WorkflowRow {
        id: workflow.id.clone(),
        active: false,
        next_run: None,
        path: path.to_owned(),
        version: compiled.hash.clone(),
        description: workflow.description.clone(),
        tags: workflow.tags.clone(),
        schedule: None,
        is_paused: false,
    };
    store.put_workflow(&row, &compiled.source, new.queued_at).await?;
    Ok(store.create_run_as(new, owner, object).await?)
}

/// Gives the document what a cluster gives it when it is created.
fn name(document: &mut Value, how: How<'_>) -> anyhow::Result<()> {
    let namespace = objects::namespace(document, how.namespace).to_owned();
    let generated = match document["metadata"]["generateName"].as_str() {
        Some(stem) if document["metadata"]["name"].as_str().unwrap_or_default().is_empty() => {
            let bytes: [u8; 5] = random()?;
            Some(bytes.iter().fold(stem.to_owned(), |mut name, byte| {
                name.push(char::from(LETTERS[usize::from(*byte) % LETTERS.len()]));
                name
            }))
        }
        _ => None,
    };
    let Some(metadata) = document["metadata"].as_object_mut() else { anyhow::bail!("the run has no `metadata`") };
    if let Some(name) = generated {
        metadata.insert("name".to_owned(), json!(name));
    }
    metadata.insert("namespace".to_owned(), json!(namespace));
    metadata.insert("uid".to_owned(), json!(uuid::Uuid::now_v7().to_string()));
    let at = how.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    metadata.insert("creationTimestamp".to_owned(), json!(at));
    objects::kind_and_name(document)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how() -> How<'static> {
        How {
            namespace: "ci",
            one_machine: true,
            on: None,
            by: "ada",
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    #[test]
    fn a_run_gets_a_name_and_a_namespace_as_a_cluster_gives_them() {
        let document = json!({
            "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": { "generateName": "hello-" },
            "spec": { "taskSpec": { "steps": [{ "name": "a", "image": "busybox", "script": "echo a" }] } },
        });
        let made = new(document, &[], how()).unwrap();
        let name = made.document["metadata"]["name"].as_str().unwrap();
        let letters = name.strip_prefix("hello-").unwrap();
        assert!(letters.len() == 5 && letters.bytes().all(|letter| LETTERS.contains(&letter)), "{name}");
        assert_eq!(made.run.run_id.as_str(), name);
        assert_eq!((made.object.kind.as_str(), made.object.namespace.as_str()), ("TaskRun", "ci"));
        assert_eq!(made.run.conf[DOCUMENT]["metadata"]["uid"].as_str(), Some(made.object.uid.as_str()));
    }
}

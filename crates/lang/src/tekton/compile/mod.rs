//! From a run's document and its bundle to the workflow of that run.
//!
//! Everything that depends on the run alone is put in place here, in the order of Tekton: params, then contexts, then workspaces. What
//! Tekton refuses at the start of a run, with a reason in the run's status, is the workflow's refusal: such a run exists, and fails.
//! What this program cannot do is an error of the compiler instead.

mod annotations;
mod bundle;
mod checks;
mod edges;
mod nested;
mod pipeline;
mod placement;
pub mod resolver;
mod task;
mod timeouts;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use pitcrew_core::id::WorkflowId;
use pitcrew_core::ir::{Language, OnFailure, Refusal, Workflow};
use serde_json::{Map, Value, json};

use super::model::GoDuration;
use super::run::container::{duration, items, text};
use super::status::names::uid_of;
use crate::Compiled;
use crate::diagnostic::{Diagnostic, Severity};

pub use bundle::Bundle;
pub(crate) use pipeline::{PipelineView, view};

/// Where it will run, as far as the compiler asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// There is one machine, and whatever is said of others has nothing to choose from.
    pub one_machine: bool,
    /// A cluster of Kubernetes runs its pods, and finds their nodes itself.
    pub in_cluster: bool,
}

/// The time that a run, or a TaskRun by itself, has if nothing is said: in minutes.
const USUAL_TIMEOUT: i64 = 60;

/// The namespace of a document that names none.
pub const USUAL_NAMESPACE: &str = "default";

/// Compiles a run. `run`: a PipelineRun or a TaskRun with its final `metadata.name`, and with a `metadata.uid` if it has one;
/// `None`: the workflow as it would be without params, to draw it and to check it.
pub fn compile(bundle: &Bundle, run: Option<&Value>, options: &Options) -> Result<Compiled, Vec<Diagnostic>> {
    let made;
    let is_run = run.is_some();
    let run = match run {
        Some(run) => run,
        None => {
            made = without_run(bundle);
            &made
        }
    };
    let mut compiler = Compiler::new(bundle, run, *options);
    let compiled = match run["kind"].as_str() {
        Some("TaskRun") => compiler.task_run(),
        _ => compiler.pipeline_run(),
    };
    let mut workflow = compiled.map_err(|why| vec![problem(Severity::Error, why)])?;
    // Without a run there is nothing that could be refused.
    workflow.refusal = compiler.refusal.take().filter(|_| is_run);
    let source = bundle.source();
    Ok(Compiled {
        workflow,
        hash: crate::hash(&source),
        source,
        warnings: compiler.told.into_iter().map(|why| problem(Severity::Warning, why)).collect(),
    })
}

/// A run of what a bundle holds, with nothing given to it.
fn without_run(bundle: &Bundle) -> Value {
    let is_task = bundle.root["kind"] == "Task";
    let (kind, reference, inline) =
        if is_task { ("TaskRun", "taskRef", "taskSpec") } else { ("PipelineRun", "pipelineRef", "pipelineSpec") };
    let spec = match bundle.root["name"].as_str() {
        Some(name) => json!({ reference: { "name": name } }),
        None => json!({ inline: bundle.root["spec"] }),
    };
    let name = bundle.root["name"].as_str().unwrap_or("run");
    json!({ "apiVersion": "tekton.dev/v1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn problem(severity: Severity, message: String) -> Diagnostic {
    Diagnostic {
        file: "tekton".to_owned(),
        line: 0,
        column: 0,
        length: 1,
        severity,
        message,
        hint: None,
        excerpt: String::new(),
    }
}

/// What is known while one run is compiled.
struct Compiler<'a> {
    bundle: &'a Bundle,
    run: &'a Value,
    spec: &'a Value,
    options: Options,
    name: String,
    namespace: String,
    uid: String,
    /// The first is kept: Tekton looks no further either.
    refusal: Option<Refusal>,
    /// What has no effect here.
    told: Vec<String>,
}

impl<'a> Compiler<'a> {
    fn new(bundle: &'a Bundle, run: &'a Value, options: Options) -> Compiler<'a> {
        let metadata = &run["metadata"];
        let or = |text: String, other: &str| if text.is_empty() { other.to_owned() } else { text };
        let name = or(text(metadata, "name"), "run");
        let namespace = or(text(metadata, "namespace"), USUAL_NAMESPACE);
        let uid = match text(metadata, "uid") {
            uid if uid.is_empty() => uid_of(&[run["kind"].as_str().unwrap_or_default(), &namespace, &name]),
            uid => uid,
        };
        Compiler { bundle, run, spec: &run["spec"], options, name, namespace, uid, refusal: None, told: Vec::new() }
    }

    /// A workflow without tasks.
    fn workflow(&self) -> Result<Workflow, String> {
        let id = self.workflow_id();
        let mut workflow = Workflow::new(WorkflowId::new(&id).map_err(|why| why.to_string())?);
        workflow.language = Language::Tekton;
        workflow.namespace.clone_from(&self.namespace);
        workflow.on_failure = OnFailure::Drain;
        // Tekton has no limit, and no order among runs.
        workflow.max_active_runs = u32::MAX;
        Ok(workflow)
    }

    /// A Pipeline has its own name, a Task one of Tasks, and what is written in a run that of the run, without what was
    /// generated for it.
    fn workflow_id(&self) -> String {
        let root = &self.bundle.root;
        // What was not found has no name.
        let named = root["name"].as_str().filter(|name| !self.bundle.unresolved.contains_key(*name));
        let id = match (root["kind"].as_str(), named) {
            (Some("Task"), Some(name)) => format!("task.{name}"),
            (_, Some(name)) => name.to_owned(),
            (_, None) => {
                let generated = text(&self.run["metadata"], "generateName");
                let stem = if generated.is_empty() { self.name.as_str() } else { generated.trim_end_matches('-') };
                format!("run.{stem}")
            }
        };
        if self.namespace == USUAL_NAMESPACE { id } else { format!("{}.{id}", self.namespace) }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    fn refuse_with(&mut self, reason: &str, message: impl Into<String>) {
        self.refuse(Refusal { reason: reason.to_owned(), message: message.into() });
    }

    fn default(&self, key: &str) -> Option<&'a str> {
        self.bundle.defaults.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The time that is left to whatever says nothing.
    fn usual_timeout(&self) -> SignedDuration {
        let minutes = self.default("default-timeout-minutes").and_then(|minutes| minutes.parse().ok());
        SignedDuration::from_mins(minutes.unwrap_or(USUAL_TIMEOUT))
    }

    /// A timeout as it is written; zero is none.
    fn timeout(&mut self, written: &Value, usual: SignedDuration) -> Option<SignedDuration> {
        let found = match written.as_str() {
            None => usual,
            Some(written) => match duration(written) {
                Ok(found) => found,
                Err(why) => {
                    self.refuse_with("PipelineValidationFailed", format!("a timeout cannot be read: {why}"));
                    usual
                }
            },
        };
        (found > SignedDuration::ZERO).then_some(found)
    }

    fn service_account(&self, named: &Value) -> String {
        let named = named.as_str().filter(|name| !name.is_empty());
        named.or_else(|| self.default("default-service-account")).unwrap_or("default").to_owned()
    }

    fn step_actions(&self) -> BTreeMap<String, Value> {
        self.bundle.step_actions.iter().map(|(name, document)| (name.clone(), document["spec"].clone())).collect()
    }

    /// What LimitRanges say of containers; what they say of all else has no effect.
    fn limits(&mut self) -> Vec<Value> {
        let bundle = self.bundle;
        let (own, others): (Vec<&Value>, Vec<&Value>) = bundle
            .limits
            .iter()
            .flat_map(|range| items(&range["limits"]))
            .partition(|item| item["type"] == "Container");
        for other in others {
            self.tell(format!("what a LimitRange says of a {} has no effect here", text(other, "type")));
        }
        own.into_iter().cloned().collect()
    }

    fn tell(&mut self, why: String) {
        if !self.told.contains(&why) {
            self.told.push(why);
        }
    }
}

/// A duration as Tekton writes it; none is empty.
fn written(limit: Option<SignedDuration>) -> String {
    limit.map(|limit| GoDuration(limit).to_string()).unwrap_or_default()
}

/// `under` with what `over` says in its place.
fn laid(under: &Value, over: &Value) -> Map<String, Value> {
    let mut all = under.as_object().cloned().unwrap_or_default();
    all.extend(over.as_object().cloned().unwrap_or_default());
    all
}

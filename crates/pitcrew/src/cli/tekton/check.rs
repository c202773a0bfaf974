//! What is said of Tekton's documents without running anything: whether they are right, and how their tasks follow each other.
//!
//! All files are one set. A Pipeline or a Task is compiled as it stands, a run with what it gives; so what is right here is
//! what `run -f` would begin.

use pitcrew_control::tekton::objects;
use pitcrew_core::ir::Workflow;
use pitcrew_lang::tekton::ReadOptions;
use pitcrew_lang::tekton::compile::resolver::{self, Asked};
use pitcrew_lang::tekton::compile::{self, Bundle};
use pitcrew_lang::{Compiled, Diagnostic, Severity};
use serde_json::{Value, json};

use super::{Document, all, placed, resolve, sources};
use crate::cli::error::{BadFile, invalid};
use crate::cli::format;
use crate::cli::load::Source;

/// One document that is right.
pub struct Found {
    /// As in [`Document::file`].
    pub file: String,
    pub kind: String,
    pub name: String,
    /// The workflow it would be, and the number of its tasks; of what runs, or can be run.
    pub workflow: Option<(String, usize)>,
    /// Of a Task, how many steps it has.
    pub steps: Option<usize>,
}

impl Found {
    /// ``Pipeline `build` is valid, 2 tasks``.
    pub fn sentence(&self) -> String {
        let count = match (self.steps, &self.workflow) {
            (Some(steps), _) => format!(", {}", format::plural(steps as u64, "step")),
            (None, Some((_, tasks))) => format!(", {}", format::plural(*tasks as u64, "task")),
            (None, None) => String::new(),
        };
        format!("{} `{}` is valid{count}", self.kind, self.name)
    }
}

/// Checks the files as one set: what is right, in the order of the files, and all problems.
pub fn check(files: &[Source]) -> (Vec<Found>, Vec<Diagnostic>) {
    let docs = match pitcrew_lang::tekton::read(&sources(files), &ReadOptions::default()) {
        Ok(docs) => docs,
        Err(problems) => return (Vec::new(), problems),
    };
    let (mut found, mut problems) = (Vec::new(), docs.warnings.clone());
    let documents = all(&docs);
    let plain: Vec<Value> = documents.iter().map(|document| document.json.clone()).collect();
    for document in &documents {
        let compiled = compiled(document, &plain);
        if let Some(Err(wrong)) = compiled {
            problems.extend(placed(&document.origin, wrong));
            continue;
        }
        let compiled = compiled.and_then(Result::ok);
        if let Some(compiled) = &compiled {
            problems.extend(placed(&document.origin, compiled.warnings.clone()));
            problems.extend(refusal(document, &compiled.workflow));
        }
        let steps = (document.kind() == "Task").then(|| document.json["spec"]["steps"].as_array().map_or(0, Vec::len));
        found.push(Found {
            file: document.file().to_owned(),
            kind: document.kind().to_owned(),
            name: document.name().to_owned(),
            workflow: compiled.map(|compiled| (compiled.workflow.id.to_string(), compiled.workflow.tasks.len())),
            steps,
        });
    }
    (found, problems)
}

/// A run that would fail as soon as it begins is right for Tekton, and what is missing may be in a store.
fn refusal(document: &Document, workflow: &Workflow) -> Option<Diagnostic> {
    let refusal = workflow.refusal.as_ref()?;
    let message = format!("this run would fail at once: {}: {}", refusal.reason, refusal.message);
    let hint = "name the files of what it uses too, if they are not applied";
    Some(document.origin.problem(Severity::Warning, "", &message, Some(hint)))
}

/// The one that is meant as a workflow: the one of that name, else the only run, the only Pipeline or the only Task.
pub fn workflow(files: &[Source], name: Option<&str>) -> anyhow::Result<Workflow> {
    let docs = pitcrew_lang::tekton::read(&sources(files), &ReadOptions::default()).map_err(BadFile)?;
    let documents = all(&docs);
    let plain: Vec<Value> = documents.iter().map(|document| document.json.clone()).collect();
    let of = |kinds: &[&str]| -> Vec<&Document> {
        documents.iter().filter(|document| kinds.contains(&document.kind())).collect()
    };
    let kinds: [&[&str]; 3] = [&["PipelineRun"], &["Pipeline"], &["Task", "TaskRun"]];
    let candidates: Vec<&Document> = match name {
        Some(name) => kinds.iter().flat_map(|kinds| of(kinds)).filter(|document| document.name() == name).collect(),
        None => kinds.iter().map(|kinds| of(kinds)).find(|found| !found.is_empty()).unwrap_or_default(),
    };
    let names = |documents: &[&Document]| {
        documents.iter().map(|document| format!("`{}`", document.name())).collect::<Vec<_>>().join(", ")
    };
    // A run and its Pipeline may have one name: the run says more.
    let document = match (candidates.as_slice(), name) {
        ([one], _) | ([one, ..], Some(_)) => one,
        ([], Some(name)) => {
            let known: Vec<&Document> = kinds.iter().flat_map(|kinds| of(kinds)).collect();
            return Err(invalid(format!("there is no `{name}` in these files; they hold {}", names(&known))));
        }
        ([], None) => {
            return Err(invalid("these files hold no Pipeline, no Task and no run: there is nothing to draw"));
        }
        (several, None) => {
            let hint = "choose one with `--workflow NAME`";
            return Err(invalid(format!("which one is to be drawn: {}?\nhint: {hint}", names(several))));
        }
    };
    match compiled(document, &plain) {
        Some(Ok(compiled)) => Ok(compiled.workflow),
        Some(Err(problems)) => Err(BadFile(placed(&document.origin, problems)).into()),
        None => Err(invalid("there is nothing to draw")),
    }
}

/// `None`: it is nothing that runs.
fn compiled(document: &Document, all: &[Value]) -> Option<Result<Compiled, Vec<Diagnostic>>> {
    let usual = compile::USUAL_NAMESPACE;
    let namespace = objects::namespace(&document.json, usual);
    let near: Vec<Value> = all.iter().filter(|other| objects::namespace(other, usual) == namespace).cloned().collect();
    let options = compile::Options { one_machine: true, in_cluster: false };
    let resolve = |asked: &Asked| match asked.resolver.as_str() {
        "cluster" => resolver::in_cluster(asked, all, namespace, usual).cloned(),
        _ => resolve::remote(asked),
    };
    match document.kind() {
        "PipelineRun" | "TaskRun" => {
            let bundle = Bundle::resolved(&document.json, &near, &resolve);
            let mut run = document.json.clone();
            if !run["metadata"]["name"].is_string() {
                run["metadata"]["name"] = json!(document.name());
            }
            Some(compile::compile(&bundle, Some(&run), &options))
        }
        kind @ ("Pipeline" | "Task") => {
            let bundle = Bundle::of(json!({ "kind": kind, "name": document.name() }), &near, &resolve);
            Some(compile::compile(&bundle, None, &options))
        }
        _ => None,
    }
}

//! Tekton's documents on the command line.

mod apply;
mod args;
mod check;
mod create;
mod follow;
mod given;
mod kinds;
mod logs;
mod resolve;
mod run;
mod text;

use pitcrew_lang::tekton::ReadOptions;
use pitcrew_lang::tekton::model::{Doc, Docs, Origin, Resource};
use pitcrew_lang::{Diagnostic, render_all};
use serde_json::Value;

use super::error::BadFile;
use super::load::Source;
use super::ui::Ui;

pub use apply::{ApplyArgs, command as apply};
pub use args::{PipelineRunsArgs, PipelinesArgs, TaskRunsArgs, TektonTasksArgs};
pub use check::{check, workflow};
pub use kinds::{definitions, runs};
pub use run::run;

/// What files hold, as plain documents.
pub struct Documents {
    /// PipelineRuns and TaskRuns, in the order of the files.
    pub runs: Vec<Document>,
    pub others: Vec<Value>,
}

/// A document, and where it stands.
pub struct Document {
    pub json: Value,
    pub origin: Origin,
}

impl Document {
    pub fn kind(&self) -> &str {
        self.json["kind"].as_str().unwrap_or_default()
    }

    /// Its name, or what a name will begin with.
    pub fn name(&self) -> &str {
        let metadata = &self.json["metadata"];
        let name = metadata["name"].as_str().filter(|name| !name.is_empty());
        name.or_else(|| metadata["generateName"].as_str()).unwrap_or_default()
    }

    pub fn file(&self) -> &str {
        self.origin.file()
    }
}

/// Reads the files as one set. Warnings are shown, errors returned.
pub fn read(files: &[Source], namespace: &str, ui: &Ui) -> anyhow::Result<Documents> {
    let options = ReadOptions { namespace: namespace.to_owned() };
    let docs = pitcrew_lang::tekton::read(&sources(files), &options).map_err(BadFile)?;
    warn(&docs.warnings, ui);
    let is_run = |document: &Document| ["PipelineRun", "TaskRun"].contains(&document.kind());
    let (runs, others): (Vec<Document>, Vec<Document>) = all(&docs).into_iter().partition(is_run);
    Ok(Documents { runs, others: others.into_iter().map(|document| document.json).collect() })
}

fn sources(files: &[Source]) -> Vec<pitcrew_lang::tekton::Source<'_>> {
    files.iter().map(|source| pitcrew_lang::tekton::Source { file: &source.name, text: &source.text }).collect()
}

/// All documents of a set: definitions, what they use, runs in the order of the files, and triggers.
fn all(docs: &Docs) -> Vec<Document> {
    let mut all = Vec::new();
    add(docs.tasks.iter(), &mut all);
    add(docs.pipelines.iter(), &mut all);
    add(docs.step_actions.iter(), &mut all);
    add(docs.config_maps.iter(), &mut all);
    add(docs.secrets.iter(), &mut all);
    add(docs.claims.iter(), &mut all);
    add(docs.accounts.iter(), &mut all);
    add(docs.limits.iter(), &mut all);
    add(docs.runs.iter(), &mut all);
    add(docs.triggers.iter(), &mut all);
    all
}

fn add<'a, T: Resource + 'a>(docs: impl Iterator<Item = &'a Doc<T>>, to: &mut Vec<Document>) {
    to.extend(docs.map(|doc| Document { json: doc.to_json(), origin: doc.origin.clone() }));
}

/// What was found by the compiler, which knows no places: at the beginning of the document.
fn placed(origin: &Origin, found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let place = |problem: Diagnostic| match problem.line {
        0 if !origin.file().is_empty() => {
            origin.problem(problem.severity, "", &problem.message, problem.hint.as_deref())
        }
        _ => problem,
    };
    found.into_iter().map(place).collect()
}

/// Shows warnings.
pub fn warn(warnings: &[Diagnostic], ui: &Ui) {
    if !warnings.is_empty() {
        ui.say(render_all(warnings, ui.err.on).trim_end());
    }
}

//! What must hold beyond the shape of a document: names that are there once, references that lead somewhere, fields
//! that exclude each other. What Tekton refuses when an object is made is an error here; what makes a run fail there is
//! left to the run, so that it fails here with the same reason.

mod graph;
mod matrix;
pub mod names;
mod params;
mod pipelines;
pub mod refs;
mod resolvers;
mod runs;
mod scope;
mod steps;
mod tasks;
mod workspaces;

use super::model::objects_base64;
use super::model::{ConfigMap, Doc, Origin, Pipeline, RunDoc, Secret, StepAction, Task};
use crate::diagnostic::{Diagnostic, Severity};
use scope::Scope;

/// More problems of one document are not looked for.
const MOST: usize = 50;

/// What was found in one document.
pub struct Problems<'a> {
    origin: &'a Origin,
    found: Vec<Diagnostic>,
}

impl<'a> Problems<'a> {
    fn of(origin: &'a Origin) -> Problems<'a> {
        Problems { origin, found: Vec::new() }
    }

    fn error(&mut self, path: &str, message: impl AsRef<str>) {
        self.add(path, message.as_ref(), None);
    }

    fn error_hint(&mut self, path: &str, message: impl AsRef<str>, hint: impl AsRef<str>) {
        self.add(path, message.as_ref(), Some(hint.as_ref()));
    }

    fn add(&mut self, path: &str, message: &str, hint: Option<&str>) {
        if self.found.len() < MOST {
            let problem = self.origin.problem(Severity::Error, path, message, hint);
            if !self.found.contains(&problem) {
                self.found.push(problem);
            }
        }
    }

    /// The check's sentence, if it has one.
    fn check(&mut self, path: &str, checked: Result<(), String>) {
        if let Err(message) = checked {
            self.error(path, message);
        }
    }
}

pub fn task(doc: &Task) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    tasks::check(&mut problems, &doc.spec, "spec", &Scope::of_task(&doc.spec));
    problems.found
}

pub fn pipeline(doc: &Pipeline) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    pipelines::check(&mut problems, &doc.spec, "spec", &Scope::default(), pipelines::Place::Document);
    problems.found
}

pub fn step_action(doc: &StepAction) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    steps::check_action(&mut problems, &doc.spec);
    problems.found
}

pub fn run(doc: &RunDoc) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    runs::check(&mut problems, &doc.spec);
    problems.found
}

pub fn config_map(doc: &Doc<ConfigMap>) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    for key in doc.spec.data.keys() {
        keys(&mut problems, "data", key);
        if doc.spec.binary_data.contains_key(key) {
            problems.error(&format!("binaryData[{key}]"), format!("`{key}` is in `data` too"));
        }
    }
    for (key, text) in &doc.spec.binary_data {
        keys(&mut problems, "binaryData", key);
        base64(&mut problems, "binaryData", key, text, "write it under `data`");
    }
    problems.found
}

pub fn secret(doc: &Doc<Secret>) -> Vec<Diagnostic> {
    let mut problems = Problems::of(&doc.origin);
    for (key, text) in &doc.spec.data {
        keys(&mut problems, "data", key);
        base64(&mut problems, "data", key, text, "write it under `stringData`");
    }
    for key in doc.spec.string_data.keys() {
        keys(&mut problems, "stringData", key);
    }
    // What a Secret holds is not repeated, so no line of it is shown.
    for problem in &mut problems.found {
        problem.excerpt.clear();
    }
    problems.found
}

fn keys(problems: &mut Problems<'_>, under: &str, key: &str) {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > 253 || !key.bytes().all(fits) || key == "." || key.starts_with("..") {
        let message = format!("`{key}` is not a key: it may have letters, digits, `-`, `_` and `.`");
        problems.error(&format!("{under}[{key}]"), message);
    }
}

fn base64(problems: &mut Problems<'_>, under: &str, key: &str, text: &str, hint: &str) {
    if objects_base64(text).is_none() {
        let hint = format!("a text that is not encoded: {hint}");
        problems.error_hint(&format!("{under}[{key}]"), format!("the value of `{key}` is not base64"), hint);
    }
}

/// The first name that is there before, in the way that `same` compares.
fn duplicates<'n>(names: impl IntoIterator<Item = &'n str>, fold: bool) -> Vec<(usize, &'n str)> {
    let mut seen = std::collections::HashSet::new();
    let mut twice = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        let key = if fold { name.to_lowercase() } else { name.to_owned() };
        if !seen.insert(key) {
            twice.push((at, name));
        }
    }
    twice
}

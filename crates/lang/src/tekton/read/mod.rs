//! YAML to documents: which kinds there are, in the shape that the API wants, each with its place.
//!
//! Everything that is wrong is told at once. A file that was read holds nothing that was passed over: a field is in the
//! model, or it was refused; `status`, which only a cluster writes, is the one part that is left behind.

#[cfg(test)]
mod broken;
mod lenient;
pub mod shape;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::fields::kinds::{KINDS, Kind, OTHERS};
use super::model::{Doc, Docs, Meta, Origin, Resource, TriggerObject};
use super::validate;
use crate::diagnostic::{Diagnostic, Reporter, Severity, did_you_mean, listing};
use crate::yaml::{Node, Yaml};
use shape::Walker;

/// A file.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// For messages.
    pub file: &'a str,
    pub text: &'a str,
}

#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Of documents that name none.
    pub namespace: String,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { namespace: "default".into() }
    }
}

/// It says `apiVersion` and `kind`, which no workflow of the native language does.
pub fn is_object(root: &Node) -> bool {
    root.get("apiVersion").is_some() && root.get("kind").is_some()
}

/// A document of the text is an object of an API, Tekton's or Kubernetes'.
pub fn is_tekton(text: &str) -> bool {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reporter = Reporter::new("", text);
    lenient::roots("", text, &mut reporter).iter().any(is_object)
}

/// Reads all documents of all files as one set. The error holds every problem found, by file and place; it is never
/// empty.
pub fn read(sources: &[Source<'_>], options: &ReadOptions) -> Result<Docs, Vec<Diagnostic>> {
    let mut docs = Docs::default();
    let mut found = Vec::new();
    let mut any = false;
    for source in sources {
        let text = source.text.strip_prefix('\u{feff}').unwrap_or(source.text);
        let mut reporter = Reporter::new(source.file, text);
        let shared: Arc<str> = Arc::from(text);
        let mut later = Vec::new();
        let mut secrets = Vec::new();
        for root in lenient::roots(source.file, text, &mut reporter) {
            any = true;
            let mut reading = Reading {
                reporter: &mut reporter,
                docs: &mut docs,
                options,
                text: &shared,
                file: source.file,
                later: &mut later,
                secrets: &mut secrets,
            };
            reading.document(root);
        }
        let failed = reporter.errors() > 0;
        let mut of_file = reporter.finish();
        of_file.iter_mut().filter(|d| secrets.iter().any(|lines| lines.contains(&d.line))).for_each(hide);
        // What a part means is said when all of the file has the right shape.
        if !failed {
            of_file.extend(later);
            of_file.sort_by_key(|d| (d.line, d.column));
        }
        found.extend(of_file);
    }
    if !any && found.is_empty() {
        let file = sources.first().map_or("", |source| source.file);
        let mut reporter = Reporter::new(file, "");
        let place = crate::diagnostic::Place { line: 1, column: 1, length: 1 };
        reporter.error_hint(place, "there is no document to run", "a run begins with `apiVersion: tekton.dev/v1`");
        found = reporter.finish();
    }
    if found.iter().any(|d| d.severity == Severity::Error) {
        return Err(found);
    }
    docs.warnings = found;
    Ok(docs)
}

struct Reading<'a, 's> {
    reporter: &'a mut Reporter<'s>,
    docs: &'a mut Docs,
    options: &'a ReadOptions,
    text: &'a Arc<str>,
    file: &'a str,
    /// Problems of documents that have the right shape.
    later: &'a mut Vec<Diagnostic>,
    /// The lines of Secrets.
    secrets: &'a mut Vec<RangeInclusive<u32>>,
}

/// What a Secret holds is not repeated: neither its line nor what was found in place of a text.
fn hide(problem: &mut Diagnostic) {
    problem.excerpt.clear();
    if let Some((expected, _)) = problem.message.split_once(", found") {
        problem.message = expected.to_owned();
        problem.hint = problem.hint.is_some().then(|| "put it in quotes".to_owned());
    }
}

/// The last line that something of the tree begins in.
fn last_line(node: &Node) -> u32 {
    let below = match &node.yaml {
        Yaml::Scalar(_) => None,
        Yaml::List(items) => items.iter().map(last_line).max(),
        Yaml::Map(entries) => entries.iter().map(|entry| last_line(&entry.value).max(entry.key.at.line)).max(),
    };
    below.unwrap_or(0).max(node.at.line)
}

impl Reading<'_, '_> {
    fn document(&mut self, root: Node) {
        if root.as_map().is_none() {
            let message = format!("expected an object with `apiVersion` and `kind`, found {}", root.describe());
            return self.reporter.error(root.at, message);
        }
        let word = |key: &str| root.get(key).and_then(Node::as_scalar).map(|scalar| scalar.text.to_string());
        let (Some(version), Some(name)) = (word("apiVersion"), word("kind")) else {
            let missing = if word("apiVersion").is_none() { "apiVersion" } else { "kind" };
            let hint = "a document of Tekton begins with `apiVersion: tekton.dev/v1` and its `kind`";
            return self.reporter.error_hint(root.at, format!("`{missing}` is missing"), hint);
        };
        if name == "List" && version == "v1" {
            return self.list(root);
        }
        let Some(kind) = self.kind(&root, &version, &name) else { return };
        let beta = version.ends_with("/v1beta1") && name != "StepAction";
        if name == "Secret" {
            self.secrets.push(root.at.line..=last_line(&root));
        }
        let errors = self.reporter.errors();
        let mut walker = Walker { reporter: self.reporter, beta };
        let Some(mut fields) = walker.table(&root, kind.table) else { return };
        fields.remove("status");
        if self.reporter.errors() > errors {
            return;
        }
        let Some(meta) = self.meta(&root, kind, &mut fields) else { return };
        self.take(root, &version, &name, meta, fields);
    }

    /// The `items` of a list that a cluster printed.
    fn list(&mut self, root: Node) {
        let items = root.get("items").and_then(Node::as_list).map(<[Node]>::to_vec);
        match items {
            Some(items) => items.into_iter().for_each(|item| self.document(item)),
            None => self.reporter.error(root.at, "a List needs `items`"),
        }
    }

    fn kind(&mut self, root: &Node, version: &str, name: &str) -> Option<&'static Kind> {
        let at = |key: &str| root.get(key).map_or(root.at, |node| node.at);
        let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
            let known = || KINDS.iter().map(|kind| kind.name);
            let hint = match OTHERS.iter().find(|(other, _)| *other == name) {
                Some((_, reason)) => (*reason).to_owned(),
                None => did_you_mean(name, known()).unwrap_or_else(|| format!("kinds are {}", listing(known(), "and"))),
            };
            self.reporter.error_hint(at("kind"), format!("the kind `{name}` is not taken"), hint);
            return None;
        };
        if !kind.versions.contains(&version) {
            let message = format!("a {name} of `{version}` is not known");
            let hint = format!("write {}", listing(kind.versions.iter().copied(), "or"));
            self.reporter.error_hint(at("apiVersion"), message, hint);
            return None;
        }
        Some(kind)
    }

    fn meta(&mut self, root: &Node, kind: &Kind, fields: &mut Map<String, Value>) -> Option<Meta> {
        let node = root.get("metadata").unwrap_or(root);
        let mut meta: Meta = serde_json::from_value(fields.remove("metadata")?).ok()?;
        let is_run = matches!(kind.name, "PipelineRun" | "TaskRun");
        let at = |key: &str| node.get(key).map_or(node.at, |node| node.at);
        match (meta.name.is_empty(), meta.generate_name.is_empty()) {
            (true, true) => {
                let what = if is_run { "`name` or `generateName`" } else { "`name`" };
                self.reporter.error(node.at, format!("metadata of a {} needs {what}", kind.name));
                return None;
            }
            (true, false) if !is_run => {
                let hint = "others find it by its name: write `name`";
                self.reporter.error_hint(at("generateName"), format!("a {} needs a fixed name", kind.name), hint);
                return None;
            }
            (true, false) => {
                if let Err(message) = validate::names::generate_name(&meta.generate_name) {
                    self.reporter.error(at("generateName"), message);
                }
            }
            (false, _) => {
                let limit = if is_run || kind.versions.contains(&"tekton.dev/v1beta1") { 63 } else { 253 };
                if let Err(message) = validate::names::subdomain(&meta.name, limit) {
                    self.reporter.error(at("name"), message);
                }
            }
        }
        if meta.namespace.is_empty() {
            meta.namespace = self.options.namespace.clone();
        } else if let Err(message) = validate::names::label(&meta.namespace) {
            self.reporter.error(at("namespace"), message);
        }
        Some(meta)
    }

    /// Puts the document where its kind belongs.
    fn take(&mut self, root: Node, version: &str, kind: &str, meta: Meta, mut fields: Map<String, Value>) {
        fields.remove("apiVersion");
        fields.remove("kind");
        match kind {
            "Task" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    self.later.extend(validate::task(&doc));
                    let place = self.docs.tasks.insert(doc);
                    self.once(place);
                }
            }
            "Pipeline" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    self.later.extend(validate::pipeline(&doc));
                    let place = self.docs.pipelines.insert(doc);
                    self.once(place);
                }
            }
            "StepAction" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    self.later.extend(validate::step_action(&doc));
                    let place = self.docs.step_actions.insert(doc);
                    self.once(place);
                }
            }
            "PipelineRun" | "TaskRun" => {
                let Some(doc) = self.doc(root, version, kind, meta, fields) else { return };
                self.later.extend(validate::run(&doc));
                let same = |other: &&Doc<_>| {
                    let other: &Doc<super::model::RunSpec> = other;
                    !doc.meta.name.is_empty()
                        && other.meta.name == doc.meta.name
                        && other.meta.namespace == doc.meta.namespace
                        && other.spec.kind() == doc.spec.kind()
                };
                let first = self.docs.runs.iter().find(same).cloned();
                self.docs.runs.push(doc);
                self.once(first);
            }
            "ConfigMap" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    self.later.extend(validate::config_map(&doc));
                    let place = self.docs.config_maps.insert(doc);
                    self.once(place);
                }
            }
            "Secret" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    self.later.extend(validate::secret(&doc));
                    let place = self.docs.secrets.insert(doc);
                    self.once(place);
                }
            }
            "PersistentVolumeClaim" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    let place = self.docs.claims.insert(doc);
                    self.once(place);
                }
            }
            "ServiceAccount" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    let place = self.docs.accounts.insert(doc);
                    self.once(place);
                }
            }
            "LimitRange" => {
                if let Some(doc) = self.doc(root, version, kind, meta, fields) {
                    let place = self.docs.limits.insert(doc);
                    self.once(place);
                }
            }
            _ => {
                let Some(doc) = self.doc::<TriggerObject>(root, version, kind, meta, fields) else { return };
                self.later.extend(crate::triggers::check(&doc));
                let same = |other: &&Doc<TriggerObject>| {
                    other.spec.kind == doc.spec.kind
                        && other.meta.name == doc.meta.name
                        && other.meta.namespace == doc.meta.namespace
                };
                let first = self.docs.triggers.iter().find(same).cloned();
                self.docs.triggers.push(doc);
                self.once(first);
            }
        }
    }

    fn doc<T: Resource>(
        &mut self,
        root: Node,
        version: &str,
        kind: &str,
        meta: Meta,
        mut fields: Map<String, Value>,
    ) -> Option<Doc<T>> {
        let body = if T::IN_SPEC { fields.remove("spec").unwrap_or_default() } else { Value::Object(fields) };
        match T::from_body(version, kind, body) {
            Ok(spec) => Some(Doc { meta, spec, origin: Origin::new(self.file, self.text.clone(), root) }),
            Err(message) => {
                self.reporter.error(root.at, message);
                None
            }
        }
    }

    /// `before`: the document that had this kind and name.
    fn once<T: Resource>(&mut self, before: Option<Doc<T>>) {
        let Some(before) = before else { return };
        let what = format!("the {} `{}` is there twice", before.spec.kind(), before.meta.name);
        let hint = "each object of a set has a name of its own; rename one of them, or leave one out";
        self.later.push(before.origin.problem(Severity::Error, "metadata.name", &what, Some(hint)));
    }
}

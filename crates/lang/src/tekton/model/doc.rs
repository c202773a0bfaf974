//! A document with its metadata, where it came from, and sets of documents.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Claim, ConfigMap, LimitRange, Pipeline, RunDoc, Secret, ServiceAccount, StepAction, Task, TriggerObject};
use crate::diagnostic::{Diagnostic, Place, Reporter, Severity};
use crate::yaml::{Node, Yaml};

/// What a set of files holds, by kind.
#[derive(Debug, Clone, Default)]
pub struct Docs {
    pub tasks: Named<Task>,
    pub pipelines: Named<Pipeline>,
    pub step_actions: Named<StepAction>,
    /// PipelineRuns and TaskRuns, in the order of the files.
    pub runs: Vec<RunDoc>,
    pub config_maps: Named<Doc<ConfigMap>>,
    pub secrets: Named<Doc<Secret>>,
    pub claims: Named<Doc<Claim>>,
    pub accounts: Named<Doc<ServiceAccount>>,
    pub limits: Named<Doc<LimitRange>>,
    /// Kinds of `triggers.tekton.dev`, in the order of the files.
    pub triggers: Vec<Doc<TriggerObject>>,
    pub warnings: Vec<Diagnostic>,
}

/// Documents of one kind: by namespace and name, which are theirs alone.
#[derive(Debug, Clone)]
pub struct Named<T>(BTreeMap<(String, String), T>);

impl<T> Default for Named<T> {
    fn default() -> Named<T> {
        Named(BTreeMap::new())
    }
}

impl<T> Named<T> {
    pub fn get(&self, namespace: &str, name: &str) -> Option<&T> {
        self.0.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// By namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.values()
    }

    pub fn names<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.keys().filter(move |(of, _)| of == namespace).map(|(_, name)| name.as_str())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Resource> Named<Doc<T>> {
    /// Takes the document in; gives back the one that had its name.
    pub fn insert(&mut self, doc: Doc<T>) -> Option<Doc<T>> {
        self.0.insert((doc.meta.namespace.clone(), doc.meta.name.clone()), doc)
    }
}

/// One document: an object of a kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Doc<T> {
    pub meta: Meta,
    pub spec: T,
    pub origin: Origin,
}

/// A kind: what stands beside `metadata`.
pub trait Resource: Serialize + Sized {
    fn kind(&self) -> &str;
    fn api_version(&self) -> &str;
    /// Its fields are those of `spec`; else they stand beside `metadata`.
    const IN_SPEC: bool;
    /// Of `spec`, or of what stands beside `metadata`.
    fn from_body(api_version: &str, kind: &str, body: Value) -> Result<Self, String>;
}

/// [`Resource::from_body`] of a kind that has one version.
pub(super) fn body<T: DeserializeOwned>(kind: &str, expected: &str, body: Value) -> Result<T, String> {
    if kind != expected {
        return Err(format!("expected a {expected}, found a {kind}"));
    }
    serde_json::from_value(body).map_err(|error| error.to_string())
}

impl<T: Resource> Doc<T> {
    /// As the API has it: `apiVersion`, `kind`, `metadata`, and the rest.
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        root.insert("apiVersion".into(), self.spec.api_version().into());
        root.insert("kind".into(), self.spec.kind().into());
        root.insert("metadata".into(), serde_json::to_value(&self.meta).unwrap_or_default());
        let body = serde_json::to_value(&self.spec).unwrap_or_default();
        match body {
            Value::Object(fields) if !T::IN_SPEC => root.extend(fields),
            body => {
                root.insert("spec".into(), body);
            }
        }
        Value::Object(root)
    }

    /// From what [`Doc::to_json`] gave; it has no places.
    pub fn from_json(value: Value) -> Result<Doc<T>, String> {
        let Value::Object(mut root) = value else { return Err("expected an object".into()) };
        let mut text = |key: &str| match root.remove(key) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(format!("`{key}` is missing")),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let meta = root.remove("metadata").unwrap_or_else(|| Value::Object(Map::new()));
        let meta = serde_json::from_value(meta).map_err(|error| format!("metadata: {error}"))?;
        root.remove("status");
        let body = if T::IN_SPEC {
            root.remove("spec").unwrap_or_else(|| Value::Object(Map::new()))
        } else {
            Value::Object(root)
        };
        Ok(Doc { meta, spec: T::from_body(&api_version, &kind, body)?, origin: Origin::default() })
    }
}

/// `metadata`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Meta {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The name of a run is this and five characters; it is used when there is no name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub generate_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What else Kubernetes keeps there: `finalizers`, `ownerReferences`, …
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// Where a document came from: finds the place of a field, for what is found to be wrong later.
#[derive(Clone, Default)]
pub struct Origin(Option<Arc<Source>>);

struct Source {
    file: String,
    text: Arc<str>,
    root: Node,
}

/// Documents are the same wherever they stand.
impl PartialEq for Origin {
    fn eq(&self, _: &Origin) -> bool {
        true
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(source) => write!(f, "Origin({}:{})", source.file, source.root.at.line),
            None => f.write_str("Origin"),
        }
    }
}

impl Origin {
    pub fn new(file: &str, text: Arc<str>, root: Node) -> Origin {
        Origin(Some(Arc::new(Source { file: file.to_owned(), text, root })))
    }

    /// The file; empty for a document that came from no file.
    pub fn file(&self) -> &str {
        self.0.as_ref().map_or("", |source| &source.file)
    }

    /// The place of `spec.tasks[0].params[1].name`; a key with dots goes into brackets (`metadata.labels[a.b/c]`).
    /// Where the file does not write it, the place of what is around it.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut node = &self.0.as_ref()?.root;
        let mut at = node.at;
        for step in steps(path) {
            match &node.yaml {
                Yaml::Map(entries) => {
                    let Some(entry) = entries.iter().find(|entry| &*entry.key.text == step) else { break };
                    at = if matches!(entry.value.yaml, Yaml::Scalar(_)) { entry.value.at } else { entry.key.at };
                    node = &entry.value;
                }
                Yaml::List(items) => {
                    let Some(item) = step.parse::<usize>().ok().and_then(|index| items.get(index)) else { break };
                    at = item.at;
                    node = item;
                }
                Yaml::Scalar(_) => break,
            }
        }
        Some(at)
    }

    /// A problem of the field at `path`.
    pub fn problem(&self, severity: Severity, path: &str, message: &str, hint: Option<&str>) -> Diagnostic {
        let nowhere = || Diagnostic {
            file: String::new(),
            line: 0,
            column: 0,
            length: 1,
            severity,
            message: if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") },
            hint: hint.map(str::to_owned),
            excerpt: String::new(),
        };
        let (Some(source), Some(at)) = (&self.0, self.place(path)) else { return nowhere() };
        let mut reporter = Reporter::new(&source.file, &source.text);
        reporter.error(at, message);
        let found = reporter.finish().into_iter().next();
        found.map_or_else(nowhere, |found| Diagnostic { severity, hint: hint.map(str::to_owned), ..found })
    }
}

/// `a.b[0][x.y]` is `a`, `b`, `0`, `x.y`.
fn steps(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = path;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('.');
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            let step = &inner[..end];
            rest = inner.get(end + 1..).unwrap_or("");
            return Some(step);
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let step = &rest[..end];
        rest = &rest[end..];
        Some(step)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_apart_also_where_keys_hold_dots() {
        let table: [(&str, &[&str]); 4] = [
            ("spec.tasks[0].name", &["spec", "tasks", "0", "name"]),
            ("metadata.labels[a.b/c]", &["metadata", "labels", "a.b/c"]),
            ("", &[]),
            ("a[1][2]", &["a", "1", "2"]),
        ];
        for (path, expected) in table {
            assert_eq!(steps(path).collect::<Vec<_>>(), expected, "{path}");
        }
    }
}

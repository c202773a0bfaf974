//! A bundle: what a run is made of beside its own document. Its text is the source of a version.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// All documents that a run reaches, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// What runs, without what is given to it: `{kind, name}` or `{kind, spec}`, where `kind` is `Pipeline` or `Task`.
    pub root: Value,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pipelines: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<String, Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub step_actions: BTreeMap<String, Value>,
    /// What a ConfigMap `config-defaults` says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<String, String>,
    /// `LimitRange`s, whose defaults containers get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Value>,
}

impl Bundle {
    /// What `run`, a PipelineRun or a TaskRun, reaches among `documents`. What is not there is missing; the compiler says so.
    pub fn collect(run: &Value, documents: &[Value]) -> Bundle {
        let spec = &run["spec"];
        let (kind, reference, inline) = match run["kind"].as_str() {
            Some("PipelineRun") => ("Pipeline", &spec["pipelineRef"], &spec["pipelineSpec"]),
            _ => ("Task", &spec["taskRef"], &spec["taskSpec"]),
        };
        let root = match reference["name"].as_str() {
            Some(name) => json!({ "kind": kind, "name": name }),
            None => json!({ "kind": kind, "spec": inline }),
        };
        Bundle::of(root, documents)
    }

    /// What a Pipeline or Task reaches among `documents`.
    pub fn of(root: Value, documents: &[Value]) -> Bundle {
        let mut bundle = Bundle { root, ..Bundle::default() };
        let mut seen = BTreeSet::new();
        let mut open = vec![match (bundle.root["kind"].as_str(), bundle.root["name"].as_str()) {
            (Some(kind), Some(name)) => (kind.to_owned(), name.to_owned()),
            _ => (String::new(), String::new()),
        }];
        let mut found = Vec::new();
        references(&bundle.root, &mut open);
        while let Some((kind, name)) = open.pop() {
            if !seen.insert((kind.clone(), name.clone())) {
                continue;
            }
            let is_it = |d: &&Value| d["kind"] == kind.as_str() && d["metadata"]["name"] == name.as_str();
            let Some(document) = documents.iter().find(is_it) else { continue };
            references(&document["spec"], &mut open);
            found.push((kind, name, kept(document)));
        }
        for (kind, name, document) in found {
            match kind.as_str() {
                "Pipeline" => bundle.pipelines.insert(name, document),
                "Task" => bundle.tasks.insert(name, document),
                _ => bundle.step_actions.insert(name, document),
            };
        }
        for document in documents {
            match document["kind"].as_str() {
                Some("LimitRange") => bundle.limits.push(document["spec"].clone()),
                Some("ConfigMap") if document["metadata"]["name"] == "config-defaults" => {
                    let data = document["data"].as_object().into_iter().flatten();
                    bundle.defaults =
                        data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
                }
                _ => {}
            }
        }
        bundle
    }

    /// The text of this version: the same documents give the same text.
    pub fn source(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads what [`Bundle::source`] wrote.
    pub fn from_source(source: &str) -> Result<Bundle, String> {
        serde_json::from_str(source)
            .map_err(|why| format!("this is no source of a version of a Tekton workflow: {why}"))
    }

    /// Whether a source text is a bundle, and not of the native language.
    pub fn is_source(source: &str) -> bool {
        source.starts_with('{') && Bundle::from_source(source).is_ok()
    }
}

/// What a document keeps in a bundle: not when it was made, nor by whom it was applied.
fn kept(document: &Value) -> Value {
    let mut metadata = document["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.retain(|key, _| ["name", "namespace", "labels", "annotations"].contains(&key.as_str()));
    }
    json!({
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": metadata,
        "spec": document["spec"],
    })
}

/// All documents that a spec names, wherever in it they stand.
fn references(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, kind) in [("taskRef", "Task"), ("pipelineRef", "Pipeline"), ("ref", "StepAction")] {
                if let Some(name) = map.get(key).and_then(|reference| reference["name"].as_str()) {
                    found.push((kind.to_owned(), name.to_owned()));
                }
            }
            map.values().for_each(|item| references(item, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_holds_what_a_run_reaches_and_nothing_else() {
        let step_action =
            json!({"kind": "StepAction", "metadata": {"name": "act", "uid": "1"}, "spec": {"image": "i"}});
        let task = json!({"kind": "Task", "metadata": {"name": "t"}, "spec": {"steps": [{"ref": {"name": "act"}}]}});
        let other = json!({"kind": "Task", "metadata": {"name": "other"}, "spec": {"steps": []}});
        let pipeline = json!({"kind": "Pipeline", "metadata": {"name": "p"}, "spec": {"tasks": [
            {"name": "a", "taskRef": {"name": "t"}}, {"name": "b", "taskRef": {"name": "missing"}}]}});
        let defaults = json!({"kind": "ConfigMap", "metadata": {"name": "config-defaults"}, "data": {"default-timeout-minutes": "5"}});
        let run = json!({"kind": "PipelineRun", "metadata": {"name": "r"}, "spec": {"pipelineRef": {"name": "p"}, "params": []}});
        let bundle = Bundle::collect(&run, &[other, step_action, task, pipeline, defaults]);
        assert_eq!(bundle.root, json!({"kind": "Pipeline", "name": "p"}));
        assert_eq!(bundle.pipelines.keys().collect::<Vec<_>>(), ["p"]);
        assert_eq!(bundle.tasks.keys().collect::<Vec<_>>(), ["t"]);
        assert_eq!(bundle.step_actions["act"]["metadata"], json!({"name": "act"}));
        assert_eq!(bundle.defaults["default-timeout-minutes"], "5");
        assert!(Bundle::is_source(&bundle.source()));
        assert_eq!(Bundle::from_source(&bundle.source()), Ok(bundle));
    }

    #[test]
    fn a_native_workflow_is_no_bundle() {
        assert!(!Bundle::is_source("workflow: a\ntasks: []\n"));
        assert!(!Bundle::is_source("{workflow: a}"));
    }
}

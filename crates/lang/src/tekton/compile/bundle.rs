//! A bundle: what a run is made of beside its own document. Its text is the source of a version.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::resolver::{self, Asked, Resolve};
use crate::tekton::substitute::Replacements;

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
    /// References of resolvers that nothing was found for, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unresolved: BTreeMap<String, String>,
}

impl Bundle {
    /// What `run`, a PipelineRun or a TaskRun, reaches among `documents`. What is not there is missing; the compiler says so.
    pub fn collect(run: &Value, documents: &[Value]) -> Bundle {
        Bundle::resolved(run, documents, &|asked| Err(format!("the resolver `{}` is not known here", asked.resolver)))
    }

    /// [`Bundle::collect`], where references by a resolver lead to what `resolve` finds.
    pub fn resolved(run: &Value, documents: &[Value], resolve: Resolve<'_>) -> Bundle {
        let spec = &run["spec"];
        let (kind, reference, inline) = match run["kind"].as_str() {
            Some("PipelineRun") => ("Pipeline", &spec["pipelineRef"], &spec["pipelineSpec"]),
            _ => ("Task", &spec["taskRef"], &spec["taskSpec"]),
        };
        let mut walk = Walk::new(documents, resolve);
        // A reference of the run itself can use only what the run is given.
        walk.known = resolver::known(run, &Value::Null);
        let root = match (reference["name"].as_str(), Asked::of(reference, kind, &walk.known)) {
            (_, Some(asked)) => json!({ "kind": kind, "name": walk.ask(&asked) }),
            (Some(name), None) => json!({ "kind": kind, "name": name }),
            (None, None) => json!({ "kind": kind, "spec": inline }),
        };
        let declared = match root["name"].as_str() {
            Some(name) => walk.find(kind, name).map(|document| document["spec"]["params"].clone()).unwrap_or_default(),
            None => inline["params"].clone(),
        };
        walk.known = resolver::known(run, &declared);
        walk.bundle(root)
    }

    /// What a Pipeline or Task reaches among `documents`.
    pub fn of(root: Value, documents: &[Value], resolve: Resolve<'_>) -> Bundle {
        Walk::new(documents, resolve).bundle(root)
    }

    /// Why a document is not there.
    pub fn missing(&self, kind: &str, name: &str) -> String {
        match self.unresolved.get(name) {
            Some(why) => format!("the {kind} of the resolver {name} cannot be had: {why}"),
            None => format!("the {kind} `{name}` is not there"),
        }
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

/// Follows references from document to document.
struct Walk<'a> {
    documents: &'a [Value],
    resolve: Resolve<'a>,
    /// What the params of the document's resolvers may use.
    known: Replacements,
    open: Vec<(&'static str, String)>,
    /// What resolvers gave, by kind and by the name that it has here.
    given: BTreeMap<(&'static str, String), Value>,
    unresolved: BTreeMap<String, String>,
}

impl<'a> Walk<'a> {
    fn new(documents: &'a [Value], resolve: Resolve<'a>) -> Walk<'a> {
        Walk {
            documents,
            resolve,
            known: Replacements::new(),
            open: Vec::new(),
            given: BTreeMap::new(),
            unresolved: BTreeMap::new(),
        }
    }

    fn find(&self, kind: &'static str, name: &str) -> Option<&Value> {
        let is_it = |d: &&Value| d["kind"] == kind && d["metadata"]["name"] == name;
        self.given.get(&(kind, name.to_owned())).or_else(|| self.documents.iter().find(is_it))
    }

    /// The name in the bundle of what a resolver is asked for.
    fn ask(&mut self, asked: &Asked) -> String {
        let resolve = self.resolve;
        let document = match asked.is_known().and_then(|()| resolve(asked)) {
            Ok(document) => kept(&document),
            Err(why) => {
                self.unresolved.insert(asked.title(), why);
                return asked.title();
            }
        };
        let own = document["metadata"]["name"].as_str().unwrap_or("resolved").to_owned();
        let is_free = |name: &str| self.find(asked.kind, name).is_none_or(|other| kept(other) == document);
        let name = match is_free(&own) {
            true => own,
            // Another document has its name.
            false => format!("{own}-{}", &crate::hash(&document.to_string())[..8]),
        };
        self.given.insert((asked.kind, name.clone()), document);
        name
    }

    fn bundle(mut self, mut root: Value) -> Bundle {
        let kind = if root["kind"] == "Pipeline" { "Pipeline" } else { "Task" };
        if let Some(name) = root["name"].as_str() {
            self.open.push((kind, name.to_owned()));
        }
        let (known, none) = (std::mem::take(&mut self.known), Replacements::new());
        self.references(&mut root, &known);
        let mut bundle = Bundle::default();
        let mut seen = BTreeSet::new();
        while let Some((kind, name)) = self.open.pop() {
            if !seen.insert((kind, name.clone())) {
                continue;
            }
            let Some(mut document) = self.find(kind, &name).map(kept) else { continue };
            // Deeper down, values are known only when a task begins.
            let is_root = root["name"] == name.as_str() && root["kind"] == kind;
            self.references(&mut document["spec"], if is_root { &known } else { &none });
            match kind {
                "Pipeline" => bundle.pipelines.insert(name, document),
                "Task" => bundle.tasks.insert(name, document),
                _ => bundle.step_actions.insert(name, document),
            };
        }
        for document in self.documents {
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
        (bundle.root, bundle.unresolved) = (root, self.unresolved);
        bundle
    }

    /// Notes all documents that a spec names, wherever in it they stand; those of resolvers get names.
    fn references(&mut self, value: &mut Value, known: &Replacements) {
        match value {
            Value::Object(map) => {
                for (key, kind) in [("taskRef", "Task"), ("pipelineRef", "Pipeline"), ("ref", "StepAction")] {
                    let Some(reference) = map.get_mut(key) else { continue };
                    if let Some(asked) = Asked::of(reference, kind, known) {
                        *reference = resolver::by_name(reference, &self.ask(&asked));
                    }
                    if let Some(name) = reference["name"].as_str() {
                        self.open.push((kind, name.to_owned()));
                    }
                }
                map.values_mut().for_each(|item| self.references(item, known));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.references(item, known)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, namespace: &str) -> Value {
        json!({"resolver": "cluster", "params": [
            {"name": "kind", "value": "task"}, {"name": "name", "value": name}, {"name": "namespace", "value": namespace}]})
    }

    #[test]
    fn what_a_resolver_finds_is_reached_by_its_name_and_what_it_does_not_find_says_why() {
        let task = |namespace: &str, image: &str| {
            json!({"kind": "Task", "metadata": {"name": "t", "namespace": namespace},
                "spec": {"params": [{"name": "p"}], "steps": [{"image": image}]}})
        };
        let all = [task("home", "near"), task("other", "far")];
        let run = json!({"kind": "PipelineRun", "metadata": {"name": "r", "namespace": "home"}, "spec": {
        "params": [{"name": "where", "value": "other"}],
        "pipelineSpec": {
            "params": [{"name": "where"}, {"name": "which", "default": "t"}],
            "tasks": [
                {"name": "plain", "taskRef": {"name": "t"}},
                {"name": "same", "taskRef": cluster("t", "home")},
                {"name": "far", "taskRef": cluster("$(params.which)", "$(params.where)")},
                {"name": "lost", "taskRef": cluster("nobody", "home")},
                {"name": "late", "taskRef": cluster("$(tasks.plain.results.x)", "home")},
                {"name": "odd", "taskSpec": {"steps": [{"ref": {"resolver": "hub", "params": []}}]}},
            ]}}});
        let resolve = |asked: &Asked| match asked.resolver.as_str() {
            "cluster" => resolver::in_cluster(asked, &all, "home", "default").cloned(),
            other => Err(format!("no {other}")),
        };
        let bundle = Bundle::resolved(&run, &all[..1], &resolve);
        let names: Vec<&str> = bundle.root["spec"]["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|task| task["taskRef"]["name"].as_str())
            .collect();
        assert_eq!(names[..2], ["t", "t"]);
        assert!(names[2].starts_with("t-") && names[2].len() == 10, "{names:?}");
        assert_eq!(bundle.tasks["t"]["spec"]["steps"][0]["image"], "near");
        assert_eq!(bundle.tasks[names[2]]["spec"]["steps"][0]["image"], "far");
        let lost = "the Task of the resolver cluster (kind=task, name=nobody, namespace=home) cannot be had: there is no Task \
                    `nobody` in the namespace `home`";
        assert_eq!(bundle.missing("Task", names[3]), lost);
        assert!(bundle.missing("Task", names[4]).ends_with("is not known before the run"), "{:?}", bundle.unresolved);
        assert_eq!(
            bundle.missing("StepAction", "hub ()"),
            "the StepAction of the resolver hub () cannot be had: no hub"
        );
        assert_eq!(Bundle::from_source(&bundle.source()), Ok(bundle));
    }

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

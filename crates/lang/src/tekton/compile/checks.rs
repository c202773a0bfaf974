//! What Tekton refuses at the start of a PipelineRun: first what the run gives, then what its tasks use.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Compiler;
use super::pipeline::{Frame, source_of};
use crate::diagnostic::listing;
use crate::tekton::run::check::{self, OF_PIPELINES};
use crate::tekton::run::container::{is_true, items, text};
use crate::tekton::substitute::{Reference, parse_result, result_references};

impl Compiler<'_> {
    /// What Tekton asks of a run before it looks at its tasks, in its order.
    pub fn check_run(&mut self, frame: &Frame) {
        let whose =
            if frame.name.is_empty() { "the Pipeline".to_owned() } else { format!("the Pipeline `{}`", frame.name) };
        let declared = &frame.spec["params"];
        let mut checked = check::params(&whose, declared, &frame.values, OF_PIPELINES);
        if checked.is_ok() {
            checked = check::indices(&whose, &frame.spec, &frame.values, OF_PIPELINES);
        }
        if checked.is_ok() {
            let is_bound = |name: &str| frame.workspaces.contains_key(name);
            checked = check::workspaces(&whose, &frame.spec["workspaces"], is_bound, OF_PIPELINES);
        }
        if let Err(refusal) = checked {
            self.refuse(refusal);
        }
        let all: BTreeSet<String> = ["tasks", "finally"]
            .iter()
            .flat_map(|list| items(&frame.spec[*list]).iter().map(|task| text(task, "name")))
            .collect();
        for own in items(&self.spec["taskRunSpecs"]) {
            let name = text(own, "pipelineTaskName");
            if !all.contains(&name) {
                let why = format!("`taskRunSpecs` names the task `{name}`, which {whose} does not have");
                self.refuse_with("InvalidTaskRunSpecs", why);
            }
        }
    }

    /// What Tekton asks of the tasks before any of them runs.
    pub fn check_tasks(&mut self, frame: &Frame, tasks: &[(&Value, bool)]) {
        let missing: Vec<String> = tasks
            .iter()
            .filter_map(|(task, _)| task["taskRef"]["name"].as_str())
            .filter(|name| !self.bundle.tasks.contains_key(*name))
            .map(str::to_owned)
            .collect();
        if let Some(name) = missing.iter().find(|name| self.bundle.unresolved.contains_key(*name)) {
            return self.refuse_with("CouldntGetTask", self.bundle.missing("Task", name));
        }
        if !missing.is_empty() {
            let names = listing(missing.iter().map(String::as_str), "and");
            self.refuse_with("CouldntGetTask", format!("the pipeline uses the Tasks {names}, which are not there"));
            return;
        }
        for (task, _) in tasks {
            let name = text(task, "name");
            let (spec, is_inline) = self.task_spec(task);
            let mut given: BTreeSet<String> = items(&task["params"]).iter().map(|p| text(p, "name")).collect();
            given.extend(items(&task["matrix"]["params"]).iter().map(|p| text(p, "name")));
            for include in items(&task["matrix"]["include"]) {
                given.extend(items(&include["params"]).iter().map(|p| text(p, "name")));
            }
            if is_inline {
                given.extend(frame.values.keys().cloned());
            }
            let missing: Vec<String> = items(&spec["params"])
                .iter()
                .filter(|declared| declared.get("default").is_none())
                .map(|declared| text(declared, "name"))
                .filter(|name| !given.contains(name))
                .collect();
            if !missing.is_empty() {
                let names = listing(missing.iter().map(String::as_str), "and");
                let why = format!("the task `{name}` is given no values for the params {names}, which have no default");
                self.refuse_with("PipelineValidationFailed", why);
            }
        }
        self.check_results(tasks);
        self.check_optional(frame, tasks);
    }

    /// Every result that is used is one that its task declares.
    fn check_results(&mut self, tasks: &[(&Value, bool)]) {
        let by_name: BTreeMap<String, &Value> = tasks.iter().map(|(task, _)| (text(task, "name"), *task)).collect();
        for (task, _) in tasks {
            let name = text(task, "name");
            for reference in result_references(&referring(task)) {
                let Reference::Result { task: producer, rest } = &reference else { continue };
                let Some(used) = by_name.get(producer) else {
                    let why = format!("the task `{name}` uses a result of the task `{producer}`, which is not there");
                    self.refuse_with("InvalidTaskResultReference", why);
                    continue;
                };
                let (spec, _) = self.task_spec(used);
                let declares = |wanted: &str| items(&spec["results"]).iter().any(|one| one["name"] == wanted);
                let (result, _) = parse_result(rest, declares);
                if !declares(&result) {
                    let why = format!(
                        "the task `{name}` uses the result `{result}` of the task `{producer}`, which declares none of that name"
                    );
                    self.refuse_with("InvalidTaskResultReference", why);
                }
            }
        }
    }

    /// A workspace that a task needs is not one that the Pipeline can do without.
    fn check_optional(&mut self, frame: &Frame, tasks: &[(&Value, bool)]) {
        for (task, _) in tasks {
            let (spec, _) = self.task_spec(task);
            for declared in items(&spec["workspaces"]).iter().filter(|declared| !is_true(&declared["optional"])) {
                let wanted = text(declared, "name");
                let mapped = items(&task["workspaces"]).iter().find(|one| one["name"] == wanted.as_str());
                let source = mapped.map(source_of).unwrap_or_else(|| wanted.clone());
                let of_pipeline = items(&frame.spec["workspaces"]).iter().find(|one| one["name"] == source.as_str());
                if mapped.is_some() && of_pipeline.is_some_and(|one| is_true(&one["optional"])) {
                    let name = text(task, "name");
                    let why = format!(
                        "the task `{name}` needs the workspace `{wanted}`, and `{source}` of the pipeline is optional"
                    );
                    self.refuse_with("RequiredWorkspaceMarkedOptional", why);
                }
            }
        }
    }
}

/// All of a task that may refer to results of others.
fn referring(task: &Value) -> Value {
    json!([task["params"], task["when"], task["matrix"], task["taskSpec"], task["workspaces"]])
}

//! Pipelines in Pipelines: the tasks of the inner one take the place of the task that runs it.
//!
//! The task `t` that runs a Pipeline with a task `a` becomes a task `t_a`, and a join `t` that waits for all of them. Names of Tekton have
//! no `_`, so nothing else is called so. What others use of the results of `t` becomes what the inner Pipeline makes them of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::Bundle;
use crate::tekton::run::container::{items, text};
use crate::tekton::status::names::child_name;
use crate::tekton::substitute::{Reference, Replacements, names, params};

/// How deep Pipelines may be in one another.
const MAX_DEPTH: usize = 8;

/// Marks the task that waits for those of an inner Pipeline.
pub const JOIN: &str = "pitcrew.dev/join";

/// A Pipeline's spec without Pipelines in it. An error is a sentence about one that cannot be run.
pub fn flat(spec: &Value, run: &str, bundle: &Bundle, depth: usize) -> Result<Value, String> {
    let is_inner = |task: &Value| task.get("pipelineRef").is_some() || task.get("pipelineSpec").is_some();
    if let Some(task) = items(&spec["finally"]).iter().find(|task| is_inner(task)) {
        let name = text(task, "name");
        return Err(format!("the task `{name}` of `finally` runs a Pipeline; only `tasks` can do that"));
    }
    if !items(&spec["tasks"]).iter().any(is_inner) {
        return Ok(spec.clone());
    }
    if depth >= MAX_DEPTH {
        return Err(format!("Pipelines are more than {MAX_DEPTH} deep in one another"));
    }
    let mut tasks = Vec::new();
    let mut results = Replacements::new();
    for task in items(&spec["tasks"]) {
        if !is_inner(task) {
            tasks.push(task.clone());
            continue;
        }
        let name = text(task, "name");
        if task.get("matrix").is_some() {
            return Err(format!(
                "the task `{name}` runs a Pipeline for each combination of a matrix; that cannot be done"
            ));
        }
        let inner = Inner::new(task, run, bundle, depth)?;
        for result in items(&inner.spec["results"]) {
            results.value(&format!("tasks.{name}.results"), &text(result, "name"), &result["value"]);
        }
        tasks.extend(inner.tasks(task));
    }
    let mut out = spec.clone();
    out["tasks"] = Value::Array(tasks);
    Ok(results.fill_value(&out))
}

/// An inner Pipeline, with its params in place and its tasks under their new names.
struct Inner {
    name: String,
    spec: Value,
}

impl Inner {
    fn new(task: &Value, run: &str, bundle: &Bundle, depth: usize) -> Result<Inner, String> {
        let name = text(task, "name");
        let (spec, title) = match task["pipelineRef"]["name"].as_str() {
            Some(named) => {
                let found = bundle.pipelines.get(named);
                let found = found
                    .ok_or_else(|| format!("the task `{name}` runs the Pipeline `{named}`, which is not there"))?;
                (found["spec"].clone(), named.to_owned())
            }
            None => (task["pipelineSpec"].clone(), name.clone()),
        };
        let own_run = child_name(run, &format!("-{name}"));
        let spec = flat(&spec, &own_run, bundle, depth + 1)?;
        if !items(&spec["finally"]).is_empty() {
            return Err(format!(
                "the Pipeline that the task `{name}` runs has `finally`; an inner one cannot have that"
            ));
        }
        let values = params::resolve(&spec["params"], &params::given(&task["params"]))?;
        let declared: Vec<String> = items(&spec["params"]).iter().map(|one| text(one, "name")).collect();
        if let Some(missing) = declared.iter().find(|param| !values.contains_key(*param)) {
            return Err(format!("the task `{name}` gives no value to the param `{missing}` of its Pipeline"));
        }
        let mut known = Replacements::new();
        known.text("context.pipelineRun.name", &own_run);
        known.text("context.pipeline.name", title);
        // Names first, as long as all that refers to tasks is the inner Pipeline's own.
        let spec = renamed(&spec, &name);
        let tasks = items(&spec["tasks"]).iter().map(|one| filled(one, &values, &known)).collect();
        let of_values = params::replacements(&values);
        let results = known.fill_value(&of_values.fill_value(&spec["results"]));
        let mut out = spec.clone();
        out["tasks"] = Value::Array(tasks);
        out["results"] = results;
        Ok(Inner { name, spec: out })
    }

    /// The tasks in the place of `outer`, and the one that waits for them.
    fn tasks(&self, outer: &Value) -> Vec<Value> {
        let mapped: BTreeMap<String, String> = items(&outer["workspaces"])
            .iter()
            .map(|mapping| {
                let own = text(mapping, "name");
                let from = text(mapping, "workspace");
                (own.clone(), if from.is_empty() { own } else { from })
            })
            .collect();
        let mut made: Vec<Value> = items(&self.spec["tasks"]).to_vec();
        let all: Vec<String> = made.iter().map(|task| text(task, "name")).collect();
        let waits: Vec<Value> = items(&outer["runAfter"]).to_vec();
        for task in &mut made {
            for mapping in list_of(task, "workspaces") {
                let from =
                    [text(mapping, "workspace"), text(mapping, "name")].into_iter().find(|name| !name.is_empty());
                if let Some(source) = from.and_then(|from| mapped.get(&from)) {
                    mapping["workspace"] = source.clone().into();
                }
            }
            let own = [items(&task["runAfter"]), waits.as_slice()].concat();
            let when = [items(&outer["when"]), items(&task["when"])].concat();
            if let Some(map) = task.as_object_mut() {
                map.insert("runAfter".into(), Value::Array(own));
                map.insert("when".into(), Value::Array(when));
            }
        }
        let after: Vec<Value> = all.into_iter().map(Value::from).chain(waits).collect();
        made.push(json!({ "name": self.name, JOIN: true, "runAfter": after, "when": outer["when"] }));
        made
    }
}

/// A task of the inner Pipeline with the values of its params; a spec that is written in it keeps what it declares itself.
fn filled(task: &Value, values: &params::Values, known: &Replacements) -> Value {
    let of_values = params::replacements(values);
    let mut out = known.fill_value(&of_values.fill_value(task));
    if let Some(spec) = task.get("taskSpec") {
        let own: BTreeSet<String> = [&spec["params"], &task["params"]]
            .into_iter()
            .flat_map(|list| items(list).iter().map(|param| text(param, "name")))
            .collect();
        let around =
            values.iter().filter(|(name, _)| !own.contains(*name)).map(|(k, v)| (k.clone(), v.clone())).collect();
        out["taskSpec"] = known.fill_value(&params::replacements(&around).fill_value(spec));
    }
    out
}

/// The spec with all its tasks called `PREFIX_NAME`, wherever they are spoken of.
fn renamed(spec: &Value, prefix: &str) -> Value {
    let mut known = Replacements::new();
    for variable in names(spec) {
        let Some(task) = Reference::parse(&variable).and_then(|reference| reference.task().map(str::to_owned)) else {
            continue;
        };
        let rest = variable.strip_prefix("tasks.").and_then(|rest| rest.strip_prefix(task.as_str()));
        if let Some(rest) = rest {
            known.text(variable.clone(), format!("$(tasks.{prefix}_{task}{rest})"));
        }
    }
    let mut out = known.fill_value(spec);
    for task in list_of(&mut out, "tasks") {
        task["name"] = format!("{prefix}_{}", text(task, "name")).into();
        for after in list_of(task, "runAfter") {
            *after = format!("{prefix}_{}", crate::tekton::substitute::text_of(after)).into();
        }
    }
    out
}

/// The elements of a list, to change them; none where there is no list.
fn list_of<'v>(of: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    of.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_an_inner_pipeline_take_the_place_of_the_task_that_runs_it() {
        let inner = json!({"metadata": {"name": "in"}, "spec": {
            "params": [{"name": "p"}, {"name": "q", "default": "d"}],
            "workspaces": [{"name": "w"}],
            "results": [{"name": "out", "value": "<$(tasks.b.results.r)>"}],
            "tasks": [
                {"name": "a", "taskRef": {"name": "t"}, "params": [{"name": "x", "value": "$(params.p)$(params.q)"}],
                 "workspaces": [{"name": "v", "workspace": "w"}]},
                {"name": "b", "runAfter": ["a"], "params": [{"name": "y", "value": "$(tasks.a.results.z)"}],
                 "taskSpec": {"params": [{"name": "q"}], "steps": [{"script": "$(params.p) $(params.q) $(context.pipelineRun.name)"}]}},
            ],
        }});
        let bundle = Bundle { pipelines: [("in".to_owned(), inner)].into(), ..Bundle::default() };
        let spec = json!({"tasks": [
            {"name": "first", "taskRef": {"name": "t"}},
            {"name": "sub", "runAfter": ["first"], "pipelineRef": {"name": "in"},
             "when": [{"input": "x", "operator": "in", "values": ["x"]}],
             "params": [{"name": "p", "value": "$(tasks.first.results.r)"}], "workspaces": [{"name": "w", "workspace": "outer"}]},
            {"name": "last", "params": [{"name": "v", "value": "$(tasks.sub.results.out)"}], "taskRef": {"name": "t"}},
        ]});
        let found = flat(&spec, "run", &bundle, 0).unwrap();
        let when = json!([{"input": "x", "operator": "in", "values": ["x"]}]);
        let expected = json!([
            {"name": "first", "taskRef": {"name": "t"}},
            {"name": "sub_a", "taskRef": {"name": "t"}, "params": [{"name": "x", "value": "$(tasks.first.results.r)d"}],
             "workspaces": [{"name": "v", "workspace": "outer"}], "runAfter": ["first"], "when": when},
            {"name": "sub_b", "runAfter": ["sub_a", "first"], "params": [{"name": "y", "value": "$(tasks.sub_a.results.z)"}],
             "taskSpec": {"params": [{"name": "q"}], "steps": [{"script": "$(tasks.first.results.r) $(params.q) run-sub"}]}, "when": when},
            {"name": "sub", "pitcrew.dev/join": true, "runAfter": ["sub_a", "sub_b", "first"], "when": when},
            {"name": "last", "params": [{"name": "v", "value": "<$(tasks.sub_b.results.r)>"}], "taskRef": {"name": "t"}},
        ]);
        assert_eq!(found["tasks"], expected);
    }

    #[test]
    fn a_pipeline_in_itself_is_refused() {
        let inner = json!({"spec": {"tasks": [{"name": "again", "pipelineRef": {"name": "in"}}]}});
        let bundle = Bundle { pipelines: [("in".to_owned(), inner.clone())].into(), ..Bundle::default() };
        let error = flat(&inner["spec"], "run", &bundle, 0).unwrap_err();
        assert!(error.contains("deep in one another"), "{error}");
    }
}

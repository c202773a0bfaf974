//! The `spec` of a Pipeline.

use std::collections::BTreeSet;

use super::super::model::{Param, PipelineSpec, PipelineTask, TaskUse};
use super::params::{self, Spot};
use super::refs::{Ref, refs};
use super::scope::Scope;
use super::{Problems, duplicates, graph, matrix, names, resolvers, steps, tasks};
use crate::diagnostic::{did_you_mean, listing};

/// Where a Pipeline is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// As an object of its own: it uses what it declares.
    Document,
    /// Within a run or another Pipeline: it uses also what these have.
    Inline,
}

/// `outer`: the params that come from further out.
pub fn check(problems: &mut Problems<'_>, spec: &PipelineSpec, path: &str, outer: &Scope, place: Place) {
    let at = |name: &str| format!("{path}.{name}");
    params::declarations(problems, &spec.params, &at("params"));
    for (index, name) in duplicates(spec.workspaces.iter().map(|workspace| workspace.name.as_str()), false) {
        problems.error(&format!("{path}.workspaces[{index}].name"), format!("the workspace `{name}` is there twice"));
    }
    if spec.tasks.is_empty() {
        let (path, message) = match spec.finally.len() {
            0 => (path.to_owned(), "a Pipeline needs `tasks`"),
            _ => (at("finally"), "there is `finally`, and there are no `tasks`"),
        };
        problems.error(&path, message);
    }
    let scope = Scope::of(&spec.params).within(outer);
    let all = sections(spec, path);
    let mut seen = BTreeSet::new();
    for (task, path, _) in &all {
        problems.check(&format!("{path}.name"), names::label(&task.name));
        if !seen.insert(task.name.as_str()) {
            problems.error(&format!("{path}.name"), format!("the task `{}` is there twice", task.name));
        }
    }
    for (task, path, is_final) in &all {
        one(problems, task, path, &scope);
        workspaces(problems, task, path, spec, place);
        values(problems, task, path, spec, &scope, *is_final);
        matrix::check(problems, task, path);
    }
    matrix::consumers(problems, spec, path);
    graph::check(problems, spec, path);
    results(problems, spec, path);
}

/// All tasks with their places, and whether they are `finally` tasks.
pub fn sections<'s>(spec: &'s PipelineSpec, path: &str) -> Vec<(&'s PipelineTask, String, bool)> {
    let of = |list: &'s [PipelineTask], name: &str, is_final: bool| {
        let path = format!("{path}.{name}");
        list.iter().enumerate().map(move |(at, task)| (task, format!("{path}[{at}]"), is_final)).collect::<Vec<_>>()
    };
    let mut all = of(&spec.tasks, "tasks", false);
    all.extend(of(&spec.finally, "finally", true));
    all
}

fn one(problems: &mut Problems<'_>, task: &PipelineTask, path: &str, scope: &Scope) {
    let given = [
        ("taskRef", task.task_ref.is_some()),
        ("taskSpec", task.task_spec.is_some()),
        ("pipelineRef", task.pipeline_ref.is_some()),
        ("pipelineSpec", task.pipeline_spec.is_some()),
    ];
    let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if let [first, second, ..] = given.as_slice() {
        problems.error(&format!("{path}.{second}"), format!("`{first}` and `{second}` exclude each other"));
    }
    match task.uses() {
        TaskUse::Nothing => problems.error(path, format!("the task `{}` needs `taskRef` or `taskSpec`", task.name)),
        TaskUse::Custom { api_version, kind } => custom(problems, api_version, kind, task, path),
        TaskUse::Ref(used) => {
            if !matches!(used.kind.as_str(), "" | "Task") {
                let kind = if used.kind == "ClusterTask" {
                    "ClusterTask is gone from Tekton; make it a Task"
                } else {
                    "write `Task`"
                };
                problems.error_hint(
                    &format!("{path}.taskRef.kind"),
                    format!("the kind `{}` cannot be run here", used.kind),
                    kind,
                );
            }
            reference(problems, &used.name, &used.resolver, &used.params, &format!("{path}.taskRef"));
        }
        TaskUse::Inline(used) => {
            let path = format!("{path}.taskSpec");
            if !used.kind.is_empty() && used.kind != "Task" {
                problems.error(&format!("{path}.kind"), format!("the kind `{}` cannot be run here", used.kind));
            }
            let scope = Scope::of_task(&used.task).given(&task.params).within(scope);
            let scope = match &task.matrix {
                Some(matrix) => matrix::elements(scope, matrix),
                None => scope,
            };
            tasks::check(problems, &used.task, &path, &scope);
        }
        TaskUse::Pipeline(used) => {
            reference(problems, &used.name, &used.resolver, &used.params, &format!("{path}.pipelineRef"));
        }
        TaskUse::InlinePipeline(used) => {
            let scope = Scope::default().given(&task.params).within(scope);
            check(problems, used, &format!("{path}.pipelineSpec"), &scope, Place::Inline);
        }
    }
    steps::on_error(problems, &task.on_error, path);
    if task.on_error == "continue" && task.retries > 0 {
        let hint = "a task whose failure is ignored is not tried again; leave one of them out";
        problems.error_hint(&format!("{path}.onError"), "`onError: continue` excludes `retries`", hint);
    }
    if task.timeout.is_some_and(|timeout| timeout.0.is_negative()) {
        problems.error(&format!("{path}.timeout"), "a timeout is not negative");
    }
    steps::when(problems, &task.when, &format!("{path}.when"));
    params::values(problems, &task.params, &format!("{path}.params"));
}

fn custom(problems: &mut Problems<'_>, api_version: &str, kind: &str, task: &PipelineTask, path: &str) {
    let path = if task.task_ref.is_some() {
        format!("{path}.taskRef.apiVersion")
    } else {
        format!("{path}.taskSpec.apiVersion")
    };
    let message = format!("the custom task `{kind}` of `{api_version}` cannot be run here");
    problems.error_hint(&path, message, "custom tasks need a controller of their own in a cluster; use a Task");
}

/// A name, or a resolver with params.
pub fn reference(problems: &mut Problems<'_>, name: &str, resolver: &str, params: &[Param], path: &str) {
    let has_params = !params.is_empty();
    resolvers::check(problems, resolver, params, path);
    match (resolver.is_empty(), name.is_empty()) {
        (true, true) if !has_params => problems.error(path, "it needs `name`, or `resolver` with its params"),
        (true, true) => problems.error(path, "params of a reference are of a `resolver`, which is missing"),
        (true, false) if has_params => {
            let hint = "params of the Task stand beside `taskRef`";
            problems.error_hint(&format!("{path}.params"), "these params are of a `resolver`", hint);
        }
        (true, false) if !name.contains("$(") => {
            let checked = names::subdomain(name, 253).map_err(|message| match name.contains("://") {
                true => format!("{message}; an address needs a `resolver`"),
                false => message,
            });
            problems.check(&format!("{path}.name"), checked);
        }
        (false, false) => {
            problems.error(&format!("{path}.name"), "`name` excludes `resolver`: its params say what is meant")
        }
        _ => {}
    }
}

fn workspaces(problems: &mut Problems<'_>, task: &PipelineTask, path: &str, spec: &PipelineSpec, place: Place) {
    for (at, name) in duplicates(task.workspaces.iter().map(|workspace| workspace.name.as_str()), false) {
        problems.error(&format!("{path}.workspaces[{at}].name"), format!("the workspace `{name}` is there twice"));
    }
    if place == Place::Inline {
        return;
    }
    let declared: Vec<&str> = spec.workspaces.iter().map(|workspace| workspace.name.as_str()).collect();
    for (at, mapping) in task.workspaces.iter().enumerate() {
        let (name, field) =
            if mapping.workspace.is_empty() { (&mapping.name, "name") } else { (&mapping.workspace, "workspace") };
        if !declared.contains(&name.as_str()) {
            let hint = did_you_mean(name, declared.iter().copied())
                .unwrap_or_else(|| format!("declare it in the Pipeline: `workspaces: [{{name: {name}}}]`"));
            problems.error_hint(
                &format!("{path}.workspaces[{at}].{field}"),
                format!("the Pipeline declares no workspace `{name}`"),
                hint,
            );
        }
    }
}

/// Every text of a task that is replaced before it starts, with its place and how it stands.
pub fn texts(task: &PipelineTask, path: &str) -> Vec<(String, String, Spot)> {
    use super::super::model::ParamValue;
    let mut all = Vec::new();
    let mut value = |value: &ParamValue, path: String| match value {
        ParamValue::Text(text) => all.push((text.clone(), path, Spot::Element)),
        ParamValue::List(list) => {
            let items =
                list.iter().enumerate().map(|(at, text)| (text.clone(), format!("{path}[{at}]"), Spot::Element));
            all.extend(items);
        }
        ParamValue::Map(fields) => {
            all.extend(fields.iter().map(|(key, text)| (text.clone(), format!("{path}[{key}]"), Spot::Element)));
        }
    };
    for (at, param) in task.params.iter().enumerate() {
        value(&param.value, format!("{path}.params[{at}].value"));
    }
    if let Some(matrix) = &task.matrix {
        for (at, param) in matrix.params.iter().enumerate() {
            value(&param.value, format!("{path}.matrix.params[{at}].value"));
        }
        for (at, include) in matrix.include.iter().enumerate() {
            for (index, param) in include.params.iter().enumerate() {
                value(&param.value, format!("{path}.matrix.include[{at}].params[{index}].value"));
            }
        }
    }
    for (at, condition) in task.when.iter().enumerate() {
        all.push((condition.input.clone(), format!("{path}.when[{at}].input"), Spot::Single));
        for (index, text) in condition.values.iter().enumerate() {
            all.push((text.clone(), format!("{path}.when[{at}].values[{index}]"), Spot::Element));
        }
    }
    all
}

const KNOWN: [&str; 6] = ["params", "tasks", "finally", "context", "workspaces", "results"];

fn values(
    problems: &mut Problems<'_>,
    task: &PipelineTask,
    path: &str,
    spec: &PipelineSpec,
    scope: &Scope,
    is_final: bool,
) {
    let names: Vec<&str> = spec.tasks.iter().map(|task| task.name.as_str()).collect();
    for (text, path, spot) in texts(task, path) {
        // A whole object or array may be handed on as the value of a param.
        let hands_on =
            text.starts_with("$(params.") && refs(&text).next().is_some_and(|found| found.is_alone_in(&text));
        if !hands_on || refs(&text).any(|found| scope.get(found.part(1)).is_none()) {
            params::uses(problems, &text, &path, scope, spot);
        }
        for found in refs(&text) {
            if !KNOWN.contains(&found.part(0)) {
                let hint =
                    format!("it begins with {}; a shell's variable is written `${{NAME}}`", listing(KNOWN, "or"));
                problems.error_hint(&path, format!("`$({})` is not a reference", found.text), hint);
            }
            context(problems, &found, &path);
            status(problems, &found, &path, &names, is_final);
        }
    }
}

fn context(problems: &mut Problems<'_>, found: &Ref, path: &str) {
    if found.part(0) != "context" || found.parts.len() != 3 {
        return;
    }
    let known: &[&str] = match found.part(1) {
        "pipelineRun" => &["name", "namespace", "uid"],
        "pipeline" => &["name"],
        "pipelineTask" => &["retries"],
        _ => return,
    };
    if !known.contains(&found.part(2)) {
        let hint = format!("there are {}", listing(known.iter().copied(), "and"));
        problems.error_hint(path, format!("`$({})` is not known", found.text), hint);
    }
}

/// How tasks ended is known to `finally` tasks only.
fn status(problems: &mut Problems<'_>, found: &Ref, path: &str, names: &[&str], is_final: bool) {
    if found.part(0) != "tasks" || !matches!(found.parts.last().map(String::as_str), Some("status" | "reason")) {
        return;
    }
    match (is_final, found.parts.len()) {
        (false, 2 | 3) => {
            let message = format!("`$({})` is known only when all tasks have ended", found.text);
            problems.error_hint(path, message, "use it in a task under `finally`");
        }
        (true, 3) if !names.contains(&found.part(1)) => {
            let hint = did_you_mean(found.part(1), names.iter().copied());
            problems.add(path, &format!("`$({})`: there is no task `{}`", found.text, found.part(1)), hint.as_deref());
        }
        _ => {}
    }
}

/// Results of a Pipeline come from results of its tasks.
fn results(problems: &mut Problems<'_>, spec: &PipelineSpec, path: &str) {
    use super::super::model::ParamValue;
    for (at, name) in duplicates(spec.results.iter().map(|result| result.name.as_str()), false) {
        problems.error(&format!("{path}.results[{at}].name"), format!("the result `{name}` is there twice"));
    }
    for (at, result) in spec.results.iter().enumerate() {
        problems.check(&format!("{path}.results[{at}].name"), names::result(&result.name));
        let path = format!("{path}.results[{at}].value");
        let texts: Vec<&String> = match &result.value {
            ParamValue::Text(text) => vec![text],
            ParamValue::List(list) => list.iter().collect(),
            ParamValue::Map(fields) => fields.values().collect(),
        };
        let all: Vec<Ref> = texts.iter().flat_map(|text| refs(text)).collect();
        let is_result = |found: &Ref| {
            matches!(found.part(0), "tasks" | "finally") && found.parts.len() >= 4 && found.part(2) == "results"
        };
        if !all.iter().any(is_result) {
            let hint = "write `$(tasks.TASK.results.RESULT)`";
            problems.error_hint(&path, "a result of a Pipeline comes from a result of a task", hint);
        }
        for found in all.iter().filter(|found| is_result(found)) {
            let list = if found.part(0) == "tasks" { &spec.tasks } else { &spec.finally };
            let names: Vec<&str> = list.iter().map(|task| task.name.as_str()).collect();
            if !names.contains(&found.part(1)) {
                let hint = did_you_mean(found.part(1), names.iter().copied());
                let section = found.part(0);
                let message = format!("`$({})`: there is no task `{}` under `{section}`", found.text, found.part(1));
                problems.add(&path, &message, hint.as_deref());
            }
        }
    }
}

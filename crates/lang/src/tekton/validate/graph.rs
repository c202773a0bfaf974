//! The order of tasks: who waits for whom, and that nobody waits for himself.

use std::collections::{BTreeMap, BTreeSet};

use super::super::model::{PipelineSpec, PipelineTask, TaskUse};
use super::Problems;
use super::pipelines::{sections, texts};
use super::refs::{Ref, refs};
use crate::diagnostic::did_you_mean;

pub fn check(problems: &mut Problems<'_>, spec: &PipelineSpec, path: &str) {
    let names: BTreeSet<&str> = spec.tasks.iter().map(|task| task.name.as_str()).collect();
    let finals: BTreeSet<&str> = spec.finally.iter().map(|task| task.name.as_str()).collect();
    let mut edges: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (task, path, is_final) in sections(spec, path) {
        if is_final && !task.run_after.is_empty() {
            let hint = "tasks under `finally` run beside each other, after all others";
            problems.error_hint(&format!("{path}.runAfter"), "a task under `finally` has no `runAfter`", hint);
            continue;
        }
        let mut needs = Vec::new();
        for (at, name) in task.run_after.iter().enumerate() {
            let path = format!("{path}.runAfter[{at}]");
            if finals.contains(name.as_str()) {
                problems.error(&path, format!("`{name}` is under `finally`, and nothing runs after it"));
            } else if known(problems, &names, name, &path, &format!("there is no task `{name}` to run after")) {
                needs.push((name.clone(), path));
            }
        }
        for (found, path) in results_of(task, &path) {
            let name = found.part(1);
            if nested(spec, name) {
                let message = format!("`$({})`: results of a Pipeline within a Pipeline are not handed on", found.text);
                problems.error(&path, message);
            } else if finals.contains(name) {
                let message = format!(
                    "`$({})`: `{name}` is under `finally`, whose results only the Pipeline can have",
                    found.text
                );
                problems.error(&path, message);
            } else if known(problems, &names, name, &path, &format!("`$({})`: there is no task `{name}`", found.text)) {
                needs.push((name.to_owned(), path));
            }
        }
        if !is_final {
            edges.entry(task.name.as_str()).or_default().extend(needs);
        }
    }
    if let Some((circle, path)) = circle(&edges) {
        let message = match circle.as_slice() {
            [one] => format!("the task `{one}` waits for itself"),
            all => format!("these tasks wait for each other: {} → {}", all.join(" → "), all[0]),
        };
        problems.error(&path, message);
    }
}

fn known(problems: &mut Problems<'_>, names: &BTreeSet<&str>, name: &str, path: &str, message: &str) -> bool {
    if names.contains(name) {
        return true;
    }
    let hint = did_you_mean(name, names.iter().copied());
    problems.add(path, message, hint.as_deref());
    false
}

fn nested(spec: &PipelineSpec, name: &str) -> bool {
    let is = |task: &&PipelineTask| task.name == name;
    let task = spec.tasks.iter().find(is);
    task.is_some_and(|task| matches!(task.uses(), TaskUse::Pipeline(_) | TaskUse::InlinePipeline(_)))
}

/// Every result of another task that a task uses, in what it is given and in its own inline text.
fn results_of(task: &PipelineTask, path: &str) -> Vec<(Ref, String)> {
    let mut all: Vec<(Ref, String)> = Vec::new();
    let mut take = |text: &str, path: &str| {
        let is_result = |found: &Ref| found.part(0) == "tasks" && found.part(2) == "results" && found.parts.len() >= 4;
        all.extend(refs(text).filter(is_result).map(|found| (found, path.to_owned())));
    };
    for (text, path, _) in texts(task, path) {
        take(&text, &path);
    }
    for (at, condition) in task.when.iter().enumerate() {
        take(&condition.cel, &format!("{path}.when[{at}].cel"));
    }
    if let TaskUse::Inline(used) = task.uses() {
        for (at, step) in used.task.steps.iter().enumerate() {
            let path = format!("{path}.taskSpec.steps[{at}]");
            take(&step.script, &format!("{path}.script"));
            take(&step.image, &format!("{path}.image"));
            for (name, list) in [("command", &step.command), ("args", &step.args)] {
                for (index, text) in list.iter().enumerate() {
                    take(text, &format!("{path}.{name}[{index}]"));
                }
            }
            for (index, variable) in step.env.iter().enumerate() {
                take(variable["value"].as_str().unwrap_or_default(), &format!("{path}.env[{index}].value"));
            }
        }
    }
    all
}

/// Tasks that wait for each other, and the place of one of the edges.
fn circle(edges: &BTreeMap<&str, Vec<(String, String)>>) -> Option<(Vec<String>, String)> {
    // Those whose needs all come to an end are taken away until no more can be.
    let mut open: BTreeMap<&str, BTreeSet<&str>> =
        edges.iter().map(|(name, needs)| (*name, needs.iter().map(|(need, _)| need.as_str()).collect())).collect();
    loop {
        let done: Vec<&str> = open.iter().filter(|(_, needs)| needs.is_empty()).map(|(name, _)| *name).collect();
        if done.is_empty() {
            break;
        }
        for name in &done {
            open.remove(name);
        }
        for needs in open.values_mut() {
            needs.retain(|need| !done.contains(need));
        }
    }
    // Each of the rest waits for one of the rest, so a walk comes to a task twice.
    let mut walk: Vec<&str> = vec![open.keys().next()?];
    loop {
        let next = *open.get(walk.last()?)?.iter().find(|need| open.contains_key(**need))?;
        if let Some(start) = walk.iter().position(|name| *name == next) {
            let mut circle: Vec<String> = walk[start..].iter().map(|name| (*name).to_owned()).collect();
            // From a task to those that wait for it.
            circle.reverse();
            let needs = edges.get(next)?;
            let path = needs.iter().find(|(need, _)| circle.contains(need)).map(|(_, path)| path.clone())?;
            return Some((circle, path));
        }
        walk.push(next);
    }
}

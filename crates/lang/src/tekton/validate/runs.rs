//! PipelineRuns and TaskRuns.

use jiff::SignedDuration;

use super::super::model::{ContainerSpec, ParamValue, PipelineRunSpec, RunSpec, TaskRunSpec, Timeouts};
use super::refs::refs;
use super::scope::Scope;
use super::{Problems, duplicates, params, pipelines, tasks, workspaces};

pub fn check(problems: &mut Problems<'_>, spec: &RunSpec) {
    match spec {
        RunSpec::Pipeline(spec) => pipeline(problems, spec),
        RunSpec::Task(spec) => task(problems, spec),
    }
}

fn pipeline(problems: &mut Problems<'_>, spec: &PipelineRunSpec) {
    one_of(problems, "pipelineRef", spec.pipeline_ref.is_some(), "pipelineSpec", spec.pipeline_spec.is_some());
    if let Some(used) = &spec.pipeline_ref {
        pipelines::reference(problems, &used.name, &used.resolver, &used.params, "spec.pipelineRef");
    }
    if let Some(inline) = &spec.pipeline_spec {
        let scope = Scope::default().given(&spec.params);
        pipelines::check(problems, inline, "spec.pipelineSpec", &scope, pipelines::Place::Inline);
    }
    held(problems, &spec.status, spec.managed_by.as_deref());
    params::values(problems, &spec.params, "spec.params");
    for (at, param) in spec.params.iter().enumerate() {
        let texts: Vec<&String> = match &param.value {
            ParamValue::Text(text) => vec![text],
            ParamValue::List(list) => list.iter().collect(),
            ParamValue::Map(fields) => fields.values().collect(),
        };
        let is_result = |text: &&String| refs(text).any(|found| found.part(0) == "tasks" && found.part(2) == "results");
        if texts.iter().any(is_result) {
            let hint = "results are known only within the Pipeline; use it there";
            problems.error_hint(
                &format!("spec.params[{at}].value"),
                "a param of a run cannot come from a result",
                hint,
            );
        }
    }
    if let Some(all) = &spec.timeouts {
        timeouts(problems, all);
    }
    workspaces::bindings(problems, &spec.workspaces, "spec.workspaces");
    for (at, over) in spec.task_run_specs.iter().enumerate() {
        let path = format!("spec.taskRunSpecs[{at}]");
        containers(problems, &over.step_specs, &format!("{path}.stepSpecs"));
        containers(problems, &over.sidecar_specs, &format!("{path}.sidecarSpecs"));
        if over.compute_resources.is_some() && over.step_specs.iter().any(|spec| spec.compute_resources.is_some()) {
            problems.error(&format!("{path}.computeResources"), "`computeResources` excludes those of `stepSpecs`");
        }
        if over.timeout.is_some_and(|timeout| timeout.0.is_negative()) {
            problems.error(&format!("{path}.timeout"), "a timeout is not negative");
        }
    }
}

fn task(problems: &mut Problems<'_>, spec: &TaskRunSpec) {
    one_of(problems, "taskRef", spec.task_ref.is_some(), "taskSpec", spec.task_spec.is_some());
    if let Some(used) = &spec.task_ref {
        pipelines::reference(problems, &used.name, &used.resolver, &used.params, "spec.taskRef");
    }
    if let Some(inline) = &spec.task_spec {
        let scope = Scope::of_task(inline).given(&spec.params);
        tasks::check(problems, inline, "spec.taskSpec", &scope);
    }
    params::values(problems, &spec.params, "spec.params");
    workspaces::bindings(problems, &spec.workspaces, "spec.workspaces");
    containers(problems, &spec.step_specs, "spec.stepSpecs");
    containers(problems, &spec.sidecar_specs, "spec.sidecarSpecs");
    if spec.compute_resources.is_some() && spec.step_specs.iter().any(|spec| spec.compute_resources.is_some()) {
        problems.error("spec.computeResources", "`computeResources` excludes those of `stepSpecs`");
    }
    if spec.status.is_empty() && !spec.status_message.is_empty() {
        problems.error("spec.statusMessage", "`statusMessage` says why there is a `status`, and there is none");
    }
    if spec.timeout.is_some_and(|timeout| timeout.0.is_negative()) {
        problems.error("spec.timeout", "a timeout is not negative");
    }
    held(problems, &spec.status, spec.managed_by.as_deref());
    if spec.debug.as_ref().is_some_and(|debug| debug.breakpoints.is_some()) {
        let hint = "leave it out; `onError: continue` keeps a step's failure from ending the others";
        problems.error_hint("spec.debug.breakpoints", "a step cannot be held at a breakpoint here", hint);
    }
}

/// A run is begun when it is made, and by this program.
fn held(problems: &mut Problems<'_>, status: &str, managed_by: Option<&str>) {
    match status {
        "" => {}
        "PipelineRunPending" | "TaskRunPending" => {
            let hint = "leave `status` out, and make the run when it is to begin";
            problems.error_hint("spec.status", format!("a run cannot wait as `{status}` here"), hint);
        }
        other => {
            let message = format!("this run is to be `{other}` before it begins: nothing would run");
            problems.error_hint("spec.status", message, "leave `status` out");
        }
    }
    if let Some(other) = managed_by.filter(|name| !name.is_empty() && *name != "pitcrew.dev/pitcrew") {
        let hint = "leave it out, or write `pitcrew.dev/pitcrew`";
        problems.error_hint("spec.managedBy", format!("this run is for another controller, `{other}`"), hint);
    }
}

fn one_of(problems: &mut Problems<'_>, first: &str, has_first: bool, second: &str, has_second: bool) {
    match (has_first, has_second) {
        (false, false) => problems.error("spec", format!("the run needs `{first}` or `{second}`")),
        (true, true) => {
            problems.error(&format!("spec.{second}"), format!("`{first}` and `{second}` exclude each other"))
        }
        _ => {}
    }
}

fn containers(problems: &mut Problems<'_>, specs: &[ContainerSpec], path: &str) {
    for (at, name) in duplicates(specs.iter().map(|spec| spec.name.as_str()), true) {
        problems.error(&format!("{path}[{at}].name"), format!("`{name}` is there twice"));
    }
}

/// Tekton's default for a whole run.
const DEFAULT: SignedDuration = SignedDuration::from_mins(60);

fn timeouts(problems: &mut Problems<'_>, all: &Timeouts) {
    for (name, timeout) in [("pipeline", all.pipeline), ("tasks", all.tasks), ("finally", all.finally)] {
        if timeout.is_some_and(|timeout| timeout.0.is_negative()) {
            return problems.error(&format!("spec.timeouts.{name}"), "a timeout is not negative");
        }
    }
    let (whole, what) = match all.pipeline {
        Some(timeout) => (timeout.0, format!("`pipeline`, {timeout}")),
        None => (DEFAULT, "the default of 1h0m0s for the whole run".to_owned()),
    };
    if whole.is_zero() {
        return;
    }
    let mut longer = false;
    for (name, timeout) in [("tasks", all.tasks), ("finally", all.finally)] {
        let Some(timeout) = timeout else { continue };
        if timeout.0.is_zero() || timeout.0 > whole {
            longer = true;
            let said = if timeout.0.is_zero() { "no end".to_owned() } else { timeout.to_string() };
            problems.error(&format!("spec.timeouts.{name}"), format!("`{name}`, {said}, is longer than {what}"));
        }
    }
    if let (Some(tasks), Some(finally)) = (all.tasks, all.finally)
        && !longer
        && tasks.0.checked_add(finally.0).is_none_or(|sum| sum > whole)
    {
        let message = format!("`tasks` and `finally`, {tasks} and {finally}, are together longer than {what}");
        problems.error("spec.timeouts.tasks", message);
    }
}

//! The status of a PipelineRun: its children, what was skipped, its results, and the one condition over all.

use jiff::SignedDuration;
use pitcrew_core::engine::record::{InstanceRecord, RunStop, SkipReason, StopHow};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{Task, When, Work};
use pitcrew_core::state::{RunState, State};
use serde_json::{Map, Value, json};

use super::taskrun::Row;
use super::{Condition, Rows, StatusDocs, StatusInput, reasons, result, time};
use crate::tekton::compile::{PipelineView, view};
use crate::tekton::model::GoDuration;
use crate::tekton::run::container::{items, text};
use crate::tekton::run::{Facts, TaskState, answer};
use crate::tekton::substitute::{Reference, names, result_references};

/// The documents of a PipelineRun.
pub fn of_run(input: &StatusInput<'_>, rows: &Rows<'_>) -> StatusDocs {
    let facts = Facts::of_rows(input.workflow, input.instances);
    let view = view(input.bundle, input.doc);
    let mut counts = Counts::default();
    let mut children = Vec::new();
    let mut skipped = Vec::new();
    let mut task_runs = Vec::new();
    // What is wrong with a condition that could not be evaluated.
    let mut unanswered = None;
    for task in &input.workflow.tasks {
        let Work::Pod { template } = &task.work else { continue };
        let name = task.id.as_str();
        let found = instances(input.instances, task);
        let from = view.as_ref().and_then(|view| view.task(name)).unwrap_or(&Value::Null);
        let filled =
            facts.replacements().fill_value(&json!({ "when": from["when"], "displayName": from["displayName"] }));
        let mut is_cancelled = false;
        for instance in found.iter().filter(|instance| instance.attempt > 0) {
            let index = (instance.map_index != UNMAPPED).then_some(instance.map_index as u32);
            let row = Row {
                template,
                facts: &facts,
                index,
                instance: Some(instance),
                attempts: rows.attempts(name, instance.map_index),
                is_ignored: task.ignore_failure,
            };
            let condition = row.condition(input.run);
            is_cancelled |= condition.reason == "TaskRunCancelled";
            let mut child = json!({
                "apiVersion": "tekton.dev/v1",
                "kind": "TaskRun",
                "name": row.name(),
                "pipelineTaskName": name,
            });
            if let Some(shown) = filled["displayName"].as_str().filter(|shown| !shown.is_empty()) {
                child["displayName"] = shown.into();
            }
            if !items(&filled["when"]).is_empty() {
                child["whenExpressions"] = filled["when"].clone();
            }
            children.push(child);
            task_runs.push(row.document(input.run));
        }
        let never_began = |one: &&InstanceRecord| one.attempt == 0 && one.state == State::Failed && one.skip.is_none();
        if let Some(When::Guard(guard)) = &task.when
            && found.iter().any(never_began)
        {
            unanswered = unanswered.or_else(|| answer(guard, &facts).err());
        }
        let facts = facts.tasks.get(name).cloned().unwrap_or_default();
        let why = skip_of(&found, input);
        let is_invalid = found.iter().any(|instance| instance.skip == Some(SkipReason::Invalid));
        match facts.state {
            TaskState::Succeeded => counts.succeeded += 1,
            TaskState::Failed if is_invalid => counts.invalid += 1,
            TaskState::Failed if is_cancelled => counts.cancelled += 1,
            TaskState::Failed if facts.is_ignored => counts.ignored += 1,
            TaskState::Failed => counts.failed += 1,
            TaskState::Skipped(_) => counts.skipped += 1,
            TaskState::Open if why.is_some() => counts.skipped += 1,
            TaskState::Open => counts.open += 1,
        }
        if let Some(why) = why {
            let mut one = json!({ "name": name, "reason": words(why) });
            if why == SkipReason::When {
                one["whenExpressions"] = filled["when"].clone();
            }
            skipped.push(one);
        }
    }
    let condition = condition(input, &facts, &counts, unanswered);
    let mut status = Map::new();
    let changed = input.run.end.or(input.run.start).unwrap_or(input.run.queued_at);
    status.insert("conditions".into(), condition.to_json(changed));
    status.insert("startTime".into(), time(input.run.start.unwrap_or(input.run.queued_at)).into());
    if let Some(end) = input.run.end {
        status.insert("completionTime".into(), time(end).into());
    }
    if let Some(view) = &view {
        status.insert("pipelineSpec".into(), view.spec.clone());
        if input.run.end.is_some() {
            let results = results(view, &facts);
            if !results.is_empty() {
                status.insert("results".into(), Value::Array(results));
            }
        }
    }
    if !children.is_empty() {
        status.insert("childReferences".into(), Value::Array(children));
    }
    if !skipped.is_empty() {
        status.insert("skippedTasks".into(), Value::Array(skipped));
    }
    let mut doc = input.doc.clone();
    doc["status"] = Value::Object(status);
    StatusDocs { run: doc, task_runs }
}

/// How many tasks came to what; a matrix is one.
#[derive(Debug, Default)]
struct Counts {
    succeeded: u32,
    failed: u32,
    /// They failed, and that does not count.
    ignored: u32,
    cancelled: u32,
    skipped: u32,
    /// They were not run, since what they use is not there.
    invalid: u32,
    open: u32,
}

impl Counts {
    fn message(&self, is_over: bool) -> String {
        let Counts { succeeded, failed, ignored, cancelled, skipped, invalid, open } = self;
        let completed = succeeded + failed + ignored + cancelled;
        let failed = match ignored {
            0 => format!("Failed: {failed}"),
            ignored => format!("Failed: {} (Ignored: {ignored})", failed + ignored),
        };
        let open = if is_over { String::new() } else { format!("Incomplete: {open}, ") };
        let invalid = if *invalid == 0 { String::new() } else { format!(", Failed Validation: {invalid}") };
        format!("Tasks Completed: {completed} ({failed}, Cancelled {cancelled}), {open}Skipped: {skipped}{invalid}")
    }
}

fn condition(input: &StatusInput<'_>, facts: &Facts, counts: &Counts, unanswered: Option<String>) -> Condition {
    let run = input.run;
    let name = text(&input.doc["metadata"], "name");
    if let Some(refusal) = &input.workflow.refusal
        && run.state.is_final()
    {
        return Condition::new("False", &refusal.reason, refusal.message.clone());
    }
    let timed_out = |limit: Option<SignedDuration>| {
        let limit = limit.map(|limit| GoDuration(limit).to_string()).unwrap_or_default();
        Condition::new("False", "PipelineRunTimeout", reasons::timed_out("PipelineRun", &name, &limit))
    };
    let limits = &input.workflow.timeouts;
    match run.state {
        RunState::Queued if input.doc["spec"]["status"] == "PipelineRunPending" => {
            Condition::new("Unknown", "PipelineRunPending", format!("PipelineRun \"{name}\" is pending"))
        }
        RunState::Queued => Condition::new("Unknown", "Started", ""),
        RunState::Running => {
            let failed = facts.tasks.values().any(|task| task.state == TaskState::Failed && !task.is_ignored);
            let reason = match &run.stop {
                Some(RunStop::Cancelled { how: StopHow::ThenFinally, .. }) => "CancelledRunningFinally",
                Some(RunStop::Cancelled { how: StopHow::DrainThenFinally, .. }) => "StoppedRunningFinally",
                Some(RunStop::Cancelled { how: StopHow::Everything, .. }) => "Cancelled",
                Some(RunStop::TimedOut | RunStop::FinallyTimedOut) => "PipelineRunTimeout",
                Some(RunStop::TasksTimedOut) => "PipelineRunTimeoutRunningFinally",
                Some(RunStop::FailFast { .. } | RunStop::Drain { .. } | RunStop::Refused { .. }) => {
                    "PipelineRunStopping"
                }
                None if failed => "PipelineRunStopping",
                None => "Running",
            };
            Condition::new("Unknown", reason, counts.message(false))
        }
        RunState::Success if counts.skipped > 0 => Condition::new("True", "Completed", counts.message(true)),
        RunState::Success => Condition::new("True", "Succeeded", counts.message(true)),
        RunState::Cancelled => Condition::new("False", "Cancelled", format!("PipelineRun \"{name}\" was cancelled")),
        RunState::Failed => match &run.stop {
            Some(RunStop::TimedOut) => timed_out(limits.run),
            Some(RunStop::TasksTimedOut) => timed_out(limits.tasks),
            Some(RunStop::FinallyTimedOut) => timed_out(limits.finally),
            Some(RunStop::Refused { reason, message }) => Condition::new("False", reason, message.clone()),
            Some(RunStop::Cancelled { .. } | RunStop::FailFast { .. } | RunStop::Drain { .. }) | None => {
                if let Some(why) = unanswered {
                    return Condition::new("False", "CELEvaluationFailed", why);
                }
                let reason = if counts.invalid > 0 { "PipelineValidationFailed" } else { "Failed" };
                Condition::new("False", reason, counts.message(true))
            }
        },
    }
}

/// The instances of a task that have a row, in order.
fn instances<'a>(all: &'a [InstanceRecord], task: &Task) -> Vec<&'a InstanceRecord> {
    let mut found: Vec<_> = all.iter().filter(|instance| instance.task == task.id).collect();
    found.sort_by_key(|instance| instance.map_index);
    found
}

/// Why a task as a whole did not begin.
fn skip_of(instances: &[&InstanceRecord], input: &StatusInput<'_>) -> Option<SkipReason> {
    if instances.iter().any(|instance| instance.attempt > 0) {
        return None;
    }
    let first = instances.first();
    match first.map(|instance| instance.state) {
        Some(State::Skipped) => Some(first.and_then(|instance| instance.skip).unwrap_or(SkipReason::Stopping)),
        Some(State::UpstreamFailed) => Some(SkipReason::Stopping),
        // A refused run has no rows, and skipped nothing.
        None if input.run.state.is_final() && input.workflow.refusal.is_none() => Some(SkipReason::Stopping),
        _ => None,
    }
}

/// The reason of a skip, as the API has it.
fn words(why: SkipReason) -> &'static str {
    match why {
        SkipReason::When => "When Expressions evaluated to false",
        SkipReason::Parent => "Parent Tasks were skipped",
        SkipReason::Stopping => "PipelineRun was stopping",
        SkipReason::Cancelled => "PipelineRun was gracefully cancelled",
        SkipReason::Stopped => "PipelineRun was gracefully stopped",
        SkipReason::MissingResults => "Results were missing",
        SkipReason::RunTimeout => "PipelineRun timeout has been reached",
        SkipReason::TasksTimeout => "PipelineRun Tasks timeout has been reached",
        SkipReason::FinallyTimeout => "PipelineRun Finally timeout has been reached",
        SkipReason::NoItems => "Matrix Parameters have an empty array",
        SkipReason::Rule | SkipReason::Invalid => "None",
    }
}

/// The results of the Pipeline; one of which a part is missing is left out.
fn results(view: &PipelineView, facts: &Facts) -> Vec<Value> {
    let known = facts.replacements();
    let mut found = Vec::new();
    for declared in items(&view.spec["results"]) {
        let value = known.fill_param(&declared["value"]);
        let is_open = result_references(&value).iter().any(Reference::is_result)
            || names(&value).iter().any(|name| name.starts_with("tasks.") || name.starts_with("finally."));
        if !is_open {
            found.push(result(&text(declared, "name"), &value));
        }
    }
    found
}

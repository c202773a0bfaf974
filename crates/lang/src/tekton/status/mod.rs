//! The documents of a run with their status, in Tekton's words: reasons, messages, names of children, states of steps.
//!
//! A pure function of rows; so what a run is said to be can be asked at any time, also long after it ended, and is never stored.

pub mod names;
mod pipelinerun;
mod reasons;
mod taskrun;

use std::collections::BTreeMap;

use pitcrew_core::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord};
use pitcrew_core::ir::Workflow;
use pitcrew_core::pod::PodEnded;
use serde_json::{Value, json};

use super::compile::Bundle;

/// What is known of a run.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    /// The PipelineRun or TaskRun as it was started: with its name.
    pub doc: &'a Value,
    /// What the document reaches.
    pub bundle: &'a Bundle,
    /// As [`super::compile::compile`] made it of both.
    pub workflow: &'a Workflow,
    pub run: &'a RunRecord,
    pub instances: &'a [InstanceRecord],
    /// All attempts of the run, the older first.
    pub attempts: &'a [Attempt<'a>],
}

/// An attempt, with what became of its pod so far.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub record: &'a AttemptRecord,
    pub pod: Option<&'a PodEnded>,
}

/// The documents of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusDocs {
    /// The PipelineRun or TaskRun itself.
    pub run: Value,
    /// Of a PipelineRun, in the order of the pipeline.
    pub task_runs: Vec<Value>,
}

/// Renders the documents of a run.
pub fn status(input: &StatusInput<'_>) -> StatusDocs {
    let rows = Rows::new(input);
    match input.doc["kind"].as_str() {
        Some("TaskRun") => StatusDocs { run: taskrun::of_run(input, &rows), task_runs: Vec::new() },
        _ => pipelinerun::of_run(input, &rows),
    }
}

/// Rows by task and place.
struct Rows<'a> {
    instances: BTreeMap<(&'a str, i32), &'a InstanceRecord>,
    attempts: BTreeMap<(&'a str, i32), Vec<Attempt<'a>>>,
}

impl<'a> Rows<'a> {
    fn new(input: &StatusInput<'a>) -> Rows<'a> {
        let mut attempts: BTreeMap<_, Vec<Attempt<'a>>> = BTreeMap::new();
        for attempt in input.attempts {
            attempts.entry((attempt.record.task.as_str(), attempt.record.map_index)).or_default().push(*attempt);
        }
        for list in attempts.values_mut() {
            list.sort_by_key(|attempt| attempt.record.number);
        }
        let instances = input.instances.iter().map(|i| ((i.task.as_str(), i.map_index), i)).collect();
        Rows { instances, attempts }
    }

    fn instance(&self, task: &'a str, map_index: i32) -> Option<&'a InstanceRecord> {
        self.instances.get(&(task, map_index)).copied()
    }

    fn attempts<'s>(&'s self, task: &'s str, map_index: i32) -> &'s [Attempt<'a>] {
        self.attempts.get(&(task, map_index)).map(Vec::as_slice).unwrap_or_default()
    }
}

/// The one condition that Tekton's runs have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// `True`, `False` or `Unknown`.
    status: &'static str,
    reason: String,
    message: String,
}

impl Condition {
    fn new(status: &'static str, reason: &str, message: impl Into<String>) -> Condition {
        Condition { status, reason: reason.to_owned(), message: message.into() }
    }

    fn is_over(&self) -> bool {
        self.status != "Unknown"
    }

    fn to_json(&self, at: Timestamp) -> Value {
        json!([{
            "type": "Succeeded",
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastTransitionTime": time(at),
        }])
    }
}

/// A time as the API has it.
fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A result as the API has it.
fn result(name: &str, value: &Value) -> Value {
    let kind = match value {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => "string",
    };
    json!({ "name": name, "type": kind, "value": value })
}

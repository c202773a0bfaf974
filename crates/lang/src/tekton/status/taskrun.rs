//! The status of a TaskRun.

use pitcrew_core::engine::record::{InstanceRecord, RunRecord, RunStop};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Work;
use pitcrew_core::pod::{ContainerEnded, ContainerState, PodEnded, TerminationReason};
use pitcrew_core::state::State;
use serde_json::{Map, Value, json};

use super::{Attempt, Condition, Rows, StatusInput, reasons, result, time};
use crate::tekton::run::container::text;
use crate::tekton::run::template::Template;
use crate::tekton::run::{Facts, Instance, pod};

/// The TaskRun that is a run by itself.
pub fn of_run(input: &StatusInput<'_>, rows: &Rows<'_>) -> Value {
    let mut doc = input.doc.clone();
    let Some(task) = input.workflow.tasks.first() else { return doc };
    let Work::Pod { template } = &task.work else { return doc };
    let id = task.id.as_str();
    let row = Row {
        template,
        facts: &Facts::default(),
        index: None,
        instance: rows.instance(id, UNMAPPED),
        attempts: rows.attempts(id, UNMAPPED),
        is_ignored: false,
    };
    let mut status = row.status(input.run);
    if let Some(refusal) = &input.workflow.refusal {
        let condition = Condition::new("False", &refusal.reason, refusal.message.clone());
        status["conditions"] = condition.to_json(input.run.end.unwrap_or(input.run.queued_at));
    }
    if status.get("startTime").is_none() {
        status["startTime"] = time(input.run.start.unwrap_or(input.run.queued_at)).into();
    }
    if let Some(end) = input.run.end {
        status["completionTime"] = time(end).into();
    }
    doc["status"] = status;
    doc
}

/// One TaskRun with its rows.
pub struct Row<'a> {
    pub template: &'a Value,
    pub facts: &'a Facts,
    pub index: Option<u32>,
    pub instance: Option<&'a InstanceRecord>,
    pub attempts: &'a [Attempt<'a>],
    /// The task's failure does not count.
    pub is_ignored: bool,
}

impl Row<'_> {
    /// The condition of the TaskRun, as far as its rows say it.
    pub fn condition(&self, run: &RunRecord) -> Condition {
        let last = self.attempts.last();
        let pod = last.and_then(|attempt| attempt.pod);
        let Some(instance) = self.instance else {
            return match run.stop {
                Some(_) => self.ended_before_it_began(run),
                None => Condition::new("Unknown", "Pending", "Pending"),
            };
        };
        let failed = || {
            let template = Template::from_value(self.template).unwrap_or_default();
            let (reason, message) =
                reasons::failure(&self.name(), &template.timeout, instance.exit.as_ref(), pod, &instance.message);
            Condition::new("False", reason, message)
        };
        match instance.state {
            State::Success if self.is_ignored && instance.exit.as_ref().is_some_and(|exit| !exit.is_success()) => {
                Condition { reason: "FailureIgnored".to_owned(), ..failed() }
            }
            State::Success => Condition::new("True", "Succeeded", "All Steps have completed executing"),
            State::Failed => failed(),
            State::UpForRetry { .. } => Condition { status: "Unknown", reason: "ToBeRetried".to_owned(), ..failed() },
            State::Running | State::UpForReschedule { .. } | State::Deferred | State::Recovering => {
                Condition::new("Unknown", "Running", "Not all Steps in the Task have finished executing")
            }
            State::None | State::Scheduled | State::Queued => Condition::new("Unknown", "Pending", "Pending"),
            State::Skipped | State::UpstreamFailed | State::Removed => self.ended_before_it_began(run),
        }
    }

    fn ended_before_it_began(&self, run: &RunRecord) -> Condition {
        let name = self.name();
        match run.stop {
            Some(RunStop::TimedOut) => {
                let timeout = text(self.template, "timeout");
                Condition::new("False", "TaskRunTimeout", reasons::timed_out("TaskRun", &name, &timeout))
            }
            _ => Condition::new("False", "TaskRunCancelled", format!("TaskRun \"{name}\" was cancelled")),
        }
    }

    /// The name of the TaskRun.
    pub fn name(&self) -> String {
        self.made(0).map_or_else(|| text(self.template, "name"), |made| text(&made.taskrun["metadata"], "name"))
    }

    fn made(&self, retries: u32) -> Option<crate::tekton::run::TaskRunPod> {
        let item = self.instance.and_then(|instance| instance.item.clone()).unwrap_or_default();
        pod(self.template, self.facts, Instance { index: self.index, item: &item, retries }).ok()
    }

    /// The document with its status.
    pub fn document(&self, run: &RunRecord) -> Value {
        let mut doc = match self.made(0) {
            Some(made) => made.taskrun,
            None => json!({
                "apiVersion": "tekton.dev/v1",
                "kind": "TaskRun",
                "metadata": { "name": self.name(), "namespace": text(self.template, "namespace") },
                "spec": {},
            }),
        };
        doc["status"] = self.status(run);
        doc
    }

    /// What `status` holds.
    pub fn status(&self, run: &RunRecord) -> Value {
        let condition = self.condition(run);
        let mut status = Map::new();
        let instance = self.instance;
        let began = self.attempts.first().map(|attempt| attempt.record.queued_at);
        let began = began.or_else(|| instance.and_then(|instance| instance.queued_at));
        let ended = instance.and_then(|instance| instance.end).filter(|_| condition.is_over());
        let changed = ended.or(instance.and_then(|instance| instance.start)).or(began).unwrap_or(run.queued_at);
        status.insert("conditions".into(), condition.to_json(changed));
        if let Some(began) = began {
            status.insert("startTime".into(), time(began).into());
        }
        if let Some(ended) = ended {
            status.insert("completionTime".into(), time(ended).into());
        }
        // Those that failed and were tried again; what was lost with its machine was no try of the task's own.
        let (last, before) = match self.attempts.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, [].as_slice()),
        };
        let retries: Vec<Value> = before.iter().enumerate().map(|(at, attempt)| self.retried(at, attempt)).collect();
        if let Some(made) = self.made(retries.len() as u32) {
            status.insert("podName".into(), made.pod.name.into());
            status.insert("taskSpec".into(), made.task_spec);
        }
        if let Some(pod) = last.and_then(|attempt| attempt.pod) {
            containers(&mut status, pod);
        }
        if !retries.is_empty() {
            status.insert("retriesStatus".into(), Value::Array(retries));
        }
        Value::Object(status)
    }

    fn retried(&self, at: usize, attempt: &Attempt<'_>) -> Value {
        let record = attempt.record;
        let timeout = text(self.template, "timeout");
        let (reason, message) =
            reasons::failure(&self.name(), &timeout, record.exit.as_ref(), attempt.pod, &record.message);
        let ended = record.end.unwrap_or(record.queued_at);
        let mut status = Map::new();
        status.insert("conditions".into(), Condition::new("False", reason, message).to_json(ended));
        status.insert("startTime".into(), time(record.queued_at).into());
        status.insert("completionTime".into(), time(ended).into());
        if let Some(made) = self.made(at as u32) {
            status.insert("podName".into(), made.pod.name.into());
        }
        if let Some(pod) = attempt.pod {
            containers(&mut status, pod);
        }
        Value::Object(status)
    }
}

/// Steps, sidecars, results and artifacts.
fn containers(status: &mut Map<String, Value>, pod: &PodEnded) {
    let of = |prefix: &'static str| -> Vec<Value> {
        pod.containers.iter().filter_map(|one| one.name.strip_prefix(prefix).map(|name| container(name, one))).collect()
    };
    status.insert("steps".into(), Value::Array(of("step-")));
    let sidecars = of("sidecar-");
    if !sidecars.is_empty() {
        status.insert("sidecars".into(), Value::Array(sidecars));
    }
    if !pod.results.is_empty() {
        status.insert("results".into(), pod.results.iter().map(|(name, value)| result(name, value)).collect());
    }
    if let Some(all) = pod.all_artifacts() {
        let sides = ["inputs", "outputs"].into_iter().filter_map(|side| Some((side.to_owned(), listed(&all[side])?)));
        status.insert("artifacts".into(), Value::Object(sides.collect()));
    }
}

fn container(name: &str, from: &ContainerEnded) -> Value {
    let mut out = Map::new();
    out.insert("name".into(), name.into());
    out.insert("container".into(), from.name.clone().into());
    if !from.image_id.is_empty() {
        out.insert("imageID".into(), from.image_id.clone().into());
    }
    match &from.state {
        ContainerState::Waiting { reason, message } => {
            out.insert("waiting".into(), json!({ "reason": reason, "message": message }));
        }
        ContainerState::Running { started_at } => {
            out.insert("running".into(), json!({ "startedAt": time(*started_at) }));
        }
        ContainerState::Terminated { exit_code, reason, message, started_at, at } => {
            let mut terminated = json!({
                "exitCode": exit_code,
                "reason": terminated(*reason, *exit_code),
                "startedAt": time(*started_at),
                "finishedAt": time(*at),
            });
            if !from.container_id.is_empty() {
                terminated["containerID"] = from.container_id.clone().into();
            }
            if !message.is_empty() {
                terminated["message"] = message.clone().into();
            }
            out.insert("terminated".into(), terminated);
            if from.name.starts_with("step-") {
                out.insert("terminationReason".into(), json!(reason));
            }
        }
    }
    if !from.results.is_empty() {
        out.insert("results".into(), from.results.iter().map(|(name, value)| result(name, value)).collect());
    }
    for side in ["inputs", "outputs"] {
        if let Some(all) = listed(&from.artifacts[side]) {
            out.insert(side.into(), all);
        }
    }
    Value::Object(out)
}

/// Artifacts by their names as the list that the API has; none of none.
fn listed(artifacts: &Value) -> Option<Value> {
    let all = artifacts.as_object().filter(|all| !all.is_empty())?;
    Some(all.iter().map(|(name, values)| json!({ "name": name, "values": values })).collect())
}

/// What Kubernetes says of a container, which knows less than Tekton.
fn terminated(reason: TerminationReason, exit_code: i32) -> &'static str {
    match reason {
        TerminationReason::OutOfMemory => "OOMKilled",
        TerminationReason::Completed | TerminationReason::Continued => "Completed",
        TerminationReason::Skipped if exit_code == 0 => "Completed",
        TerminationReason::Error
        | TerminationReason::Skipped
        | TerminationReason::Cancelled
        | TerminationReason::TimeoutExceeded => "Error",
    }
}

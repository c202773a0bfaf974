//! How a task is defined and what its attempts used, in words.

use pitcrew_control::scheduler::{Pick, Rendered};
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::fleet::Gang;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{Task, TaskIx, When, Work, Workflow};
use pitcrew_core::state::Exit;
use pitcrew_exec::{GpuUsage, Usage};
use serde_json::Value;

use super::Reading;
use super::incidents::Ended;
use crate::Site;
use crate::web::fmt;

/// What the second tab shows.
pub struct Details {
    pub facts: Vec<(&'static str, String)>,
    pub rendered: Vec<Rendered>,
    /// Why nothing is rendered.
    pub unrendered: String,
    pub attempts: Vec<AttemptRecord>,
    pub incidents: Vec<Ended>,
}

impl Details {
    pub fn incidents_of(&self, attempt: &AttemptRecord) -> Vec<&Ended> {
        self.incidents.iter().filter(|ended| ended.attempt == attempt.number).collect()
    }
}

impl Reading {
    /// How the task is defined, what its templates come to, and every attempt.
    pub(super) async fn details(&self, site: &Site) -> Details {
        let map_index = (self.row.map_index != UNMAPPED).then_some(self.row.map_index);
        let pick = Pick { task: self.row.task.to_string(), map_index };
        let (rendered, unrendered) = match site.app.scheduler.rendered(self.view.run.key, pick).await {
            Ok(rendered) => (rendered, String::new()),
            Err(error) => (Vec::new(), error.to_string()),
        };
        let facts = match (self.view.workflow.as_deref(), self.task()) {
            (Some(workflow), Some(task)) => definition(workflow, task),
            _ => Vec::new(),
        };
        let (attempts, incidents) = (self.attempts.clone(), self.incidents.clone());
        Details { facts, rendered, unrendered, attempts, incidents }
    }
}

/// What a task is, in a word or two.
pub fn kind_of(task: &Task) -> String {
    let work = match &task.work {
        Work::Noop => "milestone".to_owned(),
        Work::Steps(steps) if steps.len() == 1 => "script".to_owned(),
        Work::Steps(steps) => format!("{} steps", steps.len()),
        Work::Action { uses, .. } => uses.clone(),
        Work::Pod { .. } => "pod".to_owned(),
    };
    match &task.gang {
        Some(gang) => format!("gang of {}, {work}", gang.count),
        None => work,
    }
}

/// The names of a task's steps; an action's are not known before it runs.
pub fn step_names(workflow: Option<&Workflow>, task: &TaskId) -> Vec<String> {
    let task = workflow.and_then(|w| w.by_name.get(task).map(|ix| w.task(*ix)));
    match task.map(|task| &task.work) {
        Some(Work::Steps(steps)) => steps.iter().map(|step| step.name.clone()).collect(),
        Some(Work::Action { uses, .. }) => vec![uses.clone()],
        Some(Work::Noop | Work::Pod { .. }) | None => Vec::new(),
    }
}

/// How a task is defined, where that differs from the usual.
fn definition(workflow: &Workflow, task: &Task) -> Vec<(&'static str, String)> {
    let names = |tasks: &[TaskIx]| tasks.iter().map(|ix| workflow.task(*ix).id.to_string()).collect::<Vec<_>>();
    let mut facts = vec![("Kind", kind_of(task)), ("Backend", task.backend.name().to_owned())];
    let mut add = |name, text: Option<String>| facts.extend(text.filter(|text| !text.is_empty()).map(|t| (name, t)));
    add("Needs", Some(names(&task.needs).join(", ")));
    add("Trigger rule", Some(task.trigger_rule.name().to_owned()));
    add("When", task.when.as_ref().map(condition));
    add("Branch", task.branch.clone());
    add("Timeout", task.timeout.map(fmt::duration));
    add("Retries", Some(task.retry.retries.to_string()));
    let pool = task.pool.clone().unwrap_or_else(|| pitcrew_store::DEFAULT_POOL.to_owned());
    add("Pool", Some(if task.pool_slots == 1 { pool } else { format!("{pool}, {} slots", task.pool_slots) }));
    add("Priority", (task.priority != 0).then(|| task.priority.to_string()));
    let resource = |value: &Option<Value>| value.as_ref().map(fmt::value);
    add("GPUs", resource(&task.resources.gpu));
    add("CPU", resource(&task.resources.cpu));
    add("Memory", resource(&task.resources.memory));
    add("Members", task.gang.as_ref().map(members));
    add("Instances at a time", task.max_parallel.map(|most| most.to_string()));
    facts
}

fn condition(when: &When) -> String {
    match when {
        When::Expression(text) => text.clone(),
        When::Guard(guard) => guard.to_string(),
    }
}

/// Where the members of a gang are.
fn members(gang: &Gang) -> String {
    let near = match &gang.topology {
        Some(near) if near.is_required => format!(", all with the same `{}`", near.label),
        Some(near) => format!(", with the same `{}` if possible", near.label),
        None => String::new(),
    };
    format!("{}, each on a node of its own{near}", gang.count)
}

pub fn attempt_state(attempt: &AttemptRecord) -> &'static str {
    match &attempt.exit {
        Some(exit) if exit.is_success() => "success",
        Some(Exit::Cancelled) => "cancelled",
        Some(_) => "failed",
        None if attempt.start.is_some() => "running",
        None => "queued",
    }
}

/// What is known of an attempt, as names and texts.
pub fn facts(attempt: &AttemptRecord) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(exit) = attempt.exit.as_ref().filter(|exit| !exit.is_success()) {
        facts.push(("End", exit.to_string()));
    }
    if let Some(start) = attempt.start {
        let waited = start.duration_since(attempt.queued_at);
        facts.push(("Waited", fmt::duration(waited)));
    }
    facts.push(("Backend", attempt.backend.clone()));
    let connected = attempt.usage.get("connect_seconds").and_then(Value::as_f64);
    facts.extend(connected.map(|seconds| ("Host reached in", fmt::duration(from_seconds(seconds)))));
    facts.extend(attempt.node.clone().map(|node| ("Node", node)));
    if !attempt.gpus.is_empty() {
        facts.push(("GPUs", attempt.gpus.join(", ")));
    }
    let used = used(attempt);
    facts.extend(
        [("CPU time", used.cpu), ("Peak memory", used.memory)].into_iter().filter(|(_, text)| !text.is_empty()),
    );
    facts.extend(used.gpus.into_iter().map(|text| ("GPU use", text)));
    facts
}

/// What an attempt used, as texts; empty where it is not known.
#[derive(Default)]
pub struct Used {
    pub cpu: String,
    pub memory: String,
    /// One for each device.
    pub gpus: Vec<String>,
}

pub fn used(attempt: &AttemptRecord) -> Used {
    let Ok(usage) = serde_json::from_value::<Usage>(attempt.usage.clone()) else { return Used::default() };
    let cpu = usage.user_cpu_seconds + usage.system_cpu_seconds;
    let of_gpu = |gpu: &GpuUsage| {
        let told = [
            gpu.part.map(|part| format!("{:.0} % of it held", part * 100.0)),
            gpu.mean_utilization_percent.map(|mean| format!("{mean:.0} % mean")),
            gpu.max_utilization_percent.map(|most| format!("{most:.0} % highest")),
            gpu.max_memory_bytes.as_ref().map(fmt::bytes),
            gpu.energy_wh.map(fmt::watt_hours),
        ];
        let told: Vec<String> = told.into_iter().flatten().collect();
        let told = if told.is_empty() { "not told by the device".to_owned() } else { told.join(", ") };
        // Of several, which one it is.
        if usage.gpus.len() > 1 { format!("{}: {told}", gpu.uuid) } else { told }
    };
    Used {
        cpu: fmt::duration(from_seconds(cpu)),
        memory: usage.peak_memory_bytes.as_ref().map(fmt::bytes).unwrap_or_default(),
        gpus: usage.gpus.iter().map(of_gpu).collect(),
    }
}

fn from_seconds(seconds: f64) -> jiff::SignedDuration {
    jiff::SignedDuration::from_millis((seconds * 1000.0) as i64)
}

/// How long it waited for its start.
pub fn waited(attempt: &AttemptRecord) -> String {
    attempt.start.map(|start| fmt::duration(start.duration_since(attempt.queued_at))).unwrap_or_default()
}

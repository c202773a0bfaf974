//! What the server counts about itself, for Prometheus at `/metrics`.
//!
//! Counters and histograms are recorded where things happen, an atomic addition each. Gauges are worked out when
//! somebody asks ([`scrape`]), from the scheduler's own facts, so they cannot drift, and nothing runs while nobody asks.
//! Invariant: recording never fails, waits or writes, and no label holds an id of a run.

mod http;
mod process;
mod recovery;
mod scrape;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::engine::record::{AttemptRecord, RunRecord};
use pitcrew_core::ir::BackendKind;
use pitcrew_core::state::Exit;
use pitcrew_exec::Usage;
use pitcrew_exec::ssh::{DialError, Pool};
use pitcrew_store::Settled;
use prometheus::{CounterVec, HistogramVec, Registry};
use serde_json::Value;

pub use http::measure;
pub use prometheus::TEXT_FORMAT;
pub use recovery::RecoveryFigures;
pub use scrape::{Figures, PoolFigures, QuotaFigures, Scraped, exposition};

/// Workflows, pools, namespaces, nodes, channels, queues and hosts with series of their own; those that come later are counted together as `other`.
pub const CAP: usize = 200;
/// The value of a label beyond the cap.
const OTHER: &str = "other";

/// Everything that is recorded. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    workflows: Names,
    pools: Names,
    namespaces: Names,
    nodes: Names,
    channels: Names,
    queues: Names,
    worker_queues: Names,
    hosts: Names,
    /// Whose connections are counted when somebody asks.
    ssh: OnceLock<Pool>,
    ssh_connect: HistogramVec,
    ssh_failures: CounterVec,
    runs_started: CounterVec,
    runs_finished: CounterVec,
    run_duration: HistogramVec,
    run_wait: HistogramVec,
    tasks_finished: CounterVec,
    task_retries: CounterVec,
    task_wait: HistogramVec,
    task_duration: HistogramVec,
    action_duration: HistogramVec,
    git_seconds: HistogramVec,
    git_bytes: CounterVec,
    attempts: CounterVec,
    worker_attempts: CounterVec,
    attempt_start: HistogramVec,
    gpu_held: CounterVec,
    gpu_busy: CounterVec,
    variables_set: CounterVec,
    notifications: CounterVec,
    events: CounterVec,
    store_seconds: HistogramVec,
    store_errors: CounterVec,
    http_requests: CounterVec,
    http_seconds: HistogramVec,
    spans: CounterVec,
    recovery_steps: HistogramVec,
    incident_seconds: HistogramVec,
    job_recovery: HistogramVec,
    incidents: CounterVec,
    repairs: CounterVec,
    job_restarts: CounterVec,
    budgets: CounterVec,
}

/// Names that users give, as values of a label: the first [`CAP`] as they are, the rest as `other`.
#[derive(Default)]
struct Names(RwLock<BTreeSet<String>>);

impl Names {
    fn label<'a>(&self, name: &'a str) -> &'a str {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains(name) {
            return name;
        }
        if known.len() >= CAP {
            return OTHER;
        }
        drop(known);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < CAP || known.contains(name) {
            known.insert(name.to_owned());
            return name;
        }
        OTHER
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let registry = Registry::new();
        Metrics(Arc::new(Families {
            workflows: Names::default(),
            pools: Names::default(),
            namespaces: Names::default(),
            nodes: Names::default(),
            channels: Names::default(),
            queues: Names::default(),
            worker_queues: Names::default(),
            hosts: Names::default(),
            ssh: OnceLock::new(),
            ssh_connect: table::SSH_CONNECT.histogram(&registry),
            ssh_failures: table::SSH_FAILURES.counter(&registry),
            runs_started: table::RUNS_STARTED.counter(&registry),
            runs_finished: table::RUNS_FINISHED.counter(&registry),
            run_duration: table::RUN_DURATION.histogram(&registry),
            run_wait: table::RUN_WAIT.histogram(&registry),
            tasks_finished: table::TASKS_FINISHED.counter(&registry),
            task_retries: table::TASK_RETRIES.counter(&registry),
            task_wait: table::TASK_WAIT.histogram(&registry),
            task_duration: table::TASK_DURATION.histogram(&registry),
            action_duration: table::ACTION_DURATION.histogram(&registry),
            git_seconds: table::GIT_SECONDS.histogram(&registry),
            git_bytes: table::GIT_BYTES.counter(&registry),
            attempts: table::ATTEMPTS.counter(&registry),
            worker_attempts: table::WORKER_ATTEMPTS.counter(&registry),
            attempt_start: table::ATTEMPT_START.histogram(&registry),
            gpu_held: table::GPU_HELD.counter(&registry),
            gpu_busy: table::GPU_BUSY.counter(&registry),
            variables_set: table::VARIABLES_SET.counter(&registry),
            notifications: table::NOTIFICATIONS.counter(&registry),
            events: table::EVENTS.counter(&registry),
            store_seconds: table::STORE_SECONDS.histogram(&registry),
            store_errors: table::STORE_ERRORS.counter(&registry),
            http_requests: table::HTTP_REQUESTS.counter(&registry),
            http_seconds: table::HTTP_SECONDS.histogram(&registry),
            spans: table::SPANS.counter(&registry),
            recovery_steps: table::RECOVERY_STEPS.histogram(&registry),
            incident_seconds: table::INCIDENT_SECONDS.histogram(&registry),
            job_recovery: table::JOB_RECOVERY.histogram(&registry),
            incidents: table::INCIDENTS.counter(&registry),
            repairs: table::REPAIRS.counter(&registry),
            job_restarts: table::JOB_RESTARTS.counter(&registry),
            budgets: table::BUDGETS.counter(&registry),
            registry,
        }))
    }
}

/// Who set a variable.
#[derive(Debug, Clone, Copy)]
pub enum SetBy {
    Task,
    User,
}

impl Metrics {
    pub fn run_started(&self, run: &RunRecord) {
        self.0.runs_started.with_label_values(&[self.workflow(run)]).inc();
        if let Some(start) = run.start {
            observe(&self.0.run_wait, &[], start.duration_since(run.run_after.max(run.queued_at)));
        }
    }

    pub fn run_finished(&self, run: &RunRecord) {
        let workflow = self.workflow(run);
        self.0.runs_finished.with_label_values(&[workflow, run.state.name()]).inc();
        if let (Some(start), Some(end)) = (run.start, run.end) {
            observe(&self.0.run_duration, &[workflow], end.duration_since(start));
        }
    }

    /// A task instance reached a final state.
    pub fn task_finished(&self, run: &RunRecord, state: &str) {
        self.0.tasks_finished.with_label_values(&[self.workflow(run), state]).inc();
    }

    pub fn task_retried(&self, run: &RunRecord) {
        self.0.task_retries.with_label_values(&[self.workflow(run)]).inc();
    }

    /// A task instance got its slot, so long after it could have used it.
    pub fn task_waited(&self, pool: &str, waited: SignedDuration) {
        observe(&self.0.task_wait, &[self.0.pools.label(pool)], waited);
    }

    pub fn attempt_ended(&self, run: &RunRecord, action: Option<&str>, attempt: &AttemptRecord, usage: &Usage) {
        let workflow = self.workflow(run);
        let outcome = attempt.exit.as_ref().map_or("lost", outcome);
        self.0.attempts.with_label_values(&[&attempt.backend, outcome]).inc();
        if let Some(worker) = attempt.node.as_deref().filter(|_| attempt.backend == BackendKind::Worker.name()) {
            self.0.worker_attempts.with_label_values(&[self.0.nodes.label(worker), outcome]).inc();
        }
        let (Some(start), Some(end)) = (attempt.start, attempt.end) else { return };
        let took = end.duration_since(start);
        observe(&self.0.attempt_start, &[&attempt.backend], start.duration_since(attempt.queued_at));
        observe(&self.0.task_duration, &[workflow], took);
        if let Some(action) = action {
            observe(&self.0.action_duration, &[action], took);
        }
        if !attempt.gpus.is_empty() {
            let seconds = took.as_secs_f64().max(0.0);
            let busy: f64 = usage
                .gpus
                .iter()
                .filter_map(|gpu| gpu.mean_utilization_percent)
                .map(|mean| mean.clamp(0.0, 100.0) / 100.0)
                .sum();
            self.0.gpu_held.with_label_values(&[workflow]).inc_by(seconds * attempt.gpus.len() as f64);
            self.0.gpu_busy.with_label_values(&[workflow]).inc_by(seconds * busy);
        }
    }

    /// What the outputs of an action say of its work.
    pub fn action_succeeded(&self, action: &str, outputs: &BTreeMap<String, Value>) {
        if action != "git.checkout" {
            return;
        }
        let number = |name: &str| outputs.get(name).and_then(Value::as_f64).filter(|n| n.is_finite() && *n >= 0.0);
        if let (Some(seconds), Some(bytes)) = (number("fetch_seconds"), number("fetch_bytes")) {
            self.0.git_seconds.with_label_values(&[] as &[&str]).observe(seconds);
            self.0.git_bytes.with_label_values(&[] as &[&str]).inc_by(bytes);
        }
    }

    /// Counts the connections of this pool from now on.
    pub fn follow(&self, ssh: &Pool) {
        let metrics = self.clone();
        ssh.observe(Box::new(move |place, connected| metrics.connected(&place.host, connected)));
        let _ = self.0.ssh.set(ssh.clone());
    }

    /// What a connect to a host came to.
    pub fn connected(&self, host: &str, connected: Result<Duration, &DialError>) {
        let host = self.0.hosts.label(host);
        match connected {
            Ok(took) => self.0.ssh_connect.with_label_values(&[host]).observe(took.as_secs_f64()),
            Err(error) => self.0.ssh_failures.with_label_values(&[host, error.fault.kind()]).inc(),
        }
    }

    pub fn variables_set(&self, by: SetBy, count: usize) {
        let by = match by {
            SetBy::Task => "task",
            SetBy::User => "user",
        };
        self.0.variables_set.with_label_values(&[by]).inc_by(count as f64);
    }

    /// What a try to send a notice to a channel came to. One that only waits its turn is not counted.
    pub fn notice_settled(&self, channel: &str, became: &Settled) {
        let result = match became {
            Settled::Later { .. } => return,
            Settled::Sent { .. } => "sent",
            Settled::Merged { .. } => "merged",
            Settled::Retry { .. } => "retried",
            Settled::Failed { .. } => "failed",
        };
        self.0.notifications.with_label_values(&[self.0.channels.label(channel), result]).inc();
    }

    /// What an event from a queue came to.
    pub fn event(&self, queue: &str, result: &'static str) {
        self.0.events.with_label_values(&[self.0.queues.label(queue), result]).inc();
    }

    /// What became of spans for the collector: `sent` or `dropped`.
    pub fn spans(&self, result: &'static str, count: usize) {
        self.0.spans.with_label_values(&[result]).inc_by(count as f64);
    }

    /// Takes what a store tells of its calls: the method, how long it took, and whether it succeeded.
    pub fn store_observer(&self) -> impl Fn(&'static str, Duration, bool) + Send + Sync + 'static {
        let metrics = self.clone();
        move |operation, took, is_ok| {
            metrics.0.store_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
            if !is_ok {
                metrics.0.store_errors.with_label_values(&[operation]).inc();
            } else if operation == "set_variable" {
                // Tasks set theirs in a commit.
                metrics.variables_set(SetBy::User, 1);
            }
        }
    }

    fn workflow<'a>(&self, run: &'a RunRecord) -> &'a str {
        self.0.workflows.label(run.workflow.as_str())
    }
}

/// Clocks of two machines may disagree; no time is less than none.
fn observe(family: &HistogramVec, labels: &[&str], took: SignedDuration) {
    family.with_label_values(labels).observe(took.as_secs_f64().max(0.0));
}

fn outcome(exit: &Exit) -> &'static str {
    match exit {
        Exit::Code { code: 0 } => "success",
        Exit::Code { .. } | Exit::Signal { .. } => "failed",
        Exit::OutOfMemory => "oom",
        Exit::TimedOut => "timed_out",
        Exit::Cancelled => "cancelled",
        Exit::StartFailed { .. } => "start_failed",
        Exit::Lost { .. } => "lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_cap_are_counted_together() {
        let names = Names::default();
        let own = |n: usize| format!("workflow-{n}");
        assert!((0..CAP).all(|n| names.label(&own(n)) == own(n)));
        assert_eq!(names.label("one-more"), OTHER);
        assert_eq!(names.label(&own(3)), own(3));
    }
}

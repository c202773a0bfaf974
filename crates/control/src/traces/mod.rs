//! A trace per run and a span per attempt, sent to an OpenTelemetry collector where one is configured.
//!
//! Spans are made when their work is over, from the times that the records have. Their ids are hashes of what they
//! are about, so nothing is stored: a server that takes a run over goes on with its trace, and a span that is told
//! twice has the same id. Invariant: tracing never makes a run wait or fail; what cannot be sent is dropped and counted.

mod export;
mod otlp;

use std::time::Duration;

use pitcrew_core::engine::record::{AttemptRecord, RunRecord};
use pitcrew_core::state::{Exit, RunState};
use pitcrew_core::{AttemptId, RunKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

pub use export::Target;
use export::Told;
use otlp::{Outcome, Span};

use crate::metrics::Metrics;

/// Spans that may wait for a collector that is slow or away.
const WAITING: usize = 4096;
/// How long the end of the program may wait for the last spans.
const LAST: Duration = Duration::from_secs(3);

/// Makes spans. Cheap to clone.
#[derive(Clone)]
pub struct Tracer {
    told: mpsc::Sender<Told>,
    metrics: Metrics,
}

impl Tracer {
    /// Sends to a target for as long as the tracer or a clone of it lives.
    pub fn start(target: Target, metrics: Metrics) -> Tracer {
        let (told, inbox) = mpsc::channel(WAITING);
        tokio::spawn(export::run(target, inbox, metrics.clone()));
        Tracer { told, metrics }
    }

    /// What a task finds in `TRACEPARENT`: its attempt's span, in the form of W3C Trace Context.
    pub fn parent(&self, run: &RunRecord, attempt: &AttemptId) -> String {
        let trace = trace_id(run);
        let span = attempt_span(&trace, attempt);
        format!("00-{trace}-{span}-01")
    }

    /// An attempt is over.
    pub fn attempt(&self, run: &RunRecord, attempt: &AttemptRecord) {
        let trace_id = trace_id(run);
        let id = AttemptId {
            run: run.key,
            task: attempt.task.clone(),
            map_index: attempt.map_index,
            number: attempt.number,
        };
        let start = attempt.start.unwrap_or(attempt.queued_at);
        let waited = start.duration_since(attempt.queued_at).as_secs_f64();
        let (result, error) = attempt.exit.as_ref().map_or(("error", None), outcome);
        let mut attributes = vec![
            ("cicd.pipeline.name", json!(run.workflow)),
            ("cicd.pipeline.run.id", json!(run.run_id)),
            ("cicd.pipeline.task.name", json!(attempt.task)),
            ("cicd.pipeline.task.run.id", json!(id.to_string())),
            ("cicd.pipeline.task.run.result", json!(result)),
            ("pitcrew.task.map_index", json!(attempt.map_index)),
            ("pitcrew.task.try", json!(attempt.number)),
            ("pitcrew.task.start_seconds", json!(waited)),
            ("pitcrew.backend", json!(attempt.backend)),
            ("pitcrew.gpus", json!(attempt.gpus.len())),
        ];
        attributes.extend(attempt.exit.as_ref().and_then(Exit::code).map(|code| ("process.exit.code", json!(code))));
        let peak = attempt.usage.get("peak_memory_bytes").filter(|bytes| bytes.is_u64());
        attributes.extend(peak.map(|bytes| ("pitcrew.peak_memory_bytes", bytes.clone())));
        let connect = attempt.usage.get("connect_seconds").filter(|seconds| seconds.is_f64());
        attributes.extend(connect.map(|seconds| ("pitcrew.ssh.connect_seconds", seconds.clone())));
        attributes.extend(error.map(|kind| ("error.type", json!(kind))));
        self.tell(Span {
            span_id: attempt_span(&trace_id, &id),
            parent: run_span(&trace_id, run.key),
            trace_id,
            name: format!("RUN {}", attempt.task),
            start,
            end: attempt.end.unwrap_or(start).max(start),
            attributes,
            outcome: match &attempt.exit {
                Some(exit) if exit.is_success() => Outcome::Ok,
                Some(exit) => Outcome::Error(exit.to_string()),
                None => Outcome::Error("lost".to_owned()),
            },
        });
    }

    /// A run is over. `url` is its page; empty without a server.
    pub fn run(&self, run: &RunRecord, url: &str) {
        let trace_id = trace_id(run);
        let start = run.start.unwrap_or(run.queued_at);
        let result = match run.state {
            RunState::Success => "success",
            _ if run.stop.is_some() => "cancellation",
            _ => "failure",
        };
        let mut attributes = vec![
            ("cicd.pipeline.name", json!(run.workflow)),
            ("cicd.pipeline.run.id", json!(run.run_id)),
            ("cicd.pipeline.result", json!(result)),
            ("pitcrew.run", json!(run.key.0)),
            ("pitcrew.run.type", json!(run.run_type.name())),
        ];
        if !url.is_empty() {
            attributes.push(("cicd.pipeline.run.url.full", json!(url)));
        }
        self.tell(Span {
            span_id: run_span(&trace_id, run.key),
            parent: String::new(),
            trace_id,
            name: format!("RUN {}", run.workflow),
            start,
            end: run.end.unwrap_or(start).max(start),
            attributes,
            outcome: match run.state {
                RunState::Success => Outcome::Ok,
                state => Outcome::Error(format!("the run is {state}")),
            },
        });
    }

    /// Waits until what was told so far is sent, for a few seconds at most.
    pub async fn flush(&self) {
        let (sent, done) = oneshot::channel();
        let flush = async {
            if self.told.send(Told::Flush(sent)).await.is_ok() {
                let _ = done.await;
            }
        };
        if tokio::time::timeout(LAST, flush).await.is_err() {
            tracing::warn!("the last spans were not sent: the collector does not answer");
        }
    }

    fn tell(&self, span: Span) {
        if self.told.try_send(Told::Span(Box::new(span))).is_err() {
            self.metrics.spans("dropped", 1);
        }
    }
}

/// Result and kind of error, in the words of the semantic conventions for CI.
fn outcome(exit: &Exit) -> (&'static str, Option<&'static str>) {
    match exit {
        Exit::Code { code: 0 } => ("success", None),
        Exit::Code { .. } => ("failure", Some("exit_code")),
        Exit::Signal { .. } => ("failure", Some("signal")),
        Exit::OutOfMemory => ("failure", Some("oom")),
        Exit::TimedOut => ("timeout", Some("timed_out")),
        Exit::Cancelled => ("cancellation", Some("cancelled")),
        Exit::StartFailed { .. } => ("error", Some("start_failed")),
        Exit::Lost { .. } => ("error", Some("lost")),
    }
}

/// The time of its creation makes it differ from a run of the same name in another database.
fn trace_id(run: &RunRecord) -> String {
    hash(&json!([run.workflow, run.run_id, run.key, run.queued_at]), 16)
}

fn run_span(trace: &str, run: RunKey) -> String {
    hash(&json!([trace, run]), 8)
}

fn attempt_span(trace: &str, attempt: &AttemptId) -> String {
    hash(&json!([trace, attempt.task, attempt.map_index, attempt.number]), 8)
}

fn hash(of: &Value, bytes: usize) -> String {
    let digest = Sha256::digest(of.to_string().as_bytes());
    digest[..bytes].iter().map(|byte| format!("{byte:02x}")).collect()
}

//! What is said of a run that is over: one JSON document, or a few lines.

use std::path::Path;

use jiff::Timestamp;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, RunStop, StoredRun};
use pitcrew_core::ir::Workflow;
use pitcrew_core::state::{Exit, RunState, State};
use serde_json::{Value, json};

use crate::cli::format;
use crate::cli::ui::Paint;

/// The document of `run --output json` and `runs show --output json`.
pub fn json(stored: &StoredRun, workflow: &Workflow) -> Value {
    let run = &stored.run;
    let duration = match (run.start, run.end) {
        (Some(start), Some(end)) => Some(end.duration_since(start).as_millis()),
        _ => None,
    };
    json!({
        "run_id": run.run_id,
        "workflow": run.workflow,
        "state": run.state.name(),
        "duration_ms": duration.map(|ms| ms as i64),
        "tasks": ordered(stored, workflow).into_iter().map(task).collect::<Vec<_>>(),
    })
}

fn task(row: &InstanceRecord) -> Value {
    let mut task = json!({
        "id": row.task,
        "map_index": row.map_index,
        "state": row.state.name(),
        "attempts": row.attempt,
        "start": row.start,
        "end": row.end,
        "exit_code": row.exit.as_ref().and_then(|exit| exit.code()),
        "message": Some(&row.message).filter(|message| !message.is_empty()),
        "outputs": row.outputs,
    });
    if !row.message.is_empty() {
        task["message"] = json!(row.message);
    }
    task
}

/// In the order of the workflow's file; then by map index.
pub fn ordered<'a>(stored: &'a StoredRun, workflow: &Workflow) -> Vec<&'a InstanceRecord> {
    let mut rows: Vec<&InstanceRecord> = stored.instances.iter().collect();
    rows.sort_by_key(|row| (workflow.by_name.get(&row.task).copied(), row.map_index));
    rows
}

/// What is shown when a run that was watched is over. `pitcrew` is how to call this program.
pub fn summary(stored: &StoredRun, workspace: &Path, pitcrew: &str, paint: Paint) -> String {
    let run = &stored.run;
    let count = |wanted: &str| stored.instances.iter().filter(|row| row.state.name() == wanted).count() as u64;
    let counts: Vec<String> = ["success", "failed", "upstream_failed", "skipped"]
        .into_iter()
        .filter_map(|state| {
            let text = format!("{} {}", format::count(Some(count(state)).filter(|n| *n > 0)?), state.replace('_', " "));
            Some(format::tint(paint, state, &text))
        })
        .collect();
    let state = run.state.name();
    let took = format::span(run.start, run.end);
    let head = format!("{} run {} of {} {}", format::sign(state), run.key, run.workflow, verb(run));
    let mut text = format::tint(paint, state, &head);
    text.push_str(&format!(" after {took}: {}\n", counts.join(", ")));
    let has_files = std::fs::read_dir(workspace).is_ok_and(|mut files| files.next().is_some());
    if run.state == RunState::Success && has_files {
        text.push_str(&paint.dim(format!("  files: {}", workspace.display())));
        text.push('\n');
    }
    if run.state != RunState::Success {
        text.push_str(&paint.dim(format!("  again: {pitcrew} runs retry {} --failed", run.key)));
        text.push('\n');
    }
    text
}

fn verb(run: &RunRecord) -> String {
    match (&run.state, &run.stop) {
        (RunState::Success, _) => "succeeded".to_owned(),
        (RunState::Failed, Some(RunStop::TimedOut)) => "timed out".to_owned(),
        (RunState::Failed, _) => "failed".to_owned(),
        (RunState::Cancelled, _) => "was cancelled".to_owned(),
        (RunState::Queued | RunState::Running, _) => "goes on".to_owned(),
    }
}

/// What to say of an instance that failed: how, the end of its log, and where the whole is.
pub fn failure(run: &RunRecord, row: &InstanceRecord, pitcrew: &str, paint: Paint) -> String {
    let name = format::instance(row.task.as_str(), row.map_index);
    let tries = if row.attempt > 1 { format!(" (attempt {})", row.attempt) } else { String::new() };
    let head = paint.red(format!("✗ {name} failed: {}{tries}", how(row)));
    format!("{head}\n{}", log_end(run, row, pitcrew, paint))
}

/// Stopped because the run was: nobody needs to be told why.
pub fn was_cancelled(row: &InstanceRecord) -> bool {
    row.exit == Some(Exit::Cancelled)
}

/// How an instance failed, on one line.
fn how(row: &InstanceRecord) -> String {
    // The scheduler puts it last, behind the end of the log.
    match (row.message.lines().last(), &row.exit) {
        (Some(last), _) if !last.is_empty() => format::one_line(last),
        (_, Some(exit)) => format::one_line(&exit.to_string()),
        (_, None) => String::new(),
    }
}

/// The end of a failed instance's log, and where the whole is.
pub fn log_end(run: &RunRecord, row: &InstanceRecord, pitcrew: &str, paint: Paint) -> String {
    let mut text = String::new();
    let lines: Vec<&str> = row.message.lines().collect();
    for line in &lines[..lines.len().saturating_sub(1)] {
        text.push_str(&format!("    {} {}\n", paint.dim("│"), format::one_line(line)));
    }
    if row.attempt > 0 && !was_cancelled(row) {
        let name = format::instance(row.task.as_str(), row.map_index);
        text.push_str(&paint.dim(format!("    whole log: {pitcrew} logs {} {name}", run.key)));
        text.push('\n');
    }
    text
}

/// One line about an instance that came to rest, or that will be tried again.
pub fn line(row: &InstanceRecord, paint: Paint, now: Timestamp) -> String {
    let name = format::instance(row.task.as_str(), row.map_index);
    let state = row.state.name();
    let sign = format::tint(paint, state, format::sign(state));
    let rest = match row.state {
        State::Success => format::span(row.start, row.end),
        State::Failed => {
            return format!("{sign} {name}  {}  {}", paint.dim(format::span(row.start, row.end)), paint.red(how(row)));
        }
        State::UpForRetry { at } => {
            format!("failed; attempt {} {}", row.attempt + 1, format::until(at, now))
        }
        State::Skipped => format!("skipped{}", reason(&row.message)),
        State::UpstreamFailed => "not run: a task before it failed".to_owned(),
        other => other.name().to_owned(),
    };
    format!("{sign} {name}  {}", paint.dim(rest))
}

fn reason(message: &str) -> String {
    match message.lines().last() {
        Some(message) if !message.is_empty() => format!(": {}", format::one_line(message)),
        _ => String::new(),
    }
}

//! The addresses of pages and files: the one place that knows their form.

use std::fmt::Write as _;

use pitcrew_core::id::UNMAPPED;
use pitcrew_core::recovery::IncidentId;
use pitcrew_core::{RunId, RunKey, TaskId, WorkflowId};

/// A text as one segment of a path, or as a value in a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The page of a workflow.
pub fn workflow(id: &WorkflowId) -> String {
    format!("/workflows/{}", encode(id.as_str()))
}

/// The page of a run.
pub fn run(workflow: &WorkflowId, run: &RunId) -> String {
    format!("{}/runs/{}", self::workflow(workflow), encode(run.as_str()))
}

/// The page of a task instance.
pub fn task(workflow: &WorkflowId, run: &RunId, task: &TaskId, map_index: i32) -> String {
    let page = format!("{}/tasks/{}", self::run(workflow, run), encode(task.as_str()));
    if map_index == UNMAPPED { page } else { format!("{page}/{map_index}") }
}

/// The page of an incident of a node.
pub fn incident(id: IncidentId) -> String {
    format!("/incidents/{id}")
}

/// A kept file of a run; `path` is relative, with `/` between its parts.
pub fn artifact(run: RunKey, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(encode).collect();
    format!("/api/pitcrew/v1/runs/{run}/artifacts/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped() {
        assert_eq!(encode("manual__2026-01-02T03:04:05+00:00"), "manual__2026-01-02T03%3A04%3A05%2B00%3A00");
        assert_eq!(artifact(RunKey(7), "html/a b?.html"), "/api/pitcrew/v1/runs/7/artifacts/html/a%20b%3F.html");
    }
}

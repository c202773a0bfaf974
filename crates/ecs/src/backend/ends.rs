//! How a task of ECS ended, out of what ECS says of it.
//!
//! Invariant: an end that the task did not bring about itself is never its exit code. What somebody stopped is no
//! failure, and what went down with its machine is lost.

use pitcrew_core::state::Exit;
use serde::{Deserialize, Serialize};

use crate::client::ecs::{Container, Definition, StopCode, Task};

/// Why we asked it to stop; written down before ECS is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Somebody, or the end of the run, asked for that; or a sibling failed.
    Cancelled,
    /// A step ran too long.
    TimedOut,
}

/// Who or what brought an end about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Success,
    /// Its own container ended with another code, a signal, or without memory left.
    Itself,
    /// We asked it to stop.
    Ours,
    /// Somebody else asked ECS to stop it.
    Somebody,
    /// It never ran: no image, no secret, no address.
    NotStarted,
    /// Its machine, or what is under it, went away.
    Infrastructure,
    /// ECS does not know it any more.
    Unknown,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    pub exit: Exit,
    pub cause: Cause,
    /// In ECS's words: stop code, reason, and what the containers say.
    pub evidence: String,
}

/// The container that the task is about: the named one, else the first essential one of the definition.
pub fn main_container<'t>(
    task: &'t Task,
    named: Option<&str>,
    definition: Option<&Definition>,
) -> Option<&'t Container> {
    let name = named.or_else(|| definition.and_then(Definition::main).map(|container| container.name.as_str()));
    match name {
        Some(name) => task.container(name),
        None if task.containers.len() == 1 => task.containers.first(),
        None => None,
    }
}

/// How a task that is stopped ended. `intent` is what we asked for before.
pub fn end(task: &Task, main: Option<&Container>, intent: Option<Intent>) -> End {
    let evidence = evidence(task, main);
    let of = |exit, cause| End { exit, cause, evidence: evidence.clone() };
    let reason = task.stopped_reason.as_deref().unwrap_or_default();
    let lost = || Exit::Lost { reason: evidence.clone() };
    let own = || main.and_then(|container| container.exit_code).map(|code| own_end(code, main));
    match &task.stop_code {
        Some(StopCode::EssentialContainerExited) => match own() {
            Some(exit) if exit.is_success() => of(exit, Cause::Success),
            Some(exit) => of(exit, Cause::Itself),
            // Another essential container ended, and ours had not begun.
            None => of(Exit::start_failed(evidence.clone()), Cause::NotStarted),
        },
        Some(StopCode::UserInitiated) => match intent {
            Some(Intent::Cancelled) => of(Exit::Cancelled, Cause::Ours),
            Some(Intent::TimedOut) => of(Exit::TimedOut, Cause::Ours),
            // Some tools stop tasks of machines that they take away, and ECS names them all users.
            None if is_about_the_host(reason) => of(lost(), Cause::Infrastructure),
            None => of(Exit::Cancelled, Cause::Somebody),
        },
        Some(StopCode::TaskFailedToStart) => match is_about_the_host(reason) {
            true => of(lost(), Cause::Infrastructure),
            false => of(Exit::start_failed(evidence.clone()), Cause::NotStarted),
        },
        Some(
            StopCode::SpotInterruption
            | StopCode::TerminationNotice
            | StopCode::InfrastructureHealth
            | StopCode::ServiceSchedulerInitiated,
        ) => of(lost(), Cause::Infrastructure),
        Some(StopCode::Other(_)) | None => match (own(), intent) {
            (_, Some(Intent::TimedOut)) => of(Exit::TimedOut, Cause::Ours),
            (_, Some(Intent::Cancelled)) => of(Exit::Cancelled, Cause::Ours),
            _ if is_about_the_host(reason) => of(lost(), Cause::Infrastructure),
            (Some(exit), None) if exit.is_success() => of(exit, Cause::Success),
            (Some(exit), None) => of(exit, Cause::Itself),
            (None, None) => of(lost(), Cause::Infrastructure),
        },
    }
}

/// A container says 128 and the signal for what a signal ended.
fn own_end(code: i32, container: Option<&Container>) -> Exit {
    let reason = container.and_then(|container| container.reason.as_deref()).unwrap_or_default();
    match code {
        _ if reason.contains("OutOfMemory") => Exit::OutOfMemory,
        129..=159 => Exit::Signal { signal: code - 128 },
        _ => Exit::Code { code },
    }
}

/// ECS has no code of its own for a machine that is gone.
fn is_about_the_host(reason: &str) -> bool {
    let reason = reason.to_ascii_lowercase();
    ["host ec2", "(instance i-", "instance was terminated", "container instance deregistration", "spot interruption"]
        .iter()
        .any(|part| reason.contains(part))
}

fn evidence(task: &Task, main: Option<&Container>) -> String {
    let mut parts = Vec::new();
    match &task.stop_code {
        Some(StopCode::Other(code)) => parts.push(code.clone()),
        Some(code) => parts.push(format!("{code:?}")),
        None => {}
    }
    parts.extend(task.stopped_reason.clone().filter(|reason| !reason.is_empty()));
    for container in &task.containers {
        let is_main = main.is_some_and(|main| main.name == container.name);
        let reason = container.reason.as_deref().unwrap_or_default();
        let code = container.exit_code.filter(|code| *code != 0 || is_main);
        match (code, reason) {
            (None, "") => {}
            (Some(code), "") => parts.push(format!("container `{}`: exit code {code}", container.name)),
            (None, reason) => parts.push(format!("container `{}`: {reason}", container.name)),
            (Some(code), reason) => parts.push(format!("container `{}`: exit code {code}, {reason}", container.name)),
        }
    }
    if parts.is_empty() { "ECS gives no reason".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judge(code: &str, reason: &str, containers: Value, intent: Option<Intent>) -> End {
        let task: Task = serde_json::from_value(json!({
            "stopCode": code, "stoppedReason": reason, "containers": containers, "lastStatus": "STOPPED",
        }))
        .unwrap();
        end(&task, main_container(&task, Some("train"), None), intent)
    }

    /// Weaknesses 11 and 12: every code is told apart, and the essential container decides, not the first one.
    #[test]
    fn the_essential_container_decides_and_each_code_is_told_apart() {
        let exited = |code: Value, reason: &str| {
            let sidecar = json!({ "name": "sidecar", "exitCode": 0 });
            let own = json!({ "name": "train", "exitCode": code, "reason": reason });
            judge("EssentialContainerExited", "Essential container in task exited", json!([sidecar, own]), None)
        };
        assert_eq!((exited(json!(0), "").exit, exited(json!(0), "").cause), (Exit::Code { code: 0 }, Cause::Success));
        assert_eq!(exited(json!(1), "").exit, Exit::Code { code: 1 });
        for (code, signal) in [(134, 6), (137, 9), (139, 11), (143, 15)] {
            assert_eq!(exited(json!(code), "").exit, Exit::Signal { signal });
        }
        let oom = exited(json!(137), "OutOfMemoryError: Container killed due to memory usage");
        assert_eq!((oom.exit, oom.cause), (Exit::OutOfMemory, Cause::Itself));
        let none = exited(Value::Null, "");
        assert!(matches!(none.exit, Exit::StartFailed { lasting: false, .. }), "{none:?}");
    }

    /// Weakness 9: what we stopped is ours, whatever the containers say; what somebody stopped is no failure either.
    #[test]
    fn stops_are_whose_they_are() {
        let killed = json!([{ "name": "train", "exitCode": 137 }]);
        let of = |intent| judge("UserInitiated", "pitcrew: a sibling failed", killed.clone(), intent);
        assert_eq!(
            (of(Some(Intent::Cancelled)).exit, of(Some(Intent::Cancelled)).cause),
            (Exit::Cancelled, Cause::Ours)
        );
        assert_eq!(of(Some(Intent::TimedOut)).exit, Exit::TimedOut);
        assert_eq!((of(None).exit, of(None).cause), (Exit::Cancelled, Cause::Somebody));
        // It ended by itself before the stop came.
        let itself =
            judge("EssentialContainerExited", "", json!([{ "name": "train", "exitCode": 3 }]), Some(Intent::Cancelled));
        assert_eq!(itself.exit, Exit::Code { code: 3 });
    }

    #[test]
    fn what_goes_down_with_its_machine_is_lost_and_says_why() {
        for code in ["SpotInterruption", "TerminationNotice", "InfrastructureHealth", "ServiceSchedulerInitiated"] {
            let end = judge(code, "why", json!([{ "name": "train", "exitCode": 137 }]), None);
            assert_eq!(end.cause, Cause::Infrastructure);
            let Exit::Lost { reason } = end.exit else { panic!("{code}") };
            assert_eq!(reason, format!("{code}; why; container `train`: exit code 137"));
        }
        let gone = judge("TaskFailedToStart", "Host EC2 (instance i-0f1) terminated.", json!([]), None);
        assert_eq!(gone.cause, Cause::Infrastructure);
        let pull = json!([{ "name": "train", "reason": "CannotPullContainerError: not found" }]);
        let end = judge("TaskFailedToStart", "Task failed to start", pull, None);
        assert_eq!(end.cause, Cause::NotStarted);
        assert!(end.evidence.contains("CannotPullContainerError"), "{}", end.evidence);
        // A code of the future decides nothing by itself.
        assert_eq!(judge("SomethingNew", "", json!([{ "name": "train", "exitCode": 0 }]), None).cause, Cause::Success);
        assert!(matches!(judge("SomethingNew", "", json!([]), None).exit, Exit::Lost { .. }));
    }
}

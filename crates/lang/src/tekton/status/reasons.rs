//! Reasons and messages of TaskRuns, from how their attempts ended. Whatever word is changed is changed here.

use pitcrew_core::pod::{ContainerEnded, ContainerState, PodEnded, PodFailure, TerminationReason};
use pitcrew_core::state::Exit;

/// Why a TaskRun failed, as a reason and a message.
pub fn failure(
    name: &str,
    timeout: &str,
    exit: Option<&Exit>,
    pod: Option<&PodEnded>,
    told: &str,
) -> (&'static str, String) {
    match pod.and_then(|pod| pod.failure.as_ref()) {
        Some(PodFailure::ImagePull { container, image, message }) => {
            let step = container.strip_prefix("step-").unwrap_or(container);
            let message =
                format!("the step \"{step}\" in TaskRun \"{name}\" failed to pull the image \"{image}\": {message}");
            return ("TaskRunImagePullFailed", message);
        }
        Some(PodFailure::Config { container, message }) => {
            return ("CreateContainerConfigError", format!("the container \"{container}\" cannot be made: {message}"));
        }
        Some(PodFailure::Evicted { message }) => return ("PodEvicted", message.clone()),
        Some(PodFailure::Deadline) => return ("TaskRunTimeout", timed_out("TaskRun", name, timeout)),
        Some(PodFailure::StepTimeout { container }) => {
            let message = format!("\"{container}\" exited because the step exceeded the specified timeout limit");
            return ("TaskRunTimeout", message);
        }
        Some(PodFailure::Sidecar { container, message }) => {
            return ("Failed", format!("the sidecar \"{container}\" failed: {message}"));
        }
        Some(PodFailure::Refused { message }) => return ("TaskRunValidationFailed", message.clone()),
        None => {}
    }
    match exit {
        Some(Exit::TimedOut) => return ("TaskRunTimeout", timed_out("TaskRun", name, timeout)),
        Some(Exit::Cancelled) => return ("TaskRunCancelled", format!("TaskRun \"{name}\" was cancelled")),
        Some(Exit::StartFailed { reason, .. }) => return ("TaskRunValidationFailed", reason.clone()),
        Some(Exit::Lost { reason }) => return ("PodEvicted", reason.clone()),
        Some(Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory) | None => {}
    }
    for container in pod.map(|pod| pod.containers.as_slice()).unwrap_or_default() {
        let ContainerState::Terminated { exit_code, reason, .. } = &container.state else { continue };
        match reason {
            TerminationReason::OutOfMemory if is_step(container) => {
                return ("StepOOM", format!("\"{}\" exited because it had no more memory", container.name));
            }
            TerminationReason::OutOfMemory => {
                return ("SidecarOOM", format!("\"{}\" exited because it had no more memory", container.name));
            }
            TerminationReason::Error if is_step(container) => {
                return ("Failed", format!("\"{}\" exited with code {exit_code}", container.name));
            }
            TerminationReason::Completed
            | TerminationReason::Error
            | TerminationReason::Continued
            | TerminationReason::Skipped
            | TerminationReason::Cancelled
            | TerminationReason::TimeoutExceeded => {}
        }
    }
    match exit {
        Some(Exit::OutOfMemory) => ("StepOOM", "a step exited because it had no more memory".to_owned()),
        _ if !told.is_empty() => ("Failed", told.to_owned()),
        Some(exit) => ("Failed", exit.to_string()),
        None => ("Failed", "build failed for unspecified reasons.".to_owned()),
    }
}

/// What is said of a run that took too long.
pub fn timed_out(kind: &str, name: &str, timeout: &str) -> String {
    format!("{kind} \"{name}\" failed to finish within \"{timeout}\"")
}

fn is_step(container: &ContainerEnded) -> bool {
    container.name.starts_with("step-")
}

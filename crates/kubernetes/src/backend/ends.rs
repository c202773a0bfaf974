//! What is true of a pod, and how it ended: the one place that says whose end it was.
//!
//! A pod that ended by its own steps has ended; one that its cluster ended, or let nobody begin, is lost and runs again, for
//! nobody knows that its steps were at fault.

use jiff::Timestamp;
use pitcrew_core::pod::{ContainerEnded, ContainerState, PodEnded, PodFailure, StepFacts, TerminationReason, short};
use pitcrew_core::state::Exit;
use pitcrew_exec::{Ended, StepEnded};

use super::manifest::READY;
use super::marks::{Ending, Part, Sent};
use super::mirror::Mirror;
use super::results;
use super::seen::{Container, Seen, Terminated};
use super::wrap::{FAULT, LATE, SKIPPED, UNREACHED};

/// Reasons for which an image does not come.
const IMAGE: [&str; 3] = ["ErrImageNeverPull", IMAGE_LATER, "InvalidImageName"];
/// Of them, that of a registry which may answer another time.
const IMAGE_LATER: &str = "ImagePullBackOff";
/// Reasons for which a container cannot be made.
const CONFIG: [&str; 2] = ["CreateContainerConfigError", "CreateContainerError"];
/// Reasons for which one could not begin.
const NOT_STARTED: [&str; 2] = ["ContainerCannotRun", "StartError"];
/// What a program that is not there ends with, as in a shell.
const NOT_FOUND: i32 = 127;

/// How a pod stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Stage {
    /// No step has begun; why, if the cluster says so.
    Waiting(Option<String>),
    Running,
    /// Its sidecars are ready, and its steps may begin.
    Ready,
    /// No step will go on; its sidecars run.
    Done,
    /// Its steps are over, or its time is.
    Over,
    /// It will never begin, or never go on.
    Stuck(PodFailure),
    /// Its cluster ended it, for this reason.
    Lost(String),
}

/// How it stands. `asked`: we asked for its end.
pub fn stage(sent: &Sent, pod: &Seen, asked: bool) -> Stage {
    let status = &pod.status;
    let words = || match (status.reason.as_str(), status.message.as_str()) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    if pod.is_over() {
        return match status.reason.as_str() {
            _ if asked => Stage::Over,
            "DeadlineExceeded" => Stage::Over,
            "" if !is_cut(sent, pod) => Stage::Over,
            "" => Stage::Lost("its pod was deleted by somebody else, or its node was emptied".to_owned()),
            _ => Stage::Lost(format!("its cluster ended the pod `{}`: {}", sent.name, words())),
        };
    }
    if pod.metadata.deletion_timestamp.is_some() && !asked {
        let why = "is being deleted by somebody else, or because its node is emptied";
        return Stage::Lost(format!("the pod `{}` {why}", sent.name));
    }
    for step in sent.parts() {
        let Some(waiting) = pod.container(&step.name).and_then(|one| one.state.waiting.as_ref()) else { continue };
        let (reason, message) = (waiting.reason.as_str(), waiting.message.trim());
        let said = if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") };
        if IMAGE.contains(&reason) {
            let (container, image) = (step.name.clone(), step.image.clone());
            return Stage::Stuck(PodFailure::ImagePull { container, image, message: said });
        }
        if CONFIG.contains(&reason) {
            return Stage::Stuck(PodFailure::Config { container: step.name.clone(), message: said });
        }
    }
    if !sent.sidecars.is_empty() && sent.steps.iter().all(|step| is_known(pod, step)) {
        return beside(sent, pod, asked);
    }
    if sent.sidecars.is_empty() && sent.steps.iter().any(|step| is_known(pod, step)) {
        return Stage::Running;
    }
    let unscheduled = status.conditions.iter().find(|one| one.r#type == "PodScheduled" && one.status == "False");
    Stage::Waiting(unscheduled.map(|one| match one.message.is_empty() {
        true => one.reason.clone(),
        false => format!("{}: {}", one.reason, one.message),
    }))
}

/// How a pod stands whose containers run beside each other.
fn beside(sent: &Sent, pod: &Seen, asked: bool) -> Stage {
    let is_failure = |step: &Part| terminated(pod, step).is_some_and(|end| end.exit_code != 0);
    let is_done = sent.steps.iter().all(|step| terminated(pod, step).is_some()) || sent.steps.iter().any(is_failure);
    if asked && sent.parts().all(|part| terminated(pod, part).is_some()) {
        return Stage::Over;
    }
    if is_done {
        return Stage::Done;
    }
    if is_ready(pod) {
        return Stage::Running;
    }
    for sidecar in sent.sidecars.iter().filter(|sidecar| sidecar.is_probed && !asked) {
        if let Some(end) = terminated(pod, sidecar) {
            let message = format!("ended with exit code {} before it was ready", end.exit_code);
            return Stage::Stuck(PodFailure::Sidecar { container: sidecar.name.clone(), message });
        }
    }
    let stands = |sidecar: &Part| {
        pod.container(&sidecar.name).is_some_and(|one| {
            one.state.terminated.is_some() || one.state.running.is_some() && (one.ready || !sidecar.is_probed)
        })
    };
    if sent.sidecars.iter().all(stands) { Stage::Ready } else { Stage::Waiting(None) }
}

/// Its steps were told that they may begin.
fn is_ready(pod: &Seen) -> bool {
    pod.metadata.annotations.get(READY).is_some_and(|said| said == "1")
}

fn is_known(pod: &Seen, step: &Part) -> bool {
    pod.container(&step.name).is_some_and(|one| one.state.running.is_some() || one.state.terminated.is_some())
}

/// It was deleted before its steps were over.
fn is_cut(sent: &Sent, pod: &Seen) -> bool {
    let is_failure = |step: &Part| terminated(pod, step).is_some_and(|end| end.exit_code != 0);
    pod.metadata.deletion_timestamp.is_some()
        && !sent.steps.iter().all(|step| terminated(pod, step).is_some_and(|end| end.exit_code == 0))
        && !sent.steps.iter().any(|step| is_failure(step) && !is_killed(terminated(pod, step)))
}

fn is_killed(end: Option<&Terminated>) -> bool {
    end.is_some_and(|end| matches!(end.exit_code, 137 | 143))
}

fn terminated<'a>(pod: &'a Seen, step: &Part) -> Option<&'a Terminated> {
    pod.container(&step.name)?.state.terminated.as_ref()
}

/// When its first step began.
pub fn started_at(sent: &Sent, pod: &Seen) -> Option<Timestamp> {
    if !sent.sidecars.is_empty() && !is_ready(pod) {
        return None;
    }
    let step = pod.container(&sent.steps.first()?.name)?;
    let running = step.state.running.as_ref().and_then(|running| running.started_at);
    running.or_else(|| step.state.terminated.as_ref().and_then(|end| end.started_at))
}

/// Why a pod did not go on by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// It did.
    Nothing,
    Cancelled,
    Late,
    GivenUp(PodFailure),
}

impl Why {
    pub fn of(is_cancelled: bool, ending: Option<Ending>) -> Why {
        match (is_cancelled, ending) {
            (true, _) => Why::Cancelled,
            (false, Some(Ending::Deadline)) => Why::Late,
            (false, Some(Ending::Done) | None) => Why::Nothing,
        }
    }
}

/// What became of a pod whose steps are over, were ended, or will never begin.
pub fn end(sent: &Sent, pod: Option<&Seen>, mirror: &Mirror, why: Why, now: Timestamp) -> Ended {
    let mut ended = Ended::bare(Exit::Code { code: 0 }, now);
    let cut = match &why {
        Why::Cancelled => Some(TerminationReason::Cancelled),
        Why::Late => Some(TerminationReason::TimeoutExceeded),
        Why::Nothing | Why::GivenUp(_) => None,
    };
    let failure = match &why {
        Why::GivenUp(failure) => Some(failure.clone()),
        Why::Late => Some(PodFailure::Deadline),
        Why::Nothing | Why::Cancelled => None,
    };
    let mut told = PodEnded { failure, ..PodEnded::default() };
    let mut facts = StepFacts::default();
    ended.started_at = pod.and_then(|pod| started_at(sent, pod));
    let mut is_broken = cut.is_some() || told.failure.is_some();
    for (index, step) in sent.steps.iter().enumerate() {
        let seen = pod.and_then(|pod| pod.container(&step.name));
        let over = seen.and_then(|seen| seen.state.terminated.as_ref());
        let over = over.filter(|over| said(step, over, &sent.mark).0 != UNREACHED);
        let (results, artifacts) = results::of_step(sent, mirror, index);
        let problems = results.problems.iter().map(|problem| format!("step `{}`: {problem}", short(&step.name)));
        ended.output_problems.extend(problems);
        facts.insert(&step.name, results::known(&results, &artifacts));
        let state = match over {
            Some(over) => {
                let (exit, mut state) = step_end(step, over, &sent.mark, now);
                if let (Some(cut), None, false, ContainerState::Terminated { exit_code, reason, .. }) =
                    (cut, &ended.failed_step, exit.is_success(), &mut state)
                {
                    (*exit_code, *reason) = (1, cut);
                }
                let is_skipped =
                    matches!(&state, ContainerState::Terminated { reason: TerminationReason::Skipped, .. });
                if !is_skipped {
                    ended.steps.push(StepEnded {
                        name: short(&step.name).to_owned(),
                        exit: exit.clone(),
                        started_at: over.started_at.unwrap_or(now),
                        at: over.finished_at.unwrap_or(now),
                    });
                }
                let goes_on = exit.is_success() || step.continues && matches!(exit, Exit::Code { .. });
                if !goes_on && ended.exit.is_success() {
                    if exit == Exit::TimedOut {
                        told.failure.get_or_insert(PodFailure::StepTimeout { container: step.name.clone() });
                    }
                    ended.exit = exit;
                    ended.failed_step = Some(short(&step.name).to_owned());
                    is_broken = true;
                }
                state
            }
            None => {
                let was_reached = sent.sidecars.is_empty() || ended.steps.len() == index && pod.is_some_and(is_ready);
                let cut = cut.filter(|_| was_reached && seen.is_some_and(|seen| seen.state.running.is_some()));
                if cut.is_some() && ended.failed_step.is_none() {
                    ended.failed_step = Some(short(&step.name).to_owned());
                }
                not_ended(step, cut, &told.failure, is_broken, now)
            }
        };
        told.containers.push(ContainerEnded {
            results: results.values,
            artifacts,
            ..container_ended(step, seen, state)
        });
    }
    for sidecar in &sent.sidecars {
        let seen = pod.and_then(|pod| pod.container(&sidecar.name));
        let state = match seen.and_then(|seen| seen.state.terminated.as_ref()) {
            Some(over) => step_end(sidecar, over, &sent.mark, now).1,
            // We asked for its end after the steps, and not every kubelet tells how one ends whose pod is deleted.
            None if !is_broken && pod.is_some_and(is_ready) => ContainerState::Terminated {
                exit_code: 0,
                reason: TerminationReason::Completed,
                message: String::new(),
                started_at: ended.started_at.unwrap_or(now),
                at: now,
            },
            None => not_ended(sidecar, None, &told.failure, is_broken, now),
        };
        told.containers.push(container_ended(sidecar, seen, state));
    }
    let (results, artifacts) = results::of_task(sent, mirror, &facts);
    ended.outputs.extend(results.values.iter().cloned());
    ended.output_problems.extend(results.problems);
    (told.results, told.artifacts) = (results.values, artifacts);
    if let Some(pod) = pod.filter(|pod| pod.status.reason == "DeadlineExceeded") {
        told.failure = Some(PodFailure::Deadline);
        ended.exit = Exit::TimedOut;
        tracing::debug!("the pod `{}` ran longer than it may", pod.metadata.name);
    }
    if why == Why::Cancelled {
        ended.exit = Exit::Cancelled;
    } else if why == Why::Late {
        ended.exit = Exit::TimedOut;
    } else if let Some(failure) = &told.failure
        && ended.exit.is_success()
    {
        ended.exit = match failure {
            // Its registry may answer the next attempt, if the task has one.
            PodFailure::ImagePull { message, .. } if message.starts_with(IMAGE_LATER) => {
                Exit::start_failed(words(failure))
            }
            PodFailure::Sidecar { .. } => Exit::start_failed(words(failure)),
            failure => Exit::cannot_start(words(failure)),
        };
        ended.failed_step = container(failure).map(|name| short(name).to_owned());
    }
    ended.pod = Some(Box::new(told));
    ended
}

fn container_ended(part: &Part, seen: Option<&Container>, state: ContainerState) -> ContainerEnded {
    ContainerEnded {
        name: part.name.clone(),
        image: part.image.clone(),
        image_id: seen
            .map(|seen| seen.image_id.trim_start_matches("docker-pullable://").to_owned())
            .unwrap_or_default(),
        container_id: seen.map(|seen| seen.container_id.clone()).unwrap_or_default(),
        state,
        results: Vec::new(),
        artifacts: serde_json::Value::Null,
    }
}

/// What people are told of steps besides how the attempt ended.
pub fn remarks(sent: &Sent, ended: &Ended) -> Vec<(usize, String)> {
    let mut remarks = Vec::new();
    let Some(pod) = &ended.pod else { return remarks };
    for (index, (step, container)) in sent.steps.iter().zip(&pod.containers).enumerate() {
        let ContainerState::Terminated { exit_code, reason, message, .. } = &container.state else { continue };
        let name = short(&step.name);
        if !message.is_empty() && *exit_code != 0 {
            remarks.push((index, message.clone()));
        }
        match reason {
            TerminationReason::Skipped if *exit_code == 0 => {
                remarks.push((index, format!("step `{name}` is skipped: its conditions do not hold")));
            }
            TerminationReason::Continued => {
                remarks.push((index, format!("step `{name}` failed (exit code {exit_code}); the next one ran")));
            }
            TerminationReason::Completed
            | TerminationReason::Error
            | TerminationReason::Skipped
            | TerminationReason::Cancelled
            | TerminationReason::TimeoutExceeded
            | TerminationReason::OutOfMemory => {}
        }
    }
    remarks
}

/// What the lines of shell around a step said of it: a word, and more.
fn said<'a>(step: &Part, over: &'a Terminated, mark: &str) -> (&'a str, &'a str) {
    let said = over.message.lines().rev().find_map(|line| line.strip_prefix(mark)).map(str::trim);
    let said = said.filter(|_| step.is_wrapped).unwrap_or_default();
    said.split_once(' ').unwrap_or((said, ""))
}

/// How a step ended that ran, by its container and by the lines of shell that it ran under.
fn step_end(step: &Part, over: &Terminated, mark: &str, now: Timestamp) -> (Exit, ContainerState) {
    let (word, rest) = said(step, over, mark);
    let code = if word == super::wrap::ENDED { rest.parse().unwrap_or(over.exit_code) } else { over.exit_code };
    let own = |message: &str| if step.is_wrapped { String::new() } else { message.to_owned() };
    let (exit, exit_code, reason, message) = match (word, over.reason.as_str()) {
        (SKIPPED, _) => (Exit::Code { code: 0 }, 0, TerminationReason::Skipped, String::new()),
        (LATE, _) => (Exit::TimedOut, 1, TerminationReason::TimeoutExceeded, String::new()),
        (FAULT, _) => (Exit::Code { code: 1 }, 1, TerminationReason::Error, rest.to_owned()),
        (_, "OOMKilled") => (Exit::OutOfMemory, 137, TerminationReason::OutOfMemory, own(&over.message)),
        (_, reason) if NOT_STARTED.contains(&reason) => {
            let message = match step.is_wrapped {
                true => format!("its image has no `/bin/sh`, which it needs here: {}", over.message),
                false => over.message.clone(),
            };
            (Exit::Code { code: NOT_FOUND }, NOT_FOUND, TerminationReason::Error, message)
        }
        _ if code == 0 => (Exit::Code { code }, 0, TerminationReason::Completed, own(&over.message)),
        _ if step.continues => (Exit::Code { code }, code, TerminationReason::Continued, own(&over.message)),
        _ => (Exit::Code { code }, code, TerminationReason::Error, own(&over.message)),
    };
    let (started_at, at) = (over.started_at.unwrap_or(now), over.finished_at.unwrap_or(now));
    (exit, ContainerState::Terminated { exit_code, reason, message, started_at, at })
}

fn not_ended(
    step: &Part,
    cut: Option<TerminationReason>,
    failure: &Option<PodFailure>,
    is_broken: bool,
    now: Timestamp,
) -> ContainerState {
    let waiting = |reason: &str, message: &str| ContainerState::Waiting {
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if let Some(reason) = cut {
        return ContainerState::Terminated { exit_code: 1, reason, message: String::new(), started_at: now, at: now };
    }
    let reason = match failure {
        Some(PodFailure::ImagePull { container, message, .. }) if *container == step.name => {
            return waiting("ErrImagePull", message);
        }
        Some(PodFailure::Config { container, message }) if *container == step.name => {
            return waiting("CreateContainerConfigError", message);
        }
        Some(PodFailure::ImagePull { .. } | PodFailure::Config { .. } | PodFailure::Refused { .. }) => {
            return waiting("PodInitializing", "");
        }
        _ if is_broken => TerminationReason::Skipped,
        _ => TerminationReason::Error,
    };
    ContainerState::Terminated { exit_code: 1, reason, message: String::new(), started_at: now, at: now }
}

fn container(failure: &PodFailure) -> Option<&str> {
    match failure {
        PodFailure::ImagePull { container, .. }
        | PodFailure::Config { container, .. }
        | PodFailure::StepTimeout { container }
        | PodFailure::Sidecar { container, .. } => Some(container),
        PodFailure::Evicted { .. } | PodFailure::Deadline | PodFailure::Refused { .. } => None,
    }
}

/// A failure as a sentence for people.
pub fn words(failure: &PodFailure) -> String {
    match failure {
        PodFailure::ImagePull { container, image, message } => {
            format!("the image `{image}` of the container `{container}` cannot be had: {message}")
        }
        PodFailure::Config { container, message } => format!("the container `{container}` cannot be made: {message}"),
        PodFailure::Evicted { message } | PodFailure::Refused { message } => message.clone(),
        PodFailure::Deadline => "the pod ran longer than it may".to_owned(),
        PodFailure::StepTimeout { container } => format!("`{container}` ran longer than it may"),
        PodFailure::Sidecar { container, message } => format!("the sidecar `{container}` {message}"),
    }
}

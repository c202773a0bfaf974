//! The end of an attempt: out of what ECS says of its task, and its driver in its log; written down, then told.

use std::io;
use std::time::Duration;

use pitcrew_core::state::Exit;
use pitcrew_exec::{BackendEvent, Ended, Handle, StepEnded, attempt_dir, log, outputs};

use super::super::ends;
use super::super::mirror::Mirror;
use super::super::progress::Step;
use super::super::watch::Shared;
use super::copy::Copied;
use super::{Follow, Next, Work};
use crate::client::ecs::{Container, StopCode, Task};
use crate::clock;

impl Follow {
    /// The end, out of what ECS and the driver say, and what its log is to say last.
    pub(super) fn conclude(&self, work: &Work, task: &Task) -> (Ended, Vec<String>) {
        let named = work.sent.run.overrides.as_ref().map(|o| o.container.as_str()).filter(|name| !name.is_empty());
        let main = ends::main_container(task, named, work.definition.as_deref());
        let end = ends::end(task, main, self.cancel().map(|cancel| cancel.intent));
        let now = clock::now();
        let at = task.execution_stopped_at.or(task.stopped_at).unwrap_or(now);
        let progress = work.mirror.as_ref().map(Mirror::progress);
        let name = |number: usize| work.sent.steps.get(number).cloned().unwrap_or_else(|| number.to_string());
        let mut ended = Ended::bare(end.exit, at);
        let began = progress.and_then(|progress| progress.steps.first()).map(|step| step.began);
        let could_not = progress.and_then(|progress| progress.failed.clone());
        ended.started_at = began.or(work.started.or(task.started_at).filter(|_| could_not.is_none()));
        if let (Some((number, why)), ends::Cause::Itself) = (&could_not, end.cause) {
            ended.exit = Exit::start_failed(why.clone());
            ended.failed_step = Some(name(*number));
        }
        ended.at = ended.started_at.map_or(at, |begun| at.max(begun));
        match progress.filter(|_| work.sent.mark.is_some()) {
            Some(progress) => {
                ended.steps.extend(progress.steps.iter().map(|step| {
                    let (at, exit) = match step.ended {
                        Some((at, code)) => (at, Exit::Code { code }),
                        None => (ended.at, ended.exit.clone()),
                    };
                    StepEnded { name: name(step.number), exit, started_at: step.began, at: at.max(step.began) }
                }));
                if !ended.exit.is_success() && ended.failed_step.is_none() {
                    let failed = |step: &&Step| step.ended.is_none_or(|(_, code)| code != 0);
                    let about = progress.steps.iter().rev().find(failed).or(progress.steps.last());
                    ended.failed_step = Some(about.map_or_else(|| name(0), |step| name(step.number)));
                }
            }
            None => {
                let exit = ended.exit.clone();
                ended.steps.extend(ended.started_at.map(|started_at| StepEnded {
                    name: name(0),
                    exit,
                    started_at,
                    at: ended.at,
                }));
                ended.failed_step = Some(name(0)).filter(|_| !ended.exit.is_success());
            }
        }
        if let Some(started_at) = ended.started_at {
            ended.usage.wall_seconds = ended.at.duration_since(started_at).as_secs_f64().max(0.0);
        }
        let mut words = Vec::new();
        match end.cause {
            ends::Cause::Somebody => words.push(format!("somebody asked ECS to stop it: {}", end.evidence)),
            ends::Cause::Itself | ends::Cause::NotStarted if end.evidence != "ECS gives no reason" => {
                words.push(end.evidence)
            }
            _ => {}
        }
        (ended, words)
    }

    /// ECS has forgotten its task, which it does an hour after its end: what its log says of that is all that there is.
    pub(super) async fn conclude_forgotten(&self, host: &Shared, work: &mut Work, since: Duration) -> io::Result<Next> {
        let definition = work.sent.run.definition.clone();
        let copied = match self.read_definition(host, work, &definition).await {
            Some(fault) => Copied::Later(fault.to_string()),
            None => self.copy_log(host, work, &self.task().unwrap_or_default()).await?,
        };
        if !self.is_whole(host, work, copied, since.saturating_sub(host.timing.unmentioned))? {
            return Ok(Next::Look);
        }
        let done = work.mirror.as_ref().and_then(|mirror| Some((mirror.progress().done?, mirror.last())));
        let Some((code, last)) = done else {
            let reason = "ECS does not know its task any more, so nobody knows how it ended".to_owned();
            return self.finish(host, work, Ended::bare(Exit::Lost { reason }, clock::now()), &[]);
        };
        let name = work.sent.run.overrides.as_ref().map(|own| own.container.clone()).unwrap_or_default();
        let is_ours = code != 0 && self.is_cancelled();
        let task = Task {
            stop_code: Some(if is_ours { StopCode::UserInitiated } else { StopCode::EssentialContainerExited }),
            stopped_reason: Some("ECS does not know its task any more; how it ended, its log says".to_owned()),
            containers: vec![Container { name, exit_code: Some(code), ..Container::default() }],
            stopped_at: last,
            ..Task::default()
        };
        let (ended, words) = self.conclude(work, &task);
        self.finish(host, work, ended, &words)
    }

    /// Ends an attempt that has no task, and tells it.
    pub(super) fn end_unstarted(&self, host: &Shared, work: &mut Work, exit: Exit) -> io::Result<Next> {
        let mut ended = Ended::bare(exit, clock::now());
        ended.failed_step = work.sent.steps.first().cloned();
        self.finish(host, work, ended, &[])
    }

    /// Writes the end down and tells it. Where that fails, the next look tries again.
    pub(super) fn finish(
        &self,
        host: &Shared,
        work: &mut Work,
        mut ended: Ended,
        words: &[String],
    ) -> io::Result<Next> {
        if let Some(mirror) = &work.mirror {
            for (name, bytes) in mirror.progress().outputs() {
                std::fs::write(self.handle.dir.join(name), bytes)?;
            }
        }
        if ended.started_at.is_some() {
            let left = outputs::collect(&attempt_dir::output(&self.handle.dir));
            ended.outputs = left.values;
            ended.output_problems.extend(left.problems);
        }
        if ended.exit != Exit::Cancelled || work.mirror.is_some() || !words.is_empty() {
            let about = ended.notice().filter(|notice| !words.contains(notice));
            let texts: Vec<String> = ended.output_problems.iter().cloned().chain(words.to_vec()).chain(about).collect();
            if !texts.is_empty() {
                self.mirror(work)?.last_words(clock::now(), texts);
            }
        }
        if !ended.exit.is_success() {
            ended.tail = log::tail(&attempt_dir::log(&self.handle.dir), 10, 4 << 10);
        }
        record(&self.handle, &ended)?;
        if let Some(at) = ended.started_at {
            self.tell_started(host, work, at);
        }
        let _ = host.events.send(told(&self.handle, ended));
        Ok(Next::Over)
    }
}

/// Writes an end down, where no other is.
pub fn record(handle: &Handle, ended: &Ended) -> io::Result<()> {
    if attempt_dir::recorded_end(&handle.dir)?.is_none() {
        std::fs::create_dir_all(&handle.dir)?;
        attempt_dir::record_end(&handle.dir, ended)?;
    }
    Ok(())
}

/// The event for an end.
pub fn told(handle: &Handle, ended: Ended) -> BackendEvent {
    let id = handle.id.clone();
    match ended.exit {
        Exit::Lost { reason } => BackendEvent::Lost { id, reason },
        _ => BackendEvent::Ended { id, ended },
    }
}

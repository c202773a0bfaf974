//! One step: start it, read it, and end it when it takes too long or is not wanted any more.
//!
//! A step is over when its main process is, but its last words may still be on their way through a helper (`| tee`), so
//! its pipes get a short while to close; then whatever is left in its process group is killed. A step that is being
//! stopped is over when *all* its processes are, because the shell usually dies before the program that it started,
//! and it is the program that needs the grace.

use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use rustix::process::Signal;
use tokio::time::Instant;

use super::attempt::{Attempt, StepEnd};
use super::output::Output;
use super::process::{self, Plan};
use super::reaper::Reaped;
use super::strays;
use crate::clock;
use crate::spec::StepSpec;

/// How long pipes may stay open after the main process ended.
const LINGER: Duration = Duration::from_millis(250);
/// How often leftovers are looked for while a step is being stopped.
const LOOK: Duration = Duration::from_millis(50);
/// After this, a process that survived SIGKILL is told about: it hangs in a driver or a file system.
const STUCK: Duration = Duration::from_secs(10);

/// What matters of a step that was started.
pub struct Followed<'a> {
    pub name: &'a str,
    pub timeout: Option<SignedDuration>,
    pub capture_stdout: bool,
}

/// A step that is being stopped.
struct Stop {
    exit: Exit,
    /// When the grace ends; `None` once it did.
    kill_at: Option<Instant>,
}

impl Attempt<'_> {
    pub async fn run_step(&mut self, index: u32, step: &StepSpec) -> StepEnd {
        let spawned = match self.start_step(index, step) {
            Ok(spawned) => spawned,
            Err(reason) => return StepEnd::NotStarted { reason },
        };
        let step = Followed { name: &step.name, timeout: step.timeout, capture_stdout: step.capture_stdout };
        self.follow(index, &step, spawned).await
    }

    /// Reads what was started until it is over, or makes it so.
    pub async fn follow(&mut self, index: u32, step: &Followed<'_>, spawned: process::Spawned) -> StepEnd {
        let group = spawned.pid;
        let mut ended = spawned.exit;
        let mut output = match Output::new(spawned.stdout, spawned.stderr, index, step.capture_stdout) {
            Ok(output) => output,
            Err(error) => {
                process::signal_group(group, Signal::KILL);
                return StepEnd::NotStarted { reason: format!("cannot read its output: {error}") };
            }
        };
        let started_at = clock::now();
        self.tell_started(index, started_at);
        let (victims, group_victims) = (self.runner.victims.recently(), self.oom_kills());
        let runner = self.runner;
        let timeout_at = step.timeout.map(clock::deadline);
        let mut reaped: Option<Reaped> = None;
        let mut stop: Option<Stop> = None;
        let mut linger: Option<Instant> = None;
        let mut stuck_at: Option<Instant> = None;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let open = !output.is_closed();
            let stopping = stop.is_some();
            let over = reaped.is_some();
            tokio::select! {
                () = output.ready(), if open => {
                    output.pump(&mut runner.buffer.borrow_mut(), &mut self.log.borrow_mut());
                }
                () = clock::until(output.flush_at) => output.show_half_lines(&mut self.log.borrow_mut()),
                end = &mut ended, if !over => {
                    // The reaper sends an end for everything that it watches, or is gone with the whole runner.
                    let Ok(end) = end else { std::future::pending().await };
                    reaped = Some(end);
                    linger = (!stopping).then(|| clock::instant() + LINGER);
                }
                () = clock::until(timeout_at), if !stopping && !over => {
                    let grace = Duration::try_from(self.spec.grace).unwrap_or_default();
                    let seconds = step.timeout.map_or(0.0, |t| t.as_secs_f64());
                    self.log.borrow_mut().say(clock::now(), index, &format!("step `{}` ran longer than {seconds} s; stopping it", step.name));
                    stop = Some(self.ask_to_end(group, Exit::TimedOut, clock::instant() + grace));
                }
                Ok(()) = self.stop.changed(), if !over || stopping => {
                    let wanted = (*self.stop.borrow_and_update()).unwrap_or_else(clock::instant);
                    match &mut stop {
                        Some(stop) => stop.kill_at = stop.kill_at.map(|at| at.min(wanted)),
                        None => {
                            self.log.borrow_mut().say(clock::now(), index, "cancelled; asking its processes to end");
                            stop = Some(self.ask_to_end(group, Exit::Cancelled, wanted));
                        }
                    }
                }
                () = clock::until(stop.as_ref().and_then(|s| s.kill_at)) => {
                    if let Some(stop) = &mut stop {
                        stop.kill_at = None;
                    }
                    stuck_at = Some(clock::instant() + STUCK);
                }
                _ = looks.tick(), if stopping => {}
                () = clock::until(linger) => break,
                () = clock::until(stuck_at) => {
                    stuck_at = None;
                    let notice = format!("process {group} or a child of it does not end, not even by SIGKILL");
                    self.log.borrow_mut().say(clock::now(), index, &notice);
                    self.log.borrow_mut().flush();
                }
            }
            match (&stop, reaped.is_some()) {
                (Some(stop), over) if over || stop.kill_at.is_none() => {
                    let left = self.find_strays(Some(group));
                    if stop.kill_at.is_none() {
                        process::signal_group(group, Signal::KILL);
                        strays::kill(&left);
                    }
                    if over && left.is_empty() && !process::group_exists(group) {
                        break;
                    }
                }
                (None, true) if output.is_closed() => break,
                _ => {}
            }
        }
        process::signal_group(group, Signal::KILL);
        let capture = output.close(&mut runner.buffer.borrow_mut(), &mut self.log.borrow_mut());
        // The loop is left only after the end was seen.
        let exit = reaped.map_or(Exit::Cancelled, |reaped| {
            self.count_usage(&reaped);
            match stop {
                Some(stop) => stop.exit,
                None => self.classify(&reaped, victims, group_victims),
            }
        });
        let stdout_cut = capture.as_ref().is_some_and(|c| c.cut);
        StepEnd::Ran { exit, started_at, stdout: capture.map(|c| c.into_text()), stdout_cut }
    }

    fn start_step(&mut self, index: u32, step: &StepSpec) -> Result<process::Spawned, String> {
        let argv = self.argv(index, step)?;
        let env = self.step_env(step);
        let cgroups = match &self.cgroup {
            Some(cgroup) => cgroup.entrances().map_err(|e| format!("cannot use its cgroup: {e}"))?,
            None => Vec::new(),
        };
        let plan = Plan {
            argv: &argv,
            env: &env,
            workdir: &self.workdir(step),
            cgroups: &cgroups,
            open_files: self.runner.open_files,
            stdin: None,
        };
        process::spawn(&self.runner.reaper, plan)
    }

    fn ask_to_end(&self, group: i32, exit: Exit, kill_at: Instant) -> Stop {
        let strays = self.find_strays(Some(group));
        process::signal_group(group, Signal::TERM);
        // To each process once: many take a second request as an order to drop everything.
        let others = strays.iter().filter(|stray| stray.group != group).map(|stray| stray.pid);
        strays::signal_all(others, Signal::TERM);
        Stop { exit, kill_at: Some(kill_at) }
    }

    fn count_usage(&mut self, reaped: &Reaped) {
        let usage = &mut self.usage;
        usage.user_cpu_seconds += reaped.user.as_secs_f64();
        usage.system_cpu_seconds += reaped.system.as_secs_f64();
        usage.peak_memory_bytes = usage.peak_memory_bytes.max(Some(reaped.max_rss_bytes));
    }

    fn oom_kills(&self) -> u64 {
        self.cgroup.as_ref().map_or(0, |c| c.oom_kills())
    }

    /// Tells running out of memory from other violent ends. A shell reports a child that was killed as code 137.
    fn classify(&self, reaped: &Reaped, victims_before: Option<u64>, group_victims_before: u64) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let exit = match (reaped.status.code(), reaped.status.signal()) {
            (Some(code), _) => Exit::Code { code },
            (None, Some(signal)) => Exit::Signal { signal },
            (None, None) => Exit::Lost { reason: format!("it ended with the unknown status {}", reaped.status) },
        };
        if exit.is_success() {
            return exit;
        }
        let was_killed = matches!(exit, Exit::Signal { signal: 9 } | Exit::Code { code: 137 });
        let by_machine = || match (victims_before, self.runner.victims.now()) {
            (Some(before), Some(now)) => now > before,
            _ => false,
        };
        if self.oom_kills() > group_victims_before || (was_killed && by_machine()) {
            return Exit::OutOfMemory;
        }
        exit
    }
}

//! Sidecars: containers that run beside the steps, are ready before the first, and gone after the last.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::pod::{Container, ContainerState, PodFailure, Probe, ProbeHow, TerminationReason};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::Runner;
use super::super::output::Output;
use super::super::process::{self, Spawned};
use super::super::strays;
use super::probes::{self, Beside, duration};
use super::{Letter, Said};
use crate::clock;
use crate::docker::keeper::{self, EnginePlace};
use crate::log::LogWriter;
use crate::sandbox::{Join, Order, Work};

/// How long pipes of one that ended may stay open.
const LINGER: Duration = Duration::from_millis(250);
/// What one without a probe has for what it does first, from the begin of its program to the first step.
const HEAD_START: Duration = Duration::from_millis(100);
/// How often one that has no process yet is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How a program gets into it.
pub enum Inside {
    /// As whom.
    Box(Box<Work>),
    /// By its name at an engine, and where its pod is in the engine's network.
    Engine { place: EnginePlace, name: String, address: Option<String> },
}

pub struct Sidecar<'a> {
    container: &'a Container,
    box_pid: i32,
    started_at: Timestamp,
    inside: Inside,
    letter: Letter,
    /// Its exit code and when that was, once it is over.
    ended: watch::Receiver<Option<(i32, Timestamp)>>,
    reading: JoinHandle<()>,
}

impl<'a> Sidecar<'a> {
    /// Follows what was started: its log is written from now on.
    pub fn follow(
        runner: &Rc<Runner>,
        log: &Rc<RefCell<LogWriter>>,
        index: u32,
        container: &'a Container,
        inside: Inside,
        letter: Letter,
        spawned: Spawned,
    ) -> Result<Sidecar<'a>, String> {
        let (told, ended) = watch::channel(None);
        let (box_pid, mut exit) = (spawned.pid, spawned.exit);
        let mut output = Output::new(spawned.stdout, spawned.stderr, index, false)
            .map_err(|e| format!("cannot read its output: {e}"))?;
        let (runner, log) = (Rc::clone(runner), Rc::clone(log));
        let reading = tokio::task::spawn_local(async move {
            let (mut over, mut linger): (_, Option<Instant>) = (None, None);
            while over.is_none() || !output.is_closed() {
                let (open, waits) = (!output.is_closed(), over.is_none());
                tokio::select! {
                    () = output.ready(), if open => {
                        output.pump(&mut runner.buffer.borrow_mut(), &mut log.borrow_mut());
                    }
                    () = clock::until(output.flush_at) => output.show_half_lines(&mut log.borrow_mut()),
                    end = &mut exit, if waits => {
                        use std::os::unix::process::ExitStatusExt;
                        let code = end.map_or(-1, |end| end.status.code().or(end.status.signal().map(|s| 128 + s)).unwrap_or(-1));
                        over = Some(code);
                        linger = Some(clock::instant() + LINGER);
                        let _ = told.send(Some((code, clock::now())));
                    }
                    () = clock::until(linger) => break,
                }
            }
            output.close(&mut runner.buffer.borrow_mut(), &mut log.borrow_mut());
        });
        Ok(Sidecar { container, box_pid, started_at: clock::now(), inside, letter, ended, reading })
    }

    /// Returns once it is ready; the error says why it will never be.
    pub async fn ready(&self, runner: &Runner) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let probes = &self.container.probes;
        if probes.startup.is_none() && probes.readiness.is_none() {
            return self.begun().await;
        }
        let ask = async {
            if let Some(startup) = &probes.startup {
                self.pass(runner, startup, true).await?;
            }
            if let Some(readiness) = &probes.readiness {
                self.pass(runner, readiness, false).await?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            result = ask => result,
            Ok(end) = ended.wait_for(Option::is_some) => {
                let code = end.map_or(-1, |(code, _)| code);
                Err(format!("ended with exit code {code} before it was ready"))
            }
        }
    }

    /// Why the pod cannot begin, by what its box said if it said anything.
    pub fn failure(&self, message: String) -> PodFailure {
        let container = self.container.name.clone();
        match self.letter.said() {
            Said::Setup(message) => PodFailure::Config { container, message },
            Said::Program(message) => PodFailure::Sidecar { container, message: format!("cannot run: {message}") },
            Said::Lost(message) => PodFailure::Sidecar { container, message: format!("was lost: {message}") },
            Said::Nothing | Said::Ended { .. } => PodFailure::Sidecar { container, message },
        }
    }

    /// Returns once its program runs; one that is over already was ready.
    async fn begun(&self) -> Result<(), String> {
        let mut ended = self.ended.clone();
        let begun = async {
            // Of one at an engine only its keeper is known to have begun.
            if let Inside::Box(work) = &self.inside {
                let _ = self.joined(work, &[]).await;
            }
            tokio::time::sleep(HEAD_START).await;
        };
        tokio::select! {
            () = begun => Ok(()),
            _ = ended.wait_for(Option::is_some) => match self.letter.said() {
                Said::Nothing | Said::Ended { .. } => Ok(()),
                Said::Setup(_) | Said::Program(_) | Said::Lost(_) => Err("did not begin".to_owned()),
            },
        }
    }

    /// Asks until a probe has passed. Only at its start too many failures are the end of it.
    async fn pass(&self, runner: &Runner, probe: &Probe, is_startup: bool) -> Result<(), String> {
        tokio::time::sleep(duration(probe.initial_delay)).await;
        let (mut passed, mut failed) = (0, 0);
        let here = match &self.inside {
            Inside::Box(_) => probes::HERE,
            Inside::Engine { address, .. } => address.as_deref().unwrap_or_default(),
        };
        if here.is_empty() && !matches!(probe.how, ProbeHow::Exec(_)) {
            return Err("cannot be asked over the network: its pod has no address at the engine".to_owned());
        }
        loop {
            let beside = match &probe.how {
                ProbeHow::Exec(argv) => self.beside(argv).await,
                ProbeHow::Http { .. } | ProbeHow::Tcp { .. } => None,
            };
            match probes::ask(runner, probe, here, beside).await {
                Ok(()) => {
                    (passed, failed) = (passed + 1, 0);
                    if passed >= probe.successes.max(1) {
                        return Ok(());
                    }
                }
                Err(reason) => {
                    (passed, failed) = (0, failed + 1);
                    if is_startup && failed >= probe.failures.max(1) {
                        return Err(format!(
                            "did not start: its probe failed {failed} times, the last time because {reason}"
                        ));
                    }
                }
            }
            tokio::time::sleep(duration(probe.period).max(Duration::from_millis(10))).await;
        }
    }

    /// How a program begins in it, once it has a process.
    async fn beside(&self, argv: &[String]) -> Option<Beside> {
        match &self.inside {
            Inside::Box(work) => {
                let join = self.joined(work, argv).await?;
                Some(Beside { argv: super::box_argv(), letter: Letter::write(&Order::Join(join)).ok()? })
            }
            Inside::Engine { place, name, .. } => {
                let order = keeper::Order::Beside { container: name.clone(), command: argv.to_vec() };
                let letter = Letter::to_keeper(&keeper::Letter { place: place.clone(), order }).ok()?;
                Some(Beside { argv: super::keeper_argv(), letter })
            }
        }
    }

    /// How its namespaces are entered, once it has them.
    async fn joined(&self, work: &Work, argv: &[String]) -> Option<Join> {
        let init = loop {
            if self.ended.borrow().is_some() {
                return None;
            }
            let path = format!("/proc/{0}/task/{0}/children", self.box_pid);
            let children = std::fs::read_to_string(path).unwrap_or_default();
            let init = children.split_ascii_whitespace().next().and_then(|pid| pid.parse().ok());
            // The program is the init's child: before there is one, the root is not made yet.
            let is_made = |init: &i32| {
                let path = format!("/proc/{init}/task/{init}/children");
                std::fs::read_to_string(path).is_ok_and(|children| !children.trim().is_empty())
            };
            if let Some(init) = init.filter(is_made) {
                break init;
            }
            tokio::time::sleep(LOOK).await;
        };
        let mut join = Join { init, work: work.clone() };
        join.work.argv = argv.to_vec();
        Some(join)
    }

    /// Asks it to end.
    pub fn ask_to_end(&self) {
        if self.ended.borrow().is_none() {
            let below = strays::find("PITCREW_NOBODY=", &[self.box_pid]);
            process::signal_group(self.box_pid, Signal::TERM);
            strays::signal_all(below.iter().filter(|one| one.group != self.box_pid).map(|one| one.pid), Signal::TERM);
        }
    }

    /// Waits for its end, and makes it so at the deadline; gives its state, and what it is called at its engine.
    pub async fn end(mut self, deadline: Instant) -> (ContainerState, Option<String>) {
        let pid = self.box_pid;
        let over = tokio::time::timeout_at(deadline, self.ended.wait_for(Option::is_some)).await.is_ok();
        if !over {
            process::signal_group(pid, Signal::KILL);
        }
        let end = self.ended.wait_for(Option::is_some).await.map_or(None, |end| *end);
        let _ = self.reading.await;
        let (exit_code, at) = end.unwrap_or((-1, clock::now()));
        let reason = if exit_code == 0 { TerminationReason::Completed } else { TerminationReason::Error };
        let (message, id) = match self.letter.said() {
            Said::Setup(message) | Said::Program(message) | Said::Lost(message) => (message, None),
            Said::Ended { id, .. } => (String::new(), Some(id)),
            Said::Nothing => (String::new(), None),
        };
        (ContainerState::Terminated { exit_code, reason, message, started_at: self.started_at, at }, id)
    }
}

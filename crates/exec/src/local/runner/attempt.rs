//! One attempt, from its first step to its end.
//!
//! Steps run in order until one fails or somebody stops the attempt. Whatever happens, the end comes after the last
//! process of the attempt is gone and its output is read, so that a new attempt never meets the old one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::pod::short;
use pitcrew_core::state::Exit;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Runner;
use super::sampler::Meter;
use super::strays::{self, Stray};
use crate::backend::{BackendEvent, Ended, StepEnded, Usage};
use crate::gpu::HeldGpu;
use crate::local::cgroup::Cgroup;
use crate::log::{self, LogWriter, Masker};
use crate::outputs;
use crate::spec::{AttemptSpec, Command, MAX_OUTPUT, Runtime, StepSpec};
use crate::{attempt_dir, clock};

/// How long the end of an attempt waits for its killed processes to be gone.
const BURIAL: Duration = Duration::from_secs(5);

pub struct Attempt<'a> {
    pub runner: &'a Rc<Runner>,
    pub spec: &'a AttemptSpec,
    /// Shared with whatever runs beside its steps; never borrowed while something is waited for.
    pub log: Rc<RefCell<LogWriter>>,
    /// Set once somebody wants the attempt to stop: when its grace ends.
    pub stop: watch::Receiver<Option<Instant>>,
    pub cgroup: Option<Cgroup>,
    /// See [`mark`].
    pub mark: String,
    pub env: BTreeMap<String, String>,
    pub usage: Usage,
}

/// How a step ended.
pub enum StepEnd {
    /// `stdout` is there when it was asked for.
    Ran {
        exit: Exit,
        started_at: Timestamp,
        stdout: Option<String>,
        stdout_cut: bool,
    },
    NotStarted {
        reason: String,
    },
}

/// What is in the environment of every process of an attempt, and of no other on this machine.
pub fn mark(dir: &Path) -> String {
    format!("PITCREW_OUTPUT={}", attempt_dir::output(dir).display())
}

/// Runs an attempt to its end. The log was made before, as the mark that the attempt began.
pub async fn run(
    runner: &Rc<Runner>,
    spec: &AttemptSpec,
    base_env: &BTreeMap<String, String>,
    mut log: LogWriter,
    stop: watch::Receiver<Option<Instant>>,
) -> Ended {
    let masker = Masker::new(spec.masks.iter().map(String::as_str)).map(Arc::new);
    log.mask(masker.clone());
    let output = attempt_dir::output(&spec.dir);
    let env = environment(spec, base_env, runner.place.token(), &output);
    let mut attempt = Attempt {
        runner,
        spec,
        log: Rc::new(RefCell::new(log)),
        stop,
        cgroup: None,
        mark: mark(&spec.dir),
        env,
        usage: Usage::default(),
    };
    let begun = clock::instant();
    let mut ended = match attempt.prepare() {
        Ok(meter) => match &spec.pod {
            Some(run) => super::pod::run(&mut attempt, run, meter).await,
            None => attempt.run_steps(meter).await,
        },
        Err(reason) => Ended::bare(Exit::start_failed(reason), clock::now()),
    };
    attempt.bury().await;
    if ended.started_at.is_some() {
        attempt.usage.wall_seconds = begun.elapsed().as_secs_f64();
        let outputs = outputs::collect(&output);
        ended.outputs.extend(outputs.values);
        ended.output_problems.extend(outputs.problems);
    }
    if ended.exit.is_success() {
        let (files, problems) = outputs::fetch(&fetch_root(spec), &spec.fetch);
        ended.files = files;
        ended.output_problems.extend(problems);
    }
    if let Some(masker) = &masker {
        ended.mask(masker);
    }
    attempt.tell_end(&ended);
    if !ended.exit.is_success() {
        ended.tail = log::tail(&attempt_dir::log(&spec.dir), 10, 4 << 10);
    }
    ended.usage = attempt.usage;
    ended.at = clock::now();
    ended
}

/// What the files to fetch are relative to: where steps of the run start unless they say otherwise.
fn fetch_root(spec: &AttemptSpec) -> PathBuf {
    spec.env.get("PITCREW_WORKSPACE").map_or_else(|| spec.workdir.clone(), PathBuf::from)
}

/// The clean base, then what the spec adds, then what Pitcrew itself says.
fn environment(
    spec: &AttemptSpec,
    base_env: &BTreeMap<String, String>,
    token: &str,
    output: &Path,
) -> BTreeMap<String, String> {
    let mut env = base_env.clone();
    env.extend(spec.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    reserve(&mut env, spec, token, output);
    env
}

/// Variables that nobody can override: the attempt's identity, and the devices that were leased to it.
fn reserve(env: &mut BTreeMap<String, String>, spec: &AttemptSpec, token: &str, output: &Path) {
    let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
    set("PITCREW_OUTPUT", output.display().to_string());
    set("PITCREW_RUNNER", token.to_owned());
    spec.reserved_env().into_iter().for_each(|(name, value)| set(name, value));
}

impl Attempt<'_> {
    /// What all steps share; the error is a sentence for people.
    fn prepare(&mut self) -> Result<Option<Rc<Meter>>, String> {
        if self.spec.steps.is_empty() && self.spec.pod.is_none() {
            return Err("it has no steps".to_owned());
        }
        if let Some(step) = self.spec.steps.iter().find(|step| step.secret.is_some()) {
            return Err(format!("the step `{}` takes a secret as only hosts can hand it over", step.name));
        }
        // Those of containers of an engine are the engine's matter.
        let is_elsewhere = self.spec.pod.as_ref().is_some_and(|run| matches!(run.runtime, Runtime::Docker { .. }));
        if !self.spec.limits.is_empty() && !is_elsewhere {
            self.make_cgroup()?;
        }
        Ok(self.spec.gpus.as_ref().filter(|gpus| self.spec.sample_usage && !gpus.is_empty()).map(|gpus| {
            let known = |id: &String| self.spec.held_gpus.iter().find(|held| held.id == *id).cloned();
            let held = gpus.iter().map(|id| known(id).unwrap_or_else(|| HeldGpu::whole(id))).collect();
            self.runner.sampler.measure(held, &self.env)
        }))
    }

    fn make_cgroup(&mut self) -> Result<(), String> {
        let controllers = self.runner.controllers();
        let limits = &self.spec.limits;
        for (wanted, possible, what) in [
            (limits.memory_bytes.is_some(), controllers.can_limit_memory(), "memory"),
            (limits.cpu_milli.is_some(), controllers.can_limit_cpu(), "CPU"),
        ] {
            if wanted && !possible {
                let notice = format!("the limit on {what} is not enforced: this machine has no cgroup for it");
                self.log.borrow_mut().say(clock::now(), 0, &notice);
            }
        }
        self.cgroup = controllers
            .create(&self.runner.next_cgroup_name(), limits)
            .map_err(|e| format!("cannot make a cgroup with its limits: {e}"))?;
        Ok(())
    }

    async fn run_steps(&mut self, meter: Option<Rc<Meter>>) -> Ended {
        let mut ended = Ended::bare(Exit::Code { code: 0 }, clock::now());
        for (index, step) in (0u32..).zip(&self.spec.steps) {
            if self.stop.borrow().is_some() {
                ended.exit = Exit::Cancelled;
                ended.failed_step = Some(step.name.clone());
                break;
            }
            match self.run_step(index, step).await {
                StepEnd::NotStarted { reason } => {
                    ended.exit = Exit::start_failed(reason);
                    ended.failed_step = Some(step.name.clone());
                    break;
                }
                StepEnd::Ran { exit, started_at, stdout, stdout_cut } => {
                    ended.started_at.get_or_insert(started_at);
                    ended.steps.push(StepEnded {
                        name: step.name.clone(),
                        exit: exit.clone(),
                        started_at,
                        at: clock::now(),
                    });
                    if stdout_cut {
                        let problem = format!("the stdout of step `{}` exceeds {MAX_OUTPUT} bytes", step.name);
                        ended.output_problems.push(problem);
                    }
                    ended.stdout = stdout.or(ended.stdout);
                    let goes_on = exit.is_success() || (step.continue_on_error && exit != Exit::Cancelled);
                    if !goes_on {
                        ended.exit = exit;
                        ended.failed_step = Some(step.name.clone());
                        break;
                    }
                    if !exit.is_success() {
                        let notice = format!("step `{}` failed ({exit}); going on", step.name);
                        self.log.borrow_mut().say(clock::now(), index, &notice);
                    }
                }
            }
        }
        self.usage.gpus = meter.map(|m| m.usage()).unwrap_or_default();
        ended
    }

    /// Where a step starts.
    pub fn workdir(&self, step: &StepSpec) -> PathBuf {
        match &step.workdir {
            Some(dir) => self.spec.workdir.join(dir),
            None => self.spec.workdir.clone(),
        }
    }

    /// The environment of a step; only a step with variables of its own costs a copy.
    pub fn step_env(&mut self, step: &StepSpec) -> BTreeMap<String, String> {
        self.env.insert("PITCREW_STEP".to_owned(), step.name.clone());
        let mut env = self.env.clone();
        if !step.env.is_empty() {
            env.extend(step.env.iter().map(|(name, value)| (name.clone(), value.clone())));
            let output = attempt_dir::output(&self.spec.dir);
            reserve(&mut env, self.spec, self.runner.place.token(), &output);
            env.insert("PITCREW_STEP".to_owned(), step.name.clone());
        }
        env
    }

    /// The words to execute; a script becomes a file that its owner alone can read.
    pub fn argv(&self, index: u32, step: &StepSpec) -> Result<Vec<String>, String> {
        let (text, interpreter) = match &step.command {
            Command::Argv(argv) => return Ok(argv.clone()),
            Command::Script { text, interpreter } => (text, interpreter),
            Command::Transfer(_) => return Err("files are moved to and from other machines only".to_owned()),
        };
        let path = attempt_dir::script(&self.spec.dir, index);
        let written = File::options().write(true).create(true).truncate(true).mode(0o700).open(&path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|e| format!("cannot write the script to `{}`: {e}", path.display()))?;
        let mut argv =
            if interpreter.is_empty() { vec!["/bin/sh".to_owned(), "-e".to_owned()] } else { interpreter.clone() };
        argv.push(path.to_str().ok_or("the attempt's directory has a name that is not UTF-8")?.to_owned());
        Ok(argv)
    }

    /// Tells that the first step runs.
    pub fn tell_started(&self, index: u32, at: Timestamp) {
        if index == 0 {
            self.runner.tell(BackendEvent::Started { id: self.spec.id.clone(), at });
        }
    }

    /// The live processes of the attempt; those below the leader of `group` too.
    pub fn find_strays(&self, group: Option<i32>) -> Vec<Stray> {
        let mut known: Vec<i32> = group.into_iter().collect();
        known.extend(self.cgroup.iter().flat_map(Cgroup::processes));
        strays::find(&self.mark, &known)
    }

    /// Ends what is left of the attempt: daemons that it started, and its cgroup.
    async fn bury(&mut self) {
        let deadline = clock::instant() + BURIAL;
        // Usually nothing is left, and that is cheap to see: orphans become children of the runner.
        let mut left = if self.has_orphans() { self.find_strays(None) } else { Vec::new() };
        if !left.is_empty() {
            let notice = format!("ended {} processes that were left running", left.len());
            self.log.borrow_mut().say(clock::now(), self.last_step(), &notice);
        }
        while !left.is_empty() && clock::instant() < deadline {
            strays::kill(&left);
            self.runner.reaper.settle().await;
            left = self.find_strays(None);
        }
        let Some(cgroup) = self.cgroup.take() else { return };
        self.usage.peak_memory_bytes = cgroup.peak_memory().or(self.usage.peak_memory_bytes);
        while !cgroup.remove() && clock::instant() < deadline {
            cgroup.kill();
            self.runner.reaper.settle().await;
        }
    }

    fn has_orphans(&self) -> bool {
        if self.cgroup.as_ref().is_some_and(|c| !c.processes().is_empty()) {
            return true;
        }
        match strays::children() {
            Some(children) => children
                .into_iter()
                .filter(|pid| !self.runner.reaper.is_watched(*pid))
                .any(|pid| strays::is_marked(pid, &self.mark)),
            // The kernel does not list children: look everywhere.
            None => true,
        }
    }

    fn last_step(&self) -> u32 {
        let steps = self.spec.pod.as_ref().map_or(self.spec.steps.len(), |run| run.pod.steps.len());
        u32::try_from(steps.saturating_sub(1)).unwrap_or(u32::MAX)
    }

    fn tell_end(&mut self, ended: &Ended) {
        let at = clock::now();
        let step = ended.failed_step.as_deref();
        let index = match &self.spec.pod {
            Some(run) => run.pod.steps.iter().position(|s| Some(short(&s.name)) == step),
            None => self.spec.steps.iter().position(|s| Some(s.name.as_str()) == step),
        };
        let index = index.and_then(|i| u32::try_from(i).ok()).unwrap_or_else(|| self.last_step());
        for problem in &ended.output_problems {
            self.log.borrow_mut().say(at, index, problem);
        }
        if let Some(notice) = ended.notice() {
            self.log.borrow_mut().say(at, index, &notice);
        }
        self.log.borrow_mut().flush();
    }
}

//! Attempts that are pods: their steps are containers, one after the other.
//!
//! The runner keeps them as it keeps steps on the bare machine: the same log, the same ways to stop. What comes next is told by
//! `core::pod::Sequence`; how a container is made is a matter of the process that stands for it: a box (`sandbox`) or a keeper at an engine
//! (`docker::keeper`).

mod boxes;
mod dirs;
mod engine;
mod engines;
mod logins;
mod probes;
mod results;
mod sidecars;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::pod::{
    Container, ContainerEnded, ContainerState, Medium, Next, OnError, PodEnded, PodFailure, Sequence, Source,
    StepFacts, StepKnown, StepOutcome, TerminationReason, short, substitute_steps,
};
use pitcrew_core::state::Exit;
use rustix::fs::MemfdFlags;
use serde::de::DeserializeOwned;

use super::attempt::{Attempt, StepEnd};
use super::process::{self, Plan};
use super::sampler::Meter;
use super::step::Followed;
use crate::backend::{Ended, StepEnded, Usage};
use crate::clock;
use crate::docker::keeper::{self, Answer, How};
use crate::sandbox::open::{Found, read_plain};
use crate::sandbox::{Fault, Order};
use crate::spec::{MAX_OUTPUT, PodRun, Runtime};
use boxes::Maker;
use dirs::PodDirs;
use sidecars::{Inside, Sidecar};

pub use dirs::sweep;
pub use engines::Engines;
use engines::Finished;

/// What a program that is not there ends with, as in a shell.
const NOT_FOUND: i32 = 127;

/// Runs a pod to its end.
pub async fn run(attempt: &mut Attempt<'_>, run: &PodRun, meter: Option<Rc<Meter>>) -> Ended {
    let dirs = PodDirs::of(&attempt.spec.dir, attempt.runner.place.token());
    let mut ended = Ended::bare(Exit::Code { code: 0 }, clock::now());
    let spec = attempt.spec;
    let failed = |e: io::Error| PodFailure::Refused { message: format!("cannot make the pod's directories: {e}") };
    let made = match &run.runtime {
        Runtime::Docker { engine, registries } => match dirs.make_mirror(&run.pod).map_err(failed) {
            Ok(()) => engines::prepare(attempt, spec, run, &dirs, engine, registries).await,
            Err(failure) => Err(NoPod::of(failure)),
        },
        Runtime::Sandbox => {
            let maker = Maker::new(spec, run, &dirs);
            let made = maker.and_then(|maker| dirs.make(&run.pod).map(|()| maker).map_err(failed));
            made.map_err(NoPod::of)
        }
    };
    match made {
        Ok(maker) => {
            let mut steps = Steps::new(attempt, maker);
            without_effect(run).iter().for_each(|notice| steps.say(0, notice));
            if steps.begin_sidecars(&mut ended).await {
                steps.run(&mut ended).await;
            }
            steps.skip_rest();
            steps.end_sidecars().await;
            steps.leave_engine(&mut ended).await;
            steps.finish(&mut ended);
        }
        Err(NoPod::Failed { failure, may_pass }) => refuse(run, failure, may_pass, &mut ended),
        Err(NoPod::Stopped(exit)) => ended.exit = exit,
    }
    dirs.free_memory();
    if matches!(run.runtime, Runtime::Docker { .. }) {
        // So far it is that of the keepers.
        attempt.usage = Usage::default();
    }
    attempt.usage.gpus = meter.map(|m| m.usage()).unwrap_or_default();
    ended
}

/// Why a pod did not begin.
enum NoPod {
    /// Where the reason may pass, the same attempt may succeed later.
    Failed { failure: PodFailure, may_pass: bool },
    /// It was stopped before it did.
    Stopped(Exit),
}

impl NoPod {
    /// For a reason that lasts.
    fn of(failure: PodFailure) -> NoPod {
        NoPod::Failed { failure, may_pass: false }
    }
}

/// Nothing of it ran.
fn refuse(run: &PodRun, failure: PodFailure, may_pass: bool, ended: &mut Ended) {
    ended.exit = match may_pass {
        true => Exit::start_failed(words(&failure)),
        false => Exit::cannot_start(words(&failure)),
    };
    let waiting = |container: &Container| {
        let (reason, message) = match &failure {
            PodFailure::ImagePull { container: own, message, .. } if *own == container.name => {
                ("ErrImagePull", message.clone())
            }
            PodFailure::Config { container: own, message } if *own == container.name => {
                ("CreateContainerConfigError", message.clone())
            }
            _ => ("PodInitializing", String::new()),
        };
        bare(container, ContainerState::Waiting { reason: reason.to_owned(), message })
    };
    let containers = run.pod.steps.iter().chain(&run.pod.sidecars).map(waiting).collect();
    ended.pod = Some(Box::new(PodEnded { containers, failure: Some(failure), ..PodEnded::default() }));
}

/// What was asked for and is not done, one sentence each.
fn without_effect(run: &PodRun) -> Vec<String> {
    let pod = &run.pod;
    let (here, limits_memory) = match run.runtime {
        Runtime::Sandbox => ("in a sandbox", false),
        Runtime::Docker { .. } => ("on a Docker engine", true),
    };
    let mut notices = Vec::new();
    for volume in &pod.volumes {
        if let Source::Scratch { limit: Some(_), medium } = &volume.source
            && !(limits_memory && *medium == Medium::Memory)
        {
            notices.push(format!("the size limit of the volume `{}` is not enforced {here}", volume.name));
        }
    }
    let has_groups = pod.security.fs_group.is_some() || !pod.security.supplemental_groups.is_empty();
    if has_groups && !rustix::process::geteuid().is_root() {
        notices.push(
            "`fsGroup` and `supplementalGroups` have no effect in a sandbox without root: all is one user's".to_owned(),
        );
    }
    let fields = fields_without_effect(&pod.cluster, limits_memory);
    if !fields.is_empty() {
        notices.push(format!("`{}` of the pod has no effect {here}", fields.join("`, `")));
    }
    for container in pod.steps.iter().chain(&pod.sidecars) {
        let name = &container.name;
        if container.probes.liveness.is_some() {
            notices.push(format!("the liveness probe of `{name}` is not asked {here}"));
        }
        let fields: Vec<&str> =
            container.cluster.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
        if !fields.is_empty() {
            notices.push(format!("`{}` of `{name}` has no effect {here}", fields.join("`, `")));
        }
    }
    notices
}

/// Fields of a pod that only a cluster makes something of.
fn fields_without_effect(cluster: &serde_json::Value, is_engine: bool) -> Vec<String> {
    let mut fields = Vec::new();
    for (key, value) in cluster.as_object().into_iter().flatten() {
        match key.as_str() {
            // They say where the pod runs, or what was put into it.
            "nodeSelector" | "tolerations" | "serviceAccountName" | "volumeClaimTemplates" => {}
            "imagePullSecrets" | "hostAliases" | "dnsConfig" if is_engine => {}
            "affinity" => {
                let of_pods = ["podAffinity", "podAntiAffinity"].into_iter().filter(|of| value.get(of).is_some());
                fields.extend(of_pods.map(str::to_owned));
            }
            _ => fields.push(key.clone()),
        }
    }
    fields.sort();
    fields
}

/// A failure as a sentence for people.
fn words(failure: &PodFailure) -> String {
    match failure {
        PodFailure::ImagePull { message, .. } | PodFailure::Refused { message } | PodFailure::Evicted { message } => {
            message.clone()
        }
        PodFailure::Config { container, message } => format!("the container `{container}` cannot be made: {message}"),
        PodFailure::Deadline => "the pod ran longer than it may".to_owned(),
        PodFailure::StepTimeout { container } => format!("`{container}` ran longer than it may"),
        PodFailure::Sidecar { container, message } => format!("the sidecar `{container}` {message}"),
    }
}

fn bare(container: &Container, state: ContainerState) -> ContainerEnded {
    ContainerEnded {
        name: container.name.clone(),
        image: container.image.clone(),
        image_id: String::new(),
        container_id: String::new(),
        state,
        results: Vec::new(),
        artifacts: serde_json::Value::Null,
    }
}

/// The steps of one pod.
struct Steps<'a, 'b> {
    attempt: &'a mut Attempt<'b>,
    maker: Maker<'a>,
    known: StepFacts,
    containers: Vec<ContainerEnded>,
    sidecars: Vec<Sidecar<'a>>,
    failure: Option<PodFailure>,
    deadline: Option<tokio::time::Instant>,
    /// What containers are called where they run, by their index.
    ids: BTreeMap<usize, String>,
}

/// How one container ended.
struct Run {
    exit: Exit,
    /// What people are told besides the exit.
    message: String,
    started_at: Timestamp,
    outcome: StepOutcome,
}

impl<'a, 'b> Steps<'a, 'b> {
    fn new(attempt: &'a mut Attempt<'b>, maker: Maker<'a>) -> Self {
        let deadline = maker.run.deadline.map(clock::deadline);
        Steps {
            attempt,
            maker,
            known: StepFacts::default(),
            containers: Vec::new(),
            sidecars: Vec::new(),
            failure: None,
            deadline,
            ids: BTreeMap::new(),
        }
    }

    fn say(&self, index: usize, text: &str) {
        self.attempt.log.borrow_mut().say(clock::now(), number(index), text);
    }

    /// Starts the sidecars and waits until they are ready; says whether the steps may begin.
    async fn begin_sidecars(&mut self, ended: &mut Ended) -> bool {
        let run: &'a PodRun = self.maker.run;
        for (number_of, sidecar) in run.pod.sidecars.iter().enumerate() {
            let index = run.pod.steps.len() + number_of;
            if let Err(failure) = self.begin_sidecar(index, sidecar) {
                return self.end_early(failure, ended);
            }
        }
        let (mut stop, runner) = (self.attempt.stop.clone(), Rc::clone(self.attempt.runner));
        let wait = async {
            for sidecar in &self.sidecars {
                sidecar.ready(&runner).await.map_err(|message| sidecar.failure(message))?;
            }
            Ok(())
        };
        let ready = tokio::select! {
            biased;
            Ok(_) = stop.wait_for(Option::is_some) => {
                ended.exit = Exit::Cancelled;
                return false;
            }
            ready = wait => ready,
            () = clock::until(self.deadline) => Err(PodFailure::Deadline),
        };
        match ready {
            Ok(()) => true,
            Err(failure) => self.end_early(failure, ended),
        }
    }

    fn begin_sidecar(&mut self, index: usize, sidecar: &'a Container) -> Result<(), PodFailure> {
        let config = |message: String| PodFailure::Config { container: sidecar.name.clone(), message };
        let (letter, inside) = self.maker.letter(index, sidecar)?;
        let spawned = self.attempt.start_box(&letter).map_err(config)?;
        let (runner, log) = (self.attempt.runner, &self.attempt.log);
        let started = Sidecar::follow(runner, log, number(index), sidecar, inside, letter, spawned).map_err(config)?;
        self.sidecars.push(started);
        Ok(())
    }

    /// No step runs.
    fn end_early(&mut self, failure: PodFailure, ended: &mut Ended) -> bool {
        ended.exit = match &failure {
            PodFailure::Deadline => Exit::TimedOut,
            other => Exit::start_failed(words(other)),
        };
        self.failure = Some(failure);
        false
    }

    /// Asks all sidecars to end, and ends those that do not.
    async fn end_sidecars(&mut self) {
        let sidecars = std::mem::take(&mut self.sidecars);
        sidecars.iter().for_each(Sidecar::ask_to_end);
        let grace = (*self.attempt.stop.borrow()).unwrap_or_else(|| clock::deadline(self.attempt.spec.grace));
        for (number_of, sidecar) in sidecars.into_iter().enumerate() {
            let (state, id) = sidecar.end(grace).await;
            self.ids.extend(id.map(|id| (self.maker.run.pod.steps.len() + number_of, id)));
            self.note(self.maker.run.pod.steps.len() + number_of, state);
        }
    }

    async fn run(&mut self, ended: &mut Ended) {
        let pod = &self.maker.run.pod;
        let mut sequence = Sequence::default();
        loop {
            let next = sequence.next(pod, &self.known);
            let (index, outcome) = match next {
                Next::Done => break,
                Next::Skip(index) => {
                    self.say(
                        index,
                        &format!("step `{}` is skipped: its conditions do not hold", short(&pod.steps[index].name)),
                    );
                    self.skip(index, 0);
                    (index, StepOutcome::Guarded)
                }
                Next::Fault(index, reason) => (index, self.fault(index, reason, ended)),
                Next::Run(index) => (index, self.step(index, ended).await),
            };
            if outcome == StepOutcome::Guarded {
                self.known.insert(&pod.steps[index].name, StepKnown::default());
            }
            sequence.ended(outcome);
        }
    }

    /// Those that come after one that ended the pod.
    fn skip_rest(&mut self) {
        for index in self.containers.len()..self.maker.run.pod.steps.len() {
            self.skip(index, 1);
        }
    }

    /// It did not run.
    fn skip(&mut self, index: usize, exit_code: i32) {
        let at = clock::now();
        let (reason, message) = (TerminationReason::Skipped, String::new());
        self.note(index, ContainerState::Terminated { exit_code, reason, message, started_at: at, at });
    }

    fn note(&mut self, index: usize, state: ContainerState) {
        let pod = &self.maker.run.pod;
        let container = pod.steps.iter().chain(&pod.sidecars).nth(index);
        let container = container.unwrap_or_else(|| unreachable!("indices are those of the pod's containers"));
        let mut noted = bare(container, state);
        noted.image_id = self.maker.images[index].id.clone();
        noted.container_id = match (&self.maker.door, self.ids.get(&index)) {
            (Some(_), Some(id)) => format!("docker://{id}"),
            (Some(_), None) => String::new(),
            (None, _) => format!("pitcrew://{}/{}", self.attempt.spec.id, container.name),
        };
        self.containers.push(noted);
    }

    /// It could not be told whether or how it is to run.
    fn fault(&mut self, index: usize, reason: String, ended: &mut Ended) -> StepOutcome {
        let name = short(&self.maker.run.pod.steps[index].name).to_owned();
        self.say(index, &format!("step `{name}` cannot run: {reason}"));
        let at = clock::now();
        let failed = ContainerState::Terminated {
            exit_code: 1,
            reason: TerminationReason::Error,
            message: reason,
            started_at: at,
            at,
        };
        self.note(index, failed);
        ended.exit = Exit::Code { code: 1 };
        ended.failed_step = Some(name);
        StepOutcome::Broken
    }

    /// Runs one step and notes how it ended.
    async fn step(&mut self, index: usize, ended: &mut Ended) -> StepOutcome {
        let step = &self.maker.run.pod.steps[index];
        let name = short(&step.name).to_owned();
        if self.attempt.stop.borrow().is_some() {
            ended.exit = Exit::Cancelled;
            ended.failed_step = Some(name);
            return self.cut(index, Exit::Cancelled, clock::now(), String::new());
        }
        let filled = match substitute_steps(step, &self.known) {
            Ok(filled) => filled,
            Err(reason) => return self.fault(index, reason, ended),
        };
        let prepared = self.maker.letter(index, &filled).and_then(|(letter, _)| {
            let written = match filled.script == step.script || self.maker.door.is_some() {
                true => Ok(()),
                false => self.maker.dirs.write_script(index, &filled),
            };
            let failed = |e| PodFailure::Config {
                container: step.name.clone(),
                message: format!("cannot write its script: {e}"),
            };
            written.map(|()| letter).map_err(failed)
        });
        let run = match prepared {
            Ok(letter) => self.contained(index, &filled, letter).await,
            Err(failure) => Err(failure),
        };
        match run {
            Ok(run) => self.conclude(index, run, ended),
            Err(failure) => {
                let message = words(&failure);
                ended.exit = Exit::cannot_start(message.clone());
                ended.failed_step = Some(name);
                let reason = "CreateContainerConfigError".to_owned();
                self.note(index, ContainerState::Waiting { reason, message });
                self.failure = Some(failure);
                StepOutcome::Broken
            }
        }
    }

    /// Runs the container of a step to its end.
    async fn contained(&mut self, index: usize, step: &Container, letter: Letter) -> Result<Run, PodFailure> {
        let config = |message: String| PodFailure::Config { container: step.name.clone(), message };
        let started = self.attempt.start_box(&letter).map_err(config)?;
        // The nearer of both ends.
        let left = self.deadline.map(|at| {
            SignedDuration::try_from(at.saturating_duration_since(clock::instant())).unwrap_or(SignedDuration::MAX)
        });
        let timeout = match (step.timeout, left) {
            (Some(own), Some(left)) => Some(own.min(left)),
            (own, left) => own.or(left),
        };
        let followed = Followed { name: short(&step.name), timeout, capture_stdout: false };
        match self.attempt.follow(number(index), &followed, started).await {
            StepEnd::NotStarted { reason } => Err(config(reason)),
            StepEnd::Ran { exit, started_at, .. } => {
                let is_late = exit == Exit::TimedOut;
                if is_late {
                    let own = step.timeout.is_some_and(|own| left.is_none_or(|left| own <= left));
                    self.failure = Some(match own {
                        true => PodFailure::StepTimeout { container: step.name.clone() },
                        false => PodFailure::Deadline,
                    });
                }
                let said = letter.said();
                if let Said::Ended { id, .. } = &said {
                    self.ids.insert(index, id.clone());
                }
                // What was stopped ended for that reason, whatever it says.
                let by_itself = matches!(exit, Exit::Code { .. } | Exit::Signal { .. } | Exit::OutOfMemory);
                let (exit, message) = match said {
                    Said::Setup(reason) if by_itself => return Err(config(reason)),
                    Said::Program(reason) if by_itself => {
                        self.say(index, &reason);
                        (Exit::Code { code: NOT_FOUND }, reason)
                    }
                    Said::Ended { out_of_memory: true, .. } if by_itself => (Exit::OutOfMemory, String::new()),
                    Said::Ended { code, .. } if by_itself => (Exit::Code { code }, String::new()),
                    Said::Lost(reason) if by_itself => (Exit::Lost { reason: reason.clone() }, reason),
                    Said::Nothing if by_itself && self.maker.door.is_some() => {
                        let reason = format!("the process that followed its container ended: {exit}");
                        (Exit::Lost { reason: reason.clone() }, reason)
                    }
                    _ => (exit, String::new()),
                };
                let outcome = match &exit {
                    Exit::Code { code } => StepOutcome::Exited(*code),
                    Exit::Signal { signal } => StepOutcome::Exited(128 + signal),
                    Exit::OutOfMemory => StepOutcome::Exited(137),
                    Exit::TimedOut | Exit::Cancelled | Exit::StartFailed { .. } | Exit::Lost { .. } => {
                        StepOutcome::Broken
                    }
                };
                Ok(Run { exit, message, started_at, outcome })
            }
        }
    }

    fn conclude(&mut self, index: usize, run: Run, ended: &mut Ended) -> StepOutcome {
        let step = &self.maker.run.pod.steps[index];
        let name = short(&step.name).to_owned();
        let (started_at, at) = (run.started_at, clock::now());
        ended.started_at.get_or_insert(started_at);
        ended.steps.push(StepEnded { name: name.clone(), exit: run.exit.clone(), started_at, at });
        if let StepOutcome::Exited(code) = run.outcome
            && (code == 0 || step.on_error == OnError::Continue)
            && let Err(error) = self.maker.dirs.keep_code(index, code)
        {
            self.say(index, &format!("its exit code cannot be kept for later steps: {error}"));
        }
        let known = self.left(index, ended);
        let goes_on =
            matches!(run.outcome, StepOutcome::Exited(code) if code == 0 || step.on_error == OnError::Continue);
        if !goes_on {
            ended.exit = run.exit.clone();
            ended.failed_step = Some(name.clone());
        } else if !run.exit.is_success() {
            self.say(index, &format!("step `{name}` failed ({}); going on", run.exit));
        }
        let outcome = self.cut(index, run.exit, started_at, run.message);
        if let Some(container) = self.containers.last_mut() {
            container.results = known.results.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            container.artifacts = known.artifacts.clone();
        }
        self.known.insert(&step.name, known);
        match run.outcome {
            StepOutcome::Exited(_) => run.outcome,
            StepOutcome::Guarded | StepOutcome::Broken => outcome,
        }
    }

    /// What a step left beside its exit code.
    fn left(&mut self, index: usize, ended: &mut Ended) -> StepKnown {
        let step = &self.maker.run.pod.steps[index];
        let root = self.maker.dirs.tekton("run");
        let read = results::read(&root, &format!("{index}/status/results"), &step.results);
        let problems = read.problems.into_iter().map(|problem| format!("step `{}`: {problem}", short(&step.name)));
        ended.output_problems.extend(problems);
        let artifacts = artifacts(&root, &format!("{index}/status/artifacts/provenance.json"));
        StepKnown { results: read.values.into_iter().collect(), artifacts }
    }

    /// Notes the end of a container that began, or was about to.
    fn cut(&mut self, index: usize, exit: Exit, started_at: Timestamp, message: String) -> StepOutcome {
        let continues = self.maker.run.pod.steps[index].on_error == OnError::Continue;
        let (exit_code, reason) = match &exit {
            Exit::Code { code: 0 } => (0, TerminationReason::Completed),
            Exit::Code { code } if continues => (*code, TerminationReason::Continued),
            Exit::Code { code } => (*code, TerminationReason::Error),
            Exit::Signal { signal } if continues => (128 + signal, TerminationReason::Continued),
            Exit::Signal { signal } => (128 + signal, TerminationReason::Error),
            Exit::OutOfMemory => (137, TerminationReason::OutOfMemory),
            Exit::TimedOut => (1, TerminationReason::TimeoutExceeded),
            Exit::Cancelled => (1, TerminationReason::Cancelled),
            Exit::StartFailed { .. } | Exit::Lost { .. } => (1, TerminationReason::Error),
        };
        self.note(index, ContainerState::Terminated { exit_code, reason, message, started_at, at: clock::now() });
        StepOutcome::Broken
    }

    /// Fetches what the pod left at its engine, and removes it there.
    async fn leave_engine(&mut self, ended: &mut Ended) {
        let Some(door) = &self.maker.door else { return };
        let is_waited_for = self.attempt.stop.borrow().is_some();
        let finished = engines::finish(self.attempt.runner, door, self.maker.fetched(), is_waited_for).await;
        let last = self.containers.len().saturating_sub(1);
        match finished {
            Finished::Fetched(Ok(())) => {}
            Finished::Fetched(Err(problem)) => self.say(last, &problem),
            Finished::Unknown(problem) => {
                self.say(last, &problem);
                // Others would take a result that did not come for one that was not written.
                if ended.exit.is_success() && !self.maker.run.pod.results.is_empty() {
                    ended.exit = Exit::Lost { reason: problem };
                }
            }
        }
    }

    /// What the whole pod left.
    fn finish(self, ended: &mut Ended) {
        let run = self.maker.run;
        let mut read = results::read(&self.maker.dirs.tekton(""), "results", &run.pod.results);
        let composed = results::composed(&run.pod.results, &self.known);
        read.values.extend(composed.values);
        ended.output_problems.extend(read.problems.into_iter().chain(composed.problems));
        // As they were declared.
        let place = |name: &str| run.pod.results.iter().position(|result| result.name == name);
        read.values.sort_by_key(|(name, _)| place(name));
        ended.outputs.extend(read.values.iter().cloned());
        let artifacts = artifacts(&self.maker.dirs.tekton("artifacts"), "provenance.json");
        let pod = PodEnded { containers: self.containers, results: read.values, failure: self.failure, artifacts };
        ended.pod = Some(Box::new(pod));
    }
}

/// What a step or a task wrote about artifacts, by their names.
fn artifacts(root: &Path, path: &str) -> serde_json::Value {
    let Ok(Found::Bytes(bytes)) = read_plain(root, path, MAX_OUTPUT) else { return serde_json::Value::Null };
    let Ok(written) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return serde_json::Value::Null };
    let side = |name: &str| -> serde_json::Map<String, serde_json::Value> {
        let all = written.get(name).and_then(|all| all.as_array()).into_iter().flatten();
        all.filter_map(|one| Some((one.get("name")?.as_str()?.to_owned(), one.get("values")?.clone()))).collect()
    };
    serde_json::json!({"inputs": side("inputs"), "outputs": side("outputs")})
}

fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A plan on its way to a box, and the box's answer: a file in memory, which both have open.
struct Letter {
    file: File,
    length: u64,
    /// To a keeper; else to a box.
    is_keeper: bool,
}

/// What the process of a container says of it.
enum Said {
    /// The exit code of the process is that of the container; or it ended before it could say anything.
    Nothing,
    Setup(String),
    Program(String),
    Ended {
        id: String,
        code: i32,
        out_of_memory: bool,
    },
    Lost(String),
}

impl Letter {
    fn write(order: &Order) -> io::Result<Letter> {
        Letter::of(&serde_json::to_vec(order)?, false)
    }

    fn to_keeper(letter: &keeper::Letter) -> io::Result<Letter> {
        Letter::of(&serde_json::to_vec(letter)?, true)
    }

    fn of(bytes: &[u8], is_keeper: bool) -> io::Result<Letter> {
        let mut file = File::from(rustix::fs::memfd_create("plan", MemfdFlags::CLOEXEC)?);
        file.write_all(bytes)?;
        Ok(Letter { file, length: u64::try_from(bytes.len()).unwrap_or(u64::MAX), is_keeper })
    }

    /// What the box reads.
    fn for_box(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// What was said to it, if anything was.
    fn answer<T: DeserializeOwned>(&self) -> Option<Result<T, serde_json::Error>> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.length)).ok()?;
        file.take(1 << 20).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then(|| serde_json::from_slice(&bytes))
    }

    fn said(&self) -> Said {
        if !self.is_keeper {
            return match self.answer::<Fault>() {
                None => Said::Nothing,
                Some(Ok(Fault::Setup(reason))) => Said::Setup(reason),
                Some(Ok(Fault::Program(reason))) => Said::Program(reason),
                Some(Err(_)) => Said::Setup("its box ended without telling why".to_owned()),
            };
        }
        match self.answer::<Answer>() {
            Some(Ok(Answer::Ended(end))) => match end.how {
                How::Exited { code, out_of_memory } => Said::Ended { id: end.id, code, out_of_memory },
                How::Config(reason) => Said::Setup(reason),
                How::Program(reason) => Said::Program(reason),
                How::Lost(reason) => Said::Lost(reason),
            },
            Some(Ok(Answer::Failed { failure, may_pass: true })) => Said::Lost(words(&failure)),
            Some(Ok(Answer::Failed { failure, may_pass: false })) => Said::Setup(words(&failure)),
            Some(Ok(Answer::Prepared { .. } | Answer::Done | Answer::Left(_)) | Err(_)) | None => Said::Nothing,
        }
    }

    fn argv(&self) -> [String; 3] {
        if self.is_keeper { keeper_argv() } else { box_argv() }
    }
}

/// This program, as a box.
fn box_argv() -> [String; 3] {
    ["/proc/self/exe", "internal", "box"].map(str::to_owned)
}

/// This program, as a keeper.
fn keeper_argv() -> [String; 3] {
    ["/proc/self/exe", "internal", "keeper"].map(str::to_owned)
}

/// What a keeper needs to find who it is on another machine: keys of SSH, and hosts that are known.
fn keeper_env() -> BTreeMap<String, String> {
    ["HOME", "USER"].into_iter().filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect()
}

impl Maker<'_> {
    /// What the process of a container is told, and how others get into it.
    fn letter(&self, index: usize, container: &Container) -> Result<(Letter, Inside), PodFailure> {
        let config = |e: io::Error| PodFailure::Config {
            container: container.name.clone(),
            message: format!("cannot hand over its plan: {e}"),
        };
        let Some(door) = &self.door else {
            let plan = self.plan(index, container)?;
            let inside = Inside::Box(Box::new(plan.work.clone()));
            return Ok((Letter::write(&Order::Make(plan)).map_err(config)?, inside));
        };
        let follow = self.follow(index, container, door)?;
        let (place, address) = (door.place.clone(), door.address.clone());
        let inside = Inside::Engine { place: place.clone(), name: door.whose.container(&container.name), address };
        let letter = keeper::Letter { place, order: keeper::Order::Follow(follow) };
        Ok((Letter::to_keeper(&letter).map_err(config)?, inside))
    }
}

impl Attempt<'_> {
    /// Starts a box; the error is a sentence for people.
    fn start_box(&mut self, letter: &Letter) -> Result<process::Spawned, String> {
        let mut env = std::collections::BTreeMap::new();
        // By these its processes are found; the container itself sees none of them.
        env.extend(if letter.is_keeper { keeper_env() } else { BTreeMap::new() });
        for name in ["PITCREW_RUNNER", "PITCREW_OUTPUT"] {
            env.extend(self.env.get(name).map(|value| (name.to_owned(), value.clone())));
        }
        let cgroups = match &self.cgroup {
            Some(cgroup) => cgroup.entrances().map_err(|e| format!("cannot use its cgroup: {e}"))?,
            None => Vec::new(),
        };
        let plan = Plan {
            argv: &letter.argv(),
            env: &env,
            workdir: Path::new("/"),
            cgroups: &cgroups,
            open_files: self.runner.open_files,
            stdin: Some(letter.for_box().map_err(|e| format!("cannot hand over its plan: {e}"))?),
        };
        process::spawn(&self.runner.reaper, plan)
    }
}

//! From an admitted instance to a running attempt, and from what a backend says back to the engine.
//!
//! Rendering happens here, at the last moment and from the run's committed state, so that a start that is repeated
//! after a crash renders the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::RunKey;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::engine::{Evaluate, Event, Report, Slot};
use pitcrew_core::fleet::{Held, held, mps_environment};
use pitcrew_core::ir::{BackendKind, OutputSource, Step, Task, Work};
use pitcrew_core::pod::{ARTIFACTS, PodEnded};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_exec::aws;
use pitcrew_exec::gpu::HeldGpu;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendError, BackendEvent, Command, Ended, Handle, Limits, Observation, Place, PodRun,
    Runtime, StepSpec,
};
use pitcrew_lang::{Evaluator, Rendering, parse_gpus, tekton};
use pitcrew_store::{VariableSet, WorkerEnds};
use serde_json::{Map, Value};

use super::active::Active;
use super::core_loop::{Core, run_url};
use super::perform::After;
use super::secrets::{Marks, mask_known};
use super::{Ask, Parts, gang, outputs};
use crate::actions::notify::Letter;
use crate::actions::{self, Action, Call, Job, Plan, Sources};
use crate::catalog::ENGINE;
use crate::clock;
use crate::cluster::files::Elsewhere;
use crate::metrics::SetBy;
use crate::paths::DataDir;
use crate::sensitive::is_sensitive;
use crate::signatures::{self, Admission};
use crate::tekton::{launch, registries};

/// What a backend said about an attempt when it was asked.
pub(super) struct Observed {
    pub run: RunKey,
    pub slot: Slot,
    pub attempt: u32,
    pub observation: Observation,
}

/// How long to wait before asking a backend again that could not be reached.
const AGAIN: Duration = Duration::from_secs(2);

/// What is said of an attempt whose place is not known.
fn no_place(row: &AttemptRecord) -> Exit {
    let own = [BackendKind::Ssh, BackendKind::Ecs, BackendKind::Kubernetes].map(BackendKind::name);
    match own.contains(&row.backend.as_str()) {
        true => Exit::cannot_start(row.message.clone()),
        // Another node may take it.
        false => Exit::Lost { reason: row.message.clone() },
    }
}

/// Variables of an attempt's environment that name directories of this machine.
const HERE: [&str; 2] = ["PITCREW_WORKSPACE", "PITCREW_ARTIFACTS"];

/// Whether an attempt sees the files of its run: one that is a process of a host does not.
fn uses_files(spec: &AttemptSpec) -> bool {
    let moves = |step: &StepSpec| matches!(step.command, Command::Transfer(_));
    !is_host(spec.place.as_ref()) || spec.steps.iter().any(moves)
}

/// Whether paths of this machine mean nothing there.
fn is_host(place: Option<&Place>) -> bool {
    matches!(place, Some(Place::Ssh(_) | Place::Ecs(_) | Place::Kubernetes(_)))
}

/// What an attempt comes to.
enum Ready {
    Spec(AttemptSpec, Marks),
    /// Its last step waits for facts that are read first.
    Gathering(AttemptSpec, Marks, Box<Gathering>),
    /// Done by the scheduler itself, in the commit that ends the attempt.
    Variables(Vec<(String, String)>),
    /// As well.
    Letter(Letter),
}

/// An action whose facts are gathered in the background.
struct Gathering {
    action: &'static dyn Action,
    job: Job,
    secret: Value,
    inherit: &'static str,
    sources: Sources,
}

impl Gathering {
    async fn finish(mut self, spec: &mut AttemptSpec) -> Result<(), String> {
        self.job.facts = self.action.gather(std::mem::take(&mut self.job.facts), &self.sources).await;
        push_action(spec, self.action, &self.job, &self.secret, self.inherit, None)
    }
}

impl Core {
    /// Starts an attempt whose row is written. Again is once.
    pub fn launch(&mut self, run: RunKey, slot: Slot, attempt: u32) {
        let Some(active) = self.runs.get(&run) else { return };
        let current = active.run.get(slot).is_some_and(|i| i.attempt == attempt && i.state.is_live());
        let row = active.attempts.get(&slot).filter(|row| row.number == attempt);
        let (true, Some(row)) = (current, row) else { return };
        let backend = self.backend(&row.backend);
        match ready(&self.parts, &self.evaluator, active, slot, row) {
            Ok(Ready::Spec(spec, marks)) => self.start(run, slot, attempt, backend, spec, marks, None),
            Ok(Ready::Gathering(spec, marks, rest)) => self.start(run, slot, attempt, backend, spec, marks, Some(rest)),
            Ok(Ready::Variables(set)) => self.set_variables(run, slot, attempt, set),
            Ok(Ready::Letter(letter)) => self.post(run, slot, attempt, letter),
            Err(exit) => self.ended(run, slot, attempt, Ended::bare(exit, clock::now())),
        }
    }

    fn start(
        &mut self,
        run: RunKey,
        slot: Slot,
        attempt: u32,
        backend: Arc<dyn Backend>,
        mut spec: AttemptSpec,
        marks: Marks,
        gathering: Option<Box<Gathering>>,
    ) {
        let stored = self.live_handle(run, slot, attempt).map(|(_, handle)| handle);
        let handle = stored.unwrap_or_else(|| backend.prepare(&spec));
        let me = self.me.clone();
        let secrets = self.parts.secrets.clone();
        let (store, vault) = (self.parts.store.clone(), self.parts.vault.clone());
        let gate = self.parts.backends.gate();
        let known = self.known.values_of(is_sensitive);
        // One that is to end does nothing when it is started.
        let is_ending = self.runs.get(&run).and_then(|a| a.run.get(slot)).is_some_and(|i| i.stop.is_some());
        let homed = self.parts.backends.homed().filter(|_| uses_files(&spec) && !is_ending);
        tokio::spawn(async move {
            let observed = |observation| {
                if let Some(me) = me.upgrade() {
                    let _ = me.send(Ask::Observed(Observed { run, slot, attempt, observation }));
                }
            };
            // What its run has on the machine of another server, it finds here.
            if let Some(homed) = homed {
                match homed.files().here(run).await {
                    Ok(()) => {}
                    Err(Elsewhere::Later(_)) => {
                        tokio::time::sleep(AGAIN).await;
                        return observed(Observation::NeverBegan);
                    }
                    Err(Elsewhere::Gone(why)) => {
                        return observed(Observation::Ended(Ended::bare(Exit::start_failed(why), clock::now())));
                    }
                }
            }
            // A cancel in the meantime is remembered by the backend: the start then does nothing.
            let mut refused = None;
            let finished = async {
                if let Some(gathering) = gathering {
                    gathering.finish(&mut spec).await.map_err(Exit::cannot_start)?;
                }
                if let Some(run) = &mut spec.pod {
                    let found = launch::find(&store, &vault, &run.pod).await.map_err(|error| {
                        Exit::start_failed(format!("what the pod refers to cannot be read: {error:#}"))
                    })?;
                    let whose = match spec.place {
                        Some(Place::Kubernetes(_)) => launch::Whose::Cluster,
                        Some(Place::Ssh(_) | Place::Worker(_) | Place::Ecs(_)) | None => launch::Whose::Machine,
                    };
                    match launch::complete(&mut run.pod, &found, whose) {
                        Ok(masks) => spec.masks.extend(masks),
                        Err(failure) => {
                            refused = Some(failure.clone());
                            return Err(Exit::cannot_start(launch::words(&failure)));
                        }
                    }
                    if let Runtime::Docker { registries, .. } = &mut run.runtime {
                        *registries = registries::find(&store, &vault, &run.pod).await.map_err(|error| {
                            Exit::start_failed(format!("what signs in at registries cannot be read: {error:#}"))
                        })?;
                        let told = registries.iter().flat_map(|one| [&one.password, &one.identity_token]);
                        spec.masks.extend(told.filter(|text| !text.is_empty()).cloned());
                    }
                    // A sandbox has no images: its names only say which files of this machine are meant.
                    if let Some(gate) = gate.filter(|_| run.runtime != Runtime::Sandbox) {
                        match signatures::admit(&gate, &mut run.pod).await {
                            Ok(()) => {}
                            Err(Admission::Refused(failure)) => {
                                refused = Some(failure.clone());
                                return Err(Exit::cannot_start(launch::words(&failure)));
                            }
                            Err(Admission::Unknown(why)) => return Err(Exit::start_failed(why)),
                        }
                    }
                }
                marks.resolve(&mut spec, &secrets).await.map_err(|error| match error.lasting() {
                    true => Exit::cannot_start(error.to_string()),
                    false => Exit::start_failed(error.to_string()),
                })?;
                mask_known(&mut spec, &known);
                Ok(())
            };
            if let Err(exit) = finished.await {
                let mut ended = Ended::bare(exit, clock::now());
                ended.pod = refused.map(|failure| Box::new(PodEnded { failure: Some(failure), ..PodEnded::default() }));
                return observed(Observation::Ended(ended));
            }
            let observation = match backend.start(&handle, spec).await {
                Ok(()) => return,
                Err(BackendError::Unreachable { reason, .. }) => {
                    tracing::warn!(attempt = %handle.id, "cannot start {}: {reason}; trying again", handle.id);
                    tokio::time::sleep(AGAIN).await;
                    backend.attach(&handle).await
                }
                Err(error @ BackendError::Io { .. }) => {
                    let exit = Exit::start_failed(error.to_string());
                    Observation::Ended(Ended::bare(exit, clock::now()))
                }
            };
            observed(observation);
        });
    }

    fn set_variables(&mut self, run: RunKey, slot: Slot, attempt: u32, set: Vec<(String, String)>) {
        let now = clock::now();
        if let Some(given) = set.iter().find_map(|(key, _)| self.parts.store.given().variable(key)) {
            let reason = format!("the variable `{}` cannot be set: it is {}, which wins", given.key, given.description);
            return self.ended(run, slot, attempt, Ended::bare(Exit::cannot_start(reason), now));
        }
        let Some(active) = self.runs.get_mut(&run) else { return };
        let who = format!("task {}", active.run.attempt_id(slot, attempt));
        let names: Vec<&String> = set.iter().map(|(name, _)| name).collect();
        let mut audit = pitcrew_store::AuditEntry::new(now, who, "variable.set");
        audit.workflow = Some(active.run.record.workflow.clone());
        audit.run = Some(active.run.record.run_id.clone());
        audit.task = Some(active.run.workflow.task(slot.task).id.clone());
        audit.detail = serde_json::json!({ "keys": names });
        self.parts.metrics.variables_set(SetBy::Task, set.len());
        let outputs = BTreeMap::from([
            ("keys".to_owned(), serde_json::json!(names)),
            ("count".to_owned(), serde_json::json!(names.len())),
        ]);
        active.unwritten.audit.push(audit);
        for (key, value) in set {
            self.known.set(key.clone(), value.clone());
            active.unwritten.variables.push(VariableSet { key, value, description: None });
        }
        let mut ended = Ended::bare(Exit::Code { code: 0 }, now);
        ended.started_at = Some(now);
        ended.outputs = outputs;
        self.ended(run, slot, attempt, ended);
    }

    /// Takes what a backend tells by itself.
    pub fn told(&mut self, event: BackendEvent) {
        let id = event.id().clone();
        let Some(active) = self.runs.get(&id.run) else { return };
        let slot = active.run.workflow.find(id.task.as_str()).and_then(|task| active.run.find(task, id.map_index));
        let Some(slot) = slot else { return };
        match event {
            BackendEvent::Started { at, .. } => self.started(id.run, slot, id.number, at),
            BackendEvent::Placed { node, gpus, .. } => self.placed_by_backend(id.run, slot, id.number, node, gpus),
            BackendEvent::Named { names, .. } => self.named_by_backend(id.run, slot, id.number, names),
            BackendEvent::NeverBegan { .. } => {
                let (attempt, observation) = (id.number, Observation::NeverBegan);
                self.observed(Observed { run: id.run, slot, attempt, observation });
            }
            BackendEvent::Ended { ended, .. } => self.ended(id.run, slot, id.number, ended),
            BackendEvent::Lost { reason, .. } => {
                self.ended(id.run, slot, id.number, Ended::bare(Exit::Lost { reason }, clock::now()));
            }
        }
    }

    /// Takes the answer of a backend that was asked.
    pub fn observed(&mut self, observed: Observed) {
        let Observed { run, slot, attempt, observation } = observed;
        match observation {
            Observation::NeverBegan => {
                // It was cancelled before it was started, or its start got lost: start it now.
                self.after.push(After::Launch { run, slot, attempt });
                let stop = self.runs.get(&run).and_then(|a| a.run.get(slot)).and_then(|instance| instance.stop);
                if stop.is_some() {
                    self.after.push(After::Cancel { run, slot, attempt, grace: pitcrew_core::SignedDuration::ZERO });
                }
            }
            Observation::Running { started_at } => self.started(run, slot, attempt, started_at),
            Observation::Ended(ended) => self.ended(run, slot, attempt, ended),
            Observation::Lost { reason } => {
                self.ended(run, slot, attempt, Ended::bare(Exit::Lost { reason }, clock::now()));
            }
            // It is on its way, or waits for a slot where it is.
            Observation::Waiting => {}
            // Unreachable is never failed. Ask again later.
            Observation::Unreachable { reason } => {
                tracing::debug!(run = run.0, "attempt {attempt} of run {run} cannot be observed: {reason}");
                let me = self.me.clone();
                let Some((backend, handle)) = self.live_handle(run, slot, attempt) else { return };
                tokio::spawn(async move {
                    tokio::time::sleep(AGAIN).await;
                    let observation = backend.attach(&handle).await;
                    if let Some(me) = me.upgrade() {
                        let _ = me.send(Ask::Observed(Observed { run, slot, attempt, observation }));
                    }
                });
            }
        }
    }

    fn live_handle(&self, run: RunKey, slot: Slot, attempt: u32) -> Option<(Arc<dyn Backend>, Handle)> {
        let row = self.runs.get(&run)?.attempts.get(&slot).filter(|row| row.number == attempt && row.exit.is_none())?;
        Some((self.backend(&row.backend), serde_json::from_value(row.handle.clone()).ok()?))
    }

    /// It was the backend that chose a machine. Its row says so from now on; nothing of the admission is held for it.
    fn placed_by_backend(&mut self, run: RunKey, slot: Slot, attempt: u32, node: String, gpus: Vec<String>) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let Some(row) = active.attempts.get_mut(&slot).filter(|row| row.number == attempt) else { return };
        if (row.node.as_ref(), &row.gpus) == (Some(&node), &gpus) {
            return;
        }
        (row.node, row.gpus) = (Some(node), gpus);
        let row = row.clone();
        active.unwritten.attempts.insert((slot, attempt), row);
        self.unwritten.insert(run);
        if self.runs.get(&run).and_then(|active| active.run.get(slot)).is_some_and(|i| i.state == State::Running) {
            self.tell_started(run, slot);
        }
    }

    /// It is known what it is called where it runs: its row says so, beside what it was called by us.
    fn named_by_backend(&mut self, run: RunKey, slot: Slot, attempt: u32, names: Map<String, Value>) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let Some(row) = active.attempts.get_mut(&slot).filter(|row| row.number == attempt) else { return };
        let mut all = row.names.as_object().cloned().unwrap_or_default();
        all.extend(names);
        let all = Value::Object(all);
        if row.names != all {
            row.names = all;
            let row = row.clone();
            active.unwritten.attempts.insert((slot, attempt), row);
            self.unwritten.insert(run);
        }
    }

    fn started(&mut self, run: RunKey, slot: Slot, attempt: u32, at: jiff::Timestamp) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        if let Some(row) = active.attempts.get_mut(&slot).filter(|row| row.number == attempt && row.start.is_none()) {
            row.start = Some(at);
            let row = row.clone();
            active.unwritten.attempts.insert((slot, attempt), row);
        }
        self.apply(run, Event::Started { slot, attempt, at });
        let runs =
            |active: &Active| active.run.get(slot).is_some_and(|i| i.attempt == attempt && i.state == State::Running);
        if self.runs.get(&run).is_some_and(runs) {
            self.tell_started(run, slot);
        }
    }

    pub(super) fn ended(&mut self, run: RunKey, slot: Slot, attempt: u32, mut ended: Ended) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let Some(instance) = active.run.get(slot) else { return };
        if instance.attempt != attempt || !instance.state.is_live() {
            active.run.stale_reports += 1;
            return;
        }
        // On a host nothing of ours measures; what its node told in that time does.
        if let Some(row) = active.attempts.get(&slot).filter(|row| !row.gpus.is_empty())
            && ended.usage.gpus.is_empty()
            && let (Some(node), Some(from)) = (&row.node, ended.started_at.or(row.start))
        {
            let request = row.request.clone().unwrap_or_default();
            ended.usage.gpus = self.parts.fleet.usage(node, &row.gpus, &request, from, ended.at);
        }
        let usage = ended.usage.clone();
        let detail = ended.pod.as_deref().and_then(|pod| serde_json::to_value(pod).ok());
        // Other tasks may use them, as they use results.
        let artifacts = ended.pod.as_deref().and_then(PodEnded::all_artifacts);
        ended.outputs.extend(artifacts.map(|artifacts| (ARTIFACTS.to_owned(), artifacts)));
        let held = self.is_held(run, slot, &ended.exit);
        let Some(active) = self.runs.get_mut(&run) else { return };
        let report: Report = {
            let rendering = self.evaluator.rendering(&active.run, slot);
            let row = active.attempts.get(&slot);
            let is_remote = row.is_some_and(|row| row.backend == BackendKind::Ssh.name());
            let handle: Option<Handle> = row.and_then(|row| serde_json::from_value(row.handle.clone()).ok());
            let is_away = handle.as_ref().is_some_and(|handle| !self.parts.backends.is_here(handle));
            let place = handle.and_then(|handle| handle.place);
            let is_away = is_away || matches!(place, Some(Place::Worker(_)));
            if let Work::Action { uses, with } = &active.run.workflow.task(slot.task).work
                && ended.exit.is_success()
            {
                if let Some(action) = actions::find(uses).filter(|_| is_remote) {
                    action.conclude(&rendering.value(with).unwrap_or_default(), &mut ended);
                }
                self.parts.metrics.action_succeeded(uses, &ended.outputs);
            }
            let render = |text: &str| rendering.text(text);
            let root = Some(self.parts.data.workspace(run)).filter(|_| !is_remote && !is_away);
            let task = active.run.workflow.task(slot.task);
            Report { held, ..outputs::report(task, ended, root.as_deref(), place.as_ref(), &render) }
        };
        let (started_at, at) = (report.started_at, report.at);
        self.apply(run, Event::Ended { slot, attempt, report });
        let Some(active) = self.runs.get_mut(&run) else { return };
        let Some(mut row) = active.attempts.get(&slot).filter(|row| row.number == attempt).cloned() else { return };
        let instance = active.run.instance(slot);
        row.start = row.start.or(started_at);
        row.end = Some(row.start.map_or(at, |start| at.max(start)));
        // A clear has emptied the instance already; its attempt was cancelled.
        row.exit = Some(instance.exit.clone().unwrap_or(Exit::Cancelled));
        row.message = instance.message.clone();
        row.usage = serde_json::to_value(&usage).unwrap_or(Value::Null);
        row.detail = detail.unwrap_or_default();
        let action = match &active.run.workflow.task(slot.task).work {
            Work::Action { uses, .. } => Some(uses.as_str()),
            Work::Noop | Work::Steps(_) | Work::Pod { .. } => None,
        };
        self.parts.metrics.attempt_ended(&active.run.record, action, &row, &usage);
        if let Some(tracer) = &self.parts.tracer {
            tracer.attempt(&active.run.record, &row);
        }
        let is_lost = matches!(row.exit, Some(Exit::Lost { .. }));
        if let Ok(handle) = serde_json::from_value::<Handle>(row.handle.clone()) {
            if let Some(Place::Worker(place)) = &handle.place {
                let is_failure = row.exit.as_ref().is_some_and(|exit| !exit.is_success() && *exit != Exit::Cancelled);
                let ends = WorkerEnds { ended: 1, failed: u64::from(is_failure) };
                *active.unwritten.worker_ends.entry(place.worker.clone()).or_default() += ends;
                // Of what was lost, the log is where it came to.
                if let Some(hub) = self.parts.backends.hub().filter(|_| !is_lost)
                    && let Ok(kept) = serde_json::to_value(hub.kept_here(handle.clone()))
                {
                    row.handle = kept;
                }
            }
            if handle.place.is_some() || self.parts.backends.is_here(&handle) {
                self.left_files.insert((run, None));
            } else if !is_lost {
                self.left_files.insert((run, handle.home.clone()));
            }
            self.after.push(After::Cleanup { backend: row.backend.clone(), handle });
        }
        active.put_attempt(slot, row.clone());
        self.unwritten.insert(run);
        self.tell_ended(run, slot, &row);
    }
}

/// What an attempt is to run, or how it ends without having begun. What it is made of is the same for the next attempt,
/// so only the machine can make a difference.
fn ready(
    parts: &Parts,
    evaluator: &Evaluator,
    active: &Active,
    slot: Slot,
    row: &AttemptRecord,
) -> Result<Ready, Exit> {
    debug_assert_eq!(active.run.record.state, RunState::Running);
    // By its row: the node may have decided where it runs.
    let handle: Option<Handle> = serde_json::from_value(row.handle.clone()).ok();
    let place = handle.and_then(|handle| handle.place);
    let elsewhere = [BackendKind::Ssh, BackendKind::Ecs, BackendKind::Kubernetes, BackendKind::Worker];
    let elsewhere = elsewhere.map(BackendKind::name);
    if place.is_none() && elsewhere.contains(&row.backend.as_str()) {
        return Err(no_place(row));
    }
    if !is_host(place.as_ref()) {
        make_workspace(parts, active).map_err(Exit::start_failed)?;
    }
    prepare(parts, evaluator, active, slot, row.number, place).map_err(Exit::cannot_start)
}

/// Renders what an attempt is to run.
fn prepare(
    parts: &Parts,
    evaluator: &Evaluator,
    active: &Active,
    slot: Slot,
    attempt: u32,
    place: Option<Place>,
) -> Result<Ready, String> {
    let run = &active.run;
    let task = run.workflow.task(slot.task);
    let id = run.attempt_id(slot, attempt);
    // On a worker everything lies as it does here, below a data directory of its own.
    let (data, program) = match &place {
        Some(Place::Worker(there)) => (DataDir::there(&there.data_dir), Some(PathBuf::from(&there.program))),
        Some(Place::Ssh(_) | Place::Ecs(_) | Place::Kubernetes(_)) | None => (parts.data.clone(), None),
    };
    let is_host = is_host(place.as_ref());
    let root = data.workspace(id.run);
    let rendering = evaluator.rendering(run, slot);
    let marks = Marks::new().map_err(|error| error.to_string())?;
    let form = marks.clone();
    let naming = evaluator.rendering(run, slot).with_secrets(move |name| form.mark(name));
    let mut spec = AttemptSpec::new(id.clone(), data.attempt(&id), root.clone());
    spec.env = environment(parts, &data, active, slot, attempt, &naming)?;
    spec.place = place;
    spec.grace = task.grace;
    let demand = evaluator.demand(run, slot)?;
    spec.limits = Limits { cpu_milli: demand.cpu_milli, memory_bytes: demand.memory_bytes };
    let gpus = active.attempts.get(&slot).map(|row| row.gpus.clone()).unwrap_or_default();
    // A task that asks for a number of GPUs sees exactly those, also when it asks for none.
    spec.gpus = task.resources.gpu.as_ref().map(|_| gpus.clone());
    spec.sample_usage = !gpus.is_empty();
    let node = active.attempts.get(&slot).and_then(|row| row.node.as_deref());
    if let (Some(name), Some(request)) = (node, &demand.request)
        && let Some(found) = parts.nodes.borrow().iter().find(|known| known.node.name == name)
    {
        let of = |held: Held| HeldGpu { id: held.id, device: held.gpu, part: held.part };
        spec.held_gpus = held(&found.node, &gpus, request).into_iter().map(of).collect();
        let told = mps_environment(&found.node, &gpus, request);
        spec.env.extend(told.into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    if let Some(workdir) = &task.workdir {
        spec.workdir = root.join(rendering.text(workdir)?);
    }
    if program.is_some() {
        spec.dirs = vec![root.clone(), data.artifacts(id.run)];
        spec.dirs.extend(run.workflow.workspaces.iter().map(|name| root.join(name)));
    }
    if is_host {
        // Paths of this machine mean nothing there.
        spec.workdir = task.workdir.as_ref().map_or(Ok(String::new()), |dir| rendering.text(dir))?.into();
        spec.env.retain(|name, _| !HERE.contains(&name.as_str()));
    }
    let files = task.outputs.iter().filter_map(|output| match &output.from {
        OutputSource::File(path) => Some(rendering.text(path)),
        OutputSource::Named | OutputSource::Stdout => None,
    });
    spec.fetch = match is_host {
        true => files.collect::<Result<_, _>>()?,
        // Read here at its end, if this server still leads then; what cannot be named is told then.
        false => files.filter_map(Result::ok).collect(),
    };
    match &task.work {
        Work::Noop => return Err("a task without work was launched".to_owned()),
        Work::Pod { template } => {
            let instance = run.instance(slot);
            let item = instance.item.clone().unwrap_or_default();
            let at = tekton::run::Instance {
                index: u32::try_from(id.map_index).ok(),
                item: &item,
                retries: attempt.saturating_sub(1 + instance.lost),
            };
            let made = tekton::run::pod(template, &tekton::run::Facts::of(run), at);
            let mut made = made.map_err(|refusal| format!("{}: {}", refusal.reason, refusal.message))?;
            launch::own_volumes(&mut made.pod, id.run);
            let is_cluster = matches!(spec.place, Some(Place::Kubernetes(_)));
            // What containers ask for themselves they have; an annotation only Pitcrew understands.
            if let (true, Some(asked)) =
                (is_cluster && made.pod.annotations.contains_key(tekton::run::GPU_ANNOTATION), &task.resources.gpu)
            {
                let (gpus, models) = parse_gpus(&rendering.value(asked)?)?;
                launch::ask_for_gpus(&mut made.pod, &gpus, &models)?;
            }
            // Only what its documents say is in the environment of a container.
            spec.env = BTreeMap::new();
            spec.pod = Some(Box::new(PodRun {
                pod: made.pod,
                runtime: match run.record.conf.get(ENGINE) {
                    Some(place) => Runtime::Docker {
                        engine: serde_json::from_value(place.clone())
                            .map_err(|error| format!("the run does not say which Docker engine it is for: {error}"))?,
                        registries: Vec::new(),
                    },
                    None => Runtime::Sandbox,
                },
                // Of a pod of a cluster, the time that it waits there for room counts, and it ends although this server may be gone.
                deadline: task.timeout.filter(|_| is_cluster),
                data: data.root().to_owned(),
                sandbox: parts.sandbox.settings.clone(),
            }));
        }
        Work::Steps(steps) => {
            let keep = task.outputs.iter().any(|output| output.from == OutputSource::Stdout);
            let last = steps.len().saturating_sub(1);
            for (number, step) in steps.iter().enumerate() {
                spec.steps.push(script(step, keep && number == last, &rendering, &naming)?);
            }
        }
        Work::Action { uses, with } => {
            let action = actions::find(uses).ok_or_else(|| format!("there is no action `{uses}`"))?;
            let with = naming.value(with)?;
            let usage = |slot| active.usage(slot).clone();
            let run_url = run_url(&parts.base_url, id.run);
            let place = spec.place.as_ref().filter(|_| is_host);
            let call = Call { with: &with, run, slot, usage: &usage, run_url: &run_url, place, workspace: &root };
            let plan = action.plan(&call)?;
            let moves = |steps: &[StepSpec]| steps.iter().any(|step| matches!(step.command, Command::Transfer(_)));
            let stores = match &plan {
                Plan::SetVariables(_) | Plan::Notify(_) => true,
                Plan::Remote(steps) => moves(steps),
                Plan::Process { .. } => false,
            };
            if stores && marks.are_in(&with) {
                return Err(format!("`{uses}` would store the secret that `with` names"));
            }
            match plan {
                Plan::SetVariables(set) => return Ok(Ready::Variables(set)),
                Plan::Notify(letter) => return Ok(Ready::Letter(letter)),
                Plan::Remote(steps) => spec.steps = steps,
                Plan::Process { .. } if is_host => {
                    return Err(format!("the action `{uses}` cannot run on another machine"));
                }
                Plan::Process { with, facts, secret, inherit } => {
                    if !inherit.is_empty() && !parts.aws_region.is_empty() {
                        spec.env.entry(aws::REGION.to_owned()).or_insert_with(|| parts.aws_region.clone());
                    }
                    let job = Job {
                        with,
                        facts,
                        secret: Value::Null,
                        environments: data.environments(),
                        scratch: spec.dir.join("scratch"),
                        artifacts: data.artifacts(id.run),
                        records: data.records(id.run),
                    };
                    if action.gathers() {
                        let sources = Sources {
                            store: parts.store.clone(),
                            data: parts.data.clone(),
                            run: run.record.clone(),
                            task: task.id.clone(),
                            map_index: id.map_index,
                            base_url: parts.base_url.clone(),
                        };
                        let rest = Gathering { action, job, secret, inherit, sources };
                        return Ok(Ready::Gathering(spec, marks, Box::new(rest)));
                    }
                    push_action(&mut spec, action, &job, &secret, inherit, program.as_deref())?;
                }
            }
        }
    }
    Ok(Ready::Spec(spec, marks))
}

fn push_action(
    spec: &mut AttemptSpec,
    action: &dyn Action,
    job: &Job,
    secret: &Value,
    inherit: &str,
    program: Option<&Path>,
) -> Result<(), String> {
    let mut step = actions::step(action.name(), job, secret, inherit, program).map_err(|error| format!("{error:#}"))?;
    // What the workflow says wins over what the server happens to have.
    step.env.retain(|name, _| !spec.env.contains_key(name));
    spec.steps.push(step);
    Ok(())
}

/// `naming` is `rendering` where secrets may be named.
fn script(
    step: &Step,
    keep_stdout: bool,
    rendering: &Rendering<'_>,
    naming: &Rendering<'_>,
) -> Result<StepSpec, String> {
    let text = rendering.text(&step.run).map_err(|error| format!("`run` of step `{}`: {error}", step.name))?;
    let mut spec = StepSpec::new(&step.name, Command::Script { text, interpreter: step.shell.clone() });
    for (name, value) in &step.env {
        spec.env.insert(name.clone(), naming.text(value).map_err(|error| format!("`env.{name}`: {error}"))?);
    }
    spec.workdir = match &step.workdir {
        Some(dir) => Some(rendering.text(dir)?.into()),
        None => None,
    };
    spec.timeout = step.timeout;
    spec.continue_on_error = step.continue_on_error;
    spec.capture_stdout = keep_stdout;
    Ok(spec)
}

/// The environment of a task: the workflow's, then the task's, then facts about the attempt.
fn environment(
    parts: &Parts,
    data: &DataDir,
    active: &Active,
    slot: Slot,
    attempt: u32,
    rendering: &Rendering<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let run = &active.run;
    let task: &Task = run.workflow.task(slot.task);
    let mut env = BTreeMap::new();
    for (name, value) in run.workflow.env.iter().chain(&task.env) {
        env.insert(name.clone(), rendering.text(value).map_err(|error| format!("`env.{name}`: {error}"))?);
    }
    let facts = [
        ("PITCREW_WORKFLOW", run.workflow.id.to_string()),
        ("PITCREW_RUN_ID", run.record.run_id.to_string()),
        ("PITCREW_RUN", run.record.key.to_string()),
        ("PITCREW_TASK", task.id.to_string()),
        ("PITCREW_MAP_INDEX", run.map_index(slot).to_string()),
        ("PITCREW_TRY", attempt.to_string()),
        ("PITCREW_WORKSPACE", data.workspace(run.record.key).display().to_string()),
        ("PITCREW_ARTIFACTS", data.artifacts(run.record.key).display().to_string()),
    ];
    let of_gang = gang::environment(parts, active, slot);
    env.extend(facts.into_iter().chain(of_gang).map(|(name, value)| (name.to_owned(), value)));
    // Short names, which a workflow may have used for its own.
    env.entry("ATTEMPT".to_owned()).or_insert_with(|| attempt.to_string());
    if let Some(from) = task.resume_from.as_ref().filter(|_| attempt > 1) {
        let from = rendering.text(from).map_err(|error| format!("`resume_from`: {error}"))?;
        env.insert("RESUME_FROM".to_owned(), from);
    }
    if let Some(tracer) = &parts.tracer {
        env.insert("TRACEPARENT".to_owned(), tracer.parent(&run.record, &run.attempt_id(slot, attempt)));
    }
    Ok(env)
}

/// Steps start in the workspace root; the declared workspaces are directories in it.
fn make_workspace(parts: &Parts, active: &Active) -> Result<(), String> {
    let root = parts.data.workspace(active.run.record.key);
    let dirs = active.run.workflow.workspaces.iter().map(|name| root.join(name));
    for dir in std::iter::once(root.clone()).chain(dirs) {
        std::fs::create_dir_all(&dir)
            .map_err(|error| format!("cannot make the directory `{}`: {error}", dir.display()))?;
    }
    Ok(())
}

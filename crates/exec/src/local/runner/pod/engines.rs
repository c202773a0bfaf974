//! Which engines a runner has pods on, so that nothing stays there when the runner is killed.
//!
//! The list is a file of the runner's directory, written before the first pod of an engine begins. It names no secret.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use pitcrew_core::pod::PodFailure;
use pitcrew_core::state::Exit;

use super::super::Runner;
use super::super::attempt::{Attempt, StepEnd};
use super::super::process::{self, Spawned};
use super::super::reaper::Reaper;
use super::super::step::Followed;
use super::boxes::Maker;
use super::dirs::PodDirs;
use super::engine::{self, Door};
use super::{Letter, NoPod, keeper_argv, keeper_env};
use crate::docker::Registry;
use crate::docker::keeper::{self, Answer, EnginePlace, Finish, Order, Whose};
use crate::local::place::Place;
use crate::spec::{AttemptSpec, PodRun};

/// How long an engine has to answer a runner that starts or ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it has to tell what a pod left, and to remove it; and how long where somebody waits for the end.
const FINISHING: Duration = Duration::from_secs(660);
const REMOVING: Duration = Duration::from_secs(120);

pub struct Engines {
    file: PathBuf,
    token: String,
    /// This life of the runner, by which its pods are told from those of earlier ones.
    pub life: String,
    known: RefCell<BTreeSet<EnginePlace>>,
    /// Pods that are over and could not be removed.
    pub left: RefCell<Vec<String>>,
}

impl Engines {
    pub fn of(place: &Place, life: String) -> Engines {
        let file = place.dir().join("engines.json");
        let known = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Engines { file, token: place.token().to_owned(), life, known: RefCell::new(known), left: RefCell::default() }
    }

    /// Notes that this engine is used.
    pub fn note(&self, place: &EnginePlace) -> std::io::Result<()> {
        if !self.known.borrow_mut().insert(place.clone()) {
            return Ok(());
        }
        std::fs::write(&self.file, serde_json::to_vec(&*self.known.borrow())?)
    }

    /// Removes what other lives than `life` left at all engines. What cannot be reached now is removed before its next pod begins.
    pub async fn sweep(&self, reaper: &Reaper, life: &str) {
        let known: Vec<EnginePlace> = self.known.borrow().iter().cloned().collect();
        for place in known {
            let order = Order::Sweep { instance: self.token.clone(), life: life.to_owned() };
            let Ok(letter) = Letter::to_keeper(&keeper::Letter { place, order }) else { continue };
            if let Ok(spawned) = spawn(reaper, &letter)
                && tokio::time::timeout(PATIENCE, spawned.exit).await.is_err()
            {
                process::signal_group(spawned.pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Starts a keeper that is no container.
fn spawn(reaper: &Reaper, letter: &Letter) -> Result<Spawned, String> {
    let plan = process::Plan {
        argv: &keeper_argv(),
        env: &keeper_env(),
        workdir: std::path::Path::new("/"),
        cgroups: &[],
        open_files: None,
        stdin: Some(letter.for_box().map_err(|e| e.to_string())?),
    };
    process::spawn(reaper, plan)
}

/// Makes what the containers of a pod share at its engine, and finds out what its images are.
pub async fn prepare<'m>(
    attempt: &mut Attempt<'_>,
    spec: &'m AttemptSpec,
    run: &'m PodRun,
    dirs: &'m PodDirs,
    place: &EnginePlace,
    registries: &[Registry],
) -> Result<Maker<'m>, NoPod> {
    let passing = |message: String| NoPod::Failed { failure: PodFailure::Refused { message }, may_pass: true };
    let runner = attempt.runner;
    let engines = &runner.engines;
    let whose = Whose {
        instance: engines.token.clone(),
        life: engines.life.clone(),
        attempt: spec.id.to_string(),
        pod: engine::name(spec),
    };
    let mut order = engine::prepare(run, place, whose.clone()).map_err(NoPod::of)?;
    order.left = engines.left.take();
    order.registries = registries.to_vec();
    engines.note(place).map_err(|e| passing(format!("cannot note which engine is used: {e}")))?;
    let letter = Letter::to_keeper(&keeper::Letter { place: place.clone(), order: Order::Prepare(order) });
    let letter = letter.map_err(|e| passing(format!("cannot hand over its plan: {e}")))?;
    let spawned = attempt.start_box(&letter).map_err(passing)?;
    let followed = Followed { name: "its preparation", timeout: run.deadline, capture_stdout: false };
    let end = attempt.follow(0, &followed, spawned).await;
    let answer = letter.answer::<Answer>();
    let mut door = Door { place: place.clone(), whose, address: None };
    let made = match (end, answer) {
        (StepEnd::Ran { exit: exit @ (Exit::Cancelled | Exit::TimedOut), .. }, _) => Err(NoPod::Stopped(exit)),
        (StepEnd::NotStarted { reason }, _) => Err(passing(reason)),
        (StepEnd::Ran { .. }, Some(Ok(Answer::Prepared { images, address }))) => {
            door.address = address;
            Ok(images.into_iter().map(engine::image).collect())
        }
        (StepEnd::Ran { .. }, Some(Ok(Answer::Failed { failure, may_pass }))) => {
            Err(NoPod::Failed { failure, may_pass })
        }
        (StepEnd::Ran { exit, .. }, Some(Ok(Answer::Ended(_) | Answer::Done | Answer::Left(_)) | Err(_)) | None) => {
            Err(passing(format!("the process that prepared it ended: {exit}")))
        }
    };
    let made = made.and_then(|images| {
        let maker = Maker { spec, run, dirs, images, door: Some(door.clone()) };
        for (index, container) in run.pod.steps.iter().chain(&run.pod.sidecars).enumerate() {
            maker.follow(index, container, &door).map_err(NoPod::of)?;
        }
        Ok(maker)
    });
    if made.is_err() {
        // What it was to tell is told; that nothing is left is a matter of the next pod as well.
        let _ = finish(runner, &door, Vec::new(), true).await;
    }
    made
}

/// What became of the end of a pod.
pub enum Finished {
    /// What it left is here. The sentence says why something of it is still at its engine.
    Fetched(Result<(), String>),
    /// What it left did not come.
    Unknown(String),
}

/// Fetches what a pod left, and removes it. `is_waited_for`: an engine that is away is asked once.
pub async fn finish(runner: &Runner, door: &Door, fetch: Vec<(String, PathBuf)>, is_waited_for: bool) -> Finished {
    let order = Order::Finish(Finish { whose: door.whose.clone(), is_patient: !is_waited_for, fetch });
    let done = async {
        let letter =
            Letter::to_keeper(&keeper::Letter { place: door.place.clone(), order }).map_err(|e| e.to_string())?;
        let spawned = spawn(&runner.reaper, &letter)?;
        let patience = if is_waited_for { REMOVING } else { FINISHING };
        if tokio::time::timeout(patience, spawned.exit).await.is_err() {
            process::signal_group(spawned.pid, rustix::process::Signal::KILL);
        }
        match letter.answer::<Answer>() {
            Some(Ok(Answer::Done)) => Ok(None),
            Some(Ok(Answer::Left(problem))) => Ok(Some(problem)),
            Some(Ok(Answer::Failed { failure, .. })) => Err(super::words(&failure)),
            Some(Ok(Answer::Ended(_) | Answer::Prepared { .. }) | Err(_)) | None => {
                Err("its engine gave no answer in time".to_owned())
            }
        }
    };
    let done: Result<Option<String>, String> = done.await;
    if !matches!(done, Ok(None)) {
        runner.engines.left.borrow_mut().push(door.whose.pod.clone());
    }
    match done {
        Ok(None) => Finished::Fetched(Ok(())),
        Ok(Some(problem)) => Finished::Fetched(Err(format!(
            "what the pod was made of cannot be removed from its engine now, but when the next one begins there: {problem}"
        ))),
        Err(problem) => Finished::Unknown(format!("what the pod left cannot be fetched from its engine: {problem}")),
    }
}

//! Follows a run that this process works on until it is over, or until the person leaves.
//!
//! Ctrl-C once cancels the run and waits for what cleans up after it; twice leaves at once, and what runs goes on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_control::app::App;
use pitcrew_control::clock;
use pitcrew_control::scheduler::Changed;
use pitcrew_core::AttemptId;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{TaskIx, Workflow};
use pitcrew_core::state::{RunState, State};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::model::{Model, Taken};
use super::screen::Screen;
use super::tree::{Outline, Scene};
use super::{document, lines, tree};
use crate::cli::context::{Context, who};

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Frames between two looks at the logs of what runs.
const LOOK: u32 = 5;
/// Logs looked at, at most.
const LOGS: usize = 8;
/// Changes told at a time with exact figures from the store; a flood is told by what was heard.
const EXACT: usize = 32;
/// Failures shown with the end of their log.
const DETAILED: usize = 20;

/// How watching ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    Finished,
    /// The run goes on without anybody to steer it.
    Left,
}

pub struct Watch<'a> {
    app: &'a App,
    /// How to call this program, for hints.
    pitcrew: String,
    run: RunRecord,
    model: Model,
    outline: Outline,
    screen: Screen,
    changes: Receiver<Changed>,
    began: Timestamp,
    title: String,
    footer: &'static str,
    last_lines: HashMap<(TaskIx, i32), String>,
    failures: usize,
}

impl<'a> Watch<'a> {
    /// To be made right after the scheduler was started, so that little is missed.
    pub fn new(app: &'a App, context: &Context, run: RunRecord, workflow: Arc<Workflow>, screen: Screen) -> Watch<'a> {
        let changes = app.scheduler.subscribe();
        let model = Model::new(workflow);
        let outline = Outline::new(&model);
        let title = format!("{} run {}", run.workflow, run.key);
        Watch {
            app,
            pitcrew: context.pitcrew(),
            began: run.start.filter(|_| !run.state.is_final()).unwrap_or_else(clock::now),
            run,
            model,
            outline,
            screen,
            changes,
            title,
            footer: "  Ctrl-C cancels the run",
            last_lines: HashMap::new(),
            failures: 0,
        }
    }

    /// Watches until the end. `known`: how the tasks of a run that began earlier stood; what is different by now is told.
    pub async fn until_end(mut self, known: Option<&[InstanceRecord]>) -> anyhow::Result<Watched> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut frames = tokio::time::interval(FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut frame = 0u32;
        let mut leaving = false;
        let stored = self.app.store.run(self.run.key).await?;
        self.model.rows(known.unwrap_or_default());
        if known.is_some() || stored.is_none_or(|run| run.state != RunState::Queued) {
            self.catch_up().await?;
        }
        loop {
            tokio::select! {
                biased;
                () = stop(&mut interrupt, &mut terminate) => {
                    if std::mem::replace(&mut leaving, true) {
                        self.leave();
                        return Ok(Watched::Left);
                    }
                    self.cancel().await;
                }
                changed = self.changes.recv() => match changed {
                    Ok(changed) if changed.run != self.run.key => {}
                    Ok(changed) => {
                        self.take(&changed).await?;
                        if changed.finished {
                            self.end();
                            return Ok(Watched::Finished);
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        if self.catch_up().await? {
                            self.end();
                            return Ok(Watched::Finished);
                        }
                    }
                    Err(RecvError::Closed) => anyhow::bail!("the scheduler ended before the run did"),
                },
                _ = frames.tick(), if self.screen.live => {
                    if frame.is_multiple_of(LOOK) {
                        self.read_last_lines();
                    }
                    frame = frame.wrapping_add(1);
                    self.draw();
                }
            }
        }
    }

    /// Takes the whole state at once and tells what is new; says whether the run is over.
    async fn catch_up(&mut self) -> anyhow::Result<bool> {
        let taken = match self.app.scheduler.snapshot(self.run.key).await {
            Some(snapshot) => self.model.rows(&snapshot.instances),
            None => match self.app.store.stored_run(self.run.key).await? {
                Some(stored) => self.model.rows(&stored.instances),
                None => Vec::new(),
            },
        };
        self.tell(&taken).await?;
        let run = self.app.store.run(self.run.key).await?;
        Ok(run.is_some_and(|run| run.state.is_final()))
    }

    async fn take(&mut self, changed: &Changed) -> anyhow::Result<()> {
        let now = clock::now();
        let taken: Vec<Taken> = changed.steps.iter().filter_map(|step| self.model.step(step, now)).collect();
        self.tell(&taken).await
    }

    /// Writes lasting lines: on a terminal about failures only, since the picture shows the rest.
    async fn tell(&mut self, taken: &[Taken]) -> anyhow::Result<()> {
        let now = clock::now();
        let live = self.screen.live;
        let told = |taken: &&Taken| match taken.cell.state {
            State::Failed => true,
            State::UpForRetry { .. } => !live,
            state => !live && state.is_final(),
        };
        let told: Vec<&Taken> = taken.iter().filter(told).collect();
        let exact = told.len() <= EXACT;
        let mut rows = Vec::with_capacity(told.len());
        for taken in told {
            let failed = taken.cell.state == State::Failed;
            let wanted = exact || (failed && self.failures < DETAILED);
            self.failures += usize::from(failed);
            let task = &self.model.workflow.task(taken.task).id;
            let stored = match wanted {
                true => self.app.store.instance(self.run.key, task, taken.map_index).await?,
                false => None,
            };
            // The row may be ahead of this change already; the change is told as it was.
            let row = stored.filter(|row| row.state == taken.cell.state);
            rows.push(row.unwrap_or_else(|| rough(task.clone(), taken)));
        }
        let paint = self.screen.paint;
        if live {
            for row in rows.iter().filter(|row| !document::was_cancelled(row)) {
                let text = document::failure(&self.run, row, &self.pitcrew, paint);
                self.screen.lasting(&text);
            }
        } else {
            self.screen.lasting(&lines::lines(&self.run, &rows, &self.pitcrew, paint, now));
        }
        Ok(())
    }

    async fn cancel(&mut self) {
        let text = "cancelling: what runs is being stopped; Ctrl-C again leaves at once";
        self.screen.lasting(&format!("{}\n", self.screen.paint.yellow(text)));
        self.footer = "  cancelling; Ctrl-C again leaves at once";
        if let Err(error) = self.app.scheduler.cancel(self.run.key, &who()).await {
            self.screen.lasting(&format!("cannot cancel: {error}\n"));
        }
    }

    fn leave(&mut self) {
        let (key, pitcrew) = (self.run.key, &self.pitcrew);
        let text = format!(
            "left: run {key} is not over, and what runs of it goes on\n  \
             see it:        {pitcrew} runs show {key}\n  \
             its logs:      {pitcrew} logs {key}\n  \
             take it over:  {pitcrew} runs resume {key}\n"
        );
        self.screen.lasting(&text);
    }

    /// The last picture stays, if all of it can be seen.
    fn end(&mut self) {
        if !self.screen.live {
            return;
        }
        self.footer = "";
        self.last_lines.clear();
        let (_, height) = self.screen.size();
        if self.model.rows.len() + self.model.workflow.groups.len() + 4 < height {
            self.draw();
            self.screen.keep();
        } else {
            self.screen.draw(&[]);
        }
    }

    fn draw(&mut self) {
        let (width, height) = self.screen.size();
        let scene = Scene {
            model: &self.model,
            outline: &self.outline,
            title: &self.title,
            began: self.began,
            now: clock::now(),
            last_line: &|task, at| {
                let map_index = if self.model.rows[task.at()].mapped { at as i32 } else { UNMAPPED };
                self.last_lines.get(&(task, map_index)).cloned()
            },
            footer: self.footer,
        };
        let lines = tree::draw(&scene, self.screen.paint, width, height);
        self.screen.draw(&lines);
    }

    /// Reads the ends of a few logs. They are files of this machine, and only their ends are read.
    fn read_last_lines(&mut self) {
        self.last_lines.clear();
        for (ix, row) in self.model.workflow.indices().zip(&self.model.rows) {
            let Some(at) = row.cells.iter().position(|cell| cell.state == State::Running) else { continue };
            let map_index = if row.mapped { at as i32 } else { UNMAPPED };
            let task = self.model.workflow.task(ix).id.clone();
            let id = AttemptId { run: self.run.key, task, map_index, number: row.cells[at].attempt };
            let tail = pitcrew_exec::log::tail(&self.app.data.attempt(&id).join("log"), 1, 400);
            self.last_lines.insert((ix, map_index), tail);
            if self.last_lines.len() == LOGS {
                return;
            }
        }
    }
}

async fn stop(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A row with no more than what was heard.
fn rough(task: pitcrew_core::TaskId, taken: &Taken) -> InstanceRecord {
    InstanceRecord {
        task,
        map_index: taken.map_index,
        state: taken.cell.state,
        attempt: taken.cell.attempt,
        max_attempt: taken.cell.attempt,
        lost: 0,
        queued_at: None,
        start: taken.cell.start,
        end: taken.cell.end,
        exit: None,
        message: String::new(),
        outputs: Default::default(),
        item: None,
        followed: None,
        stop: None,
        skip: None,
    }
}

/// What a run is called in messages: `run 12 of nightly`.
pub fn name(run: &RunRecord) -> String {
    format!("run {} of {}", run.key, run.workflow)
}

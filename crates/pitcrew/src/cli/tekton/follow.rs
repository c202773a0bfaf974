//! Follows a run that this process works on: what its steps write is shown as it comes, a line at a time, as `tkn` shows it.
//!
//! Ctrl-C once cancels the run and waits for its end; twice leaves at once, and what runs goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_control::app::App;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::{Work, Workflow};
use pitcrew_core::state::State;
use pitcrew_exec::{LogRecord, LogStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use crate::cli::context::{Context, who};
use crate::cli::run::Watched;
use crate::cli::ui::{Paint, Ui};

/// Between two looks at logs that grow.
const LOOK: Duration = Duration::from_millis(100);
/// Read at a time.
const CHUNK: usize = 256 << 10;

/// Where lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Stdout,
    Stderr,
}

/// One attempt whose log is read.
#[derive(Default)]
struct Log {
    offset: u64,
    ended: bool,
    /// Lines whose end has not come yet.
    open: BTreeMap<(LogStream, u32), String>,
}

pub struct Follower<'a> {
    app: &'a App,
    ui: &'a Ui,
    to: To,
    run: RunRecord,
    workflow: &'a Workflow,
    logs: BTreeMap<(TaskId, i32, u32), Log>,
    /// Nobody reads any more; the run goes on all the same.
    dead: bool,
}

impl<'a> Follower<'a> {
    /// To be made right after the scheduler was started.
    pub fn new(app: &'a App, context: &'a Context, run: RunRecord, workflow: &'a Workflow, to: To) -> Follower<'a> {
        Follower { app, ui: &context.ui, to, run, workflow, logs: BTreeMap::new(), dead: false }
    }

    /// Shows what is written until the run is over.
    pub async fn until_end(mut self) -> anyhow::Result<Watched> {
        let mut changes = self.app.scheduler.subscribe();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut leaving = false;
        let key = self.run.key;
        loop {
            let mut over = false;
            tokio::select! {
                biased;
                _ = interrupt.recv() => if std::mem::replace(&mut leaving, true) { return Ok(self.leave()) } else { self.cancel().await },
                _ = terminate.recv() => if std::mem::replace(&mut leaving, true) { return Ok(self.leave()) } else { self.cancel().await },
                changed = changes.recv() => match changed {
                    Ok(changed) => over = changed.run == key && changed.finished,
                    Err(RecvError::Lagged(_)) => over = self.is_over().await?,
                    Err(RecvError::Closed) => anyhow::bail!("the scheduler ended before the run did"),
                },
                _ = looks.tick() => over = self.is_over().await?,
            }
            self.look().await?;
            if over {
                self.close();
                return Ok(Watched::Finished);
            }
        }
    }

    async fn is_over(&self) -> anyhow::Result<bool> {
        Ok(self.app.store.run(self.run.key).await?.is_none_or(|run| run.state.is_final()))
    }

    async fn cancel(&mut self) {
        self.ui.say("cancelling: what runs is being stopped; Ctrl-C again leaves at once");
        if let Err(error) = self.app.scheduler.cancel(self.run.key, &who()).await {
            self.ui.say(format!("cannot cancel: {error}"));
        }
    }

    fn leave(&self) -> Watched {
        self.ui.say(format!("left: run {} is not over, and what runs of it goes on", self.run.key));
        Watched::Left
    }

    /// Reads every log on from where it was.
    async fn look(&mut self) -> anyhow::Result<()> {
        let stored = self.app.store.stored_run(self.run.key).await?;
        for row in stored.into_iter().flat_map(|stored| stored.instances) {
            if row.attempt == 0 {
                self.say_why_not(&row);
                continue;
            }
            let newest = (row.task.clone(), row.map_index, row.attempt);
            if self.logs.get(&newest).is_some_and(|log| log.ended) {
                continue;
            }
            for attempt in self.app.store.attempts(self.run.key, &row.task, row.map_index).await? {
                self.read(&row, &attempt).await;
            }
        }
        Ok(())
    }

    /// A task that failed without an attempt, such as one that fits on no machine, has no log that would say so.
    fn say_why_not(&mut self, row: &InstanceRecord) {
        let is_told = || self.logs.contains_key(&(row.task.clone(), row.map_index, 0));
        if row.state == State::Failed && !row.message.is_empty() && !is_told() {
            self.logs.insert((row.task.clone(), row.map_index, 0), Log { ended: true, ..Log::default() });
            self.write(&row.task, row.map_index, LogStream::System, 0, &row.message);
        }
    }

    async fn read(&mut self, row: &InstanceRecord, attempt: &AttemptRecord) {
        let mut log = self.logs.remove(&(row.task.clone(), row.map_index, attempt.number)).unwrap_or_default();
        while !log.ended {
            // One that did not begin has no log yet.
            let Ok(chunk) = self.app.logs(attempt, log.offset, CHUNK).await else { break };
            let more = chunk.next_offset > log.offset;
            // What ended before it began has none, and will have none.
            log.ended = chunk.ended || (attempt.exit.is_some() && !more);
            log.offset = chunk.next_offset;
            for record in chunk.records {
                self.take(row, &mut log, record);
            }
            if !more {
                break;
            }
        }
        self.logs.insert((row.task.clone(), row.map_index, attempt.number), log);
    }

    fn take(&mut self, row: &InstanceRecord, log: &mut Log, record: LogRecord) {
        let mut line = log.open.remove(&(record.stream, record.step)).unwrap_or_default();
        line.push_str(&record.text);
        if record.continues {
            log.open.insert((record.stream, record.step), line);
            return;
        }
        self.write(&row.task, row.map_index, record.stream, record.step, &line);
    }

    fn write(&mut self, task: &TaskId, map_index: i32, stream: LogStream, step: u32, line: &str) {
        if self.dead {
            return;
        }
        let paint = match self.to {
            To::Stdout => self.ui.out,
            To::Stderr => self.ui.err,
        };
        let text = line_of(&self.names(task, map_index, step), stream, line, paint);
        match self.to {
            To::Stdout => self.dead = self.ui.print(&text).is_err(),
            To::Stderr => self.ui.say(text.trim_end_matches('\n')),
        }
    }

    /// The task as the pipeline calls it, and the step.
    fn names(&self, task: &TaskId, map_index: i32, step: u32) -> (String, String) {
        let mut name = task.to_string();
        if map_index != UNMAPPED {
            name.push_str(&format!("-{map_index}"));
        }
        (name, step_name(self.workflow, task, step))
    }

    /// Writes lines that never got their end.
    fn close(&mut self) {
        for ((task, map_index, _), log) in std::mem::take(&mut self.logs) {
            for ((stream, step), line) in log.open {
                self.write(&task, map_index, stream, step, &line);
            }
        }
    }
}

/// `[task : step] text`; what this program says itself has no step.
pub fn line_of((task, step): &(String, String), stream: LogStream, line: &str, paint: Paint) -> String {
    match stream {
        LogStream::System => format!("{} {}\n", paint.cyan(format!("[{task}]")), paint.dim(line)),
        LogStream::Stdout | LogStream::Stderr => format!("{} {line}\n", paint.cyan(format!("[{task} : {step}]"))),
    }
}

/// What a step is called, without its prefix; one without a name is called by its place.
pub fn step_name(workflow: &Workflow, task: &TaskId, step: u32) -> String {
    let ix = workflow.by_name.get(task).copied();
    let template = match ix.map(|ix| &workflow.task(ix).work) {
        Some(Work::Pod { template }) => Some(template),
        _ => None,
    };
    let spec = template.map(|template| &template["spec"]);
    let list = |field: &str| spec.and_then(|spec| spec[field].as_array()).map(Vec::as_slice).unwrap_or_default();
    let (steps, sidecars, at) = (list("steps"), list("sidecars"), step as usize);
    let named = |of: &serde_json::Value| of["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    match (steps.get(at), at.checked_sub(steps.len()).and_then(|at| sidecars.get(at))) {
        (Some(step), _) => named(step).unwrap_or_else(|| format!("unnamed-{at}")),
        (None, Some(sidecar)) => {
            format!("sidecar-{}", named(sidecar).unwrap_or_else(|| (at - steps.len()).to_string()))
        }
        (None, None) => format!("step-{at}"),
    }
}

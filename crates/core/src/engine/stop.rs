//! The end of a run before its tasks have ended: a person, a failure, time, or a workflow that cannot run at all.
//!
//! A run is stopped so far as [`StopHow`] says, which follows from [`RunStop`]; asked again, it is only stopped further.
//! Invariant: what `record.stop` says is true of the instances when a step is over, so a restart need only look again; and
//! the timers of the run are those that could still change how far it is stopped.

use jiff::Timestamp;

use super::apply::Step;
use super::attempt::saturating_add;
use super::record::{RunStop, SkipReason, Stop, StopHow};
use super::{Cancel, Run, Slot, Timer};
use crate::ir::{Kind, OnFailure, Refusal, TaskIx};
use crate::state::{Change, RunState, State};

/// Of the whole run, of its tasks, and of its `finally` tasks.
pub(super) type RunTimers = [Option<(Timestamp, Timer)>; 3];

impl Run {
    /// How far the run is being stopped, if it is.
    pub(crate) fn stopping(&self) -> Option<StopHow> {
        let stop = self.record.stop.as_ref()?;
        Some(match stop {
            RunStop::Cancelled { how, .. } => *how,
            RunStop::Drain { .. } => StopHow::DrainThenFinally,
            RunStop::FailFast { .. } | RunStop::TasksTimedOut => StopHow::ThenFinally,
            RunStop::TimedOut => self.end_of_time(),
            RunStop::FinallyTimedOut | RunStop::Refused { .. } => StopHow::Everything,
        })
    }

    /// How far the end of its whole time stops a run.
    fn end_of_time(&self) -> StopHow {
        if self.workflow.timeouts.ends_finally { StopHow::Everything } else { StopHow::ThenFinally }
    }

    /// The run is being stopped, and attempts of the task are not repeated.
    pub(super) fn is_stopping(&self, task: TaskIx) -> bool {
        match self.stopping() {
            None | Some(StopHow::DrainThenFinally) => false,
            Some(StopHow::ThenFinally) => !self.is_cleanup(task),
            Some(StopHow::Everything) => true,
        }
    }

    /// Why a stopped run does not start this instance any more.
    pub(crate) fn skipped_by_stop(&self, slot: Slot) -> Option<SkipReason> {
        let goes_on = match self.stopping()? {
            StopHow::DrainThenFinally => self.is_cleanup(slot.task) || self.has_begun(slot),
            StopHow::ThenFinally => self.is_cleanup(slot.task),
            StopHow::Everything => false,
        };
        let stop = self.record.stop.as_ref().filter(|_| !goes_on)?;
        Some(match stop {
            RunStop::Cancelled { how: StopHow::DrainThenFinally, .. } => SkipReason::Stopped,
            RunStop::Cancelled { how: StopHow::ThenFinally | StopHow::Everything, .. } => SkipReason::Cancelled,
            RunStop::TimedOut => SkipReason::RunTimeout,
            RunStop::TasksTimedOut => SkipReason::TasksTimeout,
            RunStop::FinallyTimedOut => SkipReason::FinallyTimeout,
            RunStop::FailFast { .. } | RunStop::Drain { .. } | RunStop::Refused { .. } => SkipReason::Stopping,
        })
    }

    /// Its workflow cannot run; nor can parts of it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.record.stop, Some(RunStop::Refused { .. }))
    }

    /// An attempt of it was begun, and it was not cleared since.
    fn has_begun(&self, slot: Slot) -> bool {
        let instance = self.instance(slot);
        instance.attempt > 0 && instance.queued_at.is_some()
    }

    /// The sentence for an instance that a stopped run does not start any more.
    pub(super) fn words_of_stop(&self, reason: SkipReason) -> String {
        match &self.record.stop {
            Some(RunStop::FailFast { task }) => format!("`{task}` failed, and the workflow fails fast"),
            Some(RunStop::Drain { task }) => format!("`{task}` failed, and nothing new begins"),
            _ => reason.sentence().to_owned(),
        }
    }

    /// The end of the run's time, and of that of its tasks, counted from its start.
    pub(super) fn ends(&self) -> [Option<Timestamp>; 2] {
        let timeouts = &self.workflow.timeouts;
        [timeouts.run, timeouts.tasks].map(|time| Some(saturating_add(self.record.start?, time?)))
    }

    /// Those that can still change how far the run is stopped.
    fn run_timers(&self) -> RunTimers {
        if self.record.state != RunState::Running {
            return RunTimers::default();
        }
        let further = |how: StopHow| self.stopping() < Some(how);
        let [run, tasks] = self.ends();
        let finally = self.workflow.timeouts.finally.zip(self.record.finally_start);
        let finally = finally.map(|(time, start)| saturating_add(start, time));
        let has_tasks = !self.ordinary.all_done();
        [
            run.filter(|_| further(self.end_of_time())).map(|at| (at, Timer::RunTimeout)),
            tasks.filter(|_| has_tasks && further(StopHow::ThenFinally)).map(|at| (at, Timer::TasksTimeout)),
            finally
                .filter(|_| self.finally_open > 0 && further(StopHow::Everything))
                .map(|at| (at, Timer::FinallyTimeout)),
        ]
    }

    /// Makes the timers of the run what they are to be.
    pub(super) fn arm_run_timers(&mut self) {
        let wanted = self.run_timers();
        for (armed, wanted) in self.armed.iter_mut().zip(wanted) {
            if *armed != wanted {
                if let Some(old) = armed {
                    self.timers.remove(old);
                }
                self.timers.extend(wanted);
                *armed = wanted;
            }
        }
    }
}

impl Step<'_> {
    /// A person wants the run to stop. Asked a second time to end what runs, it ends what cleans up, too.
    pub(super) fn cancel(&mut self, by: String, how: StopHow) {
        let before = match &self.run.record.stop {
            Some(RunStop::Cancelled { how, .. }) => Some(*how),
            _ => None,
        };
        let again = how >= StopHow::ThenFinally && before >= Some(StopHow::ThenFinally);
        let how = self.run.stopping().map_or(how, |now| now.max(how));
        match self.run.record.state {
            RunState::Success | RunState::Failed | RunState::Cancelled => {}
            RunState::Queued => {
                self.run.record.stop = Some(RunStop::Cancelled { by, how });
                self.run.record.state = RunState::Cancelled;
                self.run.record.end = Some(self.now);
                self.fx.run_changed = true;
                self.fx.finished = true;
            }
            RunState::Running => {
                self.set_stop(RunStop::Cancelled { by, how });
                self.enforce_stop(again);
            }
        }
    }

    /// A time is over. One who stopped the run before that is still who stopped it.
    pub(super) fn out_of_time(&mut self, stop: RunStop) {
        let run = &self.run;
        let (still_open, how) = match stop {
            RunStop::TasksTimedOut => (!run.ordinary.all_done(), StopHow::ThenFinally),
            RunStop::FinallyTimedOut => (run.finally_open > 0, StopHow::Everything),
            _ => (true, run.end_of_time()),
        };
        if run.record.state != RunState::Running || !still_open || run.stopping() >= Some(how) {
            return;
        }
        let stop = match run.record.stop.clone() {
            Some(RunStop::Cancelled { by, .. }) => RunStop::Cancelled { by, how },
            _ => stop,
        };
        self.set_stop(stop);
        self.enforce_stop(false);
    }

    fn set_stop(&mut self, stop: RunStop) {
        self.run.record.stop = Some(stop);
        self.fx.run_changed = true;
    }

    /// A run of a workflow that cannot run.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let Refusal { reason, message } = refusal;
        self.set_stop(RunStop::Refused { reason, message });
        self.run.record.state = RunState::Failed;
        self.run.record.end = Some(self.now);
        self.fx.finished = true;
    }

    /// A task failed for good. Only the first that does stops others.
    pub(super) fn after_failure(&mut self, task: TaskIx) {
        let workflow = self.run.workflow.clone();
        let task = workflow.task(task);
        if self.run.record.stop.is_some() || !matches!(task.kind, Kind::Normal | Kind::Setup) {
            return;
        }
        let task = task.id.clone();
        match workflow.on_failure {
            OnFailure::GoOn => return,
            OnFailure::Drain => self.set_stop(RunStop::Drain { task }),
            OnFailure::Stop => self.set_stop(RunStop::FailFast { task }),
        }
        self.enforce_stop(false);
    }

    /// Makes the instances agree with `record.stop`; harmless when they already do.
    pub(super) fn enforce_stop(&mut self, cleanup_too: bool) {
        let slots: Vec<Slot> = self.run.all_slots().collect();
        for slot in slots {
            let (reason, message) = match self.run.skipped_by_stop(slot) {
                None if cleanup_too => (SkipReason::Cancelled, "the run was cancelled twice".to_owned()),
                None => continue,
                Some(reason) => (reason, self.run.words_of_stop(reason)),
            };
            match self.run.instance(slot).state {
                State::Queued | State::Running => {
                    let go_on = match self.run.instance(slot).stop {
                        None => true,
                        // What was to run again does not any more.
                        Some(Stop::Cleared | Stop::Preempted | Stop::Gang | Stop::Recovery) => true,
                        Some(Stop::TimedOut) => cleanup_too,
                        Some(Stop::Cancelled | Stop::MarkedSuccess | Stop::MarkedFailed) => false,
                    };
                    if go_on {
                        self.stop_attempt(slot, Stop::Cancelled);
                    }
                }
                State::UpForRetry { .. } | State::Recovering => self.change(slot, Change::Fail),
                // A member of a gang that has ended becomes what its mates become.
                State::Deferred if self.run.is_member(slot) => {}
                State::None | State::Scheduled | State::UpForReschedule { .. } | State::Deferred => {
                    self.skip(slot, reason, message);
                }
                State::Success | State::Failed | State::Skipped | State::UpstreamFailed | State::Removed => {}
            }
        }
    }

    /// Asks the backend to end a live attempt; its report brings the change of state.
    pub(super) fn stop_attempt(&mut self, slot: Slot, stop: Stop) {
        let grace = self.run.workflow.task(slot.task).grace;
        self.run.disarm_timeout(slot);
        let instance = self.run.instance_mut(slot);
        instance.stop = Some(stop);
        let attempt = instance.attempt;
        self.fx.changed.insert(slot);
        self.fx.cancel.push(Cancel { slot, attempt, grace });
    }
}

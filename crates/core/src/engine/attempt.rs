//! The life of an attempt inside the engine: admitted, started, ended; and what its end means for its instance.
//!
//! Invariant: an instance has at most one live attempt, and only the report with its number is believed.

use jiff::{SignedDuration, Timestamp};

use super::apply::Step;
use super::record::Stop;
use super::{Launch, MAX_LOST, Report, Slot, Timer};
use crate::state::{Change, Exit, State};

impl Step<'_> {
    pub(super) fn admitted(&mut self, slot: Slot) {
        if let Some(members) = self.run.members(slot.task) {
            return self.gang_admitted(members);
        }
        match self.run.get(slot) {
            Some(instance) if instance.offered => {}
            // Told twice; what it holds is its live attempt's.
            Some(instance) if instance.state.is_live() => return,
            // The offer was taken back while it was being granted.
            Some(_) | None => return self.fx.released.push(slot),
        }
        let attempt = self.begin_attempt(slot);
        self.fx.launch.push(Launch { slot, attempt });
    }

    pub(super) fn begin_attempt(&mut self, slot: Slot) -> u32 {
        let now = self.now;
        let instance = self.run.instance_mut(slot);
        instance.offered = false;
        instance.attempt += 1;
        instance.queued_at = Some(now);
        (instance.start, instance.end, instance.exit, instance.stop) = (None, None, None, None);
        instance.message.clear();
        instance.outputs.clear();
        let attempt = instance.attempt;
        self.change(slot, Change::Admit);
        let counts = self.run.is_finally(slot.task) && self.run.workflow.timeouts.finally.is_some();
        if counts && self.run.record.finally_start.is_none() {
            self.run.record.finally_start = Some(now);
            self.fx.run_changed = true;
        }
        attempt
    }

    pub(super) fn refused(&mut self, slot: Slot, reason: String) {
        if self.run.get(slot).is_some_and(|i| i.state == State::Scheduled) {
            for mate in self.run.with_mates(slot) {
                self.run.instance_mut(mate).exit = Some(Exit::cannot_start(reason.clone()));
            }
            self.fail_all_of(slot, reason);
        }
    }

    /// Ends a live attempt that is not being ended anyway, and those of its gang.
    pub(super) fn preempt(&mut self, slot: Slot, reason: String) {
        if self.run.get(slot).is_none() {
            return;
        }
        for mate in self.run.with_mates(slot) {
            let instance = self.run.instance_mut(mate);
            if instance.state.is_live() && instance.stop.is_none() {
                instance.message.clone_from(&reason);
                self.stop_attempt(mate, Stop::Preempted);
            }
        }
    }

    fn is_current(&mut self, slot: Slot, attempt: u32) -> bool {
        let current = self.run.get(slot).is_some_and(|i| i.attempt == attempt && i.state.is_live());
        if !current {
            self.run.stale_reports += 1;
        }
        current
    }

    pub(super) fn started(&mut self, slot: Slot, attempt: u32, at: Timestamp) {
        if !self.is_current(slot, attempt) || self.run.instance(slot).state == State::Running {
            return;
        }
        self.run.instance_mut(slot).start = Some(at);
        self.change(slot, Change::Start);
        self.run.arm_timeout(slot);
    }

    pub(super) fn ended(&mut self, slot: Slot, attempt: u32, report: Report) {
        if !self.is_current(slot, attempt) {
            return;
        }
        self.fx.released.push(slot);
        self.run.leave(slot);
        self.run.disarm_timeout(slot);
        let instance = self.run.instance_mut(slot);
        let start = instance.start.or(report.started_at).unwrap_or(report.at);
        instance.start = Some(start);
        instance.end = Some(report.at.max(start));
        let stop = instance.stop.take();
        // Why it had to end tells more than the end of its log.
        if !matches!(stop, Some(Stop::Preempted | Stop::Gang | Stop::Recovery)) || report.exit.is_success() {
            instance.message.clone_from(&report.message);
        }
        let success = report.exit.is_success() && report.error.is_none();
        instance.exit = Some(match stop {
            Some(Stop::TimedOut) if !success => Exit::TimedOut,
            Some(_) if !success => Exit::Cancelled,
            _ => report.exit.clone(),
        });
        if stop != Some(Stop::Cleared) && self.run.workflow.task(slot.task).keeps_outputs() {
            self.run.instance_mut(slot).outputs.clone_from(&report.outputs);
        }
        if self.run.is_member(slot) {
            let skips = &self.run.workflow.task(slot.task).skip_exit_codes;
            let is_skip = matches!(report.exit, Exit::Code { code } if skips.contains(&code));
            return self.member_ended(slot, stop, report, success || (is_skip && stop.is_none()));
        }
        match stop {
            Some(Stop::Cleared) => return self.clear_ended(slot),
            Some(Stop::MarkedSuccess) => return self.change(slot, Change::Succeed),
            Some(Stop::MarkedFailed) => return self.fail_as_said(vec![slot]),
            Some(Stop::TimedOut | Stop::Cancelled | Stop::Preempted | Stop::Gang | Stop::Recovery) | None => {}
        }
        if success {
            self.run.instance_mut(slot).outputs = report.outputs;
            return self.succeed(slot);
        }
        if let Some(error) = report.error.filter(|_| !matches!(stop, Some(Stop::Preempted | Stop::Recovery))) {
            self.run.instance_mut(slot).message = error;
        }
        let exits = &self.run.workflow.task(slot.task).skip_exit_codes;
        match stop {
            // Not the first failure, so it stops nobody else.
            Some(Stop::Cancelled) => return self.change(slot, Change::Fail),
            Some(Stop::Preempted) => return self.retry_preempted(slot),
            Some(Stop::Recovery) => return self.wait_for_verdict(slot),
            Some(Stop::TimedOut) => {}
            Some(Stop::Cleared | Stop::MarkedSuccess | Stop::MarkedFailed | Stop::Gang) | None => {
                if matches!(report.exit, Exit::Code { code } if exits.contains(&code)) {
                    return self.change(slot, Change::Skip);
                }
            }
        }
        if report.held && !self.cannot_start(&[slot]) {
            return self.wait_for_verdict(slot);
        }
        self.judge(slot);
    }

    /// What its failure leads to, by how it ended.
    pub(super) fn judge(&mut self, slot: Slot) {
        if self.cannot_start(&[slot]) {
            return self.fail_for_good(slot);
        }
        match self.run.instance(slot).exit {
            Some(Exit::Lost { .. }) => self.retry_lost(slot),
            Some(
                Exit::Code { .. }
                | Exit::Signal { .. }
                | Exit::OutOfMemory
                | Exit::TimedOut
                | Exit::Cancelled
                | Exit::StartFailed { .. },
            )
            | None => self.retry_failed(slot),
        }
    }

    /// The attempt went down with its machine. That is not the task's fault and does not count against its retries.
    fn retry_lost(&mut self, slot: Slot) {
        let stopping = self.run.is_stopping(slot.task);
        let now = self.now;
        let instance = self.run.instance_mut(slot);
        instance.lost += 1;
        if instance.lost > MAX_LOST || stopping {
            return self.fail_for_good(slot);
        }
        instance.max_attempt += 1;
        let at = saturating_add(now, SignedDuration::from_secs(i64::from(instance.lost) - 1));
        self.change(slot, Change::Retry { at });
        self.wake(slot);
    }

    /// It made room for another: it waits for room again at once.
    fn retry_preempted(&mut self, slot: Slot) {
        if self.run.is_stopping(slot.task) {
            return self.fail_for_good(slot);
        }
        let at = self.now;
        self.run.instance_mut(slot).max_attempt += 1;
        self.change(slot, Change::Retry { at });
        self.wake(slot);
    }

    pub(super) fn retry_failed(&mut self, slot: Slot) {
        let stopping = self.run.is_stopping(slot.task);
        let instance = self.run.instance(slot);
        if instance.attempt >= instance.max_attempt || stopping {
            return self.fail_for_good(slot);
        }
        let at = self.run.retry_at(slot, instance.end.unwrap_or(self.now));
        self.change(slot, Change::Retry { at });
        self.wake(slot);
    }

    pub(super) fn fail_for_good(&mut self, slot: Slot) {
        self.all_fail(vec![slot]);
    }

    /// Instances of one task, steered together, fail for good; or succeed like that, where their failure is ignored. A run
    /// that ends them is not their failure.
    pub(super) fn all_fail(&mut self, slots: Vec<Slot>) {
        let task = slots[0].task;
        if self.run.workflow.task(task).ignore_failure && !self.run.is_stopping(task) {
            return self.end_as(slots, Change::Forgive);
        }
        self.fail_as_said(slots);
    }

    /// They fail, also where that would be ignored.
    pub(super) fn fail_as_said(&mut self, slots: Vec<Slot>) {
        let task = slots[0].task;
        self.end_as(slots, Change::Fail);
        self.after_failure(task);
    }

    pub(super) fn end_as(&mut self, slots: Vec<Slot>, change: Change) {
        for slot in slots {
            self.run.instance_mut(slot).stop = None;
            self.change(slot, change);
        }
    }

    /// Marks a success, and lets its branch decide which way to go on.
    pub(super) fn succeed(&mut self, slot: Slot) {
        let workflow = self.run.workflow.clone();
        if workflow.task(slot.task).branch.is_none() {
            return self.change(slot, Change::Succeed);
        }
        let names = match self.eval.branch(self.run, slot) {
            Ok(names) => names,
            Err(error) => return self.fail(slot, error),
        };
        let mut followed = Vec::new();
        for name in names {
            let sibling = workflow.task(slot.task).group.map(|g| format!("{}.{name}", workflow.group(g).id));
            let found = sibling.and_then(|full| workflow.find(&full)).or_else(|| workflow.find(&name));
            match found.filter(|ix| workflow.downstream[slot.task.at()].contains(ix)) {
                Some(ix) => followed.push(ix),
                None => {
                    let error =
                        format!("`branch`: `{name}` is not a task that needs `{}`", workflow.task(slot.task).id);
                    return self.fail(slot, error);
                }
            }
        }
        self.run.instance_mut(slot).followed = Some(followed);
        self.change(slot, Change::Succeed);
    }
}

impl super::Run {
    /// When an attempt that failed and ended then is followed by the next.
    pub(super) fn retry_at(&self, slot: Slot, end: Timestamp) -> Timestamp {
        let instance = self.instance(slot);
        let policy = self.workflow.task(slot.task).retry;
        // Counted since the last clear, and without those that were lost.
        let tries = (policy.retries + 1).saturating_sub(instance.max_attempt - instance.attempt).max(1);
        saturating_add(end, policy.delay_after(&self.attempt_id(slot, instance.attempt), tries))
    }

    /// Arms the timeout of a running attempt, counted from its start. One that is being stopped has none.
    pub(super) fn arm_timeout(&mut self, slot: Slot) {
        if self.instance(slot).stop.is_none() {
            self.timers.extend(self.timeout_of(slot));
        }
    }

    pub(super) fn disarm_timeout(&mut self, slot: Slot) {
        if let Some(timer) = self.timeout_of(slot) {
            self.timers.remove(&timer);
        }
    }

    pub(super) fn timeout_of(&self, slot: Slot) -> Option<(Timestamp, Timer)> {
        let instance = self.instance(slot);
        let timeout = self.workflow.task(slot.task).timeout?;
        (instance.state == State::Running).then_some(())?;
        Some((saturating_add(instance.start?, timeout), Timer::Timeout(slot, instance.attempt)))
    }

    /// Runs even when the run is being stopped.
    pub(crate) fn is_cleanup(&self, task: crate::ir::TaskIx) -> bool {
        let task = self.workflow.task(task);
        task.is_teardown() || task.kind == crate::ir::Kind::Finally
    }
}

/// Far times end at the last one that can be written.
pub(super) fn saturating_add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

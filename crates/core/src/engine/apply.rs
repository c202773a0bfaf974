//! One step of a run: an event comes in, instances change, and each change wakes the instances after it.
//!
//! Invariant: when [`Run::apply`] returns, no instance is `none` whose rule already has an answer, and the counts of
//! what each instance needs agree with the states (see `sanity`). Waking goes through a queue, so a chain of 100,000
//! tasks needs no deep stack.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;

use super::record::{RunStop, SkipReason, Stop};
use super::{Answer, Effects, Evaluate, Event, Run, Slot, Timer, Transition, must};
use crate::ir::{GroupIx, Kind, MapUnit, TaskIx, Work};
use crate::state::{Change, RunState, State};
use crate::trigger_rule::Verdict;

/// The event being applied: the run, and everything that the event leads to.
pub(super) struct Step<'a> {
    pub run: &'a mut Run,
    pub now: Timestamp,
    pub eval: &'a dyn Evaluate,
    pub fx: Effects,
    /// Instances to look at again.
    pub queue: VecDeque<Slot>,
    /// Indices of mapped groups at which something ended.
    pub left: BTreeSet<(GroupIx, u32)>,
}

impl Run {
    /// Takes one event. Returns what must be written, then done; see [`Effects`].
    ///
    /// An event that does not fit (a report of an older attempt, a cancel of a finished run) changes nothing.
    pub fn apply(&mut self, event: Event, now: Timestamp, eval: &dyn Evaluate) -> Effects {
        self.step(now, eval, |step| step.take(event))
    }

    pub(super) fn step(&mut self, now: Timestamp, eval: &dyn Evaluate, act: impl FnOnce(&mut Step)) -> Effects {
        let mut step =
            Step { run: self, now, eval, fx: Effects::default(), queue: VecDeque::new(), left: BTreeSet::new() };
        act(&mut step);
        step.settle();
        step.fx
    }
}

impl Step<'_> {
    fn take(&mut self, event: Event) {
        match event {
            Event::Begin => self.begin(),
            Event::Tick => self.tick(),
            Event::Admitted(slot) => self.admitted(slot),
            Event::Refused { slot, reason } => self.refused(slot, reason),
            Event::Preempt { slot, reason } => self.preempt(slot, reason),
            Event::Started { slot, attempt, at } => self.started(slot, attempt, at),
            Event::Ended { slot, attempt, report } => self.ended(slot, attempt, report),
            Event::Suspect { slot, reason } => self.suspect(slot, reason),
            Event::Recovered { slot, attempt, verdict } => self.recovered(slot, attempt, verdict),
            Event::Past { task, allows } => self.past(task, allows),
            Event::Cancel { by, how } => self.cancel(by, how),
            Event::Clear { slots, downstream } => self.clear(slots, downstream),
            Event::Mark { slot, success } => self.mark(slot, success),
            Event::Output { slot, name, value } => self.put_output(slot, name, value),
            Event::Note { text } => {
                self.run.record.note = text;
                self.fx.run_changed = true;
            }
        }
    }

    fn put_output(&mut self, slot: Slot, name: String, value: Option<serde_json::Value>) {
        if self.run.get(slot).is_none() {
            return;
        }
        let outputs = &mut self.run.instance_mut(slot).outputs;
        match value {
            Some(value) => drop(outputs.insert(name, value)),
            None => drop(outputs.remove(&name)),
        }
        self.fx.changed.insert(slot);
    }

    /// Looks at everything that was woken, then at the run itself.
    fn settle(&mut self) {
        loop {
            while let Some(slot) = self.queue.pop_front() {
                self.evaluate(slot);
            }
            self.free_groups();
            if !self.offer_waiting() && self.queue.is_empty() {
                break;
            }
        }
        self.drop_dead_offers();
        self.finish_if_done();
        self.run.arm_run_timers();
    }

    fn begin(&mut self) {
        if self.run.record.state != RunState::Queued {
            return;
        }
        self.run.record.state = RunState::Running;
        self.run.record.start = Some(self.now);
        self.fx.run_changed = true;
        if let Some(refusal) = self.run.workflow.refusal.clone() {
            return self.refuse(refusal);
        }
        self.wake_all();
    }

    pub(super) fn wake_all(&mut self) {
        let slots: Vec<Slot> =
            self.run.all_slots().filter(|slot| self.run.instance(*slot).state == State::None).collect();
        self.queue.extend(slots);
    }

    pub(super) fn tick(&mut self) {
        while let Some((at, timer)) = self.run.timers.first().copied() {
            if at > self.now {
                break;
            }
            self.run.timers.pop_first();
            match timer {
                Timer::Wake(slot) => self.wake(slot),
                Timer::Timeout(slot, attempt) => {
                    // One that is being stopped for another reason keeps that reason.
                    let fits = |i: &super::Instance| i.attempt == attempt && i.state.is_live() && i.stop.is_none();
                    if self.run.get(slot).is_some_and(fits) {
                        self.stop_all(slot, Stop::TimedOut);
                    }
                }
                Timer::RunTimeout => self.out_of_time(RunStop::TimedOut),
                Timer::TasksTimeout => self.out_of_time(RunStop::TasksTimedOut),
                Timer::FinallyTimeout => self.out_of_time(RunStop::FinallyTimedOut),
            }
        }
    }

    /// The wait of a retry is over. What it needs may have been cleared meanwhile; then it waits for that again.
    pub(super) fn wake(&mut self, slot: Slot) {
        let due = self.run.get(slot).and_then(|i| i.state.wakes_at()).is_some_and(|at| at <= self.now);
        if !due {
            return;
        }
        if self.run.stays_ready(slot) {
            self.change(slot, Change::Resume);
            self.offer(slot);
        } else {
            self.wait_again(slot);
        }
    }

    /// An instance that was ready, or was to be tried again, asks for its answer anew.
    pub(super) fn wait_again(&mut self, slot: Slot) {
        self.change(slot, Change::Clear);
        self.queue.push_back(slot);
    }

    fn past(&mut self, task: TaskIx, allows: bool) {
        if task.at() >= self.run.tasks.len() {
            return;
        }
        self.run.tasks[task.at()].past = Some(allows);
        for slot in self.run.slots(task) {
            self.queue.push_back(slot);
            if !self.run.past_allows(task) && self.run.instance(slot).state == State::Scheduled {
                self.wait_again(slot);
            }
        }
    }

    /// Decides about an instance that waits. Does nothing for any other, or when it cannot be said yet.
    fn evaluate(&mut self, slot: Slot) {
        let running = self.run.record.state == RunState::Running;
        if !running || self.run.get(slot).is_none_or(|i| i.state != State::None) {
            return;
        }
        let workflow = self.run.workflow.clone();
        let task = workflow.task(slot.task);
        if let Some(reason) = self.run.skipped_by_stop(slot) {
            return self.skip(slot, reason, self.run.words_of_stop(reason));
        }
        if let Some(branch) = self.run.branched_away(slot) {
            let message = format!("`{}` took another branch", workflow.task(branch).id);
            return self.skip(slot, SkipReason::Rule, message);
        }
        match self.run.verdict(slot) {
            Verdict::Skip => return self.skip(slot, SkipReason::Rule, String::new()),
            Verdict::UpstreamFailed => return self.change(slot, Change::FailUpstream),
            Verdict::Wait => return,
            Verdict::Run => {}
        }
        if !self.run.past_allows(slot.task) {
            return;
        }
        let needs_items = !self.run.has_items(slot.task);
        if needs_items && self.run.waits_for_items_of(slot).is_some() {
            return;
        }
        if self.run.is_asked(slot.task, needs_items) && !self.may_go(slot) {
            return;
        }
        if needs_items {
            return self.find_items(slot);
        }
        self.change(slot, Change::Ready);
        if task.work == Work::Noop {
            let instance = self.run.instance_mut(slot);
            (instance.start, instance.end) = (Some(self.now), Some(self.now));
            self.succeed(slot);
        } else {
            self.offer(slot);
        }
    }

    /// Asks its `when`; an instance that may not go ends here.
    fn may_go(&mut self, slot: Slot) -> bool {
        match self.when(slot) {
            Ok(Answer::Go) => return true,
            Ok(Answer::Skip(reason)) => self.skip(slot, reason, reason.sentence().to_owned()),
            Ok(Answer::Invalid(error)) => {
                for mate in self.run.with_mates(slot) {
                    let instance = self.run.instance_mut(mate);
                    if instance.state.is_final() {
                        continue;
                    }
                    instance.message.clone_from(&error);
                    instance.skip = Some(SkipReason::Invalid);
                    self.change(mate, Change::Fail);
                }
            }
            Err(error) => self.fail_all_of(slot, error),
        }
        false
    }

    /// Asked once, of a gang for its first member: the answer may be another a moment later, and its members go together.
    fn when(&self, slot: Slot) -> Result<Answer, String> {
        let speaker = self.run.speaker(slot);
        match self.run.instance(speaker).state {
            State::None => self.eval.when(self.run, speaker),
            State::Skipped => Ok(Answer::Skip(self.run.instance(speaker).skip.unwrap_or(SkipReason::When))),
            State::Scheduled
            | State::Queued
            | State::Running
            | State::Success
            | State::Failed
            | State::UpstreamFailed
            | State::UpForRetry { .. }
            | State::UpForReschedule { .. }
            | State::Deferred
            | State::Recovering
            | State::Removed => Ok(Answer::Go),
        }
    }

    pub(super) fn skip(&mut self, slot: Slot, reason: SkipReason, message: String) {
        let instance = self.run.instance_mut(slot);
        instance.message = message;
        instance.skip = Some(reason);
        self.change(slot, Change::Skip);
    }

    pub(super) fn fail(&mut self, slot: Slot, message: String) {
        self.run.instance_mut(slot).message = message;
        self.fail_for_good(slot);
    }

    /// Changes the state of one instance, keeps every count true, and wakes what comes after it.
    pub(super) fn change(&mut self, slot: Slot, change: Change) {
        let from = self.run.instance(slot).state;
        let to = must(from, change);
        if from == to {
            return;
        }
        if from == State::Scheduled && to != State::Queued {
            self.withdraw(slot);
        }
        if let Some(at) = from.wakes_at() {
            self.run.timers.remove(&(at, Timer::Wake(slot)));
        }
        if let Some(MapUnit::Group(group)) = self.run.tasks[slot.task.at()].unit
            && (to == State::None || to.is_final())
        {
            self.left.insert((group, slot.index));
        }
        let now = self.now;
        let instance = self.run.instance_mut(slot);
        instance.state = to;
        if from == State::Recovering {
            instance.stop = None;
        }
        if !matches!(to, State::Skipped | State::Failed) {
            instance.skip = None;
        }
        if to.is_final() && instance.end.is_none() {
            instance.end = Some(now);
        }
        // `scheduled` follows from the rest and is not kept; so 100,000 tasks may become ready without a write.
        if to != State::Scheduled {
            self.fx.changed.insert(slot);
        }
        self.fx.transitions.push(Transition { slot, from, to, at: now });
        if let Some(at) = to.wakes_at() {
            self.run.timers.insert((at, Timer::Wake(slot)));
        }
        if from.is_final() || to.is_final() {
            self.count(slot, from, to);
        }
    }

    /// Carries a change from or to a final state to all that count it.
    fn count(&mut self, slot: Slot, from: State, to: State) {
        let workflow = self.run.workflow.clone();
        let task = workflow.task(slot.task);
        if task.kind == Kind::Finally {
            match (from.is_final(), to.is_final()) {
                (false, true) => self.run.finally_open -= 1,
                (true, false) => self.run.finally_open += 1,
                (true, true) | (false, false) => {}
            }
        } else {
            self.run.ordinary.add(from, false, -1);
            self.run.ordinary.add(to, false, 1);
        }
        for down in &workflow.downstream[slot.task.at()] {
            let is_setup = matches!(&workflow.task(*down).kind, Kind::Teardown { of, .. } if of.contains(&slot.task));
            for after in self.run.facing(slot, *down) {
                let counts = &mut self.run.instance_mut(after).upstream;
                counts.add(from, is_setup, -1);
                counts.add(to, is_setup, 1);
                self.look_again(after);
            }
        }
        for listener in self.run.tasks[slot.task.at()].listeners.clone() {
            self.run.facing(slot, listener).for_each(|after| self.look_again(after));
        }
        if task.kind != Kind::Finally && (from.is_final() || self.run.ordinary.all_done()) {
            for task in self.run.finals.clone() {
                self.run.slots(task).for_each(|after| self.look_again(after));
            }
        }
    }

    /// Something that the instance goes by has changed.
    fn look_again(&mut self, slot: Slot) {
        match self.run.instance(slot).state {
            State::None => self.queue.push_back(slot),
            State::Scheduled if !self.run.stays_ready(slot) => self.wait_again(slot),
            _ => {}
        }
    }

    fn finish_if_done(&mut self) {
        let run = &mut *self.run;
        let done = run.ordinary.all_done() && run.finally_open == 0 && run.active == 0;
        if run.record.state != RunState::Running || !done {
            return;
        }
        let failed = run.workflow.leaves.iter().any(|leaf| {
            run.tasks[leaf.at()].instances.iter().any(|i| matches!(i.state, State::Failed | State::UpstreamFailed))
        });
        run.record.state = match &run.record.stop {
            Some(RunStop::Cancelled { .. }) => RunState::Cancelled,
            Some(
                RunStop::TimedOut
                | RunStop::TasksTimedOut
                | RunStop::FinallyTimedOut
                | RunStop::FailFast { .. }
                | RunStop::Drain { .. }
                | RunStop::Refused { .. },
            ) => RunState::Failed,
            None if failed => RunState::Failed,
            None => RunState::Success,
        };
        run.record.end = Some(self.now);
        run.timers.clear();
        self.fx.run_changed = true;
        self.fx.finished = true;
    }
}

//! Every invariant of a run, derived anew from its states. Called after each step of the simulator and of the tests.

use std::collections::BTreeSet;

use super::record::{RunStop, SkipReason, StopHow};
use super::{Run, Slot, Timer};
use crate::ir::{GroupIx, Kind};
use crate::state::{RunState, State};
use crate::trigger_rule::Verdict;

impl Run {
    /// Panics with the first invariant that does not hold.
    pub fn sanity_check(&self) {
        let running = self.record.state == RunState::Running;
        let (mut active, mut by_task) = (0, vec![0; self.tasks.len()]);
        let mut timers = BTreeSet::new();
        for slot in self.all_slots() {
            let instance = self.instance(slot);
            let id = &self.workflow.task(slot.task).id;
            assert_eq!(instance.upstream, self.counted(slot), "counts of {id}[{}]", slot.index);
            let waiting = self.waiting.contains(self.workflow.task(slot.task).priority, slot);
            let scheduled = instance.state == State::Scheduled;
            assert_eq!(scheduled, instance.offered != waiting, "{id} is {} (offered or waiting)", instance.state);
            assert!(scheduled || !(instance.offered || waiting), "{id} is {}, yet asks", instance.state);
            if instance.offered || instance.state.is_live() {
                active += 1;
                by_task[slot.task.at()] += 1;
            }
            if instance.state.is_live() {
                assert!(instance.attempt > 0 && instance.attempt <= instance.max_attempt, "attempts of {id}");
                assert_eq!(instance.exit, None, "{id} has not ended");
            } else if instance.state != State::Deferred
                && !(instance.state == State::Recovering && self.is_member(slot))
            {
                assert_eq!(instance.stop, None, "{id} is {}, there is nothing to stop", instance.state);
            }
            assert!(!waiting || self.held(slot).is_some(), "nothing holds {id} back");
            timers.extend(instance.state.wakes_at().map(|at| (at, Timer::Wake(slot))));
            if instance.stop.is_none() {
                timers.extend(self.timeout_of(slot));
            }
            match instance.skip {
                None => {}
                Some(SkipReason::Invalid) => assert_eq!(instance.state, State::Failed, "{id} is invalid"),
                Some(reason) => assert_eq!(instance.state, State::Skipped, "{id}: {reason:?}"),
            }
            if running {
                self.check_decided(slot);
            }
        }
        assert_eq!(active, self.active, "active instances");
        for task in self.workflow.indices() {
            assert_eq!(by_task[task.at()], self.tasks[task.at()].active, "active instances of a task");
            if let Some(max) = self.workflow.task(task).max_parallel {
                assert!(by_task[task.at()] <= max, "max_parallel of {}", self.workflow.task(task).id);
            }
            self.check_mapping(task);
            self.check_gang(task);
        }
        if let Some(max) = self.workflow.max_active_tasks {
            assert!(self.active <= max, "max_active_tasks");
        }
        for ix in 0..self.groups.len() {
            self.check_group(GroupIx(ix as u32));
        }
        assert_eq!((self.ordinary, self.finally_open), self.totals(), "counts of the run");
        if running {
            timers.extend(self.timers_of_the_run());
        }
        self.check_refusal();
        assert!(!running || timers == self.timers, "timers: {:?}, expected {timers:?}", self.timers);
        if self.record.state.is_final() {
            assert_eq!(self.active, 0, "a finished run holds nothing");
            assert!(self.timers.is_empty(), "a finished run waits for nothing");
            // One that was cancelled before it began, or that could not begin, keeps its instances as they were.
            let open = self.all_slots().find(|slot| !self.instance(*slot).state.is_final());
            let never = self.record.start.is_none() || self.workflow.refusal.is_some();
            assert!(open.is_none() || never, "a finished run is finished: {open:?}");
        } else {
            let open = self.open_ordinary() + self.finally_open;
            assert!(open > 0 || !running, "a run whose instances are final is final");
        }
    }

    /// How far the run is stopped, by what stopped it.
    fn stopped_so_far(&self) -> Option<StopHow> {
        self.record.stop.as_ref().map(|stop| match stop {
            RunStop::Cancelled { how, .. } => *how,
            RunStop::Drain { .. } => StopHow::DrainThenFinally,
            RunStop::TimedOut if self.workflow.timeouts.ends_finally => StopHow::Everything,
            RunStop::FailFast { .. } | RunStop::TimedOut | RunStop::TasksTimedOut => StopHow::ThenFinally,
            RunStop::FinallyTimedOut | RunStop::Refused { .. } => StopHow::Everything,
        })
    }

    /// A time of the run counts as long as its end would still end something.
    fn timers_of_the_run(&self) -> BTreeSet<(jiff::Timestamp, Timer)> {
        let timeouts = self.workflow.timeouts;
        let after = |start: Option<jiff::Timestamp>, time: Option<jiff::SignedDuration>| {
            start.zip(time).map(|(start, time)| start.checked_add(time).unwrap_or(jiff::Timestamp::MAX))
        };
        let open = |is: fn(&Kind) -> bool| {
            let open = |slot: &Slot| !self.instance(*slot).state.is_final();
            self.all_slots().filter(open).any(|slot| is(&self.workflow.task(slot.task).kind))
        };
        let (drained, ended, all) = match self.stopped_so_far() {
            None => (false, false, false),
            Some(StopHow::DrainThenFinally) => (true, false, false),
            Some(StopHow::ThenFinally) => (true, true, false),
            Some(StopHow::Everything) => (true, true, true),
        };
        let begun = self.all_slots().any(|slot| {
            let instance = self.instance(slot);
            let fresh = instance.state.is_live() && instance.stop.is_none();
            self.workflow.task(slot.task).kind == Kind::Finally && fresh
        });
        assert!(drained || self.record.stop.is_none());
        assert!(!begun || timeouts.finally.is_none() || self.record.finally_start.is_some(), "`finally` has begun");
        assert!(timeouts.finally.is_some() || self.record.finally_start.is_none(), "nobody asked when `finally` began");
        let mut timers = BTreeSet::new();
        if !ended || (timeouts.ends_finally && !all) {
            timers.extend(after(self.record.start, timeouts.run).map(|at| (at, Timer::RunTimeout)));
        }
        if !ended && open(|kind| *kind != Kind::Finally) {
            timers.extend(after(self.record.start, timeouts.tasks).map(|at| (at, Timer::TasksTimeout)));
        }
        if !all && open(|kind| *kind == Kind::Finally) {
            timers.extend(after(self.record.finally_start, timeouts.finally).map(|at| (at, Timer::FinallyTimeout)));
        }
        timers
    }

    /// Of a workflow that cannot run, nothing ever begins.
    fn check_refusal(&self) {
        if self.workflow.refusal.is_some() {
            assert_ne!(self.record.state, RunState::Running, "it cannot run");
            assert_ne!(self.record.state, RunState::Success, "it cannot run");
            let fresh = |slot: Slot| self.instance(slot).attempt == 0 && self.instance(slot).state == State::None;
            assert!(self.all_slots().all(fresh), "something of a run began that cannot");
        }
    }

    /// What a stopped run may still hold or repeat.
    fn check_stopped(&self, slot: Slot) {
        let instance = self.instance(slot);
        let task = self.workflow.task(slot.task);
        let cleans = matches!(task.kind, Kind::Finally | Kind::Teardown { .. });
        let goes_on = match self.stopped_so_far() {
            None => true,
            Some(StopHow::DrainThenFinally) => cleans || instance.attempt > 0,
            Some(StopHow::ThenFinally) => cleans,
            Some(StopHow::Everything) => false,
        };
        let ends = instance.stop.is_some() || instance.state == State::Deferred || instance.state.is_final();
        assert!(goes_on || ends, "{} is {} in a run that is stopped", task.id, instance.state);
    }

    /// No instance waits whose answer is known.
    fn check_decided(&self, slot: Slot) {
        self.check_stopped(slot);
        let id = &self.workflow.task(slot.task).id;
        let state = self.instance(slot).state;
        if state == State::Scheduled {
            assert!(self.stays_ready(slot), "{id} is ready");
        }
        if state != State::None {
            return;
        }
        assert_eq!(self.skipped_by_stop(slot), None, "{id} waits in a run that is stopped");
        assert_eq!(self.branched_away(slot), None, "{id} waits although a branch decided");
        match self.verdict(slot) {
            Verdict::Wait => {}
            Verdict::Run if !self.past_allows(slot.task) => {}
            Verdict::Run => assert!(self.waits_for_items_of(slot).is_some(), "{id} waits for nothing"),
            other => panic!("{id} waits although its answer is {other:?}"),
        }
    }

    fn check_mapping(&self, task: crate::ir::TaskIx) {
        let run = &self.tasks[task.at()];
        let id = &self.workflow.task(task).id;
        assert!(run.expanded || run.instances.len() == 1, "{id} has instances without items");
        assert!(!run.expanded || run.unit.is_some(), "{id} is not mapped");
        let missing = run.expanded && run.instances.iter().any(|instance| instance.item.is_none());
        assert_eq!(missing, run.stale, "items of {id}");
    }

    /// Members are steered together: what one of them is, all are.
    fn check_gang(&self, task: crate::ir::TaskIx) {
        let Some(members) = self.members(task) else { return };
        let id = &self.workflow.task(task).id;
        let gang = self.workflow.task(task).gang.as_ref().map_or(0, |gang| gang.count);
        assert_eq!(members.len() as u32, gang, "members of {id}");
        let all = || members.iter().map(|slot| self.instance(*slot));
        let same = |what: &str, of: fn(&super::Instance) -> u32| {
            let first = of(self.instance(members[0]));
            assert!(all().all(|instance| of(instance) == first), "{what} of the members of {id}");
        };
        same("attempts", |instance| instance.attempt);
        same("most attempts", |instance| instance.max_attempt);
        same("losses", |instance| instance.lost);
        same("offers", |instance| u32::from(instance.offered));
        same("ends", |instance| u32::from(instance.state.is_final()));
        same("places", |instance| u32::from(instance.state.is_live() || instance.state == State::Deferred));
        same("waits for recovery", |instance| u32::from(instance.state == State::Recovering));
        let mut live = all().filter(|instance| instance.state.is_live());
        let Some(stop) = live.next().map(|instance| instance.stop) else {
            return assert!(all().all(|instance| instance.state != State::Deferred), "{id} waits for nobody");
        };
        assert!(live.all(|instance| instance.stop == stop), "members of {id} are being ended for one reason");
    }

    fn check_group(&self, ix: GroupIx) {
        let under_way = &self.groups[ix.at()].under_way;
        let id = &self.workflow.group(ix).id;
        let Some(max) = self.workflow.group(ix).max_parallel else { return };
        assert!(under_way.len() as u32 <= max, "max_parallel of {id}");
        for index in under_way {
            assert!(self.goes_on(ix, *index), "{id}[{index}] keeps a place for nothing");
        }
        for task in &self.groups[ix.at()].tasks {
            for slot in self.slots(*task) {
                let instance = self.instance(slot);
                let holds = instance.offered || instance.state.is_live();
                assert!(!holds || under_way.contains(&slot.index), "{id}[{}] is under way", slot.index);
            }
        }
    }
}

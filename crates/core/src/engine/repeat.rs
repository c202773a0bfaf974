//! A person's second thoughts: clear instances so that they run again, or mark how they ended.
//!
//! Invariant: what is live is ended first, and changes only when its end is reported; a finished run is opened again.

use std::collections::{BTreeMap, BTreeSet};

use super::apply::Step;
use super::record::Stop;
use super::{Run, Slot};
use crate::ir::{Kind, TaskIx};
use crate::state::{Change, RunState, State};

impl Step<'_> {
    pub(super) fn clear(&mut self, slots: Vec<Slot>, downstream: bool) {
        let mut chosen: BTreeSet<Slot> = slots.into_iter().filter(|slot| self.run.get(*slot).is_some()).collect();
        if chosen.is_empty() || self.run.record.state == RunState::Queued || self.run.is_refused() {
            return;
        }
        if downstream {
            chosen = self.run.with_downstream(chosen);
        }
        chosen = self.run.with_scopes(chosen);
        chosen = chosen.into_iter().flat_map(|slot| self.run.with_mates(slot)).collect();
        self.reopen();
        self.clear_all(chosen);
        self.wake_all();
    }

    /// Clears these, and the `finally` tasks: they follow everything, so they run again too.
    fn clear_all(&mut self, mut chosen: BTreeSet<Slot>) {
        // Their time counts anew, too.
        self.run.record.finally_start = None;
        for task in self.run.finals.clone() {
            chosen.extend(self.run.slots(task));
        }
        let mut tasks: Vec<TaskIx> = chosen.iter().map(|slot| slot.task).collect();
        tasks.dedup();
        for slot in chosen {
            if self.run.instance(slot).state.is_live() {
                self.stop_attempt(slot, Stop::Cleared);
            } else if self.run.live_mates(slot) == 0 {
                self.clear_one(slot);
                self.forget_item(slot);
                self.queue.push_back(slot);
            }
        }
        for task in tasks {
            self.wait_for_items(task);
        }
    }

    /// The report of an attempt that was ended for being cleared.
    pub(super) fn clear_ended(&mut self, slot: Slot) {
        self.change(slot, Change::Fail);
        self.clear_one(slot);
        self.forget_item(slot);
        self.wait_for_items(slot.task);
        self.queue.push_back(slot);
    }

    pub(super) fn clear_one(&mut self, slot: Slot) {
        self.change(slot, Change::Clear);
        let retries = self.run.workflow.task(slot.task).retry.retries;
        let instance = self.run.instance_mut(slot);
        instance.max_attempt = instance.attempt + retries + 1;
        instance.lost = 0;
        (instance.queued_at, instance.start, instance.end) = (None, None, None);
        (instance.exit, instance.followed, instance.stop) = (None, None, None);
        instance.message.clear();
        instance.outputs.clear();
        self.fx.changed.insert(slot);
    }

    /// Ends an instance as a person says, with all of its gang. After a success that was said, what had failed because of it is
    /// judged anew.
    pub(super) fn mark(&mut self, slot: Slot, success: bool) {
        let Some(state) = self.run.get(slot).map(|i| i.state) else { return };
        if self.run.record.start.is_none() || state == State::Removed || self.run.is_refused() {
            return;
        }
        let stop = if success { Stop::MarkedSuccess } else { Stop::MarkedFailed };
        if state.is_live() || self.run.live_mates(slot) > 0 {
            return self.stop_all(slot, stop);
        }
        self.reopen();
        let marked = self.run.with_mates(slot);
        for slot in &marked {
            let instance = self.run.instance_mut(*slot);
            instance.message = "marked by hand".to_owned();
            instance.skip = None;
            self.fx.changed.insert(*slot);
            self.change(*slot, if success { Change::MarkSuccess } else { Change::MarkFailed });
        }
        if !success {
            return self.after_failure(slot.task);
        }
        let mut after = self.run.with_downstream(marked.into_iter().collect());
        after.retain(|slot| self.run.instance(*slot).state == State::UpstreamFailed);
        if !after.is_empty() {
            self.clear_all(after);
        }
    }

    /// A finished run goes on; a run that is being stopped is no longer.
    fn reopen(&mut self) {
        let now = self.now;
        let over = self.run.ends().into_iter().flatten().any(|at| at <= now);
        let record = &mut self.run.record;
        if record.state.is_final() {
            record.state = RunState::Running;
            record.end = None;
            record.start = Some(now);
        } else if over {
            // Its time counts anew, or it would be stopped again at once.
            record.start = Some(now);
        }
        record.stop = None;
        self.fx.run_changed = true;
    }
}

impl Run {
    /// The slots, and all instances of every task after them; inside a mapped group only the same index.
    fn with_downstream(&self, slots: BTreeSet<Slot>) -> BTreeSet<Slot> {
        let mut all = slots.clone();
        let mut stack: Vec<Slot> = slots.into_iter().collect();
        while let Some(slot) = stack.pop() {
            for down in &self.workflow.downstream[slot.task.at()] {
                for after in self.facing(slot, *down) {
                    if all.insert(after) {
                        stack.push(after);
                    }
                }
            }
        }
        all
    }

    /// The slots, and the setups and teardowns around them: what a teardown removed must be there again.
    fn with_scopes(&self, slots: BTreeSet<Slot>) -> BTreeSet<Slot> {
        let mut teardowns: BTreeMap<TaskIx, Vec<TaskIx>> = BTreeMap::new();
        for task in self.workflow.indices() {
            if let Kind::Teardown { of, .. } = &self.workflow.task(task).kind {
                of.iter().for_each(|setup| teardowns.entry(*setup).or_default().push(task));
            }
        }
        let mut all = slots.clone();
        let mut stack: Vec<Slot> = slots.into_iter().collect();
        while let Some(slot) = stack.pop() {
            let setups = self.workflow.task(slot.task).setups.iter().filter(|setup| teardowns.contains_key(setup));
            let around = setups.chain(teardowns.get(&slot.task).into_iter().flatten());
            for other in around.flat_map(|task| self.facing(slot, *task)) {
                if all.insert(other) {
                    stack.push(other);
                }
            }
        }
        all
    }
}

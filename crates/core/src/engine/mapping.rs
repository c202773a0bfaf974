//! Dynamic mapping: one placeholder instance becomes one instance per item.
//!
//! Invariant: a task that is not expanded has exactly one instance, its placeholder; it may end (skipped, upstream
//! failed) without ever being expanded. The tasks of a mapped group are expanded together.

use serde_json::Value;

use super::apply::Step;
use super::record::SkipReason;
use super::{Run, Slot};
use crate::ir::{Kind, MapUnit, TaskIx};
use crate::state::{Change, State};
use crate::trigger_rule::Counts;

impl Run {
    /// The instances of `need` that the instance at `slot` looks at.
    pub(crate) fn upstream_slots(&self, slot: Slot, need: TaskIx) -> impl Iterator<Item = Slot> + use<> {
        self.facing(slot, need)
    }

    /// Inside one mapped unit, index faces index; everywhere else all face all.
    pub(super) fn facing(&self, slot: Slot, other: TaskIx) -> impl Iterator<Item = Slot> + use<> {
        let count = self.tasks[other.at()].instances.len() as u32;
        let paired =
            self.tasks[slot.task.at()].expanded && self.tasks[other.at()].expanded && self.same_unit(slot.task, other);
        let range = if paired { slot.index..count.min(slot.index + 1) } else { 0..count };
        range.map(move |index| Slot::new(other, index))
    }

    /// Counts anew what the instance at `slot` needs.
    pub(super) fn counted(&self, slot: Slot) -> Counts {
        let task = self.workflow.task(slot.task);
        let mut counts = Counts::default();
        for need in &task.needs {
            let is_setup = matches!(&task.kind, Kind::Teardown { of, .. } if of.contains(need));
            for up in self.upstream_slots(slot, *need) {
                counts.total += 1;
                counts.setups += u32::from(is_setup);
                counts.add(self.instance(up).state, is_setup, 1);
            }
        }
        counts
    }

    /// Counts everything anew; after a restore, an expansion or a clear.
    pub(super) fn recount(&mut self) {
        for slot in self.all_slots().collect::<Vec<_>>() {
            let counts = self.counted(slot);
            self.instance_mut(slot).upstream = counts;
        }
        let (ordinary, finally_open) = self.totals();
        self.ordinary = ordinary;
        self.finally_open = finally_open;
    }

    pub(super) fn totals(&self) -> (Counts, u32) {
        let mut ordinary = Counts::default();
        let mut finally_open = 0;
        for slot in self.all_slots() {
            let state = self.instance(slot).state;
            if self.is_finally(slot.task) {
                finally_open += u32::from(!state.is_final());
            } else {
                ordinary.total += 1;
                ordinary.add(state, false, 1);
            }
        }
        (ordinary, finally_open)
    }

    /// Counts anew the tasks in `changed` and what comes directly after them, whose number of instances changed.
    fn recount_around(&mut self, changed: &[TaskIx]) {
        let mut around: Vec<TaskIx> = changed.to_vec();
        for task in changed {
            around.extend(&self.workflow.downstream[task.at()]);
        }
        around.sort_unstable();
        around.dedup();
        for task in around {
            for slot in self.slots(task) {
                let counts = self.counted(slot);
                self.instance_mut(slot).upstream = counts;
            }
        }
    }

    /// Gives a task instances up to `count`; the new ones wait.
    fn grow(&mut self, task: TaskIx, count: usize) {
        let added = count.saturating_sub(self.tasks[task.at()].instances.len());
        let fresh = super::restore::fresh(&self.workflow, task);
        self.tasks[task.at()].instances.extend(std::iter::repeat_n(fresh, added));
        if self.is_finally(task) {
            self.finally_open += added as u32;
        } else {
            self.ordinary.total += added as u32;
        }
    }
}

impl Step<'_> {
    /// Finds the items of a mapped task that has none, or is to find them anew: its placeholder becomes its instances (or
    /// ends), and they are woken.
    pub(super) fn find_items(&mut self, slot: Slot) {
        let workflow = self.run.workflow.clone();
        let (unit, foreach) = workflow.mapping_of(slot.task).expect("the task is mapped");
        let mut tasks = match unit {
            MapUnit::Task(task) => vec![task],
            MapUnit::Group(group) => self.run.groups[group.at()].tasks.clone(),
        };
        tasks.retain(|ix| {
            let run = &self.run.tasks[ix.at()];
            run.stale || (!run.expanded && run.instances[0].state == State::None)
        });
        match self.eval.items(self.run, unit) {
            Ok(items) if items.len() > foreach.max_items as usize => {
                let error = format!(
                    "`foreach` gives {} items, more than the limit of {} (raise `foreach_max`)",
                    items.len(),
                    foreach.max_items
                );
                self.fail_all(&tasks, &error);
            }
            Ok(items) => self.expand(&tasks, items),
            Err(error) => self.fail_all(&tasks, &error),
        }
    }

    fn fail_all(&mut self, tasks: &[TaskIx], error: &str) {
        for task in tasks {
            self.fill(*task, &[]);
            for slot in self.run.slots(*task) {
                if self.run.instance(slot).state == State::None {
                    self.fail(slot, error.to_owned());
                }
            }
        }
    }

    fn expand_to_none(&mut self, tasks: &[TaskIx]) {
        for task in tasks {
            self.fill(*task, &[]);
            for slot in self.run.slots(*task) {
                match self.run.instance(slot).state {
                    State::None => self.skip(slot, SkipReason::NoItems, SkipReason::NoItems.sentence().to_owned()),
                    _ if self.run.tasks[task.at()].expanded => self.fit(slot, 0),
                    _ => {}
                }
            }
        }
    }

    fn expand(&mut self, tasks: &[TaskIx], items: Vec<Value>) {
        if items.is_empty() {
            return self.expand_to_none(tasks);
        }
        for task in tasks {
            if !std::mem::replace(&mut self.run.tasks[task.at()].expanded, true) {
                self.fx.expanded.push(*task);
            }
            self.run.grow(*task, items.len());
            self.fill(*task, &items);
        }
        self.run.recount_around(tasks);
        for task in tasks {
            for slot in self.run.slots(*task) {
                self.fit(slot, items.len());
            }
        }
        self.wake_after(tasks);
    }

    /// Gives items to the instances that wait or have none. What ran with an older item keeps that; an instance
    /// beyond the items gets `null`, which says that it is not to be found anew.
    fn fill(&mut self, task: TaskIx, items: &[Value]) {
        let run = &mut self.run.tasks[task.at()];
        run.stale = false;
        if !run.expanded {
            return;
        }
        for (index, instance) in run.instances.iter_mut().enumerate() {
            let item = items.get(index).unwrap_or(&Value::Null);
            let wanted = instance.item.is_none() || matches!(instance.state, State::None | State::Removed);
            if wanted && instance.item.as_ref() != Some(item) {
                instance.item = Some(item.clone());
                self.fx.changed.insert(Slot::new(task, index as u32));
            }
        }
    }

    /// A second expansion may give fewer items than the first, or more again.
    fn fit(&mut self, slot: Slot, items: usize) {
        let state = self.run.instance(slot).state;
        let beyond = slot.index as usize >= items;
        match state {
            State::Removed if beyond => {}
            State::Removed => {
                self.clear_one(slot);
                self.queue.push_back(slot);
            }
            // What is live goes on to its end.
            State::Queued | State::Running | State::Deferred | State::Recovering => {}
            State::None
            | State::Scheduled
            | State::Success
            | State::Failed
            | State::Skipped
            | State::UpstreamFailed
            | State::UpForRetry { .. }
            | State::UpForReschedule { .. } => {
                if beyond {
                    self.change(slot, Change::Remove);
                } else {
                    self.queue.push_back(slot);
                }
            }
        }
    }

    fn wake_after(&mut self, tasks: &[TaskIx]) {
        let workflow = self.run.workflow.clone();
        for down in tasks.iter().flat_map(|task| &workflow.downstream[task.at()]) {
            self.queue.extend(self.run.slots(*down));
        }
    }

    /// An instance was cleared: the items are found anew before it starts.
    pub(super) fn forget_item(&mut self, slot: Slot) {
        let run = &mut self.run.tasks[slot.task.at()];
        if run.expanded {
            run.stale = true;
            run.instances[slot.index as usize].item = None;
            self.fx.changed.insert(slot);
        }
    }

    /// Until the items are found, no instance of the task starts with an old one.
    pub(super) fn wait_for_items(&mut self, task: TaskIx) {
        if self.run.tasks[task.at()].stale {
            for slot in self.run.slots(task) {
                if self.run.instance(slot).state == State::Scheduled {
                    self.wait_again(slot);
                }
            }
        }
    }
}

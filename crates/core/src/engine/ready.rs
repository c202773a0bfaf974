//! What stands between an instance and its start, asked by the engine to decide and by `explain` to tell.
//!
//! Invariant: every answer is a function of the states alone, so it can be asked again at any time; an instance that
//! became ready goes back to waiting when a clear upstream takes its answer away.

use super::{Run, Slot};
use crate::ir::{Kind, MapUnit, TaskIx, When};
use crate::state::State;
use crate::trigger_rule::Verdict;

impl Run {
    /// What the setups around it and its trigger rule say about an instance.
    pub(crate) fn verdict(&self, slot: Slot) -> Verdict {
        let task = self.workflow.task(slot.task);
        let upstream = &self.instance(slot).upstream;
        if task.kind == Kind::Finally {
            // It comes after everything; of the `finally` tasks that it names it only awaits the end.
            let open = !self.ordinary.all_done() || !upstream.all_done();
            return if open { Verdict::Wait } else { task.trigger_rule.evaluate(&self.ordinary) };
        }
        match self.setups_verdict(slot) {
            Verdict::Run => task.trigger_rule.evaluate(upstream),
            other => other,
        }
    }

    /// Would an instance that was ready be so now?
    pub(super) fn stays_ready(&self, slot: Slot) -> bool {
        self.verdict(slot) == Verdict::Run && self.branched_away(slot).is_none()
    }

    /// What the setups of a scope say before the task's own rule is asked.
    fn setups_verdict(&self, slot: Slot) -> Verdict {
        let mut verdict = Verdict::Run;
        for setup in &self.workflow.task(slot.task).setups {
            for up in self.upstream_slots(slot, *setup) {
                match self.instance(up).state {
                    State::Failed | State::UpstreamFailed => return Verdict::UpstreamFailed,
                    State::Skipped => verdict = Verdict::Skip,
                    State::Success | State::Removed => {}
                    State::None
                    | State::Scheduled
                    | State::Queued
                    | State::Running
                    | State::UpForRetry { .. }
                    | State::UpForReschedule { .. }
                    | State::Deferred
                    | State::Recovering => {
                        if verdict == Verdict::Run {
                            verdict = Verdict::Wait;
                        }
                    }
                }
            }
        }
        verdict
    }

    /// The branch task that decided against this instance. A teardown runs whichever way the branch went.
    pub(super) fn branched_away(&self, slot: Slot) -> Option<TaskIx> {
        if self.workflow.task(slot.task).is_teardown() {
            return None;
        }
        self.tasks[slot.task.at()].branches.iter().copied().find(|branch| {
            self.upstream_slots(slot, *branch).any(|up| {
                let followed = &self.instance(up).followed;
                followed.as_ref().is_some_and(|followed| !self.leads_to(followed, slot.task))
            })
        })
    }

    /// Is `task` one of `from`, or does it come after one of them?
    fn leads_to(&self, from: &[TaskIx], task: TaskIx) -> bool {
        let mut stack = from.to_vec();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(ix) = stack.pop() {
            if ix == task {
                return true;
            }
            if seen.insert(ix) {
                stack.extend(&self.workflow.downstream[ix.at()]);
            }
        }
        false
    }

    /// Does the previous run let the task go?
    pub(crate) fn past_allows(&self, task: TaskIx) -> bool {
        !self.workflow.task(task).depends_on_past || self.tasks[task.at()].past == Some(true)
    }

    /// Is it not mapped, or are its items known and none of them to be found anew?
    pub(super) fn has_items(&self, task: TaskIx) -> bool {
        let run = &self.tasks[task.at()];
        run.unit.is_none() || (run.expanded && !run.stale)
    }

    /// Is an instance asked for its `when` now? A guard speaks for the whole task, before its items are found; where a group
    /// maps the task, that one's items are not the task's own, and each instance is asked.
    pub(super) fn is_asked(&self, task: TaskIx, needs_items: bool) -> bool {
        let first = match (&self.workflow.task(task).when, self.tasks[task.at()].unit) {
            (None, _) => return false,
            (Some(When::Guard(_)), Some(MapUnit::Task(_))) => true,
            (Some(When::Guard(_)), Some(MapUnit::Group(_)) | None) | (Some(When::Expression(_)), _) => false,
        };
        first == needs_items
    }

    /// A task whose end the instance awaits because its items come from there.
    pub(crate) fn waits_for_items_of(&self, slot: Slot) -> Option<TaskIx> {
        if self.has_items(slot.task) {
            return None;
        }
        let (_, foreach) = self.workflow.mapping_of(slot.task)?;
        let open = |task: &TaskIx| self.tasks[task.at()].instances.iter().any(|i| !i.state.is_final());
        foreach.refs.iter().copied().find(open)
    }
}

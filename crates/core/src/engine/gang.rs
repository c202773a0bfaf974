//! Gangs: the instances of one task that begin together, and end as one.
//!
//! A member that ends while a mate is live is `deferred`: it holds nothing, and its row says how it ended. Once the last
//! one has ended, all of them are what the gang became. The first that fails, or is lost, ends its mates; they all begin
//! anew, or fail, together. Invariant: members are admitted at once, have the same attempt number and the same counts of
//! tries, and none of them is final while a mate is not.

use super::apply::Step;
use super::attempt::saturating_add;
use super::record::Stop;
use super::{Instance, Launch, MAX_LOST, Report, Run, Slot};
use crate::ir::TaskIx;
use crate::state::{Change, EX_CONFIG, Exit};

use jiff::SignedDuration;

impl Run {
    /// The members, if the task is a gang whose instances are there.
    pub fn members(&self, task: TaskIx) -> Option<Vec<Slot>> {
        let is_gang = self.workflow.task(task).gang.is_some() && self.tasks[task.at()].expanded;
        is_gang.then(|| self.slots(task).collect())
    }

    /// All that are steered together with the instance: itself, or its gang.
    pub fn with_mates(&self, slot: Slot) -> Vec<Slot> {
        self.members(slot.task).unwrap_or_else(|| vec![slot])
    }

    pub(super) fn is_member(&self, slot: Slot) -> bool {
        self.workflow.task(slot.task).gang.is_some() && self.tasks[slot.task.at()].expanded
    }

    /// Whoever stands for it at the admission: the first of its gang, or itself.
    pub fn speaker(&self, slot: Slot) -> Slot {
        if self.is_member(slot) { Slot::new(slot.task, 0) } else { slot }
    }

    /// How many instances its offer stands for.
    pub(super) fn asks_for(&self, task: TaskIx) -> u32 {
        if self.is_member(Slot::new(task, 0)) { self.tasks[task.at()].instances.len() as u32 } else { 1 }
    }

    /// Those of its mates that run.
    pub(crate) fn live_mates(&self, slot: Slot) -> usize {
        let live = |mate: &Slot| *mate != slot && self.instance(*mate).state.is_live();
        self.members(slot.task).map_or(0, |members| members.iter().filter(|mate| live(mate)).count())
    }
}

impl Run {
    /// Whose failure ended the gang: of those that failed by themselves, the first.
    pub(crate) fn culprit(&self, members: &[Slot]) -> Option<Slot> {
        let guilty = |slot: &&Slot| {
            let instance = self.instance(**slot);
            !is_well(instance) && !is_dragged(instance)
        };
        members.iter().filter(guilty).min_by_key(|slot| self.instance(**slot).end).copied()
    }
}

/// Did a member that has ended end well? One that skipped itself did.
fn is_well(instance: &Instance) -> bool {
    instance.stop.is_none()
}

/// It was ended because of a mate, and not by itself.
fn is_dragged(instance: &Instance) -> bool {
    instance.exit == Some(Exit::Cancelled)
}

impl Step<'_> {
    /// All members have their places: they begin.
    pub(super) fn gang_admitted(&mut self, members: Vec<Slot>) {
        let states = members.iter().map(|slot| self.run.instance(*slot));
        if states.clone().any(|instance| instance.state.is_live()) {
            return;
        }
        if !states.clone().all(|instance| instance.offered) {
            return self.fx.released.extend(members);
        }
        for slot in members {
            let attempt = self.begin_attempt(slot);
            self.fx.launch.push(Launch { slot, attempt });
        }
    }

    /// A member has ended. `stop`: why it was ended, if it was; `well`: it succeeded, or had nothing to do.
    pub(super) fn member_ended(&mut self, slot: Slot, stop: Option<Stop>, report: Report, well: bool) {
        let is_lost = matches!(report.exit, Exit::Lost { .. });
        let is_held = report.held
            && match stop {
                None | Some(Stop::TimedOut | Stop::Recovery) => true,
                Some(Stop::Gang) => is_lost,
                Some(Stop::Cancelled | Stop::Cleared | Stop::Preempted | Stop::MarkedSuccess | Stop::MarkedFailed) => {
                    false
                }
            };
        let instance = self.run.instance_mut(slot);
        // What it ended for is what its gang ends for; that it failed by itself, too, is for its gang to know.
        instance.stop = match stop {
            _ if well => None,
            _ if is_held => Some(Stop::Recovery),
            None => Some(Stop::Gang),
            stop => stop,
        };
        if is_lost {
            instance.exit = Some(report.exit);
        }
        if well {
            instance.outputs = report.outputs;
        } else if let Some(error) = report.error.filter(|_| stop.is_none()) {
            instance.message = error;
        }
        self.change(slot, Change::Defer);
        let members = self.run.with_mates(slot);
        let live: Vec<Slot> = members.iter().copied().filter(|mate| self.run.instance(*mate).state.is_live()).collect();
        if live.is_empty() {
            return self.conclude(members, stop);
        }
        if !well {
            let why = format!("ended with its gang: {}", self.told(slot));
            for mate in live.into_iter().filter(|mate| self.run.instance(*mate).stop.is_none()).collect::<Vec<_>>() {
                self.run.instance_mut(mate).message.clone_from(&why);
                self.stop_attempt(mate, Stop::Gang);
            }
        }
    }

    /// What became of a member, for its mates.
    fn told(&self, slot: Slot) -> String {
        let instance = self.run.instance(slot);
        let exit = instance.exit.as_ref().map(Exit::to_string).unwrap_or_default();
        match (&instance.exit, instance.message.lines().last()) {
            (Some(Exit::Code { code: 0 }), Some(message)) => format!("member {}: {message}", slot.index),
            _ => format!("member {}: {exit}", slot.index),
        }
    }

    /// All members have ended. `stop`: why the last one was ended; whatever was asked of the gang was asked of it, too.
    fn conclude(&mut self, members: Vec<Slot>, stop: Option<Stop>) {
        match stop {
            Some(Stop::Cleared) => return self.gang_cleared(members),
            Some(Stop::MarkedSuccess) => return self.end_as(members, Change::Succeed),
            Some(Stop::MarkedFailed) => return self.fail_as_said(members),
            Some(Stop::TimedOut | Stop::Cancelled | Stop::Preempted | Stop::Gang | Stop::Recovery) | None => {}
        }
        if members.iter().all(|slot| is_well(self.run.instance(*slot))) {
            let workflow = self.run.workflow.clone();
            for slot in members {
                let skips = &workflow.task(slot.task).skip_exit_codes;
                let is_skip =
                    matches!(self.run.instance(slot).exit, Some(Exit::Code { code }) if skips.contains(&code));
                self.change(slot, if is_skip { Change::Skip } else { Change::Succeed });
            }
            return;
        }
        let is_held = members.iter().any(|slot| self.run.instance(*slot).stop == Some(Stop::Recovery));
        let stopping = stop == Some(Stop::Cancelled) || self.run.is_stopping(members[0].task);
        if is_held && !stopping && !self.cannot_start(&members) {
            return members.into_iter().for_each(|slot| self.change(slot, Change::Recover));
        }
        self.judge_gang(members, stop);
    }

    /// What its failure leads to, by how its members ended. `stop`: why they were ended, if they were.
    pub(super) fn judge_gang(&mut self, mut members: Vec<Slot>, stop: Option<Stop>) {
        let stopping = self.run.is_stopping(members[0].task);
        let lost = members.iter().any(|slot| matches!(self.run.instance(*slot).exit, Some(Exit::Lost { .. })));
        let first = self.run.culprit(&members);
        // Whoever is told of what the gang becomes hears of the culprit first.
        members.sort_by_key(|slot| Some(*slot) != first);
        match stop {
            // Not the first failure, so it stops nobody else.
            Some(Stop::Cancelled) => self.end_as(members, Change::Fail),
            _ if stopping || self.cannot_start(&members) => self.gang_fails(members, first),
            Some(Stop::Preempted) => self.gang_again(members, false, first),
            // Whoever misses a mate fails, perhaps long before it is known that the mate's machine is gone.
            _ if lost => self.gang_again(members, true, first),
            _ => self.gang_failed(members, first),
        }
    }

    /// Whether another try of one of them would end as this one did.
    pub(super) fn cannot_start(&self, members: &[Slot]) -> bool {
        let is_action = self.run.workflow.task(members[0].task).is_action();
        members.iter().any(|slot| match &self.run.instance(*slot).exit {
            Some(Exit::StartFailed { lasting, .. }) => *lasting,
            Some(Exit::Code { code }) => *code == EX_CONFIG && is_action,
            _ => false,
        })
    }

    /// Without drawing on its retries.
    fn gang_again(&mut self, members: Vec<Slot>, is_lost: bool, first: Option<Slot>) {
        for slot in &members {
            let instance = self.run.instance_mut(*slot);
            instance.lost += u32::from(is_lost);
            instance.max_attempt += 1;
        }
        let lost = self.run.instance(members[0]).lost;
        if lost > MAX_LOST {
            return self.gang_fails(members, first);
        }
        let wait = if is_lost { i64::from(lost) - 1 } else { 0 };
        let at = saturating_add(self.now, SignedDuration::from_secs(wait));
        self.gang_waits(members, at);
    }

    pub(super) fn gang_failed(&mut self, members: Vec<Slot>, first: Option<Slot>) {
        let speaker = self.run.instance(members[0]);
        if speaker.attempt >= speaker.max_attempt {
            return self.gang_fails(members, first);
        }
        let end = members.iter().filter_map(|slot| self.run.instance(*slot).end).max();
        let at = self.run.retry_at(members[0], end.unwrap_or(self.now));
        self.gang_waits(members, at);
    }

    pub(super) fn gang_waits(&mut self, members: Vec<Slot>, at: jiff::Timestamp) {
        for slot in &members {
            self.run.instance_mut(*slot).stop = None;
            self.change(*slot, Change::Retry { at });
        }
        members.into_iter().for_each(|slot| self.wake(slot));
    }

    /// It fails as one: also those fail that had ended well, since nothing may go on from a part of a gang.
    fn gang_fails(&mut self, members: Vec<Slot>, first: Option<Slot>) {
        if let Some(first) = first {
            let why = format!("its gang failed: {}", self.told(first));
            for slot in members.iter().filter(|slot| **slot != first) {
                let instance = self.run.instance_mut(*slot);
                if is_well(instance) || is_dragged(instance) {
                    instance.message.clone_from(&why);
                }
            }
        }
        self.all_fail(members);
    }

    fn gang_cleared(&mut self, members: Vec<Slot>) {
        for slot in &members {
            self.clear_one(*slot);
            self.forget_item(*slot);
        }
        self.wait_for_items(members[0].task);
        self.queue.extend(members);
    }

    /// Asks the backend to end the instance, or all members of its gang that run; their reports bring the change of state.
    pub(super) fn stop_all(&mut self, slot: Slot, stop: Stop) {
        for mate in self.run.with_mates(slot) {
            if self.run.instance(mate).state.is_live() {
                self.stop_attempt(mate, stop);
            }
        }
    }

    /// The instance fails, or its whole gang, before it has begun.
    pub(super) fn fail_all_of(&mut self, slot: Slot, message: String) {
        let mut open = self.run.with_mates(slot);
        open.retain(|mate| !self.run.instance(*mate).state.is_final());
        for mate in &open {
            self.run.instance_mut(*mate).message.clone_from(&message);
        }
        if !open.is_empty() {
            self.all_fail(open);
        }
    }
}

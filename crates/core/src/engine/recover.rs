//! The side of the engine to [`crate::recovery`]: what waits for its verdict, and what the verdict does.
//!
//! An attempt that failed on a machine under suspicion is not tried again at once, perhaps on the same machine: its instance is
//! `recovering`. That holds no slot and draws on nothing; it ends with a [`Ruling`], or when a person or the end of the run
//! wants it to. Invariant: members of a gang are recovering together, and their rows keep how each of them ended.

use super::apply::Step;
use super::record::Stop;
use super::{Instance, Ruling, Slot};
use crate::state::{Change, State};

impl Step<'_> {
    pub(super) fn suspect(&mut self, slot: Slot, reason: String) {
        if self.run.get(slot).is_none() {
            return;
        }
        let members = self.run.with_mates(slot);
        let all = |is: fn(State) -> bool| members.iter().all(|mate| is(self.run.instance(*mate).state));
        let was_tried = self.run.instance(slot).attempt > 0;
        if was_tried && all(|state| matches!(state, State::Scheduled | State::UpForRetry { .. })) {
            for mate in members {
                self.run.instance_mut(mate).message.clone_from(&reason);
                self.change(mate, Change::Recover);
            }
            return;
        }
        for mate in members {
            let instance = self.run.instance_mut(mate);
            // What a person wants comes first, and so does what ends it anyway for a reason of its own.
            if instance.state.is_live() && matches!(instance.stop, None | Some(Stop::Gang)) {
                instance.message.clone_from(&reason);
                self.stop_attempt(mate, Stop::Recovery);
            }
        }
    }

    pub(super) fn wait_for_verdict(&mut self, slot: Slot) {
        if self.run.is_stopping(slot.task) {
            return self.fail_for_good(slot);
        }
        self.change(slot, Change::Recover);
    }

    pub(super) fn recovered(&mut self, slot: Slot, attempt: u32, verdict: Ruling) {
        let gives_up = |instance: &Instance| {
            instance.state.is_live() && instance.attempt == attempt && instance.stop == Some(Stop::Recovery)
        };
        // It does not end, and is not to wait for anything any more when it has.
        if matches!(verdict, Ruling::Fail { .. })
            && self.run.get(slot).is_some()
            && self.run.with_mates(slot).iter().any(|mate| gives_up(self.run.instance(*mate)))
        {
            return self.stop_all(slot, Stop::MarkedFailed);
        }
        let fits = self.run.get(slot).is_some_and(|instance| match (&verdict, instance.state) {
            (Ruling::Restart { number, .. }, State::Recovering) => {
                instance.attempt == attempt && *number > instance.attempt
            }
            (Ruling::Leave | Ruling::Fail { .. }, State::Recovering) => attempt >= instance.attempt,
            // It was to begin anew, and there is no room for it.
            (Ruling::Fail { .. }, State::UpForRetry { .. } | State::Scheduled) => attempt > instance.attempt,
            _ => false,
        });
        if !fits {
            self.run.stale_reports += 1;
            return;
        }
        let members = self.run.with_mates(slot);
        match verdict {
            Ruling::Restart { at, number, draws } => {
                let first = self.run.culprit(&members);
                let instance = self.run.instance(slot);
                if draws && instance.attempt >= instance.max_attempt {
                    return self.out_of_retries(slot, first);
                }
                for mate in &members {
                    let instance = self.run.instance_mut(*mate);
                    let skipped = number - 1 - instance.attempt;
                    instance.max_attempt += skipped + u32::from(!draws);
                    instance.attempt += skipped;
                }
                self.gang_waits(members, at);
            }
            Ruling::Leave if self.run.is_member(slot) => self.judge_gang(members, None),
            Ruling::Leave => self.judge(slot),
            Ruling::Fail { why } => {
                for mate in &members {
                    self.run.instance_mut(*mate).message.clone_from(&why);
                }
                self.all_fail(members);
            }
        }
    }

    fn out_of_retries(&mut self, slot: Slot, first: Option<Slot>) {
        if self.run.is_member(slot) {
            self.gang_failed(self.run.with_mates(slot), first);
        } else {
            self.retry_failed(slot);
        }
    }
}

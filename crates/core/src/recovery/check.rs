//! Checks: of a suspect, and of a node that was repaired. Four outcomes: pass, fail, inconclusive, could not be run.

use super::effect::{Act, CheckLevel, EffectId};
use super::policy::OnInconclusive;
use super::record::{Outcome, Verdict};
use super::signal::{CheckOutcome, SignalKind};
use super::state::{JobState, NodeState};
use super::step::{Step, later};

impl Step<'_> {
    /// The node takes nothing new. Once what failed on it has ended, it is checked; or repaired at once, if that is known
    /// to be needed.
    pub fn after_fence(&mut self, node: &str, is_late: bool) {
        let row = &self.r.nodes[node];
        let Some(incident) = self.r.open_incident(node) else { return };
        if row.state != NodeState::Fenced || incident.watched {
            return;
        }
        if incident.advice.is_conclusive() {
            let (id, why) = (incident.id, format!("advice: {}", incident.advice));
            self.decide_verdict(id, Verdict::Fail);
            return self.plan(node, &why);
        }
        let is_fencing = row.open.iter().any(|effect| matches!(effect.act, Act::Fence { .. }));
        let mut jobs = self.r.jobs.values();
        let is_ending = jobs.any(|job| job.state == JobState::Stopping && job.live_on(node));
        // Whoever runs into such an error ends soon; and beside it only a look would be possible, which says less.
        let repeats = incident.signals.iter().any(|signal| matches!(signal.kind, SignalKind::Repeated { .. }));
        let is_used = repeats && !self.r.users(node, &incident.gpus).is_empty();
        if (is_fencing || is_ending || is_used) && !is_late {
            return;
        }
        let why = if is_late { "not all that failed there has ended" } else { "what failed there has ended" };
        self.become_node(node, NodeState::Checking, Some(self.r.policy.deadlines.check), why);
        self.run_check(node);
    }

    pub fn run_check(&mut self, node: &str) {
        let Some(incident) = self.r.open_incident(node) else { return };
        let (id, gpus) = (incident.id, incident.gpus.clone());
        let needs_long = incident.signals.iter().any(|signal| signal.kind.needs_long_check());
        let is_failure = incident.signals.iter().any(|signal| {
            // It has ended, or it hangs.
            matches!(signal.kind, SignalKind::ExitCode { .. }) || signal.job.is_some()
        });
        let is_verifying = self.r.nodes[node].state == NodeState::Verifying;
        let level = match needs_long || (is_failure && !is_verifying) {
            true => CheckLevel::Medium,
            false => CheckLevel::Quick,
        };
        let mut jobs = self.r.jobs.values();
        let passive = jobs.any(|job| if gpus.is_empty() { job.live_on(node) } else { job.uses(node, &gpus) });
        let until = later(self.now, self.r.policy.deadlines.check);
        let effect = self.emit(node, Act::RunCheck { node: node.to_owned(), gpus, level, passive, until });
        let now = self.now;
        let incident = self.incident(id);
        (incident.check, incident.check_began) = (Some(effect), Some(now));
        if !is_verifying {
            // Nor is there to be another one beside it, for which it was time soon.
            let row = self.node(node);
            (row.deadline, row.wake) = (Some(until), None);
        }
    }

    /// Its answer is not wanted any more.
    pub fn cancel_check(&mut self, node: &str) {
        let Some(id) = self.open_incident(node) else { return };
        let Some(check) = self.incident(id).check.take() else { return };
        if self.settle(&check).is_some() {
            self.emit(node, Act::Cancel { effect: check });
        }
    }

    pub fn check_ended(&mut self, effect: &EffectId, outcome: CheckOutcome, evidence: &str) {
        let EffectId::Node { node, .. } = effect else { return };
        if self.settle(effect).is_none() {
            return;
        }
        let Some(incident) = self.r.open_incident(node) else { return };
        if incident.check.as_ref() != Some(effect) {
            return;
        }
        let id = incident.id;
        self.incident(id).check = None;
        let told = match evidence {
            "" => format!("the check {outcome}"),
            evidence => format!("the check {outcome}: {evidence}"),
        };
        if !matches!(outcome, CheckOutcome::Infrastructure) {
            self.node(node).seen.agent = true;
        }
        match self.r.nodes[node].state {
            NodeState::Checking => self.checked(node, outcome, &told),
            NodeState::Verifying => self.verified(node, outcome, &told),
            NodeState::Healthy
            | NodeState::Suspected
            | NodeState::Fenced
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::Draining
            | NodeState::Remediating { .. }
            | NodeState::OutOfService => {}
        }
    }

    fn checked(&mut self, node: &str, outcome: CheckOutcome, told: &str) {
        let Some(id) = self.open_incident(node) else { return };
        match outcome {
            CheckOutcome::Pass => self.heal(node, Outcome::Passed, told),
            CheckOutcome::Fail { gpus, advice } => {
                let incident = self.incident(id);
                incident.gpus.extend(gpus);
                incident.advice = incident.advice.max(advice);
                self.decide_verdict(id, Verdict::Fail);
                self.plan(node, told);
            }
            CheckOutcome::Inconclusive => {
                self.incident(id).ran_without_verdict = true;
                self.no_verdict(node, told);
            }
            CheckOutcome::Infrastructure => {
                let tries = self.r.incidents[&id].infrastructure + 1;
                self.incident(id).infrastructure = tries;
                self.remark(node, told);
                if tries >= self.r.policy.infrastructure_checks {
                    return self.without_verdict(node, &format!("{tries} checks could not be run; {told}"));
                }
                self.check_again(node, tries);
            }
        }
    }

    /// No answer came in time. It may still be running, and is not waited for.
    pub fn check_overdue(&mut self, node: &str) {
        self.cancel_check(node);
        self.no_verdict(node, "the check gave no answer in time");
    }

    fn no_verdict(&mut self, node: &str, told: &str) {
        let Some(id) = self.open_incident(node) else { return };
        let tries = self.r.incidents[&id].inconclusive + 1;
        self.incident(id).inconclusive = tries;
        self.remark(node, told);
        if tries <= self.r.policy.inconclusive_checks {
            return self.check_again(node, tries);
        }
        let incident = &self.r.incidents[&id];
        let is_there = incident.ran_without_verdict && self.r.nodes[node].seen.agent;
        if is_there && !incident.peer && self.r.policy.inconclusive == OnInconclusive::Reboot {
            self.decide_verdict(id, Verdict::Inconclusive);
            return self.plan(node, &format!("{tries} checks gave no verdict; {told}"));
        }
        self.without_verdict(node, &format!("{tries} checks gave no verdict; {told}"));
    }

    fn without_verdict(&mut self, node: &str, why: &str) {
        let has_own = self.r.open_incident(node).is_some_and(|incident| !incident.peer);
        if has_own { self.retire(node, why) } else { self.heal(node, Outcome::Inconclusive, why) }
    }

    /// Twice as long after each try. The deadline is that of a check which begins by then.
    fn check_again(&mut self, node: &str, tries: u32) {
        let deadlines = &self.r.policy.deadlines;
        let wait = deadlines.recheck.saturating_mul(1 << tries.saturating_sub(1).min(6));
        let deadline = later(later(self.now, wait), deadlines.check);
        self.again_in(node, wait);
        if self.r.nodes[node].state == NodeState::Checking {
            self.node(node).deadline = Some(deadline);
        }
    }

    /// It was repaired, and was looked at since: is it as it was before? Then it is checked.
    pub fn verify(&mut self, node: &str) {
        let row = &self.r.nodes[node];
        let Some(incident) = self.r.open_incident(node) else { return };
        let is_complete = row.seen.gpus.is_none_or(|gpus| gpus >= row.gpus);
        let waits = row.wake.is_some() && incident.inconclusive + incident.infrastructure > 0;
        if row.state == NodeState::Verifying
            && incident.looked
            && row.seen.agent
            && is_complete
            && incident.check.is_none()
            && !waits
        {
            self.run_check(node);
        }
    }

    fn verified(&mut self, node: &str, outcome: CheckOutcome, told: &str) {
        match outcome {
            CheckOutcome::Pass => {
                self.tried_result(node, "it is as it was before, and a check passed");
                self.heal(node, Outcome::Repaired, told);
            }
            CheckOutcome::Fail { gpus, advice } => {
                let Some(id) = self.open_incident(node) else { return };
                let incident = self.incident(id);
                incident.gpus.extend(gpus);
                incident.advice = incident.advice.max(advice);
                self.decide_verdict(id, Verdict::Fail);
                self.next(node, told);
            }
            // Until the deadline; then it did not help.
            CheckOutcome::Inconclusive | CheckOutcome::Infrastructure => {
                let Some(id) = self.open_incident(node) else { return };
                self.incident(id).infrastructure += 1;
                self.remark(node, told);
                self.check_again(node, 1);
            }
        }
    }
}

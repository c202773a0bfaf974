//! Repairs: allowed, its turn, drained, done; one rung of the ladder after another until one helps or none is left.

use std::collections::BTreeSet;

use super::budget::{Plan, WEEK};
use super::effect::{Act, NoticeKind, StopWhy};
use super::policy::{DrainPolicy, Mode};
use super::record::{Outcome, Remediation, Tried};
use super::signal::Class;
use super::state::{NodeState, Rung};
use super::step::{Step, earlier, later};

/// How often a node that waited is looked at before it is repaired although it does not answer.
const LOOKS: i32 = 4;

impl Step<'_> {
    /// The node is broken: chooses what to do, and begins as soon as that is allowed.
    pub fn plan(&mut self, node: &str, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        self.cancel_check(node);
        if !self.r.may_act(node) {
            return self.let_be(node, why);
        }
        match self.next_rung(node) {
            Plan::Nothing(reason) => {
                self.incident(id).plan = None;
                self.retire(node, &format!("{reason}; {why}"));
            }
            Plan::Rung(rung) => {
                let counted = self.r.in_repair().any(|name| name == node);
                self.incident(id).plan = Some(rung);
                let needs_approval = self.r.mode(&self.r.nodes[node]) == Mode::Approve;
                if needs_approval && self.r.incidents[&id].approved != Some(rung) {
                    return self.await_approval(node, rung, why);
                }
                self.turn(node, counted, why);
            }
        }
    }

    /// People took the node out of our hands while something was done to it, and more would be needed.
    pub fn let_be(&mut self, node: &str, why: &str) {
        let left = "recovery is not to act here any more";
        self.tell(node, NoticeKind::Would, format!("{node} is left as it is, and may be broken: {left}; {why}"));
        self.heal(node, Outcome::Observed, left);
    }

    fn await_approval(&mut self, node: &str, rung: Rung, why: &str) {
        self.drop_open(node, |act| matches!(act, Act::Drain { .. }));
        if self.r.nodes[node].state != NodeState::AwaitingApproval {
            self.become_node(node, NodeState::AwaitingApproval, Some(self.r.policy.deadlines.approval), why);
        }
        self.tell(node, NoticeKind::ApprovalWanted, format!("{node} needs: {rung}; {why}"));
    }

    /// Not too many at once. One that is in repair keeps its place for the next rung.
    pub fn turn(&mut self, node: &str, has_place: bool, why: &str) {
        let others = self.others_in_repair(node);
        if !has_place && others >= self.r.repair_limit() {
            if self.r.nodes[node].state != NodeState::Queued {
                let why = format!("{others} nodes are in repair, which are as many as may be; {why}");
                self.become_node(node, NodeState::Queued, Some(self.r.policy.deadlines.queue), why);
            }
            return;
        }
        self.drain(node, why);
    }

    /// Whoever waits longest goes first.
    pub fn move_up(&mut self) {
        let queued = self.r.nodes().filter(|node| node.state == NodeState::Queued);
        let mut queued: Vec<_> = queued.map(|node| (node.incident, node.name.clone())).collect();
        queued.sort();
        for (_, node) in queued {
            if self.others_in_repair(&node) >= self.r.repair_limit() {
                break;
            }
            self.drain(&node, "its turn has come");
        }
    }

    /// Nobody's work is ended by a repair elsewhere on the node unless that is what people want.
    fn drain(&mut self, node: &str, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        let has_waited = matches!(self.r.nodes[node].state, NodeState::AwaitingApproval | NodeState::Queued);
        if has_waited {
            self.incident(id).unseen = Some(self.now);
        }
        if self.r.incidents[&id].drained {
            if !self.is_unseen(node) {
                return self.remediate(node, why);
            }
            if self.r.nodes[node].state != NodeState::Draining {
                self.become_node(node, NodeState::Draining, Some(self.r.policy.deadlines.suspected), why);
                self.look(node);
            }
            return;
        }
        let gpus = self.to_be_free(node);
        self.drop_open(node, |act| matches!(act, Act::Drain { .. }));
        if self.r.nodes[node].state != NodeState::Draining {
            self.become_node(node, NodeState::Draining, Some(self.r.policy.deadlines.drain), why);
        }
        self.emit(node, Act::Drain { node: node.to_owned(), gpus: gpus.clone() });
        if self.lacks_boot(node) || self.is_unseen(node) {
            self.look(node);
        }
        if self.r.policy.drain == DrainPolicy::Preempt {
            for job in self.r.users(node, &gpus) {
                self.fail_job(&job, Class::Moved, &format!("{node} needs a repair"), StopWhy::Drain);
            }
        }
    }

    /// GPUs that nobody may use during what is planned; none: the whole node.
    fn to_be_free(&self, node: &str) -> BTreeSet<String> {
        match self.r.open_incident(node) {
            Some(incident) if incident.plan == Some(Rung::ResetGpu) => incident.gpus.clone(),
            Some(_) | None => BTreeSet::new(),
        }
    }

    /// Whoever was there may be gone now.
    pub fn drained(&mut self, node: &str) {
        let row = &self.r.nodes[node];
        let waits = row.open.iter().any(|effect| matches!(effect.act, Act::Drain { .. }));
        if row.state != NodeState::Draining
            || waits
            || self.is_unseen(node)
            || !self.r.users(node, &self.to_be_free(node)).is_empty()
        {
            return;
        }
        self.remediate(node, "nobody else is there");
    }

    /// While it waited for a person or for its turn nobody looked at it, and it may have come up anew by itself: then it is to be
    /// checked, and not repaired.
    pub fn is_unseen(&self, node: &str) -> bool {
        self.r.open_incident(node).is_some_and(|incident| incident.unseen.is_some())
    }

    /// It answered in the boot that is known, or would not answer for so long that this says nothing.
    pub fn is_seen(&mut self, node: &str) {
        if let Some(id) = self.open_incident(node)
            && self.is_unseen(node)
        {
            self.incident(id).unseen = None;
        }
    }

    /// Time for another look at one that is drained, or for going on without.
    pub fn draining_wakes(&mut self, node: &str) {
        let patience = self.r.policy.deadlines.observe.saturating_mul(LOOKS);
        let unseen = self.r.open_incident(node).and_then(|incident| incident.unseen);
        if unseen.is_some_and(|since| later(since, patience) <= self.now) {
            self.remark(node, "it does not answer, so whether it came up anew while it waited is not known");
            self.is_seen(node);
            self.drained(node);
        }
        if self.r.nodes[node].state == NodeState::Draining && (self.lacks_boot(node) || self.is_unseen(node)) {
            self.look(node);
        }
    }

    /// It is to come up anew, and which boot runs is not known: nothing would show that it has.
    pub fn lacks_boot(&self, node: &str) -> bool {
        let plan = self.r.open_incident(node).and_then(|incident| incident.plan);
        plan.is_some_and(Rung::restarts_node) && self.r.nodes[node].boot_id.is_none()
    }

    /// Nobody is there any more, and its boot is asked for until it is known.
    fn await_boot(&mut self, node: &str, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        let is_new = !std::mem::replace(&mut self.incident(id).drained, true);
        let within = self.r.policy.deadlines.suspected;
        if self.r.nodes[node].state != NodeState::Draining {
            self.become_node(node, NodeState::Draining, Some(within), why);
        } else if is_new {
            let at = later(self.now, within);
            self.node(node).deadline = Some(at);
        } else {
            return;
        }
        self.remark(node, "which boot it runs is not known: that is asked for before it is started anew");
        self.look(node);
    }

    /// Does it. It counts against the budgets from here on, whatever becomes of it.
    fn remediate(&mut self, node: &str, why: &str) {
        let Some(incident) = self.r.open_incident(node) else { return };
        let (id, Some(rung), gpus) = (incident.id, incident.plan, incident.gpus.clone()) else { return };
        if self.lacks_boot(node) {
            return self.await_boot(node, why);
        }
        let deadlines = &self.r.policy.deadlines;
        let (within, observe) = match rung {
            Rung::ResetGpu => (deadlines.reset_gpu, None),
            Rung::Reboot => (deadlines.reboot, Some(deadlines.observe)),
            Rung::HardReboot => (deadlines.hard_reboot, Some(deadlines.observe)),
            Rung::Replace => (deadlines.replace, Some(deadlines.observe)),
        };
        let now = self.now;
        self.become_node(node, NodeState::Remediating { rung }, Some(within), why);
        let row = self.node(node);
        row.remediations.retain(|past| past.at > earlier(now, WEEK));
        row.remediations.push(Remediation { at: now, rung, incident: id });
        let boot_id = row.boot_id.clone();
        let incident = self.incident(id);
        incident.tried.push(Tried { at: now, rung, result: None });
        incident.drained |= rung != Rung::ResetGpu;
        (incident.restarted, incident.looked) = (false, false);
        (incident.inconclusive, incident.infrastructure) = (0, 0);
        let name = node.to_owned();
        let act = match rung {
            Rung::ResetGpu => Act::ResetGpu { node: name, gpus },
            Rung::Reboot => Act::Reboot { node: name, boot_id },
            Rung::HardReboot => Act::HardReboot { node: name, boot_id },
            Rung::Replace => Act::Replace { node: name },
        };
        self.emit(node, act);
        if let Some(observe) = observe {
            self.again_in(node, observe);
        }
    }

    /// It is said to be done, or was seen to be.
    pub fn begin_verifying(&mut self, node: &str, why: &str) {
        self.drop_open(node, |act| act.is_once() || matches!(act, Act::Drain { .. }));
        self.become_node(node, NodeState::Verifying, Some(self.r.policy.deadlines.verify), why);
    }

    /// What was done did not help.
    pub fn next(&mut self, node: &str, why: &str) {
        self.drop_open(node, |act| act.is_once());
        self.tried_result(node, why);
        self.plan(node, why);
    }

    pub fn tried_result(&mut self, node: &str, result: &str) {
        let Some(id) = self.open_incident(node) else { return };
        if let Some(tried) = self.incident(id).tried.last_mut() {
            tried.result = Some(result.to_owned());
        }
    }

    /// A place on the node became free.
    pub fn freed(&mut self, nodes: BTreeSet<String>) {
        for node in nodes {
            if self.r.node(&node).is_some() {
                self.after_fence(&node, false);
                self.drained(&node);
            }
        }
    }
}

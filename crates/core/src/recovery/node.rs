//! What is told of nodes: that they are there, how they look, and what became of what was wanted for them.

use super::effect::{Act, EffectId, NodeFacts, NoticeKind, Seen};
use super::record::{Key, NodeRecord, Outcome, Tried};
use super::signal::{Advice, CheckOutcome, Signal, SignalKind};
use super::state::{NodeState, Rung};
use super::step::{Step, later};

/// How many boots that are over are known of a node.
const BOOTS: usize = 16;

impl Step<'_> {
    pub fn node_is(&mut self, name: String, facts: NodeFacts) {
        let is_new = self.r.node(&name).is_none();
        self.touch(Key::Node(name.clone()));
        let row = self.r.nodes.entry(name.clone()).or_default();
        row.name.clone_from(&name);
        if is_new {
            row.gone = false;
            row.deadline = None;
            // Whoever tells of a node has seen it.
            row.seen = Seen { boot_id: facts.boot_id.clone(), agent: true, gpus: facts.gpus };
            row.past_boots.retain(|past| Some(past) != facts.boot_id.as_ref());
        }
        // One that comes up is looked at: a boot that is known for the first time may be the new one.
        let comes_up = matches!(row.state, NodeState::Remediating { rung } if rung.restarts_node());
        if let Some(boot_id) = &facts.boot_id
            && row.boot_id.is_none()
            && !comes_up
        {
            row.boot_id = Some(boot_id.clone());
        }
        row.gpus = facts.gpus.unwrap_or(row.gpus);
        row.facts = facts;
        self.let_held_act(&name);
        self.follow_mode(&name);
    }

    /// What recovery may do to the node may have changed while it was at it.
    fn follow_mode(&mut self, node: &str) {
        let row = &self.r.nodes[node];
        if row.state == NodeState::OutOfService && row.facts.opted_out {
            let text = format!("{node} was out of service, opts out of recovery, and is in use again, unchecked");
            self.put_back(node, "the node has opted out of recovery");
            return self.tell(node, NoticeKind::Would, text);
        }
        let Some(incident) = self.r.open_incident(node) else { return };
        let (id, watched, acts) = (incident.id, incident.watched, self.r.may_act(node));
        if watched && acts {
            if self.is_only_told(node) {
                return;
            }
            self.incident(id).watched = false;
            return self.begin(node);
        }
        // What was only wanted so far is not done any more; what was begun is seen to its end.
        let row = &self.r.nodes[node];
        let is_wanted = row.open.iter().any(|effect| effect.act.is_once() && !effect.begun);
        let is_begun = matches!(row.state, NodeState::Remediating { .. } | NodeState::Verifying) && !is_wanted;
        if !watched && !acts && !is_begun {
            self.cancel_check(node);
            self.heal(node, Outcome::Observed, "recovery is not to act here any more");
        }
    }

    /// It will not be back under this name, or as another machine.
    pub fn node_gone(&mut self, name: &str, why: &str) {
        if self.r.node(name).is_none() {
            return;
        }
        if let Some(id) = self.open_incident(name) {
            self.tried_result(name, why);
            self.remark(name, why);
            self.close(id, Outcome::Gone);
        }
        let week = super::budget::WEEK;
        let forget = later(self.now, week);
        let row = self.node(name);
        row.open.retain(|effect| matches!(effect.act, Act::Notify { .. }));
        (row.gone, row.fenced, row.state) = (true, false, NodeState::Healthy);
        (row.deadline, row.wake, row.since) = (Some(forget), None, None);
        row.held.clear();
        if let Some(boot_id) = row.boot_id.take() {
            remember(row, boot_id);
        }
    }

    /// Asks how it looks; once more a while later.
    pub fn look(&mut self, node: &str) {
        self.drop_open(node, |act| matches!(act, Act::Observe { .. }));
        self.emit(node, Act::Observe { node: node.to_owned() });
        self.again_in(node, self.r.policy.deadlines.observe);
    }

    pub fn observed(&mut self, name: &str, seen: Seen) {
        let Some(row) = self.r.node(name) else { return };
        // Seen before its newest boot, and told late.
        if seen.boot_id.as_ref().is_some_and(|boot_id| row.past_boots.contains(boot_id)) {
            return;
        }
        self.drop_open(name, |act| matches!(act, Act::Observe { .. }));
        let row = self.node(name);
        let mut is_new_boot = false;
        if let Some(boot_id) = &seen.boot_id
            && row.boot_id.as_ref() != Some(boot_id)
        {
            // Ordered, and which boot ran then was not known: that it is not the one from before is for the check to say.
            let was_ordered = matches!(row.state, NodeState::Remediating { rung } if rung.restarts_node())
                && !row.open.iter().any(|effect| effect.act.is_once());
            match row.boot_id.replace(boot_id.clone()) {
                Some(past) => {
                    remember(row, past);
                    is_new_boot = true;
                }
                None => is_new_boot = was_ordered,
            }
        }
        row.seen = Seen { boot_id: row.boot_id.clone(), ..seen };
        if row.facts.gpus.is_none() && row.state == NodeState::Healthy {
            row.gpus = row.gpus.max(row.seen.gpus.unwrap_or(0));
        }
        if self.open_incident(name).is_some() {
            self.looked(name, is_new_boot)
        } else {
            self.look_over(name)
        }
        self.let_held_act(name);
    }

    /// A look at a node in trouble.
    fn looked(&mut self, name: &str, is_new_boot: bool) {
        let Some(id) = self.open_incident(name) else { return };
        let seen = self.r.nodes[name].seen.clone();
        let incident = &self.r.incidents[&id];
        if incident.watched {
            return;
        }
        if is_new_boot {
            self.remark(name, format!("it has a new boot id, {}", seen.boot_id.as_deref().unwrap_or_default()));
        }
        let leaves = self.r.incidents[&id].signals.iter().any(|signal| signal.kind == SignalKind::SpotInterruption);
        match self.r.nodes[name].state {
            NodeState::Suspected if seen.agent && !leaves => self.returned(name, "it answers again"),
            // A check that began before says nothing of it now.
            NodeState::Checking if is_new_boot => {
                self.cancel_check(name);
                self.run_check(name);
            }
            // It came up anew without us: that is as good as what was planned, or as little.
            NodeState::AwaitingApproval | NodeState::Queued | NodeState::Draining
                if is_new_boot && self.r.incidents[&id].may_be_mended_by_a_boot() =>
            {
                let now = self.now;
                let incident = self.incident(id);
                (incident.plan, incident.restarted, incident.looked) = (None, true, true);
                // A reboot of ours may have come late.
                if !incident.tried.iter().any(|tried| tried.rung.is_reboot()) {
                    let result = Some("it came up anew by itself, or by a person".to_owned());
                    incident.tried.push(Tried { at: now, rung: Rung::Reboot, result });
                }
                self.begin_verifying(name, "it came up anew before it was repaired");
                self.verify(name);
            }
            NodeState::Remediating { rung } if rung.restarts_node() && is_new_boot => {
                let incident = self.incident(id);
                (incident.restarted, incident.looked) = (true, true);
                self.begin_verifying(name, "it came up anew, as its boot id shows");
                self.again_in(name, self.r.policy.deadlines.observe);
                self.verify(name);
            }
            NodeState::Verifying => {
                self.incident(id).looked = true;
                self.verify(name);
            }
            NodeState::Draining => {
                if seen.agent {
                    self.is_seen(name);
                }
                self.drained(name);
            }
            NodeState::Suspected
            | NodeState::Fenced
            | NodeState::Checking
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::Remediating { .. }
            | NodeState::Healthy
            | NodeState::OutOfService => {}
        }
    }

    /// A look at a node that is not in trouble, or is out of service: is it as it should be?
    fn look_over(&mut self, name: &str) {
        let row = &self.r.nodes[name];
        let (seen, gpus, state) = (row.seen.clone(), row.gpus, row.state);
        let signal = |id: String, kind, evidence: String| Signal {
            id,
            node: name.to_owned(),
            boot_id: seen.boot_id.clone(),
            gpu: None,
            job: None,
            at: self.now,
            kind,
            advice: Advice::Check,
            evidence,
        };
        let was_away = row.incident.and_then(|id| self.r.incidents.get(&id)).is_some_and(|past| past.absent);
        if state == NodeState::OutOfService && was_away && seen.agent {
            let signal = signal(String::new(), SignalKind::Returned, "it answers again".to_owned());
            self.suspect(signal);
        } else if state == NodeState::Healthy && seen.agent && seen.gpus.is_some_and(|has| has < gpus) {
            let has = seen.gpus.unwrap_or(0);
            let signal = signal(String::new(), SignalKind::LostGpu, format!("{has} GPUs of {gpus} are there"));
            self.suspect(signal);
        }
    }

    /// A node that was away is there: a check says whether it may have work again.
    pub fn returned(&mut self, node: &str, why: &str) {
        self.become_node(node, NodeState::Checking, Some(self.r.policy.deadlines.check), why);
        self.run_check(node);
    }

    pub fn begun(&mut self, id: &EffectId) {
        let EffectId::Node { node, .. } = id else { return };
        if self.r.effect(id).is_some_and(|effect| effect.act.is_once() && !effect.begun) {
            let mut open = self.node(node).open.iter_mut();
            if let Some(effect) = open.find(|effect| effect.id == *id) {
                effect.begun = true;
            }
        }
    }

    pub fn done(&mut self, id: &EffectId) {
        let Some(effect) = self.settle(id) else { return };
        let EffectId::Node { node, .. } = id else { return };
        match effect.act {
            Act::Fence { .. } => self.after_fence(node, false),
            Act::Drain { .. } => self.drained(node),
            Act::ResetGpu { .. } => {
                self.begin_verifying(node, "the GPUs were reset");
                self.look(node);
            }
            Act::Reboot { .. } | Act::HardReboot { .. } | Act::Replace { .. } => {
                self.remark(node, "it was ordered; a new boot id will show it");
                self.look(node);
            }
            Act::Unfence { .. }
            | Act::RunCheck { .. }
            | Act::Observe { .. }
            | Act::StopJob { .. }
            | Act::RestartJob { .. }
            | Act::FailJob { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => {}
        }
    }

    pub fn effect_failed(&mut self, id: &EffectId, why: &str, certain: bool) {
        let Some(effect) = self.r.effect(id).cloned() else { return };
        match (&effect.act, id) {
            (Act::RunCheck { .. }, EffectId::Node { .. }) => self.check_ended(id, CheckOutcome::Infrastructure, why),
            (Act::ResetGpu { .. }, EffectId::Node { node, .. }) if certain => {
                self.next(node, &format!("the GPUs could not be reset: {why}"));
            }
            // It may have worked, as a check will show.
            (Act::ResetGpu { .. }, EffectId::Node { node, .. }) => {
                self.begin_verifying(node, &format!("whether the GPUs were reset is not known: {why}"));
                self.look(node);
            }
            (Act::Reboot { .. } | Act::HardReboot { .. } | Act::Replace { .. }, EffectId::Node { node, .. }) => {
                if certain {
                    return self.next(node, &format!("it could not be ordered: {why}"));
                }
                // It may be under way. It is looked at, and never ordered again.
                self.settle(id);
                self.remark(node, format!("whether it was ordered is not known: {why}"));
                self.look(node);
            }
            (Act::RestartJob { .. }, EffectId::Job { job, .. }) => self.not_restarted(id, job, why, certain),
            // Still wanted: whoever performs them tries again, and the deadline of the state leads on.
            (
                Act::Fence { .. }
                | Act::Unfence { .. }
                | Act::Drain { .. }
                | Act::Observe { .. }
                | Act::Notify { .. }
                | Act::Cancel { .. },
                EffectId::Node { node, .. },
            ) => self.remark(node, format!("{} did not work: {why}", effect.act.name())),
            (Act::StopJob { .. } | Act::FailJob { .. } | Act::Notify { .. }, EffectId::Job { .. }) => {}
            (Act::StopJob { .. } | Act::RestartJob { .. } | Act::FailJob { .. }, EffectId::Node { .. })
            | (_, EffectId::Job { .. }) => {}
        }
    }
}

fn remember(row: &mut NodeRecord, boot_id: String) {
    row.past_boots.push(boot_id);
    if row.past_boots.len() > BOOTS {
        row.past_boots.remove(0);
    }
}

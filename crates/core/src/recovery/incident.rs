//! Incidents: one is open per node at most. Signals of a node that is in trouble merge into it.

use std::collections::BTreeSet;

use super::budget::Plan;
use super::effect::{Act, Notice, NoticeKind};
use super::record::{Incident, IncidentId, Key, Outcome, Verdict};
use super::signal::{Advice, Class, Signal, SignalKind};
use super::state::NodeState;
use super::step::{Step, later};

/// How many signals an incident shows.
const SIGNALS: usize = 50;

impl Step<'_> {
    /// Something speaks against a node, if only that it is away.
    pub fn suspect(&mut self, signal: Signal) {
        let node = signal.node.clone();
        if signal.kind == SignalKind::NodeLost {
            self.node(&node).seen.agent = false;
        }
        if self.is_only_told(&node) {
            self.end_told(&node, "there is more to it");
        }
        if self.open_incident(&node).is_none() {
            // What is out of service stays so until a person wants it back, or it is back by itself.
            if self.r.nodes[&node].state == NodeState::OutOfService {
                let acts = self.r.may_act(&node);
                match signal.kind {
                    SignalKind::Returned | SignalKind::User if acts => {}
                    // Recovery may not check it; that it was away is over.
                    SignalKind::Returned => {
                        return self.put_back(&node, "it answers again; recovery only watches here");
                    }
                    // What still runs there may hang all the same.
                    _ => return self.end_on_retired(&signal),
                }
            }
            self.open(&signal);
            let acts = self.r.may_act(&node);
            self.hit_jobs(&signal);
            if acts {
                self.begin(&node)
            } else {
                self.watch(&node)
            }
            return;
        }
        let is_new = self.merge(&signal);
        if self.r.open_incident(&node).is_some_and(|incident| incident.watched) {
            // It is over when nothing was seen for a while, so that one trouble is told of once.
            let quiet = later(self.now, self.r.policy.deadlines.suspected);
            self.node(&node).deadline = Some(quiet);
            if is_new {
                self.watch(&node);
            }
            return;
        }
        self.hit_jobs(&signal);
        if self.is_of_the_repaired(&signal) {
            self.cancel_check(&node);
            if let Some(id) = self.open_incident(&node) {
                self.decide_verdict(id, Verdict::Fail);
            }
            return self.next(&node, &format!("it did not help: {}", signal.words()));
        }
        if is_new {
            self.reconsider(&node, &signal);
        }
    }

    /// The node is being verified, and what came shows by itself that it is broken, and happened after its repair: whatever a check
    /// would say, it does not serve again like that.
    fn is_of_the_repaired(&self, signal: &Signal) -> bool {
        let row = &self.r.nodes[&signal.node];
        let Some(incident) = self.r.open_incident(&signal.node) else { return false };
        if row.state != NodeState::Verifying || signal.kind.is_absence() || !signal.advice.is_conclusive() {
            return false;
        }
        match &signal.boot_id {
            // The boot that runs is the one that the repair began, so whatever it shows is of after that.
            Some(of) if incident.restarted => row.boot_id.as_ref() == Some(of),
            Some(_) | None => row.since.is_some_and(|since| signal.at > since),
        }
    }

    /// A new incident; its node is suspected.
    fn open(&mut self, signal: &Signal) -> IncidentId {
        self.touch(Key::Fleet);
        self.r.fleet.incidents += 1;
        let id = IncidentId(self.r.fleet.incidents);
        let absent = signal.kind.is_absence();
        let class = if absent || signal.advice.is_conclusive() { Class::Infrastructure } else { Class::Unknown };
        let incident = Incident {
            id,
            node: signal.node.clone(),
            gpus: signal.gpu.iter().cloned().collect(),
            class,
            signals: vec![signal.clone()],
            more_signals: 0,
            advice: signal.advice,
            absent,
            peer: matches!(signal.kind, SignalKind::Peer),
            watched: false,
            jobs: BTreeSet::new(),
            opened: self.now,
            closed: None,
            outcome: None,
            verdict: None,
            trail: Vec::new(),
            check: None,
            check_began: None,
            inconclusive: 0,
            infrastructure: 0,
            ran_without_verdict: false,
            plan: None,
            approved: None,
            reminded: 0,
            drained: false,
            tried: Vec::new(),
            restarted: false,
            looked: false,
            unseen: None,
        };
        self.touch(Key::Incident(id));
        self.r.incidents.insert(id, incident);
        // What was wanted for an earlier incident would undo what is done for this one. Where this one is only watched, the node is
        // still to be let go of.
        let stays = |act: &Act| matches!(act, Act::Notify { .. } | Act::Cancel { .. } | Act::Unfence { .. });
        self.drop_open(&signal.node, |act| !stays(act));
        let row = self.node(&signal.node);
        if let Some(past) = row.incident.replace(id) {
            self.let_go(past);
        }
        let why = signal.words();
        self.become_node(&signal.node, NodeState::Suspected, Some(self.r.policy.deadlines.suspected), why);
        id
    }

    /// Another signal of a node in trouble. Whether it says more than the others did.
    fn merge(&mut self, signal: &Signal) -> bool {
        let Some(id) = self.open_incident(&signal.node) else { return false };
        let incident = self.incident(id);
        if incident.signals.len() < SIGNALS {
            incident.signals.push(signal.clone());
        } else {
            incident.more_signals += 1;
        }
        let absent = signal.kind.is_absence();
        let is_new = !absent && (incident.absent || incident.peer || signal.advice > incident.advice);
        incident.gpus.extend(signal.gpu.clone());
        if !absent {
            // Its own trouble counts for more than that it is away.
            incident.advice = if incident.absent { signal.advice } else { incident.advice.max(signal.advice) };
            incident.absent = false;
            incident.peer &= matches!(signal.kind, SignalKind::Peer);
        }
        self.remark(&signal.node, signal.words());
        is_new
    }

    /// A node was suspected, and recovery may act: no new work, then whatever the signal asks for.
    pub fn begin(&mut self, node: &str) {
        self.fence(node);
        let Some(incident) = self.r.open_incident(node) else { return };
        if incident.absent {
            // It may be back any moment; its work is lost when whoever lends it says so.
            self.look(node);
            return;
        }
        self.become_node(node, NodeState::Fenced, Some(self.r.policy.deadlines.fence), "takes no new work");
        self.after_fence(node, false);
    }

    /// Recovery only watches here: what would be done is told, and the node is left alone.
    fn watch(&mut self, node: &str) {
        let Some(id) = self.open_incident(node) else { return };
        self.incident(id).watched = true;
        let incident = &self.r.incidents[&id];
        let would = match (incident.absent, incident.advice) {
            (true, _) => "would give it no new work and wait for it".to_owned(),
            (false, advice) if advice.is_conclusive() => match advice.rung() {
                Some(rung) => format!("would fence it, drain it, and then: {rung}"),
                None => "would take it out of service".to_owned(),
            },
            (false, _) => "would fence it and check it".to_owned(),
        };
        let why = match self.r.nodes[node].facts.opted_out {
            true => "the node has opted out of recovery",
            false => "recovery only watches here",
        };
        self.remark(node, format!("{would}; {why}"));
        self.tell(node, NoticeKind::Would, format!("{node}: {would}; {why}"));
    }

    /// Nothing that can be done from here helps, as with heat: people are told, and the node stays in use.
    pub fn only_tell(&mut self, signal: &Signal) {
        let node = signal.node.clone();
        let said = format!("{}: {}", signal.kind, signal.evidence);
        if let Some(id) = self.open_incident(&node) {
            let incident = self.incident(id);
            match incident.signals.len() < SIGNALS {
                true => incident.signals.push(signal.clone()),
                false => incident.more_signals += 1,
            }
            self.remark(&node, said);
            if self.is_only_told(&node) {
                let quiet = later(self.now, self.r.policy.deadlines.suspected);
                self.node(&node).deadline = Some(quiet);
            }
            return;
        }
        if self.r.nodes[&node].state == NodeState::OutOfService {
            return;
        }
        let id = self.open(signal);
        self.incident(id).watched = true;
        self.remark(&node, "nothing that can be done from here helps: people are told, and it stays in use");
        self.tell(&node, NoticeKind::Would, format!("{node} needs somebody to look at it: {said}"));
    }

    /// All that is known of it is for people.
    pub fn is_only_told(&self, node: &str) -> bool {
        self.r.open_incident(node).is_some_and(|incident| incident.watched && incident.advice == Advice::Ignore)
    }

    /// Nobody has looked at the node, so this clears it of nothing.
    pub fn end_told(&mut self, node: &str, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        self.become_node(node, NodeState::Healthy, None, why);
        self.close(id, Outcome::Observed);
    }

    /// New evidence of a node that is already being dealt with.
    fn reconsider(&mut self, node: &str, signal: &Signal) {
        match self.r.nodes[node].state {
            // It is there after all, and in trouble of its own.
            NodeState::Suspected => {
                let within = Some(self.r.policy.deadlines.fence);
                self.become_node(node, NodeState::Fenced, within, format!("{} says more", signal.kind));
                self.after_fence(node, false);
            }
            NodeState::Fenced => self.after_fence(node, false),
            NodeState::Checking if signal.advice.is_conclusive() => {
                self.cancel_check(node);
                if let Some(id) = self.open_incident(node) {
                    self.decide_verdict(id, Verdict::Fail);
                }
                self.plan(node, &format!("{} needs no check", signal.kind));
            }
            NodeState::AwaitingApproval | NodeState::Queued | NodeState::Draining => {
                let planned = self.r.open_incident(node).and_then(|incident| incident.plan);
                if let Plan::Rung(rung) = self.next_rung(node)
                    && Some(rung) == planned
                {
                    return;
                }
                self.plan(node, &format!("{} needs more", signal.kind));
            }
            // What is being done is seen to the end; the check that follows sees the rest, but for what needs none.
            NodeState::Checking | NodeState::Remediating { .. } | NodeState::Verifying => {}
            NodeState::Healthy | NodeState::OutOfService => {}
        }
    }

    /// No new work for it. Told once.
    pub fn fence(&mut self, node: &str) {
        if std::mem::replace(&mut self.node(node).fenced, true) {
            return;
        }
        let why = self.r.open_incident(node).map(|incident| incident.id.to_string()).unwrap_or_default();
        self.drop_open(node, |act| matches!(act, Act::Unfence { .. }));
        self.emit(node, Act::Fence { node: node.to_owned(), why });
    }

    pub fn unfence(&mut self, node: &str) {
        self.drop_open(node, |act| !matches!(act, Act::Notify { .. } | Act::Cancel { .. }));
        if std::mem::replace(&mut self.node(node).fenced, false) {
            self.emit(node, Act::Unfence { node: node.to_owned() });
        }
    }

    /// The node is in use again.
    pub fn heal(&mut self, node: &str, outcome: Outcome, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        let cleared = match outcome {
            // It speaks for the node from when it began.
            Outcome::Passed | Outcome::Repaired => self.r.incidents[&id].check_began.unwrap_or(self.now),
            Outcome::Observed | Outcome::Inconclusive | Outcome::Dismissed | Outcome::OutOfService | Outcome::Gone => {
                self.now
            }
        };
        self.become_node(node, NodeState::Healthy, None, why);
        self.node(node).cleared_at = Some(cleared);
        self.unfence(node);
        self.close(id, outcome);
        if outcome == Outcome::Repaired {
            self.tell(node, NoticeKind::Repaired, format!("{node} was repaired and is in use again"));
        }
    }

    /// A node that is out of service is in use again, unchecked.
    pub fn put_back(&mut self, node: &str, why: &str) {
        self.become_node(node, NodeState::Healthy, None, why);
        let now = self.now;
        self.node(node).cleared_at = Some(now);
        self.unfence(node);
    }

    /// Nothing more happens to the node by itself, and people are told.
    pub fn retire(&mut self, node: &str, why: &str) {
        let Some(id) = self.open_incident(node) else { return };
        self.drop_open(node, |act| !matches!(act, Act::Notify { .. } | Act::Cancel { .. } | Act::Fence { .. }));
        self.become_node(node, NodeState::OutOfService, None, why);
        self.tell(node, NoticeKind::OutOfService, format!("{node} is out of service: {why}"));
        self.close(id, Outcome::OutOfService);
    }

    pub fn close(&mut self, id: IncidentId, outcome: Outcome) {
        let now = self.now;
        let incident = self.incident(id);
        (incident.closed, incident.outcome) = (Some(now), Some(outcome));
        (incident.check, incident.plan) = (None, None);
        if incident.verdict.is_none() {
            let verdict = match outcome {
                Outcome::Passed | Outcome::Dismissed => Verdict::Pass,
                Outcome::Repaired => Verdict::Fail,
                Outcome::Observed | Outcome::Inconclusive | Outcome::OutOfService | Outcome::Gone => {
                    Verdict::Inconclusive
                }
            };
            self.decide_verdict(id, verdict);
        }
    }

    /// Tells people, with what is known.
    pub fn tell(&mut self, node: &str, kind: NoticeKind, text: String) {
        let Some(id) = self.r.nodes[node].incident else { return };
        let Some(incident) = self.r.incidents.get(&id) else { return };
        let evidence = incident.signals.iter().map(Signal::words);
        let tried = incident.tried.iter().map(|tried| match &tried.result {
            Some(result) => format!("{}: {result}", tried.rung),
            None => tried.rung.to_string(),
        });
        let notice = Notice {
            kind,
            node: Some(node.to_owned()),
            job: None,
            text,
            evidence: evidence.collect(),
            tried: tried.collect(),
            left: self.left(node),
        };
        self.emit(node, Act::Notify { notice });
    }

    /// What could still be done to it.
    fn left(&self, node: &str) -> Vec<String> {
        let Some(incident) = self.r.nodes[node].incident.and_then(|id| self.r.incidents.get(&id)) else {
            return Vec::new();
        };
        let tried = |rung| incident.tried.iter().any(|tried| tried.rung >= rung);
        let rungs = self.r.nodes[node].facts.rungs.iter();
        rungs.filter(|rung| !tried(**rung)).map(ToString::to_string).collect()
    }
}

//! What people say about incidents.

use super::record::{IncidentId, Outcome};
use super::signal::{Advice, Signal, SignalKind};
use super::state::{NodeState, Rung};
use super::step::Step;

impl Step<'_> {
    fn node_of(&self, id: IncidentId) -> Option<String> {
        let incident = self.r.incidents.get(&id)?;
        let row = self.r.node(&incident.node)?;
        (row.incident == Some(id)).then(|| row.name.clone())
    }

    /// Holds for the repair that it waits with, and no other: whoever saw another one has not allowed this.
    pub fn approve(&mut self, id: IncidentId, repair: Option<Rung>, by: &str) {
        let Some(node) = self.node_of(id) else { return };
        if self.r.nodes[&node].state != NodeState::AwaitingApproval {
            return;
        }
        let plan = self.r.incidents[&id].plan;
        if let (Some(seen), Some(plan)) = (repair, plan)
            && seen != plan
        {
            return self
                .remark(&node, format!("{by} approved {seen}; by now it needs {plan}, which waits for another word"));
        }
        self.incident(id).approved = plan;
        self.turn(&node, false, &format!("approved by {by}"));
    }

    /// Too late once something is being done to the node: that is seen to its end.
    pub fn dismiss(&mut self, id: IncidentId, by: &str, why: &str) {
        let Some(node) = self.node_of(id) else { return };
        let told = format!("dismissed by {by}: {why}");
        let state = self.r.nodes[&node].state;
        if state == NodeState::OutOfService {
            self.put_back(&node, &told);
        } else if state.may_be_dismissed() {
            self.cancel_check(&node);
            self.heal(&node, Outcome::Dismissed, &told);
        }
    }

    /// Out of service is for good until somebody says so. Where recovery only watches, it does not check: there, a person who
    /// knows that the node is well dismisses the incident.
    pub fn retry(&mut self, id: IncidentId, by: &str) {
        let Some(node) = self.node_of(id) else { return };
        if self.r.nodes[&node].state != NodeState::OutOfService {
            return;
        }
        let signal = Signal {
            id: String::new(),
            node: node.clone(),
            boot_id: None,
            gpu: None,
            job: None,
            at: self.now,
            kind: SignalKind::User,
            advice: Advice::Check,
            evidence: format!("{by} wants it checked again"),
        };
        self.suspect(signal);
    }
}

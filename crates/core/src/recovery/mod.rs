//! Recovery: a node is suspected, fenced, checked, repaired and verified, and its job restarts; or people are told.
//!
//! [`Recovery::apply`] is a function of what it knows, an [`Input`] and the time. It returns the rows that changed and the
//! effects that are wanted: the rows are written first, then the effects are performed, each once by its id. An effect is
//! in a row until it is answered, so whoever comes back after a crash finds the same ones open ([`Recovery::restore`]).
//!
//! A node and a job have a machine each ([`NodeState`], [`JobState`]), tied by incidents: one is open per node at most, and
//! its verdict says which budget of the job a failure drew on. Invariants ([`Recovery::sanity_check`]): whatever leads on
//! by itself has a deadline; nothing is repaired that is only out of reach, that others run on, or that is beyond a budget;
//! a rung of the ladder is tried once per incident; a job begins anew only when nothing of it runs.

mod asks;
mod budget;
mod check;
mod effect;
mod expire;
mod hit;
mod incident;
mod job;
mod key;
mod node;
mod people;
mod policy;
mod record;
mod repair;
mod restart;
mod restore;
mod sanity;
mod screen;
mod signal;
pub mod sim;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

pub use asks::{Asks, Hang, Progress};
pub use effect::{Act, CheckLevel, Effect, EffectId, Input, NodeFacts, Notice, NoticeKind, Place, Seen, StopWhy};
pub use key::{BadJob, JobKey};
pub use policy::{Deadlines, DrainPolicy, ExitRules, JobSpec, Mode, OnInconclusive, Policy, Restart};
pub use record::{
    Again, ApplicationError, Failure, FleetRecord, Incident, IncidentId, JobRecord, Key, NodeRecord, Outcome,
    PastAttempt, RankRecord, Record, Remediation, RestartRecord, Step as Transition, Tried, Verdict,
};
pub use signal::{Advice, CheckOutcome, Class, JobRef, Signal, SignalKind};
pub use state::{JobState, NodeState, Rung};

use step::Step;

/// All that is known of nodes and jobs.
#[derive(Debug, Clone, Default)]
pub struct Recovery {
    policy: Policy,
    fleet: FleetRecord,
    nodes: BTreeMap<String, NodeRecord>,
    /// Those that are open, and the newest of each node.
    incidents: BTreeMap<IncidentId, Incident>,
    jobs: BTreeMap<String, JobRecord>,
    /// When something is due, and of whom.
    timers: BTreeSet<(Timestamp, Key)>,
    armed: BTreeMap<Key, Timestamp>,
}

/// What an input led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// To be written before anything is performed.
    pub records: Vec<Record>,
    /// How they were before, but for those that are new.
    pub before: BTreeMap<Key, Record>,
    /// Rows that are not needed any more; closed incidents are not among them, they are history.
    pub removed: Vec<Key>,
    /// To be performed then, in this order.
    pub effects: Vec<Effect>,
}

impl Recovery {
    pub fn new(policy: Policy) -> Recovery {
        Recovery { policy, ..Recovery::default() }
    }

    /// Holds from the next input on. Deadlines that are set stay.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    pub fn apply(&mut self, input: Input, now: Timestamp) -> Changes {
        let mut step = Step::new(self, now);
        step.take(input);
        step.finish()
    }

    /// When to come with [`Input::Tick`].
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn node(&self, name: &str) -> Option<&NodeRecord> {
        self.nodes.get(name).filter(|node| !node.gone)
    }

    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values().filter(|node| !node.gone)
    }

    pub fn incident(&self, id: IncidentId) -> Option<&Incident> {
        self.incidents.get(&id)
    }

    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values()
    }

    pub fn job(&self, job: &str) -> Option<&JobRecord> {
        self.jobs.get(job)
    }

    pub fn jobs(&self) -> impl Iterator<Item = &JobRecord> {
        self.jobs.values()
    }

    /// Whether it is still wanted. To be asked right before it is performed.
    pub fn is_open(&self, id: &EffectId) -> bool {
        self.effect(id).is_some()
    }

    pub fn effect(&self, id: &EffectId) -> Option<&Effect> {
        let open = match id {
            EffectId::Node { node, .. } => &self.nodes.get(node)?.open,
            EffectId::Job { job, .. } => &self.jobs.get(job)?.open,
        };
        open.iter().find(|effect| effect.id == *id)
    }

    /// All that are, in the order of their rows.
    pub fn open_effects(&self) -> impl Iterator<Item = &Effect> {
        let of_nodes = self.nodes.values().flat_map(|node| &node.open);
        of_nodes.chain(self.jobs.values().flat_map(|job| &job.open))
    }

    /// Nodes that must not get new work.
    pub fn fenced(&self) -> impl Iterator<Item = &str> {
        self.nodes().filter(|node| node.fenced).map(|node| node.name.as_str())
    }

    /// The incident of a node that is not over.
    pub fn open_incident(&self, node: &str) -> Option<&Incident> {
        let id = self.nodes.get(node)?.incident?;
        self.incidents.get(&id).filter(|incident| incident.is_open())
    }

    /// Whether recovery may act on the node: fence it, stop what runs there, repair it.
    pub fn may_act(&self, node: &str) -> bool {
        let Some(node) = self.node(node) else { return false };
        !node.facts.opted_out && self.mode(node) != Mode::Observe
    }

    fn mode(&self, node: &NodeRecord) -> Mode {
        node.facts.mode.unwrap_or(self.policy.mode)
    }
}

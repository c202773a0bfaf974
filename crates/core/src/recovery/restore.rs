//! The machine from its rows.
//!
//! Invariant: a machine that is restored from the rows that were written behaves as the one that was lost, and wants the same.

use jiff::{SignedDuration, Timestamp};

use super::Recovery;
use super::effect::{Act, Effect};
use super::policy::Policy;
use super::record::{Key, Record};
use super::state::{JobState, NodeState, Rung};
use super::step::{Step, later};

/// Whatever is due so soon after somebody leads again is put off, until nodes and jobs were asked.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

impl Recovery {
    /// Needs the row of the fleet, all rows of nodes and jobs, and of incidents those that are open or the newest of their
    /// node. What is to be performed again comes with it: all that is open, but nothing that must not happen twice and was
    /// begun. Of that, it is waited for what the node shows.
    pub fn restore(policy: Policy, records: impl IntoIterator<Item = Record>) -> (Recovery, Vec<Effect>) {
        let mut r = Recovery::new(policy);
        for record in records {
            match record {
                Record::Fleet(fleet) => r.fleet = fleet,
                Record::Node(node) => {
                    r.nodes.insert(node.name.clone(), node);
                }
                Record::Incident(incident) => {
                    r.fleet.incidents = r.fleet.incidents.max(incident.id.0);
                    r.incidents.insert(incident.id, incident);
                }
                Record::Job(job) => {
                    r.jobs.insert(job.job.clone(), job);
                }
            }
        }
        let newest: Vec<_> = r.nodes.values().filter_map(|node| node.incident).collect();
        r.incidents.retain(|id, _| newest.contains(id));
        let keys: Vec<Key> =
            r.nodes.keys().cloned().map(Key::Node).chain(r.jobs.keys().cloned().map(Key::Job)).collect();
        keys.iter().for_each(|key| r.arm(key));
        let again = r.open_effects().filter(|effect| !(effect.act.is_once() && effect.begun)).cloned().collect();
        (r, again)
    }
}

impl Step<'_> {
    /// Time in which nobody led does not count: a state that is over, or nearly, lasts as long again, so that nodes are looked at,
    /// and jobs told of, before anything is concluded from their silence.
    pub fn resumed(&mut self) {
        let soon = later(self.now, GRACE.max(self.r.policy.deadlines.observe.saturating_mul(4)));
        for node in self.r.nodes.values().filter(|node| !node.gone).map(|node| node.name.clone()).collect::<Vec<_>>() {
            if self.open_incident(&node).is_some() {
                self.node_resumed(&node, |at| at <= soon);
            }
        }
        for job in self.job_keys() {
            let row = &self.r.jobs[&job];
            if let Some(within) = self.lasts(row.state)
                && row.deadline.is_some_and(|at| at <= soon)
            {
                let at = later(self.now, within);
                self.job(&job).deadline = Some(at);
            }
        }
    }

    fn node_resumed(&mut self, node: &str, is_soon: impl Fn(Timestamp) -> bool) {
        let deadlines = self.r.policy.deadlines.clone();
        let row = &self.r.nodes[node];
        let within = match row.state {
            NodeState::Healthy | NodeState::OutOfService => return,
            NodeState::Suspected => deadlines.suspected,
            NodeState::Fenced => deadlines.fence,
            NodeState::Checking => deadlines.check,
            NodeState::AwaitingApproval => deadlines.approval,
            NodeState::Queued => deadlines.queue,
            NodeState::Draining => deadlines.drain,
            NodeState::Remediating { rung: Rung::ResetGpu } => deadlines.reset_gpu,
            NodeState::Remediating { rung: Rung::Reboot } => deadlines.reboot,
            NodeState::Remediating { rung: Rung::HardReboot } => deadlines.hard_reboot,
            NodeState::Remediating { rung: Rung::Replace } => deadlines.replace,
            NodeState::Verifying => deadlines.verify,
        };
        let mut open = row.open.iter();
        let check = open.find_map(|effect| match effect.act {
            Act::RunCheck { until, .. } => Some(until),
            _ => None,
        });
        let begun = row.open.iter().find(|effect| effect.act.is_once() && effect.begun).map(|effect| effect.id.clone());
        if row.deadline.is_some_and(&is_soon) {
            let at = later(self.now, within);
            self.node(node).deadline = Some(at);
        }
        // Whoever did it has ended with the server that led.
        if let Some(begun) = begun {
            self.effect_failed(&begun, "the server that did it ended meanwhile", false);
        }
        if check.is_some_and(&is_soon) {
            self.cancel_check(node);
            self.run_check(node);
        }
        let is_watched = self.r.open_incident(node).is_some_and(|incident| incident.watched);
        match self.r.nodes[node].state {
            NodeState::Suspected if is_watched => {}
            NodeState::Suspected | NodeState::Remediating { .. } => self.look(node),
            NodeState::Verifying if check.is_none() => self.look(node),
            // It may have come up anew while nobody led.
            NodeState::Draining => {
                if let Some(id) = self.open_incident(node) {
                    self.incident(id).unseen = Some(self.now);
                }
                self.look(node);
            }
            NodeState::Healthy
            | NodeState::Fenced
            | NodeState::Checking
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::Verifying
            | NodeState::OutOfService => {}
        }
    }

    /// A state of a job that leads on by itself, and when.
    fn lasts(&self, state: JobState) -> Option<SignedDuration> {
        let deadlines = &self.r.policy.deadlines;
        match state {
            JobState::Stopping => Some(deadlines.stop),
            JobState::AwaitingVerdict => Some(deadlines.verdict),
            JobState::Restarting => Some(deadlines.room),
            JobState::Starting => Some(deadlines.start),
            // Nothing comes of these but that they are forgotten.
            JobState::Running | JobState::Complete | JobState::Failed | JobState::UserStopped => None,
        }
    }
}

/// The same rows, timers included.
impl PartialEq for Recovery {
    fn eq(&self, other: &Recovery) -> bool {
        self.fleet == other.fleet
            && self.nodes == other.nodes
            && self.incidents == other.incidents
            && self.jobs == other.jobs
            && self.timers == other.timers
    }
}

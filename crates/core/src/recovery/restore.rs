//! The machine from its rows.
//!
//! Invariant: a machine that is restored from the rows that were written behaves as the one that was lost, and wants the same.

use super::Recovery;
use super::effect::Effect;
use super::policy::Policy;
use super::record::{Key, Record};

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

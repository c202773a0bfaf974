//! Budgets: of repairs per node, of nodes in repair at once, of restarts per job and class. Asked before anything is done.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::Recovery;
use super::record::{JobRecord, NodeRecord};
use super::signal::Class;
use super::state::Rung;
use super::step::{Step, earlier};

const DAY: SignedDuration = SignedDuration::from_hours(24);
pub(super) const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What to do to a node next.
pub(super) enum Plan {
    Rung(Rung),
    /// Nothing, and why.
    Nothing(String),
}

impl Step<'_> {
    /// The weakest rung that may help, was not tried in this incident, and is within the budgets.
    pub fn next_rung(&self, node: &str) -> Plan {
        let row = &self.r.nodes[node];
        let Some(incident) = self.r.open_incident(node) else { return Plan::Nothing("it has no incident".to_owned()) };
        let Some(first) = incident.advice.rung() else {
            return Plan::Nothing("what is wrong with it cannot be repaired from here".to_owned());
        };
        if !incident.is_proven() {
            return Plan::Nothing("nothing shows that it is broken".to_owned());
        }
        let limits = &self.r.policy;
        let all = row.repairs_of_week(self.now);
        if all >= limits.remediations_per_week as usize {
            return Plan::Nothing(format!("it was repaired {all} times in 7 days"));
        }
        let reboots = row.reboots_of_day(self.now);
        let spent = reboots >= limits.reboots_per_day as usize;
        let last = incident.tried.iter().map(|tried| tried.rung).max();
        let fits = |rung: &&Rung| {
            let is_new = last.is_none_or(|last| **rung > last);
            // It came up anew, and is as bad: doing that again does not help.
            let is_useful = !(rung.is_reboot() && (incident.restarted || spent));
            **rung >= first && is_new && is_useful && row.facts.rungs.contains(rung)
        };
        match Rung::LADDER.iter().find(fits) {
            Some(rung) => Plan::Rung(*rung),
            None if spent && !incident.restarted => {
                Plan::Nothing(format!("it was rebooted {reboots} times in 24 hours"))
            }
            None => Plan::Nothing("nothing is left to try".to_owned()),
        }
    }

    /// Nodes that are in repair, but for this one.
    pub fn others_in_repair(&self, node: &str) -> usize {
        self.r.in_repair().filter(|name| *name != node).count()
    }

    /// Whether the job may begin anew.
    pub fn may_restart(&self, job: &JobRecord, class: Class) -> Result<(), String> {
        let application = job.application_restarts();
        let infrastructure = job.infrastructure_restarts(self.now);
        let spec = &job.spec;
        match class {
            Class::Application if application >= spec.application_restarts as usize => Err(format!(
                "it failed by itself, and has begun anew {application} times of {} for that",
                spec.application_restarts
            )),
            Class::Infrastructure | Class::Unknown if infrastructure >= spec.infrastructure_restarts as usize => {
                Err(format!(
                    "machines failed it, and it has begun anew {infrastructure} times of {} in 24 hours for that",
                    spec.infrastructure_restarts
                ))
            }
            Class::Application | Class::Infrastructure | Class::Unknown | Class::Moved => Ok(()),
        }
    }
}

impl NodeRecord {
    /// How often it was repaired in the last 7 days.
    pub fn repairs_of_week(&self, now: Timestamp) -> usize {
        self.remediations.iter().filter(|past| past.at > earlier(now, WEEK)).count()
    }

    /// How often it was rebooted in the last 24 hours.
    pub fn reboots_of_day(&self, now: Timestamp) -> usize {
        self.remediations.iter().filter(|past| past.rung.is_reboot() && past.at > earlier(now, DAY)).count()
    }
}

impl JobRecord {
    /// How often it has begun anew for failures of its own.
    pub fn application_restarts(&self) -> usize {
        self.restarts.iter().filter(|restart| restart.class == Class::Application).count()
    }

    /// How often it has begun anew in the last 24 hours because machines failed it, or perhaps did.
    pub fn infrastructure_restarts(&self, now: Timestamp) -> usize {
        let is_machine = |class| matches!(class, Class::Infrastructure | Class::Unknown);
        let since = earlier(now, DAY);
        self.restarts.iter().filter(|restart| is_machine(restart.class) && restart.at > since).count()
    }
}

impl Recovery {
    /// How many nodes may be in repair at once: a share of all, at least one.
    pub fn repair_limit(&self) -> usize {
        (self.nodes().count() * self.policy.repair_share_percent as usize / 100).max(1)
    }

    /// Nodes that recovery has taken for a repair, and has not given back.
    pub fn in_repair(&self) -> impl Iterator<Item = &str> {
        let planned = |name: &str| self.open_incident(name).is_some_and(|incident| incident.plan.is_some());
        let nodes = self.nodes().filter(move |node| node.state.is_in_repair() && planned(&node.name));
        nodes.map(|node| node.name.as_str())
    }

    /// Jobs that run on a node; with GPUs given, those that use one of them.
    pub(super) fn users(&self, node: &str, gpus: &BTreeSet<String>) -> Vec<String> {
        let is_user = |job: &&JobRecord| if gpus.is_empty() { job.live_on(node) } else { job.uses(node, gpus) };
        self.jobs.values().filter(is_user).map(|job| job.job.clone()).collect()
    }
}

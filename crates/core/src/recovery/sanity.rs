//! Every invariant of the machine, derived anew from its rows. Called after each step of the simulator and of the tests.

use std::collections::BTreeSet;

use super::record::NodeRecord;
use super::state::{JobState, NodeState};
use super::{Act, Key, Recovery};

impl Recovery {
    /// Panics with the first invariant that does not hold.
    pub fn sanity_check(&self) {
        for node in self.nodes.values() {
            self.check_node(node);
        }
        for incident in self.incidents.values() {
            let of = self.nodes.get(&incident.node).and_then(|node| node.incident);
            assert_eq!(of, Some(incident.id), "{} is not its node's", incident.id);
            assert_eq!(incident.closed.is_some(), incident.outcome.is_some(), "{}: how did it end?", incident.id);
            assert!(incident.is_open() || incident.verdict.is_some(), "{} ended without a verdict", incident.id);
            let rungs: BTreeSet<_> = incident.tried.iter().map(|tried| tried.rung).collect();
            assert_eq!(rungs.len(), incident.tried.len(), "{}: a rung was tried twice", incident.id);
        }
        for (name, job) in &self.jobs {
            let waits = matches!(job.state, JobState::Stopping | JobState::AwaitingVerdict);
            assert!(!waits || job.failure.is_some(), "{name} is {} for no reason", job.state);
            assert!(job.state != JobState::AwaitingVerdict || !job.is_live(), "{name} runs and awaits a verdict");
            assert!(job.state != JobState::Restarting || job.ranks.is_empty(), "{name} begins anew while it runs");
            assert_eq!(job.deadline.is_none(), job.state == JobState::Running, "{name} is {}: deadline", job.state);
            let restarts: BTreeSet<u32> = job.restarts.iter().map(|restart| restart.attempt).collect();
            assert_eq!(restarts.len(), job.restarts.len(), "{name}: two restarts of one number");
            if job.state == JobState::Complete {
                let ok = job.ranks.iter().all(|rank| rank.exit.as_ref().is_some_and(crate::state::Exit::is_success));
                assert!(ok, "{name} is complete, and not all of its ranks are");
            }
            let restart = |act: &Act| matches!(act, Act::RestartJob { .. });
            let open = job.open.iter().filter(|effect| restart(&effect.act)).count();
            assert!(open <= usize::from(job.state == JobState::Restarting), "{name} is told to begin anew");
        }
        for (at, key) in &self.timers {
            assert_eq!(self.armed.get(key), Some(at));
            let due = match key {
                Key::Node(name) => self.nodes.get(name).and_then(NodeRecord::due),
                Key::Job(job) => self.jobs.get(job).and_then(|job| job.deadline),
                Key::Fleet | Key::Incident(_) => None,
            };
            assert_eq!(due, Some(*at), "{key:?} has another timer");
        }
        let due = self.nodes.values().filter(|node| node.due().is_some()).count();
        let due = due + self.jobs.values().filter(|job| job.deadline.is_some()).count();
        assert_eq!(due, self.timers.len(), "a timer is missing");
    }

    fn check_node(&self, node: &NodeRecord) {
        let name = &node.name;
        let incident = node.incident.and_then(|id| self.incidents.get(&id));
        let is_open = incident.is_some_and(|incident| incident.is_open());
        assert_eq!(is_open, node.state.is_under_way(), "{name} is {}, its incident is open: {is_open}", node.state);
        assert!(!is_open || node.deadline.is_some(), "{name} is {} for ever", node.state);
        assert!(node.state != NodeState::Healthy || !node.fenced, "{name} is healthy and fenced");
        let watched = incident.is_some_and(|incident| incident.watched);
        let hidden = watched && node.state == NodeState::Suspected;
        assert!(!is_open || hidden || node.fenced, "{name} is {} and not fenced", node.state);
        assert!(!hidden || !node.fenced || node.gone, "{name} is only watched, and fenced");
        let doing: Vec<_> = node.open.iter().filter(|effect| effect.act.is_once()).collect();
        assert!(doing.len() <= 1, "{name} is repaired in two ways");
        for effect in doing {
            assert_eq!(effect.act.rung().map(|rung| NodeState::Remediating { rung }), Some(node.state), "{name}");
        }
        if let (NodeState::Remediating { rung }, Some(incident)) = (node.state, incident) {
            assert_eq!(incident.plan, Some(rung), "{name} is repaired otherwise than planned");
            assert!(incident.is_proven(), "{name} is repaired, and nothing shows that it is broken");
        }
        let checks = node.open.iter().filter(|effect| matches!(effect.act, Act::RunCheck { .. })).count();
        assert!(checks <= 1, "{name} is checked twice");
    }
}

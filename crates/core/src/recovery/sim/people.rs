//! What people do: stop jobs, approve, dismiss, ask again, and change what may be done to a node.

use jiff::SignedDuration;

use super::super::{Input, Mode, NodeFacts, NodeState, Rung};
use super::world::{Event, Outcome, World};

impl World {
    /// People look at what there is to do, and do something of it.
    pub fn people(&mut self) -> Outcome {
        let by = || "ann".to_owned();
        if self.rng.percent(45) {
            let jobs: Vec<String> = self.jobs.width.keys().cloned().collect();
            let Some(job) = self.rng.pick(&jobs).cloned() else { return Ok(()) };
            self.say(|| format!("ann stops {job}"));
            self.saw("a person stopped a job");
            self.person_stops(&job);
            if self.rng.percent(50) {
                self.saw("a person began a job anew");
                let wait = SignedDuration::from_secs(self.rng.between(1, 600));
                self.at(wait, Event::Again(job));
            }
            return Ok(());
        }
        if self.rng.percent(20) {
            return self.change_facts();
        }
        let incidents: Vec<_> = self.server.r.incidents().map(|incident| incident.id).collect();
        let Some(incident) = self.rng.pick(&incidents).copied() else { return Ok(()) };
        let input = match self.rng.below(4) {
            0 => Input::Dismiss { incident, by: by(), why: "it is well".to_owned() },
            1 => Input::Retry { incident, by: by() },
            _ => Input::Approve { incident, repair: self.rng.pick(&Rung::LADDER).copied(), by: by() },
        };
        self.tell(input)
    }

    /// A node is opted out or in, or has a mode of its own now.
    fn change_facts(&mut self) -> Outcome {
        let names: Vec<String> = self.server.facts.keys().cloned().collect();
        let Some(node) = self.rng.pick(&names).cloned() else { return Ok(()) };
        if self.machines[&node].gone {
            return Ok(());
        }
        let modes = [None, Some(Mode::Auto), Some(Mode::Approve), Some(Mode::Observe)];
        let (mode, flip) = (self.rng.pick(&modes).copied().flatten(), self.rng.percent(50));
        let facts = self.server.facts.get_mut(&node).expect("picked");
        facts.mode = mode;
        facts.opted_out ^= flip;
        let facts = facts.clone();
        self.saw("what may be done to a node was changed");
        if facts.opted_out {
            self.opted_out.insert(node.clone(), self.now);
        } else {
            self.opted_out.remove(&node);
        }
        match self.facts_now(&node) {
            Some(facts) => self.tell(facts),
            None => Ok(()),
        }
    }

    /// What may be done to a node, as it is configured at this moment.
    pub fn facts_now(&self, node: &str) -> Option<Input> {
        let facts = NodeFacts { boot_id: None, ..self.server.facts[node].clone() };
        (!self.machines[node].gone).then(|| Input::Node { node: node.to_owned(), facts })
    }

    /// Somebody who approves what waits, once in a while.
    pub fn somebody_approves(&mut self) -> Outcome {
        let waits = self.server.r.nodes().filter(|node| node.state == NodeState::AwaitingApproval);
        let waits: Vec<_> = waits.filter_map(|node| node.incident).collect();
        for incident in waits {
            if self.rng.percent(40) {
                self.saw("a repair was approved");
                self.tell(Input::Approve { incident, repair: None, by: "ann".to_owned() })?;
            }
        }
        Ok(())
    }
}

//! The end of a server process at any moment, and the next one that takes its runs.
//!
//! Invariant: a restored run equals the one that was lost, as of its last commit, in everything that can be observed.

use super::check;
use super::server::{Active, After, Memory};
use super::store::Stored;
use super::world::{Outcome, World};
use crate::engine::{Evaluate, Event, Run};
use crate::id::RunKey;

use jiff::SignedDuration;

impl World {
    pub fn crash(&mut self) -> Outcome {
        self.crashes_left -= 1;
        self.saw("crashed");
        let fresh = Memory::new(self.nodes(), self.quotas.clone());
        let lost = std::mem::replace(&mut self.memory, fresh);
        if let Some((commits, _)) = lost.commit {
            self.saw("crashed during a commit");
            // Whether the database took it, only the database knows.
            if self.rng.percent(50) {
                commits.into_iter().for_each(|commit| self.store.write(commit));
            }
        }
        if !lost.performing.is_empty() {
            self.saw("crashed before an effect");
        }
        let most = if self.rng.percent(30) { 200_000 } else { 3_000 };
        self.now += SignedDuration::from_millis(self.rng.between(0, most));
        self.backend.without_server(&mut self.rng, self.now);
        self.say(|| "crash; the server is back".to_owned());
        let open: Vec<RunKey> =
            self.store.runs.iter().filter(|(_, s)| !s.record.state.is_final()).map(|(key, _)| *key).collect();
        for key in &open {
            self.load(*key)?;
        }
        open.into_iter().try_for_each(|key| self.compare(key))
    }

    /// Takes a run from the store.
    pub fn load(&mut self, key: RunKey) -> Outcome {
        let stored = &self.store.runs[&key];
        let flow = self.flows.iter().position(|(w, _)| w.id == stored.record.workflow).expect("of this world");
        let (workflow, rules) = self.flows[flow].clone();
        let rows = stored.rows.values().cloned().collect();
        let mut run = Run::restore(stored.record.clone(), workflow, rows);
        let live = run.live_slots();
        for slot in &live {
            let id = run.attempt_id(*slot, run.instance(*slot).attempt);
            let placed = stored.attempts.get(&id).cloned().ok_or_else(|| format!("{id} is live without a row"))?;
            let (namespace, task) = (&run.workflow.namespace, run.workflow.task(slot.task));
            let request = rules.demand(&run, *slot)?.request;
            let placed = placed.as_ref().zip(request.as_deref());
            let is_ending = run.instance(*slot).stop.is_some();
            self.memory.admission.adopt(key, *slot, namespace, task, is_ending, placed);
        }
        let fx = run.resume(self.now, &*rules);
        run.sanity_check();
        let mut active = Active::new(run, flow);
        active.halted = stored.halted;
        self.memory.runs.insert(key, active);
        self.absorb(key, fx);
        for slot in live {
            let attempt = self.memory.runs[&key].run.instance(slot).attempt;
            self.memory.after.push(After::Attach { run: key, slot, attempt });
        }
        Ok(())
    }

    /// Tells the restored run and its lost twin the same, and looks for a difference.
    fn compare(&mut self, key: RunKey) -> Outcome {
        let past = self.past_of(key);
        let rules = self.flows[self.memory.runs[&key].flow].1.clone();
        let Stored { twin, .. } = &self.store.runs[&key];
        let mut twin = twin.clone();
        twin.apply(Event::Tick, self.now, &*rules);
        for (task, allows) in past {
            twin.apply(Event::Past { task, allows }, self.now, &*rules);
            self.memory.runs.get_mut(&key).expect("just loaded").told.insert(task, allows);
            self.apply(key, Event::Past { task, allows })?;
        }
        match check::differences(&twin, &self.memory.runs[&key].run) {
            None => Ok(()),
            Some(difference) => Err(format!("run {key} was not restored as it was lost: {difference}")),
        }
    }
}

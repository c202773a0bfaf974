//! What users do: cancel, cancel again, clear and mark, at any moment and whatever state the run is in.

use super::world::{Outcome, World};
use crate::engine::record::StopHow;
use crate::engine::{Event, Slot};
use crate::id::RunKey;
use crate::state::RunState;

impl World {
    fn how(&mut self) -> StopHow {
        match self.rng.below(10) {
            0..5 => StopHow::ThenFinally,
            5..8 => StopHow::DrainThenFinally,
            _ => StopHow::Everything,
        }
    }

    pub fn act(&mut self) -> Outcome {
        self.actions_left -= 1;
        let keys: Vec<RunKey> = self.store.runs.keys().copied().collect();
        let Some(key) = self.rng.pick(&keys).copied() else { return Ok(()) };
        if !self.memory.runs.contains_key(&key) {
            self.load(key)?;
        }
        let run = &self.memory.runs[&key].run;
        if run.record.state.is_final() {
            self.saw("asked something of a finished run");
        }
        let running = run.record.state == RunState::Running;
        let slots: Vec<Slot> = run.all_slots().collect();
        // What the items of mappings come from.
        let units = run.workflow.indices().filter_map(|ix| run.workflow.mapping_of(ix));
        let sources: Vec<Slot> = units.flat_map(|(_, foreach)| &foreach.refs).flat_map(|ix| run.slots(*ix)).collect();
        match self.rng.below(10) {
            0..2 => {
                self.saw("cancelled");
                let how = self.how();
                self.apply(key, Event::Cancel { by: "ann".to_owned(), how })?;
                if self.rng.percent(40) && running {
                    self.saw("cancelled twice");
                    let how = self.how();
                    self.apply(key, Event::Cancel { by: "bob".to_owned(), how })?;
                }
                Ok(())
            }
            2..7 => {
                let count = if self.rng.percent(10) { slots.len() } else { self.rng.between(1, 3) as usize };
                let mut chosen: Vec<Slot> = (0..count).filter_map(|_| self.rng.pick(&slots).copied()).collect();
                let mut downstream = self.rng.percent(60);
                if let Some(source) = self.rng.pick(&sources).copied()
                    && self.rng.percent(40)
                {
                    self.saw("cleared what items come from");
                    chosen.push(source);
                    downstream |= self.rng.percent(70);
                }
                self.saw("cleared");
                self.apply(key, Event::Clear { slots: chosen, downstream })
            }
            _ => {
                let Some(slot) = self.rng.pick(&slots).copied() else { return Ok(()) };
                let success = self.rng.percent(60);
                self.saw("marked");
                self.apply(key, Event::Mark { slot, success })
            }
        }
    }
}

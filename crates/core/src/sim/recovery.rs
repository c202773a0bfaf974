//! What recovery does to runs: it suspects machines at any moment, and gives its verdict sooner or later, perhaps twice, and
//! perhaps of an attempt that is over.

use jiff::SignedDuration;

use super::world::{Outcome, World};
use crate::engine::{Event, Report, Ruling, Slot};
use crate::id::RunKey;
use crate::state::State;

impl World {
    /// Whether recovery is to decide about the end of an attempt.
    pub fn hold(&mut self, report: Report) -> Report {
        Report { held: self.rng.percent(15), ..report }
    }

    fn slots_that(&self, is: fn(State) -> bool) -> impl Iterator<Item = (RunKey, Slot)> + '_ {
        self.memory.runs.iter().flat_map(move |(key, active)| {
            let slots = active.run.all_slots().filter(move |slot| is(active.run.instance(*slot).state));
            slots.map(|slot| (*key, slot))
        })
    }

    pub fn recovering(&self) -> impl Iterator<Item = (RunKey, Slot)> + '_ {
        self.slots_that(|state| state == State::Recovering)
    }

    pub fn suspect(&mut self) -> Outcome {
        let is_there = |state: State| state.is_live() || matches!(state, State::Scheduled | State::UpForRetry { .. });
        let there: Vec<(RunKey, Slot)> = self.slots_that(is_there).collect();
        let Some((key, slot)) = self.rng.pick(&there).copied() else { return Ok(()) };
        self.suspicions_left -= 1;
        self.saw("suspected");
        for _ in 0..self.rng.between(1, 2) {
            self.apply(key, Event::Suspect { slot, reason: "its machine is under suspicion".to_owned() })?;
        }
        Ok(())
    }

    pub fn judge(&mut self) -> Outcome {
        let waiting: Vec<(RunKey, Slot)> = self.recovering().collect();
        let Some((key, slot)) = self.rng.pick(&waiting).copied() else { return Ok(()) };
        let attempt = self.memory.runs[&key].run.instance(slot).attempt;
        if attempt > 1 && self.rng.percent(20) {
            let verdict = self.ruling(attempt - 1);
            self.apply(key, Event::Recovered { slot, attempt: attempt - 1, verdict })?;
            if self.memory.runs[&key].run.instance(slot).state != State::Recovering {
                return Err("the verdict of an older attempt was believed".to_owned());
            }
        }
        let verdict = self.ruling(attempt);
        self.saw(match &verdict {
            Ruling::Restart { .. } => "recovery restarted",
            Ruling::Leave => "recovery left it alone",
            Ruling::Fail { .. } => "recovery gave up",
        });
        self.apply(key, Event::Recovered { slot, attempt, verdict: verdict.clone() })?;
        let run = &self.memory.runs[&key].run;
        if run.with_mates(slot).iter().any(|mate| run.instance(*mate).state == State::Recovering) {
            return Err("a verdict was not believed".to_owned());
        }
        if self.rng.percent(30) {
            let before = run.stale_reports;
            self.apply(key, Event::Recovered { slot, attempt, verdict })?;
            if self.memory.runs[&key].run.stale_reports == before {
                return Err("a verdict was believed twice".to_owned());
            }
        }
        Ok(())
    }

    fn ruling(&mut self, attempt: u32) -> Ruling {
        match self.rng.below(10) {
            0..2 => Ruling::Leave,
            2..3 => Ruling::Fail { why: "out of budget".to_owned() },
            _ => {
                let draws = self.restarts_left == 0 || self.rng.percent(40);
                self.restarts_left = self.restarts_left.saturating_sub(1);
                let at = self.now + SignedDuration::from_millis(self.rng.between(-1_000, 60_000));
                // One that was to begin sometimes never did.
                let number = attempt + 1 + u32::from(self.rng.percent(10));
                Ruling::Restart { at, number, draws }
            }
        }
    }
}

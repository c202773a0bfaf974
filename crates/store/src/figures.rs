//! Computes the service figures from rows, the same for every store.
//!
//! Invariant: the result depends on which rows are given, not on their order.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::state::RunState;
use serde::Deserialize;
use serde_json::Value;

use crate::types::{Figures, RunCounts, Spread};

/// Gathers rows, and makes [`Figures`] of them.
#[derive(Default)]
pub struct Builder {
    runs: RunCounts,
    durations: Vec<i64>,
    queue: Vec<i64>,
    /// By workflow: when which run ended, and whether it was well.
    ends: BTreeMap<String, Vec<(i64, bool)>>,
    gpu_seconds: f64,
    /// Percent times seconds.
    gpu_use: f64,
}

/// Of what a backend measured, the part that counts here; it is the backend's own document otherwise.
#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    gpus: Vec<Gpu>,
}

#[derive(Deserialize)]
struct Gpu {
    /// The device may not tell it.
    #[serde(default)]
    mean_utilization_percent: Option<f64>,
}

impl Builder {
    /// Notes runs that ended in a state; the other figures may be of fewer.
    pub fn count(&mut self, state: RunState, runs: u64) {
        *self.runs.of_mut(state) += runs;
    }

    pub fn run(
        &mut self,
        workflow: &str,
        state: RunState,
        queued: Timestamp,
        start: Option<Timestamp>,
        end: Timestamp,
    ) {
        let micros = Timestamp::as_microsecond;
        if let Some(start) = start {
            self.queue.push(micros(start) - micros(queued));
            if state == RunState::Success {
                self.durations.push(micros(end) - micros(start));
            }
        }
        // What a person cancelled is neither a failure nor a recovery.
        if state != RunState::Cancelled {
            let ends = match self.ends.get_mut(workflow) {
                Some(ends) => ends,
                None => self.ends.entry(workflow.to_owned()).or_default(),
            };
            ends.push((micros(end), state == RunState::Success));
        }
    }

    /// Notes an attempt that held devices. One whose use was not measured, or is not understood, is left out.
    pub fn attempt(&mut self, start: Option<Timestamp>, end: Timestamp, usage: &Value) {
        let Some(start) = start else { return };
        let Ok(usage) = Usage::deserialize(usage) else { return };
        let seconds = (end.as_microsecond() - start.as_microsecond()) as f64 / 1e6;
        for used in usage.gpus.into_iter().filter_map(|gpu| gpu.mean_utilization_percent) {
            self.gpu_seconds += seconds;
            self.gpu_use += seconds * used;
        }
    }

    pub fn finish(self) -> Figures {
        let mut recoveries = Vec::new();
        for mut ends in self.ends.into_values() {
            ends.sort_unstable();
            let mut failed = None;
            for (end, well) in ends {
                match (well, failed) {
                    (true, Some(since)) => {
                        recoveries.push(end - since);
                        failed = None;
                    }
                    // From the first failure of a row of them.
                    (false, None) => failed = Some(end),
                    _ => {}
                }
            }
        }
        Figures {
            runs: self.runs,
            duration: Spread::of(self.durations),
            queue: Spread::of(self.queue),
            recovery: Spread::of(recoveries),
            gpu_utilization: (self.gpu_seconds > 0.0).then(|| self.gpu_use / self.gpu_seconds),
            gpu_seconds: self.gpu_seconds,
        }
    }
}

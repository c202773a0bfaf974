//! What the scheduler records of a run as the engine goes on, and what it tells a scrape.
//!
//! Recorded is what the engine decided, a moment before it is written: a crash between the two is counted, as
//! counters start anew with the process anyway.

use pitcrew_core::admission::{DEFAULT_POOL, Resource};
use pitcrew_core::engine::Effects;
use pitcrew_core::fleet::Amount;
use pitcrew_core::state::{RunState, State};

use super::Parts;
use super::active::Active;
use super::core_loop::{Core, run_url};
use crate::metrics::{Figures, PoolFigures, QuotaFigures};

impl Active {
    /// Records what the effects of one event say about tasks and the end of the run.
    pub fn measure(&mut self, parts: &Parts, fx: &Effects) {
        let metrics = &parts.metrics;
        let record = &self.run.record;
        for change in &fx.transitions {
            match change.to {
                State::Scheduled => drop(self.ready.insert(change.slot, change.at)),
                State::Queued => {
                    if let Some(since) = self.ready.remove(&change.slot) {
                        let pool = self.run.workflow.task(change.slot.task).pool.as_deref();
                        metrics.task_waited(pool.unwrap_or(DEFAULT_POOL), change.at.duration_since(since));
                    }
                }
                State::UpForRetry { .. } => metrics.task_retried(record),
                State::Success | State::Failed | State::Skipped | State::UpstreamFailed | State::Removed => {
                    self.ready.remove(&change.slot);
                    metrics.task_finished(record, change.to.name());
                }
                State::None | State::Running | State::UpForReschedule { .. } | State::Deferred | State::Recovering => {}
            }
        }
        if fx.finished {
            metrics.run_finished(record);
            if let Some(tracer) = &parts.tracer {
                tracer.run(record, &run_url(&parts.base_url, record.key));
            }
        }
    }
}

impl Core {
    pub fn figures(&self) -> Figures {
        let in_state = |state| self.runs.values().filter(|active| active.run.record.state == state).count();
        let (gpus_used, gpus) = self.admission.gpu_use();
        let pools = self.admission.pools().map(|pool| PoolFigures {
            name: pool.name.to_owned(),
            slots: pool.slots,
            used: pool.used,
            waiting: pool.waiting,
        });
        let quotas = self.admission.quota_uses().into_iter().flat_map(|one| {
            let (namespace, limits) =
                (one.namespace.to_owned(), one.quota.map(|quota| quota.limits).unwrap_or_default());
            Resource::ALL.map(|resource| QuotaFigures {
                namespace: namespace.clone(),
                resource: match resource {
                    Resource::Gpus => "gpus",
                    Resource::Cpu => "cpu",
                    Resource::Memory => "memory_mib",
                },
                used: one.used.get(resource).to_f64(),
                limit: limits.get(resource).map(Amount::to_f64),
            })
        });
        Figures {
            leads: self.leads,
            runs_queued: in_state(RunState::Queued),
            runs_running: in_state(RunState::Running),
            tasks_running: self.admission.live(),
            parallelism: self.parts.parallelism,
            pools: pools.collect(),
            queues: self.queues(),
            quotas: quotas.collect(),
            gpus,
            gpus_used,
        }
    }
}

//! Taking runs: reading their rows, restoring them, and finding out what became of their attempts.

use std::collections::BTreeMap;
use std::sync::Arc;

use pitcrew_core::RunKey;
use pitcrew_core::admission::Placed;
use pitcrew_core::engine::record::{AttemptRecord, RunRecord, StoredRun};
use pitcrew_core::engine::{Evaluate, Event, Run, Slot};
use pitcrew_core::fleet::Request;
use pitcrew_core::ir::BackendKind;
use pitcrew_core::state::RunState;
use pitcrew_exec::Handle;
use pitcrew_store::ClaimFilter;

use super::active::Active;
use super::core_loop::{Core, LOOK, Later, launch_row};
use super::languages::Languages;
use super::perform::After;
use super::{AskError, Claim, leases};
use crate::clock;
use crate::fleet::LOCAL;

impl Core {
    /// Takes notice of whatever others did in the store: new runs, dead owners, pools, variables.
    pub async fn look(&mut self) {
        self.refresh_settings().await;
        if self.parts.claim == Claim::Leading {
            let breaks = self.parts.owner.breaks();
            match self.parts.store.try_lead(&self.parts.owner).await {
                Ok(leads) => {
                    if leads != self.leads {
                        tracing::info!(leads, "{}", if leads { "this server leads" } else { "this server stands by" });
                    }
                    if leads != self.leads {
                        // Runs of another leader may have ended since.
                        self.outcomes.clear();
                    }
                    // Where the session was lost, another server may have led meanwhile, and have given longer leases.
                    let led = self.leads && breaks == self.breaks;
                    if self.leads && !(leads && led) {
                        // First, whatever else fails. And at once: what follows may have to wait for the database. Whoever
                        // watches here comes back, and is passed on to the server that leads now.
                        self.standing.tell(false, breaks);
                        self.parts.backends.stand_down();
                        self.stand_down().await;
                        self.leads = false;
                    }
                    self.breaks = breaks;
                    if leads && let Err(error) = leases::refresh(&self.parts.store, &self.parts.backends, led).await {
                        tracing::warn!(%error, "cannot tell which leases workers have");
                        return;
                    }
                    if leads && !led {
                        // Workers are heard from now on; what was known of them is that of another time.
                        self.parts.backends.lead();
                    }
                    if leads && !led {
                        // Before anybody hears of it: what comes to be known after this is of this lead.
                        self.parts.recoverer.comes_to_lead();
                    }
                    self.leads = leads;
                    self.standing.tell(leads, breaks);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot tell which server leads");
                    return;
                }
            }
            if !self.leads {
                return;
            }
            // What has failed is held for its verdict, and what is fenced gets nothing: both have to be known first.
            if !self.is_recovery_ready().await {
                self.look_at = Some(tokio::time::Instant::now_later(LOOK));
                return;
            }
        }
        match self.parts.store.claim_runs(&self.parts.owner, self.parts.claim.filter()).await {
            Ok(found) => {
                for stored in found {
                    if !self.runs.contains_key(&stored.run.key) && !stored.run.state.is_final() {
                        self.load(stored).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "cannot claim runs"),
        }
        self.begin_runs();
    }

    /// Takes one run that somebody asks something of, in whatever state.
    pub(super) async fn claim_one(&mut self, key: RunKey) -> Result<(), AskError> {
        let other = |error: pitcrew_store::StoreError| AskError::Other(error.to_string());
        if self.parts.claim == Claim::Leading && !self.leads {
            // Two servers with runs would give out every device twice.
            self.look().await;
            if !self.leads {
                return Err(AskError::Standby);
            }
        }
        if !self.is_recovery_ready().await {
            return Err(AskError::Other("this server is about to lead: ask again".to_owned()));
        }
        if self.parts.store.run(key).await.map_err(other)?.is_none() {
            return Err(AskError::NoSuchRun(key));
        }
        let claimed = self.parts.store.claim_runs(&self.parts.owner, ClaimFilter::Only(key)).await.map_err(other)?;
        let Some(stored) = claimed.into_iter().next() else { return Err(AskError::OwnedElsewhere(key)) };
        self.load(stored).await;
        if self.runs.contains_key(&key) {
            Ok(())
        } else {
            Err(AskError::Other(format!("run {key} cannot be loaded; the log of the server says why")))
        }
    }

    async fn load(&mut self, stored: StoredRun) {
        let record = stored.run;
        let key = record.key;
        let workflow = match self.parts.catalog.load_for(&self.parts.store, &record).await {
            Ok(workflow) => workflow,
            Err(error) => return self.give_up(record, error).await,
        };
        let state = record.state;
        let run = Run::restore(record, workflow, stored.instances);
        let mut active = Active::new(run);
        for attempt in stored.live {
            let Some(task) = active.run.workflow.find(attempt.task.as_str()) else { continue };
            let Some(slot) = active.run.find(task, attempt.map_index) else { continue };
            if active.run.instance(slot).state.is_live() && active.run.instance(slot).attempt == attempt.number {
                let task = active.run.workflow.task(task);
                let placed = self.placed(&active.run, slot, &attempt);
                let placed = placed.as_ref().map(|(placed, request)| (placed, request));
                let is_ending = active.run.instance(slot).stop.is_some();
                self.admission.adopt(key, slot, &active.run.workflow.namespace, task, is_ending, placed);
                let handle: Option<Handle> = serde_json::from_value(attempt.handle.clone()).ok();
                if handle.is_some_and(|handle| handle.place.is_none() && !self.parts.backends.is_here(&handle)) {
                    self.admission.lives_elsewhere(key, slot);
                }
                active.attempts.insert(slot, attempt);
            }
        }
        if let Err(error) = self.read_ended(&mut active).await {
            self.admission.forget(key);
            return tracing::error!(run = key.0, "run {key} cannot go on before its attempts can be read: {error}");
        }
        let fx = active.run.resume(clock::now(), &Languages(&self.evaluator));
        let live: Vec<_> = active.run.live_slots();
        if state == RunState::Running && !live.is_empty() {
            tracing::info!(
                run = key.0,
                live = live.len(),
                "run {key} goes on; looking for its {} live attempts",
                live.len()
            );
        }
        self.runs.insert(key, active);
        self.prepare_notices(key).await;
        self.absorb(key, fx);
        for slot in live {
            let attempt = self.runs[&key].run.instance(slot).attempt;
            if let Some(active) = self.runs.get_mut(&key)
                && !active.attempts.contains_key(&slot)
            {
                // Its row is written together with the instance's; this is for a store that was repaired by hand.
                let row = launch_row(&self.parts, &self.evaluator, &self.known, active, slot, attempt, None);
                active.put_attempt(slot, row);
                self.unwritten.insert(key);
            }
            self.after.push(After::Attach { run: key, slot, attempt });
        }
        self.tell_again(key);
        self.let_recovering_go(key);
        self.prepare_past(key).await;
    }

    /// What a live attempt holds, by its row; of amounts, where that does not say, what its task asks for now.
    fn placed(&self, run: &Run, slot: Slot, attempt: &AttemptRecord) -> Option<(Placed, Request)> {
        // Rows from before there were nodes have devices of this machine alone.
        let here = || (!attempt.gpus.is_empty()).then(|| LOCAL.to_owned());
        // Where its backend placed it, it holds nothing of what is given out here.
        if [BackendKind::Ecs, BackendKind::Kubernetes].map(BackendKind::name).contains(&attempt.backend.as_str()) {
            return None;
        }
        let node = attempt.node.clone().or_else(here)?;
        let asked = || self.evaluator.demand(run, slot).ok()?.request.map(Arc::unwrap_or_clone);
        let request = attempt.request.clone().or_else(asked).unwrap_or_default();
        // What runs on the machine of another server holds nothing of this one, under the same name.
        let handle: Option<Handle> = serde_json::from_value(attempt.handle.clone()).ok();
        let elsewhere = handle.filter(|handle| handle.place.is_none() && !self.parts.backends.is_here(handle));
        let node = elsewhere.and_then(|handle| handle.home).map_or(node, |home| format!("{LOCAL} of {home}"));
        let placed = Placed { node, gpus: attempt.gpus.clone() };
        Some((placed, request))
    }

    /// A run whose definition cannot be read any more ends as failed; it would be claimed for ever.
    async fn give_up(&mut self, mut record: RunRecord, error: anyhow::Error) {
        tracing::error!(run = record.key.0, "run {} cannot go on: {error:#}", record.key);
        if record.state.is_final() {
            return;
        }
        let now = clock::now();
        record.state = RunState::Failed;
        record.start = record.start.or(Some(now));
        record.end = Some(now);
        record.note = format!("{error:#}");
        self.parts.metrics.run_finished(&record);
        let mut commit = pitcrew_store::RunCommit::new(record.key);
        commit.run = Some(record);
        if let Err(error) = self.parts.store.commit(&self.parts.owner, vec![commit]).await {
            tracing::error!(%error, "cannot write that");
        }
    }

    /// Lets queued runs begin whose turn has come, in order of creation: up to `max_active_runs` of their workflow, or
    /// of their backfill, which has a limit of its own.
    pub fn begin_runs(&mut self) {
        self.turn_of.clear();
        let now = clock::now();
        let alone = self.parts.claim != Claim::Leading;
        let backfill = |record: &RunRecord| self.backfills.get(&record.backfill?);
        let queue = |record: &RunRecord| (record.workflow.clone(), backfill(record).map(|backfill| backfill.id));
        let mut running: BTreeMap<_, u32> = BTreeMap::new();
        for active in self.runs.values().filter(|active| active.run.record.state == RunState::Running) {
            *running.entry(queue(&active.run.record)).or_default() += 1;
        }
        let mut begin = Vec::new();
        for (key, active) in &self.runs {
            let record = &active.run.record;
            if record.state != RunState::Queued || record.run_after > now {
                continue;
            }
            let (most, held) = match backfill(record) {
                Some(backfill) => (backfill.new.max_active_runs, backfill.is_paused || backfill.cancelled),
                None => (active.run.workflow.max_active_runs, false),
            };
            let count = running.entry(queue(record)).or_default();
            if alone || (*count < most && !held && !self.paused.contains(&record.workflow)) {
                *count += 1;
                begin.push(*key);
            }
        }
        for key in begin {
            self.apply(key, Event::Begin);
        }
    }

    /// When the next queued run may begin that only waits for its time.
    pub fn next_begin(&self) -> Option<jiff::Timestamp> {
        let now = clock::now();
        let queued = self.runs.values().map(|active| &active.run.record).filter(|r| r.state == RunState::Queued);
        queued.map(|record| record.run_after).filter(|at| *at > now).min()
    }
}

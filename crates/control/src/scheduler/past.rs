//! `depends_on_past`: asks the previous run of a workflow whether a task may go on.
//!
//! Invariant: a task that waits is answered when the previous run is loaded, when one of its instances changes, and
//! when it ends. Success and skipped let it go; so does not having a previous run, or not having had the task.

use pitcrew_core::RunKey;
use pitcrew_core::engine::Event;
use pitcrew_core::id::TaskId;
use pitcrew_core::ir::TaskIx;
use pitcrew_core::state::State;
use pitcrew_store::{Before, InstanceFilter, Paging};

use super::core_loop::Core;

fn allows(state: State) -> bool {
    matches!(state, State::Success | State::Skipped | State::Removed)
}

impl Core {
    /// Finds the previous run of a newly loaded one, and answers what is known already.
    pub async fn prepare_past(&mut self, key: RunKey) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        let workflow = active.run.workflow.clone();
        active.past = workflow.indices().filter(|ix| workflow.task(*ix).depends_on_past).collect();
        if active.past.is_empty() {
            return;
        }
        let record = &active.run.record;
        let before = record.logical_date.map_or(Before::Key(key), Before::LogicalDate);
        let previous = match self.parts.store.previous_run(&record.workflow, before).await {
            Ok(previous) => previous.map(|run| run.key),
            Err(error) => {
                tracing::warn!(%error, "cannot find the run before run {key}");
                return;
            }
        };
        if let Some(active) = self.runs.get_mut(&key) {
            active.previous = previous;
        }
        match previous {
            None => self.let_all_go(key),
            Some(previous) if self.runs.contains_key(&previous) => self.check_past(),
            Some(previous) => self.check_stored_past(key, previous).await,
        }
    }

    fn let_all_go(&mut self, key: RunKey) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        for task in std::mem::take(&mut active.past) {
            self.events.push_back((key, Event::Past { task, allows: true }));
        }
    }

    /// The previous run is not in memory: it is over, and its rows tell.
    async fn check_stored_past(&mut self, key: RunKey, previous: RunKey) {
        let Some(active) = self.runs.get(&key) else { return };
        let tasks: Vec<(TaskIx, TaskId)> =
            active.past.iter().map(|ix| (*ix, active.run.workflow.task(*ix).id.clone())).collect();
        for (task, id) in tasks {
            let filter = InstanceFilter { task: Some(id), ..InstanceFilter::default() };
            match self.parts.store.instances(previous, &filter, Paging::ALL).await {
                Ok(page) => {
                    let allowed = page.rows.iter().all(|row| allows(row.state));
                    self.answer_past(key, task, allowed);
                }
                Err(error) => tracing::warn!(%error, "cannot read run {previous}"),
            }
        }
    }

    fn answer_past(&mut self, key: RunKey, task: TaskIx, allowed: bool) {
        if allowed && let Some(active) = self.runs.get_mut(&key) {
            active.past.retain(|ix| *ix != task);
            self.events.push_back((key, Event::Past { task, allows: true }));
        }
    }

    /// Answers every run whose previous run is in memory.
    pub fn check_past(&mut self) {
        let waiting: Vec<(RunKey, RunKey)> = self
            .runs
            .iter()
            .filter(|(_, active)| !active.past.is_empty())
            .filter_map(|(key, active)| Some((*key, active.previous?)))
            .collect();
        for (key, previous) in waiting {
            let (Some(active), Some(before)) = (self.runs.get(&key), self.runs.get(&previous)) else { continue };
            let going: Vec<TaskIx> = active
                .past
                .iter()
                .copied()
                .filter(|task| {
                    let id = &active.run.workflow.task(*task).id;
                    match before.run.workflow.find(id.as_str()) {
                        Some(ix) => before.run.slots(ix).all(|slot| allows(before.run.instance(slot).state)),
                        None => true,
                    }
                })
                .collect();
            for task in going {
                self.answer_past(key, task, true);
            }
        }
    }

    /// A run is about to leave the memory: what waits for it is answered before.
    pub fn check_past_of(&mut self, key: RunKey) {
        if self.runs.values().any(|active| active.previous == Some(key) && !active.past.is_empty()) {
            self.check_past();
        }
    }
}

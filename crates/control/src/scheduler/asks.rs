//! What others ask of the scheduler: cancel, clear, mark, explain, show.
//!
//! Invariant: an answer that something was done is given when it is written, not before.

use pitcrew_core::RunKey;
use pitcrew_core::engine::{Event, Slot};
use pitcrew_core::state::{RunState, State};
use serde_json::Value;
use tokio::sync::oneshot;

use super::core_loop::Core;
use super::perform::After;
use super::recovery::with_node;
use super::{Ask, AskError, Clear, Edit, Expects, Pick, Snapshot};
use crate::clock;

impl Core {
    pub async fn take(&mut self, ask: Ask) {
        match ask {
            Ask::Look => self.look_wanted = true,
            Ask::Cancel { run, by, how, queued_only, reply } => match self.loaded(run).await {
                Ok(()) if queued_only && self.runs[&run].run.record.state != RunState::Queued => {
                    self.answer(run, reply, ());
                }
                Ok(()) => {
                    self.audit(run, "run.cancel", &by, Value::Null);
                    let before = self.standing(run);
                    self.apply(run, Event::Cancel { by: by.clone(), how });
                    self.tell_stopped(run, before, &by);
                    self.answer(run, reply, ());
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Ask::Clear { run, picks, by, backfill, reply } => match self.clear(run, picks, &by).await {
                Ok(names) => {
                    if let Some(active) = self.runs.get_mut(&run)
                        && backfill.is_some()
                    {
                        active.run.record.backfill = backfill;
                        active.unwritten.run = true;
                    }
                    self.answer(run, reply, names);
                }
                Err(error) => drop(reply.send(Err(error))),
            },
            Ask::Mark { run, pick, success, by, reply } => match self.mark(run, pick, success, &by).await {
                Ok(()) => self.answer(run, reply, ()),
                Err(error) => drop(reply.send(Err(error))),
            },
            Ask::Edit { run, edit, by, reply } => match self.edit(run, edit, &by).await {
                Ok(()) => self.answer(run, reply, ()),
                Err(error) => {
                    drop(reply.send(Err(error)));
                    self.let_go(run);
                }
            },
            Ask::Explain { run, pick, reply } => {
                let answer = match self.loaded(run).await {
                    Ok(()) => self.explain(run, &pick),
                    Err(error) => Err(error),
                };
                let _ = reply.send(answer);
                self.let_go(run);
            }
            Ask::Job { job, order, reply } => match self.order(&job, order).await {
                Ok((Some(run), answer)) => self.answer(run, reply, answer),
                Ok((None, answer)) => drop(reply.send(Ok(answer))),
                Err(error) => drop(reply.send(Err(error))),
            },
            Ask::Settled { reply } => self.settle_nodes(reply).await,
            Ask::MakeRoom { node, reason, reply } => {
                self.make_room(&node, &reason);
                self.settle_nodes(reply).await;
            }
            Ask::Figures { reply } => drop(reply.send(self.figures())),
            Ask::Rendered { run, pick, reply } => {
                let answer = match self.loaded(run).await {
                    Ok(()) => self.rendered(run, &pick),
                    Err(error) => Err(error),
                };
                let _ = reply.send(answer);
                self.let_go(run);
            }
            Ask::Snapshot { run, reply } => {
                let snapshot = self.runs.get(&run).map(|active| Snapshot {
                    run: active.run.record.clone(),
                    instances: active.run.all_slots().map(|slot| active.run.row(slot)).collect(),
                });
                let _ = reply.send(snapshot);
            }
            Ask::Queue { limit, reply } => drop(reply.send(self.queue(limit))),
            Ask::Observed(observed) => self.observed(observed),
            Ask::Shutdown { .. } => unreachable!("handled by the turn"),
        }
    }

    /// Answers when everything so far is written.
    fn answer<T: Send + 'static>(&mut self, run: RunKey, reply: oneshot::Sender<Result<T, AskError>>, value: T) {
        self.after.push(After::Answer(Box::new(move || drop(reply.send(Ok(value))))));
        self.unwritten.insert(run);
        self.let_go(run);
    }

    /// A run that is over and was only loaded to be asked about is given free again.
    fn let_go(&mut self, run: RunKey) {
        if self.runs.get(&run).is_some_and(|active| active.run.record.state.is_final()) {
            self.after.push(After::Finished(run));
        }
    }

    pub(super) async fn loaded(&mut self, run: RunKey) -> Result<(), AskError> {
        if self.runs.contains_key(&run) {
            return Ok(());
        }
        self.claim_one(run).await
    }

    async fn clear(
        &mut self,
        run: RunKey,
        picks: Clear,
        by: &str,
    ) -> Result<Vec<(pitcrew_core::TaskId, i32)>, AskError> {
        self.loaded(run).await?;
        let active = &self.runs[&run];
        let (slots, downstream) = match picks {
            Clear::All => (active.run.all_slots().collect(), false),
            Clear::Failed => {
                let bad = |state| {
                    let goes_on = matches!(state, State::UpForRetry { .. } | State::Recovering);
                    goes_on || matches!(state, State::Failed | State::UpstreamFailed)
                };
                let stopped = active.run.record.stop.is_some();
                let slots = active.run.all_slots().filter(|slot| {
                    let state = active.run.instance(*slot).state;
                    bad(state) || (stopped && state == State::Skipped)
                });
                (slots.collect(), true)
            }
            Clear::Picks { picks, downstream } => {
                let mut slots = Vec::new();
                for pick in &picks {
                    slots.extend(self.slots(run, pick)?);
                }
                (slots, downstream)
            }
        };
        let active = &self.runs[&run];
        let name = |slot: &Slot| (active.run.workflow.task(slot.task).id.clone(), active.run.map_index(*slot));
        let names: Vec<_> = slots.iter().map(name).collect();
        if !slots.is_empty() {
            let detail = serde_json::json!({ "tasks": names.iter().take(100).collect::<Vec<_>>() });
            self.audit(run, "run.clear", by, detail);
            self.reopen(run);
            let before = self.standing(run);
            self.apply(run, Event::Clear { slots, downstream });
            self.tell_stopped(run, before, by);
        }
        Ok(names)
    }

    async fn mark(&mut self, run: RunKey, pick: Pick, success: bool, by: &str) -> Result<(), AskError> {
        self.loaded(run).await?;
        let slots = self.slots(run, &pick)?;
        let detail = serde_json::json!({ "task": pick.task, "map_index": pick.map_index, "success": success });
        self.audit(run, "task.mark", by, detail);
        self.reopen(run);
        let before = self.standing(run);
        for slot in slots {
            self.apply(run, Event::Mark { slot, success });
        }
        self.tell_stopped(run, before, by);
        Ok(())
    }

    async fn edit(&mut self, run: RunKey, edit: Edit, by: &str) -> Result<(), AskError> {
        self.loaded(run).await?;
        match edit {
            Edit::Note(text) => {
                self.audit(run, "run.note", by, serde_json::json!({ "note": text }));
                self.apply(run, Event::Note { text });
            }
            Edit::Output { task, map_index, name, value, expects } => {
                let pick = Pick { task: task.clone(), map_index: Some(map_index) };
                let Some(slot) = self.slots(run, &pick)?.first().copied() else { return Ok(()) };
                let exists = self.runs[&run].run.instance(slot).outputs.contains_key(&name);
                if exists != (expects == Expects::Present) {
                    return Err(AskError::Output { task, name, exists });
                }
                let event = if value.is_some() { "output.set" } else { "output.delete" };
                let detail = serde_json::json!({ "task": task, "map_index": map_index, "output": name });
                self.audit(run, event, by, detail);
                self.apply(run, Event::Output { slot, name, value });
            }
        }
        Ok(())
    }

    fn reopen(&mut self, run: RunKey) {
        if let Some(active) = self.runs.get_mut(&run) {
            active.unwritten.reopen = true;
        }
    }

    pub(super) fn slots(&self, run: RunKey, pick: &Pick) -> Result<Vec<Slot>, AskError> {
        let active = &self.runs[&run];
        let no_such = || AskError::NoSuchTask {
            run,
            task: pick.task.clone(),
            map_index: pick.map_index.unwrap_or(pitcrew_core::id::UNMAPPED),
        };
        let task = active.run.workflow.find(&pick.task).ok_or_else(no_such)?;
        match pick.map_index {
            None => Ok(active.run.slots(task).collect()),
            Some(index) => Ok(vec![active.run.find(task, index).ok_or_else(no_such)?]),
        }
    }

    fn explain(&self, run: RunKey, pick: &Pick) -> Result<Vec<String>, AskError> {
        let mut slots = self.slots(run, pick)?;
        let active = &self.runs[&run];
        // Those of a gang wait as one.
        let waits = |slot: Slot| active.run.instance(slot).state == State::Scheduled;
        slots.retain(|slot| pick.map_index.is_some() || !waits(*slot) || active.run.speaker(*slot) == *slot);
        let many = slots.len() > 1;
        Ok(slots
            .into_iter()
            .flat_map(|slot| {
                let reasons = active.run.explain(slot, Some(&self.admission));
                let reasons = reasons.into_iter().map(move |reason| with_node(active, slot, reason));
                reasons.map(move |reason| match many {
                    true => format!("[{}] {reason}", slot.index),
                    false => reason.to_string(),
                })
            })
            .collect())
    }

    fn audit(&mut self, run: RunKey, event: &str, by: &str, detail: Value) {
        if let Some(active) = self.runs.get_mut(&run) {
            let mut entry = pitcrew_store::AuditEntry::new(clock::now(), by, event);
            entry.workflow = Some(active.run.record.workflow.clone());
            entry.run = Some(active.run.record.run_id.clone());
            entry.detail = detail;
            active.unwritten.audit.push(entry);
            self.unwritten.insert(run);
        }
    }
}

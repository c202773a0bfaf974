//! What a change of a run is told to people, decided where the change is made.
//!
//! Invariant: a notice goes into the very commit that writes its change. What was told already is known by the
//! notice's `dedupe`; so nothing here has to be remembered over a restart.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pitcrew_core::engine::{Slot, Transition};
use pitcrew_core::ir::NotifyEvent;
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_exec::Ended;
use pitcrew_store::{NewNotice, Paging, RunFilter, RunOrder};

use super::Claim;
use super::core_loop::Core;
use crate::actions::notify::Letter;
use crate::clock;
use crate::hooks::report;
use crate::links;
use crate::notify::facts::{Body, Told};

/// How the last run of each workflow ended, for recoveries.
pub(super) type Outcomes = BTreeMap<WorkflowId, RunState>;

impl Core {
    /// Finds out how the run before a newly loaded one ended, if a rule wants to know.
    pub async fn prepare_notices(&mut self, key: RunKey) {
        let Some(active) = self.runs.get(&key) else { return };
        let workflow = active.run.workflow.clone();
        let wanted = self.parts.notify.rules_for(&workflow).any(|rule| rule.on.contains(&NotifyEvent::Recovery));
        if !wanted || self.outcomes.contains_key(&workflow.id) {
            return;
        }
        let filter = RunFilter {
            workflow: Some(workflow.id.clone()),
            states: vec![RunState::Success, RunState::Failed],
            order: RunOrder::EndDescending,
            ..RunFilter::default()
        };
        match self.parts.store.runs(&filter, Paging::first(1)).await {
            Ok(page) => {
                if let Some(run) = page.rows.first() {
                    self.outcomes.insert(workflow.id.clone(), run.state);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot tell how the last run of `{}` ended", workflow.id),
        }
    }

    /// Has a forge told that a run stands otherwise than before, in the commit that says so.
    pub fn report(&mut self, key: RunKey) {
        if self.parts.claim != Claim::Leading {
            return;
        }
        let Some(active) = self.runs.get_mut(&key) else { return };
        if let Some(notice) = report::notice(&active.run.record, clock::now()) {
            active.unwritten.notices.push(notice);
            self.unwritten.insert(key);
        }
    }

    /// Puts into the next commit what people are to be told of these changes.
    pub fn note(&mut self, key: RunKey, transitions: &[Transition], finished: bool) {
        if self.parts.claim != Claim::Leading {
            return;
        }
        let Some(active) = self.runs.get(&key) else { return };
        let workflow = active.run.workflow.clone();
        let run_event = if finished { self.ended_as(key) } else { Vec::new() };
        let Some(active) = self.runs.get_mut(&key) else { return };
        let rules: Vec<_> = self.parts.notify.rules_for(&workflow).collect();
        if rules.is_empty() {
            return;
        }
        let mut events: Vec<(NotifyEvent, Option<Slot>)> = Vec::new();
        let mut gangs = BTreeSet::new();
        for change in transitions {
            // Of a gang, whoever brought it about is the first, and stands for all.
            let is_gang = workflow.task(change.slot.task).gang.is_some();
            if is_gang
                && matches!(change.to, State::Failed | State::UpForRetry { .. })
                && !gangs.insert(change.slot.task)
            {
                continue;
            }
            match change.to {
                State::Failed if active.is_first_failure(change.slot) => {
                    events.push((NotifyEvent::TaskFailure, Some(change.slot)));
                }
                State::UpForRetry { .. } => events.push((NotifyEvent::Retry, Some(change.slot))),
                _ => {}
            }
        }
        events.extend(run_event.into_iter().map(|event| (event, None)));
        let at = clock::now();
        let mut notices: Vec<NewNotice> = Vec::new();
        for (event, slot) in events {
            for rule in rules.iter().filter(|rule| rule.on.contains(&event)) {
                for notice in (Told { event, rule, slot, at }).notices(&active.run) {
                    // Several rules, or two events of which one says more, tell a channel once.
                    let told = |other: &NewNotice| {
                        other.channel == notice.channel
                            && (other.dedupe == notice.dedupe || is_told_by(event, &other.event))
                    };
                    if !notices.iter().any(told) {
                        notices.push(notice);
                    }
                }
            }
        }
        if !notices.is_empty() {
            active.unwritten.notices.extend(notices);
            self.unwritten.insert(key);
        }
    }

    /// Puts a task's own message into the outbox, in the commit that ends the attempt.
    pub fn post(&mut self, run: RunKey, slot: Slot, attempt: u32, letter: Letter) {
        let Some(active) = self.runs.get_mut(&run) else { return };
        let now = clock::now();
        if let Some(name) = letter.to.iter().find(|name| !self.parts.notify.channels.contains_key(*name)) {
            let reason = format!("no channel `{name}` is configured: add it under `channels` in `pitcrew.yaml`");
            return self.ended(run, slot, attempt, Ended::bare(Exit::cannot_start(reason), now));
        }
        let record = &active.run.record;
        let id = active.run.attempt_id(slot, attempt);
        let task = &active.run.workflow.task(slot.task).id;
        let page = links::task(&record.workflow, &record.run_id, task, active.run.map_index(slot));
        let body = Body::Text { subject: letter.subject, text: letter.message, html: None, page };
        let body = serde_json::to_value(&body).expect("texts are always JSON");
        let notices = letter.to.iter().map(|channel| NewNotice {
            dedupe: format!("task/{id}/{channel}"),
            channel: channel.clone(),
            event: "message".to_owned(),
            workflow: Some(record.workflow.clone()),
            run: Some(run),
            body: body.clone(),
            created: now,
        });
        active.unwritten.notices.extend(notices);
        let mut ended = Ended::bare(Exit::Code { code: 0 }, now);
        ended.started_at = Some(now);
        self.ended(run, slot, attempt, ended);
    }

    /// The events of a run that has ended, the one that says most first.
    fn ended_as(&mut self, key: RunKey) -> Vec<NotifyEvent> {
        let record = &self.runs[&key].run.record;
        let before = match record.state {
            RunState::Success | RunState::Failed => self.outcomes.insert(record.workflow.clone(), record.state),
            RunState::Cancelled | RunState::Queued | RunState::Running => None,
        };
        match record.state {
            RunState::Success if before == Some(RunState::Failed) => vec![NotifyEvent::Recovery, NotifyEvent::Success],
            RunState::Success => vec![NotifyEvent::Success],
            RunState::Failed => vec![NotifyEvent::Failure],
            RunState::Cancelled => vec![NotifyEvent::Cancelled],
            RunState::Queued | RunState::Running => Vec::new(),
        }
    }

    /// When the next run takes longer than a rule allows.
    pub fn next_late(&self) -> Option<Timestamp> {
        self.runs.keys().flat_map(|key| self.late_times(*key)).min()
    }

    /// The moments, not yet told, from which a run is late.
    fn late_times(&self, key: RunKey) -> Vec<Timestamp> {
        let Some(active) = self.runs.get(&key) else { return Vec::new() };
        let (RunState::Running, Some(start), Claim::Leading) =
            (active.run.record.state, active.run.record.start, self.parts.claim)
        else {
            return Vec::new();
        };
        let rules = self.parts.notify.rules_for(&active.run.workflow);
        let times = rules.filter(|rule| rule.on.contains(&NotifyEvent::Late)).filter_map(|rule| rule.after);
        times.filter_map(|after| start.checked_add(after).ok()).filter(|at| active.late < Some(*at)).collect()
    }

    /// Tells of the runs that are late by now.
    pub fn tell_late(&mut self, now: Timestamp) {
        let keys: Vec<RunKey> = self.runs.keys().copied().collect();
        for key in keys {
            let due: Vec<Timestamp> = self.late_times(key).into_iter().filter(|at| *at <= now).collect();
            let Some(latest) = due.iter().max().copied() else { continue };
            let Some(active) = self.runs.get_mut(&key) else { continue };
            let start = active.run.record.start.unwrap_or(now);
            let workflow = active.run.workflow.clone();
            for rule in self.parts.notify.rules_for(&workflow).filter(|rule| rule.on.contains(&NotifyEvent::Late)) {
                let is_due =
                    rule.after.and_then(|after| start.checked_add(after).ok()).is_some_and(|at| due.contains(&at));
                if is_due {
                    let told = Told { event: NotifyEvent::Late, rule, slot: None, at: now };
                    active.unwritten.notices.extend(told.notices(&active.run));
                }
            }
            active.late = Some(latest);
            self.unwritten.insert(key);
        }
    }
}

/// A channel that hears of a recovery need not hear of the success.
fn is_told_by(event: NotifyEvent, other: &str) -> bool {
    event == NotifyEvent::Success && other == NotifyEvent::Recovery.name()
}

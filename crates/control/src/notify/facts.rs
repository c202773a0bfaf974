//! What a notice knows: the facts at the moment of its event, as they are kept in the outbox.
//!
//! Kept are facts and not texts, so that the words, the address of the pages and the masking are those of the moment
//! in which it is sent. The amount is bounded whatever the run.

use jiff::Timestamp;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::ir::{NotifyEvent, NotifyRule};
use pitcrew_core::state::State;
use pitcrew_core::{RunId, RunKey, WorkflowId};
use pitcrew_store::NewNotice;
use serde::{Deserialize, Serialize};

use super::incident::IncidentFacts;
use super::text;
use crate::links;
use crate::words::instance as instance_name;

/// Tasks that are told with their logs; of more only the number is told.
const TASKS: usize = 5;
/// Lines and bytes of a task's log.
const LOG_LINES: usize = 15;
const LOG_BYTES: usize = 2_000;

/// What is kept of a notice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Body {
    /// Something became of a run.
    Run(Box<Facts>),
    /// Something became of a machine, or of a job because of it.
    Incident(Box<IncidentFacts>),
    /// Somebody's own words: of a task, or the weekly digest.
    Text {
        subject: String,
        text: String,
        /// The inside of a page's `<body>`, for mail.
        html: Option<String>,
        /// The path of the page to look at.
        page: String,
    },
    /// The state of a run is to be written to a forge; which state is found out when it is sent.
    Report {
        /// Whereto: the commit, and the name of the status.
        text: String,
        /// The path of the run's page.
        page: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    pub event: NotifyEvent,
    pub at: Timestamp,
    pub description: String,
    pub tags: Vec<String>,
    pub run: RunFacts,
    pub tasks: Vec<TaskFacts>,
    /// Further tasks of the same kind.
    pub more_tasks: usize,
    /// For [`NotifyEvent::Late`]: the seconds that the run was allowed.
    pub allowed: Option<f64>,
    /// Templates of the rule.
    pub subject: Option<String>,
    pub message: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    pub workflow: WorkflowId,
    pub key: RunKey,
    pub id: RunId,
    #[serde(rename = "type")]
    pub run_type: String,
    pub state: String,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    pub logical_date: Option<Timestamp>,
    pub triggered_by: String,
    pub note: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskFacts {
    /// With the map index, as in `load[3]`.
    pub name: String,
    pub state: String,
    pub attempt: u32,
    /// Attempts that it may have in all.
    pub attempts: u32,
    pub exit: String,
    /// The last lines, without colours.
    pub log: String,
    /// The path of its page.
    pub page: String,
}

/// What is told of a run.
pub struct Told<'a> {
    pub event: NotifyEvent,
    pub rule: &'a NotifyRule,
    /// Of an event of one task.
    pub slot: Option<Slot>,
    pub at: Timestamp,
}

impl Told<'_> {
    /// One notice for each channel of the rule.
    pub fn notices(&self, run: &Run) -> Vec<NewNotice> {
        let body = Body::Run(Box::new(self.facts(run)));
        let body = serde_json::to_value(&body).expect("texts and numbers are always JSON");
        let key = run.record.key;
        let what = match (self.event, self.slot) {
            // A run that was cleared can end again.
            (NotifyEvent::Failure | NotifyEvent::Success | NotifyEvent::Cancelled | NotifyEvent::Recovery, _) => {
                run.record.end.unwrap_or(self.at).to_string()
            }
            (NotifyEvent::Late, _) => format!("{:?}", self.rule.after.unwrap_or_default()),
            (NotifyEvent::TaskFailure | NotifyEvent::Retry, Some(slot)) => {
                run.attempt_id(slot, run.instance(slot).attempt).to_string()
            }
            (NotifyEvent::TaskFailure | NotifyEvent::Retry, None) => self.at.to_string(),
        };
        let notice = |channel: &String| NewNotice {
            dedupe: format!("run/{key}/{}/{what}/{channel}", self.event.name()),
            channel: channel.clone(),
            event: self.event.name().to_owned(),
            workflow: Some(run.record.workflow.clone()),
            run: Some(key),
            body: body.clone(),
            created: self.at,
        };
        self.rule.to.iter().map(notice).collect()
    }

    fn facts(&self, run: &Run) -> Facts {
        let record = &run.record;
        let slots: Vec<Slot> = match (self.event, self.slot) {
            (_, Some(slot)) => vec![slot],
            (NotifyEvent::Failure, None) => in_state(run, |state| state == State::Failed),
            (NotifyEvent::Late, None) => in_state(run, |state| matches!(state, State::Running | State::Queued)),
            _ => Vec::new(),
        };
        Facts {
            event: self.event,
            at: self.at,
            description: run.workflow.description.clone(),
            tags: run.workflow.tags.clone(),
            run: RunFacts {
                workflow: record.workflow.clone(),
                key: record.key,
                id: record.run_id.clone(),
                run_type: record.run_type.name().to_owned(),
                state: record.state.name().to_owned(),
                started: record.start,
                ended: record.end,
                logical_date: record.logical_date,
                triggered_by: record.triggered_by.clone(),
                note: text::cut(&record.note, 500),
            },
            tasks: slots.iter().take(TASKS).map(|slot| task(run, *slot)).collect(),
            more_tasks: slots.len().saturating_sub(TASKS),
            allowed: self.rule.after.filter(|_| self.event == NotifyEvent::Late).map(|after| after.as_secs_f64()),
            subject: self.rule.subject.clone(),
            message: self.rule.message.clone(),
        }
    }
}

fn in_state(run: &Run, wanted: impl Fn(State) -> bool) -> Vec<Slot> {
    run.all_slots().filter(|slot| wanted(run.instance(*slot).state)).collect()
}

fn task(run: &Run, slot: Slot) -> TaskFacts {
    let (task, instance) = (run.workflow.task(slot.task), run.instance(slot));
    let map_index = run.map_index(slot);
    let over = instance.state.is_final() || matches!(instance.state, State::UpForRetry { .. });
    let exit = instance.exit.as_ref().filter(|_| over).map(ToString::to_string).unwrap_or_default();
    // The message of a failure ends with how it ended, which is told by itself.
    let log = instance.message.trim_end().strip_suffix(&*exit).unwrap_or(&instance.message);
    let log = if over { text::tail(log, LOG_LINES, LOG_BYTES) } else { String::new() };
    TaskFacts {
        name: instance_name(task.id.as_str(), map_index),
        state: instance.state.name().to_owned(),
        attempt: instance.attempt,
        attempts: instance.max_attempt.max(instance.attempt),
        exit,
        log,
        page: links::task(&run.record.workflow, &run.record.run_id, &task.id, map_index),
    }
}

//! Notices as people see them: one line each, for the command line, the API and the pages.

use jiff::Timestamp;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_store::{Notice, NoticeState};
use serde::{Deserialize, Serialize};

use super::facts::Body;
use super::{incident, message, text};
use crate::links;

/// What a notice tells, on one line; the words of the built-in templates.
pub fn subject(notice: &Notice) -> String {
    match serde_json::from_value(notice.notice.body.clone()) {
        Ok(Body::Run(facts)) => message::title(&facts),
        Ok(Body::Incident(facts)) => text::cut(&incident::title(&facts), 200),
        Ok(Body::Text { subject, .. }) => text::cut(&text::one_line(&subject), 200),
        Ok(Body::Report { text, .. }) => text::cut(&format!("status of {text}"), 200),
        Err(_) => notice.notice.event.clone(),
    }
}

/// The path of the page that it is about; empty without one.
pub fn page(notice: &Notice) -> String {
    match serde_json::from_value(notice.notice.body.clone()) {
        Ok(Body::Run(facts)) => links::run(&facts.run.workflow, &facts.run.id),
        Ok(Body::Incident(facts)) => facts.page,
        Ok(Body::Text { page, .. } | Body::Report { page, .. }) => page,
        Err(_) => String::new(),
    }
}

/// As the API and `--output json` show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub id: i64,
    pub channel: String,
    pub event: String,
    pub subject: String,
    pub workflow: Option<WorkflowId>,
    pub run: Option<RunKey>,
    pub page: String,
    pub state: String,
    pub created: Timestamp,
    /// When it will be tried; only of one that waits.
    pub due: Option<Timestamp>,
    pub tries: u32,
    pub error: String,
    pub sent: Option<Timestamp>,
    pub merged_into: Option<i64>,
}

impl From<&Notice> for Line {
    fn from(notice: &Notice) -> Line {
        Line {
            id: notice.id,
            channel: notice.notice.channel.clone(),
            event: notice.notice.event.clone(),
            subject: subject(notice),
            workflow: notice.notice.workflow.clone(),
            run: notice.notice.run,
            page: page(notice),
            state: notice.state.name().to_owned(),
            created: notice.notice.created,
            due: (notice.state == NoticeState::Waiting).then_some(notice.due),
            tries: notice.tries,
            error: notice.error.clone(),
            sent: notice.sent,
            merged_into: notice.merged_into,
        }
    }
}

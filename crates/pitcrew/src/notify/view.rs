//! Notices as people see them: one line each, for the command line, the API and the pages.

use pitcrew_store::{Notice, NoticeState};
use serde_json::{Value, json};

use super::facts::Body;
use super::message;
use super::text;
use crate::server::links;

/// What a notice tells, on one line; the words of the built-in templates.
pub fn subject(notice: &Notice) -> String {
    match serde_json::from_value(notice.notice.body.clone()) {
        Ok(Body::Run(facts)) => message::title(&facts),
        Ok(Body::Text { subject, .. }) => text::cut(&text::one_line(&subject), 200),
        Err(_) => notice.notice.event.clone(),
    }
}

/// The path of the page that it is about; empty without one.
pub fn page(notice: &Notice) -> String {
    match serde_json::from_value(notice.notice.body.clone()) {
        Ok(Body::Run(facts)) => links::run(&facts.run.workflow, &facts.run.id),
        Ok(Body::Text { page, .. }) => page,
        Err(_) => String::new(),
    }
}

/// As the API and `--output json` show it.
pub fn shape(notice: &Notice) -> Value {
    json!({
        "id": notice.id,
        "channel": notice.notice.channel,
        "event": notice.notice.event,
        "subject": subject(notice),
        "workflow": notice.notice.workflow,
        "run": notice.notice.run,
        "page": page(notice),
        "state": notice.state.name(),
        "created": notice.notice.created,
        "due": (notice.state == NoticeState::Waiting).then_some(notice.due),
        "tries": notice.tries,
        "error": notice.error,
        "sent": notice.sent,
        "merged_into": notice.merged_into,
    })
}

//! The outbox: notices that are to leave the server, kept until a channel has taken them.
//!
//! Invariant: a notice is written in the transaction of what it tells of, and once per `dedupe`; so a crash
//! neither loses nor doubles it.

use jiff::Timestamp;
use pitcrew_core::id::{RunKey, WorkflowId};
use serde_json::Value;

/// A notice to be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct NewNotice {
    /// Unique: a second notice of the same word is ignored.
    pub dedupe: String,
    /// Where it goes: the name of a channel.
    pub channel: String,
    /// What it tells of, a short word: `run.failed`, ….
    pub event: String,
    pub workflow: Option<WorkflowId>,
    pub run: Option<RunKey>,
    pub body: Value,
    /// It is due from now on.
    pub created: Timestamp,
}

/// What became of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoticeState {
    /// To be sent, perhaps again.
    Waiting,
    Sent,
    /// Given up.
    Failed,
    /// Told by another notice.
    Merged,
}

impl NoticeState {
    pub const ALL: [NoticeState; 4] =
        [NoticeState::Waiting, NoticeState::Sent, NoticeState::Failed, NoticeState::Merged];

    pub fn name(self) -> &'static str {
        match self {
            NoticeState::Waiting => "waiting",
            NoticeState::Sent => "sent",
            NoticeState::Failed => "failed",
            NoticeState::Merged => "merged",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        NoticeState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A stored notice.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Unique for ever, in order of writing.
    pub id: i64,
    pub notice: NewNotice,
    pub state: NoticeState,
    /// When it is to be tried (again).
    pub due: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// Of the last try that failed.
    pub error: String,
    pub sent: Option<Timestamp>,
    /// The notice that told of it.
    pub merged_into: Option<i64>,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    Sent {
        at: Timestamp,
    },
    /// To be tried again at `at`.
    Retry {
        at: Timestamp,
        error: String,
    },
    /// Not to be tried again.
    Failed {
        error: String,
    },
    /// Told by another notice: not a try.
    Merged {
        into: i64,
    },
    /// Put off until `at`: not a try.
    Later {
        at: Timestamp,
    },
}

/// Which notices. The newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NoticeFilter {
    pub state: Option<NoticeState>,
    pub channel: Option<String>,
    pub workflow: Option<WorkflowId>,
}

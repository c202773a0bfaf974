//! Machines that come for their work, and what they enrol with.

use jiff::Timestamp;
use serde_json::Value;

/// A machine that enrolled.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerRow {
    pub id: String,
    /// Of those that are not revoked, one has it.
    pub name: String,
    /// The digest of what it proves itself by.
    pub credential: String,
    /// What it told of itself.
    pub about: Value,
    /// Somebody wants it to take no more work.
    pub drain: bool,
    pub enrolled: Timestamp,
    pub revoked: Option<Timestamp>,
}

/// Attempts that ended on a worker, and how many of them did not succeed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerEnds {
    pub ended: u64,
    pub failed: u64,
}

impl std::ops::AddAssign for WorkerEnds {
    fn add_assign(&mut self, more: WorkerEnds) {
        self.ended += more.ended;
        self.failed += more.failed;
    }
}

/// What somebody does to a worker. What is not named stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkerChange {
    pub about: Option<Value>,
    pub drain: Option<bool>,
    /// For good.
    pub revoked: Option<Timestamp>,
}

impl WorkerRow {
    /// The row after a change.
    pub fn apply(&mut self, change: WorkerChange) {
        self.about = change.about.unwrap_or(std::mem::take(&mut self.about));
        self.drain = change.drain.unwrap_or(self.drain);
        self.revoked = self.revoked.or(change.revoked);
    }
}

/// What machines enrol with.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerToken {
    pub id: String,
    pub hash: String,
    /// The queues that its workers may serve; empty: any.
    pub queues: Vec<String>,
    /// Who made it.
    pub made_by: String,
    pub created: Timestamp,
    pub expires: Option<Timestamp>,
    /// How many more workers may enrol with it; `None`: any number.
    pub uses: Option<u32>,
}

/// What came of a wish to enrol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolment {
    Done,
    NoSuchToken,
    Expired,
    /// It has no use left.
    UsedUp,
    /// A worker that is not revoked has it.
    NameTaken,
}

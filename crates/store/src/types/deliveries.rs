//! What was posted to listeners, and what became of it.
//!
//! Invariant: a delivery waits until it is settled, once; and of those that are known again by the same digest only the
//! first ever waits.

use jiff::Timestamp;
use serde_json::Value;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Taken, and not yet looked at.
    Waiting,
    /// Its outcome says what it started.
    Done,
    /// It is not proved to come from who may send it.
    Refused,
    /// It was there before.
    Duplicate,
}

impl DeliveryState {
    pub const ALL: [DeliveryState; 4] =
        [DeliveryState::Waiting, DeliveryState::Done, DeliveryState::Refused, DeliveryState::Duplicate];

    pub fn name(self) -> &'static str {
        match self {
            DeliveryState::Waiting => "waiting",
            DeliveryState::Done => "done",
            DeliveryState::Refused => "refused",
            DeliveryState::Duplicate => "duplicate",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        DeliveryState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// A delivery to be written.
#[derive(Clone, PartialEq)]
pub struct NewDelivery {
    /// Its name, which the sender is told.
    pub event: String,
    /// Of the listener; empty: the listener is a workflow.
    pub namespace: String,
    pub listener: String,
    pub received: Timestamp,
    /// The address that sent it.
    pub source: String,
    /// What the sender calls it: `push`.
    pub about: String,
    /// The length of its body.
    pub bytes: u32,
    /// Headers and body, sealed by the caller; kept as given.
    pub sealed: Option<String>,
    /// Waiting, unless it is settled already.
    pub state: DeliveryState,
    /// Why it is refused.
    pub outcome: Value,
    /// The delivery whose content it has, sent once more from here.
    pub again_of: Option<i64>,
    /// By what it is known again, and until when.
    pub guard: Option<(String, Timestamp)>,
}

/// Bodies and digests are no part of messages.
impl std::fmt::Debug for NewDelivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NewDelivery { event, namespace, listener, state, .. } = self;
        write!(f, "NewDelivery({event} {namespace}/{listener}, {})", state.name())
    }
}

/// A delivery as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    pub id: i64,
    /// The number and the name of the one that was there before.
    pub first: Option<(i64, String)>,
}

/// A stored delivery.
#[derive(Clone, PartialEq)]
pub struct DeliveryRow {
    /// Unique for ever, in order of writing.
    pub id: i64,
    pub event: String,
    pub namespace: String,
    pub listener: String,
    pub received: Timestamp,
    pub source: String,
    pub about: String,
    pub bytes: u32,
    /// In lists it is left out.
    pub sealed: Option<String>,
    pub state: DeliveryState,
    pub outcome: Value,
    pub again_of: Option<i64>,
    pub duplicate_of: Option<i64>,
    pub settled: Option<Timestamp>,
}

impl std::fmt::Debug for DeliveryRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let DeliveryRow { id, event, namespace, listener, state, .. } = self;
        write!(f, "DeliveryRow({id} {event} {namespace}/{listener}, {})", state.name())
    }
}

/// Which deliveries. The newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeliveryFilter {
    pub namespace: Option<String>,
    pub listener: Option<String>,
    pub state: Option<DeliveryState>,
}

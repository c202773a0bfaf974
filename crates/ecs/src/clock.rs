//! The one place of this crate that reads a clock.

use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock: for what people see, and what outlives this process.
#[allow(clippy::disallowed_methods, reason = "tasks of ECS run at real times")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The steady clock: for deadlines.
pub fn instant() -> Instant {
    Instant::now()
}

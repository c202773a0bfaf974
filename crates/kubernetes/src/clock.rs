//! The one place of this crate that reads a clock.

use jiff::Timestamp;
use tokio::time::Instant;

/// The wall clock: for credentials that run out.
#[allow(clippy::disallowed_methods, reason = "credentials run out at real times")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The steady clock: for deadlines.
pub fn instant() -> Instant {
    Instant::now()
}

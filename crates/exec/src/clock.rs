//! The one place of this crate that reads a clock.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// The wall clock: for what people see.
#[allow(clippy::disallowed_methods, reason = "backends observe real processes at real times")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The steady clock: for deadlines.
pub fn instant() -> Instant {
    Instant::now()
}

/// `now() + after`, where a negative or absurd duration neither underflows nor overflows.
pub fn deadline(after: SignedDuration) -> Instant {
    let longest = std::time::Duration::from_secs(10 * 365 * 24 * 3600);
    let after = std::time::Duration::try_from(after).unwrap_or_default();
    instant() + after.min(longest)
}

/// Waits for a deadline, or for ever when there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

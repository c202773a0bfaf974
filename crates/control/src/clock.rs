//! The one place of the binary that reads the wall clock. Everything else takes the time as an argument.

use jiff::Timestamp;

/// The time now.
#[allow(clippy::disallowed_methods, reason = "the binary has to read the clock somewhere: here")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// How long until `at`; zero when it is past.
pub fn until(at: Timestamp) -> std::time::Duration {
    at.duration_since(now()).try_into().unwrap_or(std::time::Duration::ZERO)
}

/// A moment to measure from.
#[allow(clippy::disallowed_methods, reason = "the binary has to read the clock somewhere: here")]
pub fn instant() -> std::time::Instant {
    std::time::Instant::now()
}

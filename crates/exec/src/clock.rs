//! The one place of this crate that reads a clock.

use std::time::Duration;

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

/// Time since the machine started, also while it slept: for what must be over at a moment that another machine counts
/// on. It means nothing after the next start of the machine.
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct that it is given, which lives on this stack.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    // Linux has had this clock since 2.6.39.
    assert_eq!(done, 0, "this system has no clock that counts from its start");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// What all threads of this process have used of processors.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct that it is given, which lives on this stack.
    let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    // POSIX has had this clock since 2001.
    assert_eq!(done, 0, "this system does not count what a process uses");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `now() + after`, where a negative or absurd duration neither underflows nor overflows.
pub fn deadline(after: SignedDuration) -> Instant {
    let longest = Duration::from_secs(10 * 365 * 24 * 3600);
    let after = Duration::try_from(after).unwrap_or_default();
    instant() + after.min(longest)
}

/// Waits for a deadline, or for ever when there is none.
pub async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

//! When a failed attempt is tried again: constant or growing delay, spread by a jitter that needs no random source.
//!
//! The formula is Airflow's: with a factor above 1 the delay of try *n* is `delay × factorⁿ⁻¹`, plus up to as much
//! again, drawn from a hash of the attempt. So the same attempt always waits equally long, and a thousand tasks that
//! fail together do not come back together.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::id::AttemptId;

/// No delay is longer than this.
pub const LONGEST_DELAY: SignedDuration = SignedDuration::from_hours(24);

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub retries: u32,
    pub delay: SignedDuration,
    /// 1 keeps the delay constant.
    pub backoff: f64,
    pub max_delay: SignedDuration,
    /// Spread growing delays. Without effect when the delay is constant.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            retries: 0,
            delay: SignedDuration::from_secs(30),
            backoff: 1.0,
            max_delay: LONGEST_DELAY,
            jitter: true,
        }
    }
}

impl RetryPolicy {
    /// From the end of the failed attempt to the next. `tries` counts the failures so far, from 1.
    pub fn delay_after(&self, attempt: &AttemptId, tries: u32) -> SignedDuration {
        let cap = self.max_delay.min(LONGEST_DELAY).max(SignedDuration::ZERO);
        if self.backoff <= 1.0 || self.delay <= SignedDuration::ZERO {
            return self.delay.clamp(SignedDuration::ZERO, cap);
        }
        let grown = self.delay.as_secs_f64() * self.backoff.powi(tries.saturating_sub(1).min(1_000) as i32);
        if !grown.is_finite() || grown >= cap.as_secs_f64() {
            return cap;
        }
        let base = SignedDuration::from_millis((grown * 1_000.0).ceil() as i64);
        let spread = if self.jitter { base.as_millis() as u64 } else { 0 };
        let extra = if spread == 0 { 0 } else { hash(attempt) % spread };
        (base + SignedDuration::from_millis(extra as i64)).min(cap)
    }
}

/// FNV-1a over the attempt's text: stable over releases, unlike the standard library's hasher.
fn hash(attempt: &AttemptId) -> u64 {
    let fnv = attempt
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // FNV's low bits are weak for texts that differ in the last digit alone; fold the high ones in.
    fnv ^ (fnv >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RunKey, TaskId, UNMAPPED};

    fn attempt(number: u32) -> AttemptId {
        AttemptId { run: RunKey(1), task: TaskId::new("train").unwrap(), map_index: UNMAPPED, number }
    }

    #[test]
    fn a_constant_delay_stays_constant() {
        let policy = RetryPolicy { retries: 3, delay: SignedDuration::from_secs(30), ..Default::default() };
        for n in 1..5 {
            assert_eq!(policy.delay_after(&attempt(n), n), SignedDuration::from_secs(30));
        }
    }

    #[test]
    fn a_growing_delay_stays_between_its_base_and_twice_that_and_under_the_cap() {
        let policy = RetryPolicy {
            retries: 9,
            delay: SignedDuration::from_secs(10),
            backoff: 2.0,
            max_delay: SignedDuration::from_mins(10),
            jitter: true,
        };
        for n in 1..=5 {
            let base = SignedDuration::from_secs(10 << (n - 1));
            let delay = policy.delay_after(&attempt(n), n);
            assert!(base <= delay && delay < base + base, "try {n}: {delay:?}");
            assert_eq!(delay, policy.delay_after(&attempt(n), n));
        }
        assert_eq!(policy.delay_after(&attempt(30), 30), SignedDuration::from_mins(10));
        let even = RetryPolicy { jitter: false, ..policy };
        assert_eq!(even.delay_after(&attempt(3), 3), SignedDuration::from_secs(40));
    }

    #[test]
    fn neighbours_are_spread() {
        let policy = RetryPolicy { backoff: 2.0, delay: SignedDuration::from_secs(60), ..Default::default() };
        let mut delays: Vec<_> =
            (0..50).map(|i| policy.delay_after(&AttemptId { map_index: i, ..attempt(1) }, 1).as_secs() / 6).collect();
        delays.sort_unstable();
        delays.dedup();
        assert!(delays.len() >= 8, "50 delays fell into only {} of 10 slots", delays.len());
    }
}

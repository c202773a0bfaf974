//! How fast a channel is written to, and when what gathered becomes one message. Pure: no clock, no channel.
//!
//! Invariant: in any minute a channel gets at most `rate` messages. What comes faster waits; and what waits together,
//! once it is enough, leaves together.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
/// After the first failure; doubles with each.
const FIRST_WAIT: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_WAIT: SignedDuration = SignedDuration::from_mins(30);

/// What a channel did lately.
#[derive(Debug, Default)]
pub struct Pace {
    /// When the messages of the last minute were sent.
    sent: VecDeque<Timestamp>,
    /// Failures without a success between them.
    failures: u32,
    hold: Option<Timestamp>,
}

/// What to do with notices that are due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Nothing until then.
    Wait(Timestamp),
    /// The first so many, each by itself.
    Each(usize),
    /// All in one message.
    Digest,
}

impl Pace {
    /// What to do with `due` notices, at least one.
    pub fn plan(&mut self, due: usize, rate: u32, digest_from: u32, now: Timestamp) -> Plan {
        while self.sent.front().is_some_and(|at| *at + MINUTE <= now) {
            self.sent.pop_front();
        }
        if let Some(hold) = self.hold.filter(|hold| *hold > now) {
            return Plan::Wait(hold);
        }
        let room = (rate as usize).saturating_sub(self.sent.len());
        match (room, self.sent.front()) {
            (0, Some(first)) => Plan::Wait(*first + MINUTE),
            _ if due >= digest_from as usize => Plan::Digest,
            // After a failure one message finds out whether the channel is well again.
            _ if self.failures > 0 => Plan::Each(1),
            _ => Plan::Each(room.min(due)),
        }
    }

    pub fn sent(&mut self, at: Timestamp) {
        self.sent.push_back(at);
        (self.failures, self.hold) = (0, None);
    }

    /// The channel did not take a message, for now. Returns when it is tried again.
    pub fn failed(&mut self, asked: Option<Duration>, seed: &str, now: Timestamp) -> Timestamp {
        self.failures = self.failures.saturating_add(1);
        let asked = asked.and_then(|wait| SignedDuration::try_from(wait).ok()).unwrap_or_default();
        let hold = now + backoff(self.failures, seed).max(asked);
        self.hold = Some(hold);
        hold
    }
}

/// Doubles from one failure to the next, and is up to a half longer: not all servers come back at the same moment.
fn backoff(failures: u32, seed: &str) -> SignedDuration {
    let doubled = FIRST_WAIT.checked_mul(1 << failures.saturating_sub(1).min(20)).unwrap_or(LONGEST_WAIT);
    let wait = doubled.min(LONGEST_WAIT);
    let hash = seed
        .bytes()
        .chain(failures.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let half = (wait.as_millis() / 2).max(1) as u64;
    wait + SignedDuration::from_millis(((hash ^ (hash >> 32)) % half) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    #[test]
    fn a_storm_is_a_few_messages_and_then_one_a_minute_later() {
        let mut pace = Pace::default();
        assert_eq!(pace.plan(2, 3, 5, at(0)), Plan::Each(2));
        pace.sent(at(0));
        pace.sent(at(0));
        assert_eq!(pace.plan(4, 3, 5, at(1)), Plan::Each(1), "one more in this minute");
        pace.sent(at(1));
        assert_eq!(pace.plan(500, 3, 5, at(2)), Plan::Wait(at(60)));
        assert_eq!(pace.plan(500, 3, 5, at(60)), Plan::Digest);
        assert_eq!(Pace::default().plan(5, 3, 5, at(0)), Plan::Digest, "at once, when they come together");
    }

    #[test]
    fn failures_hold_the_channel_longer_and_longer_and_one_success_frees_it() {
        let mut pace = Pace::default();
        let first = pace.failed(None, "a", at(0));
        assert!((at(5)..at(8)).contains(&first), "{first}");
        assert_eq!(pace.plan(1, 10, 5, at(1)), Plan::Wait(first));
        assert_eq!(pace.plan(3, 10, 5, at(10)), Plan::Each(1), "one probe");
        let second = pace.failed(Some(Duration::from_secs(90)), "a", at(10));
        assert_eq!(second, at(100), "as the other side asked");
        for _ in 0..100 {
            let hold = pace.failed(None, "a", at(0));
            assert!(hold <= at(0) + LONGEST_WAIT * 3 / 2);
        }
        pace.sent(at(5000));
        assert_eq!(pace.plan(3, 10, 5, at(5001)), Plan::Each(3));
        assert_ne!(backoff(3, "a"), backoff(3, "b"), "spread");
    }
}

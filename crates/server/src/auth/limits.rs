//! Slows down whoever guesses passwords: by the name that is tried and by the address that tries.
//!
//! A few attempts are free; then each must wait twice as long as the one before it, up to a minute for a name, so that
//! nobody can lock another out for long, and up to five for an address. A quarter of an hour without a failure forgets.
//!
//! Invariant: an attempt is counted before its password is looked at, so a thousand at the same moment are no better
//! than a thousand one after the other. Counts live in memory, per process, and take a bounded part of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard};

use jiff::{SignedDuration, Timestamp};

const NAME: Rule = Rule { free: 5, longest: SignedDuration::from_secs(60) };
const ADDRESS: Rule = Rule { free: 20, longest: SignedDuration::from_secs(300) };
const FORGET: SignedDuration = SignedDuration::from_mins(15);
/// Names, or addresses, that are remembered.
const MAX_ENTRIES: usize = 10_000;
/// Longer names exist only to fill memory.
const MAX_NAME: usize = 250;

#[derive(Clone, Copy)]
struct Rule {
    free: u32,
    longest: SignedDuration,
}

/// Failures of one name or address.
#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    last: Timestamp,
}

/// Counts failed logins.
#[derive(Debug, Default)]
pub struct Limits(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    names: HashMap<String, Count>,
    addresses: HashMap<IpAddr, Count>,
}

impl Rule {
    /// How long after its last failure the next attempt may come.
    fn pause(self, failures: u32) -> SignedDuration {
        match failures.checked_sub(self.free) {
            None => SignedDuration::ZERO,
            Some(over) => SignedDuration::from_secs(1 << over.min(16)).min(self.longest),
        }
    }

    /// How long to wait from now; zero: not at all.
    fn wait(self, count: Option<&Count>, now: Timestamp) -> SignedDuration {
        let Some(count) = count else { return SignedDuration::ZERO };
        // A clock that was set back must not make anybody wait longer than the rule says.
        let next = self.pause(count.failures) - now.duration_since(count.last).max(SignedDuration::ZERO);
        next.max(SignedDuration::ZERO)
    }
}

impl Limits {
    /// Counts an attempt, or says how long to wait before the next.
    pub fn begin(&self, name: &str, from: Option<IpAddr>, now: Timestamp) -> Result<(), SignedDuration> {
        let (name, from) = (key(name), from.map(network));
        let mut counts = self.lock();
        let wait = NAME.wait(counts.names.get(&name), now);
        let wait = wait.max(ADDRESS.wait(from.and_then(|from| counts.addresses.get(&from)), now));
        if wait > SignedDuration::ZERO {
            return Err(wait);
        }
        count(&mut counts.names, name, now);
        if let Some(from) = from {
            count(&mut counts.addresses, from, now);
        }
        Ok(())
    }

    /// The attempt was right: the name is free again, and the address was not guessing this time.
    pub fn succeeded(&self, name: &str, from: Option<IpAddr>) {
        let mut counts = self.lock();
        counts.names.remove(&key(name));
        if let Some(count) = from.and_then(|from| counts.addresses.get_mut(&network(from))) {
            count.failures = count.failures.saturating_sub(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn count<K: Eq + Hash + Clone>(counts: &mut HashMap<K, Count>, key: K, now: Timestamp) {
    let is_old = |count: &Count| now.duration_since(count.last) > FORGET;
    if counts.len() >= MAX_ENTRIES && !counts.contains_key(&key) {
        counts.retain(|_, count| !is_old(count));
        // Still full: the one that has been quiet for longest makes room.
        let oldest = counts.iter().min_by_key(|(_, count)| count.last).map(|(key, _)| key.clone());
        if counts.len() >= MAX_ENTRIES
            && let Some(oldest) = oldest
        {
            counts.remove(&oldest);
        }
    }
    let entry = counts.entry(key).or_insert(Count { failures: 0, last: now });
    if is_old(entry) {
        entry.failures = 0;
    }
    entry.failures = entry.failures.saturating_add(1);
    entry.last = now;
}

fn key(name: &str) -> String {
    name.chars().take(MAX_NAME).collect()
}

/// Whoever has one IPv6 address usually has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn after_five_failures_a_name_waits_twice_as_long_each_time_up_to_a_minute() {
        let limits = Limits::default();
        let mut now = at(0);
        for _ in 0..5 {
            limits.begin("ada", None, now).unwrap();
        }
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = limits.begin("ada", None, now).unwrap_err();
            waits.push(wait.as_secs());
            now += wait;
            limits.begin("ada", None, now).unwrap();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert!(limits.begin("bob", None, now).is_ok());
        limits.succeeded("ada", None);
        assert!(limits.begin("ada", None, now).is_ok());
    }

    #[test]
    fn an_address_that_tries_many_names_waits_too_and_one_right_guess_does_not_clear_it() {
        let limits = Limits::default();
        let from = ip("2001:db8::1");
        for n in 0..20 {
            limits.begin(&format!("user{n}"), from, at(0)).unwrap();
        }
        assert!(limits.begin("other", ip("2001:db8::ffff"), at(0)).is_err());
        assert!(limits.begin("other", ip("2001:db8:0:1::1"), at(0)).is_ok());
        limits.succeeded("user1", from);
        limits.begin("user1", from, at(0)).unwrap();
        assert!(limits.begin("user2", from, at(0)).is_err());
        assert!(limits.begin("user2", from, at(1000)).is_ok());
    }

    #[test]
    fn memory_is_bounded_and_a_clock_that_goes_back_locks_nobody_out() {
        let limits = Limits::default();
        for n in 0..MAX_ENTRIES + 100 {
            limits.begin(&format!("user{n}"), None, at(n as i64 / 100)).unwrap();
        }
        assert!(limits.lock().names.len() <= MAX_ENTRIES);
        for _ in 0..5 {
            limits.begin("ada", None, at(500)).unwrap();
        }
        assert_eq!(limits.begin("ada", None, at(-100_000)).unwrap_err().as_secs(), 1);
    }
}

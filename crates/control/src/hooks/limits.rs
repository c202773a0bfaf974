//! How much one sender may post: so many events at once, and so many more each second. What is refused for its signature
//! counts as many, so that guessing is slow. Memory is bounded; who is forgotten begins anew.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

/// Events of one sender at once.
const BURST: f64 = 2_000.0;
/// Events of one sender per second, in the long run.
const RATE: f64 = 100.0;
/// As how many events one with a bad signature counts.
const REFUSED: f64 = 20.0;
const SENDERS: usize = 4_096;

#[derive(Debug, Default)]
pub struct Limits(Mutex<BTreeMap<IpAddr, Bucket>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Timestamp,
}

impl Limits {
    /// Counts an event. The error is how long its sender should wait.
    pub fn pass(&self, from: IpAddr, now: Timestamp) -> Result<(), Duration> {
        self.with(from, now, |bucket| match bucket.left >= 1.0 {
            true => {
                bucket.left -= 1.0;
                Ok(())
            }
            false => Err(Duration::from_secs_f64(((1.0 - bucket.left) / RATE).max(1.0))),
        })
    }

    /// Counts what was refused for its signature.
    pub fn refused(&self, from: IpAddr, now: Timestamp) {
        self.with(from, now, |bucket| bucket.left -= REFUSED);
    }

    fn with<T>(&self, from: IpAddr, now: Timestamp, change: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = network(from);
        if all.len() >= SENDERS && !all.contains_key(&from) {
            let oldest = all.iter().min_by_key(|(_, bucket)| bucket.at).map(|(from, _)| *from);
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        let bucket = all.entry(from).or_insert(Bucket { left: BURST, at: now });
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.left = (bucket.left + passed * RATE).min(BURST);
        bucket.at = now;
        change(bucket)
    }
}

/// Whoever has one IPv6 address usually has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn passed(limits: &Limits, from: &str, now: Timestamp) -> usize {
        let from = from.parse().unwrap();
        std::iter::from_fn(|| limits.pass(from, now).ok()).count()
    }

    #[test]
    fn a_sender_that_floods_waits_and_others_do_not() {
        let limits = Limits::default();
        assert_eq!(passed(&limits, "192.0.2.1", at(0)), 2_000);
        assert_eq!(limits.pass("192.0.2.1".parse().unwrap(), at(0)), Err(Duration::from_secs(1)));
        assert_eq!(passed(&limits, "192.0.2.1", at(1)), 100);
        assert_eq!(passed(&limits, "192.0.2.2", at(1)), 2_000);
        // A clock that goes back gives nothing and takes nothing.
        assert_eq!(passed(&limits, "192.0.2.1", at(-50)), 0);
        assert_eq!(passed(&limits, "2001:db8::1", at(0)), 2_000);
        assert_eq!(passed(&limits, "2001:db8::ffff", at(0)), 0);
    }

    #[test]
    fn guessing_is_slower_and_memory_is_bounded() {
        let limits = Limits::default();
        let from = "192.0.2.1".parse().unwrap();
        for _ in 0..100 {
            limits.refused(from, at(0));
        }
        assert!(limits.pass(from, at(0)).is_err());
        for n in 0..SENDERS as u32 + 10 {
            let _ = limits.pass(IpAddr::from(std::net::Ipv4Addr::from_bits(n)), at(1));
        }
        assert!(limits.0.lock().unwrap().len() <= SENDERS);
    }
}

//! Evidence of the kernel's out-of-memory killer, for attempts without a cgroup of their own.
//!
//! `/proc/vmstat` counts its victims on the whole machine. So it is evidence only together with a SIGKILL that nobody
//! here sent, and only for what happened since the step began.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;

/// How old a count may be that a step takes as its beginning; reading it for each of a thousand steps a second costs.
const FRESH: Duration = Duration::from_secs(1);

/// The machine's count of victims.
#[derive(Default)]
pub struct Victims {
    last: Cell<Option<(Instant, Option<u64>)>>,
}

impl Victims {
    /// The count at about this moment, to be compared with later ones; `None` where the kernel does not count.
    pub fn recently(&self) -> Option<u64> {
        match self.last.get() {
            Some((at, count)) if clock::instant() - at < FRESH => count,
            _ => self.now(),
        }
    }

    /// The count now.
    pub fn now(&self) -> Option<u64> {
        let count = std::fs::read_to_string("/proc/vmstat").ok().and_then(|text| parse(&text));
        self.last.set(Some((clock::instant(), count)));
        count
    }
}

fn parse(vmstat: &str) -> Option<u64> {
    vmstat.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|count| count.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_count_is_found() {
        assert_eq!(super::parse("pgfault 1\noom_kill 12\noom_kill_x 3\n"), Some(12));
        assert_eq!(super::parse("pgfault 1\n"), None);
    }
}

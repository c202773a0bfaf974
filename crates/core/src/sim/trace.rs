//! What happened in a simulated world: a hash over all of it, its last lines, and what kinds of things occurred.

use std::collections::{BTreeMap, VecDeque};

/// How many lines a failure shows.
const KEPT: usize = 40;

/// The outcome of a world that came to rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// Over every line; the same seed and options give the same.
    pub hash: u64,
    pub steps: u64,
    /// How often each kind of thing occurred. A test asks for the rare ones, so that they stay reachable.
    pub seen: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    pub trace: Trace,
    pub tail: VecDeque<String>,
    /// Keeps every line.
    pub everything: bool,
}

impl Log {
    pub fn line(&mut self, line: String) {
        // FNV-1a, over bytes; a line break between lines.
        for byte in line.bytes().chain([b'\n']) {
            self.trace.hash = (self.trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.tail.len() == KEPT && !self.everything {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.trace.seen.entry(what).or_default() += 1;
    }
}

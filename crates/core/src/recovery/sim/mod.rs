//! A simulated world around the recovery machine: nodes that break in ways of their own, jobs, people, lines that lose,
//! double, delay and reorder what they carry, and a server that crashes at any effect and comes back from its rows.
//!
//! As in a server, an effect is performed once by whoever leads, nobody asks a node that is well, no time stands still while
//! nobody leads, and whoever runs the jobs (`runner`) is in the same process: what it says is lost when that dies, and a failure
//! that it holds must be answered.
//!
//! The truth is in the world (`machines`, `jobs`); the machine only hears of it. After every step it is compared with
//! what must always hold (`check`), and when no more faults come, everything comes to an end. The same seed gives the same trace.

mod check;
mod happen;
mod jobs;
mod machines;
mod people;
mod perform;
mod runner;
mod server;
mod world;

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use crate::sim::Trace;
use crate::sim::trace::Log;

/// How rough a world is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub max_nodes: u32,
    pub max_jobs: u32,
    /// At least one, at most this many.
    pub max_faults: u32,
    pub max_crashes: u32,
    /// A world that takes more steps than this does not come to rest.
    pub max_steps: u64,
    /// Keeps every line of the trace for a failure, not only the last ones.
    pub everything: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_nodes: 8, max_jobs: 4, max_faults: 8, max_crashes: 6, max_steps: 40_000, everything: false }
    }
}

/// A world in which something that must hold did not.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub message: String,
    /// The end of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.message)
    }
}

/// Lets one world happen. An invariant that panics is a failure like any other. `seen` counts the faults as `fault`.
pub fn run(seed: u64, options: Options) -> Result<Trace, Failure> {
    let log = Rc::new(RefCell::new(Log { everything: options.everything, ..Log::default() }));
    let outcome = catch_unwind(AssertUnwindSafe(|| world::World::new(seed, options, log.clone()).play()));
    let message = match outcome {
        Ok(Ok(())) => return Ok(log.borrow().trace.clone()),
        Ok(Err(message)) => message,
        Err(panic) => panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "panicked".to_owned()),
    };
    let tail = log.borrow().tail.iter().cloned().collect();
    Err(Failure { seed, message, tail })
}

//! A simulated world around the engine: random workflows, a machine that loses and doubles its reports, users who
//! change their minds, and a server that crashes between any two of its acts. One thread, one seed, no clock.
//!
//! It drives the production [`Run`](crate::engine::Run) and [`Admission`](crate::admission::Admission) as the server
//! does: an event changes the run in memory, rows are committed, and only then attempts are started or ended. After
//! every step it checks what must always hold (see `check`); when nothing happens any more, every run must be over.
//! The same seed and options give the same trace, so a failure is repeated by its seed.

mod actions;
mod backend;
mod check;
mod crash;
mod recovery;
pub(crate) mod rng;
mod rules;
mod server;
mod store;
pub(crate) mod trace;
mod workflows;
mod world;

use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

pub use check::differences;
pub use trace::Trace;

/// How large and how rough a world is.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Tasks in one workflow, at most.
    pub max_tasks: u32,
    /// Runs, at most.
    pub max_runs: u32,
    /// Crashes of the server, at most.
    pub max_crashes: u32,
    /// Things that users do, at most.
    pub max_actions: u32,
    /// A world that takes more steps than this does not come to rest.
    pub max_steps: u64,
    /// Keeps every line of the trace for a failure, not only the last ones.
    pub everything: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_tasks: 25, max_runs: 4, max_crashes: 4, max_actions: 6, max_steps: 50_000, everything: false }
    }
}

/// A world in which something that must hold did not.
#[derive(Debug, Clone)]
pub struct Failure {
    pub seed: u64,
    pub message: String,
    /// The workflows, a line for each task.
    pub workflows: String,
    /// The end of the trace.
    pub tail: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.tail {
            writeln!(f, "  {line}")?;
        }
        write!(f, "{}seed {}: {}", self.workflows, self.seed, self.message)
    }
}

/// Lets one world happen. An invariant that panics is a failure like any other.
pub fn run(seed: u64, options: Options) -> Result<Trace, Failure> {
    let log = Rc::new(RefCell::new(trace::Log { everything: options.everything, ..trace::Log::default() }));
    let mut workflows = String::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = world::World::new(seed, options, log.clone());
        workflows = world.describe();
        world.play()
    }));
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
    Err(Failure { seed, message, workflows, tail })
}

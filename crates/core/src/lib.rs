//! The pure heart of Pitcrew: what a workflow is, and what happens to a run of it.
//!
//! Everything here is a function of `(state, event, now)`. Nothing does IO, reads a clock or draws a
//! random number, and every collection that is iterated has a fixed order: what is pure can be
//! simulated by the million, and replayed after a crash.

pub mod admission;
pub mod engine;
pub mod explain;
pub mod fleet;
pub mod id;
pub mod ir;
pub mod pod;
pub mod recovery;
pub mod retry;
pub mod sim;
pub mod state;
pub mod timetable;
pub mod trigger_rule;

pub use id::{AttemptId, RunId, RunKey, TaskId, WorkflowId};
pub use jiff::{SignedDuration, Timestamp};

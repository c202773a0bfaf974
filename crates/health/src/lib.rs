//! Signs of sick machines: what the kernel log, checks and the ends of tasks say about GPUs, and what it means.
//!
//! Everything here is a function of text, numbers and time: no IO, no clock, no process. Whoever asks a machine does so
//! elsewhere, under a deadline, and gives what came of it to a reader here. So every reader can be tried on any machine,
//! and is: with what real drivers print, and with noise.
//!
//! Invariants: no reader panics or takes long, whatever it is given (lines are bounded); what could not be read is said
//! and never counts as healthy or as broken; meanings are data (`tables/*.json`) that users override one by one.

pub mod action;
mod bridge;
pub mod check;
pub mod exits;
pub mod judge;
pub mod kernel;
pub mod log;
pub mod recovery_action;
pub mod runbook;
pub mod tables;
mod text;
pub mod vitals;

pub use action::{Action, Blame};
pub use exits::{EndClass, Ends, ExitCodes};
pub use judge::{Facts, Judgement, judge};
pub use log::{Found, LogRules, LogState, LogWatch};
pub use recovery_action::RecoveryAction;
pub use tables::{Meanings, Overrides, Tables};
pub use vitals::{Shown, VitalRules, Vitals};

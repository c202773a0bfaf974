//! Workers: machines that come to the server for work, run it by their own backend, and tell how it went.
//!
//! ```text
//! server: scheduler ─► Hub ◄── sync ── worker: Courier ─► local backend ─► runner
//! ```
//!
//! A worker opens all connections, so it may stand behind any firewall. An attempt belongs to exactly one worker from
//! the moment its row is written: its handle names it, and nobody else is ever given it. What is said between the two
//! is in [`protocol`]. On the server, [`Hub`] is the backend of all workers.

mod clocks;
mod courier;
mod disk;
mod duty;
pub mod errands;
pub mod files;
mod hub;
mod kernel;
mod ledger;
mod logs;
mod machine;
mod mirror;
pub mod protocol;
#[cfg(test)]
mod sim;
mod wire;

pub use courier::{CourierError, GLANCE, Prober, Said, Worker, work};
pub use disk::{Credential, Disk, DiskError};
pub use hub::{Home, Hub, LEASE, NotTaken, OtherLogs, SHORTEST_LEASE, Standing, Unanswered};
pub use ledger::Superseded;
pub use wire::{ShutOut, Wire, WireError};

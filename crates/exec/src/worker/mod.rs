//! Workers: machines that come to the server for work, run it by their own backend, and tell how it went.
//!
//! ```text
//! server: scheduler ─► Hub ◄── sync ── worker: Courier ─► local backend ─► runner
//! ```
//!
//! A worker opens all connections, so it may stand behind any firewall. An attempt belongs to exactly one worker from
//! the moment its row is written: its handle names it, and nobody else is ever given it. What is said between the two
//! is in [`protocol`].

mod courier;
mod disk;
mod duty;
pub mod files;
mod logs;
mod machine;
pub mod protocol;
mod wire;

pub use courier::{CourierError, Prober, Said, Worker, work};
pub use disk::{Credential, Disk, DiskError};
pub use wire::{Wire, WireError};

//! The `ssh` backend: attempts are processes of another host, kept there by a small script, so that they outlive the
//! connection, this server, and the sessions of sshd.
//!
//! ```text
//! server ── start ──► bootstrap ──► keeper ──► step, step, …      (its own session, its own life)
//!    │                                └── writes ──► log, steps, exit
//!    └── questions ─► servant, one a host ── reads ──┘
//! ```
//!
//! The host needs a POSIX shell, coreutils, grep and setsid, on Linux. Log and end are mirrored into the attempt's
//! directory here, so reading them never needs the host.

mod backend;
mod begin;
pub(super) mod follow;
mod host;
mod lent;
pub(super) mod marks;
pub(super) mod mirror;
mod pooled;
mod removals;
pub(super) mod script;
mod servant;
mod watch;

pub use backend::{SshBackend, SshConfig};
pub use host::{Channel, Hosts, Ran, Stream, Unreached};
pub use marks::Seal;
pub use script::name_of;

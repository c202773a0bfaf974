//! Files that go to a host or come from one, over SFTP. The server moves them itself, so such an attempt has no keeper on
//! the host; what is needed to go on lies in its directory here.
//!
//! ```text
//! source ── from byte n ──► TARGET.pitcrew-ID.part ── SHA-256 of both sides ──► TARGET
//! ```
//!
//! Invariants: a target appears whole, with the digest of its source, or not at all; a cut link or the death of the server
//! costs only what was under way, since the next session goes on at the end of the part, whose digest is compared first;
//! an attempt that is over leaves no part, not for long even on a host that is away.

mod attempt;
mod download;
mod job;
mod leftovers;
mod parts;
mod sftp;
mod tree;
mod upload;

pub use attempt::{Begun, Transfers};
pub use job::Order;

use ring::digest::{Context, SHA256};

/// Why a transfer stopped, in one sentence.
#[derive(Debug)]
enum Failure {
    /// The connection went: another one goes on where this one was.
    Link(String),
    /// Another attempt may do better.
    Passing(String),
    /// Waiting and trying again cannot help.
    Lasting(String),
}

impl From<super::remote::Unreached> for Failure {
    fn from(e: super::remote::Unreached) -> Self {
        if e.lasting { Failure::Lasting(e.words) } else { Failure::Link(e.words) }
    }
}

/// A file that is at its target.
#[derive(Debug, Clone)]
struct Moved {
    bytes: u64,
    sha256: String,
    /// Bytes that an interrupted session had moved before.
    resumed: u64,
    /// It was there already.
    is_same: bool,
}

/// A SHA-256 that is being made.
fn digest() -> Context {
    Context::new(&SHA256)
}

fn hex(digest: Context) -> String {
    digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `12.3 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

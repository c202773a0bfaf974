//! How one command asks the process that works on a run to cancel it, to clear its tasks, or to explain them.
//!
//! Every process with a scheduler listens on a socket in `<data>/control`, a directory that only its user can enter;
//! so who reaches the socket may use it. A run has at most one owner, so asking all of them finds it. A socket whose
//! process is gone refuses the connection, and whoever notices removes it.
//!
//! The protocol is one JSON request and one JSON reply a line. It stays inside one machine and one user.

mod client;
mod listen;

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use pitcrew_control::paths::DataDir;
use pitcrew_control::records::What;
use pitcrew_core::engine::record::StopHow;
use pitcrew_core::{RunKey, TaskId};
use serde::{Deserialize, Serialize};

pub use client::Peers;
pub use listen::{Listener, listen};

/// What kind of process listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Takes every run that has no living owner.
    Server,
    /// Works on one run, in the foreground.
    Run,
}

/// Who listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    pub pid: u32,
    pub role: Role,
    /// Where its pages are; empty without a server.
    pub url: String,
    /// Whether it works on runs: of several servers, one does.
    #[serde(default)]
    pub leads: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Hello,
    /// Does this process work on the run?
    Has {
        run: RunKey,
    },
    /// Something in the store changed.
    Look,
    Cancel {
        run: RunKey,
        by: String,
        #[serde(default)]
        how: StopHow,
    },
    Clear {
        run: RunKey,
        what: What,
        by: String,
    },
    Explain {
        run: RunKey,
        task: String,
        map_index: Option<i32>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Hello(Hello),
    Has(bool),
    Done,
    Cleared(Vec<(TaskId, i32)>),
    Reasons(Vec<String>),
    /// In the owner's words.
    Refused(String),
}

/// More than this in one line is not a message of ours.
const MAX_MESSAGE: u64 = 16 << 20;

/// The directory of the sockets, made when missing.
fn directory(data: &DataDir) -> io::Result<PathBuf> {
    let dir = data.root().join("control");
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    Ok(dir)
}

/// Runs `f` with a path to `name` in `dir` that is short enough for a socket, however long `dir` is.
fn with_short_path<T>(dir: &Path, name: &str, f: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let open = File::open(dir)?;
    f(&PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd())))
}

//! What is written down about an attempt on ECS, beside its log and its end.
//!
//! | file | is there |
//! |---|---|
//! | `sent.json` | from before ECS is asked: without it nothing of it ever began. It holds all that was submitted |
//! | `task.json` | once ECS told which task it is |
//! | `cancel.json` | once it is to stop, from before ECS is asked to stop it |
//! | `cursor.json` | how far its log was copied, and what was read out of it |
//! | `gang.json` | of the first member of a gang: the machines of all, from before any is started |
//!
//! Invariant: none of them holds a secret, each appears whole, and `exit.json` beside them ends what they say.

use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ends::Intent;
use crate::client::ecs::{Needs, Run};

/// What is needed of an attempt after its start, by whoever goes on with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// What ECS was, or is to be, asked for.
    pub run: Run,
    /// Names of the steps.
    pub steps: Vec<String>,
    /// How long each may run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeouts: Vec<Option<SignedDuration>>,
    /// What begins a line of our own driver; `None`: the container runs without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
    pub log_limit: u64,
    /// For the log: what ECS does not do for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    pub at: Option<Timestamp>,
    /// It is of a gang, and has its machine since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seated: Option<Timestamp>,
    /// What it takes of that machine: ECS does not count it before its task is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Needs>,
}

/// Which task it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub arn: String,
}

/// It is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub intent: Intent,
    pub at: Timestamp,
}

/// A file of its own in the directory of an attempt.
pub trait Mark: Serialize + DeserializeOwned + Send + 'static {
    const FILE: &str;

    /// What cannot be read as such was torn by a full disk or a loss of power, and counts as missing.
    fn read(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(dir.join(Self::FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// It appears whole.
    fn write(&self, dir: &Path) -> io::Result<()> {
        let temporary = dir.join(format!("{}.new", Self::FILE));
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(temporary, dir.join(Self::FILE))
    }
}

impl Mark for Sent {
    const FILE: &str = "sent.json";
}

impl Mark for Known {
    const FILE: &str = "task.json";
}

impl Mark for Cancel {
    const FILE: &str = "cancel.json";
}

//! What is written down about an attempt on Kubernetes, beside its log and its end.
//!
//! | file | is there |
//! |---|---|
//! | `sent.json` | from before the API server is asked for anything: without it nothing of it ever began |
//! | `made.json` | once the API server told that its pod is there |
//! | `cancel.json` | once it is to end, from before its pod is deleted |
//! | `ending.json` | once it ends although nobody asked: from before its pod is deleted for that |
//! | `cursor.json` | how far its log was copied, and what was read out of it |
//!
//! Invariant: none of them holds what came from a Secret, each appears whole, and `exit.json` beside them ends what they say.

use std::io;
use std::path::Path;

use jiff::Timestamp;
use pitcrew_core::pod::ResultDecl;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What is needed of an attempt after its start, by whoever goes on with it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// The pod, and the Secret that it reads its files from, which has the same name.
    pub name: String,
    pub namespace: String,
    /// What begins a line of our own in its logs.
    pub mark: String,
    pub steps: Vec<Part>,
    pub sidecars: Vec<Part>,
    /// Of the task.
    pub results: Vec<ResultDecl>,
    pub log_limit: u64,
    /// When it was begun here, from which its time counts.
    #[serde(default)]
    pub at: Timestamp,
    #[serde(default)]
    pub deadline_s: Option<i64>,
    /// How long its processes have to end.
    #[serde(default)]
    pub grace_s: u32,
    /// For its log: what is otherwise here than people may think.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
}

/// A container of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub name: String,
    pub image: String,
    /// A failure of it is not one of the pod.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub continues: bool,
    /// It runs under the few lines of shell that are ours.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_wrapped: bool,
    /// Of a sidecar: something says when it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_probed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<ResultDecl>,
}

/// Its pod is there, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub uid: String,
}

/// It is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub at: Timestamp,
    pub grace_s: u32,
}

/// We end its pod, for this reason: whoever comes next must not take it for the deed of somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Its steps are over, and its sidecars go.
    Done,
    /// It took longer than it may.
    Deadline,
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

impl Mark for Made {
    const FILE: &str = "made.json";
}

impl Mark for Cancel {
    const FILE: &str = "cancel.json";
}

impl Mark for Ending {
    const FILE: &str = "ending.json";
}

impl Sent {
    /// When its time is over.
    pub fn due(&self) -> Option<Timestamp> {
        self.at.checked_add(jiff::SignedDuration::from_secs(self.deadline_s?)).ok()
    }

    /// Its containers, as they are counted in its log: the steps, then the sidecars.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.steps.iter().chain(&self.sidecars)
    }
}

//! What containers of a pod share as files.

use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub source: Source,
}

/// The name of a volume of [`Source::Files`] that nobody mounts: each step finds its files, by their paths, in its home directory and in
/// `/tekton/creds`, as its own.
pub const CREDENTIALS: &str = "pitcrew-credentials";

/// Where the files of a volume come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Empty at first, and gone with the pod.
    Scratch { medium: Medium, limit: Option<u64> },
    /// A directory that outlives the pod, relative to the data directory: of the run, or a claim that was named.
    Shared { dir: String },
    /// Files that are given; read-only, as in Kubernetes.
    Files(Vec<FileEntry>),
    /// Keys of a ConfigMap or a Secret, as Kubernetes has it; becomes [`Source::Files`] when it is launched on this machine.
    Object {
        is_secret: bool,
        name: String,
        /// Key, path and mode; empty: all keys by their names.
        items: Vec<(String, String, Option<u32>)>,
        default_mode: u32,
        optional: bool,
    },
    /// Several of the above in one directory; each is an `Object` or `Files`.
    Projected(Vec<Source>),
    /// A path of the machine.
    Host { path: String, kind: String },
    /// A claim of a cluster, by its name.
    Claim { name: String, read_only: bool },
    /// By the names of Kubernetes' fields; only a cluster can make it.
    Other { kind: String, spec: Value },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    #[default]
    Disk,
    Memory,
}

/// One file of a volume.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative, without `..`.
    pub path: String,
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// It came from a Secret: it is on no disk and in no log.
    pub is_secret: bool,
}

impl std::fmt::Debug for FileEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileEntry({}, {} bytes, {:o})", self.path, self.bytes.len(), self.mode)
    }
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The name of a [`Volume`].
    pub volume: String,
    /// An absolute path.
    pub at: String,
    /// Relative, without `..`; a directory of the volume, made if it is missing, or a file.
    #[serde(default)]
    pub sub_path: Option<String>,
    #[serde(default)]
    pub read_only: bool,
}

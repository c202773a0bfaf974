//! What a box is told: everything that it needs, in a file that has no name and is on no disk.

use std::path::PathBuf;

use pitcrew_core::pod::FileEntry;
use serde::{Deserialize, Serialize};

use super::image::Image;
use super::person::Person;

/// What a box is to do.
#[derive(Serialize, Deserialize)]
pub enum Order {
    Make(BoxPlan),
    Join(Join),
}

/// A program beside that of a container.
#[derive(Clone, Serialize, Deserialize)]
pub struct Join {
    /// The first process of the container, as this machine counts.
    pub init: i32,
    pub work: Work,
}

/// One container.
#[derive(Serialize, Deserialize)]
pub struct BoxPlan {
    /// Its own directory, empty.
    pub dir: PathBuf,
    pub hostname: String,
    pub image: Image,
    /// Directories that are empty in it, where they exist.
    pub hide: Vec<PathBuf>,
    /// What it sees elsewhere than in its own root; a later one may lie in an earlier.
    pub binds: Vec<Bind>,
    /// Devices of the machine that it sees.
    pub devices: Vec<PathBuf>,
    pub is_read_only: bool,
    pub work: Work,
}

/// What runs in it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Work {
    pub person: Person,
    /// Variables that it has unless `env` says otherwise.
    pub path: String,
    pub hostname: String,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// Made if it is missing.
    pub workdir: String,
    /// Files that it finds in its home directory and in `/tekton/creds`.
    pub credentials: Vec<FileEntry>,
    /// Files of the container that what it writes goes to as well.
    pub stdout_to: Option<String>,
    pub stderr_to: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub struct Bind {
    pub from: From,
    /// Absolute.
    pub at: String,
    pub is_read_only: bool,
}

#[derive(Serialize, Deserialize)]
pub enum From {
    /// A directory of the machine, or what lies at `sub` below it; made if it is missing, without a way out.
    Directory { path: PathBuf, sub: Option<String> },
    /// These files alone, in memory.
    Files { files: Vec<FileEntry>, sub: Option<String> },
    /// Nothing, in memory, for everybody to write to.
    Empty,
}

/// Why a container did not begin; what a box says instead of an exit code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// It could not be made.
    Setup(String),
    /// It was made, and its program could not be executed.
    Program(String),
}

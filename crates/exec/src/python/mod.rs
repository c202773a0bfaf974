//! Python environments made from declared requirements: built once, kept in a cache, shared by all tasks.
//!
//! An environment is named by a hash of what it is made of: the requirements and the interpreter. A virtual
//! environment holds its own path in its scripts, so it cannot be built aside and moved into place; it is built
//! where it will stay, under an exclusive lock, and a marker file is written last. Invariant: a directory without
//! the marker is nobody's environment and is removed by whoever next holds the lock; in one with it nothing is installed
//! or removed any more.
//!
//! The lock is a `flock` on a file beside the environment. Installers inherit it, so that one which outlives its
//! killed parent still keeps others out; users hold it shared, so that what is in use is not evicted.

mod build;
mod drivers;
mod evict;
mod interpreter;
mod requirements;
mod shared;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Timespec, Timestamps, UTIME_NOW, flock, futimens};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use drivers::{CONVERT_REQUIREMENTS, COVERAGE_REQUIREMENTS, Conversion, NOTEBOOK_REQUIREMENTS, NotebookRun};
pub use drivers::{PYTEST_REQUIREMENTS, Pytest};
pub use evict::evict;
pub use interpreter::Interpreter;
pub use shared::{ensure_shared, ensure_shared_in};

/// Written last; lists what is installed.
const MARKER: &str = ".complete";

/// What an environment is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvRequest {
    /// Lines as in a requirements file: `numpy>=2`, `--extra-index-url …`.
    pub requirements: Vec<String>,
    pub requirements_files: Vec<PathBuf>,
    /// A version (`3.12`), a name in `PATH` (`python3.12`) or a path; `None`: the first `python3` in `PATH`.
    pub python: Option<String>,
}

/// A ready environment. It is in use, and not evicted, as long as this value lives.
#[derive(Debug)]
pub struct Env {
    pub dir: PathBuf,
    /// Its interpreter.
    pub python: PathBuf,
    /// Built by this call, not found.
    pub created: bool,
    lease: File,
}

impl Env {
    /// The directory of its programs.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// What it holds, as written down when it was built.
    pub fn contents(&self) -> Contents {
        let marker = fs::read(self.dir.join(MARKER)).ok().and_then(|text| serde_json::from_slice(&text).ok());
        marker.unwrap_or_default()
    }

    /// Keeps the environment in use for as long as the programs live that are started from now on, this process
    /// included when it replaces itself with `exec`.
    pub fn share_with_children(&self) -> io::Result<()> {
        Ok(fcntl_setfd(&self.lease, FdFlags::empty())?)
    }
}

/// What an environment holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Contents {
    pub python: PythonVersion,
    /// `name==version`, by name.
    pub installed: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PythonVersion {
    pub version: String,
}

/// The names of the packages that a request asks for.
pub fn asked(request: &EnvRequest) -> Result<Vec<String>, PythonError> {
    let found = requirements::collect(request)?;
    let names = found.packages().map(requirements::name).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    #[error(
        "no Python interpreter for {asked} is in `PATH`{found}; install Python 3.9 or newer \
         (Debian and Ubuntu: `apt install python3 python3-venv`)"
    )]
    NoInterpreter { asked: String, found: String },
    #[error(
        "`{interpreter}` cannot make environments: its `venv` module is missing or incomplete; install it \
         (Debian and Ubuntu: `apt install python{minor}-venv`), or put `uv` in `PATH`"
    )]
    NoVenv { interpreter: String, minor: String },
    /// A whole clause about a requirement or the file that it stands in.
    #[error("{0}")]
    Requirement(String),
    #[error("{what} failed{hint}\n{tail}")]
    Install { what: String, hint: String, tail: String },
    /// `what` is a whole clause: "cannot write `/x`".
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

pub(crate) fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> PythonError {
    let what = what.into();
    move |source| PythonError::Io { what, source }
}

/// The environment for a request: found in `cache`, or built there. Concurrent calls for the same one build it
/// once. `progress` gets lines for people while it takes long; found, it takes about a millisecond and says nothing.
pub fn ensure(request: &EnvRequest, cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<Env, PythonError> {
    ensure_in(request, cache, &std::env::var("PATH").unwrap_or_default(), progress)
}

/// [`ensure`] with another `PATH` to find the interpreter and `uv` in.
pub fn ensure_in(
    request: &EnvRequest,
    cache: &Path,
    path: &str,
    progress: &mut dyn FnMut(&str),
) -> Result<Env, PythonError> {
    let cache = std::path::absolute(cache).map_err(io_error("cannot find the working directory"))?;
    let requirements = requirements::collect(request)?;
    let interpreter = interpreter::find(request.python.as_deref(), path, &cache)?;
    let key = key(&requirements, &interpreter);
    let place = Place::new(&cache, &key)?;
    let lock = place.open_lock()?;
    let mut created = false;
    loop {
        lock_shared(&lock, progress).map_err(io_error(format!("cannot lock `{}`", place.lock.display())))?;
        if place.is_complete() {
            // The last use; an environment is as old as this.
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let _ = futimens(&lock, &Timestamps { last_access: now, last_modification: now });
            return Ok(Env { python: place.dir.join("bin/python"), dir: place.dir, created, lease: lock });
        }
        // Not by conversion, which two holders of the shared lock would both wait for.
        let what = || format!("cannot lock `{}`", place.lock.display());
        flock(&lock, FlockOperation::Unlock).map_err(|e| io_error(what())(e.into()))?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| io_error(what())(e.into()))?;
        if !place.is_complete() {
            fcntl_setfd(&lock, FdFlags::empty()).map_err(|e| io_error(what())(e.into()))?;
            let built = build::build(&place, &interpreter, &requirements, path, progress);
            fcntl_setfd(&lock, FdFlags::CLOEXEC).map_err(|e| io_error(what())(e.into()))?;
            built?;
            created = true;
        }
        // Shared again from the top: between the two locks an eviction may come first.
    }
}

/// The environment for a request, if it is in `cache` already.
fn find_in(request: &EnvRequest, cache: &Path, path: &str) -> Result<Option<Env>, PythonError> {
    let cache = std::path::absolute(cache).map_err(io_error("cannot find the working directory"))?;
    let requirements = requirements::collect(request)?;
    let interpreter = interpreter::find(request.python.as_deref(), path, &cache)?;
    let place = Place::new(&cache, &key(&requirements, &interpreter))?;
    if !place.is_complete() {
        return Ok(None);
    }
    ensure_in(request, &cache, path, &mut |_| {}).map(Some)
}

fn lock_shared(lock: &File, progress: &mut dyn FnMut(&str)) -> io::Result<()> {
    match flock(lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            progress("waiting for another task that is building the same environment");
            Ok(flock(lock, FlockOperation::LockShared)?)
        }
        Err(other) => Err(other.into()),
    }
}

/// 96 bits name it: short enough for the first line of a script, which holds the path.
fn key(requirements: &requirements::Requirements, interpreter: &Interpreter) -> String {
    let mut hash = Sha256::new();
    for part in requirements.identity().iter().map(String::as_str).chain(interpreter.identity()) {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize()[..12])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Where an environment and its lock lie in the cache.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    lock: PathBuf,
}

impl Place {
    fn new(cache: &Path, key: &str) -> Result<Place, PythonError> {
        let (envs, locks) = (cache.join("envs"), cache.join("locks"));
        for dir in [&envs, &locks] {
            fs::create_dir_all(dir).map_err(io_error(format!("cannot make the directory `{}`", dir.display())))?;
        }
        Ok(Place { dir: envs.join(key), lock: locks.join(format!("{key}.lock")) })
    }

    /// Lock files are never removed: a lock on a removed file would lock nothing.
    fn open_lock(&self) -> Result<File, PythonError> {
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&self.lock);
        open.map_err(io_error(format!("cannot open `{}`", self.lock.display())))
    }

    fn marker(&self) -> PathBuf {
        self.dir.join(MARKER)
    }

    /// Finished, and its base interpreter still there.
    fn is_complete(&self) -> bool {
        self.marker().is_file() && self.dir.join("bin/python").exists()
    }
}

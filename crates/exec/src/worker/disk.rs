//! The directory of a worker: who it is, and what it began.
//!
//! ```text
//! worker.lock            held while a process works here
//! credential.json        who it is; only its user can read it
//! enrolling.json         who it wants to become, until it is
//! incarnation            the number of the last start
//! blobs/                 bytes of files, by their SHA-256
//! of/WORKER/             all that it has as this worker
//!   held/RUN-TASK.N.json   an attempt that was begun, until the server says that it may be forgotten
//!   runs/RUN/…             as in the data directory of a server: workspace, artifacts, records, attempts
//!   errands/               what it did on its machine for the server, and what it began
//!   runner/                the process that keeps the attempts
//! ```
//!
//! Invariants: an attempt has its file in `held` before it is begun; no order is kept here, so no secret of one is. Whoever
//! enrols again is another worker, of a server that counts its runs anew perhaps: it finds nothing of the one before.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use pitcrew_core::{AttemptId, RunKey};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::backend::Handle;
use crate::{clock, whole};

/// Who a worker is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Credential {
    /// The server that gave it, as it was named.
    pub server: String,
    pub worker: String,
    pub name: String,
    pub credential: String,
}

/// What is needed of an attempt after a restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    pub attempt: AttemptId,
    pub grace: SignedDuration,
    #[serde(default)]
    pub files: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    root: PathBuf,
    /// Of the worker that it is.
    own: PathBuf,
    lock: File,
}

/// Why a directory cannot be worked in.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("another worker works in `{}`", .0.display())]
    Taken(PathBuf),
    /// What a server calls it is no name of a directory.
    #[error("`{0}` is no id of a worker")]
    NoId(String),
    /// The path, and what failed.
    #[error("cannot use `{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

impl Disk {
    /// Makes the directory if need be, and locks it for as long as this lives.
    pub fn open(root: &Path) -> Result<Disk, DiskError> {
        let failed = |error| DiskError::Io(root.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(failed)?;
        let root = root.canonicalize().map_err(failed)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(root.join("worker.lock"));
        let lock = lock.map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Disk { own: root.clone(), root, lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(DiskError::Taken(root)),
            Err(error) => Err(failed(error.into())),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// From now on it is the directory of this worker. What others had who were here before goes, once nothing keeps their
    /// attempts any more.
    pub fn of(mut self, worker: &str) -> Result<Disk, DiskError> {
        if worker.is_empty() || worker.len() > 64 || !worker.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(DiskError::NoId(worker.chars().take(100).collect()));
        }
        let all = self.root.join("of");
        self.own = all.join(worker);
        let failed = |error| DiskError::Io(self.own.clone(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(self.own.join("held")).map_err(failed)?;
        for entry in std::fs::read_dir(&all).map_err(failed)?.flatten() {
            let other = entry.path();
            if other == self.own || is_kept(&other) {
                continue;
            }
            if let Err(error) = std::fs::remove_dir_all(&other) {
                tracing::warn!("cannot remove `{}`: {error}", other.display());
            }
        }
        Ok(self)
    }

    /// What it has as the worker that it is.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// Another word for each copy of this directory, and for each start of the machine; `None` where that cannot be told.
    pub fn place(&self) -> Option<String> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let lock = self.lock.metadata().ok()?;
        Some(format!("{}-{:x}-{:x}", boot.trim(), lock.dev(), lock.ino()))
    }

    pub fn errands(&self) -> PathBuf {
        self.own.join("errands")
    }

    pub fn runner(&self) -> PathBuf {
        self.own.join("runner")
    }

    /// Where the directories of its runs are.
    pub fn runs(&self) -> PathBuf {
        self.own.join("runs")
    }

    pub fn run(&self, run: RunKey) -> PathBuf {
        self.runs().join(run.to_string())
    }

    /// An attempt of this worker, wherever others believe that its directory is.
    pub fn handle(&self, id: &AttemptId) -> Handle {
        let dir = self.run(id.run).join("attempts").join(id.local_name());
        Handle { id: id.clone(), dir, place: None, home: None }
    }

    pub fn credential_file(&self) -> PathBuf {
        self.root.join("credential.json")
    }

    /// What it was given when it enrolled.
    pub fn credential(&self) -> io::Result<Option<Credential>> {
        match std::fs::read(self.credential_file()) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).map(Some)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Who it was about to become when an earlier process asked; it has no id yet.
    pub fn wish(&self) -> Option<Credential> {
        serde_json::from_slice(&std::fs::read(self.root.join("enrolling.json")).ok()?).ok()
    }

    /// Before it asks, so that it finds itself again whatever becomes of the answer.
    pub fn keep_wish(&self, wish: &Credential) -> io::Result<()> {
        self.keep_secret("enrolling.json", wish)
    }

    /// Synced, since there is no second one.
    pub fn keep_credential(&self, credential: &Credential) -> io::Result<()> {
        self.keep_secret("credential.json", credential)?;
        // It is found again by the other one now.
        let _ = std::fs::remove_file(self.root.join("enrolling.json"));
        Ok(())
    }

    fn keep_secret(&self, name: &str, credential: &Credential) -> io::Result<()> {
        let temporary = self.root.join(format!("{name}.new"));
        // One that a crash left could be readable for others.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(&serde_json::to_vec(credential)?)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.root.join(name))
    }

    /// The number of this start: higher than that of each before here, and than that of an earlier one whose directory was
    /// copied, as far as clocks allow.
    pub fn next_incarnation(&self) -> io::Result<u64> {
        let file = self.root.join("incarnation");
        let last: u64 = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let now = u64::try_from(clock::now().as_millisecond()).unwrap_or(0);
        let next = now.max(last + 1);
        whole::write(&file, next.to_string().as_bytes())?;
        Ok(next)
    }

    fn held(&self, id: &AttemptId) -> PathBuf {
        self.own.join("held").join(format!("{}-{}.json", id.run, id.local_name()))
    }

    /// Before an attempt is begun.
    pub fn keep(&self, kept: &Kept) -> io::Result<()> {
        let file = self.held(&kept.attempt);
        let temporary = file.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(kept)?)?;
        std::fs::rename(&temporary, file)
    }

    pub fn forget(&self, id: &AttemptId) -> io::Result<()> {
        match std::fs::remove_file(self.held(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What was begun here and not forgotten. What a loss of power tore is left out: nothing of it runs any more.
    pub fn all_kept(&self) -> io::Result<Vec<Kept>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(self.own.join("held"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(kept) = serde_json::from_slice(&std::fs::read(&path)?)
            {
                all.push(kept);
            }
        }
        Ok(all)
    }
}

/// The runs that have a directory there; whatever else lies among them is somebody else's.
pub fn runs_in(dir: &Path) -> io::Result<BTreeSet<RunKey>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other?,
    };
    let mut runs = BTreeSet::new();
    for entry in entries {
        let name = entry?.file_name();
        let run = name.to_str().and_then(|name| name.parse().ok()).map(RunKey);
        runs.extend(run.filter(|run| run.to_string().as_str() == name));
    }
    Ok(runs)
}

/// Whether a runner lives there: what it keeps goes on until its lease is over.
fn is_kept(other: &Path) -> bool {
    let Ok(lock) = File::open(other.join("runner/runner.lock")) else { return false };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_worker_finds_itself_again_and_nobody_else_reads_who_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("w");
        let disk = Disk::open(&root).unwrap().of("1").unwrap();
        assert!(matches!(Disk::open(&root), Err(DiskError::Taken(_))));
        assert!(disk.credential().unwrap().is_none());
        let text = |text: &str| text.to_owned();
        let credential =
            Credential { server: text("http://x"), worker: text("1"), name: text("n"), credential: text("pw_1") };
        disk.keep_credential(&credential).unwrap();
        disk.keep_credential(&credential).unwrap();
        assert_eq!(disk.credential_file().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let first = disk.next_incarnation().unwrap();
        let kept = Kept { attempt: "7/a[2].1".parse().unwrap(), grace: SignedDuration::from_secs(3), files: true };
        disk.keep(&kept).unwrap();
        let place = disk.place();
        drop(disk);
        let disk = Disk::open(&root).unwrap().of("1").unwrap();
        assert!(place.is_some() && disk.place() == place);
        assert!(disk.credential().unwrap() == Some(credential));
        assert!(disk.next_incarnation().unwrap() > first);
        std::fs::write(root.join("of/1/held/torn.json"), "{").unwrap();
        assert_eq!(disk.all_kept().unwrap(), std::slice::from_ref(&kept));
        disk.forget(&kept.attempt).unwrap();
        disk.forget(&kept.attempt).unwrap();
        assert!(disk.all_kept().unwrap().is_empty());
    }

    #[test]
    fn only_directories_of_runs_are_taken_for_such() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path()).unwrap().of("1").unwrap();
        assert_eq!(runs_in(&disk.runs()).unwrap(), BTreeSet::new());
        for name in ["12", "3", "+4", "05", ".gone-7-x", "notes"] {
            std::fs::create_dir_all(disk.runs().join(name)).unwrap();
        }
        assert_eq!(runs_in(&disk.runs()).unwrap(), BTreeSet::from([RunKey(3), RunKey(12)]));
    }

    #[test]
    fn another_worker_in_the_same_directory_finds_nothing_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let id: AttemptId = "1/train.1".parse().unwrap();
        let open = || Disk::open(dir.path()).unwrap();
        for bad in ["", "..", "a/b", "a b"] {
            assert!(matches!(open().of(bad), Err(DiskError::NoId(_))), "{bad}");
        }
        let first = open().of("first").unwrap();
        first.keep(&Kept { attempt: id.clone(), grace: SignedDuration::ZERO, files: false }).unwrap();
        std::fs::create_dir_all(first.handle(&id).dir).unwrap();
        std::fs::create_dir_all(first.runner()).unwrap();
        let runner = File::create(first.runner().join("runner.lock")).unwrap();
        rustix::fs::flock(&runner, FlockOperation::LockExclusive).unwrap();
        let kept = first.own().to_owned();
        drop(first);
        let second = open().of("second").unwrap();
        assert!(second.all_kept().unwrap().is_empty() && !second.handle(&id).dir.exists());
        assert!(kept.exists(), "what runs there ends by itself");
        drop((runner, second));
        open().of("second").unwrap();
        assert!(!kept.exists());
    }
}

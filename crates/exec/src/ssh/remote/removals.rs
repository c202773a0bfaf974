//! What is to be removed from a host, also when it is away for a while: one empty file here per directory there.
//!
//! Invariant: the file is made before the removal is tried and goes after it succeeded, so a removal that was asked for
//! is carried out at last, whoever is killed in between. One that is only noted waits until it is asked for; the next
//! server takes it as asked for, since whoever would have asked is gone. A host that was never reached has nothing to
//! remove: the directory of a run is marked as used before anything is sent there, and only then can be left.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::host::Unreached;
use super::servant::Servant;
use crate::place::SshPlace;

const PLACE: &str = "place.json";
/// Begins the name of the file of a run's directory that is in use; those of [`Kind`] begin the others.
const USED: &str = "u";

/// What of a host is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Attempt,
    Workspace,
}

impl Kind {
    fn letter(self) -> &'static str {
        match self {
            Kind::Attempt => "a",
            Kind::Workspace => "w",
        }
    }

    pub async fn carry_out(self, servant: &Servant, name: &str) -> Result<(), Unreached> {
        match self {
            Kind::Attempt => servant.remove(name).await,
            Kind::Workspace => servant.leave(name).await,
        }
    }
}

/// Those of one host.
pub struct Removals {
    dir: PathBuf,
    open: Mutex<BTreeMap<String, Kind>>,
}

impl Removals {
    /// Those that are written down below `root` for a host.
    pub fn of(root: &Path, place: &SshPlace) -> Removals {
        let key = serde_json::to_string(place).unwrap_or_default();
        let digest: String = Sha256::digest(key)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Removals::read(root.join(digest))
    }

    fn read(dir: PathBuf) -> Removals {
        let names = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let open = names.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (letter, name) = name.split_once('.')?;
            let kind = [Kind::Attempt, Kind::Workspace].into_iter().find(|kind| kind.letter() == letter)?;
            is_name(name).then(|| (name.to_owned(), kind))
        });
        let open = Mutex::new(open.collect());
        Removals { dir, open }
    }

    /// The hosts for which something is written down below `root`.
    pub fn places(root: &Path) -> Vec<SshPlace> {
        let dirs = std::fs::read_dir(root).into_iter().flatten().flatten();
        dirs.filter_map(|dir| serde_json::from_slice(&std::fs::read(dir.path().join(PLACE)).ok()?).ok()).collect()
    }

    /// Writes down that it will be removed, by [`Removals::add`] or by the next server.
    pub fn note(&self, place: &SshPlace, kind: Kind, name: &str) -> io::Result<()> {
        self.make(place)?;
        std::fs::write(self.file(kind.letter(), name), "")
    }

    /// Writes down that it is to be removed from now on.
    pub fn add(&self, place: &SshPlace, kind: Kind, name: &str) -> io::Result<()> {
        self.note(place, kind, name)?;
        self.lock().insert(name.to_owned(), kind);
        Ok(())
    }

    /// A run is about to use its directory there: it stays until it is left.
    pub fn take_up(&self, place: &SshPlace, name: &str) -> io::Result<()> {
        self.make(place)?;
        self.lock().remove(name);
        // One that was left and is not removed yet is in use again.
        match std::fs::rename(self.file(Kind::Workspace.letter(), name), self.file(USED, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => std::fs::write(self.file(USED, name), ""),
            renamed => renamed,
        }
    }

    /// Notes that the directory of a run will be removed, if it was used; says whether it was.
    pub fn leaving(&self, name: &str) -> io::Result<bool> {
        let left = self.file(Kind::Workspace.letter(), name);
        match std::fs::rename(self.file(USED, name), &left) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(left.exists()),
            renamed => renamed.map(|()| true),
        }
    }

    /// The directory of a run is to be removed from now on, if it was used.
    pub fn leave(&self, name: &str) -> io::Result<()> {
        if self.leaving(name)? {
            self.lock().insert(name.to_owned(), Kind::Workspace);
        }
        Ok(())
    }

    fn make(&self, place: &SshPlace) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        let whose = self.dir.join(PLACE);
        if whose.exists() { Ok(()) } else { crate::whole::write(&whose, &serde_json::to_vec(place)?) }
    }

    /// It is gone.
    pub fn done(&self, kind: Kind, name: &str) {
        self.lock().remove(name);
        let _ = std::fs::remove_file(self.file(kind.letter(), name));
    }

    /// It cannot be removed; the next server tries again.
    pub fn put_off(&self, name: &str) {
        self.lock().remove(name);
    }

    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    pub fn all(&self) -> Vec<(String, Kind)> {
        self.lock().iter().map(|(name, kind)| (name.clone(), *kind)).collect()
    }

    fn file(&self, letter: &str, name: &str) -> PathBuf {
        self.dir.join(format!("{letter}.{name}"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Kind>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As [`super::script`] makes them: nothing else is ever given to `rm`.
fn is_name(name: &str) -> bool {
    name.contains('-') && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_removed_is_known_to_the_next_server() {
        let root = tempfile::tempdir().unwrap();
        let place = SshPlace::new("h", "u");
        let removals = Removals::of(root.path(), &place);
        assert!(removals.is_empty());
        removals.add(&place, Kind::Attempt, "1-aa").unwrap();
        for name in ["1-bb", "2-bb", "3-bb"] {
            removals.take_up(&place, name).unwrap();
        }
        for name in ["1-bb", "2-bb", "never-used"] {
            assert!(removals.leaving(name).unwrap() != (name == "never-used"), "{name}");
            removals.leave(name).unwrap();
        }
        removals.take_up(&place, "2-bb").unwrap();
        removals.note(&place, Kind::Attempt, "1-cc").unwrap();
        removals.note(&place, Kind::Attempt, "1-dd").unwrap();
        removals.done(Kind::Attempt, "1-aa");
        removals.done(Kind::Attempt, "1-cc");
        removals.put_off("1-bb");
        assert!(removals.is_empty());
        // Somebody else's file is nobody's order.
        std::fs::write(removals.dir.join("a...-"), "").unwrap();
        assert_eq!(Removals::places(root.path()), std::slice::from_ref(&place));
        let all = [("1-bb".to_owned(), Kind::Workspace), ("1-dd".to_owned(), Kind::Attempt)];
        assert_eq!(Removals::of(root.path(), &place).all(), all);
        assert!(Removals::of(root.path(), &SshPlace::new("other", "u")).is_empty());
    }
}

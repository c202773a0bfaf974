//! What lies in the directory of a run. A file that was read before is not read again while nothing says that it changed.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::depot::Memory;
use super::tree::{Root, copy, unfinished};
use super::{MOST, PARTS, UNFINISHED, check, check_link};
use crate::worker::protocol::{File, Manifest};

/// A file that changed so short a time before it was read may change again within the same tick of the clock.
const SETTLED_NS: i128 = 2_000_000_000;
/// So many files are few.
const FEW: usize = 500;

/// What was found the last time; lies beside the parts, as `files.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// Only on a worker.
    #[serde(default)]
    pub memory: Memory,
    #[serde(default)]
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    size: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
    /// When it was read.
    at_ns: i128,
    sha256: String,
}

/// What lies there.
#[derive(Debug, Default)]
pub struct Found {
    pub manifest: Manifest,
    /// For people: what does not travel, and why.
    pub left_out: Vec<String>,
}

impl Found {
    pub fn is_hidden(&self, path: &str) -> bool {
        self.manifest.is_hidden(path)
    }

    fn hide(&mut self, path: &str, error: &io::Error) {
        self.left_out.push(format!("`{path}` cannot be read: {error}"));
        self.manifest.hidden.insert(path.to_owned());
    }
}

/// What runs beside this may remove what it made, or make something else of it.
fn is_gone(error: &io::Error) -> bool {
    let is_other = error.raw_os_error() == Some(libc::ELOOP);
    is_other
        || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput)
}

fn is_forbidden(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

impl Index {
    const FILE: &str = "files.json";

    /// One that is damaged is as good as none: everything is read again.
    pub fn read(run: &Path) -> io::Result<Index> {
        match std::fs::read(run.join(Self::FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error),
        }
    }

    /// Only where it differs from `before`, which is what was read. Not synced: without it everything is read again.
    pub fn write(&self, run: &Path, before: &Index) -> io::Result<()> {
        if self == before {
            return Ok(());
        }
        let temporary = run.join(unfinished());
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, run.join(Self::FILE))
    }

    /// Whether it is compared in no time.
    pub fn is_small(&self) -> bool {
        self.seen.len() <= FEW
    }

    /// Looks at everything, and reads what is new.
    pub fn scan(&mut self, run: &Path, now: Timestamp) -> io::Result<Found> {
        let root = Root::open(run)?;
        let mut found = Found::default();
        let mut seen = BTreeMap::new();
        for part in PARTS {
            match std::fs::symlink_metadata(run.join(part)) {
                Ok(meta) if meta.is_dir() => self.walk(&root, run, part, now, &mut found, &mut seen)?,
                Ok(_) => found.left_out.push(format!("`{part}` is no directory")),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.seen = seen;
        Ok(found)
    }

    fn walk(
        &self,
        root: &Root,
        run: &Path,
        part: &str,
        now: Timestamp,
        found: &mut Found,
        seen: &mut BTreeMap<String, Seen>,
    ) -> io::Result<()> {
        let mut open = vec![part.to_owned()];
        while let Some(dir) = open.pop() {
            let mut is_empty = true;
            let entries = match std::fs::read_dir(run.join(&dir)) {
                Ok(entries) => entries,
                Err(error) if is_gone(&error) => continue,
                Err(error) if is_forbidden(&error) => {
                    found.hide(&dir, &error);
                    continue;
                }
                Err(error) => return Err(at(&dir, error)),
            };
            for entry in entries {
                let entry = entry.map_err(|error| at(&dir, error))?;
                let Ok(name) = entry.file_name().into_string() else {
                    let shown = entry.file_name().to_string_lossy().into_owned();
                    found.left_out.push(format!("the name of `{dir}/{shown}` is not UTF-8"));
                    continue;
                };
                if name.starts_with(UNFINISHED) {
                    continue;
                }
                is_empty = false;
                let path = format!("{dir}/{name}");
                if found.manifest.files.len() >= MOST {
                    return Err(io::Error::other(format!("the run has more than {MOST} files")));
                }
                if let Err(problem) = check(&path) {
                    found.left_out.push(problem);
                    continue;
                }
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(error) if is_gone(&error) => continue,
                    Err(error) if is_forbidden(&error) => {
                        found.hide(&path, &error);
                        continue;
                    }
                    Err(error) => return Err(at(&path, error)),
                };
                if meta.is_dir() {
                    open.push(path);
                } else if meta.is_symlink() {
                    let to = match std::fs::read_link(entry.path()).map(std::path::PathBuf::into_os_string) {
                        Ok(to) => to.to_string_lossy().into_owned(),
                        Err(error) if is_gone(&error) => continue,
                        Err(error) => return Err(at(&path, error)),
                    };
                    match check_link(&path, &to) {
                        Ok(()) => drop(found.manifest.files.insert(path, File::Link { to })),
                        Err(problem) => found.left_out.push(problem),
                    }
                } else if meta.is_file() {
                    match self.file(root, &path, &meta, now) {
                        Ok(file) => {
                            let mode = meta.permissions().mode() & 0o777;
                            let entry = File::File { sha256: file.sha256.clone(), size: file.size, mode };
                            found.manifest.files.insert(path.clone(), entry);
                            seen.insert(path, file);
                        }
                        Err(error) if is_gone(&error) => {}
                        Err(error) if is_forbidden(&error) => found.hide(&path, &error),
                        Err(error) => return Err(at(&path, error)),
                    }
                } else {
                    found.left_out.push(format!("`{path}` is neither a file nor a directory"));
                }
            }
            if is_empty && dir != part {
                found.manifest.files.insert(dir, File::Dir);
            }
        }
        Ok(())
    }

    fn file(&self, root: &Root, path: &str, meta: &std::fs::Metadata, now: Timestamp) -> io::Result<Seen> {
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let mut seen = Seen {
            size: meta.len(),
            inode: meta.ino(),
            modified_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            changed_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            at_ns: now.as_nanosecond(),
            sha256: String::new(),
        };
        if let Some(before) = self.seen.get(path)
            && (before.size, before.inode, before.modified_ns, before.changed_ns)
                == (seen.size, seen.inode, seen.modified_ns, seen.changed_ns)
            && before.changed_ns + SETTLED_NS < before.at_ns
        {
            return Ok(before.clone());
        }
        let mut file = root.read(path)?;
        seen.sha256 = copy(&mut file, &mut io::sink())?;
        // It may have grown while it was read; then the digest is of another length, and the next scan sees it anew.
        seen.size = file.metadata()?.len();
        Ok(seen)
    }

    /// Paths of files by their digests, as of the last scan.
    pub fn by_digest(&self) -> HashMap<&str, &str> {
        self.seen.iter().map(|(path, seen)| (seen.sha256.as_str(), path.as_str())).collect()
    }
}

fn at(path: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read `{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn what_lies_there_is_told_and_what_cannot_travel_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path();
        std::fs::create_dir_all(run.join("workspace/a/empty")).unwrap();
        std::fs::create_dir_all(run.join("attempts/x")).unwrap();
        std::fs::write(run.join("attempts/x/log"), "no").unwrap();
        std::fs::write(run.join("workspace/a/f"), "text").unwrap();
        std::os::unix::fs::symlink("f", run.join("workspace/a/l")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", run.join("workspace/p")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            run.join("workspace/fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from(0o600),
            0,
        )
        .unwrap();
        let mut index = Index::read(run).unwrap();
        let found = index.scan(run, clock::now()).unwrap();
        let paths: Vec<&str> = found.manifest.files.keys().map(String::as_str).collect();
        assert_eq!(paths, ["workspace/a/empty", "workspace/a/f", "workspace/a/l"]);
        assert_eq!(found.left_out.len(), 2, "{:?}", found.left_out);
        index.write(run, &Index::default()).unwrap();
        let mut index = Index::read(run).unwrap();
        // Written just now: it is read again, although nothing but its bytes may differ.
        std::fs::write(run.join("workspace/a/f"), "TEXT").unwrap();
        let again = index.scan(run, clock::now()).unwrap();
        assert_ne!(again.manifest, found.manifest);
        let File::File { sha256, .. } = &again.manifest.files["workspace/a/f"] else { panic!("{again:?}") };
        assert_eq!(index.by_digest()[sha256.as_str()], "workspace/a/f");
        // A file that settled is not.
        let later = clock::now() + jiff::SignedDuration::from_secs(60);
        index.scan(run, later).unwrap();
        index.seen.get_mut("workspace/a/f").unwrap().sha256 = "remembered".to_owned();
        let last = index.scan(run, later).unwrap();
        assert!(matches!(&last.manifest.files["workspace/a/f"], File::File { sha256, .. } if sha256 == "remembered"));
    }
    #[test]
    fn what_may_not_be_read_stays_and_the_rest_travels() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("workspace/closed");
        std::fs::create_dir_all(&closed).unwrap();
        std::fs::write(closed.join("f"), "x").unwrap();
        std::fs::write(dir.path().join("workspace/open"), "x").unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let found = Index::default().scan(dir.path(), clock::now()).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(found.manifest.files.contains_key("workspace/open"));
        // Root may read anything.
        if !rustix::process::geteuid().is_root() {
            assert!(found.left_out[0].contains("`workspace/closed` cannot be read"), "{:?}", found.left_out);
            assert!(found.is_hidden("workspace/closed/f") && !found.is_hidden("workspace/open"));
            assert!(!found.is_hidden("workspace/closed-not"));
        }
    }
}

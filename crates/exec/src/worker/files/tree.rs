//! The directory of a run as a tree that is never left: each step of a path is opened by itself, and no link is followed.

use std::fs::File as Open;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, mkdirat, openat, renameat, symlinkat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::{CHUNK, UNFINISHED, check, hex};

const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory of a run, open.
pub struct Root(OwnedFd);

/// A directory in it, and a name there.
struct At {
    dir: OwnedFd,
    name: String,
}

impl Root {
    /// Makes the directory if need be.
    pub fn open(dir: &Path) -> io::Result<Root> {
        std::fs::create_dir_all(dir)?;
        let open = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root(open))
    }

    /// `make`: the directories on the way are made, and what is in their place goes: whoever comes last is right.
    fn at(&self, path: &str, make: bool) -> io::Result<At> {
        check(path).map_err(io::Error::other)?;
        let (dirs, name) = path.rsplit_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let mut dir = self.0.try_clone()?;
        let mut is_part = true;
        for part in dirs.split('/') {
            let is_first = std::mem::take(&mut is_part);
            let opened = match openat(&dir, part, DIR, Mode::empty()) {
                Err(Errno::NOENT) if make => make_and_open(&dir, part),
                // Not the parts themselves: only what the server or the worker made is at the top.
                Err(Errno::LOOP | Errno::NOTDIR) if make && !is_first => {
                    unlinkat(&dir, part, AtFlags::empty())?;
                    make_and_open(&dir, part)
                }
                other => other,
            };
            dir = opened.map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => {
                    let text = format!("`{part}` in `{path}` is a link or a file, and nothing goes through it");
                    io::Error::new(io::ErrorKind::NotADirectory, text)
                }
                other => other.into(),
            })?;
        }
        Ok(At { dir, name: name.to_owned() })
    }

    /// The bytes of a file; a link is none.
    pub fn read(&self, path: &str) -> io::Result<Open> {
        let at = self.at(path, false)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = Open::from(openat(&at.dir, at.name.as_str(), flags, Mode::empty())?);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{path}` is no file"))),
        }
    }

    /// Writes a file of these bytes, whose digest must be that; it takes the place of what was there.
    pub fn write(&self, path: &str, from: &mut dyn Read, sha256: &str, mode: u32) -> io::Result<()> {
        let at = self.at(path, true)?;
        let temporary = unfinished();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = Open::from(openat(&at.dir, temporary.as_str(), flags, Mode::from(0o600))?);
        let written = copy(from, &mut file).and_then(|digest| match digest == sha256 {
            true => Ok(rustix::fs::fchmod(&file, Mode::from(mode & 0o777))?),
            false => {
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("what came for `{path}` has another digest")))
            }
        });
        let placed = written.and_then(|()| at.put(&temporary));
        if placed.is_err() {
            let _ = unlinkat(&at.dir, temporary.as_str(), AtFlags::empty());
        }
        placed
    }

    pub fn link(&self, path: &str, to: &str) -> io::Result<()> {
        super::check_link(path, to).map_err(io::Error::other)?;
        let at = self.at(path, true)?;
        let temporary = unfinished();
        symlinkat(to, &at.dir, temporary.as_str())?;
        let placed = at.put(&temporary);
        if placed.is_err() {
            let _ = unlinkat(&at.dir, temporary.as_str(), AtFlags::empty());
        }
        placed
    }

    pub fn make_dir(&self, path: &str) -> io::Result<()> {
        let at = self.at(path, true)?;
        match mkdirat(&at.dir, at.name.as_str(), Mode::from(0o777)) {
            Ok(()) => Ok(()),
            // A directory is as wanted, with something in it or not; anything else gives way.
            Err(Errno::EXIST) if openat(&at.dir, at.name.as_str(), DIR, Mode::empty()).is_ok() => Ok(()),
            Err(Errno::EXIST) => {
                unlinkat(&at.dir, at.name.as_str(), AtFlags::empty())?;
                Ok(mkdirat(&at.dir, at.name.as_str(), Mode::from(0o777))?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a file, a link or an empty directory, and then the directories above that hold nothing any more.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        let at = match self.at(path, false) {
            Ok(at) => at,
            // Something else is in the place of a directory on the way: then it is not there any more.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match unlinkat(&at.dir, at.name.as_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => match unlinkat(&at.dir, at.name.as_str(), AtFlags::REMOVEDIR) {
                // Somebody put something into it.
                Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
        let mut above = path;
        while let Some((dir, _)) = above.rsplit_once('/') {
            // The parts themselves stay.
            if check(dir).is_err() {
                break;
            }
            let Ok(at) = self.at(dir, false) else { break };
            if unlinkat(&at.dir, at.name.as_str(), AtFlags::REMOVEDIR).is_err() {
                break;
            }
            above = dir;
        }
        Ok(())
    }
}

impl At {
    /// Gives what is written its name.
    fn put(&self, temporary: &str) -> io::Result<()> {
        match renameat(&self.dir, temporary, &self.dir, self.name.as_str()) {
            Err(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                // A directory gives way, with all that is in it.
                remove_all(&self.dir, &self.name)?;
                Ok(renameat(&self.dir, temporary, &self.dir, self.name.as_str())?)
            }
            other => Ok(other?),
        }
    }
}

fn make_and_open(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    match mkdirat(dir, name, Mode::from(0o777)) {
        Ok(()) | Err(Errno::EXIST) => openat(dir, name, DIR, Mode::empty()),
        Err(error) => Err(error),
    }
}

/// Removes a directory and what is in it; links are removed, and not followed.
fn remove_all(dir: &OwnedFd, name: &str) -> io::Result<()> {
    let inner = openat(dir, name, DIR, Mode::empty())?;
    for entry in Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(&inner, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) => match name.to_str() {
                Ok(name) => remove_all(&inner, name)?,
                Err(_) => return Err(io::ErrorKind::InvalidFilename.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A name that nothing has.
pub fn unfinished() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("{UNFINISHED}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Copies everything, and gives its digest.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<String> {
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hex(digest.finalize())),
            Ok(read) => {
                digest.update(&buffer[..read]);
                to.write_all(&buffer[..read])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_or_read_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (run, outside) = (dir.path().join("run"), dir.path().join("outside"));
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), "s").unwrap();
        std::fs::create_dir_all(run.join("workspace")).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("workspace/out")).unwrap();
        std::os::unix::fs::symlink(outside.join("secret"), run.join("workspace/file")).unwrap();
        let root = Root::open(&run).unwrap();
        let digest = copy(&mut &b"x"[..], &mut io::sink()).unwrap();
        let error = root.read("workspace/out/secret").unwrap_err().to_string();
        assert!(error.contains("`out` in `workspace/out/secret` is a link"), "{error}");
        assert!(root.read("workspace/file").is_err());
        root.remove("workspace/out/secret").unwrap();
        assert!(outside.join("secret").exists());
        // The link itself is replaced, and what it led to stays.
        root.write("workspace/file", &mut &b"x"[..], &digest, 0o4755).unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "s");
        assert_eq!(std::fs::read_to_string(run.join("workspace/file")).unwrap(), "x");
        let error = root.write("workspace/other", &mut &b"y"[..], &digest, 0o644).unwrap_err().to_string();
        assert!(error.contains("another digest") && !run.join("workspace/other").exists(), "{error}");
        root.link("workspace/deep/a", "../../attempts").unwrap_err();
        // A file becomes a directory, and a directory a file.
        root.remove("workspace/file").unwrap();
        root.write("workspace/file/in", &mut &b"x"[..], &digest, 0o600).unwrap();
        root.remove("workspace/file/in").unwrap();
        assert!(!run.join("workspace/file").exists() && run.join("workspace").exists());
        root.make_dir("workspace/empty").unwrap();
        root.make_dir("workspace/empty").unwrap();
        root.link("workspace/empty", "other").unwrap();
        // Whatever is in the way of what comes gives way, and what a link leads to stays.
        root.write("workspace/out/deep/er", &mut &b"x"[..], &digest, 0o644).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("workspace/out/deep/link")).unwrap();
        root.write("workspace/out", &mut &b"x"[..], &digest, 0o644).unwrap();
        root.write("workspace/out/again", &mut &b"x"[..], &digest, 0o644).unwrap();
        assert!(run.join("workspace/out/again").is_file() && outside.join("secret").exists());
        assert!(!outside.join("new").exists());
        std::os::unix::fs::symlink(&outside, run.join("records")).unwrap();
        root.write("records/new", &mut &b"x"[..], &digest, 0o644).unwrap_err();
        let left = std::fs::read_dir(run.join("workspace")).unwrap().count();
        assert_eq!(left, 2, "something unfinished is left");
    }
}

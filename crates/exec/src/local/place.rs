//! The runner's directory: its socket, its lock, its log, and the token that marks everything that belongs to it.
//!
//! Invariant: whoever holds the lock on `runner.lock` is the runner of the directory; the kernel frees the lock when the
//! holder dies, however it dies. The file itself is never removed.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use sha2::{Digest, Sha256};

/// The kernel's limit for the path of a unix socket is 108 bytes with the final NUL.
const LONGEST_SOCKET_PATH: usize = 107;
const LARGEST_RUNNER_LOG: u64 = 1 << 20;

/// The directory of one runner.
#[derive(Debug, Clone)]
pub struct Place {
    dir: PathBuf,
    token: String,
}

impl Place {
    /// Makes the directory, readable by its owner alone, unless there is one.
    pub fn open(dir: &Path) -> io::Result<Place> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let dir = dir.canonicalize()?;
        let digest = Sha256::digest(dir.as_os_str().as_bytes());
        let token = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Place { dir, token })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// 16 characters that stand for the directory; in the environment of every process under this runner.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Where the runner listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("runner.sock")
    }

    /// The socket's path in a form that is short enough to bind and connect to, good while the second part is kept.
    ///
    /// A long path goes by an open descriptor of its directory, so that no second, shared directory is needed.
    pub fn socket_address(&self) -> io::Result<(PathBuf, Option<File>)> {
        let socket = self.socket();
        if socket.as_os_str().len() <= LONGEST_SOCKET_PATH {
            return Ok((socket, None));
        }
        let dir = File::open(&self.dir)?;
        Ok((PathBuf::from(format!("/proc/self/fd/{}/runner.sock", dir.as_raw_fd())), Some(dir)))
    }

    /// The lock that makes its holder the runner; `None` while another one holds it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let path = self.dir.join("runner.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// There from the start of a runner to its orderly end: if a new runner finds it, the last one was killed.
    pub fn mark(&self) -> PathBuf {
        self.dir.join("runner.pid")
    }

    /// What the runner says goes here; begun anew when it has grown large.
    pub fn runner_log(&self) -> io::Result<File> {
        let path = self.dir.join("runner.log");
        let large = path.metadata().is_ok_and(|m| m.len() > LARGEST_RUNNER_LOG);
        let mut options = OpenOptions::new();
        options.create(true).mode(0o600);
        if large {
            options.write(true).truncate(true)
        } else {
            options.append(true)
        };
        options.open(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_long_path_has_a_socket_too_and_the_lock_one_holder() {
        let root = tempfile::tempdir().unwrap();
        let place = Place::open(&root.path().join("x".repeat(150))).unwrap();
        let (address, _dir) = place.socket_address().unwrap();
        let listener = UnixListener::bind(address).unwrap();
        assert!(place.socket().exists());
        let (address, _dir) = place.socket_address().unwrap();
        UnixStream::connect(address).unwrap();
        listener.accept().unwrap();

        let held = place.lock().unwrap();
        assert!(held.is_some());
        assert!(place.lock().unwrap().is_none());
        drop(held);
        assert!(place.lock().unwrap().is_some());
    }
}

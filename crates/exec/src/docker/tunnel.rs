//! An engine on a machine that is reached by SSH: a socket here that leads to the engine's socket there. Nothing of Docker's needs to be
//! installed there but the engine.
//!
//! The socket here has no name in any directory: only this process can connect to it, and nothing is left of it however the process ends.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use super::fault::{Fault, Kind};
use crate::place::{HostKeys, SshPlace};
use crate::ssh::{self, Defaults, Draft, Limits, LinkError, NoKeys, PinFile, Pool, Setup};

/// A door to a socket of another machine, as long as it is kept.
pub struct Tunnel {
    socket: OwnedFd,
    doorman: JoinHandle<()>,
}

/// Which host: as `~/.ssh/config` says, what is not said here. Its key has to be known already, as there is nobody to ask.
fn place(setup: &Setup, authority: &str) -> Result<SshPlace, ssh::Fault> {
    let (user, host, port) = ssh::address(authority)?;
    let own = std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "root".to_owned());
    let defaults = Defaults { user: own, ..Defaults::default() };
    let draft = Draft { user, port, host_keys: Some(HostKeys::Strict), ..Draft::new(host) };
    draft.place(&setup.config_file()?, &defaults)
}

impl Tunnel {
    /// # Errors
    /// [`Kind::Away`] if the machine cannot be reached, or nobody answers there; [`Kind::Invalid`] for what waiting does not mend.
    pub async fn open(authority: &str, path: &Path) -> Result<Tunnel, Fault> {
        let wrong =
            |fault: ssh::Fault| Fault::invalid(format!("cannot reach the engine at `ssh://{authority}`: {fault}"));
        let pins = PinFile::new(ssh::home().join(".ssh/known_hosts.none"));
        let setup = Setup::of_process(Arc::new(NoKeys), Arc::new(pins));
        let place = place(&setup, authority).map_err(wrong)?;
        let pool = Pool::new(setup, Limits::default());
        let path: Arc<str> = path.to_string_lossy().into();
        // Whatever is wrong is found out now, with words.
        pool.socket(&place, &path).await.map_err(|error| fault(authority, &error))?;
        let cannot =
            |error: std::io::Error| Fault::invalid(format!("cannot make a socket for `ssh://{authority}`: {error}"));
        let (listener, socket) = nameless().map_err(cannot)?;
        let doorman = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (pool, place, path) = (pool.clone(), place.clone(), Arc::clone(&path));
                tokio::spawn(async move {
                    // Whoever came sees the connection end.
                    if let Ok(mut there) = pool.socket(&place, &path).await {
                        let _ = tokio::io::copy_bidirectional(&mut here, &mut there.stream).await;
                    }
                });
            }
        });
        Ok(Tunnel { socket, doorman })
    }

    /// Where this process connects to.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.socket.as_raw_fd()).into()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.doorman.abort();
    }
}

fn fault(authority: &str, error: &LinkError) -> Fault {
    let kind = match error {
        // An engine that is away looks so.
        LinkError::NoForward { .. } => Kind::Away,
        other if other.lasting() => Kind::Invalid,
        _ => Kind::Away,
    };
    Fault { kind, words: format!("cannot reach the engine at `ssh://{authority}`: {error}") }
}

/// A socket that listens, and what finds it.
fn nameless() -> std::io::Result<(UnixListener, OwnedFd)> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("engine");
    let listener = UnixListener::bind(&path)?;
    let socket = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok((listener, socket))
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_socket_without_a_name_is_found_by_who_has_it() {
        let (listener, socket) = nameless().unwrap();
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let (came, went) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        assert!(came.is_ok() && went.is_ok());
    }
}

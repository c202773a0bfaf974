//! How `git` reaches a repository over SSH with a key that was given for it.
//!
//! Invariant: `ssh` gets no key, only the way to an agent that has this one; settings and keys of the user count for
//! nothing then. The host key of the git host is always checked.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use super::{GitError, GitRequest, io_error};

/// The most text of known hosts.
const MOST_KNOWN: usize = 64 << 10;
/// Beside the agent's socket: known hosts, or a link to those of the user.
const KNOWN: &str = "known";
/// Names the directory with both; the command is told by `GIT_SSH_COMMAND`.
pub(super) const DIR: &str = "PITCREW_GIT_SSH_DIR";

/// What stands for `ssh`; `None`: nothing special. `has_key`: an agent has one.
pub(super) fn command(request: &GitRequest, has_key: bool) -> Result<Option<String>, GitError> {
    if request.known_hosts.len() > MOST_KNOWN || request.known_hosts.contains('\0') {
        return Err(GitError::Request("`known_hosts` cannot be the text of such a file".to_owned()));
    }
    let is_strict = !request.known_hosts.trim().is_empty();
    if !has_key && !is_strict {
        return Ok(None);
    }
    // In that directory the names are short and plain, wherever it is.
    let mut command =
        format!("cd \"${DIR}\" && exec ssh -oBatchMode=yes -oUserKnownHostsFile={KNOWN} -oUpdateHostKeys=no");
    command += match is_strict {
        true => " -oGlobalKnownHostsFile=/dev/null -oStrictHostKeyChecking=yes",
        false => " -oStrictHostKeyChecking=accept-new",
    };
    if has_key {
        command += " -F none -oIdentityAgent=agent.sock -oIdentityFile=none -oProxyCommand=none -oConnectTimeout=30 -oServerAliveInterval=20";
    }
    Ok(Some(command))
}

/// The directory in which the command runs, on this machine.
pub(super) struct Place {
    dir: PathBuf,
    _own: Option<TempDir>,
}

impl Place {
    /// In the directory of the agent's socket, or in one of its own.
    pub fn new(request: &GitRequest, agent: Option<&Path>) -> Result<Place, GitError> {
        let cannot = || io_error("cannot keep the known hosts of the repository");
        let own = match agent {
            Some(_) => None,
            None => Some(tempfile::tempdir().map_err(cannot())?),
        };
        let dir = agent.or(own.as_ref().map(TempDir::path)).unwrap_or(Path::new("/nonexistent")).to_owned();
        let place = Place { dir, _own: own };
        place.write_known(&request.known_hosts).map_err(cannot())?;
        Ok(place)
    }

    fn write_known(&self, text: &str) -> io::Result<()> {
        let known = self.dir.join(KNOWN);
        let _ = fs::remove_file(&known);
        if !text.trim().is_empty() {
            return fs::write(known, format!("{}\n", text.trim()));
        }
        let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/nonexistent"), PathBuf::from);
        let users = home.join(".ssh");
        // A new host is recorded there; where that cannot be, it is new each time.
        use std::os::unix::fs::DirBuilderExt as _;
        let _ = fs::DirBuilder::new().mode(0o700).create(&users);
        std::os::unix::fs::symlink(users.join("known_hosts"), known)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_those_of_the_user_out_and_a_host_key_is_always_checked() {
        let request = |known: &str| GitRequest { known_hosts: known.into(), ..GitRequest::default() };
        assert_eq!(command(&request(" \n"), false).unwrap(), None);
        let lent = command(&request(""), true).unwrap().unwrap();
        assert!(lent.contains("-F none ") && lent.contains("StrictHostKeyChecking=accept-new"), "{lent}");
        let own = command(&request("h ssh-ed25519 AAAA"), false).unwrap().unwrap();
        assert!(!own.contains("-F none") && own.contains("StrictHostKeyChecking=yes"), "{own}");
        for bad in ["\0".to_owned(), "x".repeat(MOST_KNOWN + 1)] {
            assert!(command(&request(&bad), true).unwrap_err().is_lasting());
        }
    }
}

//! One call of `git`, always in the same surroundings: no prompt, no hook, no settings of an outer repository.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine;

use super::url::Location;
use super::{Credentials, GitError, io_error, ssh, without_credentials};

/// What an action gets and its programs need not have.
const SECRETS: [&str; 2] = ["PITCREW_ACTION_SECRET", "PITCREW_ACTION_SECRETS"];

pub(super) struct Git {
    pub dir: PathBuf,
    settings: Vec<(String, String)>,
    transports: &'static str,
    /// What stands for `ssh`, and where it runs.
    pub ssh: Option<(String, ssh::Place)>,
}

impl Git {
    pub fn new(dir: &Path, location: &Location, credentials: Option<&Credentials>) -> Self {
        let mut settings: Vec<(String, String)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.askPass", ""),
            ("advice.detachedHead", "false"),
            ("init.defaultBranch", "main"),
            // Housekeeping goes on in the background, after our lock is gone.
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            // A transfer that stands still ends.
            ("http.lowSpeedLimit", "1000"),
            ("http.lowSpeedTime", "60"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        if let (Some(origin), Some(Credentials { username, password })) = (&location.origin, credentials) {
            let token = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            settings.push((format!("http.{origin}.extraHeader"), format!("Authorization: Basic {token}")));
        }
        // A remote repository's submodules must not reach into this machine.
        let transports = if location.local { "https:http:ssh:git:file" } else { "https:http:ssh:git" };
        Git { dir: dir.to_owned(), settings, transports, ssh: None }
    }

    /// Stdout, without the line break at its end.
    pub fn run(&self, what: &str, arguments: &[&str]) -> Result<String, GitError> {
        let output = self.output(arguments)?;
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stderr);
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines[lines.len().saturating_sub(8)..].join("\n");
        let (hint, lasting) = hint(&said, self.ssh.is_some());
        Err(GitError::Failed { what: what.into(), hint: hint.into(), tail: without_credentials(&tail).into(), lasting })
    }

    /// [`Git::run`], where a failure is an answer too.
    pub fn try_run(&self, arguments: &[&str]) -> Result<Option<String>, GitError> {
        let output = self.output(arguments)?;
        Ok(output.status.success().then(|| text(&output.stdout)))
    }

    fn output(&self, arguments: &[&str]) -> Result<Output, GitError> {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.dir).args(arguments).stdin(Stdio::null());
        // An outer git (a hook that starts us) would lead this one to its own repository.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"] {
            command.env_remove(name);
        }
        for name in ["GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_ASKPASS", "SSH_ASKPASS", "GIT_TRACE"] {
            command.env_remove(name);
        }
        for name in ["GIT_TRACE_CURL", "GIT_CURL_VERBOSE", "GIT_TRACE_PACKET", "GIT_TEMPLATE_DIR", "GIT_EXTERNAL_DIFF"]
        {
            command.env_remove(name);
        }
        for name in SECRETS {
            command.env_remove(name);
        }
        match &self.ssh {
            Some((ssh, place)) => {
                command.env("GIT_SSH_COMMAND", ssh).env("GIT_SSH_VARIANT", "ssh").env(ssh::DIR, place.dir());
            }
            None => {
                let ssh = std::env::var("GIT_SSH_COMMAND").unwrap_or_else(|_| "ssh".into());
                command.env("GIT_SSH_COMMAND", format!("{ssh} -oBatchMode=yes"));
            }
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", self.transports)
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            // Never look for a repository above the directory: an outer one is not ours to change.
            .env("GIT_CEILING_DIRECTORIES", self.dir.parent().unwrap_or(Path::new("/")))
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_COUNT", self.settings.len().to_string());
        for (index, (name, value)) in self.settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{index}"), name).env(format!("GIT_CONFIG_VALUE_{index}"), value);
        }
        command.output().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => GitError::NoGit,
            _ => io_error("cannot run `git`")(e),
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned()
}

/// What to do about a failure that git tells in its own words, and whether another try would fail as well.
fn hint(tail: &str, has_ssh: bool) -> (&'static str, bool) {
    const HINTS: [(&[&str], &str, bool); 7] = [
        (
            &[
                "could not read Username",
                "Authentication failed",
                "terminal prompts disabled",
                "error: 401",
                "error: 403",
                "' not found",
                "does not appear to be a git repository",
            ],
            ": the repository does not exist or wants a token; give one to the task",
            true,
        ),
        (&["REMOTE HOST IDENTIFICATION HAS CHANGED"], CHANGED, true),
        (&["Host key verification failed"], ": the host's SSH key is not known; add it to `known_hosts`", true),
        (&["Repository not found"], ": the repository does not exist, or the key may not read it", true),
        (&["No space left on device"], ": the disk is full; free space, then retry the task", true),
        (
            &[
                "Could not resolve host",
                "Connection refused",
                "timed out",
                "Could not connect",
                "Failed to connect",
                "unreachable",
            ],
            ": the host cannot be reached",
            false,
        ),
        (
            &["ssh: not found", "cannot run ssh"],
            ": there is no `ssh` here; install it (Debian and Ubuntu: `apt install openssh-client`)",
            true,
        ),
    ];
    if tail.contains("Permission denied (publickey") {
        return match has_ssh {
            true => (": the git host does not accept the key that was given; add its public half there", true),
            false => (": the host accepts none of the SSH keys of this machine; give the task a `key`", true),
        };
    }
    let found = HINTS.iter().find(|(signs, ..)| signs.iter().any(|sign| tail.contains(sign)));
    found.map_or(("", false), |(_, hint, lasting)| (hint, *lasting))
}

const CHANGED: &str = ": the SSH host key of the git host is not the known one; somebody may be in between, or it was replaced: ask who runs it, then correct `known_hosts`";

//! A "host" that is this machine: commands get a shell of their own and a home directory, as from sshd, and the
//! connection to it can be cut.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pitcrew_exec::Handle;
use pitcrew_exec::place::SshPlace;
use pitcrew_exec::ssh::Forward;
use pitcrew_exec::ssh::agent::Agent;
use pitcrew_exec::ssh::remote::{Channel, Hosts, Ran, Stream, Unreached};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use crate::harness::signal;

/// See the module.
pub struct ShellHost {
    pub home: PathBuf,
    path: String,
    /// Counts the cuts; every open command of an earlier connection breaks.
    cuts: watch::Sender<u64>,
    pub away: AtomicBool,
    /// Refuses to sign in for good.
    pub locked: AtomicBool,
    /// Bytes of input after which a command that is run breaks, for the next one only.
    pub break_after: Mutex<Option<usize>>,
    pub reached: AtomicUsize,
}

struct Connection {
    home: PathBuf,
    path: String,
    cut: watch::Receiver<u64>,
    break_after: Option<usize>,
}

impl ShellHost {
    pub fn new(home: &Path, path: &str) -> Arc<ShellHost> {
        std::fs::create_dir_all(home).unwrap();
        Arc::new(ShellHost {
            home: home.to_owned(),
            path: path.to_owned(),
            cuts: watch::Sender::new(0),
            away: AtomicBool::new(false),
            locked: AtomicBool::new(false),
            break_after: Mutex::new(None),
            reached: AtomicUsize::new(0),
        })
    }

    /// Breaks whatever is connected.
    pub fn cut(&self) {
        self.cuts.send_modify(|n| *n += 1);
    }

    /// Directories of attempts that are still there.
    pub fn attempts(&self) -> Vec<PathBuf> {
        let found = std::fs::read_dir(self.home.join(".pitcrew/a")).into_iter().flatten().flatten();
        found.map(|entry| entry.path()).collect()
    }

    /// The directory of an attempt: the only one that carries its id.
    pub fn dir(&self, handle: &Handle) -> PathBuf {
        let name = pitcrew_exec::ssh::remote::name_of("test", &handle.id);
        self.home.join(".pitcrew/a").join(name)
    }

    pub fn keeper(&self, handle: &Handle) -> i32 {
        let claim = std::fs::read_to_string(self.dir(handle).join("claim")).unwrap();
        claim.split(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for ShellHost {
    fn drop(&mut self) {
        // What a failed test left.
        let mark = format!("{}/.pitcrew/a/", self.home.display());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_ours = environ.split(|b| *b == 0).any(|variable| {
                let variable = String::from_utf8_lossy(variable);
                ["PITCREW_KEEPER=", "PITCREW_OUTPUT="]
                    .iter()
                    .any(|name| variable.strip_prefix(name).is_some_and(|dir| dir.starts_with(&mark)))
            });
            if is_ours && let Ok(pid) = entry.file_name().to_string_lossy().parse() {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

impl ShellHost {
    fn reach(&self) -> Result<Connection, Unreached> {
        self.reached.fetch_add(1, Ordering::Relaxed);
        if self.locked.load(Ordering::Relaxed) {
            return Err(Unreached { words: "`there` accepts none of the keys".into(), lasting: true });
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(Unreached::passing("`there:22` refuses connections"));
        }
        let (home, path) = (self.home.clone(), self.path.clone());
        Ok(Connection { home, path, cut: self.cuts.subscribe(), break_after: None })
    }
}

#[async_trait]
impl Hosts for ShellHost {
    async fn run(&self, _: &SshPlace, command: &str, input: &[u8]) -> Result<Ran, Unreached> {
        let mut connection = self.reach()?;
        connection.break_after = self.break_after.lock().unwrap().take();
        connection.run(command, input).await
    }

    async fn open(&self, _: &SshPlace, command: &str) -> Result<Channel, Unreached> {
        self.reach()?.open(command)
    }

    async fn forward(&self, _: &SshPlace, _: &str, _: Arc<Agent>, _: &str) -> Result<Forward, Unreached> {
        Err(Unreached { words: "`there` forbids that a key is lent to it".into(), lasting: true })
    }

    async fn sftp(&self, _: &SshPlace) -> Result<Box<dyn Stream>, Unreached> {
        Err(Unreached { words: "a shell serves no files over SFTP".into(), lasting: true })
    }
}

impl Connection {
    /// As sshd does: the login shell of the user gets the line, in the home directory and a session of its own.
    fn spawn(&self, line: &str) -> tokio::process::Child {
        let sh = std::env::split_paths(&self.path).map(|dir| dir.join("sh")).find(|sh| sh.exists()).unwrap();
        let mut command = tokio::process::Command::new(&sh);
        // The fixed path of the shell is the one thing that a test cannot change otherwise.
        // Its profile says something first, as profiles do.
        let line = line.replace("/bin/sh", &sh.display().to_string());
        command.arg("-c").arg(format!("echo Welcome; echo 'm0 hello' >&2; {line}"));
        command.env_clear().env("HOME", &self.home).env("PATH", &self.path).env("USER", "me");
        command.env("SSH_CONNECTION", "10.0.0.1 2 10.0.0.2 22").current_dir(&self.home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: `setsid` is async-signal-safe and touches no memory of ours.
        unsafe {
            command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
        }
        command.spawn().unwrap()
    }

    async fn run(&self, command: &str, input: &[u8]) -> Result<Ran, Unreached> {
        let mut cut = self.cut.clone();
        cut.borrow_and_update();
        let mut child = self.spawn(command);
        let mut stdin = child.stdin.take().unwrap();
        let (input, breaks) = match self.break_after {
            Some(bytes) => (&input[..bytes.min(input.len())], true),
            None => (input, false),
        };
        let talk = async {
            // Who ends early reads no more.
            let _ = stdin.write_all(input).await;
            drop(stdin);
            child.wait_with_output().await.unwrap()
        };
        tokio::select! {
            output = talk => {
                if breaks {
                    return Err(Unreached::passing("the connection broke"));
                }
                Ok(Ran { code: output.status.code(), stdout: output.stdout, stderr: output.stderr })
            }
            _ = cut.changed() => Err(Unreached::passing("the connection was cut")),
        }
    }

    fn open(&self, command: &str) -> Result<Channel, Unreached> {
        let mut cut = self.cut.clone();
        cut.borrow_and_update();
        let mut child = self.spawn(command);
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (mut from_us, mut to_us) = tokio::io::split(theirs);
        let (read, write) = tokio::io::split(ours);
        tokio::spawn(async move {
            let both = async {
                tokio::join!(
                    async {
                        let _ = tokio::io::copy(&mut from_us, &mut stdin).await;
                        drop(stdin);
                    },
                    async {
                        let mut buffer = [0; 4096];
                        while let Ok(n @ 1..) = stdout.read(&mut buffer).await {
                            if to_us.write_all(&buffer[..n]).await.is_err() {
                                break;
                            }
                        }
                        let _ = to_us.shutdown().await;
                    }
                )
            };
            tokio::select! {
                _ = both => {}
                _ = cut.changed() => {}
            }
            // The pipes are closed by now: whoever reads its stdin ends.
            let _ = child.wait().await;
        });
        Ok(Channel { input: Box::new(write), output: Box::new(read) })
    }
}

/// A shell with its programs.
pub struct Shell {
    pub name: &'static str,
    /// What `sh` is.
    sh: &'static str,
    /// Programs that the host does not have.
    lacks: &'static [&'static str],
}

pub const DASH: Shell = Shell { name: "dash", sh: "dash", lacks: &[] };
pub const BASH: Shell = Shell { name: "bash with python", sh: "bash", lacks: &["perl"] };
pub const AWK: Shell = Shell { name: "dash with awk", sh: "dash", lacks: &["perl", "python3"] };
pub const SH_ONLY: Shell = Shell { name: "dash without an awk", sh: "dash", lacks: &["perl", "python3", "awk"] };
pub const BUSYBOX: Shell = Shell { name: "busybox", sh: "busybox", lacks: &["perl", "python3"] };

impl Shell {
    /// Makes a directory with the programs, and gives the PATH of the host.
    pub fn install(&self, dir: &Path) -> String {
        std::fs::create_dir_all(dir).unwrap();
        let find = |name: &str| {
            let path = std::env::var("PATH").unwrap();
            let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists());
            found.unwrap_or_else(|| panic!("this test needs the program `{name}`; scripts/test installs it"))
        };
        let busybox = self.sh == "busybox";
        for name in [
            "sh", "setsid", "mkfifo", "mkdir", "tail", "head", "ln", "ls", "grep", "date", "rm", "mv", "cat", "sleep",
            "tr", "perl", "python3", "awk", "env", "seq", "touch", "true", "false", "wc", "sed",
        ] {
            if self.lacks.contains(&name) && !(busybox && name == "awk") {
                continue;
            }
            let target = match (name, busybox) {
                (_, true) => find("busybox"),
                ("sh", false) => find(self.sh),
                // Not a wrapper that looks for versions in PATH.
                ("python3", false) => PathBuf::from("/usr/bin/python3"),
                _ => find(name),
            };
            std::os::unix::fs::symlink(target, dir.join(name)).unwrap();
        }
        dir.display().to_string()
    }
}

//! A place of its own for each test, and the binary in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The binary with an environment that has nothing of the tester's.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("PITCREW_DATA_DIR", self.path("data"))
            .env("USER", "tester")
            .stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[])
    }

    /// With these variables as well.
    pub fn run_with(&self, line: &str, env: &[(&str, &str)]) -> Ran {
        let output = self.command(line).envs(env.iter().copied()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Ran {
    /// Panics unless it ended with that status.
    pub fn ends(self, status: i32) -> Ran {
        assert_eq!(self.status, Some(status), "{self:#?}");
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A file of `examples/tekton`.
pub fn example(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tekton");
    folder.join(name).canonicalize().unwrap().display().to_string()
}

/// Whether this machine can make sandboxes: namespaces may be forbidden, as in most containers.
pub fn has_sandbox() -> bool {
    let can = Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|output| output.status.success());
    if !can {
        eprintln!("NOT TESTED: this machine lets nobody make mount namespaces");
    }
    can
}

/// Everything that lies in files below a directory, but for databases, which hold what is sealed.
pub fn contents(dir: &Path, found: &mut Vec<u8>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            contents(&entry.path(), found);
        } else if let Ok(bytes) = std::fs::read(entry.path()) {
            found.extend(bytes);
        }
    }
}

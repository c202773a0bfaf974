//! A place of its own for each test, and the binary in it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

pub struct Place {
    dir: tempfile::TempDir,
}

/// What a command wrote, and how it ended.
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    shown: String,
}

impl Place {
    pub fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A named pipe; opening it for reading waits until somebody writes, and the other way round.
    pub fn pipe(&self, name: &str) -> PathBuf {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let path = self.path(name);
        mknodat(CWD, &path, FileType::Fifo, Mode::from(0o600), 0).unwrap();
        path
    }

    /// The binary, with an environment that has nothing of the tester's.
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
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, line: &str) -> Ran {
        let output = self.command(line).output().unwrap();
        self.ran(line, output)
    }

    pub fn ran(&self, line: &str, output: Output) -> Ran {
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let status = output.status.code();
        let mut shown =
            format!("$ pitcrew {line}\nexit status {}\n", status.map_or("none".to_owned(), |s| s.to_string()));
        for (name, text) in [("stdout", &stdout), ("stderr", &stderr)] {
            if !text.is_empty() {
                shown.push_str(&format!("--- {name}\n{}", text));
            }
        }
        let dir = self.dir.path().canonicalize().unwrap();
        let shown = shown.replace(dir.to_str().unwrap(), "[DIR]");
        Ran { status, stdout, stderr, shown }
    }

    pub fn start(&self, line: &str) -> Child {
        self.command(line).spawn().unwrap()
    }
}

impl Ran {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.shown))
    }

    /// Panics unless it ended with that status.
    pub fn ends(self, status: i32) -> Ran {
        assert_eq!(self.status, Some(status), "{}", self.shown);
        self
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Reads all that is written into a pipe.
pub fn read(pipe: &Path) -> String {
    let mut text = String::new();
    File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Lets somebody go on who reads from a pipe.
pub fn release(pipe: &Path) {
    File::options().write(true).open(pipe).unwrap().write_all(b"go\n").unwrap();
}

pub fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Reads lines of a child's stderr until one contains `wanted`, and gives it.
pub fn line_with(child: &mut Child, wanted: &str) -> String {
    let mut seen = String::new();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it said `{wanted}`:\n{seen}");
        if line.contains(wanted) {
            // The rest is read so that the child is never held up by a full pipe.
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return line;
        }
        seen.push_str(&line);
    }
}

/// Compares with a snapshot; what differs from run to run is replaced.
#[macro_export]
macro_rules! snapshot {
    ($name:literal, $text:expr) => {{
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        for (pattern, replacement) in $crate::harness::FILTERS {
            settings.add_filter(pattern, *replacement);
        }
        settings.bind(|| insta::assert_snapshot!($name, $text));
    }};
}

pub const FILTERS: &[(&str, &str)] = &[
    (r"(manual|backfill)__[0-9T:.+-]+", "${1}__[TIME]"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "[TIME]"),
    (r"\d\d:\d\d:\d\d", "[TIME]"),
    (r"\b\d+(\.\d+)? m?s\b( ago)?|just now", "[TOOK]"),
    // Columns are as wide as what was replaced.
    (r"(\[TOOK\]|\[TIME\]) +", "$1  "),
    (r"(STARTED|TOOK) +", "$1  "),
    (r" +\n", "\n"),
];

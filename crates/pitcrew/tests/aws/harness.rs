//! A data directory with a folder of workflows, and the binary that works there.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(240);

#[allow(clippy::disallowed_methods, reason = "a test with processes has to wait for them in real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a test with processes has to wait for them in real time")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

pub struct World {
    dir: tempfile::TempDir,
    pub env: Vec<(&'static str, String)>,
}

impl World {
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("workflows")).unwrap();
        World { dir, env: Vec::new() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn workflow(&self, name: &str, text: &str) {
        std::fs::write(self.path("workflows").join(format!("{name}.yaml")), text).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(args).current_dir(self.dir.path()).env_clear().stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir.path());
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        command.env("PITCREW_DATA_DIR", self.path("data")).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it wrote.
    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out));
        text(&out)
    }

    /// Runs a command that must fail with this exit status; gives what it wrote.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let out = self.run(args);
        assert_eq!(out.status.code(), Some(code), "{args:?}: {}", text(&out));
        text(&out)
    }

    /// Runs a command with this text on stdin.
    pub fn feed(&self, args: &[&str], input: &str) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", text(&out));
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}\n{}", text(&out)))
    }

    pub fn serve(&self) -> Running {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("server.log")).unwrap();
        let mut command =
            self.command(&["server", "--no-auth", "--listen", "127.0.0.1:0", "--workflows", "workflows", "-v"]);
        Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }

    pub fn wait(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = now();
        while !holds() {
            let log = || std::fs::read_to_string(self.path("server.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "still not: {what}\n{}", log());
            pause();
        }
    }

    /// Every file of this world that holds this text, in any of its usual encodings.
    pub fn files_with(&self, canary: &str) -> Vec<PathBuf> {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(canary);
        let needles = [canary.as_bytes(), encoded.as_bytes()];
        self.files(|path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            needles.iter().any(|needle| contains(&bytes, needle))
        })
    }

    pub fn files_named(&self, name: &str) -> Vec<PathBuf> {
        self.files(|path| path.file_name().is_some_and(|is| is == name))
    }

    fn files(&self, is_wanted: impl Fn(&std::path::Path) -> bool) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.dir.path().to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() && is_wanted(&path) {
                    found.push(path);
                }
            }
        }
        found
    }
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub fn text(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// A process that ends with the test, also with one that fails.
pub struct Running(pub Child);

impl Running {
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! The sandbox of this machine: a runner in a directory of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use pitcrew_conformance::{Bench, World};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::pod::Pod;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::local::{LocalBackend, LocalConfig, base_environment};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Handle, PodRun, Runtime};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Nothing in these tests takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(180);

pub struct Sandbox {
    pub root: PathBuf,
    pub backend: LocalBackend,
    events: UnboundedReceiver<BackendEvent>,
    config: LocalConfig,
    _dir: tempfile::TempDir,
}

/// For what is only about the sandbox. `None` where there can be none, which was said then.
pub async fn world() -> Option<Bench<Sandbox>> {
    Bench::new("a test of the sandbox").await
}

#[async_trait]
impl World for Sandbox {
    async fn new() -> Option<Sandbox> {
        if !can_mount() {
            assert!(
                std::env::var_os("PITCREW_TEST_MOUNT").is_none(),
                "this machine can mount, says `PITCREW_TEST_MOUNT`"
            );
            eprintln!("NOT TESTED: this user cannot make namespaces and mounts");
            return None;
        }
        // Not in `/tmp`, which may be in memory, and is hidden anyhow.
        Some(Sandbox::below(Path::new(env!("CARGO_TARGET_TMPDIR"))))
    }

    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    async fn event(&mut self) -> BackendEvent {
        self.events.recv().await.expect("the backend lives")
    }

    fn spec(&self, name: &str, pod: Pod) -> AttemptSpec {
        let task: TaskId = name.parse().unwrap();
        let id = AttemptId { run: RunKey(1), task, map_index: UNMAPPED, number: 1 };
        let mut spec = AttemptSpec::new(id, self.root.join("attempts").join(name), &self.root);
        spec.pod = Some(Box::new(PodRun {
            pod,
            runtime: Runtime::Sandbox,
            deadline: None,
            data: self.root.clone(),
            sandbox: Default::default(),
        }));
        spec
    }

    async fn restart(&mut self) {
        let (sender, events) = unbounded_channel();
        self.backend = LocalBackend::new(self.config.clone(), sender).unwrap();
        self.events = events;
    }

    async fn kill_keeper(&mut self, _: &Handle) {
        signal(self.runner_pid(), rustix::process::Signal::KILL);
    }

    async fn left(&self, handle: &Handle) -> Vec<String> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(&handle.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "exit.json" && name != "log" {
                left.push(name);
            }
        }
        let digest = Sha256::digest(handle.dir.as_os_str().as_encoded_bytes());
        let own: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        for entry in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(&own) {
                left.push(name);
            }
        }
        // A box knows its attempt's directory, and ends after all of its container.
        let dir = handle.dir.as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.windows(dir.len()).any(|part| part == dir) {
                left.push(format!("process {}", entry.file_name().to_string_lossy()));
            }
        }
        left
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

impl Sandbox {
    /// One in a new directory below this.
    pub fn below(base: &Path) -> Sandbox {
        let dir = tempfile::Builder::new().prefix("sandbox").tempdir_in(base).unwrap();
        let root = dir.path().canonicalize().unwrap();
        let config = LocalConfig {
            runner_dir: root.join("runner"),
            runner: vec![env!("CARGO_BIN_EXE_exec-test-runner").into()],
            base_env: base_environment(),
        };
        let (sender, events) = unbounded_channel();
        let backend = LocalBackend::new(config.clone(), sender).unwrap();
        Sandbox { root, backend, events, config, _dir: dir }
    }

    pub fn runner_pid(&self) -> i32 {
        std::fs::read_to_string(self.root.join("runner/runner.pid")).unwrap().parse().unwrap()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It would end by itself a little later.
        if let Ok(pid) = std::fs::read_to_string(self.root.join("runner/runner.pid")) {
            signal(pid.parse().unwrap(), rustix::process::Signal::TERM);
        }
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Waits for a fact that nothing announces.
pub async fn until(mut fact: impl FnMut() -> bool) {
    let wait = async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !fact() {
            looks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it hangs");
}

/// Can this user make what a sandbox is made of?
fn can_mount() -> bool {
    let tried = std::process::Command::new("unshare").args(["-m", "-p", "-i", "-u", "-f", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

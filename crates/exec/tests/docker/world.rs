//! A runner in a directory of its own, and the engine of the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use pitcrew_conformance::{Bench, World};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::pod::Pod;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::docker::keeper::EnginePlace;
use pitcrew_exec::local::{LocalBackend, LocalConfig, base_environment};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Handle, PodRun, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::engine::Engine;

pub struct Docker {
    pub root: PathBuf,
    pub backend: LocalBackend,
    pub engine: Engine,
    /// By which its tasks are told from those of other worlds of the same engine.
    run: i64,
    events: UnboundedReceiver<BackendEvent>,
    config: LocalConfig,
    _dir: tempfile::TempDir,
}

/// For what is only about engines. `None` where there is none, which was said then.
pub async fn world() -> Option<Bench<Docker>> {
    Bench::new("a test of pods on an engine").await
}

#[async_trait]
impl World for Docker {
    async fn new() -> Option<Docker> {
        Some(Docker::at(Engine::new()?))
    }

    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    async fn event(&mut self) -> BackendEvent {
        self.events.recv().await.expect("the backend lives")
    }

    fn spec(&self, name: &str, pod: Pod) -> AttemptSpec {
        let task: TaskId = name.parse().unwrap();
        let id = AttemptId { run: RunKey(self.run), task, map_index: UNMAPPED, number: 1 };
        let mut spec = AttemptSpec::new(id, self.root.join("attempts").join(name), &self.root);
        spec.pod = Some(Box::new(PodRun {
            pod,
            runtime: Runtime::Docker {
                engine: EnginePlace { host: self.engine.address(), certificates: None },
                registries: Vec::new(),
            },
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
        let mut left = self.engine.labelled(&format!("pitcrew.attempt={}", handle.id));
        for entry in std::fs::read_dir(&handle.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "exit.json" && name != "log" {
                left.push(name);
            }
        }
        left
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(240)
    }
}

impl Docker {
    pub fn at(engine: Engine) -> Docker {
        Docker::with(engine, base_environment())
    }

    /// For a user with this home.
    pub fn at_home(engine: Engine, home: &Path) -> Docker {
        let mut env = base_environment();
        env.insert("HOME".to_owned(), home.display().to_string());
        Docker::with(engine, env)
    }

    fn with(engine: Engine, base_env: BTreeMap<String, String>) -> Docker {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let dir = tempfile::Builder::new().prefix("docker").tempdir_in(base).unwrap();
        let root = dir.path().canonicalize().unwrap();
        let config = LocalConfig {
            runner_dir: root.join("runner"),
            runner: vec![env!("CARGO_BIN_EXE_exec-test-runner").into()],
            base_env,
        };
        let (sender, events) = unbounded_channel();
        let backend = LocalBackend::new(config.clone(), sender).unwrap();
        let name = root.file_name().unwrap().to_string_lossy().into_owned();
        let run = name
            .bytes()
            .fold(i64::from(std::process::id()), |sum, byte| (sum * 31 + i64::from(byte)) & 0x7fff_ffff_ffff);
        Docker { root, backend, engine, run, events, config, _dir: dir }
    }

    pub fn runner_pid(&self) -> i32 {
        std::fs::read_to_string(self.root.join("runner/runner.pid")).unwrap().parse().unwrap()
    }
}

impl Drop for Docker {
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

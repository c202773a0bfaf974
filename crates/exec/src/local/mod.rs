//! The `local` backend: attempts are processes of this machine, kept by a [`runner`] so that they outlive the server.
//!
//! ```text
//! server ──unix socket──► runner ──► step, step, …        (its own session, its own life)
//!    └────────reads──────► attempt directory ◄──writes──┘
//! ```
//!
//! What ended is read from its directory, without a runner; only what runs, or may run, needs to be asked about. Where
//! the server runs as a systemd service, the service needs `KillMode=process`, or systemd ends the runner with it.

mod cgroup;
mod client;
mod place;
mod protocol;
pub mod runner;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;

use crate::backend::{Backend, BackendError, EventSender, Handle, Observation};
use crate::capabilities::Capabilities;
use crate::log::LogChunk;
use crate::spec::AttemptSpec;
use crate::{attempt_dir, gpu, log};
use client::Client;
use place::Place;

const NAME: &str = "local";
const GPU_PATIENCE: Duration = Duration::from_secs(10);

/// Variables of the server that processes get too; everything else of its environment stays with it.
const BASE_VARIABLES: [&str; 26] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
];
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How to find, and if need be start, the runner.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// The runner's directory, one per data directory; made when missing.
    pub runner_dir: PathBuf,
    /// The program and arguments that become the runner; `--dir` and the directory are added.
    pub runner: Vec<OsString>,
    /// The environment that processes get besides their own.
    pub base_env: BTreeMap<String, String>,
}

impl LocalConfig {
    /// The runner is this program with `internal runner`; the base environment is taken from this process.
    pub fn new(runner_dir: impl Into<PathBuf>) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        Ok(LocalConfig {
            runner_dir: runner_dir.into(),
            runner: vec![program.into(), "internal".into(), "runner".into()],
            base_env: base_environment(),
        })
    }
}

/// What processes get of the environment of this one: where programs are, who the user is, language, proxies.
pub fn base_environment() -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> =
        BASE_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    env.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.to_owned());
    env
}

/// See the module.
pub struct LocalBackend {
    client: Client,
    base_env: BTreeMap<String, String>,
    /// This program, unless the runner is another.
    program: Option<PathBuf>,
}

impl LocalBackend {
    /// Makes the runner's directory and starts nothing yet.
    pub fn new(config: LocalConfig, events: EventSender) -> io::Result<Self> {
        let place = Place::open(&config.runner_dir)?;
        let base_env = config.base_env.clone();
        let program = match config.runner.as_slice() {
            [program, word, ..] if word == "internal" => Some(PathBuf::from(program)),
            _ => None,
        };
        Ok(LocalBackend { client: Client::new(place, config.runner, config.base_env, events), base_env, program })
    }
}

#[async_trait]
impl Backend for LocalBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        Handle::of(spec)
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        debug_assert_eq!((&handle.id, &handle.dir), (&spec.id, &spec.dir));
        self.client.start(handle, spec).await.map_err(unreachable)
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        self.client.follow(handle);
        let mut observations = self.client.observe(std::slice::from_ref(handle)).await;
        observations.pop().unwrap_or(Observation::Unreachable { reason: "it was not answered".to_owned() })
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        self.client.observe(handles).await
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        read_log(&handle.dir, offset, max_bytes).await
    }

    async fn cancel(&self, handle: &Handle, grace: SignedDuration) -> Result<(), BackendError> {
        self.client.cancel(handle, grace, None).await.map_err(unreachable)
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        clean(&handle.dir).await
    }

    async fn capabilities(&self) -> Capabilities {
        let controllers = tokio::task::spawn_blocking(cgroup::Controllers::detect).await;
        let inventory = gpu::detect(&self.env_with_pretence(), self.program.as_deref(), GPU_PATIENCE).await;
        let mut capabilities = Capabilities { gpus: inventory.gpus, remarks: inventory.remarks, ..Default::default() };
        if let Ok(controllers) = controllers {
            capabilities.memory_limit = controllers.can_limit_memory();
            capabilities.cpu_limit = controllers.can_limit_cpu();
            capabilities.remarks.extend(controllers.remarks);
        }
        capabilities
    }
}

/// What a worker needs besides: what it runs is its own only for as long as the server says.
impl LocalBackend {
    /// Whatever runs ends at that moment (time since the machine started) unless this is called again before, also when
    /// this process is gone by then. Its end is a loss.
    pub fn lease(&self, until: Duration) {
        self.client.lease(until);
    }

    /// Does for all of them what [`Backend::cleanup`] does for one.
    pub async fn clean_all(&self, handles: Vec<Handle>) {
        let cleaned = blocking(move || {
            for handle in handles {
                if let Err(error) = attempt_dir::clean(&handle.dir) {
                    tracing::debug!("cannot clean up `{}`: {error}", handle.dir.display());
                }
            }
            Ok(())
        });
        if let Err(error) = cleaned.await {
            tracing::debug!("cannot clean up: {error}");
        }
    }

    /// Ends an attempt as [`Backend::cancel`] does; its end is a loss with this reason.
    pub async fn lose(&self, handle: &Handle, grace: SignedDuration, reason: &str) -> Result<(), BackendError> {
        self.client.cancel(handle, grace, Some(reason.to_owned())).await.map_err(unreachable)
    }
}

impl LocalBackend {
    fn env_with_pretence(&self) -> BTreeMap<String, String> {
        let mut env = self.base_env.clone();
        if let Ok(count) = std::env::var(gpu::PRETEND_VARIABLE) {
            env.insert(gpu::PRETEND_VARIABLE.to_owned(), count);
        }
        env
    }
}

fn unreachable(reason: String) -> BackendError {
    BackendError::Unreachable { backend: NAME, reason }
}

/// Reads a log away from the threads that must not wait.
pub(crate) async fn read_log(dir: &Path, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
    let dir = dir.to_owned();
    let path = attempt_dir::log(&dir);
    let shown = path.display().to_string();
    let read = move || {
        // In this order: what is over now has written all of its log.
        let over = attempt_dir::exit(&dir).exists();
        log::read(&path, offset, max_bytes, over)
    };
    blocking(read).await.map_err(|source| BackendError::Io { what: format!("cannot read `{shown}`"), source })
}

pub(crate) async fn clean(dir: &Path) -> Result<(), BackendError> {
    let shown = dir.display().to_string();
    let dir = dir.to_owned();
    blocking(move || attempt_dir::clean(&dir))
        .await
        .map_err(|source| BackendError::Io { what: format!("cannot clean up `{shown}`"), source })
}

/// Runs something that waits for a disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

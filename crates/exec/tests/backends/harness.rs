//! A backend in a directory of its own, with its events, and ways to break it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_exec::fake::FakeBackend;
use pitcrew_exec::local::{LocalBackend, LocalConfig, base_environment};
use pitcrew_exec::place::{Place, SshPlace};
use pitcrew_exec::ssh::remote::{Hosts, Seal, SshBackend, SshConfig};
use pitcrew_exec::ssh::{Limits, Pool};
use pitcrew_exec::{
    AttemptSpec, Backend, BackendEvent, Command, Ended, Handle, LogRecord, LogStream, Observation, StepSpec,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::shell_host::{Shell, ShellHost};
use crate::ssh_world;
use crate::sshd::Sshd;

/// Nothing in these tests takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Local,
    Fake,
    /// A host that is a shell of this machine.
    Ssh,
    /// A real sshd.
    Sshd,
}

/// The kinds of worlds that the contract is tested with, and the modules of those tests.
macro_rules! each_kind {
    ($tests:ident) => {
        $tests!(local = Local, fake = Fake, ssh = Ssh, sshd = Sshd);
    };
}
pub(crate) use each_kind;

pub struct World {
    pub kind: Kind,
    pub root: PathBuf,
    pub backend: Box<dyn Backend>,
    pub events: UnboundedReceiver<BackendEvent>,
    pub config: LocalConfig,
    /// What the `ssh` backend reaches.
    pub host: Arc<ShellHost>,
    real: Option<Real>,
    _dir: tempfile::TempDir,
}

/// Does what the fake backend's variables say, so that one spec means the same to all.
const ACTOR: &str = r#"
[ -z "$FAKE_LOG" ] || printf '%s\n' "$FAKE_LOG"
[ -z "$FAKE_OUTPUT_answer" ] || printf '{"answer": %s}\n' "$FAKE_OUTPUT_answer" >> "$PITCREW_OUTPUT"
[ -z "$FAKE_SLEEP_MS" ] || sleep "$((FAKE_SLEEP_MS / 1000)).$(printf %03d $((FAKE_SLEEP_MS % 1000)))"
[ -z "$FAKE_SIGNAL" ] || kill "-$FAKE_SIGNAL" $$
exit "${FAKE_EXIT_CODE:-0}"
"#;

impl World {
    pub fn new(kind: Kind) -> World {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let config = LocalConfig {
            runner_dir: root.join("runner"),
            runner: vec![env!("CARGO_BIN_EXE_exec-test-runner").into()],
            base_env: base_environment(),
        };
        let host = ShellHost::new(&root.join("home"), &config.base_env["PATH"]);
        let real = (kind == Kind::Sshd).then(|| Real::start(&host.home));
        let (backend, events) = make(kind, &root, &config, &host, real.as_ref());
        World { kind, root, backend, events, config, host, real, _dir: dir }
    }

    /// A world whose attempts run under this shell on a host with these programs only.
    pub fn ssh(shell: &Shell) -> World {
        let mut world = World::new(Kind::Ssh);
        world.host = ShellHost::new(&world.root.join("home"), &shell.install(&world.root.join("programs")));
        world.restart();
        world
    }

    pub fn local() -> World {
        World::new(Kind::Local)
    }

    /// As after the death of the server: everything in memory is gone.
    pub fn restart(&mut self) {
        let (backend, events) = make(self.kind, &self.root, &self.config, &self.host, self.real.as_ref());
        self.backend = backend;
        self.events = events;
    }

    /// An attempt that acts as these `FAKE_…` variables say.
    pub fn acting(&self, name: &str, env: &[(&str, &str)]) -> AttemptSpec {
        let mut spec = self.script(name, ACTOR);
        spec.env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        spec
    }

    /// An attempt that is lost once [`World::kill_keeper`] was called.
    pub fn losing(&self, name: &str) -> AttemptSpec {
        match self.kind {
            Kind::Local | Kind::Ssh | Kind::Sshd => self.acting(name, &[("FAKE_SLEEP_MS", "600000")]),
            Kind::Fake => self.acting(name, &[("FAKE_LOST", "1"), ("FAKE_SLEEP_MS", "10")]),
        }
    }

    /// An attempt of one step called `main`.
    pub fn script(&self, name: &str, text: &str) -> AttemptSpec {
        self.steps(name, vec![StepSpec::new("main", Command::shell(text))])
    }

    pub fn steps(&self, name: &str, steps: Vec<StepSpec>) -> AttemptSpec {
        let id = AttemptId { run: RunKey(1), task: TaskId::new(name).unwrap(), map_index: UNMAPPED, number: 1 };
        let mut spec = AttemptSpec::new(id, self.root.join("attempts").join(name), &self.root);
        spec.steps = steps;
        spec.place = match &self.real {
            Some(real) => Some(Place::Ssh(ssh_world::place(real.sshd.port))),
            None => (self.kind == Kind::Ssh).then(|| Place::Ssh(SshPlace::new("there", "me"))),
        };
        spec
    }

    pub async fn start(&self, spec: AttemptSpec) -> Handle {
        let handle = self.backend.prepare(&spec);
        self.backend.start(&handle, spec).await.unwrap();
        handle
    }

    /// Starts an attempt and waits for its end.
    pub async fn run(&mut self, spec: AttemptSpec) -> Ended {
        let handle = self.start(spec).await;
        self.ended(&handle).await
    }

    /// Waits until its first step has begun.
    pub async fn begun(&mut self, handle: &Handle) {
        let is_it = |event: &BackendEvent| matches!(event, BackendEvent::Started { id, .. } if id == &handle.id);
        within(async { while !is_it(&self.events.recv().await.expect("the backend lives")) {} }).await;
    }

    /// The next event of the attempt that is no start; others are passed over.
    pub async fn over(&mut self, handle: &Handle) -> BackendEvent {
        within(async {
            loop {
                let event = self.events.recv().await.expect("the backend lives");
                if event.id() == &handle.id && !matches!(event, BackendEvent::Started { .. }) {
                    return event;
                }
            }
        })
        .await
    }

    pub async fn ended(&mut self, handle: &Handle) -> Ended {
        match self.over(handle).await {
            BackendEvent::Ended { ended, .. } => ended,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    /// The whole log, read in small parts.
    pub async fn log(&self, handle: &Handle) -> Vec<LogRecord> {
        let mut records = Vec::new();
        let mut offset = 0;
        loop {
            let chunk = self.backend.logs(handle, offset, 1).await.unwrap();
            assert!(chunk.next_offset > offset || chunk.records.is_empty());
            offset = chunk.next_offset;
            records.extend(chunk.records);
            if chunk.ended {
                return records;
            }
        }
    }

    /// Whole lines of one stream.
    pub async fn lines(&self, handle: &Handle, stream: LogStream) -> Vec<String> {
        join(&self.log(handle).await, stream)
    }

    /// Waits until the file exists.
    pub async fn file(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        until(async || path.exists()).await;
        path
    }

    pub fn runner_pid(&self) -> i32 {
        std::fs::read_to_string(self.root.join("runner/runner.pid")).unwrap().parse().unwrap()
    }

    /// Makes the keeper of all attempts disappear.
    pub fn kill_runner(&self) {
        signal(self.runner_pid(), rustix::process::Signal::KILL);
    }

    /// Makes what keeps this attempt disappear.
    pub fn kill_keeper(&self, handle: &Handle) {
        match self.kind {
            Kind::Local => self.kill_runner(),
            Kind::Ssh | Kind::Sshd => signal(self.host.keeper(handle), rustix::process::Signal::KILL),
            Kind::Fake => {}
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It would end by itself a little later.
        if let Ok(pid) = std::fs::read_to_string(self.root.join("runner/runner.pid")) {
            signal(pid.parse().unwrap(), rustix::process::Signal::TERM);
        }
    }
}

/// Seals as nobody should.
pub struct Backwards;

impl Seal for Backwards {
    fn seal(&self, text: &str) -> std::io::Result<String> {
        Ok(text.chars().rev().collect())
    }

    fn open(&self, sealed: &str) -> std::io::Result<String> {
        self.seal(sealed)
    }
}

/// An sshd, and who may sign in there.
struct Real {
    sshd: Sshd,
    world: ssh_world::World,
}

impl Real {
    /// Its sessions have this home directory.
    fn start(home: &Path) -> Real {
        let settings = format!("SetEnv HOME={}", home.display());
        let start = Sshd::start(&settings);
        let sshd = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(start));
        let world = ssh_world::World::admitted(&sshd);
        Real { sshd, world }
    }
}

fn make(
    kind: Kind,
    root: &Path,
    config: &LocalConfig,
    host: &Arc<ShellHost>,
    real: Option<&Real>,
) -> (Box<dyn Backend>, UnboundedReceiver<BackendEvent>) {
    let (sender, events) = unbounded_channel();
    let backend: Box<dyn Backend> = match kind {
        Kind::Local => Box::new(LocalBackend::new(config.clone(), sender).unwrap()),
        Kind::Fake => Box::new(FakeBackend::new(sender)),
        Kind::Ssh | Kind::Sshd => {
            let config = SshConfig { instance: "test".into(), state_dir: root.join("ssh"), seal: Arc::new(Backwards) };
            let hosts: Arc<dyn Hosts> = match real {
                Some(real) => Arc::new(Pool::new(real.world.setup.clone(), Limits::default())),
                None => Arc::clone(host) as _,
            };
            Box::new(SshBackend::new(config, hosts, sender))
        }
    };
    (backend, events)
}

pub fn join(records: &[LogRecord], stream: LogStream) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for record in records.iter().filter(|r| r.stream == stream) {
        line.push_str(&record.text);
        if !record.continues {
            lines.push(std::mem::take(&mut line));
        }
    }
    assert_eq!(line, "", "the last line was never closed");
    lines
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Does the process run? A zombie does not.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

pub fn read_pid(path: &Path) -> i32 {
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

pub fn is_running(observation: &Observation) -> bool {
    matches!(observation, Observation::Running { .. })
}

pub async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it hangs")
}

/// Waits for a fact that nothing announces.
pub async fn until(mut fact: impl AsyncFnMut() -> bool) {
    within(async {
        let mut looks = tokio::time::interval(Duration::from_millis(5));
        while !fact().await {
            looks.tick().await;
        }
    })
    .await;
}

pub fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

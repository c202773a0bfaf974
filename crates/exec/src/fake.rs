//! The `fake` backend: attempts that run nothing and end as their environment says. For tests, demos and benchmarks of
//! everything above a backend; part of the normal build.
//!
//! | variable | effect |
//! |---|---|
//! | `FAKE_SLEEP_MS` | it runs this long; without it, it ends at once |
//! | `FAKE_EXIT_CODE`, `FAKE_SIGNAL`, `FAKE_OOM=1` | how it ends; without them, with code 0 |
//! | `FAKE_FAIL_UNTIL_ATTEMPT` | attempts with a lower number end with code 1 |
//! | `FAKE_START_FAIL` | it does not start this time, for this reason |
//! | `FAKE_CANNOT_START` | it cannot be started, now or later, for this reason |
//! | `FAKE_LOST=1` | when its time is over, it is lost |
//! | `FAKE_LOST_REPORT=1` | its end is never told, only seen by those who ask |
//! | `FAKE_OUTPUT_name` | an output, as JSON; what is no JSON is a text |
//! | `FAKE_LOG` | lines that it writes to stdout |
//!
//! When it will end is decided and written down at its start. So it "runs" on while the server is gone, and whoever
//! comes back finds what would have happened meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::AttemptId;
use pitcrew_core::state::Exit;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::backend::{Backend, BackendError, BackendEvent, Ended, EventSender, Handle, Observation, StepEnded};
use crate::capabilities::Capabilities;
use crate::log::{LogChunk, LogStream, LogWriter};
use crate::spec::AttemptSpec;
use crate::{attempt_dir, clock, gpu, local};

const NAME: &str = "fake";

/// See the module.
pub struct FakeBackend(Arc<Shared>);

struct Shared {
    events: EventSender,
    /// Attempts that run, and what wakes at their end. Held over every change of an attempt, so that it ends once.
    timers: Mutex<HashMap<AttemptId, AbortHandle>>,
}

/// What is written down at the start of an attempt that takes time.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Script {
    started_at: Timestamp,
    ended: Ended,
    lost_report: bool,
}

impl FakeBackend {
    pub fn new(events: EventSender) -> Self {
        FakeBackend(Arc::new(Shared { events, timers: Mutex::default() }))
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare(&self, spec: &AttemptSpec) -> Handle {
        Handle::of(spec)
    }

    async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        self.0.start(handle, &spec).map_err(|source| io_error("start an attempt in", handle, source))
    }

    async fn attach(&self, handle: &Handle) -> Observation {
        let mut timers = self.0.timers();
        let observation = observe(handle);
        // What ended while nobody looked is recorded, and told, by the same timer, which is due at once.
        if let Ok(Some(script)) = read_script(&handle.dir)
            && !attempt_dir::exit(&handle.dir).exists()
            && !timers.contains_key(&handle.id)
        {
            self.0.arm(&mut timers, handle, &script);
        }
        observation
    }

    async fn poll(&self, handles: &[Handle]) -> Vec<Observation> {
        handles.iter().map(observe).collect()
    }

    async fn logs(&self, handle: &Handle, offset: u64, max_bytes: usize) -> Result<LogChunk, BackendError> {
        local::read_log(&handle.dir, offset, max_bytes).await
    }

    async fn cancel(&self, handle: &Handle, _grace: SignedDuration) -> Result<(), BackendError> {
        let mut timers = self.0.timers();
        let mut ended = match observe(handle) {
            Observation::NeverBegan | Observation::Waiting => Ended::bare(Exit::Cancelled, clock::now()),
            Observation::Running { started_at } => {
                Ended { started_at: Some(started_at), ..Ended::bare(Exit::Cancelled, clock::now()) }
            }
            Observation::Ended(_) | Observation::Lost { .. } | Observation::Unreachable { .. } => return Ok(()),
        };
        ended.usage.wall_seconds =
            ended.started_at.map_or(0.0, |at| (ended.at - at).total(jiff::Unit::Second).unwrap_or(0.0));
        self.0.end(&mut timers, handle, ended, true).map_err(|source| io_error("cancel the attempt in", handle, source))
    }

    async fn cleanup(&self, handle: &Handle) -> Result<(), BackendError> {
        local::clean(&handle.dir).await
    }

    async fn capabilities(&self) -> Capabilities {
        let declared = std::env::var(gpu::PRETEND_VARIABLE).unwrap_or_else(|_| "0".to_owned());
        let env = BTreeMap::from([(gpu::PRETEND_VARIABLE.to_owned(), declared)]);
        let pretended = gpu::detect(&env, None, std::time::Duration::ZERO).await;
        Capabilities { memory_limit: false, cpu_limit: false, gpus: pretended.gpus, remarks: pretended.remarks }
    }
}

impl Shared {
    fn timers(&self) -> MutexGuard<'_, HashMap<AttemptId, AbortHandle>> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, handle: &Handle, spec: &AttemptSpec) -> io::Result<()> {
        let mut timers = self.timers();
        match observe(handle) {
            Observation::NeverBegan => {}
            Observation::Waiting | Observation::Running { .. } => return Ok(()),
            Observation::Ended(ended) => {
                self.tell(BackendEvent::Ended { id: handle.id.clone(), ended });
                return Ok(());
            }
            Observation::Lost { reason } => {
                self.tell(BackendEvent::Lost { id: handle.id.clone(), reason });
                return Ok(());
            }
            Observation::Unreachable { reason } => return Err(io::Error::other(reason)),
        }
        std::fs::create_dir_all(&handle.dir)?;
        let now = clock::now();
        let mut env = spec.env.clone();
        env.extend(spec.steps.iter().flat_map(|step| step.env.clone()));
        let step = spec.steps.first().map_or("", |s| s.name.as_str());
        let script = match Script::from_env(&env, &handle.id, step, now) {
            Ok(script) => script,
            Err(exit) => {
                let ended = Ended { failed_step: Some(step.to_owned()), ..Ended::bare(exit, now) };
                return self.end(&mut timers, handle, ended, true);
            }
        };
        if let Some(text) = env.get("FAKE_LOG") {
            let mut log = LogWriter::create(&attempt_dir::log(&handle.dir), spec.log_limit)?;
            text.lines().for_each(|line| log.record(now, LogStream::Stdout, 0, line.as_bytes(), false));
            log.flush();
        }
        if script.ended.at > now {
            let bytes = serde_json::to_vec(&script)?;
            std::fs::write(script_path(&handle.dir), bytes)?;
            self.tell(BackendEvent::Started { id: handle.id.clone(), at: now });
            self.arm(&mut timers, handle, &script);
            return Ok(());
        }
        self.tell(BackendEvent::Started { id: handle.id.clone(), at: now });
        self.end(&mut timers, handle, script.ended, !script.lost_report)
    }

    /// Ends the attempt when its time comes, whoever still holds the backend.
    fn arm(self: &Arc<Self>, timers: &mut HashMap<AttemptId, AbortHandle>, handle: &Handle, script: &Script) {
        let wake = clock::deadline(script.ended.at.duration_since(clock::now()));
        let (shared, handle_, script) = (Arc::downgrade(self), handle.clone(), script.clone());
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(wake).await;
            let Some(shared) = shared.upgrade() else { return };
            let mut timers = shared.timers();
            // Cancelled at the last moment?
            if timers.contains_key(&handle_.id)
                && let Err(error) = shared.end(&mut timers, &handle_, script.ended, !script.lost_report)
            {
                tracing::warn!(attempt = %handle_.id, %error, "cannot record the end of a fake attempt");
            }
        });
        timers.insert(handle.id.clone(), task.abort_handle());
    }

    fn end(
        &self,
        timers: &mut HashMap<AttemptId, AbortHandle>,
        handle: &Handle,
        ended: Ended,
        tell: bool,
    ) -> io::Result<()> {
        std::fs::create_dir_all(&handle.dir)?;
        attempt_dir::record_end(&handle.dir, &ended)?;
        if let Some(timer) = timers.remove(&handle.id) {
            timer.abort();
        }
        if tell {
            let id = handle.id.clone();
            self.tell(match ended.exit {
                Exit::Lost { reason } => BackendEvent::Lost { id, reason },
                _ => BackendEvent::Ended { id, ended },
            });
        }
        Ok(())
    }

    fn tell(&self, event: BackendEvent) {
        // Nobody listens any more when the server is on its way out.
        let _ = self.events.send(event);
    }
}

impl Script {
    /// The error is how an attempt ends that does not start.
    fn from_env(env: &BTreeMap<String, String>, id: &AttemptId, step: &str, now: Timestamp) -> Result<Self, Exit> {
        if let Some(reason) = env.get("FAKE_START_FAIL") {
            return Err(Exit::start_failed(reason));
        }
        if let Some(reason) = env.get("FAKE_CANNOT_START") {
            return Err(Exit::cannot_start(reason));
        }
        Script::read(env, id, step, now).map_err(Exit::cannot_start)
    }

    /// The error is the number that is none.
    fn read(env: &BTreeMap<String, String>, id: &AttemptId, step: &str, now: Timestamp) -> Result<Self, String> {
        let flag = |name: &str| env.get(name).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"));
        let code = number(env, "FAKE_EXIT_CODE")?.map(|code| Exit::Code { code });
        let signal = number(env, "FAKE_SIGNAL")?.map(|signal| Exit::Signal { signal });
        let fails = number::<u32>(env, "FAKE_FAIL_UNTIL_ATTEMPT")?.is_some_and(|until| id.number < until);
        let exit = if flag("FAKE_LOST") {
            Exit::Lost { reason: "`FAKE_LOST` says so".to_owned() }
        } else if flag("FAKE_OOM") {
            Exit::OutOfMemory
        } else if fails {
            Exit::Code { code: 1 }
        } else {
            signal.or(code).unwrap_or(Exit::Code { code: 0 })
        };
        let sleep = SignedDuration::from_millis(i64::from(number::<u32>(env, "FAKE_SLEEP_MS")?.unwrap_or(0)));
        let at = now.checked_add(sleep).map_err(|e| e.to_string())?;
        let mut ended = Ended::bare(exit.clone(), at);
        ended.started_at = Some(now);
        ended.usage.wall_seconds = sleep.as_secs_f64();
        ended.failed_step = (!exit.is_success()).then(|| step.to_owned());
        ended.steps = vec![StepEnded { name: step.to_owned(), exit, started_at: now, at }];
        for (name, text) in env.iter().filter_map(|(name, text)| Some((name.strip_prefix("FAKE_OUTPUT_")?, text))) {
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
            ended.outputs.insert(name.to_owned(), value);
        }
        if !ended.exit.is_success() {
            let lines: Vec<&str> = env.get("FAKE_LOG").map_or(Vec::new(), |text| text.lines().collect());
            ended.tail = lines[lines.len().saturating_sub(10)..].join("\n");
        }
        Ok(Script { started_at: now, ended, lost_report: flag("FAKE_LOST_REPORT") })
    }
}

fn number<T: FromStr>(env: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, String> {
    let Some(text) = env.get(name) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| format!("`{name}` is `{text}`, which is not a suitable number"))
}

fn script_path(dir: &Path) -> PathBuf {
    dir.join("fake.json")
}

fn read_script(dir: &Path) -> io::Result<Option<Script>> {
    match std::fs::read(script_path(dir)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What is written down, and what became of it by now.
fn observe(handle: &Handle) -> Observation {
    let script = || match attempt_dir::recorded_end(&handle.dir)? {
        Some(ended) => Ok(attempt_dir::observed(ended)),
        None => read_script(&handle.dir).map(|script| match script {
            None => Observation::NeverBegan,
            Some(script) if script.ended.at <= clock::now() => attempt_dir::observed(script.ended),
            Some(script) => Observation::Running { started_at: script.started_at },
        }),
    };
    script().unwrap_or_else(|error: io::Error| Observation::Unreachable {
        reason: format!("cannot read `{}`: {error}", handle.dir.display()),
    })
}

fn io_error(what: &str, handle: &Handle, source: io::Error) -> BackendError {
    BackendError::Io { what: format!("cannot {what} `{}`", handle.dir.display()), source }
}

//! The server's side of the connection to the runner: starts the runner when there is none, comes back when the
//! connection breaks, and then finds out what it missed.
//!
//! Invariant: every attempt in `live` will be told about: by an event of the runner, or, after any break, by asking.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::place::Place;
use super::protocol::{self, FromRunner, ToRunner, VERSION};
use crate::backend::{BackendEvent, EventSender, Handle, Observation};
use crate::spec::AttemptSpec;
use crate::{attempt_dir, clock};

/// How long one request may take, with starting a runner and all; then the backend is unreachable.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between tries to reach a runner: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// Between tries to find out what was missed, as long as that fails.
const RECOVER_EVERY: Duration = Duration::from_secs(1);

pub struct Client(Arc<Shared>);

struct Shared {
    place: Place,
    runner: Vec<OsString>,
    base_env: BTreeMap<String, String>,
    /// When the runner is to end what it keeps, if ever.
    lease_ms: Mutex<Option<u64>>,
    events: EventSender,
    /// Attempts whose end was not told yet.
    live: Mutex<HashMap<AttemptId, Handle>>,
    link: tokio::sync::Mutex<Option<Arc<Link>>>,
    numbers: AtomicU64,
}

/// One connection.
struct Link {
    outgoing: mpsc::UnboundedSender<Vec<u8>>,
    /// Who waits for which reply; `None` once the connection is broken.
    pending: Mutex<Option<HashMap<u64, oneshot::Sender<FromRunner>>>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Client {
    pub fn new(place: Place, runner: Vec<OsString>, base_env: BTreeMap<String, String>, events: EventSender) -> Self {
        Client(Arc::new(Shared {
            place,
            runner,
            base_env,
            lease_ms: Mutex::default(),
            events,
            live: Mutex::default(),
            link: tokio::sync::Mutex::default(),
            numbers: AtomicU64::new(0),
        }))
    }

    pub async fn start(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), String> {
        self.follow(handle);
        let spec = Box::new(spec);
        // The message is made once for all tries: a spec can be large.
        let seq = self.0.next_number();
        let lease_ms = *lock(&self.0.lease_ms);
        let line = protocol::encode(&ToRunner::Start { seq, spec, lease_ms });
        self.0.request(seq, line).await.map(drop)
    }

    pub async fn cancel(&self, handle: &Handle, grace: SignedDuration, lost: Option<String>) -> Result<(), String> {
        self.follow(handle);
        let seq = self.0.next_number();
        let line = protocol::encode(&ToRunner::Cancel { seq, handle: handle.clone(), grace, lost });
        self.0.request(seq, line).await.map(drop)
    }

    /// The runner ends what it keeps at that moment. Where there is none, the next one is told when it starts.
    pub fn lease(&self, until: Duration) {
        let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        *lock(&self.0.lease_ms) = Some(until_ms);
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            // A connection that is being made may have said the old one in its hello; this comes after.
            if let Some(link) = &*shared.link.lock().await {
                // A broken one is followed by another, whose hello says it.
                let _ = link.outgoing.send(protocol::encode(&ToRunner::Lease { until_ms }));
            }
        });
    }

    /// From now on the attempt's events are told.
    pub fn follow(&self, handle: &Handle) {
        lock(&self.0.live).insert(handle.id.clone(), handle.clone());
    }

    /// What is true, one answer per handle. Whatever is over, or never began, is followed no more.
    pub async fn observe(&self, handles: &[Handle]) -> Vec<Observation> {
        let observations = self.0.observe(handles).await;
        let mut live = lock(&self.0.live);
        for (handle, observation) in handles.iter().zip(&observations) {
            match observation {
                Observation::Ended(_) | Observation::Lost { .. } | Observation::NeverBegan => {
                    live.remove(&handle.id);
                }
                Observation::Waiting | Observation::Running { .. } | Observation::Unreachable { .. } => {}
            }
        }
        observations
    }
}

impl Shared {
    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Reads what is recorded, and asks the runner about the rest.
    async fn observe(self: &Arc<Self>, handles: &[Handle]) -> Vec<Observation> {
        let owned = handles.to_vec();
        let read = move || Ok(owned.iter().map(|h| attempt_dir::recorded_end(&h.dir).ok().flatten()).collect());
        let recorded: Vec<_> = super::blocking(read).await.unwrap_or_else(|_| vec![None; handles.len()]);
        let open: Vec<Handle> =
            handles.iter().zip(&recorded).filter(|(_, end)| end.is_none()).map(|(h, _)| h.clone()).collect();
        let mut answers = if open.is_empty() { Vec::new() } else { self.ask(open).await }.into_iter();
        recorded
            .into_iter()
            .filter_map(|end| match end {
                Some(end) => Some(attempt_dir::observed(end)),
                None => answers.next(),
            })
            .collect()
    }

    async fn ask(self: &Arc<Self>, handles: Vec<Handle>) -> Vec<Observation> {
        let count = handles.len();
        let seq = self.next_number();
        let reason = match self.request(seq, protocol::encode(&ToRunner::Status { seq, handles })).await {
            Ok(FromRunner::Status { observations, .. }) if observations.len() == count => return observations,
            Ok(_) => "the runner gave an answer to another question".to_owned(),
            Err(reason) => reason,
        };
        vec![Observation::Unreachable { reason }; count]
    }

    /// Sends a request and waits for its reply, over as many connections as that takes.
    async fn request(self: &Arc<Self>, seq: u64, line: Vec<u8>) -> Result<FromRunner, String> {
        let deadline = clock::instant() + PATIENCE;
        loop {
            let link = self.link(deadline).await?;
            let (sender, reply) = oneshot::channel();
            let sent = match lock(&link.pending).as_mut() {
                Some(pending) => {
                    pending.insert(seq, sender);
                    link.outgoing.send(line.clone()).is_ok()
                }
                None => false,
            };
            if sent {
                match tokio::time::timeout_at(deadline, reply).await {
                    Ok(Ok(reply)) => return Ok(reply),
                    Ok(Err(_)) => {}
                    Err(_) => {
                        lock(&link.pending).as_mut().map(|pending| pending.remove(&seq));
                        return Err(format!("the runner did not answer within {} s", PATIENCE.as_secs()));
                    }
                }
            }
            self.forget(&link).await;
        }
    }

    /// The connection, made if need be.
    async fn link(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Link>, String> {
        let mut current = self.link.lock().await;
        if let Some(link) = &*current {
            return Ok(Arc::clone(link));
        }
        let (read, write) = self.connect(deadline).await?;
        let (outgoing, queue) = mpsc::unbounded_channel();
        let link = Arc::new(Link { outgoing, pending: Mutex::new(Some(HashMap::new())), tasks: Mutex::default() });
        let writer = tokio::spawn(write_all(write, queue));
        let reader = tokio::spawn(read_all(Arc::downgrade(self), Arc::clone(&link), read));
        lock(&link.tasks).extend([writer.abort_handle(), reader.abort_handle()]);
        *current = Some(Arc::clone(&link));
        Ok(link)
    }

    async fn forget(&self, link: &Arc<Link>) {
        link.close();
        let mut current = self.link.lock().await;
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, link)) {
            *current = None;
        }
    }

    /// Connects to the runner, and starts one as often as there is none.
    async fn connect(&self, deadline: Instant) -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf), String> {
        let mut pause = FIRST_PAUSE;
        let mut runner: Option<tokio::process::Child> = None;
        loop {
            let problem = match self.shake_hands().await {
                Ok(Ok(halves)) => {
                    collect(runner);
                    return Ok(halves);
                }
                Ok(Err(refused)) => {
                    collect(runner);
                    return Err(refused);
                }
                Err(error) => error,
            };
            if clock::instant() >= deadline {
                collect(runner);
                return Err(format!("cannot connect to the runner: {problem}; see `{}`", self.runner_log()));
            }
            // One that ended found another runner, which is about to listen or about to be gone; or it failed.
            let ended = runner.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended && (runner.is_none() || pause == LONGEST_PAUSE) {
                runner = Some(self.launch()?);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The outer error is one that may pass.
    async fn shake_hands(&self) -> std::io::Result<Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf), String>> {
        let (address, _dir) = self.place.socket_address()?;
        let (read, mut write) = UnixStream::connect(address).await?.into_split();
        let hello =
            ToRunner::Hello { version: VERSION, base_env: self.base_env.clone(), lease_ms: *lock(&self.lease_ms) };
        write.write_all(&protocol::encode(&hello)).await?;
        let mut read = BufReader::with_capacity(64 << 10, read);
        let answer = tokio::time::timeout(PATIENCE, protocol::next(&mut read, &mut Vec::new())).await??;
        match answer {
            Some(FromRunner::Hello { version: VERSION, .. }) => Ok(Ok((read, write))),
            Some(FromRunner::Hello { version, pid }) => Ok(Err(format!(
                "its runner, process {pid}, is of another version of Pitcrew (it speaks protocol {version}, this one \
                 {VERSION}); wait until its tasks have ended, or end them with `kill {pid}`"
            ))),
            Some(_) => Ok(Err("what listens on its socket is no runner".to_owned())),
            None => Err(std::io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn launch(&self) -> Result<tokio::process::Child, String> {
        let (program, arguments) = self.runner.split_first().ok_or("no runner program is configured")?;
        let failed = |e: std::io::Error| format!("cannot start the runner `{}`: {e}", program.display());
        let mut command = tokio::process::Command::new(program);
        command
            .args(arguments)
            .arg("--dir")
            .arg(self.place.dir())
            .env_clear()
            .envs(&self.base_env)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(self.place.runner_log().map_err(failed)?));
        // A Pitcrew inside a task of another one: its runner must be found when that task is cancelled.
        for name in ["PITCREW_RUNNER", "PITCREW_OUTPUT"] {
            if let Ok(value) = std::env::var(name)
                && std::env::var("PITCREW_RUNNER").is_ok_and(|token| token != self.place.token())
            {
                command.env(name, value);
            }
        }
        command.spawn().map_err(failed)
    }

    fn runner_log(&self) -> String {
        self.place.dir().join("runner.log").display().to_string()
    }

    /// Tells an event of an attempt that is followed; an end is told once.
    fn tell(&self, event: BackendEvent) {
        let wanted = match &event {
            BackendEvent::Started { id, .. }
            | BackendEvent::Placed { id, .. }
            | BackendEvent::Named { id, .. }
            | BackendEvent::NeverBegan { id } => lock(&self.live).contains_key(id),
            BackendEvent::Ended { id, .. } | BackendEvent::Lost { id, .. } => lock(&self.live).remove(id).is_some(),
        };
        if wanted {
            // Nobody listens any more when the server is on its way out.
            let _ = self.events.send(event);
        }
    }

    /// After a break: asks about everything that is followed until that is answered. Boxed, since it makes the next
    /// connection, whose reader may have to call it again.
    fn recover(shared: Weak<Shared>) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            while let Some(this) = shared.upgrade() {
                let handles: Vec<Handle> = lock(&this.live).values().cloned().collect();
                if handles.is_empty() || this.tell_missed(&handles).await {
                    return;
                }
                drop(this);
                tokio::time::sleep(RECOVER_EVERY).await;
            }
        })
    }

    /// Tells what ended; says whether there was an answer about all.
    async fn tell_missed(self: &Arc<Self>, handles: &[Handle]) -> bool {
        let mut answered = true;
        for (handle, observation) in handles.iter().zip(self.observe(handles).await) {
            let id = handle.id.clone();
            match observation {
                Observation::Ended(ended) => self.tell(BackendEvent::Ended { id, ended }),
                Observation::Lost { reason } => self.tell(BackendEvent::Lost { id, reason }),
                Observation::Unreachable { .. } => answered = false,
                // Its start is being repeated, if it was asked for.
                Observation::NeverBegan | Observation::Waiting | Observation::Running { .. } => {}
            }
        }
        answered
    }
}

impl Link {
    /// Lets everybody who waits for a reply know that none comes.
    fn close(&self) {
        lock(&self.pending).take();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(link) = self.link.get_mut() {
            for task in lock(&link.tasks).drain(..) {
                task.abort();
            }
        }
    }
}

/// Waits for a runner's end in the background, so that it leaves no zombie while the server lives.
fn collect(runner: Option<tokio::process::Child>) {
    if let Some(mut runner) = runner {
        tokio::spawn(async move { runner.wait().await });
    }
}

async fn read_all(shared: Weak<Shared>, link: Arc<Link>, mut read: BufReader<OwnedReadHalf>) {
    let mut line = Vec::new();
    loop {
        let message = match protocol::next::<FromRunner>(&mut read, &mut line).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the connection to the runner broke");
                break;
            }
        };
        match message {
            FromRunner::Event(event) => match shared.upgrade() {
                Some(shared) => shared.tell(event),
                None => return,
            },
            FromRunner::Done { seq } | FromRunner::Status { seq, .. } => {
                let waiter = lock(&link.pending).as_mut().and_then(|pending| pending.remove(&seq));
                if let Some(waiter) = waiter {
                    let _ = waiter.send(message);
                }
            }
            FromRunner::Hello { .. } => {}
        }
    }
    link.close();
    if let Some(this) = shared.upgrade() {
        this.forget(&link).await;
        drop(this);
        tokio::spawn(Shared::recover(shared));
    }
}

async fn write_all(mut write: OwnedWriteHalf, mut queue: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, 256).await > 0 {
        if write.write_all(&batch.concat()).await.is_err() {
            // The reader sees the break too, and acts on it.
            return;
        }
        batch.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Attempts that are transfers: a task of this process each, begun again by whoever asks for one after a restart.
//!
//! Invariant: one task for one attempt in this process; it leaves the table after the end is written down, so whoever finds
//! neither may begin it again.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::AttemptId;
use pitcrew_core::state::{EX_CONFIG, Exit};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::Failure;
use super::job::{Job, Order, Summary};
use super::leftovers::Leftovers;
use super::parts::Part;
use crate::backend::{BackendEvent, Ended, EventSender, Handle, StepEnded};
use crate::local::blocking;
use crate::log::{LogStream, Masker};
use crate::place::SshPlace;
use crate::ssh::remote::marks::{Cancel, Sent};
use crate::ssh::remote::mirror::{Fetched, Mirror};
use crate::ssh::remote::{Hosts, follow};
use crate::{attempt_dir, clock};

/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(5);
/// Until an end is written again that could not be.
const AGAIN: Duration = Duration::from_secs(2);

/// The transfers of this process; dropping it stops them where they are.
pub struct Transfers {
    hosts: Arc<dyn Hosts>,
    events: EventSender,
    live: Arc<Mutex<HashMap<AttemptId, Live>>>,
    leftovers: Arc<Leftovers>,
}

struct Live {
    cancelled: watch::Sender<bool>,
    begun: Timestamp,
    task: AbortHandle,
}

/// What a transfer is begun with, and begun again.
pub struct Begun {
    pub handle: Handle,
    pub place: SshPlace,
    /// Of the attempt and of its run, on the host.
    pub names: (String, String),
    pub sent: Sent,
    pub order: Order,
    pub masker: Option<Arc<Masker>>,
}

impl Transfers {
    /// `dir` is for what has to be removed from hosts that are away.
    pub fn new(dir: PathBuf, hosts: Arc<dyn Hosts>, events: EventSender) -> Transfers {
        let leftovers = Arc::new(Leftovers::new(dir, hosts.clone()));
        Transfers { hosts, events, live: Arc::default(), leftovers }
    }

    /// When it began, if it is under way in this process.
    pub fn begun(&self, id: &AttemptId) -> Option<Timestamp> {
        lock(&self.live).get(id).map(|live| live.begun)
    }

    /// Begins it, or goes on with it, unless it is under way or over.
    pub fn go_on(&self, begun: Begun) {
        let mut live = lock(&self.live);
        let id = begun.handle.id.clone();
        let is_over = attempt_dir::recorded_end(&begun.handle.dir).is_ok_and(|end| end.is_some());
        if live.contains_key(&id) || is_over {
            return;
        }
        let (cancelled, seen) = watch::channel(matches!(Cancel::read(&begun.handle.dir), Ok(Some(_))));
        let at = begun.order.begun;
        let (hosts, events, all) = (self.hosts.clone(), self.events.clone(), self.live.clone());
        let leftovers = self.leftovers.clone();
        let task = tokio::spawn(async move {
            let id = begun.handle.id.clone();
            run(hosts, &events, &leftovers, begun, seen).await;
            lock(&all).remove(&id);
        });
        live.insert(id, Live { cancelled, begun: at, task: task.abort_handle() });
    }

    /// Asks it to end; its mark is written already.
    pub fn cancel(&self, id: &AttemptId) {
        if let Some(live) = lock(&self.live).get(id) {
            live.cancelled.send_replace(true);
        }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        lock(&self.live).values().for_each(|live| live.task.abort());
    }
}

async fn run(
    hosts: Arc<dyn Hosts>,
    events: &EventSender,
    leftovers: &Leftovers,
    begun: Begun,
    mut cancelled: watch::Receiver<bool>,
) {
    let Begun { handle, place, names, sent, order, masker } = begun;
    let (begun, step) = (order.begun, sent.steps.first().cloned().unwrap_or_default());
    let mut log = loop {
        let (dir, sent, masker) = (handle.dir.clone(), sent.clone(), masker.clone());
        match blocking(move || Mirror::open(&dir, &sent, masker, clock::now())).await {
            Ok(log) => break log,
            Err(e) => complain(&handle, &e).await,
        }
    };
    let _ = events.send(BackendEvent::Started { id: handle.id.clone(), at: begun });
    let (lines, mut said) = mpsc::unbounded_channel();
    let job = Job::new(hosts, place, order, names, handle.dir.clone(), lines);
    let outcome = {
        let work = job.carry_out();
        let mut work = std::pin::pin!(work);
        let (mut told, mut since) = (0, clock::instant());
        loop {
            tokio::select! {
                biased;
                // The sender lives as long as this task.
                _ = cancelled.wait_for(|is| *is) => break None,
                Some(line) = said.recv() => say(&mut log, &line),
                outcome = &mut work => break Some(outcome),
                () = tokio::time::sleep_until(since + TELL) => {
                    if let Some(line) = job.progress.line(told, since.elapsed()) {
                        say(&mut log, &line);
                    }
                    (told, since) = (job.progress.done(), clock::instant());
                }
            }
        }
    };
    while let Ok(line) = said.try_recv() {
        say(&mut log, &line);
    }
    let exit = match outcome {
        None => Exit::Cancelled,
        Some(Ok(summary)) => match write_outputs(&handle, &summary) {
            Ok(()) => Exit::Code { code: 0 },
            Err(e) => {
                error(&mut log, &format!("cannot write its outputs: {e}"));
                Exit::Code { code: 1 }
            }
        },
        Some(Err(failure)) => {
            let (words, code) = match failure {
                Failure::Lasting(words) => (words, EX_CONFIG),
                Failure::Link(words) | Failure::Passing(words) => (words, 1),
            };
            error(&mut log, &words);
            Exit::Code { code }
        }
    };
    if !exit.is_success()
        && let Err(words) = clear(&job, leftovers).await
    {
        say(&mut log, &words);
    }
    let ended = ended(exit, step, begun, clock::now());
    let ended = log.end(&sent, Fetched { ended, problems: Vec::new() }, clock::now());
    while let Err(e) = follow::record(&handle, &ended) {
        complain(&handle, &e).await;
    }
    let _ = events.send(follow::told(&handle, ended));
}

/// Removes what is left of it, on whichever side, now or when the host can be reached; the words say what was not.
async fn clear(job: &Job, leftovers: &Leftovers) -> Result<(), String> {
    match Part::read(&job.dir).map_err(|e| e.to_string())? {
        None => {}
        Some(Part::Here(path)) => match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(format!("`{}` is left: {e}", path.display())),
            _ => {}
        },
        Some(Part::There(path)) => {
            let Err(failure) = job.remove_there(&path).await else {
                Part::forget(&job.dir);
                return Ok(());
            };
            let left = |rest: String| Err(format!("`{path}` is left on `{}`{rest}", job.place));
            return match failure {
                Failure::Lasting(why) | Failure::Passing(why) => left(format!(": {why}")),
                Failure::Link(why) => match leftovers.add(&job.name, &job.place, &path) {
                    Ok(()) => left(format!(" until it can be reached: {why}")),
                    Err(e) => left(format!(": {why}; {e}")),
                },
            };
        }
    }
    Part::forget(&job.dir);
    Ok(())
}

fn ended(exit: Exit, step: String, begun: Timestamp, now: Timestamp) -> Ended {
    let now = now.max(begun);
    let mut ended = Ended::bare(exit.clone(), now);
    ended.started_at = Some(begun);
    ended.failed_step = Some(step.clone()).filter(|_| matches!(exit, Exit::Code { code: 1.. }));
    ended.steps = vec![StepEnded { name: step, exit, started_at: begun, at: now }];
    ended.usage.wall_seconds = now.duration_since(begun).as_secs_f64();
    ended
}

/// As an action of a process does it.
fn write_outputs(handle: &Handle, summary: &Summary) -> io::Result<()> {
    std::fs::write(attempt_dir::output(&handle.dir), format!("{}\n", serde_json::to_string(summary)?))
}

fn say(log: &mut Mirror, line: &str) {
    tell(log, LogStream::Stdout, line);
}

fn error(log: &mut Mirror, words: &str) {
    tell(log, LogStream::Stderr, &format!("error: {words}"));
}

/// A log that cannot be written holds nothing up.
fn tell(log: &mut Mirror, stream: LogStream, line: &str) {
    if let Err(e) = log.tell(clock::now(), stream, line) {
        tracing::warn!("cannot write a log: {e}");
    }
}

async fn complain(handle: &Handle, error: &io::Error) {
    tracing::warn!(attempt = %handle.id, "cannot write in `{}`: {error}", handle.dir.display());
    tokio::time::sleep(AGAIN).await;
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

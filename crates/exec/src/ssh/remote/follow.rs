//! One remote attempt that is followed: when to look at it next, and what to do with what is seen.
//!
//! Invariant: the end is told after all of the log is here and the end is written down here.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::state::Exit;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::host::{Hosts, Unreached};
use super::lent::Lent;
use super::marks::{self, Cancel, Sent};
use super::mirror::{self, CHUNK, Fetched, Mirror};
use super::removals::Kind;
use super::servant::{Seen, Servant, State};
use super::watch::Shared;
use crate::backend::{BackendEvent, Ended, EventSender, Handle};
use crate::local::blocking;
use crate::log::Masker;
use crate::place::SshPlace;
use crate::{attempt_dir, clock};

/// An attempt is looked at after an eighth of its age, within these bounds; the second while it writes.
const SOONEST: Duration = Duration::from_millis(25);
const LATEST_IF_LOUD: Duration = Duration::from_millis(500);
const LATEST: Duration = Duration::from_secs(2);
/// So long after its last words an attempt counts as one that writes.
const LOUD: Duration = Duration::from_secs(10);
/// Bytes of log that are fetched before the next attempt has its turn.
const TURN: u64 = 8 * CHUNK;

/// See the module.
pub struct Follow {
    pub handle: Handle,
    /// Its directory on the host.
    pub name: String,
    sent: Sent,
    masker: Option<Arc<Masker>>,
    /// A key that it may use from there.
    lent: Option<Lent>,
    since: Instant,
    times: Mutex<Times>,
    cancel: Mutex<Option<Cancel>>,
    mirror: tokio::sync::Mutex<Option<Mirror>>,
    /// Its end was told.
    pub over: Notify,
    /// It is being sent there.
    pub starting: AtomicBool,
}

struct Times {
    due: Instant,
    last_words: Option<Instant>,
    started: bool,
}

impl Follow {
    /// Goes by what is written down in the directory of the attempt.
    pub fn new(
        handle: Handle,
        name: String,
        sent: Sent,
        masker: Option<Arc<Masker>>,
        lent: Option<Lent>,
        cancel: Option<Cancel>,
    ) -> Follow {
        let now = clock::instant();
        Follow {
            handle,
            name,
            sent,
            masker,
            lent,
            since: now,
            times: Mutex::new(Times { due: now, last_words: None, started: false }),
            cancel: Mutex::new(cancel),
            mirror: tokio::sync::Mutex::new(None),
            over: Notify::new(),
            starting: AtomicBool::new(false),
        }
    }

    /// When to look at it.
    pub fn due(&self) -> Instant {
        lock(&self.times).due
    }

    /// Lets it be looked at now.
    pub fn hurry(&self) {
        lock(&self.times).due = clock::instant();
    }

    /// From now on, and at each look, it is asked to end.
    pub fn set_cancel(&self, cancel: Cancel) {
        *lock(&self.cancel) = Some(cancel);
    }

    /// Asks it to end, if somebody wants that.
    pub async fn ask_to_end(&self, servant: &Servant, now: Timestamp) -> Result<(), Unreached> {
        let Some(cancel) = *lock(&self.cancel) else { return Ok(()) };
        let left = cancel.until.duration_since(now).max(SignedDuration::ZERO).as_millis() / 10;
        servant.cancel(&self.name, u64::try_from(left).unwrap_or(0)).await
    }

    /// Sees to it that the key that it was lent can be used there.
    pub async fn keep_lent(&self, servant: &Servant, hosts: &dyn Hosts, place: &SshPlace) -> Result<(), Unreached> {
        match &self.lent {
            Some(lent) => lent.keep(&self.name, servant, hosts, place).await,
            None => Ok(()),
        }
    }

    /// Adds a line of Pitcrew's own words to the log, if there is one.
    pub async fn say(&self, now: Timestamp, text: &str) {
        if let Some(mirror) = &mut *self.mirror.lock().await
            && let Err(error) = mirror.say(now, 0, text)
        {
            self.complain(&error);
        }
    }

    /// Takes what was seen of it as far as it goes; says whether its end was told.
    pub(super) async fn advance(&self, servant: &Servant, host: &Shared, seen: Seen) -> Result<bool, Unreached> {
        let Shared { place, events, hosts, .. } = host;
        let over = !matches!(seen.state, State::Running(_) | State::Never);
        let whole = self.fetch_log(servant, seen.log, over).await?;
        self.plan_next(whole);
        let fetched = match seen.state {
            // It ended, and was cleaned up, after somebody began to follow it.
            State::Never if attempt_dir::exit(&self.handle.dir).exists() => return Ok(true),
            State::Never => {
                // So that it never will: the claim needs a directory.
                if lock(&self.cancel).is_some() && !self.starting.load(Ordering::Relaxed) {
                    servant.make(&self.name).await?;
                    self.ask_to_end(servant, clock::now()).await?;
                }
                return Ok(false);
            }
            State::Running(begun) => {
                if let Some(at) = begun {
                    self.tell_started(at, events);
                }
                if let Err(error) = self.keep_lent(servant, &**hosts, place).await {
                    tracing::debug!(attempt = %self.handle.id, "its key cannot be lent now: {error}");
                }
                return self.ask_to_end(servant, clock::now()).await.map(|()| false);
            }
            _ if !whole => return Ok(false),
            State::Kept(word) => {
                let fetched = Fetched::bare(marks::claimed(&word, &place.to_string()), clock::now());
                return Ok(self.finish(None, fetched, host).await);
            }
            State::Rebooted => lost(format!("`{}` was restarted while it ran", place.host)),
            State::Gone(pid) => {
                lost(format!("its keeper on `{}`, process {pid}, is gone and left no exit code", place.host))
            }
            State::Ended => self.fetch_end(servant, place).await?,
        };
        let mut mirror = self.mirror.lock().await;
        Ok(self.finish(mirror.as_mut(), fetched, host).await)
    }

    fn plan_next(&self, whole: bool) {
        let now = clock::instant();
        let mut times = lock(&self.times);
        let latest = if times.last_words.is_some_and(|at| now - at < LOUD) { LATEST_IF_LOUD } else { LATEST };
        let pause = ((now - self.since) / 8).clamp(SOONEST, latest);
        times.due = now + if whole { pause } else { Duration::ZERO };
    }

    fn tell_started(&self, at: Timestamp, events: &EventSender) {
        if !std::mem::replace(&mut lock(&self.times).started, true) {
            let _ = events.send(BackendEvent::Started { id: self.handle.id.clone(), at });
        }
    }

    /// Fetches what the log has up to `size`, or a good part of it; says whether that was all.
    async fn fetch_log(&self, servant: &Servant, size: u64, over: bool) -> Result<bool, Unreached> {
        let mut kept = self.mirror.lock().await;
        if kept.is_none() && (size > 0 || !self.sent.notices.is_empty()) {
            let (dir, sent, masker) = (self.handle.dir.clone(), self.sent.clone(), self.masker.clone());
            match blocking(move || Mirror::open(&dir, &sent, masker, clock::now())).await {
                Ok(mirror) => *kept = Some(mirror),
                Err(error) => {
                    self.complain(&error);
                    return Ok(false);
                }
            }
        }
        let Some(mirror) = kept.as_mut() else { return Ok(true) };
        let from = mirror.offset();
        while mirror.offset() < size.min(from + TURN) {
            let before = mirror.offset();
            let wanted = (size - before).min(CHUNK);
            let bytes = servant.read(&self.name, "log", before, wanted).await?;
            if bytes.len() as u64 != wanted {
                return Err(Unreached::passing(format!("the log of {} is shorter than it was", self.handle.id)));
            }
            lock(&self.times).last_words = Some(clock::instant());
            let last = over && before + wanted == size;
            // A few hundred KiB into the page cache: not worth another thread.
            if let Err(error) = mirror.append(&bytes, last, clock::now(), servant.ahead) {
                self.complain(&error);
                return Ok(false);
            }
            if mirror.offset() == before {
                break;
            }
        }
        Ok(!over || mirror.offset() >= size)
    }

    /// Fetches how it ended, and the files that it left for us.
    async fn fetch_end(&self, servant: &Servant, place: &SshPlace) -> Result<Fetched, Unreached> {
        let text = servant.end(&self.name).await?;
        let mut fetched = Fetched::read(&text, &self.sent, &place.to_string(), servant.ahead, clock::now());
        for (file, size) in mirror::wanted(servant.files(&self.name).await?) {
            let mut bytes = Vec::new();
            while (bytes.len() as u64) < size {
                let wanted = (size - bytes.len() as u64).min(CHUNK);
                let part = servant.read(&self.name, &file, bytes.len() as u64, wanted).await?;
                if part.is_empty() {
                    break;
                }
                bytes.extend(part);
            }
            if file.starts_with("output") {
                let path = self.handle.dir.join(&file);
                if let Err(error) = blocking(move || std::fs::write(path, bytes)).await {
                    fetched.problems.push(format!("cannot keep `{file}`: {error}"));
                }
            } else {
                fetched.take(&file, bytes, &self.sent);
            }
        }
        Ok(fetched)
    }

    /// Writes the end down and tells it. Where that fails, the next look tries again.
    async fn finish(&self, mirror: Option<&mut Mirror>, fetched: Fetched, host: &Shared) -> bool {
        if let Some(lent) = &self.lent {
            lent.end().await;
        }
        let mut ended = match mirror {
            Some(mirror) => mirror.end(&self.sent, fetched, clock::now()),
            None => fetched.whole(&self.handle.dir, self.masker.as_ref()),
        };
        ended.at = ended.started_at.map_or(ended.at, |begun| ended.at.max(begun));
        // With the end here, nobody asks the host again; so what is there has to be known first.
        let noted = host.removals.note(&host.place, Kind::Attempt, &self.name);
        if let Err(error) = noted.and_then(|()| record(&self.handle, &ended)) {
            self.complain(&error);
            return false;
        }
        if let Some(at) = ended.started_at {
            self.tell_started(at, &host.events);
        }
        let _ = host.events.send(told(&self.handle, ended));
        true
    }

    fn complain(&self, error: &io::Error) {
        tracing::warn!(attempt = %self.handle.id, "cannot write in `{}`: {error}", self.handle.dir.display());
        // Not at once again: it is a full disk, or somebody removed the directory.
        lock(&self.times).due = clock::instant() + LATEST;
    }
}

/// Writes an end down, where no other is.
pub fn record(handle: &Handle, ended: &Ended) -> io::Result<()> {
    if attempt_dir::recorded_end(&handle.dir)?.is_none() {
        std::fs::create_dir_all(&handle.dir)?;
        attempt_dir::record_end(&handle.dir, ended)?;
    }
    Ok(())
}

/// The event for an end.
pub fn told(handle: &Handle, ended: Ended) -> BackendEvent {
    let id = handle.id.clone();
    match ended.exit {
        Exit::Lost { reason } => BackendEvent::Lost { id, reason },
        _ => BackendEvent::Ended { id, ended },
    }
}

fn lost(reason: String) -> Fetched {
    Fetched::bare(Exit::Lost { reason }, clock::now())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Attempts on the machines of other servers: asked about until they are over, or until nobody can say any more.
//!
//! One task per data directory asks once a second about all that is followed there. Nobody else waits for an answer, so
//! a server that is silent holds up nothing.
//!
//! Invariant: an attempt is told as lost only when it was written down as given up, and its server has ended it and said so
//! there, or as much time went by as its lease can have had left then ([`super::keep`]).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::{AttemptId, SignedDuration};
use pitcrew_exec::{BackendEvent, Ended, EventSender, Handle, Observation};
use tokio::time::Instant;

use super::files::Files;
use super::peers::Peers;

const EVERY: Duration = Duration::from_secs(1);
/// Attempts in one question.
const MANY: usize = 500;
/// More than clocks and the end of a task take.
const MARGIN: Duration = Duration::from_secs(20);

pub struct Away {
    pub peers: Peers,
    pub files: Files,
    events: EventSender,
    lost_after: Duration,
    homes: Mutex<BTreeMap<String, Home>>,
}

#[derive(Default)]
struct Home {
    followed: BTreeMap<AttemptId, Followed>,
    /// Since when nobody answers for it, and why.
    silent: Option<(Instant, String)>,
}

struct Followed {
    handle: Handle,
    started: Option<Timestamp>,
    stop: Option<SignedDuration>,
    /// Since when another attempt may take its place.
    given_up: Option<Instant>,
}

impl Away {
    pub fn new(peers: Peers, files: Files, events: EventSender, lost_after: Duration) -> Arc<Away> {
        Arc::new(Away { peers, files, events, lost_after, homes: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Home>> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of an attempt; from now on what becomes of it is told.
    pub fn follow(self: &Arc<Self>, home: &str, handle: &Handle, stop: Option<SignedDuration>) -> Observation {
        let mut homes = self.lock();
        if !homes.contains_key(home) {
            tokio::spawn(ask(Arc::downgrade(self), home.to_owned()));
        }
        let at = homes.entry(home.to_owned()).or_default();
        let followed = at.followed.entry(handle.id.clone()).or_insert_with(|| Followed {
            handle: handle.clone(),
            started: None,
            stop: None,
            given_up: None,
        });
        followed.stop = stop.or(followed.stop);
        match (&at.silent, followed.started) {
            (None, Some(started_at)) => Observation::Running { started_at },
            (None, None) => Observation::Unreachable { reason: "its server is being asked".to_owned() },
            (Some((_, why)), _) => Observation::Unreachable { reason: format!("it runs on another machine: {why}") },
        }
    }

    /// What is followed there; `None`, and nobody asks any more, when that is nothing.
    fn wanted(&self, home: &str) -> Option<Vec<Handle>> {
        let mut homes = self.lock();
        let handles: Vec<Handle> = homes.get(home)?.followed.values().map(|followed| followed.handle.clone()).collect();
        if handles.is_empty() {
            homes.remove(home);
            return None;
        }
        Some(handles)
    }

    async fn heard(&self, home: &str, handles: &[Handle], observations: Vec<Observation>) {
        if let Some(at) = self.lock().get_mut(home)
            && at.silent.take().is_some()
        {
            tracing::info!("the server that has the data directory {home} answers again");
        }
        for (handle, observation) in handles.iter().zip(observations) {
            match observation {
                Observation::Running { started_at } => self.runs(home, handle, started_at).await,
                Observation::Ended(ended) => self.over(home, handle, Ok(ended)),
                Observation::Lost { reason } => self.over(home, handle, Err(reason)),
                // Whoever was to begin it leads no more, and must not begin it later.
                Observation::NeverBegan => {
                    self.end(home, handle, SignedDuration::ZERO, Some("it had not begun when its server ended")).await;
                }
                // Its runner does not answer; nothing is known.
                Observation::Waiting | Observation::Unreachable { .. } => {}
            }
        }
    }

    async fn runs(&self, home: &str, handle: &Handle, started_at: Timestamp) {
        let stop = {
            let mut homes = self.lock();
            let Some(followed) = homes.get_mut(home).and_then(|at| at.followed.get_mut(&handle.id)) else { return };
            if followed.started.replace(started_at).is_none() {
                let _ = self.events.send(BackendEvent::Started { id: handle.id.clone(), at: started_at });
            }
            match followed.given_up {
                Some(_) => Some((SignedDuration::ZERO, Some("its server was silent for too long"))),
                None => followed.stop.map(|grace| (grace, None)),
            }
        };
        if let Some((grace, lost)) = stop {
            self.end(home, handle, grace, lost).await;
        }
    }

    async fn end(&self, home: &str, handle: &Handle, grace: SignedDuration, lost: Option<&str>) {
        // Again is once.
        if let Err(error) = self.peers.cancel(home, handle, grace, lost).await {
            tracing::debug!("cannot end {} on its machine: {error}", handle.id);
        }
    }

    fn over(&self, home: &str, handle: &Handle, how: Result<Ended, String>) {
        let mut homes = self.lock();
        let Some(_) = homes.get_mut(home).and_then(|at| at.followed.remove(&handle.id)) else { return };
        let id = handle.id.clone();
        let event = match how {
            Ok(ended) => BackendEvent::Ended { id, ended },
            Err(reason) => BackendEvent::Lost { id, reason },
        };
        let _ = self.events.send(event);
    }

    async fn silent(&self, home: &str, why: String) {
        let fresh: Vec<Handle> = {
            let mut homes = self.lock();
            let Some(at) = homes.get_mut(home) else { return };
            if at.silent.is_none() {
                tracing::warn!("{} tasks are on the machine of another server: {why}", at.followed.len());
            }
            let since = at.silent.as_ref().map_or_else(Instant::now, |(since, _)| *since);
            at.silent = Some((since, why.clone()));
            if since.elapsed() < self.lost_after {
                return;
            }
            let fresh = at.followed.values().filter(|followed| followed.given_up.is_none());
            fresh.map(|followed| followed.handle.clone()).collect()
        };
        let written = async {
            if !fresh.is_empty() {
                self.peers.give_up(home, &fresh).await?;
            }
            self.peers.given_up(home).await
        };
        let given_up = match written.await {
            Ok(given_up) => given_up,
            Err(error) => return tracing::warn!(%error, "cannot write down which tasks are given up"),
        };
        let mut homes = self.lock();
        let Some(at) = homes.get_mut(home) else { return };
        for handle in &fresh {
            if let Some(followed) = at.followed.get_mut(&handle.id) {
                followed.given_up = Some(Instant::now());
            }
        }
        let lost_after = self.lost_after;
        at.followed.retain(|id, followed| {
            let is_taken_back = !given_up.contains(&followed.handle);
            let is_over = |since: Instant| since.elapsed() >= self.lost_after + MARGIN;
            let is_lost = followed.given_up.is_some_and(|since| is_taken_back || is_over(since));
            if is_lost {
                let reason = format!("it ran on the machine of another server, silent for {lost_after:?}: {why}");
                let _ = self.events.send(BackendEvent::Lost { id: id.clone(), reason });
            }
            !is_lost
        });
    }
}

async fn ask(away: Weak<Away>, home: String) {
    loop {
        let Some(this) = away.upgrade() else { return };
        let Some(handles) = this.wanted(&home) else { return };
        for part in handles.chunks(MANY) {
            match this.peers.observe(&home, part).await {
                Ok(observations) => this.heard(&home, part, observations).await,
                Err(why) => {
                    this.silent(&home, why).await;
                    break;
                }
            }
        }
        drop(this);
        tokio::time::sleep(EVERY).await;
    }
}

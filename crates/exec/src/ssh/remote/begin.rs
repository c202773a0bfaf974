//! Beginning an attempt on a host: what decides whether it is sent, and what its answer means.
//!
//! Invariant: `sent.json` is written before the first byte goes out and not after somebody cancelled; the directory on the
//! host is made by a question that was answered before, so a start that arrives late, after the attempt was removed,
//! finds none and runs nothing.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pitcrew_core::AttemptId;
use pitcrew_core::state::Exit;

use super::backend::{SshBackend, io_error, lock, place_of, unreachable};
use super::follow::{self, Follow};
use super::host::{Ran, Unreached};
use super::lent;
use super::marks::{Cancel, Sent};
use super::mirror::Mirror;
use super::removals::Kind;
use super::script::{self, Errand};
use super::servant::{Servant, said};
use crate::backend::{BackendError, Ended, Handle};
use crate::local::blocking;
use crate::place::SshPlace;
use crate::spec::{AttemptSpec, Command, StepSpec};
use crate::ssh::transfer::Order;
use crate::{attempt_dir, clock};

/// How long the host may take to accept an attempt once it is reached.
const ACCEPT: Duration = Duration::from_secs(60);

/// What becomes of a start.
enum Verdict {
    /// It is on the host, whatever became of it.
    Accepted,
    /// It ends here and now.
    Over(Exit),
    Unknown(String),
}

impl SshBackend {
    /// Starts an attempt that is not over.
    pub(super) async fn start_attempt(&self, handle: &Handle, spec: AttemptSpec) -> Result<(), BackendError> {
        let (agent, wrong) = match lent::of(&spec).await {
            Ok(agent) => (agent, None),
            Err(fault) => (None, Some(fault)),
        };
        let sent = Sent::of(&spec, agent.as_ref(), &*self.config.seal).map_err(|source| io_error(handle, source))?;
        drop(agent);
        let over = |exit| self.end_here(handle, &sent, exit);
        let Some(place) = place_of(handle) else {
            return over(Exit::cannot_start("it does not say on which host it is to run")).await;
        };
        if let Some(fault) = wrong {
            return over(Exit::cannot_start(fault.to_string())).await;
        }
        if spec.steps.is_empty() {
            return over(Exit::start_failed("it has no steps")).await;
        }
        if let [StepSpec { command: Command::Transfer(transfer), .. }] = &spec.steps[..] {
            let order = Order { transfer: transfer.clone(), workdir: spec.workdir.clone(), begun: clock::now() };
            return self.start_transfer(handle, place, Sent { order: Some(order), ..sent }).await;
        }
        let workspace = script::workspace_of(&self.config.instance, spec.id.run);
        let errand = match script::start(&self.name_of(&handle.id), &workspace, place, &spec) {
            Ok(errand) => errand,
            Err(reason) => return over(Exit::cannot_start(reason)).await,
        };
        drop(spec);
        // It is being started; once is enough, and `attach` tells what came of it.
        let Some(starting) = Starting::new(&self.starting, &handle.id) else { return Ok(()) };
        let begun = self.begin(handle, place, &sent, errand).await;
        drop(starting);
        match begun? {
            Verdict::Accepted => {
                if let Some((watch, follow)) = self.follow(handle, place).await? {
                    watch.look(&follow);
                }
                Ok(())
            }
            Verdict::Over(exit) => over(exit).await,
            Verdict::Unknown(reason) => Err(unreachable(reason)),
        }
    }

    /// Lets a transfer begin; it connects by itself.
    async fn start_transfer(&self, handle: &Handle, place: &SshPlace, sent: Sent) -> Result<(), BackendError> {
        if self.transfers.begun(&handle.id).is_none() && self.may_send(handle, &sent).await? {
            self.take_up(handle, place)?;
        }
        self.follow(handle, place).await.map(drop)
    }

    /// Ends an attempt of which the host knows nothing, and tells it.
    pub(super) async fn end_here(&self, handle: &Handle, sent: &Sent, exit: Exit) -> Result<(), BackendError> {
        if let Some(place) = place_of(handle).filter(|_| matches!(Sent::read(&handle.dir), Ok(Some(_)))) {
            self.note(place, Kind::Attempt, &self.name_of(&handle.id))?;
        }
        let (kept, sent) = (handle.clone(), sent.clone());
        let ended = blocking(move || {
            let now = clock::now();
            let ended = Ended::bare(exit, now);
            std::fs::create_dir_all(&kept.dir)?;
            if ended.exit != Exit::Cancelled {
                let mut mirror = Mirror::open(&kept.dir, &sent, None, now)?;
                ended.notice().map_or(Ok(()), |notice| mirror.say(now, 0, &notice))?;
            }
            follow::record(&kept, &ended)?;
            Ok(attempt_dir::recorded_end(&kept.dir)?.unwrap_or(ended))
        });
        let ended = ended.await.map_err(|source| io_error(handle, source))?;
        let _ = self.events.send(follow::told(handle, ended));
        Ok(())
    }

    /// Writes `sent.json`, unless it is over or cancelled. Says whether the start may go out.
    async fn may_send(&self, handle: &Handle, sent: &Sent) -> Result<bool, BackendError> {
        let _weighing = self.marks.lock().await;
        let (dir, sent) = (handle.dir.clone(), sent.clone());
        let decided = blocking(move || {
            if attempt_dir::exit(&dir).exists() || Cancel::read(&dir)?.is_some() {
                return Ok(false);
            }
            std::fs::create_dir_all(&dir)?;
            sent.write(&dir).map(|()| true)
        });
        decided.await.map_err(|source| io_error(handle, source))
    }

    async fn is_cancelled(&self, handle: &Handle) -> Result<bool, BackendError> {
        let dir = handle.dir.clone();
        let read = blocking(move || Cancel::read(&dir)).await;
        Ok(read.map_err(|source| io_error(handle, source))?.is_some())
    }

    async fn begin(
        &self,
        handle: &Handle,
        place: &SshPlace,
        sent: &Sent,
        errand: Errand,
    ) -> Result<Verdict, BackendError> {
        let asked = clock::instant();
        let servant = match self.watch(place).servant_now().await {
            Ok(servant) => servant,
            Err(e) if e.lasting => return Ok(Verdict::Over(Exit::cannot_start(e.words))),
            Err(e) => return Ok(self.unreached(handle, place, e)),
        };
        lock(&self.waiting).remove(&handle.id);
        let sent = Sent { connect_seconds: Some(asked.elapsed().as_secs_f64()), ..sent.clone() };
        if !self.may_send(handle, &sent).await? {
            return Ok(Verdict::Accepted);
        }
        self.take_up(handle, place)?;
        let Some((_, follow)) = self.follow(handle, place).await? else { return Ok(Verdict::Accepted) };
        follow.starting.store(true, Ordering::Relaxed);
        let verdict = self.send(handle, place, &servant, &follow, errand).await;
        follow.starting.store(false, Ordering::Relaxed);
        verdict
    }

    /// The attempt may use its run's directory there, which is removed when the run is over.
    fn take_up(&self, handle: &Handle, place: &SshPlace) -> Result<(), BackendError> {
        if place.workdir.is_some() {
            return Ok(());
        }
        let (watch, name) = (self.watch(place), script::workspace_of(&self.config.instance, handle.id.run));
        watch.removals().take_up(watch.place(), &name).map_err(|source| self.unwritten(source))
    }

    async fn send(
        &self,
        handle: &Handle,
        place: &SshPlace,
        servant: &Servant,
        follow: &Follow,
        errand: Errand,
    ) -> Result<Verdict, BackendError> {
        match servant.make(&self.name_of(&handle.id)).await {
            // Cancelled in the meantime: whoever follows it sees to that.
            Ok(None) if self.is_cancelled(handle).await? => return Ok(Verdict::Accepted),
            Ok(None) => {}
            Ok(Some(why)) => return Ok(Verdict::Over(refused(&why, place))),
            Err(e) => return Ok(Verdict::Unknown(e.words)),
        }
        match follow.keep_lent(servant, &*self.hosts, place).await {
            Ok(()) => {}
            Err(e) if e.lasting => return Ok(Verdict::Over(Exit::cannot_start(e.words))),
            Err(e) => return Ok(Verdict::Unknown(e.words)),
        }
        Ok(match tokio::time::timeout(ACCEPT, self.hosts.run(place, &errand.command, &errand.input)).await {
            Ok(Ok(ran)) => verdict(&ran, &errand.mark, place),
            Ok(Err(e)) => Verdict::Unknown(e.words),
            Err(_) => Verdict::Unknown(format!("`{place}` did not answer within {} s", ACCEPT.as_secs())),
        })
    }

    /// Nothing was sent, so it can be given up: after as long as one connect may take.
    fn unreached(&self, handle: &Handle, place: &SshPlace, e: Unreached) -> Verdict {
        let sent = Sent::read(&handle.dir).is_ok_and(|sent| sent.is_none());
        let since = *lock(&self.waiting).entry(handle.id.clone()).or_insert_with(clock::instant);
        if sent && since.elapsed() >= Duration::from_secs(place.timeout_s.into()) {
            lock(&self.waiting).remove(&handle.id);
            return Verdict::Over(Exit::start_failed(e.words));
        }
        Verdict::Unknown(e.words)
    }
}

/// A start that is under way, until this is dropped.
struct Starting<'a> {
    all: &'a Mutex<HashSet<AttemptId>>,
    id: AttemptId,
}

impl<'a> Starting<'a> {
    /// `None`: it is already.
    fn new(all: &'a Mutex<HashSet<AttemptId>>, id: &AttemptId) -> Option<Self> {
        lock(all).insert(id.clone()).then(|| Starting { all, id: id.clone() })
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        lock(self.all).remove(&self.id);
    }
}

/// Reads the answer of the bootstrap.
fn verdict(ran: &Ran, mark: &str, place: &SshPlace) -> Verdict {
    let text = String::from_utf8_lossy(&ran.stdout);
    let answer = text.lines().find_map(|line| line.strip_prefix(mark)).map(str::trim);
    let Some(answer) = answer else {
        return match ran.code {
            // The connection broke half-way, and nothing began.
            Some(65) | None => Verdict::Unknown(format!("`{place}` did not get all of it")),
            Some(code) => {
                let words = said(&[&ran.stdout[..], b" ", &ran.stderr].concat());
                Verdict::Over(Exit::cannot_start(format!(
                    "`{place}` does not run /bin/sh for this user: exit code {code}, it said `{words}`"
                )))
            }
        };
    };
    match answer.split_once(' ').unwrap_or((answer, "")) {
        ("began" | "exists", _) => Verdict::Accepted,
        ("lacks", program) => Verdict::Over(Exit::cannot_start(format!(
            "`{place}` lacks `{program}`: install it there ({})",
            match program {
                "setsid" => "package util-linux",
                "grep" => "package grep",
                _ => "package coreutils",
            }
        ))),
        (_, why) => Verdict::Over(refused(why, place)),
    }
}

/// The host has no room for it.
fn refused(why: &str, place: &SshPlace) -> Exit {
    if why.contains("No space left") {
        Exit::cannot_start(format!("the disk of `{place}` is full ({why}): free space there, then `pitcrew retry`"))
    } else {
        Exit::start_failed(format!("`{place}` cannot begin it: {why}"))
    }
}

//! Between the scheduler and recovery: who tells whom of what.
//!
//! The scheduler tells a [`Recoverer`] what becomes of jobs that hold GPUs of a node, always after that is written, and asks
//! it at the end of an attempt that failed whether its verdict is to be waited for. Recovery orders a job to be stopped,
//! begun anew or given up, and each order says which attempt it means: told twice, or too late, it does nothing.
//!
//! A job is an instance, or a gang, by its [`JobKey`]. Invariant: whatever was told may be told again after a restart of the
//! server, and what was not told before it is told then, as far as the job is not over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::SignedDuration;
use pitcrew_core::engine::record::{AttemptRecord, Stop};
use pitcrew_core::engine::{Event, Offer, Ruling, Run, Slot};
use pitcrew_core::explain::Reason;
use pitcrew_core::fleet::{Expression, NODE_LABEL, Operator, Term};
use pitcrew_core::recovery::{Asks, Input, JobKey, JobSpec, Place};
use pitcrew_core::state::{Exit, State};
use pitcrew_exec::{Backend, Handle};

use tokio::sync::oneshot;

use super::active::Active;
use super::core_loop::Core;
use super::perform::After;
use super::{Ask, AskError, Claim, Scheduler};

/// How long it is waited for recovery before leadership is looked at again.
const READY: Duration = Duration::from_secs(2);

/// Recovery, as the scheduler knows it. Neither of them may wait: they are called between two commits.
pub trait Recoverer: Send + Sync {
    /// Whether recovery decides what becomes of this job, of which an attempt has failed on this node. Of whatever this is true,
    /// recovery gives a verdict sooner or later. That the job started is told after this where it ended at once.
    fn holds(&self, node: &str, job: &str) -> bool;
    /// Something happened, and is written. May be told twice.
    fn tell(&self, input: Input);
    /// All of an attempt runs, or did: said before it is told. May be said twice.
    fn watch(&self, _watched: Watched) {}
    /// Whether there is anybody who gives verdicts.
    fn is_on(&self) -> bool {
        true
    }
    /// This server is about to lead: what was known of nodes and jobs is to be read anew.
    fn comes_to_lead(&self) {}
    /// Returns when that is done, and the nodes that are fenced are. Before that, nothing may be taken or placed.
    fn ready(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// An attempt of a job, and what is to be known to watch it.
#[derive(Clone)]
pub struct Watched {
    pub job: String,
    pub attempt: u32,
    pub asks: Asks,
    /// By rank.
    pub members: Vec<Member>,
}

/// A member of a job, or all of it.
#[derive(Clone)]
pub struct Member {
    pub backend: Arc<dyn Backend>,
    pub handle: Handle,
    pub place: Place,
}

/// Where there is no recovery.
pub struct NoRecovery;

impl Recoverer for NoRecovery {
    fn holds(&self, _node: &str, _job: &str) -> bool {
        false
    }

    fn tell(&self, _input: Input) {}

    fn is_on(&self) -> bool {
        false
    }
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAnswer {
    /// It was done. `live`: something of the attempt runs yet, and its end will be told.
    Done { live: bool },
    /// It was so already.
    Already { live: bool },
    /// There is no such job, or it is over, or another attempt than the one that was meant goes on.
    Over,
}

pub(super) enum Order {
    Stop { attempt: u32, reason: String, force: bool },
    Restart { attempt: u32, not_before: Timestamp, draws: bool, exclude: BTreeSet<String> },
    Fail { attempt: u32, why: String, leave: bool },
    Look { attempt: u32 },
}

impl Scheduler {
    /// Ends all that runs of this attempt, and lets the job wait for a verdict; or takes back a restart that has not begun.
    /// `force`: not politely any more.
    pub async fn stop_job(&self, job: &str, attempt: u32, reason: &str, force: bool) -> Result<JobAnswer, AskError> {
        self.order(job, Order::Stop { attempt, reason: reason.to_owned(), force }).await
    }

    /// Lets a job that waits for a verdict begin anew as this attempt, if it can on none of `exclude`. That is kept until it begins
    /// or this server ends. `draws`: it counts against the task's retries; if none is left, it fails, and the answer is
    /// [`JobAnswer::Over`].
    pub async fn restart_job(
        &self,
        job: &str,
        attempt: u32,
        not_before: Timestamp,
        draws: bool,
        exclude: BTreeSet<String>,
    ) -> Result<JobAnswer, AskError> {
        self.order(job, Order::Restart { attempt, not_before, draws, exclude }).await
    }

    /// Fails a job that waits for a verdict, or for room; or, with `leave`, lets it go on as if recovery had never been there.
    pub async fn fail_job(&self, job: &str, attempt: u32, why: &str, leave: bool) -> Result<JobAnswer, AskError> {
        self.order(job, Order::Fail { attempt, why: why.to_owned(), leave }).await
    }

    /// Returns when no work is placed any more on nodes that were fenced before this, and what was placed there is written.
    pub async fn settled(&self) -> Result<(), AskError> {
        self.ask(|reply| Ask::Settled { reply }).await
    }

    /// Ends tasks on a node that recovery does not know, since they have none of its GPUs; they begin anew elsewhere.
    pub async fn make_room(&self, node: &str, reason: &str) -> Result<(), AskError> {
        let (node, reason) = (node.to_owned(), reason.to_owned());
        self.ask(|reply| Ask::MakeRoom { node, reason, reply }).await
    }

    /// Whether this attempt runs, or waits for a verdict (`Already`), or is over. For recovery, when it comes back.
    pub async fn look_at_job(&self, job: &str, attempt: u32) -> Result<JobAnswer, AskError> {
        self.order(job, Order::Look { attempt }).await
    }
}

/// What a job is doing.
enum Doing {
    /// A member runs, at least.
    Lives,
    Recovering,
    /// It is to begin, anew or for the first time.
    Waits,
    Neither,
}

fn doing(run: &Run, slot: Slot) -> (Doing, u32) {
    let members = run.with_mates(slot);
    let any = |is: fn(State) -> bool| members.iter().any(|mate| is(run.instance(*mate).state));
    let doing = if any(State::is_live) {
        Doing::Lives
    } else if any(|state| state == State::Recovering) {
        Doing::Recovering
    } else if any(|state| matches!(state, State::Scheduled | State::UpForRetry { .. })) {
        Doing::Waits
    } else {
        Doing::Neither
    };
    (doing, run.instance(slot).attempt)
}

/// What a person may have changed of a job.
pub(super) type Standing = BTreeMap<Slot, (State, Option<Stop>)>;

impl Core {
    /// The answer, and the run that it is about if there is one.
    pub(super) async fn order(&mut self, job: &str, order: Order) -> Result<(Option<RunKey>, JobAnswer), AskError> {
        let Ok(key) = job.parse::<JobKey>() else { return Ok((None, JobAnswer::Over)) };
        match self.loaded(key.run).await {
            Ok(()) => {}
            Err(AskError::NoSuchRun(_)) => return Ok((None, JobAnswer::Over)),
            Err(error) => return Err(error),
        }
        let Some(slot) = key.slot(&self.runs[&key.run].run) else { return Ok((Some(key.run), JobAnswer::Over)) };
        let answer = match order {
            Order::Stop { attempt, reason, force } => self.stop_job(key.run, slot, attempt, reason, force),
            Order::Restart { attempt, not_before, draws, exclude } => {
                self.restart_job(key.run, slot, attempt, not_before, draws, exclude)
            }
            Order::Fail { attempt, why, leave } => self.fail_job(key.run, slot, attempt, why, leave),
            Order::Look { attempt } => match doing(&self.runs[&key.run].run, slot) {
                (Doing::Lives, now) if now == attempt => JobAnswer::Already { live: true },
                // Recovery counts the next one when it orders it, and that order may be on its way.
                (Doing::Recovering, now) if now <= attempt => JobAnswer::Already { live: false },
                (Doing::Waits, now) if now < attempt => JobAnswer::Already { live: false },
                (Doing::Lives | Doing::Recovering | Doing::Waits | Doing::Neither, _) => JobAnswer::Over,
            },
        };
        Ok((Some(key.run), answer))
    }

    fn stop_job(&mut self, key: RunKey, slot: Slot, attempt: u32, reason: String, force: bool) -> JobAnswer {
        let run = &self.runs[&key].run;
        match doing(run, slot) {
            (Doing::Lives, now) if now == attempt => {
                let live: Vec<Slot> =
                    run.with_mates(slot).into_iter().filter(|mate| run.instance(*mate).state.is_live()).collect();
                let goes_on = |mate: &Slot| matches!(run.instance(*mate).stop, None | Some(Stop::Gang));
                let is_news = live.iter().any(goes_on);
                if is_news {
                    self.apply(key, Event::Suspect { slot, reason });
                }
                if force {
                    let grace = SignedDuration::ZERO;
                    let cancel = |mate| After::Cancel { run: key, slot: mate, attempt, grace };
                    self.after.extend(live.into_iter().map(cancel));
                }
                if is_news { JobAnswer::Done { live: true } } else { JobAnswer::Already { live: true } }
            }
            (Doing::Recovering, now) if now <= attempt => JobAnswer::Already { live: false },
            (Doing::Waits, now) if now < attempt => {
                self.apply(key, Event::Suspect { slot, reason });
                JobAnswer::Done { live: false }
            }
            (Doing::Lives | Doing::Recovering | Doing::Waits | Doing::Neither, _) => JobAnswer::Over,
        }
    }

    fn restart_job(
        &mut self,
        key: RunKey,
        slot: Slot,
        number: u32,
        at: Timestamp,
        draws: bool,
        exclude: BTreeSet<String>,
    ) -> JobAnswer {
        let (what, now) = doing(&self.runs[&key].run, slot);
        let is_next = now + 1 == number;
        // It may have been ordered of a server that is gone, and these are in no row.
        let begins = matches!(what, Doing::Recovering | Doing::Waits) && now < number;
        if let Some(active) = self.runs.get_mut(&key).filter(|_| begins) {
            let speaker = active.run.speaker(slot);
            active.excluded.insert(speaker, exclude);
        }
        match what {
            Doing::Lives if now == number => return JobAnswer::Already { live: true },
            Doing::Recovering if now < number => {}
            // It was counted more often than it began: the numbers are made to agree.
            Doing::Waits if now < number && !is_next => {
                let reason = "recovery counts its attempts anew".to_owned();
                self.apply(key, Event::Suspect { slot, reason });
            }
            Doing::Waits if is_next => return JobAnswer::Already { live: false },
            Doing::Lives | Doing::Recovering | Doing::Waits | Doing::Neither => return JobAnswer::Over,
        }
        self.apply(key, Event::Recovered { slot, attempt: now, verdict: Ruling::Restart { at, number, draws } });
        match doing(&self.runs[&key].run, slot) {
            (Doing::Waits, _) => JobAnswer::Done { live: false },
            (Doing::Lives | Doing::Recovering | Doing::Neither, _) => JobAnswer::Over,
        }
    }

    fn fail_job(&mut self, key: RunKey, slot: Slot, attempt: u32, why: String, leave: bool) -> JobAnswer {
        let (what, now) = doing(&self.runs[&key].run, slot);
        let (live, fits) = match what {
            Doing::Lives => (true, now == attempt && !leave),
            Doing::Recovering => (false, now <= attempt),
            Doing::Waits => (false, now < attempt && !leave),
            Doing::Neither => (false, false),
        };
        if !fits {
            return match what {
                Doing::Lives if now == attempt => JobAnswer::Already { live: true },
                Doing::Lives | Doing::Recovering | Doing::Waits | Doing::Neither => JobAnswer::Over,
            };
        }
        let verdict = if leave { Ruling::Leave } else { Ruling::Fail { why } };
        self.apply(key, Event::Recovered { slot, attempt, verdict });
        JobAnswer::Done { live }
    }

    /// Tells recovery when the rows so far are written.
    fn tell(&mut self, run: RunKey, input: Input) {
        self.after.push(After::Tell(run, Box::new(input)));
    }

    /// Whether recovery knows what it should before anything is taken or placed, and its fences are heeded. It is waited for,
    /// but not for ever: meanwhile another server may have come to lead.
    pub(super) async fn is_recovery_ready(&mut self) -> bool {
        if self.parts.claim == Claim::Leading
            && tokio::time::timeout(READY, self.parts.recoverer.ready()).await.is_err()
        {
            return false;
        }
        if self.parts.nodes.has_changed().unwrap_or(false) {
            self.take_nodes().await;
        }
        true
    }

    pub(super) async fn settle_nodes(&mut self, reply: oneshot::Sender<()>) {
        if self.parts.nodes.has_changed().unwrap_or(false) {
            self.take_nodes().await;
        }
        self.after.push(After::Answer(Box::new(move || {
            // Whoever asked may have gone.
            let _ = reply.send(());
        })));
    }

    pub(super) fn make_room(&mut self, node: &str, reason: &str) {
        let mut there: Vec<(RunKey, Slot)> = Vec::new();
        for (key, active) in &self.runs {
            let is_there = |row: &AttemptRecord| row.node.as_deref() == Some(node) && row.gpus.is_empty();
            let lives = |slot: Slot| {
                let instance = active.run.instance(slot);
                instance.state.is_live() && instance.stop.is_none()
            };
            let on_node = active.attempts.iter().filter(|(slot, row)| is_there(row) && lives(**slot));
            there.extend(on_node.filter(|(slot, _)| active.job(**slot).is_none()).map(|(slot, _)| (*key, *slot)));
        }
        for (key, slot) in there {
            self.apply(key, Event::Preempt { slot, reason: reason.to_owned() });
        }
    }

    /// Jobs that wait for a verdict which nobody gives, as recovery is off now: they go on as if it had never been there.
    pub(super) fn let_recovering_go(&mut self, key: RunKey) {
        if self.parts.recoverer.is_on() {
            return;
        }
        let Some(run) = self.runs.get(&key).map(|active| &active.run) else { return };
        let waits = |slot: &Slot| run.instance(*slot).state == State::Recovering;
        let waiting: BTreeSet<Slot> = run.all_slots().filter(waits).map(|slot| run.speaker(slot)).collect();
        for slot in waiting {
            let Some(active) = self.runs.get(&key) else { return };
            tracing::warn!(
                run = key.0,
                "a task waits for a verdict of recovery, which is off now: it goes on by its own retries"
            );
            let attempt = active.run.instance(slot).attempt;
            self.apply(key, Event::Recovered { slot, attempt, verdict: Ruling::Leave });
        }
    }

    /// Of attempts that are about to be launched.
    pub(super) fn tell_starting(&mut self, key: RunKey, launched: impl Iterator<Item = Slot>) {
        let Some(active) = self.runs.get(&key) else { return };
        let jobs: BTreeSet<Slot> = launched.map(|slot| active.run.speaker(slot)).collect();
        let starting = |slot| {
            let job = active.job(slot)?;
            let attempt = active.run.instance(slot).attempt;
            Some(Input::JobStarting { job, attempt, ranks: active.places(slot) })
        };
        let inputs: Vec<Input> = jobs.into_iter().filter_map(starting).collect();
        inputs.into_iter().for_each(|input| self.tell(key, input));
    }

    /// An attempt runs now: once all of its job do, recovery is told.
    pub(super) fn tell_started(&mut self, key: RunKey, slot: Slot) {
        self.begins_on_node(key, slot);
        let Some(active) = self.runs.get(&key) else { return };
        let is_there = |mate: &Slot| active.run.instance(*mate).state != State::Queued;
        if active.run.with_mates(slot).iter().all(is_there) {
            self.tell_all_started(key, slot);
        }
    }

    fn tell_all_started(&mut self, key: RunKey, slot: Slot) {
        let Some(active) = self.runs.get_mut(&key) else { return };
        let Some(job) = active.job(slot) else { return };
        let (speaker, attempt) = (active.run.speaker(slot), active.run.instance(slot).attempt);
        if active.told.insert(speaker, attempt) == Some(attempt) {
            return;
        }
        let retries = active.run.workflow.task(slot.task).retry.retries;
        let spec = JobSpec { application_restarts: retries, ..JobSpec::default() };
        let ranks = active.places(slot);
        self.watch_job(key, slot, &job, attempt);
        self.tell(key, Input::JobStarted { job, attempt, ranks, spec });
    }

    fn watch_job(&self, key: RunKey, slot: Slot, job: &str, attempt: u32) {
        let Some(active) = self.runs.get(&key) else { return };
        let member = |(mate, place): (Slot, Place)| {
            let row = active.attempts.get(&mate)?;
            let handle = serde_json::from_value(row.handle.clone()).ok()?;
            Some(Member { backend: self.backend(&row.backend), handle, place })
        };
        let mates = active.run.with_mates(slot).into_iter().zip(active.places(slot));
        // Of a member that cannot be found nothing could be told under its number.
        let Some(members) = mates.map(member).collect() else { return };
        let asks = active.run.workflow.task(slot.task).recovery.clone();
        self.parts.recoverer.watch(Watched { job: job.to_owned(), attempt, asks, members });
    }

    /// Whether recovery is to say what becomes of a failure.
    pub(super) fn is_held(&self, key: RunKey, slot: Slot, exit: &Exit) -> bool {
        let Some(active) = self.runs.get(&key) else { return false };
        let node = active.attempts.get(&slot).and_then(|row| row.node.as_deref());
        match (active.job(slot), node) {
            (Some(job), Some(node)) => !exit.is_success() && self.parts.recoverer.holds(node, &job),
            (Some(_) | None, _) => false,
        }
    }

    /// An attempt has ended, and its row says how.
    pub(super) fn tell_ended(&mut self, key: RunKey, slot: Slot, row: &AttemptRecord) {
        let Some(active) = self.runs.get(&key) else { return };
        let Some(job) = active.job(slot) else { return };
        let Some(exit) = row.exit.clone() else { return };
        let skips = &active.run.workflow.task(slot.task).skip_exit_codes;
        // It had nothing to do, which is no failure.
        let exit = match exit {
            Exit::Code { code } if skips.contains(&code) => Exit::Code { code: 0 },
            exit => exit,
        };
        let rank = if active.run.members(slot.task).is_some() { slot.index } else { 0 };
        self.tell_all_started(key, slot);
        let (attempt, message) = (row.number, row.message.clone());
        self.tell(key, Input::RankEnded { job, attempt, rank, exit, message });
    }

    /// What recovery should know of a run that was just loaded, and may have been told before.
    pub(super) fn tell_again(&mut self, key: RunKey) {
        let Some(active) = self.runs.get(&key) else { return };
        let run = &active.run;
        let is_going = |slot: &Slot| {
            let state = run.instance(*slot).state;
            state.is_live() || matches!(state, State::Recovering | State::Deferred)
        };
        let going: Vec<Slot> = run.all_slots().filter(is_going).collect();
        let live: Vec<Slot> = going.iter().copied().filter(|slot| run.instance(*slot).state.is_live()).collect();
        let mut ended: Vec<(Slot, AttemptRecord)> = going
            .iter()
            .filter(|slot| !run.instance(**slot).state.is_live())
            .filter_map(|slot| Some((*slot, active.attempts.get(slot)?.clone())))
            .collect();
        // As it was: who failed first is told first. Those that were ended for that were not cancelled by a person.
        ended.sort_by_key(|(_, row)| (row.exit == Some(Exit::Cancelled), row.end));
        self.tell_starting(key, live.iter().copied());
        live.into_iter().for_each(|slot| self.tell_started(key, slot));
        ended.into_iter().for_each(|(slot, row)| self.tell_ended(key, slot, &row));
    }

    /// Before a person changes something.
    pub(super) fn standing(&self, key: RunKey) -> Standing {
        let Some(active) = self.runs.get(&key) else { return Standing::new() };
        let run = &active.run;
        let concerns = |slot: &Slot| {
            let instance = run.instance(*slot);
            let waits = matches!(instance.state, State::Scheduled | State::UpForRetry { .. }) && instance.attempt > 0;
            let may_run = instance.state.is_live() || instance.state == State::Recovering;
            (may_run && active.job(*slot).is_some()) || waits
        };
        let of = |slot: Slot| (slot, (run.instance(slot).state, run.instance(slot).stop));
        run.all_slots().filter(concerns).map(of).collect()
    }

    /// After it: jobs that do not go on as they did were stopped by that person.
    pub(super) fn tell_stopped(&mut self, key: RunKey, before: Standing, by: &str) {
        let Some(active) = self.runs.get(&key) else { return };
        let now = |slot: Slot| active.run.get(slot).map(|instance| (instance.state, instance.stop));
        let changed = before.into_iter().filter(|(slot, was)| now(*slot) != Some(*was)).map(|(slot, _)| slot);
        let jobs: BTreeSet<String> = changed.map(|slot| JobKey::of(&active.run, slot).to_string()).collect();
        for job in jobs {
            self.tell(key, Input::UserStop { job, by: by.to_owned() });
        }
    }
}

/// Why it waits, with the node that is being checked.
pub(super) fn with_node(active: &Active, slot: Slot, reason: Reason) -> Reason {
    match reason {
        Reason::WaitsForVerdict { node: None, after } => {
            let row = active.attempts.get(&active.run.suspect_of(slot));
            // The messages that are made here say how it ended by themselves.
            let after = match after.split_once(": ") {
                Some((exit, message)) if message.contains(exit) => message.to_owned(),
                Some(_) | None => after,
            };
            Reason::WaitsForVerdict { node: row.and_then(|row| row.node.clone()), after }
        }
        reason => reason,
    }
}

impl Active {
    /// By what recovery knows the instance or its gang, if an attempt of it holds GPUs of a node.
    fn job(&self, slot: Slot) -> Option<String> {
        let holds = |mate: &Slot| {
            self.attempts.get(mate).is_some_and(|row| {
                row.number == self.run.instance(*mate).attempt && row.node.is_some() && !row.gpus.is_empty()
            })
        };
        let is_watched = self.run.with_mates(slot).iter().any(holds);
        is_watched.then(|| JobKey::of(&self.run, slot).to_string())
    }

    fn places(&self, slot: Slot) -> Vec<Place> {
        let place = |mate: Slot| {
            let row = self.attempts.get(&mate);
            let node = row.and_then(|row| row.node.clone()).unwrap_or_default();
            Place { node, gpus: row.map(|row| row.gpus.clone()).unwrap_or_default() }
        };
        self.run.with_mates(slot).into_iter().map(place).collect()
    }

    /// The same offer, but for the nodes that recovery wants it to keep off.
    pub(super) fn kept_off(&self, offer: &Offer) -> Option<Offer> {
        let names = self.excluded.get(&offer.slot).filter(|names| !names.is_empty())?;
        let mut request = offer.demand.request.as_deref().cloned()?;
        let values = names.iter().cloned().collect();
        let off = Expression { key: NODE_LABEL.to_owned(), operator: Operator::NotIn, values };
        if request.required.is_empty() {
            request.required.push(Term(Vec::new()));
        }
        request.required.iter_mut().for_each(|term| term.0.push(off.clone()));
        let mut narrow = offer.clone();
        narrow.demand.request = Some(Arc::new(request));
        Some(narrow)
    }
}

#[cfg(test)]
pub(crate) mod tests;

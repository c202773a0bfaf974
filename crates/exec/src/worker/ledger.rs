//! What the server knows of one worker: which attempts are its, what it last said of each, and what it is still to be told.
//!
//! Pure: a sync goes in, facts and an answer come out, and time is an argument: how long the server has led. Invariants:
//! what was found to be lost stays lost, whatever is heard of it later; what a worker is to do is said again until it is
//! seen to have done it; an attempt that ran and is not there any more is lost, never one that did not begin.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::{AttemptId, RunKey};

use super::clocks;
use super::protocol::{Answer, Cancel, End, Has, How, Order, PROTOCOL, Sync};
use crate::backend::Observation;

/// After this long without a sign that it arrived, something is said again.
pub const REPEAT: SignedDuration = SignedDuration::from_secs(2);
/// How long something that is to be said waits for more: what the worker misses nothing without, and orders while others
/// wait there for a slot.
const LATER: SignedDuration = SignedDuration::from_millis(500);
const GATHERED: SignedDuration = SignedDuration::from_millis(10);
/// How often it is said that a run is over. Nobody confirms it; a worker that keeps the directory asks about it later.
const LEAVES: u8 = 3;

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    incarnation: u64,
    seq: u64,
    /// When it was last heard.
    heard: Option<SignedDuration>,
    /// It takes no more work.
    draining: bool,
    /// Whether somebody drains it, and whether it heard that.
    drain: bool,
    is_drain_heard: bool,
    /// When it was last told whether to drain; `None`: not since that changed.
    drain_said: Option<SignedDuration>,
    attempts: BTreeMap<AttemptId, Attempt>,
    /// Runs that are over, and how often that was said.
    leaves: BTreeMap<RunKey, u8>,
    /// It has orders that wait for a slot.
    has_backlog: bool,
    /// Nothing is to be said before this; `None`: nothing at all.
    due: Option<SignedDuration>,
    /// The worker brings logs that it is asked for.
    brings_logs: bool,
    /// The worker was started somewhere else before this server heard of it: until when what is named here may be there.
    strangers: Option<SignedDuration>,
}

#[derive(Debug)]
struct Attempt {
    /// Whoever works on its run has named it by its handle; what a worker says of others is not believed.
    is_claimed: bool,
    /// Since when the server knows of it, or looked it up.
    since: SignedDuration,
    /// Until the worker is seen to have it.
    order: Option<Order>,
    /// The order was said: it may be on its way.
    is_ordered: bool,
    cancel: Option<Cancel>,
    /// Its end is committed.
    forget: bool,
    /// Its end is here and waits for the rest of its log.
    wants_log: bool,
    told: Told,
    /// When what is to be done about it is to be said, or said again.
    due: SignedDuration,
    /// Since when nothing is heard of an earlier process of the worker elsewhere, which was given this and may run it.
    elsewhere: Option<SignedDuration>,
}

/// What the worker last said of an attempt.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Nothing,
    Waiting,
    Running(Timestamp),
    /// It is over, and another server was told how; this one will be.
    Unsaid,
    /// The end itself is here until somebody takes it.
    Ended(Option<Box<End>>),
    /// That is what the server found, or the worker said.
    Lost(String),
}

/// Something new about an attempt that is claimed.
#[derive(Debug, Clone, PartialEq)]
pub enum Fact {
    Started(AttemptId, Timestamp),
    /// To be taken with [`Ledger::take_end`].
    Ended(AttemptId),
    Lost(AttemptId, String),
    /// It waited there, and the worker has no trace of it any more: whoever asked for it asks again.
    NeverBegan(AttemptId),
}

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    Observed(Observation),
    /// The worker told its end, and it was taken.
    Over,
}

/// The process that spoke is not the one that started last with this credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "another process goes by the credential of this worker and started later (start {newest}, this one is {found}): \
     two workers need two names and two data directories"
)]
pub struct Superseded {
    pub found: u64,
    pub newest: u64,
}

impl Ledger {
    /// Whether the sync is newer than all before.
    pub fn is_new(&self, sync: &Sync) -> Result<bool, Superseded> {
        let (found, newest) = (sync.incarnation, self.incarnation);
        match found < newest {
            true => Err(Superseded { found, newest }),
            false => Ok(found > newest || sync.seq > self.seq),
        }
    }

    /// Whether this sync is the last one that came.
    pub fn is_last(&self, incarnation: u64, seq: u64) -> bool {
        (self.incarnation, self.seq) == (incarnation, seq)
    }

    /// Takes what a worker says that was received at `now`, when our clock showed `at`. A sync that comes late changes
    /// nothing.
    pub fn take(&mut self, now: SignedDuration, at: Timestamp, sync: Sync) -> Result<Vec<Fact>, Superseded> {
        if !self.is_new(&sync)? {
            return Ok(Vec::new());
        }
        let behind = clocks::behind(sync.clock, at);
        (self.incarnation, self.seq) = (sync.incarnation, sync.seq);
        self.heard = self.heard.max(Some(now));
        (self.draining, self.is_drain_heard) = (sync.draining, sync.drained);
        self.brings_logs = sync.brings_logs;
        self.has_backlog = sync.has.iter().any(|has| has.how == How::Waiting);
        if self.drain != self.is_drain_heard {
            self.is_due(now);
        }
        let mut facts = Vec::new();
        let has: BTreeMap<AttemptId, How> = sync.has.into_iter().map(|Has { attempt, how }| (attempt, how)).collect();
        self.missing(&has, &mut facts);
        let strangers = self.strangers_at(now);
        for (id, mut how) in has {
            clocks::translate(&mut how, behind, at);
            let fresh = || Attempt { elsewhere: strangers, ..Attempt::new(now, false) };
            let attempt = self.attempts.entry(id.clone()).or_insert_with(fresh);
            attempt.order = None;
            let was_away = attempt.elsewhere.is_some();
            facts.extend(attempt.take(&id, how));
            if was_away && attempt.elsewhere.is_none() && attempt.is_open() {
                attempt.due = now;
                self.due = Some(self.due.map_or(now, |due| due.min(now)));
            }
        }
        Ok(facts)
    }

    /// What it no longer has.
    fn missing(&mut self, has: &BTreeMap<AttemptId, How>, facts: &mut Vec<Fact>) {
        self.attempts.retain(|id, attempt| {
            if has.contains_key(id) {
                return true;
            }
            if attempt.forget || !attempt.is_claimed {
                return false;
            }
            if attempt.elsewhere.is_some() {
                return true;
            }
            match &attempt.told {
                Told::Nothing | Told::Ended(_) | Told::Lost(_) => {}
                Told::Waiting => {
                    attempt.told = Told::Nothing;
                    // Its order was dropped when it arrived. One that is to end is told so, and needs no order for that.
                    facts.extend(attempt.cancel.is_none().then(|| Fact::NeverBegan(id.clone())));
                }
                Told::Running(_) | Told::Unsaid => {
                    let reason = "its worker has no trace of it any more".to_owned();
                    facts.push(Fact::Lost(id.clone(), reason.clone()));
                    attempt.told = Told::Lost(reason);
                }
            }
            true
        });
    }

    /// The worker comes from another place than before: on another machine, or with a copy of its directory. What the
    /// process before was given may go on there until its lease is over, though this one knows nothing of it; until then
    /// none of it is given to anybody, and after that it is lost.
    pub fn moved(&mut self, patience: SignedDuration) {
        let since = self.heard.unwrap_or_default();
        if self.heard.is_none() {
            self.strangers = Some(since + patience);
        }
        for attempt in self.attempts.values_mut() {
            let was_given = self.heard.is_none() || attempt.is_ordered || attempt.told != Told::Nothing;
            if was_given && !attempt.is_over() {
                (attempt.elsewhere, attempt.order) = (attempt.elsewhere.or(Some(since)), None);
            }
        }
    }

    /// Since when what is named now for the first time may be elsewhere.
    fn strangers_at(&self, now: SignedDuration) -> Option<SignedDuration> {
        self.strangers.filter(|until| now <= *until).map(|_| SignedDuration::ZERO)
    }

    /// Somebody works on the run of this attempt.
    pub fn claim(&mut self, now: SignedDuration, id: &AttemptId) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.is_claimed = true;
        } else if let elsewhere @ Some(_) = self.strangers_at(now) {
            self.attempts.insert(id.clone(), Attempt { elsewhere, ..Attempt::new(now, true) });
        } else if self.heard.is_none() {
            // What the worker says of it later is then believed.
            self.attempts.insert(id.clone(), Attempt::new(now, true));
        }
    }

    /// The end that the worker told, once.
    pub fn take_end(&mut self, id: &AttemptId) -> Option<Box<End>> {
        let attempt = self.attempts.get_mut(id).filter(|attempt| attempt.is_claimed)?;
        match &mut attempt.told {
            Told::Ended(end) => {
                let end = end.take()?;
                attempt.wants_log = false;
                if let End::Lost { reason } = &*end {
                    attempt.told = Told::Lost(reason.clone());
                }
                Some(end)
            }
            Told::Nothing | Told::Waiting | Told::Running(_) | Told::Unsaid | Told::Lost(_) => None,
        }
    }

    /// An end that was taken and could not be kept.
    pub fn give_back(&mut self, id: &AttemptId, end: Box<End>) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            attempt.told = Told::Ended(Some(end));
        }
    }

    /// Whether the worker can be asked for what lacks of a log: not one that has been silent for so long.
    pub fn brings_logs(&self, now: SignedDuration, patience: SignedDuration) -> bool {
        self.brings_logs && now - self.heard.unwrap_or_default() <= patience
    }

    /// An end that is only to be kept once the log is whole: the worker is asked for it, and tells the end again.
    pub fn want_log(&mut self, now: SignedDuration, id: &AttemptId, end: Box<End>) {
        if let Some(attempt) = self.attempts.get_mut(id) {
            (attempt.told, attempt.wants_log, attempt.due) = (Told::Ended(Some(end)), true, now);
            self.is_due(now);
        }
    }

    /// Has the worker start an attempt, unless it has it.
    pub fn order(&mut self, now: SignedDuration, order: Order) {
        let attempt = self.attempts.entry(order.handle.id.clone()).or_insert_with(|| Attempt::new(now, true));
        attempt.is_claimed = true;
        if attempt.told == Told::Nothing {
            // Nobody orders what may be elsewhere: it is new.
            (attempt.order, attempt.elsewhere) = (Some(order), None);
            attempt.due = if self.has_backlog { now + GATHERED } else { now };
            let due = attempt.due;
            self.is_due(due);
        }
    }

    fn is_due(&mut self, at: SignedDuration) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Has the worker end an attempt. `false`: the worker never heard of it, and never will.
    pub fn cancel(&mut self, now: SignedDuration, cancel: Cancel) -> bool {
        let attempt = self.attempts.entry(cancel.handle.id.clone()).or_insert_with(|| Attempt::new(now, true));
        attempt.is_claimed = true;
        if attempt.order.is_some() && !attempt.is_ordered {
            (attempt.order, attempt.forget) = (None, true);
            return false;
        }
        if !attempt.is_over() {
            let grace_ms = attempt.cancel.as_ref().map_or(u64::MAX, |before| before.grace_ms);
            attempt.cancel = Some(Cancel { grace_ms: grace_ms.min(cancel.grace_ms), ..cancel });
            attempt.due = now;
            self.is_due(now);
        }
        true
    }

    /// The end of an attempt is committed, or nobody knows of it: the worker may forget it.
    pub fn forget(&mut self, now: SignedDuration, id: &AttemptId) {
        let Some(attempt) = self.attempts.get_mut(id) else { return };
        // It keeps what is over, which costs it little; unless it runs, or only waits for this to be gone.
        let is_kept = attempt.is_over() && !self.draining && !self.drain;
        (attempt.forget, attempt.order, attempt.cancel, attempt.wants_log) = (true, None, None, false);
        attempt.due = if is_kept { now + LATER } else { now };
        let due = attempt.due;
        self.is_due(due);
    }

    /// The run is over.
    pub fn leave(&mut self, now: SignedDuration, run: RunKey) {
        self.leaves.insert(run, 0);
        self.is_due(now);
    }

    pub fn set_drain(&mut self, now: SignedDuration, drain: bool) {
        if self.drain != drain {
            (self.drain, self.drain_said) = (drain, None);
            self.is_due(now);
        }
    }

    /// What is true of an attempt. A worker that was silent for `patience` has ended what it ran.
    pub fn observe(&mut self, now: SignedDuration, id: &AttemptId, patience: SignedDuration) -> Known {
        let silent = now - self.heard.unwrap_or_default();
        let is_heard = self.heard.is_some();
        let is_over = silent > patience;
        let attempt = self.attempts.get_mut(id);
        let reason = || match is_heard {
            true => format!("its worker was not heard for {} s, and has ended it", silent.as_secs()),
            false => format!("its worker did not come back within {} s, and has ended it", silent.as_secs()),
        };
        Known::Observed(match attempt {
            None if is_over => {
                let reason = reason();
                let told = Told::Lost(reason.clone());
                self.attempts.insert(id.clone(), Attempt { told, ..Attempt::new(now, true) });
                Observation::Lost { reason }
            }
            None if is_heard => Observation::NeverBegan,
            None => away(),
            Some(attempt) => match &attempt.told {
                Told::Ended(None) if attempt.is_claimed => return Known::Over,
                Told::Ended(_) => Observation::Unreachable { reason: "its end is being taken".to_owned() },
                Told::Lost(reason) => Observation::Lost { reason: reason.clone() },
                Told::Nothing | Told::Waiting | Told::Running(_) | Told::Unsaid
                    if is_over || attempt.elsewhere.is_some_and(|since| now - since > patience) =>
                {
                    let reason = match attempt.elsewhere {
                        Some(_) => "its worker was started elsewhere, and has ended what it ran before".to_owned(),
                        None => reason(),
                    };
                    (attempt.told, attempt.order, attempt.cancel) = (Told::Lost(reason.clone()), None, None);
                    Observation::Lost { reason }
                }
                Told::Nothing | Told::Waiting | Told::Running(_) | Told::Unsaid if attempt.elsewhere.is_some() => {
                    let reason = "its worker was started elsewhere, and may still run it where it was before";
                    Observation::Unreachable { reason: reason.to_owned() }
                }
                Told::Nothing if attempt.order.is_some() => Observation::Waiting,
                Told::Nothing if is_heard => Observation::NeverBegan,
                Told::Nothing => away(),
                Told::Waiting => Observation::Waiting,
                Told::Unsaid => {
                    Observation::Unreachable { reason: "its worker is about to tell again how it ended".to_owned() }
                }
                Told::Running(started_at) => Observation::Running { started_at: *started_at },
            },
        })
    }

    /// When there is something to say, if nothing else happens.
    pub fn due(&self) -> Option<SignedDuration> {
        self.due
    }

    /// Whether it is time to say something. Finds out, if need be, until when not.
    pub fn is_urgent(&mut self, now: SignedDuration) -> bool {
        if self.due.is_none_or(|at| now < at) {
            return false;
        }
        let open = self.attempts.values().filter(|attempt| attempt.is_open()).map(|attempt| attempt.due);
        let leaves = self.leaves.values().filter(|times| **times == 0).map(|_| now);
        let drain = (self.drain != self.is_drain_heard).then(|| self.drain_said.map_or(now, |at| at + REPEAT));
        self.due = open.chain(leaves).chain(drain).min();
        self.due.is_some_and(|at| now >= at)
    }

    /// All that the worker is to do.
    pub fn answer(&mut self, now: SignedDuration, server: &str, lease: SignedDuration) -> Answer {
        let mut answer = self.nothing(server, lease);
        // Whatever is not seen to be done by then.
        let is_again = self.drain != self.is_drain_heard || self.attempts.values().any(Attempt::is_open);
        self.due = is_again.then_some(now + REPEAT);
        for (id, attempt) in self.attempts.iter_mut().filter(|(_, attempt)| attempt.is_open()) {
            attempt.due = now + REPEAT;
            attempt.is_ordered |= attempt.order.is_some();
            answer.start.extend(attempt.order.clone());
            answer.cancel.extend(attempt.cancel.clone().filter(|_| attempt.elsewhere.is_none()));
            answer.forget.extend(attempt.forget.then(|| id.clone()));
            answer.logs.extend(attempt.wants_log.then(|| id.clone()));
        }
        answer.leave = self.leaves.keys().copied().collect();
        self.leaves.values_mut().for_each(|times| *times += 1);
        self.leaves.retain(|_, times| *times < LEAVES);
        self.drain_said = Some(now);
        answer
    }

    /// An answer that has nothing to do in it.
    pub fn nothing(&self, server: &str, lease: SignedDuration) -> Answer {
        Answer {
            protocol: PROTOCOL,
            server: server.to_owned(),
            lease_ms: u64::try_from(lease.as_millis()).unwrap_or_default(),
            start: Vec::new(),
            cancel: Vec::new(),
            forget: Vec::new(),
            leave: Vec::new(),
            drain: self.drain,
            logs: Vec::new(),
            errands: Vec::new(),
            heard: Vec::new(),
            kernel: None,
        }
    }

    /// Of what the worker has and nobody here has named since `before`, so many at most; each is named here once, and then
    /// again after the same time.
    pub fn unclaimed(&mut self, now: SignedDuration, before: SignedDuration, most: usize) -> Vec<AttemptId> {
        let nobodys = |attempt: &Attempt| !attempt.is_claimed && !attempt.forget && attempt.since <= before;
        let found = self.attempts.iter_mut().filter(|(_, attempt)| nobodys(attempt)).take(most);
        found
            .map(|(id, attempt)| {
                attempt.since = now;
                id.clone()
            })
            .collect()
    }

    /// Whether somebody here knows this attempt as one of the worker's that is not over.
    pub fn is_live(&self, id: &AttemptId) -> bool {
        self.attempts.get(id).is_some_and(|attempt| attempt.is_claimed && !attempt.is_over() && !attempt.forget)
    }

    /// Whether more of its log is taken: its end may be here, and is not kept.
    pub fn takes_log(&self, id: &AttemptId) -> bool {
        let is_open = |told: &Told| !matches!(told, Told::Ended(None) | Told::Lost(_));
        self.attempts.get(id).is_some_and(|attempt| attempt.is_claimed && !attempt.forget && is_open(&attempt.told))
    }

    /// Whether nobody here has named it, and that may still come.
    pub fn is_unknown(&self, id: &AttemptId) -> bool {
        self.attempts.get(id).map_or(self.heard.is_none(), |attempt| !attempt.is_claimed && !attempt.forget)
    }

    /// How long ago it was heard; `None`: not since this server leads.
    pub fn silent(&self, now: SignedDuration) -> Option<SignedDuration> {
        self.heard.map(|at| now - at)
    }

    /// Whether it was heard since this server leads.
    pub fn is_heard(&self) -> bool {
        self.heard.is_some()
    }

    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// How many attempts it runs, and how many it has that wait.
    pub fn counts(&self) -> (usize, usize) {
        let count = |is: fn(&Told) -> bool| self.attempts.values().filter(|attempt| is(&attempt.told)).count();
        (count(|told| matches!(told, Told::Running(_))), count(|told| *told == Told::Waiting))
    }
}

fn away() -> Observation {
    Observation::Unreachable { reason: "its worker was not heard since this server leads".to_owned() }
}

impl Attempt {
    fn new(now: SignedDuration, is_claimed: bool) -> Attempt {
        Attempt {
            is_claimed,
            since: now,
            order: None,
            is_ordered: false,
            cancel: None,
            forget: false,
            wants_log: false,
            told: Told::Nothing,
            due: now,
            elsewhere: None,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.told, Told::Unsaid | Told::Ended(_) | Told::Lost(_))
    }

    /// Whether the worker is to do something about it. One that does not have it would end what goes on elsewhere by a
    /// word alone.
    fn is_open(&self) -> bool {
        let is_to_end = self.cancel.is_some() && self.elsewhere.is_none() && !self.is_over();
        self.order.is_some() || self.forget || self.wants_log || is_to_end
    }

    fn take(&mut self, id: &AttemptId, how: How) -> Option<Fact> {
        if matches!(self.told, Told::Ended(None) | Told::Lost(_)) {
            // How it ended is known and stays so.
            return None;
        }
        if self.elsewhere.is_some() && !is_here(&how) {
            return None;
        }
        self.elsewhere = None;
        match how {
            How::Waiting => {
                self.told = Told::Waiting;
                None
            }
            // It began once, whatever the clocks made of it since.
            How::Running { .. } if matches!(self.told, Told::Running(_)) => None,
            How::Running { started_at } => {
                self.told = Told::Running(started_at);
                self.is_claimed.then(|| Fact::Started(id.clone(), started_at))
            }
            How::Ended { end: None } => {
                if !matches!(self.told, Told::Ended(_)) {
                    self.told = Told::Unsaid;
                }
                None
            }
            How::Ended { end: Some(end) } => {
                let fact = match (&*end, self.is_claimed) {
                    (End::Lost { reason }, true) => {
                        self.told = Told::Lost(reason.clone());
                        return Some(Fact::Lost(id.clone(), reason.clone()));
                    }
                    (End::Ended { .. }, true) => Some(Fact::Ended(id.clone())),
                    (End::Lost { .. } | End::Ended { .. }, false) => None,
                };
                self.told = Told::Ended(Some(end));
                fact
            }
        }
    }
}

/// Whether what is said of an attempt that may be elsewhere shows that it is here after all. A copy of the directory of a
/// worker that runs it has a trace of it, waits to hear of it, and finds it lost.
fn is_here(how: &How) -> bool {
    match how {
        How::Running { .. } => true,
        How::Waiting | How::Ended { end: None } => false,
        How::Ended { end: Some(end) } => match &**end {
            End::Ended { .. } => true,
            End::Lost { .. } => false,
        },
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;

//! The simulated machines: they start, end, lose and kill attempts, and tell of it late, twice, in another order, or
//! not at all. They outlive every crash of the server.
//!
//! Invariant, checked here because only here it can be seen: an attempt begins at most once, and never beside an
//! earlier attempt of the same instance that is still alive.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::rng::Rng;
use super::rules::OUTPUT;
use crate::engine::Report;
use crate::fleet::Amount;
use crate::id::AttemptId;
use crate::state::Exit;

#[derive(Debug, Clone)]
pub(super) enum Message {
    Started { id: AttemptId, at: Timestamp },
    Ended { id: AttemptId, report: Report },
}

/// What a look at an attempt finds.
#[derive(Debug, Clone)]
pub(super) enum Found {
    NeverBegan,
    Starting,
    Running { since: Timestamp },
    Ended(Report),
}

#[derive(Debug, Clone)]
enum Happening {
    Begins(AttemptId),
    Ends(AttemptId),
    Tells(Message),
}

#[derive(Debug, Clone)]
enum Phase {
    Starting,
    Running { since: Timestamp },
    Ended(Report),
}

#[derive(Debug, Clone)]
struct Attempt {
    phase: Phase,
    exit: Exit,
    error: Option<String>,
    number: u64,
    takes: SignedDuration,
    gpus: Vec<String>,
    /// So much of each of them.
    part: Amount,
    cancelled: bool,
}

#[derive(Debug, Default)]
pub(super) struct Backend {
    attempts: BTreeMap<AttemptId, Attempt>,
    calendar: BTreeMap<(Timestamp, u64), Happening>,
    next: u64,
    /// How many processes were begun.
    pub begun: u64,
}

fn millis(rng: &mut Rng, most: i64) -> SignedDuration {
    SignedDuration::from_millis(rng.between(0, most))
}

impl Backend {
    fn plan(&mut self, at: Timestamp, what: Happening) {
        self.next += 1;
        self.calendar.insert((at, self.next), what);
    }

    /// A message on its way: it may be slow, doubled or lost.
    fn tell(&mut self, rng: &mut Rng, now: Timestamp, message: Message) {
        if rng.percent(7) {
            return;
        }
        if rng.percent(7) {
            let late = now + millis(rng, 60_000);
            self.plan(late, Happening::Tells(message.clone()));
        }
        let soon = now + millis(rng, 1_500);
        self.plan(soon, Happening::Tells(message));
    }

    /// Begins an attempt. The server may only ask for it once.
    pub fn start(
        &mut self,
        rng: &mut Rng,
        now: Timestamp,
        id: &AttemptId,
        gpus: Vec<String>,
        part: Amount,
    ) -> Result<(), String> {
        if self.attempts.contains_key(id) {
            return Err(format!("{id} was started twice"));
        }
        let before = (1..id.number).map(|number| AttemptId { number, ..id.clone() });
        if let Some(alive) = before.into_iter().find(|id| self.is_alive(id)) {
            return Err(format!("{id} was started while {alive} was alive"));
        }
        let exit = match rng.below(100) {
            0..70 => Exit::Code { code: 0 },
            70..80 => Exit::Code { code: 1 },
            80..85 => Exit::Code { code: 99 },
            85..88 => Exit::OutOfMemory,
            88..91 => Exit::Signal { signal: 11 },
            91 => Exit::cannot_start("its templates are wrong"),
            92..94 => Exit::start_failed("no interpreter"),
            _ => Exit::Lost { reason: "its machine went away".to_owned() },
        };
        let attempt = Attempt {
            phase: Phase::Starting,
            error: rng.percent(2).then(|| "the output `n` is missing".to_owned()),
            number: rng.next() % 8,
            takes: millis(rng, 30_000),
            exit,
            gpus,
            part,
            cancelled: false,
        };
        self.attempts.insert(id.clone(), attempt);
        let begins = now + millis(rng, 2_000);
        self.plan(begins, Happening::Begins(id.clone()));
        Ok(())
    }

    /// Ends an attempt within its grace; one that is unknown or over is left alone.
    pub fn cancel(&mut self, rng: &mut Rng, now: Timestamp, id: &AttemptId, grace: SignedDuration) {
        if !self.is_alive(id) {
            return;
        }
        let attempt = self.attempts.get_mut(id).expect("it is alive");
        attempt.cancelled = true;
        // Some end by themselves just before the signal comes, or go down with their machine.
        if rng.percent(85) {
            attempt.exit = Exit::Cancelled;
        }
        let ends = now + millis(rng, grace.as_millis() as i64);
        self.plan(ends, Happening::Ends(id.clone()));
    }

    pub fn look(&self, id: &AttemptId) -> Found {
        match self.attempts.get(id).map(|attempt| &attempt.phase) {
            None => Found::NeverBegan,
            Some(Phase::Starting) => Found::Starting,
            Some(Phase::Running { since }) => Found::Running { since: *since },
            Some(Phase::Ended(report)) => Found::Ended(report.clone()),
        }
    }

    pub fn is_alive(&self, id: &AttemptId) -> bool {
        matches!(self.look(id), Found::Starting | Found::Running { .. })
    }

    /// Is it alive, and was not told to end?
    pub fn is_left_alone(&self, id: &AttemptId) -> bool {
        self.is_alive(id) && !self.attempts[id].cancelled
    }

    /// Attempts that are begun and not over.
    pub fn alive(&self) -> impl Iterator<Item = &AttemptId> {
        self.attempts.keys().filter(|id| self.is_alive(id))
    }

    /// Is more of a device used than there is of it?
    pub fn overused_gpu(&self) -> Option<String> {
        let mut used: BTreeMap<&String, Amount> = BTreeMap::new();
        for attempt in self.alive().map(|id| &self.attempts[id]) {
            for gpu in &attempt.gpus {
                *used.entry(gpu).or_default() += attempt.part;
            }
        }
        used.into_iter().find(|(_, used)| *used > Amount::ONE).map(|(gpu, _)| gpu.clone())
    }

    /// The devices that an attempt was given.
    pub fn gpus(&self, id: &AttemptId) -> &[String] {
        &self.attempts[id].gpus
    }

    pub fn next_at(&self) -> Option<Timestamp> {
        self.calendar.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next thing that happens, by `now`. A message is handed on; the rest happens here.
    pub fn advance(&mut self, rng: &mut Rng, now: Timestamp) -> Option<Message> {
        let at = self.next_at().filter(|at| *at <= now)?;
        let (_, happening) = self.calendar.pop_first()?;
        match happening {
            Happening::Tells(message) => return Some(message),
            Happening::Begins(id) => {
                let attempt = self.attempts.get_mut(&id)?;
                if !matches!(attempt.phase, Phase::Starting) {
                    return None;
                }
                if matches!(attempt.exit, Exit::StartFailed { .. }) {
                    self.plan(at, Happening::Ends(id));
                    return None;
                }
                attempt.phase = Phase::Running { since: at };
                let ends = at + attempt.takes;
                self.begun += 1;
                self.tell(rng, at, Message::Started { id: id.clone(), at });
                self.plan(ends, Happening::Ends(id));
            }
            Happening::Ends(id) => {
                if self.is_alive(&id) {
                    let attempt = self.attempts.get_mut(&id)?;
                    let report = attempt.report(at);
                    attempt.phase = Phase::Ended(report.clone());
                    self.tell(rng, at, Message::Ended { id, report });
                }
            }
        }
        None
    }

    /// The server is down until `now`: machines go on, and half of what they tell is lost.
    pub fn without_server(&mut self, rng: &mut Rng, now: Timestamp) {
        let keep: Vec<bool> = (0..self.calendar.len()).map(|_| rng.percent(50)).collect();
        let mut keep = keep.into_iter();
        self.calendar.retain(|_, what| keep.next() == Some(true) || !matches!(what, Happening::Tells(_)));
        while self.next_at().is_some_and(|at| at <= now) {
            self.advance(rng, now);
        }
    }
}

impl Attempt {
    fn report(&self, at: Timestamp) -> Report {
        let started_at = match self.phase {
            Phase::Running { since } => Some(since),
            Phase::Starting | Phase::Ended(_) => None,
        };
        let outputs = [(OUTPUT.to_owned(), json!(self.number))].into();
        Report {
            exit: self.exit.clone(),
            started_at,
            at,
            error: self.error.clone(),
            message: format!("said {}", self.number),
            outputs,
            held: false,
        }
    }
}

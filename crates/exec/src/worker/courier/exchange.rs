//! What is said to the server and when, and what it answers.
//!
//! One sync waits at the server. News go with another, which the server takes in place of the older; so what one of them
//! says may be answered by either. Each costs both sides far more than what it carries: so news wait a moment for others,
//! and the longer the less anybody waits for them ([`Duty::news`]).

use std::time::Duration;

use tokio::time::Instant;

use super::super::machine;
use super::super::protocol::{Answer, LONGEST_WAIT, PROTOCOL, Sync};
use super::super::wire::{ShutOut, WireError};
use super::{Courier, CourierError, News, Said};
use crate::clock;

/// Between two syncs with news: what comes at the same time goes together.
const GAP: Duration = Duration::from_millis(4);
/// Syncs under way at most: one that waits, and what overtakes it.
const FLIGHTS: usize = 3;
/// Between tries when nobody answers: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often it is told what the machine does.
const LOAD_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what it was asked to wait.
const LATE: Duration = Duration::from_secs(10);

/// A sync that is not answered: what it carried.
#[derive(Default)]
pub(super) struct Flight {
    about: bool,
    /// Which one.
    probe: Option<u64>,
    task: Option<tokio::task::AbortHandle>,
}

impl Courier<'_> {
    /// When the next sync goes, if nothing else happens before; `None`: one waits at the server, and there is no news.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        if self.pause_until.is_some() {
            return self.pause_until;
        }
        let news = self.patience().map(|patience| self.news_since.unwrap_or(now) + patience);
        // With none under way the server could not even say what is to be done.
        let question = self.flights.is_empty().then(|| self.duty.leisure());
        if self.flights.len() < FLIGHTS { next(now, self.last_sent, news, question) } else { None }
    }

    /// How long what there is to tell may wait.
    fn patience(&self) -> Option<Duration> {
        self.duty.news().into_iter().chain(self.tidings.then_some(Duration::ZERO)).min()
    }

    /// Sends a sync when it is time for one.
    pub(super) fn exchange(&mut self) {
        let now = clock::instant();
        match self.patience() {
            Some(_) => drop(self.news_since.get_or_insert(now)),
            None => self.news_since = None,
        }
        if self.wake_at(now).is_none_or(|at| now < at) {
            return;
        }
        (self.pause_until, self.news_since, self.tidings) = (None, None, false);
        self.send_sync(now);
    }

    fn send_sync(&mut self, now: Instant) {
        self.seq += 1;
        let seq = self.seq;
        let wait = match self.lease_ms {
            // What is not known yet is asked for.
            None => Duration::ZERO,
            Some(lease) => Duration::try_from(LONGEST_WAIT).unwrap_or_default().min(Duration::from_millis(lease / 3)),
        };
        let late = self.lease_ms.map_or(LATE, |lease| LATE.min(Duration::from_millis(lease / 3)));
        let is_due = self.load_told.is_none_or(|at| now >= at + LOAD_EVERY);
        let load = is_due.then(machine::load).flatten();
        self.load_told = load.map(|_| now).or(self.load_told);
        let sync = Sync {
            protocol: PROTOCOL,
            incarnation: self.incarnation,
            seq,
            about: (!self.about_told).then(|| self.about.clone()),
            draining: self.duty.is_ending() || self.duty.is_drained(),
            drained: self.duty.is_drained(),
            prefetch: self.duty.prefetch(),
            has: self.duty.has(seq),
            // One that is under way is told once; if its sync fails, again.
            probe: self
                .probe
                .clone()
                .filter(|_| !self.flights.values().any(|flight| flight.probe == Some(self.probes))),
            load,
            clock: Some(clock::now()),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(0),
            server: self.duty.server().map(str::to_owned),
            keeps: self.duty.names(seq),
            brings_logs: true,
            kernel: self.kernel.part().map(Box::new),
            done: self.errands.news(),
        };
        let (wire, news) = (self.wire.clone(), self.news.clone());
        let (about, probe) = (sync.about.is_some(), sync.probe.as_ref().map(|_| self.probes));
        let sent = clock::since_boot();
        let task = tokio::spawn(async move {
            let result = wire.sync(&sync, wait + late).await;
            let _ = news.send(News::Answered { seq, sent, result });
        });
        self.flights.insert(seq, Flight { about, probe, task: Some(task.abort_handle()) });
        self.last_sent = Some(now);
    }

    pub(super) fn answered(&mut self, seq: u64, sent: Duration, result: Result<Answer, WireError>) {
        let Some(flight) = self.flights.remove(&seq) else { return };
        let mut answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                match error {
                    WireError::Refused(413, _) => self.duty.too_large(seq),
                    WireError::Refused(..) | WireError::Unreachable(_) | WireError::ShutOut(..) => {
                        self.duty.unanswered(seq);
                    }
                }
                return self.failed(error);
            }
        };
        self.failures = 0;
        self.trouble = None;
        if !std::mem::replace(&mut self.connected, true) {
            (self.say)(Said::Connected { found: std::mem::take(&mut self.found) });
        }
        self.about_told |= flight.about;
        if flight.probe == Some(self.probes) {
            self.probe = None;
        }
        self.lease_ms = Some(answer.lease_ms);
        if self.duty.server() != Some(&answer.server) {
            self.logs.anew();
            self.kernel.greet();
        }
        self.errands.heard(&std::mem::take(&mut answer.heard));
        self.errands.take(std::mem::take(&mut answer.errands));
        if let Some(last) = answer.kernel {
            self.kernel.taken(last);
        }
        self.duty.answered(seq, sent, answer, clock::since_boot(), clock::now());
        self.lease_over = false;
        if let Some(until) = self.duty.lease() {
            self.backend.lease(until);
        }
    }

    fn failed(&mut self, error: WireError) {
        let trouble = match error {
            WireError::ShutOut(ShutOut::Revoked, why) => {
                self.fatal = Some(CourierError::Revoked { why, left: 0 });
                return;
            }
            WireError::ShutOut(ShutOut::Replaced, why) => {
                self.fatal = Some(CourierError::Replaced { why, left: 0 });
                return;
            }
            WireError::Unreachable(reason) => Said::Unreachable { reason },
            WireError::Refused(_, reason) => Said::Refused { reason },
        };
        self.connected = false;
        // A server that is away is away, in whatever words; what it refuses is another story each time that it changes.
        let is_news = match (&trouble, &self.trouble) {
            (Said::Unreachable { .. }, Some(Said::Unreachable { .. })) => false,
            (now, before) => before.as_ref() != Some(now),
        };
        if is_news {
            (self.say)(trouble.clone());
        }
        self.trouble = Some(trouble);
        let longest = self.lease_ms.map_or(LONGEST_PAUSE, |lease| Duration::from_millis(lease / 4));
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(8));
        self.failures += 1;
        // So that a thousand workers do not come back in the same moment.
        let pause = pause.min(LONGEST_PAUSE).min(longest).mul_f64(machine::between_half_and_one());
        self.pause_until = Some(clock::instant() + pause);
        // Whatever else waits there would only be told the same.
        for (seq, flight) in std::mem::take(&mut self.flights) {
            flight.task.iter().for_each(tokio::task::AbortHandle::abort);
            self.duty.unanswered(seq);
        }
    }
}

/// When a sync goes: with news, but not before `GAP` after the last; and, where none waits at the server, after the time
/// that nobody misses it.
fn next(
    now: Instant,
    last_sent: Option<Instant>,
    news: Option<Instant>,
    question: Option<Duration>,
) -> Option<Instant> {
    let Some(last) = last_sent else { return Some(now) };
    let news = news.map(|at| at.max(last + GAP));
    let question = question.map(|leisure| last + leisure);
    news.into_iter().chain(question).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sync_goes_at_once_and_others_when_somebody_misses_them() {
        let start = clock::instant();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let ms = Duration::from_millis;
        assert_eq!(next(at(7), None, None, None), Some(at(7)));
        assert_eq!(next(at(7), None, Some(at(100)), Some(ms(25))), Some(at(7)));
        // One waits at the server.
        assert_eq!(next(at(7), Some(at(5)), None, None), None);
        assert_eq!(next(at(7), Some(at(5)), Some(at(6)), None), Some(at(9)), "news keep a distance");
        assert_eq!(next(at(50), Some(at(5)), Some(at(75)), None), Some(at(75)));
        // None does.
        assert_eq!(next(at(7), Some(at(5)), None, Some(Duration::ZERO)), Some(at(5)));
        assert_eq!(next(at(7), Some(at(5)), Some(at(107)), Some(ms(25))), Some(at(30)));
    }
}

//! What is said to the server and when, and what it answers.
//!
//! One sync waits at the server. News go with another, which the server takes in place of the older; so what one of them
//! says may be answered by either.

use std::time::Duration;

use tokio::time::Instant;

use super::super::machine;
use super::super::protocol::{Answer, LONGEST_WAIT, PROTOCOL, Sync};
use super::super::wire::WireError;
use super::{Courier, CourierError, News, Said};
use crate::clock;

/// Between two syncs with news: what comes at the same time goes together.
const GAP: Duration = Duration::from_millis(4);
/// Syncs under way at most: one that waits, and what overtakes it.
const FLIGHTS: usize = 3;
/// Between tries when nobody answers: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take beyond what it was asked to wait.
const LATE: Duration = Duration::from_secs(10);

/// A sync that is not answered: what it carried.
#[derive(Default)]
pub(super) struct Flight {
    about: bool,
    probe: bool,
    task: Option<tokio::task::AbortHandle>,
}

impl Courier<'_> {
    /// When something is to be done though nothing happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.pause_until.is_some() {
            return self.pause_until;
        }
        let waits = self.duty.has_news() && self.flights.len() < FLIGHTS;
        self.last_sent.filter(|_| waits).map(|at| at + GAP)
    }

    /// Sends a sync if none is under way, or if there is news.
    pub(super) fn exchange(&mut self) {
        let now = clock::instant();
        if self.pause_until.is_some_and(|at| now < at) {
            return;
        }
        self.pause_until = None;
        let news = self.duty.has_news() && self.last_sent.is_none_or(|at| now >= at + GAP);
        if self.flights.len() >= FLIGHTS || !(news || self.flights.is_empty()) {
            return;
        }
        self.seq += 1;
        let seq = self.seq;
        let wait = match self.lease_ms {
            // What is not known yet is asked for.
            None => Duration::ZERO,
            Some(lease) => Duration::try_from(LONGEST_WAIT).unwrap_or_default().min(Duration::from_millis(lease / 3)),
        };
        let late = self.lease_ms.map_or(LATE, |lease| LATE.min(Duration::from_millis(lease / 3)));
        let sync = Sync {
            protocol: PROTOCOL,
            incarnation: self.incarnation,
            seq,
            about: (!self.about_told).then(|| self.about.clone()),
            draining: self.duty.is_draining(),
            prefetch: self.duty.prefetch(),
            has: self.duty.has(seq),
            probe: self.probe.clone(),
            load: machine::load(),
            wait_ms: u64::try_from(wait.as_millis()).unwrap_or(0),
            server: self.duty.server().map(str::to_owned),
        };
        let (wire, news) = (self.wire.clone(), self.news.clone());
        let (about, probe) = (sync.about.is_some(), sync.probe.is_some());
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
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                self.duty.unanswered(seq);
                return self.failed(error);
            }
        };
        self.failures = 0;
        if self.connected != Some(true) {
            (self.say)(Said::Connected { found: std::mem::take(&mut self.found) });
            self.connected = Some(true);
        }
        self.about_told |= flight.about;
        if flight.probe && !self.probing {
            self.probe = None;
        }
        self.lease_ms = Some(answer.lease_ms);
        self.duty.answered(seq, sent, answer, clock::since_boot(), clock::now());
        self.lease_over = false;
        if let Some(until) = self.duty.lease() {
            self.backend.lease(until);
        }
    }

    fn failed(&mut self, error: WireError) {
        match error.status() {
            Some(401) => self.fatal = Some(CourierError::Revoked(message(&error))),
            Some(409) => self.fatal = Some(CourierError::Replaced(message(&error))),
            _ => {
                if self.connected != Some(false) {
                    let reason = message(&error);
                    (self.say)(match error {
                        WireError::Unreachable(_) => Said::Unreachable { reason },
                        WireError::Refused(..) => Said::Refused { reason },
                    });
                    self.connected = Some(false);
                }
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
    }
}

fn message(error: &WireError) -> String {
    match error {
        WireError::Unreachable(text) | WireError::Refused(_, text) => text.clone(),
    }
}

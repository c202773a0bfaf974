//! Times that a worker tells, by the clock of the server: timeouts and the delays of retries are counted from them.
//!
//! Invariants: what lies between two times stays; no time lies in the future; clocks that agree change nothing.

use jiff::{SignedDuration, Timestamp};

use super::protocol::{End, How};

/// What a sync may take on its way: clocks that differ by less are the same.
const SAME: SignedDuration = SignedDuration::from_secs(2);

/// How far a clock is behind ours, where `there` was sent and arrived at `here`. Of a worker that does not tell: not at all.
pub fn behind(there: Option<Timestamp>, here: Timestamp) -> SignedDuration {
    let behind = there.map_or(SignedDuration::ZERO, |there| here.duration_since(there));
    if behind.abs() < SAME { SignedDuration::ZERO } else { behind }
}

/// What a worker said of an attempt, by the clock of the server.
pub fn translate(how: &mut How, behind: SignedDuration, now: Timestamp) {
    let by_ours = |at: Timestamp| at.checked_add(behind).unwrap_or(now);
    match how {
        How::Waiting | How::Ended { end: None } => {}
        How::Running { started_at } => *started_at = by_ours(*started_at).min(now),
        How::Ended { end: Some(end) } => match &mut **end {
            End::Lost { .. } => {}
            End::Ended { ended, .. } => {
                let ahead = by_ours(ended.at).duration_since(now).max(SignedDuration::ZERO);
                let steps = ended.steps.iter_mut().flat_map(|step| [&mut step.started_at, &mut step.at]);
                for at in steps.chain(&mut ended.started_at).chain([&mut ended.at]) {
                    *at = by_ours(*at).checked_sub(ahead).unwrap_or(now);
                }
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::state::Exit;

    use super::*;
    use crate::backend::{Ended, StepEnded};

    fn s(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    fn ran(from: Timestamp, to: Timestamp) -> How {
        let exit = Exit::Code { code: 0 };
        let steps = vec![StepEnded { name: "main".into(), exit: exit.clone(), started_at: from, at: to }];
        let ended = Ended { started_at: Some(from), steps, ..Ended::bare(exit, to) };
        How::Ended { end: Some(Box::new(End::Ended { ended, log: None })) }
    }

    #[test]
    fn whatever_a_clock_shows_an_attempt_began_and_ended_when_it_did() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for off in [s(-3600), s(-1), s(0), s(1), s(3600), s(86400 * 365)] {
            let (there, behind) = (now + off, behind(Some(now + off), now));
            let mut how = How::Running { started_at: there - s(60) };
            translate(&mut how, behind, now);
            let How::Running { started_at } = how else { panic!("{how:?}") };
            assert!((now - s(60)).duration_since(started_at).abs() <= s(1), "{off}: {started_at}");
            let mut how = ran(there - s(60), there);
            translate(&mut how, behind, now);
            let How::Ended { end: Some(end) } = how else { panic!("{how:?}") };
            let End::Ended { ended, .. } = *end else { panic!("{end:?}") };
            assert!(now.duration_since(ended.at) <= s(1) && ended.at <= now, "{off}: {}", ended.at);
            assert_eq!(ended.at.duration_since(ended.started_at.unwrap()), s(60));
            assert_eq!((ended.steps[0].started_at, ended.steps[0].at), (ended.started_at.unwrap(), ended.at));
        }
    }

    #[test]
    fn of_a_worker_that_tells_no_clock_nothing_lies_in_the_future() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        let mut how = ran(now + s(100), now + s(160));
        translate(&mut how, behind(None, now), now);
        assert_eq!(how, ran(now - s(60), now));
        let mut how = How::Running { started_at: Timestamp::MAX };
        translate(&mut how, behind(Some(Timestamp::MIN), now), now);
        assert_eq!(how, How::Running { started_at: now });
    }
}

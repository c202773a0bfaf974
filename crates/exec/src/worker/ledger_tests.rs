use std::path::PathBuf;

use pitcrew_core::state::Exit;

use super::*;
use crate::backend::{Ended, Handle};
use crate::spec::AttemptSpec;

const LEASE: SignedDuration = SignedDuration::from_secs(300);
const PATIENCE: SignedDuration = SignedDuration::from_secs(330);

fn s(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

fn at() -> Timestamp {
    "2026-01-02T00:00:00Z".parse().unwrap()
}

fn id(name: &str) -> AttemptId {
    format!("7/{name}.1").parse().unwrap()
}

fn handle(name: &str) -> Handle {
    Handle { id: id(name), dir: PathBuf::from("/d"), place: None, home: None }
}

fn order(name: &str) -> Order {
    let spec = AttemptSpec::new(id(name), "/d", "/w");
    Order { handle: handle(name), spec, files: false }
}

fn cancel(name: &str, grace_ms: u64) -> Cancel {
    Cancel { handle: handle(name), grace_ms }
}

fn sync(seq: u64, has: Vec<(&str, How)>) -> Sync {
    let has = has.into_iter().map(|(name, how)| Has { attempt: id(name), how }).collect();
    let text = r#"{"protocol":1,"incarnation":3,"seq":0,"has":[],"wait_ms":0}"#;
    Sync { seq, has, ..serde_json::from_str(text).unwrap() }
}

fn running() -> How {
    How::Running { started_at: Timestamp::UNIX_EPOCH }
}

fn ended(code: i32) -> How {
    let ended = Ended::bare(Exit::Code { code }, Timestamp::UNIX_EPOCH);
    How::Ended { end: Some(Box::new(End::Ended { ended, log: None })) }
}

fn said(ledger: &mut Ledger, now: i64) -> String {
    let answer = ledger.answer(s(now), "word", LEASE);
    let mut words: Vec<String> = answer.start.iter().map(|order| format!("start {}", order.handle.id)).collect();
    words.extend(answer.cancel.iter().map(|cancel| format!("cancel {} {}", cancel.handle.id, cancel.grace_ms)));
    words.extend(answer.forget.iter().map(|id| format!("forget {id}")));
    words.extend(answer.leave.iter().map(|run| format!("leave {run}")));
    words.extend(answer.drain.then(|| "drain".to_owned()));
    words.join(", ")
}

fn observed(ledger: &mut Ledger, now: i64, name: &str) -> Known {
    ledger.observe(s(now), &id(name), PATIENCE)
}

#[test]
fn an_order_is_repeated_until_it_is_seen_and_an_end_until_it_is_forgotten() {
    let mut ledger = Ledger::default();
    ledger.take(s(1), at(), sync(1, vec![])).unwrap();
    assert_eq!(observed(&mut ledger, 1, "a"), Known::Observed(Observation::NeverBegan));
    ledger.order(s(1), order("a"));
    assert!(ledger.is_urgent(s(1)));
    assert_eq!(said(&mut ledger, 1), "start 7/a.1");
    assert!(!ledger.is_urgent(s(2)) && ledger.is_urgent(s(3)), "again after a while");
    assert_eq!(observed(&mut ledger, 2, "a"), Known::Observed(Observation::Waiting));
    // The answer was lost.
    ledger.take(s(3), at(), sync(2, vec![])).unwrap();
    assert_eq!(said(&mut ledger, 3), "start 7/a.1");
    ledger.take(s(4), at(), sync(3, vec![("a", How::Waiting)])).unwrap();
    assert_eq!(said(&mut ledger, 4), "");
    let started = Fact::Started(id("a"), Timestamp::UNIX_EPOCH);
    assert_eq!(ledger.take(s(5), at(), sync(4, vec![("a", running())])).unwrap(), [started]);
    assert_eq!(ledger.take(s(6), at(), sync(5, vec![("a", running())])).unwrap(), [], "once");
    assert_eq!(ledger.counts(), (1, 0));
    assert_eq!(ledger.take(s(7), at(), sync(6, vec![("a", ended(0))])).unwrap(), [Fact::Ended(id("a"))]);
    assert!(ledger.take_end(&id("a")).is_some() && ledger.take_end(&id("a")).is_none());
    assert_eq!(observed(&mut ledger, 7, "a"), Known::Over);
    assert_eq!(ledger.take(s(8), at(), sync(7, vec![("a", ended(9))])).unwrap(), [], "the first end is the end");
    assert_eq!(said(&mut ledger, 8), "");
    ledger.forget(s(0), &id("a"));
    assert_eq!(said(&mut ledger, 8), "forget 7/a.1");
    ledger.take(s(9), at(), sync(8, vec![("a", How::Ended { end: None })])).unwrap();
    assert_eq!(said(&mut ledger, 9), "forget 7/a.1");
    ledger.take(s(10), at(), sync(9, vec![])).unwrap();
    assert_eq!((said(&mut ledger, 10).as_str(), ledger.attempts.len()), ("", 0));
}

#[test]
fn a_late_sync_changes_nothing_and_an_older_start_is_turned_away() {
    let mut ledger = Ledger::default();
    ledger.order(s(0), order("a"));
    ledger.take(s(1), at(), sync(2, vec![("a", running())])).unwrap();
    assert_eq!(ledger.take(s(2), at(), sync(1, vec![])).unwrap(), []);
    assert!(matches!(observed(&mut ledger, 2, "a"), Known::Observed(Observation::Running { .. })));
    assert!(ledger.is_last(3, 2));
    let wrong = ledger.take(s(3), at(), Sync { incarnation: 2, ..sync(9, vec![]) }).unwrap_err();
    assert_eq!(wrong, Superseded { found: 2, newest: 3 });
    ledger.take(s(4), at(), Sync { incarnation: 4, ..sync(1, vec![("a", running())]) }).unwrap();
    assert!(ledger.is_last(4, 1), "a new start counts anew");
}

#[test]
fn what_ran_and_is_not_there_any_more_is_lost_and_what_waited_is_ordered_again() {
    let mut ledger = Ledger::default();
    for name in ["ran", "waited"] {
        ledger.order(s(0), order(name));
    }
    ledger.take(s(1), at(), sync(1, vec![("ran", running()), ("waited", How::Waiting)])).unwrap();
    let facts = ledger.take(s(2), at(), sync(2, vec![])).unwrap();
    assert!(
        matches!(&facts[..], [Fact::Lost(lost, _), Fact::NeverBegan(gone)] if *lost == id("ran") && *gone == id("waited")),
        "{facts:?}"
    );
    assert_eq!(observed(&mut ledger, 2, "waited"), Known::Observed(Observation::NeverBegan));
    ledger.order(s(2), order("waited"));
    assert_eq!(said(&mut ledger, 2), "start 7/waited.1");
    // Whatever it says later.
    assert_eq!(ledger.take(s(3), at(), sync(3, vec![("ran", ended(0)), ("waited", How::Waiting)])).unwrap(), []);
    assert!(matches!(observed(&mut ledger, 3, "ran"), Known::Observed(Observation::Lost { .. })));
    // One that is to end is not ordered again for that.
    ledger.cancel(s(3), cancel("waited", 5));
    assert_eq!(ledger.take(s(4), at(), sync(4, vec![])).unwrap(), []);
    assert_eq!(said(&mut ledger, 4), "cancel 7/waited.1 5");
}

#[test]
fn a_silent_worker_is_waited_for_until_its_lease_is_surely_over_and_then_it_is_lost_for_good() {
    let mut ledger = Ledger::default();
    // A server that has just begun to lead.
    ledger.claim(s(0), &id("a"));
    assert!(matches!(observed(&mut ledger, 329, "a"), Known::Observed(Observation::Unreachable { .. })));
    ledger.take(s(329), at(), sync(1, vec![("a", running())])).unwrap();
    assert!(matches!(observed(&mut ledger, 659, "a"), Known::Observed(Observation::Running { .. })));
    assert!(matches!(observed(&mut ledger, 660, "a"), Known::Observed(Observation::Lost { .. })));
    assert_eq!(ledger.take(s(661), at(), sync(2, vec![("a", running())])).unwrap(), []);
    assert!(matches!(observed(&mut ledger, 661, "a"), Known::Observed(Observation::Lost { .. })));
    ledger.forget(s(0), &id("a"));
    assert_eq!(said(&mut ledger, 661), "forget 7/a.1", "it is ended if it runs after all");
    let mut silent = Ledger::default();
    assert!(matches!(observed(&mut silent, 331, "b"), Known::Observed(Observation::Lost { .. })));
}

#[test]
fn after_a_restart_the_truth_is_what_the_worker_has() {
    let mut ledger = Ledger::default();
    assert!(matches!(observed(&mut ledger, 0, "a"), Known::Observed(Observation::Unreachable { .. })));
    let has = vec![("a", running()), ("b", How::Ended { end: None }), ("x", running())];
    ledger.take(s(1), at(), sync(50, has)).unwrap();
    ledger.claim(s(2), &id("a"));
    ledger.claim(s(2), &id("b"));
    assert!(matches!(observed(&mut ledger, 2, "a"), Known::Observed(Observation::Running { .. })));
    assert!(matches!(observed(&mut ledger, 2, "b"), Known::Observed(Observation::Unreachable { .. })));
    // It has read the new word, and tells all ends again.
    let facts = ledger.take(s(3), at(), sync(51, vec![("a", running()), ("b", ended(4)), ("x", ended(0))])).unwrap();
    assert_eq!(facts, [Fact::Ended(id("b"))], "what nobody named is not believed");
    assert!(ledger.take_end(&id("x")).is_none());
    assert_eq!(observed(&mut ledger, 3, "never"), Known::Observed(Observation::NeverBegan));
    assert_eq!(ledger.unclaimed(s(3), s(0), 9), []);
    assert_eq!(ledger.unclaimed(s(3), s(2), 0), []);
    assert_eq!(ledger.unclaimed(s(3), s(2), 9), [id("x")]);
    assert_eq!(ledger.unclaimed(s(4), s(2), 9), [], "it was just looked up");
    ledger.forget(s(3), &id("x"));
    assert_eq!((said(&mut ledger, 3).as_str(), ledger.unclaimed(s(9), s(9), 9).len()), ("forget 7/x.1", 0));
    // An end that was told before anybody named the attempt waits for them.
    ledger.take(s(4), at(), sync(52, vec![("late", ended(0))])).unwrap();
    ledger.claim(s(5), &id("late"));
    assert!(ledger.take_end(&id("late")).is_some());
}

#[test]
fn a_cancel_before_anybody_heard_of_the_attempt_needs_no_worker() {
    let mut ledger = Ledger::default();
    ledger.order(s(0), order("a"));
    assert!(!ledger.cancel(s(0), cancel("a", 5)));
    ledger.take(s(1), at(), sync(1, vec![])).unwrap();
    assert_eq!(said(&mut ledger, 1), "");
    ledger.order(s(1), order("b"));
    assert_eq!(said(&mut ledger, 1), "start 7/b.1");
    assert!(ledger.cancel(s(1), cancel("b", 900)), "it may be on its way");
    assert!(ledger.cancel(s(1), cancel("b", 100)) && ledger.cancel(s(1), cancel("b", 500)));
    assert_eq!(said(&mut ledger, 1), "start 7/b.1, cancel 7/b.1 100", "a grace only gets shorter");
    ledger.take(s(2), at(), sync(2, vec![("b", running())])).unwrap();
    assert_eq!(said(&mut ledger, 2), "cancel 7/b.1 100");
    ledger.take(s(3), at(), sync(3, vec![("b", ended(1))])).unwrap();
    assert_eq!(said(&mut ledger, 3), "");
}

#[test]
fn draining_and_runs_that_are_over_are_said_and_said_again() {
    let mut ledger = Ledger::default();
    ledger.take(s(0), at(), sync(1, vec![])).unwrap();
    ledger.leave(s(0), RunKey(7));
    ledger.set_drain(s(0), true);
    assert!(ledger.is_urgent(s(0)));
    assert_eq!(said(&mut ledger, 0), "leave 7, drain");
    assert!(!ledger.is_urgent(s(1)) && ledger.is_urgent(s(2)));
    assert!(ledger.nothing("word", LEASE).drain, "whoever asks twice is not told the contrary");
    // It ends by itself, and did not hear yet that it is drained as well.
    ledger.take(s(3), at(), Sync { draining: true, ..sync(2, vec![]) }).unwrap();
    assert!(ledger.is_urgent(s(3)) && ledger.is_draining());
    ledger.take(s(4), at(), Sync { draining: true, drained: true, ..sync(3, vec![]) }).unwrap();
    assert!(!ledger.is_urgent(s(9)) && ledger.is_draining());
    assert_eq!(said(&mut ledger, 9), "leave 7, drain");
    assert_eq!(said(&mut ledger, 9), "leave 7, drain");
    assert_eq!(said(&mut ledger, 9), "drain");
}

#[test]
fn what_nobody_misses_waits_for_what_somebody_does() {
    let ms = SignedDuration::from_millis;
    let mut ledger = Ledger::default();
    ledger.take(s(1), at(), sync(1, vec![])).unwrap();
    assert_eq!(ledger.due(), None);
    ledger.order(s(1), order("a"));
    assert!(ledger.is_urgent(s(1)), "nothing waits there: it begins at once");
    said(&mut ledger, 1);
    ledger.take(s(1), at(), sync(2, vec![("a", running()), ("b", How::Waiting)])).unwrap();
    ledger.order(s(2), order("c"));
    assert!(!ledger.is_urgent(s(2)) && ledger.is_urgent(s(2) + GATHERED), "another waits before it");
    assert_eq!(ledger.due(), Some(s(2) + GATHERED));
    // A cancel does not wait, and takes the order with it.
    assert!(ledger.cancel(s(2), cancel("a", 5)));
    assert!(ledger.is_urgent(s(2)));
    assert_eq!(said(&mut ledger, 2), "start 7/c.1, cancel 7/a.1 5");
    ledger.take(s(3), at(), sync(3, vec![("a", ended(0)), ("c", running())])).unwrap();
    ledger.forget(s(3), &id("a"));
    assert!(!ledger.is_urgent(s(3) + ms(499)) && ledger.is_urgent(s(3) + ms(500)));
    // It runs there, and nobody wants it.
    ledger.forget(s(3), &id("c"));
    assert!(ledger.is_urgent(s(3)));
    // Whoever drains ends when all is forgotten.
    ledger.take(s(4), at(), Sync { draining: true, ..sync(4, vec![("d", ended(0))]) }).unwrap();
    ledger.claim(s(4), &id("d"));
    ledger.forget(s(4), &id("d"));
    assert!(ledger.is_urgent(s(4)));
    assert_eq!(said(&mut ledger, 4), "forget 7/d.1");
    ledger.take(s(5), at(), Sync { draining: true, ..sync(5, vec![]) }).unwrap();
    assert!(!ledger.is_urgent(s(9)) && ledger.due().is_none(), "then nobody looks");
}

#[test]
fn what_a_worker_was_given_elsewhere_is_left_to_it_until_its_lease_is_surely_over() {
    let lost = |known: Known| matches!(known, Known::Observed(Observation::Lost { .. }));
    let open = |known: Known| matches!(known, Known::Observed(Observation::Unreachable { .. }));
    let mut ledger = Ledger::default();
    for name in ["ran", "waited", "ordered", "found"] {
        ledger.order(s(0), order(name));
    }
    ledger.take(s(1), at(), sync(1, vec![])).unwrap();
    said(&mut ledger, 1);
    let has = vec![("ran", running()), ("waited", How::Waiting), ("found", running())];
    ledger.take(s(100), at(), sync(2, has)).unwrap();
    ledger.order(s(101), order("new"));
    // A copy of its directory, which has one of them.
    ledger.moved(PATIENCE);
    let copy = |seq: u64| Sync { incarnation: 9, ..sync(seq, vec![("found", running())]) };
    assert_eq!(ledger.take(s(200), at(), copy(1)).unwrap(), []);
    assert_eq!(said(&mut ledger, 200), "start 7/new.1", "what nobody was given is ordered");
    for name in ["ran", "waited", "ordered"] {
        assert!(open(observed(&mut ledger, 430, name)), "{name}");
    }
    ledger.take(s(431), at(), copy(2)).unwrap();
    for name in ["ran", "waited", "ordered"] {
        assert!(lost(observed(&mut ledger, 431, name)), "{name}");
    }
    assert!(matches!(observed(&mut ledger, 431, "found"), Known::Observed(Observation::Running { .. })));
    // A server that has just begun to lead cannot know what was given.
    let mut fresh = Ledger::default();
    fresh.claim(s(0), &id("a"));
    fresh.moved(PATIENCE);
    fresh.take(s(5), at(), copy(1)).unwrap();
    fresh.claim(s(6), &id("b"));
    assert!(open(observed(&mut fresh, 6, "a")) && open(observed(&mut fresh, 330, "b")));
    fresh.order(s(7), order("c"));
    assert_eq!(said(&mut fresh, 7), "start 7/c.1");
    fresh.take(s(331), at(), copy(2)).unwrap();
    assert!(lost(observed(&mut fresh, 331, "a")) && lost(observed(&mut fresh, 331, "b")));
    fresh.claim(s(332), &id("d"));
    assert_eq!(observed(&mut fresh, 332, "d"), Known::Observed(Observation::NeverBegan));
}

#[test]
fn a_copy_that_has_traces_of_what_runs_elsewhere_does_not_end_it() {
    let lost = || How::Ended { end: Some(Box::new(End::Lost { reason: "its runner was killed".to_owned() })) };
    let open = |known: Known| matches!(known, Known::Observed(Observation::Unreachable { .. }));
    let copy = |seq: u64, has: Vec<(&str, How)>| Sync { incarnation: 9, ..sync(seq, has) };
    let mut ledger = Ledger::default();
    for name in ["a", "b"] {
        ledger.order(s(0), order(name));
    }
    ledger.take(s(100), at(), sync(1, vec![("a", running()), ("b", running())])).unwrap();
    // A server that has just begun to lead hears of them before anybody names them, or after.
    let mut fresh = Ledger::default();
    fresh.claim(s(100), &id("a"));
    for ledger in [&mut ledger, &mut fresh] {
        ledger.moved(PATIENCE);
        assert_eq!(ledger.take(s(100), at(), copy(1, vec![("a", How::Waiting), ("b", How::Waiting)])).unwrap(), []);
        assert_eq!(ledger.take(s(101), at(), copy(2, vec![("a", lost()), ("b", lost())])).unwrap(), []);
        assert_eq!(ledger.take(s(102), at(), copy(3, vec![("a", How::Ended { end: None })])).unwrap(), []);
        for name in ["a", "b"] {
            ledger.claim(s(103), &id(name));
            assert!(open(observed(ledger, 103, name)) && ledger.take_end(&id(name)).is_none(), "{name}");
        }
        // Nothing but its lease ends it there, and here nobody may begin another.
        assert!(ledger.cancel(s(104), cancel("a", 5)));
        assert_eq!((said(ledger, 104).as_str(), ledger.is_urgent(s(200))), ("", false));
        ledger.take(s(431), at(), copy(4, vec![("a", How::Ended { end: None })])).unwrap();
        assert!(matches!(observed(ledger, 431, "a"), Known::Observed(Observation::Lost { .. })));
    }
}

#[test]
fn what_is_found_elsewhere_after_all_is_told_to_end() {
    let mut ledger = Ledger::default();
    ledger.order(s(0), order("a"));
    ledger.take(s(1), at(), sync(1, vec![("a", running())])).unwrap();
    ledger.moved(PATIENCE);
    let moved = |seq: u64, how: How| Sync { incarnation: 9, ..sync(seq, vec![("a", how)]) };
    ledger.take(s(2), at(), moved(1, How::Waiting)).unwrap();
    ledger.cancel(s(3), cancel("a", 5));
    assert_eq!(said(&mut ledger, 3), "");
    ledger.take(s(4), at(), moved(2, running())).unwrap();
    assert!(ledger.is_urgent(s(4)));
    assert_eq!(said(&mut ledger, 4), "cancel 7/a.1 5");
    assert_eq!(ledger.take(s(5), at(), moved(3, ended(0))).unwrap(), [Fact::Ended(id("a"))]);
}

#[test]
fn an_attempt_began_once_whatever_the_clock_of_its_worker_does() {
    let mut ledger = Ledger::default();
    ledger.order(s(0), order("a"));
    let hour = SignedDuration::from_hours(1);
    let says = |seq: u64, off: SignedDuration| {
        let started_at = at() + off - SignedDuration::from_secs(5);
        Sync { clock: Some(at() + off), ..sync(seq, vec![("a", How::Running { started_at })]) }
    };
    let began = Fact::Started(id("a"), at() - SignedDuration::from_secs(5));
    assert_eq!(ledger.take(s(1), at(), says(1, -hour)).unwrap(), [began]);
    assert_eq!(ledger.take(s(2), at(), says(2, hour)).unwrap(), []);
}

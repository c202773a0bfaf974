//! Attempts: retries, lost machines, timeouts, exit codes, and reports that come late.

use super::*;
use crate::engine::MAX_LOST;

#[test]
fn a_failure_is_retried_after_its_delay_until_the_retries_are_used_up() {
    let mut w = World::of("a : retries=2 delay=30");
    w.end("a", failed());
    assert_eq!(
        (w.state("a"), w.why("a").as_str()),
        ("up_for_retry", "waits until 1970-01-01T00:00:30Z for its next try")
    );
    w.wait(29);
    assert_eq!(w.state("a"), "up_for_retry");
    w.wait(1);
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.end("a", failed());
    w.wait(30);
    w.end("a", failed());
    assert_eq!((w.state("a"), w.run_state(), w.message("a")), ("failed", "failed", "boom"));
    assert_eq!(w.launched(), "a.1, a.2, a.3");
}

#[test]
fn the_delay_grows_and_begins_anew_after_a_clear() {
    let mut w = World::of("a : retries=3 delay=10 backoff=2");
    let mut waited = Vec::new();
    for _ in 0..3 {
        w.end("a", failed());
        let at = w.run.instance(w.slot("a")).state.wakes_at().expect("it waits");
        waited.push(at.duration_since(w.now).as_secs());
        w.wait(*waited.last().unwrap());
    }
    assert_eq!(waited, [10, 20, 40]);
    w.clear(&["a"]);
    w.end("a", killed());
    w.end("a", failed());
    assert_eq!((w.attempt("a"), w.why("a").as_str()), (5, "waits until 1970-01-01T00:01:20Z for its next try"));
}

#[test]
fn a_lost_attempt_costs_no_retry_but_not_for_ever() {
    let mut w = World::of("a : retries=1 delay=100");
    w.end("a", lost());
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.end("a", failed());
    assert_eq!(w.state("a"), "up_for_retry");
    w.wait(100);
    for n in 2..=MAX_LOST {
        w.end("a", lost());
        w.wait(i64::from(n));
    }
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 3 + MAX_LOST - 1));
    w.end("a", lost());
    assert_eq!(w.state("a"), "failed");
}

#[test]
fn a_timeout_ends_the_attempt_and_counts_as_a_failure() {
    let mut w = World::of("a : timeout=60 retries=1 delay=0");
    w.wait(100);
    assert_eq!(w.cancelled(), "", "it counts from the start");
    w.start("a");
    w.wait(60);
    assert_eq!(w.cancelled(), "a.1");
    // An exit code that means "skip" does not count when it was made to end.
    w.end("a", skipped());
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.start("a");
    w.wait(60);
    w.end("a", lost());
    assert_eq!((w.state("a"), w.run.instance(w.slot("a")).exit.clone()), ("failed", Some(Exit::TimedOut)));
}

#[test]
fn an_attempt_that_ends_well_while_it_is_being_timed_out_has_ended_well() {
    let mut w = World::of("a : timeout=60");
    w.start("a");
    w.wait(60);
    w.end("a", ok());
    assert_eq!((w.state("a"), w.run_state()), ("success", "success"));
}

#[test]
fn a_timeout_does_not_hide_why_an_attempt_was_stopped_before() {
    let mut w = World::of("a : timeout=60");
    w.start("a");
    w.clear(&["a"]);
    w.wait(60);
    assert_eq!(w.cancelled(), "a.1");
    w.end("a", killed());
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
}

#[test]
fn a_skip_exit_code_skips_without_a_retry() {
    let mut w = World::of("a : retries=3\n b <- a");
    w.end("a", skipped());
    assert_eq!((w.states().as_str(), w.run_state()), ("a skipped, b skipped", "success"));
}

#[test]
fn what_no_other_attempt_can_help_fails_for_good() {
    let mut w = World::of("workflow : fail_fast\n a : retries=3\n b");
    w.end("a", ended(Exit::start_failed("the disk is full")));
    assert_eq!(w.state("a"), "up_for_retry");
    w.wait(3600);
    w.end("a", ended(Exit::cannot_start("the key of `h` changed")));
    assert_eq!((w.state("a"), w.cancelled().as_str()), ("failed", "b.1"));
}

#[test]
fn the_exit_code_for_wrong_input_ends_the_retries_of_an_action_and_of_nothing_else() {
    let mut w = World::of("a : action retries=3\n b : retries=3");
    for task in ["a", "b"] {
        w.end(task, ended(Exit::Code { code: crate::state::EX_CONFIG }));
    }
    assert_eq!(w.states(), "a failed, b up_for_retry");
}

#[test]
fn a_missing_output_makes_a_failure_of_exit_code_0() {
    let mut w = World::of("a");
    w.end("a", Report { error: Some("the output `x` is missing".to_owned()), ..ok() });
    assert_eq!((w.state("a"), w.message("a")), ("failed", "the output `x` is missing"));
}

#[test]
fn reports_of_older_attempts_are_dropped_and_counted() {
    let mut w = World::of("a : retries=1 delay=0\n b <- a");
    let (slot, at) = (w.slot("a"), w.now);
    w.end("a", lost());
    assert_eq!(w.attempt("a"), 2);
    w.apply(Event::Ended { slot, attempt: 1, report: ok() });
    w.apply(Event::Started { slot, attempt: 1, at });
    assert_eq!((w.states().as_str(), w.run.stale_reports), ("a queued, b none", 2));
    // Twice is once, and in any order.
    w.end("a", ok());
    w.end("a", failed());
    w.start("a");
    assert_eq!((w.states().as_str(), w.run.stale_reports), ("a success, b queued", 4));
}

#[test]
fn an_end_without_a_start_tells_when_it_began() {
    let mut w = World::of("a");
    w.now += SignedDuration::from_secs(50);
    let began = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(20);
    w.end("a", Report { started_at: Some(began), ..ok() });
    let a = w.run.instance(w.slot("a"));
    assert_eq!((a.start, a.end), (Some(began), Some(w.now)));
}

#[test]
fn what_no_machine_has_fails_with_the_reason() {
    let mut w = World::of("a : gpus=3 retries=2\n b : pool=gold");
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b failed", "failed"));
    assert_eq!(
        w.message("a"),
        "no node can ever take it, not even when it is empty: `local`: 3 GPUs asked for; 2 of its 2 free"
    );
    assert_eq!(w.message("b"), "the pool `gold` does not exist; create it with `pitcrew pools set gold SLOTS`");
    assert_eq!(w.launched(), "");
}

#[test]
fn one_that_made_room_begins_anew_without_drawing_on_its_retries() {
    let mut w = World::of("a");
    w.start("a");
    let slot = w.slot("a");
    w.apply(Event::Preempt { slot, reason: "it makes room for `b`".to_owned() });
    // Told again, nothing changes.
    w.apply(Event::Preempt { slot, reason: "for `c`".to_owned() });
    assert_eq!(w.cancelled(), "a.1");
    assert_eq!((w.state("a"), w.message("a")), ("running", "it makes room for `b`"));
    w.end("a", Report { message: "the end of its log".to_owned(), ..killed() });
    // There is room again at once.
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.end("a", failed());
    assert_eq!((w.state("a"), w.launched().as_str()), ("failed", "a.1, a.2"));
}

//! Cancel, the timeout of a run, and `fail_fast`: what runs is ended, what waits is skipped, cleanup still happens.

use super::*;

const RUN: &str = "
    up : setup
    work <- up : retries=5
    later <- work
    down <- later : teardown=up
    f : finally";

#[test]
fn a_cancelled_run_ends_what_runs_and_still_cleans_up() {
    let mut w = World::of(RUN);
    w.end("up", ok());
    w.start("work");
    w.cancel();
    assert_eq!(w.cancelled(), "work.1");
    assert_eq!(w.states(), "up success, work running, later skipped, down none, f none");
    assert_eq!(w.message("later"), "the run was cancelled");
    w.end("work", killed());
    assert_eq!(w.states(), "up success, work failed, later skipped, down queued, f none");
    w.succeed(&["down", "f"]);
    assert_eq!((w.run_state(), w.finished), ("cancelled", 1));
}

#[test]
fn cancelled_twice_it_does_not_clean_up_either() {
    let mut w = World::of(RUN);
    w.end("up", ok());
    w.cancel();
    w.end("work", killed());
    assert_eq!(w.states(), "up success, work failed, later skipped, down queued, f none");
    w.cancelled();
    w.cancel();
    assert_eq!(w.cancelled(), "down.1");
    assert_eq!(w.states(), "up success, work failed, later skipped, down queued, f skipped");
    w.end("down", killed());
    assert_eq!(w.run_state(), "cancelled");
}

#[test]
fn cancelled_twice_a_cleanup_that_was_to_be_repeated_is_not() {
    let mut w = World::of("a\n f : finally retries=3");
    w.end("a", ok());
    w.clear(&["f"]);
    w.cancel();
    w.cancel();
    w.end("f", killed());
    assert_eq!((w.state("f"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn cancelled_twice_a_cleanup_that_ran_out_of_time_is_not_tried_again() {
    let mut w = World::of("a\n f : finally timeout=10 retries=3 delay=0");
    w.end("a", ok());
    w.start("f");
    w.wait(10);
    w.cancel();
    w.cancel();
    w.end("f", killed());
    assert_eq!((w.state("f"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn a_success_that_comes_before_the_signal_counts() {
    let mut w = World::of("a\n b <- a");
    w.cancel();
    w.end("a", ok());
    assert_eq!((w.states().as_str(), w.run_state()), ("a success, b skipped", "cancelled"));
}

#[test]
fn what_waits_for_a_retry_fails_when_its_run_is_cancelled() {
    let mut w = World::of("a : retries=1");
    w.end("a", failed());
    w.cancel();
    assert_eq!((w.state("a"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn a_run_cancelled_before_its_turn_never_begins() {
    let mut w = World::new("a\n f : finally");
    w.cancel();
    assert_eq!((w.run_state(), w.states().as_str(), w.finished), ("cancelled", "a none, f none", 1));
    w.begin();
    w.mark("a", true);
    assert_eq!((w.run_state(), w.why("a").as_str()), ("cancelled", "will not run: the run is over (cancelled)"));
    w.clear(&["a"]);
    assert_eq!((w.run_state(), w.states().as_str()), ("running", "a queued, f none"));
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    let mut w = World::of("a");
    w.end("a", ok());
    w.cancel();
    assert_eq!((w.run_state(), w.finished), ("success", 1));
}

#[test]
fn the_timeout_of_a_run_stops_it_and_fails_it() {
    let mut w = World::of("workflow : timeout=100\n a\n b <- a\n f : finally");
    w.wait(100);
    assert_eq!((w.cancelled().as_str(), w.message("b")), ("a.1", "the run timed out"));
    w.end("a", killed());
    w.wait(1_000);
    w.end("f", ok());
    assert_eq!(w.run_state(), "failed");
    // Cleared, it has its whole time again.
    w.clear(&["a", "b"]);
    w.wait(99);
    assert_eq!((w.run_state(), w.cancelled().as_str()), ("running", ""));
    w.wait(1);
    assert_eq!(w.cancelled(), "a.2");
}

#[test]
fn with_fail_fast_the_first_failure_for_good_stops_the_others() {
    let mut w = World::of("workflow : fail_fast\n a : retries=1\n b\n c <- b\n f : finally");
    w.end("a", failed());
    assert_eq!(w.states(), "a up_for_retry, b queued, c none, f none");
    w.wait(30);
    w.end("a", failed());
    assert_eq!((w.cancelled().as_str(), w.message("c")), ("b.1", "`a` failed, and the workflow fails fast"));
    w.end("b", killed());
    w.end("f", ok());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b failed, c skipped, f success", "failed"));
}

#[test]
fn a_run_opened_again_is_not_stopped_by_what_the_first_failure_still_brings_down() {
    let mut w = World::of("workflow : fail_fast\n a\n b");
    w.end("a", failed());
    w.clear(&["a"]);
    w.end("b", killed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a queued, b failed", "running"));
}

#[test]
fn a_bad_demand_can_stop_a_run_at_its_begin() {
    let mut w = World::new("workflow : fail_fast\n a\n b\n c");
    w.script.gpus.insert("b".to_owned(), Err("`resources.gpu` is not a number".to_owned()));
    w.begin();
    assert_eq!((w.states().as_str(), w.run_state()), ("a skipped, b failed, c skipped", "failed"));
    assert_eq!(w.launched(), "");
}

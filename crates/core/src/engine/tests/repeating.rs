//! Clear and mark: final, live, mapped, with what follows, and of runs that are over.

use super::*;

#[test]
fn a_clear_repeats_a_task_and_what_follows_and_opens_the_run_again() {
    let mut w = World::of("a : retries=1 delay=0\n b <- a\n c\n f : finally");
    w.end("c", ok());
    w.end("a", failed());
    w.end("a", failed());
    w.end("f", ok());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b upstream_failed, c success, f success", "failed"));
    w.now += SignedDuration::from_secs(60);
    w.clear_from("a");
    assert_eq!((w.states().as_str(), w.run_state()), ("a queued, b none, c success, f none", "running"));
    assert_eq!((w.attempt("a"), w.run.record.start), (3, Some(w.now)));
    // Its retries are there again.
    w.end("a", failed());
    w.succeed(&["a", "b", "f"]);
    assert_eq!((w.run_state(), w.finished, w.attempt("a")), ("success", 2, 4));
}

#[test]
fn without_downstream_only_the_task_and_finally_run_again() {
    let mut w = World::of("a\n b <- a\n f : finally");
    w.succeed(&["a", "b", "f"]);
    w.clear(&["a"]);
    assert_eq!(w.states(), "a queued, b success, f none");
    w.succeed(&["a", "f"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_live_attempt_is_ended_before_it_runs_again() {
    let mut w = World::of("a\n b <- a");
    w.start("a");
    w.clear_from("a");
    assert_eq!((w.states().as_str(), w.cancelled().as_str()), ("a running, b none", "a.1"));
    w.end("a", ok());
    assert_eq!((w.states().as_str(), w.attempt("a")), ("a queued, b none", 2));
    w.succeed(&["a", "b"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn what_became_ready_waits_again_when_its_upstream_is_cleared() {
    let mut w = World::of("workflow : max_active_tasks=1\n a\n b <- a\n c <- a : retries=1 delay=5\n x : priority=9");
    w.succeed(&["x", "a"]);
    w.end("b", ok());
    w.end("c", failed());
    assert_eq!(w.states(), "a success, b success, c up_for_retry, x success");
    w.clear(&["b", "x", "a"]);
    w.wait(5);
    assert_eq!(w.states(), "a scheduled, b none, c none, x queued");
    w.succeed(&["x", "a", "b"]);
    assert_eq!((w.state("c"), w.attempt("c")), ("queued", 2));
}

#[test]
fn a_cleared_task_gets_its_setup_and_teardown_too() {
    let mut w = World::of("up : setup\n a <- up\n b <- a\n down <- b : teardown=up\n z <- b");
    w.succeed(&["up", "a", "b", "down", "z"]);
    w.clear(&["b"]);
    assert_eq!(w.states(), "up queued, a success, b none, down none, z success");
    w.succeed(&["up", "b", "down"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_clear_in_a_run_that_is_being_cancelled_lets_it_go_on() {
    let mut w = World::of("a\n b <- a");
    w.cancel();
    w.clear(&["a", "b"]);
    w.end("a", killed());
    w.succeed(&["a", "b"]);
    assert_eq!((w.run_state(), w.attempt("a")), ("success", 2));
}

#[test]
fn a_failure_marked_as_success_lets_go_on_what_had_failed_because_of_it() {
    let mut w = World::of("a\n b <- a\n c <- b\n f : finally");
    w.end("a", failed());
    w.end("f", ok());
    w.mark("a", true);
    assert_eq!((w.states().as_str(), w.run_state()), ("a success, b queued, c none, f none", "running"));
    assert_eq!(w.message("a"), "marked by hand");
    w.succeed(&["b", "c", "f"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_mark_ends_what_is_live_and_decides_for_what_is_not() {
    let mut w = World::of("a : retries=3\n b <- a\n c <- b");
    w.mark("a", true);
    assert_eq!((w.state("a"), w.cancelled().as_str()), ("queued", "a.1"));
    w.end("a", killed());
    assert_eq!(w.states(), "a success, b queued, c none");
    w.mark("c", false);
    w.mark("b", false);
    w.end("b", ok());
    assert_eq!((w.states().as_str(), w.run_state()), ("a success, b failed, c failed", "failed"));
}

#[test]
fn a_mark_on_a_run_that_is_over_judges_it_anew() {
    let mut w = World::of("a\n b");
    w.end("a", failed());
    w.end("b", ok());
    assert_eq!(w.run_state(), "failed");
    w.mark("a", true);
    assert_eq!(w.run_state(), "success");
    w.mark("b", false);
    assert_eq!(w.run_state(), "failed");
}

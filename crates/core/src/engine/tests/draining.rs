//! A run that begins nothing new: after a failure, or because a person said so; and the other ways to stop one.

use super::*;
use crate::engine::record::{RunStop, SkipReason as Why};

fn skips(w: &World) -> Vec<Option<Why>> {
    w.run.all_slots().map(|slot| w.run.instance(slot).skip).collect()
}

#[test]
fn after_a_failure_for_good_what_has_begun_goes_on_with_its_retries() {
    let mut w = World::of(
        "workflow : drain max_active_tasks=2\n a : retries=1 delay=0\n b : retries=1\n c\n d <- b\n f : finally",
    );
    assert_eq!(w.states(), "a queued, b queued, c scheduled, d none, f none");
    w.end("a", failed());
    assert_eq!((w.state("a"), w.attempt("a"), w.state("c")), ("queued", 2, "scheduled"));
    w.end("a", failed());
    // `c` was ready, and `d` waits for what goes on: neither has begun.
    assert_eq!(w.states(), "a failed, b queued, c skipped, d skipped, f none");
    assert_eq!(skips(&w), [None, None, Some(Why::Stopping), Some(Why::Stopping), None]);
    assert_eq!(w.message("c"), "`a` failed, and nothing new begins");
    assert_eq!(w.cancelled(), "");
    w.end("b", failed());
    assert_eq!(w.state("b"), "up_for_retry");
    w.wait(30);
    assert_eq!((w.state("b"), w.attempt("b")), ("queued", 2));
    w.succeed(&["b", "f"]);
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn a_task_that_was_cleared_has_not_begun() {
    let mut w = World::of("workflow : drain\n a\n b\n c <- b");
    w.end("b", ok());
    w.end("c", ok());
    w.clear(&["c"]);
    assert_eq!(w.states(), "a queued, b success, c queued");
    w.clear(&["b", "c"]);
    w.end("c", killed());
    assert_eq!(w.states(), "a queued, b queued, c none");
    w.end("a", failed());
    assert_eq!(w.states(), "a failed, b queued, c skipped");
    w.end("b", ok());
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn what_is_mapped_later_is_new_too() {
    let mut w = World::of("workflow : drain\n a\n b : max_parallel=1 foreach=a\n c");
    w.end("a", gives(list(3)));
    w.end("c", failed());
    assert_eq!(w.states(), "a success, b[0] queued, b[1] skipped, b[2] skipped, c failed");
    w.end("b[0]", lost());
    assert_eq!((w.state("b[0]"), w.attempt("b[0]")), ("queued", 2));
    w.end("b[0]", ok());
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn a_person_may_let_what_runs_go_on() {
    let mut w = World::of("a : retries=1 delay=0\n b <- a\n f : finally");
    w.cancel_so(StopHow::DrainThenFinally);
    assert_eq!((w.states().as_str(), w.cancelled().as_str()), ("a queued, b skipped, f none", ""));
    assert_eq!(skips(&w)[1], Some(Why::Stopped));
    w.end("a", failed());
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.succeed(&["a", "f"]);
    assert_eq!(w.run_state(), "cancelled");
}

#[test]
fn asked_again_a_run_is_only_stopped_further() {
    let how = |w: &World| match &w.run.record.stop {
        Some(RunStop::Cancelled { how, .. }) => Some(*how),
        _ => None,
    };
    let mut w = World::of("a\n b\n f : finally");
    w.cancel_so(StopHow::DrainThenFinally);
    w.cancel_so(StopHow::DrainThenFinally);
    assert_eq!(w.cancelled(), "");
    w.end("a", ok());
    w.cancel_so(StopHow::ThenFinally);
    assert_eq!((w.cancelled().as_str(), how(&w)), ("b.1", Some(StopHow::ThenFinally)));
    w.cancel_so(StopHow::DrainThenFinally);
    assert_eq!((w.states().as_str(), how(&w)), ("a success, b queued, f none", Some(StopHow::ThenFinally)));
    w.end("b", killed());
    assert_eq!(w.state("f"), "queued");
    w.cancel_so(StopHow::Everything);
    assert_eq!((w.cancelled().as_str(), how(&w)), ("f.1", Some(StopHow::Everything)));
    w.end("f", killed());
    assert_eq!((w.state("f"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn all_at_once_ends_what_cleans_up_too() {
    let mut w = World::of("up : setup\n work <- up\n down <- work : teardown=up\n f : finally retries=3");
    w.end("up", ok());
    w.cancel_so(StopHow::Everything);
    assert_eq!(w.states(), "up success, work queued, down skipped, f skipped");
    w.end("work", killed());
    assert_eq!((w.run_state(), w.finished), ("cancelled", 1));
}

#[test]
fn a_drained_run_can_be_opened_again() {
    let mut w = World::of("workflow : drain\n a\n b <- a");
    w.end("a", failed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b skipped", "failed"));
    w.clear_from("a");
    w.succeed(&["a", "b"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_refused_run_is_a_run_that_failed_at_its_start() {
    let mut w = World::new("workflow : refused\n a\n f : finally");
    w.begin();
    assert_eq!((w.run_state(), w.finished, w.launched().as_str()), ("failed", 1, ""));
    assert!(w.run.record.start.is_some() && w.run.record.end.is_some());
    assert!(matches!(&w.run.record.stop, Some(RunStop::Refused { reason, .. }) if reason == "ParameterMissing"));
    assert_eq!(w.why("a"), "will not run: the task `a` needs the param `p`");
    w.clear(&["a"]);
    w.mark("a", true);
    w.cancel();
    assert_eq!((w.run_state(), w.states().as_str()), ("failed", "a none, f none"));

    let mut w = World::new("workflow : refused\n a");
    w.cancel();
    assert_eq!(w.run_state(), "cancelled");
}

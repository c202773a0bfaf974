//! The times of a run: of all of it, of its tasks, and of its `finally` tasks.

use super::*;
use crate::engine::record::{RunStop, SkipReason as Why};

#[test]
fn the_time_of_the_run_ends_the_finally_tasks_too_where_it_is_so() {
    let mut w = World::of("workflow : timeout=100 ends_finally\n a\n b <- a\n f : finally retries=2");
    w.wait(100);
    assert_eq!(w.states(), "a queued, b skipped, f skipped");
    assert_eq!(w.run.instance(w.slot("f")).skip, Some(Why::RunTimeout));
    w.end("a", killed());
    assert_eq!(w.run_state(), "failed");

    let mut w = World::of("workflow : timeout=100 ends_finally\n a\n f : finally retries=2");
    w.cancel();
    w.end("a", killed());
    w.cancelled();
    w.wait(100);
    assert_eq!((w.cancelled().as_str(), w.state("f")), ("f.1", "queued"));
    w.end("f", killed());
    // It was still a person who stopped it.
    assert_eq!((w.state("f"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn the_time_of_the_tasks_leaves_the_finally_tasks_theirs() {
    let mut w = World::of(
        "workflow : timeout=100 tasks=60 ends_finally\n a : retries=5\n b <- a\n f : finally\n g <- f : finally",
    );
    w.wait(60);
    assert_eq!((w.cancelled().as_str(), w.message("b")), ("a.1", Why::TasksTimeout.sentence()));
    w.end("a", killed());
    assert_eq!(w.states(), "a failed, b skipped, f queued, g none");
    w.wait(40);
    assert_eq!((w.cancelled().as_str(), w.run.instance(w.slot("g")).skip), ("f.1", Some(Why::RunTimeout)));
    w.end("f", ok());
    assert_eq!(w.run_state(), "failed");
    assert_eq!(w.run.record.stop, Some(RunStop::TimedOut));
}

#[test]
fn the_time_of_the_tasks_is_nothing_to_tasks_that_are_over() {
    let mut w = World::of("workflow : tasks=60\n a\n f : finally");
    w.end("a", ok());
    w.wait(1_000);
    w.end("f", ok());
    assert_eq!(w.run_state(), "success");
}

#[test]
fn the_time_of_the_finally_tasks_counts_from_the_first_that_begins() {
    let mut w = World::of("workflow : finally=50 max_active_tasks=1\n a\n f : finally retries=3 delay=0\n g : finally");
    w.wait(1_000);
    w.end("a", ok());
    w.wait(30);
    w.end("f", failed());
    assert_eq!(w.attempt("f"), 2);
    w.wait(19);
    assert_eq!(w.cancelled(), "");
    // Who takes over here knows when it began.
    let mut taken = w.restored();
    let fx = taken.apply(Event::Tick, w.now + SignedDuration::from_secs(1), &w.script);
    assert_eq!(fx.cancel.len(), 1);
    w.wait(1);
    assert_eq!((w.cancelled().as_str(), w.run.instance(w.slot("g")).skip), ("f.2", Some(Why::FinallyTimeout)));
    w.end("f", killed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a success, f failed, g skipped", "failed"));
    // Cleared, they have their whole time again.
    w.clear(&["f"]);
    assert_eq!(w.states(), "a success, f queued, g scheduled");
    w.wait(49);
    assert_eq!(w.cancelled(), "");
    w.wait(1);
    assert_eq!(w.cancelled(), "f.3");
}

#[test]
fn a_drained_run_still_has_its_times() {
    let mut w = World::of("workflow : drain tasks=60\n a\n b\n f : finally");
    w.end("a", failed());
    w.wait(60);
    assert_eq!((w.cancelled().as_str(), &w.run.record.stop), ("b.1", &Some(RunStop::TasksTimedOut)));
    w.end("b", killed());
    w.end("f", ok());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b failed, f success", "failed"));
}

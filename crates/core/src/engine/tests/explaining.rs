//! "Why is it not running?", for the states that the other stories do not come by.

use insta::assert_snapshot;

use super::*;

#[test]
fn every_state_has_its_sentence() {
    let mut w = World::new("a\n b\n c <- a, b");
    assert_snapshot!(w.why("a"), @"waits for its run to begin (`max_active_runs`)");
    w.begin();
    assert_snapshot!(w.why("a"), @"has its slot and is being started");
    w.start("a");
    assert_snapshot!(w.why("a"), @"is running");
    assert_snapshot!(w.why("c"), @"waits for `a`, which is running; waits for `b`, which is queued");
    w.end("a", failed());
    assert_snapshot!(w.why("a"), @"is failed: boom");
    assert_snapshot!(w.why("c"), @"did not run: `a` failed");
}

#[test]
fn many_reasons_are_cut_short() {
    let text: String = (0..20).map(|i| format!("t{i}\n")).collect();
    let needs: Vec<String> = (0..20).map(|i| format!("t{i}")).collect();
    let w = World::of(&format!("{text} join <- {}", needs.join(", ")));
    let why = w.why("join");
    assert_eq!(why.split("; ").count(), 9);
    assert_snapshot!(why.split("; ").last().unwrap(), @"waits for 12 more tasks");
}

#[test]
fn a_met_rule_is_not_blamed_for_what_is_still_open() {
    // `b` is still open, yet it is the past that is waited for.
    let mut w = World::of("a\n b\n c <- a, b : one_success past");
    w.end("a", ok());
    assert_snapshot!(w.why("c"), @"waits for the same task of the previous run (`depends_on_past`)");
}

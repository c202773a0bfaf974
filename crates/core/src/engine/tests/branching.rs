//! A branch goes on with the tasks that it names; the others are skipped, and stay so.

use super::*;

const DIAMOND: &str = "
    pick : branch=left
    left <- pick
    right <- pick
    after-right <- right
    join <- left, right : none_failed_min_one_success";

#[test]
fn a_branch_skips_what_it_does_not_name_at_once() {
    let mut w = World::of(DIAMOND);
    w.end("pick", ok());
    assert_eq!(w.states(), "pick success, left queued, right skipped, after-right skipped, join none");
    assert_eq!(w.message("right"), "`pick` took another branch");
    w.succeed(&["left", "join"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_join_behind_the_branch_that_is_followed_runs() {
    let text = "pick : branch=left\n left <- pick\n join <- pick, left";
    let mut w = World::of(text);
    w.end("pick", ok());
    assert_eq!(w.states(), "pick success, left queued, join none");
    w.succeed(&["left", "join"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_branch_that_names_nothing_skips_all() {
    let mut w = World::of("pick : branch\n a <- pick\n b <- pick : always");
    assert_eq!(w.state("b"), "queued");
    w.end("pick", ok());
    assert_eq!(w.states(), "pick success, a skipped, b queued");
}

#[test]
fn a_branch_takes_back_what_is_ready_and_has_not_begun() {
    let mut w = World::of("workflow : max_active_tasks=1\n pick : branch\n b <- pick : always");
    assert_eq!(w.state("b"), "scheduled");
    w.end("pick", ok());
    assert_eq!((w.state("b"), w.run_state()), ("skipped", "success"));
}

#[test]
fn a_branch_names_its_siblings_in_a_group_shortly() {
    let mut w = World::of("group g\n g.pick : branch=a\n g.a <- g.pick\n g.b <- g.pick");
    w.end("g.pick", ok());
    assert_eq!(w.states(), "g.pick success, g.a queued, g.b skipped");
}

#[test]
fn a_name_that_does_not_need_the_branch_fails_it() {
    let mut w = World::of("pick : branch=elsewhere\n elsewhere\n a <- pick");
    w.end("pick", ok());
    assert_eq!(w.message("pick"), "`branch`: `elsewhere` is not a task that needs `pick`");
    assert_eq!(w.states(), "pick failed, elsewhere queued, a upstream_failed");
}

#[test]
fn the_decision_survives_a_clear_of_what_was_skipped() {
    let mut w = World::of(DIAMOND);
    w.succeed(&["pick", "left", "join"]);
    w.clear(&["right"]);
    assert_eq!((w.state("right"), w.run_state()), ("skipped", "success"));
    // Until the branch itself runs again, and decides anew.
    w.script.branches.insert("pick".to_owned(), vec!["right".to_owned()]);
    w.clear_from("pick");
    w.end("pick", ok());
    assert_eq!(w.states(), "pick success, left skipped, right queued, after-right none, join none");
}

#[test]
fn a_teardown_runs_whichever_way_the_branch_went() {
    let mut w = World::of("s : setup\n pick <- s : branch=out\n x <- pick\n out <- pick\n t <- s, x : teardown=s");
    w.succeed(&["s", "pick"]);
    assert_eq!(w.states(), "s success, pick success, x skipped, out queued, t queued");
}

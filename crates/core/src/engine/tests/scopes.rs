//! Setups, teardowns and `finally`.

use super::*;

const SCOPE: &str = "up : setup\n work <- up\n more <- work\n down <- more : teardown=up";

#[test]
fn a_teardown_runs_after_all_that_is_in_its_scope_whatever_failed() {
    let mut w = World::of(SCOPE);
    w.end("up", ok());
    w.end("work", failed());
    assert_eq!(w.states(), "up success, work failed, more upstream_failed, down queued");
    w.end("down", ok());
    // It is not the teardown that decides.
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn a_teardown_does_not_run_without_its_setup() {
    let mut w = World::of(SCOPE);
    w.end("up", failed());
    assert_eq!(w.states(), "up failed, work upstream_failed, more upstream_failed, down upstream_failed");

    let mut w = World::of(SCOPE);
    w.end("up", skipped());
    assert_eq!(
        (w.states().as_str(), w.run_state()),
        ("up skipped, work skipped, more skipped, down skipped", "success")
    );
}

#[test]
fn a_failed_teardown_fails_the_run_only_if_it_says_so() {
    for (option, state) in [("", "success"), ("fails_run", "failed")] {
        let mut w = World::of(&format!("up : setup\n work <- up\n down <- work : teardown=up {option}"));
        w.succeed(&["up", "work"]);
        w.end("down", failed());
        assert_eq!(w.run_state(), state);
    }
}

#[test]
fn whatever_its_rule_a_task_in_a_scope_waits_for_the_setup() {
    let mut w = World::of("a\n up : setup\n mid <- up\n work <- a, mid : always\n down <- work : teardown=up");
    w.end("a", ok());
    assert_eq!(
        (w.state("work"), w.why("work").as_str()),
        ("none", "waits for the setup `up`, which is queued; waits for `mid`, which is waiting")
    );
    w.end("up", ok());
    assert_eq!(w.state("work"), "queued");

    let mut w = World::of("a\n up : setup\n mid <- up\n work <- a, mid : all_done\n down <- work : teardown=up");
    w.end("up", failed());
    assert_eq!(w.state("work"), "upstream_failed");
}

#[test]
fn inside_a_mapped_group_each_index_has_its_own_scope() {
    let mut w = World::new("group g : foreach\n g.up : setup\n g.work <- g.up\n g.down <- g.work : teardown=g.up");
    w.items("g", list(2));
    w.begin();
    w.end("g.up[0]", failed());
    w.end("g.up[1]", ok());
    w.end("g.work[1]", ok());
    assert_eq!(
        w.states(),
        "g.up[0] failed, g.up[1] success, g.work[0] upstream_failed, g.work[1] success, \
         g.down[0] upstream_failed, g.down[1] queued"
    );
}

#[test]
fn finally_waits_for_everything_and_runs_after_success_and_failure() {
    let text = "a\n b\n f : finally\n alarm : finally one_failed";
    let mut w = World::of(text);
    w.end("a", ok());
    assert_eq!((w.state("f"), w.why("f").as_str()), ("none", "waits for the end of all other tasks; 1 are open"));
    w.end("b", ok());
    assert_eq!(w.states(), "a success, b success, f queued, alarm skipped");
    w.end("f", ok());
    assert_eq!(w.run_state(), "success");

    let mut w = World::of(text);
    w.end("a", failed());
    w.end("b", ok());
    w.succeed(&["f", "alarm"]);
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b success, f success, alarm success", "failed"));
}

#[test]
fn a_failed_finally_fails_the_run() {
    let mut w = World::of("a\n f : finally");
    w.end("a", ok());
    w.end("f", failed());
    assert_eq!(w.run_state(), "failed");
}

#[test]
fn finally_tasks_may_follow_each_other_and_be_mapped() {
    let mut w = World::of("a\n f : finally\n each <- f : finally foreach=a");
    w.end("a", gives(list(2)));
    assert_eq!(
        (w.states().as_str(), w.why("each").as_str()),
        ("a success, f queued, each none", "waits for `f`, which is queued")
    );
    w.end("f", ok());
    assert_eq!(w.states(), "a success, f success, each[0] queued, each[1] queued");
    w.succeed(&["each[0]", "each[1]"]);
    assert_eq!(w.run_state(), "success");
}

//! Dynamic mapping: where items come from, what faces what, and what a clear makes of it.

use super::*;

#[test]
fn items_that_need_no_task_are_there_from_the_start() {
    let mut w = World::new("m : foreach\n after <- m");
    w.items("m", list(2));
    w.begin();
    assert_eq!(w.states(), "m[0] queued, m[1] queued, after none");
    assert_eq!(w.run.item(w.slot("m[1]")), &json!("item 1"));
    w.end("m[0]", ok());
    assert_eq!(w.why("after"), "waits for `m[1]`, which is queued");
    w.end("m[1]", failed());
    assert_eq!(w.state("after"), "upstream_failed");
}

#[test]
fn items_come_from_an_output_when_it_is_there() {
    let mut w = World::of("list\n m <- list : foreach=list");
    assert_eq!(w.states(), "list queued, m none");
    w.end("list", gives(list(3)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] queued, m[2] queued");
}

#[test]
fn a_mapping_may_read_a_task_that_it_does_not_need() {
    let mut w = World::of("list\n m : foreach=list");
    assert_eq!(w.why("m"), "waits for the items of its `foreach`, which come from `list`");
    w.end("list", gives(list(1)));
    assert_eq!(w.state("m[0]"), "queued");
}

#[test]
fn no_items_skip_and_too_many_fail() {
    let mut w = World::of("list\n m <- list : foreach=list\n after <- m");
    w.end("list", gives(list(0)));
    assert_eq!(w.states(), "list success, m skipped, after skipped");
    assert_eq!((w.message("m"), w.run_state()), ("`foreach` has no items", "success"));

    let mut w = World::of("list\n m <- list : foreach=list\n after <- m");
    w.end("list", gives(list(5)));
    assert_eq!(w.states(), "list success, m failed, after upstream_failed");
    assert_eq!(w.message("m"), "`foreach` gives 5 items, more than the limit of 4 (raise `foreach_max`)");
}

#[test]
fn what_cannot_be_expanded_ends_as_one() {
    let mut w = World::of("list\n m <- list : foreach=list\n n <- list : foreach=list all_done");
    w.end("list", failed());
    assert_eq!(w.states(), "list failed, m upstream_failed, n failed");
    assert_eq!(w.message("n"), "`list` gave no items");
}

#[test]
fn inside_a_mapped_group_index_faces_index_and_outside_all_face_all() {
    let mut w = World::of("list\n group g : foreach=list\n g.a <- list\n g.b <- g.a\n after <- g.b");
    w.end("list", gives(list(2)));
    w.end("g.a[0]", ok());
    assert_eq!(w.states(), "list success, g.a[0] success, g.a[1] queued, g.b[0] queued, g.b[1] none, after none");
    w.end("g.a[1]", failed());
    w.end("g.b[0]", gives(json!("only mine")));
    assert_eq!(
        w.states(),
        "list success, g.a[0] success, g.a[1] failed, g.b[0] success, g.b[1] upstream_failed, after upstream_failed"
    );
    let seen = |viewer: &str, of: &str| match w.run.upstream(w.slot(viewer), w.slot(of).task).outputs {
        super::super::Outputs::One(_) => "one".to_owned(),
        super::super::Outputs::Many(all) => format!("{} successes", all.len()),
    };
    assert_eq!((seen("g.b[0]", "g.a"), seen("after", "g.b")), ("one".to_owned(), "1 successes".to_owned()));
}

#[test]
fn clearing_one_instance_repeats_that_one() {
    let mut w = World::new("m : foreach\n after <- m");
    w.items("m", list(2));
    w.begin();
    w.succeed(&["m[0]", "m[1]", "after"]);
    w.clear_from("m[1]");
    assert_eq!(w.states(), "m[0] success, m[1] queued, after none");
    assert_eq!((w.attempt("m[1]"), w.run_state()), (2, "running"));
    w.succeed(&["m[1]", "after"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_second_expansion_may_have_more_items_or_fewer() {
    let mut w = World::of("list\n m <- list : foreach=list\n after <- m");
    w.end("list", gives(list(2)));
    w.succeed(&["m[0]", "m[1]", "after"]);

    w.clear_from("list");
    assert_eq!(w.states(), "list queued, m[0] none, m[1] none, after none");
    w.end("list", gives(list(3)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] queued, m[2] queued, after none");
    w.succeed(&["m[0]", "m[1]", "m[2]", "after"]);
    assert_eq!(w.run_state(), "success");

    w.clear_from("list");
    w.end("list", gives(list(1)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] removed, m[2] removed, after none");
    w.succeed(&["m[0]", "after"]);
    assert_eq!(w.run_state(), "success");

    // Removed once more, and then back.
    w.clear(&["list", "m[0]"]);
    w.end("list", gives(list(1)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] removed, m[2] removed, after success");
    w.end("m[0]", ok());
    w.clear(&["list", "m[0]"]);
    w.end("list", gives(list(2)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] queued, m[2] removed, after success");
}

#[test]
fn a_clear_while_instances_run_finds_their_items_anew_when_they_have_ended() {
    let mut w = World::of("list\n m <- list : foreach=list");
    w.end("list", gives(list(2)));
    w.start("m[0]");
    w.start("m[1]");
    w.clear_from("list");
    assert_eq!(w.cancelled(), "m[0].1, m[1].1");
    w.end("m[0]", killed());
    w.end("list", gives(json!(["new"])));
    // The one that still runs is beyond the new items; it is removed once it has ended.
    assert_eq!(w.states(), "list success, m[0] queued, m[1] running");
    w.end("m[1]", killed());
    assert_eq!(w.states(), "list success, m[0] queued, m[1] removed");
    assert_eq!(w.run.item(w.slot("m[0]")), &json!("new"));
}

#[test]
fn an_instance_that_was_not_cleared_keeps_the_item_it_ran_with() {
    let mut w = World::of("list\n m <- list : foreach=list retries=1");
    w.end("list", gives(list(2)));
    w.end("m[0]", ok());
    w.end("m[1]", failed());
    w.clear(&["list", "m[0]"]);
    w.end("list", gives(json!(["new 0", "new 1"])));
    assert_eq!(w.run.item(w.slot("m[0]")), &json!("new 0"));
    assert_eq!((w.state("m[1]"), w.run.item(w.slot("m[1]"))), ("up_for_retry", &json!("item 1")));
}

#[test]
fn a_placeholder_that_was_cleared_is_expanded_and_its_row_goes() {
    let mut w = World::of("list\n m <- list : foreach=list");
    w.end("list", failed());
    assert!(w.rows.keys().any(|(task, index)| task.as_str() == "m" && *index == UNMAPPED));
    w.clear_from("list");
    w.end("list", gives(list(2)));
    assert_eq!(w.states(), "list success, m[0] queued, m[1] queued");
    let rows: Vec<i32> = w.rows.keys().filter(|(task, _)| task.as_str() == "m").map(|(_, index)| *index).collect();
    assert_eq!(rows, [0, 1]);
}

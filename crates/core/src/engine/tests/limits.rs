//! Limits inside a run, and who goes first.

use super::*;

#[test]
fn a_run_has_no_more_active_tasks_than_it_may() {
    let mut w = World::of("workflow : max_active_tasks=2\n a\n b\n c\n d");
    assert_eq!(w.states(), "a queued, b queued, c scheduled, d scheduled");
    assert_eq!(w.why("c"), "waits: 2 tasks of the run are active (`max_active_tasks`)");
    w.end("b", ok());
    assert_eq!(w.states(), "a queued, b success, c queued, d scheduled");
}

#[test]
fn the_highest_priority_goes_first_also_before_what_became_ready_just_now() {
    let mut w =
        World::of("workflow : max_active_tasks=1\n a : priority=9\n next <- a\n low : priority=-1\n high : priority=5");
    w.succeed(&["a", "high", "next", "low"]);
    assert_eq!(w.launched(), "a.1, high.1, next.1, low.1");
}

#[test]
fn a_mapped_task_runs_as_many_instances_at_a_time_as_it_may() {
    let mut w = World::new("m : foreach max_parallel=2");
    w.items("m", list(4));
    w.begin();
    assert_eq!(w.states(), "m[0] queued, m[1] queued, m[2] scheduled, m[3] scheduled");
    assert_eq!(w.why("m[3]"), "waits: 2 of its instances are active (`max_parallel`)");
    w.end("m[1]", ok());
    assert_eq!(w.states(), "m[0] queued, m[1] success, m[2] queued, m[3] scheduled");
}

#[test]
fn a_mapped_group_finishes_an_index_before_it_takes_the_next() {
    let mut w = World::new("group g : foreach max_parallel=1\n g.a : retries=1\n g.b <- g.a");
    w.items("g", list(2));
    w.begin();
    assert_eq!(w.why("g.a[1]"), "waits: 1 instances of its group are under way (`max_parallel`)");
    w.end("g.a[0]", failed());
    assert_eq!(w.state("g.a[1]"), "scheduled", "the first waits for its retry, and keeps its place");
    w.wait(30);
    w.end("g.a[0]", ok());
    assert_eq!(w.states(), "g.a[0] success, g.a[1] scheduled, g.b[0] queued, g.b[1] none");
    w.end("g.b[0]", ok());
    assert_eq!(w.states(), "g.a[0] success, g.a[1] queued, g.b[0] success, g.b[1] none");
}

#[test]
fn an_index_that_waits_for_something_outside_its_group_gives_its_place_up() {
    // `mid` needs every index, so the second must run while the first waits.
    let mut w = World::new("group g : foreach max_parallel=1\n g.a\n mid <- g.a\n g.b <- mid, g.a");
    w.items("g", list(2));
    w.begin();
    w.succeed(&["g.a[0]", "g.a[1]", "mid", "g.b[0]", "g.b[1]"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn a_bad_demand_does_not_keep_the_place_of_those_behind_it() {
    let mut w = World::new("workflow : max_active_tasks=1\n a\n b\n c");
    for task in ["a", "b"] {
        w.script.gpus.insert(task.to_owned(), Err("`resources.gpu` is not a number".to_owned()));
    }
    w.begin();
    assert_eq!(w.states(), "a failed, b failed, c queued");
}

#[test]
fn pools_and_gpus_are_shared_and_the_reason_is_told() {
    let mut w = World::new("a : gpus=1\n b : gpus=2\n c : pool=narrow\n d : pool=narrow");
    w.admission.set_pool("narrow", 1);
    w.begin();
    assert_eq!(w.states(), "a queued, b scheduled, c queued, d scheduled");
    assert_eq!(w.why("b"), "waits for a slot: no node has room for it: `local`: 2 GPUs asked for; 1 of its 2 free");
    assert_eq!(w.why("d"), "waits for a slot: the pool `narrow` has 1 of 1 slots in use, and it asks for 1");
    w.succeed(&["a", "c"]);
    assert_eq!(w.states(), "a success, b queued, c success, d queued");
}

#[test]
fn an_offer_that_is_in_line_says_so_even_if_it_fills_the_run() {
    let mut w = World::new("workflow : max_active_tasks=1\n a : pool=narrow");
    w.admission.set_pool("narrow", 0);
    w.begin();
    assert_eq!(w.why("a"), "waits for a slot: the pool `narrow` has 0 of 0 slots in use, and it asks for 1");
}

//! Failures that are ignored: the task succeeds, and how it failed is kept beside what it gave.

use super::*;

fn failed_with(outputs: Value) -> Report {
    Report { outputs: [("items".to_owned(), outputs)].into(), ..failed() }
}

#[test]
fn what_failed_counts_as_a_success_once_its_retries_are_used_up() {
    let mut w = World::of("workflow : drain\n a : ignored retries=1 delay=0\n b <- a : foreach=a\n c");
    w.end("a", failed());
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.end("a", failed_with(list(2)));
    assert_eq!(w.states(), "a success, b[0] queued, b[1] queued, c queued");
    let a = w.run.instance(w.slot("a"));
    assert_eq!((&a.exit, a.message.as_str()), (&Some(Exit::Code { code: 1 }), "boom"));
    w.succeed(&["b[0]", "b[1]", "c"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn so_does_what_could_not_begin_or_ran_out_of_time() {
    let mut w = World::of("a : ignored timeout=10\n b : ignored\n c <- a, b");
    w.end("b", ended(Exit::cannot_start("no image")));
    w.start("a");
    w.wait(10);
    w.end("a", killed());
    assert_eq!(w.states(), "a success, b success, c queued");
    assert_eq!(w.run.instance(w.slot("a")).exit, Some(Exit::TimedOut));

    let w = World::new("a : ignored when\n b <- a").when("a", Err("no such param")).begun();
    assert_eq!((w.states().as_str(), w.message("a")), ("a success, b queued", "no such param"));
}

#[test]
fn what_a_person_or_the_end_of_its_run_fails_is_not_ignored() {
    let mut w = World::of("a : ignored\n b <- a");
    w.mark("a", false);
    w.end("a", killed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b upstream_failed", "failed"));

    let mut w = World::of("a : ignored\n b <- a");
    w.cancel();
    w.end("a", failed());
    assert_eq!((w.state("a"), w.run_state()), ("failed", "cancelled"));
}

#[test]
fn a_gang_is_forgiven_as_one() {
    let mut w = World::of("a : ignored gang=2\n b <- a");
    w.end("a[0]", failed());
    w.end("a[1]", killed());
    assert_eq!(w.states(), "a[0] success, a[1] success, b queued");
}

#[test]
fn what_a_pod_gave_before_it_failed_is_kept() {
    let mut w = World::of("a : pod\n b\n f : finally foreach=a");
    w.end("a", failed_with(list(1)));
    w.end("b", failed_with(list(1)));
    assert_eq!(w.states(), "a failed, b failed, f[0] queued");
    let outputs = |name: &str| w.run.instance(w.slot(name)).outputs.len();
    assert_eq!((outputs("a"), outputs("b")), (1, 0));
}

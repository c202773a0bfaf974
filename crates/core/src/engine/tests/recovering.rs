//! Attempts that fail on a machine under suspicion: they wait for a verdict, and people need not.

use super::*;
use crate::engine::Ruling;
use crate::engine::record::Stop;

fn held(report: Report) -> Report {
    Report { held: true, ..report }
}

impl World {
    fn suspect(&mut self, name: &str) {
        let slot = self.slot(name);
        self.apply(Event::Suspect { slot, reason: "XID 79 on n1".to_owned() });
    }

    fn verdict(&mut self, name: &str, verdict: Ruling) {
        let (slot, attempt) = (self.slot(name), self.attempt(name));
        self.apply(Event::Recovered { slot, attempt, verdict });
    }

    /// As the next attempt, in so many seconds.
    fn restart(&self, name: &str, seconds: i64, draws: bool) -> Ruling {
        let at = self.now + SignedDuration::from_secs(seconds);
        Ruling::Restart { at, number: self.attempt(name) + 1, draws }
    }
}

fn fail() -> Ruling {
    Ruling::Fail { why: "n1 cannot be repaired".to_owned() }
}

#[test]
fn what_failed_under_suspicion_waits_for_the_verdict_and_holds_nothing() {
    let mut w = World::of("workflow : max_active_tasks=1\n a : retries=1 gpus=2\n b : gpus=2");
    w.end("a", held(failed()));
    assert_eq!(w.states(), "a recovering, b queued");
    assert_eq!(w.why("a"), "waits for the check of its machine after exit code 1: boom");
    w.wait(1_000);
    assert_eq!(w.state("a"), "recovering");
    w.succeed(&["b"]);
    assert_eq!((w.run_state(), w.run.instance(w.slot("a")).max_attempt), ("running", 2));
    w.verdict("a", w.restart("a", 10, false));
    assert_eq!(w.state("a"), "up_for_retry");
    w.wait(10);
    assert_eq!((w.state("a"), w.attempt("a"), w.run.instance(w.slot("a")).max_attempt), ("queued", 2, 3));
    w.succeed(&["a"]);
    assert_eq!(w.run_state(), "success");
}

#[test]
fn only_failures_are_held() {
    let mut w = World::of("a\n b\n c\n d");
    w.end("a", held(ok()));
    w.end("b", held(skipped()));
    w.end("c", held(ended(Exit::cannot_start("no such template"))));
    w.mark("d", false);
    w.end("d", held(failed()));
    assert_eq!(w.states(), "a success, b skipped, c failed, d failed");
    let mut w = World::of("a\n b");
    w.clear(&["a"]);
    w.end("a", held(killed()));
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.cancel();
    w.end("a", held(failed()));
    w.end("b", held(failed()));
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b failed", "cancelled"));
}

#[test]
fn a_timeout_under_suspicion_waits_as_well() {
    let mut w = World::of("a : timeout=5");
    w.start("a");
    w.wait(5);
    w.end("a", held(killed()));
    assert_eq!(
        (w.state("a"), w.why("a").as_str()),
        ("recovering", "waits for the check of its machine after timed out")
    );
    w.verdict("a", Ruling::Leave);
    assert_eq!(w.state("a"), "failed");
}

#[test]
fn a_restart_that_is_the_tasks_own_fault_draws_on_its_retries() {
    let mut w = World::of("a : retries=1");
    for (attempt, state) in [(1, "queued"), (2, "failed")] {
        assert_eq!(w.attempt("a"), attempt);
        w.end("a", held(failed()));
        w.verdict("a", w.restart("a", 0, true));
        assert_eq!(w.state("a"), state);
    }
    assert_eq!((w.message("a"), w.run_state()), ("boom", "failed"));
}

#[test]
fn restarts_that_are_a_machines_fault_have_no_limit_here() {
    let mut w = World::of("a");
    for attempt in 1..20 {
        assert_eq!(w.attempt("a"), attempt);
        w.end("a", held(lost()));
        w.verdict("a", w.restart("a", 0, false));
    }
    assert_eq!(w.run.instance(w.slot("a")).lost, 0);
    // Attempts that were counted and never began have left their numbers.
    w.end("a", held(lost()));
    w.verdict("a", Ruling::Restart { at: w.now, number: 23, draws: false });
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 23));
    w.end("a", failed());
    assert_eq!(w.state("a"), "failed");
}

#[test]
fn what_is_left_alone_goes_on_as_if_it_had_not_been_held() {
    let mut w = World::of("a : retries=1 delay=30\n b\n c");
    w.end("a", held(failed()));
    w.end("b", held(failed()));
    w.end("c", held(lost()));
    w.wait(20);
    ["a", "b", "c"].into_iter().for_each(|name| w.verdict(name, Ruling::Leave));
    assert_eq!(w.states(), "a up_for_retry, b failed, c queued");
    assert_eq!(w.why("a"), "waits until 1970-01-01T00:00:30Z for its next try");
    assert_eq!(w.run.instance(w.slot("c")).lost, 1);
}

#[test]
fn a_failure_for_good_says_why_whatever_retries_are_left() {
    let mut w = World::of("a : retries=9\n b <- a");
    w.end("a", held(failed()));
    w.verdict("a", fail());
    assert_eq!((w.states().as_str(), w.message("a")), ("a failed, b upstream_failed", "n1 cannot be repaired"));
}

#[test]
fn a_verdict_counts_once_and_only_for_the_attempt_that_it_is_about() {
    let mut w = World::of("a : retries=1");
    w.verdict("a", fail());
    assert_eq!((w.state("a"), w.run.stale_reports), ("queued", 1));
    w.end("a", held(failed()));
    let again = w.restart("a", 0, false);
    w.verdict("a", again.clone());
    let slot = w.slot("a");
    w.apply(Event::Recovered { slot, attempt: 1, verdict: again });
    w.apply(Event::Recovered { slot, attempt: 1, verdict: fail() });
    w.end("a", held(failed()));
    w.apply(Event::Recovered { slot, attempt: 1, verdict: fail() });
    assert_eq!((w.state("a"), w.attempt("a"), w.run.stale_reports), ("recovering", 2, 4));
    w.apply(Event::Recovered { slot: Slot::new(slot.task, 7), attempt: 2, verdict: fail() });
    assert_eq!(w.run.stale_reports, 5);
}

#[test]
fn a_suspect_is_ended_and_waits() {
    let mut w = World::of("a : retries=1 timeout=60");
    w.start("a");
    w.suspect("a");
    w.suspect("a");
    assert_eq!((w.cancelled().as_str(), w.state("a")), ("a.1", "running"));
    w.end("a", Report { message: "the end of its log".to_owned(), ..killed() });
    assert_eq!(
        (w.state("a"), w.why("a").as_str()),
        ("recovering", "waits for the check of its machine after XID 79 on n1")
    );
    w.verdict("a", w.restart("a", 0, false));
    assert_eq!((w.state("a"), w.launched().as_str()), ("queued", "a.1, a.2"));
    // It may end well before it is ended.
    w.suspect("a");
    w.succeed(&["a"]);
    assert_eq!(w.run_state(), "success");
    w.suspect("a");
    assert_eq!(w.state("a"), "success");
}

#[test]
fn what_people_want_comes_before_the_suspicion() {
    let mut w = World::of("a\n b\n c : retries=3");
    ["a", "b", "c"].into_iter().for_each(|name| w.suspect(name));
    w.clear(&["a"]);
    w.mark("b", true);
    ["a", "b", "c"].into_iter().for_each(|name| w.end(name, killed()));
    assert_eq!(w.states(), "a queued, b success, c recovering");
    w.suspect("a");
    w.cancel();
    w.end("a", killed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b success, c failed", "cancelled"));
    // Nor does a suspicion take back what they asked for.
    let mut w = World::of("a");
    w.clear(&["a"]);
    w.suspect("a");
    assert_eq!(w.run.instance(w.slot("a")).stop, Some(Stop::Cleared));
}

#[test]
fn people_do_not_have_to_wait_for_the_verdict() {
    let waiting = |text: &str| {
        let mut w = World::of(text);
        w.end("a", held(failed()));
        assert_eq!(w.state("a"), "recovering");
        w
    };
    let mut w = waiting("a : retries=3\n b <- a");
    w.cancel();
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b skipped", "cancelled"));
    let mut w = waiting("a\n b <- a");
    w.clear(&["a"]);
    assert_eq!((w.state("a"), w.attempt("a")), ("queued", 2));
    w.verdict("a", fail());
    assert_eq!(w.state("a"), "queued");
    let mut w = waiting("a\n b <- a");
    w.mark("a", true);
    assert_eq!(w.states(), "a success, b queued");
    let mut w = waiting("workflow : timeout=30\n a");
    w.wait(30);
    assert_eq!((w.state("a"), w.run_state()), ("failed", "failed"));
    let mut w = waiting("workflow : fail_fast\n a\n b");
    w.end("b", failed());
    assert_eq!((w.states().as_str(), w.run_state()), ("a failed, b failed", "failed"));
}

#[test]
fn a_restart_without_room_is_taken_back_or_given_up() {
    let mut w = World::of("a\n b : gpus=2");
    w.end("a", held(failed()));
    w.verdict("a", w.restart("a", 60, false));
    w.suspect("a");
    assert_eq!(w.state("a"), "recovering");
    w.verdict("a", Ruling::Restart { at: w.now + SignedDuration::from_secs(5), number: 3, draws: false });
    w.verdict("a", fail());
    assert_eq!(w.state("a"), "up_for_retry");
    let slot = w.slot("a");
    w.apply(Event::Recovered { slot, attempt: 3, verdict: fail() });
    assert_eq!((w.state("a"), w.message("a")), ("failed", "n1 cannot be repaired"));
}

#[test]
fn what_does_not_end_can_be_given_up_before_it_has() {
    let mut w = World::of("a : retries=3\n b");
    w.verdict("a", fail());
    w.suspect("a");
    w.verdict("a", Ruling::Leave);
    assert_eq!(w.run.instance(w.slot("a")).stop, Some(Stop::Recovery));
    w.verdict("a", fail());
    assert_eq!((w.cancelled().as_str(), w.state("a")), ("a.1, a.1", "queued"));
    w.end("a", killed());
    assert_eq!((w.state("a"), w.run.stale_reports), ("failed", 2));
}

const GANG: &str = "workflow : max_active_tasks=4\n g : gang=3 retries=1";

#[test]
fn a_gang_waits_as_one_and_begins_anew_as_one() {
    let mut w = World::of(GANG);
    w.launched();
    w.end("g[1]", held(failed()));
    assert_eq!(
        (w.states().as_str(), w.cancelled().as_str()),
        ("g[0] queued, g[1] deferred, g[2] queued", "g[0].1, g[2].1")
    );
    w.end("g[0]", killed());
    w.end("g[2]", ok());
    assert_eq!(w.states(), "g[0] recovering, g[1] recovering, g[2] recovering");
    for name in ["g[0]", "g[1]", "g[2]"] {
        assert_eq!(w.why(name), "waits for the check of its machine after exit code 1: boom");
    }
    // Whichever member is named.
    w.verdict("g[2]", w.restart("g[2]", 0, false));
    assert_eq!(
        (w.states().as_str(), w.launched().as_str()),
        ("g[0] queued, g[1] queued, g[2] queued", "g[0].2, g[1].2, g[2].2")
    );
    w.end("g[0]", failed());
    ["g[1]", "g[2]"].into_iter().for_each(|name| w.end(name, held(killed())));
    // Nobody holds the one that failed, and the others were ended because of it.
    assert_eq!(w.states(), "g[0] up_for_retry, g[1] up_for_retry, g[2] up_for_retry");
}

#[test]
fn a_gang_that_is_left_alone_fails_for_the_first_of_its_failures() {
    let mut w = World::of("g : gang=3");
    w.end("g[1]", held(failed()));
    ["g[0]", "g[2]"].into_iter().for_each(|name| w.end(name, killed()));
    w.verdict("g[0]", Ruling::Leave);
    assert_eq!(w.states(), "g[0] failed, g[1] failed, g[2] failed");
    assert_eq!((w.message("g[1]"), w.message("g[2]")), ("boom", "its gang failed: member 1: exit code 1"));
}

#[test]
fn a_suspicion_of_one_member_ends_all_and_people_still_come_first() {
    let mut w = World::of(GANG);
    w.suspect("g[2]");
    assert_eq!(w.cancelled(), "g[0].1, g[1].1, g[2].1");
    ["g[0]", "g[1]", "g[2]"].into_iter().for_each(|name| w.end(name, killed()));
    assert_eq!(w.states(), "g[0] recovering, g[1] recovering, g[2] recovering");
    w.clear(&["g[1]"]);
    assert_eq!(w.attempt("g[0]"), 2);
    w.suspect("g[0]");
    w.end("g[0]", killed());
    w.mark("g[1]", true);
    ["g[1]", "g[2]"].into_iter().for_each(|name| w.end(name, killed()));
    assert_eq!((w.states().as_str(), w.run_state()), ("g[0] success, g[1] success, g[2] success", "success"));
    let mut w = World::of(GANG);
    w.end("g[0]", held(lost()));
    w.cancel();
    ["g[1]", "g[2]"].into_iter().for_each(|name| w.end(name, killed()));
    assert_eq!((w.states().as_str(), w.run_state()), ("g[0] failed, g[1] failed, g[2] failed", "cancelled"));
}

//! Signals: each acts once, and none of the past.

use super::*;

#[test]
fn weakness_08_a_signal_that_comes_again_does_nothing() {
    let mut story = Story::new(1);
    let signal = story.signal("n0", SignalKind::Xid { code: 79 }, Advice::Reboot);
    story.tell(Input::Signal(signal.clone()));
    let signals = story.incident("n0").signals.len();
    for _ in 0..3 {
        assert!(story.tell(Input::Signal(signal.clone())).is_empty());
    }
    assert_eq!(story.incident("n0").signals.len(), signals);

    story.drained();
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    // Read from the kernel's log again, when all is over.
    assert!(story.tell(Input::Signal(signal.clone())).is_empty());
    // And under another id, as it is of a boot that is over.
    let other = Signal { id: "another reader".to_owned(), ..signal };
    assert!(story.tell(Input::Signal(other)).is_empty());
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Healthy, 1));
}

#[test]
fn a_signal_of_before_a_repair_that_comes_after_it_does_nothing() {
    let mut story = Story::new(1);
    let late = story.signal("n0", SignalKind::Xid { code: 95 }, Advice::ResetGpu);
    story.wait(secs(1));
    story.xid("n0", 95, Advice::ResetGpu);
    story.wait(secs(1));
    story.drained();
    let reset = story.the("reset_gpu");
    story.wait(secs(1));
    story.done(&reset);
    story.see("n0", 1);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    // Same boot, older than the check.
    story.tell(Input::Signal(late));
    assert_eq!(story.state("n0"), NodeState::Healthy);
    // One that is newer is another fault.
    story.wait(secs(1));
    story.xid("n0", 95, Advice::ResetGpu);
    assert_eq!(story.state("n0"), NodeState::Draining);
}

#[test]
fn a_signal_of_a_boot_that_nobody_knows_waits_for_a_look_at_the_node() {
    let mut story = Story::new(2);
    for (node, boot) in [("n0", 2), ("n1", 1)] {
        let mut signal = story.signal(node, SignalKind::Xid { code: 79 }, Advice::Reboot);
        signal.boot_id = Some(format!("{node}-boot-2"));
        story.tell(Input::Signal(signal));
        assert_eq!(story.state(node), NodeState::Healthy);
        story.see(node, boot);
    }
    assert_eq!(story.state("n0"), NodeState::Draining, "it is of the boot that runs");
    assert_eq!(story.state("n1"), NodeState::Healthy, "it is of another one");
}

#[test]
fn weakness_12_an_application_error_again_on_the_same_gpu_is_the_gpu() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    // One crash writes many lines.
    for _ in 0..20 {
        story.xid("n0", 13, Advice::RestartApp);
    }
    assert_eq!(story.state("n0"), NodeState::Healthy);
    story.ends("train", 1, 0, Exit::Signal { signal: 6 });
    // It is known whose fault that was, without a check.
    assert_eq!(story.job_state("train"), JobState::Restarting);
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Application);
    assert_eq!(story.count("check"), 0);

    story.job("train", 2, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!(story.state("n0"), NodeState::Checking);
}

#[test]
fn weakness_12_an_application_error_on_different_gpus_is_the_application() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    story.ends("train", 1, 0, code(134));
    story.job("train", 2, &["n1"]);
    story.xid("n1", 13, Advice::RestartApp);
    story.ends("train", 2, 0, code(134));
    story.job("train", 3, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!((story.state("n0"), story.state("n1")), (NodeState::Healthy, NodeState::Healthy));
}

#[test]
fn weakness_12_a_spot_interruption_moves_the_job_and_draws_on_nothing_of_the_application() {
    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0"], JobSpec { application_restarts: 0, ..JobSpec::default() });
    let mut signal = story.signal("n0", SignalKind::SpotInterruption, Advice::Check);
    signal.gpu = None;
    story.tell(Input::Signal(signal));
    assert_eq!(story.job_state("train"), JobState::Stopping);
    story.ends("train", 1, 0, Exit::Cancelled);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Infrastructure);
    // It is still there for a while, and gets nothing new.
    story.see("n0", 1);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Suspected, 1));
    story.tell(Input::NodeGone { node: "n0".to_owned(), why: "interrupted".to_owned() });
    assert_eq!(story.count("reboot"), 0);
}

#[test]
fn weakness_12_a_job_that_hangs_is_ended_and_begins_anew() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    let mut signal = story.signal("", SignalKind::Silence, Advice::Check);
    signal.job = Some(JobRef { job: "train".to_owned(), attempt: 1 });
    story.tell(Input::Signal(signal));
    assert_eq!(story.job_state("train"), JobState::Stopping);
    story.stops("train", 1);
    // Nobody knows which node it was: all are checked.
    assert_eq!(story.job_state("train"), JobState::AwaitingVerdict);
    assert_eq!((story.state("n0"), story.state("n1")), (NodeState::Checking, NodeState::Checking));
    story.check(CheckOutcome::Pass);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Application);
}

#[test]
fn weakness_12_a_start_that_fails_and_a_lost_host_draw_on_the_budget_of_machines() {
    for exit in [Exit::start_failed("no image"), Exit::Lost { reason: "host terminated".to_owned() }] {
        let mut story = Story::new(2);
        story.job_of("train", 1, &["n0"], JobSpec { application_restarts: 0, ..JobSpec::default() });
        story.ends("train", 1, 0, exit);
        assert_eq!(story.job_state("train"), JobState::Restarting);
        assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Infrastructure);
    }
}

#[test]
fn weakness_20_what_an_event_did_not_tell_a_look_does() {
    // The kernel's line is lost with the GPU; the next look counts.
    let mut story = Story::new(1);
    story.see_gpus("n0", 1, 1);
    assert_eq!(story.state("n0"), NodeState::Checking);
    // The answer of the check is lost as well; its deadline brings another.
    story.wait(secs(6 * 60 + 30));
    assert_eq!(story.count("check"), 2);
    story.check(Story::fails(Advice::Reboot));
    story.drained();
    // That the reboot was ordered is never told; a look shows the new boot.
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
}

#[test]
fn a_storm_of_signals_is_one_incident() {
    let mut story = Story::new(1);
    story.wait(secs(3_600));
    for n in 0..600 {
        story.told = n;
        story.wait(SignedDuration::from_millis(10));
        story.xid("n0", 94, Advice::Check);
    }
    assert_eq!(story.r.incidents().count(), 1);
    let incident = story.incident("n0");
    assert_eq!(incident.signals.len(), 50);
    assert_eq!(incident.more_signals, 550);
    assert!(story.r.node("n0").unwrap().taken.len() <= 256);
}

#[test]
fn what_changes_nothing_is_not_written() {
    let mut story = Story::new(1);
    story.see("n0", 1);
    let seen = Seen { boot_id: Some("n0-boot-1".to_owned()), agent: true, gpus: Some(2) };
    let changes = story.r.apply(Input::Observed { node: "n0".to_owned(), seen }, story.now);
    assert_eq!(changes, Changes::default());
    assert_eq!(story.r.apply(Input::Tick, story.now), Changes::default());
}

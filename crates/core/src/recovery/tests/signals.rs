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

    // Another job, and the same GPU. It ends soon, and is not looked at from beside it.
    story.job("other", 1, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!((story.state("n0"), story.count("check")), (NodeState::Fenced, 0));
    assert_eq!(story.incident("n0").signals[0].kind, SignalKind::Repeated { code: 13 });
    story.ends("other", 1, 0, Exit::Signal { signal: 6 });
    let Act::RunCheck { level, passive, .. } = story.open("check").unwrap().act else { panic!() };
    assert_eq!((level, passive), (CheckLevel::Medium, false));
    story.check(Story::fails(Advice::Reboot));
    assert_eq!(story.r.job("other").unwrap().restarts[0].class, Class::Infrastructure);
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
}

#[test]
fn a_line_that_needs_no_check_ends_the_one_that_is_under_way_and_the_node_is_repaired() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    // Its failure is heard of first, and then what the kernel wrote.
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.state("n0"), NodeState::Checking);
    story.xid("n0", 95, Advice::ResetGpu);
    assert_eq!((story.state("n0"), story.count("cancel")), (NodeState::Draining, 1));
    assert_eq!(story.incident("n0").verdict, Some(Verdict::Fail));
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Infrastructure);
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::ResetGpu });
}

#[test]
fn a_job_that_survives_an_error_on_a_gpu_with_a_past_is_looked_at_and_not_disturbed() {
    let mut story = Story::new(1);
    story.xid("n0", 31, Advice::RestartApp);
    story.wait(secs(3_600));
    story.job("train", 1, &["n0"]);
    story.xid("n0", 31, Advice::RestartApp);
    story.wait(secs(60));
    let Act::RunCheck { passive, .. } = story.open("check").unwrap().act else { panic!() };
    assert!(passive);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.job_state("train")), (NodeState::Healthy, JobState::Running));
}

#[test]
fn errors_of_a_job_that_has_them_on_many_gpus_speak_against_none_of_them() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.xid("n0", 13, Advice::RestartApp);
    story.xid("n1", 13, Advice::RestartApp);
    story.ends("train", 1, 0, code(134));
    // What another job runs into on one of them is its first.
    story.wait(secs(3_600));
    story.job("other", 1, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    story.ends("other", 1, 0, code(134));
    story.wait(secs(3_600));
    story.job("third", 1, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!(story.state("n0"), NodeState::Fenced, "two jobs that have it nowhere else");
}

#[test]
fn a_line_that_comes_after_its_job_has_gone_on_elsewhere_is_held_against_that_job() {
    let mut story = Story::new(3);
    story.job("train", 1, &["n0"]);
    let late = story.signal("n0", SignalKind::Xid { code: 13 }, Advice::RestartApp);
    story.wait(secs(1));
    story.ends("train", 1, 0, code(134));
    story.check(CheckOutcome::Pass);
    story.job("train", 2, &["n1"]);
    story.wait(secs(5));
    let at = late.at + secs(1);
    story.tell(Input::Signal(Signal { at: at + secs(3), ..late }));
    let errors = |story: &Story| story.r.node("n0").unwrap().application_errors.clone();
    assert_eq!(errors(&story)[0].job.as_deref(), Some("train@1"));
    story.xid("n1", 13, Advice::RestartApp);
    // Now another one has it once on the first of them: that makes one.
    story.job("other", 1, &["n0"]);
    story.xid("n0", 13, Advice::RestartApp);
    assert_eq!((story.state("n0"), errors(&story).len()), (NodeState::Healthy, 2));
}

#[test]
fn what_nobody_here_can_help_is_told_and_the_node_stays_in_use() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    let hot = |story: &mut Story| {
        let signal = story.signal("n0", SignalKind::Thermal, Advice::Ignore);
        story.tell(Input::Signal(signal));
    };
    hot(&mut story);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Suspected, 0));
    assert_eq!(story.notices(NoticeKind::Would).len(), 1);
    // Once, until it was quiet for a while; whatever is told of the node itself changes nothing.
    story.wait(secs(300));
    hot(&mut story);
    story.node("n0", |_| {});
    story.see("n0", 1);
    assert_eq!((story.notices(NoticeKind::Would).len(), story.incident("n0").signals.len()), (1, 2));
    story.wait(secs(599));
    assert_eq!(story.state("n0"), NodeState::Suspected);
    story.wait(secs(1));
    assert_eq!((story.state("n0"), story.incident("n0").outcome), (NodeState::Healthy, Some(Outcome::Observed)));
    assert_eq!(story.job_state("train"), JobState::Running);

    // More than that is an incident of its own, also what was written before.
    let written = story.signal("n0", SignalKind::Xid { code: 63 }, Advice::Check);
    story.wait(secs(1));
    hot(&mut story);
    story.xid("n0", 95, Advice::ResetGpu);
    assert_eq!((story.state("n0"), story.job_state("train")), (NodeState::Draining, JobState::Stopping));
    story.tell(Input::Signal(written));
    assert_eq!(story.incident("n0").signals.len(), 2);
    hot(&mut story);
    assert_eq!((story.state("n0"), story.incident("n0").signals.len()), (NodeState::Draining, 3));
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
    let none = JobSpec { application_restarts: 0, infrastructure_restarts: 0, ..JobSpec::default() };
    story.job_of("train", 1, &["n0"], none);
    let mut signal = story.signal("n0", SignalKind::SpotInterruption, Advice::Check);
    signal.gpu = None;
    story.tell(Input::Signal(signal));
    assert_eq!(story.job_state("train"), JobState::Stopping);
    // The machine may be gone before its work has ended: that is the same.
    story.lost("n0");
    story.ends("train", 1, 0, Exit::Cancelled);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    // Nobody has failed, so nobody's budget is drawn on.
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Moved);
    let Some(Act::RestartJob { exclude, .. }) = story.open("restart_job").map(|effect| effect.act) else { panic!() };
    assert!(exclude.contains("n0"));
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
fn a_gang_that_hangs_is_held_up_by_any_of_its_nodes_and_all_are_checked_at_once() {
    let hangs = |node: &str, spec: JobSpec| {
        let mut story = Story::new(4);
        story.job_of("train", 1, &["n0", "n1", "n2"], spec);
        let mut signal = story.signal(node, SignalKind::Silence, Advice::Check);
        (signal.gpu, signal.job) = (None, Some(JobRef { job: "train".to_owned(), attempt: 1 }));
        story.tell(Input::Signal(signal));
        assert_eq!((story.job_state("train"), story.count("check")), (JobState::Stopping, 0));
        story.stops("train", 1);
        story
    };
    let mut story = hangs("n0", JobSpec { application_restarts: 1, ..JobSpec::default() });
    let checks: Vec<_> = story.r.open_effects().filter(|effect| effect.act.name() == "check").cloned().collect();
    assert_eq!(checks.len(), 3);
    for (effect, node) in checks.iter().zip(["n0", "n1", "n2"]) {
        let Act::RunCheck { node: of, gpus, level, passive, .. } = &effect.act else { panic!() };
        let expected = (node, &BTreeSet::from([format!("{node}/0")]), CheckLevel::Medium, false);
        assert_eq!((of.as_str(), gpus, *level, *passive), expected);
    }
    // One is well, one is broken, and of the third nobody can say: a driver that hangs looks like that.
    let [n0, n1, n2] = [0, 1, 2].map(|at: usize| checks[at].id.clone());
    let told = |effect, outcome| Input::CheckEnded { effect, outcome, evidence: String::new() };
    story.tell(told(n0, CheckOutcome::Pass));
    story.tell(told(n1, CheckOutcome::Fail { gpus: vec!["n1/0".to_owned()], advice: Advice::Reboot }));
    story.tell(told(n2, CheckOutcome::Inconclusive));
    for _ in 0..2 {
        story.wait(secs(60));
        story.check(CheckOutcome::Inconclusive);
    }
    assert_eq!((story.state("n0"), story.state("n1")), (NodeState::Healthy, NodeState::Draining));
    assert!(story.incident("n2").is_proven(), "{:?}", story.incident("n2"));
    assert_eq!(story.state("n2"), NodeState::Queued, "one at a time");
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Infrastructure);

    let story = hangs("n1", JobSpec { check_peers: false, ..JobSpec::default() });
    assert_eq!((story.count("check"), story.state("n1")), (1, NodeState::Checking));
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

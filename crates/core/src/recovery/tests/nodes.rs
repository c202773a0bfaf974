//! Nodes: fenced, checked, repaired, verified.

use super::*;

#[test]
fn weakness_03_a_reboot_is_believed_only_with_a_new_boot_id_an_agent_all_gpus_and_a_check() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });

    // The agent reconnects, tasks begin and end: the node is seen many times, with the boot id that it had.
    for _ in 0..5 {
        story.see("n0", 1);
        assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    }
    // It is said to be done. That is no proof.
    let reboot = story.the("reboot");
    story.done(&reboot);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });

    // A new boot, but the agent is not there yet; then it is, with one GPU.
    let seen = Seen { boot_id: Some("n0-boot-2".to_owned()), agent: false, gpus: None };
    story.tell(Input::Observed { node: "n0".to_owned(), seen });
    assert_eq!(story.state("n0"), NodeState::Verifying);
    assert!(story.open("check").is_none());
    story.see_gpus("n0", 2, 1);
    assert!(story.open("check").is_none(), "a GPU is missing");

    story.see("n0", 2);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    assert!(story.r.fenced().any(|node| node == "n0"));
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    assert_eq!(story.r.fenced().count(), 0);
    assert_eq!(story.incident("n0").outcome, Some(Outcome::Repaired));
    assert_eq!(story.count("reboot"), 1);
}

#[test]
fn weakness_05_a_check_has_four_outcomes_and_none_of_them_is_the_end_of_the_road() {
    for outcome in
        [CheckOutcome::Pass, Story::fails(Advice::Reboot), CheckOutcome::Inconclusive, CheckOutcome::Infrastructure]
    {
        let mut story = Story::new(1);
        story.xid("n0", 94, Advice::Check);
        assert_eq!(story.state("n0"), NodeState::Checking);
        story.check(outcome.clone());
        match outcome {
            CheckOutcome::Pass => assert_eq!(story.state("n0"), NodeState::Healthy),
            CheckOutcome::Fail { .. } => assert_eq!(story.state("n0"), NodeState::Draining),
            CheckOutcome::Inconclusive | CheckOutcome::Infrastructure => {
                assert_eq!(story.state("n0"), NodeState::Checking);
                assert!(story.open("check").is_none(), "it waits a little");
                story.wait(secs(30));
                assert!(story.open("check").is_some(), "and checks again");
            }
        }
    }
}

#[test]
fn weakness_05_a_check_that_never_answers_ends_and_nothing_is_rebooted_for_it() {
    let mut story = Story::new(1);
    story.xid("n0", 94, Advice::Check);
    story.wait(secs(3_600));
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    assert_eq!((story.count("check"), story.count("cancel"), story.count("reboot")), (3, 3, 0));
    assert_eq!(story.notices(NoticeKind::OutOfService).len(), 1);
}

#[test]
fn a_check_that_runs_and_never_comes_to_an_end_speaks_against_the_node() {
    let mut story = Story::new(1);
    story.xid("n0", 94, Advice::Check);
    for _ in 0..3 {
        story.check(CheckOutcome::Inconclusive);
        story.wait(secs(60));
    }
    assert_eq!(story.state("n0"), NodeState::Draining);
    assert_eq!(story.incident("n0").plan, Some(Rung::Reboot));

    let policy = Policy { mode: Mode::Auto, inconclusive: OnInconclusive::OutOfService, ..Policy::default() };
    let mut story = Story::with(1, policy);
    story.xid("n0", 94, Advice::Check);
    for _ in 0..3 {
        story.check(CheckOutcome::Inconclusive);
        story.wait(secs(60));
    }
    assert_eq!(story.state("n0"), NodeState::OutOfService);
}

#[test]
fn what_is_said_again_while_a_node_is_verified_is_kept_once_with_how_often() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    let id = story.the("drain");
    story.done(&id);
    let id = story.the("reboot");
    story.done(&id);
    story.see("n0", 2);
    let before = story.incident("n0").trail.len();
    for _ in 0..4 {
        story.check(CheckOutcome::Inconclusive);
        story.wait(secs(31));
    }
    assert_eq!(story.state("n0"), NodeState::Verifying);
    let trail = &story.incident("n0").trail;
    let said: Vec<_> = trail.iter().filter(|step| step.why.contains("the check gave no verdict")).collect();
    assert_eq!((said.len(), trail.len()), (1, before + 1), "{trail:#?}");
    let again = said[0].again.unwrap();
    assert_eq!((again.times, again.last.duration_since(said[0].at)), (3, secs(93)));
    // Something else is another line, and so is the same in another state.
    let effect = story.the("check");
    story.tell(Input::CheckEnded { effect, outcome: CheckOutcome::Infrastructure, evidence: "busy".to_owned() });
    let trail = &story.incident("n0").trail;
    assert_eq!((trail.len(), trail.last().unwrap().why.as_str()), (before + 2, "the check could not be run: busy"));
}

#[test]
fn weakness_06_a_check_that_cannot_run_yet_is_tried_again_and_people_are_told_in_the_end() {
    let mut story = Story::new(1);
    story.xid("n0", 94, Advice::Check);
    for tries in 1..5 {
        let effect = story.the("check");
        story.tell(Input::EffectFailed { effect, why: "RESOURCE:GPU".to_owned(), certain: true });
        assert_eq!(story.state("n0"), NodeState::Checking, "try {tries}");
        // Each wait is twice as long.
        story.wait(secs(30 << (tries - 1)));
    }
    let effect = story.the("check");
    story.tell(Input::EffectFailed { effect, why: "RESOURCE:GPU".to_owned(), certain: true });
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    let notices = story.notices(NoticeKind::OutOfService);
    assert!(notices[0].text.contains("5 checks could not be run") && notices[0].text.contains("RESOURCE:GPU"));
    assert_eq!(story.count("reboot"), 0);
}

#[test]
fn a_check_of_a_node_that_came_up_anew_is_the_only_one() {
    let mut story = Story::new(1);
    story.lost("n0");
    story.see("n0", 1);
    story.check(CheckOutcome::Infrastructure);
    assert!(story.open("check").is_none(), "it is tried again after a while");
    story.see("n0", 2);
    let check = story.the("check");
    story.wait(secs(200));
    assert_eq!((story.the("check"), story.count("check")), (check, 2));
}

#[test]
fn weakness_06_a_check_begins_when_what_failed_on_its_gpus_has_ended() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    // Rank 0 fails; its own process is gone, and n0 can be checked. n1 is being told to stop.
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.state("n0"), NodeState::Checking);

    // Two ranks of one node: the other one is in its grace.
    let mut story = Story::new(1);
    story.job("train", 1, &["n0", "n0"]);
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.state("n0"), NodeState::Fenced);
    story.ends("train", 1, 1, Exit::Cancelled);
    assert_eq!(story.state("n0"), NodeState::Checking);

    // It does not end, so it is not waited for for ever.
    let mut story = Story::new(1);
    story.job("train", 1, &["n0", "n0"]);
    story.ends("train", 1, 0, code(1));
    story.wait(secs(60));
    assert_eq!(story.state("n0"), NodeState::Checking);
    let Act::RunCheck { passive, .. } = story.open("check").unwrap().act else { panic!() };
    assert!(passive, "something may still be on the GPU");
}

#[test]
fn weakness_07_every_state_has_a_deadline_that_leads_on() {
    // Nobody answers anything. Whatever the signal was, it comes to an end, and people hear of it.
    for (kind, advice) in [
        (SignalKind::Xid { code: 79 }, Advice::Reboot),
        (SignalKind::Xid { code: 95 }, Advice::ResetGpu),
        (SignalKind::Xid { code: 64 }, Advice::Replace),
        (SignalKind::Xid { code: 142 }, Advice::ContactSupport),
        (SignalKind::Xid { code: 94 }, Advice::Check),
        (SignalKind::Thermal, Advice::Ignore),
        (SignalKind::NodeLost, Advice::Check),
        (SignalKind::SpotInterruption, Advice::Check),
    ] {
        for mode in [Mode::Auto, Mode::Approve, Mode::Observe] {
            let mut story = Story::with(2, Policy { mode, ..Policy::default() });
            story.job("train", 1, &["n0", "n1"]);
            let signal = story.signal("n0", kind.clone(), advice);
            story.tell(Input::Signal(signal));
            story.wait(SignedDuration::from_hours(30));
            let state = story.state("n0");
            assert!(!state.is_under_way(), "{kind} in {mode:?}: {state}");
            assert!(story.count("notify") > 0, "{kind} in {mode:?}: nobody heard of it");
            let job = story.r.job("train").map(|job| job.state);
            assert!(job.is_none_or(|job| job.is_final() || job == JobState::Running), "{kind} in {mode:?}: {job:?}");
        }
    }
}

#[test]
fn weakness_14_a_node_is_repaired_to_the_end_when_its_job_is_long_gone() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    // The job goes on elsewhere, and ends, while the node is being repaired.
    story.job("train", 2, &["n1"]);
    story.drained();
    story.ends("train", 2, 0, code(0));
    assert_eq!(story.job_state("train"), JobState::Complete);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });

    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    assert_eq!(story.job_state("train"), JobState::Complete);
}

#[test]
fn weakness_15_one_rung_after_another_and_each_of_them_once() {
    let mut story = Story::new(1);
    story.xid("n0", 95, Advice::ResetGpu);
    story.drained();
    let reset = story.the("reset_gpu");
    story.tell(Input::EffectFailed { effect: reset, why: "not permitted in a guest".to_owned(), certain: true });

    // All of the node must be empty for the next one.
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    story.wait(secs(600));
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::HardReboot }, "it never came back");
    story.wait(secs(900));
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
    story.wait(secs(1_500));
    assert_eq!(story.state("n0"), NodeState::OutOfService);

    for rung in ["reset_gpu", "reboot", "hard_reboot", "replace"] {
        assert_eq!(story.count(rung), 1, "{rung}");
    }
    let notice = story.notices(NoticeKind::OutOfService)[0];
    insta::assert_snapshot!(notice.tried.join("\n"), @r"
    reset_gpu: the GPUs could not be reset: not permitted in a guest
    reboot: reboot: no new boot id in time
    hard_reboot: hard_reboot: no new boot id in time
    replace: replace: no new boot id in time
    ");
}

#[test]
fn weakness_15_a_node_that_came_up_anew_and_is_as_bad_is_not_rebooted_again() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    story.see("n0", 2);
    story.check(Story::fails(Advice::Reboot));
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
    // Another machine in its place, under its name.
    story.see("n0", 3);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    assert_eq!((story.count("reboot"), story.count("hard_reboot")), (1, 0));
}

#[test]
fn weakness_15_what_cannot_be_done_to_a_node_is_left_out() {
    let mut story = Story::new(0);
    story.node("n0", |facts| facts.rungs = [Rung::Reboot].into());
    story.xid("n0", 64, Advice::Replace);
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    assert_eq!(story.count("reboot"), 0);
}

#[test]
fn an_ambiguous_reboot_is_looked_at_and_never_ordered_again() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.tell(Input::Begun { effect: reboot.clone() });
    story.tell(Input::EffectFailed { effect: reboot, why: "connection closed".to_owned(), certain: false });
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    story.wait(secs(300));
    assert!(story.count("observe") > 10);
    story.see("n0", 2);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Verifying, 1));
}

#[test]
fn after_a_crash_a_reboot_is_ordered_if_it_was_not_begun_and_looked_for_if_it_was() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    let again = |story: &Story| Recovery::restore(story.r.policy().clone(), story.r.records()).1;
    assert!(again(&story).iter().any(|effect| effect.id == reboot));
    story.tell(Input::Begun { effect: reboot.clone() });
    assert!(!again(&story).iter().any(|effect| effect.id == reboot));
}

#[test]
fn weakness_16_a_node_is_not_repaired_under_the_work_of_others() {
    let mut story = Story::new(2);
    story.job("mine", 1, &["n0"]);
    let gpus = vec!["n0/1".to_owned()];
    let ranks = vec![Place { node: "n0".to_owned(), gpus }];
    story.tell(Input::JobStarted { job: "other".to_owned(), attempt: 1, ranks, spec: JobSpec::default() });

    story.xid("n0", 79, Advice::Reboot);
    story.stops("mine", 1);
    assert_eq!(story.job_state("mine"), JobState::Restarting);
    assert_eq!(story.job_state("other"), JobState::Running);
    // Whoever drains believes that all is gone. We know better.
    story.drained();
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Draining, 0));

    story.ends("other", 1, 0, code(0));
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    assert_eq!(story.job_state("other"), JobState::Complete);
}

#[test]
fn weakness_16_the_reset_of_a_gpu_does_not_wait_for_those_on_others() {
    let mut story = Story::new(1);
    let gpus = vec!["n0/1".to_owned()];
    let ranks = vec![Place { node: "n0".to_owned(), gpus }];
    story.tell(Input::JobStarted { job: "other".to_owned(), attempt: 1, ranks, spec: JobSpec::default() });
    story.xid("n0", 95, Advice::ResetGpu);
    story.drained();
    let Act::ResetGpu { gpus, .. } = story.open("reset_gpu").unwrap().act else { panic!() };
    assert_eq!(gpus, ["n0/0".to_owned()].into());
    // It did not help; for a reboot the other one has to end.
    let reset = story.the("reset_gpu");
    story.tell(Input::EffectFailed { effect: reset, why: "busy".to_owned(), certain: true });
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Draining);
    // It does not; people are told twice, and the work goes on.
    story.wait(SignedDuration::from_hours(3));
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    assert_eq!((story.job_state("other"), story.count("reboot")), (JobState::Running, 0));
    assert_eq!(story.notices(NoticeKind::Overdue).len(), 1);
}

#[test]
fn weakness_16_where_people_want_it_others_make_room_and_that_costs_them_nothing() {
    let mut story = Story::with(2, Policy { mode: Mode::Auto, drain: DrainPolicy::Preempt, ..Policy::default() });
    let spec = JobSpec { application_restarts: 0, infrastructure_restarts: 0, ..JobSpec::default() };
    let ranks = vec![Place { node: "n0".to_owned(), gpus: vec!["n0/1".to_owned()] }];
    story.tell(Input::JobStarted { job: "other".to_owned(), attempt: 1, ranks, spec });
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    assert_eq!(story.job_state("other"), JobState::Stopping);
    story.ends("other", 1, 0, Exit::Cancelled);
    assert_eq!(story.job_state("other"), JobState::Restarting);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
}

#[test]
fn weakness_16_no_more_of_the_fleet_is_in_repair_at_once_than_may_be() {
    let mut story = Story::new(10);
    for n in 0..5 {
        story.xid(&format!("n{n}"), 79, Advice::Reboot);
    }
    let states = |story: &Story| (0..5).map(|n| story.state(&format!("n{n}"))).collect::<Vec<_>>();
    use NodeState as S;
    assert_eq!(states(&story), [S::Draining, S::Draining, S::Queued, S::Queued, S::Queued]);
    // One is back, and the next one begins: whoever waits longest.
    story.drained();
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!(states(&story), [S::Healthy, S::Draining, S::Draining, S::Queued, S::Queued]);
    // Who waits too long is told of, once.
    story.wait(SignedDuration::from_mins(59));
    assert_eq!(story.notices(NoticeKind::Overdue).len(), 2);
}

#[test]
fn a_node_that_only_cannot_be_reached_is_never_rebooted() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    story.lost("n0");
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Suspected, 1));
    story.ends("train", 1, 0, Exit::Lost { reason: "its lease is over".to_owned() });
    assert_eq!(story.job_state("train"), JobState::Restarting);
    story.wait(SignedDuration::from_hours(12));
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    assert_eq!(story.count("reboot") + story.count("hard_reboot") + story.count("replace"), 0);

    // It is back: same boot, and a check passes.
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Checking);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Healthy, 0));
}

#[test]
fn a_node_that_comes_up_anew_by_itself_needs_no_reboot_from_us() {
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!(story.state("n0"), NodeState::AwaitingApproval);
    // A person did it by hand.
    story.see("n0", 2);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Healthy, 0));
}

#[test]
fn a_node_that_goes_ends_its_incident() {
    let mut story = Story::new(2);
    story.xid("n0", 64, Advice::Replace);
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
    let id = story.r.open_incident("n0").unwrap().id;
    story.tell(Input::NodeGone { node: "n0".to_owned(), why: "its instance was terminated".to_owned() });
    assert!(story.r.node("n0").is_none());
    assert_eq!(story.r.incident(id).unwrap().outcome, Some(Outcome::Gone));
}

#[test]
fn a_check_that_began_before_the_node_came_up_anew_says_nothing_of_it() {
    let mut story = Story::new(1);
    story.xid("n0", 94, Advice::Check);
    let before = story.the("check");
    story.see("n0", 2);
    assert_ne!(story.the("check"), before);
    story.tell(Input::CheckEnded { effect: before, outcome: Story::fails(Advice::Reboot), evidence: String::new() });
    assert_eq!(story.state("n0"), NodeState::Checking);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Healthy, 0));
}

/// A node that nobody has asked anything yet, as they are in a server.
fn unasked(nodes: u32) -> Story {
    let mut story = Story::new(0);
    for n in 0..nodes {
        story.node(&format!("n{n}"), |facts| facts.boot_id = None);
    }
    story
}

#[test]
fn a_node_is_not_started_anew_before_its_boot_is_known() {
    let mut story = unasked(1);
    story.job("train", 1, &["n0"]);
    story.ends("train", 1, 0, code(1));
    story.check(Story::fails(Advice::Reboot));
    assert_eq!((story.state("n0"), story.count("observe")), (NodeState::Draining, 1), "it is asked at once");
    story.drained();
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Draining, 0));
    // No answer: it is asked again.
    story.tell(Input::Observed { node: "n0".to_owned(), seen: Seen::default() });
    story.wait(secs(15));
    assert!(story.count("observe") > 1);
    story.see("n0", 1);
    let Act::Reboot { boot_id, .. } = story.open("reboot").unwrap().act else { panic!() };
    assert_eq!(boot_id.as_deref(), Some("n0-boot-1"));
    let reboot = story.the("reboot");
    story.done(&reboot);
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot }, "the same boot is no reboot");
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    assert_eq!(story.incident("n0").outcome, Some(Outcome::Repaired));
}

#[test]
fn a_node_that_never_says_which_boot_it_runs_is_left_to_people_and_not_started_anew() {
    let mut story = unasked(1);
    let signal = Signal { boot_id: None, ..story.signal("n0", SignalKind::LostGpu, Advice::Reboot) };
    story.tell(Input::Signal(signal));
    story.drained();
    story.wait(secs(600));
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::OutOfService, 0));
    assert!(story.notices(NoticeKind::OutOfService)[0].text.contains("which boot it runs"));
}

#[test]
fn the_first_boot_that_is_known_after_an_ordered_reboot_is_no_proof_that_there_was_none() {
    // A row of a reboot that was ordered with no boot known, as earlier versions did.
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.tell(Input::Begun { effect: reboot.clone() });
    story.done(&reboot);
    let mut rows = story.r.records();
    for row in &mut rows {
        if let Record::Node(node) = row {
            (node.boot_id, node.facts.boot_id) = (None, None);
        }
    }
    (story.r, _) = Recovery::restore(story.r.policy().clone(), rows);
    story.node("n0", |facts| facts.boot_id = Some("n0-boot-2".to_owned()));
    story.see("n0", 2);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.incident("n0").outcome, Some(Outcome::Repaired));
}

#[test]
fn a_line_of_a_boot_that_is_not_known_waits_until_the_node_says_which_it_is() {
    let mut story = unasked(1);
    let signal = Signal {
        boot_id: Some("n0-boot-1".to_owned()),
        ..story.signal("n0", SignalKind::Xid { code: 79 }, Advice::Reboot)
    };
    story.tell(Input::Signal(signal));
    // It could not be asked, and then the answer was lost.
    story.tell(Input::Observed { node: "n0".to_owned(), seen: Seen::default() });
    story.wait(secs(30));
    assert_eq!((story.state("n0"), story.count("observe")), (NodeState::Healthy, 3));
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Draining);
}

//! What recovery may do by itself, and what people say.

use super::*;

#[test]
fn where_it_only_watches_it_tells_what_it_would_do_and_does_nothing() {
    let mut story = Story::with(2, Policy::default());
    story.job("train", 1, &["n0", "n1"]);
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!(story.state("n0"), NodeState::Suspected);
    assert_eq!(story.job_state("train"), JobState::Running);
    let would = story.notices(NoticeKind::Would)[0].text.clone();
    assert_eq!(would, "n0: would fence it, drain it, and then: reboot; recovery only watches here");
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.job_state("train"), JobState::Failed, "left to its own retries");
    story.wait(SignedDuration::from_hours(1));
    assert_eq!(story.state("n0"), NodeState::Healthy);
    assert_eq!(story.incident("n0").outcome, Some(Outcome::Observed));
    let names: BTreeSet<&str> = story.wanted.iter().map(|effect| effect.act.name()).collect();
    assert_eq!(names, ["fail_job", "notify"].into());
}

#[test]
fn a_node_that_opted_out_is_never_fenced_nor_repaired_and_people_are_told() {
    let mut story = Story::new(1);
    story.node("n0", |facts| facts.opted_out = true);
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!((story.r.fenced().count(), story.state("n0")), (0, NodeState::Suspected));
    assert!(story.notices(NoticeKind::Would)[0].text.contains("opted out"));
    // It opts in again, while that is open.
    story.node("n0", |_| {});
    assert_eq!((story.r.fenced().count(), story.state("n0")), (1, NodeState::Draining));
    // And out: nothing was done yet, so nothing is.
    story.node("n0", |facts| facts.opted_out = true);
    assert_eq!((story.r.fenced().count(), story.state("n0")), (0, NodeState::Healthy));
}

#[test]
fn a_node_that_is_being_let_go_of_is_let_go_of_also_if_something_is_seen_that_is_only_watched() {
    let mut story = Story::new(1);
    story.lost("n0");
    story.see("n0", 1);
    // Whoever does it takes a while.
    let effect = story.the("check");
    let evidence = String::new();
    story.r.apply(Input::CheckEnded { effect, outcome: CheckOutcome::Pass, evidence }, story.now);
    let unfence = story.the("unfence");
    story.node("n0", |facts| facts.opted_out = true);
    story.wait(secs(1));
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!((story.state("n0"), story.the("unfence")), (NodeState::Suspected, unfence));
    // Where it is acted, it is fenced.
    story.node("n0", |_| {});
    assert_eq!((story.open("unfence"), story.r.fenced().count()), (None, 1));
}

#[test]
fn a_repair_waits_for_a_person_and_each_rung_for_a_word_of_its_own() {
    let mut story = Story::with(2, Policy { mode: Mode::Approve, ..Policy::default() });
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    assert_eq!(story.state("n0"), NodeState::AwaitingApproval);
    assert_eq!(story.job_state("train"), JobState::Restarting, "the job does not wait for that");
    let incident = story.incident("n0").id;
    assert_eq!(story.notices(NoticeKind::ApprovalWanted)[0].left, ["reset_gpu", "reboot", "hard_reboot", "replace"]);
    story.tell(Input::Approve { incident, repair: None, by: "ann".to_owned() });
    story.tell(Input::Approve { incident, repair: None, by: "bob".to_owned() });
    story.drained();
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    story.wait(secs(600));
    assert_eq!(story.state("n0"), NodeState::AwaitingApproval, "a harder one is another question");
    assert_eq!(story.count("hard_reboot"), 0);
    // Nobody answers: they are reminded, then it is over.
    story.wait(SignedDuration::from_hours(1));
    let reminded = story.notices(NoticeKind::Overdue).iter().filter(|notice| notice.node.is_some()).count();
    assert_eq!(reminded, 1);
    story.wait(SignedDuration::from_hours(1));
    assert_eq!(story.state("n0"), NodeState::OutOfService);
}

#[test]
fn a_node_that_came_up_anew_while_it_waited_is_checked_and_not_repaired() {
    let waiting = || {
        let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
        story.xid("n0", 95, Advice::ResetGpu);
        story.wait(SignedDuration::from_mins(20));
        let incident = story.incident("n0").id;
        story.tell(Input::Approve { incident, repair: None, by: "ann".to_owned() });
        story.drained();
        assert_eq!(story.state("n0"), NodeState::Draining, "it is looked at first");
        story
    };
    // A person rebooted it, say, and forgot to say so.
    let mut story = waiting();
    story.see("n0", 2);
    assert_eq!((story.state("n0"), story.count("reset_gpu")), (NodeState::Verifying, 0));
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);
    // It is as it was.
    let mut story = waiting();
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::ResetGpu });
    // It does not answer, which is asked a few times; also by another server.
    let mut story = waiting();
    let away = || Seen { boot_id: None, agent: false, gpus: None };
    story.tell(Input::Observed { node: "n0".to_owned(), seen: away() });
    story.wait(secs(45));
    story.down(secs(600));
    story.tell(Input::Observed { node: "n0".to_owned(), seen: away() });
    story.wait(secs(45));
    assert_eq!((story.state("n0"), story.count("observe") > 4), (NodeState::Draining, true));
    story.wait(secs(15));
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::ResetGpu });
    // The second rung, whose node was drained before the first.
    let mut story = waiting();
    story.see("n0", 1);
    let reset = story.the("reset_gpu");
    story.tell(Input::EffectFailed { effect: reset, why: "in use".to_owned(), certain: true });
    assert_eq!(story.state("n0"), NodeState::AwaitingApproval);
    let incident = story.incident("n0").id;
    story.wait(SignedDuration::from_mins(20));
    story.tell(Input::Approve { incident, repair: None, by: "ann".to_owned() });
    if story.open("drain").is_some() {
        story.drained();
    }
    story.see("n0", 2);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Verifying, 0));
}

#[test]
fn whoever_approved_what_they_saw_has_not_approved_what_is_planned_by_now() {
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 95, Advice::ResetGpu);
    let incident = story.incident("n0").id;
    assert_eq!(story.incident("n0").plan, Some(Rung::ResetGpu));
    // Meanwhile more is known.
    story.wait(secs(1));
    story.xid("n0", 79, Advice::Reboot);
    let approve = |repair, by: &str| Input::Approve { incident, repair, by: by.to_owned() };
    story.tell(approve(Some(Rung::ResetGpu), "ann"));
    assert_eq!(story.state("n0"), NodeState::AwaitingApproval);
    let last = story.incident("n0").trail.last().unwrap().why.clone();
    assert_eq!(last, "ann approved reset_gpu; by now it needs reboot, which waits for another word");
    story.tell(approve(Some(Rung::Reboot), "ann"));
    assert_eq!(story.state("n0"), NodeState::Draining);
}

#[test]
fn a_person_may_say_that_a_node_is_well() {
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 79, Advice::Reboot);
    let incident = story.incident("n0").id;
    story.tell(Input::Dismiss { incident, by: "ann".to_owned(), why: "a test".to_owned() });
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Healthy, 0));
    assert_eq!(story.incident("n0").outcome, Some(Outcome::Dismissed));

    // Too late, once something is being done.
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let incident = story.incident("n0").id;
    story.tell(Input::Dismiss { incident, by: "ann".to_owned(), why: "a test".to_owned() });
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
}

#[test]
fn a_person_may_have_a_node_checked_again_that_is_out_of_service() {
    let mut story = Story::new(1);
    story.xid("n0", 142, Advice::ContactSupport);
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    // It still says so; that is known.
    story.wait(secs(60));
    story.xid("n0", 142, Advice::ContactSupport);
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    let incident = story.incident("n0").id;
    story.tell(Input::Retry { incident, by: "ann".to_owned() });
    assert_eq!(story.state("n0"), NodeState::Checking);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Healthy, 0));
}

#[test]
fn weakness_24_a_check_that_passes_is_the_application_and_one_that_fails_is_the_node_in_every_table() {
    // One meaning, in one place: what the outcome says of the node, of the incident, and of the job.
    let after = |outcome: CheckOutcome| {
        let mut story = Story::new(1);
        story.job_of("train", 1, &["n0"], JobSpec { restart: Restart::AfterVerdict, ..JobSpec::default() });
        story.ends("train", 1, 0, code(1));
        story.check(outcome);
        let incident = story.incident("n0");
        (story.state("n0").name(), incident.verdict.unwrap().name(), incident.class, story.job_state("train").name())
    };
    assert_eq!(after(CheckOutcome::Pass), ("healthy", "pass", Class::Application, "failed"));
    assert_eq!(after(Story::fails(Advice::Reboot)), ("draining", "fail", Class::Infrastructure, "restarting"));
}

#[test]
fn weakness_23_whatever_needs_somebody_is_told_with_what_was_seen_and_tried() {
    let told = |story: &Story, kind: NoticeKind| {
        let first = story.notices(kind).into_iter().next().cloned();
        first.unwrap_or_else(|| panic!("{kind:?}: nobody was told"))
    };
    let seen = |notice: &Notice| notice.evidence.iter().any(|line| line.contains("as the kernel wrote"));
    // Nothing can be done about it from here.
    let mut story = Story::new(1);
    story.xid("n0", 142, Advice::ContactSupport);
    let notice = told(&story, NoticeKind::OutOfService);
    assert!(seen(&notice) && notice.node.as_deref() == Some("n0"), "{notice:?}");

    // A person has to allow it, and does not answer.
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 79, Advice::Reboot);
    story.wait(SignedDuration::from_mins(65));
    for kind in [NoticeKind::ApprovalWanted, NoticeKind::Overdue] {
        let notice = told(&story, kind);
        assert!(seen(&notice) && !notice.left.is_empty(), "{notice:?}");
    }

    // Nothing may be done.
    let mut story = Story::with(1, Policy::default());
    story.xid("n0", 79, Advice::Reboot);
    assert!(seen(&told(&story, NoticeKind::Would)));

    // It was repaired.
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    let notice = told(&story, NoticeKind::Repaired);
    assert!(seen(&notice) && notice.tried[0].starts_with("reboot"), "{notice:?}");

    // The job cannot go on, and its last words say why.
    let mut story = Story::new(1);
    story.job_of("train", 1, &["n0"], JobSpec::default());
    story.ends("train", 1, 0, code(1));
    story.check(CheckOutcome::Pass);
    let notice = told(&story, NoticeKind::JobFailed);
    assert_eq!((notice.job.as_deref(), notice.evidence.len()), (Some("train"), 1));
    assert!(notice.evidence[0].contains("CUDA error"), "{notice:?}");
}

#[test]
fn a_node_that_is_taken_out_of_recoverys_hands_during_a_repair_gets_no_other() {
    let verifying = || {
        let mut story = Story::new(1);
        story.xid("n0", 95, Advice::ResetGpu);
        story.drained();
        let reset = story.the("reset_gpu");
        story.tell(Input::Begun { effect: reset.clone() });
        story.done(&reset);
        story.see("n0", 1);
        assert_eq!(story.state("n0"), NodeState::Verifying);
        story
    };
    let off: [fn(&mut NodeFacts); 2] = [|facts| facts.opted_out = true, |facts| facts.mode = Some(Mode::Observe)];
    for change in off {
        let mut story = verifying();
        story.node("n0", change);
        assert_eq!(story.state("n0"), NodeState::Verifying, "what was begun is seen to its end");
        story.check(Story::fails(Advice::Reboot));
        assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Healthy, 0));
        assert_eq!((story.count("drain"), story.count("reboot")), (1, 0));
        assert!(story.notices(NoticeKind::Would)[0].text.contains("may be broken"));
    }
    // One that was ordered and not begun is not done at all; one that was is waited for.
    for (begun, state) in [(false, NodeState::Healthy), (true, NodeState::Remediating { rung: Rung::Reboot })] {
        let mut story = Story::new(1);
        story.xid("n0", 79, Advice::Reboot);
        story.drained();
        let reboot = story.the("reboot");
        if begun {
            story.tell(Input::Begun { effect: reboot });
        }
        story.node("n0", |facts| facts.opted_out = true);
        assert_eq!((story.state("n0"), story.open("reboot").is_some()), (state, begun));
        story.wait(secs(600));
        assert_eq!((story.state("n0"), story.count("hard_reboot")), (NodeState::Healthy, 0));
    }
}

#[test]
fn a_node_that_is_out_of_service_and_opts_out_is_not_kept_fenced() {
    let mut story = Story::new(1);
    story.xid("n0", 142, Advice::ContactSupport);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::OutOfService, 1));
    story.node("n0", |facts| facts.opted_out = true);
    assert_eq!((story.state("n0"), story.r.fenced().count()), (NodeState::Healthy, 0));
    assert!(story.notices(NoticeKind::Would)[0].text.contains("unchecked"), "people are told");
}

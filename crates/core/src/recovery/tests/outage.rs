//! What a server finds that begins to lead: time has passed, and nobody has looked.

use super::*;

fn names(effects: &[Effect]) -> Vec<&'static str> {
    effects.iter().map(|effect| effect.act.name()).collect()
}

#[test]
fn a_node_that_came_up_while_nobody_led_is_looked_at_before_anything_else_is_done_to_it() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.tell(Input::Begun { effect: reboot });
    assert_eq!(names(&story.down(SignedDuration::from_hours(1))), ["observe"]);
    assert_eq!(names(&story.tell(Input::Tick)), Vec::<&str>::new());
    assert!(story.open("reboot").is_none(), "it may be under way, and is not ordered again");
    story.see("n0", 2);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Healthy, 1));
    assert_eq!(story.count("hard_reboot"), 0);
}

#[test]
fn a_node_that_was_being_emptied_and_came_up_anew_while_nobody_led_is_checked_and_not_repaired() {
    for (code, advice, repair) in [(95, Advice::ResetGpu, "reset_gpu"), (79, Advice::Reboot, "reboot")] {
        let mut story = Story::new(1);
        story.xid("n0", code, advice);
        assert_eq!(story.state("n0"), NodeState::Draining);
        assert_eq!(names(&story.down(SignedDuration::from_hours(1))), ["observe"]);
        // Nobody is there any more, and nobody has looked yet.
        story.drained();
        assert_eq!(story.state("n0"), NodeState::Draining);
        story.see("n0", 2);
        story.check(CheckOutcome::Pass);
        assert_eq!((story.state("n0"), story.count(repair)), (NodeState::Healthy, 0));
    }
}

#[test]
fn a_reset_that_was_begun_when_the_server_ended_is_checked() {
    let mut story = Story::new(1);
    story.xid("n0", 95, Advice::ResetGpu);
    story.drained();
    let reset = story.the("reset_gpu");
    story.tell(Input::Begun { effect: reset });
    story.down(SignedDuration::from_hours(1));
    story.tell(Input::Tick);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    story.see("n0", 1);
    story.check(CheckOutcome::Pass);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::Healthy, 0));
}

#[test]
fn what_was_absent_or_being_checked_has_its_time_again() {
    let mut story = Story::new(1);
    story.lost("n0");
    assert_eq!(names(&story.down(SignedDuration::from_hours(1))), ["observe"]);
    story.tell(Input::Tick);
    assert_eq!(story.state("n0"), NodeState::Suspected);
    story.see("n0", 1);
    let first = story.the("check");
    // The check that was asked for is of no use any more: its time was over.
    story.down(SignedDuration::from_hours(1));
    story.tell(Input::Tick);
    assert_ne!(story.the("check"), first);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n0"), NodeState::Healthy);

    // A person's word that was given meanwhile comes in time.
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 79, Advice::Reboot);
    story.wait(SignedDuration::from_mins(61));
    story.down(SignedDuration::from_hours(8));
    story.tell(Input::Tick);
    let incident = story.incident("n0").id;
    story.tell(Input::Approve { incident, repair: None, by: "ann".to_owned() });
    assert_eq!(story.state("n0"), NodeState::Draining);
}

#[test]
fn a_job_that_runs_by_now_is_not_ended_because_nobody_said_so() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    let ranks = vec![Place { node: "n1".to_owned(), gpus: Vec::new() }];
    story.tell(Input::JobStarting { job: "train".to_owned(), attempt: 2, ranks });
    story.down(SignedDuration::from_hours(1));
    story.tell(Input::Tick);
    assert_eq!(story.job_state("train"), JobState::Starting);
    story.job("train", 2, &["n1"]);
    assert_eq!((story.job_state("train"), story.count("stop_job")), (JobState::Running, 1));
}

#[test]
fn whoever_leads_again_puts_nothing_off_that_is_not_due() {
    let mut story = Story::with(1, Policy { mode: Mode::Approve, ..Policy::default() });
    story.xid("n0", 79, Advice::Reboot);
    let deadline = story.r.node("n0").unwrap().deadline;
    assert_eq!(story.down(secs(5)), Vec::new());
    assert_eq!(story.r.node("n0").unwrap().deadline, deadline);
}

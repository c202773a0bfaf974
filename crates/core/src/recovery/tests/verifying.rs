//! A node that was repaired, and what it shows while it is verified.

use super::*;

/// One that was rebooted, is in its second boot, and is being checked.
fn rebooted() -> Story {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.done(&reboot);
    story.wait(secs(20));
    story.see("n0", 2);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    story
}

#[test]
fn what_the_new_boot_itself_shows_to_be_broken_needs_no_check_and_is_not_repaired() {
    let mut story = rebooted();
    let check = story.the("check");
    story.wait(secs(5));
    story.xid("n0", 119, Advice::Reboot);
    assert!(story.count("cancel") == 1 && story.open("check").is_none());
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
    assert_eq!(story.incident("n0").verdict, Some(Verdict::Fail));
    let result = story.incident("n0").tried[0].result.clone().unwrap();
    assert!(result.starts_with("it did not help: XID 119"), "{result}");
    // Whatever the check still says.
    story.tell(Input::CheckEnded { effect: check, outcome: CheckOutcome::Pass, evidence: String::new() });
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
}

#[test]
fn what_the_new_boot_showed_before_anybody_saw_it_counts_as_well() {
    let mut story = Story::new(1);
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.done(&reboot);
    story.wait(secs(10));
    let mut signal = story.signal("n0", SignalKind::Xid { code: 79 }, Advice::Reboot);
    signal.boot_id = Some("n0-boot-2".to_owned());
    story.tell(Input::Signal(signal));
    story.wait(secs(10));
    story.see("n0", 2);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Replace });
}

#[test]
fn what_is_told_late_of_before_a_repair_or_shows_little_leaves_the_check_to_say_how_it_is() {
    let mut story = Story::new(1);
    story.xid("n0", 46, Advice::ResetGpu);
    story.drained();
    let late = story.signal("n0", SignalKind::Xid { code: 62 }, Advice::ResetGpu);
    story.wait(secs(5));
    let reset = story.the("reset_gpu");
    story.done(&reset);
    story.see("n0", 1);
    assert_eq!(story.state("n0"), NodeState::Verifying);
    story.tell(Input::Signal(late));
    story.wait(secs(1));
    story.xid("n0", 94, Advice::Check);
    story.lost("n0");
    assert_eq!(story.state("n0"), NodeState::Verifying);
    // After the reset, in the same boot.
    story.xid("n0", 62, Advice::ResetGpu);
    assert_eq!((story.state("n0"), story.incident("n0").plan), (NodeState::Draining, Some(Rung::Reboot)));
}

#[test]
fn a_node_that_shows_it_is_broken_after_its_last_repair_is_out_of_service() {
    let mut story = Story::new(1);
    story.node("n0", |facts| facts.rungs = [Rung::Reboot].into());
    story.xid("n0", 79, Advice::Reboot);
    story.drained();
    let reboot = story.the("reboot");
    story.done(&reboot);
    story.see("n0", 2);
    story.wait(secs(1));
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!(story.state("n0"), NodeState::OutOfService);
    assert_eq!(story.notices(NoticeKind::OutOfService).len(), 1);
}

//! Jobs: all ranks or none.

use super::*;

#[test]
fn weakness_04_a_restart_of_which_not_all_ranks_begin_is_taken_back_as_a_whole() {
    let mut story = Story::new(3);
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 0, Exit::Lost { reason: "gone".to_owned() });
    story.ends("train", 1, 1, Exit::Cancelled);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    let place = |node: &str| Place { node: node.to_owned(), gpus: Vec::new() };
    let ranks = vec![place("n1"), place("n2")];
    story.tell(Input::JobStarting { job: "train".to_owned(), attempt: 2, ranks });
    assert_eq!(story.job_state("train"), JobState::Starting);

    // One of them never does.
    story.wait(secs(600));
    assert_eq!(story.job_state("train"), JobState::Stopping);
    let Act::StopJob { attempt, why, .. } = story.open("stop_job").unwrap().act else { panic!() };
    assert_eq!((attempt, why), (2, StopWhy::RollBack));
    assert_eq!(story.count("restart_job"), 1, "nothing begins before that has ended");
    story.stops("train", 2);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    let Act::RestartJob { attempt, class, .. } = story.open("restart_job").unwrap().act else { panic!() };
    assert_eq!((attempt, class), (3, Class::Infrastructure));
}

#[test]
fn weakness_04_a_restart_that_may_have_begun_is_ended_before_the_next() {
    let mut story = Story::new(3);
    story.job("train", 1, &["n0", "n1"]);
    story.stops("train", 1);
    let effect = story.the("restart_job");
    story.tell(Input::EffectFailed { effect, why: "timed out".to_owned(), certain: false });
    assert_eq!((story.job_state("train"), story.count("restart_job")), (JobState::Stopping, 1));
    story.stops("train", 2);
    assert_eq!((story.job_state("train"), story.count("restart_job")), (JobState::Restarting, 2));
    // One that surely has not needs no end.
    let effect = story.the("restart_job");
    story.tell(Input::EffectFailed { effect, why: "refused".to_owned(), certain: true });
    assert_eq!((story.job_state("train"), story.count("restart_job")), (JobState::Restarting, 3));
}

#[test]
fn weakness_08_many_ranks_fail_and_that_is_one_recovery() {
    let mut story = Story::new(4);
    story.job("train", 1, &["n0", "n1", "n2", "n3"]);
    for rank in [2, 0, 1, 3] {
        story.ends("train", 1, rank, code(1));
        story.ends("train", 1, rank, code(1));
    }
    assert_eq!(story.r.incidents().count(), 1, "the first that failed is looked at first");
    assert_eq!(story.incident("n2").node, "n2");
    assert_eq!((story.count("stop_job"), story.count("check"), story.count("restart_job")), (1, 1, 1));
}

#[test]
fn weakness_08_three_nodes_fail_at_once_and_the_job_restarts_once() {
    let mut story = Story::new(20);
    story.job("train", 1, &["n0", "n1", "n2", "n3"]);
    for node in ["n0", "n1", "n2"] {
        story.xid(node, 79, Advice::Reboot);
    }
    story.stops("train", 1);
    assert_eq!(story.r.incidents().count(), 3);
    assert_eq!(story.count("restart_job"), 1);
    let Act::RestartJob { exclude, class, .. } = story.open("restart_job").unwrap().act else { panic!() };
    assert_eq!(exclude.len(), 3);
    assert_eq!(class, Class::Infrastructure);
    for node in ["n0", "n1", "n2"] {
        story.drained();
        story.see(node, 2);
        story.check(CheckOutcome::Pass);
        assert_eq!(story.state(node), NodeState::Healthy);
    }
    assert_eq!((story.count("reboot"), story.count("restart_job")), (3, 1));
}

#[test]
fn weakness_09_the_end_of_a_sibling_that_we_stopped_is_not_read_as_a_users_stop() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 0, code(1));
    // The intent is in the row before the effect is performed.
    assert_eq!(story.r.job("train").unwrap().stop, Some(StopWhy::Recovery));
    story.ends("train", 1, 1, Exit::Cancelled);
    assert_ne!(story.job_state("train"), JobState::UserStopped);

    // And one that nobody here stopped is.
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 1, Exit::Cancelled);
    assert_eq!(story.job_state("train"), JobState::UserStopped);
    assert_eq!((story.count("check"), story.count("fail_job")), (0, 0));
}

#[test]
fn weakness_09_a_user_may_stop_a_job_in_any_state_and_that_is_never_a_failure() {
    let stop = |story: &mut Story| {
        story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
        assert_eq!(story.job_state("train"), JobState::UserStopped);
        story.stops("train", 1);
        story.stops("train", 2);
        story.wait(SignedDuration::from_mins(50));
        assert_eq!(story.job_state("train"), JobState::UserStopped);
        assert_eq!(story.notices(NoticeKind::JobFailed).len(), 0);
        assert!(story.open("restart_job").is_none());
    };
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    stop(&mut story);

    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 0, code(1));
    stop(&mut story);

    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0"], JobSpec { restart: Restart::AfterVerdict, ..JobSpec::default() });
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.job_state("train"), JobState::AwaitingVerdict);
    stop(&mut story);

    // What was ordered to begin anew is not wanted any more. Nothing of it runs, and what begins under its number is a person's.
    let mut story = Story::new(2);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
    assert!(story.open("stop_job").is_none());
    stop(&mut story);
}

#[test]
fn weakness_10_success_takes_all_ranks_and_what_is_final_stays() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 0, code(0));
    assert_eq!(story.job_state("train"), JobState::Running);
    story.ends("train", 1, 1, code(0));
    assert_eq!(story.job_state("train"), JobState::Complete);
    story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
    story.job("train", 1, &["n0", "n1"]);
    assert_eq!(story.job_state("train"), JobState::Complete);

    // A rank that ends well after another has failed makes nothing well.
    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0", "n1"], JobSpec { check_peers: false, ..JobSpec::default() });
    story.ends("train", 1, 0, code(1));
    story.ends("train", 1, 1, code(0));
    assert_eq!(story.job_state("train"), JobState::AwaitingVerdict);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.job_state("train"), JobState::Failed);
    story.ends("train", 1, 0, code(0));
    assert_eq!(story.job_state("train"), JobState::Failed);
}

#[test]
fn weakness_11_which_exit_codes_are_looked_into_is_the_jobs_to_say() {
    let exits = ExitRules { codes: [(3, Advice::RestartApp)].into(), otherwise: Advice::Check };
    for (exit, checks) in [
        (code(1), 1),
        (code(134), 1),
        (Exit::Signal { signal: 9 }, 1),
        (Exit::Signal { signal: 11 }, 1),
        (Exit::Signal { signal: 15 }, 1),
        (code(3), 0),
        (code(127), 1),
        (Exit::OutOfMemory, 0),
        (Exit::TimedOut, 0),
    ] {
        let mut story = Story::new(1);
        story.job_of("train", 1, &["n0"], JobSpec { exits: exits.clone(), ..JobSpec::default() });
        story.ends("train", 1, 0, exit.clone());
        assert_eq!(story.count("check"), checks, "{exit}");
    }
    assert_eq!(ExitRules::default().advice(&code(127)), Advice::RestartApp);
    // An exit code alone repairs nothing.
    let exits = ExitRules { codes: [(9, Advice::Reboot)].into(), ..ExitRules::default() };
    assert_eq!(exits.advice(&code(9)), Advice::Check);
}

#[test]
fn weakness_13_budgets_are_asked_before_anything_is_done_and_each_class_has_its_own() {
    let mut story = Story::new(2);
    let spec = JobSpec { application_restarts: 1, infrastructure_restarts: 2, ..JobSpec::default() };
    story.job_of("train", 1, &["n0"], spec.clone());
    // Machines fail it twice.
    for attempt in 1..=2 {
        story.ends("train", attempt, 0, Exit::start_failed("no image"));
        story.job_of("train", attempt + 1, &["n0"], spec.clone());
    }
    // Its own failure draws on the other budget.
    story.ends("train", 3, 0, Exit::OutOfMemory);
    assert_eq!(story.job_state("train"), JobState::Restarting);
    story.job_of("train", 4, &["n0"], spec.clone());
    story.ends("train", 4, 0, Exit::OutOfMemory);
    assert_eq!(story.job_state("train"), JobState::Failed);
    let notice = story.notices(NoticeKind::JobFailed)[0];
    assert!(notice.text.contains("1 times of 1"), "{}", notice.text);
    assert_eq!(notice.tried.len(), 3);

    // The budget of machines is of a day.
    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0"], spec.clone());
    for attempt in 1..=6 {
        story.ends("train", attempt, 0, Exit::start_failed("no image"));
        assert_eq!(story.job_state("train"), JobState::Restarting, "{attempt}");
        story.job_of("train", attempt + 1, &["n0"], spec.clone());
        story.wait(SignedDuration::from_hours(13));
    }
}

#[test]
fn weakness_13_reboots_and_repairs_of_a_node_are_counted_over_its_incidents() {
    let mut story = Story::new(0);
    story.node("n0", |facts| facts.rungs = [Rung::ResetGpu, Rung::Reboot].into());
    for boot in 2..4 {
        story.xid("n0", 79, Advice::Reboot);
        story.drained();
        story.see("n0", boot);
        story.check(CheckOutcome::Pass);
        story.wait(secs(3_600));
    }
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::OutOfService, 2));
    assert!(story.notices(NoticeKind::OutOfService)[0].text.contains("rebooted 2 times in 24 hours"));

    // A day later it may be, five times in a week.
    story.wait(SignedDuration::from_hours(24));
    for boot in 4..7 {
        let incident = story.incident("n0").id;
        if story.state("n0") == NodeState::OutOfService {
            story.tell(Input::Dismiss { incident, by: "ann".to_owned(), why: "cables".to_owned() });
        }
        story.wait(secs(1));
        story.xid("n0", 79, Advice::Reboot);
        story.drained();
        story.see("n0", boot);
        story.check(CheckOutcome::Pass);
        story.wait(SignedDuration::from_hours(24));
    }
    story.xid("n0", 79, Advice::Reboot);
    assert_eq!((story.state("n0"), story.count("reboot")), (NodeState::OutOfService, 5));
    assert!(story.notices(NoticeKind::OutOfService)[1].text.contains("repaired 5 times in 7 days"));
}

#[test]
fn with_a_spare_the_job_restarts_at_once_and_the_verdict_says_what_it_cost() {
    for (outcome, class) in
        [(CheckOutcome::Pass, Class::Application), (Story::fails(Advice::Reboot), Class::Infrastructure)]
    {
        let mut story = Story::new(2);
        story.job("train", 1, &["n0"]);
        story.ends("train", 1, 0, code(1));
        assert_eq!(story.job_state("train"), JobState::Restarting);
        assert_eq!(story.state("n0"), NodeState::Checking);
        let Act::RestartJob { exclude, .. } = story.open("restart_job").unwrap().act else { panic!() };
        assert_eq!(exclude, ["n0".to_owned()].into());
        story.job("train", 2, &["n1"]);
        story.check(outcome);
        assert_eq!(story.r.job("train").unwrap().restarts[0].class, class);
        assert_eq!(story.job_state("train"), JobState::Running);
    }
}

#[test]
fn without_budget_for_its_own_failures_a_job_waits_for_the_verdict() {
    let spec = JobSpec { application_restarts: 0, ..JobSpec::default() };
    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0"], spec.clone());
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.job_state("train"), JobState::AwaitingVerdict);
    story.check(Story::fails(Advice::Reboot));
    assert_eq!(story.job_state("train"), JobState::Restarting, "the node was to blame");

    let mut story = Story::new(2);
    story.job_of("train", 1, &["n0"], spec);
    story.ends("train", 1, 0, code(1));
    story.check(CheckOutcome::Pass);
    assert_eq!(story.job_state("train"), JobState::Failed, "it was to blame itself");
}

/// Weakness 1: the node that failed first is checked first, and then those of the others, all at once.
#[test]
fn when_the_first_that_failed_is_well_the_nodes_of_the_others_are_checked_at_once() {
    let spec = JobSpec { application_restarts: 0, ..JobSpec::default() };
    let mut story = Story::new(3);
    story.job_of("train", 1, &["n0", "n1", "n2"], spec);
    story.ends("train", 1, 1, code(1));
    story.stops("train", 1);
    story.check(CheckOutcome::Pass);
    assert_eq!(story.state("n1"), NodeState::Healthy);
    assert_eq!((story.state("n0"), story.state("n2")), (NodeState::Checking, NodeState::Checking));
    assert_eq!(story.job_state("train"), JobState::AwaitingVerdict);
    // One of these is bad.
    story.check(CheckOutcome::Pass);
    story.check(CheckOutcome::Fail { gpus: vec!["n2/0".to_owned()], advice: Advice::Reboot });
    assert_eq!(story.job_state("train"), JobState::Restarting);
    assert_eq!(story.r.job("train").unwrap().restarts[0].class, Class::Infrastructure);
    assert_eq!(story.state("n2"), NodeState::Draining);
}

#[test]
fn a_job_that_does_not_end_is_ended_by_force_and_given_up_in_the_end() {
    let mut story = Story::new(2);
    story.job("train", 1, &["n0", "n1"]);
    story.xid("n0", 79, Advice::Reboot);
    story.wait(secs(45));
    let Act::StopJob { force, .. } = story.open("stop_job").unwrap().act else { panic!() };
    assert!(force);
    story.wait(secs(600));
    assert_eq!(story.job_state("train"), JobState::Failed);
    assert!(story.notices(NoticeKind::JobFailed)[0].text.contains("may still run"));
    assert_eq!(story.count("restart_job"), 0);
    assert_eq!(story.count("reboot"), 0, "nor is its node rebooted under it");
}

#[test]
fn a_job_that_fails_when_its_node_has_failed_its_check_does_not_wait_for_another_verdict() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 999, Advice::Check);
    story.check(Story::fails(Advice::Check));
    assert_eq!(story.state("n0"), NodeState::Draining);
    story.ends("train", 1, 0, code(1));
    assert_eq!(story.job_state("train"), JobState::Restarting);
    let Act::RestartJob { class, .. } = story.open("restart_job").unwrap().act else { panic!() };
    assert_eq!(class, Class::Infrastructure);
}

#[test]
fn a_failure_that_has_used_up_its_budget_is_not_tried_again_by_its_run() {
    let left = |restarts: u32| {
        let mut story = Story::new(2);
        story.job_of("train", 1, &["n0"], JobSpec { application_restarts: restarts, ..JobSpec::default() });
        for attempt in 1..=restarts {
            story.ends("train", attempt, 0, Exit::OutOfMemory);
            story.job_of(
                "train",
                attempt + 1,
                &["n0"],
                JobSpec { application_restarts: restarts, ..JobSpec::default() },
            );
        }
        story.ends("train", restarts + 1, 0, Exit::OutOfMemory);
        assert_eq!(story.job_state("train"), JobState::Failed);
        let failed = story.wanted.iter().find_map(|effect| match &effect.act {
            Act::FailJob { leave, .. } => Some(*leave),
            _ => None,
        });
        failed.expect("it is given up")
    };
    assert_eq!((left(0), left(1), left(2)), (true, false, false));
}

/// All that is said of a job that waits for a verdict: the attempt, and whether it is left to its own retries.
fn answers(effects: &[Effect]) -> Vec<(u32, bool)> {
    let answer = |effect: &Effect| match &effect.act {
        Act::FailJob { attempt, leave, .. } => Some((*attempt, *leave)),
        _ => None,
    };
    effects.iter().filter_map(answer).collect()
}

fn ended(attempt: u32) -> Input {
    let (job, message) = ("train".to_owned(), "RuntimeError".to_owned());
    Input::RankEnded { job, attempt, rank: 0, exit: code(1), message }
}

#[test]
fn an_end_that_nobody_here_knows_of_is_answered_so_that_nobody_waits_for_ever() {
    let mut story = Story::new(1);
    assert_eq!(answers(&story.tell(ended(3))), [(3, true)], "a job that was never told");
    assert_eq!(story.state("n0"), NodeState::Healthy);
    story.wait(SignedDuration::from_hours(2));
    assert!(story.r.job("train").is_none(), "it is forgotten like any other");

    // One that is over for us: told again after a restart of the server, or late.
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
    assert_eq!(answers(&story.tell(ended(1))), [(1, true)]);
    assert_eq!(answers(&story.tell(ended(1))), [(1, true)]);
    assert_eq!(answers(&story.tell(Input::JobStopped { job: "train".to_owned(), attempt: 1 })), [(1, true)]);
    assert_eq!(story.job_state("train"), JobState::UserStopped);

    // A success waits for nobody.
    let mut story = Story::new(1);
    story.ends("train", 1, 0, code(0));
    assert!(story.r.job("train").is_none());
}

#[test]
fn an_attempt_that_a_person_begins_after_a_restart_that_never_began_is_looked_after() {
    let stopped = |story: &mut Story| story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
    let restarting = || {
        let mut story = Story::new(2);
        story.job("train", 1, &["n0"]);
        story.xid("n0", 79, Advice::Reboot);
        story.stops("train", 1);
        assert_eq!((story.job_state("train"), story.r.job("train").unwrap().attempt), (JobState::Restarting, 2));
        story
    };
    // Cancelled while it waits, and cleared. The engine counts on from what began.
    let mut story = restarting();
    stopped(&mut story);
    assert_eq!(story.count("stop_job"), 1, "what has not begun is not stopped: a person may have begun it");
    story.job("train", 2, &["n1"]);
    assert_eq!(story.job_state("train"), JobState::Running);
    story.ends("train", 2, 0, code(1));
    assert_ne!(story.job_state("train"), JobState::Running, "its failure is looked into");
    assert_eq!(story.state("n1"), NodeState::Checking);

    // There was no room for a day.
    let mut story = restarting();
    story.wait(SignedDuration::from_hours(25));
    story.stops("train", 2);
    assert_eq!(story.job_state("train"), JobState::Failed);
    story.job("train", 2, &["n1"]);
    assert_eq!(story.job_state("train"), JobState::Running);
}

#[test]
fn a_job_whose_end_was_never_told_holds_its_node_until_somebody_asks() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    let mut signal = story.signal("n0", SignalKind::Xid { code: 79 }, Advice::Reboot);
    signal.gpu = Some("n0/1".to_owned());
    story.tell(Input::Signal(signal));
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Draining, "it is said to run there");
    // What was known when it was asked is not so any more.
    story.tell(Input::JobOver { job: "train".to_owned(), attempt: 2 });
    assert_eq!(story.state("n0"), NodeState::Draining);
    story.tell(Input::JobOver { job: "train".to_owned(), attempt: 1 });
    assert!(story.r.job("train").is_none());
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });
    assert_eq!((story.count("restart_job"), story.count("fail_job"), story.count("stop_job")), (0, 0, 0));
}

#[test]
fn an_error_of_the_application_explains_a_failure_that_follows_it_and_none_days_later() {
    let check = |later: SignedDuration| {
        let mut story = Story::new(1);
        story.job("train", 1, &["n0"]);
        story.xid("n0", 31, Advice::RestartApp);
        story.wait(later);
        story.ends("train", 1, 0, code(1));
        story.count("check")
    };
    assert_eq!((check(secs(60)), check(SignedDuration::from_mins(11))), (0, 1));
}

#[test]
fn what_a_job_has_drawn_on_counts_on_when_it_makes_room_for_another() {
    let after = |end: fn(&mut Story)| {
        let mut story = Story::new(1);
        let spec = JobSpec { infrastructure_restarts: 1, ..JobSpec::default() };
        story.job_of("train", 1, &["n0"], spec.clone());
        story.ends("train", 1, 0, Exit::start_failed("no image"));
        story.job_of("train", 2, &["n0"], spec.clone());
        end(&mut story);
        story.job_of("train", 3, &["n0"], spec);
        story.ends("train", 3, 0, Exit::start_failed("no image"));
        story.job_state("train")
    };
    assert_eq!(after(|story| story.ends("train", 2, 0, Exit::Cancelled)), JobState::Failed, "preempted");
    assert_eq!(after(|_| {}), JobState::Failed, "nobody has said why");
    let person = |story: &mut Story| {
        story.tell(Input::UserStop { job: "train".to_owned(), by: "ann".to_owned() });
    };
    assert_eq!(after(person), JobState::Restarting, "a person begins it anew");
}

#[test]
fn a_job_for_which_there_is_no_room_fails_when_its_restart_is_taken_back_and_not_before() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    story.wait(SignedDuration::from_hours(24));
    assert_eq!((story.job_state("train"), story.count("fail_job")), (JobState::Stopping, 0));
    let Act::StopJob { attempt, why, .. } = story.open("stop_job").unwrap().act else { panic!() };
    assert_eq!((attempt, why), (2, StopWhy::RollBack));
    story.stops("train", 2);
    assert_eq!((story.job_state("train"), story.count("fail_job")), (JobState::Failed, 1));
    assert!(story.notices(NoticeKind::JobFailed)[0].text.contains("no room"));
}

#[test]
fn a_gang_of_which_one_node_is_only_watched_is_answered_when_all_of_it_has_ended() {
    let mut story = Story::new(1);
    story.node("n1", |facts| facts.mode = Some(Mode::Observe));
    story.job("train", 1, &["n0", "n1"]);
    let end = |rank, exit| {
        let (job, message) = ("train".to_owned(), String::new());
        Input::RankEnded { job, attempt: 1, rank, exit, message }
    };
    let changes = story.r.apply(end(1, code(1)), story.now);
    assert_eq!(answers(&changes.effects), [(1, true)], "the first that failed is on a node that recovery leaves alone");
    // That was said while the other one ran, and is answered by nobody yet.
    assert_eq!(answers(&story.tell(end(0, Exit::Cancelled))), [(1, true)]);

    // The last of it ends well, which makes nothing of it well.
    let mut story = Story::new(1);
    story.node("n1", |facts| facts.mode = Some(Mode::Observe));
    story.job("train", 1, &["n0", "n1"]);
    story.ends("train", 1, 1, code(1));
    assert_eq!(answers(&story.tell(end(0, code(0)))), [(1, true)]);
}

#[test]
fn a_job_that_hangs_on_a_node_that_is_out_of_service_is_ended() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    let mut signal = story.signal("n0", SignalKind::Xid { code: 142 }, Advice::ContactSupport);
    signal.gpu = Some("n0/1".to_owned());
    story.tell(Input::Signal(signal));
    assert_eq!((story.state("n0"), story.job_state("train")), (NodeState::OutOfService, JobState::Running));
    let mut signal = story.signal("n0", SignalKind::Silence, Advice::Check);
    signal.job = Some(JobRef { job: "train".to_owned(), attempt: 1 });
    story.tell(Input::Signal(signal));
    assert_eq!((story.state("n0"), story.job_state("train")), (NodeState::OutOfService, JobState::Stopping));
}

#[test]
fn a_job_that_was_given_up_and_is_over_frees_its_node_and_stays_known() {
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.wait(secs(300));
    assert_eq!((story.job_state("train"), story.state("n0")), (JobState::Failed, NodeState::Draining));
    story.drained();
    assert_eq!(story.state("n0"), NodeState::Draining, "something of it may still run");
    story.tell(Input::JobOver { job: "train".to_owned(), attempt: 1 });
    assert_eq!(story.job_state("train"), JobState::Failed);
    assert_eq!(story.state("n0"), NodeState::Remediating { rung: Rung::Reboot });

    // One that is ordered to begin anew is not dropped: the order is answered.
    let mut story = Story::new(1);
    story.job("train", 1, &["n0"]);
    story.xid("n0", 79, Advice::Reboot);
    story.stops("train", 1);
    story.tell(Input::JobOver { job: "train".to_owned(), attempt: 2 });
    assert_eq!(story.job_state("train"), JobState::Restarting);
}

#[test]
fn how_a_rank_ended_is_said_once() {
    for (message, told) in [
        ("", "train: rank 0 on n0: exit code 1"),
        ("exit code 1", "train: rank 0 on n0: exit code 1"),
        ("Traceback\nKeyError: 'x'\n", "train: rank 0 on n0: exit code 1: KeyError: 'x'"),
    ] {
        let mut story = Story::new(1);
        story.job("train", 1, &["n0"]);
        let (exit, message) = (Exit::Code { code: 1 }, message.to_owned());
        story.tell(Input::RankEnded { job: "train".to_owned(), attempt: 1, rank: 0, exit, message });
        assert_eq!(story.incident("n0").trail[0].why, told);
    }
}

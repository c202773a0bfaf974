//! What is written down of a job: each attempt by its number, and lists as lists.

use super::*;

#[test]
fn weakness_17_a_verdict_is_of_the_attempt_that_failed_and_changes_no_other() {
    let spec = JobSpec { application_restarts: 3, ..JobSpec::default() };
    let mut story = Story::new(3);
    let classes = |story: &Story| -> Vec<(u32, Class)> {
        let restarts = &story.r.job("train").unwrap().restarts;
        restarts.iter().map(|restart| (restart.attempt, restart.class)).collect()
    };
    story.job_of("train", 1, &["n0"], spec.clone());
    story.ends("train", 1, 0, Exit::start_failed("no image"));
    story.job_of("train", 2, &["n1"], spec.clone());
    story.ends("train", 2, 0, code(1));
    story.job_of("train", 3, &["n2"], spec);
    assert_eq!(classes(&story), [(2, Class::Infrastructure), (3, Class::Unknown)]);
    // The check of the second attempt's node, which says nothing of the first.
    story.check(CheckOutcome::Pass);
    assert_eq!(classes(&story), [(2, Class::Infrastructure), (3, Class::Application)]);
    story.ends("train", 3, 0, code(1));
    story.check(CheckOutcome::Fail { gpus: vec!["n2/0".to_owned()], advice: Advice::Reboot });
    let expected = [(2, Class::Infrastructure), (3, Class::Application), (4, Class::Infrastructure)];
    assert_eq!(classes(&story), expected);
}

#[test]
fn weakness_18_the_members_of_a_job_and_their_gpus_are_lists_in_its_row() {
    let mut story = Story::new(2);
    let place = |node: &str| Place { node: node.to_owned(), gpus: vec![format!("{node}/0"), format!("{node}/1")] };
    let ranks = vec![place("n0"), place("n1")];
    let (job, spec) = ("train".to_owned(), JobSpec::default());
    story.tell(Input::JobStarted { job, attempt: 1, ranks: ranks.clone(), spec });
    let row = story.r.job("train").unwrap();
    let written = serde_json::to_value(row).unwrap();
    assert_eq!(written["ranks"][1]["gpus"], serde_json::json!(["n1/0", "n1/1"]));
    let read: JobRecord = serde_json::from_value(written).unwrap();
    assert_eq!(read, *row);
    assert_eq!(read.ranks.into_iter().map(|rank| rank.place).collect::<Vec<_>>(), ranks);
}

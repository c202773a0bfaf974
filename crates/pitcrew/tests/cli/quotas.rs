//! Quotas on the command line, without any server.

use serde_json::json;

use crate::harness::Place;

#[test]
fn quotas_are_set_changed_shown_and_deleted() {
    let place = Place::new();
    place.run("quotas set ml --gpus 7.5 --memory 256Gi --cohort research --borrow-gpus 2 --weight 3").ends(0);
    place.run("quotas set ml --cpu 64 --memory none").ends(0);
    place.run("quotas set ci --gpus 0").ends(0);
    let shown = place.run("quotas show ml --output json").ends(0).json();
    assert_eq!(
        (&shown["limits"], &shown["borrow"], &shown["cohort"], &shown["weight"]),
        (&json!({ "gpus": 7.5, "cpu": 64 }), &json!({ "gpus": 2 }), &json!("research"), &json!(3))
    );
    let listed = place.run("quotas list").ends(0).stdout;
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["ci", "0", "-", "-", "-", "1", "0"]);
    assert_eq!(lines[2], ["ml", "7.5", "64", "-", "research", "3", "0"]);
    place.run("quotas delete ci").ends(0);
    for (line, what) in [
        ("quotas show ci", "the namespace `ci` has no quota"),
        ("quotas delete ci", "`pitcrew quotas list` shows all of them"),
        ("quotas set ml", "say what the quota is"),
        ("quotas set ml --gpus many", "`many` is no amount"),
        ("quotas set ml --cohort none", "only a quota with a `cohort` can borrow"),
        ("quotas set ml --weight 0", "from 1 to 1000"),
        ("quotas set a/b --gpus 1", "`a/b` is not an id"),
    ] {
        let ran = place.run(line).ends(2);
        assert!(ran.stderr.contains(what), "{line}: {ran}");
    }
}

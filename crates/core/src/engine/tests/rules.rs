//! Trigger rules over real graphs, `when`, and how early an answer comes.

use insta::assert_snapshot;

use super::*;
use crate::trigger_rule::TriggerRule;

/// Lets `x` and `y` end as the letters say (Success, Failed, sKipped, Upstream failed), and tells what became of `d`
/// after the first and after the second: Runs, sKipped, Upstream failed, or `.` for still waiting.
fn story(rule: TriggerRule, ends: &str) -> String {
    let mut w = World::of(&format!("p\n q\n x <- p\n y <- q\n d <- x, y : {}", rule.name()));
    let mut told = String::new();
    for ((task, before), end) in [("x", "p"), ("y", "q")].into_iter().zip(ends.chars()) {
        w.end(before, if end == 'U' { failed() } else { ok() });
        match end {
            'S' => w.end(task, ok()),
            'F' => w.end(task, failed()),
            'K' => w.end(task, skipped()),
            _ => {}
        }
        told.push(match w.state("d") {
            "none" => '.',
            "queued" => 'R',
            "skipped" => 'K',
            "upstream_failed" => 'U',
            other => panic!("d is {other}"),
        });
    }
    told
}

#[test]
fn the_thirteen_rules_decide_as_early_as_they_can() {
    const ENDS: [&str; 10] = ["SS", "SF", "FS", "SK", "KS", "FF", "FK", "KK", "US", "UU"];
    let mut table = format!("{:28}{}\n", "", ENDS.join(" "));
    for rule in TriggerRule::ALL {
        let row: Vec<String> = ENDS.iter().map(|ends| story(rule, ends)).collect();
        table.push_str(&format!("{:28}{}\n", rule.name(), row.join(" ")));
    }
    assert_snapshot!(table, @"
                                SS SF FS SK KS FF FK KK US UU
    all_success                 .R .U UU .K KK UU UU KK UU UU
    all_failed                  KK KK .K KK KK .R .K KK .K .R
    all_done                    .R .R .R .R .R .R .R .R .R .R
    all_done_min_one_success    .R .R .R .K KK .U .K KK .R .U
    all_done_setup_success      .R .R .R .R .R .R .R .R .R .R
    all_skipped                 KK KK KK KK .K KK KK .R KK KK
    one_success                 RR RR .R RR .R .U .U .K .R .U
    one_failed                  .K .R RR .K .K RR RR .K RR RR
    one_done                    RR RR RR RR .R RR RR .K .R .K
    none_failed                 .R .U UU .R .R UU UU .R UU UU
    none_failed_min_one_success .R .U UU .R .R UU UU .K UU UU
    none_skipped                .R .R .R .K KK .R .K KK .R .R
    always                      RR RR RR RR RR RR RR RR RR RR
    ");
}

#[test]
fn a_false_when_skips_and_a_bad_one_fails() {
    let text = "a : when\n b <- a\n c <- a : none_failed";
    let mut w = World::new(text).when("a", Ok(false)).begun();
    assert_eq!(w.states(), "a skipped, b skipped, c queued");
    assert_eq!(w.message("a"), "`when` is false");
    w.end("c", ok());
    assert_eq!(w.run_state(), "success");

    let w = World::new(text).when("a", Err("`params.x` is not defined")).begun();
    assert_eq!(w.states(), "a failed, b upstream_failed, c upstream_failed");
    assert_eq!(w.message("a"), "`params.x` is not defined");
}

#[test]
fn the_members_of_a_gang_do_what_the_first_one_was_told() {
    for (answer, is_skipped) in [(Ok(true), false), (Ok(false), true)] {
        let mut w = World::new("a : when gang=3").when("a", answer);
        w.begin();
        for member in ["a[0]", "a[1]", "a[2]"] {
            assert_eq!(w.state(member) == "skipped", is_skipped, "{}", w.states());
        }
        assert_eq!(w.script.asked.get(), 1);
    }
}

#[test]
fn when_is_asked_only_once_its_rule_is_met() {
    let mut w = World::new("a\n b <- a : when").when("b", Err("too early")).begun();
    assert_eq!(w.state("b"), "none");
    w.end("a", failed());
    assert_eq!(w.state("b"), "upstream_failed");
}

#[test]
fn depends_on_past_waits_for_the_run_before() {
    let mut w = World::of("a : past\n b <- a");
    assert_eq!(
        (w.states().as_str(), w.why("a").as_str()),
        ("a none, b none", "waits for the same task of the previous run (`depends_on_past`)")
    );
    w.past("a", false);
    assert_eq!(w.state("a"), "none");
    w.past("a", true);
    assert_eq!(w.state("a"), "queued");

    // The run before may be cleared while this one still waits for its place.
    let mut w = World::of("workflow : max_active_tasks=1\n a\n b : past");
    w.past("b", true);
    assert_eq!(w.state("b"), "scheduled");
    w.past("b", false);
    assert_eq!(w.state("b"), "none");

    // What failed upstream needs no past.
    let mut w = World::of("a\n b <- a : past");
    w.end("a", failed());
    assert_eq!(w.state("b"), "upstream_failed");
}

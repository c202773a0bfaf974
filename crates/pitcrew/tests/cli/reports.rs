//! Reports of real runs, one after the other: what the engine hands to them, and what they know of each other.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::Place;

const WORKFLOW: &str = r#"
workflow: trend
params:
  repo: {type: string}
  broken: {type: boolean, default: false}
workspaces: [source]
tasks:
  checkout: {uses: git.checkout, with: {url: "{{ params.repo }}", into: source}}
  test:
    needs: [checkout]
    retries: 1
    retry_delay: 0s
    env: {BROKEN: "{{ params.broken }}"}
    run: |
      mkdir -p results
      if [ "$BROKEN" = true ] || [ "$BROKEN" = True ]; then inner='<failure message="assert 1 == 2"/>'; code=1; else inner=''; code=0; fi
      printf '<testsuite><testcase classname="t" name="one" time="0.5">%s</testcase></testsuite>' "$inner" > results/junit.xml
      echo "ends with $code"
      exit $code
  # Fails the run with the test; the report alone would end it well.
  gate: {needs: [test], run: "true"}
  report:
    needs: [test]
    trigger_rule: all_done
    uses: report
    with: {junit: results/junit.xml, files: [results/junit.xml]}
"#;

fn repository(dir: &Path) {
    fs::create_dir(dir).unwrap();
    fs::write(dir.join("README"), "a repository\n").unwrap();
    for line in ["init -q -b trunk", "add .", "-c user.name=A -c user.email=a@example.org commit -q -m First"] {
        let status = Command::new("git")
            .args(line.split(' '))
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .status();
        assert!(status.unwrap().success(), "git {line}");
    }
}

fn report(place: &Place, run: &str) -> Value {
    let found = place.run(&format!("report {run} --output json")).ends(0).json();
    serde_json::from_slice(&fs::read(found[0]["json"].as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_report_knows_every_attempt_the_runs_before_and_the_main_branch() {
    let place = Place::new();
    let file = place.file("trend.yaml", WORKFLOW).display().to_string();
    let repo = place.path("repo");
    repository(&repo);
    let run = |broken: bool, status| {
        place.run(&format!("run {file} -p repo={} -p broken={broken}", repo.display())).ends(status)
    };
    run(false, 0);
    run(true, 1);
    run(true, 1);

    let first = report(&place, "1");
    assert_eq!((&first["version"], &first["trends"]), (&2.into(), &Value::Null));
    let last = report(&place, "3");
    let test = last["tasks"].as_array().unwrap().iter().find(|task| task["id"] == "test").unwrap();
    let exits: Vec<&str> = test["attempts"].as_array().unwrap().iter().map(|a| a["exit"].as_str().unwrap()).collect();
    assert_eq!(exits, ["exit code 1", "exit code 1"], "every attempt, not only the newest");
    assert!(test["attempts"][0]["usage"]["wall_seconds"].is_number(), "each with what it used");
    assert_eq!(last["trends"]["still_failing"]["first"][0]["outcomes"], "pff");
    assert_eq!(last["trends"]["flaky"]["total"], 1, "it passed and failed on one commit");
    let with: Vec<String> = last["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|other| format!("{} {} {}", other["with"], other["run"]["key"], other["run"]["state"]))
        .collect();
    assert_eq!(
        with,
        ["\"previous\" 2 \"failed\"", "\"main\" 1 \"success\""],
        "`trunk` is what the repository begins with"
    );
    let sentence = last["summary"]["sentences"][0].as_str().unwrap();
    assert!(sentence.starts_with("`test` failed first after") && sentence.contains("ends with 1"), "{sentence}");

    // A record that was damaged since costs its own line, and nothing else.
    let found = place.run("report 1 --output json").ends(0).json();
    fs::write(found[0]["json"].as_str().unwrap(), "{").unwrap();
    run(false, 0);
    let after = report(&place, "trend");
    assert_eq!(after["trends"]["fixed"]["first"][0]["outcomes"], "ffp");
    assert_eq!(after["comparisons"].as_array().unwrap().len(), 1);
}

#[test]
fn the_digest_sums_up_what_ran() {
    let place = Place::new();
    let empty = place.run("report digest").ends(0);
    assert!(empty.stdout.contains(": 0 runs\n"), "{empty}");
    let file = place.file(
        "w.yaml",
        "workflow: w\nparams: {code: {type: integer}}\ntasks:\n  a: {run: \"exit {{ params.code }}\"}\n",
    );
    for code in [0, 1, 0, 0] {
        place.run(&format!("run {} -p code={code}", file.display())).ends(code);
    }
    let digest = place.run("report digest --since 1h --output json").ends(0).json();
    assert_eq!((&digest["now"]["runs"], &digest["now"]["success_percent"]), (&4.into(), &75.0.into()));
    assert_eq!(digest["before"]["runs"], 0);
    assert_eq!((&digest["failures"][0]["workflow"], &digest["failures"][0]["failed"]), (&"w".into(), &1.into()));
    assert_eq!(digest["slowest"].as_array().unwrap().len(), 3, "of successful runs");
    let text = place.run("report digest").ends(0).stdout;
    assert!(text.contains("Success rate   75.0 %") && text.contains("w: 1 of 4 runs (before: 0)"), "{text}");
    let page = place.run("report digest --output html").ends(0).stdout;
    assert!(page.starts_with("<!doctype html>") && page.contains("Failures by workflow") && !page.contains("<script"));

    for (line, words) in [
        ("report 999", "there is no run"),
        ("report 1", "run 1 has no report"),
        ("report digest --since soon", "is no stretch of time"),
    ] {
        let refused = place.run(line).ends(2);
        assert!(refused.stderr.contains(words) && refused.stderr.contains("hint:"), "{refused}");
    }
}

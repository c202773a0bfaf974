//! Reports of one run after another: what earlier ones tell the next, and what they cannot do to it.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::report::{
    AttemptInput, CommitInput, Earlier, FileInput, History, PastRun, Report, ReportInput, RunInput, SCHEMA, TaskInput,
    collect, read_history, to_html, to_pdf, write,
};
use serde_json::{Value, json};

fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-03-01T02:00:00Z".parse().unwrap();
    start + SignedDuration::from_secs(seconds)
}

/// What one run does.
#[derive(Clone, Copy)]
struct Did<'a> {
    commit: &'a str,
    branch: &'a str,
    /// Name, and `p`, `f`, `e` or `s`.
    tests: &'a [(&'a str, char)],
    /// Lines of ten that tests reach.
    reached: usize,
    seconds: i64,
}

const GOOD: Did<'_> =
    Did { commit: "a", branch: "main", tests: &[("one", 'p'), ("two", 'p')], reached: 8, seconds: 60 };

/// A workflow whose runs leave reports, one after the other.
struct Runs {
    dir: tempfile::TempDir,
    done: Vec<(PastRun, PathBuf)>,
}

impl Runs {
    fn new() -> Runs {
        Runs { dir: tempfile::tempdir().unwrap(), done: Vec::new() }
    }

    fn history(&self) -> History {
        let newest_first = self.done.iter().rev().map(|(run, report)| Earlier { run: run.clone(), report });
        read_history(&newest_first.collect::<Vec<_>>())
    }

    fn input(&self, did: &Did<'_>) -> (ReportInput, PathBuf) {
        let key = self.done.len() as i64 + 1;
        let root = self.dir.path().join(key.to_string());
        fs::create_dir_all(&root).unwrap();
        let case = |(name, outcome): &(&str, char)| {
            let inner = match outcome {
                'f' => "<failure message='assert 1 == 2'>the whole story</failure>",
                'e' => "<error message='no fixture'/>",
                's' => "<skipped message='no GPU'/>",
                _ => "",
            };
            let seconds = if *outcome == 'p' { did.seconds as f64 / 100.0 } else { 0.1 };
            format!("<testcase classname='t' name='{name}' time='{seconds}'>{inner}</testcase>")
        };
        let cases: String = did.tests.iter().map(case).collect();
        fs::write(root.join("junit.xml"), format!("<testsuite>{cases}</testsuite>")).unwrap();
        let line = |n: usize| format!("<line number='{n}' hits='{}'/>", u8::from(n <= did.reached));
        let lines: String = (1..=10).map(line).collect();
        let class = format!("<coverage><class filename='a.py'><lines>{lines}</lines></class></coverage>");
        fs::write(root.join("coverage.xml"), class).unwrap();
        let failed = did.tests.iter().any(|(_, outcome)| matches!(outcome, 'f' | 'e'));
        let start = at(key * 1000);
        let attempt = |number, from: i64, until: i64, success: bool| AttemptInput {
            number,
            start: Some(start + SignedDuration::from_secs(from)),
            end: Some(start + SignedDuration::from_secs(until)),
            exit: if success { "exit code 0" } else { "exit code 1" }.into(),
            success,
            message: if success { "" } else { "collected 2 items\nassert 1 == 2\nexit code 1" }.into(),
            usage: None,
        };
        let attempts = vec![attempt(1, 1, 5, false), attempt(2, 6, did.seconds, !failed)];
        let input = ReportInput {
            run: RunInput {
                workflow: "w".into(),
                key: Some(key),
                run_id: format!("r{key}"),
                run_type: "scheduled".into(),
                triggered_by: "schedule".into(),
                state: "running".into(),
                start: Some(start),
                commit: Some(CommitInput {
                    commit: did.commit.repeat(40),
                    branch: Some(did.branch.into()),
                    default_branch: Some("main".into()),
                    ..CommitInput::default()
                }),
                ..RunInput::default()
            },
            tasks: vec![TaskInput {
                id: "test".into(),
                state: if failed { "failed" } else { "success" }.into(),
                attempts,
                outputs: json!({"rows": did.reached}).as_object().unwrap().clone(),
                ..TaskInput::default()
            }],
            junit: vec!["junit.xml".into()],
            coverage: vec!["coverage.xml".into()],
            files: vec![FileInput { name: "data.csv".into(), sha256: Some(did.commit.into()), ..FileInput::default() }],
            history: self.history(),
            ..ReportInput::default()
        };
        (input, root)
    }

    /// A run of which only the JSON is made, without a look at the past: quick.
    fn leave(&mut self, did: Did<'_>) {
        let past = std::mem::take(&mut self.done);
        let key = past.len() as i64 + 1;
        let (mut input, root) = self.input(&did);
        input.run.key = Some(key);
        let report = self.dir.path().join(format!("{key}.json"));
        fs::write(&report, serde_json::to_vec(&collect(&input, &root, at(key * 1000))).unwrap()).unwrap();
        let run = PastRun { key: Some(key), run_id: format!("r{key}"), state: "success".into(), ..PastRun::default() };
        self.done = past;
        self.done.push((run, report));
    }

    /// A run from its start to its end; its report.
    fn run(&mut self, did: Did<'_>) -> Report {
        let (input, root) = self.input(&did);
        let start = input.run.start.unwrap();
        let (report, written) = write(&input, &root, &root, start + SignedDuration::from_secs(did.seconds)).unwrap();
        let state = if input.tasks[0].state == "failed" { "failed" } else { "success" };
        let past = PastRun {
            key: input.run.key,
            run_id: input.run.run_id,
            state: state.into(),
            start: Some(start),
            seconds: Some(did.seconds as f64),
            ..PastRun::default()
        };
        self.done.push((past, written.json));
        report
    }
}

fn names(list: &pitcrew_exec::report::List<pitcrew_exec::report::TestTrend>) -> Vec<(&str, &str)> {
    list.first.iter().map(|trend| (trend.test.as_str(), trend.outcomes.as_str())).collect()
}

#[test]
fn new_failures_fixes_and_flaky_tests_are_told_from_the_runs_before() {
    let mut runs = Runs::new();
    let first = runs.run(GOOD);
    assert!(first.trends.is_none() && first.comparisons.is_empty(), "one run is no trend");
    runs.run(Did { tests: &[("one", 'p'), ("two", 'f'), ("odd", 'f')], ..GOOD });
    let tests = [("one", 'f'), ("two", 'p'), ("odd", 'p'), ("new", 'e'), ("off", 's')];
    let third = runs.run(Did { commit: "b", branch: "topic", tests: &tests, reached: 6, seconds: 90 });

    let trends = third.trends.as_ref().unwrap();
    assert_eq!(trends.runs.iter().map(|run| run.key.unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(trends.runs[1].tests.unwrap().failed, 2);
    assert_eq!(names(&trends.new_failures), [("t::new", "--e"), ("t::one", "ppf")]);
    assert_eq!(names(&trends.fixed), [("t::odd", "-fp"), ("t::two", "pfp")]);
    assert_eq!(names(&trends.flaky), [("t::two", "pfp")], "it passed and failed on commit `a`");
    assert!(trends.still_failing.first.is_empty());
    assert_eq!(third.summary.verdict, "failed");
    assert_eq!(
        third.summary.sentences,
        [
            "`test` failed first after 1 min 30 s, in attempt 2: exit code 1, assert 1 == 2.",
            "1 of 1 task failed.",
            "2 of 5 tests failed, 1 skipped: 2 new, 2 fixed, 1 flaky.",
            "Coverage fell by 20.0 points to 60.0 % since run 2.",
            "It took 1 min 30 s, 30 s longer than run 2.",
        ]
    );
    let fourth = runs.run(Did { tests: &tests, ..GOOD });
    assert_eq!(names(&fourth.trends.as_ref().unwrap().still_failing), [("t::new", "--ee"), ("t::one", "ppff")]);
}

#[test]
fn a_run_is_compared_with_the_one_before_and_with_the_main_branch() {
    let mut runs = Runs::new();
    runs.run(GOOD);
    runs.run(Did { commit: "b", branch: "topic", tests: &[("one", 'f'), ("gone", 'p')], ..GOOD });
    let report =
        runs.run(Did { commit: "c", branch: "topic", tests: &[("one", 'p'), ("two", 'f')], reached: 9, seconds: 40 });
    let [previous, main] = &report.comparisons[..] else { panic!("{:?}", report.comparisons) };
    assert_eq!((previous.with.as_str(), previous.run.key), ("previous", Some(2)));
    assert_eq!((main.with.as_str(), main.run.key), ("main", Some(1)));
    assert_eq!(main.run.commit.as_ref().unwrap().branch.as_deref(), Some("main"));
    assert_eq!(
        (&previous.fixed.first[..], &previous.added.first[..]),
        (&["t::one".into()][..], &["t::two".into()][..])
    );
    assert_eq!(previous.removed.first, ["t::gone"]);
    assert_eq!(main.broken.first, ["t::two"]);
    assert!((main.coverage.unwrap() - 10.0).abs() < 1e-9 && main.seconds == Some(-20.0));
    assert_eq!((main.outputs.first[0].before.as_deref(), main.outputs.first[0].now.as_str()), (Some("8"), "9"));
    assert_eq!(main.files[0].name, "data.csv");
    let page = to_html(&report);
    for part in ["Compared with the run before", "Compared with the main branch", "t::gone", "+10.0 points"] {
        assert!(page.contains(part), "{part}");
    }

    // The main branch broke: the good run before it still stands for it.
    runs.run(Did { commit: "d", tests: &[("one", 'f')], ..GOOD });
    let report = runs.run(Did { commit: "e", branch: "topic", ..GOOD });
    assert_eq!(report.comparisons.iter().map(|c| c.run.key.unwrap()).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn history_that_is_damaged_missing_huge_or_hostile_makes_no_difference_but_a_shorter_past() {
    let mut runs = Runs::new();
    for commit in ["a", "b", "c", "d"] {
        runs.run(Did { commit, ..GOOD });
    }
    fs::write(&runs.done[0].1, "{\"tests\": {\"cases\": [{\"name\": ").unwrap();
    fs::remove_file(&runs.done[1].1).unwrap();
    fs::write(&runs.done[2].1, format!("{{\"tests\": {}", "[".repeat(100_000))).unwrap();
    let report = runs.run(GOOD);
    let kept: Vec<i64> = report.trends.as_ref().unwrap().runs.iter().map(|run| run.key.unwrap()).collect();
    assert_eq!(kept, [4, 5]);
    for odd in ["[]", "{}", "null", "{\"version\": 99, \"tests\": null, \"later\": {}}"] {
        fs::write(&runs.done[3].1, odd).unwrap();
        assert!(to_html(&runs.run(GOOD)).contains("</html>"), "{odd}");
    }

    let evil = "<script>alert(1)</script>";
    let hostile = json!({
        "tests": {"total": 1, "failed": 1, "cases": [{"name": evil, "class": "", "outcome": "failed", "seconds": 1e308}]},
        "run": {"commit": {"commit": evil, "branch": evil}},
        "tasks": [{"id": evil, "state": "success", "outputs": {evil: evil}}],
        "coverage": {"percent": -1e300, "files": [{"path": "a.py", "percent": 1e300}]},
        "files": [{"name": evil, "sha256": "x"}],
    });
    let last = runs.done.last_mut().unwrap();
    fs::write(&last.1, hostile.to_string()).unwrap();
    last.0.run_id = evil.into();
    last.0.key = None;
    let report = runs.run(Did { tests: &[("one", 'f')], ..GOOD });
    let page = to_html(&report);
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(to_pdf(&report).starts_with(b"%PDF"));
}

#[test]
fn ten_thousand_tests_over_twenty_runs_stay_bounded() {
    let mut runs = Runs::new();
    let names: Vec<String> = (0..10_000).map(|i| format!("test_number_{i}")).collect();
    let outcome =
        |run: usize, i: usize| if (i + run).is_multiple_of(if i < 3000 { 2 } else { 5000 }) { 'f' } else { 'p' };
    let tests = |run: usize| -> Vec<(&str, char)> {
        names.iter().enumerate().map(|(i, name)| (name.as_str(), outcome(run, i))).collect()
    };
    for run in 0..22 {
        runs.leave(Did { tests: &tests(run), ..GOOD });
    }
    let report = runs.run(Did { tests: &tests(22), ..GOOD });
    let trends = report.trends.as_ref().unwrap();
    assert_eq!(trends.runs.len(), 21, "twenty before, and this one");
    assert!(trends.flaky.total >= 3000 && trends.flaky.first.len() == 500);
    let facts = serde_json::to_vec(&runs.history()).unwrap();
    assert!(facts.len() < 4 << 20, "{} bytes travel to the action", facts.len());
    let page = to_html(&report);
    assert!(page.len() < 4 << 20, "{} bytes", page.len());
    assert!(page.contains("more tests are in <code>report.json</code>"));
    assert!(to_pdf(&report).len() < 2 << 20);
}

#[test]
fn reports_of_the_first_version_are_still_history() {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/report-v1.json");
    let run = PastRun { key: Some(1), state: "success".into(), ..PastRun::default() };
    let history = read_history(&[Earlier { run, report: &old }]);
    assert_eq!(history.runs[0].tests.unwrap().passed, 2);
    assert_eq!(history.tests.len(), 2);
    let main = history.main.expect("`main` is the main branch where the repository does not say");
    assert!(main.tasks.contains_key("checkout") && main.run.coverage.is_some());
}

/// The shape that `docs/reports.md` promises: every report fits the schema, and a small one is looked at whole.
#[test]
fn the_json_has_the_documented_shape() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let check = |report: &Report| {
        let json = serde_json::to_value(report).unwrap();
        let errors: Vec<String> = validator.iter_errors(&json).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, Vec::<String>::new());
        json
    };
    let mut runs = Runs::new();
    check(&collect(&ReportInput::default(), runs.dir.path(), at(0)));
    runs.run(GOOD);
    let report =
        runs.run(Did { commit: "b", branch: "topic", tests: &[("one", 'f'), ("three", 'p')], reached: 7, seconds: 80 });
    insta::assert_json_snapshot!("report", check(&report));
}

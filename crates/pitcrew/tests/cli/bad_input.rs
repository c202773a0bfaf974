//! What is wrong is refused before anything runs, with its place and what was probably meant.

use crate::harness::Place;
use crate::snapshot;

/// Name of the case, the arguments after the file, the file.
const CASES: [(&str, &str, &str); 17] = [
    ("unknown-key", "", "workflow: w\ntasks:\n  a:\n    rum: echo hi\n"),
    ("wrong-type", "", "workflow: w\ntasks:\n  a: {run: 'true', retries: many}\n"),
    ("no-tasks", "", "workflow: w\ntasks: {}\n"),
    ("empty", "", ""),
    (
        "cycle",
        "",
        "workflow: w\ntasks:\n  a: {needs: [c], run: 'true'}\n  b: {needs: [a], run: 'true'}\n  c: {needs: [b], run: 'true'}\n",
    ),
    ("unknown-task", "", "workflow: w\ntasks:\n  build: {run: 'true'}\n  test: {needs: [biuld], run: 'true'}\n"),
    (
        "unknown-name",
        "",
        "workflow: w\nparams: {name: {type: string, default: x}}\ntasks:\n  a: {run: 'echo {{ params.nmae }}'}\n",
    ),
    ("dots", "", "workflow: ../w\ntasks:\n  a: {run: 'true'}\n"),
    ("slash", "", "workflow: w\ntasks:\n  a/b: {run: 'true'}\n"),
    ("twice", "", "workflow: w\ntasks:\n  a: {run: 'true'}\n  a: {run: 'false'}\n"),
    ("not-yaml", "", "workflow: w\ntasks: [a\n"),
    (
        "bomb",
        "",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]\n",
    ),
    ("missing-param", "", "workflow: w\nparams: {name: {type: string}}\ntasks:\n  a: {run: 'true'}\n"),
    (
        "unknown-param",
        "-p nmae=x",
        "workflow: w\nparams: {name: {type: string, default: x}}\ntasks:\n  a: {run: 'true'}\n",
    ),
    ("wrong-param", "-p n=many", "workflow: w\nparams: {n: {type: integer, default: 1}}\ntasks:\n  a: {run: 'true'}\n"),
    ("half-param", "-p n", "workflow: w\nparams: {n: {type: integer, default: 1}}\ntasks:\n  a: {run: 'true'}\n"),
    ("bad-run-id", "--run-id a/../b", "workflow: w\ntasks:\n  a: {run: 'true'}\n"),
];

#[test]
fn a_wrong_workflow_is_refused_before_anything_is_made() {
    let place = Place::new();
    let mut all = String::new();
    for (name, more, source) in CASES {
        place.file(&format!("{name}.yaml"), source);
        let ran = place.run(format!("run {name}.yaml {more}").trim()).ends(2);
        assert!(ran.stdout.is_empty(), "{ran}");
        all.push_str(&format!("{ran}\n"));
    }
    assert!(!place.path("data").exists(), "nothing is made for what is refused");
    snapshot!("refused", all);
}

#[test]
fn what_is_no_workflow_file_is_refused() {
    let place = Place::new();
    let good = "workflow: w\ntasks:\n  a: {run: 'true'}\n";
    place.file("folder/one.yaml", good);
    place.file("nightly.yaml", good);
    place.file("binary.yaml", b"workflow: w\n\xff\xfe\x00".as_slice());
    place.file("two.yaml", format!("{good}---\n{}", good.replace("workflow: w", "workflow: v")));
    place.file("params.json", "[1]");
    let lines = [
        "run nightli.yaml",
        "run folder",
        "run binary.yaml",
        "run two.yaml",
        "run two.yaml --workflow u",
        "run nightly.yaml --params-file missing.json",
        "run nightly.yaml --params-file params.json",
        "run nightly.yaml --data-dir nightly.yaml",
        "run nightly.yaml --data-dir /proc/nowhere",
        "run nightly.yaml --store mysql://u:secret@h/d",
        "graph folder",
    ];
    let all: String = lines.map(|line| format!("{}\n", place.run(line).ends(2))).concat();
    assert!(!all.contains(":secret@h/d --") && !place.path("data").exists());
    snapshot!("files", all);
}

#[test]
fn what_does_not_exist_is_named_with_what_is_near() {
    let place = Place::new();
    place.file("nightly.yaml", "workflow: nightly\ntasks:\n  build: {run: 'true'}\n");
    let empty = place.run("logs latest").ends(2);
    place.run("run nightly.yaml").ends(0);
    let lines = [
        "logs 77",
        "logs nightlyy",
        "logs latest biuld",
        "explain latest build[x]",
        "explain latest build[3]",
        "runs show ../etc",
        "runs cancel latest",
        "runs resume latest",
        "variables get nothing",
        "dags trigger nightly",
        "dags pause daily",
        "pools delete default_pool",
        "pools delete gpu",
    ];
    let all: String = lines.map(|line| format!("{}\n", place.run(line).ends(2))).concat();
    snapshot!("missing", format!("{empty}\n{all}"));
}

#[test]
fn validate_counts_what_is_wrong_in_all_files_and_graph_draws_what_is_right() {
    let place = Place::new();
    place.file("good.yaml", "workflow: good\ntasks:\n  a: {run: 'true'}\n  b: {needs: [a], run: 'true'}\n");
    place.file("bad.yaml", "workflow: bad\ntasks:\n  a: {rum: x, retries: -1}\n");
    let good = place.run("validate good.yaml").ends(0);
    let both = place.run("validate good.yaml bad.yaml absent.yaml").ends(2);
    let json = place.run("validate good.yaml bad.yaml --output json").ends(2).json();
    assert_eq!((&json[0]["valid"], &json[1]["valid"]), (&true.into(), &false.into()));
    assert_eq!(json[1]["problems"][0]["line"], 3);
    let drawn = place.run("graph good.yaml --format mermaid").ends(0);
    snapshot!("validate", format!("{good}\n{both}\n{drawn}"));
    assert!(place.run("graph good.yaml --format svg").ends(0).stdout.starts_with("<svg"));
}

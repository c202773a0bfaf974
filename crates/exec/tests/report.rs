//! Reports from whatever a run may leave: rich, empty, broken, hostile, huge.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::report::{
    AttemptInput, CommitInput, FileInput, GpuInput, History, Outcome, ReportInput, RunInput, TaskInput, UsageInput,
    collect, to_html, to_pdf, write,
};
use serde_json::json;

fn at(seconds: f64) -> Timestamp {
    let start: Timestamp = "2026-03-01T02:00:00Z".parse().unwrap();
    start + SignedDuration::from_millis((seconds * 1000.0) as i64)
}

fn task(id: &str, spans: &[(f64, f64, bool)], cpu: f64, gpu: bool) -> TaskInput {
    let attempts = spans.iter().enumerate().map(|(index, &(start, end, success))| {
        let gpus = gpu.then(|| GpuInput {
            uuid: "GPU-1".into(),
            samples: 40,
            part: None,
            mean_utilization_percent: Some(71.0),
            max_utilization_percent: Some(98.0),
            mean_memory_bytes: Some(9 << 30),
            max_memory_bytes: Some(14 << 30),
            energy_wh: Some(42.5),
        });
        let usage = UsageInput {
            wall_seconds: end - start,
            user_cpu_seconds: (end - start) * cpu,
            system_cpu_seconds: 0.1,
            peak_memory_bytes: Some((cpu * 900e6) as u64 + 9_000_000),
            gpus: gpus.into_iter().collect(),
        };
        AttemptInput {
            number: index as u32 + 1,
            start: Some(at(start)),
            end: Some(at(end)),
            exit: if success { "exit 0" } else { "exit 139" }.into(),
            success,
            message: if success {
                ""
            } else {
                "the kernel was killed by SIGSEGV; a fault in native code, of a library or a driver"
            }
            .into(),
            usage: Some(usage),
        }
    });
    let state = if spans.last().is_some_and(|s| s.2) { "success" } else { "failed" };
    TaskInput { id: id.into(), state: state.into(), attempts: attempts.collect(), ..TaskInput::default() }
}

/// A run with everything in it, and its files in `dir`.
fn rich(dir: &Path) -> ReportInput {
    let cases: String = (0..46)
        .map(|i| match i {
            7 => format!(
                "<testcase classname='tests.test_physics.TestEnergy' name='test_energy_is_conserved[float32-cuda]' time='1.93'>\
                 <failure message='AssertionError: relative drift 3.1e-05 is larger than 1e-06'>def test_energy():\n    drift = \
                 simulate()\n&gt;   assert drift &lt; 1e-6, f'relative drift {{drift}} is larger than 1e-06'\nE   \
                 AssertionError: relative drift 3.1e-05 is larger than 1e-06\n\ntests/test_physics.py:{i}: AssertionError</failure></testcase>"
            ),
            20 | 21 => format!("<testcase classname='tests.test_gpu' name='test_gpu_{i}'><skipped message='no GPU'/></testcase>"),
            _ => format!("<testcase classname='tests.test_shape' name='test_case_{i}' time='{}'/>", 0.01 * f64::from(i * i % 37)),
        })
        .collect();
    fs::write(dir.join("junit.xml"), format!("<testsuites><testsuite name='pytest'>{cases}</testsuite></testsuites>"))
        .unwrap();
    let classes: String =
        [("heat/solver.py", 120, 118), ("heat/__init__.py", 3, 3), ("heat/plot.py", 44, 20), ("heat/io.py", 61, 55)]
            .map(|(path, lines, hit)| {
                let lines: String =
                    (1..=lines).map(|n| format!("<line number='{n}' hits='{}'/>", u8::from(n <= hit))).collect();
                format!("<class filename='{path}'><lines>{lines}</lines></class>")
            })
            .concat();
    fs::write(dir.join("coverage.xml"), format!("<coverage><packages>{classes}</packages></coverage>")).unwrap();
    let sources = [
        "import numpy as np",
        "n = 5000",
        "# Parameters",
        "def step(u, dt):",
        "solve(n)",
        "fig, ax = plt.subplots()",
        "save()",
    ];
    let cells: Vec<_> = sources
        .iter()
        .zip([0.8, 0.01, 0.01, 0.02, 21.4, 2.1, 0.3])
        .enumerate()
        .map(|(i, (source, seconds))| json!({"number": i + 1, "source": source, "state": "ok", "seconds": seconds}))
        .collect();
    let figures = json!({"notebook": "source/analysis.ipynb", "total_seconds": 25.3, "peak_memory_bytes": 1_310_000_000u64, "cells": cells});
    fs::write(dir.join("figures.json"), figures.to_string()).unwrap();
    ReportInput {
        title: Some("GPU notebook CI".into()),
        run: RunInput {
            workflow: "gpu-notebook-ci".into(),
            run_id: "manual__2026-03-01T02:00:00+00:00".into(),
            url: Some("http://127.0.0.1:8080/runs/1".into()),
            params: json!({"repo": "https://example.org/heat.git", "revision": "main", "gpus": 1})
                .as_object()
                .unwrap()
                .clone(),
            state: "running".into(),
            start: Some(at(0.0)),
            end: None,
            triggered_by: "schedule".into(),
            key: Some(21),
            run_type: "scheduled".into(),
            commit: Some(CommitInput {
                default_branch: Some("main".into()),
                commit: "4f2a9c81d07be33e5a6c".into(),
                branch: Some("main".into()),
                author: "Ada Łukasiewicz <ada@example.org>".into(),
                message: "solver: take the implicit step on the GPU".into(),
            }),
            versions: [("pitcrew", "0.1.0"), ("python", "3.12.4")].map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
        },
        tasks: vec![
            task("checkout", &[(0.2, 2.1, true)], 0.3, false),
            task("checkout-tests", &[(0.2, 1.4, true)], 0.2, false),
            task("execute", &[(2.2, 9.0, false), (14.0, 41.0, true)], 1.9, true),
            task("version", &[(2.2, 2.25, true)], 0.9, false),
            task("convert", &[(41.1, 43.7, true)], 0.95, false),
            task("test", &[(41.1, 47.9, false)], 1.1, true),
            TaskInput { id: "publish".into(), state: "upstream_failed".into(), ..TaskInput::default() },
            TaskInput { id: "notify".into(), state: "skipped".into(), ..TaskInput::default() },
        ],
        junit: vec!["junit.xml".into()],
        coverage: vec!["coverage.xml".into()],
        notebooks: vec!["figures.json".into()],
        files: vec![
            FileInput {
                name: "analysis.ipynb".into(),
                url: Some("analysis.ipynb".into()),
                bytes: Some(84_211),
                sha256: Some("b".into()),
            },
            FileInput {
                name: "analysis.html".into(),
                url: Some("analysis.html".into()),
                bytes: Some(402_118),
                ..FileInput::default()
            },
        ],
        versions: None,
        history: History::default(),
    }
}

/// Where to leave a report for a person to look at.
fn show(name: &str, input: &ReportInput, root: &Path) {
    if let Some(out) = std::env::var_os("PITCREW_SHOW_REPORTS") {
        write(input, root, &Path::new(&out).join(name), at(50.0)).unwrap();
    }
}

/// The PDF's own structure holds together: every object is where the table at its end says it is.
fn check_pdf(pdf: &[u8]) -> usize {
    assert!(pdf.starts_with(b"%PDF-1.") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
    let text = String::from_utf8_lossy(pdf);
    let pages = text.matches("/Type /Page\n").count();
    assert!(text.contains(&format!("/Count {pages}")), "the page tree counts its pages");
    let start = pdf.len() - 40;
    let tail = String::from_utf8_lossy(&pdf[start..]);
    let offset: usize = tail.split("startxref\n").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(pdf[offset..].starts_with(b"xref"));
    pages
}

#[test]
fn a_rich_run_becomes_the_same_report_in_three_forms() {
    let dir = tempfile::tempdir().unwrap();
    let input = rich(dir.path());
    show("rich", &input, dir.path());
    let (report, written) = write(&input, dir.path(), &dir.path().join("out"), at(50.0)).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let tests = report.tests.as_ref().unwrap();
    assert_eq!((tests.total, tests.passed, tests.failed, tests.skipped), (46, 43, 1, 2));
    assert_eq!(report.coverage.as_ref().unwrap().covered, 196);
    assert_eq!(report.run_seconds, Some(50.0));

    let json: serde_json::Value = serde_json::from_slice(&fs::read(&written.json).unwrap()).unwrap();
    assert_eq!(json["tests"]["cases"].as_array().unwrap().len(), 46);
    let page = fs::read_to_string(&written.html).unwrap();
    for part in [
        "GPU notebook CI",
        "test_energy_is_conserved[float32-cuda]",
        "relative drift",
        "heat/solver.py",
        "4f2a9c81d07b",
        "71 %",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(page.matches("<svg ").count(), 2 * 6, "six charts, each for wide and narrow screens");
    assert!(
        !page.contains("<script")
            && !page.contains("http-equiv")
            && !page.contains("@import")
            && !page.replace("src=\"data:image/", "").contains("src=")
    );
    let pages = check_pdf(&fs::read(&written.pdf).unwrap());
    assert!((2..=5).contains(&pages), "{pages} pages");
    let left: Vec<_> = fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn nothing_that_a_run_leaves_can_prevent_its_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        name.into()
    };
    let input = ReportInput {
        junit: vec![
            file("cut.xml", "<testsuite><testcase name='only'/><testcase name='c'><error>"),
            file("empty.xml", ""),
            "gone.xml".into(),
        ],
        coverage: vec![file("bad.json", "{\"files\": 3}")],
        notebooks: vec![file("figures.json", "[]"), file("odd.json", "{\"cells\": [{\"seconds\": null}]}")],
        tasks: vec![TaskInput {
            id: "a".into(),
            state: "running".into(),
            attempts: vec![AttemptInput::default()],
            map_index: Some(2),
            ..TaskInput::default()
        }],
        ..ReportInput::default()
    };
    show("broken", &input, dir.path());
    let report = collect(&input, dir.path(), at(0.0));
    let told = report.problems.join("\n");
    for part in [
        "`cut.xml` are incomplete: it ends in the middle",
        "`empty.xml`",
        "`gone.xml`: No such file",
        "`bad.json`",
        "`figures.json` are malformed",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert_eq!(report.tests.as_ref().unwrap().total, 2);
    assert!(to_html(&report).contains("Problems with this report"));
    check_pdf(&to_pdf(&report));

    let nothing = collect(&ReportInput::default(), dir.path(), at(0.0));
    assert!(nothing.tests.is_none() && nothing.coverage.is_none());
    check_pdf(&to_pdf(&nothing));
    let none = ReportInput { junit: vec![file("none.xml", "<testsuites/>")], ..ReportInput::default() };
    assert!(to_html(&collect(&none, dir.path(), at(0.0))).contains("No tests ran."));
}

#[test]
fn hostile_texts_stay_texts() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "<script>alert(1)</script>\"'&";
    let escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;";
    let xml = escaped;
    let case = format!(
        "<testcase classname=\"{xml}\" name=\"{xml}\"><failure message=\"{xml}\">{xml} \u{1b}[31mred\u{1b}[0m )) \\( 日本</failure></testcase>"
    );
    fs::write(dir.path().join("j.xml"), format!("<testsuite>{case}</testsuite>")).unwrap();
    let mut input = rich(dir.path());
    input.title = Some(evil.into());
    input.run.run_id = evil.into();
    input.run.url = Some("javascript:alert(1)".into());
    input.run.params.insert(evil.into(), json!(evil));
    input.junit = vec!["j.xml".into()];
    input.tasks[0].id = evil.into();
    input.files[0] = FileInput { name: evil.into(), url: Some("javascript:alert(2)".into()), ..FileInput::default() };
    show("hostile", &input, dir.path());
    let report = collect(&input, dir.path(), at(50.0));
    let page = to_html(&report);
    assert!(!page.contains("<script") && !page.contains("javascript:") && page.contains(escaped));
    assert!(page.contains("red ))") && !page.contains('\u{1b}'), "escape sequences are left out");
    let pdf = to_pdf(&report);
    check_pdf(&pdf);
    assert!(String::from_utf8_lossy(&pdf).contains("are shown as ?"), "the missing characters are remarked");
}

#[test]
fn thousands_of_tests_and_tasks_stay_readable_and_quick() {
    let dir = tempfile::tempdir().unwrap();
    let long = "a long message that goes on and on ".repeat(400);
    let cases: String = (0..5000)
        .map(|i| match i % 20 {
            0 => format!("<testcase classname='big' name='test_{i}' time='0.5'><failure message='{long}'>{long}\n{long}</failure></testcase>"),
            _ => format!("<testcase classname='big' name='test_{i}' time='0.0{}'/>", i % 9),
        })
        .collect();
    let mut input = rich(dir.path());
    fs::write(dir.path().join("junit.xml"), format!("<testsuite>{cases}</testsuite>")).unwrap();
    input.tasks = (0..900)
        .map(|i| {
            task(&format!("shard-{i}"), &[(f64::from(i), f64::from(i) + 5.0 + f64::from(i % 7), true)], 1.0, false)
        })
        .collect();
    show("big", &input, dir.path());
    let report = collect(&input, dir.path(), at(2000.0));
    let tests = report.tests.as_ref().unwrap();
    assert_eq!((tests.total, tests.failed), (5000, 250));
    assert_eq!(tests.bad().count(), 250);
    assert!(tests.cases.iter().all(|case| case.outcome != Outcome::Failed || case.details.len() <= 16 * 1024 + 3));
    let page = to_html(&report);
    assert!(page.contains("50 more failures are in") && page.contains("3,000 more tests are in"));
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    let pdf = to_pdf(&report);
    let pages = check_pdf(&pdf);
    assert!(pages < 60 && pdf.len() < 2 << 20, "{pages} pages, {} bytes", pdf.len());
}

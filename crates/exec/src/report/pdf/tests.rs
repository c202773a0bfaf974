//! The PDF's part about tests: outcomes, what changed over the last runs, failures with their texts, the slowest.

use super::flow::{Column, Flow, WIDTH};
use super::{DETAIL_LINES, FAILURES_MAX, ROWS_MAX, beyond};
use crate::report::chart::Tone;
use crate::report::charts;
use crate::report::font::Font;
use crate::report::junit::Tests;
use crate::report::model::Report;
use crate::report::text::{count, duration, grouped};

pub(super) fn section(flow: &mut Flow, report: &Report, tests: &Tests) {
    flow.heading("Tests", 60.0);
    let Some(chart) = charts::outcomes(report, WIDTH) else {
        flow.paragraph("No tests ran.", Font::Regular, 9.0, Tone::Muted, 1);
        return;
    };
    flow.chart(&chart);
    trends(flow, report);
    let bad: Vec<_> = tests.bad().collect();
    if !bad.is_empty() {
        flow.subheading(&count(bad.len(), "failure", "failures"), 60.0);
    }
    for case in bad.iter().take(FAILURES_MAX) {
        flow.need(50.0);
        let name = case.full_name();
        let flaky = report.trends.as_ref().is_some_and(|trends| trends.is_flaky(&name));
        let name = if flaky { format!("{name} (flaky)") } else { name };
        flow.paragraph(&name, Font::Bold, 9.0, Tone::Ink, 3);
        flow.paragraph(&case.message, Font::Regular, 8.5, Tone::Bad, 4);
        if !case.details.is_empty() {
            flow.code(&case.details, DETAIL_LINES);
        }
        flow.space(4.0);
    }
    beyond(flow, bad.len(), FAILURES_MAX, "failures");
    if let Some(chart) = charts::slowest(report, WIDTH) {
        flow.subheading("Slowest", chart.height);
        flow.chart(&chart);
    }
}

/// The last runs, and tests whose past deserves a look.
fn trends(flow: &mut Flow, report: &Report) {
    let Some(trends) = &report.trends else { return };
    if let Some(chart) = charts::tests_over_runs(report, WIDTH) {
        flow.subheading("Last runs", chart.height);
        flow.chart(&chart);
    }
    let lists = [
        ("New failures", &trends.new_failures),
        ("Failed before, and still fail", &trends.still_failing),
        ("Fixed", &trends.fixed),
        ("Flaky: pass and fail on the same commit, or time and again", &trends.flaky),
    ];
    for (title, list) in lists {
        if let Some(chart) = charts::strips(title, &list.first, WIDTH) {
            flow.subheading(&format!("{title} ({})", grouped(list.total)), chart.height);
            flow.chart(&chart);
            beyond(flow, list.total, charts::ROWS, "tests");
        }
    }
    if !trends.slower.is_empty() {
        flow.subheading("Slower than usual", 40.0);
        let columns = [("Test", 0.7, false), ("Time", 0.15, true), ("Usually", 0.15, true)]
            .map(|(head, share, right)| Column { head, share, right });
        let rows = trends.slower.first.iter().take(ROWS_MAX).map(|test| {
            let times = [test.seconds, test.usual_seconds].map(|seconds| (duration(seconds), Tone::Ink));
            [vec![(test.test.clone(), Tone::Ink)], times.to_vec()].concat()
        });
        flow.table(&columns, rows);
    }
}

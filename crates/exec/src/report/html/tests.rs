//! The page's part about tests: outcomes, what changed over the last runs, failures with their texts, the slowest.

use super::super::junit::{Case, Tests};
use super::super::model::Report;
use super::super::summary::{Mood, mood_of};
use super::super::svg::escaped;
use super::super::text::{count, duration};
use super::super::trends::{List, TestTrend};
use super::{CASES_MAX, FAILURES_MAX, NAMES_MAX, Page, badge, both, charts};

impl Page {
    pub(super) fn tests(&mut self, report: &Report, tests: &Tests) {
        let Some(chart) = both(|width| charts::outcomes(report, width)) else {
            self.raw("<p class=\"why\">No tests ran.</p>");
            return;
        };
        self.chart(&chart);
        self.trends(report);
        let bad: Vec<&Case> = tests.bad().collect();
        if !bad.is_empty() {
            self.raw(format_args!("<h3>{}</h3>", count(bad.len(), "failure", "failures")));
        }
        for (index, case) in bad.iter().take(FAILURES_MAX).enumerate() {
            let open = if index < 3 { " open" } else { "" };
            let full_name = case.full_name();
            let (name, why) = (escaped(&full_name), escaped(&case.message));
            let flaky = report.trends.as_ref().is_some_and(|trends| trends.is_flaky(&full_name));
            let flaky = if flaky { badge("flaky", Mood::Warn) } else { String::new() };
            self.raw(format_args!(
                "<details{open}><summary><code>{name}</code> {flaky}<span class=\"why\">{why}</span></summary>"
            ));
            if !case.details.is_empty() {
                self.raw(format_args!("<pre>{}</pre>", escaped(&case.details)));
            }
            self.raw("</details>");
        }
        self.beyond(bad.len(), FAILURES_MAX, "failures");
        if let Some(chart) = both(|width| charts::slowest(report, width)) {
            self.raw("<h3>Slowest</h3>");
            self.chart(&chart);
        }
        self.slower(report);
        self.raw(format_args!("<h3>All tests</h3><details><summary>{}</summary>", count(tests.total, "test", "tests")));
        self.raw("<div class=\"scroll\" tabindex=\"0\"><table><tr><th>Test</th><th>Outcome</th><th class=\"n\">Time</th></tr>");
        for case in tests.cases.iter().take(CASES_MAX) {
            let (name, time) = (escaped(&case.full_name()), duration(case.seconds));
            let badge = badge(case.outcome.name(), mood_of(case.outcome.name()));
            self.raw(format_args!(
                "<tr><td class=\"name\">{name}</td><td>{badge}</td><td class=\"n\">{time}</td></tr>"
            ));
        }
        self.raw("</table></div>");
        self.beyond(tests.total, CASES_MAX, "tests");
        self.raw("</details>");
    }

    /// The last runs, and tests whose past deserves a look.
    fn trends(&mut self, report: &Report) {
        let Some(trends) = &report.trends else { return };
        if let Some(chart) = both(|width| charts::tests_over_runs(report, width)) {
            self.raw("<h3>Last runs</h3>");
            self.chart(&chart);
        }
        self.strips("New failures", &trends.new_failures);
        self.strips("Failed before, and still fail", &trends.still_failing);
        self.strips("Fixed", &trends.fixed);
        self.strips("Flaky: pass and fail on the same commit, or time and again", &trends.flaky);
    }

    fn strips(&mut self, title: &str, tests: &List<TestTrend>) {
        if let Some(chart) = both(|width| charts::strips(title, &tests.first, width)) {
            self.raw(format_args!("<h3>{} ({})</h3>", escaped(title), tests.total));
            self.chart(&chart);
            self.beyond(tests.total, charts::ROWS, "tests");
        }
    }

    fn slower(&mut self, report: &Report) {
        let Some(slower) = report.trends.as_ref().map(|trends| &trends.slower).filter(|list| !list.is_empty()) else {
            return;
        };
        self.raw("<h3>Slower than usual</h3><table><tr><th>Test</th><th class=\"n\">Time</th>");
        self.raw("<th class=\"n\">Usually</th></tr>");
        for test in slower.first.iter().take(NAMES_MAX) {
            let (time, usual) = (duration(test.seconds), duration(test.usual_seconds));
            self.raw(format_args!("<tr><td class=\"name\">{}</td><td class=\"n\">{time}</td>", escaped(&test.test)));
            self.raw(format_args!("<td class=\"n\">{usual}</td></tr>"));
        }
        self.raw("</table>");
        self.beyond(slower.total, NAMES_MAX, "tests");
    }
}

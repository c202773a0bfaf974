//! The report as one page that loads nothing: no script, no font, no picture from elsewhere.
//!
//! Invariant: every text of the run's passes through [`escaped`] on its way into the page. Each chart is drawn for a
//! wide and for a narrow screen, and the screen shows the one that fits.

use std::fmt::{Display, Write};

use serde_json::Value;

use super::chart::{Chart, Tone};
use super::charts;
use super::junit::{Case, Tests};
use super::model::{Mood, Notebook, Report, mood_of};
use super::svg::{draw, escaped};
use super::text::{bytes, count, duration, grouped, percent};

const STYLE: &str = include_str!("page.css");
/// In the charts' own units, of which the screen makes as many pixels as it has: fewer are larger.
const WIDE: f64 = 640.0;
const NARROW: f64 = 280.0;
/// More are in the JSON; a browser should not labour.
const CASES_MAX: usize = 2000;
const FAILURES_MAX: usize = 200;

pub(super) fn page(report: &Report) -> String {
    let mut page = Page::default();
    page.head(report);
    page.problems(report);
    if let Some(chart) = both(|width| charts::timeline(report, width)) {
        page.section("Timeline", |page| page.chart(&chart));
    }
    if let Some(tests) = &report.tests {
        page.section("Tests", |page| page.tests(report, tests));
    }
    for notebook in &report.notebooks {
        page.section("Notebook", |page| page.notebook(notebook));
    }
    if report.coverage.is_some() {
        page.section("Coverage", |page| page.coverage(report));
    }
    if let Some(chart) = both(|width| charts::resources(report, width)) {
        page.section("Resources", |page| page.chart(&chart));
    }
    if !report.tasks.is_empty() {
        page.section("Tasks", |page| page.tasks(report));
    }
    page.section("Run", |page| page.run(report));
    if !report.files.is_empty() {
        page.section("Files", |page| page.files(report));
    }
    page.finish(report)
}

type Both = (Chart, Chart);

fn both(chart: impl Fn(f64) -> Option<Chart>) -> Option<Both> {
    Some((chart(WIDE)?, chart(NARROW)?))
}

#[derive(Default)]
struct Page {
    body: String,
}

impl Page {
    /// Markup of ours; whatever is formatted into it is escaped already.
    fn raw(&mut self, markup: impl Display) {
        // Writing to a string does not fail.
        let _ = write!(self.body, "{markup}");
    }

    fn section(&mut self, title: &str, content: impl FnOnce(&mut Self)) {
        self.raw(format_args!("<section><h2>{}</h2>", escaped(title)));
        content(self);
        self.raw("</section>");
    }

    fn chart(&mut self, (wide, narrow): &Both) {
        self.raw(format_args!("<div class=\"wide\">{}</div><div class=\"narrow\">{}</div>", draw(wide), draw(narrow)));
    }

    fn head(&mut self, report: &Report) {
        let (state, mood) = report.verdict();
        self.raw(format_args!("<header><h1>{} {}</h1>", escaped(&report.title), badge(&state, mood)));
        let run = escaped(&report.run.run_id);
        let run = match report.run.url.as_deref().filter(|url| is_safe(url)) {
            Some(url) => format!("<a href=\"{}\">{run}</a>", escaped(url)),
            None => run,
        };
        let started =
            report.run.start.map(|at| format!(" · {}", at.strftime("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
        let took = report.run_seconds.map(|s| format!(" · {}", duration(s))).unwrap_or_default();
        self.raw(format_args!("<p class=\"sub\">{run}{started}{took}</p></header>"));
        let tiles = report.tiles();
        if !tiles.is_empty() {
            self.raw("<div class=\"tiles\">");
            for tile in tiles {
                let (value, detail) = (escaped(&tile.value), escaped(&tile.detail));
                let class = class_of(tile.mood);
                self.raw(format_args!(
                    "<div class=\"tile {class}\"><span>{}</span><b>{value}</b><span>{detail}</span></div>",
                    tile.name
                ));
            }
            self.raw("</div>");
        }
    }

    fn problems(&mut self, report: &Report) {
        if report.problems.is_empty() {
            return;
        }
        self.section("Problems with this report", |page| {
            page.raw("<ul class=\"problems\">");
            for problem in &report.problems {
                page.raw(format_args!("<li>{}</li>", escaped(problem)));
            }
            page.raw("</ul>");
        });
    }

    fn tests(&mut self, report: &Report, tests: &Tests) {
        let Some(chart) = both(|width| charts::outcomes(report, width)) else {
            self.raw("<p class=\"why\">No tests ran.</p>");
            return;
        };
        self.chart(&chart);
        let bad: Vec<&Case> = tests.bad().collect();
        if !bad.is_empty() {
            self.raw(format_args!("<h3>{}</h3>", count(bad.len(), "failure", "failures")));
        }
        for (index, case) in bad.iter().take(FAILURES_MAX).enumerate() {
            let open = if index < 3 { " open" } else { "" };
            let (name, why) = (escaped(&case.full_name()), escaped(&case.message));
            self.raw(format_args!(
                "<details{open}><summary><code>{name}</code><span class=\"why\">{why}</span></summary>"
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
        self.raw(format_args!("<h3>All tests</h3><details><summary>{}</summary>", count(tests.total, "test", "tests")));
        self.raw("<div class=\"scroll\"><table><tr><th>Test</th><th>Outcome</th><th class=\"n\">Time</th></tr>");
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

    fn beyond(&mut self, all: usize, most: usize, what: &str) {
        if all > most {
            let rest = grouped(all - most);
            self.raw(format_args!("<p class=\"why\">{rest} more {what} are in <code>report.json</code>.</p>"));
        }
    }

    fn notebook(&mut self, notebook: &Notebook) {
        let memory =
            notebook.peak_memory_bytes.map(|peak| format!(" · peak memory {}", bytes(peak))).unwrap_or_default();
        let cells = count(notebook.cells.len(), "cell", "cells");
        let (name, took) = (escaped(&notebook.notebook), duration(notebook.total_seconds));
        self.raw(format_args!("<p class=\"sub\"><code>{name}</code> · {cells} · {took}{memory}</p>"));
        if let Some(error) = &notebook.error {
            let cell = error.cell.map(|cell| format!("Cell {cell}: ")).unwrap_or_default();
            self.raw(format_args!("<pre>{cell}{}</pre>", escaped(&error.message)));
        }
        if let Some(chart) = both(|width| charts::cells(notebook, width)) {
            self.raw("<h3>Time per cell</h3>");
            self.chart(&chart);
        }
    }

    fn coverage(&mut self, report: &Report) {
        let Some(coverage) = &report.coverage else { return };
        if let Some(chart) = both(|width| charts::coverage(report, width)) {
            self.chart(&chart);
        }
        self.raw("<h3>By file</h3><div class=\"scroll\"><table><tr><th>File</th><th class=\"n\">Covered</th>");
        self.raw("<th class=\"n\">Lines</th><th class=\"hide\">Not reached</th></tr>");
        for file in coverage.least_covered().into_iter().take(CASES_MAX) {
            let (path, missing) = (escaped(&file.path), escaped(&file.missing));
            let (share, total) = (percent(file.percent), grouped(file.total));
            self.raw(format_args!(
                "<tr><td class=\"name\">{path}</td><td class=\"n\">{share}</td><td class=\"n\">{total}</td>"
            ));
            self.raw(format_args!("<td class=\"why hide\">{missing}</td></tr>"));
        }
        self.raw("</table></div>");
    }

    fn tasks(&mut self, report: &Report) {
        self.raw("<div class=\"scroll\"><table><tr><th>Task</th><th>State</th><th class=\"n hide\">Attempts</th>");
        self.raw("<th class=\"n\">Time</th><th class=\"hide\">How it ended</th></tr>");
        for task in report.tasks.iter().take(CASES_MAX) {
            let last = task.attempts.last();
            let how = last.map(|attempt| match (attempt.exit.as_str(), attempt.message.lines().next()) {
                (exit, Some(message)) if !exit.is_empty() && !message.is_empty() => format!("{exit}: {message}"),
                (exit, message) => format!("{exit}{}", message.unwrap_or_default()),
            });
            let (name, how) = (escaped(&task.label()), escaped(&how.unwrap_or_default()));
            let badge = badge(&task.state_name(), mood_of(&task.state));
            let time = task.seconds().map(duration).unwrap_or_default();
            self.raw(format_args!(
                "<tr><td class=\"name\">{name}</td><td>{badge}</td><td class=\"n hide\">{}</td>",
                task.attempts.len()
            ));
            self.raw(format_args!("<td class=\"n\">{time}</td><td class=\"why hide\">{how}</td></tr>"));
        }
        self.raw("</table></div>");
        self.beyond(report.tasks.len(), CASES_MAX, "tasks");
    }

    fn run(&mut self, report: &Report) {
        self.raw("<table class=\"facts\">");
        for (name, value) in report.facts() {
            self.raw(format_args!("<tr><th>{}</th><td>{}</td></tr>", escaped(name), escaped(&value)));
        }
        self.raw("</table>");
        if !report.run.params.is_empty() {
            self.raw("<h3>Params</h3><table class=\"facts\">");
            for (name, value) in &report.run.params {
                let (name, value) = (escaped(name), escaped(&shown(value)));
                self.raw(format_args!("<tr><th>{name}</th><td><code>{value}</code></td></tr>"));
            }
            self.raw("</table>");
        }
    }

    fn files(&mut self, report: &Report) {
        self.raw("<table>");
        for file in &report.files {
            let name = escaped(&file.name);
            let name = match file.url.as_deref().filter(|url| is_safe(url)) {
                Some(url) => format!("<a href=\"{}\">{name}</a>", escaped(url)),
                None => name,
            };
            let size = file.bytes.map(bytes).unwrap_or_default();
            self.raw(format_args!("<tr><td class=\"name\">{name}</td><td class=\"n\">{size}</td></tr>"));
        }
        self.raw("</table>");
    }

    fn finish(self, report: &Report) -> String {
        let title = escaped(&format!("{} – {}", report.title, report.run.run_id));
        let made = report.generated.strftime("%Y-%m-%d %H:%M:%S UTC");
        let body = self.body;
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title>\
             <style>{STYLE}</style></head><body><main>{body}<footer>Made by Pitcrew on {made}.</footer></main></body></html>\n"
        )
    }
}

/// A string as it is; anything else as JSON.
pub(super) fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn badge(text: &str, mood: Mood) -> String {
    format!("<span class=\"badge {}\">{}</span>", class_of(mood), escaped(text))
}

fn class_of(mood: Mood) -> &'static str {
    match mood.tone() {
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Warn => "warn",
        _ => "neutral",
    }
}

/// No `javascript:` and the like: a web address, or a path.
fn is_safe(url: &str) -> bool {
    let scheme = url.split(['/', '?', '#']).next().unwrap_or_default().split_once(':').map(|(scheme, _)| scheme);
    scheme.is_none_or(|scheme| matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https" | "s3" | "file"))
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn only_addresses_and_paths_become_links() {
        assert!(["https://h/x", "a/b.html", "/x?a:b", "s3://b/k", "../x"].into_iter().all(is_safe));
        assert!(!["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x"].into_iter().any(is_safe));
    }
}

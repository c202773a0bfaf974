//! The report as one page that loads nothing: no script, no font, no picture from elsewhere.
//!
//! Invariant: every text of the run's passes through [`escaped`] on its way into the page. Each chart is drawn for a
//! wide and for a narrow screen, and the screen shows the one that fits.

mod compare;
mod notebook;
mod tests;

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use serde_json::Value;

use super::chart::{Chart, Tone};
use super::charts;
use super::model::Report;
use super::summary::{Mood, mood_of};
use super::svg::{draw, escaped};
use super::text::{bytes, duration, grouped, percent, signed};

const STYLE: &str = include_str!("../page.css");
/// In the charts' own units, of which the screen makes as many pixels as it has: fewer are larger.
const WIDE: f64 = 640.0;
const NARROW: f64 = 280.0;
/// More are in the JSON; a browser should not labour.
const CASES_MAX: usize = 2000;
const FAILURES_MAX: usize = 200;
/// Names in a list of changes.
const NAMES_MAX: usize = 50;

pub(super) fn page(report: &Report) -> String {
    let mut page = Page::default();
    page.head(report);
    page.problems(report);
    for comparison in &report.comparisons {
        page.section(&comparison.heading(), |page| page.comparison(comparison));
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
    if let Some(chart) = both(|width| charts::time_over_runs(report, width)) {
        page.section("Last runs", |page| page.chart(&chart));
    }
    if let Some(chart) = both(|width| charts::timeline(report, width)) {
        page.section("Timeline", |page| page.chart(&chart));
    }
    if let Some(chart) = both(|width| charts::resources(report, width)) {
        page.section("Resources", |page| page.chart(&chart));
    }
    if !report.tasks.is_empty() {
        page.section("Tasks", |page| page.tasks(report));
    }
    page.section("Run", |page| page.run(report));
    if !report.environments.is_empty() {
        page.section("Versions", |page| page.versions(report));
    }
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
        self.raw(format_args!("<p class=\"sub\">{run}{started}{took}</p>"));
        for line in report.about() {
            self.raw(format_args!("<p class=\"sub\">{}</p>", escaped(&line)));
        }
        self.raw("</header>");
        self.raw("<ul class=\"summary\">");
        for sentence in &report.summary.sentences {
            self.raw(format_args!("<li>{}</li>", quoted(sentence)));
        }
        self.raw("</ul>");
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

    fn beyond(&mut self, all: usize, most: usize, what: &str) {
        if all > most {
            let rest = grouped(all - most);
            self.raw(format_args!("<p class=\"why\">{rest} more {what} are in <code>report.json</code>.</p>"));
        }
    }

    fn coverage(&mut self, report: &Report) {
        let Some(coverage) = &report.coverage else { return };
        if let Some(chart) = both(|width| charts::coverage(report, width)) {
            self.chart(&chart);
        }
        if let Some(chart) = both(|width| charts::coverage_over_runs(report, width)) {
            self.raw("<h3>Last runs</h3>");
            self.chart(&chart);
        }
        let changes: BTreeMap<&str, f64> = report.coverage_changes().collect();
        self.raw("<h3>By file</h3><div class=\"scroll\" tabindex=\"0\"><table><tr><th>File</th>");
        let head = if changes.is_empty() { "" } else { "<th class=\"n\">Change</th>" };
        self.raw(format_args!("<th class=\"n\">Covered</th>{head}"));
        self.raw("<th class=\"n\">Lines</th><th class=\"hide\">Not reached</th></tr>");
        for file in coverage.least_covered().into_iter().take(CASES_MAX) {
            let (path, missing) = (escaped(&file.path), escaped(&file.missing));
            let (share, total) = (percent(file.percent), grouped(file.total));
            self.raw(format_args!("<tr><td class=\"name\">{path}</td><td class=\"n\">{share}</td>"));
            if !changes.is_empty() {
                let change = changes.get(file.path.as_str()).map(|change| {
                    let class = if *change < 0.0 { "bad" } else { "good" };
                    format!("<span class=\"{class}\">{}</span>", signed(*change))
                });
                self.raw(format_args!("<td class=\"n\">{}</td>", change.unwrap_or_default()));
            }
            self.raw(format_args!("<td class=\"n\">{total}</td>"));
            self.raw(format_args!("<td class=\"why hide\">{missing}</td></tr>"));
        }
        self.raw("</table></div>");
    }

    /// A row per attempt, with the task's name and state at its first one.
    fn tasks(&mut self, report: &Report) {
        self.raw("<div class=\"scroll\" tabindex=\"0\"><table><tr><th>Task</th><th>State</th>");
        self.raw("<th class=\"n hide\">Try</th><th class=\"n\">Time</th><th class=\"hide\">How it ended</th></tr>");
        for task in report.tasks.iter().take(CASES_MAX) {
            let (name, badge) = (escaped(&task.label()), badge(&task.state_name(), mood_of(&task.state)));
            let head = format!("<tr><td class=\"name\">{name}</td><td>{badge}</td>");
            if task.attempts.is_empty() {
                self.raw(format_args!("{head}<td class=\"hide\"></td><td></td><td class=\"hide\"></td></tr>"));
            }
            for (index, attempt) in task.attempts.iter().enumerate() {
                let head = if index == 0 { head.as_str() } else { "<tr class=\"again\"><td></td><td></td>" };
                let (number, how) = (attempt.number, escaped(&attempt.how()));
                let time = attempt.seconds().map(duration).unwrap_or_default();
                self.raw(format_args!("{head}<td class=\"n hide\">{number}</td><td class=\"n\">{time}</td>"));
                self.raw(format_args!("<td class=\"why hide\">{how}</td></tr>"));
            }
        }
        self.raw("</table></div>");
        self.beyond(report.tasks.len(), CASES_MAX, "tasks");
    }

    fn versions(&mut self, report: &Report) {
        for environment in &report.environments {
            let names: Vec<String> = environment.tasks.iter().take(8).map(|name| escaped(name)).collect();
            let more = if environment.tasks.len() > names.len() { ", …" } else { "" };
            self.raw(format_args!("<h3>{}{more}</h3><table class=\"facts\">", names.join(", ")));
            for (name, version) in environment.lines() {
                self.raw(format_args!("<tr><th>{}</th><td>{}</td></tr>", escaped(&name), escaped(&version)));
            }
            self.raw("</table>");
        }
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

/// Escaped, with what stands in backticks set as code.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for (index, part) in text.split('`').enumerate() {
        match index % 2 {
            0 => out.push_str(&escaped(part)),
            _ => out.push_str(&format!("<code>{}</code>", escaped(part))),
        }
    }
    out
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
mod checks {
    use super::is_safe;

    #[test]
    fn only_addresses_and_paths_become_links() {
        assert!(["https://h/x", "a/b.html", "/x?a:b", "s3://b/k", "../x"].into_iter().all(is_safe));
        assert!(!["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x"].into_iter().any(is_safe));
    }
}

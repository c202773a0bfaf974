//! The page's part that sets this run beside another one.

use super::super::compare::Comparison;
use super::super::svg::escaped;
use super::super::text::{bytes, duration, grouped, shortened, signed};
use super::super::trends::List;
use super::{NAMES_MAX, Page};

impl Page {
    pub(super) fn comparison(&mut self, comparison: &Comparison) {
        self.raw(format_args!("<p class=\"sub\">{}</p>", escaped(&comparison.about())));
        if comparison.is_empty() {
            self.raw("<p class=\"why\">Nothing changed that is worth a word.</p>");
            return;
        }
        let facts = comparison.facts();
        if !facts.is_empty() {
            self.raw("<table class=\"facts\">");
            for (name, value) in facts {
                self.raw(format_args!("<tr><th>{name}</th><td>{}</td></tr>", escaped(&value)));
            }
            self.raw("</table>");
        }
        self.names("Tests that fail now", &comparison.broken);
        self.names("Tests that pass now", &comparison.fixed);
        self.names("New tests", &comparison.added);
        self.names("Tests that are gone", &comparison.removed);
        if !comparison.tasks.is_empty() {
            self.raw("<h3>Times of tasks</h3><table><tr><th>Task</th><th class=\"n\">Before</th><th class=\"n\">Now</th></tr>");
            for change in comparison.tasks.iter().take(NAMES_MAX) {
                let (task, before, now) = (escaped(&change.task), duration(change.before), duration(change.seconds));
                self.raw(format_args!("<tr><td class=\"name\">{task}</td><td class=\"n\">{before}</td>"));
                self.raw(format_args!("<td class=\"n\">{now}</td></tr>"));
            }
            self.raw("</table>");
        }
        if !comparison.outputs.is_empty() {
            self.raw("<h3>Outputs that changed</h3><div class=\"scroll\" tabindex=\"0\"><table>");
            self.raw("<tr><th>Output</th><th>Before</th><th>Now</th></tr>");
            for change in comparison.outputs.first.iter().take(NAMES_MAX) {
                let before = change.before.as_deref().map_or("–".into(), |text| escaped(&shortened(text, 80)));
                let (output, now) = (escaped(&change.output), escaped(&shortened(&change.now, 80)));
                self.raw(format_args!("<tr><td class=\"name\">{output}</td><td class=\"why\">{before}</td>"));
                self.raw(format_args!("<td class=\"name\">{now}</td></tr>"));
            }
            self.raw("</table></div>");
            self.beyond(comparison.outputs.total, NAMES_MAX, "outputs");
        }
        if !comparison.files.is_empty() {
            self.raw("<h3>Files that changed</h3><table><tr><th>File</th><th class=\"n\">Before</th><th class=\"n\">Now</th></tr>");
            for change in comparison.files.iter().take(NAMES_MAX) {
                let [before, now] = [change.before_bytes, change.bytes].map(|n| n.map(bytes).unwrap_or_default());
                let name = escaped(&change.name);
                self.raw(format_args!("<tr><td class=\"name\">{name}</td><td class=\"n\">{before}</td>"));
                self.raw(format_args!("<td class=\"n\">{now}</td></tr>"));
            }
            self.raw("</table>");
        }
    }

    fn names(&mut self, title: &str, names: &List<String>) {
        if names.is_empty() {
            return;
        }
        self.raw(format_args!("<h3>{title} ({})</h3><ul class=\"names\">", grouped(names.total)));
        for name in names.first.iter().take(NAMES_MAX) {
            self.raw(format_args!("<li><code>{}</code></li>", escaped(name)));
        }
        self.raw("</ul>");
        self.beyond(names.total, NAMES_MAX, "tests");
    }
}

impl Comparison {
    /// The title of its section.
    pub(in crate::report) fn heading(&self) -> String {
        match self.with.as_str() {
            "main" => "Compared with the main branch".into(),
            _ => "Compared with the run before".into(),
        }
    }

    /// Which run that is.
    pub(in crate::report) fn about(&self) -> String {
        let run = &self.run;
        let commit = run.commit.as_ref().map(|commit| {
            let branch = commit.branch.as_ref().map(|branch| format!(" on {branch}")).unwrap_or_default();
            format!("commit {}{branch}", commit.short())
        });
        let start = run.start.map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
        let state = Some(run.state.replace('_', " ")).filter(|state| !state.is_empty());
        [Some(run.name()), start, commit, state].into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }

    /// Differences that are one figure each.
    pub(in crate::report) fn facts(&self) -> Vec<(&'static str, String)> {
        let mut facts = Vec::new();
        if let Some(more) = self.seconds.filter(|more| more.abs() >= 1.0) {
            facts.push(("Duration", format!("{}{}", if more > 0.0 { "+" } else { "−" }, duration(more.abs()))));
        }
        if let Some(change) = self.coverage.filter(|change| change.abs() >= 0.05) {
            facts.push(("Coverage", format!("{} points", signed(change))));
        }
        facts
    }
}

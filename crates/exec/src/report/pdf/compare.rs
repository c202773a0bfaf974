//! The PDF's part that sets this run beside another one.

use super::flow::{Column, Flow};
use super::{NAMES_MAX, beyond};
use crate::report::chart::Tone;
use crate::report::compare::Comparison;
use crate::report::font::Font;
use crate::report::text::{bytes, duration, grouped, shortened};

pub(super) fn section(flow: &mut Flow, comparison: &Comparison) {
    flow.heading(&comparison.heading(), 50.0);
    flow.paragraph(&comparison.about(), Font::Regular, 9.0, Tone::Muted, 2);
    if comparison.is_empty() {
        flow.paragraph("Nothing changed that is worth a word.", Font::Regular, 9.0, Tone::Ink, 1);
        return;
    }
    let facts = comparison.facts();
    if !facts.is_empty() {
        flow.space(4.0);
        let columns = [("", 0.2, false), ("", 0.8, false)].map(column);
        flow.table(
            &columns,
            facts.into_iter().map(|(name, value)| vec![(name.into(), Tone::Muted), (value, Tone::Ink)]),
        );
    }
    let lists = [
        ("Tests that fail now", &comparison.broken, Tone::Bad),
        ("Tests that pass now", &comparison.fixed, Tone::Good),
        ("New tests", &comparison.added, Tone::Ink),
        ("Tests that are gone", &comparison.removed, Tone::Ink),
    ];
    for (title, list, tone) in lists.into_iter().filter(|(_, list, _)| !list.is_empty()) {
        flow.subheading(&format!("{title} ({})", grouped(list.total)), 12.0);
        for name in list.first.iter().take(NAMES_MAX) {
            flow.paragraph(name, Font::Regular, 8.5, tone, 2);
        }
        beyond(flow, list.total, NAMES_MAX, "tests");
    }
    let triple = |name: &str, before: String, now: String| {
        vec![(name.to_owned(), Tone::Ink), (before, Tone::Muted), (now, Tone::Ink)]
    };
    let figures = |head| [(head, 0.6, false), ("Before", 0.2, true), ("Now", 0.2, true)].map(column);
    if !comparison.tasks.is_empty() {
        flow.subheading("Times of tasks", 40.0);
        let rows = comparison.tasks.iter().take(NAMES_MAX);
        flow.table(&figures("Task"), rows.map(|c| triple(&c.task, duration(c.before), duration(c.seconds))));
    }
    if !comparison.outputs.is_empty() {
        flow.subheading("Outputs that changed", 40.0);
        let columns = [("Output", 0.3, false), ("Before", 0.35, false), ("Now", 0.35, false)].map(column);
        let rows = comparison.outputs.first.iter().take(NAMES_MAX).map(|change| {
            let before = change.before.as_deref().map_or("–".into(), |text| shortened(text, 80));
            triple(&change.output, before, shortened(&change.now, 80))
        });
        flow.table(&columns, rows);
        beyond(flow, comparison.outputs.total, NAMES_MAX, "outputs");
    }
    if !comparison.files.is_empty() {
        flow.subheading("Files that changed", 40.0);
        let size = |size: Option<u64>| size.map(bytes).unwrap_or_default();
        let rows = comparison.files.iter().take(NAMES_MAX);
        flow.table(&figures("File"), rows.map(|c| triple(&c.name, size(c.before_bytes), size(c.bytes))));
    }
}

fn column((head, share, right): (&'static str, f64, bool)) -> Column {
    Column { head, share, right }
}

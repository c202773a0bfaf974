//! The report as a PDF: A4, with the page's charts as vectors.
//!
//! It uses the fonts that every reader has, which know Western European letters. Other characters are written in
//! other letters where that is usual (`ł` as `l`, `≤` as `<=`) and else shown as `?`, with a remark at the end. The
//! document's title and its outline hold any character. Long lists are cut; the JSON has them whole.

mod compare;
mod flow;
mod tests;

use jiff::tz::TimeZone;
use pdf_writer::Date;

use self::flow::{Column, Flow, WIDTH};
use super::chart::{Chart, Tone};
use super::charts;
use super::font::Font;
use super::html::shown;
use super::model::{Notebook, Report};
use super::summary::mood_of;
use super::text::{bytes, count, duration, grouped, percent, signed};

const FAILURES_MAX: usize = 40;
const DETAIL_LINES: usize = 16;
const ROWS_MAX: usize = 120;
/// Names in a list of changes.
const NAMES_MAX: usize = 30;

pub(super) fn document(report: &Report) -> Vec<u8> {
    let mut flow = Flow::new();
    head(&mut flow, report);
    if !report.problems.is_empty() {
        flow.heading("Problems with this report", 20.0);
        for problem in report.problems.iter().take(ROWS_MAX) {
            flow.paragraph(problem, Font::Regular, 9.0, Tone::Bad, 4);
        }
    }
    for comparison in &report.comparisons {
        compare::section(&mut flow, comparison);
    }
    if let Some(tests) = &report.tests {
        tests::section(&mut flow, report, tests);
    }
    for notebook in &report.notebooks {
        notebook_section(&mut flow, notebook);
    }
    coverage_section(&mut flow, report);
    section(&mut flow, "Last runs", charts::time_over_runs(report, WIDTH));
    section(&mut flow, "Timeline", charts::timeline(report, WIDTH));
    section(&mut flow, "Resources", charts::resources(report, WIDTH));
    tasks_section(&mut flow, report);
    run_section(&mut flow, report);
    versions_section(&mut flow, report);
    files_section(&mut flow, report);
    if flow.lost {
        flow.space(10.0);
        let remark = "Characters that this document's fonts lack are shown as ?; the page and the JSON have them.";
        flow.paragraph(remark, Font::Regular, 8.0, Tone::Muted, 2);
    }
    let made = report.generated.strftime("%Y-%m-%d %H:%M UTC");
    let foot = format!("{} · {} · made by Pitcrew on {made}", report.title, report.run.run_id);
    flow.finish(&format!("{} – {}", report.title, report.run.run_id), &foot, date(report))
}

fn date(report: &Report) -> Date {
    let at = report.generated.to_zoned(TimeZone::UTC);
    let small = |value: i8| value.unsigned_abs();
    Date::new(at.year().unsigned_abs())
        .month(small(at.month()))
        .day(small(at.day()))
        .hour(small(at.hour()))
        .minute(small(at.minute()))
        .second(small(at.second()))
        .utc_offset_hour(0)
}

fn section(flow: &mut Flow, title: &str, chart: Option<Chart>) {
    if let Some(chart) = chart {
        flow.heading(title, chart.height);
        flow.chart(&chart);
    }
}

/// Title, state and the figures that matter most.
fn head(flow: &mut Flow, report: &Report) {
    let (state, mood) = report.verdict();
    let badge = Font::Bold.width(&state, 9.0) + 16.0;
    let lines = Font::Bold.wrap(&report.title, 21.0, WIDTH - badge - 12.0);
    let last = lines.len().min(3);
    for line in lines.iter().take(last) {
        flow.text_at(0.0, flow.y + 19.0, line, Font::Bold, 21.0, Tone::Ink);
        flow.space(26.0);
    }
    let top = flow.y - 26.0 + 4.0;
    flow.rect_at(WIDTH - badge, top, badge, 17.0, 8.5, mood.tone());
    // White on the colour: the track's grey is close to it, and is read as white.
    flow.text_at(WIDTH - badge + 8.0, top + 11.8, &state, Font::Bold, 9.0, Tone::Track);
    let started = report.run.start.map(|at| format!(" · {}", at.strftime("%Y-%m-%d %H:%M UTC"))).unwrap_or_default();
    let took = report.run_seconds.map(|s| format!(" · {}", duration(s))).unwrap_or_default();
    flow.paragraph(&format!("{}{started}{took}", report.run.run_id), Font::Regular, 9.5, Tone::Muted, 2);
    for line in report.about() {
        flow.paragraph(&line, Font::Regular, 9.5, Tone::Muted, 2);
    }
    flow.space(6.0);
    for sentence in &report.summary.sentences {
        flow.paragraph(&sentence.replace('`', ""), Font::Regular, 10.5, Tone::Ink, 4);
        flow.space(2.0);
    }
    let tiles = report.tiles();
    if tiles.is_empty() {
        return;
    }
    flow.space(10.0);
    let gap = 8.0;
    let each = (WIDTH - gap * (tiles.len() - 1) as f64) / tiles.len() as f64;
    for (index, tile) in tiles.iter().enumerate() {
        let x = index as f64 * (each + gap);
        let y = flow.y;
        flow.rect_at(x, y, each, 56.0, 4.0, Tone::Track);
        let tone = match tile.mood.tone() {
            Tone::Accent => Tone::Ink,
            tone => tone,
        };
        let room = each - 18.0;
        flow.text_at(x + 9.0, y + 15.0, &Font::Regular.fit(tile.name, 8.5, room), Font::Regular, 8.5, Tone::Muted);
        flow.text_at(x + 9.0, y + 34.0, &Font::Bold.fit(&tile.value, 15.0, room), Font::Bold, 15.0, tone);
        flow.text_at(x + 9.0, y + 48.0, &Font::Regular.fit(&tile.detail, 8.0, room), Font::Regular, 8.0, Tone::Muted);
    }
    flow.space(60.0);
}

fn beyond(flow: &mut Flow, all: usize, most: usize, what: &str) {
    if all > most {
        let text = format!("{} more {what} are in report.json.", grouped(all - most));
        flow.paragraph(&text, Font::Regular, 8.5, Tone::Muted, 1);
    }
}

fn notebook_section(flow: &mut Flow, notebook: &Notebook) {
    let chart = charts::cells(notebook, WIDTH);
    flow.heading("Notebook", 30.0 + chart.as_ref().map_or(0.0, |chart| chart.height));
    let memory = notebook.peak_memory_bytes.map(|peak| format!(" · peak memory {}", bytes(peak))).unwrap_or_default();
    let cells = count(notebook.cells.len(), "cell", "cells");
    let about = format!("{} · {cells} · {}{memory}", notebook.notebook, duration(notebook.total_seconds));
    flow.paragraph(&about, Font::Regular, 9.0, Tone::Muted, 2);
    if let Some(error) = &notebook.error {
        let cell = error.cell.map(|cell| format!("Cell {cell}: ")).unwrap_or_default();
        flow.paragraph(&format!("{cell}{}", error.message), Font::Regular, 9.0, Tone::Bad, 8);
    }
    if let Some(chart) = chart {
        flow.space(8.0);
        flow.chart(&chart);
    }
    for (index, picture) in notebook.pictures.iter().enumerate() {
        let caption = format!("{} · {}", picture.name(index + 1), picture.caption);
        match picture.raster() {
            Some(raster) => flow.picture(raster, &caption),
            None => {
                let remark = format!("{caption}: this kind of picture ({}) is only in the page", picture.media_type);
                flow.paragraph(&remark, Font::Regular, 8.5, Tone::Muted, 2);
            }
        }
    }
}

fn coverage_section(flow: &mut Flow, report: &Report) {
    let Some(coverage) = &report.coverage else { return };
    let chart = charts::coverage(report, WIDTH);
    flow.heading("Coverage", 24.0 + chart.as_ref().map_or(0.0, |chart| chart.height));
    let files = count(coverage.files.len(), "file", "files");
    let lines = format!("{} of {} lines", grouped(coverage.covered), grouped(coverage.total));
    let about = format!("{} · {lines} in {files}", percent(coverage.percent));
    flow.paragraph(&about, Font::Regular, 9.0, Tone::Muted, 1);
    if let Some(chart) = chart {
        flow.space(6.0);
        flow.chart(&chart);
    }
    if let Some(chart) = charts::coverage_over_runs(report, WIDTH) {
        flow.subheading("Last runs", chart.height);
        flow.chart(&chart);
    }
    let changes: Vec<_> = report.coverage_changes().collect();
    if !changes.is_empty() {
        flow.subheading("Files that changed", 40.0);
        let columns =
            [Column { head: "File", share: 0.8, right: false }, Column { head: "Points", share: 0.2, right: true }];
        let rows = changes.into_iter().take(NAMES_MAX).map(|(path, change)| {
            let tone = if change < 0.0 { Tone::Bad } else { Tone::Good };
            vec![(path.to_owned(), Tone::Ink), (signed(change), tone)]
        });
        flow.table(&columns, rows);
    }
}

fn tasks_section(flow: &mut Flow, report: &Report) {
    if report.tasks.is_empty() {
        return;
    }
    flow.heading("Tasks", 60.0);
    let column = |head, share, right| Column { head, share, right };
    let columns = [
        column("Task", 0.26, false),
        column("State", 0.14, false),
        column("Try", 0.06, true),
        column("Time", 0.13, true),
        column("How it ended", 0.41, false),
    ];
    // A row per attempt, with the task's name and state at its first one.
    let rows = report.tasks.iter().take(ROWS_MAX).flat_map(|task| {
        let tone = match mood_of(&task.state).tone() {
            Tone::Accent => Tone::Ink,
            tone => tone,
        };
        let head = |first: bool| match first {
            true => [(task.label(), Tone::Ink), (task.state_name(), tone)],
            false => [(String::new(), Tone::Ink), (String::new(), tone)],
        };
        let none = task.attempts.is_empty().then(|| head(true).to_vec());
        let attempts = task.attempts.iter().enumerate().map(move |(index, attempt)| {
            let time = attempt.seconds().map(duration).unwrap_or_default();
            let rest = [(attempt.number.to_string(), Tone::Ink), (time, Tone::Ink), (attempt.how(), Tone::Muted)];
            [head(index == 0).to_vec(), rest.to_vec()].concat()
        });
        none.into_iter().chain(attempts).collect::<Vec<_>>()
    });
    flow.table(&columns, rows);
    beyond(flow, report.tasks.len(), ROWS_MAX, "tasks");
}

fn run_section(flow: &mut Flow, report: &Report) {
    flow.heading("Run", 80.0);
    let columns = [Column { head: "", share: 0.2, right: false }, Column { head: "", share: 0.8, right: false }];
    let pair = |name: &str, value: String| vec![(name.to_owned(), Tone::Muted), (value, Tone::Ink)];
    flow.table(&columns, report.facts().into_iter().map(|(name, value)| pair(name, value)));
    if !report.run.params.is_empty() {
        flow.subheading("Params", 40.0);
        flow.table(&columns, report.run.params.iter().take(ROWS_MAX).map(|(name, value)| pair(name, shown(value))));
    }
}

fn versions_section(flow: &mut Flow, report: &Report) {
    if report.environments.is_empty() {
        return;
    }
    flow.heading("Versions", 60.0);
    let columns = [Column { head: "", share: 0.3, right: false }, Column { head: "", share: 0.7, right: false }];
    for environment in &report.environments {
        let names = environment.tasks.iter().take(8).cloned().collect::<Vec<_>>().join(", ");
        flow.subheading(&names, 40.0);
        let rows = environment.lines().into_iter().take(ROWS_MAX);
        flow.table(&columns, rows.map(|(name, version)| vec![(name, Tone::Muted), (version, Tone::Ink)]));
    }
}

fn files_section(flow: &mut Flow, report: &Report) {
    if report.files.is_empty() {
        return;
    }
    flow.heading("Files", 40.0);
    let columns = [("", 0.35, false), ("", 0.5, false), ("", 0.15, true)].map(|(head, share, right)| Column {
        head,
        share,
        right,
    });
    let rows = report.files.iter().take(ROWS_MAX).map(|file| {
        let size = file.bytes.map(bytes).unwrap_or_default();
        vec![(file.name.clone(), Tone::Ink), (file.url.clone().unwrap_or_default(), Tone::Muted), (size, Tone::Ink)]
    });
    flow.table(&columns, rows);
}

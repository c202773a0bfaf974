//! Charts of many runs: stacked columns, a level that changes, and the outcomes of single tests side by side.
//!
//! The newest run is at the right. Invariant: as in all charts, everything lies within the width; what is too much for
//! it is left out at the left, where the oldest runs are.

use super::chart::{Anchor, Chart, SIZE, SMALL, Tone};
use super::font::Font;

/// What happened in one run.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Below it: the number of the run.
    pub label: String,
    /// From the bottom up.
    pub parts: Vec<(f64, Tone)>,
    pub tip: String,
}

const HEIGHT: f64 = 64.0;
/// Room for the scale at the left, at least and at most.
const LEFT: (f64, f64) = (30.0, 76.0);

/// Columns from a base line; `unit` writes the value at the top of the scale.
pub(super) fn stacks(label: &str, columns: &[Column], unit: impl Fn(f64) -> String, width: f64) -> Chart {
    let mut chart = Chart::new(width, label);
    let most = columns.iter().map(|c| c.parts.iter().map(|(v, _)| v).sum::<f64>()).fold(0.0, f64::max);
    let left = scale(&mut chart, &unit(most), "0", width);
    let each = (width - left) / columns.len().max(1) as f64;
    let thick = (each * 0.72).min(26.0);
    for (index, column) in columns.iter().enumerate() {
        let x = left + each * index as f64 + (each - thick) / 2.0;
        let mut top = 4.0 + HEIGHT;
        for (value, tone) in column.parts.iter().filter(|(value, _)| *value > 0.0) {
            // Even one of many is seen.
            let h = (HEIGHT * value / most.max(1e-9)).max(1.5);
            top = (top - h).max(0.0);
            chart.rect(x, top, thick, h, *tone, column.tip.clone());
        }
    }
    names(&mut chart, columns.iter().map(|column| column.label.as_str()), left, width);
    chart
}

/// A value per run, on a scale from the least to the greatest; `None` where a run has none.
pub(super) fn levels(
    label: &str,
    points: &[(String, Option<f64>)],
    unit: impl Fn(f64) -> String,
    width: f64,
) -> Option<Chart> {
    let known = || points.iter().filter_map(|(_, value)| *value);
    let (least, most) = (known().reduce(f64::min)?, known().reduce(f64::max)?);
    let mut chart = Chart::new(width, label);
    let left = scale(&mut chart, &unit(most), &if most > least { unit(least) } else { String::new() }, width);
    let each = (width - left) / points.len().max(1) as f64;
    // All equal: at the upper line, which is named by that value.
    let y = |value: f64| if most > least { 4.0 + HEIGHT * (most - value) / (most - least) } else { 4.0 };
    let mut last = None;
    for (index, (name, value)) in points.iter().enumerate() {
        let Some(value) = *value else { continue };
        let at = (left + each * (index as f64 + 0.5), y(value));
        if let Some((x, y)) = last {
            chart.line(x, y, at.0, at.1, Tone::Ink);
        }
        chart.rect(at.0 - 2.5, at.1 - 2.5, 5.0, 5.0, Tone::Accent, format!("{name}: {}", unit(value)));
        last = Some(at);
    }
    names(&mut chart, points.iter().map(|(name, _)| name.as_str()), left, width);
    Some(chart)
}

/// Two lines with what they stand for; returns where the columns begin.
fn scale(chart: &mut Chart, top: &str, bottom: &str, width: f64) -> f64 {
    let needed = [top, bottom].map(|text| Font::Regular.width(text, SMALL) + 8.0);
    let left = needed.into_iter().fold(LEFT.0, f64::max).min(LEFT.1);
    for (y, text) in [(4.0, top), (4.0 + HEIGHT, bottom)] {
        chart.line(left, y, width, y, Tone::Grid);
        chart.text(left - 6.0, y + 3.0, Font::Regular.fit(text, SMALL, left - 8.0), SMALL, Tone::Muted, Anchor::End);
    }
    left
}

/// As many names below as there is room for, the newest among them.
fn names<'a>(chart: &mut Chart, names: impl Iterator<Item = &'a str>, left: f64, width: f64) {
    let names: Vec<&str> = names.collect();
    let each = (width - left) / names.len().max(1) as f64;
    let widest = names.iter().map(|name| Font::Regular.width(name, SMALL)).fold(1.0, f64::max) + 8.0;
    let step = (widest / each.max(0.1)).ceil().max(1.0) as usize;
    for (index, name) in names.iter().enumerate() {
        if (names.len() - 1 - index).is_multiple_of(step) {
            let half = Font::Regular.width(name, SMALL) / 2.0;
            let x = (left + each * (index as f64 + 0.5)).clamp(half, (width - half).max(half));
            chart.text(x, HEIGHT + 16.0, *name, SMALL, Tone::Muted, Anchor::Middle);
        }
    }
    chart.height = HEIGHT + 20.0;
}

/// A row per test: its name, and a mark per run. A failure is a tall mark and a pass a low one, so that colour is not
/// needed to tell them.
pub(super) fn strips(label: &str, rows: &[(String, String)], width: f64) -> Chart {
    const ROW: f64 = 17.0;
    const STEP: f64 = 10.0;
    let mut chart = Chart::new(width, label);
    let runs = rows.iter().map(|(_, letters)| letters.chars().count()).max().unwrap_or(0);
    let shown = runs.min((width * 0.5 / STEP) as usize);
    let left = width - shown as f64 * STEP;
    for (index, (name, letters)) in rows.iter().enumerate() {
        let y = index as f64 * ROW;
        let fitting = Font::Regular.fit_end(name, SIZE, left - 12.0);
        chart.text(0.0, y + 11.7, fitting, SIZE, Tone::Ink, Anchor::Start);
        for (place, letter) in letters.chars().skip(runs - shown).enumerate() {
            let (tone, height, word) = match letter {
                'p' => (Tone::Good, 5.0, "passed"),
                'f' | 'e' => (Tone::Bad, 13.0, "failed"),
                's' => (Tone::Warn, 5.0, "skipped"),
                _ => (Tone::Track, 2.0, "was not there"),
            };
            let x = left + place as f64 * STEP;
            chart.rect(x, y + ROW / 2.0 - height / 2.0, STEP - 2.5, height, tone, format!("{name} {word}"));
        }
    }
    chart.height = rows.len() as f64 * ROW;
    chart
}

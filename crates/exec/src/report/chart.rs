//! Charts as shapes on a plane, and the few kinds of chart that the report is made of.
//!
//! The same shapes become SVG in the page and vectors in the PDF. Invariant: everything lies within the chart's
//! width, whatever the labels and the values are. Lengths are in points; y grows downwards.

use super::font::Font;
use super::text::duration;

/// What a colour means; the page and the PDF each have their own set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Ink,
    Muted,
    Grid,
    /// The empty part of a bar.
    Track,
    Good,
    Bad,
    Warn,
    Accent,
    /// A second series.
    Second,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

#[derive(Debug, Clone)]
pub(super) enum Shape {
    /// `tip`: shown where the reader points.
    Rect {
        x: f64,
        y: f64,
        w: f64,
        h: f64,
        tone: Tone,
        tip: String,
    },
    Line {
        x1: f64,
        y1: f64,
        x2: f64,
        y2: f64,
        tone: Tone,
    },
    /// `y` is the base line.
    Text {
        x: f64,
        y: f64,
        text: String,
        size: f64,
        tone: Tone,
        anchor: Anchor,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Chart {
    pub width: f64,
    pub height: f64,
    /// What it shows, in words.
    pub label: String,
    pub shapes: Vec<Shape>,
}

pub(super) const SIZE: f64 = 9.5;
pub(super) const SMALL: f64 = 8.5;
const ROW: f64 = 17.0;
const BAR: f64 = 10.0;

impl Chart {
    pub fn new(width: f64, label: impl Into<String>) -> Self {
        Chart { width, height: 0.0, label: label.into(), shapes: Vec::new() }
    }

    pub(super) fn rect(&mut self, x: f64, y: f64, w: f64, h: f64, tone: Tone, tip: impl Into<String>) {
        self.shapes.push(Shape::Rect { x, y, w, h, tone, tip: tip.into() });
    }

    pub(super) fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, tone: Tone) {
        self.shapes.push(Shape::Line { x1, y1, x2, y2, tone });
    }

    pub(super) fn text(&mut self, x: f64, y: f64, text: impl Into<String>, size: f64, tone: Tone, anchor: Anchor) {
        self.shapes.push(Shape::Text { x, y, text: text.into(), size, tone, anchor });
    }

    /// A label in the row whose top is `y`, cut to `width`.
    fn label(&mut self, x: f64, y: f64, text: &str, width: f64) {
        let fitting = Font::Regular.fit(text, SIZE, width);
        self.text(x, y + ROW / 2.0 + 3.2, fitting, SIZE, Tone::Ink, Anchor::Start);
    }

    fn value(&mut self, x: f64, y: f64, text: &str, tone: Tone, anchor: Anchor) {
        self.text(x, y + ROW / 2.0 + 3.2, text, SMALL, tone, anchor);
    }
}

/// A stretch of time in a lane.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub start: f64,
    pub end: f64,
    pub tone: Tone,
    pub tip: String,
}

/// When things happened: a lane per thing, seconds to the right.
pub(super) fn timeline(label: &str, lanes: &[(String, Vec<Span>)], total: f64, width: f64) -> Chart {
    let mut chart = Chart::new(width, label);
    let names = label_width(lanes.iter().map(|(name, _)| name.as_str()), width * 0.34);
    let left = names + 10.0;
    let total = total.max(0.001);
    let taken =
        |spans: &[Span]| duration(spans.iter().map(|s| s.end.clamp(0.0, total) - s.start.clamp(0.0, total)).sum());
    let right = lanes.iter().map(|(_, spans)| Font::Regular.width(&taken(spans), SMALL)).fold(24.0, f64::max) + 6.0;
    let scale = (width - left - right) / total;
    let bottom = lanes.len() as f64 * ROW;
    let ticks = ticks(total, ((width - left - right) / 70.0).floor().max(1.0));
    for tick in &ticks {
        let x = left + tick * scale;
        chart.line(x, 0.0, x, bottom + 3.0, Tone::Grid);
        let anchor = if *tick == 0.0 { Anchor::Start } else { Anchor::Middle };
        chart.text(x, bottom + 13.0, duration(*tick).replace(".0 s", " s"), SMALL, Tone::Muted, anchor);
    }
    for (index, (name, spans)) in lanes.iter().enumerate() {
        let y = index as f64 * ROW;
        chart.label(0.0, y, name, names);
        let mut end = left;
        for span in spans {
            let x = left + span.start.clamp(0.0, total) * scale;
            // Even the shortest is seen.
            let w = ((span.end.clamp(0.0, total) - span.start.clamp(0.0, total)) * scale).max(1.5);
            chart.rect(x, y + (ROW - BAR) / 2.0, w, BAR, span.tone, span.tip.clone());
            end = f64::max(end, x + w);
        }
        if !spans.is_empty() {
            chart.value(end + 5.0, y, &taken(spans), Tone::Muted, Anchor::Start);
        }
    }
    chart.height = bottom + 18.0;
    chart
}

/// A horizontal bar.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub label: String,
    pub value: f64,
    /// The value as it is written behind the bar.
    pub text: String,
    pub tone: Tone,
    pub tip: String,
}

/// Bars below each other; `full` is the value of the longest possible one, and with `track` that length is shown.
pub(super) fn bars(label: &str, bars: &[Bar], full: f64, track: bool, width: f64) -> Chart {
    let mut chart = Chart::new(width, label);
    let names = label_width(bars.iter().map(|bar| bar.label.as_str()), width * 0.46);
    let values = bars.iter().map(|bar| Font::Regular.width(&bar.text, SMALL)).fold(0.0, f64::max);
    let left = names + 10.0;
    let room = (width - left - values - 7.0).max(10.0);
    for (index, bar) in bars.iter().enumerate() {
        let y = index as f64 * ROW;
        chart.label(0.0, y, &bar.label, names);
        let share = if full > 0.0 { (bar.value / full).clamp(0.0, 1.0) } else { 0.0 };
        let top = y + (ROW - BAR) / 2.0;
        if track {
            chart.rect(left, top, room, BAR, Tone::Track, bar.tip.clone());
        }
        if bar.value > 0.0 {
            chart.rect(left, top, (room * share).max(1.0), BAR, bar.tone, bar.tip.clone());
        }
        chart.value(width, y, &bar.text, Tone::Muted, Anchor::End);
    }
    chart.height = bars.len() as f64 * ROW;
    chart
}

/// One bar cut in parts, with what each part is below it.
pub(super) fn parts(label: &str, parts: &[(&str, usize, Tone)], width: f64) -> Chart {
    let mut chart = Chart::new(width, label);
    let total: usize = parts.iter().map(|(_, count, _)| count).sum();
    let height = 16.0;
    chart.rect(0.0, 0.0, width, height, Tone::Track, "");
    let shown: Vec<_> = parts.iter().filter(|(_, count, _)| *count > 0).collect();
    // Even one of many thousands is seen.
    let least = 3.0;
    let spare = width - least * shown.len() as f64;
    let (mut x, mut legend) = (0.0, 0.0);
    for (name, count, tone) in shown {
        let w = least + spare * *count as f64 / total as f64;
        chart.rect(x, 0.0, w, height, *tone, format!("{name}: {count}"));
        x += w;
        let text = format!("{count} {name}");
        chart.rect(legend, height + 11.0, 8.0, 8.0, *tone, "");
        chart.text(legend + 12.0, height + 18.5, text.clone(), SIZE, Tone::Ink, Anchor::Start);
        legend += Font::Regular.width(&text, SIZE) + 30.0;
    }
    chart.height = height + 24.0;
    chart
}

/// A value in a column of [`columns`]: its share of the column's longest bar, a mark for a highest value, a text.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub share: f64,
    pub mark: Option<f64>,
    pub text: String,
}

/// Several figures of the same things, side by side; on a narrow plane in blocks of two below each other.
pub(super) fn columns(label: &str, heads: &[(&str, Tone)], rows: &[(String, Vec<Option<Cell>>)], width: f64) -> Chart {
    const HEAD: f64 = 16.0;
    let mut chart = Chart::new(width, label);
    let names = label_width(rows.iter().map(|(name, _)| name.as_str()), width * 0.26);
    let abreast = if width < 400.0 { 2 } else { heads.len().max(1) };
    let each = (width - names - 10.0) / abreast as f64;
    for (block, heads) in heads.chunks(abreast).enumerate() {
        let top = chart.height + if block > 0 { 12.0 } else { 0.0 };
        for (place, (name, _)) in heads.iter().enumerate() {
            let x = names + 10.0 + each * place as f64;
            let fitting = Font::Regular.fit(name, SMALL, each - 6.0);
            chart.text(x, top + 10.0, fitting, SMALL, Tone::Muted, Anchor::Start);
        }
        for (index, (name, cells)) in rows.iter().enumerate() {
            let y = top + HEAD + index as f64 * ROW;
            chart.label(0.0, y, name, names);
            let cells = cells.iter().skip(block * abreast);
            for (place, (cell, (_, tone))) in cells.zip(heads).enumerate() {
                chart.cell(names + 10.0 + each * place as f64, y, each - 14.0, cell.as_ref(), *tone);
            }
        }
        chart.height = top + HEAD + rows.len() as f64 * ROW;
    }
    chart
}

impl Chart {
    fn cell(&mut self, x: f64, y: f64, width: f64, cell: Option<&Cell>, tone: Tone) {
        const VALUE: f64 = 44.0;
        let Some(cell) = cell else { return self.value(x, y, "–", Tone::Muted, Anchor::Start) };
        let room = (width - VALUE).max(8.0);
        let top = y + (ROW - BAR) / 2.0;
        self.rect(x, top, room, BAR, Tone::Track, "");
        self.rect(x, top, (room * cell.share.clamp(0.0, 1.0)).max(1.0), BAR, tone, cell.text.clone());
        if let Some(mark) = cell.mark {
            let at = x + room * mark.clamp(0.0, 1.0);
            self.line(at, top - 1.5, at, top + BAR + 1.5, Tone::Ink);
        }
        self.value(x + room + 5.0, y, &cell.text, Tone::Muted, Anchor::Start);
    }
}

fn label_width<'a>(labels: impl Iterator<Item = &'a str>, most: f64) -> f64 {
    labels.map(|label| Font::Regular.width(label, SIZE)).fold(20.0, f64::max).min(most)
}

/// Round times from 0 to `total`, at most `most` of them after 0.
fn ticks(total: f64, most: f64) -> Vec<f64> {
    const STEPS: [f64; 16] =
        [0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0];
    let hours = (total / most / 3600.0).ceil() * 3600.0;
    let step = STEPS.iter().copied().find(|step| total / step <= most).unwrap_or(hours);
    (0..).map(|i| f64::from(i) * step).take_while(|tick| *tick <= total).collect()
}

#[cfg(test)]
mod tests {
    use super::super::over_runs::{Column, levels, stacks, strips};
    use super::*;

    #[test]
    fn everything_stays_within_the_width() {
        let long = "a very long label ".repeat(20);
        let span = Span { start: -5.0, end: 1e9, tone: Tone::Good, tip: String::new() };
        let bar = Bar {
            label: long.clone(),
            value: 9e9,
            text: "12,345,678 of many".into(),
            tone: Tone::Accent,
            tip: String::new(),
        };
        let cell = Cell { share: 7.0, mark: Some(9.0), text: "99.9 GiB".into() };
        let column = |i: i32| Column {
            label: (i * 1000).to_string(),
            parts: vec![(9e9, Tone::Good), (1.0, Tone::Bad)],
            tip: "".into(),
        };
        let many: Vec<Column> = (0..60).map(column).collect();
        for width in [280.0, 640.0] {
            let charts = [
                timeline("t", &[(long.clone(), vec![span.clone()])], 100.0, width),
                bars("b", std::slice::from_ref(&bar), 1.0, true, width),
                parts("p", &[("failed", 1, Tone::Bad), ("passed", 1_000_000, Tone::Good)], width),
                stacks("s", &many, |_| "a long scale".into(), width),
                levels(
                    "l",
                    &[(long.clone(), Some(1.0)), ("2".into(), None), ("3".into(), Some(2.0))],
                    |v| v.to_string(),
                    width,
                )
                .unwrap(),
                strips("o", &[(long.clone(), "pfes-".repeat(20))], width),
                columns(
                    "c",
                    &[("CPU", Tone::Accent), ("GPU", Tone::Second)],
                    &[(long.clone(), vec![Some(cell.clone()), None])],
                    width,
                ),
            ];
            for chart in charts {
                for shape in &chart.shapes {
                    let (from, to) = match shape {
                        Shape::Rect { x, w, .. } => (*x, x + w),
                        Shape::Line { x1, x2, .. } => (*x1, *x2),
                        Shape::Text { x, text, size, anchor, .. } => {
                            let w = Font::Regular.width(text, *size);
                            match anchor {
                                Anchor::Start => (*x, x + w),
                                Anchor::Middle => (x - w / 2.0, x + w / 2.0),
                                Anchor::End => (x - w, *x),
                            }
                        }
                    };
                    assert!(from >= -0.01 && to <= width + 0.01, "{} at {width}: {shape:?}", chart.label);
                }
            }
        }
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(7.0, 5.0), [0.0, 2.0, 4.0, 6.0]);
        assert_eq!(ticks(200.0, 8.0), [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 180.0]);
        assert!(ticks(1e7, 6.0).len() <= 7);
    }
}

//! Charts as SVG inside the page. Colours are classes, so that they follow the page's light or dark set.

use std::fmt::Write;

use super::chart::{Anchor, Chart, Shape, Tone};
use super::font::Font;

fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Ink => "ink",
        Tone::Muted => "muted",
        Tone::Grid => "grid",
        Tone::Track => "track",
        Tone::Good => "good",
        Tone::Bad => "bad",
        Tone::Warn => "warn",
        Tone::Accent => "accent",
        Tone::Second => "second",
    }
}

/// `text` with nothing in it that means something to HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

pub(super) fn draw(chart: &Chart) -> String {
    let Chart { width, height, .. } = chart;
    let label = escaped(&chart.label);
    let mut out = format!("<svg viewBox=\"0 0 {width:.0} {height:.1}\" role=\"img\" aria-label=\"{label}\">");
    for shape in &chart.shapes {
        // Writing to a string does not fail.
        let _ = match shape {
            Shape::Rect { x, y, w, h, tone, tip } => {
                let class = class(*tone);
                let rect = format!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" rx=\"2\" class=\"{class}\""
                );
                match tip.is_empty() {
                    true => write!(out, "{rect}/>"),
                    false => write!(out, "{rect}><title>{}</title></rect>", escaped(tip)),
                }
            }
            Shape::Line { x1, y1, x2, y2, tone } => {
                let class = class(*tone);
                write!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"{class}\"/>")
            }
            Shape::Text { x, y, text, size, tone, anchor } => {
                let anchor = match anchor {
                    Anchor::Start => "",
                    Anchor::Middle => " text-anchor=\"middle\"",
                    Anchor::End => " text-anchor=\"end\"",
                };
                // The length that the layout counts on: a reader's own font may be wider.
                let length = Font::Regular.width(text, *size);
                let (class, text) = (class(*tone), escaped(text));
                write!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" class=\"{class}\"{anchor} ").and_then(
                    |()| write!(out, "textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\">{text}</text>"),
                )
            }
        };
    }
    out.push_str("</svg>");
    out
}

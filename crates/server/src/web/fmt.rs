//! States, times, durations and sizes as the pages show them.
//!
//! What these return as HTML is made of fixed words and numbers, so the templates take it as it is. A time is written
//! in UTC; the script of the page turns it into the reader's own clock.

use std::fmt::Display;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use serde_json::Value;

/// The sign of a state: a shape and a colour, each telling on its own. With the word for those who do not see it.
pub fn icon(state: &str) -> String {
    let state = known(state);
    let word = words(state);
    format!(
        r##"<svg class="st s-{state}" role="img" aria-label="{word}"><title>{word}</title><use href="#s-{state}"/></svg>"##
    )
}

/// The sign of a state where words beside it, or those of its link, tell the same.
pub fn mark(state: &str) -> String {
    let state = known(state);
    format!(r##"<svg class="st s-{state}" aria-hidden="true"><use href="#s-{state}"/></svg>"##)
}

/// The sign of a state with its word beside it.
pub fn badge(state: &str) -> String {
    format!(r##"<span class="badge s-{}">{}{}</span>"##, known(state), mark(state), words(state))
}

/// The states that have a sign; anything else is shown as none.
fn known(state: &str) -> &'static str {
    let all = crate::view::STATES.into_iter().chain(["cancelled"]);
    all.into_iter().find(|name| *name == state).unwrap_or("none")
}

/// The word for a state in a sentence.
pub fn words(state: &str) -> &'static str {
    match known(state) {
        "none" => "waiting",
        "upstream_failed" => "upstream failed",
        "up_for_retry" => "up for retry",
        "up_for_reschedule" => "looks again later",
        state => state,
    }
}

/// A moment; the page's script shows how long ago, or in how long, it is.
pub fn time(at: &Timestamp) -> String {
    format!(r#"<time datetime="{at}" data-ago>{}</time>"#, at.strftime("%d %b %H:%M"))
}

pub fn time_or_dash(at: &Option<Timestamp>) -> String {
    at.as_ref().map_or_else(dash, time)
}

/// A moment to the second, for the facts of one thing.
pub fn clock(at: &Timestamp) -> String {
    format!(r#"<time datetime="{at}" data-clock>{}</time>"#, at.strftime("%Y-%m-%d %H:%M:%S UTC"))
}

fn dash() -> String {
    r#"<span class="dim">–</span>"#.to_owned()
}

/// From `start` to `end`, or counting while there is no end.
pub fn elapsed(start: &Option<Timestamp>, end: &Option<Timestamp>, is_open: bool) -> String {
    match (start, end) {
        (Some(start), Some(end)) => duration(end.duration_since(*start)),
        (Some(start), None) if is_open => {
            format!(
                r#"<time datetime="{start}" data-since class="ticking">since {}</time>"#,
                start.strftime("%H:%M:%S")
            )
        }
        _ => dash(),
    }
}

pub fn run_elapsed(run: &RunRecord) -> String {
    elapsed(&run.start, &run.end, !run.state.is_final())
}

pub fn row_elapsed(row: &InstanceRecord) -> String {
    elapsed(&row.start, &row.end, row.state.is_live())
}

/// A duration in its two largest units: `350 ms`, `4.2 s`, `3 min 20 s`, `2 h 5 min`.
pub fn duration(of: SignedDuration) -> String {
    let ms = of.as_millis().max(0);
    let (s, m, h) = (ms / 1000, ms / 60_000, ms / 3_600_000);
    match () {
        () if ms < 1000 => format!("{ms} ms"),
        () if s < 10 => format!("{}.{} s", s, ms % 1000 / 100),
        () if s < 60 => format!("{s} s"),
        () if m < 60 => format!("{m} min {} s", s % 60),
        () if h < 48 => format!("{h} h {} min", m % 60),
        () => format!("{} d {} h", h / 24, h % 24),
    }
}

pub fn bytes(count: &u64) -> String {
    let mut value = *count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// An amount of energy.
pub fn watt_hours(wh: f64) -> String {
    if wh >= 1000.0 { format!("{:.2} kWh", wh / 1000.0) } else { format!("{wh:.1} Wh") }
}

/// A sentence with its names between backticks as code; the rest is escaped as the templates do it.
pub fn ticks(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 16);
    for (at, part) in text.split('`').enumerate() {
        // A backtick without its partner stands for itself.
        let is_code = at % 2 == 1 && html.matches("<code>").count() < text.matches('`').count() / 2;
        let part = part.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;").replace('"', "&#34;");
        match (is_code, at % 2) {
            (true, _) => html.push_str(&format!("<code>{part}</code>")),
            (false, 1) => html.push_str(&format!("`{part}")),
            _ => html.push_str(&part),
        }
    }
    html
}

/// The end of a message: what went wrong, and the exit code that follows it.
pub fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().rev().map(str::trim).filter(|line| !line.is_empty()).take(2).collect();
    lines.reverse();
    crate::rest::short(&Value::String(lines.join(" · ")), 160)
}

/// A JSON value on one line, or cut; a text stands without quotes. Not escaped: for templates to print.
pub fn value(value: &Value) -> String {
    crate::rest::short(value, 400)
}

pub fn pretty(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => serde_json::to_string_pretty(other).unwrap_or_default(),
    }
}

/// The first characters of a hash.
pub fn short_hash(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// `1 task`, `2 tasks`.
pub fn count(number: &u64, word: &str) -> String {
    if *number == 1 { format!("1 {word}") } else { format!("{} {word}s", grouped(*number)) }
}

/// `12 345`, with thin spaces that do not break.
pub fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let show = |ms| duration(SignedDuration::from_millis(ms));
        let shown = [0, 999, 4_250, 59_999, 200_000, 7_500_000, 200_000_000].map(show);
        assert_eq!(shown, ["0 ms", "999 ms", "4.2 s", "59 s", "3 min 20 s", "2 h 5 min", "2 d 7 h"]);
    }

    #[test]
    fn a_state_that_is_not_known_cannot_bring_html_along() {
        assert!(!icon("<script>").contains("<script>"));
        assert_eq!(
            ticks("waits for `<b>` & `c`, not `d"),
            "waits for <code>&#60;b&#62;</code> &#38; <code>c</code>, not `d"
        );
    }

    #[test]
    fn numbers_and_sizes() {
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(&512), "512 B");
        assert_eq!(bytes(&(3 << 20)), "3.0 MiB");
    }
}

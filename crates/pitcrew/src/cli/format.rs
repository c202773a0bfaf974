//! States, times and durations as people read them.

use jiff::Timestamp;
use pitcrew_core::state::{RunState, State};

pub use pitcrew_control::words::{count, duration, instance, plural};

use super::ui::Paint;

/// A sign that tells a state without colour.
pub fn sign(state: &str) -> &'static str {
    match state {
        "success" => "✓",
        "failed" => "✗",
        "cancelled" => "■",
        "running" => "●",
        "queued" | "scheduled" => "○",
        "skipped" | "removed" => "↷",
        "upstream_failed" => "⊘",
        "up_for_retry" | "up_for_reschedule" | "deferred" | "recovering" => "↻",
        _ => "·",
    }
}

/// Tints a text as the state's colour is everywhere.
pub fn tint(paint: Paint, state: &str, text: &str) -> String {
    match state {
        "success" => paint.green(text),
        "failed" => paint.red(text),
        "cancelled" | "upstream_failed" | "up_for_retry" | "up_for_reschedule" | "recovering" => paint.yellow(text),
        "running" => paint.cyan(text),
        _ => paint.dim(text),
    }
}

/// `✓ success`.
pub fn run_state(state: RunState) -> String {
    format!("{} {}", sign(state.name()), state.name())
}

/// `✓ success`.
pub fn task_state(state: State) -> String {
    format!("{} {}", sign(state.name()), state.name())
}

/// Tints every `✓ success` and its like in a finished line; a sign stands before no other word.
pub fn tint_states(paint: Paint, line: &str) -> String {
    const STATES: [&str; 14] = [
        "success",
        "failed",
        "cancelled",
        "running",
        "queued",
        "scheduled",
        "skipped",
        "removed",
        "upstream_failed",
        "up_for_retry",
        "up_for_reschedule",
        "deferred",
        "recovering",
        "none",
    ];
    if !paint.on {
        return line.to_owned();
    }
    STATES.into_iter().fold(line.to_owned(), |line, state| {
        let text = format!("{} {state}", sign(state));
        if line.contains(&text) { line.replace(&text, &tint(paint, state, &text)) } else { line }
    })
}

/// From one time to the other, or nothing.
pub fn span(start: Option<Timestamp>, end: Option<Timestamp>) -> String {
    match (start, end) {
        (Some(start), Some(end)) => duration(end.duration_since(start)),
        _ => String::new(),
    }
}

/// `just now`, `5 m ago`, `in 2 h`; a date when it is far.
pub fn relative(at: Timestamp, now: Timestamp) -> String {
    let passed = now.duration_since(at).as_secs();
    let amount = match passed.abs() {
        0..=4 => return "just now".to_owned(),
        s @ 5..=59 => format!("{s} s"),
        s @ 60..=3599 => format!("{} m", s / 60),
        s @ 3600..=86_399 => format!("{} h", s / 3600),
        s @ 86_400..=604_799 => format!("{} d", s / 86_400),
        _ => return local(at).strftime("%Y-%m-%d %H:%M").to_string(),
    };
    if passed > 0 { format!("{amount} ago") } else { format!("in {amount}") }
}

/// `in 5 s`; `now` for what is due.
pub fn until(at: Timestamp, now: Timestamp) -> String {
    match at.duration_since(now).as_secs() {
        ..=0 => "now".to_owned(),
        1..=59 => format!("in {} s", at.duration_since(now).as_secs()),
        _ => relative(at, now),
    }
}

fn local(at: Timestamp) -> jiff::Zoned {
    at.to_zoned(jiff::tz::TimeZone::system())
}

/// `12:00:01` on this machine's clock.
pub fn clock_time(at: Timestamp) -> String {
    local(at).strftime("%H:%M:%S").to_string()
}

/// `2026-01-02 12:00:01` on this machine's clock.
pub fn date_time(at: Timestamp) -> String {
    local(at).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A stranger's text made fit for one line of a terminal: no control characters, no escape sequences.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            // `ESC [ … letter`; of other sequences only the escape goes, and the rest shows what it is.
            '\x1b' => {
                if chars.clone().next() == Some('[') {
                    chars.find(|c| c.is_ascii_alphabetic());
                }
            }
            '\t' => out.push(' '),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn durations_and_times_are_short_and_never_negative() {
        let text = |ms| duration(SignedDuration::from_millis(ms));
        assert_eq!(
            [-5, 0, 34, 999, 1_234, 59_999, 65_000, 3_660_000, 97_200_000].map(text),
            ["0 ms", "0 ms", "34 ms", "0.9 s", "1.2 s", "59.9 s", "1 m 05 s", "1 h 01 m", "1 d 3 h"]
        );
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let ago = |s| relative(now - SignedDuration::from_secs(s), now);
        assert_eq!([1, 59, 120, -7200, 259_200].map(ago), ["just now", "59 s ago", "2 m ago", "in 2 h", "3 d ago"]);
        assert_eq!([0, 999, 5_000, 1_234_567].map(count), ["0", "999", "5,000", "1,234,567"]);
    }

    #[test]
    fn a_log_line_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\x1b[31mred\x1b[0m\r\tb\x07\x1b]0;t"), "ared b]0;t");
    }
}

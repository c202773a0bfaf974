//! Searching a log on the server: a log may be larger than what a browser holds.
//!
//! One answer costs a bounded amount of reading and of matches; it says where to go on. No more than a part of the log
//! is in memory.

use std::time::Duration;

use pitcrew_control::app::App;
use pitcrew_core::engine::record::AttemptRecord;
use tokio::time::Instant;

use super::ansi;
use super::log::length;
use crate::error::ApiResult;

/// Matches in one answer.
const MATCHES: usize = 200;
/// Bytes of a log that are read at once.
const CHUNK: usize = 1 << 20;
/// How long one answer may be looked for.
const LONGEST: Duration = Duration::from_secs(2);
/// Characters shown before and after what was found.
const AROUND: usize = 80;

/// A line that holds what is searched.
pub struct Hit {
    /// Where it begins in the log, in bytes.
    pub at: u64,
    pub before: String,
    pub found: String,
    pub after: String,
}

/// What was found in a part of a log.
pub struct Hits {
    pub query: String,
    pub rows: Vec<Hit>,
    /// Where to go on, and how much of the log lies before it in percent; none: this was the end.
    pub next: Option<(u64, u64)>,
}

/// Looks for a text, whatever its case, from an offset on.
pub async fn find(app: &App, attempt: &AttemptRecord, query: &str, from: u64) -> ApiResult<Hits> {
    let wanted = query.to_lowercase();
    let until = Instant::now() + LONGEST;
    let written = length(app, attempt).await;
    let mut rows = Vec::new();
    let mut offset = from;
    loop {
        let chunk = app.logs(attempt, offset, CHUNK).await?;
        let is_end = chunk.next_offset <= offset;
        offset = chunk.next_offset;
        for record in &chunk.records {
            if rows.len() == MATCHES {
                return Ok(Hits { query: query.to_owned(), rows, next: next(record.offset, written) });
            }
            rows.extend(hit(record.offset, &record.text, &wanted));
        }
        if is_end || chunk.ended {
            return Ok(Hits { query: query.to_owned(), rows, next: None });
        }
        if Instant::now() > until {
            return Ok(Hits { query: query.to_owned(), rows, next: next(offset, written) });
        }
    }
}

fn next(offset: u64, written: u64) -> Option<(u64, u64)> {
    Some((offset, 100 * offset / written.max(1)))
}

fn hit(at: u64, text: &str, wanted: &str) -> Option<Hit> {
    // Most lines hold nothing; only of those that do is the case, which may change a text's length, looked at closely.
    if wanted.is_ascii() && !contains_ignoring_case(text.as_bytes(), wanted.as_bytes()) {
        return None;
    }
    let plain = ansi::plain(text);
    let chars: Vec<char> = plain.chars().collect();
    let lower: Vec<char> = chars.iter().map(|c| c.to_lowercase().next().unwrap_or(*c)).collect();
    let wanted: Vec<char> = wanted.chars().collect();
    let start = lower.windows(wanted.len().max(1)).position(|window| window == wanted)?;
    let end = start + wanted.len();
    let text = |from: usize, to: usize| chars[from..to].iter().collect::<String>();
    let (first, last) = (start.saturating_sub(AROUND), (end + AROUND).min(chars.len()));
    let dots = |cut: bool| if cut { "…" } else { "" };
    Some(Hit {
        at,
        before: format!("{}{}", dots(first > 0), text(first, start)),
        found: text(start, end),
        after: format!("{}{}", text(end, last), dots(last < chars.len())),
    })
}

fn contains_ignoring_case(text: &[u8], wanted: &[u8]) -> bool {
    let Some(first) = wanted.first() else { return true };
    let starts = text.iter().enumerate().filter(|(_, byte)| byte.eq_ignore_ascii_case(first));
    starts
        .into_iter()
        .any(|(at, _)| text.get(at..at + wanted.len()).is_some_and(|part| part.eq_ignore_ascii_case(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_is_found_whatever_its_case_and_shown_with_what_is_around_it() {
        let found = hit(7, "\u{1b}[31mERROR\u{1b}[0m: <disk> full", "error").unwrap();
        assert_eq!((found.at, found.before.as_str(), found.found.as_str()), (7, "", "ERROR"));
        assert_eq!(found.after, ": <disk> full");
        let long = format!("{}Größe{}", "x".repeat(500), "y".repeat(500));
        let found = hit(0, &long, "grösse".replace("ss", "ß").as_str()).unwrap();
        assert_eq!(found.found, "Größe");
        assert_eq!(found.before.chars().count(), AROUND + 1);
        assert!(hit(0, "nothing", "error").is_none() && hit(0, "", "e").is_none());
    }
}

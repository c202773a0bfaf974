//! What is wrong with a source file, said so that its author can mend it: where, what, and what was probably meant.
//!
//! A [`Diagnostic`] stands on its own: it carries the line it points at, so it can be stored and shown when the
//! source is gone. Lines and columns count from 1, columns in characters.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// Problems beyond this many in one file are counted, not listed.
pub const MAX_LISTED: usize = 50;

/// The longest stretch of a source line that is shown, in characters.
const MAX_EXCERPT: usize = 160;

/// What is kept of a source line, in characters.
const MAX_LINE: u32 = 4_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Error,
    Warning,
}

/// One problem of a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub file: String,
    /// From 1; 0 when the problem has no place.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// How many characters to underline; at least 1.
    pub length: u32,
    pub severity: Severity,
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The source line.
    pub excerpt: String,
}

impl Diagnostic {
    /// `file:line:column: error: message`, the line with a mark under the place, and the hint. Ends with a line break.
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &'static str| if colour { code } else { "" };
        let (bold, dim, reset, cyan) = (paint("\x1b[1m"), paint("\x1b[2m"), paint("\x1b[0m"), paint("\x1b[36m"));
        let (word, tint) = match self.severity {
            Severity::Error => ("error", paint("\x1b[1;31m")),
            Severity::Warning => ("warning", paint("\x1b[1;33m")),
        };
        let mut out = String::new();
        let place = if self.line == 0 { String::new() } else { format!(":{}:{}", self.line, self.column) };
        let _ = writeln!(out, "{bold}{}{place}:{reset} {tint}{word}:{reset} {bold}{}{reset}", self.file, self.message);
        if self.line > 0 && !self.excerpt.trim().is_empty() {
            let (text, column, length) = self.window();
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let _ = writeln!(out, "{dim}{margin} |{reset}");
            let _ = writeln!(out, "{dim}{number} |{reset} {text}");
            let _ = writeln!(
                out,
                "{dim}{margin} |{reset} {}{tint}{}{reset}",
                " ".repeat(column),
                "^".repeat(length.max(1))
            );
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "{cyan}hint:{reset} {hint}");
        }
        out
    }

    /// The part of the line to show, and the mark's place in it. Tabs and control characters become spaces, so that
    /// the mark stands right and a file cannot steer a terminal.
    fn window(&self) -> (String, usize, usize) {
        let chars: Vec<char> = self.excerpt.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let column = (self.column.max(1) as usize - 1).min(chars.len());
        let start = if column > MAX_EXCERPT * 3 / 4 { column - MAX_EXCERPT / 2 } else { 0 };
        let end = chars.len().min(start + MAX_EXCERPT);
        let mut text = String::new();
        let mut shift = 0;
        if start > 0 {
            text.push('…');
            shift = 1;
        }
        text.extend(&chars[start..end]);
        if end < chars.len() {
            text.push('…');
        }
        let length = (self.length as usize).min(end.saturating_sub(column)).max(1);
        (text.trim_end().to_owned(), column - start + shift, length)
    }
}

/// All of them, an empty line between two.
pub fn render_all(diagnostics: &[Diagnostic], colour: bool) -> String {
    diagnostics.iter().map(|d| d.render(colour)).collect::<Vec<_>>().join("\n")
}

/// A stretch of the source: line and column of its first character, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters; at least 1 when shown.
    pub length: u32,
}

/// Collects the problems of one source text.
#[derive(Debug)]
pub(crate) struct Reporter<'s> {
    file: String,
    source: &'s str,
    /// Byte offsets of the lines' first characters; made when first asked for.
    lines: std::cell::OnceCell<Vec<usize>>,
    found: Vec<Diagnostic>,
    errors: usize,
}

impl<'s> Reporter<'s> {
    pub fn new(file: &str, source: &'s str) -> Self {
        Reporter { file: file.to_owned(), source, lines: std::cell::OnceCell::new(), found: Vec::new(), errors: 0 }
    }

    pub fn error(&mut self, at: Place, message: impl Into<String>) {
        self.add(Severity::Error, at, message.into(), None);
    }

    pub fn error_hint(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, at, message.into(), Some(hint.into()));
    }

    /// What stands there may be a secret, so its line is not shown.
    pub fn error_unshown(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, at, message.into(), Some(hint.into()));
        self.found.iter_mut().filter(|one| one.line == at.line).for_each(|one| one.excerpt.clear());
    }

    /// With a hint if there is one.
    pub fn error_maybe(&mut self, at: Place, message: impl Into<String>, hint: Option<String>) {
        self.add(Severity::Error, at, message.into(), hint);
    }

    pub fn warning_hint(&mut self, at: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, at, message.into(), Some(hint.into()));
    }

    /// Further problems are only counted; no need to think about hints.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_LISTED
    }

    pub fn errors(&self) -> usize {
        self.errors
    }

    fn add(&mut self, severity: Severity, at: Place, message: String, hint: Option<String>) {
        if severity == Severity::Error {
            self.errors += 1;
        }
        if self.is_full() {
            return;
        }
        // The end of an endless line is not shown.
        let line = self.line(at.line).chars();
        let excerpt = if at.column > MAX_LINE { String::new() } else { line.take(MAX_LINE as usize).collect() };
        let file = self.file.clone();
        let place = Place { length: at.length.max(1), ..at };
        let Place { line, column, length } = place;
        let diagnostic = Diagnostic { file, line, column, length, severity, message, hint, excerpt };
        if !self.found.contains(&diagnostic) {
            self.found.push(diagnostic);
        }
    }

    /// The text of a line, without its break; empty for a line that is not there.
    pub fn line(&self, number: u32) -> &'s str {
        let start = self.offset(number);
        let rest = &self.source[start..];
        if number == 0 { "" } else { rest.split(['\n', '\r']).next().unwrap_or("") }
    }

    /// The byte offset of a line's first character.
    fn offset(&self, line: u32) -> usize {
        let lines = self
            .lines
            .get_or_init(|| std::iter::once(0).chain(self.source.match_indices('\n').map(|(at, _)| at + 1)).collect());
        lines.get((line as usize).saturating_sub(1)).copied().unwrap_or(self.source.len())
    }

    /// Where the `nth` (from 0) occurrence of `snippet` after `from` is, in the next `within` bytes.
    pub fn locate(&self, from: Place, snippet: &str, nth: usize, within: usize) -> Option<Place> {
        let line_start = self.offset(from.line);
        let skip = (from.column as usize).saturating_sub(1);
        let start = line_start + self.source[line_start..].chars().take(skip).map(char::len_utf8).sum::<usize>();
        let mut end = (start + within).min(self.source.len());
        while !self.source.is_char_boundary(end) {
            end += 1;
        }
        let (at, _) = self.source[start..end].match_indices(snippet).nth(nth)?;
        let before = &self.source[..start + at];
        let line = from.line + self.source[start..start + at].matches('\n').count() as u32;
        let column = before[before.rfind('\n').map_or(0, |n| n + 1)..].chars().count() as u32 + 1;
        let length = snippet.split('\n').next().unwrap_or("").chars().count() as u32;
        Some(Place { line, column, length })
    }

    /// Errors and warnings, by place; where there are too many, the last says how many were left out.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column));
        let shown = self.found.iter().filter(|d| d.severity == Severity::Error).count();
        if self.errors > shown && self.is_full() {
            let message = format!("… and {} more errors", self.errors - shown);
            self.found.push(Diagnostic {
                file: self.file,
                line: 0,
                column: 0,
                length: 1,
                severity: Severity::Error,
                message,
                hint: Some("mend the ones above first; the rest often come from them".into()),
                excerpt: String::new(),
            });
        }
        self.found
    }
}

/// The candidate that `word` was probably meant to be.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let lower = word.to_lowercase();
    let allowed = match lower.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        n => n / 3 + 1,
    };
    let mut best: Option<(usize, &str)> = None;
    // More names than this are not looked through: a hint is not worth a wait.
    for candidate in candidates.into_iter().take(20_000) {
        if candidate.len().abs_diff(word.len()) > allowed {
            continue;
        }
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        // Two short words with no letter in common are not a slip of the hand.
        if distance <= allowed && distance < lower.chars().count() && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `did you mean …?` for the closest candidate.
pub(crate) fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    closest(word, candidates).map(|found| format!("did you mean `{found}`?"))
}

/// `` `a`, `b` and `c` ``, at most twenty of them.
pub(crate) fn listing<'c>(words: impl IntoIterator<Item = &'c str>, joiner: &str) -> String {
    let words: Vec<String> = words.into_iter().map(|w| format!("`{w}`")).collect();
    if words.len() > 20 {
        return format!("{}, … ({} in all)", words[..20].join(", "), words.len());
    }
    match words.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {joiner} {last}", rest.join(", ")),
    }
}

/// The hint for an unknown name: the closest one, else all there are.
pub(crate) fn meant_or_known(word: &str, candidates: &[&str], what: &str) -> Option<String> {
    did_you_mean(word, candidates.iter().copied()).or_else(|| match candidates.len() {
        0 => None,
        1..=30 => Some(format!("{what}: {}", listing(candidates.iter().copied(), "and"))),
        _ => None,
    })
}

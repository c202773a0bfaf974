//! Reads the sections of `pitcrew.yaml` that are more than one value: mappings whose keys are known, with every
//! mistake told at its place.
//!
//! A reader reports and goes on, so that one pass finds every problem; `None` means that it was reported, or is absent.

use jiff::SignedDuration;
use pitcrew_lang::diagnostic::{Place, closest};
use pitcrew_lang::yaml::{Entry, Node};
use pitcrew_lang::{Diagnostic, Severity, parse_duration};

/// Collects the problems of one file.
pub struct Reader<'a> {
    file: &'a str,
    source: &'a str,
    problems: Vec<Diagnostic>,
}

/// A mapping whose keys are among those that are known.
#[derive(Clone, Copy)]
pub struct Section<'n> {
    pub node: &'n Node,
    entries: &'n [Entry],
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a str, source: &'a str) -> Self {
        Reader { file, source, problems: Vec::new() }
    }

    /// What was found, by place.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    pub fn problem(&mut self, at: Place, message: impl Into<String>, hint: Option<String>) {
        let excerpt = self.source.lines().nth(at.line.saturating_sub(1) as usize).unwrap_or_default();
        self.problems.push(Diagnostic {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            length: at.length.max(1),
            severity: Severity::Error,
            message: message.into(),
            hint,
            excerpt: excerpt.to_owned(),
        });
    }

    /// A problem whose line may hold a secret: the line is not shown.
    pub fn secret_problem(&mut self, at: Place, message: impl Into<String>, hint: Option<String>) {
        self.problem(at, message, hint);
        self.problems.iter_mut().rev().take(1).for_each(|problem| problem.excerpt.clear());
    }

    /// The entries of a mapping; nothing written is an empty one.
    pub fn mapping<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Entry]> {
        if node.is_null() {
            return Some(&[]);
        }
        let entries = node.as_map();
        if entries.is_none() {
            self.problem(
                node.at,
                format!("{what} must be a mapping of keys to values, found {}", node.describe()),
                None,
            );
        }
        entries
    }

    /// A mapping with known keys; others are refused.
    pub fn section<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Section<'n>> {
        let entries = self.mapping(node, what)?;
        for entry in entries {
            let name = &*entry.key.text;
            if !known.contains(&name) {
                let hint = match closest(name, known.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                self.problem(entry.key.at, format!("unknown key `{name}` in {what}"), Some(hint));
            }
        }
        Some(Section { node, entries })
    }

    /// `key` must be `wanted`, found something else.
    pub fn mismatch(&mut self, node: &Node, key: &str, wanted: &str) {
        self.problem(node.at, format!("`{key}` must be {wanted}, found {}", node.describe()), None);
    }

    /// A text that is not empty.
    pub fn text(&mut self, section: Section<'_>, key: &str) -> Option<String> {
        let node = section.get(key)?;
        match node.as_scalar() {
            Some(scalar) if !scalar.text.trim().is_empty() => Some(scalar.text.to_string()),
            _ => {
                self.mismatch(node, key, "a text");
                None
            }
        }
    }

    /// A list of texts; one text alone is a list of one.
    pub fn texts(&mut self, section: Section<'_>, key: &str) -> Vec<(String, Place)> {
        let Some(node) = section.get(key) else { return Vec::new() };
        let nodes = node.as_list().unwrap_or(std::slice::from_ref(node));
        let mut texts = Vec::new();
        for node in nodes {
            match node.as_scalar().filter(|scalar| !scalar.text.trim().is_empty()) {
                Some(scalar) => texts.push((scalar.text.to_string(), node.at)),
                None => self.mismatch(node, key, "a text or a list of texts"),
            }
        }
        texts
    }

    pub fn whole(&mut self, section: Section<'_>, key: &str, least: i64, most: i64) -> Option<i64> {
        let node = section.get(key)?;
        let number = node.as_scalar().and_then(|s| s.as_number()).and_then(|n| n.as_i64());
        let found = number.filter(|number| (least..=most).contains(number));
        if found.is_none() {
            self.mismatch(node, key, &format!("a whole number from {least} to {most}"));
        }
        found
    }

    pub fn flag(&mut self, section: Section<'_>, key: &str) -> Option<bool> {
        let node = section.get(key)?;
        let flag = node.as_scalar().and_then(|scalar| scalar.as_bool());
        if flag.is_none() {
            self.mismatch(node, key, "`true` or `false`");
        }
        flag
    }

    /// A duration that is not 0.
    pub fn duration(&mut self, section: Section<'_>, key: &str) -> Option<SignedDuration> {
        let node = section.get(key)?;
        let Some(scalar) = node.as_scalar() else {
            self.mismatch(node, key, "a duration such as `30s`");
            return None;
        };
        match parse_duration(&scalar.text) {
            Ok(duration) if !duration.is_zero() => Some(duration),
            Ok(_) => {
                self.problem(node.at, format!("`{key}` cannot be 0"), None);
                None
            }
            Err(message) => {
                self.problem(node.at, format!("`{key}`: {message}"), None);
                None
            }
        }
    }

    /// One word out of a few.
    pub fn choice<T: Copy>(&mut self, section: Section<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let node = section.get(key)?;
        let text = self.text(section, key)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            let hint = closest(&text, names.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            self.problem(node.at, format!("`{key}` must be one of {known}, found `{text}`"), hint);
        }
        found
    }

    /// Refuses a section that leaves out a key.
    pub fn require(&mut self, section: Section<'_>, what: &str, key: &str, hint: &str) {
        if section.get(key).is_none() {
            let at = Place { length: 1, ..section.node.at };
            self.problem(at, format!("{what} has no `{key}`"), Some(hint.to_owned()));
        }
    }
}

impl<'n> Section<'n> {
    pub fn get(self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|entry| &*entry.key.text == key).map(|entry| &entry.value)
    }
}

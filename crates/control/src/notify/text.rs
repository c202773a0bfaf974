//! Texts made fit to leave the server: without colours and control characters, bounded, and with secrets masked.

use std::sync::Arc;

use pitcrew_exec::log::Masker;

/// The text without escape sequences and without control characters but line breaks and tabs.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => match chars.next() {
                // Parameters, then one letter that says what it is.
                Some('[') => drop(chars.find(|c| ('\x40'..='\x7e').contains(c))),
                // A title or a link: up to a bell, or to an escape with a backslash.
                Some(']') => {
                    while let Some(c) = chars.next() {
                        if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                Some('(' | ')') => drop(chars.next()),
                _ => {}
            },
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' => out.push('\n'),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            // These turn the direction of what follows, so that it reads as something else.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c => out.push(c),
        }
    }
    out
}

/// The last lines of a text, made [`plain`]; at most so many lines and bytes.
pub fn tail(text: &str, lines: usize, bytes: usize) -> String {
    let text = plain(text);
    let text = text.trim_end();
    let skip = text.lines().count().saturating_sub(lines);
    let mut kept = text.lines().skip(skip).collect::<Vec<_>>().join("\n");
    if kept.len() > bytes {
        let mut at = kept.len() - bytes;
        while !kept.is_char_boundary(at) {
            at += 1;
        }
        kept = format!("…{}", &kept[at..]);
    }
    kept
}

/// The first characters of a text; `…` says that there was more.
pub fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        None => text.to_owned(),
        Some(_) => text.chars().take(chars.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The text on one line.
pub fn one_line(text: &str) -> String {
    plain(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// For HTML, and for Slack, which knows the same three.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Values that must not be shown.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Masker>>);

impl Secrets {
    pub fn new(values: impl IntoIterator<Item = String>) -> Self {
        let values: Vec<String> = values.into_iter().collect();
        Secrets(Masker::new(values.iter().map(String::as_str)).map(Arc::new))
    }

    /// Masks every text inside a value.
    pub fn mask_value(&self, value: &mut serde_json::Value) {
        if let Some(masker) = &self.0 {
            masker.value(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_terminals_understand_goes_and_the_words_stay() {
        assert_eq!(
            plain("\x1b[1;31merror\x1b[0m: \x1b]8;;http://x\x1b\\link\x1b]8;;\x07 50%\r100%\r\n\x08ok\x00"),
            "error: link 50%\n100%\nok"
        );
        assert_eq!(plain("a\u{202e}b\x1b[3"), "ab");
        assert_eq!(tail("1\n2\n3\n", 2, 100), "2\n3");
        assert_eq!(tail("äöü", 2, 3), "…ü");
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
    }

    #[test]
    fn secrets_are_masked_whole_and_trifles_are_not() {
        let secrets = Secrets::new([
            "hunter2-long".into(),
            "hunter2".into(),
            "1".into(),
            "-----BEGIN KEY-----\nabcdefghijklmnopq\n".into(),
        ]);
        let mut value = serde_json::json!({"a": ["a hunter2-long b hunter2 c 1 abcdefghijklmnopq"], "n": 1});
        secrets.mask_value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["a *** b *** c 1 ***"], "n": 1}));
    }
}

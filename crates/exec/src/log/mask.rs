//! Masks: what a log, an output or a message must not show, in all the forms in which programs write it.
//!
//! A value is looked for as it is, line by line where it has several, quoted for JSON and for a shell, percent-encoded,
//! in hex, and in base64 wherever it begins in a longer text. Each place becomes `***`.
//!
//! Invariant: of a text that comes in pieces, what may be the beginning of a secret is held back until it is known to be
//! one or not; so nothing depends on how the text was cut. No pattern has a line break, so nothing is held beyond a line.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// Shown in place of a secret.
pub const MASK: &str = "***";

/// Shorter values are no secrets worth the harm: masking `1` would make any text unreadable.
const SHORTEST: usize = 6;
/// Shorter lines of a longer value stand in other texts as well.
const SHORTEST_LINE: usize = 8;
/// A number shorter than this is a port, a year, a count.
const SHORTEST_NUMBER: usize = 8;
/// Programs break base64 after so many characters.
const WRAPS: [usize; 2] = [64, 76];

/// Finds secrets. Made once for many texts.
pub struct Masker {
    find: AhoCorasick,
    patterns: Vec<Vec<u8>>,
    longest: usize,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masker({} patterns)", self.patterns.len())
    }
}

impl Masker {
    /// `None` if none of the values is worth a mask. Of a value that is a JSON object or list, each text counts as well.
    pub fn new<'v>(values: impl IntoIterator<Item = &'v str>) -> Option<Masker> {
        let mut patterns = Vec::new();
        for value in values {
            add_value(value, &mut patterns);
            if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(value) {
                add_texts(&document, &mut patterns);
            }
        }
        patterns.sort();
        patterns.dedup();
        if patterns.is_empty() {
            return None;
        }
        let find = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).ok()?;
        let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
        Some(Masker { find, patterns, longest })
    }

    /// The text without secrets.
    pub fn text(&self, text: &str) -> String {
        match self.find.is_match(text) {
            true => String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned(),
            false => text.to_owned(),
        }
    }

    /// The bytes without secrets.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        let mut from = 0;
        for found in self.find.find_iter(bytes) {
            out.extend_from_slice(&bytes[from..found.start()]);
            out.extend_from_slice(MASK.as_bytes());
            from = found.end();
        }
        out.extend_from_slice(&bytes[from..]);
        out
    }

    /// Every text inside a value without secrets, names of fields too.
    pub fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(map) => {
                map.values_mut().for_each(|item| self.value(item));
                if map.keys().any(|name| self.find.is_match(name)) {
                    *map = std::mem::take(map).into_iter().map(|(name, item)| (self.text(&name), item)).collect();
                }
            }
            // A secret may be written as a number.
            Value::Number(number) if self.find.is_match(&number.to_string()) => *value = Value::String(MASK.to_owned()),
            Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
    }

    /// How many of the first bytes can be told what they are before the rest is known.
    pub(super) fn settled(&self, bytes: &[u8]) -> usize {
        let window = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let mut cut = (window..bytes.len()).find(|at| self.may_begin(&bytes[*at..])).unwrap_or(bytes.len());
        // A secret that is there already is not cut in two: what begins inside it may be a longer one.
        for found in self.find.find_iter(bytes) {
            if found.start() < cut && cut < found.end() {
                cut = found.start();
            }
        }
        cut
    }

    /// Is this the beginning of a pattern, and not the whole of it?
    fn may_begin(&self, bytes: &[u8]) -> bool {
        // Those that begin so stand together.
        let at = self.patterns.partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns.get(at).is_some_and(|pattern| pattern.starts_with(bytes))
    }
}

fn add_texts(value: &Value, patterns: &mut Vec<Vec<u8>>) {
    match value {
        Value::String(text) => add_value(text, patterns),
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, patterns)),
        Value::Object(map) => map.values().for_each(|item| add_texts(item, patterns)),
        Value::Number(_) | Value::Bool(_) | Value::Null => {}
    }
}

/// Adds every form of one value.
fn add_value(value: &str, patterns: &mut Vec<Vec<u8>>) {
    let value = value.trim();
    let is_number = value.bytes().all(|b| b.is_ascii_digit());
    if value.len() < if is_number { SHORTEST_NUMBER } else { SHORTEST } || value == MASK {
        return;
    }
    let mut add = |pattern: &str| {
        if pattern.len() >= SHORTEST && !pattern.contains('\n') {
            patterns.push(pattern.as_bytes().to_vec());
        }
    };
    add(value);
    let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST_LINE && !line.starts_with("-----"));
    if value.contains('\n') {
        lines.for_each(&mut add);
    }
    let quoted = Value::from(value).to_string();
    let quoted = &quoted[1..quoted.len() - 1];
    add(quoted);
    // Other writers of JSON escape more.
    add(&quoted.replace('/', "\\/"));
    add(&value.replace('\'', "'\\''"));
    let percent = crate::aws::encode(value);
    for percent in [lower_escapes(&percent), percent] {
        add(&percent.replace("%20", "+"));
        add(&percent);
    }
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    add(&hex.to_uppercase());
    add(&hex);
    for bytes in [value.to_owned(), format!("{value}\n")] {
        for line in WRAPS {
            let whole = STANDARD_NO_PAD.encode(&bytes);
            if whole.len() > line {
                let rows = whole.as_bytes().chunks(line).map(String::from_utf8_lossy);
                rows.filter(|row| row.len() >= 2 * SHORTEST).for_each(|row| add(&row));
            }
        }
    }
    for shift in 0..3 {
        for text in [inner(value, shift, &STANDARD_NO_PAD), inner(value, shift, &URL_SAFE_NO_PAD)] {
            if text.len() >= SHORTEST_LINE {
                add(&text);
            }
        }
    }
}

/// The characters of base64 that a value alone decides when `shift` bytes (modulo 3) stand before it.
fn inner(value: &str, shift: usize, alphabet: &impl base64::Engine) -> String {
    let text = alphabet.encode([&b"\0\0"[..shift], value.as_bytes()].concat());
    let first = [0, 2, 3][shift];
    let last = (shift + value.len()) * 8 / 6;
    text.get(first..last).unwrap_or_default().to_owned()
}

/// `%2F` as `%2f`.
fn lower_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at(part.len().min(2));
        out.push('%');
        out.push_str(&code.to_ascii_lowercase());
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\nQmFzZTY0TGluZVR3bw==\n-----END KEY-----\n";

    #[test]
    fn every_form_is_masked() {
        let value = "p@ss/w0rd 'x' \"y\"";
        let masker = Masker::new([value, PEM]).unwrap();
        let encode = |before: &str| STANDARD_NO_PAD.encode(format!("{before}{value}{before}"));
        let hex: String = value.bytes().map(|b| format!("{b:02x}")).collect();
        for (form, shown) in [
            (value.to_owned(), "***"),
            ("p@ss/w0rd 'x' \\\"y\\\"".into(), "***"),
            ("p%40ss%2Fw0rd%20%27x%27%20%22y%22".into(), "***"),
            ("p%40ss%2fw0rd+%27x%27+%22y%22".into(), "***"),
            ("p%40ss%2Fw0rd+%27x%27+%22y%22".into(), "***"),
            ("p@ss/w0rd '\\''x'\\'' \"y\"".into(), "***"),
            (hex.to_uppercase(), "***"),
            ("b3BlbnNzaC1rZXktdjEAAAAA".into(), "***"),
            ("-----BEGIN KEY-----".into(), "-----BEGIN KEY-----"),
            (PEM.trim().replace('\n', "\\n"), "***"),
        ] {
            assert_eq!(masker.text(&format!("a {form} b")), format!("a {shown} b"));
        }
        for before in ["", "u", "us", "user:", "a long name:"] {
            let shown = masker.text(&encode(before));
            assert!(shown.contains(MASK) && shown.len() < before.len() * 3 + 14, "{before}: {shown}");
        }
        // As `base64` writes a longer file.
        let long = "0123456789abcdef".repeat(20);
        let masker = Masker::new([long.as_str()]).unwrap();
        for line in STANDARD_NO_PAD.encode(&long).as_bytes().chunks(76) {
            assert_eq!(masker.bytes(line), MASK.as_bytes());
        }
    }

    #[test]
    fn trifles_and_other_texts_stay() {
        for value in ["", " \n ", "1", "true", "12345", "8080808", "***", "\n\n\n"] {
            assert!(Masker::new([value]).is_none(), "{value:?}");
        }
        let masker = Masker::new([r#"{"user":"ci","password":"hunter2-hunter2","port":5432}"#, PEM]).unwrap();
        let text = "ci logs in at port 5432: hunter2, -----BEGIN KEY-----, hunter3-hunter2";
        assert_eq!(masker.text(text), text);
        let mut value = serde_json::json!({"a": ["x hunter2-hunter2"], "hunter2-hunter2": 1, "n": 7});
        masker.value(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["x ***"], "***": 1, "n": 7}));
    }

    #[test]
    fn what_may_be_a_beginning_is_held_back() {
        let masker = Masker::new(["abcdefgh", "ghijklmn", "abcdefghXYZ"]).unwrap();
        for (text, settled) in [
            ("x abc", 2),
            ("x abcd!", 7),
            // Whole, and perhaps the beginning of a longer one; and its end perhaps that of another.
            ("x abcdefgh", 2),
            ("x abcdefgh!", 11),
            ("x abcdefg", 2),
            ("", 0),
        ] {
            assert_eq!(masker.settled(text.as_bytes()), settled, "{text}");
        }
    }

    /// However a text is cut, it comes out as if it were whole: without its secrets, and with everything else.
    #[test]
    fn no_way_of_cutting_a_text_leaks_a_secret_or_hides_anything_else() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for round in 0..2_000 {
            // Few letters, so that beginnings and overlaps are common.
            let mut word = |length: usize| (0..length).map(|_| ['a', 'b', 'é'][random(3)]).collect::<String>();
            let secrets = [word(6 + round % 9), word(7 + round % 5)];
            let masker = Masker::new(secrets.iter().map(String::as_str)).unwrap();
            let mut text = String::new();
            for _ in 0..6 {
                text.push_str(&word(3));
                text.push_str(&secrets[round % 2]);
            }
            let whole = masker.bytes(text.as_bytes());
            let (mut held, mut out, mut rest) = (Vec::new(), Vec::new(), text.as_bytes());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(1 + random(rest.len()));
                held.extend_from_slice(piece);
                rest = after;
                let settled = if rest.is_empty() { held.len() } else { masker.settled(&held) };
                out.extend_from_slice(&masker.bytes(&held[..settled]));
                held = held.split_off(settled);
            }
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&whole), "{secrets:?} in {text}");
            for secret in &secrets {
                assert!(!String::from_utf8_lossy(&out).contains(secret.as_str()));
            }
        }
    }
}

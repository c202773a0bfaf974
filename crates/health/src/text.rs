//! Text of other programs, made fit to be kept and shown.

use std::borrow::Cow;

/// Longer lines are cut: no line that means anything comes near it.
pub const LONGEST_LINE: usize = 4096;
/// What is kept of a line as evidence.
const LONGEST_EVIDENCE: usize = 300;

/// As much of a line as is looked at; what is no UTF-8 is replaced.
pub fn line(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_LINE)])
}

/// At most so many bytes of a text, up to the end of a character.
pub fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Fit to be shown to people: on one line, without control characters, not long.
pub fn evidence(text: &str) -> String {
    let mut out = String::new();
    for c in cut(text.trim(), LONGEST_LINE).chars() {
        let c = if c.is_control() || c == '\u{fffd}' { ' ' } else { c };
        if !(c == ' ' && (out.is_empty() || out.ends_with(' '))) {
            out.push(c);
        }
    }
    let end = cut(&out, LONGEST_EVIDENCE).len();
    out.truncate(end);
    out.truncate(out.trim_end().len());
    out
}

/// ` (did you mean …?)` for the nearest of some names, or nothing if none is near.
pub fn did_you_mean<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> String {
    let given = given.to_lowercase();
    let near = names
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(2))
        .min();
    near.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_short_and_harmless() {
        assert_eq!(evidence(" a\u{1b}[31m\n\tb\u{0}c "), "a [31m b c");
        let long = evidence(&"é".repeat(10_000));
        assert!(long.len() <= LONGEST_EVIDENCE && long.chars().all(|c| c == 'é'));
        assert_eq!(line(&[b'x'; 10_000]).len(), LONGEST_LINE);
        assert_eq!(cut("aé", 2), "a");
    }

    #[test]
    fn a_name_that_is_nearly_right_is_found() {
        let names = ["reset_gpu", "reboot_node", "ignore"];
        assert_eq!(did_you_mean("reset-gpu", names.into_iter()), "; did you mean `reset_gpu`?");
        assert_eq!(did_you_mean("format_disk", names.into_iter()), "");
    }
}

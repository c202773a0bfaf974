//! Regular expressions in the dialect of RE2, which CEL prescribes, on the crate `regex`.
//!
//! Both are of one family and take linear time. Where they differ the pattern is rewritten: `\d`, `\w`, `\s` and `\b`
//! are ASCII, a class is flat (`[` in it is a character, `&&` no operator), and `\Q…\E` quotes.

use regex::{Regex, RegexBuilder};

/// What a compiled pattern may take, in bytes.
const LARGEST: usize = 512 * 1024;

pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let ours = rewritten(pattern);
    RegexBuilder::new(&ours).size_limit(LARGEST).dfa_size_limit(LARGEST).nest_limit(100).build().map_err(|error| {
        match error {
            regex::Error::CompiledTooBig(_) => format!("the regular expression `{pattern}` is too large"),
            _ => format!("`{pattern}` is no regular expression of RE2"),
        }
    })
}

fn rewritten(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let mut class = Class::Outside;
    while let Some(c) = chars.next() {
        let inside = class != Class::Outside;
        match c {
            '\\' => {
                let Some(escaped) = chars.next() else {
                    out.push('\\');
                    break;
                };
                match escaped {
                    'Q' if !inside => quote(&mut chars, &mut out),
                    'd' if inside => out.push_str("0-9"),
                    'w' if inside => out.push_str("0-9A-Za-z_"),
                    's' if inside => out.push_str(r"\t\n\f\r "),
                    'd' => out.push_str("[0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    's' => out.push_str(r"[\t\n\f\r ]"),
                    'D' => out.push_str("[^0-9]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'S' => out.push_str(r"[^\t\n\f\r ]"),
                    'b' if !inside => out.push_str(r"(?-u:\b)"),
                    'B' if !inside => out.push_str(r"(?-u:\B)"),
                    other => {
                        out.push('\\');
                        out.push(other);
                    }
                }
                class = class.next();
            }
            '[' if !inside => {
                out.push('[');
                if chars.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
                class = Class::First;
            }
            '[' if chars.peek() == Some(&':') => {
                // A named class: `[:alpha:]`.
                out.push('[');
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
                class = Class::Inside;
            }
            // The first bracket of a class is a member of it.
            ']' if class == Class::First => {
                out.push_str(r"\]");
                class = Class::Inside;
            }
            ']' if inside => {
                out.push(']');
                class = Class::Outside;
            }
            '[' | '&' | '~' if inside => {
                out.push('\\');
                out.push(c);
                class = Class::Inside;
            }
            other => {
                out.push(other);
                class = class.next();
            }
        }
    }
    out
}

/// Everything up to `\E`, each character for itself.
fn quote(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(c);
    }
    out.push_str(&regex::escape(&text));
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Outside,
    /// In a class of which nothing was read yet.
    First,
    Inside,
}

impl Class {
    fn next(self) -> Class {
        match self {
            Class::Outside => Class::Outside,
            Class::First | Class::Inside => Class::Inside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_re2() {
        for (pattern, text, fits) in [
            ("^[^a-z0-9]+$", " A$", true),
            (r"^\d+$", "٣", false),
            (r"^\w+$", "é", false),
            (r"^[\w-]+$", "a-b_9", true),
            (r"^\W$", "é", true),
            (r"é\b", "éa", true),
            ("^[[]$", "[", true),
            ("^[]a]+$", "]a", true),
            ("^[^]]$", "x", true),
            ("^[a&&b]+$", "a&b", true),
            ("^[[:digit:]x]+$", "1x", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            ("(?i)^STRASSE$", "strasse", true),
            (r"^\pL$", "ß", true),
            ("^.$", "🐱", true),
        ] {
            assert_eq!(compile(pattern).unwrap().is_match(text), fits, "{pattern} on {text}");
        }
        for wrong in ["(", "*a", r"(a)\1", "(?=a)", "(?<!a)b", r"a\"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
        assert!(compile("((((a{100}){100}){100}){100})").unwrap_err().contains("too large"));
    }
}

//! Text as programs write it for terminals, as HTML that is safe.
//!
//! Colours, bold, dim and underline become classes; every other escape sequence is left out, and everything else is
//! escaped. A style ends with its line.

use std::fmt::Write as _;

/// The style that is on.
#[derive(Default, Clone, Copy, PartialEq)]
struct Style {
    /// 0 to 15.
    colour: Option<u8>,
    bold: bool,
    dim: bool,
    underline: bool,
}

/// One line as HTML.
pub fn to_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut style = Style::default();
    let mut open = Style::default();
    let mut rest = text;
    while let Some(at) = rest.find('\x1b') {
        emit(&mut out, &rest[..at], style, &mut open);
        rest = sequence(&rest[at + 1..], &mut style);
    }
    emit(&mut out, rest, style, &mut open);
    if open != Style::default() {
        out.push_str("</span>");
    }
    out
}

/// One line without its escape sequences and other control characters. Not escaped.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut style = Style::default();
    let mut rest = text;
    let is_shown = |c: &char| *c == '\t' || !c.is_control();
    while let Some(at) = rest.find('\x1b') {
        out.extend(rest[..at].chars().filter(is_shown));
        rest = sequence(&rest[at + 1..], &mut style);
    }
    out.extend(rest.chars().filter(is_shown));
    out
}

/// What comes after an escape character, without the sequence that it begins.
fn sequence<'t>(rest: &'t str, style: &mut Style) -> &'t str {
    if let Some(body) = rest.strip_prefix('[') {
        // Parameters, then one letter that says what it is.
        let end = body.find(|c: char| ('\x40'..='\x7e').contains(&c));
        let Some(end) = end else { return "" };
        if body.as_bytes()[end] == b'm' {
            style.apply(&body[..end]);
        }
        return &body[end + 1..];
    }
    if let Some(body) = rest.strip_prefix(']') {
        // A title or a link: up to a bell, or to an escape with a backslash.
        let bell = body.find('\x07').map(|at| &body[at + 1..]);
        let string_end = body.find("\x1b\\").map(|at| &body[at + 2..]);
        return match (bell, string_end) {
            (Some(a), Some(b)) => {
                if a.len() > b.len() {
                    a
                } else {
                    b
                }
            }
            (Some(after), None) | (None, Some(after)) => after,
            (None, None) => "",
        };
    }
    let mut chars = rest.chars();
    chars.next();
    chars.as_str()
}

impl Style {
    fn apply(&mut self, parameters: &str) {
        let mut codes = parameters.split([';', ':']).map(|code| code.parse::<u8>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Style::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underline = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underline = false,
                30..=37 => self.colour = Some(code - 30),
                90..=97 => self.colour = Some(code - 82),
                39 => self.colour = None,
                // Of the 256 colours the first sixteen are the usual ones; the others are left out.
                38 | 48 => match codes.next() {
                    Some(5) => {
                        let index = codes.next();
                        if code == 38 {
                            self.colour = index.filter(|index| *index < 16);
                        }
                    }
                    Some(2) => {
                        codes.by_ref().take(3).for_each(drop);
                    }
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

fn emit(out: &mut String, text: &str, style: Style, open: &mut Style) {
    if text.is_empty() {
        return;
    }
    if style != *open {
        if *open != Style::default() {
            out.push_str("</span>");
        }
        if style != Style::default() {
            out.push_str("<span class=\"");
            if let Some(colour) = style.colour {
                let _ = write!(out, "c{colour} ");
            }
            for (on, class) in [(style.bold, "cb "), (style.dim, "cd "), (style.underline, "cu ")] {
                out.push_str(if on { class } else { "" });
            }
            out.push_str("\">");
        }
        *open = style;
    }
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\t' => out.push('\t'),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::to_html;

    #[test]
    fn colours_become_classes_and_the_rest_of_the_escapes_goes() {
        assert_eq!(to_html("\x1b[1;31merror\x1b[0m: x"), r#"<span class="c1 cb ">error</span>: x"#);
        assert_eq!(to_html("\x1b[38;5;9ma\x1b[48;2;1;2;3mb\x1b[39mc"), r#"<span class="c9 ">ab</span>c"#);
        assert_eq!(to_html("\x1b]0;title\x07a\x1b[2Kb\x1b(Bc\x1b[K"), "abBc");
        assert_eq!(to_html("open \x1b[3"), "open ");
        assert_eq!(to_html("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\"), "link");
    }

    #[test]
    fn html_in_a_log_is_shown_and_does_nothing() {
        assert_eq!(to_html("<img src=x onerror=\"a&b\">"), "&lt;img src=x onerror=&quot;a&amp;b&quot;&gt;");
        assert_eq!(to_html("\x1b[31m<b>"), r#"<span class="c1 ">&lt;b&gt;</span>"#);
        assert_eq!(to_html("a\x00\x08b"), "ab");
    }
}

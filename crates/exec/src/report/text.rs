//! Figures and texts as people read them.

/// `340 ms`, `3.2 s`, `42 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        s if !s.is_finite() || s < 0.0005 => "0 s".into(),
        s if s < 0.9995 => format!("{:.0} ms", s * 1000.0),
        s if s < 9.95 => format!("{s:.1} s"),
        _ if whole < 60 => format!("{whole} s"),
        _ if whole < 3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// In binary units: `512 B`, `3.4 KiB`, `120 MiB`.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" || value >= 99.5 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// Never rounded up to a hundred.
pub(super) fn percent(value: f64) -> String {
    if value < 100.0 { format!("{:.1} %", (value * 10.0).floor() / 10.0) } else { "100 %".into() }
}

/// A difference of percents: `0.3 points`.
pub(super) fn points(value: f64) -> String {
    format!("{value:.1} {}", if (value * 10.0).round() == 10.0 { "point" } else { "points" })
}

/// With its sign: `+0.3`, `−1.2`.
pub(super) fn signed(value: f64) -> String {
    format!("{}{:.1}", if value < 0.0 { "−" } else { "+" }, value.abs())
}
/// An amount of energy, given in watt hours.
pub(super) fn watt_hours(wh: f64) -> String {
    if wh >= 1000.0 { format!("{:.2} kWh", wh / 1000.0) } else { format!("{wh:.1} Wh") }
}

pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// `12,345`.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// At most `max` bytes, cut at a character, with a mark where it was cut.
pub(super) fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = (0..=max).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// Without escape sequences and other characters that a document cannot show; line breaks and tabs stay.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' && characters.peek() == Some(&'[') {
            for c in characters.by_ref().skip(1) {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        } else if c == '\n' || c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_naturally() {
        let durations = [0.0, 0.34, 0.9999, 3.24, 59.4, 59.6, 200.0, 7530.0].map(duration);
        assert_eq!(durations, ["0 s", "340 ms", "1.0 s", "3.2 s", "59 s", "1 min 00 s", "3 min 20 s", "2 h 05 min"]);
        assert_eq!([0, 1023, 3500, 125829120, 1 << 41].map(bytes), ["0 B", "1023 B", "3.4 KiB", "120 MiB", "2.0 TiB"]);
        assert_eq!([100.0, 99.99, 0.0].map(percent), ["100 %", "99.9 %", "0.0 %"]);
        assert_eq!([1, 999, 1000, 1234567].map(grouped), ["1", "999", "1,000", "1,234,567"]);
        assert_eq!(shortened("äöü", 3), "ä…");
        assert_eq!(printable("a\u{1b}[31mred\u{1b}[0m\u{7}\tb\n"), "ared\tb\n");
    }
}

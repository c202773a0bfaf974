//! The fonts that every PDF reader has, and how wide their characters are.
//!
//! They know one encoding, WinAnsi (Windows-1252). Invariant: [`encode`] gives only its bytes; what it lacks is
//! written in other letters where there is a usual way, and else shown as [`MISSING`], never as something wrong.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Font {
    Regular,
    Bold,
    /// All characters equally wide.
    Mono,
}

/// Stands for a character that the fonts lack.
pub(super) const MISSING: u8 = b'?';

impl Font {
    /// The width of a text in points.
    pub fn width(self, text: &str, size: f64) -> f64 {
        encode(text).0.iter().map(|byte| self.advance(*byte)).sum::<f64>() * size / 1000.0
    }

    /// The width of a byte, in thousandths of the size.
    pub fn advance(self, byte: u8) -> f64 {
        let table = match self {
            Font::Regular => &REGULAR,
            Font::Bold => &BOLD,
            Font::Mono => return 600.0,
        };
        table.get(usize::from(byte).wrapping_sub(32)).copied().unwrap_or_default().into()
    }

    /// As much of the text as fits, with an ellipsis where something is left out.
    pub fn fit(self, text: &str, size: f64, width: f64) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let room = width - self.width("…", size);
        let mut used = 0.0;
        let kept = text.chars().take_while(|c| {
            used += self.width(c.encode_utf8(&mut [0; 4]), size);
            used <= room
        });
        let kept: String = kept.collect();
        format!("{}…", kept.trim_end())
    }

    /// Like [`Font::fit`], but what is kept is the end, which tells most of a test's full name.
    pub fn fit_end(self, text: &str, size: f64, width: f64) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let room = width - self.width("…", size);
        let mut used = 0.0;
        let kept: Vec<char> = text
            .chars()
            .rev()
            .take_while(|c| {
                used += self.width(c.encode_utf8(&mut [0; 4]), size);
                used <= room
            })
            .collect();
        format!("…{}", kept.into_iter().rev().collect::<String>())
    }

    /// Lines no wider than `width`, broken anywhere, with every blank kept: for the text of programs.
    pub fn chop(self, text: &str, size: f64, width: f64) -> Vec<String> {
        let mut lines = Vec::new();
        for line in text.lines() {
            let (mut current, mut used) = (String::new(), 0.0);
            for c in line.chars() {
                let advance = self.width(c.encode_utf8(&mut [0; 4]), size);
                if used + advance > width && !current.is_empty() {
                    lines.push(std::mem::take(&mut current));
                    used = 0.0;
                }
                current.push(c);
                used += advance;
            }
            lines.push(current);
        }
        lines
    }

    /// Lines no wider than `width`, broken at blanks, and within a word that is too long by itself.
    pub fn wrap(self, text: &str, size: f64, width: f64) -> Vec<String> {
        let mut lines = Vec::new();
        for line in text.split('\n') {
            // The indentation of code is kept.
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            let mut current = indent;
            for word in line.split(' ').filter(|word| !word.is_empty()) {
                let blank = if current.trim().is_empty() { "" } else { " " };
                let together = format!("{current}{blank}{word}");
                if self.width(&together, size) <= width {
                    current = together;
                    continue;
                }
                if !current.trim().is_empty() {
                    lines.push(std::mem::take(&mut current));
                }
                for c in word.chars() {
                    current.push(c);
                    if self.width(&current, size) > width && current.chars().count() > 1 {
                        current.pop();
                        lines.push(std::mem::replace(&mut current, c.to_string()));
                    }
                }
            }
            lines.push(current);
        }
        lines
    }
}

/// The text in WinAnsi, and whether a character had to be replaced by [`MISSING`].
pub(super) fn encode(text: &str) -> (Vec<u8>, bool) {
    let mut bytes = Vec::with_capacity(text.len());
    let mut lost = false;
    for c in text.chars() {
        match winansi(c) {
            Some(byte) => bytes.push(byte),
            None => match in_other_letters(c) {
                Some(letters) => bytes.extend_from_slice(letters.as_bytes()),
                None => {
                    bytes.push(MISSING);
                    lost = true;
                }
            },
        }
    }
    (bytes, lost)
}

fn winansi(c: char) -> Option<u8> {
    // 0x80 to 0x9F; a zero is a place without a character.
    const HIGH: [char; 32] = [
        '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“', '”',
        '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
    ];
    match c {
        ' '..='~' | '\u{a0}'..='\u{ff}' => u8::try_from(u32::from(c)).ok(),
        '\t' | '\u{2009}' | '\u{202f}' => Some(b' '),
        '\0' => None,
        _ => HIGH.iter().position(|high| *high == c).map(|place| 0x80 + place as u8),
    }
}

#[rustfmt::skip]
fn in_other_letters(c: char) -> Option<&'static str> {
    Some(match c {
        'Ā' | 'Ă' | 'Ą' => "A", 'ā' | 'ă' | 'ą' => "a", 'Ć' | 'Č' | 'Ĉ' | 'Ċ' => "C", 'ć' | 'č' | 'ĉ' | 'ċ' => "c",
        'Ď' | 'Đ' => "D", 'ď' | 'đ' => "d", 'Ē' | 'Ė' | 'Ę' | 'Ě' => "E", 'ē' | 'ė' | 'ę' | 'ě' => "e",
        'Ğ' | 'Ģ' => "G", 'ğ' | 'ģ' => "g", 'Ī' | 'Į' | 'İ' => "I", 'ī' | 'į' | 'ı' => "i", 'Ķ' => "K", 'ķ' => "k",
        'Ļ' | 'Ľ' | 'Ł' => "L", 'ļ' | 'ľ' | 'ł' => "l", 'Ń' | 'Ņ' | 'Ň' => "N", 'ń' | 'ņ' | 'ň' => "n",
        'Ō' | 'Ő' => "O", 'ō' | 'ő' => "o", 'Ŕ' | 'Ř' => "R", 'ŕ' | 'ř' => "r", 'Ś' | 'Ş' | 'Ș' => "S",
        'ś' | 'ş' | 'ș' => "s", 'Ţ' | 'Ť' | 'Ț' => "T", 'ţ' | 'ť' | 'ț' => "t", 'Ū' | 'Ů' | 'Ű' | 'Ų' => "U",
        'ū' | 'ů' | 'ű' | 'ų' => "u", 'Ź' | 'Ż' => "Z", 'ź' | 'ż' => "z",
        '→' | '⟶' => "->", '←' => "<-", '↔' => "<->", '⇒' => "=>", '≤' => "<=", '≥' => ">=", '≠' => "!=", '≈' => "~",
        '−' | '‐' | '‑' | '─' | '━' => "-", '│' | '┃' => "|", '┌' | '┐' | '└' | '┘' | '├' | '┤' | '┬' | '┴' | '┼' => "+",
        '✓' | '✔' | '✅' => "[ok]", '✗' | '✘' | '❌' => "[failed]", '⚠' => "[!]", '∞' => "inf", '√' => "sqrt", '∑' => "sum",
        'α' => "alpha", 'β' => "beta", 'γ' => "gamma", 'δ' => "delta", 'Δ' => "Delta", 'ε' => "epsilon", 'λ' => "lambda",
        'μ' => "u", 'π' => "pi", 'ρ' => "rho", 'σ' => "sigma", 'Σ' => "Sigma", 'τ' => "tau", 'φ' => "phi", 'χ' => "chi",
        'ω' => "omega", 'Ω' => "Ohm", 'θ' => "theta", '′' => "'", '″' => "\"", '\u{200b}' | '\u{feff}' | '\u{fe0f}' => "",
        _ => return None,
    })
}

/// From 32 on.
#[rustfmt::skip]
const REGULAR: [u16; 224] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556,
    833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500,
    556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500,
    334, 260, 334, 584, 350, 556, 350, 222, 556, 333, 1000, 556, 556, 333, 1000, 667, 333, 1000, 350, 611, 350, 350,
    222, 222, 333, 333, 350, 556, 1000, 333, 1000, 500, 333, 944, 350, 500, 667, 278, 333, 556, 556, 556, 556, 260,
    556, 333, 737, 370, 556, 584, 333, 737, 333, 400, 584, 333, 333, 333, 556, 537, 278, 333, 333, 365, 556, 834, 834,
    834, 611, 667, 667, 667, 667, 667, 667, 1000, 722, 667, 667, 667, 667, 278, 278, 278, 278, 722, 722, 778, 778,
    778, 778, 778, 584, 778, 722, 722, 722, 722, 667, 667, 611, 556, 556, 556, 556, 556, 556, 889, 500, 556, 556, 556,
    556, 278, 278, 278, 278, 556, 556, 556, 556, 556, 556, 556, 584, 611, 556, 556, 556, 556, 500, 556, 500,
];

#[rustfmt::skip]
const BOLD: [u16; 224] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556,
    556, 556, 556, 333, 333, 584, 584, 584, 611, 975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833,
    722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556, 333, 556, 611, 556, 611,
    556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611, 611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389,
    280, 389, 584, 350, 556, 350, 278, 556, 500, 1000, 556, 556, 333, 1000, 667, 333, 1000, 350, 611, 350, 350, 278,
    278, 500, 500, 350, 556, 1000, 333, 1000, 556, 333, 944, 350, 500, 667, 278, 333, 556, 556, 556, 556, 280, 556,
    333, 737, 370, 556, 584, 333, 737, 333, 400, 584, 333, 333, 333, 611, 556, 278, 333, 333, 365, 556, 834, 834, 834,
    611, 722, 722, 722, 722, 722, 722, 1000, 722, 667, 667, 667, 667, 278, 278, 278, 278, 722, 722, 778, 778, 778,
    778, 778, 584, 778, 722, 722, 722, 722, 667, 667, 611, 556, 556, 556, 556, 556, 556, 889, 556, 556, 556, 556, 556,
    278, 278, 278, 278, 611, 611, 611, 611, 611, 611, 611, 584, 611, 611, 611, 611, 611, 556, 611, 556,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_encoded_or_visibly_replaced() {
        assert_eq!(encode("a€é…"), (vec![b'a', 0x80, 0xe9, 0x85], false));
        assert_eq!(encode("Łódź → ≤"), (b"L\xf3dz -> <=".to_vec(), false));
        assert_eq!(encode("日本"), (b"??".to_vec(), true));
        assert_eq!(encode("\u{7}").0, b"?");
    }

    #[test]
    fn lines_fit_their_width_and_lose_nothing() {
        assert_eq!(Font::Regular.width("Hello", 10.0), (722.0 + 556.0 + 222.0 + 222.0 + 556.0) / 100.0);
        let text = "several words and averylongwordthatdoesnotfitanywhere\n  indented line";
        let lines = Font::Regular.wrap(text, 10.0, 80.0);
        assert!(lines.iter().all(|line| Font::Regular.width(line, 10.0) <= 80.0), "{lines:?}");
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert_eq!(letters(&lines.concat()), letters(text));
        assert!(lines.iter().any(|line| line.starts_with("  indented")));
        assert_eq!(Font::Mono.chop("ab  c\n\nd", 10.0, 18.0), ["ab ", " c", "", "d"]);
        let cut = Font::Bold.fit("a long label that is cut", 10.0, 60.0);
        assert!(cut.ends_with('…') && Font::Bold.width(&cut, 10.0) <= 60.0);
    }
}

//! What a scalar means: the core schema of YAML 1.2, in which `yes`, `on` and `1:30` are texts.

use serde_json::{Number, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Without quotes: may be a number, a boolean or null.
    Plain,
    /// In quotes, or tagged `!!str`.
    Quoted,
    /// `|` or `>`.
    Block,
}

/// A scalar as it was written, escapes and folding undone.
#[derive(Debug, Clone)]
pub struct Scalar {
    pub text: Box<str>,
    pub style: Style,
}

impl Scalar {
    pub fn is_null(&self) -> bool {
        self.style == Style::Plain && matches!(&*self.text, "" | "~" | "null" | "Null" | "NULL")
    }

    pub fn as_bool(&self) -> Option<bool> {
        match (self.style, &*self.text) {
            (Style::Plain, "true" | "True" | "TRUE") => Some(true),
            (Style::Plain, "false" | "False" | "FALSE") => Some(false),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<Number> {
        if self.style == Style::Plain { number(&self.text) } else { None }
    }

    /// A text, as opposed to a number, a boolean or null.
    pub fn is_text(&self) -> bool {
        self.style != Style::Plain || !(self.is_null() || self.as_bool().is_some() || looks_numeric(&self.text))
    }

    pub fn describe(&self) -> String {
        if self.is_null() {
            return "nothing".into();
        }
        let mut short: String = self.text.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if short.len() < self.text.len() {
            short.push('…');
        }
        let kind = match () {
            () if self.as_bool().is_some() => "the boolean",
            () if self.as_number().is_some() => "the number",
            () => "the text",
        };
        format!("{kind} `{short}`")
    }

    pub fn to_json(&self) -> Result<Value, String> {
        if self.is_null() {
            return Ok(Value::Null);
        }
        if let Some(flag) = self.as_bool() {
            return Ok(Value::Bool(flag));
        }
        if let Some(number) = self.as_number() {
            return Ok(Value::Number(number));
        }
        if self.style == Style::Plain && looks_numeric(&self.text) {
            return Err(format!("`{}` is not a number that JSON can hold", self.text));
        }
        Ok(Value::String(self.text.to_string()))
    }
}

/// Matches the number forms of the core schema, the ones without a JSON number (`.inf`, `.nan`) included.
fn looks_numeric(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") || number_form(text)
}

fn number_form(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    let mantissa_fits = match mantissa.split_once('.') {
        None => digits(mantissa),
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
    };
    mantissa_fits && exponent_fits
}

fn number(text: &str) -> Option<Number> {
    if !number_form(text) {
        return None;
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = plain.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = plain.parse::<u64>() {
        return Some(number.into());
    }
    Number::from_f64(plain.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Value {
        Scalar { text: text.into(), style: Style::Plain }.to_json().unwrap_or_else(Value::String)
    }

    #[test]
    fn plain_scalars_follow_yaml_1_2() {
        let table = [
            ("", "null"),
            ("~", "null"),
            ("null", "null"),
            ("true", "true"),
            ("FALSE", "false"),
            ("12", "12"),
            ("-3", "-3"),
            ("+7", "7"),
            ("0o17", "15"),
            ("0xff", "255"),
            ("1.5", "1.5"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
            ("1.", "1.0"),
            ("18446744073709551615", "18446744073709551615"),
            ("yes", "\"yes\""),
            ("on", "\"on\""),
            ("1:30", "\"1:30\""),
            ("1_000", "\"1_000\""),
            ("0b1", "\"0b1\""),
            ("1.2.3", "\"1.2.3\""),
            ("-", "\"-\""),
            (".", "\".\""),
            ("e5", "\"e5\""),
            ("0x", "\"0x\""),
            (".inf", "\"`.inf` is not a number that JSON can hold\""),
            ("1e999", "\"`1e999` is not a number that JSON can hold\""),
        ];
        for (text, json) in table {
            assert_eq!(plain(text).to_string(), json, "{text:?}");
        }
        let quoted = Scalar { text: "12".into(), style: Style::Quoted };
        assert_eq!(quoted.to_json(), Ok(Value::String("12".into())));
    }
}

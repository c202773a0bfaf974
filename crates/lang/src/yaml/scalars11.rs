//! What a scalar means to Kubernetes: YAML 1.1 as its tools read it, in which `yes` is true and `0777` is 511.
//!
//! Only the reader of Kubernetes' documents asks here; everywhere else a scalar means what [`super::scalar`] says.

use serde_json::{Number, Value};

use super::{Scalar, Style};

/// The JSON that Kubernetes' tools make of a scalar. The error is a sentence.
pub fn to_json(scalar: &Scalar) -> Result<Value, String> {
    if scalar.style != Style::Plain {
        return Ok(Value::String(scalar.text.to_string()));
    }
    let text = &*scalar.text;
    if let Some(word) = word(text) {
        return Ok(word);
    }
    if matches!(text.strip_prefix(['-', '+']).unwrap_or(text), ".inf" | ".Inf" | ".INF")
        || matches!(text, ".nan" | ".NaN" | ".NAN")
    {
        return Err(format!("`{text}` is not a number that JSON can hold"));
    }
    match number(text) {
        Some(Some(number)) => Ok(Value::Number(number)),
        Some(None) => Err(format!("`{text}` is not a number that JSON can hold")),
        None => Ok(Value::String(text.to_owned())),
    }
}

/// What a plain key is: `on` is the key `true`.
pub fn key(text: &str) -> Option<&'static str> {
    match word(text)? {
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        _ => None,
    }
}

fn word(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(Value::Bool(true)),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Some(Value::Bool(false))
        }
        _ => None,
    }
}

/// `None`: no number. `Some(None)`: one that JSON cannot hold.
fn number(text: &str) -> Option<Option<Number>> {
    let first = text.strip_prefix(['-', '+']).unwrap_or(text).bytes().next()?;
    if !(first.is_ascii_digit() || first == b'.') {
        return None;
    }
    // An underscore within digits says nothing; a text that begins with a point has none.
    let plain = if text.starts_with('.') { text.to_owned() } else { text.replace('_', "") };
    if let Some(whole) = integer(&plain) {
        return Some(Some(whole));
    }
    if !float_form(&plain) {
        return None;
    }
    let value: f64 = plain.parse().ok()?;
    if !value.is_finite() {
        return Some(None);
    }
    // 1e3 is 1000 when it is written as JSON.
    if value.fract() == 0.0 && value.abs() < 9.0e15 {
        return Some(Some(Number::from(value as i64)));
    }
    Some(Number::from_f64(value))
}

/// Digits with a sign and, as in C, a base: `0x`, `0b`, `0o` or a leading zero.
fn integer(text: &str) -> Option<Number> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &*lower),
    };
    if !digits.starts_with(|c: char| c.is_digit(base)) {
        return None;
    }
    let value = u64::from_str_radix(digits, base).ok()?;
    match (negative, i64::try_from(value)) {
        (false, _) => Some(Number::from(value)),
        (true, Ok(value)) => Some(Number::from(-value)),
        (true, Err(_)) if value == 1 << 63 => Some(Number::from(i64::MIN)),
        (true, Err(_)) => None,
    }
}

/// Digits with a point, or an exponent, or both.
fn float_form(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let exponent_fits = exponent.is_none_or(|e| digits(e.strip_prefix(['-', '+']).unwrap_or(e)));
    exponent_fits
        && match mantissa.split_once('.') {
            None => digits(mantissa),
            Some(("", fraction)) => digits(fraction),
            Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_kubernetes_makes_of_them() {
        let table = [
            ("", "null"),
            ("~", "null"),
            ("yes", "true"),
            ("Off", "false"),
            ("y", "true"),
            ("N", "false"),
            ("yEs", "\"yEs\""),
            ("12", "12"),
            ("0777", "511"),
            ("-0777", "-511"),
            ("0o17", "15"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("08", "8"),
            ("+7", "7"),
            ("1_000", "1000"),
            ("1.10", "1.1"),
            ("1e3", "1000"),
            (".5", "0.5"),
            ("1.", "1"),
            ("1:30", "\"1:30\""),
            ("1.2.3", "\"1.2.3\""),
            ("2026-01-02", "\"2026-01-02\""),
            ("0x", "\"0x\""),
            ("0b2", "\"0b2\""),
            ("-", "\"-\""),
            ("_1", "\"_1\""),
            ("1Gi", "\"1Gi\""),
            ("18446744073709551615", "18446744073709551615"),
            ("-9223372036854775808", "-9223372036854775808"),
            (".inf", "`.inf` is not a number that JSON can hold"),
            ("1e999", "`1e999` is not a number that JSON can hold"),
        ];
        for (text, expected) in table {
            let scalar = Scalar { text: text.into(), style: Style::Plain };
            let found = to_json(&scalar).map_or_else(|error| error, |json| json.to_string());
            assert_eq!(found, expected, "{text:?}");
        }
        let quoted = Scalar { text: "yes".into(), style: Style::Quoted };
        assert_eq!(to_json(&quoted), Ok(Value::String("yes".into())));
        assert_eq!((key("on"), key("n"), key("name"), key("1")), (Some("true"), Some("false"), None, None));
    }
}

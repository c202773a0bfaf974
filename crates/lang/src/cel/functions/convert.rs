//! From one type to another; a value that has no counterpart is a fault.

use jiff::Timestamp;

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, int_of, text_of};

pub(crate) const ROWS: &[Row] = &[
    ("dyn(A) -> dyn", same),
    ("type(A) -> type", |_, a| Ok(Value::Type(a[0].kind()))),
    ("bool(bool) -> bool", same),
    ("bool(string) -> bool", to_bool),
    ("bytes(bytes) -> bytes", same),
    ("bytes(string) -> bytes", |m, a| {
        let text = text_of(a, 0)?;
        m.budget.size(text.len())?;
        Ok(Value::Bytes(text.as_bytes().into()))
    }),
    ("double(double) -> double", same),
    ("double(int) -> double", to_double),
    ("double(uint) -> double", to_double),
    ("double(string) -> double", to_double),
    ("int(int) -> int", same),
    ("int(uint) -> int", to_int),
    ("int(double) -> int", to_int),
    ("int(string) -> int", to_int),
    ("int(timestamp) -> int", to_int),
    ("int(duration) -> int", to_int),
    ("uint(uint) -> uint", same),
    ("uint(int) -> uint", to_uint),
    ("uint(double) -> uint", to_uint),
    ("uint(string) -> uint", to_uint),
    ("string(string) -> string", same),
    ("string(bool) -> string", string),
    ("string(int) -> string", string),
    ("string(uint) -> string", string),
    ("string(double) -> string", string),
    ("string(bytes) -> string", string),
    ("string(timestamp) -> string", string),
    ("string(duration) -> string", string),
    ("timestamp(timestamp) -> timestamp", same),
    ("timestamp(string) -> timestamp", |_, a| read_timestamp(text_of(a, 0)?)),
    ("timestamp(int) -> timestamp", |_, a| {
        timestamp(Timestamp::from_second(int_of(a, 0)?).map_err(|_| range("timestamp"))?)
    }),
    ("duration(duration) -> duration", same),
    ("duration(string) -> duration", |_, a| read_duration(text_of(a, 0)?)),
    ("duration(int) -> duration", |_, a| Ok(Value::Duration(int_of(a, 0)?))),
];

fn same(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(args[0].clone())
}

fn range(kind: &str) -> Problem {
    Problem::value(format!("the value is out of the range of {kind}"))
}

fn wrong(text: &str, kind: &str) -> Problem {
    let shown: String = text.chars().take(40).collect();
    Problem::value(format!("type conversion error: {shown:?} is no {kind}"))
}

fn to_bool(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let text = text_of(args, 0)?;
    match &**text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
        other => Err(wrong(other, "bool")),
    }
}

fn to_double(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(Value::Double(match &args[0] {
        Value::Int(number) => *number as f64,
        Value::Uint(number) => *number as f64,
        Value::String(text) => text.parse().map_err(|_| wrong(text, "double"))?,
        other => return Err(Problem::overload(format!("`double` of ({})", other.kind_name()))),
    }))
}

fn to_int(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(Value::Int(match &args[0] {
        Value::Uint(number) => i64::try_from(*number).map_err(|_| range("int"))?,
        // The ends themselves are refused: a double next to them may have been rounded to them.
        Value::Double(number) if *number > -9_223_372_036_854_775_808.0 && *number < 9_223_372_036_854_775_808.0 => {
            *number as i64
        }
        Value::Double(_) => return Err(range("int")),
        Value::String(text) => text.parse().map_err(|_| wrong(text, "int"))?,
        Value::Timestamp(at) => at.as_nanosecond().div_euclid(1_000_000_000) as i64,
        Value::Duration(nanoseconds) => *nanoseconds,
        other => return Err(Problem::overload(format!("`int` of ({})", other.kind_name()))),
    }))
}

fn to_uint(_: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(Value::Uint(match &args[0] {
        Value::Int(number) => u64::try_from(*number).map_err(|_| range("uint"))?,
        Value::Double(number) if *number >= 0.0 && *number < 18_446_744_073_709_551_616.0 => *number as u64,
        Value::Double(_) => return Err(range("uint")),
        Value::String(text) => text.parse().map_err(|_| wrong(text, "uint"))?,
        other => return Err(Problem::overload(format!("`uint` of ({})", other.kind_name()))),
    }))
}

fn string(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    if let Value::Bytes(bytes) = &args[0] {
        machine.budget.size(bytes.len())?;
        let text = std::str::from_utf8(bytes).map_err(|_| Problem::value("invalid UTF-8 in bytes"))?;
        return Ok(Value::text(text));
    }
    match to_text(&args[0]) {
        Some(text) => Ok(Value::text(text)),
        None => Err(Problem::overload(format!("`string` of ({})", args[0].kind_name()))),
    }
}

/// How single values are written as text.
pub(crate) fn to_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => double_text(*number),
        Value::String(text) => text.to_string(),
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(nanoseconds) => duration_text(*nanoseconds),
        Value::Null | Value::Bytes(_) | Value::List(_) | Value::Map(_) | Value::Type(_) => return None,
    })
}

/// Seconds with as many decimals as it takes.
fn duration_text(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let size = nanoseconds.unsigned_abs();
    let (seconds, rest) = (size / 1_000_000_000, size % 1_000_000_000);
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let digits = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", digits.trim_end_matches('0'))
}

/// The shortest digits that read back as the same number; with an exponent from a million on and below 1e-4, as Go's `%g`
/// writes it, since that is what `string(1000000.0)` is in Tekton.
pub(crate) fn double_text(number: f64) -> String {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number}")
}

/// A timestamp that is within the years 1 to 9999.
pub(crate) fn timestamp(at: Timestamp) -> Result<Value, Problem> {
    const FIRST: i64 = -62_135_596_800;
    const AFTER: i64 = 253_402_300_800;
    let nanoseconds = at.as_nanosecond();
    if nanoseconds < i128::from(FIRST) * 1_000_000_000 || nanoseconds >= i128::from(AFTER) * 1_000_000_000 {
        return Err(range("timestamp"));
    }
    Ok(Value::Timestamp(at))
}

/// As RFC 3339 has it, and nothing else.
fn read_timestamp(text: &str) -> Result<Value, Problem> {
    let bytes = text.as_bytes();
    let digits =
        |range: std::ops::Range<usize>| bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit));
    let sign = |at: usize, c: u8| bytes.get(at) == Some(&c);
    let date = digits(0..4) && sign(4, b'-') && digits(5..7) && sign(7, b'-') && digits(8..10) && sign(10, b'T');
    let time = digits(11..13) && sign(13, b':') && digits(14..16) && sign(16, b':') && digits(17..19);
    let zone = bytes.get(19..).and_then(|rest| {
        let rest = match rest.strip_prefix(b".") {
            Some(fraction) => {
                let end = fraction.iter().position(|b| !b.is_ascii_digit())?;
                (1..=9).contains(&end).then(|| &fraction[end..])?
            }
            None => rest,
        };
        match rest {
            b"Z" => Some(()),
            [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()).then_some(()),
            _ => None,
        }
    });
    if !date || !time || zone.is_none() {
        return Err(wrong(text, "timestamp such as 2026-01-02T03:04:05Z"));
    }
    timestamp(text.parse().map_err(|_| range("timestamp"))?)
}

/// `1h30m`, `-1.5s`, `300ms`: numbers with the units h, m, s, ms, us, µs, ns.
fn read_duration(text: &str) -> Result<Value, Problem> {
    let no = || wrong(text, "duration such as 1h30m or 1.5s");
    if text.len() > 200 {
        return Err(no());
    }
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(Value::Duration(0));
    }
    if rest.is_empty() {
        return Err(no());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(no)?;
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).ok_or_else(no)?),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(no());
        }
        let units: [(&str, i128); 8] = [
            ("ns", 1),
            ("us", 1_000),
            ("µs", 1_000),
            ("μs", 1_000),
            ("ms", 1_000_000),
            ("s", 1_000_000_000),
            ("m", 60_000_000_000),
            ("h", 3_600_000_000_000),
        ];
        let (name, unit) = units.into_iter().find(|(name, _)| after.starts_with(name)).ok_or_else(no)?;
        rest = &after[name.len()..];
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| range("duration"))?.into() };
        let mut part = 0;
        let mut scale = unit;
        for digit in fraction.bytes() {
            scale /= 10;
            part += i128::from(digit - b'0') * scale;
        }
        total += whole * unit + part;
    }
    let total = if negative { -total } else { total };
    i64::try_from(total).map(Value::Duration).map_err(|_| range("duration"))
}

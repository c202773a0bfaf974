//! `format`: a template with `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o` and `%%`.

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, convert, list_of, text_of};

pub(crate) const ROWS: &[Row] = &[("string.format(list(dyn)) -> string", format)];

/// More digits after the point say nothing.
const MOST_DIGITS: usize = 1_000;

fn format(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (template, values) = (text_of(args, 0)?, list_of(args, 1)?);
    machine.budget.size(template.len())?;
    let mut out = String::new();
    let mut chars = template.chars();
    let mut next = values.iter();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        let mut verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        if verb == Some('.') {
            let mut digits = String::new();
            loop {
                verb = chars.next();
                match verb {
                    Some(digit) if digit.is_ascii_digit() => digits.push(digit),
                    _ => break,
                }
            }
            let count: usize = digits.parse().ok().filter(|n| *n <= MOST_DIGITS).ok_or_else(|| {
                Problem::value(format!("`%.{digits}` asks for no number of digits from 0 to {MOST_DIGITS}"))
            })?;
            precision = Some(count);
        }
        let verb = verb.ok_or_else(|| Problem::value("the template ends within a `%`"))?;
        let value = next.next().ok_or_else(|| Problem::value("the template has more `%` than the list has items"))?;
        let piece = one(machine, verb, precision, value)?;
        machine.budget.size(piece.len())?;
        out.push_str(&piece);
    }
    Ok(Value::text(out))
}

fn one(machine: &mut Machine<'_>, verb: char, precision: Option<usize>, value: &Value) -> Result<String, Problem> {
    let wrong = || Problem::value(format!("`%{verb}` cannot show {}", value.kind_name()));
    let special = |number: f64| match number {
        n if n.is_nan() => Some("NaN"),
        n if n == f64::INFINITY => Some("Infinity"),
        n if n == f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    };
    let as_double = || match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        Value::Uint(number) => Some(*number as f64),
        _ => None,
    };
    // Sign and size, since `-1` in binary is `-1`.
    let whole = || match value {
        Value::Int(number) => Some((if *number < 0 { "-" } else { "" }, number.unsigned_abs())),
        Value::Uint(number) => Some(("", *number)),
        _ => None,
    };
    Ok(match verb {
        's' => shown(machine, value, true)?,
        'd' => match value {
            Value::Int(number) => number.to_string(),
            Value::Uint(number) => number.to_string(),
            Value::Double(number) => special(*number).ok_or_else(wrong)?.to_owned(),
            _ => return Err(wrong()),
        },
        'f' => {
            let number = as_double().ok_or_else(wrong)?;
            special(number).map_or_else(|| format!("{number:.*}", precision.unwrap_or(6)), str::to_owned)
        }
        'e' => {
            let number = as_double().ok_or_else(wrong)?;
            match special(number) {
                Some(word) => word.to_owned(),
                None => {
                    let text = format!("{number:.*e}", precision.unwrap_or(6));
                    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                    let exponent: i32 = exponent.parse().unwrap_or(0);
                    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
                }
            }
        }
        'b' => match value {
            Value::Bool(value) => u8::from(*value).to_string(),
            _ => whole().map(|(sign, size)| format!("{sign}{size:b}")).ok_or_else(wrong)?,
        },
        'o' => whole().map(|(sign, size)| format!("{sign}{size:o}")).ok_or_else(wrong)?,
        'x' | 'X' => {
            let text = match value {
                Value::String(text) => hex(machine, text.as_bytes())?,
                Value::Bytes(bytes) => hex(machine, bytes)?,
                _ => whole().map(|(sign, size)| format!("{sign}{size:x}")).ok_or_else(wrong)?,
            };
            if verb == 'X' { text.to_ascii_uppercase() } else { text }
        }
        other => return Err(Problem::value(format!("`%{other}` is no verb of `format`"))),
    })
}

fn hex(machine: &mut Machine<'_>, bytes: &[u8]) -> Result<String, Problem> {
    machine.budget.size(bytes.len() * 2)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A value in a text; strings within lists and maps stand in quotes.
fn shown(machine: &mut Machine<'_>, value: &Value, outermost: bool) -> Result<String, Problem> {
    machine.budget.step()?;
    Ok(match value {
        Value::Null => "null".into(),
        Value::String(text) if outermost => text.to_string(),
        Value::String(text) => {
            machine.budget.size(text.len())?;
            super::text::quoted(text)
        }
        Value::Bytes(bytes) => {
            machine.budget.size(bytes.len())?;
            String::from_utf8_lossy(bytes).into_owned()
        }
        Value::Double(number) if number.is_infinite() => {
            if *number > 0.0 {
                "Infinity".into()
            } else {
                "-Infinity".into()
            }
        }
        Value::Double(number) if !number.is_nan() => format!("{number}"),
        Value::List(items) => {
            let items: Result<Vec<String>, Problem> = items.iter().map(|item| shown(machine, item, false)).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Map(entries) => {
            let mut parts = Vec::with_capacity(entries.len());
            for (key, value) in entries.iter() {
                let key = shown(machine, &key.value(), false)?;
                parts.push(format!("{key}: {}", shown(machine, value, false)?));
            }
            format!("{{{}}}", parts.join(", "))
        }
        Value::Type(kind) => kind.name().into(),
        other => convert::to_text(other).unwrap_or_default(),
    })
}

//! Functions of strings. Positions count characters, from 0.

use std::sync::Arc;

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, int_of, list_of, text_of};

pub(crate) const STANDARD: &[Row] = &[
    ("size(string) -> int", size),
    ("string.size() -> int", size),
    ("size(bytes) -> int", size),
    ("bytes.size() -> int", size),
    ("string.contains(string) -> bool", |m, a| with(m, a, |text, other| text.contains(other))),
    ("string.startsWith(string) -> bool", |m, a| with(m, a, |text, other| text.starts_with(other))),
    ("string.endsWith(string) -> bool", |m, a| with(m, a, |text, other| text.ends_with(other))),
    ("matches(string,string) -> bool", matches),
    ("string.matches(string) -> bool", matches),
];

pub(crate) const EXTENSIONS: &[Row] = &[
    ("string.charAt(int) -> string", char_at),
    ("string.indexOf(string) -> int", index_of),
    ("string.indexOf(string,int) -> int", index_of),
    ("string.lastIndexOf(string) -> int", last_index_of),
    ("string.lastIndexOf(string,int) -> int", last_index_of),
    ("list(string).join() -> string", join),
    ("list(string).join(string) -> string", join),
    ("string.lowerAscii() -> string", |m, a| made(m, text_of(a, 0)?, |text| text.to_ascii_lowercase())),
    ("string.upperAscii() -> string", |m, a| made(m, text_of(a, 0)?, |text| text.to_ascii_uppercase())),
    ("string.trim() -> string", |m, a| made(m, text_of(a, 0)?, |text| text.trim().to_owned())),
    ("string.reverse() -> string", |m, a| made(m, text_of(a, 0)?, |text| text.chars().rev().collect())),
    ("string.replace(string,string) -> string", replace),
    ("string.replace(string,string,int) -> string", replace),
    ("string.split(string) -> list(string)", split),
    ("string.split(string,int) -> list(string)", split),
    ("string.substring(int) -> string", substring),
    ("string.substring(int,int) -> string", substring),
    ("strings.quote(string) -> string", |m, a| {
        m.budget.size(text_of(a, 0)?.len() * 2)?;
        Ok(Value::text(quoted(text_of(a, 0)?)))
    }),
];

fn size(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let size = match &args[0] {
        Value::String(text) => {
            machine.budget.size(text.len())?;
            text.chars().count()
        }
        Value::Bytes(bytes) => bytes.len(),
        other => return Err(Problem::overload(format!("`size` of ({})", other.kind_name()))),
    };
    Ok(Value::Int(size as i64))
}

fn with(machine: &mut Machine<'_>, args: &[Value], holds: fn(&str, &str) -> bool) -> Result<Value, Problem> {
    let (text, other) = (text_of(args, 0)?, text_of(args, 1)?);
    machine.budget.size(text.len() + other.len())?;
    Ok(Value::Bool(holds(text, other)))
}

fn matches(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, pattern) = (text_of(args, 0)?, text_of(args, 1)?);
    let regex = machine.regex(pattern)?;
    // Linear in the text, and at worst as much for each part of the pattern.
    machine.budget.size(text.len().saturating_mul(1 + pattern.len() / 8))?;
    Ok(Value::Bool(regex.is_match(text)))
}

/// A text that is no longer than the one it is made of.
fn made(machine: &mut Machine<'_>, text: &str, make: fn(&str) -> String) -> Result<Value, Problem> {
    machine.budget.size(text.len())?;
    Ok(Value::text(make(text)))
}

fn outside(index: i64) -> Problem {
    Problem::value(format!("index out of range: {index}"))
}

/// The byte at which a character begins; the end is one too.
fn byte_of(text: &str, index: i64) -> Option<usize> {
    let index = usize::try_from(index).ok()?;
    text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(index)
}

fn characters(text: &str) -> i64 {
    text.chars().count() as i64
}

fn char_at(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, index) = (text_of(args, 0)?, int_of(args, 1)?);
    machine.budget.size(text.len())?;
    let at = byte_of(text, index).ok_or_else(|| outside(index))?;
    Ok(Value::text(text[at..].chars().next().map_or_else(String::new, String::from)))
}

fn index_of(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, part) = (text_of(args, 0)?, text_of(args, 1)?);
    machine.budget.size(text.len() + part.len())?;
    let from = if args.len() > 2 { int_of(args, 2)? } else { 0 };
    if from < 0 {
        return Err(outside(from));
    }
    let Some(start) = byte_of(text, from) else { return Ok(Value::Int(-1)) };
    let found = text[start..].find(&**part).map_or(-1, |at| from + characters(&text[start..start + at]));
    Ok(Value::Int(found))
}

fn last_index_of(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, part) = (text_of(args, 0)?, text_of(args, 1)?);
    machine.budget.size(text.len() + part.len())?;
    // The match may begin at the limit, so it ends as far behind it as it is long.
    let end = if args.len() > 2 {
        let last = int_of(args, 2)?;
        if last < 0 {
            return Err(outside(last));
        }
        let Some(start) = byte_of(text, last) else { return Ok(Value::Int(-1)) };
        let mut end = (start + part.len()).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        end
    } else {
        text.len()
    };
    Ok(Value::Int(text[..end].rfind(&**part).map_or(-1, |at| characters(&text[..at]))))
}

fn join(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let items = list_of(args, 0)?;
    let between = if args.len() > 1 { Arc::clone(text_of(args, 1)?) } else { Arc::from("") };
    let mut joined = String::new();
    for (n, item) in items.iter().enumerate() {
        let Value::String(text) = item else {
            return Err(Problem::value(format!("`join` takes strings, and item {n} is {}", item.kind_name())));
        };
        machine.budget.step()?;
        machine.budget.size(text.len() + between.len())?;
        if n > 0 {
            joined.push_str(&between);
        }
        joined.push_str(text);
    }
    Ok(Value::text(joined))
}

/// How often at most; all the time where the limit is negative or not given.
fn limit_of(args: &[Value], n: usize) -> Result<usize, Problem> {
    if args.len() <= n {
        return Ok(usize::MAX);
    }
    Ok(usize::try_from(int_of(args, n)?).unwrap_or(usize::MAX))
}

fn replace(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, from, to) = (text_of(args, 0)?, text_of(args, 1)?, text_of(args, 2)?);
    let limit = limit_of(args, 3)?;
    machine.budget.size(text.len())?;
    let times = text.matches(&**from).take(limit).count();
    machine.budget.size(times.saturating_mul(to.len()).saturating_add(times))?;
    Ok(Value::text(text.replacen(&**from, to, limit)))
}

fn split(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, by) = (text_of(args, 0)?, text_of(args, 1)?);
    let limit = limit_of(args, 2)?;
    machine.budget.size(text.len())?;
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let mut parts = Vec::new();
    if by.is_empty() {
        // Each character is a part of its own; what is beyond the limit stays together.
        let mut rest: &str = text;
        while let Some(c) = rest.chars().next() {
            machine.budget.step()?;
            if parts.len() + 1 == limit {
                parts.push(Value::text(rest));
                break;
            }
            parts.push(Value::text(&rest[..c.len_utf8()]));
            rest = &rest[c.len_utf8()..];
        }
    } else {
        for part in text.splitn(limit, &**by) {
            machine.budget.step()?;
            parts.push(Value::text(part));
        }
    }
    Ok(Value::list(parts))
}

fn substring(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, start) = (text_of(args, 0)?, int_of(args, 1)?);
    machine.budget.size(text.len())?;
    let end = if args.len() > 2 { int_of(args, 2)? } else { characters(text) };
    if args.len() > 2 && start > end {
        return Err(Problem::value(format!("invalid substring range: it begins at {start} and ends at {end}")));
    }
    let from = byte_of(text, start).ok_or_else(|| outside(start))?;
    let to = byte_of(text, end).ok_or_else(|| outside(end))?;
    Ok(Value::text(&text[from..to]))
}

/// In double quotes, with escapes for whatever could not stand in them.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' | '"' => {
                out.push('\\');
                out.push(c);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

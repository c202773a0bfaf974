//! The functions that Tekton's triggers add.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::check::{Code, Op};
use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::{Key, Value};
use super::{Row, int_of, list_of, text_of, url};
use crate::triggers::signature;

pub(crate) const ROWS: &[Row] = &[
    ("map(string,dyn).match(string,string) -> bool", |_, a| {
        Ok(Value::Bool(header(&a[0], text_of(a, 1)?)? == **text_of(a, 2)?))
    }),
    ("map(string,dyn).canonical(string) -> string", |_, a| Ok(Value::text(header(&a[0], text_of(a, 1)?)?))),
    ("string.truncate(int) -> string", truncate),
    ("string.compareSecret(string,string) -> bool", compare_secret),
    ("string.compareSecret(string,string,string) -> bool", compare_secret),
    ("string.parseJSON() -> map(string,dyn)", |m, a| {
        parsed(m, a, "parseJSON", |text| serde_json::from_str(text).map_err(|error| error.to_string()))
    }),
    ("string.parseYAML() -> map(string,dyn)", |m, a| parsed(m, a, "parseYAML", crate::yaml::to_json)),
    ("string.parseURL() -> map(string,dyn)", |m, a| {
        let text = text_of(a, 0)?;
        m.budget.size(text.len().saturating_mul(8))?;
        url::parts(text).map_err(|why| Problem::value(format!("`parseURL` of what is no address: {why}")))
    }),
    ("map(string,dyn).marshalJSON() -> string", marshal),
    ("list(dyn).marshalJSON() -> string", marshal),
    ("list(dyn).first() -> dyn", |_, a| Ok(list_of(a, 0)?.first().cloned().unwrap_or(Value::Null))),
    ("list(dyn).last() -> dyn", |_, a| Ok(list_of(a, 0)?.last().cloned().unwrap_or(Value::Null))),
    ("string.translate(string,string) -> string", translate),
    ("string.decodeb64() -> string", |m, a| {
        let bytes = decoded(m, text_of(a, 0)?)?;
        Ok(Value::text(String::from_utf8(bytes).map_err(|_| Problem::value("invalid UTF-8 in what was base64"))?))
    }),
    ("base64.decode(string) -> bytes", |m, a| Ok(Value::Bytes(decoded(m, text_of(a, 0)?)?.into()))),
    ("base64.encode(bytes) -> string", |m, a| match &a[0] {
        Value::Bytes(bytes) => {
            m.budget.size(bytes.len() * 2)?;
            Ok(Value::text(base64::engine::general_purpose::STANDARD.encode(bytes)))
        }
        _ => Err(Problem::overload("bytes are expected")),
    }),
];

/// The first value of a header, by its canonical name; empty if there is none.
fn header(headers: &Value, name: &str) -> Result<String, Problem> {
    let Value::Map(map) = headers else { return Err(Problem::overload("headers are a map")) };
    let key = Key::from(crate::triggers::event::canonical(name).as_str());
    match map.get(&key) {
        None => Ok(String::new()),
        Some(Value::List(values)) => match values.first() {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.to_string()),
            Some(other) => Err(Problem::value(format!("a header is a string, and this is {}", other.kind_name()))),
        },
        Some(other) => Err(Problem::value(format!("headers are lists of strings, and this is {}", other.kind_name()))),
    }
}

/// To so many bytes, but never through a character.
fn truncate(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, length) = (text_of(args, 0)?, int_of(args, 1)?);
    let length = usize::try_from(length).map_err(|_| Problem::value("`truncate` to less than nothing"))?;
    let end = text.floor_char_boundary(length.min(text.len()));
    machine.budget.size(end)?;
    Ok(Value::text(&text[..end]))
}

/// In constant time. A namespace may be given, and is not used: a trigger reads its own namespace's secrets.
fn compare_secret(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (given, key, name) = (text_of(args, 0)?, text_of(args, 1)?, text_of(args, 2)?);
    match machine.secrets.get(name, key) {
        Some(secret) => Ok(Value::Bool(signature::same(given.as_bytes(), secret))),
        None => Err(Problem::value(format!("there is no secret `{name}` with the key `{key}`"))),
    }
}

fn parsed(
    machine: &mut Machine<'_>,
    args: &[Value],
    name: &str,
    read: fn(&str) -> Result<serde_json::Value, String>,
) -> Result<Value, Problem> {
    let text = text_of(args, 0)?;
    machine.budget.size(text.len().saturating_mul(8))?;
    match read(text) {
        Ok(json @ serde_json::Value::Object(_)) => Ok(Value::from_json(&json)),
        Ok(_) => Err(Problem::value(format!("`{name}` reads objects, and the text holds something else"))),
        Err(why) => Err(Problem::value(format!("`{name}` cannot read the text: {why}"))),
    }
}

fn marshal(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    Ok(Value::text(args[0].to_json(&mut machine.budget)?.to_string()))
}

fn translate(machine: &mut Machine<'_>, args: &[Value]) -> Result<Value, Problem> {
    let (text, pattern, to) = (text_of(args, 0)?, text_of(args, 1)?, text_of(args, 2)?);
    let regex = machine.regex(pattern)?;
    machine.budget.size(text.len().saturating_mul(1 + pattern.len() / 8))?;
    let mut out = String::new();
    let mut last = 0;
    for found in regex.captures_iter(text) {
        let Some(whole) = found.get(0) else { continue };
        out.push_str(&text[last..whole.start()]);
        let before = out.len();
        found.expand(to, &mut out);
        machine.budget.step()?;
        machine.budget.size(out.len() - before)?;
        last = whole.end();
    }
    out.push_str(&text[last..]);
    Ok(Value::text(out))
}

fn decoded(machine: &mut Machine<'_>, text: &str) -> Result<Vec<u8>, Problem> {
    /// Padding may be left out.
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    machine.budget.size(text.len())?;
    ENGINE.decode(text).map_err(|_| Problem::value("the text is not base64"))
}

/// Secrets that `compareSecret` names in plain text, as (name, key).
pub(crate) fn secrets(code: &Code, found: &mut Vec<(String, String)>) {
    let mut each = |codes: &[Code]| codes.iter().for_each(|code| secrets(code, found));
    match &code.op {
        Op::Constant(_) | Op::Global(_) | Op::Local(_) => {}
        Op::Select { of, .. } | Op::Has { of, .. } => secrets(of, found),
        Op::Call { overloads, args } => {
            each(args);
            let compares = overloads.first().is_some_and(|overload| overload.name == "compareSecret");
            if let (true, [_, Code { op: Op::Constant(key), .. }, Code { op: Op::Constant(name), .. }, ..]) =
                (compares, &args[..])
                && let (Value::String(key), Value::String(name)) = (key, name)
            {
                found.push((name.to_string(), key.to_string()));
            }
        }
        Op::List(items) | Op::And(items) | Op::Or(items) => each(items),
        Op::Map(entries) => {
            for (key, value) in entries {
                secrets(key, found);
                secrets(value, found);
            }
        }
        Op::If(parts) => each(&parts[..]),
        Op::Each { over, filter, body, .. } => {
            secrets(over, found);
            if let Some(filter) = filter {
                secrets(filter, found);
            }
            secrets(body, found);
        }
    }
}

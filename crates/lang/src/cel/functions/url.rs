//! An address in its parts, as `parseURL` gives them.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::super::value::Value;

/// The parts, or why it is no address.
pub(crate) fn parts(text: &str) -> Result<Value, &'static str> {
    if text.chars().any(|c| c.is_ascii_control()) {
        return Err("it holds control characters");
    }
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = scheme(rest)?;
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.find('/').map_or((rest, ""), |at| rest.split_at(at)),
        None => ("", rest),
    };
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.contains([' ', '"', '<', '>', '\\', '^', '`', '{', '}', '|']) {
        return Err("its host holds characters that no host has");
    }
    let port = host.rsplit_once(':').filter(|(before, _)| !before.contains('[') || before.ends_with(']'));
    if port.is_some_and(|(_, port)| !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err("its port is no number");
    }
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // A pair that cannot be decoded is left out, like a reader of addresses does that must go on.
        if let (Ok(name), Ok(value)) = (decoded(&name.replace('+', " ")), decoded(&value.replace('+', " "))) {
            values.entry(name).or_default().push(value);
        }
    }
    let texts = |list: &[String]| Value::list(list.iter().map(|text| Value::text(text.as_str())).collect());
    let mut entries = vec![
        ("scheme", Value::text(scheme)),
        ("host", Value::text(decoded(host)?)),
        ("path", Value::text(decoded(path)?)),
        ("rawQuery", Value::text(query)),
        ("fragment", Value::text(decoded(fragment)?)),
        ("queryStrings", Value::map(values.iter().map(|(name, list)| (name.as_str(), texts(list))))),
        ("query", Value::map(values.iter().map(|(name, list)| (name.as_str(), Value::text(list.join(",")))))),
    ];
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let auth = [("username", Value::text(decoded(name)?)), ("password", Value::text(decoded(password)?))];
        entries.push(("auth", Value::map(auth)));
    }
    Ok(Value::map(entries))
}

/// In small letters, and what follows it.
fn scheme(text: &str) -> Result<(String, &str), &'static str> {
    let end = text.find([':', '/']).filter(|at| text[*at..].starts_with(':'));
    let Some(end) = end else { return Ok((String::new(), text)) };
    let name = &text[..end];
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("it begins with no scheme");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')) {
        return Err("the first part of its path holds a colon");
    }
    Ok((name.to_ascii_lowercase(), &text[end + 1..]))
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let bytes = text.as_bytes();
    for (at, _) in text.match_indices('%') {
        let digits = bytes.get(at + 1..at + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if !digits {
            return Err("a `%` in it is not followed by two hexadecimal digits");
        }
    }
    Ok(percent_decode_str(text).decode_utf8_lossy().into_owned())
}

//! An event as it came over HTTP.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::cel;

/// What was posted to a listener.
#[derive(Debug, Clone)]
pub struct Event {
    /// The listener's own name for it.
    pub id: String,
    /// The address that was posted to: a path with its query.
    pub url: String,
    pub headers: Headers,
    pub body: Body,
    pub received: Timestamp,
}

/// Headers by their canonical names; each may be there several times.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, Vec<String>>);

/// Only the names: tokens are among the values.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Headers {
    pub fn new<'h>(pairs: impl IntoIterator<Item = (&'h str, &'h str)>) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.add(name, value);
        }
        headers
    }

    pub fn add(&mut self, name: &str, value: &str) {
        self.0.entry(canonical(name)).or_default().push(value.to_owned());
    }

    /// Its first value; empty if it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.get(&canonical(name)).and_then(|values| values.first()).map_or("", String::as_str)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// Each with the texts of all its values: what bindings see.
    pub(super) fn joined(&self) -> Value {
        Value::Object(self.iter().map(|(name, values)| (name.to_owned(), values.join(",").into())).collect())
    }

    /// Each with the list of its values: what expressions see.
    pub(super) fn lists(&self) -> Value {
        Value::Object(self.iter().map(|(name, values)| (name.to_owned(), values.into())).collect())
    }

    /// The body is a form, as Slack posts it.
    pub fn is_form(&self) -> bool {
        let kind = self.get("Content-Type").split(';').next().unwrap_or("").trim();
        kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
    }
}

/// A body: the bytes that were signed, and what they say. It is read once, whoever asks, and copies share it.
#[derive(Clone)]
pub struct Body(Arc<Inner>);

/// Only its size: it holds what people wrote.
impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.raw.len())
    }
}

struct Inner {
    raw: Vec<u8>,
    json: OnceLock<Result<Value, String>>,
    cel: OnceLock<cel::Value>,
}

impl Body {
    pub fn new(raw: impl Into<Vec<u8>>) -> Body {
        Body(Arc::new(Inner { raw: raw.into(), json: OnceLock::new(), cel: OnceLock::new() }))
    }

    pub fn raw(&self) -> &[u8] {
        &self.0.raw
    }

    /// What it says; nothing at all is `null`.
    pub fn json(&self) -> Result<&Value, String> {
        let read = || {
            if self.0.raw.iter().all(u8::is_ascii_whitespace) {
                return Ok(Value::Null);
            }
            serde_json::from_slice(&self.0.raw).map_err(|error| format!("the body is not JSON: {error}"))
        };
        self.0.json.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// The same for expressions: an object, or nothing in it.
    pub(super) fn cel(&self) -> Result<cel::Value, String> {
        let json = match self.json()? {
            Value::Null => &Value::Object(Map::new()),
            json @ Value::Object(_) => json,
            _ => return Err("the body is JSON, but no object".into()),
        };
        Ok(self.0.cel.get_or_init(|| cel::Value::from_json(json)).clone())
    }

    /// The fields of a form as JSON: each with the list of its values.
    pub(super) fn form(&self) -> Result<Body, String> {
        let text = std::str::from_utf8(&self.0.raw).map_err(|_| "the form is no text")?;
        let mut fields: Map<String, Value> = Map::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |part: &str| {
                let spaced = part.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
            };
            let list = fields.entry(decode(name)).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(decode(value).into());
            }
        }
        Ok(Body::new(Value::Object(fields).to_string()))
    }
}

/// The canonical name of a header: `x-github-event` is `X-Github-Event`. A name with characters that no header has
/// stays as it is.
pub fn canonical(name: &str) -> String {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if !name.bytes().all(token) {
        return name.to_owned();
    }
    let mut upper = true;
    name.chars()
        .map(|c| {
            let shown = if upper { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
            upper = c == '-';
            shown
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_one_name_however_they_are_written() {
        let headers = Headers::new([("x-github-EVENT", "push"), ("X-GitHub-Event", "ping"), ("a b", "c")]);
        assert_eq!(headers.get("X-Github-Event"), "push");
        assert_eq!(headers.joined(), serde_json::json!({"X-Github-Event": "push,ping", "a b": "c"}));
        assert_eq!(headers.get("nothing"), "");
        assert_eq!(format!("{headers:?}"), r#"["X-Github-Event", "a b"]"#);
    }

    #[test]
    fn a_form_is_json_of_lists() {
        let form = Body::new("text=a+b%21&text=c&empty=&x").form().unwrap();
        assert_eq!(form.json().unwrap(), &serde_json::json!({"text": ["a b!", "c"], "empty": [""], "x": [""]}));
        assert_eq!(Body::new(" \n").json(), Ok(&Value::Null));
        assert!(Body::new("{").json().unwrap_err().starts_with("the body is not JSON"));
        assert!(Body::new("[1]").cel().is_err());
    }
}

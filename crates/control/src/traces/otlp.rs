//! The JSON form of OTLP: numbers of 64 bits are texts, ids are hexadecimal, attributes are a list.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// One span that is over.
#[derive(Debug, Clone)]
pub struct Span {
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 of them.
    pub span_id: String,
    /// Empty for the root.
    pub parent: String,
    pub name: String,
    pub start: Timestamp,
    pub end: Timestamp,
    pub attributes: Vec<(&'static str, Value)>,
    pub outcome: Outcome,
}

#[derive(Debug, Clone)]
pub enum Outcome {
    Ok,
    Error(String),
}

/// The kind of a span inside a service.
const INTERNAL: u8 = 1;

/// The body of an export: spans of the one service that we are.
pub fn request(resource: &[(String, String)], spans: &[Span]) -> Value {
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(resource.iter().map(|(key, value)| (key.as_str(), json!(value)))) },
        "scopeSpans": [{
            "scope": { "name": "pitcrew", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans.iter().map(shape).collect::<Vec<_>>(),
        }],
    }] })
}

fn shape(span: &Span) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("traceId", json!(span.trace_id));
    put("spanId", json!(span.span_id));
    if !span.parent.is_empty() {
        put("parentSpanId", json!(span.parent));
    }
    put("name", json!(span.name));
    put("kind", json!(INTERNAL));
    put("startTimeUnixNano", json!(span.start.as_nanosecond().to_string()));
    put("endTimeUnixNano", json!(span.end.as_nanosecond().to_string()));
    put("attributes", attributes(span.attributes.iter().map(|(key, value)| (*key, value.clone()))));
    put(
        "status",
        match &span.outcome {
            Outcome::Ok => json!({ "code": 1 }),
            Outcome::Error(message) => json!({ "code": 2, "message": message.chars().take(1000).collect::<String>() }),
        },
    );
    Value::Object(map)
}

fn attributes<'a>(pairs: impl Iterator<Item = (&'a str, Value)>) -> Value {
    let shape = |value: Value| match value {
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    pairs.map(|(key, value)| json!({ "key": key, "value": shape(value) })).collect()
}

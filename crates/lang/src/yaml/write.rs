//! Writes JSON as YAML in blocks, as `kubectl -o yaml` prints it.
//!
//! Keys are sorted, items of a list stand under their key, a text with several lines is a literal block, and a text is
//! in quotes only where it would be read as something else. What is written reads back as the same value, under the
//! rules of YAML 1.1 and of 1.2.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{Scalar, Style, scalars11};

/// The value as a document, without `---`; it ends with a line break.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => object(&mut out, fields, 0, false),
        Value::Array(items) if !items.is_empty() => array(&mut out, items, 0, false),
        other => {
            single(&mut out, other, 0);
            out.push('\n');
        }
    }
    out
}

/// Values one after the other, with `---` between them.
pub fn to_documents<'a>(values: impl IntoIterator<Item = &'a Value>) -> String {
    values.into_iter().map(to_yaml).collect::<Vec<_>>().join("---\n")
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

/// `inline`: the first key stands behind the `- ` of a list.
fn object(out: &mut String, fields: &Map<String, Value>, depth: usize, inline: bool) {
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    for (number, (key, value)) in sorted.into_iter().enumerate() {
        if !(inline && number == 0) {
            indent(out, depth);
        }
        if key.contains('\n') {
            quoted(out, key)
        } else {
            text(out, key, depth)
        }
        out.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                object(out, fields, depth + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                array(out, items, depth, false);
            }
            other => {
                out.push(' ');
                single(out, other, depth);
                out.push('\n');
            }
        }
    }
}

fn array(out: &mut String, items: &[Value], depth: usize, inline: bool) {
    for (number, item) in items.iter().enumerate() {
        if !(inline && number == 0) {
            indent(out, depth);
        }
        out.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => object(out, fields, depth + 2, true),
            Value::Array(items) if !items.is_empty() => array(out, items, depth + 2, true),
            other => {
                single(out, other, depth);
                out.push('\n');
            }
        }
    }
}

/// What takes one line, or is a literal block below a line that is indented by `depth`.
fn single(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(string) => text(out, string, depth),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

fn text(out: &mut String, text: &str, depth: usize) {
    if text.contains('\n') {
        if is_block(text) { block(out, text, depth) } else { quoted(out, text) }
    } else if text.chars().any(|c| c.is_control() || is_odd(c)) {
        quoted(out, text);
    } else if is_other(text) {
        // `true` and `12` are texts here; kubectl prints these in double quotes.
        let _ = write!(out, "\"{text}\"");
    } else if is_plain(text) {
        out.push_str(text);
    } else {
        let _ = write!(out, "'{}'", text.replace('\'', "''"));
    }
}

/// Characters that a reader of YAML may not take as they are.
fn is_odd(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Without quotes it would be no text.
fn is_other(text: &str) -> bool {
    let scalar = Scalar { text: text.into(), style: Style::Plain };
    let is_text = |json: Result<Value, String>| matches!(json, Ok(Value::String(_)));
    // Readers of YAML 1.1 that count in sixties take `1:30` for a number.
    let sixties =
        text.contains(':') && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.' | b'_' | b'-' | b'+'));
    !is_text(scalars11::to_json(&scalar)) || !is_text(scalar.to_json()) || sixties || looks_like_a_day(text)
}

/// A date, which some readers make a time of.
fn looks_like_a_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() >= 8 && bytes[..4].iter().all(u8::is_ascii_digit) && bytes[4] == b'-' && bytes[5].is_ascii_digit()
}

fn is_plain(text: &str) -> bool {
    let mut chars = text.chars();
    let (Some(first), second) = (chars.next(), chars.next()) else { return false };
    let begins = match first {
        '-' | '?' | ':' => second.is_some_and(|c| c != ' '),
        ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' | ' ' => false,
        _ => true,
    };
    begins
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.starts_with("---")
        && !text.starts_with("...")
        && text != "="
        && text != "<<"
}

/// A literal block gives the text back, letter by letter.
fn is_block(text: &str) -> bool {
    let lines = text.split('\n');
    // A line of blanks, and a blank at an end, are hard to see; Kubernetes' tools quote such texts too.
    lines.clone().all(|line| !line.ends_with([' ', '\t']))
        && lines.clone().any(|line| !line.is_empty())
        && !text.starts_with('\n')
        && !text.chars().any(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_odd(c))
        && !text.starts_with('\t')
}

fn block(out: &mut String, text: &str, depth: usize) {
    out.push('|');
    if text.starts_with(' ') {
        out.push('2');
    }
    let body = match text.strip_suffix('\n') {
        None => {
            out.push('-');
            text
        }
        Some(body) if body.ends_with('\n') => {
            out.push('+');
            body
        }
        Some(body) => body,
    };
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth + 2);
            out.push_str(line);
        }
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if (c.is_control() || is_odd(c)) && (c as u32) < 0x100 => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_odd(c) => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_printed_as_kubectl_prints_it() {
        let value = json!({
            "kind": "TaskRun", "apiVersion": "tekton.dev/v1",
            "metadata": {"name": "hello", "labels": {}, "annotations": {"a.b/c": "true", "n": "12"}},
            "spec": {"taskSpec": {"steps": [
                {"name": "say", "image": "alpine", "script": "#!/bin/sh\necho 'hi'\n\nexit 0\n", "args": [],
                 "command": ["sh", "-c", "a: b", "- x", "#", "", "it's", "x\ny"]},
            ]}},
            "status": {"n": 1, "f": 1.5, "b": false, "z": null, "at": "2026-01-02T03:04:05Z"}
        });
        insta::assert_snapshot!(to_yaml(&value), @r#"
        apiVersion: tekton.dev/v1
        kind: TaskRun
        metadata:
          annotations:
            a.b/c: "true"
            "n": "12"
          labels: {}
          name: hello
        spec:
          taskSpec:
            steps:
            - args: []
              command:
              - sh
              - -c
              - 'a: b'
              - '- x'
              - '#'
              - ""
              - it's
              - |-
                x
                y
              image: alpine
              name: say
              script: |
                #!/bin/sh
                echo 'hi'

                exit 0
        status:
          at: "2026-01-02T03:04:05Z"
          b: false
          f: 1.5
          "n": 1
          z: null
        "#);
    }

    #[test]
    fn documents_are_told_apart() {
        assert_eq!(to_documents([&json!({"a": 1}), &json!([[1], []])]), "a: 1\n---\n- - 1\n- []\n");
        assert_eq!(to_yaml(&json!("")), "\"\"\n");
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[ a-c:#'\"\\-\n\t|>&*!%@`{}\\[\\],?=.0-9~yn]{0,8}",
            any::<String>().prop_map(|text| text.replace('\0', "")),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::String),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(text.clone(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().filter(|(key, _)| key != "<<").collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in values()) {
            let written = to_yaml(&value);
            let read = crate::yaml::to_json(&written);
            prop_assert_eq!(read.as_ref(), Ok(&value), "{}", written);
        }
    }
}

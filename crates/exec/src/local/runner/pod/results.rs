//! What steps and tasks leave: files that become values.

use std::path::Path;

use pitcrew_core::pod::{ResultDecl, ResultKind, StepFacts};
use serde_json::Value;

use crate::sandbox::open::{Found, read_plain};
use crate::spec::MAX_OUTPUT;

/// What was read, and a sentence for each that could not be.
#[derive(Debug, Default, PartialEq)]
pub struct Results {
    pub values: Vec<(String, Value)>,
    pub problems: Vec<String>,
}

/// Reads those that are declared, below a directory that is ours; `dir` may be a container's. A result that was not written is missing.
pub fn read(root: &Path, dir: &str, declared: &[ResultDecl]) -> Results {
    let mut results = Results::default();
    for result in declared.iter().filter(|result| result.value.is_none()) {
        let name = &result.name;
        match read_plain(root, &format!("{dir}/{name}"), MAX_OUTPUT) {
            Ok(Found::Bytes(bytes)) => results.take(name, result.kind, String::from_utf8_lossy(&bytes).into_owned()),
            Ok(Found::Nothing) => {}
            Ok(Found::Refused(why)) => {
                results.problems.push(format!("the result `{name}` was not taken: its file {why}"))
            }
            Err(error) => results.problems.push(format!("cannot read the result `{name}`: {error}")),
        }
    }
    results
}

/// Those of a task that come from results of its steps.
pub fn composed(declared: &[ResultDecl], known: &StepFacts) -> Results {
    let mut results = Results::default();
    for result in declared {
        let Some(template) = &result.value else { continue };
        // One whose step did not write it is missing, as if it was a file.
        match known.fill(template) {
            Ok(text) if text.contains("$(steps.") => {}
            Ok(text) => results.take(&result.name, result.kind, text),
            Err(_) => {}
        }
    }
    results
}

impl Results {
    fn take(&mut self, name: &str, kind: ResultKind, text: String) {
        let value = match kind {
            ResultKind::Text => Some(Value::String(text.clone())),
            ResultKind::List => match serde_json::from_str(&text) {
                Ok(Value::Array(items)) => Some(items.into_iter().map(as_text).collect()),
                _ => None,
            },
            ResultKind::Map => match serde_json::from_str(&text) {
                Ok(Value::Object(map)) => {
                    Some(Value::Object(map.into_iter().map(|(key, value)| (key, as_text(value))).collect()))
                }
                _ => None,
            },
        };
        match value {
            Some(value) => self.values.push((name.to_owned(), value)),
            None => {
                let wanted = if kind == ResultKind::List { "a list" } else { "an object" };
                self.problems.push(format!("the result `{name}` must be {wanted} of texts, as JSON"));
            }
        }
    }
}

/// Texts as they are; all else as JSON.
fn as_text(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text),
        other => Value::String(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_are_verbatim_or_json_and_what_is_neither_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let declared = |name: &str, kind| ResultDecl { name: name.into(), kind, value: None };
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("text", " a\n");
        write("list", r#"["a", 1, {"b": true}]"#);
        write("map", r#"{"a": "b", "c": null}"#);
        write("wrong", "x");
        std::os::unix::fs::symlink("text", dir.path().join("link")).unwrap();
        let all = [
            declared("text", ResultKind::Text),
            declared("list", ResultKind::List),
            declared("map", ResultKind::Map),
            declared("wrong", ResultKind::List),
            declared("link", ResultKind::Text),
            declared("none", ResultKind::Text),
        ];
        let read = read(dir.path(), ".", &all);
        let wanted = [
            ("text", json!(" a\n")),
            ("list", json!(["a", "1", "{\"b\":true}"])),
            ("map", json!({"a": "b", "c": "null"})),
        ];
        assert_eq!(read.values, wanted.map(|(name, value)| (name.to_owned(), value)));
        assert_eq!(read.problems.len(), 2, "{:?}", read.problems);
        assert!(read.problems[1].contains("is a link"), "{:?}", read.problems);
    }
}

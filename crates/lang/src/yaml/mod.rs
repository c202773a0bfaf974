//! YAML text as a small tree in which every key and value knows its place.
//!
//! The tree keeps scalars as they were written; what `1.10` or `yes` means is decided where it is used, so that an
//! image tag never loses its zero. A tree that exists is within the budgets of [`load`].

mod errors;
pub mod load;
mod scalar;
pub mod scalars11;
pub mod write;

use crate::diagnostic::Place;
pub use scalar::{Scalar, Style};

/// A value with its place.
#[derive(Debug, Clone)]
pub struct Node {
    pub at: Place,
    pub yaml: Yaml,
}

#[derive(Debug, Clone)]
pub enum Yaml {
    Scalar(Scalar),
    List(Vec<Node>),
    /// Keys are unique, and in the order of the source.
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Key,
    pub value: Node,
}

#[derive(Debug, Clone)]
pub struct Key {
    pub text: Box<str>,
    pub at: Place,
}

impl Node {
    /// Nothing was written, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.yaml, Yaml::Scalar(scalar) if scalar.is_null())
    }

    pub fn as_map(&self) -> Option<&[Entry]> {
        match &self.yaml {
            Yaml::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.yaml {
            Yaml::List(items) => Some(items),
            _ => None,
        }
    }

    /// The scalar, if it is one and not null.
    pub fn as_scalar(&self) -> Option<&Scalar> {
        match &self.yaml {
            Yaml::Scalar(scalar) if !scalar.is_null() => Some(scalar),
            _ => None,
        }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.iter().find(|entry| &*entry.key.text == key).map(|entry| &entry.value)
    }

    /// What it is, in a word, for "expected …, found …".
    pub fn describe(&self) -> String {
        match &self.yaml {
            Yaml::Map(_) => "a mapping".into(),
            Yaml::List(_) => "a list".into(),
            Yaml::Scalar(scalar) => scalar.describe(),
        }
    }

    /// The value as JSON. The error is a place and a sentence.
    pub fn to_json(&self) -> Result<serde_json::Value, (Place, String)> {
        Ok(match &self.yaml {
            Yaml::Scalar(scalar) => scalar.to_json().map_err(|message| (self.at, message))?,
            Yaml::List(items) => serde_json::Value::Array(items.iter().map(Node::to_json).collect::<Result<_, _>>()?),
            Yaml::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|entry| Ok((entry.key.text.to_string(), entry.value.to_json()?)))
                    .collect::<Result<_, _>>()?,
            ),
        })
    }

    /// Nodes in the tree, itself included.
    pub fn size(&self) -> usize {
        match &self.yaml {
            Yaml::Scalar(_) => 1,
            Yaml::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Yaml::Map(entries) => 1 + entries.iter().map(|entry| 1 + entry.value.size()).sum::<usize>(),
        }
    }
}

/// Reads one YAML document as JSON, for outputs and filters. Errors say line and column inside the text.
pub fn to_json(text: &str) -> Result<serde_json::Value, String> {
    let mut reporter = crate::diagnostic::Reporter::new("yaml", text);
    let documents = load::load(text, &mut reporter);
    if let Some(problem) = reporter.finish().into_iter().next() {
        return Err(format!("{} (line {}, column {})", problem.message, problem.line, problem.column));
    }
    match documents.as_slice() {
        [] => Ok(serde_json::Value::Null),
        [one] => one.root.to_json().map_err(|(at, why)| format!("{why} (line {}, column {})", at.line, at.column)),
        _ => Err("expected one YAML document, found several".into()),
    }
}

/// Reads a file that holds one mapping and is no workflow, such as a configuration; `None` when nothing is in it.
pub fn read(text: &str, file: &str) -> Result<Option<Node>, Vec<crate::Diagnostic>> {
    let mut reporter = crate::diagnostic::Reporter::new(file, text);
    let mut documents = load::load(text, &mut reporter);
    if documents.len() > 1 {
        reporter.error(documents[1].root.at, "expected one YAML document, found several");
    }
    if reporter.errors() > 0 {
        return Err(reporter.finish());
    }
    Ok(documents.pop().map(|document| document.root))
}

/// Reads one mapping of names to single values, each as it was written: `10.0` stays `10.0`. The error begins with
/// `file:line:column`, where there is a place.
pub fn texts(text: &str, file: &str) -> Result<Vec<(String, String)>, String> {
    let told = |at: Place, message: String| format!("{file}:{}:{}: {message}", at.line, at.column);
    let first = |found: Vec<crate::Diagnostic>| {
        let problem = found.into_iter().next();
        problem.map_or_else(String::new, |p| format!("{file}:{}:{}: {}", p.line, p.column, p.message))
    };
    let Some(root) = read(text, file).map_err(first)? else {
        return Err(format!("{file}: it is empty; it must be a mapping of names to values, such as `app: 1.4`"));
    };
    let entries = root.as_map().ok_or_else(|| {
        told(root.at, format!("it must be a mapping of names to single values, found {}", root.describe()))
    })?;
    let mut texts = Vec::with_capacity(entries.len());
    for entry in entries {
        let name = &entry.key.text;
        match entry.value.as_scalar() {
            Some(scalar) => texts.push((name.to_string(), scalar.text.to_string())),
            None => {
                let found = entry.value.describe();
                return Err(told(entry.value.at, format!("`{name}` must be a single value, found {found}")));
            }
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_stay_as_they_were_written_and_nothing_else_is_taken() {
        let source = "# versions\na: 10.0\nb: 1_0\nc: \"x: y\"\nd: yes\n'e f': 2026-01-02\n";
        let pairs = [("a", "10.0"), ("b", "1_0"), ("c", "x: y"), ("d", "yes"), ("e f", "2026-01-02")];
        assert_eq!(texts(source, "v.yaml").unwrap(), pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
        for (source, told) in [
            ("", "v.yaml: it is empty"),
            ("# only\n", "v.yaml: it is empty"),
            ("- a\n", "v.yaml:1:1: it must be a mapping of names to single values, found a list"),
            ("1.0\n", "v.yaml:1:1: it must be a mapping of names to single values, found the number `1.0`"),
            ("a: 1\nb: {c: 2}\n", "v.yaml:2:4: `b` must be a single value, found a mapping"),
            ("a:\nb: 1\n", "`a` must be a single value, found nothing"),
            ("a: 1\na: 2\n", "v.yaml:2:1: "),
            ("a: 1\n---\nb: 2\n", "v.yaml:3:1: expected one YAML document, found several"),
            ("a: [1\n", "v.yaml:"),
            ("a: \"x\n", "v.yaml:"),
        ] {
            let error = texts(source, "v.yaml").unwrap_err();
            assert!(error.contains(told), "{source:?}: {error}");
        }
    }
}

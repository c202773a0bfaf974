//! `$(…)` in texts of Tekton: finding it, and putting values in its place.
//!
//! A variable is replaced only if its value is known here; anything else between `$(` and `)` stays as it is written, since
//! a shell, or a later stage, may mean something by it.

pub mod params;
mod scan;

use std::collections::HashMap;

use serde_json::{Map, Value};

pub use scan::{Reference, names, parse_result, result_references};

/// What stands for which variable, by all that may stand between `$(` and `)`.
#[derive(Debug, Clone, Default)]
pub struct Replacements {
    texts: HashMap<String, String>,
    /// Lists and objects, for elements of lists and values of params that are nothing but the variable.
    wholes: HashMap<String, Value>,
}

impl Replacements {
    pub fn new() -> Self {
        Replacements::default()
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.wholes.is_empty()
    }

    pub fn text(&mut self, variable: impl Into<String>, value: impl Into<String>) {
        self.texts.insert(variable.into(), value.into());
    }

    /// A value under `root.name`, `root['name']` and `root["name"]`, with its elements and keys.
    pub fn value(&mut self, root: &str, name: &str, value: &Value) {
        for base in [format!("{root}.{name}"), format!("{root}['{name}']"), format!("{root}[\"{name}\"]")] {
            match value {
                Value::Array(items) => {
                    for (at, item) in items.iter().enumerate() {
                        self.texts.insert(format!("{base}[{at}]"), text_of(item));
                    }
                    self.wholes.insert(format!("{base}[*]"), value.clone());
                    self.wholes.insert(base, value.clone());
                }
                Value::Object(map) => {
                    for (key, item) in map {
                        self.texts.insert(format!("{base}.{key}"), text_of(item));
                    }
                    self.wholes.insert(format!("{base}[*]"), value.clone());
                    self.wholes.insert(base, value.clone());
                }
                other => {
                    self.texts.insert(base, text_of(other));
                }
            }
        }
    }

    /// A param, also by the name it had in the first versions of Tekton.
    pub fn param(&mut self, name: &str, value: &Value) {
        self.value("params", name, value);
        self.value("inputs.params", name, value);
    }

    /// Those of `other` win.
    pub fn extend(&mut self, other: Replacements) {
        self.texts.extend(other.texts);
        self.wholes.extend(other.wholes);
    }

    /// Fills in what is known.
    pub fn fill(&self, text: &str) -> String {
        if self.texts.is_empty() || !text.contains("$(") {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for (range, name) in scan::variables(text) {
            let Some(value) = self.texts.get(name) else { continue };
            out.push_str(&text[from..range.start]);
            out.push_str(value);
            from = range.end;
        }
        out.push_str(&text[from..]);
        out
    }

    /// The list or object that a text is the variable of, if it is nothing else.
    pub fn whole(&self, text: &str) -> Option<&Value> {
        let name = text.strip_prefix("$(")?.strip_suffix(')')?;
        self.wholes.get(name)
    }

    /// Fills in all texts of a value. A list as an element of a list adds its elements there; under the key `value` a text may
    /// become a list or an object.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(items) => Value::Array(self.fill_list(items)),
            Value::Object(map) => Value::Object(
                map.iter()
                    .map(|(key, item)| {
                        let filled = if key == "value" { self.fill_param(item) } else { self.fill_value(item) };
                        (key.clone(), filled)
                    })
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    /// The value of a param: a text that is nothing but a list or an object becomes that.
    pub fn fill_param(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.whole(text).cloned().unwrap_or_else(|| Value::String(self.fill(text))),
            other => self.fill_value(other),
        }
    }

    fn fill_list(&self, items: &[Value]) -> Vec<Value> {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            match item.as_str().and_then(|text| self.whole(text)) {
                Some(Value::Array(inner)) => out.extend(inner.iter().cloned()),
                _ => out.push(self.fill_value(item)),
            }
        }
        out
    }
}

/// A scalar as the text that it is for Tekton, which knows no other scalars.
pub fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The value of a param as Tekton has it: a text, a list of texts or an object of texts.
pub fn normal(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(|item| Value::String(text_of(item))).collect()),
        Value::Object(map) => {
            let texts: Map<String, Value> =
                map.iter().map(|(key, item)| (key.clone(), Value::String(text_of(item)))).collect();
            Value::Object(texts)
        }
        other => Value::String(text_of(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known() -> Replacements {
        let mut known = Replacements::new();
        known.param("a", &json!("one"));
        known.param("a.b", &json!("dotted"));
        known.param("list", &json!(["x", "y z", ""]));
        known.param("map", &json!({"url": "u", "commit": "c"}));
        known.text("context.taskRun.name", "run-1");
        known
    }

    #[test]
    fn variables_become_their_values_and_nothing_else_changes() {
        for (text, expected) in [
            ("$(params.a)", "one"),
            ("<$(params['a'])|$(params[\"a\"])|$(inputs.params.a)>", "<one|one|one>"),
            ("$(params['a.b']) $(params.a.b)", "dotted dotted"),
            ("$(params.list[1])", "y z"),
            ("$(params.list[3])", "$(params.list[3])"),
            ("$(params.map.url)@$(params.map['url'])", "u@$(params.map['url'])"),
            ("$(context.taskRun.name)", "run-1"),
            ("$(date) $(params.other) $HOME ${X}", "$(date) $(params.other) $HOME ${X}"),
            ("$(echo $(params.a))", "$(echo one)"),
            ("$(echo '$(params.a)' $(date))", "$(echo 'one' $(date))"),
            ("$$(params.a)", "$one"),
            ("$(params.list[*])", "$(params.list[*])"),
            ("$(params.a", "$(params.a"),
            ("$(params.a))$(", "one)$("),
            ("ü$(params.a)ü", "üoneü"),
        ] {
            assert_eq!(known().fill(text), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_put_in_place_once() {
        let mut known = Replacements::new();
        known.param("a", &json!("$(params.b)"));
        known.param("b", &json!("deep"));
        assert_eq!(known.fill("$(params.a) $(params.b)"), "$(params.b) deep");
    }

    #[test]
    fn a_list_alone_in_an_element_adds_its_elements() {
        let filled = known().fill_value(&json!({
            "args": ["-a", "$(params.list[*])", "$(params.list)", "$(params.map[*])", "<$(params.list[*])>"],
            "value": "$(params.map[*])",
            "script": "$(params.list[*])",
        }));
        let expected = json!({
            "args": ["-a", "x", "y z", "", "x", "y z", "", "$(params.map[*])", "<$(params.list[*])>"],
            "value": {"url": "u", "commit": "c"},
            "script": "$(params.list[*])",
        });
        assert_eq!(filled, expected);
    }

    #[test]
    fn an_empty_list_adds_nothing() {
        let mut known = Replacements::new();
        known.param("none", &json!([]));
        assert_eq!(known.fill_value(&json!(["a", "$(params.none[*])", "b"])), json!(["a", "b"]));
    }
}

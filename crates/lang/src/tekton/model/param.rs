//! Params and results: what they are declared as, and their values.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::part;

/// A text, a list of texts, or an object of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ParamValue {
    Text(String),
    List(Vec<String>),
    Map(BTreeMap<String, String>),
}

impl Default for ParamValue {
    fn default() -> ParamValue {
        ParamValue::Text(String::new())
    }
}

impl ParamValue {
    pub fn kind(&self) -> ParamKind {
        match self {
            ParamValue::Text(_) => ParamKind::String,
            ParamValue::List(_) => ParamKind::Array,
            ParamValue::Map(_) => ParamKind::Object,
        }
    }

    /// What a JSON value means as the value of a param: whatever is no text, no list of texts and no object of texts is
    /// the text of its JSON, as in Tekton.
    pub fn from_json(value: &Value) -> ParamValue {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match value {
            Value::Null => ParamValue::default(),
            Value::String(text) => ParamValue::Text(text.clone()),
            Value::Array(items) => match items.iter().map(text).collect() {
                Some(items) => ParamValue::List(items),
                None => ParamValue::Text(value.to_string()),
            },
            Value::Object(fields) => {
                match fields.iter().map(|(key, value)| Some((key.clone(), text(value)?))).collect() {
                    Some(fields) => ParamValue::Map(fields),
                    None => ParamValue::Text(value.to_string()),
                }
            }
            Value::Bool(_) | Value::Number(_) => ParamValue::Text(value.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for ParamValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParamValue, D::Error> {
        Ok(ParamValue::from_json(&Value::deserialize(deserializer)?))
    }
}

/// The type of a param or a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    #[default]
    String,
    Array,
    Object,
}

impl ParamKind {
    pub fn word(self) -> &'static str {
        match self {
            ParamKind::String => "string",
            ParamKind::Array => "array",
            ParamKind::Object => "object",
        }
    }
}

part! {
    /// A param as a Task, a Pipeline or a StepAction declares it.
    ParamSpec {
        name: String,
        /// As written; [`ParamSpec::kind`] is what it is.
        #[serde(rename = "type")]
        declared: Option<ParamKind>,
        description: String,
        properties: BTreeMap<String, Property>,
        default: Option<ParamValue>,
        #[serde(rename = "enum")]
        choices: Vec<String>,
    }
}

impl ParamSpec {
    /// The type that is written, else what `properties` or the default say, else a text.
    pub fn kind(&self) -> ParamKind {
        match (self.declared, &self.default) {
            (Some(kind), _) => kind,
            (None, _) if !self.properties.is_empty() => ParamKind::Object,
            (None, Some(default)) => default.kind(),
            (None, None) => ParamKind::String,
        }
    }
}

part! {
    /// A key of an object.
    Property {
        #[serde(rename = "type")]
        declared: Option<ParamKind>,
    }
}

/// A param with its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Param {
    pub name: String,
    /// Written also when it is an empty text.
    pub value: ParamValue,
}

part! {
    /// A result that a Task or a step declares.
    ResultSpec {
        name: String,
        #[serde(rename = "type")]
        declared: Option<ParamKind>,
        properties: BTreeMap<String, Property>,
        description: String,
        /// Of a Task: where it comes from, if not from its file.
        value: Option<ParamValue>,
    }
}

impl ResultSpec {
    pub fn kind(&self) -> ParamKind {
        match self.declared {
            Some(kind) => kind,
            None if !self.properties.is_empty() => ParamKind::Object,
            None => ParamKind::String,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_texts_lists_and_objects_of_texts_and_all_else_is_its_json() {
        let text = |text: &str| ParamValue::Text(text.into());
        let table = [
            (json!("a"), text("a")),
            (json!(true), text("true")),
            (json!(511), text("511")),
            (json!(1.1), text("1.1")),
            (json!(null), text("")),
            (json!(["a", "b"]), ParamValue::List(vec!["a".into(), "b".into()])),
            (json!([]), ParamValue::List(vec![])),
            (json!([1, 2]), text("[1,2]")),
            (json!({"a": "b"}), ParamValue::Map([("a".into(), "b".into())].into())),
            (json!({"a": 1}), text("{\"a\":1}")),
        ];
        for (json, value) in table {
            assert_eq!(ParamValue::from_json(&json), value, "{json}");
        }
    }

    #[test]
    fn a_type_is_what_is_written_or_follows_from_the_rest() {
        let kind = |json: Value| serde_json::from_value::<ParamSpec>(json).unwrap().kind();
        assert_eq!(kind(json!({"name": "a"})), ParamKind::String);
        assert_eq!(kind(json!({"name": "a", "default": ["x"]})), ParamKind::Array);
        assert_eq!(kind(json!({"name": "a", "default": {"x": "y"}})), ParamKind::Object);
        assert_eq!(kind(json!({"name": "a", "properties": {"x": {}}})), ParamKind::Object);
        assert_eq!(kind(json!({"name": "a", "type": "array"})), ParamKind::Array);
    }
}

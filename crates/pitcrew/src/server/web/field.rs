//! One param as a field of the trigger form: what the browser shows for its schema, and what was typed as a value.

use pitcrew_core::ir::{Param, Workflow};
use pitcrew_lang::ParamError;
use serde_json::Value;

/// The names of the fields begin so, to keep params apart from the form's own fields.
pub const PREFIX: &str = "param.";

/// How a field is shown.
pub enum Input {
    Checkbox,
    /// Values as JSON, with their words.
    Select(Vec<(String, String)>),
    /// Number fields have a smallest and largest value and a step, where they are declared.
    Number {
        min: Option<String>,
        max: Option<String>,
        step: &'static str,
    },
    Text {
        kind: &'static str,
        pattern: Option<String>,
    },
    /// Many lines: long texts, lists and mappings.
    Lines {
        rows: usize,
    },
}

/// A field with what is in it.
pub struct Field {
    pub name: String,
    pub label: String,
    pub help: Option<String>,
    /// A word or two on what is expected.
    pub kind: &'static str,
    pub required: bool,
    pub input: Input,
    /// As the browser shows it.
    pub text: String,
    pub checked: bool,
    pub errors: Vec<String>,
}

impl Field {
    /// The field of a param, filled with a value.
    pub fn new(param: &Param, value: Option<&Value>) -> Field {
        let schema = &param.schema;
        let word = |key| schema.get(key).and_then(Value::as_str).map(str::to_owned);
        let input = input(schema);
        let text = match (&input, value) {
            (_, None) => String::new(),
            (Input::Select(_), Some(value)) => value.to_string(),
            (_, Some(Value::String(text))) => text.clone(),
            (Input::Lines { .. }, Some(value)) => json_text(value),
            (_, Some(Value::Null)) => String::new(),
            (_, Some(value)) => value.to_string(),
        };
        Field {
            name: param.name.clone(),
            label: word("title").unwrap_or_else(|| param.name.clone()),
            help: word("description"),
            kind: kind(schema),
            required: param.default.is_none(),
            checked: value == Some(&Value::Bool(true)),
            input,
            text,
            errors: Vec::new(),
        }
    }

    /// What was typed, as a value; `None` leaves the param to its default.
    pub fn read(&mut self, workflow: &Workflow, param: &Param, typed: Option<&str>) -> Option<Value> {
        if let Input::Checkbox = self.input {
            self.checked = typed.is_some();
            return Some(Value::Bool(self.checked));
        }
        // Browsers send line breaks of their own kind.
        self.text = typed.unwrap_or_default().replace("\r\n", "\n");
        if self.text.is_empty() && (self.required || !accepts_text(&param.schema)) {
            return None;
        }
        if let Input::Select(_) = self.input {
            return serde_json::from_str(&self.text).ok();
        }
        match pitcrew_lang::from_cli(workflow, &format!("{}={}", param.name, self.text)) {
            Ok((_, value)) => Some(value),
            Err(error) => {
                self.add(&error);
                None
            }
        }
    }

    pub fn add(&mut self, error: &ParamError) {
        let text = error.to_string();
        if !self.errors.contains(&text) {
            self.errors.push(text);
        }
    }
}

/// On one line where that is not long.
fn json_text(value: &Value) -> String {
    let line = value.to_string();
    if line.len() <= 60 { line } else { serde_json::to_string_pretty(value).unwrap_or(line) }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn accepts_text(schema: &Value) -> bool {
    let types = types(schema);
    types.is_empty() || types.contains(&"string")
}

fn input(schema: &Value) -> Input {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        return Input::Select(values.iter().map(|value| (value.to_string(), word(value))).collect());
    }
    let types: Vec<&str> = types(schema).into_iter().filter(|word| *word != "null").collect();
    let bound = |key: &str| schema.get(key).filter(|value| value.is_number()).map(Value::to_string);
    match types.as_slice() {
        ["boolean"] => Input::Checkbox,
        ["integer"] => Input::Number { min: bound("minimum"), max: bound("maximum"), step: "1" },
        ["number"] => Input::Number { min: bound("minimum"), max: bound("maximum"), step: "any" },
        ["string"] => text_input(schema),
        _ => Input::Lines { rows: 3 },
    }
}

fn text_input(schema: &Value) -> Input {
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let pattern = schema.get("pattern").and_then(Value::as_str);
    let kind = match format {
        "multiline" => return Input::Lines { rows: 6 },
        "date" => "date",
        "email" => "email",
        "password" => "password",
        _ => "text",
    };
    // A browser matches the whole text, a schema any part of it.
    let anchored = pattern.and_then(|pattern| pattern.strip_prefix('^')?.strip_suffix('$')).map(str::to_owned);
    Input::Text { kind, pattern: anchored }
}

fn kind(schema: &Value) -> &'static str {
    if schema.get("enum").is_some() {
        return "";
    }
    match types(schema).as_slice() {
        ["string"] => "text",
        ["integer"] => "whole number",
        ["number"] => "number",
        ["boolean"] => "",
        ["array"] => "JSON list",
        ["object"] => "JSON object",
        _ => "JSON",
    }
}

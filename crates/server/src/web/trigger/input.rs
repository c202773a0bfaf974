//! What a browser is given for a schema: the kind of control, and what the browser can check by itself.
//!
//! What the server accepts, the browser lets through, but for mail addresses of odd forms and for characters that count
//! twice in a browser's `maxlength`. What HTML cannot say is left to the script and the server.

use pitcrew_lang::from_text;
use serde_json::{Value, json};

/// The largest number that a browser's number field counts to in steps of one.
const EXACT: f64 = 9_007_199_254_740_991.0;

/// A value that may be chosen.
pub struct Choice {
    /// As JSON.
    pub value: String,
    pub word: String,
    pub chosen: bool,
}

/// The control for one value that is neither a list nor an object.
pub enum Control {
    Checkbox,
    /// With a first line for no choice, where there may be none.
    Select {
        choices: Vec<Choice>,
        blank: Option<&'static str>,
    },
    /// One line; the type of the HTML input, and texts that are suggested.
    Line {
        kind: &'static str,
        suggestions: Vec<String>,
    },
    /// Many lines. `json` says what they must be to a reader of JSON: `array`, `object`, or nothing in particular.
    Area {
        rows: usize,
        json: &'static str,
    },
}

/// The types of a schema, without null.
pub fn types(schema: &Value) -> Vec<&str> {
    all_types(schema).into_iter().filter(|kind| *kind != "null").collect()
}

pub fn is_nullable(schema: &Value) -> bool {
    all_types(schema).contains(&"null")
}

pub fn accepts_text(schema: &Value) -> bool {
    let types = all_types(schema);
    types.is_empty() || types.contains(&"string")
}

fn all_types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A value as a person would write it.
pub fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub fn choices(values: &[Value], is_chosen: impl Fn(&Value) -> bool) -> Vec<Choice> {
    let choice = |value: &Value| Choice { value: value.to_string(), word: word(value), chosen: is_chosen(value) };
    values.iter().map(choice).collect()
}

/// The control for a schema. A value that `must` be there is chosen from what there is; without `must`, from nothing too.
pub fn control(schema: &Value, value: Option<&Value>, must: bool, blank: Option<&'static str>) -> Control {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Control::Select { choices: choices(values, |one| Some(one) == value), blank };
    }
    let line = |kind| {
        let texts = schema.get("examples").and_then(Value::as_array);
        Control::Line { kind, suggestions: texts.into_iter().flatten().map(word).collect() }
    };
    match types(schema).as_slice() {
        ["boolean"] if must && !is_nullable(schema) => Control::Checkbox,
        ["boolean"] => {
            let choices = choices(&[Value::Bool(true), Value::Bool(false)], |one| Some(one) == value);
            Control::Select { choices, blank: blank.or(Some("neither")) }
        }
        ["integer" | "number"] => line("number"),
        ["string"] => match schema.get("format").and_then(Value::as_str).unwrap_or_default() {
            "multiline" => Control::Area { rows: 6, json: "" },
            "date" => line("date"),
            "email" => line("email"),
            "uri" => line("url"),
            "password" => line("password"),
            _ => line("text"),
        },
        ["array"] => Control::Area { rows: 3, json: "array" },
        ["object"] => Control::Area { rows: 3, json: "object" },
        _ => Control::Area { rows: 3, json: "" },
    }
}

/// The attributes by which a browser checks what is typed into a line or an area.
pub fn attributes(schema: &Value) -> Vec<(&'static str, String)> {
    match types(schema).as_slice() {
        [kind @ ("integer" | "number")] => range(schema, *kind == "integer"),
        ["string"] => {
            let count = |key: &str, name: &'static str| {
                schema.get(key).and_then(Value::as_u64).map(|count| (name, count.to_string()))
            };
            let pattern = schema.get("pattern").and_then(Value::as_str);
            let pattern = pattern.into_iter().flat_map(|pattern| {
                // A schema's pattern is looked for in the text; a browser's must match all of it.
                [("pattern", format!(".*(?:{pattern}).*")), ("title", format!("must match the pattern {pattern}"))]
            });
            let counts = [count("minLength", "minlength"), count("maxLength", "maxlength")];
            counts.into_iter().flatten().chain(pattern).collect()
        }
        _ => Vec::new(),
    }
}

fn range(schema: &Value, is_whole: bool) -> Vec<(&'static str, String)> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    let step = bound("multipleOf").filter(|step| *step > 0.0);
    if !is_whole {
        let low = bound("minimum").or_else(|| bound("exclusiveMinimum"));
        let high = bound("maximum").or_else(|| bound("exclusiveMaximum"));
        // Steps count from the minimum, multiples from zero.
        let step = step.filter(|step| low.is_some_and(|low| low % step == 0.0));
        let step = step.map_or_else(|| "any".to_owned(), |step| step.to_string());
        let limits = [("min", low), ("max", high)];
        let limits = limits.into_iter().filter_map(|(name, limit)| Some((name, limit?.to_string())));
        return limits.chain([("step", step)]).collect();
    }
    let step = step.filter(|step| step.fract() == 0.0).unwrap_or(1.0);
    let low = bound("minimum").map(f64::ceil).or_else(|| bound("exclusiveMinimum").map(|low| low.floor() + 1.0));
    let high = bound("maximum").map(f64::floor).or_else(|| bound("exclusiveMaximum").map(|high| high.ceil() - 1.0));
    // Without a minimum a browser would count its steps from what the field holds, be it wrong.
    let low = (low.unwrap_or(-EXACT).max(-EXACT) / step).ceil() * step;
    let limits = [("min", Some(low)), ("max", high), ("step", Some(step))];
    limits.into_iter().filter_map(|(name, limit)| Some((name, format!("{:.0}", limit?)))).collect()
}

fn is_choice(list: &Value) -> bool {
    list.get("items").is_some_and(|items| items.get("enum").is_some())
}

/// A few words on what is expected.
pub fn about(schema: &Value) -> String {
    let number = |key: &str| schema.get(key).filter(|limit| limit.is_number()).map(Value::to_string);
    let kind = match types(schema).as_slice() {
        _ if schema.get("enum").is_some() => return String::new(),
        ["boolean"] => return String::new(),
        ["string"] => match schema.get("format").and_then(Value::as_str) {
            Some("date") => "date",
            Some("email") => "mail address",
            Some("uri") => "address",
            _ => "text",
        },
        ["integer"] => "whole number",
        ["number"] => "number",
        ["array"] if schema.get("uniqueItems") == Some(&Value::Bool(true)) && is_choice(schema) => "any of these",
        ["array"] => match schema.get("items").map(types).as_deref() {
            Some(["string"]) => "list of texts",
            Some(["integer"]) => "list of whole numbers",
            Some(["number"]) => "list of numbers",
            _ => "list",
        },
        ["object"] => "object",
        _ => "any JSON",
    };
    if let (Some(low), Some(high)) = (number("minimum"), number("maximum")) {
        return format!("{kind}, {low} to {high}");
    }
    let limits =
        [("from", "minimum"), ("above", "exclusiveMinimum"), ("up to", "maximum"), ("below", "exclusiveMaximum")];
    let limits = limits.iter().filter_map(|(word, key)| Some(format!(" {word} {}", number(key)?)));
    format!("{kind}{}", limits.collect::<Vec<_>>().join(","))
}

/// What the items of a list without a schema for them are, as its default shows them: texts, or numbers.
pub fn items_of(default: Option<&Value>) -> Option<Value> {
    let items = default?.as_array()?;
    let all = |is: fn(&Value) -> bool| items.iter().all(is);
    let kind = [("string", all(Value::is_string)), ("number", all(Value::is_number))];
    kind.iter().find(|(_, fits)| *fits).map(|(kind, _)| json!({ "type": kind }))
}

/// A value as the text that is read as this value.
pub fn text_of(schema: &Value, value: &Value) -> String {
    match value {
        Value::Null if is_nullable(schema) => String::new(),
        Value::String(text) if from_text("", schema, text).as_ref() == Ok(value) => text.clone(),
        _ => json_text(value),
    }
}

/// On one line where that is not long.
pub fn json_text(value: &Value) -> String {
    let line = value.to_string();
    if line.len() <= 60 { line } else { serde_json::to_string_pretty(value).unwrap_or(line) }
}

//! JSON Schema, with answers in our words and at the place in the YAML that is meant.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, ValidationError, Validator};
use serde_json::Value;

use crate::diagnostic::{Place, did_you_mean, listing};
use crate::yaml::{Node, Yaml};

/// Where a value breaks its schema, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Keys and indices from the root of the value.
    pub path: Vec<String>,
    /// A key below `path` that should not be there, or that is missing.
    pub key: Option<String>,
    /// Goes on after the name of the value: `must be …`.
    pub message: String,
    pub hint: Option<String>,
}

/// A validator that never fetches anything and checks `format`. The error is a sentence.
pub fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true).offline().build(schema).map_err(
        |error| {
            let at = error.instance_path().as_str().trim_start_matches('/').replace('/', ".");
            let message = describe(&error, &Value::Null).message;
            if at.is_empty() { message } else { format!("`{at}` {message}") }
        },
    )
}

/// All the ways in which `value` breaks the schema. With `templates`, what depends on a template is passed over.
pub fn problems(validator: &Validator, schema: &Value, value: &Value, templates: bool) -> Vec<Problem> {
    if validator.is_valid(value) {
        return Vec::new();
    }
    validator
        .iter_errors(value)
        .filter(|error| !(templates && depends_on_template(error)))
        .take(20)
        .map(|error| describe(&error, schema))
        .collect()
}

fn depends_on_template(error: &ValidationError<'_>) -> bool {
    match error.kind() {
        Kind::Required { .. }
        | Kind::AdditionalProperties { .. }
        | Kind::Type { .. }
        | Kind::UnevaluatedProperties { .. } => error.instance().as_str().is_some_and(crate::template::is_template),
        _ => holds_template(error.instance()),
    }
}

fn holds_template(value: &Value) -> bool {
    match value {
        Value::String(text) => crate::template::is_template(text),
        Value::Array(items) => items.iter().any(holds_template),
        Value::Object(map) => map.values().any(holds_template),
        _ => false,
    }
}

fn describe(error: &ValidationError<'_>, schema: &Value) -> Problem {
    let mut path: Vec<String> = error
        .instance_path()
        .segments()
        .map(|segment| match segment {
            LocationSegment::Property(name) => name.to_string(),
            LocationSegment::Index(index) => index.to_string(),
        })
        .collect();
    let found = show(error.instance());
    let (mut key, mut hint) = (None, None);
    let message = match error.kind() {
        Kind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => with_article(one.as_str()).to_owned(),
                TypeKind::Multiple(many) => {
                    let words: Vec<&str> = many.iter().map(|t| with_article(t.as_str())).collect();
                    words.join(" or ")
                }
            };
            format!("must be {wanted}, found {found}")
        }
        Kind::Enum { options } => {
            let values: Vec<String> = options.as_array().into_iter().flatten().map(plain).collect();
            if let Some(text) = error.instance().as_str() {
                hint = did_you_mean(text, values.iter().map(String::as_str));
            }
            format!("must be {}, found {found}", listing(values.iter().map(String::as_str), "or"))
        }
        Kind::Constant { expected_value } => format!("must be {}, found {found}", show(expected_value)),
        Kind::Minimum { limit } => format!("must be at least {limit}, found {found}"),
        Kind::Maximum { limit } => format!("must be at most {limit}, found {found}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}, found {found}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}, found {found}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}, found {found}"),
        Kind::MinLength { limit: 1 } => "must not be empty".to_owned(),
        Kind::MinLength { limit } => format!("must have at least {limit} characters, found {found}"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters, found {found}"),
        Kind::MinItems { limit: 1 } => "must have an item".to_owned(),
        Kind::MinItems { limit } => format!("must have at least {limit} items, found {}", count(error.instance())),
        Kind::MaxItems { limit: 1 } => format!("must have at most one item, found {}", count(error.instance())),
        Kind::MaxItems { limit } => format!("must have at most {limit} items, found {}", count(error.instance())),
        Kind::MinProperties { limit } => format!("must have at least {limit} entries"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} entries"),
        Kind::UniqueItems => "must not hold an item twice".to_owned(),
        Kind::Pattern { pattern } => format!("must match the pattern `{pattern}`, found {found}"),
        Kind::Format { format } => format!("must have the format `{format}`, found {found}"),
        Kind::Required { property } => {
            key = Some(plain(property));
            format!("needs `{}`", plain(property))
        }
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let known = siblings(error, schema);
            let name = unexpected.first().cloned().unwrap_or_default();
            hint = did_you_mean(&name, known.iter().map(String::as_str)).or_else(|| {
                let listed = listing(known.iter().map(String::as_str), "and");
                if known.is_empty() { None } else { Some(format!("known here: {listed}")) }
            });
            key = Some(name.clone());
            format!("has no `{name}`")
        }
        Kind::PropertyNames { error } => return describe(error, schema),
        Kind::AnyOf { context } | Kind::OneOfNotValid { context } => match closest_branch(context) {
            // One alternative is of the right type: what is wrong there is what the author wants to know.
            Some(inner) => {
                let inner = describe(inner, schema);
                path = inner.path;
                key = inner.key;
                hint = inner.hint;
                inner.message
            }
            None => format!("fits none of the forms that are allowed, found {found}"),
        },
        Kind::OneOfMultipleValid { .. } => "fits more than one of the forms of which only one is allowed".to_owned(),
        Kind::Not { schema } => match schema.get("pattern").and_then(Value::as_str) {
            Some(pattern) => format!("must not match the pattern `{pattern}`, found {found}"),
            None => format!("must not be {found}"),
        },
        Kind::FalseSchema => format!("must not be {found}"),
        Kind::Contains => "lacks an item that it must hold".to_owned(),
        _ => {
            let text = error.to_string();
            let mut letters = text.chars();
            let first = letters.next().map(|c| c.to_ascii_lowercase()).into_iter();
            format!("is not right: {}", first.chain(letters).collect::<String>())
        }
    };
    Problem { path, key, message, hint }
}

/// The first problem of the alternative whose type fits, if only one does.
fn closest_branch<'e>(context: &'e [Vec<ValidationError<'static>>]) -> Option<&'e ValidationError<'static>> {
    let mut fitting = context.iter().filter(|errors| {
        errors.iter().all(|e| !(matches!(e.kind(), Kind::Type { .. }) && e.schema_path().segments().count() <= 3))
    });
    match (fitting.next(), fitting.next()) {
        (Some(errors), None) => errors.first(),
        _ => None,
    }
}

/// The properties that the failing part of the schema does know.
fn siblings(error: &ValidationError<'_>, schema: &Value) -> Vec<String> {
    let pointer = error.schema_path().as_str();
    let parent = pointer.rfind('/').map_or("", |at| &pointer[..at]);
    let properties = schema.pointer(parent).and_then(|part| part.get("properties")).and_then(Value::as_object);
    properties.map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

fn with_article(kind: &str) -> &'static str {
    match kind {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a mapping",
        _ => "null",
    }
}

/// The word of JSON Schema for the type of a value.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn count(value: &Value) -> usize {
    value.as_array().map_or(0, Vec::len)
}

/// A value as a person would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A value for "found …", shortened.
pub fn show(value: &Value) -> String {
    let text = plain(value);
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    match value {
        Value::Null => "null".into(),
        Value::String(_) => format!("the text `{short}`"),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        _ => format!("`{short}`"),
    }
}

impl Problem {
    /// `name.key[0].key`: the name of the value that is wrong, inside one called `name`.
    pub fn name_in(&self, name: &str) -> String {
        self.path.iter().fold(name.to_owned(), |mut text, part| {
            match part.parse::<usize>() {
                Ok(index) => text.push_str(&format!("[{index}]")),
                Err(_) => {
                    text.push('.');
                    text.push_str(part);
                }
            }
            text
        })
    }
}

/// The place in the YAML of what a path leads to; as near as it goes.
pub fn place(root: &Node, path: &[String], key: Option<&str>) -> Option<Place> {
    let mut node = root;
    let mut at = root.at;
    for part in path {
        let next = match &node.yaml {
            Yaml::Map(_) => node.get(part),
            Yaml::List(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
            Yaml::Scalar(_) => None,
        };
        let Some(next) = next else { return Some(at) };
        node = next;
        at = node.at;
    }
    if let (Some(key), Some(entries)) = (key, node.as_map()) {
        return entries.iter().find(|e| &*e.key.text == key).map(|e| e.key.at).or(Some(at));
    }
    Some(at)
}

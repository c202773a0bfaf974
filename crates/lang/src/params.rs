//! What a run is given, checked against what its workflow declares.
//!
//! A run that exists has a value for every param, of the declared shape; so templates can rely on it.

use pitcrew_core::ir::{Param, Workflow};
use serde_json::{Map, Number, Value};

use crate::diagnostic::{did_you_mean, listing};
use crate::schema_check;

/// Why a param is refused. Its text is a sentence for people: the param, the value, and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
pub struct ParamError {
    pub param: String,
    /// Keys and indices that lead from the param's value to what is wrong in it.
    pub path: Vec<String>,
    pub message: String,
    pub hint: Option<String>,
}

impl ParamError {
    fn new(param: &str, message: String, hint: Option<String>) -> Self {
        ParamError { param: param.to_owned(), path: Vec::new(), message, hint }
    }
}

/// The value of every param: what `conf` gives, else the default. In the order of the declaration.
///
/// The errors are all there are: params that do not exist, that are missing, or whose value is not allowed.
pub fn resolve_params(workflow: &Workflow, conf: &Map<String, Value>) -> Result<Map<String, Value>, Vec<ParamError>> {
    let mut errors: Vec<ParamError> =
        conf.keys().filter(|name| find(workflow, name).is_none()).map(|name| unknown(workflow, name)).collect();
    let mut params = Map::new();
    for param in &workflow.params {
        let Some(value) = conf.get(&param.name).or(param.default.as_ref()) else {
            let message = format!("the param `{}` is missing", param.name);
            errors.push(ParamError::new(&param.name, message, allowed(&param.schema)));
            continue;
        };
        if conf.contains_key(&param.name) {
            errors.extend(check(param, value));
        }
        params.insert(param.name.clone(), value.clone());
    }
    if errors.is_empty() { Ok(params) } else { Err(errors) }
}

/// `name=value` as typed: the text becomes what the param's type asks for. The value is not checked further.
pub fn from_cli(workflow: &Workflow, argument: &str) -> Result<(String, Value), ParamError> {
    let Some((name, text)) = argument.split_once('=') else {
        let message = format!("`{argument}` is not `name=value`");
        return Err(ParamError::new(argument, message, None));
    };
    let name = name.trim();
    let param = find(workflow, name).ok_or_else(|| unknown(workflow, name))?;
    let value = from_text(name, &param.schema, text).map_err(|message| ParamError::new(name, message, None))?;
    Ok((name.to_owned(), value))
}

/// A text as typed becomes what the type of a schema asks for. The value is not checked further. The error is a sentence
/// about the param that `name` is, or is a part of.
pub fn from_text(name: &str, schema: &Value, text: &str) -> Result<Value, String> {
    let wrong = |wanted: &str| format!("the param `{name}` must be {wanted}, found `{text}`");
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let json = || serde_json::from_str::<Value>(text.trim()).ok();
    // A type that may be many things takes the first that the text can be; a text is always one.
    let mut last = wrong("a text");
    for kind in ["null", "boolean", "integer", "number", "array", "object"].iter().filter(|kind| types.contains(kind)) {
        let value = match *kind {
            "null" => {
                json().filter(Value::is_null).or((text.is_empty() && !types.contains(&"string")).then_some(Value::Null))
            }
            "boolean" => match text.trim().to_lowercase().as_str() {
                "true" | "yes" | "on" | "1" => Some(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            "integer" => {
                json().filter(|v| v.is_i64() || v.is_u64()).or_else(|| text.trim().parse::<i64>().ok().map(Value::from))
            }
            // People write `.5` and `+1`, which JSON does not know.
            "number" => json()
                .filter(Value::is_number)
                .or_else(|| Number::from_f64(text.trim().parse().ok()?).map(Value::Number)),
            "array" => json().filter(Value::is_array).or_else(|| words(text, schema)),
            _ => json().filter(Value::is_object),
        };
        if let Some(value) = value {
            return Ok(value);
        }
        last = wrong(match *kind {
            "null" => "null",
            "boolean" => "`true` or `false`",
            "integer" => "a whole number",
            "number" => "a number",
            "array" => "a JSON list such as `[\"a\", \"b\"]`, or texts parted by `,`",
            _ => "a JSON object such as `{\"key\": \"value\"}`",
        });
    }
    match types.as_slice() {
        // No type is declared: JSON if it is JSON, else a text.
        [] => Ok(json().unwrap_or_else(|| Value::String(text.to_owned()))),
        types if types.contains(&"string") => Ok(Value::String(text.to_owned())),
        _ => Err(last),
    }
}

/// `a,b` for a list of texts.
fn words(text: &str, schema: &Value) -> Option<Value> {
    let of = schema.get("items").and_then(|items| items.get("type")).and_then(Value::as_str);
    let is_json = text.trim_start().starts_with(['[', '{']);
    if is_json || of.is_some_and(|of| of != "string") {
        return None;
    }
    if text.trim().is_empty() {
        return Some(Value::Array(Vec::new()));
    }
    Some(Value::Array(text.split(',').map(|word| Value::String(word.trim().to_owned())).collect()))
}

fn find<'w>(workflow: &'w Workflow, name: &str) -> Option<&'w Param> {
    workflow.params.iter().find(|param| param.name == name)
}

fn unknown(workflow: &Workflow, name: &str) -> ParamError {
    let names = || workflow.params.iter().map(|param| param.name.as_str());
    let hint = did_you_mean(name, names()).or_else(|| match workflow.params.len() {
        0 => Some("it has no params".into()),
        _ => Some(format!("its params are {}", listing(names(), "and"))),
    });
    ParamError::new(name, format!("the workflow `{}` has no param `{name}`", workflow.id), hint)
}

fn check(param: &Param, value: &Value) -> Vec<ParamError> {
    let validator = match schema_check::validator(&param.schema) {
        Ok(validator) => validator,
        Err(message) => {
            let message = format!("the schema of the param `{}` is not right: {message}", param.name);
            return vec![ParamError::new(&param.name, message, None)];
        }
    };
    schema_check::problems(&validator, &param.schema, value, false)
        .into_iter()
        .map(|problem| {
            let name = problem.name_in(&param.name);
            let message = format!("the param `{name}` {}", problem.message);
            let path = problem.path.into_iter().chain(problem.key).collect();
            ParamError { param: param.name.clone(), path, message, hint: problem.hint }
        })
        .collect()
}

/// What a missing param may be, in a few words.
fn allowed(schema: &Value) -> Option<String> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values: Vec<String> =
            values.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
        return Some(format!("it is {}", listing(values.iter().map(String::as_str), "or")));
    }
    let word = match schema.get("type").and_then(Value::as_str)? {
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        "object" => "a mapping",
        _ => return None,
    };
    let about = schema.get("description").or_else(|| schema.get("title")).and_then(Value::as_str);
    Some(about.map_or_else(|| format!("it is {word}"), |about| format!("it is {word}: {about}")))
}

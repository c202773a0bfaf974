//! What params are worth: what was given, over their defaults, which may use other params.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Replacements, names, normal};

/// How many defaults may use one another in a row.
const MAX_DEPTH: usize = 10;

/// Values by name.
pub type Values = BTreeMap<String, Value>;

/// The type that a declaration says, or that its default has.
pub fn kind(declaration: &Value) -> &'static str {
    match declaration["type"].as_str() {
        Some("array") => "array",
        Some("object") => "object",
        Some(_) => "string",
        None if declaration["properties"].is_object() => "object",
        None => kind_of(&declaration["default"]),
    }
}

/// The type of a value.
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => "string",
    }
}

/// `[{name, value}]` as values by name; the last of a name wins.
pub fn given(list: &Value) -> Values {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| Some((item["name"].as_str()?.to_owned(), normal(&item["value"])))).collect()
}

/// Values by name as `[{name, value}]`.
pub fn list(values: &Values) -> Value {
    values.iter().map(|(name, value)| serde_json::json!({ "name": name, "value": value })).collect()
}

/// The values of declared params: `given` where there is something, an object key by key over its default.
/// A param without either is left out. An error names a circle of defaults.
pub fn resolve(declared: &Value, given: &Values) -> Result<Values, String> {
    let declared = declared.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut values = Values::new();
    let mut defaults: BTreeMap<&str, Value> = BTreeMap::new();
    for declaration in declared {
        let Some(name) = declaration["name"].as_str() else { continue };
        let default = declaration.get("default").filter(|default| !default.is_null()).map(normal);
        match (given.get(name), default) {
            (Some(Value::Object(own)), Some(Value::Object(mut merged))) => {
                merged.extend(own.clone());
                defaults.insert(name, Value::Object(merged));
            }
            (Some(value), _) => {
                values.insert(name.to_owned(), value.clone());
            }
            (None, Some(default)) => {
                defaults.insert(name, default);
            }
            (None, None) => {}
        }
    }
    settle(&mut values, defaults)
}

/// Fills defaults in that use other params, until none is left.
fn settle(values: &mut Values, mut open: BTreeMap<&str, Value>) -> Result<Values, String> {
    for _ in 0..=MAX_DEPTH {
        if open.is_empty() {
            return Ok(std::mem::take(values));
        }
        let ready: Vec<&str> = open
            .iter()
            .filter(|(_, default)| !open.keys().any(|name| uses(default, name)))
            .map(|(name, _)| *name)
            .collect();
        if ready.is_empty() {
            break;
        }
        let known = replacements(values);
        for name in ready {
            if let Some(default) = open.remove(name) {
                values.insert(name.to_owned(), known.fill_param(&default));
            }
        }
    }
    let circle: Vec<&str> = open.into_keys().collect();
    Err(format!("the defaults of the params {} use one another", crate::diagnostic::listing(circle, "and")))
}

fn uses(value: &Value, name: &str) -> bool {
    names(value).iter().any(|variable| {
        let Some(rest) = variable.strip_prefix("params") else { return false };
        let plain = rest.strip_prefix('.').and_then(|rest| rest.strip_prefix(name));
        let quoted = ['\'', '"'].into_iter().find_map(|q| rest.strip_prefix(&format!("[{q}{name}{q}]")));
        plain.or(quoted).is_some_and(|after| after.is_empty() || after.starts_with(['.', '[']))
    })
}

/// The variables of these params.
pub fn replacements(values: &Values) -> Replacements {
    let mut known = Replacements::new();
    for (name, value) in values {
        known.param(name, value);
    }
    known
}

/// Lays `over` on `under`: a name of `over` wins, objects key by key.
pub fn overlay(under: &Values, over: &Values) -> Values {
    let mut all = under.clone();
    for (name, value) in over {
        let merged = match (all.get(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                let mut map: Map<String, Value> = old.clone();
                map.extend(new.clone());
                Value::Object(map)
            }
            _ => value.clone(),
        };
        all.insert(name.clone(), merged);
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn types_follow_from_declarations_or_defaults() {
        for (declaration, expected) in [
            (json!({"name": "a"}), "string"),
            (json!({"name": "a", "type": "array"}), "array"),
            (json!({"name": "a", "default": ["x"]}), "array"),
            (json!({"name": "a", "default": {"k": "v"}}), "object"),
            (json!({"name": "a", "properties": {"k": {}}}), "object"),
            (json!({"name": "a", "default": 3}), "string"),
        ] {
            assert_eq!(kind(&declaration), expected, "{declaration}");
        }
    }

    #[test]
    fn what_is_given_wins_and_objects_merge_by_key() {
        let declared = json!([
            {"name": "a", "default": "x"},
            {"name": "b", "default": "$(params.a)-$(params.m.k)"},
            {"name": "c", "default": "$(params.b)!"},
            {"name": "l", "type": "array", "default": ["$(params.a)", "$(params.given[*])"]},
            {"name": "m", "type": "object", "default": {"k": "d", "other": "o"}},
            {"name": "given", "type": "array"},
            {"name": "missing"},
            {"name": "number", "default": 1.5},
        ]);
        let values = Values::from([
            ("m".into(), json!({"k": "own"})),
            ("given".into(), json!(["1", "2"])),
            ("extra".into(), json!("ignored")),
        ]);
        let expected = Values::from([
            ("a".into(), json!("x")),
            ("b".into(), json!("x-own")),
            ("c".into(), json!("x-own!")),
            ("l".into(), json!(["x", "1", "2"])),
            ("m".into(), json!({"k": "own", "other": "o"})),
            ("given".into(), json!(["1", "2"])),
            ("number".into(), json!("1.5")),
        ]);
        assert_eq!(resolve(&declared, &values), Ok(expected));
    }

    #[test]
    fn defaults_in_a_circle_are_told() {
        let declared = json!([
            {"name": "a", "default": "$(params['b'])"},
            {"name": "b", "default": "$(params.a)"},
            {"name": "fine", "default": "x"},
        ]);
        let error = resolve(&declared, &Values::new()).unwrap_err();
        assert_eq!(error, "the defaults of the params `a` and `b` use one another");
    }
}

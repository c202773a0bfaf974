//! JSON to template values and back.

use minijinja::Value;
use minijinja::value::ValueKind;
use serde_json::{Map, Number, Value as Json};

/// Values nested deeper are refused.
const MAX_DEPTH: usize = 64;

pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(flag) => Value::from(*flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (None, Some(number), _) => Value::from(number),
            (None, None, number) => Value::from(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => items.iter().map(from_json).collect(),
        Json::Object(map) => from_map(map),
    }
}

pub fn from_map(map: &Map<String, Json>) -> Value {
    Value::from_pairs(map.iter().map(|(key, value)| (key.as_str(), from_json(value))))
}

/// The value as JSON, `Err` for what JSON cannot hold. The error is a sentence.
pub fn to_json(value: &Value) -> Result<Json, String> {
    let mut budget = super::environment::MAX_RENDERED;
    convert(value, MAX_DEPTH, &mut budget)
}

fn convert(value: &Value, depth: usize, budget: &mut usize) -> Result<Json, String> {
    let cost = 8 + value.as_str().map_or(0, str::len);
    *budget = budget.checked_sub(cost).ok_or("the value is too large")?;
    let depth = depth.checked_sub(1).ok_or("the value is nested too deeply")?;
    Ok(match value.kind() {
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value)?,
        ValueKind::String | ValueKind::Plain => Json::String(value.to_string()),
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| error.to_string())?;
            Json::Array(items.map(|item| convert(&item, depth, budget)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut map = Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                map.insert(key.to_string(), convert(&item, depth, budget)?);
            }
            Json::Object(map)
        }
        ValueKind::Undefined => return Err("a value in it is not defined".into()),
        ValueKind::Bytes => return Err("bytes are not a value; use text".into()),
        _ => return Err(value.to_string()),
    })
}

fn number(value: &Value) -> Result<Json, String> {
    if value.is_integer() {
        if let Ok(number) = i64::try_from(value.clone()) {
            return Ok(number.into());
        }
        if let Ok(number) = u64::try_from(value.clone()) {
            return Ok(number.into());
        }
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(Number::from_f64)
        .map(Json::Number)
        .ok_or_else(|| format!("`{value}` is not a number that JSON can hold"))
}

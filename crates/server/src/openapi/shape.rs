//! A short way to write JSON Schemas, so that the shape of a row fits on a page.
//!
//! A type is `text`, `int`, `number`, `bool`, `time`, `uuid`, `object` (of anything), `any`, the name of a component
//! (which begins with a capital), words of an enumeration separated by `|`, `[T]` for a list, `{T}` for a map from
//! texts; `T?` may be `null`. A field is `name: T`; `name?: T` may be left out. What is wrong here is a fault in a table
//! of ours, which every test of a document finds, so it panics.

use serde_json::{Map, Value, json};

/// The schema of a type.
pub fn schema(text: &str) -> Value {
    let text = text.trim();
    if let Some(inner) = text.strip_suffix('?') {
        return nullable(schema(inner));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return json!({ "type": "array", "items": schema(inner) });
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return json!({ "type": "object", "additionalProperties": schema(inner) });
    }
    match text {
        "text" => json!({ "type": "string" }),
        "int" => json!({ "type": "integer" }),
        "number" => json!({ "type": "number" }),
        "bool" => json!({ "type": "boolean" }),
        "time" => json!({ "type": "string", "format": "date-time" }),
        "uuid" => json!({ "type": "string", "format": "uuid" }),
        "object" => json!({ "type": "object" }),
        "any" => json!({}),
        _ if text.contains(" or ") => json!({ "anyOf": text.split(" or ").map(schema).collect::<Vec<_>>() }),
        _ if text.contains('|') => json!({ "type": "string", "enum": text.split('|').collect::<Vec<_>>() }),
        _ if text.starts_with(|first: char| first.is_ascii_uppercase()) => {
            json!({ "$ref": format!("#/components/schemas/{text}") })
        }
        _ => panic!("`{text}` is no type"),
    }
}

fn nullable(inner: Value) -> Value {
    match inner {
        Value::Object(mut map) if map.get("type").is_some_and(Value::is_string) => {
            let kind = map["type"].take();
            map.insert("type".to_owned(), json!([kind, "null"]));
            if let Some(Value::Array(words)) = map.get_mut("enum") {
                words.push(Value::Null);
            }
            Value::Object(map)
        }
        inner => json!({ "anyOf": [inner, { "type": "null" }] }),
    }
}

/// One field: its name, whether it must be there, its schema.
pub fn field(text: &str) -> (String, bool, Value) {
    let (name, kind) = text.split_once(':').unwrap_or_else(|| panic!("`{text}` is no field"));
    let name = name.trim();
    let required = !name.ends_with('?');
    (name.trim_end_matches('?').to_owned(), required, schema(kind))
}

/// Components out of a text: a line without indentation begins one, the indented lines after it are its fields. What
/// is not among its fields is not allowed; a field `...` allows it. `...Name` as the first field takes all that the
/// component of that name has. A line `Name = T` gives a type a name.
pub fn components(text: &str) -> Map<String, Value> {
    let mut all = Map::new();
    let mut name = "";
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some((alias, kind)) = line.split_once('=') {
            assert!(all.insert(alias.trim().to_owned(), schema(kind)).is_none(), "`{alias}` is there twice");
            continue;
        }
        if !line.starts_with(' ') {
            name = line.trim();
            let begun = json!({ "type": "object", "properties": {}, "required": [], "additionalProperties": false });
            assert!(all.insert(name.to_owned(), begun).is_none(), "`{name}` is there twice");
            continue;
        }
        for part in line.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.strip_prefix("...") {
                Some("") => all[name]["additionalProperties"] = json!(true),
                Some(base) => all[name] = all[base].clone(),
                None => {
                    let (field, required, schema) = field(part);
                    all[name]["properties"][&field] = schema;
                    if required && let Some(list) = all[name]["required"].as_array_mut() {
                        list.push(json!(field));
                    }
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_schemas() {
        assert_eq!(
            schema("[Run?]"),
            json!({
                "type": "array",
                "items": { "anyOf": [{ "$ref": "#/components/schemas/Run" }, { "type": "null" }] },
            })
        );
        assert_eq!(schema("a|b?"), json!({ "type": ["string", "null"], "enum": ["a", "b", null] }));
        let all = components("Run\n  id: int, note?: text?\nOpen\n  ...\n");
        assert_eq!(
            all["Run"],
            json!({
                "type": "object",
                "properties": { "id": { "type": "integer" }, "note": { "type": ["string", "null"] } },
                "required": ["id"],
                "additionalProperties": false,
            })
        );
        assert_eq!(all["Open"]["additionalProperties"], true);
    }
}

//! `params`: a JSON Schema each, or just the default.

use pitcrew_core::ir::Param;
use serde_json::{Value, json};

use super::{Decoder, keys};
use crate::diagnostic::did_you_mean;
use crate::schema_check;
use crate::yaml::{Node, Yaml};

const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];

impl Decoder<'_, '_> {
    pub fn params(&mut self, node: &Node) {
        let Some(entries) = node.as_map() else {
            if !node.is_null() {
                self.mismatch(node, "`params`", "a mapping of names to schemas or defaults");
            }
            return;
        };
        for entry in entries {
            let name = entry.key.text.to_string();
            let mut letters = name.chars();
            let starts = letters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
            if !starts || !letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
                let hint = "use letters, digits, `_` and `-`, and no digit first";
                self.r.error_hint(entry.key.at, format!("`{name}` is not a name for a param"), hint);
                continue;
            }
            if let Some(param) = self.param(name, &entry.value) {
                self.workflow.params.push(param);
            }
        }
    }

    fn param(&mut self, name: String, node: &Node) -> Option<Param> {
        if node.is_null() {
            let message = format!("the param `{name}` has neither a type nor a default");
            let hint = "write `{type: string}` for one that must be given, or a default";
            self.r.error_hint(node.at, message, hint);
            return None;
        }
        let Yaml::Map(entries) = &node.yaml else {
            let default = self.json(node)?;
            return Some(Param {
                name,
                schema: json!({ "type": schema_check::type_of(&default) }),
                default: Some(default),
            });
        };
        let before = self.r.errors();
        for entry in entries {
            let word = &*entry.key.text;
            if !keys::PARAM.contains(&word) {
                let hint = did_you_mean(word, keys::PARAM.iter().copied())
                    .unwrap_or_else(|| "to give an object as the default, write `{type: object, default: {…}}`".into());
                self.r.error_hint(entry.key.at, format!("unknown key `{word}` in a param"), hint);
            }
        }
        self.check_types(node);
        let Value::Object(mut schema) = self.json(node)? else { return None };
        let default = schema.remove("default");
        if self.r.errors() > before {
            return None;
        }
        let schema = Value::Object(schema);
        self.check_default(&name, node, &schema, default.as_ref())?;
        Some(Param { name, schema, default })
    }

    /// A wrong type word is the usual slip, and the validator's words for it help nobody.
    fn check_types(&mut self, node: &Node) {
        if let Some(types) = node.get("type") {
            let nodes = types.as_list().unwrap_or(std::slice::from_ref(types));
            for node in nodes {
                let Some(word) = self.text(node, "type").filter(|word| !TYPES.contains(&&**word)) else { continue };
                let ours = match &*word.to_lowercase() {
                    "str" | "text" => Some("string"),
                    "int" | "long" => Some("integer"),
                    "float" | "double" | "decimal" => Some("number"),
                    "bool" => Some("boolean"),
                    "list" | "tuple" => Some("array"),
                    "dict" | "map" | "mapping" => Some("object"),
                    _ => None,
                };
                let hint = ours
                    .map(|ours| format!("did you mean `{ours}`?"))
                    .or_else(|| crate::diagnostic::meant_or_known(&word, &TYPES, "the types are"));
                self.r.error_maybe(node.at, format!("unknown type `{word}`"), hint);
            }
        }
        if let Some(values) = node.get("enum")
            && values.as_list().is_none_or(<[_]>::is_empty)
        {
            self.mismatch(values, "`enum`", "a list of the values that are allowed");
        }
    }

    fn check_default(&mut self, name: &str, node: &Node, schema: &Value, default: Option<&Value>) -> Option<()> {
        let validator = match schema_check::validator(schema) {
            Ok(validator) => validator,
            Err(message) => {
                self.r.error(node.at, format!("the schema of the param `{name}` is not right: {message}"));
                return None;
            }
        };
        let (Some(default), Some(at)) = (default, node.get("default")) else { return Some(()) };
        for problem in schema_check::problems(&validator, schema, default, false) {
            let place = schema_check::place(at, &problem.path, problem.key.as_deref()).unwrap_or(at.at);
            let what = problem.name_in(name);
            self.r.error_maybe(place, format!("the default of `{what}` {}", problem.message), problem.hint);
        }
        Some(())
    }

    /// A schedule gives no params, so a run that it starts needs a default for each.
    pub fn check_scheduled_params(&mut self, schedule: &Node) {
        let missing = self.workflow.params.iter().find(|p| p.default.is_none()).map(|p| p.name.clone());
        if let Some(name) = missing {
            let message = format!("the schedule cannot start a run: the param `{name}` has no default");
            self.r.warning_hint(schedule.at, message, "give it a `default`, or start runs by hand");
        }
    }
}

//! `variables.set`: sets variables of the server, together with the success of the task.

use serde_json::{Value, json};

use super::{Action, Call, Plan, object};

pub struct VariablesSet;

impl Action for VariablesSet {
    fn name(&self) -> &'static str {
        "variables.set"
    }

    fn schema(&self) -> Value {
        object(
            &["values"],
            json!({
                "values": {
                    "type": "object",
                    "description": "Name and value of each variable. A value that is no text is kept as JSON."
                },
                "prefix": { "type": "string", "description": "Put before every name." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let prefix = call.with["prefix"].as_str().unwrap_or("");
        let values = call.with["values"].as_object().ok_or("`values` is not an object of names and values")?;
        let set = values.iter().map(|(name, value)| {
            let name = format!("{prefix}{name}");
            if name.is_empty() || name.len() > 250 || name.chars().any(char::is_control) {
                return Err(format!(
                    "{name:?} is not a name for a variable: use 1 to 250 bytes, and no control characters"
                ));
            }
            Ok((name, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        });
        Ok(Plan::SetVariables(set.collect::<Result<_, _>>()?))
    }
}

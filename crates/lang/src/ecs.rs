//! What stands under `backend: {ecs: …}`: which cluster of Amazon ECS, and what is run there.
//!
//! The same reader checks what the source says and what templates came to, so both are told of in the same words.

use serde_json::{Map, Value};

use crate::place::Wrong;
use crate::schema_check::show;

/// A task of ECS, as far as it is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcsTarget {
    /// Its name, or its ARN.
    pub cluster: Option<String>,
    /// `family`, `family:revision` or an ARN.
    pub task_definition: Option<String>,
    pub container: Option<String>,
    pub command: Vec<String>,
    pub region: Option<String>,
    pub gpus: Option<u32>,
    /// The machine that it is for, by its id of EC2.
    pub machine: Option<String>,
    pub job: Option<String>,
    pub role: Option<String>,
    pub launch_type: Option<String>,
    pub subnets: Vec<String>,
    pub security_groups: Vec<String>,
}

/// Reads a mapping without templates.
pub fn read(fields: &Map<String, Value>) -> Result<EcsTarget, Wrong> {
    let mut target = EcsTarget::default();
    for (key, value) in fields {
        target.set(key, value).map_err(|message| Wrong { key: key.clone(), message })?;
    }
    for (key, given) in [("cluster", &target.cluster), ("task_definition", &target.task_definition)] {
        if given.is_none() {
            return Err(Wrong { key: key.to_owned(), message: format!("`{key}` is missing") });
        }
    }
    Ok(target)
}

impl EcsTarget {
    /// Reads one value; null says nothing.
    pub(crate) fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        if value.is_null() {
            return Ok(());
        }
        match key {
            "cluster" => self.cluster = Some(word(key, value)?),
            "task_definition" => self.task_definition = Some(word(key, value)?),
            "container" => self.container = Some(word(key, value)?),
            "command" => self.command = texts(key, value)?,
            "region" => self.region = Some(word(key, value)?),
            "gpus" => self.gpus = Some(count(key, value)?),
            "machine" => self.machine = Some(machine(value)?),
            "job" => self.job = Some(word(key, value)?),
            "role" => self.role = Some(arn(key, value)?),
            "launch_type" => self.launch_type = Some(launch_type(value)?),
            "subnets" => self.subnets = texts(key, value)?,
            "security_groups" => self.security_groups = texts(key, value)?,
            _ => return Err(format!("`{key}` is not known")),
        }
        Ok(())
    }
}

/// A name: not empty, no blanks.
fn word(key: &str, value: &Value) -> Result<String, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return Err(format!("`{key}` must be a text, found {}", show(other))),
    };
    match text.as_str() {
        "" => Err(format!("`{key}` is empty")),
        word if word.chars().any(|c| c.is_control() || c.is_whitespace()) => {
            Err(format!("`{key}` cannot hold blanks: {word:?}"))
        }
        _ => Ok(text),
    }
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("`{key}` must be a list of texts, found {}", show(value));
    let text = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Err(wrong()),
    };
    value.as_array().ok_or_else(wrong)?.iter().map(text).collect()
}

fn count(key: &str, value: &Value) -> Result<u32, String> {
    let number = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let fits = number.and_then(|number| u32::try_from(number).ok()).filter(|number| (1..=64).contains(number));
    fits.ok_or_else(|| format!("`{key}` must be a number from 1 to 64, found {}", show(value)))
}

fn machine(value: &Value) -> Result<String, String> {
    let id = word("machine", value)?;
    let is_id = ["i-", "mi-"].iter().any(|begin| id.starts_with(begin))
        && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if is_id {
        Ok(id)
    } else {
        Err(format!("`machine` is the id of a machine of EC2, such as `i-0f3a…`, found `{id}`"))
    }
}

fn arn(key: &str, value: &Value) -> Result<String, String> {
    let text = word(key, value)?;
    if text.starts_with("arn:") { Ok(text) } else { Err(format!("`{key}` must be an ARN, found `{text}`")) }
}

fn launch_type(value: &Value) -> Result<String, String> {
    let text = word("launch_type", value)?;
    match text.as_str() {
        "EC2" | "FARGATE" | "EXTERNAL" => Ok(text),
        _ => Err(format!("`launch_type` is `EC2`, `FARGATE` or `EXTERNAL`, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_target_says_what_is_wrong_with_it() {
        let of = |value: Value| read(value.as_object().unwrap()).map_err(|wrong| wrong.message);
        let full = json!({
            "cluster": "gpus", "task_definition": "train:11", "container": "train", "command": ["python", "train.py", 3],
            "gpus": "8", "machine": "i-0f1", "role": "arn:aws:iam::1:role/r", "launch_type": "EC2", "region": null,
        });
        let read = of(full).unwrap();
        assert_eq!((read.gpus, read.command.len(), read.region), (Some(8), 3, None));
        let told = |extra: Value| {
            let mut all = json!({"cluster": "gpus", "task_definition": "train"});
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            of(all).unwrap_err()
        };
        assert_eq!(of(json!({"cluster": "gpus"})).unwrap_err(), "`task_definition` is missing");
        assert_eq!(told(json!({"gpus": 0})), "`gpus` must be a number from 1 to 64, found `0`");
        assert!(told(json!({"machine": "gpu-1"})).contains("such as `i-0f3a…`"));
        assert!(told(json!({"role": "r"})).contains("must be an ARN"));
        assert!(told(json!({"launch_type": "ec2"})).contains("found `ec2`"));
        assert!(told(json!({"command": "x"})).contains("a list of texts"));
        assert!(told(json!({"cluster": "a b"})).contains("blanks"));
    }
}

//! Task definitions: which containers a task has, and where they write.

use std::collections::BTreeMap;

use pitcrew_exec::aws::Service;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Overrides;
use crate::client::{Client, Fault};

/// A revision of a task definition, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Definition {
    pub task_definition_arn: String,
    pub family: String,
    pub revision: u32,
    pub status: String,
    pub task_role_arn: Option<String>,
    pub execution_role_arn: Option<String>,
    /// Units of CPU and MiB of the task as a whole; numbers, as texts.
    pub cpu: Option<String>,
    pub memory: Option<String>,
    pub container_definitions: Vec<Container>,
}

/// A container of a task definition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: String,
    /// With it the task ends; every container is, unless it says otherwise.
    pub essential: Option<bool>,
    pub log_configuration: Option<LogConfiguration>,
    pub cpu: Option<u64>,
    pub memory: Option<u64>,
    pub memory_reservation: Option<u64>,
    pub resource_requirements: Vec<Requirement>,
}

/// Something that a container has for itself: GPUs, mostly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Requirement {
    #[serde(rename = "type")]
    pub kind: String,
    pub value: String,
}

/// What a task takes of its machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    pub gpus: usize,
    /// Units of CPU, 1024 a core.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
}

/// Where a container writes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogConfiguration {
    pub log_driver: String,
    pub options: BTreeMap<String, String>,
}

impl Container {
    pub fn is_essential(&self) -> bool {
        self.essential != Some(false)
    }

    /// The group of CloudWatch Logs, its region if it is another one, and the stream, of this container in a task.
    /// `None` where it writes elsewhere, or where the name of the stream is Docker's to choose.
    pub fn log_stream(&self, task: &str) -> Option<(String, Option<String>, String)> {
        let log = self.log_configuration.as_ref().filter(|log| log.log_driver == "awslogs")?;
        let option = |name: &str| log.options.get(name).filter(|value| !value.is_empty());
        let stream = format!("{}/{}/{task}", option("awslogs-stream-prefix")?, self.name);
        Some((option("awslogs-group")?.clone(), option("awslogs-region").cloned(), stream))
    }
}

impl Definition {
    pub fn container(&self, name: &str) -> Option<&Container> {
        self.container_definitions.iter().find(|container| container.name == name)
    }

    /// The container that decides how the task ended, unless one is named: the first that is essential.
    pub fn main(&self) -> Option<&Container> {
        let all = &self.container_definitions;
        all.iter().find(|container| container.is_essential()).or(all.first())
    }

    /// What a task of it takes of its machine, as ECS counts it.
    pub fn needs(&self, overrides: Option<&Overrides>) -> Needs {
        let own = |container: &Container| overrides.filter(|own| own.container == container.name).cloned();
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse::<u64>().ok());
        let mut all = Needs::default();
        for container in &self.container_definitions {
            let own = own(container).unwrap_or_default();
            let said = container.resource_requirements.iter().find(|one| one.kind == "GPU");
            let gpus = own.gpus.or_else(|| said.and_then(|one| one.value.parse().ok()));
            all.gpus += gpus.unwrap_or_default() as usize;
            all.cpu += own.cpu.map(u64::from).or(container.cpu).unwrap_or_default();
            all.memory += container.memory_reservation.or(own.memory).or(container.memory).unwrap_or_default();
        }
        Needs {
            cpu: number(&self.cpu).unwrap_or(all.cpu),
            memory: number(&self.memory).unwrap_or(all.memory),
            gpus: all.gpus,
        }
    }
}

impl Client {
    /// A task definition: `family` (its newest revision), `family:revision` or an ARN.
    pub async fn definition(&self, name: &str) -> Result<Definition, Fault> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Found {
            #[serde(default)]
            task_definition: Definition,
        }
        let input = json!({ "taskDefinition": name });
        let found: Found = self.json(Service::Ecs, "DescribeTaskDefinition", &input, true).await?;
        Ok(found.task_definition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_where_its_name_is_made_by_ecs() {
        let read = |options: &str, driver: &str| {
            let text =
                format!(r#"{{"name": "c", "logConfiguration": {{"logDriver": "{driver}", "options": {options}}}}}"#);
            serde_json::from_str::<Container>(&text).unwrap().log_stream("9e1c")
        };
        let all = r#"{"awslogs-group": "/g", "awslogs-stream-prefix": "ecs", "awslogs-region": "eu-west-1"}"#;
        assert_eq!(read(all, "awslogs"), Some(("/g".into(), Some("eu-west-1".into()), "ecs/c/9e1c".into())));
        assert_eq!(read(all, "splunk"), None);
        assert_eq!(read(r#"{"awslogs-group": "/g"}"#, "awslogs"), None);
    }
}

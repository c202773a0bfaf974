//! Tasks of ECS: started, described, listed, stopped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_exec::aws::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{BATCH, Failure};
use crate::client::{Client, Fault, MOST_PAGES};
use crate::moment;

/// What ECS takes as overrides, in characters of JSON.
pub const MOST_OVERRIDES: usize = 8192;
/// The longest reason of a stop that ECS keeps.
const LONGEST_REASON: usize = 1024;

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "String")]
pub enum TaskStatus {
    Provisioning,
    Pending,
    Activating,
    Running,
    Deactivating,
    Stopping,
    Deprovisioning,
    Stopped,
    Deleted,
    /// A word that is new.
    Other(String),
}

impl From<String> for TaskStatus {
    fn from(text: String) -> Self {
        match text.as_str() {
            "PROVISIONING" => TaskStatus::Provisioning,
            "PENDING" => TaskStatus::Pending,
            "ACTIVATING" => TaskStatus::Activating,
            "RUNNING" => TaskStatus::Running,
            "DEACTIVATING" => TaskStatus::Deactivating,
            "STOPPING" => TaskStatus::Stopping,
            "DEPROVISIONING" => TaskStatus::Deprovisioning,
            "STOPPED" => TaskStatus::Stopped,
            "DELETED" => TaskStatus::Deleted,
            _ => TaskStatus::Other(text),
        }
    }
}

impl Default for TaskStatus {
    fn default() -> Self {
        TaskStatus::Other(String::new())
    }
}

impl TaskStatus {
    /// Nothing of it runs any more, and what ECS says of it changes no more.
    pub fn is_over(&self) -> bool {
        matches!(self, TaskStatus::Stopped | TaskStatus::Deleted)
    }

    /// Its containers were not all started yet.
    pub fn is_before_running(&self) -> bool {
        matches!(self, TaskStatus::Provisioning | TaskStatus::Pending | TaskStatus::Activating)
    }
}

/// Why a task was stopped, in ECS's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum StopCode {
    EssentialContainerExited,
    UserInitiated,
    TaskFailedToStart,
    ServiceSchedulerInitiated,
    SpotInterruption,
    TerminationNotice,
    InfrastructureHealth,
    /// A word that is new.
    Other(String),
}

impl From<String> for StopCode {
    fn from(text: String) -> Self {
        match text.as_str() {
            "EssentialContainerExited" => StopCode::EssentialContainerExited,
            "UserInitiated" => StopCode::UserInitiated,
            "TaskFailedToStart" => StopCode::TaskFailedToStart,
            "ServiceSchedulerInitiated" => StopCode::ServiceSchedulerInitiated,
            "SpotInterruption" => StopCode::SpotInterruption,
            "TerminationNotice" => StopCode::TerminationNotice,
            "InfrastructureHealth" => StopCode::InfrastructureHealth,
            _ => StopCode::Other(text),
        }
    }
}

/// A name and a value that help people, and other programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    pub key: String,
    #[serde(default)]
    pub value: String,
}

/// A container of a task.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub last_status: String,
    pub exit_code: Option<i32>,
    pub reason: Option<String>,
    pub runtime_id: Option<String>,
    /// The devices that ECS gave it, by UUID.
    pub gpu_ids: Vec<String>,
}

/// A task, as ECS and its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    pub task_arn: String,
    pub cluster_arn: String,
    pub task_definition_arn: String,
    pub container_instance_arn: Option<String>,
    pub last_status: TaskStatus,
    pub desired_status: TaskStatus,
    pub stop_code: Option<StopCode>,
    pub stopped_reason: Option<String>,
    pub started_by: Option<String>,
    pub group: Option<String>,
    pub launch_type: Option<String>,
    pub containers: Vec<Container>,
    /// Grows with each change.
    pub version: u64,
    /// Not in events, nor in answers that did not ask for them.
    pub tags: Vec<Tag>,
    #[serde(deserialize_with = "moment::optional")]
    pub created_at: Option<Timestamp>,
    #[serde(deserialize_with = "moment::optional")]
    pub started_at: Option<Timestamp>,
    #[serde(deserialize_with = "moment::optional")]
    pub stopping_at: Option<Timestamp>,
    #[serde(deserialize_with = "moment::optional")]
    pub stopped_at: Option<Timestamp>,
    #[serde(deserialize_with = "moment::optional")]
    pub execution_stopped_at: Option<Timestamp>,
}

impl Task {
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }
}

/// What is different from what the task definition says, for one of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    pub container: String,
    /// `None`: that of the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Units of CPU, 1024 a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// MiB that it must not exceed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

impl Overrides {
    pub(crate) fn json(&self) -> Value {
        let mut container = json!({ "name": self.container });
        if let Some(command) = &self.command {
            container["command"] = json!(command);
        }
        if !self.env.is_empty() {
            let pairs = self.env.iter().map(|(name, value)| json!({ "name": name, "value": value }));
            container["environment"] = pairs.collect();
        }
        if let Some(gpus) = self.gpus {
            container["resourceRequirements"] = json!([{ "type": "GPU", "value": gpus.to_string() }]);
        }
        if let Some(cpu) = self.cpu {
            container["cpu"] = json!(cpu);
        }
        if let Some(memory) = self.memory {
            container["memory"] = json!(memory);
        }
        json!({ "containerOverrides": [container] })
    }

    /// Characters of JSON, as ECS counts them.
    pub fn size(&self) -> usize {
        self.json().to_string().chars().count()
    }
}

/// Which machine a task is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    /// ECS chooses.
    #[default]
    Any,
    /// This machine, by the id that EC2 gave it.
    Machine(String),
}

/// A task that is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub cluster: String,
    pub definition: String,
    #[serde(default)]
    pub on: Where,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<Overrides>,
    /// At most 36 letters, digits, `-`, `_`; the same for all tries.
    pub started_by: String,
    /// At most 64 characters. For a day, ECS starts one task for it, however often it is asked.
    pub token: String,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// `EC2`, `FARGATE` or `EXTERNAL`; `None`: as the cluster has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_type: Option<String>,
    /// Of tasks with an address of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
}

impl Run {
    fn json(&self) -> Value {
        let tags = self.tags.iter().map(|(key, value)| json!({ "key": key, "value": value }));
        let mut input = json!({
            "cluster": self.cluster,
            "taskDefinition": self.definition,
            "startedBy": self.started_by,
            "tags": tags.collect::<Vec<_>>(),
            "enableECSManagedTags": true,
        });
        if let Some(overrides) = &self.overrides {
            input["overrides"] = overrides.json();
        }
        if !self.subnets.is_empty() {
            let network = json!({ "subnets": self.subnets, "securityGroups": self.security_groups });
            input["networkConfiguration"] = json!({ "awsvpcConfiguration": network });
        }
        input
    }
}

/// What ECS says of tasks that it was asked about.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Described {
    pub tasks: Vec<Task>,
    /// Those that it does not know (any more), by what was asked with.
    pub missing: Vec<String>,
    /// Those of which it does not tell now, and why.
    pub untold: Vec<(String, Fault)>,
}

impl Described {
    /// All that it knows, for whoever cannot do with a part of it.
    pub fn whole(self) -> Result<Vec<Task>, Fault> {
        match self.untold.into_iter().next() {
            Some((_, fault)) => Err(fault),
            None => Ok(self.tasks),
        }
    }
}

/// Which tasks to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed<'a> {
    /// Those that are to run and were started with this word.
    StartedBy(&'a str),
    /// Those of a family that are to run.
    Running(&'a str),
    /// Those of a family that are to be stopped, or are; ECS forgets them after an hour.
    Stopped(&'a str),
    /// Those that are to run on a container instance.
    On(&'a str),
}

#[derive(Deserialize)]
struct Tasks {
    #[serde(default)]
    tasks: Vec<Task>,
    #[serde(default)]
    failures: Vec<Failure>,
}

impl Tasks {
    fn one(self, operation: &str) -> Result<Task, Fault> {
        match (self.tasks.into_iter().next(), self.failures.first()) {
            (Some(task), _) => Ok(task),
            (None, Some(failure)) => Err(failure.fault(operation)),
            // Where no instance fits, some versions of ECS name no reason.
            (None, None) => Err(Fault::failure(operation, "", "RESOURCE:ANY", "ECS placed nothing and gave no reason")),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    #[serde(default)]
    task_arns: Vec<String>,
    #[serde(default)]
    next_token: Option<String>,
}

impl Client {
    /// Starts a task, once for its token.
    pub async fn run_task(&self, run: &Run) -> Result<Task, Fault> {
        let mut input = run.json();
        input["count"] = json!(1);
        input["clientToken"] = json!(run.token);
        if let Some(kind) = &run.launch_type {
            input["launchType"] = json!(kind);
        }
        if let Where::Machine(id) = &run.on {
            let expression = format!("ec2InstanceId == {id}");
            input["placementConstraints"] = json!([{ "type": "memberOf", "expression": expression }]);
        }
        self.json::<Tasks>(Service::Ecs, "RunTask", &input, true).await?.one("RunTask")
    }

    /// Starts a task on a container instance, past ECS's own placement. This call has no token: whoever does not know
    /// whether it arrived looks for a task with its `started_by` first.
    pub async fn start_task(&self, run: &Run, instance: &str) -> Result<Task, Fault> {
        let mut input = run.json();
        input["containerInstances"] = json!([instance]);
        self.json::<Tasks>(Service::Ecs, "StartTask", &input, false).await?.one("StartTask")
    }

    /// What ECS knows of these tasks, with their tags; 100 a call.
    pub async fn tasks(&self, cluster: &str, tasks: &[String]) -> Result<Described, Fault> {
        let mut described = Described::default();
        for batch in tasks.chunks(BATCH) {
            let input = json!({ "cluster": cluster, "tasks": batch, "include": ["TAGS"] });
            let answer: Tasks = self.json(Service::Ecs, "DescribeTasks", &input, true).await?;
            described.tasks.extend(answer.tasks);
            for failure in answer.failures {
                match failure.reason.as_str() {
                    "MISSING" => described.missing.push(failure.arn),
                    _ => described.untold.push((failure.arn.clone(), failure.fault("DescribeTasks"))),
                }
            }
        }
        Ok(described)
    }

    /// The ARNs of tasks, all pages.
    pub async fn list_tasks(&self, cluster: &str, which: Listed<'_>) -> Result<Vec<String>, Fault> {
        let mut input = json!({ "cluster": cluster });
        match which {
            // ECS wants it to be the only filter, so tasks that are to be stopped are not found by it.
            Listed::StartedBy(word) => input["startedBy"] = json!(word),
            Listed::Running(family) => input["family"] = json!(family),
            Listed::Stopped(family) => {
                input["family"] = json!(family);
                input["desiredStatus"] = json!("STOPPED");
            }
            Listed::On(instance) => input["containerInstance"] = json!(instance),
        }
        let mut arns = Vec::new();
        for _ in 0..MOST_PAGES {
            let page: Names = self.json(Service::Ecs, "ListTasks", &input, true).await?;
            arns.extend(page.task_arns);
            match page.next_token.filter(|token| !token.is_empty()) {
                Some(token) => input["nextToken"] = json!(token),
                None => return Ok(arns),
            }
        }
        Err(Fault::strange(Service::Ecs, "ListTasks", "has no end"))
    }

    /// Asks a task to stop: SIGTERM, and SIGKILL after the time that its definition gives (30 s unless it says so).
    pub async fn stop_task(&self, cluster: &str, task: &str, reason: &str) -> Result<(), Fault> {
        let reason: String = reason.chars().filter(|c| !c.is_control()).take(LONGEST_REASON).collect();
        let input = json!({ "cluster": cluster, "task": task, "reason": reason });
        self.json::<Value>(Service::Ecs, "StopTask", &input, true).await.map(drop)
    }

    /// Adds tags to a task, an instance, a cluster.
    pub async fn tag(&self, arn: &str, tags: &[Tag]) -> Result<(), Fault> {
        let input = json!({ "resourceArn": arn, "tags": tags });
        self.json::<Value>(Service::Ecs, "TagResource", &input, true).await.map(drop)
    }
}

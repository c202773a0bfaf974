//! Container instances: the machines of a cluster.

use jiff::Timestamp;
use pitcrew_exec::aws::Service;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{BATCH, Failure};
use crate::arn::Resident;
use crate::client::{Client, Fault, MOST_PAGES};
use crate::moment;

/// Instances, or attributes, that one writing call may name.
const FEW: usize = 10;

/// Whether an instance takes tasks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum InstanceState {
    Active,
    /// It takes no new ones.
    Draining,
    /// It is coming, going, or a word that is new.
    Other(String),
}

impl From<String> for InstanceState {
    fn from(text: String) -> Self {
        match text.as_str() {
            "ACTIVE" => InstanceState::Active,
            "DRAINING" => InstanceState::Draining,
            _ => InstanceState::Other(text),
        }
    }
}

impl Default for InstanceState {
    fn default() -> Self {
        InstanceState::Other(String::new())
    }
}

/// A name and a value that placement can look at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attribute {
    pub name: String,
    pub value: Option<String>,
}

/// Something that an instance has an amount of.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resource {
    name: String,
    integer_value: i64,
    string_set_value: Vec<String>,
}

/// An instance, as ECS and its events describe it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Instance {
    pub container_instance_arn: String,
    /// In events only.
    pub cluster_arn: String,
    /// `i-…`; of a machine outside of AWS `mi-…`.
    pub ec2_instance_id: String,
    pub status: InstanceState,
    pub status_reason: Option<String>,
    /// Without it ECS sees nothing of the machine, which says nothing about the machine.
    pub agent_connected: bool,
    pub running_tasks_count: u32,
    pub pending_tasks_count: u32,
    /// Grows with each change.
    pub version: u64,
    pub attributes: Vec<Attribute>,
    #[serde(deserialize_with = "moment::optional")]
    pub registered_at: Option<Timestamp>,
    registered_resources: Vec<Resource>,
    remaining_resources: Vec<Resource>,
}

impl Instance {
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.name == name)?.value.as_deref()
    }

    /// The UUIDs of all devices.
    pub fn gpus(&self) -> &[String] {
        devices(&self.registered_resources)
    }

    /// The UUIDs of the devices that no task has.
    pub fn free_gpus(&self) -> &[String] {
        devices(&self.remaining_resources)
    }

    /// Units of CPU and MiB of memory that no task has; `None` where ECS does not say.
    pub fn free(&self) -> (Option<u64>, Option<u64>) {
        let left = |name: &str| {
            let found = self.remaining_resources.iter().find(|resource| resource.name == name);
            found.map(|resource| u64::try_from(resource.integer_value).unwrap_or(0))
        };
        (left("CPU"), left("MEMORY"))
    }

    /// Units of CPU, 1024 a core.
    pub fn cpu(&self) -> u64 {
        amount(&self.registered_resources, "CPU")
    }

    /// MiB of memory.
    pub fn memory(&self) -> u64 {
        amount(&self.registered_resources, "MEMORY")
    }
}

fn devices(resources: &[Resource]) -> &[String] {
    resources.iter().find(|resource| resource.name == "GPU").map_or(&[], |resource| &resource.string_set_value)
}

fn amount(resources: &[Resource], name: &str) -> u64 {
    let found = resources.iter().find(|resource| resource.name == name);
    found.map_or(0, |resource| u64::try_from(resource.integer_value).unwrap_or(0))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instances {
    #[serde(default)]
    container_instances: Vec<Instance>,
    #[serde(default)]
    failures: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Names {
    #[serde(default)]
    container_instance_arns: Vec<String>,
    #[serde(default)]
    next_token: Option<String>,
}

/// How a cluster is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cluster {
    pub cluster_arn: String,
    pub cluster_name: String,
    pub status: String,
    pub registered_container_instances_count: u32,
    pub running_tasks_count: u32,
}

impl Client {
    /// The ARNs of all instances of a cluster, those that are being drained included; or of those of one machine.
    pub async fn list_instances(&self, cluster: &str, machine: Option<&str>) -> Result<Vec<String>, Fault> {
        let mut input = json!({ "cluster": cluster });
        if let Some(machine) = machine {
            input["filter"] = json!(format!("ec2InstanceId in ['{machine}']"));
        }
        let mut arns = Vec::new();
        for _ in 0..MOST_PAGES {
            let page: Names = self.json(Service::Ecs, "ListContainerInstances", &input, true).await?;
            arns.extend(page.container_instance_arns);
            match page.next_token.filter(|token| !token.is_empty()) {
                Some(token) => input["nextToken"] = json!(token),
                None => return Ok(arns),
            }
        }
        Err(Fault::strange(Service::Ecs, "ListContainerInstances", "has no end"))
    }

    /// What ECS knows of these instances, 100 a call; those that it does not know are left out.
    pub async fn instances(&self, cluster: &str, arns: &[String]) -> Result<Vec<Instance>, Fault> {
        let mut all = Vec::new();
        for batch in arns.chunks(BATCH) {
            let input = json!({ "cluster": cluster, "containerInstances": batch, "include": ["TAGS"] });
            let answer: Instances = self.json(Service::Ecs, "DescribeContainerInstances", &input, true).await?;
            all.extend(answer.container_instances);
            if let Some(failure) = answer.failures.iter().find(|failure| failure.reason != "MISSING") {
                return Err(failure.fault("DescribeContainerInstances"));
            }
        }
        Ok(all)
    }

    /// Lets instances take no new tasks, or take them again.
    pub async fn drain(&self, cluster: &str, instances: &[String], drained: bool) -> Result<(), Fault> {
        let status = if drained { "DRAINING" } else { "ACTIVE" };
        for batch in instances.chunks(FEW) {
            let input = json!({ "cluster": cluster, "containerInstances": batch, "status": status });
            let answer: Instances = self.json(Service::Ecs, "UpdateContainerInstancesState", &input, true).await?;
            if let Some(failure) = answer.failures.first() {
                return Err(failure.fault("UpdateContainerInstancesState"));
            }
        }
        Ok(())
    }

    /// Writes attributes of an instance; `None` as a value is an attribute without one.
    pub async fn put_attributes(&self, cluster: &str, instance: &str, all: &[Attribute]) -> Result<(), Fault> {
        // With the kind of the target beside it, its id is wanted and not its ARN.
        let instance = Resident::instance(instance).map_or_else(|_| instance.to_owned(), |resident| resident.id);
        for batch in all.chunks(FEW) {
            let attributes: Vec<Value> = batch
                .iter()
                .map(|attribute| {
                    let mut one =
                        json!({ "name": attribute.name, "targetType": "container-instance", "targetId": instance });
                    if let Some(value) = &attribute.value {
                        one["value"] = json!(value);
                    }
                    one
                })
                .collect();
            let input = json!({ "cluster": cluster, "attributes": attributes });
            self.json::<Value>(Service::Ecs, "PutAttributes", &input, true).await?;
        }
        Ok(())
    }

    /// How a cluster is; `None` where there is none of that name.
    pub async fn cluster(&self, cluster: &str) -> Result<Option<Cluster>, Fault> {
        #[derive(Deserialize)]
        struct Clusters {
            #[serde(default)]
            clusters: Vec<Cluster>,
        }
        let input = json!({ "clusters": [cluster] });
        let answer: Clusters = self.json(Service::Ecs, "DescribeClusters", &input, true).await?;
        Ok(answer.clusters.into_iter().next())
    }
}

//! ECS: tasks, their definitions, and the instances that they run on.

mod definition;
mod instance;
mod task;

pub use definition::{Container as ContainerDefinition, Definition, LogConfiguration, Needs};
pub use instance::{Attribute, Cluster, Instance, InstanceState};
pub use task::{Container, Described, Listed, MOST_OVERRIDES, Overrides, Run, StopCode, Tag, Task, TaskStatus, Where};

use serde::Deserialize;

use super::Fault;

/// How many tasks, or instances, one call may name.
pub const BATCH: usize = 100;

/// What ECS did not do, in an answer that is a success otherwise.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Failure {
    arn: String,
    reason: String,
    detail: String,
}

impl Failure {
    fn fault(&self, operation: &str) -> Fault {
        Fault::failure(operation, &self.arn, &self.reason, &self.detail)
    }
}

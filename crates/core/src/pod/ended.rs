//! How a pod ended, container by container: what a status shows, and where the values of results come from.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The output of a task that holds its artifacts; no result can be called so.
pub const ARTIFACTS: &str = "$artifacts";

/// What is left of a pod.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PodEnded {
    /// The steps in their order, then the sidecars.
    pub containers: Vec<ContainerEnded>,
    /// Of the task, in the order of their declaration; those that were not written are missing. A text, a list of texts
    /// or an object of texts.
    #[serde(default)]
    pub results: Vec<(String, Value)>,
    /// Why it ended early, if not by the exit code of a step.
    #[serde(default)]
    pub failure: Option<PodFailure>,
    /// What artifacts the task wrote, as `{inputs, outputs}`; null if none.
    #[serde(default)]
    pub artifacts: Value,
}

impl PodEnded {
    /// The artifacts of the whole task, `{inputs, outputs}` by their names: its own, then those of its steps. `None`: there are none.
    pub fn all_artifacts(&self) -> Option<Value> {
        let mut all = BTreeMap::from([("inputs", Map::new()), ("outputs", Map::new())]);
        let of_steps = self.containers.iter().map(|container| &container.artifacts);
        for artifacts in std::iter::once(&self.artifacts).chain(of_steps) {
            for (side, found) in &mut all {
                for (name, values) in artifacts.get(side).and_then(Value::as_object).into_iter().flatten() {
                    let known = found.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                    let Some(known) = known.as_array_mut() else { continue };
                    for value in values.as_array().into_iter().flatten() {
                        if !known.contains(value) {
                            known.push(value.clone());
                        }
                    }
                }
            }
        }
        let is_empty = all.values().all(Map::is_empty);
        (!is_empty).then(|| all.into_iter().map(|(side, found)| (side.to_owned(), Value::Object(found))).collect())
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerEnded {
    pub name: String,
    /// As it was asked for.
    pub image: String,
    /// What was used, with its digest if it has one.
    #[serde(default)]
    pub image_id: String,
    #[serde(default)]
    pub container_id: String,
    pub state: ContainerState,
    /// Of the step.
    #[serde(default)]
    pub results: Vec<(String, Value)>,
    #[serde(default)]
    pub artifacts: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    Waiting { reason: String, message: String },
    Running { started_at: Timestamp },
    Terminated { exit_code: i32, reason: TerminationReason, message: String, started_at: Timestamp, at: Timestamp },
}

/// Why a container ended, by Tekton's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TerminationReason {
    Completed,
    Error,
    /// It failed, and the next step ran.
    Continued,
    /// It was not begun: an earlier step failed, or a condition did not hold.
    Skipped,
    Cancelled,
    TimeoutExceeded,
    #[serde(rename = "OOMKilled")]
    OutOfMemory,
}

/// Why a pod ended early, or could not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodFailure {
    /// An image is not there, or may not be had.
    ImagePull {
        container: String,
        image: String,
        message: String,
    },
    /// A container cannot be made as it was asked for.
    Config {
        container: String,
        message: String,
    },
    Evicted {
        message: String,
    },
    /// The time of the whole pod is over.
    Deadline,
    /// The time of a step is over.
    StepTimeout {
        container: String,
    },
    /// A sidecar ended, or failed its probe, before the steps were over.
    Sidecar {
        container: String,
        message: String,
    },
    /// What was asked for cannot be done by this backend.
    Refused {
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn artifacts_of_steps_are_those_of_the_task_too() {
        let step = |artifacts: Value| ContainerEnded {
            name: "step-a".into(),
            image: "i".into(),
            image_id: String::new(),
            container_id: String::new(),
            state: ContainerState::Waiting { reason: String::new(), message: String::new() },
            results: Vec::new(),
            artifacts,
        };
        let mut pod = PodEnded { containers: vec![step(Value::Null)], ..PodEnded::default() };
        assert_eq!(pod.all_artifacts(), None);
        pod.artifacts = json!({"inputs": {}, "outputs": {"image": [{"uri": "a"}]}});
        pod.containers.push(step(
            json!({"inputs": {"source": [{"uri": "s"}]}, "outputs": {"image": [{"uri": "a"}, {"uri": "b"}]}}),
        ));
        let expected = json!({
            "inputs": {"source": [{"uri": "s"}]},
            "outputs": {"image": [{"uri": "a"}, {"uri": "b"}]},
        });
        assert_eq!(pod.all_artifacts(), Some(expected));
    }
}

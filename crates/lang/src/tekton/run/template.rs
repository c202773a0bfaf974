//! What a task of a workflow carries from the compiler to its launch: a TaskRun that is still to be made.
//!
//! The engine keeps it as JSON and does not look inside. What depends on the run alone is already in place; what depends on
//! the results of other tasks, on the combination of a matrix, or on the number of tries is not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::tekton::substitute::params::Values;

/// A TaskRun before it begins.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Template {
    /// Of the TaskRun; one of a matrix gets its place added.
    pub name: String,
    pub namespace: String,
    /// Of the document that was applied, if it is one; else it follows from that of its PipelineRun.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What it is a task of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Membership>,
    /// The Task that is named; `None`: `spec` is written where it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// Of the Task.
    pub spec: Value,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub step_actions: BTreeMap<String, Value>,
    /// What it is given, without what a matrix adds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: Values,
    /// What a spec that is written where it is used gets from around it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub propagated: Values,
    /// It is a task with a matrix.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_matrix: bool,
    /// Bindings by the names of the Task's workspaces, as they stand in a TaskRun.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workspaces: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub labels: Map<String, Value>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String, Value>,
    pub service_account: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub pod_template: Value,
    /// Go's text; empty: without end.
    pub timeout: String,
    pub retries: u32,
    /// Of the whole TaskRun.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub compute_resources: Value,
    /// By the name of the step.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub step_resources: BTreeMap<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sidecar_resources: BTreeMap<String, Value>,
    /// What LimitRanges say of containers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Value>,
}

/// The PipelineRun that a TaskRun is part of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Membership {
    pub run: String,
    pub uid: String,
    pub pipeline: String,
    /// The name of the task in it.
    pub task: String,
}

impl Template {
    pub fn from_value(value: &Value) -> Result<Template, String> {
        serde_json::from_value(value.clone()).map_err(|why| format!("this is no template of a TaskRun: {why}"))
    }

    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether the spec is written where it is used, so that what is around it holds in it too.
    pub fn is_inline(&self) -> bool {
        self.task.is_none()
    }
}

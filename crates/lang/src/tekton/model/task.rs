//! Tasks.

use serde_json::Value;

use super::doc::body;
use super::{ParamSpec, Resource, ResultSpec, Sidecar, Step, WorkspaceDecl, part};

part! {
    TaskSpec {
        params: Vec<ParamSpec>,
        display_name: String,
        description: String,
        steps: Vec<Step>,
        /// By the names of Kubernetes.
        volumes: Vec<Value>,
        /// Fields of a step that all steps have unless they say otherwise.
        step_template: Option<Value>,
        sidecars: Vec<Sidecar>,
        workspaces: Vec<WorkspaceDecl>,
        results: Vec<ResultSpec>,
    }
}

impl Resource for TaskSpec {
    fn kind(&self) -> &str {
        "Task"
    }

    fn api_version(&self) -> &str {
        "tekton.dev/v1"
    }

    const IN_SPEC: bool = true;

    fn from_body(_: &str, kind: &str, value: Value) -> Result<TaskSpec, String> {
        body(kind, "Task", value)
    }
}

//! PipelineRuns and TaskRuns.

use serde::Serialize;
use serde_json::Value;

use super::doc::body;
use super::{
    GoDuration, Param, PipelineRef, PipelineSpec, Resource, TaskMetadata, TaskRef, TaskSpec, WorkspaceBinding, part,
};

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RunSpec {
    Pipeline(Box<PipelineRunSpec>),
    Task(Box<TaskRunSpec>),
}

impl Resource for RunSpec {
    fn kind(&self) -> &str {
        match self {
            RunSpec::Pipeline(_) => "PipelineRun",
            RunSpec::Task(_) => "TaskRun",
        }
    }

    fn api_version(&self) -> &str {
        "tekton.dev/v1"
    }

    const IN_SPEC: bool = true;

    fn from_body(_: &str, kind: &str, value: Value) -> Result<RunSpec, String> {
        match kind {
            "PipelineRun" => Ok(RunSpec::Pipeline(body(kind, kind, value)?)),
            "TaskRun" => Ok(RunSpec::Task(body(kind, kind, value)?)),
            _ => Err(format!("expected a PipelineRun or a TaskRun, found a {kind}")),
        }
    }
}

part! {
    PipelineRunSpec {
        pipeline_ref: Option<PipelineRef>,
        pipeline_spec: Option<PipelineSpec>,
        params: Vec<Param>,
        /// `PipelineRunPending`, or how it is to be ended.
        status: String,
        timeouts: Option<Timeouts>,
        task_run_template: TaskRunTemplate,
        workspaces: Vec<WorkspaceBinding>,
        task_run_specs: Vec<TaskRunOverride>,
        managed_by: Option<String>,
    }
}

part! {
    /// For how long the whole, the tasks and the `finally` tasks may run; zero: without end.
    Timeouts { pipeline: Option<GoDuration>, tasks: Option<GoDuration>, finally: Option<GoDuration> }
}

part! {
    /// What all TaskRuns of a PipelineRun are given.
    TaskRunTemplate {
        /// By the names of Kubernetes.
        pod_template: Option<Value>,
        service_account_name: String,
    }
}

part! {
    /// What the TaskRuns of one task are given.
    TaskRunOverride {
        pipeline_task_name: String,
        service_account_name: String,
        pod_template: Option<Value>,
        step_specs: Vec<ContainerSpec>,
        sidecar_specs: Vec<ContainerSpec>,
        metadata: TaskMetadata,
        compute_resources: Option<Value>,
        timeout: Option<GoDuration>,
    }
}

part! {
    /// What one container may use.
    ContainerSpec { name: String, compute_resources: Option<Value> }
}

part! {
    TaskRunSpec {
        debug: Option<Debug>,
        params: Vec<Param>,
        service_account_name: String,
        task_ref: Option<TaskRef>,
        task_spec: Option<TaskSpec>,
        /// `TaskRunPending` or `TaskRunCancelled`.
        status: String,
        status_message: String,
        retries: u32,
        timeout: Option<GoDuration>,
        pod_template: Option<Value>,
        workspaces: Vec<WorkspaceBinding>,
        step_specs: Vec<ContainerSpec>,
        sidecar_specs: Vec<ContainerSpec>,
        compute_resources: Option<Value>,
        managed_by: Option<String>,
    }
}

part! {
    Debug { breakpoints: Option<Breakpoints> }
}

part! {
    Breakpoints { on_failure: String, before_steps: Vec<String> }
}

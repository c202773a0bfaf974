//! Steps, sidecars and StepActions.
//!
//! Parts that Kubernetes defines (`env`, `securityContext`, `volumeMounts`, probes, …) are JSON by its names.

use serde_json::Value;

use super::doc::body;
use super::{GoDuration, Param, ParamSpec, Resource, ResultSpec, WorkspaceUse, part};

part! {
    /// One container of a Task, or a use of a StepAction (`reference`).
    Step {
        name: String,
        display_name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        env_from: Vec<Value>,
        env: Vec<Value>,
        compute_resources: Option<Value>,
        volume_mounts: Vec<Value>,
        volume_devices: Vec<Value>,
        image_pull_policy: String,
        security_context: Option<Value>,
        script: String,
        timeout: Option<GoDuration>,
        workspaces: Vec<WorkspaceUse>,
        /// `continue`, `stopAndFail`, or a reference to a param; empty: `stopAndFail`.
        on_error: String,
        stdout_config: Option<OutputConfig>,
        stderr_config: Option<OutputConfig>,
        #[serde(rename = "ref")]
        reference: Option<StepRef>,
        params: Vec<Param>,
        results: Vec<ResultSpec>,
        when: Vec<When>,
    }
}

part! {
    /// Where a copy of an output stream goes.
    OutputConfig { path: String }
}

part! {
    /// Which StepAction a step uses.
    StepRef { name: String, resolver: String, params: Vec<Param> }
}

part! {
    /// A condition: `input` is (`in`) or is not (`notin`) one of `values`; or `cel` holds.
    When { input: String, operator: String, values: Vec<String>, cel: String }
}

part! {
    /// A container that runs beside the steps.
    Sidecar {
        name: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        working_dir: String,
        ports: Vec<Value>,
        env_from: Vec<Value>,
        env: Vec<Value>,
        compute_resources: Option<Value>,
        volume_mounts: Vec<Value>,
        volume_devices: Vec<Value>,
        liveness_probe: Option<Value>,
        readiness_probe: Option<Value>,
        startup_probe: Option<Value>,
        lifecycle: Option<Value>,
        termination_message_path: String,
        termination_message_policy: String,
        image_pull_policy: String,
        security_context: Option<Value>,
        stdin: bool,
        stdin_once: bool,
        tty: bool,
        script: String,
        workspaces: Vec<WorkspaceUse>,
        restart_policy: Option<String>,
    }
}

part! {
    /// A step that several Tasks use.
    StepActionSpec {
        description: String,
        image: String,
        command: Vec<String>,
        args: Vec<String>,
        env: Vec<Value>,
        script: String,
        working_dir: String,
        params: Vec<ParamSpec>,
        results: Vec<ResultSpec>,
        security_context: Option<Value>,
        volume_mounts: Vec<Value>,
    }
}

impl Resource for StepActionSpec {
    fn kind(&self) -> &str {
        "StepAction"
    }

    fn api_version(&self) -> &str {
        "tekton.dev/v1beta1"
    }

    const IN_SPEC: bool = true;

    fn from_body(_: &str, kind: &str, value: Value) -> Result<StepActionSpec, String> {
        body(kind, "StepAction", value)
    }
}

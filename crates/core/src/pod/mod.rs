//! A pod: containers that run one after the other with the same volumes, and others beside them, as a plain value.
//!
//! Every backend that knows containers (a sandbox of this machine, a Docker engine, Kubernetes) executes this one type; every
//! language compiles to it. It is complete when it is launched: what a Secret or a ConfigMap held is then in it as text,
//! and an [`EnvSource::Text`] is all that is left. Names are valid as names of files and of Kubernetes' containers.

mod ended;
mod expand;
mod guard;
mod sequence;
mod volume;

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use ended::{ARTIFACTS, ContainerEnded, ContainerState, PodEnded, PodFailure, TerminationReason};
pub use expand::expand;
pub use guard::{StepFacts, StepKnown, short, substitute_steps};
pub use sequence::{Next, Sequence, StepOutcome};
pub use volume::{CREDENTIALS, FileEntry, Medium, Mount, Source, Volume};

/// What one attempt runs, if it is not a list of scripts on the bare machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    pub name: String,
    pub hostname: String,
    pub namespace: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// In their order, one after the other; at least one.
    pub steps: Vec<Container>,
    /// All begin before the first step and end after the last.
    #[serde(default)]
    pub sidecars: Vec<Container>,
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// What is read from `/tekton/results` at the end.
    #[serde(default)]
    pub results: Vec<ResultDecl>,
    #[serde(default)]
    pub security: PodSecurity,
    /// The ServiceAccount whose credentials the steps get; empty: none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service_account: String,
    /// What only Kubernetes understands of a pod (`dnsConfig`, `runtimeClassName`, …), by the names of its fields; an object or null.
    #[serde(default)]
    pub cluster: Value,
    pub shape: Shape,
}

/// Which directories the containers of a pod share beside its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `/workspace` and `/tekton`, with what Tekton puts there.
    Tekton,
    /// None.
    Plain,
}

/// One container of a pod: a step or a sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// `step-x`, `step-unnamed-0`, `sidecar-x`.
    pub name: String,
    pub image: String,
    #[serde(default)]
    pub pull: Pull,
    /// Empty: the entry point of the image.
    #[serde(default)]
    pub command: Vec<String>,
    /// Empty, with an empty `command`: what the image says.
    #[serde(default)]
    pub args: Vec<String>,
    /// Instead of `command`; `args` are its arguments.
    #[serde(default)]
    pub script: Option<String>,
    /// In their order: a later one may use `$(NAME)` of an earlier.
    #[serde(default)]
    pub env: Vec<Env>,
    #[serde(default)]
    pub env_from: Vec<EnvFrom>,
    /// `None`: that of the image. Made if it is missing and lies below `/workspace` or a volume.
    #[serde(default)]
    pub workdir: Option<String>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub security: Security,
    /// `{requests, limits}` by the names of Kubernetes' resources, quantities as texts.
    #[serde(default)]
    pub resources: ContainerResources,
    /// From its start to its forced end; only of a step.
    #[serde(default)]
    pub timeout: Option<SignedDuration>,
    #[serde(default)]
    pub on_error: OnError,
    /// All must hold, else the step is skipped. Texts may hold references to results of earlier steps.
    #[serde(default)]
    pub when: Vec<Guard>,
    /// What is read from `/tekton/steps/NAME/results` at its end.
    #[serde(default)]
    pub results: Vec<ResultDecl>,
    /// Paths to which what it writes goes too; both may be the same.
    #[serde(default)]
    pub stdout_to: Option<String>,
    #[serde(default)]
    pub stderr_to: Option<String>,
    #[serde(default)]
    pub probes: Probes,
    #[serde(default)]
    pub ports: Vec<Value>,
    /// Hooks, `tty`, `stdin` and the like, by the names of Kubernetes' fields; an object or null.
    #[serde(default)]
    pub cluster: Value,
}

/// When an image is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    Always,
    Never,
    #[default]
    IfNotPresent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// A failure of the step ends the pod.
    #[default]
    Stop,
    /// The next step runs; the exit code is kept where later steps can read it.
    Continue,
}

/// One condition of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// `input` is one of `values`; with `negate`, is none of them.
    In { input: String, values: Vec<String>, negate: bool },
    /// An expression of the Common Expression Language that gives a boolean.
    Cel(String),
}

/// A variable of the environment.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Env {
    pub name: String,
    pub from: EnvSource,
}

/// Its value may be a secret.
impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnvSource {
    Text(String),
    Secret {
        name: String,
        key: String,
        optional: bool,
    },
    ConfigMap {
        name: String,
        key: String,
        optional: bool,
    },
    /// A field of the pod, `metadata.name`, `status.podIP`, …
    Field(String),
    /// A `resourceFieldRef`, by Kubernetes' names.
    Resource(Value),
}

/// All keys of an object as variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFrom {
    pub prefix: String,
    /// Of a Secret; else of a ConfigMap.
    pub is_secret: bool,
    pub name: String,
    pub optional: bool,
}

/// A file that becomes a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultDecl {
    pub name: String,
    #[serde(default)]
    pub kind: ResultKind,
    /// Of a task's result: where it comes from if not from a file, `$(steps.s.results.r)`.
    #[serde(default)]
    pub value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultKind {
    /// The bytes of the file, as they are.
    #[default]
    Text,
    /// JSON: a list of texts.
    List,
    /// JSON: an object of texts.
    Map,
}

/// Who containers run as, unless they say otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PodSecurity {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub fs_group: Option<u32>,
    #[serde(default)]
    pub supplemental_groups: Vec<u32>,
    /// What only Kubernetes understands (`seLinuxOptions`, `sysctls`, …); an object or null.
    #[serde(default)]
    pub cluster: Value,
}

/// Who a container runs as, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Security {
    pub run_as_user: Option<u32>,
    pub run_as_group: Option<u32>,
    pub run_as_non_root: Option<bool>,
    pub privileged: Option<bool>,
    pub allow_privilege_escalation: Option<bool>,
    pub read_only_root: Option<bool>,
    #[serde(default)]
    pub add_capabilities: Vec<String>,
    #[serde(default)]
    pub drop_capabilities: Vec<String>,
    /// What only Kubernetes understands (`seccompProfile`, `procMount`, …); an object or null.
    #[serde(default)]
    pub cluster: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerResources {
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    #[serde(default)]
    pub limits: BTreeMap<String, String>,
}

/// What says that a sidecar is ready, and that it still works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probes {
    pub startup: Option<Probe>,
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub how: ProbeHow,
    pub initial_delay: SignedDuration,
    pub period: SignedDuration,
    pub timeout: SignedDuration,
    pub successes: u32,
    pub failures: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeHow {
    Exec(Vec<String>),
    Http { host: Option<String>, port: u16, path: String, https: bool, headers: Vec<(String, String)> },
    Tcp { host: Option<String>, port: u16 },
}

//! The kinds of Tekton, and those of Kubernetes that its runs use, as types.
//!
//! They are written and read under the names of the API (`tekton.dev/v1`): a value that is serialised and read again
//! is the same value, what is left out is left out, and an unknown name is an error. Parts of containers and pods that
//! Kubernetes defines stay JSON; reading has checked their shape.

mod doc;
mod duration;
mod objects;
mod param;
mod pipeline;
mod run;
mod step;
mod task;
mod workspace;

#[cfg(test)]
mod tests;

pub use doc::{Doc, Docs, Meta, Named, Origin, Resource};
pub use duration::GoDuration;
pub(crate) use objects::decode_base64 as objects_base64;
pub use objects::{Claim, ConfigMap, LimitItem, LimitRange, ObjectName, Secret, ServiceAccount, TriggerObject};
pub use param::{Param, ParamKind, ParamSpec, ParamValue, Property, ResultSpec};
pub use pipeline::{
    IncludeParams, InlineTask, Matrix, PipelineRef, PipelineResult, PipelineSpec, PipelineTask, PipelineWorkspace,
    TaskMetadata, TaskRef, TaskUse,
};
pub use run::{
    Breakpoints, ContainerSpec, Debug, PipelineRunSpec, RunSpec, TaskRunOverride, TaskRunSpec, TaskRunTemplate,
    Timeouts,
};
pub use step::{OutputConfig, Sidecar, Step, StepActionSpec, StepRef, When};
pub use task::TaskSpec;
pub use workspace::{WorkspaceBinding, WorkspaceDecl, WorkspaceMapping, WorkspaceUse};

pub type Task = Doc<TaskSpec>;
pub type Pipeline = Doc<PipelineSpec>;
pub type StepAction = Doc<StepActionSpec>;
pub type RunDoc = Doc<RunSpec>;

/// Left out when written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A part of a document: every field may be left out, none may be added, and what is left out is not written.
macro_rules! part {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* #[serde(skip_serializing_if = "super::is_default")] pub $field: $type,)*
        }
    };
}
use part;

//! Pipelines and their tasks.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::doc::body;
use super::{GoDuration, Param, ParamKind, ParamSpec, ParamValue, Resource, TaskSpec, When, WorkspaceMapping, part};

part! {
    PipelineSpec {
        display_name: String,
        description: String,
        tasks: Vec<PipelineTask>,
        params: Vec<ParamSpec>,
        workspaces: Vec<PipelineWorkspace>,
        results: Vec<PipelineResult>,
        finally: Vec<PipelineTask>,
    }
}

impl Resource for PipelineSpec {
    fn kind(&self) -> &str {
        "Pipeline"
    }

    fn api_version(&self) -> &str {
        "tekton.dev/v1"
    }

    const IN_SPEC: bool = true;

    fn from_body(_: &str, kind: &str, value: Value) -> Result<PipelineSpec, String> {
        body(kind, "Pipeline", value)
    }
}

part! {
    /// A workspace that a Pipeline declares.
    PipelineWorkspace { name: String, description: String, optional: bool }
}

part! {
    /// A result of a Pipeline: an expression over results of its tasks.
    PipelineResult {
        name: String,
        #[serde(rename = "type")]
        declared: Option<ParamKind>,
        description: String,
        value: ParamValue,
    }
}

part! {
    /// One task of a Pipeline; [`PipelineTask::uses`] says what it runs.
    PipelineTask {
        name: String,
        display_name: String,
        description: String,
        task_ref: Option<TaskRef>,
        task_spec: Option<InlineTask>,
        when: Vec<When>,
        retries: u32,
        run_after: Vec<String>,
        params: Vec<Param>,
        matrix: Option<Matrix>,
        workspaces: Vec<WorkspaceMapping>,
        timeout: Option<GoDuration>,
        pipeline_ref: Option<PipelineRef>,
        pipeline_spec: Option<Box<PipelineSpec>>,
        /// `continue`, `stopAndFail`, or a reference to a param; empty: `stopAndFail`.
        on_error: String,
    }
}

/// What a task of a Pipeline runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TaskUse<'a> {
    Ref(&'a TaskRef),
    Inline(&'a InlineTask),
    Pipeline(&'a PipelineRef),
    InlinePipeline(&'a PipelineSpec),
    /// A kind that is not Tekton's own.
    Custom {
        api_version: &'a str,
        kind: &'a str,
    },
    /// Nothing is said; reading refuses it.
    Nothing,
}

impl PipelineTask {
    pub fn uses(&self) -> TaskUse<'_> {
        let foreign = |api_version: &str| !api_version.is_empty() && !api_version.starts_with("tekton.dev/");
        match (&self.task_ref, &self.task_spec, &self.pipeline_ref, &self.pipeline_spec) {
            (Some(used), ..) if foreign(&used.api_version) => {
                TaskUse::Custom { api_version: &used.api_version, kind: &used.kind }
            }
            (Some(used), ..) => TaskUse::Ref(used),
            (_, Some(used), ..) if foreign(&used.api_version) => {
                TaskUse::Custom { api_version: &used.api_version, kind: &used.kind }
            }
            (_, Some(used), ..) => TaskUse::Inline(used),
            (_, _, Some(used), _) => TaskUse::Pipeline(used),
            (_, _, _, Some(used)) => TaskUse::InlinePipeline(used),
            (None, None, None, None) => TaskUse::Nothing,
        }
    }
}

part! {
    /// A Task by its name, or by a resolver and its params.
    TaskRef { name: String, kind: String, api_version: String, resolver: String, params: Vec<Param> }
}

part! {
    /// A Pipeline by its name, or by a resolver and its params.
    PipelineRef { name: String, api_version: String, resolver: String, params: Vec<Param> }
}

/// A Task that is written where it is used; with what only stands there.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineTask {
    #[serde(skip_serializing_if = "super::is_default")]
    pub metadata: TaskMetadata,
    /// Of a custom task, with `kind` and `spec`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<Value>,
    #[serde(flatten)]
    pub task: TaskSpec,
}

part! {
    TaskMetadata { labels: BTreeMap<String, String>, annotations: BTreeMap<String, String> }
}

impl<'de> Deserialize<'de> for InlineTask {
    /// The fields of its own are taken out first, so that an unknown one beside them is still refused.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InlineTask, D::Error> {
        use serde::de::Error;
        let mut fields = serde_json::Map::deserialize(deserializer)?;
        let text = |value: Option<Value>| match value {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(D::Error::custom(format!("expected a text, found {other}"))),
        };
        Ok(InlineTask {
            metadata: match fields.remove("metadata") {
                None => TaskMetadata::default(),
                Some(value) => serde_json::from_value(value).map_err(D::Error::custom)?,
            },
            api_version: text(fields.remove("apiVersion"))?,
            kind: text(fields.remove("kind"))?,
            spec: fields.remove("spec"),
            task: serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?,
        })
    }
}

part! {
    /// A task once for each combination of values.
    Matrix { params: Vec<Param>, include: Vec<IncludeParams> }
}

part! {
    /// Adds params to combinations that match, or a combination.
    IncludeParams { name: String, params: Vec<Param> }
}

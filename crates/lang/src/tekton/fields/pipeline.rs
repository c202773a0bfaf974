//! Pipelines and their tasks.

use super::task::{INLINE_TASK, PARAM, PARAM_SPEC, WHEN};
use crate::tekton::read::shape::Shape::{Bool, Duration, In, Int, List, Param, Text, Word};
use crate::tekton::read::shape::{Gone, Table, Then, field, needed, refused};

const PIPELINE_RESOURCES: &str = "PipelineResources are gone from Tekton; use params and workspaces";
const CONDITIONS: &str = "Conditions are gone from Tekton; write `when`";

pub static PIPELINE: Table = Table {
    what: "the `spec` of a Pipeline",
    fields: &[
        field("displayName", Text),
        field("description", Text),
        field("tasks", List(&In(&PIPELINE_TASK))),
        field("params", List(&In(&PARAM_SPEC))),
        field("workspaces", List(&In(&WORKSPACE))),
        field("results", List(&In(&RESULT))),
        field("finally", List(&In(&PIPELINE_TASK))),
    ],
    gone: &[
        refused("resources", PIPELINE_RESOURCES),
        refused("timeout", "a Pipeline has none; put `timeouts` into the PipelineRun"),
        refused("timeouts", "a Pipeline has none; put `timeouts` into the PipelineRun"),
        refused("steps", "steps are of a Task: put them into `tasks[].taskSpec.steps`"),
    ],
};

static WORKSPACE: Table = Table {
    what: "the declaration of a workspace",
    fields: &[needed("name", Text), field("description", Text), field("optional", Bool)],
    gone: &[
        refused("mountPath", "it is of the Task that declares the workspace"),
        refused("readOnly", "it is of the Task that declares the workspace"),
    ],
};

static RESULT: Table = Table {
    what: "a result of a Pipeline",
    fields: &[
        needed("name", Text),
        field("type", Word(&["string", "array", "object"])),
        field("description", Text),
        needed("value", Param),
    ],
    gone: &[],
};

pub static PIPELINE_TASK: Table = Table {
    what: "a task of a Pipeline",
    fields: &[
        needed("name", Text),
        field("displayName", Text),
        field("description", Text),
        field("taskRef", In(&TASK_REF)),
        field("taskSpec", In(&INLINE_TASK)),
        field("when", List(&In(&WHEN))),
        field("retries", Int(0, i32::MAX as i64)),
        field("runAfter", List(&Text)),
        field("params", List(&In(&PARAM))),
        field("matrix", In(&MATRIX)),
        field("workspaces", List(&In(&WORKSPACE_MAPPING))),
        field("timeout", Duration),
        field("pipelineRef", In(&PIPELINE_REF)),
        field("pipelineSpec", In(&PIPELINE)),
        field("onError", Text),
    ],
    gone: &[
        refused("resources", PIPELINE_RESOURCES),
        refused("conditions", CONDITIONS),
        refused("whenExpressions", "it is called `when`"),
        refused("steps", "steps are of a Task: put them into `taskSpec`"),
    ],
};

pub static TASK_REF: Table = Table {
    what: "`taskRef`",
    fields: &[
        field("name", Text),
        field("kind", Text),
        field("apiVersion", Text),
        field("resolver", Text),
        field("params", List(&In(&PARAM))),
    ],
    gone: &[Gone { name: "bundle", then: Then::Bundle("Task") }, refused("resource", "it is called `params`")],
};

pub static PIPELINE_REF: Table = Table {
    what: "`pipelineRef`",
    fields: &[
        field("name", Text),
        field("apiVersion", Text),
        field("resolver", Text),
        field("params", List(&In(&PARAM))),
    ],
    gone: &[Gone { name: "bundle", then: Then::Bundle("Pipeline") }, refused("resource", "it is called `params`")],
};

static MATRIX: Table = Table {
    what: "`matrix`",
    fields: &[field("params", List(&In(&PARAM))), field("include", List(&In(&INCLUDE)))],
    gone: &[],
};

static INCLUDE: Table = Table {
    what: "an entry of `include`",
    fields: &[field("name", Text), field("params", List(&In(&PARAM)))],
    gone: &[],
};

static WORKSPACE_MAPPING: Table = Table {
    what: "a workspace of a task",
    fields: &[needed("name", Text), field("workspace", Text), field("subPath", Text)],
    gone: &[],
};

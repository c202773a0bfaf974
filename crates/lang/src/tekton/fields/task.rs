//! Tasks, steps, sidecars, StepActions, and what they declare.

use super::core::{DEVICE, ENV, ENV_FROM, LIFECYCLE, MOUNT, PORT, PROBE, PULL, RESOURCES, SECURITY, VOLUME};
use crate::tekton::read::shape::Shape::{Bool, Duration, In, List, Map, Param, Text, Word};
use crate::tekton::read::shape::{Gone, Shape, Table, field, needed, refused, renamed};

const KIND: Shape = Word(&["string", "array", "object"]);

pub static PARAM_SPEC: Table = Table {
    what: "the declaration of a param",
    fields: &[
        needed("name", Text),
        field("type", KIND),
        field("description", Text),
        field("properties", Map(&In(&PROPERTY))),
        field("default", Param),
        field("enum", List(&Text)),
    ],
    gone: &[],
};

static PROPERTY: Table = Table { what: "a property", fields: &[field("type", KIND)], gone: &[] };

pub static PARAM: Table = Table { what: "a param", fields: &[needed("name", Text), field("value", Param)], gone: &[] };

pub static RESULT: Table = Table {
    what: "the declaration of a result",
    fields: &[
        needed("name", Text),
        field("type", KIND),
        field("properties", Map(&In(&PROPERTY))),
        field("description", Text),
        field("value", Param),
    ],
    gone: &[],
};

static STEP_RESULT: Table = Table {
    what: "the declaration of a step's result",
    fields: &[
        needed("name", Text),
        field("type", KIND),
        field("properties", Map(&In(&PROPERTY))),
        field("description", Text),
    ],
    gone: &[refused(
        "value",
        "a step writes its result to `$(step.results.NAME.path)`; `value` is of a result of the Task",
    )],
};

pub static WHEN: Table = Table {
    what: "a condition",
    fields: &[field("input", Text), field("operator", Text), field("values", List(&Text)), field("cel", Text)],
    gone: &[],
};

static WORKSPACE_DECL: Table = Table {
    what: "the declaration of a workspace",
    fields: &[
        needed("name", Text),
        field("description", Text),
        field("mountPath", Text),
        field("readOnly", Bool),
        field("optional", Bool),
    ],
    gone: &[],
};

static WORKSPACE_USE: Table =
    Table { what: "a workspace of a step", fields: &[needed("name", Text), field("mountPath", Text)], gone: &[] };

const PIPELINE_RESOURCES: &str = "PipelineResources are gone from Tekton; use a param, a workspace or a git-clone Task";

/// The fields of the `spec` of a Task.
macro_rules! task_fields {
    ($($more:expr),*) => {
        &[
            $($more,)*
            field("params", List(&In(&PARAM_SPEC))),
            field("displayName", Text),
            field("description", Text),
            field("steps", List(&In(&STEP))),
            field("volumes", List(&In(&VOLUME))),
            field("stepTemplate", In(&STEP_TEMPLATE)),
            field("sidecars", List(&In(&SIDECAR))),
            field("workspaces", List(&In(&WORKSPACE_DECL))),
            field("results", List(&In(&RESULT))),
        ]
    };
}

const TASK_GONE: &[Gone] = &[
    refused("resources", PIPELINE_RESOURCES),
    refused("inputs", "inputs are gone from Tekton; use `params` and `workspaces`"),
    refused("outputs", "outputs are gone from Tekton; use `results` and `workspaces`"),
    refused("timeout", "a Task has none; put it into the TaskRun, or into the task of the Pipeline"),
];

pub static TASK: Table = Table { what: "the `spec` of a Task", fields: task_fields!(), gone: TASK_GONE };

pub static INLINE_TASK: Table = Table {
    what: "`taskSpec`",
    fields: task_fields!(
        field("metadata", In(&TASK_METADATA)),
        field("apiVersion", Text),
        field("kind", Text),
        field("spec", Shape::Open)
    ),
    gone: TASK_GONE,
};

pub static TASK_METADATA: Table =
    Table { what: "metadata", fields: &[field("labels", Map(&Text)), field("annotations", Map(&Text))], gone: &[] };

const OLD_STEP: &str = "it was taken out of Tekton's steps; a container that others connect to is a sidecar";

pub static STEP: Table = Table {
    what: "a step",
    fields: &[
        field("name", Text),
        field("displayName", Text),
        field("image", Text),
        field("command", List(&Text)),
        field("args", List(&Text)),
        field("workingDir", Text),
        field("envFrom", List(&In(&ENV_FROM))),
        field("env", List(&In(&ENV))),
        field("computeResources", In(&RESOURCES)),
        field("volumeMounts", List(&In(&MOUNT))),
        field("volumeDevices", List(&In(&DEVICE))),
        field("imagePullPolicy", PULL),
        field("securityContext", In(&SECURITY)),
        field("script", Text),
        field("timeout", Duration),
        field("workspaces", List(&In(&WORKSPACE_USE))),
        field("onError", Text),
        field("stdoutConfig", In(&OUTPUT)),
        field("stderrConfig", In(&OUTPUT)),
        field("ref", In(&STEP_REF)),
        field("params", List(&In(&PARAM))),
        field("results", List(&In(&STEP_RESULT))),
        field("when", List(&In(&WHEN))),
    ],
    gone: &[
        renamed("resources", "computeResources", In(&RESOURCES)),
        refused("ports", OLD_STEP),
        refused("livenessProbe", OLD_STEP),
        refused("readinessProbe", OLD_STEP),
        refused("startupProbe", OLD_STEP),
        refused("lifecycle", OLD_STEP),
        refused("terminationMessagePath", OLD_STEP),
        refused("terminationMessagePolicy", OLD_STEP),
        refused("stdin", OLD_STEP),
        refused("stdinOnce", OLD_STEP),
        refused("tty", OLD_STEP),
        refused("retries", "a step is not repeated; put `retries` into the task of the Pipeline, or into the TaskRun"),
    ],
};

static OUTPUT: Table = Table { what: "where an output goes", fields: &[needed("path", Text)], gone: &[] };

static STEP_REF: Table = Table {
    what: "`ref`",
    fields: &[field("name", Text), field("resolver", Text), field("params", List(&In(&PARAM)))],
    gone: &[],
};

pub static STEP_TEMPLATE: Table = Table {
    what: "`stepTemplate`",
    fields: &[
        field("image", Text),
        field("command", List(&Text)),
        field("args", List(&Text)),
        field("workingDir", Text),
        field("envFrom", List(&In(&ENV_FROM))),
        field("env", List(&In(&ENV))),
        field("computeResources", In(&RESOURCES)),
        field("volumeMounts", List(&In(&MOUNT))),
        field("volumeDevices", List(&In(&DEVICE))),
        field("imagePullPolicy", PULL),
        field("securityContext", In(&SECURITY)),
    ],
    gone: &[
        renamed("resources", "computeResources", In(&RESOURCES)),
        refused("name", "every step has a name of its own"),
        refused("script", "a script is of one step"),
    ],
};

pub static SIDECAR: Table = Table {
    what: "a sidecar",
    fields: &[
        field("name", Text),
        field("image", Text),
        field("command", List(&Text)),
        field("args", List(&Text)),
        field("workingDir", Text),
        field("ports", List(&In(&PORT))),
        field("envFrom", List(&In(&ENV_FROM))),
        field("env", List(&In(&ENV))),
        field("computeResources", In(&RESOURCES)),
        field("volumeMounts", List(&In(&MOUNT))),
        field("volumeDevices", List(&In(&DEVICE))),
        field("livenessProbe", In(&PROBE)),
        field("readinessProbe", In(&PROBE)),
        field("startupProbe", In(&PROBE)),
        field("lifecycle", In(&LIFECYCLE)),
        field("terminationMessagePath", Text),
        field("terminationMessagePolicy", Word(&["File", "FallbackToLogsOnError"])),
        field("imagePullPolicy", PULL),
        field("securityContext", In(&SECURITY)),
        field("stdin", Bool),
        field("stdinOnce", Bool),
        field("tty", Bool),
        field("script", Text),
        field("workspaces", List(&In(&WORKSPACE_USE))),
        field("restartPolicy", Word(&["Always"])),
    ],
    gone: &[renamed("resources", "computeResources", In(&RESOURCES))],
};

pub static STEP_ACTION: Table = Table {
    what: "the `spec` of a StepAction",
    fields: &[
        field("description", Text),
        needed("image", Text),
        field("command", List(&Text)),
        field("args", List(&Text)),
        field("env", List(&In(&ENV))),
        field("script", Text),
        field("workingDir", Text),
        field("params", List(&In(&PARAM_SPEC))),
        field("results", List(&In(&STEP_RESULT))),
        field("securityContext", In(&SECURITY)),
        field("volumeMounts", List(&In(&MOUNT))),
    ],
    gone: &[
        refused("computeResources", "resources are of the step that uses it"),
        refused("resources", "resources are of the step that uses it"),
        refused("timeout", "a timeout is of the step that uses it"),
        refused("onError", "`onError` is of the step that uses it"),
        refused("workspaces", "a StepAction sees no workspaces of its own; give it their paths as params"),
        refused("volumes", "volumes are of the Task; name them by params in `volumeMounts`"),
    ],
};

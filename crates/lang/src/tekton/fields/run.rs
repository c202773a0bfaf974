//! PipelineRuns and TaskRuns.

use super::core::{
    CLAIM_TEMPLATE, CONFIG_MAP_VOLUME, CSI_VOLUME, EMPTY_DIR, POD_TEMPLATE, PROJECTED, PVC_VOLUME, RESOURCES,
    SECRET_VOLUME,
};
use super::pipeline::{PIPELINE, PIPELINE_REF, TASK_REF};
use super::task::{PARAM, TASK, TASK_METADATA};
use crate::tekton::read::shape::Shape::{Duration, In, Int, List, Text, Word};
use crate::tekton::read::shape::{Table, field, needed, refused, renamed};

const PIPELINE_RESOURCES: &str = "PipelineResources are gone from Tekton; use params and workspaces";

pub static PIPELINE_RUN: Table = Table {
    what: "the `spec` of a PipelineRun",
    fields: &[
        field("pipelineRef", In(&PIPELINE_REF)),
        field("pipelineSpec", In(&PIPELINE)),
        field("params", List(&In(&PARAM))),
        field("status", Word(&["Cancelled", "CancelledRunFinally", "StoppedRunFinally", "PipelineRunPending"])),
        field("timeouts", In(&TIMEOUTS)),
        field("taskRunTemplate", In(&TEMPLATE)),
        field("workspaces", List(&In(&BINDING))),
        field("taskRunSpecs", List(&In(&TASK_RUN_SPEC))),
        field("managedBy", Text),
    ],
    gone: &[
        renamed("timeout", "timeouts.pipeline", Duration),
        renamed("podTemplate", "taskRunTemplate.podTemplate", In(&POD_TEMPLATE)),
        renamed("serviceAccountName", "taskRunTemplate.serviceAccountName", Text),
        refused("resources", PIPELINE_RESOURCES),
        refused("serviceAccountNames", "it is gone from Tekton; write `taskRunSpecs[].serviceAccountName`"),
    ],
};

static TIMEOUTS: Table = Table {
    what: "`timeouts`",
    fields: &[field("pipeline", Duration), field("tasks", Duration), field("finally", Duration)],
    gone: &[],
};

static TEMPLATE: Table = Table {
    what: "`taskRunTemplate`",
    fields: &[field("podTemplate", In(&POD_TEMPLATE)), field("serviceAccountName", Text)],
    gone: &[],
};

static TASK_RUN_SPEC: Table = Table {
    what: "an entry of `taskRunSpecs`",
    fields: &[
        needed("pipelineTaskName", Text),
        field("serviceAccountName", Text),
        field("podTemplate", In(&POD_TEMPLATE)),
        field("stepSpecs", List(&In(&CONTAINER_SPEC))),
        field("sidecarSpecs", List(&In(&CONTAINER_SPEC))),
        field("metadata", In(&TASK_METADATA)),
        field("computeResources", In(&RESOURCES)),
        field("timeout", Duration),
    ],
    gone: &[
        renamed("taskServiceAccountName", "serviceAccountName", Text),
        renamed("taskPodTemplate", "podTemplate", In(&POD_TEMPLATE)),
        renamed("stepOverrides", "stepSpecs", List(&In(&CONTAINER_SPEC))),
        renamed("sidecarOverrides", "sidecarSpecs", List(&In(&CONTAINER_SPEC))),
    ],
};

static CONTAINER_SPEC: Table = Table {
    what: "what one container may use",
    fields: &[needed("name", Text), field("computeResources", In(&RESOURCES))],
    gone: &[renamed("resources", "computeResources", In(&RESOURCES))],
};

pub static TASK_RUN: Table = Table {
    what: "the `spec` of a TaskRun",
    fields: &[
        field("debug", In(&DEBUG)),
        field("params", List(&In(&PARAM))),
        field("serviceAccountName", Text),
        field("taskRef", In(&TASK_REF)),
        field("taskSpec", In(&TASK)),
        field("status", Word(&["TaskRunCancelled", "TaskRunPending"])),
        field("statusMessage", Text),
        field("retries", Int(0, i32::MAX as i64)),
        field("timeout", Duration),
        field("podTemplate", In(&POD_TEMPLATE)),
        field("workspaces", List(&In(&BINDING))),
        field("stepSpecs", List(&In(&CONTAINER_SPEC))),
        field("sidecarSpecs", List(&In(&CONTAINER_SPEC))),
        field("computeResources", In(&RESOURCES)),
        field("managedBy", Text),
    ],
    gone: &[
        renamed("stepOverrides", "stepSpecs", List(&In(&CONTAINER_SPEC))),
        renamed("sidecarOverrides", "sidecarSpecs", List(&In(&CONTAINER_SPEC))),
        refused("resources", PIPELINE_RESOURCES),
        refused("inputs", "inputs are gone from Tekton; use `params` and `workspaces`"),
        refused("outputs", "outputs are gone from Tekton; use `results` and `workspaces`"),
        refused("taskRunTemplate", "that is of a PipelineRun; a TaskRun has `podTemplate` and `serviceAccountName`"),
        refused("timeouts", "that is of a PipelineRun; a TaskRun has `timeout`"),
    ],
};

static DEBUG: Table = Table { what: "`debug`", fields: &[field("breakpoints", In(&BREAKPOINTS))], gone: &[] };

static BREAKPOINTS: Table = Table {
    what: "`breakpoints`",
    fields: &[field("onFailure", Word(&["enabled"])), field("beforeSteps", List(&Text))],
    gone: &[],
};

static BINDING: Table = Table {
    what: "a workspace of a run",
    fields: &[
        needed("name", Text),
        field("subPath", Text),
        field("volumeClaimTemplate", In(&CLAIM_TEMPLATE)),
        field("persistentVolumeClaim", In(&PVC_VOLUME)),
        field("emptyDir", In(&EMPTY_DIR)),
        field("configMap", In(&CONFIG_MAP_VOLUME)),
        field("secret", In(&SECRET_VOLUME)),
        field("projected", In(&PROJECTED)),
        field("csi", In(&CSI_VOLUME)),
    ],
    gone: &[],
};

//! The kinds that are read, and why others are not.

use super::core::META;
use super::core_pod::NAME;
use super::core_volume::CLAIM_SPEC;
use super::pipeline::PIPELINE;
use super::run::{PIPELINE_RUN, TASK_RUN};
use super::task::{STEP_ACTION, TASK};
use super::trigger::{
    BINDING_DOC, CLUSTER_BINDING_DOC, CLUSTER_INTERCEPTOR_DOC, INTERCEPTOR_DOC, LISTENER_DOC, TEMPLATE_DOC, TRIGGER_DOC,
};
use crate::tekton::read::shape::Shape::{Bool, In, List, Map, Open, Quantity, Text, Word};
use crate::tekton::read::shape::{Table, field, needed, refused};

/// A kind and the document's own table.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub versions: &'static [&'static str],
    pub table: &'static Table,
}

const BOTH: &[&str] = &["tekton.dev/v1", "tekton.dev/v1beta1"];
const STEP_ACTIONS: &[&str] = &["tekton.dev/v1beta1", "tekton.dev/v1alpha1"];
const CORE: &[&str] = &["v1"];
const TRIGGERS: &[&str] = &["triggers.tekton.dev/v1beta1", "triggers.tekton.dev/v1alpha1"];

pub static KINDS: &[Kind] = &[
    Kind { name: "PipelineRun", versions: BOTH, table: &PIPELINE_RUN_DOC },
    Kind { name: "TaskRun", versions: BOTH, table: &TASK_RUN_DOC },
    Kind { name: "Pipeline", versions: BOTH, table: &PIPELINE_DOC },
    Kind { name: "Task", versions: BOTH, table: &TASK_DOC },
    Kind { name: "StepAction", versions: STEP_ACTIONS, table: &STEP_ACTION_DOC },
    Kind { name: "ConfigMap", versions: CORE, table: &CONFIG_MAP },
    Kind { name: "Secret", versions: CORE, table: &SECRET },
    Kind { name: "PersistentVolumeClaim", versions: CORE, table: &CLAIM },
    Kind { name: "ServiceAccount", versions: CORE, table: &ACCOUNT },
    Kind { name: "LimitRange", versions: CORE, table: &LIMIT_RANGE },
    Kind { name: "EventListener", versions: TRIGGERS, table: &LISTENER_DOC },
    Kind { name: "Trigger", versions: TRIGGERS, table: &TRIGGER_DOC },
    Kind { name: "TriggerBinding", versions: TRIGGERS, table: &BINDING_DOC },
    Kind { name: "ClusterTriggerBinding", versions: TRIGGERS, table: &CLUSTER_BINDING_DOC },
    Kind { name: "TriggerTemplate", versions: TRIGGERS, table: &TEMPLATE_DOC },
    Kind { name: "Interceptor", versions: TRIGGERS, table: &INTERCEPTOR_DOC },
    Kind { name: "ClusterInterceptor", versions: TRIGGERS, table: &CLUSTER_INTERCEPTOR_DOC },
];

const RIGHTS: &str =
    "rights in a cluster mean nothing here; apply it to the cluster, and leave it out of what is run here";

/// Kinds that stand beside Tekton's in files, and why they are not taken.
pub static OTHERS: &[(&str, &str)] = &[
    ("ClusterTask", "it is gone from Tekton; make it a `Task`"),
    ("Condition", "it is gone from Tekton; write `when` at the task of the Pipeline"),
    ("PipelineResource", "it is gone from Tekton; use params, workspaces and a Task that fetches"),
    ("Run", "custom tasks need a controller of their own in a cluster; use a Task"),
    ("CustomRun", "custom tasks need a controller of their own in a cluster; use a Task"),
    ("Role", RIGHTS),
    ("RoleBinding", RIGHTS),
    ("ClusterRole", RIGHTS),
    ("ClusterRoleBinding", RIGHTS),
    ("Namespace", "namespaces need not be made; leave it out"),
    ("SecretProviderClass", "it needs a driver of a cluster; use a Secret"),
    ("PersistentVolume", "storage is made for claims by itself; leave it out"),
];

macro_rules! document {
    ($name:ident, $what:literal, $spec:expr) => {
        static $name: Table = Table {
            what: $what,
            fields: &[
                needed("apiVersion", Text),
                needed("kind", Text),
                needed("metadata", In(&META)),
                needed("spec", $spec),
                field("status", Open),
            ],
            gone: &[],
        };
    };
}

document!(PIPELINE_RUN_DOC, "a PipelineRun", In(&PIPELINE_RUN));
document!(TASK_RUN_DOC, "a TaskRun", In(&TASK_RUN));
document!(PIPELINE_DOC, "a Pipeline", In(&PIPELINE));
document!(TASK_DOC, "a Task", In(&TASK));
document!(STEP_ACTION_DOC, "a StepAction", In(&STEP_ACTION));
document!(CLAIM, "a PersistentVolumeClaim", In(&CLAIM_SPEC));
document!(LIMIT_RANGE, "a LimitRange", In(&LIMITS));

static CONFIG_MAP: Table = Table {
    what: "a ConfigMap",
    fields: &[
        needed("apiVersion", Text),
        needed("kind", Text),
        needed("metadata", In(&META)),
        field("data", Map(&Text)),
        field("binaryData", Map(&Text)),
        field("immutable", Bool),
    ],
    gone: &[refused("stringData", "that is of a Secret; a ConfigMap has `data`")],
};

static SECRET: Table = Table {
    what: "a Secret",
    fields: &[
        needed("apiVersion", Text),
        needed("kind", Text),
        needed("metadata", In(&META)),
        field("type", Text),
        field("data", Map(&Text)),
        field("stringData", Map(&Text)),
        field("immutable", Bool),
    ],
    gone: &[],
};

static ACCOUNT: Table = Table {
    what: "a ServiceAccount",
    fields: &[
        needed("apiVersion", Text),
        needed("kind", Text),
        needed("metadata", In(&META)),
        field("secrets", List(&In(&OBJECT))),
        field("imagePullSecrets", List(&In(&NAME))),
        field("automountServiceAccountToken", Bool),
    ],
    gone: &[],
};

static OBJECT: Table =
    Table { what: "a reference to a Secret", fields: &[needed("name", Text), field("namespace", Text)], gone: &[] };

static LIMITS: Table =
    Table { what: "the `spec` of a LimitRange", fields: &[needed("limits", List(&In(&LIMIT)))], gone: &[] };

static LIMIT: Table = Table {
    what: "a limit",
    fields: &[
        needed("type", Word(&["Container", "Pod", "PersistentVolumeClaim"])),
        field("max", Map(&Quantity)),
        field("min", Map(&Quantity)),
        field("default", Map(&Quantity)),
        field("defaultRequest", Map(&Quantity)),
        field("maxLimitRequestRatio", Map(&Quantity)),
    ],
    gone: &[],
};

//! Jobs, tasks and nodes of Amazon ECS in the fields and words of the system that Pitcrew replaces.
//!
//! They are derived, by views of the database: nothing is stored for them but what was imported from that system's tables.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use pitcrew_core::id::RunKey;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The label of a node that was imported as being under repair, or out of service: the word that stood there. While the node
/// is cordoned, it counts.
pub const IMPORTED_STATUS: &str = "pitcrew/imported-status";

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$each])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            pub const ALL: &[$name] = &[$($name::$variant),*];

            pub fn name(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<$name, String> {
                let words = || $name::ALL.iter().map(|one| format!("`{one}`")).collect::<Vec<_>>().join(", ");
                let found = $name::ALL.iter().find(|one| one.name() == text).copied();
                found.ok_or_else(|| format!("`{text}` is none of {}", words()))
            }
        }
    };
}

words! {
    /// In the order by which a job is what the least of its members is.
    EcsJobStatus {
        PendingHealthcheck = "PENDING_HEALTHCHECK",
        PendingRestart = "PENDING_RESTART",
        Restarting = "RESTARTING",
        InProgress = "IN_PROGRESS",
        Failed = "FAILED",
        FailedOthers = "FAILED_OTHERS",
        UserStopped = "USER_STOPPED",
        Complete = "COMPLETE",
    }
}

words! {
    EcsTaskStatus {
        InProgress = "IN_PROGRESS",
        Complete = "COMPLETE",
        Terminated = "TERMINATED",
        Failed = "FAILED",
    }
}

words! {
    EcsNodeStatus {
        Available = "AVAILABLE",
        Assigned = "ASSIGNED",
        InProgress = "IN_PROGRESS",
        Pending = "PENDING",
        PendingHealthcheck = "PENDING_HEALTHCHECK",
        Rebooting = "REBOOTING",
        Failed = "FAILED",
        Unknown = "UNKNOWN",
    }
}

words! {
    /// Where a row comes from.
    EcsOrigin {
        Pitcrew = "pitcrew",
        Imported = "imported",
    }
}

impl EcsJobStatus {
    pub fn is_final(self) -> bool {
        self >= EcsJobStatus::Failed
    }
}

/// A job: a task on ECS, or all members of a gang.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsJob {
    pub job_id: String,
    pub num_nodes: u32,
    pub assigned_nodes: Vec<String>,
    pub submitted_container_inst_ids: Vec<String>,
    pub submitted_ecs_task_ids: Vec<String>,
    /// How often it was begun anew.
    pub retry: u32,
    pub job_status: EcsJobStatus,
    pub origin: EcsOrigin,
    /// The table that it was imported from.
    pub source: Option<String>,
    /// What recovery calls it: `7/train`.
    pub job: Option<String>,
    pub run: Option<RunKey>,
    pub task: Option<String>,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

/// A task that ECS was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsTask {
    pub ecs_task_id: String,
    pub node_name: Option<String>,
    pub node_index_in_job: Option<u32>,
    pub job_id: Option<String>,
    pub job_num_nodes: Option<u32>,
    pub task_def_arn: Option<String>,
    pub container_inst_id: Option<String>,
    pub container_instance_arn: Option<String>,
    pub retry: u32,
    pub task_status: EcsTaskStatus,
    pub origin: EcsOrigin,
    pub source: Option<String>,
    pub ecs_task_arn: Option<String>,
    pub job: Option<String>,
    pub run: Option<RunKey>,
    pub task: Option<String>,
    pub map_index: Option<i32>,
    pub attempt: Option<u32>,
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

/// A machine of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcsNode {
    pub node_name: String,
    pub container_instance_id: Option<String>,
    pub container_instance_arn: Option<String>,
    pub node_status: EcsNodeStatus,
    pub ip: Option<String>,
    pub ibdev: Option<String>,
    pub origin: EcsOrigin,
    pub source: Option<String>,
    /// What it is called here.
    pub node: Option<String>,
    pub cluster: Option<String>,
    /// The open one.
    pub incident: Option<u64>,
}

/// Which rows; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EcsFilter {
    pub status: Option<String>,
    pub origin: Option<EcsOrigin>,
    /// Of one job, by its `job_id`. Nodes have none.
    pub job_id: Option<String>,
    pub run: Option<RunKey>,
}

words! {
    /// Which of the three tables.
    EcsKind {
        Job = "job",
        Task = "task",
        Node = "node",
    }
}

/// What one of those tables held, in its own fields.
#[derive(Debug, Clone, PartialEq)]
pub struct EcsImport {
    pub kind: EcsKind,
    pub key: String,
    pub source: String,
    pub body: Value,
    /// Of a node: what it is called here.
    pub node: Option<String>,
}

/// How an import changed what was imported before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EcsImported {
    Added,
    Changed,
    Same,
}

impl EcsImported {
    pub(crate) fn of(before: Option<&EcsImport>, now: &EcsImport) -> EcsImported {
        match before {
            None => EcsImported::Added,
            Some(before) if before == now => EcsImported::Same,
            Some(_) => EcsImported::Changed,
        }
    }
}

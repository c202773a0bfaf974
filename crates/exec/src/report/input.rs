//! What a report is made from, as JSON. Everything but the run's name may be missing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::history::History;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportInput {
    /// `None`: the workflow's name.
    pub title: Option<String>,
    pub run: RunInput,
    /// In the order in which they are shown.
    pub tasks: Vec<TaskInput>,
    /// Files of test results, in JUnit's XML.
    pub junit: Vec<PathBuf>,
    /// Files of coverage, in Cobertura's XML or coverage.py's JSON.
    pub coverage: Vec<PathBuf>,
    /// `figures.json` files that the runs of notebooks left.
    pub notebooks: Vec<PathBuf>,
    pub files: Vec<FileInput>,
    /// A directory in which Python actions left what their environments hold, a file per task.
    pub versions: Option<PathBuf>,
    /// What earlier runs of the workflow came to.
    pub history: History,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInput {
    pub workflow: String,
    /// The number of the run in its store.
    pub key: Option<i64>,
    pub run_id: String,
    /// `manual`, `scheduled`, `backfill`.
    pub run_type: String,
    /// The run's page.
    pub url: Option<String>,
    pub params: Map<String, Value>,
    /// As the engine names it; `running` while the report is one of the run's own tasks.
    pub state: String,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    pub triggered_by: String,
    pub commit: Option<CommitInput>,
    /// Of programs: `pitcrew`, `python`, …
    pub versions: BTreeMap<String, String>,
}

/// The source that the run worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitInput {
    pub commit: String,
    pub branch: Option<String>,
    /// The branch that the repository itself begins with, when it said so.
    pub default_branch: Option<String>,
    pub author: String,
    pub message: String,
}

impl CommitInput {
    /// The branch that others are compared with: the repository's default one; where that is not known, one that is
    /// named as most are.
    pub fn is_main(&self) -> bool {
        match (&self.branch, &self.default_branch) {
            (Some(branch), Some(default)) => branch == default,
            (Some(branch), None) => matches!(branch.as_str(), "main" | "master"),
            (None, _) => false,
        }
    }

    /// As people name it.
    pub fn short(&self) -> &str {
        self.commit.get(..12).unwrap_or(&self.commit)
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskInput {
    pub id: String,
    /// The index of a mapped instance.
    pub map_index: Option<i32>,
    pub state: String,
    /// What `uses:` says; empty for a script.
    pub action: String,
    /// Every attempt, the first one first.
    pub attempts: Vec<AttemptInput>,
    /// What it handed on, without values that are large.
    pub outputs: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AttemptInput {
    pub number: u32,
    pub start: Option<Timestamp>,
    pub end: Option<Timestamp>,
    /// In words: `exit 1`, `timed out`.
    pub exit: String,
    pub success: bool,
    pub message: String,
    pub usage: Option<UsageInput>,
}

/// What an attempt used. Reads what backends report.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UsageInput {
    pub wall_seconds: f64,
    pub user_cpu_seconds: f64,
    pub system_cpu_seconds: f64,
    pub peak_memory_bytes: Option<u64>,
    pub gpus: Vec<GpuInput>,
}

/// The sampled use of one device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GpuInput {
    pub uuid: String,
    pub samples: u32,
    /// How much of it was held; `None`: all. Use and memory are those of the whole device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<f64>,
    /// What the device did not tell is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_utilization_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_utilization_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_memory_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_bytes: Option<u64>,
    /// Watt hours of that part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub energy_wh: Option<f64>,
}

/// A file that the report points to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileInput {
    pub name: String,
    /// An address, or a path relative to the report.
    pub url: Option<String>,
    pub bytes: Option<u64>,
    /// Of its content, in hex; tells whether it changed since another run.
    pub sha256: Option<String>,
}

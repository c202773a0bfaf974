//! When a workflow runs by itself.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The schedule of a workflow, checked: the expression parses and the time zone exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub timing: Timing,
    /// Make up for times missed while paused or down; otherwise only the newest missed time runs.
    pub catchup: bool,
    /// No logical date before this.
    pub start: Option<Timestamp>,
    /// No logical date after this.
    pub end: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// Five fields or `@daily` and its like, in a time zone of the IANA database.
    Cron { expression: String, timezone: String },
    Interval(SignedDuration),
}

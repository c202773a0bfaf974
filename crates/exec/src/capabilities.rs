//! What this machine offers to attempts: devices, and limits that can be enforced.

use serde::{Deserialize, Serialize};

use crate::gpu::Gpu;

/// For `doctor` and for the inventory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// A limit on memory is enforced, and running out of it is told apart from other ends.
    pub memory_limit: bool,
    /// A limit on CPU is enforced.
    pub cpu_limit: bool,
    pub gpus: Vec<Gpu>,
    /// For people: why something is missing, one sentence each.
    pub remarks: Vec<String>,
}

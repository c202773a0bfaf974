//! What a task says of how it fails and hangs: as it stands in its workflow, beside its retries.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Serialize;

use super::policy::{JobSpec, Restart};

/// What is not said is as the configuration of the server has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Asks {
    pub restart: Option<Restart>,
    pub infrastructure_restarts: Option<u32>,
    pub check_peers: Option<bool>,
    /// As they were written, `{"3-5": "application"}`; the language has checked them.
    pub exit_codes: BTreeMap<String, String>,
    pub hang: Hang,
}

/// When a task is believed to hang. Of a gang all members together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hang {
    /// It writes nothing at all for so long.
    pub silence: Option<SignedDuration>,
    /// A line that says so itself; a regular expression.
    pub pattern: Option<String>,
    pub progress: Option<Progress>,
}

/// A line that has to come again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// A regular expression.
    pub pattern: String,
    pub first_within: SignedDuration,
    pub every: SignedDuration,
}

impl Asks {
    /// The job as the task wants it, but for its exit codes.
    pub fn over(&self, spec: JobSpec) -> JobSpec {
        JobSpec {
            restart: self.restart.unwrap_or(spec.restart),
            // Whoever writes a workflow has no say in how much the machines of all may be used up.
            infrastructure_restarts: self
                .infrastructure_restarts
                .map_or(spec.infrastructure_restarts, |most| most.min(spec.infrastructure_restarts)),
            check_peers: self.check_peers.unwrap_or(spec.check_peers),
            ..spec
        }
    }
}

impl Hang {
    pub fn is_asked(&self) -> bool {
        *self != Hang::default()
    }
}

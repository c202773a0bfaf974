//! What was seen of a node or a job, already classified: which signal it is, and what the tables advise.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::state::Rung;

/// Something that was seen. Its id says that two are one: boot id and number of the kernel's line, or the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    pub id: String,
    /// Empty where it is of a job and of no node in particular.
    pub node: String,
    /// Of the boot that it is about; `None` where that cannot be known. It then counts as of the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// The job that it is about, as its watcher knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobRef>,
    /// When it happened, by the clock of the server.
    pub at: Timestamp,
    pub kind: SignalKind,
    pub advice: Advice,
    /// The line, the value, the exit code: what a person wants to see.
    pub evidence: String,
}

impl Signal {
    /// What it is and what was seen, for people. What the evidence says by itself is not said before it.
    pub fn words(&self) -> String {
        let kind = self.kind.to_string();
        match self.evidence.to_lowercase().contains(&kind.to_lowercase()) {
            true => self.evidence.clone(),
            false => format!("{kind}: {}", self.evidence),
        }
    }

    /// The same, of its node.
    pub fn words_on(&self) -> String {
        let kind = self.kind.to_string();
        match self.evidence.to_lowercase().contains(&kind.to_lowercase()) {
            true => format!("{}: {}", self.node, self.evidence),
            false => format!("{kind} on {}: {}", self.node, self.evidence),
        }
    }
}

/// A job and one of its attempts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobRef {
    pub job: String,
    pub attempt: u32,
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.job, self.attempt)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum SignalKind {
    Xid {
        code: u32,
    },
    /// An error of applications that came back on one GPU, whatever ran there: then it is the GPU's.
    Repeated {
        code: u32,
    },
    /// A health watch or a field of DCGM, by its name.
    Dcgm {
        what: String,
    },
    /// Something that its cluster says of a node, by its name.
    Condition {
        what: String,
    },
    /// A GPU is not there any more.
    LostGpu,
    /// A program that asks the GPU does not come back.
    Hang,
    Ecc,
    RemapPending,
    RemapFailure,
    NvLink,
    /// It is slowed down for heat, or hotter than it should be.
    Thermal,
    /// It is slowed down since the supply of power says so.
    Power,
    /// It does not answer.
    NodeLost,
    /// Its provider takes it away soon.
    SpotInterruption,
    ExitCode {
        code: i32,
    },
    /// A pattern in the log of a job.
    LogPattern,
    /// A job that writes nothing.
    Silence,
    /// Nothing of its own: another rank of its job failed, and was not to blame.
    Peer,
    /// It was out of reach and is back.
    Returned,
    /// A person.
    User,
}

impl SignalKind {
    /// Says that the node is away or going, and nothing about whether it is well. Nothing is ever rebooted for these.
    pub fn is_absence(&self) -> bool {
        match self {
            SignalKind::NodeLost | SignalKind::SpotInterruption => true,
            SignalKind::Xid { .. }
            | SignalKind::Repeated { .. }
            | SignalKind::Dcgm { .. }
            | SignalKind::Condition { .. }
            | SignalKind::LostGpu
            | SignalKind::Hang
            | SignalKind::Ecc
            | SignalKind::RemapPending
            | SignalKind::RemapFailure
            | SignalKind::NvLink
            | SignalKind::Thermal
            | SignalKind::Power
            | SignalKind::ExitCode { .. }
            | SignalKind::LogPattern
            | SignalKind::Silence
            | SignalKind::Peer
            | SignalKind::Returned
            | SignalKind::User => false,
        }
    }

    /// Its XID, if it is one.
    pub fn xid(&self) -> Option<u32> {
        match self {
            SignalKind::Xid { code } | SignalKind::Repeated { code } => Some(*code),
            SignalKind::Dcgm { .. }
            | SignalKind::Condition { .. }
            | SignalKind::LostGpu
            | SignalKind::Hang
            | SignalKind::Ecc
            | SignalKind::RemapPending
            | SignalKind::RemapFailure
            | SignalKind::NvLink
            | SignalKind::Thermal
            | SignalKind::Power
            | SignalKind::NodeLost
            | SignalKind::SpotInterruption
            | SignalKind::ExitCode { .. }
            | SignalKind::LogPattern
            | SignalKind::Silence
            | SignalKind::Peer
            | SignalKind::Returned
            | SignalKind::User => None,
        }
    }

    /// Whether people are told of it also where nothing that can be done from here helps.
    pub fn is_for_people(&self) -> bool {
        matches!(self, SignalKind::Thermal | SignalKind::Power)
    }

    /// One of a few words for what a trouble began with: the label of metrics.
    pub fn cause(&self) -> &'static str {
        match self {
            SignalKind::Xid { .. } | SignalKind::Repeated { .. } => "xid",
            SignalKind::Dcgm { .. } => "dcgm",
            SignalKind::Condition { .. } => "condition",
            SignalKind::LostGpu => "lost_gpu",
            SignalKind::Hang => "hang",
            SignalKind::Ecc | SignalKind::RemapPending | SignalKind::RemapFailure => "memory",
            SignalKind::NvLink => "nvlink",
            SignalKind::Thermal => "thermal",
            SignalKind::Power => "power",
            SignalKind::NodeLost => "node_lost",
            SignalKind::SpotInterruption => "spot",
            SignalKind::ExitCode { .. } => "exit_code",
            SignalKind::LogPattern => "log_pattern",
            SignalKind::Silence => "silence",
            SignalKind::Peer => "peer",
            SignalKind::Returned => "returned",
            SignalKind::User => "person",
        }
    }

    /// Whether a short check could pass although it is so: memory and links need the longer one.
    pub fn needs_long_check(&self) -> bool {
        match self {
            SignalKind::Xid { code } => matches!(code, 48 | 63 | 64 | 74 | 94 | 95 | 144..=150 | 171 | 172),
            SignalKind::Repeated { .. }
            | SignalKind::Ecc
            | SignalKind::RemapPending
            | SignalKind::RemapFailure
            | SignalKind::NvLink => true,
            SignalKind::Dcgm { .. }
            | SignalKind::Condition { .. }
            | SignalKind::LostGpu
            | SignalKind::Hang
            | SignalKind::Thermal
            | SignalKind::Power
            | SignalKind::NodeLost
            | SignalKind::SpotInterruption
            | SignalKind::ExitCode { .. }
            | SignalKind::LogPattern
            | SignalKind::Silence
            | SignalKind::Peer
            | SignalKind::Returned
            | SignalKind::User => false,
        }
    }
}

impl fmt::Display for SignalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignalKind::Xid { code } => write!(f, "XID {code}"),
            SignalKind::Repeated { code } => write!(f, "XID {code} again"),
            SignalKind::Dcgm { what } => write!(f, "DCGM {what}"),
            SignalKind::Condition { what } => f.write_str(what),
            SignalKind::LostGpu => f.write_str("lost GPU"),
            SignalKind::Hang => f.write_str("GPU hangs"),
            SignalKind::Ecc => f.write_str("ECC errors"),
            SignalKind::RemapPending => f.write_str("row remap pending"),
            SignalKind::RemapFailure => f.write_str("row remap failed"),
            SignalKind::NvLink => f.write_str("NVLink error"),
            SignalKind::Thermal => f.write_str("temperature"),
            SignalKind::Power => f.write_str("power brake"),
            SignalKind::NodeLost => f.write_str("node lost"),
            SignalKind::SpotInterruption => f.write_str("Spot interruption"),
            SignalKind::ExitCode { code } => write!(f, "exit code {code}"),
            SignalKind::LogPattern => f.write_str("pattern in the log"),
            SignalKind::Silence => f.write_str("silence of the log"),
            SignalKind::Peer => f.write_str("failure of another rank"),
            SignalKind::Returned => f.write_str("node is back"),
            SignalKind::User => f.write_str("a person"),
        }
    }
}

/// What to do about it, as the tables say; weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    Ignore,
    /// The application's own doing: it restarts, the node stays.
    RestartApp,
    /// Whether the node is well has to be found out.
    Check,
    ResetGpu,
    Reboot,
    Replace,
    /// Nothing that can be done from here helps.
    ContactSupport,
}

impl Advice {
    /// The GPU is of no use until something is done to it: no check is needed to know, and what runs on it is lost.
    pub fn is_conclusive(self) -> bool {
        match self {
            Advice::ResetGpu | Advice::Reboot | Advice::Replace | Advice::ContactSupport => true,
            Advice::Ignore | Advice::RestartApp | Advice::Check => false,
        }
    }

    /// Where on the ladder to begin; `None`: no rung helps.
    pub fn rung(self) -> Option<Rung> {
        match self {
            Advice::ResetGpu => Some(Rung::ResetGpu),
            // A check failed, and nobody knows better.
            Advice::Ignore | Advice::RestartApp | Advice::Check | Advice::Reboot => Some(Rung::Reboot),
            Advice::Replace => Some(Rung::Replace),
            Advice::ContactSupport => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Advice::Ignore => "ignore",
            Advice::RestartApp => "restart_app",
            Advice::Check => "check",
            Advice::ResetGpu => "reset_gpu",
            Advice::Reboot => "reboot",
            Advice::Replace => "replace",
            Advice::ContactSupport => "contact_support",
        }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Whose fault a failure was; says which budget it draws on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    Application,
    Infrastructure,
    /// Not known yet, or never found out. Draws on the budget of the infrastructure.
    #[default]
    Unknown,
    /// Nobody's: it made room for a repair. Draws on nothing.
    Moved,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::Application => "application",
            Class::Infrastructure => "infrastructure",
            Class::Unknown => "unknown",
            Class::Moved => "moved",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a check said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum CheckOutcome {
    Pass,
    /// These GPUs (UUIDs; none: it is the node) are bad, and this is what helps.
    Fail {
        gpus: Vec<String>,
        advice: Advice,
    },
    /// It ran on the node and found neither: it timed out there, or was killed.
    Inconclusive,
    /// It could not be run: no host engine, another one under way, the GPUs in use, no image. Never a verdict.
    Infrastructure,
}

impl fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckOutcome::Pass => f.write_str("passed"),
            CheckOutcome::Fail { gpus, advice } if gpus.is_empty() => write!(f, "failed; advice: {advice}"),
            CheckOutcome::Fail { gpus, advice } => write!(f, "failed on {}; advice: {advice}", gpus.join(", ")),
            CheckOutcome::Inconclusive => f.write_str("gave no verdict"),
            CheckOutcome::Infrastructure => f.write_str("could not be run"),
        }
    }
}

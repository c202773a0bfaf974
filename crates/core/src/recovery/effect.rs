//! What the machine wants done, and what it is told.
//!
//! An effect is open until its answer comes or it is no longer wanted, and it is in a record as long as that; so a
//! server that comes back finds those that are open, and performs them again. Whoever performs them does so by id, once.

use std::collections::BTreeSet;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::policy::{JobSpec, Mode};
use super::record::IncidentId;
use super::signal::{CheckOutcome, Class, Signal};
use super::state::Rung;
use crate::state::Exit;

/// Of whom an effect is, and its number there. Never given twice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "of")]
pub enum EffectId {
    Node { node: String, step: u32 },
    Job { job: String, attempt: u32, step: u32 },
}

/// A token for those who do a thing once by its name.
impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EffectId::Node { node, step } => write!(f, "{node}/{step}"),
            EffectId::Job { job, attempt, step } => write!(f, "{job}@{attempt}/{step}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    pub id: EffectId,
    /// The incident that it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    pub act: Act,
    /// It was begun, so it may have happened; see [`Act::is_once`].
    #[serde(default)]
    pub begun: bool,
}

/// How thorough a check is: the levels 1 to 3 of `dcgmi diag`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckLevel {
    Quick,
    Medium,
    Long,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum Act {
    /// No new work for the node. Answer: `Done`.
    Fence {
        node: String,
        why: String,
    },
    /// It may have new work again. Answer: `Done`.
    Unfence {
        node: String,
    },
    /// Answer: `CheckEnded`.
    RunCheck {
        node: String,
        /// UUIDs; none: all of the node.
        gpus: BTreeSet<String>,
        level: CheckLevel,
        /// Others' work is on these GPUs: only what does not disturb it may be run.
        passive: bool,
        /// After this, nobody waits for the answer.
        until: Timestamp,
    },
    /// See to it that nothing new begins there, and say when nothing runs there any more. Answer: `Done`, when that is so.
    Drain {
        node: String,
        /// Only those that use these GPUs; none: all that runs there.
        gpus: BTreeSet<String>,
    },
    /// Answer: `Done` or `EffectFailed`.
    ResetGpu {
        node: String,
        gpus: BTreeSet<String>,
    },
    /// Only while the node's boot id is still this one. `Done` says no more than that it was ordered: a new boot id is believed.
    Reboot {
        node: String,
        boot_id: Option<String>,
    },
    HardReboot {
        node: String,
        boot_id: Option<String>,
    },
    Replace {
        node: String,
    },
    /// Ask for its boot id, its agent and its GPUs. Answer: `Observed`.
    Observe {
        node: String,
    },
    /// End all ranks of this attempt. Answer: `RankEnded` for each, or `JobStopped`.
    StopJob {
        job: String,
        attempt: u32,
        why: StopWhy,
        /// Not politely any more.
        force: bool,
    },
    /// Begin all ranks anew, or none, as this attempt. Answer: `JobStarted`, or `EffectFailed` if none of them runs.
    RestartJob {
        job: String,
        attempt: u32,
        /// Not on these.
        exclude: BTreeSet<String>,
        class: Class,
        not_before: Timestamp,
    },
    /// Recovery is through with the job, and whoever waits for a verdict on this attempt goes on. Answer: `Done`.
    FailJob {
        job: String,
        attempt: u32,
        why: String,
        class: Class,
        /// Its run does with the failure as it would without recovery, its retries among that. May be said of an attempt that
        /// waits for nothing.
        #[serde(default)]
        leave: bool,
    },
    /// Tell people. Answer: `Done`.
    Notify {
        notice: Notice,
    },
    /// The answer to this check is not wanted any more. Answer: `Done`.
    Cancel {
        effect: EffectId,
    },
}

impl Act {
    /// Must not happen twice. Whoever performs it says so first ([`Input::Begun`]), and has that written. After a crash it
    /// is performed again only if that was never said; else the node is looked at.
    pub fn is_once(&self) -> bool {
        match self {
            Act::ResetGpu { .. } | Act::Reboot { .. } | Act::HardReboot { .. } | Act::Replace { .. } => true,
            Act::Fence { .. }
            | Act::Unfence { .. }
            | Act::RunCheck { .. }
            | Act::Drain { .. }
            | Act::Observe { .. }
            | Act::StopJob { .. }
            | Act::RestartJob { .. }
            | Act::FailJob { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => false,
        }
    }

    pub fn rung(&self) -> Option<Rung> {
        match self {
            Act::ResetGpu { .. } => Some(Rung::ResetGpu),
            Act::Reboot { .. } => Some(Rung::Reboot),
            Act::HardReboot { .. } => Some(Rung::HardReboot),
            Act::Replace { .. } => Some(Rung::Replace),
            Act::Fence { .. }
            | Act::Unfence { .. }
            | Act::RunCheck { .. }
            | Act::Drain { .. }
            | Act::Observe { .. }
            | Act::StopJob { .. }
            | Act::RestartJob { .. }
            | Act::FailJob { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => None,
        }
    }

    /// The word for it in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Act::Fence { .. } => "fence",
            Act::Unfence { .. } => "unfence",
            Act::RunCheck { .. } => "check",
            Act::Drain { .. } => "drain",
            Act::ResetGpu { .. } => "reset_gpu",
            Act::Reboot { .. } => "reboot",
            Act::HardReboot { .. } => "hard_reboot",
            Act::Replace { .. } => "replace",
            Act::Observe { .. } => "observe",
            Act::StopJob { .. } => "stop_job",
            Act::RestartJob { .. } => "restart_job",
            Act::FailJob { .. } => "fail_job",
            Act::Notify { .. } => "notify",
            Act::Cancel { .. } => "cancel",
        }
    }
}

/// Why a job is being stopped; recorded before anybody stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopWhy {
    /// Another rank failed, or its machine did.
    Recovery,
    /// It makes room for a repair.
    Drain,
    /// Not all ranks of a restart began.
    RollBack,
    User,
}

/// For people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub kind: NoticeKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// One sentence.
    pub text: String,
    /// What was seen, newest last.
    pub evidence: Vec<String>,
    pub tried: Vec<String>,
    pub left: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// A repair waits for a person.
    ApprovalWanted,
    /// Nobody answered, or nothing moves.
    Overdue,
    OutOfService,
    /// The node is in use again.
    Repaired,
    /// What would be done, were recovery allowed to.
    Would,
    JobFailed,
}

impl NoticeKind {
    pub const ALL: [NoticeKind; 6] = [
        NoticeKind::ApprovalWanted,
        NoticeKind::Overdue,
        NoticeKind::OutOfService,
        NoticeKind::Repaired,
        NoticeKind::Would,
        NoticeKind::JobFailed,
    ];

    pub fn from_name(name: &str) -> Option<NoticeKind> {
        NoticeKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            NoticeKind::ApprovalWanted => "approval_wanted",
            NoticeKind::Overdue => "overdue",
            NoticeKind::OutOfService => "out_of_service",
            NoticeKind::Repaired => "repaired",
            NoticeKind::Would => "would",
            NoticeKind::JobFailed => "job_failed",
        }
    }
}

/// What is known of a node without asking it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    #[serde(default)]
    pub boot_id: Option<String>,
    /// How many GPUs it has when it is well; `None`: the most that were ever seen.
    #[serde(default)]
    pub gpus: Option<u32>,
    /// `None`: that of the policy.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// A label of it says that it is never to be fenced nor repaired.
    #[serde(default)]
    pub opted_out: bool,
    /// What can be done to it.
    #[serde(default)]
    pub rungs: BTreeSet<Rung>,
}

/// What a look at a node has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub boot_id: Option<String>,
    /// It answers, and takes work.
    pub agent: bool,
    pub gpus: Option<u32>,
}

/// Where a rank runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub node: String,
    /// UUIDs.
    #[serde(default)]
    pub gpus: Vec<String>,
}

/// What the machine is told. All of it may come twice, late, or in another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A node is there, or is configured otherwise now.
    Node {
        node: String,
        facts: NodeFacts,
    },
    /// A node is not there any more, and will not be back.
    NodeGone {
        node: String,
        why: String,
    },
    Signal(Signal),
    /// Somebody looked, asked to or not.
    Observed {
        node: String,
        seen: Seen,
    },
    /// The effect is about to be performed; see [`Act::is_once`].
    Begun {
        effect: EffectId,
    },
    Done {
        effect: EffectId,
    },
    EffectFailed {
        effect: EffectId,
        why: String,
        /// It is known that nothing happened. Else it may have.
        certain: bool,
    },
    CheckEnded {
        effect: EffectId,
        outcome: CheckOutcome,
        evidence: String,
    },
    /// All ranks run.
    JobStarted {
        job: String,
        attempt: u32,
        ranks: Vec<Place>,
        spec: JobSpec,
    },
    /// It has its nodes; ranks are being started.
    JobStarting {
        job: String,
        attempt: u32,
        ranks: Vec<Place>,
    },
    RankEnded {
        job: String,
        attempt: u32,
        rank: u32,
        exit: Exit,
        /// The end of its log.
        message: String,
    },
    /// Nothing of the attempt runs any more.
    JobStopped {
        job: String,
        attempt: u32,
    },
    /// The job is over, or another attempt of it goes on than is known here: its end was never told, as where the server died
    /// between the end and the word of it. Says nothing of how it ended. `attempt`: the newest that was known when it was
    /// asked for.
    JobOver {
        job: String,
        attempt: u32,
    },
    /// A person stops the job, and whoever runs it sees to that.
    UserStop {
        job: String,
        by: String,
    },
    /// A person lets the repair go ahead that the incident waits with, if it is the one that they saw; `None`: whichever it is.
    Approve {
        incident: IncidentId,
        repair: Option<Rung>,
        by: String,
    },
    /// A person says that the node is well.
    Dismiss {
        incident: IncidentId,
        by: String,
        why: String,
    },
    /// A person wants a node that is out of service checked again.
    Retry {
        incident: IncidentId,
        by: String,
    },
    /// A server has begun to lead, with a machine that was restored; told before anything else. For a while nobody led, and
    /// nothing was seen or heard.
    Resumed,
    /// Time has passed; see [`Recovery::next_deadline`](super::Recovery::next_deadline).
    Tick,
}

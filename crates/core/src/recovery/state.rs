//! The states of a node and of a job under recovery, and the two tables that say which change is legal.
//!
//! A node and a job have a machine each, since neither waits for the other: a job goes on elsewhere while its node is
//! repaired, and a node is repaired to the end when its job is long gone.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum NodeState {
    #[default]
    Healthy,
    /// Something was seen that does not allow to act yet: it cannot be reached, or recovery only watches here.
    Suspected,
    /// It takes no new work; what failed on it is being ended.
    Fenced,
    Checking,
    /// A person has to say that it may be repaired.
    AwaitingApproval,
    /// As many nodes are in repair as may be at once.
    Queued,
    /// Whoever still runs on it ends first.
    Draining,
    Remediating {
        rung: Rung,
    },
    /// It was repaired, so they say; a new boot id, its agent, its GPUs and a check must agree.
    Verifying,
    /// Nothing more happens by itself; people were told.
    OutOfService,
}

/// What can be done to a node, weakest first: the ladder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    ResetGpu,
    Reboot,
    /// From outside: power off and on, stop and start.
    HardReboot,
    /// Another machine in its place.
    Replace,
}

impl Rung {
    pub const LADDER: [Rung; 4] = [Rung::ResetGpu, Rung::Reboot, Rung::HardReboot, Rung::Replace];

    pub fn name(self) -> &'static str {
        match self {
            Rung::ResetGpu => "reset_gpu",
            Rung::Reboot => "reboot",
            Rung::HardReboot => "hard_reboot",
            Rung::Replace => "replace",
        }
    }

    /// A new boot id says that it has happened.
    pub fn restarts_node(self) -> bool {
        match self {
            Rung::Reboot | Rung::HardReboot | Rung::Replace => true,
            Rung::ResetGpu => false,
        }
    }

    pub fn is_reboot(self) -> bool {
        match self {
            Rung::Reboot | Rung::HardReboot => true,
            Rung::ResetGpu | Rung::Replace => false,
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl NodeState {
    /// One of each; of `remediating`, the first rung.
    pub const ALL: [NodeState; 10] = [
        NodeState::Healthy,
        NodeState::Suspected,
        NodeState::Fenced,
        NodeState::Checking,
        NodeState::AwaitingApproval,
        NodeState::Queued,
        NodeState::Draining,
        NodeState::Remediating { rung: Rung::ResetGpu },
        NodeState::Verifying,
        NodeState::OutOfService,
    ];

    /// Whether it may become `to`: the only legality table of nodes.
    pub fn may_become(self, to: NodeState) -> bool {
        use NodeState as S;
        match self {
            S::Healthy => match to {
                S::Suspected => true,
                S::Healthy
                | S::Fenced
                | S::Checking
                | S::AwaitingApproval
                | S::Queued
                | S::Draining
                | S::Remediating { .. }
                | S::Verifying
                | S::OutOfService => false,
            },
            S::Suspected => match to {
                S::Healthy | S::Fenced | S::Checking | S::OutOfService => true,
                S::Suspected | S::AwaitingApproval | S::Queued | S::Draining | S::Remediating { .. } | S::Verifying => {
                    false
                }
            },
            S::Fenced => match to {
                S::Healthy | S::Checking | S::AwaitingApproval | S::Queued | S::Draining | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Remediating { .. } | S::Verifying => false,
            },
            S::Checking => match to {
                S::Healthy | S::AwaitingApproval | S::Queued | S::Draining | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking | S::Remediating { .. } | S::Verifying => false,
            },
            // A node may come up anew meanwhile, without us: that is verified as well.
            S::AwaitingApproval => match to {
                S::Healthy | S::Queued | S::Draining | S::Remediating { .. } | S::Verifying | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking | S::AwaitingApproval => false,
            },
            S::Queued => match to {
                S::Healthy
                | S::AwaitingApproval
                | S::Draining
                | S::Remediating { .. }
                | S::Verifying
                | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking | S::Queued => false,
            },
            S::Draining => match to {
                S::Healthy
                | S::AwaitingApproval
                | S::Queued
                | S::Remediating { .. }
                | S::Verifying
                | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking | S::Draining => false,
            },
            // What is being done to it cannot be taken back; a rung that did not help leads to the next. Where recovery is not
            // to act any more, it does not.
            S::Remediating { .. } => match to {
                S::Healthy
                | S::AwaitingApproval
                | S::Queued
                | S::Draining
                | S::Remediating { .. }
                | S::Verifying
                | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking => false,
            },
            S::Verifying => match to {
                S::Healthy
                | S::AwaitingApproval
                | S::Queued
                | S::Draining
                | S::Remediating { .. }
                | S::OutOfService => true,
                S::Suspected | S::Fenced | S::Checking | S::Verifying => false,
            },
            // A person wants it looked at again or says that it is well, or it was unreachable and is back.
            S::OutOfService => match to {
                S::Healthy | S::Suspected => true,
                S::Fenced
                | S::Checking
                | S::AwaitingApproval
                | S::Queued
                | S::Draining
                | S::Remediating { .. }
                | S::Verifying
                | S::OutOfService => false,
            },
        }
    }

    /// Leads on by itself, if only by its deadline.
    pub fn is_under_way(self) -> bool {
        match self {
            NodeState::Healthy | NodeState::OutOfService => false,
            NodeState::Suspected
            | NodeState::Fenced
            | NodeState::Checking
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::Draining
            | NodeState::Remediating { .. }
            | NodeState::Verifying => true,
        }
    }

    /// A person can say that the node is well. Once something is being done to it, that is seen to its end.
    pub fn may_be_dismissed(self) -> bool {
        match self {
            NodeState::Suspected
            | NodeState::Fenced
            | NodeState::Checking
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::Draining
            | NodeState::OutOfService => true,
            NodeState::Healthy | NodeState::Remediating { .. } | NodeState::Verifying => false,
        }
    }

    /// Counts against the share of the fleet that may be in repair at once.
    pub fn is_in_repair(self) -> bool {
        match self {
            NodeState::Draining | NodeState::Remediating { .. } | NodeState::Verifying => true,
            NodeState::Healthy
            | NodeState::Suspected
            | NodeState::Fenced
            | NodeState::Checking
            | NodeState::AwaitingApproval
            | NodeState::Queued
            | NodeState::OutOfService => false,
        }
    }

    /// The word for it in the store, the API and the pages.
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Healthy => "healthy",
            NodeState::Suspected => "suspected",
            NodeState::Fenced => "fenced",
            NodeState::Checking => "checking",
            NodeState::AwaitingApproval => "awaiting_approval",
            NodeState::Queued => "queued",
            NodeState::Draining => "draining",
            NodeState::Remediating { .. } => "remediating",
            NodeState::Verifying => "verifying",
            NodeState::OutOfService => "out_of_service",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeState::Remediating { rung } => f.pad(&format!("remediating ({rung})")),
            other => f.pad(other.name()),
        }
    }
}

/// The state of a job: a task instance, or a gang of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    #[default]
    Running,
    /// One rank failed, or must not go on; all of them are being ended.
    Stopping,
    /// All have ended; whose fault it was is being found out.
    AwaitingVerdict,
    /// Ordered to begin anew; waits for room.
    Restarting,
    /// Has its nodes; not all ranks run yet.
    Starting,
    Complete,
    Failed,
    UserStopped,
}

impl JobState {
    pub const ALL: [JobState; 8] = [
        JobState::Running,
        JobState::Stopping,
        JobState::AwaitingVerdict,
        JobState::Restarting,
        JobState::Starting,
        JobState::Complete,
        JobState::Failed,
        JobState::UserStopped,
    ];

    /// Whether it may become `to`: the only legality table of jobs. What is final stays so.
    pub fn may_become(self, to: JobState) -> bool {
        use JobState as S;
        match self {
            S::Running => match to {
                S::Stopping | S::AwaitingVerdict | S::Restarting | S::Complete | S::Failed | S::UserStopped => true,
                S::Running | S::Starting => false,
            },
            S::Stopping => match to {
                S::AwaitingVerdict | S::Restarting | S::Failed | S::UserStopped => true,
                S::Running | S::Stopping | S::Starting | S::Complete => false,
            },
            S::AwaitingVerdict => match to {
                S::Restarting | S::Failed | S::UserStopped => true,
                S::Running | S::Stopping | S::AwaitingVerdict | S::Starting | S::Complete => false,
            },
            // A start that fails is another restart, with the next number.
            S::Restarting => match to {
                S::Restarting | S::Starting | S::Running | S::Stopping | S::Failed | S::UserStopped => true,
                S::AwaitingVerdict | S::Complete => false,
            },
            S::Starting => match to {
                S::Running
                | S::Stopping
                | S::AwaitingVerdict
                | S::Restarting
                | S::Complete
                | S::Failed
                | S::UserStopped => true,
                S::Starting => false,
            },
            S::Complete | S::Failed | S::UserStopped => false,
        }
    }

    pub fn is_final(self) -> bool {
        match self {
            JobState::Complete | JobState::Failed | JobState::UserStopped => true,
            JobState::Running
            | JobState::Stopping
            | JobState::AwaitingVerdict
            | JobState::Restarting
            | JobState::Starting => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Stopping => "stopping",
            JobState::AwaitingVerdict => "awaiting_verdict",
            JobState::Restarting => "restarting",
            JobState::Starting => "starting",
            JobState::Complete => "complete",
            JobState::Failed => "failed",
            JobState::UserStopped => "user_stopped",
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

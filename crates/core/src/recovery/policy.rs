//! How long, how often, how many: what people configure.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::signal::Advice;
use crate::state::Exit;

/// What recovery may do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Everything is recorded and told as what would be done; nothing is.
    #[default]
    Observe,
    /// Fences, checks and restarts by itself; a repair waits for a person.
    Approve,
    Auto,
}

/// What becomes of others' work on a node that needs a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainPolicy {
    /// It may end by itself, up to the deadline; then people decide.
    #[default]
    Wait,
    /// It is ended, and begins anew elsewhere without drawing on any budget.
    Preempt,
}

/// After checks that ran, and found neither, as often as may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInconclusive {
    /// The node is repaired as if they had failed, while it can be reached.
    #[default]
    Reboot,
    OutOfService,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Where a node has no mode of its own.
    pub mode: Mode,
    pub drain: DrainPolicy,
    pub inconclusive: OnInconclusive,
    /// Checks that ran without a verdict, or gave no answer in time, before there is no other.
    pub inconclusive_checks: u32,
    /// Checks that could not be run, before people are told.
    pub infrastructure_checks: u32,
    /// Of a node, in 24 hours.
    pub reboots_per_day: u32,
    /// Of a node, in 7 days: repairs of any kind. Then it is out of service.
    pub remediations_per_week: u32,
    /// Of all nodes, in repair at once; at least one.
    pub repair_share_percent: u32,
    /// How often a GPU may show an application's error in 24 hours before the GPU itself is checked.
    pub application_errors_per_day: u32,
    pub deadlines: Deadlines,
}

/// Every state that leads on by itself has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deadlines {
    /// Between two looks at a node that is awaited.
    pub observe: SignedDuration,
    /// Without a node before people are told; also for how long signals are gathered where nothing may be done.
    pub suspected: SignedDuration,
    pub fence: SignedDuration,
    pub check: SignedDuration,
    /// Before another check; twice as long each time.
    pub recheck: SignedDuration,
    pub approval: SignedDuration,
    /// In line for a repair, before people are told.
    pub queue: SignedDuration,
    pub drain: SignedDuration,
    pub reset_gpu: SignedDuration,
    pub reboot: SignedDuration,
    pub hard_reboot: SignedDuration,
    pub replace: SignedDuration,
    pub verify: SignedDuration,
    /// For all ranks to end, politely; then by force, again and again.
    pub stop: SignedDuration,
    /// For a verdict that a job waits for.
    pub verdict: SignedDuration,
    /// For room for a restart, before people are told.
    pub room: SignedDuration,
    /// For room for a restart, before the job fails.
    pub room_at_most: SignedDuration,
    /// From its nodes to all ranks running.
    pub start: SignedDuration,
    /// How long a job is known that is over, so that what is told of it late begins nothing.
    pub forget: SignedDuration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            mode: Mode::default(),
            drain: DrainPolicy::default(),
            inconclusive: OnInconclusive::default(),
            inconclusive_checks: 2,
            infrastructure_checks: 5,
            reboots_per_day: 2,
            remediations_per_week: 5,
            repair_share_percent: 20,
            application_errors_per_day: 2,
            deadlines: Deadlines::default(),
        }
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        let (seconds, minutes) = (SignedDuration::from_secs, SignedDuration::from_mins);
        Deadlines {
            observe: seconds(15),
            suspected: minutes(10),
            fence: seconds(60),
            check: minutes(6),
            recheck: seconds(30),
            approval: minutes(60),
            queue: minutes(30),
            drain: minutes(60),
            reset_gpu: minutes(2),
            reboot: minutes(10),
            hard_reboot: minutes(15),
            replace: minutes(25),
            verify: minutes(6),
            stop: seconds(45),
            verdict: minutes(15),
            room: minutes(30),
            room_at_most: SignedDuration::from_hours(24),
            start: minutes(10),
            forget: minutes(60),
        }
    }
}

/// What a job asks of recovery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobSpec {
    /// How often it may begin anew after failures of its own.
    pub application_restarts: u32,
    /// How often in a day it may begin anew because of machines.
    pub infrastructure_restarts: u32,
    pub restart: Restart,
    /// Whether the nodes of other ranks are checked when the one that failed first is well.
    pub check_peers: bool,
    pub exits: ExitRules,
}

impl Default for JobSpec {
    fn default() -> Self {
        JobSpec {
            application_restarts: 0,
            infrastructure_restarts: 10,
            restart: Restart::default(),
            check_peers: true,
            exits: ExitRules::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// On other nodes, while the check goes on, if both budgets allow: the verdict then says which of them it was. A
    /// second failure within the hour waits for its verdict.
    #[default]
    Immediately,
    AfterVerdict,
}

/// What an exit code says: the first that knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExitRules {
    /// As a shell shows it: 128 and the signal.
    pub codes: BTreeMap<i32, Advice>,
    pub otherwise: Advice,
}

impl Default for ExitRules {
    fn default() -> Self {
        // Not found, not executable, wrong configuration: no GPU is to blame.
        let codes = [78, 126, 127].map(|code| (code, Advice::RestartApp));
        ExitRules { codes: codes.into(), otherwise: Advice::Check }
    }
}

impl ExitRules {
    /// At most a check: an exit code alone repairs nothing.
    pub fn advice(&self, exit: &Exit) -> Advice {
        match exit {
            Exit::Code { .. } | Exit::Signal { .. } => {
                let code = exit.code().unwrap_or_default();
                self.codes.get(&code).copied().unwrap_or(self.otherwise).min(Advice::Check)
            }
            Exit::OutOfMemory | Exit::TimedOut | Exit::Cancelled | Exit::StartFailed { .. } | Exit::Lost { .. } => {
                Advice::RestartApp
            }
        }
    }
}

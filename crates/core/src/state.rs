//! The states of a run and of a task instance, and the one table that says which change is legal.
//!
//! The names are Airflow's where Airflow has one. [`State::next`] is the only place that decides
//! whether a change may happen; the engine panics on nothing and asks it about everything.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state of a task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Waits for what it needs.
    #[default]
    None,
    /// May run; waits for a slot.
    Scheduled,
    /// Has its slot and its attempt number; the backend was, or will be, told to start it.
    Queued,
    Running,
    Success,
    Failed,
    Skipped,
    UpstreamFailed,
    /// Failed, and will be tried again at `at`.
    UpForRetry {
        at: Timestamp,
    },
    /// Looked, found nothing, and will look again at `at`; not a failure.
    UpForReschedule {
        at: Timestamp,
    },
    /// Waits for an outside event without holding a slot.
    Deferred,
    /// Its attempt has ended on a machine that is under suspicion: recovery says what becomes of it. Holds nothing.
    Recovering,
    /// Was part of the run, and is no longer in the workflow.
    Removed,
}

/// What can happen to a task instance; see [`State::next`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Its trigger rule is met.
    Ready,
    /// A slot was granted.
    Admit,
    /// The backend says that it runs.
    Start,
    Succeed,
    Fail,
    /// It failed, and its failure is ignored.
    Forgive,
    Skip,
    /// What it needs has failed.
    FailUpstream,
    Retry {
        at: Timestamp,
    },
    Reschedule {
        at: Timestamp,
    },
    Defer,
    /// The time of a retry or reschedule came, or the awaited event did.
    Resume,
    /// Recovery is to say what becomes of it.
    Recover,
    Remove,
    /// A person or a rule wants it to run again, from the beginning.
    Clear,
    /// A person said how it ended.
    MarkSuccess,
    MarkFailed,
}

/// A change that the table does not allow. The caller drops the event and counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task instance that is {from} cannot {change:?}")]
pub struct IllegalTransition {
    pub from: State,
    pub change: Change,
}

impl State {
    /// The words of [`State::name`], what stands out most first: the one state of many is the first of them.
    pub const PROMINENCE: [&'static str; 13] = [
        "running",
        "recovering",
        "queued",
        "up_for_retry",
        "up_for_reschedule",
        "deferred",
        "scheduled",
        "failed",
        "upstream_failed",
        "none",
        "success",
        "skipped",
        "removed",
    ];

    /// The state after `change`: the only legality table of task instances.
    ///
    /// A final state is left only by [`Change::Clear`], by [`Change::Remove`], or by a person's mark.
    pub fn next(self, change: Change) -> Result<State, IllegalTransition> {
        use Change as C;
        use State as S;
        let illegal = Err(IllegalTransition { from: self, change });
        let next = match change {
            C::Ready => match self {
                S::None => S::Scheduled,
                S::Scheduled
                | S::Queued
                | S::Running
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Admit => match self {
                S::Scheduled => S::Queued,
                S::None
                | S::Queued
                | S::Running
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Start => match self {
                S::Queued => S::Running,
                S::None
                | S::Scheduled
                | S::Running
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            // A task without a process succeeds from `scheduled`; a short one may end before its start is told.
            C::Succeed => match self {
                S::Scheduled | S::Queued | S::Running | S::Deferred => S::Success,
                S::None
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Recovering
                | S::Removed => return illegal,
            },
            // An instance can fail before it has an attempt: its template may not render.
            C::Fail => match self {
                S::None
                | S::Scheduled
                | S::Queued
                | S::Running
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering => S::Failed,
                S::Success | S::Failed | S::Skipped | S::UpstreamFailed | S::Removed => return illegal,
            },
            C::Forgive => match self {
                S::None
                | S::Scheduled
                | S::Queued
                | S::Running
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering => S::Success,
                S::Success | S::Failed | S::Skipped | S::UpstreamFailed | S::Removed => return illegal,
            },
            C::Skip => match self {
                S::None
                | S::Scheduled
                | S::Queued
                | S::Running
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering => S::Skipped,
                S::Success | S::Failed | S::Skipped | S::UpstreamFailed | S::Removed => return illegal,
            },
            C::FailUpstream => match self {
                S::None => S::UpstreamFailed,
                S::Scheduled
                | S::Queued
                | S::Running
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Retry { at } => match self {
                S::Queued | S::Running | S::Deferred | S::Recovering => S::UpForRetry { at },
                S::None
                | S::Scheduled
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Removed => return illegal,
            },
            C::Reschedule { at } => match self {
                S::Queued | S::Running => S::UpForReschedule { at },
                S::None
                | S::Scheduled
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Defer => match self {
                S::Queued | S::Running => S::Deferred,
                S::None
                | S::Scheduled
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Resume => match self {
                S::UpForRetry { .. } | S::UpForReschedule { .. } | S::Deferred => S::Scheduled,
                S::None
                | S::Scheduled
                | S::Queued
                | S::Running
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::Recovering
                | S::Removed => return illegal,
            },
            // Before it is begun anew, a restart can be taken back.
            C::Recover => match self {
                S::Queued | S::Running | S::Deferred | S::Scheduled | S::UpForRetry { .. } => S::Recovering,
                S::None
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForReschedule { .. }
                | S::Recovering
                | S::Removed => {
                    return illegal;
                }
            },
            C::Remove => match self {
                S::None
                | S::Scheduled
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. } => S::Removed,
                S::Queued | S::Running | S::Deferred | S::Recovering | S::Removed => return illegal,
            },
            // What runs is cancelled first; the engine clears it when its end is reported.
            C::Clear => match self {
                S::None
                | S::Scheduled
                | S::Success
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Removed => S::None,
                S::Queued | S::Running => return illegal,
            },
            C::MarkSuccess => match self {
                S::None
                | S::Scheduled
                | S::Failed
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Success => S::Success,
                S::Queued | S::Running | S::Removed => return illegal,
            },
            C::MarkFailed => match self {
                S::None
                | S::Scheduled
                | S::Success
                | S::Skipped
                | S::UpstreamFailed
                | S::UpForRetry { .. }
                | S::UpForReschedule { .. }
                | S::Deferred
                | S::Recovering
                | S::Failed => S::Failed,
                S::Queued | S::Running | S::Removed => return illegal,
            },
        };
        Ok(next)
    }

    /// Nothing more happens by itself.
    pub fn is_final(self) -> bool {
        match self {
            State::Success | State::Failed | State::Skipped | State::UpstreamFailed | State::Removed => true,
            State::None
            | State::Scheduled
            | State::Queued
            | State::Running
            | State::UpForRetry { .. }
            | State::UpForReschedule { .. }
            | State::Deferred
            | State::Recovering => false,
        }
    }

    /// Holds a slot, a lease and an attempt.
    pub fn is_live(self) -> bool {
        matches!(self, State::Queued | State::Running)
    }

    /// The word for it in the store, the API and the UI.
    pub fn name(self) -> &'static str {
        match self {
            State::None => "none",
            State::Scheduled => "scheduled",
            State::Queued => "queued",
            State::Running => "running",
            State::Success => "success",
            State::Failed => "failed",
            State::Skipped => "skipped",
            State::UpstreamFailed => "upstream_failed",
            State::UpForRetry { .. } => "up_for_retry",
            State::UpForReschedule { .. } => "up_for_reschedule",
            State::Deferred => "deferred",
            State::Recovering => "recovering",
            State::Removed => "removed",
        }
    }

    /// Rebuilds a state from its stored word and time; `None` for an unknown word, or one whose time is missing.
    pub fn from_name(name: &str, at: Option<Timestamp>) -> Option<State> {
        Some(match name {
            "none" => State::None,
            "scheduled" => State::Scheduled,
            "queued" => State::Queued,
            "running" => State::Running,
            "success" => State::Success,
            "failed" => State::Failed,
            "skipped" => State::Skipped,
            "upstream_failed" => State::UpstreamFailed,
            "up_for_retry" => State::UpForRetry { at: at? },
            "up_for_reschedule" => State::UpForReschedule { at: at? },
            "deferred" => State::Deferred,
            "recovering" => State::Recovering,
            "removed" => State::Removed,
            _ => return None,
        })
    }

    /// When it wakes by itself, if it does.
    pub fn wakes_at(self) -> Option<Timestamp> {
        match self {
            State::UpForRetry { at } | State::UpForReschedule { at } => Some(at),
            _ => None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The state of a run. Airflow has no word for a cancelled run; its API shows it as `failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for its turn (`max_active_runs`).
    Queued,
    Running,
    Success,
    Failed,
    Cancelled,
}

impl RunState {
    pub fn is_final(self) -> bool {
        match self {
            RunState::Success | RunState::Failed | RunState::Cancelled => true,
            RunState::Queued | RunState::Running => false,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            RunState::Queued => "queued",
            RunState::Running => "running",
            RunState::Success => "success",
            RunState::Failed => "failed",
            RunState::Cancelled => "cancelled",
        }
    }

    pub fn from_name(name: &str) -> Option<RunState> {
        Some(match name {
            "queued" => RunState::Queued,
            "running" => RunState::Running,
            "success" => RunState::Success,
            "failed" => RunState::Failed,
            "cancelled" => RunState::Cancelled,
            _ => return None,
        })
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// By convention of `sysexits.h` (`EX_CONFIG`), and here: how an action's process says that its input is wrong.
pub const EX_CONFIG: i32 = 78;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Exit {
    /// The last step, or the first that failed, ended with this code.
    Code { code: i32 },
    /// Ended by a signal that Pitcrew did not send.
    Signal { signal: i32 },
    /// The machine, or the memory limit, killed it.
    OutOfMemory,
    /// Pitcrew stopped it: a step or the task ran too long.
    TimedOut,
    /// Pitcrew stopped it: somebody, or the end of the run, asked for that.
    Cancelled,
    /// It never ran: no interpreter, no directory, a template that does not render, …
    StartFailed {
        reason: String,
        /// Neither waiting nor trying again can help: there is no other attempt, whatever the task's retries.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lasting: bool,
    },
    /// Its machine or its keeper went away; nobody knows how far it came.
    Lost { reason: String },
}

impl Exit {
    /// It did not start this time; another attempt may.
    pub fn start_failed(reason: impl Into<String>) -> Exit {
        Exit::StartFailed { reason: reason.into(), lasting: false }
    }

    /// It did not start, and no later attempt would.
    pub fn cannot_start(reason: impl Into<String>) -> Exit {
        Exit::StartFailed { reason: reason.into(), lasting: true }
    }

    pub fn is_success(&self) -> bool {
        matches!(self, Exit::Code { code: 0 })
    }

    /// The exit code as a shell would show it (128 + signal), or `None` where no process ended.
    pub fn code(&self) -> Option<i32> {
        match self {
            Exit::Code { code } => Some(*code),
            Exit::Signal { signal } => Some(128 + signal),
            Exit::OutOfMemory => Some(137),
            Exit::TimedOut | Exit::Cancelled | Exit::StartFailed { .. } | Exit::Lost { .. } => None,
        }
    }
}

/// A person's words for it: `exit code 3`, `killed by SIGSEGV`.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code { code } => write!(f, "exit code {code}"),
            Exit::Signal { signal } => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            Exit::OutOfMemory => f.write_str("out of memory"),
            Exit::TimedOut => f.write_str("timed out"),
            Exit::Cancelled => f.write_str("cancelled"),
            Exit::StartFailed { reason, .. } => write!(f, "did not start: {reason}"),
            Exit::Lost { reason } => write!(f, "lost: {reason}"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    // Linux numbers, the same on every architecture that Pitcrew runs on.
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        _ => return None,
    })
}

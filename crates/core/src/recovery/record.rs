//! What is kept: plain rows, the same in memory, in the store and in the simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::JobKey;
use super::effect::{Effect, EffectId, NodeFacts, Place, Seen, StopWhy};
use super::policy::JobSpec;
use super::signal::{Advice, Class, Signal};
use super::state::{JobState, NodeState, Rung};
use crate::id::RunKey;
use crate::state::Exit;

/// `inc-7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub u64);

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("inc-{}", self.0))
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    Fleet(FleetRecord),
    Node(NodeRecord),
    Incident(Incident),
    Job(JobRecord),
}

/// Which row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    Fleet,
    Node(String),
    Incident(IncidentId),
    Job(String),
}

impl Record {
    pub fn key(&self) -> Key {
        match self {
            Record::Fleet(_) => Key::Fleet,
            Record::Node(node) => Key::Node(node.name.clone()),
            Record::Incident(incident) => Key::Incident(incident.id),
            Record::Job(job) => Key::Job(job.job.clone()),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// How many incidents there were.
    pub incidents: u64,
}

/// A change of state, and why; or, from a state to itself, a remark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub at: Timestamp,
    pub from: String,
    pub to: String,
    pub why: String,
    /// Of a remark: it was made again, in the same state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// How often something came once more, and when last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    pub times: u32,
    pub last: Timestamp,
}

impl Step {
    pub fn new(at: Timestamp, from: impl Into<String>, to: impl Into<String>, why: impl Into<String>) -> Step {
        Step { at, from: from.into(), to: to.into(), why: why.into(), again: None }
    }

    pub fn is_change(&self) -> bool {
        self.from != self.to
    }
}

/// A repair that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remediation {
    pub at: Timestamp,
    pub rung: Rung,
    pub incident: IncidentId,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    pub name: String,
    pub state: NodeState,
    pub since: Option<Timestamp>,
    /// When the state leads on by itself.
    pub deadline: Option<Timestamp>,
    /// When something is to be done before that: another look, another check.
    pub wake: Option<Timestamp>,
    pub facts: NodeFacts,
    /// The boot that runs, as far as is known, and those that are over.
    pub boot_id: Option<String>,
    pub past_boots: Vec<String>,
    /// How many GPUs it has when it is well.
    pub gpus: u32,
    pub seen: Seen,
    /// It gets no new work because of us.
    pub fenced: bool,
    /// The newest incident, open or not.
    pub incident: Option<IncidentId>,
    /// What a signal tells that happened before this is over.
    pub cleared_at: Option<Timestamp>,
    /// Signals that were taken, by id, so that none acts twice; those before `forgot_at` are not known any more, and do not act.
    pub taken: BTreeMap<String, Timestamp>,
    pub forgot_at: Option<Timestamp>,
    /// Of a boot that is not known; they act, or not, when the node has been looked at.
    pub held: Vec<Signal>,
    /// Repairs of the last 7 days.
    pub remediations: Vec<Remediation>,
    /// Application errors of the last day.
    pub application_errors: Vec<ApplicationError>,
    pub open: Vec<Effect>,
    pub steps: u32,
    /// It is not there any more; kept for its numbers.
    pub gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplicationError {
    pub gpu: String,
    pub at: Timestamp,
    /// The attempt that ran there.
    pub job: Option<String>,
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A check passed; nothing was done.
    Passed,
    Repaired,
    /// Recovery only watched.
    Observed,
    /// No check gave a verdict, and nothing else spoke against the node.
    Inconclusive,
    Dismissed,
    OutOfService,
    /// The node is not there any more.
    Gone,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Repaired => "repaired",
            Outcome::Observed => "observed",
            Outcome::Inconclusive => "inconclusive",
            Outcome::Dismissed => "dismissed",
            Outcome::OutOfService => "out_of_service",
            Outcome::Gone => "gone",
        }
    }
}

/// Whether the node was to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Pass,
    Fail,
    Inconclusive,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Inconclusive => "inconclusive",
        }
    }
}

/// What was done about an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub at: Timestamp,
    pub rung: Rung,
    /// `None` while it is not known.
    pub result: Option<String>,
}

/// One trouble of one node, from its first signal to its end. Only one of a node is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub node: String,
    pub gpus: BTreeSet<String>,
    pub class: Class,
    /// The first of them, and the newest; `more` were left out.
    pub signals: Vec<Signal>,
    pub more_signals: u32,
    /// The strongest.
    pub advice: Advice,
    /// Only that the node is away, or going.
    pub absent: bool,
    /// Nothing of the node's own speaks against it.
    pub peer: bool,
    /// It is only watched.
    pub watched: bool,
    /// Jobs that it hit.
    pub jobs: BTreeSet<String>,
    pub opened: Timestamp,
    pub closed: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub verdict: Option<Verdict>,
    pub trail: Vec<Step>,
    /// The check whose answer is awaited, and since when.
    pub check: Option<EffectId>,
    pub check_began: Option<Timestamp>,
    /// Checks without a verdict so far.
    pub inconclusive: u32,
    pub infrastructure: u32,
    /// One of those ran on the node, so it is there, and yet not well.
    pub ran_without_verdict: bool,
    /// The repair that is next, and the one that a person has allowed.
    pub plan: Option<Rung>,
    pub approved: Option<Rung>,
    /// How often people were reminded of the state it is in.
    pub reminded: u32,
    /// Nothing ran on the whole node when it was drained, and it has been fenced since.
    pub drained: bool,
    pub tried: Vec<Tried>,
    /// It came up anew after one of them.
    pub restarted: bool,
    /// It was looked at since the last of them.
    pub looked: bool,
    /// It waited, for a person or for its turn, and since then has not shown that it is as it was before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Timestamp>,
}

impl Incident {
    /// Not where another machine is planned because a boot did not help, or never helps.
    pub(super) fn may_be_mended_by_a_boot(&self) -> bool {
        let was_tried = self.tried.iter().any(|tried| tried.rung.is_reboot());
        self.plan != Some(Rung::Replace) || (!was_tried && self.advice < Advice::Replace)
    }

    pub fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    /// The signal that says most: the first of the strongest.
    pub fn chief(&self) -> Option<&Signal> {
        self.signals.iter().find(|signal| self.signals.iter().all(|other| other.advice <= signal.advice))
    }

    /// It hit a job of that run.
    pub fn is_of_run(&self, run: RunKey) -> bool {
        self.jobs.iter().any(|job| job.parse::<JobKey>().is_ok_and(|key| key.run == run))
    }

    /// Something of the node's own says that it is not well: reason enough to repair it.
    pub fn is_proven(&self) -> bool {
        self.verdict == Some(Verdict::Fail) || self.ran_without_verdict
    }
}

/// A rank of the newest attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankRecord {
    #[serde(flatten)]
    pub place: Place,
    /// `None`: it runs.
    pub exit: Option<Exit>,
}

/// Why the attempt must end, or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub at: Timestamp,
    pub class: Class,
    pub why: String,
    /// Incidents that may explain it, by what came of them.
    pub suspects: BTreeMap<IncidentId, Option<Verdict>>,
    /// Nodes that the next attempt had better not be on.
    pub exclude: BTreeSet<String>,
    /// The nodes of other ranks are, or were, checked as well.
    pub peers: bool,
    /// It is not to begin anew at all.
    pub lasting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartRecord {
    /// The number that the job got by it.
    pub attempt: u32,
    pub at: Timestamp,
    pub class: Class,
    /// Whose verdicts may still change the class.
    pub suspects: BTreeMap<IncidentId, Option<Verdict>>,
}

/// Where an attempt was, so that what is told late of its GPUs finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastAttempt {
    pub attempt: u32,
    pub until: Timestamp,
    pub places: Vec<Place>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    pub job: String,
    /// The newest that was started or ordered.
    pub attempt: u32,
    pub state: JobState,
    pub since: Timestamp,
    pub deadline: Option<Timestamp>,
    pub spec: JobSpec,
    /// None while it waits for its nodes.
    pub ranks: Vec<RankRecord>,
    /// Recorded before anybody stops it, so that no end that we asked for is read as a person's.
    pub stop: Option<StopWhy>,
    /// How often it was told to stop.
    pub stops: u32,
    pub failure: Option<Failure>,
    /// An error of the application itself that this attempt has shown, and when.
    pub hint: Option<(Timestamp, String)>,
    pub restarts: Vec<RestartRecord>,
    /// The attempt before the newest.
    #[serde(default)]
    pub before: Option<PastAttempt>,
    /// It is over for us, and not for whoever runs it: it was cancelled by nobody that is known, or left to its own retries.
    #[serde(default)]
    pub goes_on: bool,
    pub reminded: u32,
    pub trail: Vec<Step>,
    pub open: Vec<Effect>,
    pub steps: u32,
}

impl JobRecord {
    /// Something of it runs, as far as is known.
    pub fn is_live(&self) -> bool {
        self.ranks.iter().any(|rank| rank.exit.is_none())
    }

    pub fn live_on(&self, node: &str) -> bool {
        self.ranks.iter().any(|rank| rank.exit.is_none() && rank.place.node == node)
    }

    /// A rank that runs there has one of these GPUs.
    pub fn uses(&self, node: &str, gpus: &BTreeSet<String>) -> bool {
        let mut here = self.ranks.iter().filter(|rank| rank.exit.is_none() && rank.place.node == node);
        here.any(|rank| rank.place.gpus.iter().any(|gpu| gpus.contains(gpu)))
    }

    pub fn nodes(&self) -> BTreeSet<String> {
        self.ranks.iter().map(|rank| rank.place.node.clone()).collect()
    }
}

//! What a worker and the server say to each other: JSON over HTTP, each call by the worker.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `POST …/worker/enrol` | [`Enrol`] | [`Enrolled`] |
//! | `POST …/worker/sync` | [`Sync`] | [`Answer`] |
//! | `POST …/worker/log?attempt=ID&offset=N` | bytes of the attempt's log file from there | [`LogTaken`] |
//! | `GET …/worker/runs/RUN/files` | – | [`Manifest`] |
//! | `GET …/worker/runs/RUN/blobs/SHA256?path=P` | – | the bytes, most likely those at `P` |
//! | `PUT …/worker/runs/RUN/blobs/SHA256` | the bytes | – |
//! | `POST …/worker/runs/RUN/files` | [`Changes`] | – |
//!
//! **Level-triggered.** A sync says all that the worker has; an answer says all that it should do about that. A lost or
//! doubled one does no harm: the next says it again. An order is repeated until the worker is seen to have it, and what
//! ended is repeated until the server says that it may be forgotten, which is after the end was committed. Directories of
//! runs are named until the server says that the run is over.
//!
//! **One question at a time.** The answer to a sync waits until there is something to say, `wait_ms` at most. A worker
//! that has news before that sends the next one; the server answers the older one at once, with nothing.
//!
//! **Skew.** One version apart works: unknown fields are ignored, new ones have defaults, and [`PROTOCOL`] counts what
//! could not be done like that; each side takes its own and the one before.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::AttemptId;
use pitcrew_core::fleet::Amount;
use serde::{Deserialize, Serialize};

use crate::backend::{Ended, Handle};
use crate::gpu::Probe;
use crate::gpu::kernel_log::KernelLog;
use crate::spec::AttemptSpec;

/// The version of this protocol.
pub const PROTOCOL: u32 = 1;
/// Where the calls are, below the address of the server.
pub const ROOT: &str = "/api/pitcrew/v1/worker";
/// The longest that an answer waits.
pub const LONGEST_WAIT: SignedDuration = SignedDuration::from_secs(25);
/// The most bytes of log that go with an end, and the most that one call carries.
pub const LOG_INLINE: usize = 16 << 10;
pub const LOG_PART: usize = 1 << 20;
/// The most runs that one sync names and asks about.
pub const MOST_KEPT: usize = 50;

/// The words, as `code` beside `detail`, by which a server shuts a worker out. A status alone says nothing: whatever stands
/// between the two has statuses of its own.
pub const REVOKED: &str = "worker_revoked";
pub const REPLACED: &str = "worker_replaced";

/// What a machine becomes a worker with: an enrolment token, as the bearer of this call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrol {
    pub protocol: u32,
    /// What the worker wants to be called: the name of its node.
    pub name: String,
    pub about: About,
    /// What it will prove itself by, made by itself before it asked: whoever asks again with the same is the same worker, so an
    /// answer that is lost costs no second use of the token. Without: the server makes it.
    #[serde(default)]
    pub credential: Option<String>,
}

/// What a worker tells of itself when it enrols, and when it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// Of the program: `1.2.3`.
    pub version: String,
    pub host: String,
    /// Absolute paths there, which attempts are rendered with: its data directory, and this program.
    pub data_dir: String,
    pub program: String,
    pub queues: Vec<String>,
    /// How many attempts it runs at the same time.
    pub slots: u32,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// In place of the cores and the memory that its machine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Amount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// What else it has of which a task can take some, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, Amount>,
    /// Another word for each copy of its directory and for each start of its machine. Where it changed, an earlier process
    /// may be somewhere else, and run what it was given for as long as its lease.
    #[serde(default)]
    pub place: Option<String>,
    /// Kinds of errands that it does; a worker of before does none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errands: Vec<String>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its id for ever; names are free again when a worker was revoked.
    pub worker: String,
    /// The bearer of all other calls. Kept by the worker in a file that only its user can read.
    pub credential: String,
}

/// What a worker has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sync {
    pub protocol: u32,
    /// Counts the starts of this worker; kept in its data directory. The server turns away a lower one than it has seen:
    /// somebody else goes by the same credential.
    pub incarnation: u64,
    /// Counts the syncs of this incarnation, from 1. One that comes late is answered with nothing.
    pub seq: u64,
    /// The first sync of an incarnation, and each after which something of it changed.
    #[serde(default)]
    pub about: Option<About>,
    /// It takes no more work.
    #[serde(default)]
    pub draining: bool,
    /// It heard that somebody drains it: the last [`Answer::drain`].
    #[serde(default)]
    pub drained: bool,
    /// Attempts that it would take beyond its slots, so that a slot that gets free has work at once. 0 while tasks are
    /// long.
    #[serde(default)]
    pub prefetch: u32,
    /// Every attempt that it was ordered and did not yet forget.
    pub has: Vec<Has>,
    /// What its machine and devices are and do, when there is something new to tell.
    #[serde(default)]
    pub probe: Option<Probe>,
    #[serde(default)]
    pub load: Option<Load>,
    /// What the worker's clock shows: the times that it tells are counted by that one.
    #[serde(default)]
    pub clock: Option<Timestamp>,
    /// How long the answer may wait. At most [`LONGEST_WAIT`].
    pub wait_ms: u64,
    /// Which server the worker heard last; see [`Answer::server`].
    #[serde(default)]
    pub server: Option<String>,
    /// Runs whose directories it keeps though it has no attempt of them: the oldest first, [`MOST_KEPT`] at most, others the
    /// next time. It asks which of them are over. A worker of before names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keeps: Vec<pitcrew_core::RunKey>,
    /// It brings logs when it is asked to ([`Answer::logs`]), so an end is taken once its log is whole. A worker of before
    /// does not: of its logs the server has what it has.
    #[serde(default)]
    pub brings_logs: bool,
    /// What its machine has to say that the server did not take yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Box<KernelLog>>,
    /// Errands that are done, until the server says that it heard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<ErrandDone>,
}

/// Something to be done on the machine of a worker, once by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    pub id: String,
    /// See [`super::errands`]; one that a worker does not know it refuses.
    pub kind: String,
    /// For `/bin/sh -s`.
    pub script: String,
    pub within_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrandDone {
    pub id: String,
    pub end: ErrandEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum ErrandEnd {
    /// `code`: none if a signal ended it.
    Ran { code: Option<i32>, stdout: String, stderr: String },
    /// `certain`: it never began.
    NotRun { why: String, certain: bool },
}

/// One attempt on a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Has {
    pub attempt: AttemptId,
    #[serde(flatten)]
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum How {
    /// No slot is free, or its files are on the way.
    Waiting,
    Running {
        started_at: Timestamp,
    },
    /// `end` is there until this server was told once; its log is complete at the server, but for `log`.
    Ended {
        #[serde(default)]
        end: Option<Box<End>>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum End {
    #[serde(rename = "ended")]
    Ended { ended: Ended, log: Option<LogTail> },
    /// Nobody knows how far it came; nothing of it runs any more.
    #[serde(rename = "lost")]
    Lost { reason: String },
}

/// The last bytes of a log, at most [`LOG_INLINE`]. Where they end, the log ends; where the server lacks something before
/// them, as another server had it, it asks for the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogTail {
    pub offset: u64,
    /// Lines of a log file, which are text.
    pub text: String,
}

/// What the machine of a worker does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The load average over a minute, and over 5 and 15; a worker of before does not tell those.
    pub load1: f64,
    #[serde(default)]
    pub load5: Option<f64>,
    #[serde(default)]
    pub load15: Option<f64>,
    pub memory_used_mib: u64,
}

/// What a worker should do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub protocol: u32,
    /// Another word after every start of a server, and from every server. A worker that reads a new one tells all ends
    /// again.
    pub server: String,
    /// From the moment this sync was *sent*: for so long nobody else takes the attempts that the worker has. It ends what
    /// it runs when the time is over and no other answer came.
    pub lease_ms: u64,
    #[serde(default)]
    pub start: Vec<Order>,
    #[serde(default)]
    pub cancel: Vec<Cancel>,
    /// The ends of these are known here; the rest of them may go. Of one that runs, nobody wants to know any more: it is
    /// ended first.
    #[serde(default)]
    pub forget: Vec<AttemptId>,
    /// Runs that are over: their directories may go. Said when a run ends, and of each that [`Sync::keeps`] names.
    #[serde(default)]
    pub leave: Vec<pitcrew_core::RunKey>,
    /// Somebody drains the worker: it takes no more work, and stays, until an answer says otherwise.
    #[serde(default)]
    pub drain: bool,
    /// Ended attempts whose logs are not whole here: they come first, and then their ends once more.
    #[serde(default)]
    pub logs: Vec<AttemptId>,
    /// Repeated until they are done, or nobody waits for them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errands: Vec<Errand>,
    /// These are known to be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heard: Vec<String>,
    /// The kernel log was taken up to this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<u64>,
}

/// An attempt to run, once. Its paths are those of the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    pub handle: Handle,
    pub spec: AttemptSpec,
    /// The files of the run are brought before it starts, and what it changed is brought back before its end is told.
    /// Without: its workspace is empty and stays there.
    #[serde(default)]
    pub files: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    pub handle: Handle,
    pub grace_ms: u64,
}

/// How far the server has a log: the offset to go on from, also when what came was not what it lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTaken {
    pub offset: u64,
}

/// The files of a run, workspace and artifacts: paths below the directory of the run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub files: BTreeMap<String, File>,
    /// Paths that may not be looked at: nothing is said of them and of what is below.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub hidden: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum File {
    /// Its bytes by their SHA-256, in hexadecimal.
    File {
        sha256: String,
        size: u64,
        mode: u32,
    },
    Link {
        to: String,
    },
    /// Only of one that is empty.
    Dir,
}

impl File {
    /// Of its bytes, if it has any.
    pub fn digest(&self) -> Option<&str> {
        match self {
            File::File { sha256, .. } => Some(sha256),
            File::Link { .. } | File::Dir => None,
        }
    }
}

/// What an attempt did to the files of its run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// New or other than before. Their bytes were put before.
    pub put: BTreeMap<String, File>,
    pub removed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_or_newer_version_says_can_be_read() {
        let short = r#"{"protocol":1,"incarnation":1,"seq":1,"has":[],"wait_ms":0,"new":true}"#;
        let sync: Sync = serde_json::from_str(short).unwrap();
        assert_eq!((sync.draining, sync.prefetch, sync.about), (false, 0, None));
        let answer: Answer = serde_json::from_str(r#"{"protocol":1,"server":"x","lease_ms":5,"later":[]}"#).unwrap();
        assert!(answer.start.is_empty() && !answer.drain && answer.errands.is_empty() && answer.kernel.is_none());
    }

    #[test]
    fn what_a_worker_has_is_plain_json() {
        let attempt: AttemptId = "42/train.1".parse().unwrap();
        let has = [
            How::Waiting,
            How::Ended { end: None },
            How::Ended { end: Some(Box::new(End::Lost { reason: "gone".into() })) },
        ]
        .map(|how| Has { attempt: attempt.clone(), how });
        let text = serde_json::to_string(&has).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Has>>(&text).unwrap(), has);
    }
}

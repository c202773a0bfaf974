//! The keeper: the process between the runner and an engine. Each container of a pod has one, and so has the pod for what is done once.
//!
//! It is this program itself, started with a hidden subcommand, and to the runner it looks like the container: it writes what the container
//! writes, hears the requests to end that the container is to hear, and is over when the container is. So the runner keeps pods of an engine
//! as it keeps all else, speaks to no engine itself, and nothing that an engine does can hold it up. Its order comes by its stdin, a file in
//! memory; its answer is appended there.
//!
//! Everything that it makes carries labels: whose it is ([`Whose`]), so that what a killed runner left is found and removed, also when it
//! is found late because the engine was away.

mod follow;
mod home;
mod prepare;
mod remove;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pitcrew_core::pod::{PodFailure, Pull};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::registries::Registry;
use super::tar::{Entry, What};
use super::{Address, Engine, Fault, Kind};

/// The first container of a pod has all its volumes below this.
pub const VOLUMES: &str = "/.pitcrew/volumes";
/// What a keeper ends with when its answer says why.
const SAID: u8 = 125;
/// How often an engine that went away is asked again, and for how long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
pub const ASKED_FOR: Duration = Duration::from_secs(600);

/// How long it is asked again while it says that it fails: one that ends says odd things before it is away.
const FAILING: Duration = Duration::from_secs(30);

/// Where an engine is, as it stands in the settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct EnginePlace {
    /// As `DOCKER_HOST` has it.
    pub host: String,
    /// A folder with `ca.pem`, `cert.pem` and `key.pem`.
    #[serde(default)]
    pub certificates: Option<PathBuf>,
}

/// Labels of what is made for a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whose {
    /// Which data directory on which machine.
    pub instance: String,
    /// Which life of its runner.
    pub life: String,
    pub attempt: String,
    /// What the names of all that is made begin with.
    pub pod: String,
}

#[derive(Serialize, Deserialize)]
pub enum Order {
    Prepare(Prepare),
    Follow(Follow),
    /// A command beside that of a container; the keeper ends with its exit code.
    Beside {
        container: String,
        command: Vec<String>,
    },
    Finish(Finish),
    /// What earlier lives of a runner left.
    Sweep {
        instance: String,
        life: String,
    },
}

/// Everything that the containers of a pod share.
#[derive(Serialize, Deserialize)]
pub struct Prepare {
    pub whose: Whose,
    pub hostname: String,
    /// Names that it knows, and whom it asks for others: fields of `HostConfig`.
    pub names: Value,
    /// Container, image and when it is fetched; of the steps, then of the sidecars.
    pub images: Vec<(String, String, Pull)>,
    pub registries: Vec<Registry>,
    pub volumes: Vec<NewVolume>,
    /// What is in them at first; paths begin with the key of a volume.
    pub files: Vec<Put>,
    /// Directories of the data directory that volumes stand for: whose directory is gone, goes too.
    pub data: PathBuf,
    /// Pods of this life of the runner that could not be removed when they were over.
    pub left: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub struct NewVolume {
    /// In the pod.
    pub key: String,
    /// At the engine.
    pub name: String,
    /// Only in memory; at most so many bytes, if there is a limit.
    pub is_in_memory: bool,
    pub limit: Option<u64>,
    /// It outlives the pod, and stands for this directory of the data directory.
    pub stands_for: Option<String>,
    pub group: Option<u32>,
}

/// A file on its way into a volume.
#[derive(Clone, Serialize, Deserialize)]
pub struct Put {
    pub path: String,
    pub what: PutWhat,
    pub mode: u32,
    pub group: u32,
    pub user: u32,
}

#[derive(Clone, Serialize, Deserialize)]
pub enum PutWhat {
    Directory,
    File(Vec<u8>),
    Link(String),
}

/// One container, from its start to its end.
#[derive(Serialize, Deserialize)]
pub struct Follow {
    pub whose: Whose,
    /// `step-x`.
    pub container: String,
    /// What it is made of, in the words of the API; without labels.
    pub body: Value,
    /// Parts of volumes that it sees as volumes of their own.
    pub parts: Vec<Part>,
    /// Into volumes, before it begins.
    pub files: Vec<Put>,
    /// Into its own files, before it begins; paths are absolute.
    pub own: Vec<Put>,
    /// Credentials that it finds in its home.
    pub home: Option<Home>,
    /// Between a request to end and force.
    pub grace: Duration,
    /// Where its exit code goes if later steps may read it: a path in a volume, and whether that of a failure does as well.
    pub code_to: Option<(String, bool)>,
    /// What of volumes comes here at its end: a path there, a directory here.
    pub fetch: Vec<(String, PathBuf)>,
    /// Files of the container that what it writes goes to as well.
    pub stdout_to: Option<String>,
    pub stderr_to: Option<String>,
}

/// Where links to credentials go.
#[derive(Serialize, Deserialize)]
pub struct Home {
    /// `None`: as the container's own `/etc/passwd` says.
    pub dir: Option<String>,
    /// Whom it runs as, by name or number; empty: root.
    pub user: String,
    /// Paths below the home.
    pub files: Vec<String>,
}

/// A directory of a volume.
#[derive(Clone, Serialize, Deserialize)]
pub struct Part {
    pub key: String,
    pub volume: String,
    pub path: String,
    pub at: String,
    pub read_only: bool,
}

/// The pod is over.
#[derive(Serialize, Deserialize)]
pub struct Finish {
    pub whose: Whose,
    /// An engine that is away is asked again.
    pub is_patient: bool,
    pub fetch: Vec<(String, PathBuf)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// What the images are, in the order in which they were asked for, and where the pod is in the network of the engine.
    Prepared {
        images: Vec<Found>,
        address: Option<String>,
    },
    /// Nothing of it runs. Some faults pass: what is tried again later may succeed.
    Failed {
        failure: PodFailure,
        may_pass: bool,
    },
    Ended(End),
    Done,
    /// What the pod left is here, and something of it is still at the engine.
    Left(String),
}

/// What an engine says of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// With its digest, if it has one.
    pub id: String,
    pub user: String,
    pub env: Vec<String>,
    pub cmd: Vec<String>,
    pub entrypoint: Vec<String>,
    pub workdir: String,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub id: String,
    pub how: How,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    Exited {
        code: i32,
        out_of_memory: bool,
    },
    /// It could not be made.
    Config(String),
    /// It was made, and its program could not be executed.
    Program(String),
    Lost(String),
}

/// Does what stdin says, and ends with the exit code of the container.
pub fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Ok((mut report, place, order)) = read_order() else {
        eprintln!("a keeper is started by Pitcrew's runner, and by nobody else");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (answer, code) = match runtime {
        Ok(runtime) => runtime.block_on(obey(&place, order)),
        Err(error) => (refused(format!("cannot speak with an engine: {error}"), true), SAID),
    };
    let written = serde_json::to_vec(&answer).map_err(io::Error::from).and_then(|bytes| report.write_all(&bytes));
    if let Err(error) = written {
        eprintln!("cannot tell the runner what became of the container: {error}");
    }
    ExitCode::from(code)
}

/// As it goes by stdin.
#[derive(Serialize, Deserialize)]
pub struct Letter {
    pub place: EnginePlace,
    pub order: Order,
}

fn read_order() -> io::Result<(File, EnginePlace, Order)> {
    let mut report = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    report.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    report.read_to_end(&mut bytes)?;
    let letter: Letter = serde_json::from_slice(&bytes)?;
    Ok((report, letter.place, letter.order))
}

fn refused(message: String, may_pass: bool) -> Answer {
    Answer::Failed { failure: PodFailure::Refused { message }, may_pass }
}

fn faulty(fault: Fault) -> (Answer, u8) {
    let may_pass = fault.may_pass();
    (refused(fault.words, may_pass), SAID)
}

async fn obey(place: &EnginePlace, order: Order) -> (Answer, u8) {
    let address = match Address::parse(&place.host, place.certificates.as_deref()) {
        Ok(address) => address,
        Err(words) => return (refused(words, false), SAID),
    };
    let mut patience = match &order {
        // A pod that is about to begin, that began, or that left something is not given up at once.
        Order::Prepare(_) => Patience { is_told: true, ..Patience::new() },
        Order::Follow(_) | Order::Finish(Finish { is_patient: true, .. }) => Patience::new(),
        Order::Finish(_) | Order::Beside { .. } | Order::Sweep { .. } => Patience::none(),
    };
    let engine = match connected(&address, &mut patience).await {
        Ok(engine) => engine,
        Err(fault) => return faulty(fault),
    };
    match order {
        Order::Prepare(prepare) => match prepare::run(&engine, &prepare, &mut patience).await {
            Ok(answer) => (answer, 0),
            Err(answer) => (answer, SAID),
        },
        Order::Follow(follow) => {
            let end = follow::run(&engine, follow).await;
            let code = match &end.how {
                How::Exited { code, .. } => u8::try_from(*code).unwrap_or(1),
                How::Config(_) | How::Program(_) | How::Lost(_) => SAID,
            };
            (Answer::Ended(end), code)
        }
        Order::Beside { container, command } => match beside(&engine, container, command).await {
            Ok(code) => (Answer::Done, u8::try_from(code).unwrap_or(1)),
            Err(fault) => faulty(fault),
        },
        Order::Finish(finish) => match remove::finish(&engine, &finish, &mut patience).await {
            Ok(answer) => (answer, 0),
            Err(fault) => faulty(fault),
        },
        Order::Sweep { instance, life } => match remove::sweep(&engine, &instance, &life, &[]).await {
            Ok(()) => (Answer::Done, 0),
            Err(fault) => faulty(fault),
        },
    }
}

async fn connected(address: &Address, patience: &mut Patience) -> Result<Engine, Fault> {
    loop {
        match Engine::connect(address).await {
            Err(fault) if fault.is_unanswered() && patience.again(&fault).await => {}
            other => return other,
        }
    }
}

/// How long an engine that gives no answer is asked again.
struct Patience {
    /// `None`: not at all.
    until: Option<tokio::time::Instant>,
    /// People are told, once.
    is_told: bool,
    failing_since: Option<tokio::time::Instant>,
}

impl Patience {
    fn new() -> Patience {
        Patience { until: Some(crate::clock::instant() + ASKED_FOR), is_told: false, failing_since: None }
    }

    fn none() -> Patience {
        Patience { until: None, is_told: false, failing_since: None }
    }

    /// Waits a moment; whether there is time for another try.
    async fn again(&mut self, fault: &Fault) -> bool {
        if self.until.is_none_or(|until| crate::clock::instant() >= until) {
            return false;
        }
        if std::mem::take(&mut self.is_told) {
            println!("waiting for the engine, for {} minutes at most: {fault}", ASKED_FOR.as_secs() / 60);
        }
        tokio::time::sleep(ASK_AGAIN).await;
        true
    }

    /// The same after a fault of any kind: only what an engine answers that goes on answering is final.
    async fn after(&mut self, engine: &Engine, fault: &Fault) -> bool {
        let is_passing = match fault.kind {
            Kind::Away | Kind::Unknown => {
                self.failing_since = None;
                true
            }
            Kind::Failed => self.failing_since.get_or_insert_with(crate::clock::instant).elapsed() < FAILING,
            Kind::NotFound | Kind::Conflict | Kind::Invalid => engine.ping().await.is_err(),
        };
        is_passing && self.again(fault).await
    }
}

/// Runs a command in a container that runs; its output is nobody's.
async fn beside(engine: &Engine, container: String, command: Vec<String>) -> Result<i64, Fault> {
    let mark = "probe".to_owned();
    let exec = super::Exec { container, command, env: Vec::new(), user: None, workdir: None, mark };
    let id = engine.exec_create(&exec).await?;
    let mut output = engine.exec_start(&id).await?;
    while output.next(|_, _| ()).await? {}
    Ok(engine.exec_inspect(&id).await?.exit_code.unwrap_or(-1))
}

/// A few characters that stand for a text in names.
pub fn short_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Whose {
    /// The first container of the pod.
    pub fn first(&self) -> String {
        format!("{}-pod", self.pod)
    }

    pub fn container(&self, name: &str) -> String {
        format!("{}-{name}", self.pod)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let Whose { instance, life, attempt, pod } = self;
        let all = [("instance", instance), ("life", life), ("attempt", attempt), ("pod", pod)];
        all.into_iter().map(|(key, value)| (format!("pitcrew.{key}"), value.clone())).collect()
    }
}

impl From<Put> for Entry {
    fn from(put: Put) -> Entry {
        let what = match put.what {
            PutWhat::Directory => What::Directory,
            PutWhat::File(bytes) => What::File(bytes),
            PutWhat::Link(to) => What::Link(to),
        };
        Entry { path: put.path, what, mode: put.mode, group: put.group, user: put.user }
    }
}

//! What a backend is asked to run: one attempt, fully rendered.
//!
//! A spec is complete: whoever executes it needs no store, no template and no other file. It may hold secrets (in the
//! environment, in scripts and in the masks), so its `Debug` form shows none of both, and no backend writes the environment to a disk.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use pitcrew_core::pod::Pod;
use serde::{Deserialize, Serialize};

use crate::docker::Registry;
use crate::docker::keeper::EnginePlace;
use crate::gpu::HeldGpu;
use crate::place::Place;
use crate::sandbox::Settings;

/// Variables of members of a gang: by what each is reached, in the order of their ranks, and the first of these.
pub const PEERS: &str = "PITCREW_PEERS";
pub const HEAD: &str = "PITCREW_HEAD";

/// The most bytes that one output, or one captured stdout, may have.
pub const MAX_OUTPUT: usize = 1 << 20;
/// What a log may grow to unless the spec says otherwise.
pub const DEFAULT_LOG_LIMIT: u64 = 256 << 20;

/// One attempt: steps in order, on one placement.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptSpec {
    pub id: AttemptId,
    /// The attempt's own directory, absolute; made when missing. Nothing else may write into it.
    pub dir: PathBuf,
    /// Where it runs, if not here.
    #[serde(default)]
    pub place: Option<Place>,
    /// At least one.
    pub steps: Vec<StepSpec>,
    /// Added to the clean base environment; a step's own wins.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where steps start, absolute; must exist. With a `place` it is a directory there: relative to that of the place,
    /// or absolute.
    pub workdir: PathBuf,
    #[serde(default)]
    pub limits: Limits,
    /// The devices that the attempt may see, by UUID or index. `None` changes nothing; an empty list hides all.
    #[serde(default)]
    pub gpus: Option<Vec<String>>,
    /// Sample the use of `gpus` while it runs.
    #[serde(default)]
    pub sample_usage: bool,
    /// How much of which device each of `gpus` is; of those that are not named, all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_gpus: Vec<HeldGpu>,
    /// Between the polite and the forced end of a step that ran too long.
    #[serde(default = "default_grace")]
    pub grace: SignedDuration,
    /// Bytes of log that are kept; what comes later is dropped, and the log says so.
    #[serde(default = "default_log_limit")]
    pub log_limit: u64,
    /// Values that neither the log nor the outputs may show, see [`crate::log::Masker`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<String>,
    /// Files whose text the end is to bring along if it is a success, relative to the directory of the run (here: to
    /// `PITCREW_WORKSPACE` of its environment); only of an attempt that runs on another machine than the server's.
    #[serde(default)]
    pub fetch: Vec<String>,
    /// Directories that are made before the first step, absolute; only of an attempt on a worker.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dirs: Vec<PathBuf>,
    /// Containers that it runs instead of `steps`, which are then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Box<PodRun>>,
}

/// A pod, and what it runs in.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PodRun {
    pub pod: Pod,
    pub runtime: Runtime,
    /// From the start of the attempt to its forced end.
    #[serde(default)]
    pub deadline: Option<SignedDuration>,
    /// The data directory, absolute: volumes of [`pitcrew_core::pod::Source::Shared`] lie below it, and no container may see it.
    pub data: PathBuf,
    /// What people said about the sandboxes of this machine.
    #[serde(default)]
    pub sandbox: Settings,
}

/// What makes the containers of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Namespaces of the kernel on the machine of the runner, over its own files.
    Sandbox,
    /// A Docker engine, which may be on another machine.
    Docker {
        engine: EnginePlace,
        /// Who one is where images come from.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        registries: Vec<Registry>,
    },
}

fn default_grace() -> SignedDuration {
    SignedDuration::from_secs(10)
}

fn default_log_limit() -> u64 {
    DEFAULT_LOG_LIMIT
}

impl AttemptSpec {
    /// An attempt without steps, limits or devices, to be filled in.
    pub fn new(id: AttemptId, dir: impl Into<PathBuf>, workdir: impl Into<PathBuf>) -> Self {
        AttemptSpec {
            id,
            dir: dir.into(),
            place: None,
            steps: Vec::new(),
            env: BTreeMap::new(),
            workdir: workdir.into(),
            limits: Limits::default(),
            gpus: None,
            sample_usage: false,
            held_gpus: Vec::new(),
            grace: default_grace(),
            log_limit: DEFAULT_LOG_LIMIT,
            masks: Vec::new(),
            fetch: Vec::new(),
            dirs: Vec::new(),
            pod: None,
        }
    }

    /// Variables that nobody can override: the attempt's identity, and the devices that were leased to it.
    pub(crate) fn reserved_env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![("PITCREW_ATTEMPT", self.id.to_string())];
        if let Some(gpus) = &self.gpus {
            let list = gpus.join(",");
            env.push(("NVIDIA_VISIBLE_DEVICES", if gpus.is_empty() { "void".to_owned() } else { list.clone() }));
            env.push(("CUDA_VISIBLE_DEVICES", list));
            // Else an index would count from the fastest device, not from the first slot.
            env.push(("CUDA_DEVICE_ORDER", "PCI_BUS_ID".to_owned()));
        }
        env
    }
}

/// One process inside an attempt.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub name: String,
    pub command: Command,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Relative to the attempt's `workdir`; `None` is that directory.
    #[serde(default)]
    pub workdir: Option<PathBuf>,
    /// From the start of the step to the polite request to end.
    #[serde(default)]
    pub timeout: Option<SignedDuration>,
    /// The next step runs although this one failed. A step that could not be started ends the attempt all the same.
    #[serde(default)]
    pub continue_on_error: bool,
    /// What the step can read once from its file descriptor 9, up to 4 KiB, and that is in no argument, environment or
    /// file. Only of an attempt that runs on another machine.
    #[serde(default)]
    pub secret: Option<String>,
    /// A key with which the step may sign in elsewhere, by an SSH agent at `agent.sock` beside its `PITCREW_OUTPUT`: the
    /// key itself never gets there. Only of an attempt that runs on another machine, and of one step.
    #[serde(default)]
    pub key: Option<LentKey>,
    /// Keep what it writes to stdout, up to [`MAX_OUTPUT`]; the last such step's text is [`crate::Ended::stdout`].
    #[serde(default)]
    pub capture_stdout: bool,
}

impl StepSpec {
    /// A step with no environment, timeout or directory of its own.
    pub fn new(name: impl Into<String>, command: Command) -> Self {
        StepSpec {
            name: name.into(),
            command,
            env: BTreeMap::new(),
            workdir: None,
            timeout: None,
            continue_on_error: false,
            secret: None,
            key: None,
            capture_stdout: false,
        }
    }
}

/// A private key, as text.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct LentKey {
    /// The key, or a JSON object with it in the field `private_key`.
    pub key: String,
    /// What it is encrypted with.
    pub passphrase: Option<String>,
}

/// What a step executes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A text that travels as a file. `interpreter` is a program and its options, to which the file's path is added;
    /// empty means `/bin/sh -e`.
    Script { text: String, interpreter: Vec<String> },
    /// A program, looked up in the step's `PATH` unless it has a `/`, and its arguments.
    Argv(Vec<String>),
    /// Files that are moved by the backend itself; the only step of an attempt on another machine.
    Transfer(Transfer),
}

/// Files that go to another machine, or come from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    pub direction: Direction,
    /// A file or directory of this machine, absolute. As the target of a download it may end with `/`: then what comes
    /// keeps its name, in that directory.
    pub here: PathBuf,
    /// A file or directory of the other machine: absolute, in the home directory of the user (`~/…`), or relative to
    /// where steps start. As the target of an upload it may end with `/`, as above.
    pub there: String,
    /// Permission bits for the files; else those of the file that is replaced, or those of the source.
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Upload,
    Download,
}

impl Command {
    /// A script for `/bin/sh -e`.
    pub fn shell(text: impl Into<String>) -> Self {
        Command::Script { text: text.into(), interpreter: Vec::new() }
    }
}

/// What an attempt may use; enforced where the machine can, see [`crate::Capabilities`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    #[serde(default)]
    pub cpu_milli: Option<u32>,
    /// Of all its processes together.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

impl Limits {
    /// Nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }
}

impl fmt::Debug for AttemptSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptSpec")
            .field("id", &self.id.to_string())
            .field("dir", &self.dir)
            .field("place", &self.place)
            .field("workdir", &self.workdir)
            .field("steps", &self.steps)
            .field("limits", &self.limits)
            .field("gpus", &self.gpus)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for StepSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepSpec").field("name", &self.name).finish_non_exhaustive()
    }
}

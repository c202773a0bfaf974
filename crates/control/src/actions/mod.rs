//! What `uses:` can name. One trait, one file per action: adding an action is adding a file and a line in [`ALL`].
//!
//! An action is planned in the scheduler, from inputs whose templates are rendered, and mostly becomes one process:
//! this binary again, with the input in the file of its script. So it has a log, a timeout and limits like any
//! script, and it lives on when the server does not.

mod artifact_publish;
mod aws;
mod docker_exec;
mod git_checkout;
mod http;
mod notebook;
mod notebook_convert;
pub mod notify;
mod pytest;
mod report;
mod ssh_transfer;
mod variables_set;
mod yaml_read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Context;
use async_trait::async_trait;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::state::EX_CONFIG;
use pitcrew_exec::git::GitError;
use pitcrew_exec::{Command, Direction, Ended, Place, StepSpec};
use pitcrew_lang::{ActionInfo, OnHosts};
use pitcrew_store::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::paths::DataDir;

/// A kind of task.
#[async_trait]
pub trait Action: Send + Sync {
    /// What `uses:` says.
    fn name(&self) -> &'static str;

    /// A JSON Schema of `with`.
    fn schema(&self) -> Value;

    /// What to do for one attempt. The error is a sentence for the user.
    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        Ok(Plan::process(call.with.clone()))
    }

    /// Whether it runs on another machine, as [`Plan::Remote`].
    fn on_hosts(&self) -> OnHosts {
        OnHosts::Never
    }

    /// Whether a worker can run it: beside the files of the run its process needs nothing that only the server has, such as
    /// the server's own credentials.
    fn on_workers(&self) -> bool {
        true
    }

    /// Whether [`Action::gather`] is to be called.
    fn gathers(&self) -> bool {
        false
    }

    /// Adds to the facts of [`Plan::Process`] what only the store and the disk know. Called in the background, after
    /// the plan and before the start; whatever cannot be read is left out.
    async fn gather(&self, facts: Value, sources: &Sources) -> Value {
        let _ = sources;
        facts
    }

    /// What a success of [`Plan::Remote`] comes to: may change its outputs, or make a failure of it. `with` is rendered.
    fn conclude(&self, with: &Value, ended: &mut Ended) {
        let _ = (with, ended);
    }

    /// The body of [`Plan::Process`], in a process of its own that starts in the root of the run's workspaces.
    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let _ = job;
        anyhow::bail!("`{}` has no process", self.name())
    }
}

/// One use of an action.
pub struct Call<'a> {
    /// As the workflow says, rendered, and right by the action's schema.
    pub with: &'a Value,
    pub run: &'a Run,
    pub slot: Slot,
    /// Measured use of other instances.
    pub usage: &'a dyn Fn(Slot) -> Value,
    /// The page of the run; empty without a server.
    pub run_url: &'a str,
    /// Where it is to run, if not here.
    pub place: Option<&'a Place>,
    /// The root of the run's workspaces, on this machine.
    pub workspace: &'a Path,
}

/// Where [`Action::gather`] reads.
pub struct Sources {
    pub store: Store,
    pub data: DataDir,
    pub run: RunRecord,
    /// The task that is planned.
    pub task: TaskId,
    pub map_index: i32,
    /// Of this server; empty without one.
    pub base_url: String,
}

/// How an attempt of an action is carried out.
pub enum Plan {
    /// By [`Action::execute`].
    Process {
        with: Value,
        /// What the action needs to know of the run.
        facts: Value,
        /// Travels in the environment, never on a disk.
        secret: Value,
        /// Variables of the server's environment whose names begin so are passed on; empty: none.
        inherit: &'static str,
    },
    /// By these steps, on the host that [`Call::place`] names; [`Action::conclude`] is called with their success.
    Remote(Vec<StepSpec>),
    /// By the scheduler, in the transaction that ends the attempt.
    SetVariables(Vec<(String, String)>),
    /// By the scheduler too: the message goes into the outbox.
    Notify(notify::Letter),
}

impl Plan {
    /// A process that needs nothing but its inputs.
    fn process(with: Value) -> Plan {
        Plan::Process { with, facts: Value::Null, secret: Value::Null, inherit: "" }
    }
}

/// What [`Action::execute`] gets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    pub with: Value,
    pub facts: Value,
    /// Filled from the environment; not in the file.
    #[serde(skip)]
    pub secret: Value,
    /// The cache of Python environments.
    pub environments: PathBuf,
    /// A private directory of the attempt.
    pub scratch: PathBuf,
    /// Kept files of the run.
    pub artifacts: PathBuf,
    /// What actions leave for the server, see [`DataDir::records`].
    pub records: PathBuf,
}

impl Job {
    /// The name of this task's own files among the records: its id, and its index if it is mapped. Both come from the
    /// environment that every attempt has.
    fn record_name() -> String {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let index = variable("PITCREW_MAP_INDEX").parse().unwrap_or(pitcrew_core::id::UNMAPPED);
        record_name(&variable("PITCREW_TASK"), index)
    }
}

/// A safe name of a file: an id that is none, which only a person who calls the action by hand can give, is `task`.
pub fn record_name(task: &str, map_index: i32) -> String {
    let task = if TaskId::new(task).is_ok() { task } else { "task" };
    if map_index < 0 { task.to_owned() } else { format!("{task}[{map_index}]") }
}

const ALL: [&dyn Action; 19] = [
    &artifact_publish::ArtifactPublish,
    &docker_exec::DockerExec,
    &git_checkout::GitCheckout,
    &http::Http,
    &aws::LambdaInvoke,
    &notebook::Notebook,
    &notebook_convert::NotebookConvert,
    &notify::Notify,
    &pytest::Pytest,
    &report::Report,
    &aws::S3Get,
    &aws::S3Put,
    &aws::SageMakerTrain,
    &aws::SfnStart,
    &aws::SnsPublish,
    &ssh_transfer::SshTransfer(Direction::Download),
    &ssh_transfer::SshTransfer(Direction::Upload),
    &variables_set::VariablesSet,
    &yaml_read::YamlRead,
];

/// Carries what an action calls secret to its process.
pub const SECRET: &str = "PITCREW_ACTION_SECRET";
/// Carries the values of secrets that the input of an action names, by the marks that stand for them there.
pub const SECRETS: &str = "PITCREW_ACTION_SECRETS";

/// The action of that name.
pub fn find(name: &str) -> Option<&'static dyn Action> {
    ALL.into_iter().find(|action| action.name() == name)
}

/// All actions, as the language sees them.
pub fn infos() -> &'static [ActionInfo] {
    static INFOS: LazyLock<Vec<ActionInfo>> = LazyLock::new(|| {
        let info = |action: &&dyn Action| ActionInfo {
            name: action.name().to_owned(),
            with_schema: action.schema(),
            on_hosts: action.on_hosts(),
            on_workers: action.on_workers(),
        };
        ALL.iter().map(info).collect()
    });
    &INFOS
}

/// Where this program is. Found out once: after an upgrade the system only knows the old, deleted file, and the new one
/// at its place does as well.
pub fn program() -> Option<&'static Path> {
    static PROGRAM: LazyLock<Option<PathBuf>> = LazyLock::new(|| std::env::current_exe().ok());
    PROGRAM.as_deref()
}

/// The step that runs [`Action::execute`], by the program at this path if it runs on another machine.
pub fn step(name: &str, job: &Job, secret: &Value, inherit: &str, there: Option<&Path>) -> anyhow::Result<StepSpec> {
    let exe = there.or(program()).context("cannot find the program of this process")?;
    let interpreter = [exe.to_string_lossy().as_ref(), "internal", "action", name].map(str::to_owned).to_vec();
    let mut step = StepSpec::new(name, Command::Script { text: serde_json::to_string(job)?, interpreter });
    if !secret.is_null() {
        step.env.insert(SECRET.to_owned(), serde_json::to_string(secret)?);
    }
    if !inherit.is_empty() {
        step.env.extend(std::env::vars().filter(|(name, _)| name.starts_with(inherit)));
    }
    Ok(step)
}

/// The file of a step, or the words of its command.
pub fn text(step: &StepSpec) -> &[String] {
    match &step.command {
        Command::Script { text, .. } => std::slice::from_ref(text),
        Command::Argv(words) => words,
        Command::Transfer(_) => &[],
    }
}

/// The input of a step that is an action.
pub fn input(step: &StepSpec) -> Option<&str> {
    match &step.command {
        Command::Script { text, interpreter } if interpreter.get(1..3)? == ["internal", "action"] => Some(text),
        _ => None,
    }
}

/// Puts the values of secrets in place of their marks.
fn fill(value: &mut Value, secrets: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            for (mark, secret) in secrets {
                if text.contains(mark) {
                    *text = text.replace(mark, secret);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, secrets)),
        Value::Object(map) => map.values_mut().for_each(|item| fill(item, secrets)),
        _ => {}
    }
}

/// The entry of `pitcrew internal action NAME INPUT`.
pub fn internal(name: &str, input: &Path) -> ExitCode {
    let run = || -> anyhow::Result<ExitCode> {
        let action = find(name).with_context(|| format!("there is no action `{name}`"))?;
        let text = std::fs::read_to_string(input).with_context(|| format!("cannot read `{}`", input.display()))?;
        let mut job: Job = serde_json::from_str(&text).context("the input of the action is damaged")?;
        if let Ok(secret) = std::env::var(SECRET) {
            job.secret = serde_json::from_str(&secret).context("the secret input of the action is damaged")?;
        }
        if let Ok(secrets) = std::env::var(SECRETS) {
            let secrets = serde_json::from_str(&secrets).context("the secret input of the action is damaged")?;
            [&mut job.with, &mut job.facts, &mut job.secret].into_iter().for_each(|value| fill(value, &secrets));
        }
        std::fs::create_dir_all(&job.scratch)?;
        action.execute(job)
    };
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_git = error.downcast_ref::<GitError>().is_some_and(GitError::is_lasting);
            if is_git || error.is::<WrongInput>() { ExitCode::from(EX_CONFIG as u8) } else { ExitCode::FAILURE }
        }
    }
}

/// What an action was given is wrong, and another try with the same would fail as well: its process ends with
/// [`EX_CONFIG`], and the task is not retried. Holds a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct WrongInput(String);

/// Reads `with` into the action's own type. The schema was checked before; this says where they disagree.
fn read<T: DeserializeOwned>(with: &Value) -> anyhow::Result<T> {
    let read = serde_json::from_value(with.clone());
    Ok(read.map_err(|error| WrongInput(format!("`with` is not as this action wants it: {error}")))?)
}

/// Hands outputs on to the engine: one line of JSON in the file that the backend reads.
fn write_outputs(outputs: &Value) -> anyhow::Result<()> {
    use std::io::Write;
    let Ok(path) = std::env::var("PITCREW_OUTPUT") else { return Ok(()) };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{outputs}").with_context(|| format!("cannot write `{path}`"))
}

/// A schema of an object with these properties.
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false })
}

/// A small runtime for actions that talk to the network.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // The first caller installs it; a second call in one process is harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

//! `docker.exec`: a command in a container that runs already.
//!
//! The engine cannot end such a command, and it goes on when whoever began it is gone. So it carries a mark of its task instance: a
//! cancelled attempt looks for the mark and ends what has it, and a later attempt first ends what an earlier one left.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use pitcrew_exec::docker::{Address, Ended, Engine, Exec, Fault, Kind, Output, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Action, Call, Job, Plan, WrongInput, block_on, object, read, write_outputs};

pub struct DockerExec;

/// How long a command has to end when it is asked to; the task's own grace is 10 s unless it says otherwise.
const GRACE: Duration = Duration::from_secs(7);
/// How often an engine that went away is asked again, and how many times.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASKED: u32 = 60;

#[derive(Deserialize)]
struct With {
    container: String,
    run: Option<String>,
    command: Option<Vec<String>>,
    user: Option<String>,
    workdir: Option<String>,
    host: Option<String>,
    certificates: Option<PathBuf>,
}

impl Action for DockerExec {
    fn name(&self) -> &'static str {
        "docker.exec"
    }

    fn schema(&self) -> Value {
        let mut schema = object(
            &["container"],
            json!({
                "container": { "type": "string", "minLength": 1, "description": "Name or id of a container that runs." },
                "run": { "type": "string", "description": "A script for the container's `/bin/sh`, which ends at the first error." },
                "command": { "type": "array", "minItems": 1, "items": { "type": "string" }, "description": "A program and its arguments, instead of `run`." },
                "env": { "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] }, "description": "Added to the container's environment. Never on a disk or in a log." },
                "user": { "type": "string", "description": "As `docker exec --user`: a name or number, with a group behind `:`. Default: that of the container." },
                "workdir": { "type": "string", "description": "Default: that of the container." },
                "host": { "type": "string", "description": "The engine: `unix:///path`, `ssh://user@host:port` or `tcp://host:port`. Default: `unix:///var/run/docker.sock`." },
                "certificates": { "type": "string", "description": "A folder with `ca.pem`, `cert.pem` and `key.pem`, for a host over TLS." }
            }),
        );
        schema["oneOf"] = json!([{ "required": ["run"] }, { "required": ["command"] }]);
        schema
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let mut with = call.with.clone();
        let env = with.as_object_mut().and_then(|map| map.remove("env")).unwrap_or(Value::Null);
        Ok(Plan::Process { with, facts: Value::Null, secret: env, inherit: "" })
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let given: BTreeMap<String, Value> = match &job.secret {
            Value::Null => BTreeMap::new(),
            secret => serde_json::from_value(secret.clone()).context("`env` is not an object")?,
        };
        let env = given.into_iter().map(|(name, value)| (name, plain(value))).collect();
        let command = match (&with.run, &with.command) {
            (Some(run), None) => ["/bin/sh", "-e", "-c", run].map(str::to_owned).to_vec(),
            (None, Some(command)) if !command.is_empty() => command.clone(),
            _ => bail!(WrongInput("`docker.exec` wants either `run` or `command`".to_owned())),
        };
        let (mark, number) = instance(&job);
        let exec = Exec { container: with.container, command, env, user: with.user, workdir: with.workdir, mark };
        let usual = "unix:///var/run/docker.sock";
        let address = Address::parse(with.host.as_deref().unwrap_or(usual), with.certificates.as_deref())
            .map_err(|words| WrongInput(format!("`host`: {words}")))?;
        block_on(run(address, exec, number > 1))
    }
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The mark of the task instance, the same for all of its attempts and no other's; and which attempt this is.
fn instance(job: &Job) -> (String, u32) {
    let attempt = std::env::var("PITCREW_ATTEMPT").unwrap_or_default();
    let (name, number) = attempt.rsplit_once('.').unwrap_or((&attempt, "1"));
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let mut digest = Sha256::new();
    for part in [host.trim(), &job.records.to_string_lossy(), name] {
        digest.update(part.as_bytes());
        digest.update([0]);
    }
    let mark: String = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    (mark, number.parse().unwrap_or(1))
}

async fn run(address: Address, exec: Exec, is_again: bool) -> anyhow::Result<ExitCode> {
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let engine = Engine::connect(&address).await?;
    let container = match engine.container(&exec.container).await {
        Ok(container) => container,
        Err(fault) if fault.kind == Kind::NotFound => {
            bail!("there is no container `{}` at {address}; see `docker ps`", exec.container)
        }
        Err(fault) => return Err(fault.into()),
    };
    if !container.state.running {
        let State { status, exit_code } = State::of(&container);
        bail!("the container `{}` does not run: it is {status}{exit_code}; start it first", exec.container);
    }
    if is_again {
        leftovers(&engine, &exec).await?;
    }
    let id = engine.exec_create(&exec).await?;
    let mut output = engine.exec_start(&id).await?;
    let mut end_by = None;
    let broken = loop {
        let late = async {
            match end_by {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = write_next(&mut output) => match more {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            },
            _ = asked_to_end.recv(), if end_by.is_none() => {
                end_by = Some(tokio::time::Instant::now() + GRACE);
                end(&engine, &exec, "TERM").await;
            }
            () = late => {
                end(&engine, &exec, "KILL").await;
                end_by = Some(tokio::time::Instant::now() + GRACE);
            }
        }
    };
    if let Some(error) = broken {
        eprintln!("the output breaks off here: {error:#}");
    }
    let code = outcome(&engine, &exec, &id, &mut asked_to_end).await?;
    write_outputs(&json!({ "exit_code": code, "container_id": container.id }))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// What a container is if it does not run, in words.
struct State {
    status: String,
    exit_code: String,
}

impl State {
    fn of(container: &pitcrew_exec::docker::Container) -> State {
        let state = &container.state;
        let exit_code = match state.status.as_str() {
            "exited" | "dead" => format!(" with exit code {}", state.exit_code),
            _ => String::new(),
        };
        State { status: state.status.clone(), exit_code }
    }
}

async fn write_next(output: &mut Output) -> anyhow::Result<bool> {
    let mut failed = None;
    let more = output
        .next(|stream, bytes| {
            let written = match stream {
                Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
                Stream::Stderr => std::io::stderr().write_all(bytes),
            };
            failed = failed.take().or(written.err());
        })
        .await?;
    match failed {
        Some(error) => Err(error).context("cannot write the output on"),
        None => Ok(more),
    }
}

/// Ends what earlier attempts left: two of one task never run at once.
async fn leftovers(engine: &Engine, exec: &Exec) -> anyhow::Result<()> {
    match engine.end_marked(&exec.container, exec.user.as_deref(), &exec.mark, "KILL").await {
        Ok(0) => Ok(()),
        Ok(count) => {
            eprintln!("ended {count} processes that an earlier attempt had left in the container");
            Ok(())
        }
        Err(fault) if fault.kind == Kind::Invalid => {
            eprintln!("whether an earlier attempt left processes in the container cannot be seen: {fault}");
            Ok(())
        }
        Err(fault) => Err(fault.into()),
    }
}

/// A failure is only told: whoever asked for the end will use force.
async fn end(engine: &Engine, exec: &Exec, signal: &str) {
    if let Err(fault) = engine.end_marked(&exec.container, exec.user.as_deref(), &exec.mark, signal).await {
        eprintln!("the command in the container could not be told to end and may go on: {fault}");
    }
}

/// The exit code, also when the engine was away for a while.
async fn outcome(engine: &Engine, exec: &Exec, id: &str, asked_to_end: &mut Signal) -> anyhow::Result<i64> {
    let mut silent = 0;
    loop {
        let again: Option<Fault> = match engine.exec_inspect(id).await {
            Ok(Ended { running: false, exit_code: Some(code) }) => return Ok(code),
            Ok(Ended { .. }) => {
                silent = 0;
                None
            }
            Err(fault) if fault.is_gone() => {
                let _ = engine.end_marked(&exec.container, exec.user.as_deref(), &exec.mark, "KILL").await;
                bail!(
                    "the engine was restarted, or the container removed: how the command ended is not known any more"
                );
            }
            Err(fault) if fault.may_pass() => {
                silent += 1;
                Some(fault)
            }
            Err(fault) => return Err(fault.into()),
        };
        if let Some(fault) = again.filter(|_| silent >= ASKED) {
            bail!("how the command ended is not known: {fault}");
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            _ = asked_to_end.recv() => end(engine, exec, "KILL").await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_a_script_or_a_command() {
        let validator = jsonschema::validator_for(&DockerExec.schema()).unwrap();
        assert!(validator.is_valid(&json!({ "container": "web", "run": "ls" })));
        assert!(validator.is_valid(&json!({ "container": "web", "command": ["ls", "-l"] })));
        assert!(!validator.is_valid(&json!({ "container": "web" })));
        assert!(!validator.is_valid(&json!({ "container": "web", "run": "ls", "command": ["ls"] })));
        assert!(!validator.is_valid(&json!({ "container": "web", "command": [] })));
    }
}

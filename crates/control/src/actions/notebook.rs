//! `notebook`: runs a notebook with papermill, in an environment made from declared requirements.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use pitcrew_exec::gpu;
use pitcrew_exec::python::{self, EnvRequest, NotebookRun};
use pitcrew_exec::report::EnvironmentInput;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Action, Job, object, read, write_outputs};

pub struct Notebook;

#[derive(Deserialize)]
struct With {
    path: PathBuf,
    output: PathBuf,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(flatten)]
    environment: Environment,
    kernel: Option<String>,
    workdir: Option<PathBuf>,
    cell_timeout: Option<f64>,
    figures: Option<PathBuf>,
}

/// The part of `with` that all Python actions share.
#[derive(Deserialize, Default)]
pub(super) struct Environment {
    #[serde(default)]
    requirements: Vec<String>,
    #[serde(default)]
    requirements_files: Vec<PathBuf>,
    python: Option<String>,
}

impl Environment {
    /// Finds or builds the environment, with what the action itself needs, and leaves word of its versions.
    pub fn ensure(self, needs: &[&str], job: &Job) -> anyhow::Result<python::Env> {
        let request = EnvRequest {
            requirements: self.requirements,
            requirements_files: self.requirements_files,
            python: self.python,
        };
        let env = python::ensure_shared(needs, &request, &job.environments, &mut |line| println!("{line}"))?;
        env.share_with_children().context("cannot hold the Python environment")?;
        if let Err(error) = leave_versions(&env, &request, job) {
            println!("note: the report will lack the versions of this task: {error:#}");
        }
        Ok(env)
    }

    pub fn schema() -> Map<String, Value> {
        let schema = json!({
            "requirements": {
                "type": "array", "items": { "type": "string" },
                "description": "Lines as in a requirements file. Same requirements share one cached environment."
            },
            "requirements_files": {
                "type": "array", "items": { "type": "string" },
                "description": "Requirements files, relative to the workspace root."
            },
            "python": { "type": "string", "description": "A version, a name in PATH, or a path. Default: `python3`." }
        });
        match schema {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Writes what the environment holds, for reports of the run; before the work, so that a failure has it too.
fn leave_versions(env: &python::Env, request: &EnvRequest, job: &Job) -> anyhow::Result<()> {
    let contents = env.contents();
    let name = Job::record_name();
    let left = EnvironmentInput {
        task: name.clone(),
        python: contents.python.version,
        asked: python::asked(request)?,
        installed: contents.installed,
        driver: gpu::driver_version(),
    };
    let dir = job.records.join("versions");
    std::fs::create_dir_all(&dir)?;
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, serde_json::to_vec(&left)?).with_context(|| format!("cannot write `{}`", file.display()))
}

/// Adds the shared properties to an action's own.
pub(super) fn python_schema(required: &[&str], own: Value) -> Value {
    let mut schema = object(required, own);
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.extend(Environment::schema());
    }
    schema
}

/// Replaces this process by the command, so that signals and exit codes are the command's own.
pub(super) fn become_command(mut command: std::process::Command) -> anyhow::Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))
}

/// Makes the directory that a file will be written to.
pub(super) fn make_parent(path: &Path) -> anyhow::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make the directory `{}`", parent.display()))
        }
        None => Ok(()),
    }
}

impl Action for Notebook {
    fn name(&self) -> &'static str {
        "notebook"
    }

    fn schema(&self) -> Value {
        python_schema(
            &["path", "output"],
            json!({
                "path": { "type": "string", "description": "The notebook, relative to the workspace root." },
                "output": { "type": "string", "description": "Where the executed notebook goes." },
                "parameters": { "type": "object", "description": "Values for the notebook's `parameters` cell." },
                "kernel": { "type": "string", "description": "Default: `python3`, the environment's own." },
                "workdir": { "type": "string", "description": "Where the kernel runs. Default: the workspace root." },
                "cell_timeout": { "type": "number", "exclusiveMinimum": 0, "description": "Seconds that one cell may take." },
                "figures": { "type": "string", "description": "Where times per cell go, as JSON. Default: `figures.json` beside the output." }
            }),
        )
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let env = with.environment.ensure(python::NOTEBOOK_REQUIREMENTS, &job)?;
        make_parent(&with.output)?;
        let figures = with.figures.unwrap_or_else(|| with.output.with_file_name("figures.json"));
        write_outputs(&json!({ "notebook": with.output, "figures": figures }))?;
        let run = NotebookRun {
            notebook: with.path,
            output: with.output,
            parameters: with.parameters,
            kernel: with.kernel,
            workdir: with.workdir,
            cell_timeout: with.cell_timeout.map(Duration::from_secs_f64),
            figures: Some(figures),
        };
        become_command(run.command(&env, &job.scratch)?)
    }
}

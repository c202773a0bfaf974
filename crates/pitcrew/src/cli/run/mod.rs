//! `pitcrew run FILE`: a run in the foreground, without a server.

mod document;
pub mod lines;
mod model;
mod screen;
mod tree;
pub mod watch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use pitcrew_control::app::{self, Trigger};
use pitcrew_control::catalog;
use pitcrew_control::clock;
use pitcrew_control::config::Settings;
use pitcrew_core::engine::Run;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, StoredRun};
use pitcrew_core::ir::{BackendKind, Workflow};
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, RunKey};
use pitcrew_store::CreateRun;
use serde_json::{Map, Value};

use super::context::{Context, who};
use super::error::{self, BadFile, FAILED, invalid};
use super::session::{Prepared, Session};
use super::ui::{Closed, Ui};
use super::{Format, load, tekton};

pub use document::json as run_json;
pub use document::{failure, ordered, was_cancelled};
pub use model::Model;
pub use screen::{Screen, Stream};
pub use watch::{Watch, Watched};

/// Run a workflow file now, here, without a server
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The workflow file
    #[arg(required_unless_present = "filename")]
    pub file: Option<PathBuf>,
    /// Run the PipelineRuns and TaskRuns of this file; can be given several times, `-` is stdin
    #[arg(short = 'f', long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// A param of the workflow; can be given several times
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    /// Bind a workspace of Tekton: `name=NAME,emptyDir=`, `…,claimName=`, `…,config=`, `…,secret=`
    #[arg(short, long = "workspace", value_name = "BINDING")]
    pub workspace: Vec<String>,
    /// The namespace of Tekton's documents that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    pub namespace: String,
    /// Where containers of Tekton's tasks run [env: PITCREW_PODS]
    #[arg(long, value_name = "WHERE")]
    pub on: Option<OnArg>,
    /// With `-o yaml`: the TaskRuns of a PipelineRun as well
    #[arg(long)]
    pub taskruns: bool,
    /// With `--on kubernetes`: the context of the kubeconfig; its current one unless given
    #[arg(long, value_name = "NAME", requires = "on")]
    pub context: Option<String>,
    /// A YAML or JSON file with params; `-p` wins over it
    #[arg(long, value_name = "FILE")]
    pub params_file: Option<PathBuf>,
    /// Which workflow, if the file holds several
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// The id of the run; made from the time unless given
    #[arg(long, value_name = "ID")]
    pub run_id: Option<String>,
    /// Run every task on this backend, whatever the file says; `fake` starts nothing real
    #[arg(long, value_name = "BACKEND")]
    pub backend: Option<BackendArg>,
    /// Live tasks at most [env: PITCREW_PARALLELISM]
    #[arg(long, value_name = "N")]
    pub parallelism: Option<u32>,
    /// `json`: one document about the run on stdout, progress on stderr; `yaml`: the PipelineRun or TaskRun with its status
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: RunFormat,
}

/// How the end of a run is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RunFormat {
    Text,
    Json,
    Yaml,
    /// Its kind and name.
    Name,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendArg {
    Local,
    Fake,
}

/// What makes the containers of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnArg {
    /// Namespaces of this machine, over its own files
    Sandbox,
    /// A Docker engine, see `docker_host`
    Docker,
    /// A cluster of Kubernetes, as `KUBECONFIG` says
    Kubernetes,
}

pub async fn command(args: RunArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let files: Vec<PathBuf> = args.file.iter().chain(&args.filename).cloned().collect();
    let sources = files.iter().map(|path| load::source(path)).collect::<anyhow::Result<Vec<_>>>()?;
    if sources.iter().any(|source| pitcrew_lang::tekton::is_tekton(&source.text)) {
        return tekton::run(args, sources, ui, settings).await;
    }
    if args.on.is_some() {
        return Err(invalid(
            "`--on` is for Tekton's documents, and this is a workflow\nhint: a task of it says `backend`",
        ));
    }
    let [file] = files.as_slice() else {
        return Err(invalid(
            "a workflow is run from one file\nhint: several files are one set only for Tekton's documents",
        ));
    };
    let output = match args.output {
        RunFormat::Text => Format::Text,
        RunFormat::Json => Format::Json,
        RunFormat::Yaml | RunFormat::Name => {
            return Err(invalid(
                "`-o yaml` and `-o name` are for Tekton's documents\nhint: a workflow has `--output json`",
            ));
        }
    };
    if !args.workspace.is_empty() || args.taskruns || args.on.is_some() {
        return Err(invalid("`-w`, `--on` and `--taskruns` are for Tekton's documents, and this is a workflow"));
    }
    // Everything that can be refused is refused before anything is made.
    let mut compiled = load::workflow(file, args.workflow.as_deref(), &ui)?;
    match args.backend {
        Some(BackendArg::Fake) => {
            compiled.hash.push_str(catalog::ON_FAKE);
            compiled.workflow.tasks.iter_mut().for_each(|task| task.backend = BackendKind::Fake);
        }
        Some(BackendArg::Local) => {
            if let Some(task) = compiled.workflow.tasks.iter().find(|task| task.backend != BackendKind::Local) {
                let name = task.backend.name();
                return Err(invalid(format!(
                    "the file asks for the `{name}` backend\nhint: leave `--backend` out, or change the file"
                )));
            }
        }
        None => {}
    }
    let conf = params(&compiled.workflow, args.params_file.as_deref(), &args.param)?;
    let run_id = args.run_id.as_deref().map(RunId::new).transpose().map_err(error::refused)?;
    let trigger = Trigger { conf, run_id, by: "cli".to_owned(), ..Trigger::default() };
    let mut new = app::new_run(&compiled.workflow, &compiled.hash, trigger, clock::now()).map_err(error::trigger)?;
    for entry in &mut new.audit {
        entry.who = who();
    }

    let context = Context::open(ui, settings).await?;
    let prepared = Prepared::new(&context).await?;
    load::register(&context.store, file, &compiled, clock::now()).await?;
    let record = match context.store.create_run(new, Some(&prepared.owner)).await? {
        CreateRun::Created(record) => record,
        CreateRun::Exists { run, .. } => {
            return Err(invalid(format!(
                "`{}` has the run `{}` already: number {}",
                run.workflow, run.run_id, run.key
            )));
        }
    };
    if !compiled.workflow.notify.is_empty() {
        context.ui.hint("`notify` counts for the runs of a server; this run notifies nobody");
    }
    let workflow = context.catalog.insert(&compiled.hash, compiled.workflow);
    let session = prepared.work_on(&context, record.key, &workflow).await?;
    finish(&context, session, record, workflow, output, None).await
}

/// Watches a run of this process to its end, says how it ended, and gives the exit status.
pub async fn finish(
    context: &Context,
    session: Session,
    run: RunRecord,
    workflow: Arc<Workflow>,
    output: Format,
    known: Option<&[InstanceRecord]>,
) -> anyhow::Result<ExitCode> {
    let stream = if output == Format::Json { Stream::Stderr } else { Stream::Stdout };
    let mut screen = Screen::new(&context.ui, stream);
    if !screen.live {
        let text = format!(
            "{} {}  {}\n",
            screen.paint.bold(watch::name(&run)),
            run.run_id,
            context.data.run(run.key).display()
        );
        screen.lasting(&text);
    }
    let key = run.key;
    let watched = Watch::new(&session.app, context, run, workflow.clone(), screen).until_end(known).await?;
    conclude(context, session, watched, key, &workflow, output).await
}

/// Says how a watched run ended, lets go of it, and gives the exit status.
pub async fn conclude(
    context: &Context,
    session: Session,
    watched: Watched,
    key: RunKey,
    workflow: &Workflow,
    output: Format,
) -> anyhow::Result<ExitCode> {
    let told = match watched {
        Watched::Left => Ok(ExitCode::from(FAILED)),
        Watched::Finished => tell_end(context, key, workflow, output).await,
    };
    session.shutdown().await;
    told
}

/// Says how a run of this data directory ended, and gives the exit status.
pub async fn tell_end(context: &Context, key: RunKey, workflow: &Workflow, output: Format) -> anyhow::Result<ExitCode> {
    let Some(stored) = context.store.stored_run(key).await? else {
        anyhow::bail!("run {key} was removed while it ran");
    };
    tell(&context.ui, &stored, &context.data.workspace(key), &context.pitcrew(), workflow, output)
}

/// Says how a run ended, and gives the exit status. `workspace` may be one that is not there.
pub fn tell(
    ui: &Ui,
    stored: &StoredRun,
    workspace: &Path,
    pitcrew: &str,
    workflow: &Workflow,
    output: Format,
) -> anyhow::Result<ExitCode> {
    let told = match output {
        Format::Json => ui.json(&document::json(stored, workflow)),
        Format::Text if ui.quiet => Ok(()),
        Format::Text => ui.print(&document::summary(stored, workspace, pitcrew, ui.out)),
    };
    match told {
        // That nobody reads any more makes a failed run no success.
        Err(error) if !error.is::<Closed>() => Err(error),
        _ => Ok(exit_code(stored.run.state)),
    }
}

/// Adds the instances that were never tried and have no rows; they follow from the workflow.
pub fn complete(stored: &mut StoredRun, workflow: &Arc<Workflow>) {
    let restored = Run::restore(stored.run.clone(), workflow.clone(), std::mem::take(&mut stored.instances));
    stored.instances = restored.all_slots().map(|slot| restored.row(slot)).collect();
}

pub fn exit_code(state: RunState) -> ExitCode {
    if state == RunState::Success { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Params from a file and from `-p`.
pub fn params(workflow: &Workflow, file: Option<&Path>, given: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut conf = match file {
        Some(path) => params_file(path)?,
        None => Map::new(),
    };
    let mut problems = Vec::new();
    for argument in given {
        match pitcrew_lang::from_cli(workflow, argument) {
            Ok((name, value)) => drop(conf.insert(name, value)),
            Err(problem) => problems.push(problem.to_string()),
        }
    }
    if problems.is_empty() { Ok(conf) } else { Err(invalid(problems.join("\n"))) }
}

fn params_file(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let text = load::text(path)?;
    let shown = path.display().to_string();
    let Some(root) = pitcrew_lang::yaml::read(&text, &shown).map_err(BadFile)? else { return Ok(Map::new()) };
    match root.to_json() {
        Ok(Value::Object(params)) => Ok(params),
        Ok(_) => Err(invalid(format!(
            "{shown}:{}:{}: params are a mapping of names to values",
            root.at.line, root.at.column
        ))),
        Err((at, message)) => Err(invalid(format!("{shown}:{}:{}: {message}", at.line, at.column))),
    }
}

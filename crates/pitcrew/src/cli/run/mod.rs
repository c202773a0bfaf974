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
use pitcrew_core::engine::record::{RunRecord, StoredRun};
use pitcrew_core::ir::{BackendKind, Workflow};
use pitcrew_core::state::RunState;
use pitcrew_core::{RunId, RunKey};
use pitcrew_store::CreateRun;
use serde_json::{Map, Value};

use super::context::{Context, who};
use super::error::{self, BadFile, FAILED, invalid};
use super::session::{Prepared, Session};
use super::ui::{Closed, Ui};
use super::{Format, load};

pub use document::json as run_json;
pub use document::{failure, ordered, was_cancelled};
pub use model::Model;
pub use screen::{Screen, Stream};
pub use watch::{Watch, Watched};

/// Run a workflow file now, here, without a server
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The workflow file
    pub file: PathBuf,
    /// A param of the workflow; can be given several times
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    pub param: Vec<String>,
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
    /// `json`: one document about the run on stdout, progress on stderr
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendArg {
    Local,
    Fake,
}

pub async fn command(args: RunArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    // Everything that can be refused is refused before anything is made.
    let mut compiled = load::workflow(&args.file, args.workflow.as_deref(), &ui)?;
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
    load::register(&context.store, &args.file, &compiled, clock::now()).await?;
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
    finish(&context, session, record, workflow, args.output, false).await
}

/// Watches a run of this process to its end, says how it ended, and gives the exit status.
pub async fn finish(
    context: &Context,
    session: Session,
    run: RunRecord,
    workflow: Arc<Workflow>,
    output: Format,
    catch_up: bool,
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
    let watched = Watch::new(&session.app, context, run, workflow.clone(), screen).until_end(catch_up).await?;
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

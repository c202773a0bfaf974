//! `runs`: what ran and runs, and steering it.
//!
//! Steering goes to the process or the server that works on the run; where there is none, this process takes the run over
//! and stays in the foreground until it is over.

use std::process::ExitCode;

use pitcrew_control::records::What;
use pitcrew_control::scheduler::AskError;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord, RunStop};
use pitcrew_core::state::{RunState, State};
use pitcrew_store::RunFilter;
use serde_json::{Value, json};

use super::context::{self, Context, who};
use super::control::Peers;
use super::error::{invalid, refused};
use super::run::{self, Screen, Stream, Watch, Watched};
use super::session::{Prepared, Session};
use super::target::Target;
use super::{Format, Output, format};

/// The table shows the others.
const MOST_FAILURES: usize = 10;

/// List, show, cancel and repeat runs
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum RunsCommand {
    /// List runs, the newest first
    List(ListArgs),
    /// Show a run and its tasks
    Show {
        /// Its number, its id, `latest`, or a workflow for its latest run
        run: String,
        #[command(flatten)]
        output: Output,
    },
    /// Stop a run: what runs is ended, what cleans up still runs
    Cancel {
        /// Its number, its id, `latest`, or a workflow for its latest run
        run: String,
    },
    /// Run tasks of a run again, and what comes after them
    Retry(RetryArgs),
    /// Go on with a run that nobody works on any more
    Resume {
        /// Its number, its id, `latest`, or a workflow for its latest run
        run: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only of this workflow
    #[arg(short, long, value_name = "NAME")]
    workflow: Option<String>,
    /// Only in this state; can be given several times
    #[arg(short, long, value_name = "STATE")]
    state: Vec<StateArg>,
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum StateArg {
    Queued,
    Running,
    Success,
    Failed,
    Cancelled,
}

impl From<StateArg> for RunState {
    fn from(arg: StateArg) -> RunState {
        match arg {
            StateArg::Queued => RunState::Queued,
            StateArg::Running => RunState::Running,
            StateArg::Success => RunState::Success,
            StateArg::Failed => RunState::Failed,
            StateArg::Cancelled => RunState::Cancelled,
        }
    }
}

#[derive(Debug, clap::Args)]
struct RetryArgs {
    /// Its number, its id, `latest`, or a workflow for its latest run
    run: String,
    /// Only these tasks and what comes after them; one instance of a mapped task is `task[3]`
    #[arg(value_name = "TASK")]
    tasks: Vec<String>,
    /// Only what failed, and what could not run because of that
    #[arg(long, conflicts_with = "tasks")]
    failed: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: RunsArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        RunsCommand::List(args) => list(args, &target).await,
        RunsCommand::Show { run, output } => show(&run, output, &target).await,
        RunsCommand::Cancel { run } => cancel(&run, &target).await,
        RunsCommand::Retry(args) => retry(args, &target).await,
        RunsCommand::Resume { run, output } => match &target {
            Target::Here(context) => resume(&run, output.output, context).await,
            Target::There(_) => {
                Err(invalid("a server takes up its runs by itself: `runs resume` is for a data directory"))
            }
        },
    }
}

async fn list(args: ListArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let workflow = match &args.workflow {
        Some(name) => Some(target.workflow(name).await?.workflow),
        None => None,
    };
    let states = args.state.into_iter().map(RunState::from).collect();
    let filter = RunFilter { workflow, states, ..RunFilter::default() };
    table(target, &filter, args.limit, args.output).await
}

/// Writes a list of runs.
pub async fn table(target: &Target, filter: &RunFilter, limit: u32, output: Output) -> anyhow::Result<ExitCode> {
    let page = target.runs(filter, limit).await?;
    let ui = target.ui();
    if output.is_json() {
        ui.json(&page.rows.iter().map(short).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if page.rows.is_empty() {
        ui.say(format!("no runs in `{}`; `pitcrew run FILE` makes one", target.place()));
        return Ok(ExitCode::SUCCESS);
    }
    let now = target.now();
    let row = |run: &RunRecord| {
        vec![
            run.key.to_string(),
            run.workflow.to_string(),
            format::run_state(run.state),
            run.start.map_or_else(|| "-".to_owned(), |start| format::relative(start, now)),
            duration(run, now),
            run.run_id.to_string(),
        ]
    };
    let shown = page.rows.len() as u64;
    ui.table(&["run", "workflow", "state", "started", "took", "id"], page.rows.iter().map(row).collect())?;
    if page.total > shown {
        ui.say(format!("{} of {}; see more with `--limit`", format::count(shown), format::plural(page.total, "run")));
    }
    Ok(ExitCode::SUCCESS)
}

/// So far, for a run that is not over.
fn duration(run: &RunRecord, now: jiff::Timestamp) -> String {
    let end = run.end.or_else(|| (run.state == RunState::Running).then_some(now));
    Some(format::span(run.start, end)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

fn short(run: &RunRecord) -> Value {
    json!({
        "run": run.key,
        "run_id": run.run_id,
        "workflow": run.workflow,
        "state": run.state.name(),
        "run_type": run.run_type.name(),
        "logical_date": run.logical_date,
        "start": run.start,
        "end": run.end,
        "triggered_by": run.triggered_by,
    })
}

async fn show(text: &str, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let key = target.run(text).await?.key;
    let Some(mut stored) = target.stored_run(key).await? else {
        return Err(invalid(format!("run {key} was just removed")));
    };
    let workflow = target.definition(&stored.run).await?;
    run::complete(&mut stored, &workflow);
    let run = &stored.run;
    if output.is_json() {
        let mut document = json!({ "run": run.key });
        if let (Value::Object(document), Value::Object(more)) = (&mut document, run::run_json(&stored, &workflow)) {
            document.extend(more);
            document.insert("params".to_owned(), Value::Object(run.params.clone()));
            document.insert("triggered_by".to_owned(), run.triggered_by.clone().into());
            document.insert("start".to_owned(), json!(run.start));
            document.insert("end".to_owned(), json!(run.end));
        }
        target.ui().json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let ui = target.ui();
    let now = target.now();
    ui.print(&heading(run, target))?;
    let row = |row: &InstanceRecord| {
        let end = row.end.or_else(|| row.state.is_live().then_some(now));
        vec![
            format::instance(row.task.as_str(), row.map_index),
            format::task_state(row.state),
            if row.attempt == 0 { "-".to_owned() } else { row.attempt.to_string() },
            Some(format::span(row.start, end)).filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned()),
            row.exit
                .as_ref()
                .filter(|exit| !exit.is_success())
                .map_or_else(String::new, |exit| format::one_line(&exit.to_string())),
        ]
    };
    let rows = run::ordered(&stored, &workflow).into_iter().map(row).collect();
    ui.line("")?;
    ui.table(&["task", "state", "attempts", "took", "exit"], rows)?;
    let failed = |row: &&InstanceRecord| row.state == State::Failed && !run::was_cancelled(row);
    for failed in stored.instances.iter().filter(failed).take(MOST_FAILURES) {
        ui.line("")?;
        ui.print(&run::failure(run, failed, &target.pitcrew(), ui.out))?;
    }
    target.hint_if_orphaned(run).await;
    Ok(ExitCode::SUCCESS)
}

fn heading(run: &RunRecord, target: &Target) -> String {
    let paint = target.ui().out;
    let now = target.now();
    let mut text = format!(
        "{} {}  {}\n",
        paint.bold(format!("run {} of {}", run.key, run.workflow)),
        format::tint(paint, run.state.name(), &format::run_state(run.state)),
        paint.dim(&run.run_id),
    );
    let mut line =
        |name: &str, value: String| text.push_str(&format!("  {} {value}\n", paint.dim(format!("{name:<9}"))));
    match run.start {
        Some(start) => {
            line(
                "started",
                format!("{} ({}), took {}", format::date_time(start), format::relative(start, now), duration(run, now)),
            );
        }
        None => {
            line("queued", format!("{} ({})", format::date_time(run.queued_at), format::relative(run.queued_at, now)))
        }
    }
    if let Some(date) = run.logical_date {
        line("for", format!("{date}"));
    }
    line("by", format::one_line(&run.triggered_by));
    match &run.stop {
        Some(RunStop::Cancelled { by, .. }) => line("stopped", format!("cancelled by {}", format::one_line(by))),
        Some(RunStop::TimedOut) => line("stopped", "the run timed out".to_owned()),
        Some(RunStop::TasksTimedOut) => line("stopped", "its tasks timed out".to_owned()),
        Some(RunStop::FinallyTimedOut) => line("stopped", "its `finally` tasks timed out".to_owned()),
        Some(RunStop::FailFast { task }) => line("stopped", format!("`{task}` failed (`fail_fast`)")),
        Some(RunStop::Drain { task }) => line("stopped", format!("`{task}` failed, and nothing new began")),
        Some(RunStop::Refused { reason, message }) => {
            line("refused", format!("{reason}: {}", format::one_line(message)))
        }
        None => {}
    }
    if !run.params.is_empty() {
        let params: Vec<String> = run.params.iter().map(|(name, value)| format!("{name}={value}")).collect();
        line("params", format::one_line(&params.join("  ")));
    }
    if !run.note.is_empty() {
        line("note", format::one_line(&run.note));
    }
    if let Target::Here(context) = target {
        line("files", context.data.run(run.key).display().to_string());
    }
    text
}

async fn cancel(text: &str, target: &Target) -> anyhow::Result<ExitCode> {
    let run = target.run(text).await?;
    if run.state.is_final() {
        return Err(invalid(format!("run {} is over already: {}", run.key, run.state)));
    }
    match (target.cancel(&run).await?, target) {
        (Some(by), _) => {
            target.ui().say(format!("run {} is being cancelled by {by}", run.key));
            Ok(ExitCode::SUCCESS)
        }
        (None, Target::Here(context)) => cancel_here(run, context).await,
        (None, Target::There(_)) => Err(refused("the server does not work on this run")),
    }
}

async fn cancel_here(run: RunRecord, context: &Context) -> anyhow::Result<ExitCode> {
    context.ui.say(format!("nobody works on run {}; cancelling it here", run.key));
    let session = take_over(context, &run).await?;
    let workflow = context.definition(&run).await?;
    let watch = Watch::new(&session.app, context, run.clone(), workflow, Screen::new(&context.ui, Stream::Stderr));
    let known = instances(context, &run).await?;
    session.app.scheduler.cancel(run.key, &who()).await.map_err(ask)?;
    let watched = watch.until_end(Some(&known)).await?;
    session.shutdown().await;
    if watched == Watched::Left {
        return Ok(ExitCode::FAILURE);
    }
    context.ui.say(format!("run {} is cancelled", run.key));
    Ok(ExitCode::SUCCESS)
}

async fn retry(args: RetryArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let run = target.run(&args.run).await?;
    let workflow = target.definition(&run).await?;
    let what = match (args.failed, args.tasks.is_empty()) {
        (true, _) => What::Failed,
        (false, true) => What::All,
        (false, false) => {
            What::Tasks(args.tasks.iter().map(|text| context::task(&workflow, text)).collect::<anyhow::Result<_>>()?)
        }
    };
    match (target.clear(&run, &what).await?, target) {
        (Some(cleared), _) => {
            say_cleared(target, &run, cleared.len());
            if !cleared.is_empty() {
                target.ui().hint(format!("follow it with `{} logs {} -f`", target.pitcrew(), run.key));
            }
            Ok(ExitCode::SUCCESS)
        }
        (None, Target::Here(context)) => retry_here(run, what, args.output, target, context).await,
        (None, Target::There(_)) => Err(refused("the server does not work on this run")),
    }
}

async fn retry_here(
    run: RunRecord,
    what: What,
    output: Output,
    target: &Target,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    let workflow = context.definition(&run).await?;
    let session = take_over(context, &run).await?;
    // Listening begins before there is something to hear.
    let stream = if output.is_json() { Stream::Stderr } else { Stream::Stdout };
    let watch = Watch::new(&session.app, context, run.clone(), workflow.clone(), Screen::new(&context.ui, stream));
    let known = instances(context, &run).await?;
    let cleared = session.app.scheduler.clear(run.key, what.into(), &who()).await.map_err(ask)?;
    say_cleared(target, &run, cleared.len());
    if cleared.is_empty() && run.state.is_final() {
        session.shutdown().await;
        return Ok(ExitCode::SUCCESS);
    }
    let watched = watch.until_end(Some(&known)).await?;
    run::conclude(context, session, watched, run.key, &workflow, output.output).await
}

async fn resume(text: &str, output: Format, context: &Context) -> anyhow::Result<ExitCode> {
    let run = context.run(text).await?;
    if run.state.is_final() {
        return Err(invalid(format!(
            "run {} is over already: {}\nhint: run tasks again with `pitcrew runs retry {}`",
            run.key, run.state, run.key
        )));
    }
    let mut peers = Peers::find(&context.data).await;
    if let Some(peer) = peers.responsible(run.key).await {
        let pid = peer.hello.pid;
        return Err(invalid(format!(
            "process {pid} works on run {}\nhint: follow it with `pitcrew logs {} -f`",
            run.key, run.key
        )));
    }
    let workflow = context.definition(&run).await?;
    // What ends while this process takes over is told as well.
    let known = instances(context, &run).await?;
    let session = take_over(context, &run).await?;
    run::finish(context, session, run, workflow, output, Some(&known)).await
}

/// How the tasks of the run stand in the store.
async fn instances(context: &Context, run: &RunRecord) -> anyhow::Result<Vec<InstanceRecord>> {
    Ok(context.store.stored_run(run.key).await?.map(|stored| stored.instances).unwrap_or_default())
}

/// Makes this process the one that works on the run.
async fn take_over(context: &Context, run: &RunRecord) -> anyhow::Result<Session> {
    let workflow = context.definition(run).await?;
    Prepared::new(context).await?.work_on(context, run.key, &workflow).await
}

fn ask(error: AskError) -> anyhow::Error {
    refused(error)
}

fn say_cleared(target: &Target, run: &RunRecord, cleared: usize) {
    let text = match cleared {
        0 => format!("nothing to repeat in run {}: no task of it failed", run.key),
        count => {
            format!("running {} of run {} again, and what comes after", format::plural(count as u64, "task"), run.key)
        }
    };
    target.ui().say(text);
}

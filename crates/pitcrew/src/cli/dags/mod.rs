//! `dags`: the workflows of a server, in the words that Airflow's users type.

pub mod backfill;
mod follow;
mod trigger;

use std::process::ExitCode;

use jiff::Timestamp;
use pitcrew_control::records::WorkflowLine;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::RunState;
use pitcrew_store::{RunFilter, RunOrder};
use serde_json::json;

use super::error::invalid;
use super::runs::{self, StateArg};
use super::target::Target;
use super::{Output, format};

/// List, trigger, pause and backfill the workflows of a server
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct DagsArgs {
    #[command(subcommand)]
    command: DagsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DagsCommand {
    /// List workflows
    List {
        /// Also those whose file is gone, or that were only run from a file
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show a workflow: its schedule, params and limits
    Details {
        workflow: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the runs of a workflow, the newest first
    ListRuns(ListRunsArgs),
    /// Print the state of one run of a workflow
    State {
        workflow: String,
        /// The run's id or its logical date; the latest run unless given
        run: Option<String>,
    },
    /// Make a run of a workflow
    Trigger(trigger::TriggerArgs),
    /// Let no more runs of a workflow begin
    Pause { workflow: String },
    /// Let runs of a workflow begin again
    Unpause { workflow: String },
    /// Make the runs that a schedule names for past times
    Backfill(backfill::BackfillArgs),
}

#[derive(Debug, clap::Args)]
struct ListRunsArgs {
    /// The workflow
    #[arg(required_unless_present = "dag_id")]
    workflow: Option<String>,
    /// The workflow, as older scripts name it
    #[arg(short, long, value_name = "WORKFLOW", conflicts_with = "workflow", hide = true)]
    dag_id: Option<String>,
    /// Only in this state; can be given several times
    #[arg(long, value_name = "STATE")]
    state: Vec<StateArg>,
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: DagsArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        DagsCommand::List { all, output } => list(all, output, &target).await,
        DagsCommand::Details { workflow, output } => details(&workflow, output, &target).await,
        DagsCommand::ListRuns(args) => list_runs(args, &target).await,
        DagsCommand::State { workflow, run } => state(&workflow, run.as_deref(), &target).await,
        DagsCommand::Trigger(args) => trigger::command(args, &target).await,
        DagsCommand::Pause { workflow } => pause(&workflow, true, &target).await,
        DagsCommand::Unpause { workflow } => pause(&workflow, false, &target).await,
        DagsCommand::Backfill(args) => backfill::command(&args.workflow, args.wish, &target).await,
    }
}

async fn list(all: bool, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    let found = target.workflows(all).await?;
    if output.is_json() {
        ui.json(&found.workflows.iter().map(WorkflowLine::document).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if found.workflows.is_empty() {
        ui.say("no workflows; `pitcrew server --workflows DIR` takes them from a folder");
    } else {
        let now = target.now();
        ui.table(
            &["workflow", "schedule", "next run", "last run", "state", "file"],
            found.workflows.iter().map(|workflow| line(workflow, now)).collect(),
        )?;
    }
    for broken in found.broken {
        ui.warn(format!("`{}` is broken; its last good version stays\n{}", broken.path, broken.message.trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(workflow: &WorkflowLine, now: Timestamp) -> Vec<String> {
    let dash = || "-".to_owned();
    let next = match (workflow.is_active, workflow.is_paused, workflow.next_run) {
        (false, ..) => "not served".to_owned(),
        (true, true, _) => "paused".to_owned(),
        (true, false, next) => next.map_or_else(dash, |next| format::relative(next, now)),
    };
    let latest = workflow.last_run.as_ref();
    vec![
        workflow.workflow.to_string(),
        workflow.schedule.clone().unwrap_or_else(|| "by hand".to_owned()),
        next,
        latest.map_or_else(dash, |run| format::relative(run.at, now)),
        latest.map_or_else(dash, |run| format!("{} {}", format::sign(&run.state), run.state)),
        workflow.file.clone(),
    ]
}

async fn details(text: &str, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let found = target.workflow(text).await?;
    let workflow = target.version(&found.workflow, &found.version).await?;
    let ui = target.ui();
    if output.is_json() {
        let mut document = found.document();
        document["version"] = json!(found.version);
        document["tasks"] = json!(workflow.tasks.iter().map(|task| task.id.as_str()).collect::<Vec<_>>());
        document["params"] =
            json!(workflow.params.iter().map(|p| (&p.name, &p.schema)).collect::<std::collections::BTreeMap<_, _>>());
        ui.json(&document)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = target.now();
    ui.line(ui.out.bold(&found.workflow))?;
    let field = |name: &str, value: String| ui.line(format!("  {} {value}", ui.out.dim(format!("{name:<9}"))));
    if !found.description.is_empty() {
        field("about", format::one_line(&found.description))?;
    }
    field("schedule", found.schedule.clone().unwrap_or_else(|| "by hand".to_owned()))?;
    if let Some(next) = found.next_run.filter(|_| found.is_active && !found.is_paused) {
        field("next run", format!("{} ({})", format::date_time(next), format::relative(next, now)))?;
    }
    let state = match (found.is_active, found.is_paused) {
        (false, _) => "not served",
        (true, true) => "paused",
        (true, false) => "active",
    };
    field("state", state.to_owned())?;
    field("tasks", workflow.tasks.len().to_string())?;
    if !found.tags.is_empty() {
        field("tags", found.tags.join(", "))?;
    }
    field("file", found.file.clone())?;
    if !workflow.params.is_empty() {
        ui.line("")?;
        let row = |param: &pitcrew_core::ir::Param| {
            let text = |key: &str| match param.schema.get(key) {
                None => "-".to_owned(),
                Some(serde_json::Value::String(text)) => format::one_line(text),
                Some(other) => other.to_string(),
            };
            let default = param.default.as_ref().map_or_else(|| "must be given".to_owned(), ToString::to_string);
            vec![param.name.clone(), text("type"), format::one_line(&default), text("description")]
        };
        ui.table(&["param", "type", "default", "what it is"], workflow.params.iter().map(row).collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list_runs(args: ListRunsArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let name = args.workflow.or(args.dag_id).unwrap_or_default();
    let workflow = target.workflow(&name).await?.workflow;
    let states = args.state.into_iter().map(RunState::from).collect();
    let filter = RunFilter { workflow: Some(workflow), states, ..RunFilter::default() };
    runs::table(target, &filter, args.limit, args.output).await
}

/// As Airflow does, only the word; so that a script can compare it.
async fn state(workflow: &str, run: Option<&str>, target: &Target) -> anyhow::Result<ExitCode> {
    let run = find_run(workflow, run, target).await?;
    target.ui().line(run.state.name())?;
    Ok(ExitCode::SUCCESS)
}

/// A run of a workflow by its id or its logical date, as Airflow's commands name it; the latest unless named.
pub async fn find_run(workflow: &str, run: Option<&str>, target: &Target) -> anyhow::Result<RunRecord> {
    let id = target.workflow(workflow).await?.workflow;
    let filter = RunFilter { workflow: Some(id.clone()), order: RunOrder::Newest, ..RunFilter::default() };
    let Some(text) = run else {
        let newest = target.runs(&filter, 1).await?.rows.pop();
        return newest.ok_or_else(|| invalid(format!("`{id}` has no runs yet")));
    };
    let by_id = target.run_of(&id, text).await;
    let Ok(date) = text.parse::<Timestamp>() else { return by_id };
    if let Ok(run) = by_id {
        return Ok(run);
    }
    let runs = target.runs(&filter, u32::MAX).await?.rows;
    let found = runs.into_iter().find(|run| run.logical_date == Some(date));
    found.ok_or_else(|| invalid(format!("`{id}` has no run with the id or the logical date `{text}`")))
}

async fn pause(text: &str, paused: bool, target: &Target) -> anyhow::Result<ExitCode> {
    let workflow = target.workflow(text).await?;
    let changed = target.set_paused(&workflow, paused).await?;
    let state = if paused { "paused" } else { "not paused" };
    target.ui().say(format!("`{}` is {state}{}", workflow.workflow, if changed { "" } else { " already" }));
    Ok(ExitCode::SUCCESS)
}

//! `dags`: the workflows of a server, in the words that Airflow's users type.

mod backfill;
mod follow;
mod trigger;

use std::process::ExitCode;

use pitcrew_core::engine::record::RunRecord;
use pitcrew_store::{Paging, WorkflowFilter, WorkflowRow};
use serde_json::{Value, json};

use super::context::Context;
use super::control::Peers;
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
    /// Make a run of a workflow
    Trigger(trigger::TriggerArgs),
    /// Let no more runs of a workflow begin
    Pause { workflow: String },
    /// Let runs of a workflow begin again
    Unpause { workflow: String },
    /// Make the runs that a schedule names for past times
    Backfill(backfill::BackfillArgs),
}

pub async fn command(args: DagsArgs, context: Context) -> anyhow::Result<ExitCode> {
    match args.command {
        DagsCommand::List { all, output } => list(all, output, &context).await,
        DagsCommand::Trigger(args) => trigger::command(args, &context).await,
        DagsCommand::Pause { workflow } => pause(&workflow, true, &context).await,
        DagsCommand::Unpause { workflow } => pause(&workflow, false, &context).await,
        DagsCommand::Backfill(args) => backfill::command(args, &context).await,
    }
}

async fn list(all: bool, output: Output, context: &Context) -> anyhow::Result<ExitCode> {
    let ui = &context.ui;
    let filter = WorkflowFilter { active: (!all).then_some(true), ..WorkflowFilter::default() };
    let rows = context.store.workflows(&filter, Paging::ALL).await?.rows;
    let mut shown = Vec::with_capacity(rows.len());
    for row in rows {
        let latest = context.store.latest_run(&row.id).await?;
        shown.push((row, latest));
    }
    if output.is_json() {
        ui.json(&shown.iter().map(|(row, latest)| document(row, latest.as_ref())).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    if shown.is_empty() {
        ui.say("no workflows; `pitcrew server --workflows DIR` takes them from a folder");
    } else {
        let now = context.now();
        ui.table(
            &["workflow", "schedule", "next run", "last run", "state", "file"],
            shown.iter().map(|(row, latest)| line(row, latest.as_ref(), now)).collect(),
        )?;
    }
    for broken in context.store.file_errors().await? {
        ui.warn(format!("`{}` is broken; its last good version stays\n{}", broken.path, broken.message.trim_end()));
    }
    Ok(ExitCode::SUCCESS)
}

fn line(row: &WorkflowRow, latest: Option<&RunRecord>, now: jiff::Timestamp) -> Vec<String> {
    let dash = || "-".to_owned();
    let next = match (row.active, row.is_paused, row.next_run) {
        (false, ..) => "not served".to_owned(),
        (true, true, _) => "paused".to_owned(),
        (true, false, next) => next.map_or_else(dash, |next| format::relative(next, now)),
    };
    vec![
        row.id.to_string(),
        row.schedule.clone().unwrap_or_else(|| "by hand".to_owned()),
        next,
        latest.map_or_else(dash, |run| format::relative(run.start.unwrap_or(run.queued_at), now)),
        latest.map_or_else(dash, |run| format::run_state(run.state)),
        row.path.clone(),
    ]
}

fn document(row: &WorkflowRow, latest: Option<&RunRecord>) -> Value {
    json!({
        "workflow": row.id,
        "description": row.description,
        "tags": row.tags,
        "schedule": row.schedule,
        "is_paused": row.is_paused,
        "is_active": row.active,
        "next_run": row.next_run,
        "file": row.path,
        "last_run": latest.map(|run| json!({ "run": run.key, "run_id": run.run_id, "state": run.state.name() })),
    })
}

async fn pause(text: &str, paused: bool, context: &Context) -> anyhow::Result<ExitCode> {
    let row = context.workflow(text).await?;
    let mut audit = context.audit(if paused { "workflow.pause" } else { "workflow.unpause" });
    audit.workflow = Some(row.id.clone());
    let changed = context.store.set_paused(&row.id, paused, audit).await?;
    let state = if paused { "paused" } else { "not paused" };
    context.ui.say(format!("`{}` is {state}{}", row.id, if changed { "" } else { " already" }));
    Peers::find(&context.data).await.look().await;
    Ok(ExitCode::SUCCESS)
}

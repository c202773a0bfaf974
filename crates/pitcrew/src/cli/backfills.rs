//! `backfill`: runs for a span of past time, in the words that Airflow's users type.

use std::process::ExitCode;

use pitcrew_control::backfill::{self, BackfillError};
use pitcrew_core::WorkflowId;
use pitcrew_store::{BackfillFilter, Paging};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Output;
use super::context::who;
use super::control::Peers;
use super::dags::backfill::{self as create, WishArgs};
use super::error::invalid;
use super::target::Target;

/// Make, list, pause and cancel backfills
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct BackfillsArgs {
    #[command(subcommand)]
    command: BackfillsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BackfillsCommand {
    /// Make the runs that a schedule names for past times
    Create {
        /// The workflow; it must have a schedule
        #[arg(long, value_name = "WORKFLOW")]
        dag_id: String,
        #[command(flatten)]
        wish: WishArgs,
    },
    /// List backfills, the newest first
    List {
        /// Only of this workflow
        #[arg(long, value_name = "WORKFLOW")]
        dag_id: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Let no more of its runs begin
    Pause { id: i64 },
    /// Let its runs begin again
    Unpause { id: i64 },
    /// End it: what waits is cancelled, what runs goes on to its end
    Cancel { id: i64 },
}

/// A backfill as Airflow's API shapes it.
#[derive(Deserialize)]
struct Row {
    id: i64,
    dag_id: String,
    from_date: String,
    to_date: String,
    is_paused: bool,
    completed_at: Option<String>,
    max_active_runs: u32,
}

impl Row {
    fn state(&self) -> &'static str {
        match (&self.completed_at, self.is_paused) {
            (Some(_), _) => "over",
            (None, true) => "paused",
            (None, false) => "under way",
        }
    }
}

pub async fn command(args: BackfillsArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        BackfillsCommand::Create { dag_id, wish } => create::command(&dag_id, wish, &target).await,
        BackfillsCommand::List { dag_id, output } => list(dag_id.as_deref(), output, &target).await,
        BackfillsCommand::Pause { id } => change(id, "pause", &target).await,
        BackfillsCommand::Unpause { id } => change(id, "unpause", &target).await,
        BackfillsCommand::Cancel { id } => change(id, "cancel", &target).await,
    }
}

async fn list(workflow: Option<&str>, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let workflow = match workflow {
        Some(name) => Some(target.workflow(name).await?.workflow),
        None => None,
    };
    let rows = rows(workflow, target).await?;
    let ui = target.ui();
    if output.is_json() {
        let shown = |row: &Row| {
            json!({
                "id": row.id, "workflow": row.dag_id, "from": row.from_date, "to": row.to_date,
                "max_active_runs": row.max_active_runs, "state": row.state(),
            })
        };
        ui.json(&rows.iter().map(shown).collect::<Vec<_>>())?;
    } else if rows.is_empty() {
        ui.say("no backfills");
    } else {
        let line = |row: &Row| {
            let (from, to) = (row.from_date.clone(), row.to_date.clone());
            vec![
                row.id.to_string(),
                row.dag_id.clone(),
                from,
                to,
                row.max_active_runs.to_string(),
                row.state().to_owned(),
            ]
        };
        ui.table(&["backfill", "workflow", "from", "to", "at a time", "state"], rows.iter().map(line).collect())?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn rows(workflow: Option<WorkflowId>, target: &Target) -> anyhow::Result<Vec<Row>> {
    match target {
        Target::Here(context) => {
            let filter = BackfillFilter { workflow, open: None };
            let rows = context.store.backfills(&filter, Paging::ALL).await?.rows;
            let over = |row: &pitcrew_store::Backfill| row.completed.or(row.cancelled.then_some(row.updated));
            let row = |row: pitcrew_store::Backfill| Row {
                id: row.id,
                from_date: row.new.from.to_string(),
                to_date: row.new.to.to_string(),
                is_paused: row.is_paused,
                completed_at: over(&row).map(|at| at.to_string()),
                max_active_runs: row.new.max_active_runs,
                dag_id: row.new.workflow.to_string(),
            };
            Ok(rows.into_iter().map(row).collect())
        }
        Target::There(remote) => {
            let all = remote.all(&["api", "v2", "backfills"], "backfills").await?;
            let read = |row| Ok(serde_json::from_value::<Row>(row)?);
            let mut rows = all.into_iter().map(read).collect::<anyhow::Result<Vec<Row>>>()?;
            rows.retain(|row| workflow.as_ref().is_none_or(|id| row.dag_id == id.as_str()));
            rows.sort_by_key(|row| std::cmp::Reverse(row.id));
            Ok(rows)
        }
    }
}

async fn change(id: i64, word: &str, target: &Target) -> anyhow::Result<ExitCode> {
    match target {
        Target::Here(context) => {
            let (store, by, now) = (&context.store, who(), context.now());
            let changed = match word {
                "pause" => backfill::pause(store, id, true, &by, now).await,
                "unpause" => backfill::pause(store, id, false, &by, now).await,
                _ => backfill::cancel(store, id, &by, now).await,
            };
            changed.map_err(|error| match error {
                BackfillError::Store(error) => error.into(),
                other => invalid(other.to_string()),
            })?;
            Peers::find(&context.data).await.look().await;
        }
        Target::There(remote) => {
            remote.post::<Value>(&["api", "v2", "backfills", &id.to_string(), word], json!({})).await?;
        }
    }
    let state = match word {
        "pause" => "is paused",
        "unpause" => "goes on",
        _ => "is cancelled; what runs comes to its end",
    };
    target.ui().say(format!("backfill {id} {state}"));
    Ok(ExitCode::SUCCESS)
}

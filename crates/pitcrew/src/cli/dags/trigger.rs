//! `dags trigger`: a run of a workflow that a server has.

use std::process::ExitCode;

use jiff::Timestamp;
use pitcrew_core::RunId;
use pitcrew_store::CreateRun;
use serde_json::{Map, Value, json};

use crate::app::{self, Trigger, TriggerError};
use crate::cli::context::{Context, who};
use crate::cli::control::Peers;
use crate::cli::error::{self, invalid};
use crate::cli::{Output, run};

#[derive(Debug, clap::Args)]
pub struct TriggerArgs {
    /// The workflow
    workflow: String,
    /// Params as a JSON object
    #[arg(short, long, value_name = "JSON")]
    conf: Option<String>,
    /// One param; can be given several times, and wins over `--conf`
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// The id of the run; made from the time unless given
    #[arg(short, long, value_name = "ID")]
    run_id: Option<String>,
    /// The time that the run stands for, such as `2026-01-02T00:00:00Z`
    #[arg(short = 'e', long, visible_alias = "exec-date", value_name = "TIME")]
    logical_date: Option<Timestamp>,
    /// A remark
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Follow the run and end with its exit status
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: TriggerArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let row = context.workflow(&args.workflow).await?;
    if !row.active {
        return Err(invalid(format!(
            "no server serves `{}`: its file is gone, or was only run by hand\nhint: run it with `pitcrew run {}`",
            row.id, row.path
        )));
    }
    let workflow = context.catalog.load(&context.store, &row.id, &row.version).await?;
    let mut conf = match &args.conf {
        None => Map::new(),
        Some(text) => match serde_json::from_str(text) {
            Ok(Value::Object(conf)) => conf,
            Ok(_) => return Err(invalid("`--conf` must be a JSON object, such as '{\"name\": \"value\"}'")),
            Err(error) => return Err(invalid(format!("`--conf` is not JSON: {error}"))),
        },
    };
    conf.extend(run::params(&workflow, None, &args.param)?);
    let run_id = args.run_id.as_deref().map(RunId::new).transpose().map_err(error::refused)?;
    let trigger = Trigger {
        conf,
        run_id,
        logical_date: args.logical_date,
        note: args.note,
        by: "cli".to_owned(),
        run_after: None,
    };
    let mut new = app::new_run(&workflow, &row.version, trigger, context.now()).map_err(error::trigger)?;
    new.audit.iter_mut().for_each(|entry| entry.who = who());
    let record = match context.store.create_run(new, None).await? {
        CreateRun::Created(record) => record,
        CreateRun::Exists { run, .. } => return Err(error::trigger(TriggerError::Exists(Box::new(run)))),
    };
    let mut peers = Peers::find(&context.data).await;
    peers.look().await;
    let ui = &context.ui;
    if args.output.is_json() && !args.wait {
        ui.json(&json!({ "run": record.key, "run_id": record.run_id, "workflow": record.workflow, "state": record.state.name() }))?;
    } else if !args.output.is_json() {
        ui.line(format!("run {} of {}  {}", record.key, record.workflow, record.run_id))?;
    }
    if row.is_paused {
        ui.hint(format!("`{}` is paused: the run begins after `pitcrew dags unpause {}`", row.id, row.id));
    }
    if peers.server().is_none() {
        ui.hint("no server works on this data directory: the run begins once `pitcrew server` does");
    }
    if args.wait {
        return super::follow::until_end(context, record, workflow, args.output).await;
    }
    Ok(ExitCode::SUCCESS)
}

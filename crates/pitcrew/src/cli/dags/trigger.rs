//! `dags trigger`: a run of a workflow that a server has.

use std::process::ExitCode;

use jiff::Timestamp;
use pitcrew_core::RunId;
use serde_json::{Map, Value, json};

use crate::cli::error::{self, invalid};
use crate::cli::target::{Target, Wish};
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

pub async fn command(args: TriggerArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let found = target.workflow(&args.workflow).await?;
    let id = &found.workflow;
    if !found.is_active {
        return Err(invalid(format!(
            "no server serves `{id}`: its file is gone, or was only run by hand\nhint: run it with `pitcrew run {}`",
            found.file
        )));
    }
    let workflow = target.version(id, &found.version).await?;
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
    let wish = Wish { conf, run_id, logical_date: args.logical_date, note: args.note };
    let record = target.trigger(&found, wish).await?;
    let ui = target.ui();
    if args.output.is_json() && !args.wait {
        ui.json(&json!({ "run": record.key, "run_id": record.run_id, "workflow": record.workflow, "state": record.state.name() }))?;
    } else if !args.output.is_json() {
        ui.line(format!("run {} of {}  {}", record.key, record.workflow, record.run_id))?;
    }
    if found.is_paused {
        ui.hint(format!("`{id}` is paused: the run begins after `{} dags unpause {id}`", target.pitcrew()));
    }
    if !target.is_served().await {
        ui.hint("no server works on this data directory: the run begins once `pitcrew server` does");
    }
    if args.wait {
        return super::follow::until_end(target, record, workflow, args.output).await;
    }
    Ok(ExitCode::SUCCESS)
}

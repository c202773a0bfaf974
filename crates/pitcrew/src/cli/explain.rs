//! `explain`: why a task is not running, from the facts that the scheduler decides by.

use std::process::ExitCode;

use serde_json::json;

use super::target::Target;
use super::{Output, context, error, format};

/// Say why a task is not running, or what became of it
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// A run: its number, its id, `latest`, or a workflow for its latest run
    run: String,
    /// A task; one instance of a mapped task is `task[3]`
    task: String,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: ExplainArgs, target: Target) -> anyhow::Result<ExitCode> {
    let run = target.run(&args.run).await?;
    let workflow = target.definition(&run).await?;
    let (task, map_index) = context::task(&workflow, &args.task)?;
    let reasons = target.explain(&run, &task, map_index).await?;
    if reasons.is_empty() {
        return Err(error::invalid(format!("run {} has no `{}`", run.key, args.task)));
    }
    if args.output.is_json() {
        target.ui().json(&json!({ "run": run.key, "task": task, "map_index": map_index, "reasons": reasons }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for reason in reasons {
        let reason = format::one_line(&reason);
        let text = match reason.starts_with('[') {
            true => format!("`{task}`{reason}"),
            false => format!("`{}` {reason}", args.task),
        };
        target.ui().line(text)?;
    }
    target.hint_if_orphaned(&run).await;
    Ok(ExitCode::SUCCESS)
}

//! `explain`: why a task is not running, from the facts that the scheduler decides by.

use std::process::ExitCode;

use pitcrew_core::engine::Run;
use serde_json::json;

use super::context::{self, Context};
use super::control::Peers;
use super::{Output, format};

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

pub async fn command(args: ExplainArgs, context: Context) -> anyhow::Result<ExitCode> {
    let run = context.run(&args.run).await?;
    let workflow = context.definition(&run).await?;
    let (task, map_index) = context::task(&workflow, &args.task)?;
    let mut peers = Peers::find(&context.data).await;
    let reasons = match peers.owner_of(run.key).await {
        // Only the process that works on the run knows who is in line before the task.
        Some(owner) => owner.explain(run.key, task.clone(), map_index).await?,
        None => {
            let stored = context.store.stored_run(run.key).await?;
            let rows = stored.map(|stored| stored.instances).unwrap_or_default();
            let restored = Run::restore(run.clone(), workflow.clone(), rows);
            reasons(&restored, &task, map_index)
        }
    };
    if reasons.is_empty() {
        return Err(super::error::invalid(format!("run {} has no `{}`", run.key, args.task)));
    }
    if args.output.is_json() {
        context.ui.json(&json!({ "run": run.key, "task": task, "map_index": map_index, "reasons": reasons }))?;
        return Ok(ExitCode::SUCCESS);
    }
    for reason in reasons {
        let reason = format::one_line(&reason);
        let text = match reason.starts_with('[') {
            true => format!("`{task}`{reason}"),
            false => format!("`{}` {reason}", args.task),
        };
        context.ui.line(text)?;
    }
    context.hint_if_orphaned(&run).await;
    Ok(ExitCode::SUCCESS)
}

fn reasons(run: &Run, task: &str, map_index: Option<i32>) -> Vec<String> {
    let Some(ix) = run.workflow.find(task) else { return Vec::new() };
    let slots: Vec<_> = match map_index {
        Some(index) => run.find(ix, index).into_iter().collect(),
        None => run.slots(ix).collect(),
    };
    let many = slots.len() > 1;
    let reasons = slots.into_iter().flat_map(|slot| {
        run.explain(slot, None).into_iter().map(move |reason| match many {
            true => format!("[{}] {reason}", slot.index),
            false => reason.to_string(),
        })
    });
    reasons.collect()
}

//! Follows a run that another process works on, by what it writes to the store.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::ir::Workflow;

use crate::cli::Output;
use crate::cli::context::Context;
use crate::cli::run::{self, Screen, Stream, lines};

/// The least time between two looks: a busy run writes hundreds of times a second.
const PAUSE: Duration = Duration::from_millis(200);

/// Writes a line for each task that comes to rest, and gives the exit status of the run.
pub async fn until_end(
    context: &Context,
    run: RunRecord,
    workflow: Arc<Workflow>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let stream = if output.is_json() { Stream::Stderr } else { Stream::Stdout };
    let mut screen = Screen::new(&context.ui, stream);
    let mut changes = context.store.subscribe(Duration::from_millis(500));
    let mut model = run::Model::new(workflow.clone());
    loop {
        let Some(stored) = context.store.stored_run(run.key).await? else {
            anyhow::bail!("run {} was removed while it was waited for", run.key);
        };
        let taken = model.rows(&stored.instances);
        let is_new = |row: &&InstanceRecord| {
            let task = workflow.by_name.get(&row.task);
            taken.iter().any(|taken| Some(&taken.task) == task && taken.map_index == row.map_index)
        };
        let rows: Vec<InstanceRecord> = stored.instances.iter().filter(is_new).cloned().collect();
        screen.lasting(&lines::lines(&stored.run, &rows, &context.pitcrew(), screen.paint, context.now()));
        if stored.run.state.is_final() {
            return run::tell_end(context, run.key, &workflow, output.output).await;
        }
        changes.changed().await;
        tokio::time::sleep(PAUSE).await;
    }
}

//! Follows a run that another process or a server works on, by what it writes to the store.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::ir::Workflow;

use crate::cli::Output;
use crate::cli::run::{self, Screen, Stream, lines};
use crate::cli::target::Target;

/// The least time between two looks: a busy run writes hundreds of times a second.
const PAUSE: Duration = Duration::from_millis(200);
/// Between two looks at a server elsewhere, which tells of nothing by itself.
const POLL: Duration = Duration::from_secs(1);

/// Writes a line for each task that comes to rest, and gives the exit status of the run.
pub async fn until_end(
    target: &Target,
    run: RunRecord,
    workflow: Arc<Workflow>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let stream = if output.is_json() { Stream::Stderr } else { Stream::Stdout };
    let ui = target.ui();
    let mut screen = Screen::new(ui, stream);
    let mut changes = match target {
        Target::Here(context) => Some(context.store.subscribe(Duration::from_millis(500))),
        Target::There(_) => None,
    };
    let mut model = run::Model::new(workflow.clone());
    loop {
        let Some(stored) = target.stored_run(run.key).await? else {
            anyhow::bail!("run {} was removed while it was waited for", run.key);
        };
        let taken = model.rows(&stored.instances);
        let is_new = |row: &&InstanceRecord| {
            let task = workflow.by_name.get(&row.task);
            taken.iter().any(|taken| Some(&taken.task) == task && taken.map_index == row.map_index)
        };
        let rows: Vec<InstanceRecord> = stored.instances.iter().filter(is_new).cloned().collect();
        screen.lasting(&lines::lines(&stored.run, &rows, &target.pitcrew(), screen.paint, target.now()));
        if stored.run.state.is_final() {
            let workspace = match target {
                Target::Here(context) => context.data.workspace(run.key),
                Target::There(_) => Default::default(),
            };
            return run::tell(ui, &stored, &workspace, &target.pitcrew(), &workflow, output.output);
        }
        match &mut changes {
            Some(changes) => {
                changes.changed().await;
                tokio::time::sleep(PAUSE).await;
            }
            None => tokio::time::sleep(POLL).await,
        }
    }
}

//! What the steps of a run wrote, with the names of task and step before each line, as `tkn` shows it.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_core::TaskId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Workflow;
use pitcrew_core::state::RunState;
use pitcrew_exec::{LogRecord, LogStream};

use super::follow::{line_of, step_name};
use crate::cli::context::Context;
use crate::cli::target::{LogSource, Target};

/// Between two looks at logs that grow.
const LOOK: Duration = Duration::from_millis(200);

/// Which lines.
#[derive(Debug, Default)]
pub struct Filter {
    pub tasks: Vec<String>,
    pub steps: Vec<String>,
    pub timestamps: bool,
}

type Logs = BTreeMap<(usize, TaskId, i32, u32), Log>;

struct Log {
    source: LogSource,
    offset: u64,
    ended: bool,
    open: BTreeMap<(LogStream, u32), String>,
}

/// Shows all there is, and with `follow` what comes until the run is over; gives its state then.
pub async fn show(context: Context, record: RunRecord, filter: Filter, follow: bool) -> anyhow::Result<RunState> {
    let workflow = context.definition(&record).await?;
    let target = Target::Here(Box::new(context));
    let reader = target.logs()?;
    let mut logs = Logs::new();
    loop {
        // Whether it is over is asked before the logs are read, so that nothing can come after the last look.
        let Some(stored) = target.stored_run(record.key).await? else { return Ok(record.state) };
        for row in stored.instances.iter().filter(|row| row.attempt > 0) {
            if !filter.tasks.is_empty() && !filter.tasks.iter().any(|task| row.task == **task) {
                continue;
            }
            let place = workflow.by_name.get(&row.task).map_or(usize::MAX, |ix| ix.at());
            for number in 1..=row.attempt {
                let key = (place, row.task.clone(), row.map_index, number);
                if !logs.contains_key(&key)
                    && let Some(source) = reader.source(record.key, &row.task, row.map_index, number).await?
                {
                    logs.insert(key, Log { source, offset: 0, ended: false, open: BTreeMap::new() });
                }
            }
        }
        for ((_, task, map_index, _), log) in &mut logs {
            while !log.ended {
                let chunk = reader.read(&log.source, log.offset).await?;
                let more = chunk.next_offset > log.offset;
                (log.offset, log.ended) = (chunk.next_offset, chunk.ended);
                let mut text = String::new();
                for record in chunk.records {
                    let Some(line) = whole(log, record) else { continue };
                    let step = step_name(&workflow, task, line.step);
                    if filter.steps.is_empty() || filter.steps.contains(&step) {
                        text.push_str(&shown(&target, task, *map_index, step, &line, filter.timestamps));
                    }
                }
                target.ui().print(&text)?;
                if !more {
                    break;
                }
            }
        }
        if !follow || stored.run.state.is_final() {
            close(&target, &workflow, &mut logs, &filter)?;
            return Ok(stored.run.state);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Shows lines that never got their end.
fn close(target: &Target, workflow: &Workflow, logs: &mut Logs, filter: &Filter) -> anyhow::Result<()> {
    for ((_, task, map_index, _), log) in logs {
        for ((stream, step), text) in std::mem::take(&mut log.open) {
            let line = LogRecord { offset: log.offset, at: target.now(), stream, step, continues: false, text };
            let step = step_name(workflow, task, step);
            if filter.steps.is_empty() || filter.steps.contains(&step) {
                target.ui().print(&shown(target, task, *map_index, step, &line, filter.timestamps))?;
            }
        }
    }
    Ok(())
}

/// The line that a record ends.
fn whole(log: &mut Log, record: LogRecord) -> Option<LogRecord> {
    let mut text = log.open.remove(&(record.stream, record.step)).unwrap_or_default();
    text.push_str(&record.text);
    if record.continues {
        log.open.insert((record.stream, record.step), text);
        return None;
    }
    Some(LogRecord { text, ..record })
}

fn shown(target: &Target, task: &TaskId, map_index: i32, step: String, line: &LogRecord, timestamps: bool) -> String {
    let mut name = task.to_string();
    if map_index != UNMAPPED {
        name.push_str(&format!("-{map_index}"));
    }
    let time = match timestamps {
        true => format!("{} ", line.at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")),
        false => String::new(),
    };
    line_of(&(name, step), line.stream, &format!("{time}{}", line.text), target.ui().out)
}

//! `logs`: what the tasks of a run wrote, also while they write it.
//!
//! Each attempt is one source with an offset; following is reading every source on from its offset until all of them
//! say that they ended and the run is over.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::{RunKey, TaskId};
use pitcrew_exec::{LogRecord, LogStream};
use pitcrew_store::{InstanceFilter, Paging};
use serde_json::json;

use super::error::invalid;
use super::target::{LogSource, Logs, Target};
use super::{Output, context, format};

/// Between two looks at logs that grow.
const PAUSE: Duration = Duration::from_millis(150);
/// Between two looks for new attempts where nobody tells of them.
const LOOK: Duration = Duration::from_millis(500);

/// Show what tasks wrote
#[derive(Debug, clap::Args)]
pub struct LogsArgs {
    /// A run: its number, its id, `latest`, or a workflow for its latest run
    run: String,
    /// Only this task; one instance of a mapped task is `task[3]`
    task: Option<String>,
    /// Go on until the run is over
    #[arg(short, long)]
    follow: bool,
    /// The attempt with this number, instead of the newest of each task
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    #[command(flatten)]
    output: Output,
}

/// Orders sources as the tasks stand in the workflow's file.
type SourceKey = (usize, i32, u32);

struct Source {
    name: String,
    task: TaskId,
    map_index: i32,
    number: u32,
    log: LogSource,
    offset: u64,
    ended: bool,
    /// Lines whose end has not come yet.
    open: BTreeMap<(LogStream, u32), String>,
}

struct Reader<'a> {
    target: &'a Target,
    logs: Logs<'a>,
    args: &'a LogsArgs,
    run: RunKey,
    order: BTreeMap<TaskId, usize>,
    wanted: Option<(TaskId, Option<i32>)>,
    sources: BTreeMap<SourceKey, Source>,
    /// Lines begin with the task's name, this wide.
    prefix: Option<usize>,
}

pub async fn command(args: LogsArgs, target: Target) -> anyhow::Result<ExitCode> {
    let run = target.run(&args.run).await?;
    let workflow = target.definition(&run).await?;
    let wanted = match &args.task {
        None => None,
        Some(text) => {
            let (task, map_index) = context::task(&workflow, text)?;
            Some((TaskId::new(&task)?, map_index))
        }
    };
    let several = match &wanted {
        None => workflow.tasks.len() > 1 || workflow.tasks.iter().any(|task| task.foreach.is_some()),
        Some((task, map_index)) => {
            map_index.is_none() && workflow.by_name.get(task).is_some_and(|ix| workflow.mapping_of(*ix).is_some())
        }
    };
    let width = workflow.tasks.iter().map(|task| task.id.as_str().len()).max().unwrap_or(0).min(24);
    let mut reader = Reader {
        target: &target,
        logs: target.logs()?,
        args: &args,
        run: run.key,
        order: workflow.tasks.iter().enumerate().map(|(at, task)| (task.id.clone(), at)).collect(),
        wanted,
        sources: BTreeMap::new(),
        prefix: several.then_some(width),
    };
    reader.find_sources().await?;
    if args.follow {
        reader.follow().await?;
    } else {
        reader.read_all().await?;
    }
    if reader.sources.is_empty() {
        nothing(&args, &run, &target)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing(args: &LogsArgs, run: &RunRecord, target: &Target) -> anyhow::Result<()> {
    if let Some(number) = args.attempt {
        return Err(invalid(format!("run {} has no attempt {number} of that", run.key)));
    }
    let what = args.task.as_ref().map_or_else(|| "no task".to_owned(), |task| format!("`{task}` has not begun:"));
    match &args.task {
        Some(task) => {
            target.ui().say(format!("{what} there is no log"));
            target.ui().hint(format!("`{} explain {} {task}` says why", target.pitcrew(), run.key));
        }
        None => target.ui().say(format!("{what} of run {} has begun: there are no logs", run.key)),
    }
    Ok(())
}

impl Reader<'_> {
    /// Adds the attempts that are not yet among the sources. A task's newest attempt takes the place of none: what was
    /// read of an older one stays read.
    async fn find_sources(&mut self) -> anyhow::Result<()> {
        for instance in self.instances().await?.into_iter().filter(|instance| instance.attempt > 0) {
            if let Some((_, Some(index))) = self.wanted
                && instance.map_index != index
            {
                continue;
            }
            let number = self.args.attempt.unwrap_or(instance.attempt);
            let place = self.order.get(&instance.task).copied().unwrap_or(usize::MAX);
            let key = (place, instance.map_index, number);
            if self.sources.contains_key(&key) || number > instance.attempt {
                continue;
            }
            let Some(log) = self.logs.source(self.run, &instance.task, instance.map_index, number).await? else {
                continue;
            };
            let source = Source {
                name: format::instance(instance.task.as_str(), instance.map_index),
                task: instance.task,
                map_index: instance.map_index,
                number,
                log,
                offset: 0,
                ended: false,
                open: BTreeMap::new(),
            };
            self.sources.insert(key, source);
        }
        Ok(())
    }

    /// The instances whose logs are wanted, as far as they were tried.
    async fn instances(&self) -> anyhow::Result<Vec<InstanceRecord>> {
        let task = self.wanted.as_ref().map(|(task, _)| task);
        match self.target {
            Target::Here(context) => {
                let filter = InstanceFilter { task: task.cloned(), ..InstanceFilter::default() };
                Ok(context.store.instances(self.run, &filter, Paging::ALL).await?.rows)
            }
            Target::There(_) => {
                let stored = self.target.stored_run(self.run).await?;
                let rows = stored.map(|stored| stored.instances).unwrap_or_default();
                Ok(rows.into_iter().filter(|row| task.is_none_or(|task| row.task == *task)).collect())
            }
        }
    }

    /// Reads what is there now, one attempt after the other.
    async fn read_all(&mut self) -> anyhow::Result<()> {
        let mut sources = std::mem::take(&mut self.sources);
        for source in sources.values_mut() {
            while self.read(source).await? {}
            self.close(source)?;
        }
        self.sources = sources;
        Ok(())
    }

    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut changes = match self.target {
            Target::Here(context) => Some(context.store.subscribe(LOOK)),
            Target::There(_) => None,
        };
        loop {
            // Whether it is over is asked before the logs are read, so that nothing can come after the last look.
            let over = self.is_over().await?;
            self.find_sources().await?;
            let mut sources = std::mem::take(&mut self.sources);
            let mut open = false;
            for source in sources.values_mut().filter(|source| !source.ended) {
                while self.read(source).await? {}
                if source.ended {
                    self.close(source)?;
                }
                open |= !source.ended;
            }
            self.sources = sources;
            if over {
                break;
            }
            // What is written to a log wakes nobody; without an open log only the store can bring news.
            match &mut changes {
                Some(changes) => tokio::select! {
                    () = changes.changed() => {}
                    () = tokio::time::sleep(PAUSE), if open => {}
                },
                None => tokio::time::sleep(LOOK).await,
            }
        }
        let mut sources = std::mem::take(&mut self.sources);
        for source in sources.values_mut() {
            self.close(source)?;
        }
        self.sources = sources;
        Ok(())
    }

    async fn is_over(&self) -> anyhow::Result<bool> {
        let Some(stored) = self.target.stored_run(self.run).await? else { return Ok(true) };
        if stored.run.state.is_final() {
            return Ok(true);
        }
        let index = match &self.wanted {
            Some((_, Some(index))) => *index,
            Some((_, None)) if self.prefix.is_none() => pitcrew_core::id::UNMAPPED,
            _ => return Ok(false),
        };
        let is_wanted =
            |row: &&InstanceRecord| self.wanted.iter().any(|(task, _)| row.task == *task) && row.map_index == index;
        Ok(stored.instances.iter().find(is_wanted).is_some_and(|row| row.state.is_final()))
    }

    /// Reads one part of a log and writes it; says whether there may be more at once.
    async fn read(&self, source: &mut Source) -> anyhow::Result<bool> {
        let chunk = self.logs.read(&source.log, source.offset).await?;
        let more = chunk.next_offset > source.offset;
        source.offset = chunk.next_offset;
        source.ended = chunk.ended;
        let mut text = String::new();
        for record in chunk.records {
            self.write(source, record, &mut text)?;
        }
        self.target.ui().print(&text)?;
        Ok(more && !chunk.ended)
    }

    fn write(&self, source: &mut Source, record: LogRecord, out: &mut String) -> anyhow::Result<()> {
        let mut line = source.open.remove(&(record.stream, record.step)).unwrap_or_default();
        line.push_str(&record.text);
        if record.continues {
            source.open.insert((record.stream, record.step), line);
            return Ok(());
        }
        if self.args.output.is_json() {
            let value = json!({
                "at": record.at, "task": source.task, "map_index": source.map_index, "attempt": source.number,
                "stream": record.stream, "step": record.step, "text": line,
            });
            out.push_str(&serde_json::to_string(&value)?);
            out.push('\n');
            return Ok(());
        }
        let paint = self.target.ui().out;
        if let Some(width) = self.prefix {
            out.push_str(&paint.cyan(format!("{:width$} │ ", source.name)));
        }
        if self.args.timestamps {
            out.push_str(&paint.dim(format!("{} ", record.at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))));
        }
        match record.stream {
            LogStream::System => out.push_str(&paint.dim(format!("» {line}"))),
            LogStream::Stdout | LogStream::Stderr => out.push_str(&line),
        }
        out.push('\n');
        Ok(())
    }

    /// Writes lines that never got their end.
    fn close(&self, source: &mut Source) -> anyhow::Result<()> {
        let mut text = String::new();
        for ((stream, step), line) in std::mem::take(&mut source.open) {
            let at = self.target.now();
            self.write(source, LogRecord { offset: 0, at, stream, step, continues: false, text: line }, &mut text)?;
        }
        self.target.ui().print(&text)
    }
}

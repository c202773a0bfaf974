//! `logs`: what the tasks of a run wrote, also while they write it.
//!
//! Each attempt is one source with an offset; following is reading every source on from its offset until all of them
//! say that they ended and the run is over.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::engine::record::{AttemptRecord, RunRecord};
use pitcrew_core::{RunKey, TaskId};
use pitcrew_exec::{Backend, Handle, LogRecord, LogStream};
use pitcrew_store::{InstanceFilter, Paging};
use serde_json::json;

use super::context::{self, Context};
use super::error::invalid;
use super::{Output, format, session};

/// Read of a log at a time.
const CHUNK: usize = 1 << 20;
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
    backend: Arc<dyn Backend>,
    handle: Handle,
    offset: u64,
    ended: bool,
    /// Lines whose end has not come yet.
    open: BTreeMap<(LogStream, u32), String>,
}

struct Reader<'a> {
    context: &'a Context,
    args: &'a LogsArgs,
    run: RunKey,
    order: BTreeMap<TaskId, usize>,
    wanted: Option<(TaskId, Option<i32>)>,
    backends: (Arc<dyn Backend>, Arc<dyn Backend>),
    sources: BTreeMap<SourceKey, Source>,
    /// Lines begin with the task's name, this wide.
    prefix: Option<usize>,
}

pub async fn command(args: LogsArgs, context: Context) -> anyhow::Result<ExitCode> {
    let run = context.run(&args.run).await?;
    let workflow = context.definition(&run).await?;
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
    let (local, fake, _events) = session::backends(&context)?;
    let mut reader = Reader {
        context: &context,
        args: &args,
        run: run.key,
        order: workflow.tasks.iter().enumerate().map(|(at, task)| (task.id.clone(), at)).collect(),
        wanted,
        backends: (local, fake),
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
        nothing(&args, &run, &context)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn nothing(args: &LogsArgs, run: &RunRecord, context: &Context) -> anyhow::Result<()> {
    if let Some(number) = args.attempt {
        return Err(invalid(format!("run {} has no attempt {number} of that", run.key)));
    }
    let what = args.task.as_ref().map_or_else(|| "no task".to_owned(), |task| format!("`{task}` has not begun:"));
    match &args.task {
        Some(task) => {
            context.ui.say(format!("{what} there is no log"));
            context.ui.hint(format!("`pitcrew explain {} {task}` says why", run.key));
        }
        None => context.ui.say(format!("{what} of run {} has begun: there are no logs", run.key)),
    }
    Ok(())
}

impl Reader<'_> {
    /// Adds the attempts that are not yet among the sources. A task's newest attempt takes the place of none: what was
    /// read of an older one stays read.
    async fn find_sources(&mut self) -> anyhow::Result<()> {
        let filter =
            InstanceFilter { task: self.wanted.as_ref().map(|(task, _)| task.clone()), ..InstanceFilter::default() };
        let instances = self.context.store.instances(self.run, &filter, Paging::ALL).await?.rows;
        for instance in instances.into_iter().filter(|instance| instance.attempt > 0) {
            if let Some((_, Some(index))) = self.wanted
                && instance.map_index != index
            {
                continue;
            }
            let number = self.args.attempt.unwrap_or(instance.attempt);
            let Some(order) = self.order.get(&instance.task).copied() else { continue };
            let key = (order, instance.map_index, number);
            if self.sources.contains_key(&key) {
                continue;
            }
            let attempts = self.context.store.attempts(self.run, &instance.task, instance.map_index).await?;
            if let Some(attempt) = attempts.into_iter().find(|attempt| attempt.number == number) {
                let source = self.source(attempt)?;
                self.sources.insert(key, source);
            }
        }
        Ok(())
    }

    fn source(&self, attempt: AttemptRecord) -> anyhow::Result<Source> {
        let (local, fake) = &self.backends;
        let backend = if attempt.backend == fake.name() { fake } else { local };
        Ok(Source {
            name: format::instance(attempt.task.as_str(), attempt.map_index),
            backend: backend.clone(),
            handle: serde_json::from_value(attempt.handle)?,
            task: attempt.task,
            map_index: attempt.map_index,
            number: attempt.number,
            offset: 0,
            ended: false,
            open: BTreeMap::new(),
        })
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
        let mut changes = self.context.store.subscribe(LOOK);
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
            tokio::select! {
                () = changes.changed() => {}
                () = tokio::time::sleep(PAUSE), if open => {}
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
        let store = &self.context.store;
        let run = store.run(self.run).await?;
        if run.is_none_or(|run| run.state.is_final()) {
            return Ok(true);
        }
        match (&self.wanted, self.args.attempt) {
            (Some((task, Some(index))), _) => {
                Ok(store.instance(self.run, task, *index).await?.is_some_and(|row| row.state.is_final()))
            }
            (Some((task, None)), _) if self.prefix.is_none() => {
                let row = store.instance(self.run, task, pitcrew_core::id::UNMAPPED).await?;
                Ok(row.is_some_and(|row| row.state.is_final()))
            }
            _ => Ok(false),
        }
    }

    /// Reads one part of a log and writes it; says whether there may be more at once.
    async fn read(&self, source: &mut Source) -> anyhow::Result<bool> {
        let chunk = source.backend.logs(&source.handle, source.offset, CHUNK).await?;
        let more = chunk.next_offset > source.offset;
        source.offset = chunk.next_offset;
        source.ended = chunk.ended;
        let mut text = String::new();
        for record in chunk.records {
            self.write(source, record, &mut text)?;
        }
        self.context.ui.print(&text)?;
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
        let paint = self.context.ui.out;
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
            let at = self.context.now();
            self.write(source, LogRecord { at, stream, step, continues: false, text: line }, &mut text)?;
        }
        self.context.ui.print(&text)
    }
}

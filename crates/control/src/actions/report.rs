//! `report`: one report of the run so far, as JSON, as a page and as a PDF.
//!
//! The plan takes what the engine knows at this moment; what only the store and earlier reports know is gathered in
//! the background before the start, so that no report holds up the scheduler.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use async_trait::async_trait;
use pitcrew_core::TaskId;
use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::id::UNMAPPED;
use pitcrew_core::ir::Work;
use pitcrew_core::state::{Exit, State};
use pitcrew_exec::report::{self, AttemptInput, CommitInput, FileInput, ReportInput, RunInput, TaskInput};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::pytest::OneOrMany;
use super::{Action, Call, Job, Plan, Sources, object, read, record_name, write_outputs};
use crate::{clock, reports};

/// Tasks whose earlier attempts are read from the store.
const TASKS_MAX: usize = 500;
/// Outputs of a task that are compared with those of other runs, and bytes of one.
const OUTPUTS_MAX: usize = 50;
const OUTPUT_MAX: usize = 2_000;
/// A file larger than this is not compared with that of other runs.
const FILE_MAX: u64 = 512 << 20;

pub struct Report;

#[derive(Deserialize)]
struct With {
    title: Option<String>,
    junit: Option<OneOrMany>,
    coverage: Option<OneOrMany>,
    notebook: Option<OneOrMany>,
    files: Option<OneOrMany>,
    out: Option<PathBuf>,
}

#[async_trait]
impl Action for Report {
    fn name(&self) -> &'static str {
        "report"
    }

    fn schema(&self) -> Value {
        let paths = |description: &str| {
            json!({
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
                "description": description
            })
        };
        object(
            &[],
            json!({
                "title": { "type": "string", "description": "Default: the workflow's name." },
                "junit": paths("Test results, in JUnit's XML."),
                "coverage": paths("Coverage, in Cobertura's XML or coverage.py's JSON."),
                "notebook": paths("The `figures.json` files that runs of notebooks left."),
                "files": paths("Files that the report points to."),
                "out": { "type": "string", "description": "A directory for report.json, report.html and report.pdf. Default: `results/report`." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let facts = serde_json::to_value(facts(call)).map_err(|error| error.to_string())?;
        Ok(Plan::Process { with: call.with.clone(), facts, secret: Value::Null, inherit: "" })
    }

    fn gathers(&self) -> bool {
        true
    }

    async fn gather(&self, facts: Value, sources: &Sources) -> Value {
        let Ok(mut input) = serde_json::from_value::<ReportInput>(facts.clone()) else { return facts };
        add_attempts(&mut input, sources).await;
        let Sources { store, data, run, base_url, .. } = sources;
        let name = record_name(sources.task.as_str(), sources.map_index);
        input.history = reports::history(store, data, base_url, run, &name).await;
        serde_json::to_value(input).unwrap_or(facts)
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let mut input: ReportInput = serde_json::from_value(job.facts).context("the facts of the run are damaged")?;
        let paths = |list: Option<OneOrMany>| -> Vec<PathBuf> {
            list.map(OneOrMany::into_vec).unwrap_or_default().into_iter().map(PathBuf::from).collect()
        };
        let out = with.out.unwrap_or_else(|| "results/report".into());
        input.title = with.title;
        input.junit = paths(with.junit);
        input.coverage = paths(with.coverage);
        input.notebooks = paths(with.notebook);
        input.files = paths(with.files).iter().map(|path| file(path, &out)).collect();
        input.versions = Some(job.records.join("versions"));
        let root = std::env::current_dir().context("cannot find the working directory")?;
        let (made, written) = report::write(&input, &root, &out, clock::now())
            .with_context(|| format!("cannot write the report to `{}`", out.display()))?;
        for problem in &made.problems {
            println!("note: {problem}");
        }
        let place = reports::place(&job.records, &Job::record_name());
        if let Err(error) = keep(&out, &place) {
            println!("note: cannot keep the report for later ones: {error:#}");
        }
        println!("wrote {} and {}", written.html.display(), written.pdf.display());
        write_outputs(&json!({ "html": written.html, "pdf": written.pdf, "json": written.json }))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A file, with its way from the report to it. What both lie in is left out, so that the way is still right when that
/// directory is published as a whole.
fn file(path: &Path, out: &Path) -> FileInput {
    let shared = path.components().zip(out.components()).take_while(|(a, b)| a == b).count();
    let mut way: PathBuf = out.components().skip(shared).map(|_| "..").collect();
    way.extend(path.components().skip(shared));
    let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
    FileInput {
        name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        url: Some(way.to_string_lossy().into_owned()),
        bytes,
        sha256: bytes.filter(|bytes| *bytes <= FILE_MAX).and_then(|_| sum(path).ok()),
    }
}

fn sum(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let (mut hash, mut file, mut buffer) = (Sha256::new(), std::fs::File::open(path)?, vec![0; 64 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies the forms of a report to where the server and later reports find them; the JSON, which says that a report
/// is there, comes last and whole.
fn keep(out: &Path, place: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(place)?;
    for form in [reports::Form::Html, reports::Form::Pdf, reports::Form::Json] {
        let temporary = place.join(format!(".{}", form.file()));
        std::fs::copy(out.join(form.file()), &temporary)?;
        std::fs::rename(&temporary, place.join(form.file()))?;
    }
    Ok(())
}

/// Every attempt instead of the newest one, of tasks that had several, or whose attempt was before a restart.
async fn add_attempts(input: &mut ReportInput, sources: &Sources) {
    let wanted = |task: &&mut TaskInput| task.attempts.iter().any(|a| a.number > 1 || a.usage.is_none());
    for task in input.tasks.iter_mut().filter(wanted).take(TASKS_MAX) {
        let Ok(id) = TaskId::new(&task.id) else { continue };
        let index = task.map_index.unwrap_or(UNMAPPED);
        match sources.store.attempts(sources.run.key, &id, index).await {
            Ok(rows) if !rows.is_empty() => task.attempts = rows.into_iter().map(attempt).collect(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot read the attempts of `{id}` of run {}", sources.run.key),
        }
    }
}

fn attempt(row: AttemptRecord) -> AttemptInput {
    AttemptInput {
        number: row.number,
        start: row.start,
        end: row.end,
        exit: row.exit.as_ref().map(ToString::to_string).unwrap_or_default(),
        success: row.exit.as_ref().is_some_and(Exit::is_success),
        message: row.message,
        usage: serde_json::from_value(row.usage).ok(),
    }
}

/// What the engine knows of the run at this moment. The report's own task is left out: it is not over.
fn facts(call: &Call<'_>) -> ReportInput {
    let run = call.run;
    let record = &run.record;
    let tasks = run.all_slots().filter(|slot| *slot != call.slot).map(|slot| task(call, slot)).collect();
    ReportInput {
        run: RunInput {
            workflow: record.workflow.to_string(),
            key: Some(record.key.0),
            run_id: record.run_id.to_string(),
            run_type: record.run_type.name().to_owned(),
            url: Some(call.run_url.to_owned()).filter(|url| !url.is_empty()),
            params: record.params.clone(),
            state: record.state.to_string(),
            start: record.start,
            end: record.end,
            triggered_by: record.triggered_by.clone(),
            commit: commit(run),
            versions: [("pitcrew".to_owned(), env!("CARGO_PKG_VERSION").to_owned())].into(),
        },
        tasks,
        ..ReportInput::default()
    }
}

fn task(call: &Call<'_>, slot: Slot) -> TaskInput {
    let run = call.run;
    let instance = run.instance(slot);
    let attempt = (instance.attempt > 0).then(|| AttemptInput {
        number: instance.attempt,
        start: instance.start,
        end: instance.end,
        exit: instance.exit.as_ref().map(ToString::to_string).unwrap_or_default(),
        success: instance.state == State::Success,
        message: instance.message.clone(),
        usage: serde_json::from_value((call.usage)(slot)).ok(),
    });
    let task = run.workflow.task(slot.task);
    let small = |value: &Value| value.to_string().len() <= OUTPUT_MAX;
    let outputs: Map<String, Value> = instance
        .outputs
        .iter()
        .filter(|(_, value)| small(value))
        .take(OUTPUTS_MAX)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    TaskInput {
        id: task.id.to_string(),
        map_index: Some(run.map_index(slot)).filter(|index| *index >= 0),
        state: instance.state.to_string(),
        action: match &task.work {
            Work::Action { uses, .. } => uses.clone(),
            Work::Steps(_) | Work::Pod { .. } | Work::Noop => String::new(),
        },
        attempts: attempt.into_iter().collect(),
        outputs,
    }
}

/// The commit of the first checkout of the run, by the outputs that `git.checkout` leaves.
fn commit(run: &Run) -> Option<CommitInput> {
    run.all_slots().find_map(|slot| {
        let outputs = &run.instance(slot).outputs;
        let text = |name: &str| outputs.get(name).and_then(Value::as_str).map(str::to_owned);
        let is_checkout = matches!(&run.workflow.task(slot.task).work,
            Work::Action { uses, .. } if uses == "git.checkout");
        is_checkout.then_some(())?;
        Some(CommitInput {
            commit: text("commit")?,
            branch: text("branch"),
            default_branch: text("default_branch"),
            author: text("author").unwrap_or_default(),
            message: text("message").unwrap_or_default(),
        })
    })
}

//! `report`: one report of the run so far, as JSON, as a page and as a PDF.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::state::State;
use pitcrew_exec::report::{self, AttemptInput, CommitInput, FileInput, ReportInput, RunInput, TaskInput};
use serde::Deserialize;
use serde_json::{Value, json};

use super::pytest::OneOrMany;
use super::{Action, Call, Job, Plan, object, read, write_outputs};
use crate::clock;

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

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let facts = serde_json::to_value(facts(call)).map_err(|error| error.to_string())?;
        Ok(Plan::Process { with: call.with.clone(), facts, secret: Value::Null, inherit: "" })
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
        let root = std::env::current_dir().context("cannot find the working directory")?;
        let (made, written) = report::write(&input, &root, &out, clock::now())
            .with_context(|| format!("cannot write the report to `{}`", out.display()))?;
        for problem in &made.problems {
            println!("note: {problem}");
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
    FileInput {
        name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        url: Some(way.to_string_lossy().into_owned()),
        bytes: std::fs::metadata(path).ok().map(|meta| meta.len()),
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
            run_id: record.run_id.to_string(),
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
    TaskInput {
        id: run.workflow.task(slot.task).id.to_string(),
        map_index: Some(run.map_index(slot)).filter(|index| *index >= 0),
        state: instance.state.to_string(),
        attempts: attempt.into_iter().collect(),
    }
}

/// The commit of the first checkout of the run, by the outputs that `git.checkout` leaves.
fn commit(run: &Run) -> Option<CommitInput> {
    run.all_slots().find_map(|slot| {
        let outputs = &run.instance(slot).outputs;
        let text = |name: &str| outputs.get(name).and_then(Value::as_str).map(str::to_owned);
        let is_checkout = matches!(&run.workflow.task(slot.task).work,
            pitcrew_core::ir::Work::Action { uses, .. } if uses == "git.checkout");
        is_checkout.then_some(())?;
        Some(CommitInput {
            commit: text("commit")?,
            branch: text("branch"),
            author: text("author").unwrap_or_default(),
            message: text("message").unwrap_or_default(),
        })
    })
}

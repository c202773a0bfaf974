//! The report as a value: what `report.json` holds, and what the page and the PDF show.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::coverage::{self, Coverage, Files};
use super::input::{FileInput, ReportInput, RunInput, TaskInput, UsageInput};
use super::junit::{self, Tests};
use super::text::{count, duration, percent, printable};

/// A file of results larger than this is not read.
const FILE_MAX: u64 = 256 << 20;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub title: String,
    pub generated: Timestamp,
    pub run: RunInput,
    /// Until its end, or until the report when it had none.
    pub run_seconds: Option<f64>,
    pub tasks: Vec<TaskInput>,
    /// `None`: no results were named.
    pub tests: Option<Tests>,
    pub coverage: Option<Coverage>,
    pub notebooks: Vec<Notebook>,
    pub files: Vec<FileInput>,
    /// What could not be read, a line each.
    pub problems: Vec<String>,
}

/// What the run of a notebook left in its `figures.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Notebook {
    pub notebook: String,
    pub output: String,
    pub kernel: String,
    pub total_seconds: f64,
    pub peak_memory_bytes: Option<u64>,
    pub error: Option<NotebookError>,
    pub cells: Vec<NotebookCell>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotebookError {
    /// The number of the cell.
    pub cell: Option<u32>,
    pub kind: String,
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NotebookCell {
    pub number: u32,
    /// The first line.
    pub source: String,
    /// `ok`, `error`, `not_run`.
    pub state: String,
    pub seconds: Option<f64>,
}

/// Reads the files that the input names, relative to `root`, and makes the report.
pub fn collect(input: &ReportInput, root: &Path, now: Timestamp) -> Report {
    let mut problems = Vec::new();
    let mut read = |path: &Path, what: &str| {
        let file = root.join(path);
        let result = fs::metadata(&file).and_then(|meta| match meta.len() {
            size if size > FILE_MAX => Err(std::io::Error::other("it is too large")),
            _ => fs::read(&file),
        });
        result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|e| {
            problems.push(format!("cannot read the {what} `{}`: {e}", path.display()));
        })
    };
    let junit: Vec<_> = input.junit.iter().filter_map(|path| Some((path, read(path, "test results").ok()?))).collect();
    let measured: Vec<_> =
        input.coverage.iter().filter_map(|path| Some((path, read(path, "coverage").ok()?))).collect();
    let figures: Vec<_> =
        input.notebooks.iter().filter_map(|path| Some((path, read(path, "figures of a notebook").ok()?))).collect();

    let mut cases = Vec::new();
    for (path, text) in junit {
        let (found, problem) = junit::parse(&text);
        cases.extend(found);
        problems.extend(problem.map(|why| format!("the test results `{}` are incomplete: {why}", path.display())));
    }
    let mut files = Files::new();
    for (path, text) in measured {
        if let Err(why) = coverage::parse(&text, &mut files) {
            problems.push(format!("the coverage `{}` is incomplete: {why}", path.display()));
        }
    }
    let mut notebooks = Vec::new();
    for (path, text) in figures {
        // By way of an object: a list would be taken for the fields in their order.
        match serde_json::from_str::<Map<String, Value>>(&text)
            .and_then(|map| Notebook::deserialize(Value::Object(map)))
        {
            Ok(notebook) => notebooks.push(notebook),
            Err(e) => problems.push(format!("the figures of a notebook `{}` are malformed: {e}", path.display())),
        }
    }
    for case in &mut cases {
        case.message = printable(&case.message);
        case.details = printable(&case.details);
    }
    let start = input.run.start;
    Report {
        title: [input.title.as_deref().unwrap_or_default(), &input.run.workflow, "Report"]
            .into_iter()
            .find(|title| !title.is_empty())
            .unwrap_or_default()
            .to_owned(),
        generated: now,
        run_seconds: start.map(|start| seconds_between(start, input.run.end.unwrap_or(now))),
        run: input.run.clone(),
        tasks: input.tasks.clone(),
        tests: (!input.junit.is_empty()).then(|| Tests::of(cases)),
        coverage: Coverage::of(files),
        notebooks,
        files: input.files.clone(),
        problems,
    }
}

pub(super) fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.0)
}

/// How good news is: decides the colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Bad,
    Warn,
    Neutral,
}

pub(super) fn mood_of(state: &str) -> Mood {
    match state {
        "success" | "ok" | "passed" => Mood::Good,
        "failed" | "error" | "upstream_failed" | "dead_kernel" => Mood::Bad,
        "skipped" | "up_for_retry" | "recovering" | "cancelled" | "removed" => Mood::Warn,
        _ => Mood::Neutral,
    }
}

/// A figure at the head of the report.
pub(super) struct Tile {
    pub name: &'static str,
    pub value: String,
    pub detail: String,
    pub mood: Mood,
}

impl TaskInput {
    pub(super) fn label(&self) -> String {
        match self.map_index {
            Some(index) if index >= 0 => format!("{}[{index}]", self.id),
            _ => self.id.clone(),
        }
    }

    /// The state as people say it.
    pub(super) fn state_name(&self) -> String {
        if self.state == "none" { "not yet".into() } else { self.state.replace('_', " ") }
    }

    /// Of all attempts together.
    pub(super) fn seconds(&self) -> Option<f64> {
        let spans = self.attempts.iter().filter_map(|a| Some(seconds_between(a.start?, a.end?)));
        spans.reduce(|a, b| a + b)
    }

    /// Of the newest attempt that was measured.
    pub(super) fn usage(&self) -> Option<&UsageInput> {
        self.attempts.iter().rev().find_map(|attempt| attempt.usage.as_ref())
    }
}

impl Report {
    /// The run's state in a word and its colour. While the run goes on, as when the report is one of its tasks,
    /// what has failed so far decides.
    pub(super) fn verdict(&self) -> (String, Mood) {
        let bad = self.tasks.iter().any(|task| mood_of(&task.state) == Mood::Bad)
            || self.tests.as_ref().is_some_and(|tests| tests.bad().next().is_some())
            || self.notebooks.iter().any(|notebook| notebook.error.is_some());
        match self.run.state.as_str() {
            "" | "running" | "queued" if bad => ("failed".into(), Mood::Bad),
            "" | "running" | "queued" => ("no failures".into(), Mood::Good),
            state => (state.replace('_', " "), mood_of(state)),
        }
    }

    pub(super) fn tiles(&self) -> Vec<Tile> {
        let mut tiles = Vec::new();
        if !self.tasks.is_empty() {
            let with = |mood| self.tasks.iter().filter(|task| mood_of(&task.state) == mood).count();
            let (good, bad, all) = (with(Mood::Good), with(Mood::Bad), self.tasks.len());
            let (detail, mood) = match bad {
                0 if good == all => ("succeeded".to_owned(), Mood::Good),
                0 => ("succeeded so far".to_owned(), Mood::Neutral),
                bad => (format!("{bad} failed"), Mood::Bad),
            };
            tiles.push(Tile { name: "Tasks", value: format!("{good} / {all}"), detail, mood });
        }
        if let Some(tests) = &self.tests {
            let bad = tests.failed + tests.errors;
            let detail = match (bad, tests.skipped) {
                (0, 0) => format!("passed in {}", duration(tests.seconds)),
                (0, skipped) => format!("passed, {skipped} skipped"),
                (bad, 0) => format!("{bad} failed"),
                (bad, skipped) => format!("{bad} failed, {skipped} skipped"),
            };
            let mood = match (bad, tests.total) {
                (0, 0) => Mood::Warn,
                (0, _) => Mood::Good,
                _ => Mood::Bad,
            };
            tiles.push(Tile { name: "Tests", value: format!("{} / {}", tests.passed, tests.total), detail, mood });
        }
        if let Some(coverage) = &self.coverage {
            let detail = format!("{} of {} lines", coverage.covered, coverage.total);
            tiles.push(Tile { name: "Coverage", value: percent(coverage.percent), detail, mood: Mood::Neutral });
        }
        if !self.notebooks.is_empty() {
            let seconds: f64 = self.notebooks.iter().map(|n| n.total_seconds).sum();
            let cells: usize = self.notebooks.iter().map(|n| n.cells.len()).sum();
            let failed = self.notebooks.iter().any(|n| n.error.is_some());
            let detail = if failed { "a cell failed".into() } else { count(cells, "cell", "cells") };
            let mood = if failed { Mood::Bad } else { Mood::Neutral };
            tiles.push(Tile { name: "Notebook", value: duration(seconds), detail, mood });
        }
        let gpus: Vec<_> = self.tasks.iter().filter_map(TaskInput::usage).flat_map(|usage| &usage.gpus).collect();
        if !gpus.is_empty() {
            let peak = gpus.iter().map(|gpu| gpu.max_utilization_percent).fold(0.0, f64::max);
            let mean = gpus.iter().map(|gpu| gpu.mean_utilization_percent).sum::<f64>() / gpus.len() as f64;
            let detail = format!("mean, {peak:.0} % at most");
            tiles.push(Tile { name: "GPU use", value: format!("{mean:.0} %"), detail, mood: Mood::Neutral });
        }
        tiles
    }

    /// Names and values about the run, for a table.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let run = &self.run;
        let mut facts = vec![("Workflow", run.workflow.clone()), ("Run", run.run_id.clone())];
        let time = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        facts.extend(run.start.map(|at| ("Started", time(at))));
        facts.extend(run.end.map(|at| ("Ended", time(at))));
        facts.extend(self.run_seconds.map(|s| ("Duration", duration(s))));
        facts.push(("Triggered by", run.triggered_by.clone()));
        if let Some(commit) = &run.commit {
            let branch = commit.branch.as_ref().map(|branch| format!(" on {branch}")).unwrap_or_default();
            let short = commit.commit.get(..12).unwrap_or(&commit.commit);
            facts.push(("Commit", format!("{short}{branch}")));
            facts.push(("Message", commit.message.clone()));
            facts.push(("Author", commit.author.clone()));
        }
        let versions: Vec<String> = run.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        facts.push(("Versions", versions.join(", ")));
        facts.retain(|(_, value)| !value.is_empty());
        facts
    }
}

//! The report as a value: what `report.json` holds, and what the page and the PDF show.

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::compare::{Comparison, Present, compare};
use super::coverage::{self, Coverage, Files};
use super::history::PastRun;
use super::input::{FileInput, ReportInput, RunInput, TaskInput};
use super::junit::{self, Tests};
use super::pictures::{self, Picture};
use super::summary::{self, Summary};
use super::text::printable;
use super::trends::{self, Trends};
use super::versions::{self, Environment};

/// A file of results larger than this is not read.
const FILE_MAX: u64 = 256 << 20;
/// Of the shape of `report.json`. A reader of an older one finds what it knows: fields are only ever added.
pub const VERSION: u32 = 2;

/// `report.json`; `docs/reports.md` describes it, and a test holds the two together.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    pub title: String,
    pub generated: Timestamp,
    pub summary: Summary,
    pub run: RunInput,
    /// Until its end, or until the report when it had none.
    pub run_seconds: Option<f64>,
    pub tasks: Vec<TaskInput>,
    /// `None`: no results were named.
    pub tests: Option<Tests>,
    pub coverage: Option<Coverage>,
    pub notebooks: Vec<Notebook>,
    pub environments: Vec<Environment>,
    /// `None`: no earlier run is known.
    pub trends: Option<Trends>,
    /// With the run before, and with the main branch, where there are such.
    pub comparisons: Vec<Comparison>,
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
    #[serde(skip_deserializing)]
    pub pictures: Vec<Picture>,
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
    let mut room = pictures::Room::default();
    for notebook in notebooks.iter_mut().filter(|notebook| !notebook.output.is_empty()) {
        let (found, remark) = pictures::read(&root.join(&notebook.output), &mut room);
        notebook.pictures = found;
        problems.extend(remark);
    }
    let mut report = Report {
        version: VERSION,
        title: [input.title.as_deref().unwrap_or_default(), &input.run.workflow, "Report"]
            .into_iter()
            .find(|title| !title.is_empty())
            .unwrap_or_default()
            .to_owned(),
        generated: now,
        summary: Summary::default(),
        run_seconds: input.run.start.map(|start| seconds_between(start, input.run.end.unwrap_or(now))),
        run: input.run.clone(),
        tasks: input.tasks.clone(),
        tests: (!input.junit.is_empty()).then(|| Tests::of(cases)),
        coverage: Coverage::of(files),
        notebooks,
        environments: input.versions.as_deref().map(versions::read).unwrap_or_default(),
        trends: None,
        comparisons: Vec::new(),
        files: input.files.clone(),
        problems,
    };
    report.trends = Trends::of(&input.history, report.line(), report.tests.as_ref());
    report.comparisons = report.compared(input);
    report.summary = summary::of(&report);
    report
}

impl Report {
    /// This run as it will stand among earlier ones.
    fn line(&self) -> PastRun {
        PastRun {
            key: self.run.key,
            run_id: self.run.run_id.clone(),
            url: self.run.url.clone(),
            state: self.run.state.clone(),
            start: self.run.start,
            seconds: self.run_seconds,
            commit: self.run.commit.clone(),
            tests: self.tests.as_ref().map(trends::counts),
            coverage: self.coverage.as_ref().map(|coverage| coverage.percent),
        }
    }

    fn compared(&self, input: &ReportInput) -> Vec<Comparison> {
        let now = Present {
            seconds: self.run_seconds,
            tests: self.tests.as_ref(),
            coverage: self.coverage.as_ref(),
            tasks: &self.tasks,
            files: &self.files,
        };
        let history = &input.history;
        // One run is compared with once.
        let main = history
            .main
            .as_ref()
            .filter(|main| history.previous.as_ref().is_none_or(|previous| previous.run.run_id != main.run.run_id));
        let others = [("previous", history.previous.as_ref()), ("main", main)];
        others.into_iter().filter_map(|(name, other)| Some(compare(name, other?, &now))).collect()
    }
}

pub(super) fn seconds_between(start: Timestamp, end: Timestamp) -> f64 {
    end.duration_since(start).as_secs_f64().max(0.0)
}

//! The reports of runs: where each lies, and what earlier ones tell a new one.
//!
//! Every `report` action keeps a copy of its three files among the records of its run, whether or not the workflow
//! publishes them; pages, the API and later reports read that copy. Invariant: reading is bounded and never fails; a
//! run without a readable report is one without history.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::RunState;
use pitcrew_exec::report::{Earlier, History, PastRun, read_history};
use pitcrew_store::{Paging, RunFilter, Store};

use crate::paths::DataDir;

/// Earlier runs that are looked at for a report of theirs, and reports that are read.
const RUNS_MAX: u32 = 200;
const REPORTS_MAX: usize = 60;

/// The copy of a report that is kept with its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The task that made it, with its index if it is mapped: `report`, `report[2]`.
    pub name: String,
    pub dir: PathBuf,
    pub made: Option<Timestamp>,
}

/// A form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Html,
    Pdf,
}

impl Form {
    pub fn file(self) -> &'static str {
        match self {
            Form::Json => "report.json",
            Form::Html => "report.html",
            Form::Pdf => "report.pdf",
        }
    }
}

impl Kept {
    pub fn path(&self, form: Form) -> PathBuf {
        self.dir.join(form.file())
    }
}

/// Where a task of a run keeps its report.
pub fn place(records: &Path, name: &str) -> PathBuf {
    records.join("reports").join(name)
}

/// Every report that a run has kept, by name.
pub fn of_run(data: &DataDir, run: RunKey) -> Vec<Kept> {
    let dir = data.records(run).join("reports");
    let mut found: Vec<Kept> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let kept = Kept { name: entry.file_name().into_string().ok()?, dir: entry.path(), made: None };
            let made = std::fs::metadata(kept.path(Form::Json)).ok()?.modified().ok();
            Some(Kept { made: made.and_then(|at| Timestamp::try_from(at).ok()), ..kept })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// A run as trends show it; what only its report knows is missing.
pub fn line(run: &RunRecord, base_url: &str) -> PastRun {
    PastRun {
        key: Some(run.key.0),
        run_id: run.run_id.to_string(),
        url: (!base_url.is_empty()).then(|| format!("{base_url}/runs/{}", run.key)),
        state: run.state.to_string(),
        start: run.start,
        seconds: run.start.zip(run.end).map(|(start, end)| end.duration_since(start).as_secs_f64().max(0.0)),
        ..PastRun::default()
    }
}

/// What earlier runs of the workflow came to, by the reports of the same task where they have one.
pub async fn history(store: &Store, data: &DataDir, base_url: &str, run: &RunRecord, name: &str) -> History {
    let filter = RunFilter {
        workflow: Some(run.workflow.clone()),
        states: [RunState::Success, RunState::Failed, RunState::Cancelled].to_vec(),
        ..RunFilter::default()
    };
    let earlier = match store.runs(&filter, Paging::first(RUNS_MAX)).await {
        Ok(page) => page.rows,
        Err(error) => {
            tracing::warn!(%error, "cannot read the runs before run {}; its report has no history", run.key);
            return History::default();
        }
    };
    let (data, base_url, key, name) = (data.clone(), base_url.to_owned(), run.key, name.to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let found: Vec<(PastRun, PathBuf)> = earlier
            .iter()
            .filter(|run| run.key < key)
            .filter_map(|run| {
                let kept = of_run(&data, run.key);
                let kept = kept.iter().find(|kept| kept.name == name).or(kept.first())?;
                Some((line(run, &base_url), kept.path(Form::Json)))
            })
            .take(REPORTS_MAX)
            .collect();
        let found: Vec<Earlier<'_>> = found.iter().map(|(run, report)| Earlier { run: run.clone(), report }).collect();
        read_history(&found)
    });
    read.await.unwrap_or_default()
}

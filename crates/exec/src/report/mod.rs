//! One report of a run: from its tasks, tests, coverage, notebooks and files, as JSON, as a page and as a PDF.
//!
//! [`collect`] reads what the run left and makes a [`Report`], a plain value; the three forms are functions of it,
//! and the charts are laid out once for both the page and the PDF. Earlier reports of the workflow make [`History`],
//! from which trends and comparisons come. Invariant: there is always a report. A file that is missing or malformed
//! becomes a line under "problems", and never an error.

mod chart;
mod charts;
mod compare;
mod coverage;
mod font;
mod history;
mod html;
mod input;
mod junit;
mod model;
mod over_runs;
mod pdf;
mod pictures;
mod summary;
mod svg;
mod text;
mod trends;
mod versions;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::whole;

pub use compare::{Comparison, FileChange, OutputChange, TaskChange};
pub use coverage::{Coverage, FileCoverage};
pub use history::{Baseline, Counts, Earlier, History, PastRun, PastTest, read as read_history};
pub use input::{AttemptInput, CommitInput, FileInput, GpuInput, ReportInput, RunInput, TaskInput, UsageInput};
pub use junit::{Case, Outcome, Tests};
pub use model::{Notebook, NotebookCell, NotebookError, Report, VERSION, collect};
pub use pictures::Picture;
pub use summary::{FirstFailure, Summary};
pub use text::duration;
pub use trends::{List, SlowerTest, TestTrend, Trends};
pub use versions::{Environment, EnvironmentInput};

/// The JSON Schema of `report.json`.
pub const SCHEMA: &str = include_str!("report.schema.json");

/// Where the three forms of a report were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    pub json: PathBuf,
    pub html: PathBuf,
    pub pdf: PathBuf,
}

/// Makes the report and writes `report.json`, `report.html` and `report.pdf` into `out`, each there whole or not at
/// all. Paths in the input are relative to `root`.
pub fn write(input: &ReportInput, root: &Path, out: &Path, now: Timestamp) -> io::Result<(Report, Written)> {
    let report = collect(input, root, now);
    std::fs::create_dir_all(out)?;
    let place = |name: &str, content: &[u8]| {
        let file = out.join(name);
        whole::write(&file, content).map(|()| file)
    };
    let json = serde_json::to_vec_pretty(&report)?;
    let written = Written {
        json: place("report.json", &json)?,
        html: place("report.html", html::page(&report).as_bytes())?,
        pdf: place("report.pdf", &pdf::document(&report))?,
    };
    Ok((report, written))
}

/// The page: one file that loads nothing.
pub fn to_html(report: &Report) -> String {
    html::page(report)
}

/// The PDF, A4.
pub fn to_pdf(report: &Report) -> Vec<u8> {
    pdf::document(report)
}

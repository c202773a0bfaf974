//! This run beside another one: the run before, or the newest good one of the main branch.
//!
//! Invariant: only what both runs have is compared; a test or a task of one of them alone is told as new or gone.

use serde::{Deserialize, Serialize};

use super::coverage::Coverage;
use super::history::{Baseline, PastRun, letter};
use super::input::{FileInput, TaskInput};
use super::junit::Tests;
use super::text::shortened;
use super::trends::{List, worst};

/// A task's time is remarkable from this factor on, and from this many seconds.
const REMARKABLE: (f64, f64) = (1.2, 1.0);
/// Coverage of a file changed from this many points on.
const POINTS: f64 = 0.05;
const VALUE_MAX: usize = 200;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparison {
    /// `previous`, `main`.
    pub with: String,
    pub run: PastRun,
    /// What this run took more; less when negative.
    pub seconds: Option<f64>,
    /// Fail here, and passed there.
    pub broken: List<String>,
    /// Pass here, and failed there.
    pub fixed: List<String>,
    /// Tests that only this run has.
    pub added: List<String>,
    /// Tests that only the other one has.
    pub removed: List<String>,
    /// In points; `None` unless both measured it.
    pub coverage: Option<f64>,
    /// Of files, in points; the largest fall first.
    pub coverage_files: Vec<(String, f64)>,
    /// Tasks that took remarkably longer or shorter.
    pub tasks: Vec<TaskChange>,
    /// Outputs of tasks with another value.
    pub outputs: List<OutputChange>,
    /// Files with another content.
    pub files: Vec<FileChange>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskChange {
    pub task: String,
    pub seconds: f64,
    pub before: f64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputChange {
    /// `task.name`.
    pub output: String,
    /// `None`: it was not there.
    pub before: Option<String>,
    pub now: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileChange {
    pub name: String,
    pub before_bytes: Option<u64>,
    pub bytes: Option<u64>,
}

/// What of this run is compared.
pub(super) struct Present<'a> {
    pub seconds: Option<f64>,
    pub tests: Option<&'a Tests>,
    pub coverage: Option<&'a Coverage>,
    pub tasks: &'a [TaskInput],
    pub files: &'a [FileInput],
}

pub(super) fn compare(with: &str, other: &Baseline, now: &Present<'_>) -> Comparison {
    let mut found = Comparison { with: with.to_owned(), run: other.run.clone(), ..Comparison::default() };
    found.seconds = now.seconds.zip(other.run.seconds).map(|(now, before)| now - before);
    // Where one of the two had no tests at all, as when a run broke off before them, nothing was added or removed.
    if let Some(tests) = now.tests.filter(|tests| tests.total > 0 && !other.tests.is_empty()) {
        let here = worst(tests);
        let with = |from: fn(char) -> bool, to: fn(char) -> bool| {
            List::of(here.iter().filter_map(|(name, case)| {
                let before = *other.tests.get(name)?;
                (from(before) && to(letter(case.outcome))).then(|| name.clone())
            }))
        };
        let (good, bad) = (|letter| letter == 'p', |letter| matches!(letter, 'f' | 'e'));
        found.broken = with(good, bad);
        found.fixed = with(bad, good);
        found.added = List::of(here.keys().filter(|name| !other.tests.contains_key(*name)).cloned());
        found.removed = List::of(other.tests.keys().filter(|name| !here.contains_key(*name)).cloned());
    }
    if let Some((coverage, before)) = now.coverage.zip(other.run.coverage) {
        found.coverage = Some(coverage.percent - before);
        found.coverage_files = coverage
            .files
            .iter()
            .filter_map(|file| Some((file.path.clone(), file.percent - other.coverage.get(&file.path)?)))
            .filter(|(_, points)| points.abs() >= POINTS)
            .collect();
        found.coverage_files.sort_by(|a, b| a.1.total_cmp(&b.1));
    }
    found.tasks = now.tasks.iter().filter_map(|task| slower_or_faster(task, other)).collect();
    found.tasks.sort_by(|a, b| (b.seconds - b.before).abs().total_cmp(&(a.seconds - a.before).abs()));
    found.outputs = List::of(now.tasks.iter().flat_map(TaskInput::named_outputs).filter_map(|(output, now)| {
        let before = other.outputs.get(&output);
        (before != Some(&now)).then(|| OutputChange { before: before.cloned(), output, now })
    }));
    found.files = now
        .files
        .iter()
        .filter_map(|file| {
            let before = other.files.iter().find(|before| before.name == file.name)?;
            let changed = file.sha256.is_some() && before.sha256.is_some() && file.sha256 != before.sha256;
            changed.then(|| FileChange { name: file.name.clone(), before_bytes: before.bytes, bytes: file.bytes })
        })
        .collect();
    found
}

fn slower_or_faster(task: &TaskInput, other: &Baseline) -> Option<TaskChange> {
    let (seconds, before) = (task.seconds().filter(|_| task.state == "success")?, *other.tasks.get(&task.label())?);
    let (long, short) = (seconds.max(before), seconds.min(before));
    let remarkable = long > short * REMARKABLE.0 && long - short > REMARKABLE.1;
    remarkable.then(|| TaskChange { task: task.label(), seconds, before })
}

impl TaskInput {
    /// `task.name` and the text of each of its outputs, cut where it is long.
    pub(super) fn named_outputs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.outputs.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (format!("{}.{name}", self.label()), shortened(&text, VALUE_MAX))
        })
    }
}

impl Comparison {
    /// Nothing is worth a word.
    pub fn is_empty(&self) -> bool {
        self.broken.is_empty()
            && self.fixed.is_empty()
            && self.added.is_empty()
            && self.removed.is_empty()
            && self.coverage.is_none_or(|points| points.abs() < POINTS)
            && self.coverage_files.is_empty()
            && self.tasks.is_empty()
            && self.outputs.is_empty()
            && self.files.is_empty()
    }
}

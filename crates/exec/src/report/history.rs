//! What earlier runs came to: their kept `report.json` files, brought down to what trends and comparisons need.
//!
//! Invariant: history is a gift. Whatever is missing, damaged or of another version makes it shorter and never fails
//! a report; and it is bounded, whatever the earlier reports hold. Files of version 1, which had no `version`, are
//! read like those of today.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::input::{CommitInput, FileInput, TaskInput};
use super::junit::Outcome;

/// Runs that trends go back.
pub const RUNS_MAX: usize = 20;
/// Tests whose past is followed; beyond it, those that ever failed come first.
const TESTS_MAX: usize = 10_000;
/// A report larger than this is not read again.
const REPORT_MAX: u64 = 64 << 20;

/// The past of a workflow, as a report gets it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The oldest first, [`RUNS_MAX`] at most.
    pub runs: Vec<PastRun>,
    /// By full name.
    pub tests: BTreeMap<String, PastTest>,
    /// The run before this one, in detail.
    pub previous: Option<Baseline>,
    /// The newest successful run of the main branch, in detail.
    pub main: Option<Baseline>,
}

/// A run that is over, in a line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PastRun {
    pub key: Option<i64>,
    pub run_id: String,
    pub url: Option<String>,
    pub state: String,
    pub start: Option<Timestamp>,
    pub seconds: Option<f64>,
    pub commit: Option<CommitInput>,
    /// `None`: it had no tests.
    pub tests: Option<Counts>,
    pub coverage: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    pub total: usize,
    pub passed: usize,
    pub failed: usize,
    pub errors: usize,
    pub skipped: usize,
}

/// What became of one test in every run of [`History::runs`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PastTest {
    /// A letter per run, as [`letter`] has them; `-` where it did not take part.
    pub outcomes: String,
    /// What it usually takes: the median.
    pub seconds: f64,
}

/// A run to compare with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Baseline {
    pub run: PastRun,
    /// Full name to letter.
    pub tests: BTreeMap<String, char>,
    /// Path to percent.
    pub coverage: BTreeMap<String, f64>,
    /// Label to seconds, of the tasks that succeeded.
    pub tasks: BTreeMap<String, f64>,
    /// `task.name` to its text.
    pub outputs: BTreeMap<String, String>,
    pub files: Vec<FileInput>,
}

/// A run whose report is to be read, as the store knows it.
#[derive(Debug, Clone)]
pub struct Earlier<'a> {
    pub run: PastRun,
    pub report: &'a Path,
}

/// The letter of an outcome in [`PastTest::outcomes`].
pub fn letter(outcome: Outcome) -> char {
    match outcome {
        Outcome::Failed => 'f',
        Outcome::Error => 'e',
        Outcome::Skipped => 's',
        Outcome::Passed => 'p',
    }
}

/// Reads what earlier runs left, given the newest first. The main branch is looked for among all of them; trends are
/// made of the newest [`RUNS_MAX`] that have a readable report.
pub fn read(earlier: &[Earlier<'_>]) -> History {
    let mut history = History::default();
    let mut kept: Vec<(PastRun, Kept)> = Vec::new();
    for candidate in earlier {
        let enough = kept.len() >= RUNS_MAX;
        if enough && history.main.is_some() {
            break;
        }
        let Some(mut report) = Kept::read(candidate.report) else { continue };
        let run = report.line(&candidate.run);
        if history.main.is_none() && run.state == "success" && run.commit.as_ref().is_some_and(CommitInput::is_main) {
            history.main = Some(report.baseline(&run));
        }
        if history.previous.is_none() {
            history.previous = Some(report.baseline(&run));
        }
        if !enough {
            report.keep_tests_only();
            kept.push((run, report));
        }
    }
    kept.reverse();
    history.tests = follow(&kept);
    history.runs = kept.into_iter().map(|(run, _)| run).collect();
    history
}

fn follow(runs: &[(PastRun, Kept)]) -> BTreeMap<String, PastTest> {
    let mut found: BTreeMap<String, (Vec<char>, Vec<f64>)> = BTreeMap::new();
    for (place, (_, report)) in runs.iter().enumerate() {
        for case in report.cases() {
            let (letters, seconds) = found.entry(case.full_name()).or_insert_with(|| (vec!['-'; runs.len()], vec![]));
            // Of several with one name, the worst counts.
            let worse = |old: char| !matches!(old, 'f' | 'e');
            if let Some(old) = letters.get_mut(place).filter(|old| worse(**old)) {
                *old = letter(case.outcome);
            }
            if case.outcome == Outcome::Passed {
                seconds.push(case.seconds);
            }
        }
    }
    let mut tests: Vec<(String, PastTest)> = found
        .into_iter()
        .map(|(name, (letters, seconds))| {
            (name, PastTest { outcomes: letters.into_iter().collect(), seconds: median(seconds).unwrap_or(0.0) })
        })
        .collect();
    if tests.len() > TESTS_MAX {
        tests.sort_by_key(|(_, test)| !test.outcomes.contains(['f', 'e']));
        tests.truncate(TESTS_MAX);
    }
    tests.into_iter().collect()
}

/// The middle one; `None` of nothing.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A `report.json` of any version, as far as history needs it. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kept {
    run: KeptRun,
    run_seconds: Option<f64>,
    tasks: Vec<TaskInput>,
    tests: Option<KeptTests>,
    coverage: Option<KeptCoverage>,
    files: Vec<FileInput>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeptRun {
    commit: Option<CommitInput>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeptTests {
    #[serde(flatten)]
    counts: Counts,
    cases: Vec<KeptCase>,
}

/// Without its texts, which make up most of a report of failures.
#[derive(Debug, Deserialize)]
struct KeptCase {
    name: String,
    #[serde(default)]
    class: String,
    outcome: Outcome,
    #[serde(default)]
    seconds: f64,
}

impl KeptCase {
    fn full_name(&self) -> String {
        super::junit::full_name(&self.class, &self.name)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeptCoverage {
    percent: f64,
    files: Vec<KeptFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct KeptFile {
    path: String,
    percent: f64,
}

impl Kept {
    fn read(path: &Path) -> Option<Kept> {
        let file = File::open(path).ok()?;
        let size = file.metadata().ok().filter(|meta| meta.is_file())?.len();
        if size > REPORT_MAX {
            return None;
        }
        serde_json::from_reader(BufReader::new(file.take(REPORT_MAX))).ok()
    }

    fn cases(&self) -> impl Iterator<Item = &KeptCase> {
        self.tests.iter().flat_map(|tests| &tests.cases)
    }

    /// What the store says of the run, and what only the report says.
    fn line(&self, known: &PastRun) -> PastRun {
        PastRun {
            // Until its report, as this run is measured too; not until its end.
            seconds: self.run_seconds.or(known.seconds),
            commit: self.run.commit.clone(),
            tests: self.tests.as_ref().map(|tests| tests.counts),
            coverage: self.coverage.as_ref().map(|coverage| coverage.percent),
            ..known.clone()
        }
    }

    fn baseline(&self, run: &PastRun) -> Baseline {
        let outputs = self.tasks.iter().flat_map(TaskInput::named_outputs);
        let done = self.tasks.iter().filter(|task| task.state == "success");
        Baseline {
            run: run.clone(),
            tests: self.cases().take(TESTS_MAX).map(|case| (case.full_name(), letter(case.outcome))).collect(),
            coverage: self
                .coverage
                .iter()
                .flat_map(|coverage| &coverage.files)
                .take(TESTS_MAX)
                .map(|file| (file.path.clone(), file.percent))
                .collect(),
            tasks: done.filter_map(|task| Some((task.label(), task.seconds()?))).collect(),
            outputs: outputs.collect(),
            files: self.files.clone(),
        }
    }

    fn keep_tests_only(&mut self) {
        self.tasks.clear();
        self.coverage = None;
        self.files.clear();
    }
}

//! Tests over runs: which fail anew, which were fixed, which cannot be trusted.
//!
//! Invariant: a test is in at most one of the lists of failures and fixes; `flaky` is a mark besides. A run in which a
//! test was skipped or did not take part says nothing about it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::history::{Counts, History, PastRun, letter};
use super::junit::{Case, Outcome, Tests};

/// Tests of one list in `report.json`; how many there are in all is told beside it.
const LIST_MAX: usize = 500;
/// Changes between passing and failing from which on a test counts as flaky.
const FLIPS: usize = 3;
/// A test is slower than usual from this factor on, and from this many seconds.
const SLOWER: (f64, f64) = (1.5, 0.5);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Trends {
    /// The oldest first; the last is the run of the report itself.
    pub runs: Vec<PastRun>,
    /// Fail now and passed before, or are new.
    pub new_failures: List<TestTrend>,
    /// Fail now, and failed before.
    pub still_failing: List<TestTrend>,
    /// Pass now, and failed before.
    pub fixed: List<TestTrend>,
    /// Passed and failed on the same commit, or changed at least three times between the two.
    pub flaky: List<TestTrend>,
    pub slower: List<SlowerTest>,
}

/// The first of something, with how many there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct List<T> {
    pub total: usize,
    pub first: Vec<T>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List { total: 0, first: Vec::new() }
    }
}

impl<T> List<T> {
    pub(super) fn of(items: impl IntoIterator<Item = T>) -> Self {
        let mut list = List::default();
        for item in items {
            list.total += 1;
            if list.first.len() < LIST_MAX {
                list.first.push(item);
            }
        }
        list
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TestTrend {
    pub test: String,
    /// A letter per run of [`Trends::runs`]: `p`assed, `f`ailed, `e`rror, `s`kipped, `-` not there.
    pub outcomes: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlowerTest {
    pub test: String,
    pub seconds: f64,
    /// The median of its earlier passes.
    pub usual_seconds: f64,
}

impl Trends {
    /// `None` without earlier runs: one run is no trend.
    pub(super) fn of(history: &History, now: PastRun, tests: Option<&Tests>) -> Option<Trends> {
        if history.runs.is_empty() {
            return None;
        }
        let runs: Vec<PastRun> = history.runs.iter().cloned().chain([now]).collect();
        let mut trends = Trends { runs, ..Trends::default() };
        let Some(tests) = tests else { return Some(trends) };
        let current = worst(tests);
        let never = "-".repeat(history.runs.len());
        let commits: Vec<Option<&str>> = trends.runs.iter().map(commit_of).collect();
        let line = |test: &str, now: char| {
            let past = history.tests.get(test).map_or(never.as_str(), |past| past.outcomes.as_str());
            TestTrend { test: test.to_owned(), outcomes: format!("{past}{now}") }
        };
        let (mut new, mut still, mut fixed, mut flaky) = (vec![], vec![], vec![], vec![]);
        for (test, case) in &current {
            let trend = line(test, letter(case.outcome));
            let before = trend.outcomes.chars().rev().skip(1).find_map(verdict);
            match (case.is_bad(), case.outcome == Outcome::Passed, before) {
                (true, _, Some(false)) => still.push(trend.clone()),
                (true, _, Some(true) | None) => new.push(trend.clone()),
                (false, true, Some(false)) => fixed.push(trend.clone()),
                (false, ..) => {}
            }
            if is_flaky(&trend.outcomes, &commits) {
                flaky.push(trend);
            }
        }
        let mut slower: Vec<SlowerTest> = current
            .iter()
            .filter_map(|(test, case)| {
                let usual_seconds = history.tests.get(test).map(|past| past.seconds).filter(|usual| *usual > 0.0)?;
                let slower = case.seconds > usual_seconds * SLOWER.0 && case.seconds - usual_seconds > SLOWER.1;
                slower.then(|| SlowerTest { test: test.clone(), seconds: case.seconds, usual_seconds })
            })
            .collect();
        slower.sort_by(|a, b| (b.seconds - b.usual_seconds).total_cmp(&(a.seconds - a.usual_seconds)));
        trends.new_failures = List::of(new);
        trends.still_failing = List::of(still);
        trends.fixed = List::of(fixed);
        trends.flaky = List::of(flaky);
        trends.slower = List::of(slower);
        Some(trends)
    }

    pub(super) fn is_flaky(&self, test: &str) -> bool {
        self.flaky.first.iter().any(|flaky| flaky.test == test)
    }
}

impl History {
    /// The tests that are flaky by the past alone.
    pub fn flaky(&self) -> Vec<TestTrend> {
        let commits: Vec<Option<&str>> = self.runs.iter().map(commit_of).collect();
        let flaky = self.tests.iter().filter(|(_, past)| is_flaky(&past.outcomes, &commits));
        flaky.map(|(test, past)| TestTrend { test: test.clone(), outcomes: past.outcomes.clone() }).collect()
    }
}

fn commit_of(run: &PastRun) -> Option<&str> {
    run.commit.as_ref().map(|commit| commit.commit.as_str()).filter(|text| !text.is_empty())
}

/// Of several cases with one name, the worst; by full name.
pub(super) fn worst(tests: &Tests) -> BTreeMap<String, &Case> {
    let mut found: BTreeMap<String, &Case> = BTreeMap::new();
    for case in &tests.cases {
        let old = found.entry(case.full_name()).or_insert(case);
        if case.outcome < old.outcome {
            *old = case;
        }
    }
    found
}

pub(super) fn counts(tests: &Tests) -> Counts {
    Counts {
        total: tests.total,
        passed: tests.passed,
        failed: tests.failed,
        errors: tests.errors,
        skipped: tests.skipped,
    }
}

/// Whether it passed; `None` where the letter says nothing about that.
fn verdict(letter: char) -> Option<bool> {
    match letter {
        'p' => Some(true),
        'f' | 'e' => Some(false),
        _ => None,
    }
}

/// `commits` has one entry per letter.
pub(super) fn is_flaky(outcomes: &str, commits: &[Option<&str>]) -> bool {
    let told: Vec<(bool, Option<&str>)> =
        outcomes.chars().zip(commits).filter_map(|(letter, commit)| Some((verdict(letter)?, *commit))).collect();
    let flips = told.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
    let (mut good, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for (passed, commit) in &told {
        if let Some(commit) = commit {
            if *passed {
                good.insert(*commit)
            } else {
                bad.insert(*commit)
            };
        }
    }
    flips >= FLIPS || good.intersection(&bad).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaky_is_what_changes_without_a_change_or_time_and_again() {
        let different = ["a", "b", "c", "d", "e"].map(Some);
        assert!(!is_flaky("ppfpp", &different), "broken once and mended");
        assert!(!is_flaky("fffpp", &different) && !is_flaky("ppppp", &different));
        assert!(is_flaky("pfpfp", &different), "time and again");
        assert!(is_flaky("p-sef", &["a", "b", "c", "a", "a"].map(Some)), "both on commit `a`");
        assert!(!is_flaky("ppfff", &[None; 5]), "without commits only the changes count");
    }
}

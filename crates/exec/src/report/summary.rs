//! The head of a report: what came of the run, in words and in figures.
//!
//! Invariant: a sentence is about what the reader would ask first, and says only what the data say. While the run goes
//! on, as when the report is one of its tasks, what has failed so far decides.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::history::PastRun;
use super::input::{AttemptInput, TaskInput, UsageInput};
use super::junit::Tests;
use super::model::{Report, seconds_between};
use super::text::{count, duration, grouped, percent, points, shortened, watt_hours};
use super::versions::Environment;

/// What a reader should know who reads nothing else.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// `success`, `failed`, `no failures` (so far) or another state of the run.
    pub verdict: String,
    pub sentences: Vec<String>,
    pub first_failure: Option<FirstFailure>,
}

/// The failure that came first, of a task that did not recover from it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FirstFailure {
    pub task: String,
    pub attempt: u32,
    pub at: Option<Timestamp>,
    /// Since the run started.
    pub after_seconds: Option<f64>,
    pub exit: String,
    /// The last line that says something.
    pub message: String,
}

pub(super) fn of(report: &Report) -> Summary {
    let first_failure = first_failure(report);
    let mut sentences = Vec::new();
    sentences.extend(first_failure.as_ref().map(told));
    sentences.extend(tasks(report));
    sentences.extend(report.tests.as_ref().and_then(|tests| told_tests(report, tests)));
    sentences.extend(report.notebooks.iter().filter_map(|notebook| {
        let error = notebook.error.as_ref()?;
        let cell = error.cell.map(|cell| format!(" in cell {cell}")).unwrap_or_default();
        Some(format!(
            "The notebook `{}` failed{cell}: {}.",
            notebook.notebook,
            shortened(first_line(&error.message), 200)
        ))
    }));
    sentences.extend(report.comparisons.iter().filter_map(|comparison| told_coverage(report, comparison)).take(1));
    sentences.extend(took(report));
    Summary { verdict: report.verdict().0, sentences, first_failure }
}

fn first_failure(report: &Report) -> Option<FirstFailure> {
    let failed = report.tasks.iter().filter(|task| task.state == "failed");
    let last = failed.filter_map(|task| Some((task, task.attempts.last()?)));
    let (task, attempt) = last.min_by_key(|(_, attempt)| attempt.end.unwrap_or(Timestamp::MAX))?;
    let start = report.run.start;
    Some(FirstFailure {
        task: task.label(),
        attempt: attempt.number,
        at: attempt.end,
        after_seconds: start.zip(attempt.end).map(|(start, end)| seconds_between(start, end)),
        exit: attempt.exit.clone(),
        message: shortened(last_words(&attempt.message, &attempt.exit), 200),
    })
}

/// The message of a failure is the end of its log and then how it ended; the line before that tells most.
fn last_words<'a>(message: &'a str, exit: &str) -> &'a str {
    let said = |line: &&str| !line.is_empty() && *line != exit && !line.ends_with(&format!(": {exit}"));
    message.lines().map(str::trim).rev().find(said).unwrap_or_default()
}

fn told(failure: &FirstFailure) -> String {
    let after = failure.after_seconds.map(|s| format!(" after {}", duration(s))).unwrap_or_default();
    let attempt = if failure.attempt > 1 { format!(", in attempt {}", failure.attempt) } else { String::new() };
    let why =
        [&failure.exit, &failure.message].into_iter().filter(|text| !text.is_empty()).cloned().collect::<Vec<_>>();
    let why = if why.is_empty() { String::new() } else { format!(": {}", why.join(", ")) };
    format!("`{}` failed first{after}{attempt}{why}.", failure.task)
}

fn tasks(report: &Report) -> Option<String> {
    let of = |mood| report.tasks.iter().filter(|task| mood_of(&task.state) == mood).count();
    let (all, good, bad) = (report.tasks.len(), of(Mood::Good), of(Mood::Bad));
    let held = report.tasks.iter().filter(|task| task.state == "upstream_failed").count();
    let again = report.tasks.iter().filter(|task| task.state == "success" && task.attempts.len() > 1).count();
    let mut text = match (all, bad) {
        (0, _) => return None,
        (_, 0) if good == all => {
            format!("{} succeeded", if all == 1 { "The task".into() } else { format!("All {} tasks", grouped(all)) })
        }
        (_, 0) => format!("{} of {} succeeded so far", grouped(good), count(all, "task", "tasks")),
        _ => format!("{} of {} failed", grouped(bad - held), count(all, "task", "tasks")),
    };
    if held > 0 {
        text.push_str(&format!(", and {} did not run because of that", count(held, "task", "tasks")));
    }
    if again > 0 {
        text.push_str(&format!("; {} needed more than one attempt", count(again, "task", "tasks")));
    }
    Some(text + ".")
}

fn told_tests(report: &Report, tests: &Tests) -> Option<String> {
    let bad = tests.failed + tests.errors;
    let skipped = if tests.skipped > 0 { format!(", {} skipped", grouped(tests.skipped)) } else { String::new() };
    let mut text = match (tests.total, bad) {
        (0, _) => return Some("No tests ran.".into()),
        (all, 0) => format!("{} passed{skipped}", count(all - tests.skipped, "test", "tests")),
        (all, bad) => format!("{} of {} failed{skipped}", grouped(bad), count(all, "test", "tests")),
    };
    if let Some(trends) = &report.trends {
        let parts = [
            (trends.new_failures.total, "new"),
            (trends.still_failing.total, "failed before"),
            (trends.fixed.total, "fixed"),
            (trends.flaky.total, "flaky"),
        ];
        let parts: Vec<String> =
            parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))).collect();
        if !parts.is_empty() {
            text.push_str(&format!(": {}", parts.join(", ")));
        }
    }
    Some(text + ".")
}

fn told_coverage(report: &Report, comparison: &Comparison) -> Option<String> {
    let (coverage, change) = (report.coverage.as_ref()?, comparison.coverage?);
    if change.abs() < 0.05 {
        return None;
    }
    let way = if change > 0.0 { "rose" } else { "fell" };
    let points = points(change.abs());
    Some(format!("Coverage {way} by {points} to {} since {}.", percent(coverage.percent), comparison.run.name()))
}

fn took(report: &Report) -> Option<String> {
    let seconds = report.run_seconds?;
    let change = report.comparisons.first().and_then(|other| Some((other.seconds?, other.run.name())));
    let change = change.filter(|(more, _)| more.abs() >= 1.0 && more.abs() > seconds * 0.05).map(|(more, other)| {
        let way = if more > 0.0 { "longer" } else { "shorter" };
        format!(", {} {way} than {other}", duration(more.abs()))
    });
    Some(format!("It took {}{}.", duration(seconds), change.unwrap_or_default()))
}

fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

impl PastRun {
    /// As people name it.
    pub(super) fn name(&self) -> String {
        self.key.map_or_else(|| self.run_id.clone(), |key| format!("run {key}"))
    }
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
        self.attempts.iter().filter_map(AttemptInput::seconds).reduce(|a, b| a + b)
    }

    /// Every attempt that was measured, with how it is called among the others.
    pub(super) fn measured(&self) -> impl Iterator<Item = (String, &UsageInput)> {
        let several = self.attempts.len() > 1;
        self.attempts.iter().filter_map(move |attempt| {
            let name = if several { format!("{}, try {}", self.label(), attempt.number) } else { self.label() };
            Some((name, attempt.usage.as_ref()?))
        })
    }
}

impl AttemptInput {
    pub(super) fn seconds(&self) -> Option<f64> {
        Some(seconds_between(self.start?, self.end?))
    }

    /// In a line: how it ended, and its last words.
    pub(super) fn how(&self) -> String {
        let words = last_words(&self.message, &self.exit);
        let parts: Vec<&str> = [self.exit.as_str(), words].into_iter().filter(|text| !text.is_empty()).collect();
        shortened(&parts.join(": "), 400)
    }
}

impl Environment {
    /// Names and versions, for a table.
    pub(super) fn lines(&self) -> Vec<(String, String)> {
        let mut lines = vec![("python".to_owned(), self.python.clone())];
        lines.extend(self.driver.iter().map(|version| ("NVIDIA driver".to_owned(), version.clone())));
        lines.extend(self.packages.iter().map(|(name, version)| (name.clone(), version.clone())));
        let more = self.installed.saturating_sub(self.packages.len());
        lines.push(("others".into(), count(more, "package", "packages")));
        lines
    }
}

impl Report {
    /// How coverage of each file changed since the run before, or since the main branch, in points.
    pub(super) fn coverage_changes(&self) -> impl Iterator<Item = (&str, f64)> {
        let with = self.comparisons.iter().find(|comparison| comparison.coverage.is_some());
        with.into_iter().flat_map(|with| &with.coverage_files).map(|(path, change)| (path.as_str(), *change))
    }

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
            let change = self.comparisons.iter().find_map(|other| other.coverage).filter(|change| change.abs() >= 0.05);
            let detail = match change {
                Some(change) => format!("{}{}", if change > 0.0 { "+" } else { "−" }, points(change.abs())),
                None => format!("{} of {} lines", coverage.covered, coverage.total),
            };
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
        let gpus: Vec<_> = self.tasks.iter().flat_map(TaskInput::measured).flat_map(|(_, usage)| &usage.gpus).collect();
        let used: Vec<f64> = gpus.iter().filter_map(|gpu| gpu.mean_utilization_percent).collect();
        if !used.is_empty() {
            let peak = gpus.iter().filter_map(|gpu| gpu.max_utilization_percent).fold(0.0, f64::max);
            let mean = used.iter().sum::<f64>() / used.len() as f64;
            let detail = format!("mean, {peak:.0} % at most");
            tiles.push(Tile { name: "GPU use", value: format!("{mean:.0} %"), detail, mood: Mood::Neutral });
        }
        // Each by the part of a device that it held, so the sum counts nothing twice.
        let energy: Vec<f64> = gpus.iter().filter_map(|gpu| gpu.energy_wh).collect();
        if !energy.is_empty() {
            let detail = format!("of {}", count(energy.len(), "GPU", "GPUs"));
            let value = watt_hours(energy.iter().sum());
            tiles.push(Tile { name: "GPU energy", value, detail, mood: Mood::Neutral });
        }
        tiles
    }

    /// What the run was about, a line each: the commit, who asked for it, the params.
    pub(super) fn about(&self) -> Vec<String> {
        let run = &self.run;
        let join = |parts: [Option<String>; 3]| parts.into_iter().flatten().collect::<Vec<_>>().join(" · ");
        let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let commit = run.commit.as_ref().map(|commit| {
            let branch = commit.branch.as_ref().map(|branch| format!(" on {branch}")).unwrap_or_default();
            let message = said(&shortened(&commit.message, 100));
            join([Some(format!("Commit {}{branch}", commit.short())), message, said(&commit.author)])
        });
        let kind = said(&run.run_type).map(|kind| format!(" ({kind})")).unwrap_or_default();
        let who = said(&run.triggered_by).map(|who| format!("Triggered by {who}{kind}"));
        let params: Vec<String> =
            run.params.iter().map(|(name, value)| format!("{name}={}", super::html::shown(value))).collect();
        let params = said(&shortened(&params.join(", "), 160));
        [commit, Some(join([who, params, None]))].into_iter().flatten().filter(|line| !line.is_empty()).collect()
    }

    /// Names and values about the run, for a table.
    pub(super) fn facts(&self) -> Vec<(&'static str, String)> {
        let run = &self.run;
        let mut facts = vec![("Workflow", run.workflow.clone()), ("Run", run.run_id.clone())];
        let time = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        facts.extend(run.start.map(|at| ("Started", time(at))));
        facts.extend(run.end.map(|at| ("Ended", time(at))));
        facts.extend(self.run_seconds.map(|s| ("Duration", duration(s))));
        let kind = if run.run_type.is_empty() { String::new() } else { format!(" ({})", run.run_type) };
        facts.push(("Triggered by", format!("{}{kind}", run.triggered_by).trim().to_owned()));
        if let Some(commit) = &run.commit {
            let branch = commit.branch.as_ref().map(|branch| format!(" on {branch}")).unwrap_or_default();
            facts.push(("Commit", format!("{}{branch}", commit.short())));
            facts.push(("Message", commit.message.clone()));
            facts.push(("Author", commit.author.clone()));
        }
        let versions: Vec<String> = run.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        facts.push(("Versions", versions.join(", ")));
        facts.retain(|(_, value)| !value.is_empty());
        facts
    }
}

//! What the last days came to, compared with as many days before: for a mail on Monday morning.
//!
//! Counts are exact, also over a million runs. Everything else is read from a bounded number of runs and reports, and
//! the digest says so when that was not all of them. It is a function of the store and the kept reports; who sends it,
//! and when, is decided elsewhere.

use std::collections::BTreeMap;

use askama::Template;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::state::RunState;
use pitcrew_exec::report::{Earlier, PastRun, duration, read_history};
use pitcrew_store::{Between, Figures, FiguresOf, Paging, RunCounts, RunFilter, RunOrder, Store};
use serde::{Deserialize, Serialize};

use crate::paths::DataDir;
use crate::reports::{self, Form};

/// Runs that are looked at one by one.
const RUNS_MAX: u32 = 20_000;
/// Workflows whose reports are read, and reports of each.
const REPORTED_MAX: usize = 30;
const REPORTS_MAX: usize = 20;
/// Rows of each list.
const LIST_MAX: usize = 10;

/// Some days, and as many before them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Digest {
    pub since: Timestamp,
    pub until: Timestamp,
    pub now: Span,
    pub before: Span,
    /// Those with failures, the most first.
    pub failures: Vec<Failures>,
    pub flaky: Vec<Flaky>,
    /// Successful runs, the longest first.
    pub slowest: Vec<Slow>,
    /// For people: what it does not tell.
    pub remarks: Vec<String>,
    /// The overview page; empty without a server.
    pub url: String,
}

/// Figures of some days. What is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// That ended.
    pub runs: u64,
    pub failed: u64,
    pub cancelled: u64,
    /// Of those that were not cancelled.
    pub success_percent: Option<f64>,
    /// Of successful runs.
    pub mean_seconds: Option<f64>,
    /// From a failure to the next success.
    pub recovery_seconds: Option<f64>,
    pub gpu_percent: Option<f64>,
    pub gpu_hours: f64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    pub workflow: String,
    pub failed: u64,
    pub runs: u64,
    pub failed_before: u64,
}

/// A test that passes and fails on the same commit, or time and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flaky {
    pub workflow: String,
    pub test: String,
    /// A letter per run, the oldest first: `p`assed, `f`ailed, `e`rror, `s`kipped, `-` not there.
    pub outcomes: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slow {
    pub workflow: String,
    pub run: i64,
    pub seconds: f64,
}

impl Slow {
    fn time(&self) -> String {
        duration(self.seconds)
    }
}

/// The stretch that is summed up unless somebody wants another one.
pub const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Ten years.
pub const HOURS_MAX: i64 = 10 * 366 * 24;

/// The digest of the seven days until `until`.
pub async fn week(store: &Store, data: &DataDir, base_url: &str, until: Timestamp) -> anyhow::Result<Digest> {
    over(store, data, base_url, WEEK, until).await
}

/// The digest of a stretch of time that ends at `until`.
pub async fn over(
    store: &Store,
    data: &DataDir,
    base_url: &str,
    length: SignedDuration,
    until: Timestamp,
) -> anyhow::Result<Digest> {
    let since = until.checked_sub(length)?;
    let earlier = since.checked_sub(length)?;
    let figures = |since, until| FiguresOf { workflow: None, since, until };
    let now = span(&store.figures(&figures(since, until)).await?);
    let before = span(&store.figures(&figures(earlier, since)).await?);
    let filter = RunFilter {
        states: [RunState::Success, RunState::Failed, RunState::Cancelled].to_vec(),
        end: Between { from: Some(earlier), to: Some(until) },
        order: RunOrder::EndDescending,
        ..RunFilter::default()
    };
    let page = store.runs(&filter, Paging::first(RUNS_MAX)).await?;
    let mut remarks = Vec::new();
    if page.total > page.rows.len() as u64 {
        remarks.push(format!("lists are of the newest {} of {} runs", page.rows.len(), page.total));
    }
    let is_now = |run: &&RunRecord| run.end.is_some_and(|end| end >= since && end < until);
    let recent: Vec<&RunRecord> = page.rows.iter().filter(is_now).collect();
    let flaky = flaky(data, &recent).await;
    Ok(Digest {
        since,
        until,
        now,
        before,
        failures: failures(&page.rows, since, until),
        flaky,
        slowest: slowest(&recent),
        remarks,
        url: base_url.to_owned(),
    })
}

fn span(figures: &Figures) -> Span {
    let RunCounts { success, failed, cancelled, .. } = figures.runs;
    let judged = success + failed;
    Span {
        runs: success + failed + cancelled,
        failed,
        cancelled,
        success_percent: (judged > 0).then(|| 100.0 * success as f64 / judged as f64),
        mean_seconds: figures.duration.mean,
        recovery_seconds: figures.recovery.mean,
        gpu_percent: figures.gpu_utilization,
        gpu_hours: figures.gpu_seconds / 3600.0,
    }
}

fn failures(runs: &[RunRecord], since: Timestamp, until: Timestamp) -> Vec<Failures> {
    let mut found: BTreeMap<&str, Failures> = BTreeMap::new();
    for run in runs {
        let Some(end) = run.end.filter(|end| *end < until) else { continue };
        let workflow = run.workflow.as_str();
        let none = || Failures { workflow: workflow.to_owned(), failed: 0, runs: 0, failed_before: 0 };
        let entry = found.entry(workflow).or_insert_with(none);
        let failed = u64::from(run.state == RunState::Failed);
        if end >= since {
            entry.runs += 1;
            entry.failed += failed;
        } else {
            entry.failed_before += failed;
        }
    }
    let mut failures: Vec<Failures> = found.into_values().filter(|entry| entry.failed > 0).collect();
    failures.sort_by_key(|entry| std::cmp::Reverse(entry.failed));
    failures.truncate(LIST_MAX);
    failures
}

fn slowest(runs: &[&RunRecord]) -> Vec<Slow> {
    let mut slow: Vec<Slow> = runs
        .iter()
        .filter(|run| run.state == RunState::Success)
        .filter_map(|run| {
            let seconds = run.end?.duration_since(run.start?).as_secs_f64();
            Some(Slow { workflow: run.workflow.to_string(), run: run.key.0, seconds })
        })
        .collect();
    slow.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    slow.truncate(LIST_MAX);
    slow
}

/// By the kept reports of the workflows that ran; `runs` begins with the newest.
async fn flaky(data: &DataDir, runs: &[&RunRecord]) -> Vec<Flaky> {
    let mut of: BTreeMap<String, Vec<PastRun>> = BTreeMap::new();
    for run in runs {
        let known = of.len();
        let entry = of.entry(run.workflow.to_string());
        match entry {
            std::collections::btree_map::Entry::Vacant(_) if known >= REPORTED_MAX => {}
            entry => entry.or_default().push(reports::line(run, "")),
        }
    }
    let data = data.clone();
    let read = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        for (workflow, runs) in of {
            let kept: Vec<_> = runs
                .into_iter()
                .filter_map(|run| {
                    let report = reports::of_run(&data, pitcrew_core::RunKey(run.key?)).into_iter().next()?;
                    Some((run, report.path(Form::Json)))
                })
                .take(REPORTS_MAX)
                .collect();
            let kept: Vec<Earlier<'_>> =
                kept.iter().map(|(run, report)| Earlier { run: run.clone(), report }).collect();
            let flaky = read_history(&kept).flaky();
            found.extend(flaky.into_iter().take(LIST_MAX).map(|trend| Flaky {
                workflow: workflow.clone(),
                test: trend.test,
                outcomes: trend.outcomes,
            }));
        }
        found
    });
    read.await.unwrap_or_default()
}

/// A figure of both spans, as shown: its name, its value, and how it changed.
struct Row {
    name: &'static str,
    value: String,
    change: String,
}

/// The page of a digest; also the body of a mail.
#[derive(Template)]
#[template(path = "digest.html")]
struct Page<'a> {
    digest: &'a Digest,
    rows: Vec<Row>,
}

impl Digest {
    /// In a line: the subject of a mail.
    pub fn title(&self) -> String {
        let rate = self.now.success_percent.map(|p| format!(", {p:.1} % successful")).unwrap_or_default();
        let days = [self.since, self.until].map(|at| at.strftime("%Y-%m-%d").to_string());
        format!("Pitcrew, {} to {}: {} runs{rate}", days[0], days[1], self.now.runs)
    }

    fn rows(&self) -> Vec<Row> {
        let (now, before) = (&self.now, &self.before);
        let signed = |change: f64, text: String| format!("{}{text}", if change < 0.0 { "−" } else { "+" });
        let change = |of: fn(&Span) -> Option<f64>, write: &dyn Fn(f64) -> String| {
            let by = of(now).zip(of(before)).map(|(now, before)| now - before).filter(|by| by.abs() >= 0.05);
            by.map(|by| signed(by, write(by.abs()))).unwrap_or_default()
        };
        let points = |by: f64| format!("{by:.1} points");
        let count = |by: f64| format!("{by:.0}");
        let row = |name, value: Option<String>, change| value.map(|value| Row { name, value, change });
        let percent = |value: Option<f64>| value.map(|value| format!("{value:.1} %"));
        let rows = [
            row("Runs", Some(now.runs.to_string()), change(|s| Some(s.runs as f64), &count)),
            row("Failed", Some(now.failed.to_string()), change(|s| Some(s.failed as f64), &count)),
            row("Success rate", percent(now.success_percent), change(|s| s.success_percent, &points)),
            row("Mean duration", now.mean_seconds.map(duration), change(|s| s.mean_seconds, &duration)),
            row("Mean recovery", now.recovery_seconds.map(duration), change(|s| s.recovery_seconds, &duration)),
            row("GPU use", percent(now.gpu_percent), change(|s| s.gpu_percent, &points)),
            row(
                "GPU hours",
                (now.gpu_hours > 0.0).then(|| format!("{:.1}", now.gpu_hours)),
                change(|s| Some(s.gpu_hours), &|by| format!("{by:.1}")),
            ),
        ];
        rows.into_iter().flatten().collect()
    }

    /// For a terminal, and for mail readers that show no HTML.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.title());
        for Row { name, value, change } in self.rows() {
            let change = if change.is_empty() { change } else { format!("  ({change})") };
            out.push_str(&format!("  {name:<15}{value}{change}\n"));
        }
        let mut list = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                out.push_str(&format!("\n{title}\n"));
                lines.iter().for_each(|line| out.push_str(&format!("  {line}\n")));
            }
        };
        let failed =
            |f: &Failures| format!("{}: {} of {} runs (before: {})", f.workflow, f.failed, f.runs, f.failed_before);
        list("Failures by workflow", self.failures.iter().map(failed).collect());
        list("Flaky tests", self.flaky.iter().map(|f| format!("{}: {}  {}", f.workflow, f.test, f.outcomes)).collect());
        let slow = |s: &Slow| format!("{}, run {}: {}", s.workflow, s.run, duration(s.seconds));
        list("Slowest runs", self.slowest.iter().map(slow).collect());
        list("Remarks", self.remarks.clone());
        if !self.url.is_empty() {
            out.push_str(&format!("\n{}\n", self.url));
        }
        out
    }

    /// One page that loads nothing.
    pub fn html(&self) -> anyhow::Result<String> {
        Ok(Page { digest: self, rows: self.rows() }.render()?)
    }
}

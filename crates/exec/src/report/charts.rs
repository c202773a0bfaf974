//! The report's charts: which figures go into which kind of chart.
//!
//! A chart is `None` when it would show nothing, and shows the most telling part when there is too much.

use super::chart::{self, Bar, Cell, Chart, Span, Tone};
use super::history::PastRun;
use super::input::{TaskInput, UsageInput};
use super::model::{Notebook, Report, seconds_between};
use super::over_runs::{self, Column};
use super::summary::{Mood, mood_of};
use super::text::{bytes, duration, percent};
use super::trends::TestTrend;

/// As many rows as fit on a page.
pub(super) const ROWS: usize = 36;

impl Mood {
    pub(super) fn tone(self) -> Tone {
        match self {
            Mood::Good => Tone::Good,
            Mood::Bad => Tone::Bad,
            Mood::Warn => Tone::Warn,
            Mood::Neutral => Tone::Accent,
        }
    }
}

/// When each task ran. Beyond [`ROWS`] tasks, the longest ones, in their order.
pub(super) fn timeline(report: &Report, width: f64) -> Option<Chart> {
    let attempts = || report.tasks.iter().flat_map(|task| &task.attempts);
    let origin = report.run.start.or_else(|| attempts().filter_map(|a| a.start).min())?;
    let last = report.run.end.into_iter().chain(attempts().filter_map(|a| a.end)).max();
    let end = last.unwrap_or(report.generated).max(origin);
    let mut lanes = Vec::new();
    for task in &report.tasks {
        let spans: Vec<Span> = task
            .attempts
            .iter()
            .filter_map(|attempt| {
                let start = seconds_between(origin, attempt.start?);
                let stop = seconds_between(origin, attempt.end.unwrap_or(end)).max(start);
                let tone = match (attempt.end, attempt.success) {
                    (None, _) => Tone::Accent,
                    (Some(_), true) => Tone::Good,
                    (Some(_), false) => Tone::Bad,
                };
                let how = if attempt.exit.is_empty() { String::new() } else { format!(", {}", attempt.exit) };
                let tip = format!("{}, attempt {}: {}{how}", task.label(), attempt.number, duration(stop - start));
                Some(Span { start, end: stop, tone, tip })
            })
            .collect();
        if !spans.is_empty() {
            lanes.push((task.label(), spans));
        }
    }
    let mut lengths: Vec<f64> = lanes.iter().map(|(_, spans)| length(spans)).collect();
    lengths.sort_by(|a, b| b.total_cmp(a));
    if let Some(least) = lengths.get(ROWS) {
        lanes.retain(|(_, spans)| length(spans) > *least);
        lanes.truncate(ROWS);
    }
    let total = seconds_between(origin, end);
    (!lanes.is_empty()).then(|| chart::timeline("When each task ran", &lanes, total, width))
}

fn length(spans: &[Span]) -> f64 {
    spans.iter().map(|span| span.end - span.start).sum()
}

pub(super) fn outcomes(report: &Report, width: f64) -> Option<Chart> {
    let tests = report.tests.as_ref().filter(|tests| tests.total > 0)?;
    let parts = [
        ("passed", tests.passed, Tone::Good),
        ("failed", tests.failed, Tone::Bad),
        ("errors", tests.errors, Tone::Bad),
        ("skipped", tests.skipped, Tone::Warn),
    ];
    Some(chart::parts("Tests by outcome", &parts, width))
}

pub(super) fn slowest(report: &Report, width: f64) -> Option<Chart> {
    let slowest = report.tests.as_ref()?.slowest(12);
    let longest = slowest.first()?.seconds;
    let bars: Vec<Bar> = slowest
        .iter()
        .map(|case| Bar {
            label: case.name.clone(),
            value: case.seconds,
            text: duration(case.seconds),
            tone: if case.is_bad() { Tone::Bad } else { Tone::Accent },
            tip: format!("{}: {}", case.full_name(), duration(case.seconds)),
        })
        .collect();
    Some(chart::bars("The slowest tests", &bars, longest, false, width))
}

pub(super) fn coverage(report: &Report, width: f64) -> Option<Chart> {
    let files = report.coverage.as_ref()?.least_covered();
    let bars: Vec<Bar> = files
        .iter()
        .filter(|file| file.total > 0)
        .take(ROWS)
        .map(|file| Bar {
            label: file.path.clone(),
            value: file.percent,
            text: percent(file.percent),
            tone: Tone::Accent,
            tip: format!("{}: {} of {} lines", file.path, file.covered, file.total),
        })
        .collect();
    (!bars.is_empty()).then(|| chart::bars("Lines that tests reach, by file", &bars, 100.0, true, width))
}

/// Seconds per cell, in the notebook's order; beyond [`ROWS`] cells, the longest.
pub(super) fn cells(notebook: &Notebook, width: f64) -> Option<Chart> {
    let mut ran: Vec<_> = notebook.cells.iter().filter_map(|cell| Some((cell, cell.seconds?))).collect();
    let longest = ran.iter().map(|(_, seconds)| *seconds).reduce(f64::max)?;
    ran.sort_by(|a, b| b.1.total_cmp(&a.1));
    ran.truncate(ROWS);
    ran.sort_by_key(|(cell, _)| cell.number);
    let bars: Vec<Bar> = ran
        .into_iter()
        .map(|(cell, seconds)| Bar {
            label: format!("{}. {}", cell.number, cell.source.split_whitespace().collect::<Vec<_>>().join(" ")),
            value: seconds,
            text: duration(seconds),
            tone: if mood_of(&cell.state) == Mood::Bad { Tone::Bad } else { Tone::Accent },
            tip: format!("cell {}: {}", cell.number, duration(seconds)),
        })
        .collect();
    Some(chart::bars("Time per cell of the notebook", &bars, longest, false, width))
}

/// What every attempt used of processors, memory and GPUs; beyond [`ROWS`] of them, the longest.
pub(super) fn resources(report: &Report, width: f64) -> Option<Chart> {
    let mut used: Vec<_> = report.tasks.iter().flat_map(TaskInput::measured).enumerate().collect();
    // What had no process used nothing that could be measured.
    used.retain(|(_, (_, u))| u.peak_memory_bytes.is_some() || u.user_cpu_seconds + u.system_cpu_seconds > 0.0);
    used.sort_by(|a, b| b.1.1.wall_seconds.total_cmp(&a.1.1.wall_seconds));
    used.truncate(ROWS);
    // Attempts of one task stay together.
    used.sort_by_key(|(place, _)| *place);
    let used: Vec<_> = used.into_iter().map(|(_, attempt)| attempt).collect();
    let cores = |u: &UsageInput| (u.user_cpu_seconds + u.system_cpu_seconds) / u.wall_seconds.max(0.001);
    let most_cores = used.iter().map(|(_, u)| cores(u)).fold(1.0, f64::max);
    let most_memory = used.iter().filter_map(|(_, u)| u.peak_memory_bytes).max().unwrap_or(0).max(1) as f64;
    let most_gpu_memory =
        used.iter().flat_map(|(_, u)| &u.gpus).filter_map(|g| g.max_memory_bytes).max().unwrap_or(0).max(1) as f64;
    let gpus = used.iter().any(|(_, u)| !u.gpus.is_empty());
    let mut heads = vec![("CPU, mean cores", Tone::Accent), ("Memory, peak", Tone::Second)];
    if gpus {
        heads.extend([("GPU, mean and peak", Tone::Good), ("GPU memory, peak", Tone::Second)]);
    }
    let plain = |share, text| Cell { share, mark: None, text };
    let row = |usage: &UsageInput| {
        let memory = usage.peak_memory_bytes.map(|peak| plain(peak as f64 / most_memory, bytes(peak)));
        let mut cells = vec![Some(plain(cores(usage) / most_cores, format!("{:.1}", cores(usage)))), memory];
        if gpus {
            let told: Vec<f64> = usage.gpus.iter().filter_map(|g| g.mean_utilization_percent).collect();
            let mean = told.iter().sum::<f64>() / told.len() as f64;
            let peak = usage.gpus.iter().filter_map(|g| g.max_utilization_percent).fold(0.0, f64::max);
            let text = format!("{mean:.0} %");
            cells.push((!told.is_empty()).then(|| Cell { share: mean / 100.0, mark: Some(peak / 100.0), text }));
            let memory = usage.gpus.iter().filter_map(|g| g.max_memory_bytes).max();
            cells.push(memory.map(|m| plain(m as f64 / most_gpu_memory, bytes(m))));
        }
        cells
    };
    let rows: Vec<_> = used.into_iter().map(|(name, usage)| (name, row(usage))).collect();
    (!rows.is_empty()).then(|| chart::columns("What the tasks used", &heads, &rows, width))
}

/// Passed, skipped and failed tests of the last runs.
pub(super) fn tests_over_runs(report: &Report, width: f64) -> Option<Chart> {
    let trends = report.trends.as_ref()?;
    trends.runs.iter().any(|run| run.tests.is_some()).then_some(())?;
    let column = |run: &PastRun| {
        let counts = run.tests.unwrap_or_default();
        let bad = counts.failed + counts.errors;
        let tip = format!("{}: {} passed, {bad} failed, {} skipped", run.name(), counts.passed, counts.skipped);
        let parts = [(counts.passed, Tone::Good), (counts.skipped, Tone::Warn), (bad, Tone::Bad)];
        Column { label: tick(run), parts: parts.map(|(count, tone)| (count as f64, tone)).to_vec(), tip }
    };
    let columns: Vec<Column> = trends.runs.iter().map(column).collect();
    Some(over_runs::stacks("Tests of the last runs", &columns, |most| format!("{most:.0}"), width))
}

/// How long the last runs took, in the colour of how they ended.
pub(super) fn time_over_runs(report: &Report, width: f64) -> Option<Chart> {
    let trends = report.trends.as_ref()?;
    let column = |run: &PastRun| {
        let seconds = run.seconds.unwrap_or(0.0);
        let tip = format!("{}: {}, {}", run.name(), run.state, duration(seconds));
        Column { label: tick(run), parts: vec![(seconds, mood_of(&run.state).tone())], tip }
    };
    let columns: Vec<Column> = trends.runs.iter().map(column).collect();
    Some(over_runs::stacks("Durations of the last runs", &columns, duration, width))
}

pub(super) fn coverage_over_runs(report: &Report, width: f64) -> Option<Chart> {
    let runs = &report.trends.as_ref()?.runs;
    (runs.iter().filter(|run| run.coverage.is_some()).count() > 1).then_some(())?;
    let points: Vec<_> = runs.iter().map(|run| (tick(run), run.coverage)).collect();
    over_runs::levels("Coverage of the last runs", &points, percent, width)
}

/// The past of tests that deserve a look.
pub(super) fn strips(label: &str, tests: &[TestTrend], width: f64) -> Option<Chart> {
    let rows: Vec<_> = tests.iter().take(ROWS).map(|test| (test.test.clone(), test.outcomes.clone())).collect();
    (!rows.is_empty()).then(|| over_runs::strips(label, &rows, width))
}

fn tick(run: &PastRun) -> String {
    run.key.map(|key| key.to_string()).unwrap_or_default()
}

//! The four service figures of the last week, each against its target, with a line for its days.
//!
//! Reading them takes a look at many runs, so they are kept for minutes and shared by all pages; no page waits for them
//! before its first byte.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use pitcrew_control::config::Targets;
use pitcrew_store::{Figures, FiguresOf, Spread, Store, StoreError};

use super::fmt;

/// How long figures are good.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
const DAYS: i64 = 7;

/// The figures of each of the last days, the oldest first.
type Days = Arc<[Figures]>;

/// Figures that were read lately. Cheap to clone.
#[derive(Clone, Default)]
pub struct FigureCache(Arc<Shared>);

#[derive(Default)]
struct Shared {
    kept: Mutex<Option<(Timestamp, Days)>>,
    /// Whoever comes while they are read waits for that rather than reading them too.
    reading: tokio::sync::Mutex<()>,
}

impl FigureCache {
    /// What is known, without waiting; what is old is read anew meanwhile.
    pub fn known(&self, store: &Store, now: Timestamp) -> Option<Days> {
        let kept = self.kept();
        if !kept.as_ref().is_some_and(|(read, _)| is_fresh(*read, now)) {
            let (cache, store) = (self.clone(), store.clone());
            tokio::spawn(async move {
                if let Err(error) = cache.read(&store, now).await {
                    tracing::warn!(%error, "cannot read the service figures");
                }
            });
        }
        kept.map(|(_, days)| days)
    }

    /// What is known; waits only where nothing is.
    pub async fn days(&self, store: &Store, now: Timestamp) -> Result<Days, StoreError> {
        match self.known(store, now) {
            Some(days) => Ok(days),
            None => self.read(store, now).await,
        }
    }

    async fn read(&self, store: &Store, now: Timestamp) -> Result<Days, StoreError> {
        let _reading = self.0.reading.lock().await;
        if let Some((read, days)) = self.kept()
            && is_fresh(read, now)
        {
            return Ok(days);
        }
        let mut days = Vec::new();
        for ago in (0..DAYS).rev() {
            let hours = |count: i64| SignedDuration::from_hours(24 * count);
            let of = FiguresOf { workflow: None, since: now - hours(ago + 1), until: now - hours(ago) };
            days.push(store.figures(&of).await?);
        }
        let days: Days = days.into();
        *self.lock() = Some((now, days.clone()));
        Ok(days)
    }

    fn kept(&self) -> Option<(Timestamp, Days)> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Timestamp, Days)>> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_fresh(read: Timestamp, now: Timestamp) -> bool {
    now.duration_since(read) < FRESH
}

/// One figure as shown.
pub struct Figure {
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// The value, or why there is none.
    pub value: Result<String, &'static str>,
    pub target: String,
    pub is_met: Option<bool>,
    /// Corners of its line in a box 100 wide and 28 high, one list for each stretch of days with a value.
    pub lines: Vec<String>,
    /// The height of the target in that box.
    pub target_y: f64,
    /// The days in words.
    pub days: String,
}

/// A value of each day, those without one left out, and of all of them together.
struct Series {
    days: Vec<Option<f64>>,
    all: Option<f64>,
}

impl Series {
    /// `of` gives a value and its weight.
    fn new(days: &[Figures], of: impl Fn(&Figures) -> Option<(f64, f64)>) -> Series {
        let found: Vec<Option<(f64, f64)>> = days.iter().map(of).collect();
        let weight: f64 = found.iter().flatten().map(|(_, weight)| weight).sum();
        let sum: f64 = found.iter().flatten().map(|(value, weight)| value * weight).sum();
        Series {
            days: found.iter().map(|day| day.map(|(value, _)| value)).collect(),
            all: (weight > 0.0).then(|| sum / weight),
        }
    }
}

fn mean(spread: &Spread) -> Option<(f64, f64)> {
    Some((spread.mean?, spread.count as f64))
}

/// The four figures before anything is known of them.
pub fn unread(targets: &Targets) -> Vec<Figure> {
    let figures = figures(&[], targets).into_iter();
    figures.map(|figure| Figure { value: Err("being read"), ..figure }).collect()
}

/// The four figures of these days.
pub fn figures(days: &[Figures], targets: &Targets) -> Vec<Figure> {
    let percent = |value: f64| format!("{:.0} %", 100.0 * value);
    let precise = |value: f64| format!("{} %", (1000.0 * value + 1e-9).floor() / 10.0);
    let span = |seconds: f64| {
        let text = fmt::duration(SignedDuration::from_secs_f64(seconds.clamp(0.0, 1e9)));
        [" 0 s", " 0 min", " 0 h"].iter().find_map(|none| text.strip_suffix(none)).unwrap_or(&text).to_owned()
    };
    let ended = |figures: &Figures| {
        // What somebody cancelled says nothing about how well it goes.
        let total = figures.runs.success + figures.runs.failed;
        (total > 0).then(|| (figures.runs.success as f64 / total as f64, total as f64))
    };
    let gpu = |figures: &Figures| Some((figures.gpu_utilization? / 100.0, figures.gpu_seconds));
    let any_ended = days.iter().any(|day| day.runs.success + day.runs.failed > 0);
    let any_failed = days.iter().any(|day| day.runs.failed > 0);
    vec![
        figure(
            ("GPU utilisation", "how busy GPUs were while tasks held them"),
            Series::new(days, gpu),
            (targets.gpu_use, true),
            percent,
            "no task used a GPU",
        ),
        figure(
            ("Success rate", "how many of the runs that ended succeeded"),
            Series::new(days, ended),
            (targets.success, true),
            precise,
            "no run ended",
        ),
        figure(
            ("Mean duration", "how long successful runs took"),
            Series::new(days, |day| mean(&day.duration)),
            (targets.duration.as_secs_f64(), false),
            span,
            if any_ended { "no run succeeded" } else { "no run ended" },
        ),
        figure(
            ("Recovery time", "from a failed run to the next success of its workflow"),
            Series::new(days, |day| mean(&day.recovery)),
            (targets.recovery.as_secs_f64(), false),
            span,
            if any_failed { "nothing that failed has succeeded since" } else { "nothing failed" },
        ),
    ]
}

fn figure(
    (name, about): (&'static str, &'static str),
    series: Series,
    (target, at_least): (f64, bool),
    show: impl Fn(f64) -> String,
    missing: &'static str,
) -> Figure {
    let top = series.days.iter().flatten().copied().fold(target, f64::max).max(f64::EPSILON);
    let y = |value: f64| (1000.0 * (26.0 - 24.0 * value / top)).round() / 1000.0;
    let mut lines = vec![String::new()];
    for (at, day) in series.days.iter().enumerate() {
        match day {
            Some(value) => {
                let (x, width) = (100.0 * at as f64 / DAYS as f64, 100.0 / DAYS as f64);
                // A day is as wide as it lasted, so that one alone can be seen too.
                let line = lines.last_mut().expect("never empty");
                line.push_str(&format!("{:.2},{1} {2:.2},{1} ", x + 0.12 * width, y(*value), x + 0.88 * width));
            }
            None => lines.push(String::new()),
        }
    }
    lines.retain(|line| !line.is_empty());
    let words = |day: &Option<f64>| day.map_or_else(|| "none".to_owned(), &show);
    Figure {
        name,
        about,
        value: series.all.map(&show).ok_or(missing),
        target: format!("{} {}", if at_least { "at least" } else { "at most" }, show(target)),
        is_met: series.all.map(|value| if at_least { value >= target } else { value <= target }),
        lines,
        target_y: y(target),
        days: series.days.iter().map(words).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets {
        gpu_use: 0.7,
        success: 0.95,
        duration: SignedDuration::from_mins(30),
        recovery: SignedDuration::from_hours(1),
    };

    #[test]
    fn figures_are_weighted_held_against_their_targets_and_say_why_they_are_missing() {
        let mut busy = Figures { gpu_utilization: Some(80.0), gpu_seconds: 300.0, ..Figures::default() };
        (busy.runs.success, busy.runs.failed, busy.runs.cancelled) = (9, 1, 90);
        busy.duration = Spread { count: 9, mean: Some(60.0), ..Spread::default() };
        let mut poor = Figures { gpu_utilization: Some(40.0), gpu_seconds: 100.0, ..Figures::default() };
        poor.runs.failed = 10;
        let shown = figures(&[Figures::default(), busy, poor], &TARGETS);
        let told: Vec<_> = shown.iter().map(|f| (f.value.clone(), f.is_met)).collect();
        assert_eq!(told[0], (Ok("70 %".to_owned()), Some(true)));
        assert_eq!(told[1], (Ok("45 %".to_owned()), Some(false)));
        assert_eq!(told[2], (Ok("1 min".to_owned()), Some(true)));
        assert_eq!(told[3], (Err("nothing that failed has succeeded since"), None));
        assert_eq!(shown[1].days, "none, 90 %, 0 %");
        let none: Vec<_> = figures(&[Figures::default()], &TARGETS).into_iter().map(|f| f.value).collect();
        assert_eq!(none, [Err("no task used a GPU"), Err("no run ended"), Err("no run ended"), Err("nothing failed")]);
    }

    #[test]
    fn no_rate_is_rounded_up_to_perfect() {
        let mut day = Figures::default();
        (day.runs.success, day.runs.failed) = (9_999, 1);
        assert_eq!(figures(&[day], &TARGETS)[1].value, Ok("99.9 %".to_owned()));
    }
}

//! When a workflow runs by itself: which times its schedule names, and which of them is due.
//!
//! A schedule names a strictly increasing row of instants, its *trigger times*, that depends on nothing but the
//! schedule and, for an interval without a start, on the moment the workflow was first seen. The trigger time is the
//! run's logical date, so the same schedule asked twice, before and after a restart, names the same run; no logical
//! date comes twice. The data interval reaches from the previous trigger time to this one: the intervals of
//! consecutive runs touch and never overlap, also where the clock changes. Every trigger time is a whole second.

mod cron;
mod describe;
mod expression;
mod interval;
#[cfg(test)]
mod tests;
mod zone;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use cron::CronRule;
use interval::Grid;

/// The schedule of a workflow, checked: the expression parses and the time zone exists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub timing: Timing,
    /// Make up for times missed while paused or down; otherwise only the newest missed time runs.
    pub catchup: bool,
    /// No logical date before this.
    pub start: Option<Timestamp>,
    /// No logical date after this.
    pub end: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// Five fields or `@daily` and its like, in a time zone of the IANA database.
    Cron {
        expression: String,
        timezone: String,
    },
    Interval(SignedDuration),
}

/// The shortest interval.
pub const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("the cron expression `{expression}` {problem}")]
    Expression { expression: String, problem: String },
    #[error("the {field} field `{text}` of the cron expression `{expression}` {problem}")]
    Field { expression: String, field: &'static str, text: String, problem: String },
    #[error("the cron expression `{0}` never matches: no such day exists")]
    Never(String),
    #[error("`{name}` is not a time zone: {hint}")]
    TimeZone { name: String, hint: String },
    #[error("an interval is a whole number of seconds, 1 or more; this one is {0:#}")]
    Interval(SignedDuration),
    #[error("the schedule ends at {end}, before it starts at {start}")]
    EndsFirst { start: Timestamp, end: Timestamp },
}

impl Timing {
    /// A cron expression in an IANA time zone, both checked.
    pub fn cron(expression: &str, timezone: &str) -> Result<Self, ScheduleError> {
        CronRule::new(expression, timezone)?;
        Ok(Timing::Cron { expression: expression.trim().to_owned(), timezone: timezone.trim().to_owned() })
    }

    /// Every `period`: whole seconds, at least [`SHORTEST_INTERVAL`].
    pub fn interval(period: SignedDuration) -> Result<Self, ScheduleError> {
        Grid::new(period, Timestamp::UNIX_EPOCH)?;
        Ok(Timing::Interval(period))
    }
}

/// One run that a schedule asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// The trigger time.
    pub logical_date: Timestamp,
    /// From the previous trigger time to this one; the end is not part of it.
    pub data_interval: (Timestamp, Timestamp),
    /// Not started before this; the trigger time.
    pub run_after: Timestamp,
}

impl Schedule {
    /// Whether the schedule can run at all.
    pub fn check(&self) -> Result<(), ScheduleError> {
        self.timetable(Timestamp::UNIX_EPOCH).map(drop)
    }

    /// The schedule made ready to be asked. `anchor` is the moment the workflow was first seen with a schedule. It must
    /// be kept and stay the same over restarts: see [`Timetable::next`].
    pub fn timetable(&self, anchor: Timestamp) -> Result<Timetable, ScheduleError> {
        if let (Some(start), Some(end)) = (self.start, self.end)
            && end < start
        {
            return Err(ScheduleError::EndsFirst { start, end });
        }
        let (rule, first_seen) = match &self.timing {
            Timing::Cron { expression, timezone } => (Rule::Cron(CronRule::new(expression, timezone)?), anchor),
            Timing::Interval(period) => {
                let grid = Grid::new(*period, self.start.unwrap_or(anchor))?;
                // The first run of an interval that counts from the first sight comes one period after it.
                let first_seen = if self.start.is_some() { Some(anchor) } else { grid.after(grid.base) };
                (Rule::Every(grid), first_seen.unwrap_or(Timestamp::MAX))
            }
        };
        let earliest = match self.start {
            Some(start) if self.catchup => start,
            Some(start) => start.max(first_seen),
            None => first_seen,
        };
        Ok(Timetable { rule, catchup: self.catchup, start: self.start, end: self.end, earliest })
    }

    /// The schedule in a few words for people, such as `every day at 02:00 Asia/Seoul`.
    pub fn describe(&self) -> String {
        describe::timing(&self.timing)
    }
}

#[derive(Debug, Clone)]
enum Rule {
    Cron(CronRule),
    Every(Grid),
}

impl Rule {
    /// The first trigger time after `t`.
    fn after(&self, t: Timestamp) -> Option<Timestamp> {
        match self {
            Rule::Cron(cron) => cron.after(t),
            Rule::Every(grid) => grid.after(t),
        }
    }

    /// The last trigger time before `t`.
    fn before(&self, t: Timestamp) -> Option<Timestamp> {
        match self {
            Rule::Cron(cron) => cron.before(t),
            Rule::Every(grid) => grid.before(t),
        }
    }

    fn at_or_after(&self, t: Timestamp) -> Option<Timestamp> {
        self.after(t.checked_sub(TICK).ok()?)
    }

    fn at_or_before(&self, t: Timestamp) -> Option<Timestamp> {
        self.before(t.checked_add(TICK).ok()?)
    }
}

/// The least difference of two instants.
const TICK: SignedDuration = SignedDuration::from_nanos(1);

/// The whole second at `t` or before it.
fn second_of(t: Timestamp) -> Option<Timestamp> {
    let second = t.as_nanosecond().div_euclid(SignedDuration::from_secs(1).as_nanos());
    Timestamp::from_second(i64::try_from(second).ok()?).ok()
}

/// A schedule ready to be asked: parsed once, and bound to the moment its workflow was first seen.
#[derive(Debug, Clone)]
pub struct Timetable {
    rule: Rule,
    catchup: bool,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    /// The scheduler makes no run for a time before this.
    earliest: Timestamp,
}

impl Timetable {
    /// The next run to make, due if its `run_after` has come; `None` when there is none any more. `last` is the newest
    /// logical date that the schedule was given a run for, or that turned out to be taken by another run.
    ///
    /// - With catch-up: the first trigger time after `last`; without a `last`, the first from `start` on, or from the
    ///   anchor on if there is no start.
    /// - Without: the newest missed trigger time if one was missed since `last` (so at most one run is made up for), else
    ///   the first in the future. A time before the anchor was not missed: a workflow that is new does not run at
    ///   once, it waits for its time. Airflow runs the newest past time of a new workflow right away; we do not, because
    ///   who adds a nightly job at noon does not expect it to start at noon.
    ///
    /// An interval counts from `start`, or else from the anchor: its times do not drift when a run is late, and a
    /// restart does not move them.
    pub fn next(&self, last: Option<Timestamp>, now: Timestamp) -> Option<Occurrence> {
        let fresh = |t: &Timestamp| *t >= self.earliest && last.is_none_or(|last| *t > last);
        let missed = || {
            let newest = self.rule.at_or_before(self.end.map_or(now, |end| end.min(now)))?;
            Some(newest).filter(fresh)
        };
        let following = |t: Option<Timestamp>| match t {
            Some(t) if t >= self.earliest => self.rule.after(t),
            _ => self.rule.at_or_after(self.earliest),
        };
        let date = if self.catchup { following(last) } else { missed().or_else(|| following(last.max(Some(now)))) };
        date.filter(|date| self.inside(*date)).map(|date| self.occurrence(date))
    }

    /// The first `limit` trigger times in `from..=to`, both ends included, oldest first: what a backfill runs. The times of
    /// an interval are those of its regular runs, continued to before the anchor. The result says nothing about what
    /// lies beyond the limit, so ask for one more than is allowed to learn that a range is too long. It knows no
    /// `now`: to leave the future out, end at the present.
    pub fn between(&self, from: Timestamp, to: Timestamp, limit: usize) -> Vec<Occurrence> {
        let first = self.start.map_or(from, |start| start.max(from));
        self.row(self.rule.at_or_after(first)).take_while(|o| o.logical_date <= to).take(limit).collect()
    }

    /// The next `count` trigger times after `now`, for people to see what is to come; missed ones are not among them.
    pub fn upcoming(&self, now: Timestamp, count: usize) -> Vec<Occurrence> {
        let first = if now < self.earliest { self.rule.at_or_after(self.earliest) } else { self.rule.after(now) };
        self.row(first).take(count).collect()
    }

    fn row(&self, first: Option<Timestamp>) -> impl Iterator<Item = Occurrence> {
        std::iter::successors(first, |t| self.rule.after(*t))
            .take_while(|t| self.inside(*t))
            .map(|t| self.occurrence(t))
    }

    fn inside(&self, t: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= t) && self.end.is_none_or(|end| t <= end)
    }

    fn occurrence(&self, date: Timestamp) -> Occurrence {
        let previous = self.rule.before(date).unwrap_or(date);
        Occurrence { logical_date: date, data_interval: (previous, date), run_after: date }
    }
}

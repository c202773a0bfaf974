//! When tasks ran, as bars on the time axis of their run. What still runs reaches to the right edge, which is now.

use jiff::Timestamp;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};

use super::fmt;
use crate::view::TaskSummary;

/// The axis: from the start of the run to its end, or to now.
pub struct Axis {
    start: Timestamp,
    seconds: f64,
}

/// A bar, in hundredths of the axis: first the wait for its start, then the work.
pub struct Bar {
    pub state: &'static str,
    pub wait_x: f64,
    pub wait_width: f64,
    pub x: f64,
    pub width: f64,
    pub is_open: bool,
    pub label: String,
}

/// Narrower bars cannot be seen.
const NARROWEST: f64 = 0.9;

impl Axis {
    pub fn of(run: &RunRecord, now: Timestamp) -> Axis {
        let start = run.start.unwrap_or(run.queued_at);
        let end = run.end.unwrap_or(now);
        Axis { start, seconds: end.duration_since(start).as_secs_f64().max(0.001) }
    }

    /// How far along the axis a moment is; a cleared task may have run before the run began anew.
    fn place(&self, at: Timestamp) -> f64 {
        (100.0 * at.duration_since(self.start).as_secs_f64() / self.seconds).clamp(0.0, 100.0)
    }

    /// The bar of an instance that has begun.
    pub fn bar(&self, row: &InstanceRecord) -> Option<Bar> {
        let start = self.place(row.start?);
        let is_open = row.state.is_live();
        let end = if is_open { 100.0 } else { self.place(row.end?) };
        let x = start.min(100.0 - NARROWEST);
        let wait_x = row.queued_at.map_or(x, |at| self.place(at)).min(x);
        let took = row.end.zip(row.start).map(|(end, start)| fmt::duration(end.duration_since(start)));
        Some(Bar {
            state: row.state.name(),
            wait_x,
            wait_width: x - wait_x,
            x,
            width: (end - x).max(NARROWEST),
            is_open,
            label: took.unwrap_or_else(|| "running".to_owned()),
        })
    }

    /// One bar for all instances of a mapped task, from the first start to the last end.
    pub fn span(&self, summary: &TaskSummary) -> Option<Bar> {
        let first = summary.rows.iter().filter_map(|row| row.start).min()?;
        let x = self.place(first).min(100.0 - NARROWEST);
        let is_open = summary.rows.iter().any(|row| row.state.is_live());
        let last = summary.rows.iter().filter_map(|row| row.end).max();
        let end = if is_open { 100.0 } else { last.map_or(x, |at| self.place(at)) };
        let label = last.map(|last| fmt::duration(last.duration_since(first))).filter(|_| !is_open);
        Some(Bar {
            state: summary.state.name(),
            wait_x: x,
            wait_width: 0.0,
            x,
            width: (end - x).max(NARROWEST),
            is_open,
            label: label.unwrap_or_else(|| "running".to_owned()),
        })
    }

    /// The length of the axis, for its end.
    pub fn length(&self) -> String {
        fmt::duration(jiff::SignedDuration::from_millis((self.seconds * 1000.0) as i64))
    }
}

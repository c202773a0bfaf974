//! Progress as plain lines, one per task that came to rest: for pipes, CI logs and files.

use jiff::Timestamp;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::state::State;

use super::document;
use crate::cli::format;
use crate::cli::ui::Paint;

/// The lines about instances that changed.
pub fn lines(run: &RunRecord, rows: &[InstanceRecord], pitcrew: &str, paint: Paint, now: Timestamp) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.state.is_final() || matches!(row.state, State::UpForRetry { .. })) {
        let at = row.end.unwrap_or(now);
        text.push_str(&format!("{} {}\n", paint.dim(format::clock_time(at)), document::line(row, paint, now)));
        if row.state == State::Failed {
            text.push_str(&document::log_end(run, row, pitcrew, paint));
        }
    }
    text
}

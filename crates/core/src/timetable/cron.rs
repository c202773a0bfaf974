//! Trigger times of a cron expression in a time zone, right where the clock of the zone changes.
//!
//! Between two changes the zone has one offset, and clock times map to instants one to one: such a *stretch* is searched
//! on the clock alone. The changes are where the two kinds of expression part, as they do in Vixie cron:
//!
//! - *Fixed times* (`30 2 * * *`): every time on the clock happens once a day. A time that the clock skips runs at the
//!   first instant after the skip, all skipped times together as one run; a time that it shows twice runs at the first.
//! - *Repeating* (minute or hour is `*` or `*/n`, or has all values): runs whenever the clock shows a matching time. So
//!   it keeps its beat through a skipped or repeated hour.
//!
//! Each stretch is later than the one before, and within a stretch times grow, so trigger times are strictly increasing.

use croner::{Cron, CronComponent};
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

use super::expression::{self, parse};
use super::{ScheduleError, TICK, second_of, zone};

/// How far a search goes. The calendar's rarest day, a 29 February on a given weekday, comes at least every 40 years.
/// What lies beyond can only be a repeating expression for an hour that its zone skips each year.
const HORIZON: SignedDuration = SignedDuration::from_hours(50 * 366 * 24);

const SECOND: SignedDuration = SignedDuration::from_secs(1);

#[derive(Debug, Clone)]
pub(super) struct CronRule {
    cron: Cron,
    zone: TimeZone,
    /// Of the first kind above.
    fixed: bool,
}

impl CronRule {
    pub fn new(expression: &str, timezone: &str) -> Result<Self, ScheduleError> {
        let cron = parse(expression)?;
        let zone = zone::find(timezone)?;
        let fixed = !repeats(&cron.pattern.minutes, 60) && !repeats(&cron.pattern.hours, 24);
        Ok(CronRule { cron, zone, fixed })
    }

    /// The first trigger time after `t`.
    pub fn after(&self, t: Timestamp) -> Option<Timestamp> {
        let horizon = t.checked_add(HORIZON).unwrap_or(Timestamp::MAX);
        let t = second_of(t)?;
        let mut offset = self.zone.to_offset(t);
        let mut from = offset.to_datetime(t).checked_add(SECOND).ok()?;
        if self.fixed
            && let Some(change) = self.zone.preceding(t.checked_add(SECOND).ok()?).next()
        {
            // In a repeated hour the clock has shown these times before.
            from = from.max(self.offset_before(change.timestamp())?.to_datetime(change.timestamp()));
        }
        let mut changes = self.zone.following(t);
        loop {
            let clock = expression::at_or_after(&self.cron, from)?;
            let found = offset.to_timestamp(clock).ok()?;
            let Some(change) = changes.next().filter(|change| change.timestamp() <= found) else {
                return Some(found);
            };
            let at = change.timestamp();
            let left = offset.to_datetime(at);
            let entered = change.offset().to_datetime(at);
            if self.fixed && left <= clock && clock < entered {
                return Some(at);
            }
            if at > horizon {
                return None;
            }
            offset = change.offset();
            from = if self.fixed { entered.max(left) } else { entered };
        }
    }

    /// The last trigger time before `t`.
    pub fn before(&self, t: Timestamp) -> Option<Timestamp> {
        let horizon = t.checked_sub(HORIZON).unwrap_or(Timestamp::MIN);
        let t = second_of(t.checked_add(SECOND - TICK).ok()?)?;
        let mut offset = self.offset_before(t)?;
        let mut until = offset.to_datetime(t);
        let mut changes = self.zone.preceding(t);
        loop {
            let clock = expression::before(&self.cron, until)?;
            let found = offset.to_timestamp(clock).ok()?;
            let Some(at) = changes.next().map(|change| change.timestamp()) else {
                return Some(found);
            };
            let entered = offset.to_datetime(at);
            offset = self.offset_before(at)?;
            let left = offset.to_datetime(at);
            if clock >= if self.fixed { entered.max(left) } else { entered } {
                return Some(found);
            }
            if self.fixed && left <= clock {
                return Some(at);
            }
            if at < horizon {
                return None;
            }
            until = left;
        }
    }

    /// The offset that holds until `t`. Changes and trigger times are whole seconds.
    fn offset_before(&self, t: Timestamp) -> Option<Offset> {
        Some(self.zone.to_offset(t.checked_sub(SECOND).ok()?))
    }
}

/// Whether a field was written to match again and again rather than at named values.
fn repeats(field: &CronComponent, all: usize) -> bool {
    field.from_wildcard || field.values().len() == all
}

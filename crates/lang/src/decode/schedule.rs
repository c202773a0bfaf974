//! `schedule`: a text (`0 2 * * *`, `@daily`) or a mapping.

use pitcrew_core::timetable::{Schedule, ScheduleError, Timing};
use pitcrew_core::{SignedDuration, Timestamp};

use super::{Decoder, keys};
use crate::diagnostic::Place;
use crate::yaml::Node;

const UTC: &str = "UTC";

impl Decoder<'_, '_> {
    pub fn schedule(&mut self, node: &Node) -> Option<Schedule> {
        if node.is_null() {
            return None;
        }
        if let Some(scalar) = node.as_scalar() {
            let expression = self.cron(&scalar.text, node.at)?;
            let timing = Timing::Cron { expression, timezone: UTC.into() };
            return Some(Schedule { timing, catchup: false, start: None, end: None });
        }
        let Some(entries) = node.as_map() else {
            self.mismatch(node, "`schedule`", "a text such as `0 2 * * *` or `@daily`, or a mapping");
            return None;
        };
        let (mut cron, mut interval, mut zone, mut catchup) = (None, None, None, false);
        let (mut start, mut end) = (None, None);
        for entry in entries {
            let node = &entry.value;
            match &*entry.key.text {
                "cron" => cron = self.text(node, "cron").and_then(|text| self.cron(&text, node.at)),
                "interval" => interval = self.interval(node),
                "timezone" => zone = self.zone(node),
                "catchup" => catchup = self.flag(node, "catchup").unwrap_or_default(),
                "start" => start = Some(node),
                "end" => end = Some(node),
                _ => self.unknown(&entry.key, keys::SCHEDULE, "`schedule`"),
            }
        }
        let timezone = zone.unwrap_or_else(|| UTC.into());
        let start = start.and_then(|node| self.moment(node, "start", &timezone));
        let end_at = end.and_then(|node| self.moment(node, "end", &timezone));
        if let (Some(start), Some(end_at), Some(end)) = (start, end_at, end)
            && start > end_at
        {
            self.r.error(end.at, "`end` is before `start`");
        }
        let timing = match (node.get("cron"), node.get("interval")) {
            (Some(_), Some(both)) => {
                self.r.error_hint(both.at, "`schedule` has both `cron` and `interval`", "keep one of them");
                return None;
            }
            (None, None) => {
                let hint =
                    "add `cron: \"0 2 * * *\"` or `interval: 10m`, or leave `schedule` out to start runs by hand";
                self.r.error_hint(Place { length: 1, ..node.at }, "`schedule` says no time", hint);
                return None;
            }
            (Some(_), None) => Timing::Cron { expression: cron?, timezone },
            (None, Some(_)) => Timing::Interval(interval?),
        };
        Some(Schedule { timing, catchup, start, end: end_at })
    }

    fn interval(&mut self, node: &Node) -> Option<SignedDuration> {
        let period = self.duration(node, "interval", true)?;
        Timing::interval(period).map_err(|error| self.r.error(node.at, error.to_string())).ok().map(|_| period)
    }

    fn cron(&mut self, text: &str, at: Place) -> Option<String> {
        match Timing::cron(text, UTC) {
            Ok(_) => Some(text.trim().to_owned()),
            Err(error) => {
                // The field that is wrong, where it can be pointed at.
                let part = match &error {
                    ScheduleError::Field { text, .. } => self.r.locate(at, text, 0, 200),
                    _ => None,
                };
                self.r.error(part.unwrap_or(at), error.to_string());
                None
            }
        }
    }

    fn zone(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "timezone")?;
        match Timing::cron("@daily", &name) {
            Ok(_) => Some(name),
            Err(ScheduleError::TimeZone { name, hint }) => {
                self.r.error_hint(node.at, format!("`{name}` is not a time zone"), hint);
                None
            }
            Err(error) => {
                self.r.error(node.at, error.to_string());
                None
            }
        }
    }

    /// A date, a time in the schedule's zone, or a time with its own offset.
    fn moment(&mut self, node: &Node, key: &str, timezone: &str) -> Option<Timestamp> {
        let text = self.text(node, key)?;
        let zone = jiff::tz::TimeZone::get(timezone).unwrap_or(jiff::tz::TimeZone::UTC);
        let parsed = text.parse::<Timestamp>().ok().or_else(|| {
            let civil: jiff::civil::DateTime = text.parse().ok()?;
            civil.to_zoned(zone).ok().map(|zoned| zoned.timestamp())
        });
        if parsed.is_none() {
            let message = format!(
                "`{key}` must be a date or time such as `2026-01-31` or `2026-01-31T02:00:00Z`, found `{text}`"
            );
            self.r.error(node.at, message);
        }
        parsed
    }
}

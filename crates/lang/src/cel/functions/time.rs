//! Parts of timestamps, in UTC or in a given zone, and of durations. Months, days of the month and of the year count
//! from 0 where the language says so; `getDate` from 1. Sunday is 0.

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::super::eval::Machine;
use super::super::fault::Problem;
use super::super::value::Value;
use super::{Row, text_of};

pub(crate) const ROWS: &[Row] = &[
    ("timestamp.getFullYear() -> int", |m, a| part(m, a, |at| i64::from(at.year()))),
    ("timestamp.getFullYear(string) -> int", |m, a| part(m, a, |at| i64::from(at.year()))),
    ("timestamp.getMonth() -> int", |m, a| part(m, a, |at| i64::from(at.month()) - 1)),
    ("timestamp.getMonth(string) -> int", |m, a| part(m, a, |at| i64::from(at.month()) - 1)),
    ("timestamp.getDate() -> int", |m, a| part(m, a, |at| i64::from(at.day()))),
    ("timestamp.getDate(string) -> int", |m, a| part(m, a, |at| i64::from(at.day()))),
    ("timestamp.getDayOfMonth() -> int", |m, a| part(m, a, |at| i64::from(at.day()) - 1)),
    ("timestamp.getDayOfMonth(string) -> int", |m, a| part(m, a, |at| i64::from(at.day()) - 1)),
    ("timestamp.getDayOfWeek() -> int", |m, a| part(m, a, weekday)),
    ("timestamp.getDayOfWeek(string) -> int", |m, a| part(m, a, weekday)),
    ("timestamp.getDayOfYear() -> int", |m, a| part(m, a, |at| i64::from(at.day_of_year()) - 1)),
    ("timestamp.getDayOfYear(string) -> int", |m, a| part(m, a, |at| i64::from(at.day_of_year()) - 1)),
    ("timestamp.getHours() -> int", |m, a| part(m, a, |at| i64::from(at.hour()))),
    ("timestamp.getHours(string) -> int", |m, a| part(m, a, |at| i64::from(at.hour()))),
    ("timestamp.getMinutes() -> int", |m, a| part(m, a, |at| i64::from(at.minute()))),
    ("timestamp.getMinutes(string) -> int", |m, a| part(m, a, |at| i64::from(at.minute()))),
    ("timestamp.getSeconds() -> int", |m, a| part(m, a, |at| i64::from(at.second()))),
    ("timestamp.getSeconds(string) -> int", |m, a| part(m, a, |at| i64::from(at.second()))),
    ("timestamp.getMilliseconds() -> int", |m, a| part(m, a, |at| i64::from(at.subsec_nanosecond()) / 1_000_000)),
    ("timestamp.getMilliseconds(string) -> int", |m, a| part(m, a, |at| i64::from(at.subsec_nanosecond()) / 1_000_000)),
    ("duration.getHours() -> int", |_, a| whole(a, 3_600_000_000_000)),
    ("duration.getMinutes() -> int", |_, a| whole(a, 60_000_000_000)),
    ("duration.getSeconds() -> int", |_, a| whole(a, 1_000_000_000)),
    ("duration.getMilliseconds() -> int", |_, a| whole(a, 1_000_000)),
];

fn weekday(at: DateTime) -> i64 {
    i64::from(at.weekday().to_sunday_zero_offset())
}

fn part(_: &mut Machine<'_>, args: &[Value], of: fn(DateTime) -> i64) -> Result<Value, Problem> {
    let Value::Timestamp(at) = &args[0] else { return Err(Problem::overload("a timestamp is expected")) };
    let zone = if args.len() > 1 { zone(text_of(args, 1)?)? } else { TimeZone::UTC };
    Ok(Value::Int(of(zone.to_datetime(*at))))
}

/// A name such as `Europe/Rome`, or `+02:00`; `02:00` is east, too.
fn zone(text: &str) -> Result<TimeZone, Problem> {
    let unknown = || Problem::value(format!("{:?} is no time zone", text.chars().take(60).collect::<String>()));
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if let Some((hours, minutes)) = digits.split_once(':') {
        let number = |part: &str| {
            let right = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            right.then(|| part.parse::<i32>().ok()).flatten().ok_or_else(unknown)
        };
        let seconds = number(hours)? * 3_600 + number(minutes)? * 60;
        let offset = Offset::from_seconds(if negative { -seconds } else { seconds }).map_err(|_| unknown())?;
        return Ok(offset.to_time_zone());
    }
    if text.is_empty() || text == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(text).map_err(|_| unknown())
}

fn whole(args: &[Value], unit: i64) -> Result<Value, Problem> {
    match &args[0] {
        Value::Duration(nanoseconds) => Ok(Value::Int(nanoseconds / unit)),
        _ => Err(Problem::overload("a duration is expected")),
    }
}

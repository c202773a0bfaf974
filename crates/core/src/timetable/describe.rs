//! A schedule in words: the usual ones read as people say them, and the others are shown as written.
//!
//! The words come from the values that a field matches, not from how it was written, so they cannot be wrong about it.

use std::borrow::Borrow;

use croner::{Cron, CronPattern};
use jiff::SignedDuration;

use super::Timing;
use super::expression;

/// More values than this do not read well as a list.
const LONGEST_LIST: usize = 4;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) fn timing(timing: &Timing) -> String {
    match timing {
        Timing::Interval(period) => every(*period),
        Timing::Cron { expression, timezone } => {
            let words = expression::parse(expression).ok().and_then(|cron| words(&cron));
            format!("{} {timezone}", words.as_deref().unwrap_or(expression))
        }
    }
}

fn every(period: SignedDuration) -> String {
    let units = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    let unit = units.iter().find(|(_, secs)| period.as_secs() % secs == 0);
    unit.map_or_else(|| format!("every {period:#}"), |(unit, secs)| count(period.as_secs() / secs, unit))
}

fn count(n: i64, unit: &str) -> String {
    if n == 1 { format!("every {unit}") } else { format!("every {n} {unit}s") }
}

fn words(cron: &Cron) -> Option<String> {
    let time = time(&cron.pattern)?;
    let days = days(&cron.pattern)?;
    Some(match (days.is_empty(), time.starts_with("at ")) {
        (true, false) => time,
        (true, true) => format!("every day {time}"),
        (false, _) => format!("{days} {time}"),
    })
}

fn time(pattern: &CronPattern) -> Option<String> {
    let minutes = pattern.minutes.values();
    let hours = pattern.hours.values();
    let (first, last) = (*hours.first()?, *hours.last()?);
    let clock = |hour: u16, minute: u16| format!("{hour:02}:{minute:02}");
    if let [minute] = minutes[..] {
        return match (hours.len(), beat(&hours, 24), minute) {
            (24, _, 0) => Some("every hour".to_owned()),
            (24, _, 1) => Some("1 minute past every hour".to_owned()),
            (24, _, minute) => Some(format!("{minute} minutes past every hour")),
            (len, ..) if len <= LONGEST_LIST => {
                let times: Vec<_> = hours.iter().map(|hour| clock(*hour, minute)).collect();
                Some(format!("at {}", list(&times)))
            }
            (_, Some(n), 0) => Some(format!("every {n} hours from 00:00")),
            _ if run_of(&hours) => Some(format!("every hour from {} to {}", clock(first, minute), clock(last, minute))),
            _ => None,
        };
    }
    let often = count(beat(&minutes, 60)?.into(), "minute");
    match hours.len() {
        24 => Some(often),
        _ if run_of(&hours) => Some(format!("{often} from {} to {}", clock(first, 0), clock(last, *minutes.last()?))),
        _ => None,
    }
}

/// The days and months, empty for every day.
fn days(pattern: &CronPattern) -> Option<String> {
    if pattern.days.has_modifiers() || pattern.days_of_week.has_modifiers() {
        return None;
    }
    let months: Vec<_> = pattern.months.values().iter().map(|month| MONTHS[usize::from(month - 1)]).collect();
    let months = match months.len() {
        12 => None,
        len if len <= LONGEST_LIST => Some(list(&months)),
        _ => return None,
    };
    let within = months.as_ref().map(|months| format!(" in {months}")).unwrap_or_default();
    match (pattern.is_dom_wildcard(), pattern.is_dow_wildcard()) {
        (true, true) if months.is_none() => Some(String::new()),
        (true, true) => Some(format!("every day{within}")),
        (true, false) => Some(format!("{}{within}", weekdays(&pattern.days_of_week.values()))),
        (false, true) => {
            let days: Vec<_> = pattern.days.values().iter().map(u16::to_string).collect();
            let months = months.as_deref().unwrap_or("the month");
            (days.len() <= LONGEST_LIST).then(|| format!("day {} of {months}", list(&days)))
        }
        (false, false) => None,
    }
}

/// From Monday on; `values` count from Sunday.
fn weekdays(values: &[u16]) -> String {
    let mut values: Vec<u16> = values.iter().map(|day| (day + 6) % 7).collect();
    values.sort_unstable();
    let names: Vec<_> = values.iter().map(|day| DAYS[usize::from(*day)]).collect();
    match names[..] {
        [_, _, _, _, _, _, _] => "every day".to_owned(),
        [first, _, .., last] if names.len() > 2 && run_of(&values) => format!("{first} to {last}"),
        _ => list(&names),
    }
}

/// The distance of values that are spread evenly over `0..all`, from 0 on.
fn beat(values: &[u16], all: u16) -> Option<u16> {
    let len = u16::try_from(values.len()).ok().filter(|len| *len > 1 && all.is_multiple_of(*len))?;
    let n = all / len;
    values.iter().zip(0..).all(|(value, at)| *value == at * n).then_some(n)
}

fn run_of(values: &[u16]) -> bool {
    values.windows(2).all(|pair| pair[0] + 1 == pair[1])
}

fn list<T: Borrow<str>>(items: &[T]) -> String {
    match items {
        [] => String::new(),
        [only] => only.borrow().to_owned(),
        [rest @ .., last] => format!("{} and {}", rest.join(", "), last.borrow()),
    }
}

//! Reading a cron expression, and saying exactly what is wrong with one.
//!
//! The parser of `croner` decides what is valid; the checks before it exist for their messages, and refuse what it would
//! read as something the writer cannot have meant, such as `*/90` minutes. An expression that passes matches some day.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::{DateTime, date};

use super::ScheduleError;

pub(super) const NICKNAMES: [(&str, &str); 8] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * SUN"),
    ("@monthly", "0 0 1 * *"),
    ("@quarterly", "0 0 1 */3 *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

struct Field {
    name: &'static str,
    low: u32,
    high: u32,
    /// Names of the values from `low` on.
    names: &'static [&'static str],
    /// Letters with a meaning of their own, alone or behind a value.
    letters: &'static [&'static str],
    takes: &'static str,
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", low: 0, high: 59, names: &[], letters: &[], takes: "0-59" },
    Field { name: "hour", low: 0, high: 23, names: &[], letters: &[], takes: "0-23" },
    Field {
        name: "day of month",
        low: 1,
        high: 31,
        names: &[],
        letters: &["L", "W", "LW"],
        takes: "1-31, `L` for the last day and `15W` for the nearest working day",
    },
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
        letters: &[],
        takes: "1-12 or JAN-DEC",
    },
    Field {
        name: "day of week",
        low: 0,
        high: 7,
        names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
        letters: &["L"],
        takes: "0-7 (0 and 7 are Sunday) or SUN-SAT, `MON#1` for the first and `FRIL` for the last of the month",
    },
];

/// The pattern of an expression that is valid and matches some day.
pub(super) fn parse(expression: &str) -> Result<Cron, ScheduleError> {
    let refuse = |problem: String| ScheduleError::Expression { expression: expression.trim().to_owned(), problem };
    let text = expand(expression).ok_or_else(|| {
        let known: Vec<_> = NICKNAMES.iter().map(|(name, _)| format!("`{name}`")).collect();
        refuse(format!("is not a known name; use {} or five fields", known.join(", ")))
    })?;
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.len() {
        5 => {}
        0 => return Err(refuse("is empty; write five fields, such as `0 2 * * *`".to_owned())),
        6 | 7 => {
            return Err(refuse(format!(
                "has {} fields; write five, from minute to day of week, and use an interval for less than a minute",
                fields.len()
            )));
        }
        count => {
            return Err(refuse(format!(
                "has {count} field{}; write five: minute, hour, day of month, month, day of week",
                if count == 1 { "" } else { "s" }
            )));
        }
    }
    for (at, field) in FIELDS.iter().enumerate() {
        let text = fields[at];
        field.check(at, text).map_err(|problem| ScheduleError::Field {
            expression: expression.trim().to_owned(),
            field: field.name,
            text: text.to_owned(),
            problem,
        })?;
    }
    let cron = parser().parse(&text).map_err(|e| refuse(format!("is not valid: {e}")))?;
    if at_or_after(&cron, date(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
        return Err(ScheduleError::Never(expression.trim().to_owned()));
    }
    Ok(cron)
}

/// The five fields behind a nickname; any other text as it is, unless it looks like a nickname and is none.
pub(super) fn expand(expression: &str) -> Option<String> {
    let text = expression.trim();
    if !text.starts_with('@') {
        return Some(text.to_ascii_uppercase());
    }
    NICKNAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, fields)| (*fields).to_owned())
}

fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

impl Field {
    fn check(&self, at: usize, text: &str) -> Result<(), String> {
        for item in text.split(',') {
            self.check_item(item)?;
        }
        let mut probe = ["*"; 5];
        probe[at] = text;
        match parser().parse(&probe.join(" ")) {
            Ok(_) => Ok(()),
            Err(_) => Err(self.takes()),
        }
    }

    fn takes(&self) -> String {
        format!(
            "is not understood; it takes {}; write `*`, a list `1,3`, a range `1-5` or a step `*/5` or `1-5/2`",
            self.takes
        )
    }

    fn check_item(&self, item: &str) -> Result<(), String> {
        if item.is_empty() {
            return Err("has an empty place in its list; remove the `,` that is too much".to_owned());
        }
        for word in item.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty()) {
            let named = |name: &str| self.names.contains(&name);
            let known = named(word)
                || self.letters.contains(&word)
                || (self.letters.contains(&"L") && word.strip_suffix('L').is_some_and(named));
            if !known {
                return Err(format!("has `{word}`, which is no value; it takes {}", self.takes));
            }
        }
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        if let Some(step) = step {
            if let Some(first) = self.number(range) {
                return Err(format!("has a step from a single value; write `{first}-{}/{step}`", self.high));
            }
            if step.parse::<u32>().is_ok_and(|step| step == 0 || step > self.high - self.low) {
                return Err(format!(
                    "has the step {step}, which must be 1 to {}; for other distances use an interval",
                    self.high - self.low
                ));
            }
        }
        if let Some((first, last)) = range.split_once('-')
            && let (Some(low), Some(high)) = (self.number(first), self.number(last))
            // A week ends with Sunday as well as it begins with it.
            && low > high && !(last == "SUN" && self.high == 7)
        {
            let step = step.map(|step| format!("/{step}")).unwrap_or_default();
            return Err(match step.as_str() {
                "" => {
                    format!("has a range that runs backwards; write `{first}-{},{}-{last}`", self.top(), self.bottom())
                }
                _ => format!("has a range that runs backwards; write the values of `{item}` as a list"),
            });
        }
        Ok(())
    }

    fn number(&self, text: &str) -> Option<u32> {
        let named = || self.names.iter().position(|name| *name == text).map(|at| at as u32 + self.low);
        text.parse().ok().or_else(named)
    }

    fn top(&self) -> String {
        self.names.last().map_or_else(|| self.high.to_string(), |name| (*name).to_owned())
    }

    fn bottom(&self) -> String {
        self.names.first().map_or_else(|| self.low.to_string(), |name| (*name).to_owned())
    }
}

/// The first clock time from `from` on that the pattern matches; knows nothing of time zones.
pub(super) fn at_or_after(cron: &Cron, from: DateTime) -> Option<DateTime> {
    cron.find_next_occurrence(&from, true).ok()
}

/// The last clock time before `from` that the pattern matches.
pub(super) fn before(cron: &Cron, from: DateTime) -> Option<DateTime> {
    cron.find_previous_occurrence(&from, false).ok()
}

//! Durations as Go writes them: `1h30m`, `10s`, `1.5h`, `0`.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A duration that is read and written as Go does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct GoDuration(pub SignedDuration);

/// Nanoseconds of each unit.
const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<GoDuration, String> {
        let wrong = || format!("`{text}` is not a duration");
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(GoDuration::default());
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let whole_end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (whole, after) = rest.split_at(whole_end);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(wrong());
            }
            let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(|| {
                if unit.is_empty() {
                    format!("`{text}` has no unit")
                } else {
                    format!("`{text}` has the unknown unit `{unit}`")
                }
            })?;
            let number =
                |digits: &str| if digits.is_empty() { Ok(0) } else { digits.parse::<i128>().map_err(|_| wrong()) };
            total = number(whole)?.checked_mul(*nanos).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
            // Digits beyond the eighteenth are less than a nanosecond of every unit.
            let fraction = &fraction[..fraction.len().min(18)];
            total += number(fraction)? * nanos / 10_i128.pow(fraction.len() as u32);
            rest = after;
        }
        let total =
            i64::try_from(if negative { -total } else { total }).map_err(|_| format!("`{text}` is too long"))?;
        Ok(GoDuration(SignedDuration::from_nanos(total)))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        if nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = nanos.unsigned_abs();
        let decimal = |f: &mut fmt::Formatter<'_>, value: u128, unit: u128, name: &str| {
            let digits = unit.ilog10() as usize;
            let fraction = format!("{:0digits$}", value % unit);
            let fraction = if digits == 0 { "" } else { fraction.trim_end_matches('0') };
            let point = if fraction.is_empty() { "" } else { "." };
            write!(f, "{}{point}{fraction}{name}", value / unit)
        };
        match nanos {
            0..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => decimal(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, nanos, 1_000_000, "ms"),
            _ => {
                let (hours, minutes) = (nanos / 3_600_000_000_000, nanos / 60_000_000_000 % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                decimal(f, nanos % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GoDuration, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        let table = [
            ("0", "0s"),
            ("10s", "10s"),
            ("1h", "1h0m0s"),
            ("90m", "1h30m0s"),
            ("1h0m0.5s", "1h0m0.5s"),
            ("1.5h", "1h30m0s"),
            ("-2m", "-2m0s"),
            ("300ms", "300ms"),
            ("1500us", "1.5ms"),
            ("15ns", "15ns"),
            (".5s", "500ms"),
            ("1h2m3s4ms", "1h2m3.004s"),
        ];
        for (text, written) in table {
            let read: GoDuration = text.parse().unwrap();
            assert_eq!(read.to_string(), written, "{text}");
            assert_eq!(written.parse::<GoDuration>().unwrap(), read, "{text}");
        }
        for (text, told) in [
            ("", "is not a duration"),
            ("10", "has no unit"),
            ("5 minutes", "unknown unit ` minutes`"),
            ("1d", "unknown unit `d`"),
            ("h", "is not a duration"),
            ("9999999999999h", "is too long"),
            ("99999999999999999999999999999999999999999h", "is not a duration"),
            ("-", "is not a duration"),
        ] {
            let error = text.parse::<GoDuration>().unwrap_err();
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}

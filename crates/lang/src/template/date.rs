//! Times in templates: Airflow's texts (`ds`, `ts`, …), and a value that formats and counts.

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, Zoned};
use minijinja::value::{Kwargs, Object, ObjectRepr, from_args};
use minijinja::{Error, ErrorKind, State, Value};

pub const DS: &str = "%Y-%m-%d";
pub const DS_NODASH: &str = "%Y%m%d";
pub const TS: &str = "%Y-%m-%dT%H:%M:%S%:z";
pub const TS_NODASH: &str = "%Y%m%dT%H%M%S";

/// A point in time; prints as ISO 8601. In UTC unless asked for in another zone.
#[derive(Debug)]
pub struct Date(pub Zoned);

impl Date {
    pub fn value(at: Timestamp) -> Value {
        Value::from_object(Date(at.to_zoned(TimeZone::UTC)))
    }
}

pub fn text(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

/// Formats a date, or a text that is one.
pub fn format(value: &Value, format: &str) -> Result<String, String> {
    if let Some(date) = value.downcast_object_ref::<Date>() {
        return Ok(date.0.strftime(format).to_string());
    }
    let parsed = value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    parsed.map(|at| text(at, format)).ok_or_else(|| format!("`{value}` is not a time"))
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%S%.f%:z"))
    }
}

impl Object for Date {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        let date = &self.0;
        Some(match key {
            "year" => Value::from(date.year()),
            "month" => Value::from(date.month()),
            "day" => Value::from(date.day()),
            "hour" => Value::from(date.hour()),
            "minute" => Value::from(date.minute()),
            "second" => Value::from(date.second()),
            "timestamp" => Value::from(date.timestamp().as_second()),
            _ => return None,
        })
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn call_method(self: &Arc<Self>, _: &mut State<'_, '_>, method: &str, args: &[Value]) -> Result<Value, Error> {
        let wrong = |message: String| Error::new(ErrorKind::InvalidOperation, message);
        match method {
            "strftime" => {
                let (format,): (&str,) = from_args(args)?;
                let text =
                    jiff::fmt::strtime::format(format, &self.0).map_err(|e| wrong(format!("`{format}`: {e}")))?;
                Ok(Value::from(text))
            }
            "isoformat" => Ok(Value::from(self.to_string())),
            "timestamp" => Ok(Value::from(self.0.timestamp().as_second())),
            "in_timezone" => {
                let (zone,): (&str,) = from_args(args)?;
                let zoned = self.0.in_tz(zone).map_err(|_| wrong(format!("unknown time zone `{zone}`")))?;
                Ok(Value::from_object(Date(zoned)))
            }
            "add" | "subtract" => {
                let (amounts,): (Kwargs,) = from_args(args)?;
                let span = span(&amounts)?;
                amounts.assert_all_used()?;
                let moved = if method == "add" { self.0.checked_add(span) } else { self.0.checked_sub(span) };
                moved.map(|zoned| Value::from_object(Date(zoned))).map_err(|_| wrong("the time is out of range".into()))
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        }
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

fn span(amounts: &Kwargs) -> Result<Span, Error> {
    let mut span = Span::new();
    type Set = fn(Span, i64) -> Result<Span, jiff::Error>;
    let units: [(&str, Set); 7] = [
        ("years", |s, n| s.try_years(n)),
        ("months", |s, n| s.try_months(n)),
        ("weeks", |s, n| s.try_weeks(n)),
        ("days", |s, n| s.try_days(n)),
        ("hours", |s, n| s.try_hours(n)),
        ("minutes", |s, n| s.try_minutes(n)),
        ("seconds", |s, n| s.try_seconds(n)),
    ];
    for (unit, set) in units {
        if let Some(amount) = amounts.get::<Option<i64>>(unit)? {
            span = set(span, amount)
                .map_err(|_| Error::new(ErrorKind::InvalidOperation, format!("{amount} {unit} is out of range")))?;
        }
    }
    Ok(span)
}

//! Times as AWS writes them: seconds since 1970 with a fraction, or a text with a zone. Always read as UTC.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

/// Reads a time that may be missing; what is no time counts as missing.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(f64),
        Text(String),
        Other(serde::de::IgnoredAny),
    }
    Ok(match Option::<Written>::deserialize(deserializer)? {
        Some(Written::Seconds(seconds)) => from_seconds(seconds),
        // A text without a zone is UTC, whatever the zone of this machine.
        Some(Written::Text(text)) => parse(&text),
        Some(Written::Other(_)) | None => None,
    })
}

/// A text with a zone; without one it is UTC.
pub fn parse(text: &str) -> Option<Timestamp> {
    let bare = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| bare().map(|zoned| zoned.timestamp()))
}

fn from_seconds(seconds: f64) -> Option<Timestamp> {
    // Milliseconds are all that AWS gives; a float has no more to give either.
    let millis = (seconds * 1000.0).round();
    (millis.abs() < 1e15).then(|| Timestamp::from_millisecond(millis as i64).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weakness 22: what has no zone is UTC.
    #[test]
    fn times_are_read_in_all_forms_and_always_as_utc() {
        #[derive(Deserialize)]
        struct Has {
            #[serde(default, deserialize_with = "optional")]
            at: Option<Timestamp>,
        }
        let read = |json: &str| serde_json::from_str::<Has>(json).unwrap().at.map(|at| at.to_string());
        let expected = Some("2025-03-20T06:21:11.5Z".to_owned());
        assert_eq!(read(r#"{"at": 1742451671.5}"#), expected);
        assert_eq!(read(r#"{"at": "2025-03-20T06:21:11.5Z"}"#), expected);
        assert_eq!(read(r#"{"at": "2025-03-20T08:21:11.500+02:00"}"#), expected);
        assert_eq!(read(r#"{"at": "2025-03-20T06:21:11.5"}"#), expected);
        for nothing in ["{}", r#"{"at": null}"#, r#"{"at": "soon"}"#, r#"{"at": 1e300}"#, r#"{"at": []}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}

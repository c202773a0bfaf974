//! Amounts as people write them: durations, cores, bytes.

use jiff::SignedDuration;
use serde_json::Value;

/// No duration is longer: 100 years.
const LONGEST_SECONDS: f64 = 100.0 * 366.0 * 86_400.0;

/// `30s`, `1h30m`, `500ms`, `2d`, `1w`, or a number of seconds. Never negative.
pub fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("`{text}` is not a duration; write for example `30s`, `1h30m`, `500ms` or `2d`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0;
    if let Ok(number) = rest.parse::<f64>() {
        seconds = number;
        rest = "";
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = rest[digits..].trim_start();
        let unit = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ms" => 0.001,
            "s" | "sec" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return Err(wrong()),
        };
        seconds += number * scale;
        rest = rest[unit..].trim_start();
    }
    if seconds.is_nan() || seconds < 0.0 {
        return Err(format!("`{text}` is not a duration: it cannot be negative"));
    }
    if seconds > LONGEST_SECONDS {
        return Err(format!("`{text}` is too long: at most 100 years"));
    }
    Ok(SignedDuration::from_millis((seconds * 1_000.0).round() as i64))
}

/// Cores in thousandths: `2`, `0.5` or `500m`. More than 0.
pub fn parse_cpu(value: &Value) -> Result<u32, String> {
    let wrong = || format!("`{}` is not an amount of cores; write for example `2`, `0.5` or `500m`", show(value));
    let milli = match value {
        Value::Number(number) => number.as_f64().ok_or_else(wrong)? * 1_000.0,
        Value::String(text) => match text.trim().strip_suffix('m') {
            Some(milli) => milli.parse::<u32>().map_err(|_| wrong())?.into(),
            None => text.trim().parse::<f64>().map_err(|_| wrong())? * 1_000.0,
        },
        _ => return Err(wrong()),
    };
    let milli = milli.round();
    if milli.is_nan() || !(1.0..=1e8).contains(&milli) {
        return Err(wrong());
    }
    Ok(milli as u32)
}

/// Bytes: a number, or one with `K`, `M`, `G`, `T` (powers of 1000) or `Ki`, `Mi`, `Gi`, `Ti` (of 1024). More than 0.
pub fn parse_memory(value: &Value) -> Result<u64, String> {
    let wrong = || format!("`{}` is not an amount of memory; write for example `16Gi` or `512M`", show(value));
    let bytes = match value {
        Value::Number(number) => number.as_f64().ok_or_else(wrong)?,
        Value::String(text) => {
            let text = text.trim();
            let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
            let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
            let unit = text[digits..].trim_start();
            let unit = unit.strip_suffix('B').unwrap_or(unit);
            let scale: f64 = match unit {
                "" => 1.0,
                "k" | "K" => 1e3,
                "M" => 1e6,
                "G" => 1e9,
                "T" => 1e12,
                "Ki" => 1024.0,
                "Mi" => 1024.0 * 1024.0,
                "Gi" => 1024.0 * 1024.0 * 1024.0,
                "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
                _ => return Err(wrong()),
            };
            number * scale
        }
        _ => return Err(wrong()),
    };
    if bytes.is_nan() || !(1.0..=1e18).contains(&bytes) {
        return Err(wrong());
    }
    Ok(bytes.round() as u64)
}

/// A count of GPUs, from 0.
pub fn parse_gpus(value: &Value) -> Result<u32, String> {
    let whole = match value {
        Value::Number(number) => {
            number.as_u64().or_else(|| number.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64))
        }
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    whole
        .filter(|n| *n <= 10_000)
        .map(|n| n as u32)
        .ok_or_else(|| format!("`{}` is not a count of GPUs; write a whole number from 0", show(value)))
}

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("2d", 172_800_000),
            ("1.5", 1_500),
            ("0", 0),
            ("1h 5s", 3_605_000),
        ] {
            assert_eq!(parse_duration(text), Ok(SignedDuration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-5", "1x", "5 parsecs", "1h30", "1e400", "nan", "99999999999d"] {
            assert!(parse_duration(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn cores_bytes_and_gpus() {
        assert_eq!(parse_cpu(&json!("500m")), Ok(500));
        assert_eq!(parse_cpu(&json!(0.5)), Ok(500));
        assert_eq!(parse_cpu(&json!("4")), Ok(4_000));
        assert_eq!(parse_memory(&json!("16Gi")), Ok(16 << 30));
        assert_eq!(parse_memory(&json!("512M")), Ok(512_000_000));
        assert_eq!(parse_memory(&json!(1024)), Ok(1024));
        assert_eq!(parse_gpus(&json!("2")), Ok(2));
        assert_eq!(parse_gpus(&json!(0)), Ok(0));
        for bad in [json!("-1"), json!("x"), json!(null), json!([]), json!("1Zi"), json!(-2)] {
            assert!(parse_cpu(&bad).is_err() && parse_memory(&bad).is_err() && parse_gpus(&bad).is_err(), "{bad}");
        }
    }
}

//! Amounts as people write them: durations, cores, bytes.

use jiff::SignedDuration;
use pitcrew_core::fleet::{Amount, Gpus};
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

/// Keys of a mapping of GPUs; all but `model` say how much, and one of them is given.
pub(crate) const GPU: &[&str] = &["count", "share", "memory", "mig", "model"];

/// GPUs, and the models that will do: a count, a part of one, or a mapping that says `count`, `share`, `memory` or `mig`
/// (with `count`), and `model`.
pub fn parse_gpus(value: &Value) -> Result<(Gpus, Vec<String>), String> {
    let wrong = || {
        format!(
            "`{}` is not an amount of GPUs; write for example `2`, `0.5`, `{{count: 2, model: H100}}`, \
             `{{memory: 20Gi}}` or `{{mig: 1g.10gb}}`",
            show(value)
        )
    };
    let plain = |value: &Value| {
        let whole = value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=1e6).contains(n));
        let amount = match whole {
            Some(whole) => Amount::whole(whole as u32),
            None => parse_amount(value).map_err(|_| wrong())?,
        };
        Gpus::of(amount).map_err(|why| why.to_string())
    };
    let Value::Object(fields) = value else { return Ok((plain(value)?, Vec::new())) };
    if let Some(unknown) = fields.keys().find(|key| !GPU.contains(&key.as_str())) {
        return Err(format!("unknown key `{unknown}`; known here: {}", GPU.join(", ")));
    }
    let models = match fields.get("model") {
        None => Vec::new(),
        Some(Value::String(model)) => vec![model.clone()],
        Some(Value::Array(models)) if models.iter().all(Value::is_string) => {
            models.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Some(other) => {
            return Err(format!("`model` is the name of a model or a list of them, found `{}`", show(other)));
        }
    };
    let count = |value: Option<&Value>| match value {
        None => Ok(1),
        Some(value) => match plain(value)? {
            Gpus::Count(count) => Ok(count),
            Gpus::None | Gpus::Share(_) | Gpus::MemoryMib(_) | Gpus::Mig { .. } => {
                Err(format!("`count` is a whole number from 1, found `{}`", show(value)))
            }
        },
    };
    let said: Vec<&str> = ["share", "memory", "mig"].into_iter().filter(|key| fields.contains_key(*key)).collect();
    let gpus = match (said.as_slice(), fields.get("count")) {
        ([], counted) => Gpus::Count(count(counted)?),
        (["mig"], counted) => {
            let profile = fields["mig"].as_str().filter(|profile| !profile.is_empty());
            let profile = profile.ok_or("`mig` is the name of a profile such as `1g.10gb`")?.to_owned();
            Gpus::Mig { profile, count: count(counted)? }
        }
        ([key], Some(_)) => return Err(format!("`{key}` is of one GPU, so `count` says nothing beside it")),
        (["share"], None) => match plain(&fields["share"])? {
            share @ Gpus::Share(_) => share,
            _ => {
                return Err(format!("`share` is more than 0 and less than 1, found `{}`", show(&fields["share"])));
            }
        },
        (["memory"], None) => Gpus::MemoryMib(parse_memory(&fields["memory"])?.div_ceil(1 << 20)),
        (several, _) => return Err(format!("`{}` exclude each other", several.join("` and `"))),
    };
    Ok((gpus, models))
}

/// An amount of something: `2`, `0.5` or `500m`. Never negative.
pub(crate) fn parse_amount(value: &Value) -> Result<Amount, String> {
    serde_json::from_value(value.clone()).map_err(|why| why.to_string())
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
        assert_eq!(parse_gpus(&json!(0)), Ok((Gpus::None, vec![])));
        let half = Gpus::Share("0.5".parse().unwrap());
        for (written, gpus) in [
            (json!("2"), Gpus::Count(2)),
            (json!(2.0), Gpus::Count(2)),
            (json!(0.5), half.clone()),
            (json!("500m"), half.clone()),
            (json!({"share": "0.5"}), half),
            (json!({"count": 4, "model": "H100"}), Gpus::Count(4)),
            (json!({"model": ["A100", "H100"]}), Gpus::Count(1)),
            (json!({"memory": "20Gi"}), Gpus::MemoryMib(20_480)),
            (json!({"mig": "1g.10gb", "count": 2}), Gpus::Mig { profile: "1g.10gb".into(), count: 2 }),
        ] {
            assert_eq!(parse_gpus(&written).map(|(gpus, _)| gpus), Ok(gpus), "{written}");
        }
        for (written, said) in [
            (json!(1.5), "cannot be divided"),
            (json!({"count": 0.5}), "whole number"),
            (json!({"share": 2}), "less than 1"),
            (json!({"share": 0.5, "count": 2}), "of one GPU"),
            (json!({"share": 0.5, "memory": 5}), "exclude each other"),
            (json!({"mig": 3}), "name of a profile"),
            (json!({"model": 3}), "name of a model"),
            (json!({"cuont": 3}), "unknown key"),
        ] {
            let why = parse_gpus(&written).unwrap_err();
            assert!(why.contains(said), "{written}: {why}");
        }
        for bad in [json!("-1"), json!("x"), json!(null), json!([]), json!("1Zi"), json!(-2)] {
            assert!(parse_cpu(&bad).is_err() && parse_memory(&bad).is_err() && parse_gpus(&bad).is_err(), "{bad}");
        }
    }
}

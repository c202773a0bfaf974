//! Volumes and workspaces as volumes of a pod.

use pitcrew_core::pod::{Medium, Source, Volume};
use serde_json::Value;

use super::container::{is_true, items, text};
use crate::quantity::parse_memory;

/// A volume as a Task or a pod template has it.
pub fn volume(from: &Value, namespace: &str) -> Result<Volume, String> {
    let name = text(from, "name");
    let source = source(from, namespace).map_err(|why| format!("the volume `{name}`: {why}"))?;
    Ok(Volume { name, source })
}

/// Where the files of a volume, or of a workspace, come from.
pub fn source(from: &Value, namespace: &str) -> Result<Source, String> {
    if let Some(of) = from.get("emptyDir") {
        let limit = match &of["sizeLimit"] {
            Value::Null => None,
            written => Some(parse_memory(written)?),
        };
        let medium = if of["medium"] == "Memory" { Medium::Memory } else { Medium::Disk };
        return Ok(Source::Scratch { medium, limit });
    }
    if let Some(of) = from.get("persistentVolumeClaim") {
        let claim = text(of, "claimName");
        check_name(&claim)?;
        // One that the run makes goes with the run.
        if from.get("volumeClaimTemplate").is_some() {
            return Ok(Source::Shared { dir: format!("volumes/{namespace}/{claim}") });
        }
        return Ok(Source::Shared { dir: format!("claims/{namespace}/{claim}") });
    }
    if let Some(of) = from.get("configMap") {
        return Ok(object(of, false, &text(of, "name")));
    }
    if let Some(of) = from.get("secret") {
        // A volume says `secretName`, a projection `name`.
        let name = [text(of, "secretName"), text(of, "name")].into_iter().find(|name| !name.is_empty());
        return Ok(object(of, true, &name.unwrap_or_default()));
    }
    if let Some(of) = from.get("projected") {
        let default_mode = of["defaultMode"].as_u64();
        let mut parts = Vec::new();
        for part in items(&of["sources"]) {
            let mut one = source(part, namespace)?;
            if let (Source::Object { default_mode: mode, .. }, Some(wanted)) = (&mut one, default_mode) {
                *mode = wanted as u32;
            }
            parts.push(one);
        }
        return Ok(Source::Projected(parts));
    }
    if let Some(of) = from.get("hostPath") {
        return Ok(Source::Host { path: text(of, "path"), kind: text(of, "type") });
    }
    let other = from.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
    match other {
        Some((kind, spec)) => Ok(Source::Other { kind: kind.clone(), spec: spec.clone() }),
        None => Ok(Source::Scratch { medium: Medium::Disk, limit: None }),
    }
}

fn object(of: &Value, is_secret: bool, name: &str) -> Source {
    let mode = |value: &Value| value.as_u64().map(|mode| mode as u32);
    Source::Object {
        is_secret,
        name: name.to_owned(),
        items: items(&of["items"])
            .iter()
            .map(|item| (text(item, "key"), text(item, "path"), mode(&item["mode"])))
            .collect(),
        default_mode: mode(&of["defaultMode"]).unwrap_or(0o644),
        optional: is_true(&of["optional"]),
    }
}

/// A name that becomes the name of a directory is one.
pub fn check_name(name: &str) -> Result<(), String> {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || name.len() > 253 || !name.chars().all(fine) || name.starts_with('.') || name.contains("..") {
        return Err(format!("`{name}` is no name of a claim: use small letters, digits, `-` and `.`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_say_where_their_files_come_from() {
        for (from, expected) in [
            (json!({"emptyDir": {}}), Source::Scratch { medium: Medium::Disk, limit: None }),
            (
                json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
                Source::Scratch { medium: Medium::Memory, limit: Some(1 << 20) },
            ),
            (json!({"persistentVolumeClaim": {"claimName": "data"}}), Source::Shared { dir: "claims/ns/data".into() }),
            (
                json!({"configMap": {"name": "c", "items": [{"key": "k", "path": "p", "mode": 256}]}}),
                Source::Object {
                    is_secret: false,
                    name: "c".into(),
                    items: vec![("k".into(), "p".into(), Some(256))],
                    default_mode: 0o644,
                    optional: false,
                },
            ),
            (
                json!({"projected": {"defaultMode": 288, "sources": [{"secret": {"name": "s"}}]}}),
                Source::Projected(vec![Source::Object {
                    is_secret: true,
                    name: "s".into(),
                    items: vec![],
                    default_mode: 288,
                    optional: false,
                }]),
            ),
            (json!({"csi": {"driver": "d"}}), Source::Other { kind: "csi".into(), spec: json!({"driver": "d"}) }),
        ] {
            assert_eq!(source(&from, "ns"), Ok(expected), "{from}");
        }
    }

    #[test]
    fn a_claim_cannot_lead_out_of_its_directory() {
        for name in ["..", "../x", "a/b", "", ".a", "A"] {
            let from = json!({"persistentVolumeClaim": {"claimName": name}});
            assert!(source(&from, "ns").is_err(), "{name}");
        }
    }
}

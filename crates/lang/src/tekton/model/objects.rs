//! The kinds of Kubernetes that runs use, and those of Tekton's triggers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::doc::body;
use super::{Resource, part};

/// A kind with one version.
macro_rules! resource {
    ($type:ident, $kind:literal, in_spec: $in_spec:literal) => {
        impl Resource for $type {
            fn kind(&self) -> &str {
                $kind
            }

            fn api_version(&self) -> &str {
                "v1"
            }

            const IN_SPEC: bool = $in_spec;

            fn from_body(_: &str, kind: &str, value: Value) -> Result<$type, String> {
                body(kind, $kind, value)
            }
        }
    };
}

part! {
    ConfigMap {
        data: BTreeMap<String, String>,
        /// In base64.
        binary_data: BTreeMap<String, String>,
        immutable: Option<bool>,
    }
}

resource!(ConfigMap, "ConfigMap", in_spec: false);

/// Its values are in base64, as the API has them; what was written as `stringData` too.
#[derive(Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Secret {
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub data: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub string_data: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub immutable: Option<bool>,
}

/// Only the names of its keys.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.data.keys().chain(self.string_data.keys()).collect();
        f.debug_struct("Secret").field("kind", &self.kind).field("keys", &keys).finish_non_exhaustive()
    }
}

resource!(Secret, "Secret", in_spec: false);

impl Secret {
    /// All keys with their bytes; `stringData` wins.
    pub fn entries(&self) -> BTreeMap<&str, Vec<u8>> {
        let data = self.data.iter().filter_map(|(key, text)| Some((key.as_str(), decode_base64(text)?)));
        let texts = self.string_data.iter().map(|(key, text)| (key.as_str(), text.clone().into_bytes()));
        data.chain(texts).collect()
    }
}

impl ConfigMap {
    /// All keys with their bytes.
    pub fn entries(&self) -> BTreeMap<&str, Vec<u8>> {
        let binary = self.binary_data.iter().filter_map(|(key, text)| Some((key.as_str(), decode_base64(text)?)));
        let texts = self.data.iter().map(|(key, text)| (key.as_str(), text.clone().into_bytes()));
        binary.chain(texts).collect()
    }
}

part! {
    /// A PersistentVolumeClaim.
    Claim {
        access_modes: Vec<String>,
        /// `requests.storage`.
        resources: Option<Value>,
        storage_class_name: Option<String>,
        volume_mode: Option<String>,
        volume_name: String,
        selector: Option<Value>,
        data_source: Option<Value>,
        data_source_ref: Option<Value>,
        volume_attributes_class_name: Option<String>,
    }
}

resource!(Claim, "PersistentVolumeClaim", in_spec: true);

part! {
    ServiceAccount {
        secrets: Vec<ObjectName>,
        image_pull_secrets: Vec<ObjectName>,
        automount_service_account_token: Option<bool>,
    }
}

resource!(ServiceAccount, "ServiceAccount", in_spec: false);

part! {
    ObjectName { name: String, namespace: String }
}

part! {
    LimitRange { limits: Vec<LimitItem> }
}

resource!(LimitRange, "LimitRange", in_spec: true);

part! {
    /// Quantities by the names of resources, as texts.
    LimitItem {
        /// `Container`, `Pod` or `PersistentVolumeClaim`.
        #[serde(rename = "type")]
        kind: String,
        max: BTreeMap<String, String>,
        min: BTreeMap<String, String>,
        default: BTreeMap<String, String>,
        default_request: BTreeMap<String, String>,
        max_limit_request_ratio: BTreeMap<String, String>,
    }
}

/// An object of `triggers.tekton.dev`, as it was written: its own language reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerObject {
    pub api_version: String,
    pub kind: String,
    /// What stands beside `metadata`.
    pub body: Value,
}

impl Serialize for TriggerObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.body.serialize(serializer)
    }
}

impl Resource for TriggerObject {
    fn kind(&self) -> &str {
        &self.kind
    }

    fn api_version(&self) -> &str {
        &self.api_version
    }

    const IN_SPEC: bool = false;

    fn from_body(api_version: &str, kind: &str, body: Value) -> Result<TriggerObject, String> {
        Ok(TriggerObject { api_version: api_version.to_owned(), kind: kind.to_owned(), body })
    }
}

/// Base64 with its padding; line breaks within it are skipped, as Go does.
pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect();
    if !digits.len().is_multiple_of(4) {
        return None;
    }
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for digit in &digits[..digits.len() - padding] {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_its_padding_only() {
        let table: [(&str, Option<&[u8]>); 8] = [
            ("", Some(b"")),
            ("YQ==", Some(b"a")),
            ("YWI=", Some(b"ab")),
            ("YWJj", Some(b"abc")),
            ("YW\nJj", Some(b"abc")),
            ("/+8=", Some(&[0xff, 0xef])),
            ("YQ", None),
            ("Y Q=", None),
        ];
        for (text, bytes) in table {
            assert_eq!(decode_base64(text).as_deref(), bytes, "{text:?}");
        }
    }

    #[test]
    fn what_a_secret_holds_is_not_in_its_debug_text() {
        let secret = Secret { data: [("token".into(), "aHVudGVy".into())].into(), ..Secret::default() };
        let debug = format!("{secret:?}");
        assert!(debug.contains("token") && !debug.contains("aHVudGVy"), "{debug}");
        assert_eq!(secret.entries()["token"], b"hunter");
    }
}

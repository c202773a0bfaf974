//! Objects in the store: put there by `apply`, read by runs.
//!
//! The values of a Secret are sealed apart from its document; its document is what may be shown.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use pitcrew_store::{AuditEntry, NewObject, ObjectRow, Store};
use serde_json::{Map, Value, json};

use crate::vault::Vault;

/// Where objects lie that belong to no namespace.
pub const OF_CLUSTER: &str = "-";
/// The namespace of documents that name none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// What `kubectl` leaves there has the values of a Secret in it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Configured,
    Unchanged,
}

impl Applied {
    /// As `kubectl` says it.
    pub fn word(self) -> &'static str {
        match self {
            Applied::Created => "created",
            Applied::Configured => "configured",
            Applied::Unchanged => "unchanged",
        }
    }
}

/// The keys of a ConfigMap or a Secret.
pub type Keys = BTreeMap<String, Vec<u8>>;

/// The namespace that a document names, or else the one that is meant.
pub fn namespace<'a>(doc: &'a Value, meant: &'a str) -> &'a str {
    if doc["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster")) {
        return OF_CLUSTER;
    }
    doc["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or(meant)
}

/// A document's kind and name.
pub fn kind_and_name(doc: &Value) -> anyhow::Result<(&str, &str)> {
    let kind = doc["kind"].as_str().filter(|kind| !kind.is_empty()).context("the document has no `kind`")?;
    let name = doc["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    Ok((kind, name.with_context(|| format!("the {kind} has no `metadata.name`"))?))
}

/// Writes a document, unless it says what is there already.
pub async fn put(
    store: &Store,
    vault: &Vault,
    doc: &Value,
    meant: &str,
    who: &str,
    now: Timestamp,
) -> anyhow::Result<Applied> {
    let (kind, name) = kind_and_name(doc)?;
    let namespace = namespace(doc, meant).to_owned();
    let (kind, name) = (kind.to_owned(), name.to_owned());
    let mut shown = doc.clone();
    let mut keys = None;
    if let Some(metadata) = shown["metadata"].as_object_mut() {
        match namespace == OF_CLUSTER {
            true => drop(metadata.remove("namespace")),
            false => drop(metadata.insert("namespace".to_owned(), json!(namespace))),
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
    }
    if kind == "Secret" {
        keys = Some(secret_keys(doc).with_context(|| format!("the Secret `{name}`"))?);
        if let Some(fields) = shown.as_object_mut() {
            fields.retain(|field, _| field != "data" && field != "stringData");
        }
    }
    let old = store.object(&kind, &namespace, &name).await?;
    if let Some(old) = &old {
        let same_keys = match (&keys, &old.sealed) {
            (None, None) => true,
            // One that cannot be opened any more is set anew.
            (Some(keys), Some(sealed)) => unseal(vault, sealed).is_ok_and(|found| found == *keys),
            _ => false,
        };
        if same_keys && old.doc == shown {
            return Ok(Applied::Unchanged);
        }
    }
    let sealed = keys.map(|keys| seal(vault, &keys)).transpose()?;
    let mut audit = AuditEntry::new(now, who, "object.put");
    audit.detail = json!({ "kind": kind, "namespace": namespace, "name": name });
    let uid = uuid::Uuid::now_v7().to_string();
    store.put_object(NewObject { kind, namespace, name, uid, doc: shown, sealed, at: now }, audit).await?;
    Ok(if old.is_some() { Applied::Configured } else { Applied::Created })
}

/// All keys of a ConfigMap or a Secret with their bytes; `None`: there is no such object.
pub async fn keys(
    store: &Store,
    vault: &Vault,
    is_secret: bool,
    namespace: &str,
    name: &str,
) -> anyhow::Result<Option<Keys>> {
    let kind = if is_secret { "Secret" } else { "ConfigMap" };
    let Some(row) = store.object(kind, namespace, name).await? else { return Ok(None) };
    let keys = match &row.sealed {
        Some(sealed) => unseal(vault, sealed),
        None => config_keys(&row.doc),
    };
    keys.map(Some).with_context(|| format!("the {kind} `{name}`"))
}

/// The document of an object, with the metadata that the store knows.
pub fn document(row: &ObjectRow) -> Value {
    let mut doc = row.doc.clone();
    if let Some(metadata) = doc.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("uid".to_owned(), json!(row.uid));
        metadata.insert("generation".to_owned(), json!(row.generation));
        metadata.insert("creationTimestamp".to_owned(), json!(row.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    doc
}

fn secret_keys(doc: &Value) -> anyhow::Result<Keys> {
    let mut keys = decoded(&doc["data"], "data")?;
    keys.extend(texts(&doc["stringData"], "stringData")?);
    Ok(keys)
}

fn config_keys(doc: &Value) -> anyhow::Result<Keys> {
    let mut keys = decoded(&doc["binaryData"], "binaryData")?;
    keys.extend(texts(&doc["data"], "data")?);
    Ok(keys)
}

/// No value is part of an error.
fn decoded(from: &Value, field: &str) -> anyhow::Result<Keys> {
    let mut keys = Keys::new();
    for (key, value) in from.as_object().into_iter().flatten() {
        let text: Option<String> = value.as_str().map(|text| text.split_whitespace().collect());
        match text.and_then(|text| BASE64.decode(text).ok()) {
            Some(bytes) => drop(keys.insert(key.clone(), bytes)),
            None => bail!("`{field}.{key}` is not base64"),
        }
    }
    Ok(keys)
}

fn texts(from: &Value, field: &str) -> anyhow::Result<Keys> {
    let mut keys = Keys::new();
    for (key, value) in from.as_object().into_iter().flatten() {
        match value.as_str() {
            Some(text) => drop(keys.insert(key.clone(), text.as_bytes().to_vec())),
            None => bail!("`{field}.{key}` is no text"),
        }
    }
    Ok(keys)
}

fn seal(vault: &Vault, keys: &Keys) -> anyhow::Result<String> {
    let encoded: Map<String, Value> =
        keys.iter().map(|(key, bytes)| (key.clone(), Value::String(BASE64.encode(bytes)))).collect();
    vault.seal(&Value::Object(encoded).to_string())
}

fn unseal(vault: &Vault, sealed: &str) -> anyhow::Result<Keys> {
    // What cannot be read is told without what it holds.
    let document: Value =
        serde_json::from_str(&vault.open(sealed)?).map_err(|_| anyhow::anyhow!("is damaged: apply it again"))?;
    decoded(&document, "data")
}

#[cfg(test)]
mod tests {
    use pitcrew_store::{AuditFilter, Paging, StoreUrl};

    use super::*;
    use crate::paths::DataDir;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[tokio::test]
    async fn a_secret_is_sealed_and_what_is_shown_of_it_has_no_value() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "token", "annotations": { LAST_APPLIED: "hunter2-applied" } },
            "data": { "a": "aHVudGVyMi1kYXRh", "b": "b2xk" },
            "stringData": { "b": "hunter2-text" },
        });
        let put = async |doc: &Value, second| put(&store, &vault, doc, "ci", "ada", at(second)).await;
        assert_eq!(put(&secret, 1).await.unwrap(), Applied::Created);
        assert_eq!(put(&secret, 2).await.unwrap(), Applied::Unchanged);
        let row = store.object("Secret", "ci", "token").await.unwrap().unwrap();
        let audit = store.audit(&AuditFilter::default(), Paging::ALL).await.unwrap();
        let kept = format!("{} {:?} {:?} {:?}", row.doc, row.sealed, row, audit.rows);
        assert!(!kept.contains("hunter2") && !kept.contains("aHVudGVy"), "{kept}");
        let found = keys(&store, &vault, true, "ci", "token").await.unwrap().unwrap();
        let expected = [("a", "hunter2-data"), ("b", "hunter2-text")];
        assert_eq!(found, expected.map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec())).into());
        assert_eq!(keys(&store, &vault, false, "ci", "token").await.unwrap(), None);

        let mut other = secret.clone();
        other["stringData"]["b"] = json!("another");
        assert_eq!(put(&other, 3).await.unwrap(), Applied::Configured);
        other["data"]["a"] = json!("hunter2 is no base64");
        let refused = format!("{:#}", put(&other, 4).await.unwrap_err());
        assert_eq!(refused, "the Secret `token`: `data.a` is not base64");
    }

    #[tokio::test]
    async fn a_config_map_has_texts_and_bytes_and_the_namespace_that_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let doc = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "prod" },
            "data": { "text": "x" }, "binaryData": { "bytes": "AP8=" },
        });
        assert_eq!(put(&store, &vault, &doc, "ci", "ada", at(1)).await.unwrap(), Applied::Created);
        assert_eq!(keys(&store, &vault, false, "ci", "c").await.unwrap(), None);
        let found = keys(&store, &vault, false, "prod", "c").await.unwrap().unwrap();
        assert_eq!((found["text"].as_slice(), found["bytes"].as_slice()), (&b"x"[..], &[0, 255][..]));
        let row = store.object("ConfigMap", "prod", "c").await.unwrap().unwrap();
        let shown = document(&row);
        assert_eq!((&shown["metadata"]["generation"], &shown["data"]["text"]), (&json!(1), &json!("x")));
    }
}

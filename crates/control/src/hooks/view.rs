//! Deliveries as people and programs see them. Values of headers that hold tokens are left out.

use jiff::Timestamp;
use pitcrew_lang::triggers::event::Event;
use pitcrew_store::{AuditEntry, DeliveryRow, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::content;
use crate::vault::Vault;

/// A delivery, without what was posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Line {
    pub id: i64,
    pub event: String,
    pub namespace: String,
    pub listener: String,
    pub received: Timestamp,
    pub source: String,
    pub about: String,
    pub bytes: u32,
    pub state: String,
    /// Of each trigger: `trigger`, `result`, and then `made`, or `by` and `why`.
    pub outcome: Value,
    pub again_of: Option<i64>,
    pub duplicate_of: Option<i64>,
    pub settled: Option<Timestamp>,
}

impl From<&DeliveryRow> for Line {
    fn from(row: &DeliveryRow) -> Line {
        Line {
            id: row.id,
            event: row.event.clone(),
            namespace: row.namespace.clone(),
            listener: row.listener.clone(),
            received: row.received,
            source: row.source.clone(),
            about: row.about.clone(),
            bytes: row.bytes,
            state: row.state.name().to_owned(),
            outcome: row.outcome.clone(),
            again_of: row.again_of,
            duplicate_of: row.duplicate_of,
            settled: row.settled,
        }
    }
}

impl Line {
    /// Where it was posted to: `NAMESPACE/LISTENER`, or the name of a workflow.
    pub fn at(&self) -> String {
        match self.namespace.as_str() {
            "" => self.listener.clone(),
            namespace => format!("{namespace}/{}", self.listener),
        }
    }

    /// What became of it, in a line: `push fired PipelineRun ci/build-x7k2p; lint filtered`.
    pub fn summary(&self) -> String {
        match self.state.as_str() {
            "waiting" => return "is waiting".to_owned(),
            "duplicate" => {
                let first = self.duplicate_of.map(|id| id.to_string()).unwrap_or_default();
                return format!(
                    "came before, as delivery {first}; `pitcrew hooks redeliver {first}` sends that once more"
                );
            }
            _ => {}
        }
        let lines = self.outcome.as_array().map(Vec::as_slice).unwrap_or_default();
        if lines.is_empty() {
            return "no trigger".to_owned();
        }
        lines.iter().map(sentence).collect::<Vec<_>>().join("; ")
    }
}

/// What one trigger came to.
pub fn sentence(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or_default();
    let made = line["made"].as_array().into_iter().flatten().map(|made| {
        let text = |field: &str| made[field].as_str().unwrap_or_default();
        let made = [text("kind"), &format!("{}/{}", text("namespace"), text("name"))].join(" ");
        match (text("report"), text("unreported")) {
            ("", "") => made,
            ("", why) => format!("{made} (no status is written: {why})"),
            (report, _) => format!("{made} (status of {report})"),
        }
    });
    let made = made.collect::<Vec<_>>().join(", ");
    let mut sentence = [text("trigger"), text("result"), &made]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if !text("why").is_empty() {
        let by = if text("by").is_empty() { String::new() } else { format!(" by {}", text("by")) };
        sentence = format!("{sentence}{by}: {}", text("why"));
    }
    sentence
}

/// What was posted: `url`, `headers` and `body`.
pub fn posted(vault: &Vault, row: &DeliveryRow) -> anyhow::Result<Option<Value>> {
    let Some(sealed) = &row.sealed else { return Ok(None) };
    let event: Event = content::open(vault, sealed, &row.event)?;
    let headers: Map<String, Value> =
        event.headers.iter().map(|(name, values)| (name.to_owned(), shown(name, values))).collect();
    let body = match event.body.json() {
        Ok(body) => body.clone(),
        Err(_) => Value::String(String::from_utf8_lossy(event.body.raw()).into_owned()),
    };
    Ok(Some(json!({ "url": event.url, "headers": headers, "body": body })))
}

fn shown(name: &str, values: &[String]) -> Value {
    let name = name.to_ascii_lowercase();
    let is_secret = ["token", "secret", "authorization", "cookie", "signature", "api-key", "password"]
        .iter()
        .any(|word| name.contains(word));
    if is_secret { json!("***") } else { json!(values.join(",")) }
}

/// Sends a delivery once more, past the guard against replays; gives the number of the new one.
pub async fn redeliver(store: &Store, id: i64, who: &str, now: Timestamp) -> Result<Option<i64>, StoreError> {
    let event = uuid::Uuid::now_v7().to_string();
    let mut audit = AuditEntry::new(now, who, "hooks.redeliver");
    audit.detail = json!({ "id": id });
    store.repeat_delivery(id, &event, now, audit).await
}

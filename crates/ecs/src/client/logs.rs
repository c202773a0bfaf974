//! CloudWatch Logs: what containers wrote.

use jiff::Timestamp;
use pitcrew_exec::aws::Service;
use serde::Deserialize;
use serde_json::json;

use super::{Client, Fault};

/// One line, or a part of one, that a container wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LogEvent {
    /// Milliseconds since 1970.
    #[serde(default)]
    pub timestamp: i64,
    #[serde(default)]
    pub message: String,
}

impl LogEvent {
    pub fn at(&self) -> Option<Timestamp> {
        Timestamp::from_millisecond(self.timestamp).ok()
    }
}

/// Some events, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    pub events: Vec<LogEvent>,
    /// Valid for a day. The same as the one that was asked with: there is no more for now.
    pub next: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    #[serde(default)]
    events: Vec<LogEvent>,
    #[serde(default)]
    next_forward_token: String,
}

impl Client {
    /// Events of a stream: after `token`, or else from the time `since` (milliseconds), or else from its beginning. At
    /// most 10,000 of them, and at most 1 MiB.
    pub async fn log_events(
        &self,
        group: &str,
        stream: &str,
        token: Option<&str>,
        since: Option<i64>,
    ) -> Result<LogPage, Fault> {
        let mut input = json!({ "logGroupName": group, "logStreamName": stream, "startFromHead": true });
        if let Some(token) = token {
            input["nextToken"] = json!(token);
        }
        if let (None, Some(since)) = (token, since) {
            input["startTime"] = json!(since);
        }
        let page: Page = self.json(Service::Logs, "GetLogEvents", &input, true).await?;
        Ok(LogPage { events: page.events, next: page.next_forward_token })
    }
}

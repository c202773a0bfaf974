//! Sends spans to a collector by OTLP over HTTP, in batches. While nothing ends, it sleeps.

use std::time::Duration;

use anyhow::{Context, bail};
use pitcrew_exec::git::percent_decoded;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, StatusCode, Url};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::otlp::{self, Span};
use crate::metrics::Metrics;

/// Spans in one request at most.
const BATCH: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// For one try; one with an answer to come again is repeated, each wait twice as long.
const TIMEOUT: Duration = Duration::from_secs(10);
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// To the task that exports.
pub enum Told {
    Span(Box<Span>),
    /// Answer when all before are sent or dropped.
    Flush(oneshot::Sender<()>),
}

/// Where spans go.
pub struct Target {
    url: Url,
    client: Client,
    resource: Vec<(String, String)>,
}

impl Target {
    /// From our own setting, else from the variables that all of OpenTelemetry shares. `None`: nowhere.
    pub fn read(setting: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Target>> {
        let env = |name: &str| env(name).filter(|text| !text.is_empty());
        let (named, base) = match (setting, env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) {
            (Some(text), _) => ("otlp_endpoint", text.to_owned()),
            (None, Some(text)) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", text),
            (None, None) => match env("OTEL_EXPORTER_OTLP_ENDPOINT") {
                Some(text) => ("OTEL_EXPORTER_OTLP_ENDPOINT", text),
                None => return Ok(None),
            },
        };
        if env("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        // Only the variable for traces alone is a whole address.
        let path = if named.contains("TRACES") { "" } else { "/v1/traces" };
        let url = Url::parse(&format!("{}{path}", base.trim_end_matches('/')));
        let url = url.ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.with_context(|| format!("`{named}` must be an address such as `http://localhost:4318`"))?;
        let mut headers = HeaderMap::new();
        for name in ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"] {
            for (key, value) in env(name).map(|text| pairs(&text)).unwrap_or_default() {
                // The value may be a key of an account: it is not shown.
                let wrong = || format!("`{name}`: the header `{key}` is not right");
                let mut value = HeaderValue::from_str(&value).with_context(wrong)?;
                value.set_sensitive(true);
                headers.insert(key.parse::<HeaderName>().with_context(wrong)?, value);
            }
        }
        let mut resource = env("OTEL_RESOURCE_ATTRIBUTES").map(|text| pairs(&text)).unwrap_or_default();
        let mut set = |key: &str, value: String| {
            resource.retain(|(name, _)| name != key);
            resource.push((key.to_owned(), value));
        };
        set("service.version", env!("CARGO_PKG_VERSION").to_owned());
        match env("OTEL_SERVICE_NAME") {
            Some(name) => set("service.name", name),
            None if resource.iter().any(|(key, _)| key == "service.name") => {}
            None => resource.push(("service.name".to_owned(), "pitcrew".to_owned())),
        }
        let client = Client::builder().timeout(TIMEOUT).default_headers(headers).build()?;
        Ok(Some(Target { url, client, resource }))
    }

    /// Sends a batch. Gives how many spans the collector refused.
    async fn send(&self, spans: &[Span]) -> anyhow::Result<usize> {
        let body = otlp::request(&self.resource, spans);
        let mut wait = FIRST_WAIT;
        for tried in 1.. {
            let error = match self.client.post(self.url.clone()).json(&body).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(refused(&answer.text().await?)),
                Ok(answer) if tried < TRIES && may_come_again(answer.status()) => None,
                Ok(answer) => bail!("it answered {}", answer.status()),
                // The address may hold a key.
                Err(error) => Some(error.without_url()),
            };
            if let Some(error) = error.filter(|_| tried == TRIES) {
                return Err(error.into());
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        unreachable!("the last try returns")
    }
}

/// The answers after which the specification wants another try.
fn may_come_again(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502..=504)
}

/// Spans that a collector took no notice of, by its answer.
fn refused(body: &str) -> usize {
    let answer: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let count = &answer["partialSuccess"]["rejectedSpans"];
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok());
    count.and_then(|count| count.try_into().ok()).unwrap_or(0)
}

/// `key=value,key=value`, with percent-encoded values.
fn pairs(text: &str) -> Vec<(String, String)> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), percent_decoded(value.trim())))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

/// Sends what it is told until nobody is left to tell anything.
pub async fn run(target: Target, mut inbox: mpsc::Receiver<Told>, metrics: Metrics) {
    let mut is_away = false;
    while let Some(first) = inbox.recv().await {
        let mut batch = Vec::new();
        let mut flushed = None;
        let mut next = Some(first);
        let until = Instant::now() + GATHER;
        while let Some(told) = next {
            match told {
                Told::Span(span) => batch.push(*span),
                Told::Flush(done) => {
                    flushed = Some(done);
                    break;
                }
            }
            if batch.len() == BATCH {
                break;
            }
            next = timeout_at(until, inbox.recv()).await.ok().flatten();
        }
        if !batch.is_empty() {
            let dropped = match target.send(&batch).await {
                Ok(refused) => {
                    is_away = false;
                    refused.min(batch.len())
                }
                Err(error) => {
                    // Once, not for each batch of a long night.
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!("cannot send traces to the collector: {error:#}");
                    }
                    batch.len()
                }
            };
            metrics.spans("sent", batch.len() - dropped);
            metrics.spans("dropped", dropped);
        }
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

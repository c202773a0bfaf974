//! The calls of a worker, and what can come of each.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use pitcrew_core::AttemptId;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

use super::files::{STILL, chunks};
use super::protocol::{Answer, Changes, Enrol, Enrolled, LogTaken, Manifest, REPLACED, REVOKED, ROOT, Sync};

/// For a connection, and for each answer that does not wait.
const CONNECT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);
/// For an answer that makes the server read files.
const SCAN: Duration = Duration::from_secs(1800);

/// Why a call came to nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WireError {
    /// Nobody answered, or nothing that makes sense. It may do so later.
    #[error("{0}")]
    Unreachable(String),
    /// The server does not want it: a status of 4xx and its own words. Or those of a proxy before it.
    #[error("{1} (status {0})")]
    Refused(u16, String),
    /// The server itself says so: it takes nothing of this worker any more.
    #[error("{1}")]
    ShutOut(ShutOut, String),
}

/// Why nothing of a worker is taken any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutOut {
    Revoked,
    Replaced,
}

/// A server, as a worker reaches it.
#[derive(Clone)]
pub struct Wire {
    http: Client,
    root: Url,
    bearer: String,
}

impl Wire {
    /// `bearer` is a credential, or a token to enrol with. Makes no connection yet; the error is a sentence.
    pub fn new(server: &str, bearer: &str) -> Result<Wire, String> {
        let mut root: Url = server.parse().map_err(|error| format!("`{server}` is no address: {error}"))?;
        if !matches!(root.scheme(), "http" | "https") {
            return Err(format!("`{server}` is no address of a server: it begins with `http://` or `https://`"));
        }
        root.set_path(&format!("{}{ROOT}/", root.path().trim_end_matches('/')));
        root.set_query(None);
        let http = Client::builder()
            .connect_timeout(CONNECT)
            // A credential goes to the server that was named, and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("pitcrew/", env!("CARGO_PKG_VERSION")))
            .tcp_keepalive(Duration::from_secs(20))
            .tcp_keepalive_interval(Duration::from_secs(10))
            .tcp_keepalive_retries(4)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(3)
            .build()
            .map_err(|error| format!("cannot prepare a connection: {error}"))?;
        Ok(Wire { http, root, bearer: bearer.to_owned() })
    }

    pub fn with_bearer(&self, bearer: &str) -> Wire {
        Wire { bearer: bearer.to_owned(), ..self.clone() }
    }

    fn url(&self, path: &str) -> Url {
        // A relative path without a scheme always joins.
        self.root.join(path).unwrap_or_else(|_| self.root.clone())
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path)).bearer_auth(&self.bearer).timeout(PATIENCE)
    }

    pub async fn enrol(&self, enrol: &Enrol) -> Result<Enrolled, WireError> {
        read(self.post("enrol").json(enrol)).await
    }

    pub async fn sync(&self, sync: &Sync, timeout: Duration) -> Result<Answer, WireError> {
        read(self.post("sync").json(sync).timeout(timeout)).await
    }

    pub async fn log(&self, attempt: &AttemptId, offset: u64, bytes: Vec<u8>) -> Result<LogTaken, WireError> {
        let query = [("attempt", attempt.to_string()), ("offset", offset.to_string())];
        read(self.post("log").query(&query).header("content-type", "application/octet-stream").body(bytes)).await
    }

    fn run(&self, attempt: &AttemptId, what: &str) -> (Url, [(&'static str, String); 1]) {
        (self.url(&format!("runs/{}/{what}", attempt.run)), [("attempt", attempt.to_string())])
    }

    pub async fn manifest(&self, attempt: &AttemptId) -> Result<Manifest, WireError> {
        let (url, query) = self.run(attempt, "files");
        read(self.http.get(url).query(&query).bearer_auth(&self.bearer).timeout(SCAN)).await
    }

    /// The bytes of a file that was last seen at `path`, as they come. All of them may take for ever: who reads them looks
    /// after it that they come at all.
    pub async fn blob(&self, attempt: &AttemptId, sha256: &str, path: &str) -> Result<Response, WireError> {
        let (url, query) = self.run(attempt, &format!("blobs/{sha256}"));
        let request = self.http.get(url).query(&query).query(&[("path", path)]).bearer_auth(&self.bearer);
        tokio::time::timeout(STILL, checked(request)).await.unwrap_or_else(|_| Err(still()))
    }

    pub async fn put_blob(&self, attempt: &AttemptId, sha256: &str, file: File, size: u64) -> Result<(), WireError> {
        let (url, query) = self.run(attempt, &format!("blobs/{sha256}"));
        let taken = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&taken);
        let body = chunks(file, size).inspect(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let request = self.http.put(url).query(&query).bearer_auth(&self.bearer).body(reqwest::Body::wrap_stream(body));
        let request = request.header("content-length", size).header("content-type", "application/octet-stream");
        let stands_still = async {
            loop {
                let before = taken.load(Ordering::Relaxed);
                tokio::time::sleep(STILL).await;
                if taken.load(Ordering::Relaxed) == before {
                    return still();
                }
            }
        };
        tokio::select! {
            answer = checked(request) => answer.map(drop),
            error = stands_still => Err(error),
        }
    }

    pub async fn changes(&self, attempt: &AttemptId, changes: &Changes) -> Result<(), WireError> {
        let (url, query) = self.run(attempt, "files");
        let request = self.http.post(url).query(&query).bearer_auth(&self.bearer).json(changes);
        checked(request.timeout(SCAN)).await.map(drop)
    }
}

fn still() -> WireError {
    WireError::Unreachable(format!("nothing of a file moved for {} s", STILL.as_secs()))
}

async fn read<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, WireError> {
    let response = checked(request).await?;
    let bytes = response.bytes().await.map_err(unreachable)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| WireError::Unreachable(format!("its answer is none of a Pitcrew server: {error}")))
}

/// An answer that says that all is well.
async fn checked(request: RequestBuilder) -> Result<Response, WireError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let body = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
    let word = |name: &str| body.get(name).and_then(serde_json::Value::as_str);
    let shut_out = match word("code") {
        Some(REVOKED) => Some(ShutOut::Revoked),
        Some(REPLACED) => Some(ShutOut::Replaced),
        Some(_) | None => None,
    };
    let what = word("detail")
        .map(str::to_owned)
        .unwrap_or_else(|| status.canonical_reason().unwrap_or("an unknown answer").to_owned());
    if let Some(why) = shut_out {
        return Err(WireError::ShutOut(why, what));
    }
    // Too many requests, and whatever a server or a proxy before it suffers from, passes.
    Err(match status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        true => WireError::Refused(status.as_u16(), what),
        false => WireError::Unreachable(format!("it answers with status {}: {what}", status.as_u16())),
    })
}

/// The innermost reason, which is the one that says something.
fn unreachable(error: reqwest::Error) -> WireError {
    if error.is_timeout() {
        return WireError::Unreachable("it does not answer in time".to_owned());
    }
    let error = error.without_url();
    let mut source: &dyn std::error::Error = &error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    WireError::Unreachable(source.to_string())
}

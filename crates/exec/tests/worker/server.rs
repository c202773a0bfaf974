//! A server that says what a test wants it to, over real HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pitcrew_core::{AttemptId, RunKey};
use pitcrew_exec::Ended;
use pitcrew_exec::worker::protocol::{Answer, Cancel, End, How, LogTaken, Order, PROTOCOL, REVOKED, ROOT, Sync};
use tokio::sync::Notify;

pub const CREDENTIAL: &str = "pw_test";

/// What the server believes, and what it will say.
#[derive(Default)]
pub struct Script {
    pub orders: Vec<Order>,
    pub cancel: Vec<Cancel>,
    pub drain: bool,
    /// How the server calls itself; `s1` if it says nothing.
    pub word: String,
    /// It is away before it could say that something may be forgotten.
    pub never_forgets: bool,
    /// Ended attempts whose logs are not whole here.
    pub lacking: BTreeSet<AttemptId>,
    pub revoked: bool,
    /// A proxy before the server says this to every sync.
    pub status: Option<StatusCode>,
    /// Nobody is answered.
    pub silent: bool,
    pub lease: Duration,
    pub running: BTreeSet<AttemptId>,
    pub waiting: BTreeSet<AttemptId>,
    pub ended: BTreeMap<AttemptId, Ended>,
    pub lost: BTreeMap<AttemptId, String>,
    pub logs: BTreeMap<AttemptId, Vec<u8>>,
    /// Bytes of logs that did not come with an end.
    pub posted: usize,
    pub last: Option<Sync>,
    /// How many GPUs it has, as often as it said so.
    pub probes: Vec<usize>,
    pub incarnations: BTreeSet<u64>,
    pub leave: Vec<RunKey>,
    /// What is said of runs that a worker names.
    pub over: BTreeSet<RunKey>,
    /// What workers named.
    pub named: BTreeSet<RunKey>,
    /// What was asked of files: `get SHA`, `put SHA`.
    pub moved: Vec<String>,
    /// After so many calls for files, each comes to nothing.
    pub cut: Option<usize>,
    /// The next change is made, and its answer is lost.
    pub loses_answer: bool,
    /// How many syncs wait here.
    seq: u64,
}

#[derive(Clone)]
pub struct Server {
    pub script: Arc<Mutex<Script>>,
    changed: Arc<Notify>,
    pub url: String,
    /// Where the files of runs lie.
    pub runs: Arc<tempfile::TempDir>,
}

impl Server {
    pub async fn start(lease: Duration, runs: Arc<tempfile::TempDir>) -> Server {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script { lease, ..Script::default() }));
        let server = Server { script, changed: Arc::default(), url, runs };
        let router = Router::new()
            .route(&format!("{ROOT}/sync"), post(sync))
            .route(&format!("{ROOT}/log"), post(log))
            .route(&format!("{ROOT}/runs/{{run}}/files"), get(files::list).post(files::change))
            .route(&format!("{ROOT}/runs/{{run}}/blobs/{{sha256}}"), get(files::get).put(files::put))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        server
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let result = change(&mut self.script.lock().unwrap());
        self.changed.notify_waiters();
        result
    }

    /// Looks until it holds; it fails loudly when it never does.
    pub async fn until(&self, what: &str, holds: impl Fn(&Script) -> bool) {
        let looked = async {
            while !holds(&self.script.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(90), looked).await.is_err() {
            let script = self.script.lock().unwrap();
            panic!("never came: {what}; ended {:?}, lost {:?}, last {:?}", script.ended, script.lost, script.last);
        }
    }
}

fn is_known(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value == &format!("Bearer {CREDENTIAL}"))
}

async fn sync(State(server): State<Server>, headers: HeaderMap, Json(sync): Json<Sync>) -> Response {
    assert!(is_known(&headers));
    let taken = server.with(|script| {
        script.seq += 1;
        (!script.silent).then(|| {
            take(script, &sync);
            (script.seq, script.word.clone())
        })
    });
    // What it did not hear, it does not answer, not even later.
    let Some((seq, word)) = taken else { std::future::pending().await };
    let wait = tokio::time::sleep(Duration::from_millis(sync.wait_ms));
    tokio::pin!(wait);
    loop {
        let changed = server.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let script = server.script.lock().unwrap();
            if let Some(status) = script.status {
                return (status, "by a proxy").into_response();
            }
            // Whoever took it is gone.
            if script.word != word {
                return StatusCode::BAD_GATEWAY.into_response();
            }
            if script.revoked {
                return (
                    StatusCode::UNAUTHORIZED,
                    Json(serde_json::json!({ "detail": "it was revoked", "code": REVOKED })),
                )
                    .into_response();
            }
            let answer = say(&script, &sync);
            let has_words = !(answer.start.is_empty()
                && answer.cancel.is_empty()
                && answer.forget.is_empty()
                && answer.logs.is_empty())
                || answer.drain != sync.drained;
            if !script.silent && (has_words || script.seq != seq || wait.is_elapsed() || sync.wait_ms == 0) {
                return Json(answer).into_response();
            }
        }
        tokio::select! {
            () = &mut changed => {}
            () = &mut wait, if !wait.is_elapsed() => {}
        }
    }
}

fn take(script: &mut Script, sync: &Sync) {
    script.incarnations.insert(sync.incarnation);
    script.named.extend(&sync.keeps);
    (script.running, script.waiting) = (BTreeSet::new(), BTreeSet::new());
    for has in &sync.has {
        let id = has.attempt.clone();
        match &has.how {
            How::Waiting => drop(script.waiting.insert(id)),
            How::Running { .. } => drop(script.running.insert(id)),
            How::Ended { end: None } => {}
            How::Ended { end: Some(end) } => match end.as_ref() {
                End::Ended { ended, log } => {
                    if let Some(tail) = log {
                        let kept = script.logs.entry(id.clone()).or_default();
                        if tail.offset > kept.len() as u64 {
                            script.lacking.insert(id);
                            continue;
                        }
                        script.lacking.remove(&id);
                        if tail.offset == kept.len() as u64 {
                            kept.extend_from_slice(tail.text.as_bytes());
                        }
                    }
                    script.ended.insert(id, ended.clone());
                }
                End::Lost { reason } => drop(script.lost.insert(id, reason.clone())),
            },
        }
    }
    script.probes.extend(sync.probe.as_ref().map(|probe| probe.gpus.len()));
    script.last = Some(sync.clone());
}

fn say(script: &Script, sync: &Sync) -> Answer {
    let has = |id: &AttemptId| sync.has.iter().any(|has| has.attempt == *id);
    let over = |id: &AttemptId| script.ended.contains_key(id) || script.lost.contains_key(id);
    Answer {
        protocol: PROTOCOL,
        server: if script.word.is_empty() { "s1".to_owned() } else { script.word.clone() },
        lease_ms: script.lease.as_millis() as u64,
        start: script.orders.iter().filter(|o| !has(&o.handle.id) && !over(&o.handle.id)).cloned().collect(),
        cancel: script.cancel.iter().filter(|c| !over(&c.handle.id)).cloned().collect(),
        forget: sync.has.iter().map(|has| has.attempt.clone()).filter(|id| over(id) && !script.never_forgets).collect(),
        leave: script.leave.iter().chain(sync.keeps.iter().filter(|run| script.over.contains(run))).copied().collect(),
        drain: script.drain,
        logs: script.lacking.iter().filter(|id| has(id)).cloned().collect(),
        errands: Vec::new(),
        heard: Vec::new(),
        kernel: None,
    }
}

async fn log(
    State(server): State<Server>,
    headers: HeaderMap,
    Query(query): Query<BTreeMap<String, String>>,
    body: Bytes,
) -> Response {
    assert!(is_known(&headers));
    let (id, offset): (AttemptId, usize) = (query["attempt"].parse().unwrap(), query["offset"].parse().unwrap());
    let offset = server.with(|script| {
        let kept = script.logs.entry(id).or_default();
        if offset == kept.len() {
            kept.extend_from_slice(&body);
        }
        let length = kept.len() as u64;
        script.posted += body.len();
        length
    });
    Json(LogTaken { offset }).into_response()
}

/// As the server keeps them, without the check of who asks.
mod files {
    use axum::body::Body;
    use axum::extract::Path;
    use jiff::Timestamp;
    use pitcrew_exec::worker::files::{KeptError, Pipe, apply, blob, chunks, manifest, stage};
    use pitcrew_exec::worker::protocol::Changes;

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "files have real times")]
    fn now() -> Timestamp {
        Timestamp::now()
    }

    fn answer<T: IntoResponse>(result: Result<T, KeptError>) -> Response {
        match result {
            Ok(answer) => answer.into_response(),
            Err(error) => {
                let status = match error {
                    KeptError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
                    KeptError::Missing(_) => StatusCode::FAILED_DEPENDENCY,
                    KeptError::Io(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                (status, Json(serde_json::json!({ "detail": error.to_string() }))).into_response()
            }
        }
    }

    /// Whether this call comes to nothing.
    fn is_cut(server: &Server) -> bool {
        server.with(|script| match &mut script.cut {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        })
    }

    fn nothing() -> Response {
        StatusCode::BAD_GATEWAY.into_response()
    }

    pub async fn list(State(server): State<Server>, Path(run): Path<String>) -> Response {
        if is_cut(&server) {
            return nothing();
        }
        answer(manifest(&server.runs.path().join(run), now()).map(Json))
    }

    pub async fn change(
        State(server): State<Server>,
        Path(run): Path<String>,
        Json(changes): Json<Changes>,
    ) -> Response {
        if is_cut(&server) {
            return nothing();
        }
        let done = answer(apply(&server.runs.path().join(run), &changes, now()));
        match server.with(|script| std::mem::take(&mut script.loses_answer)) {
            true => nothing(),
            false => done,
        }
    }

    pub async fn get(
        State(server): State<Server>,
        Path((run, sha256)): Path<(String, String)>,
        Query(query): Query<BTreeMap<String, String>>,
    ) -> Response {
        if is_cut(&server) {
            return nothing();
        }
        server.with(|script| script.moved.push(format!("get {sha256}")));
        answer(
            blob(&server.runs.path().join(run), &sha256, query.get("path").map(String::as_str))
                .map(|(file, size)| Body::from_stream(chunks(file, size))),
        )
    }

    pub async fn put(
        State(server): State<Server>,
        Path((run, sha256)): Path<(String, String)>,
        body: Body,
    ) -> Response {
        if is_cut(&server) {
            return nothing();
        }
        server.with(|script| script.moved.push(format!("put {sha256}")));
        let dir = server.runs.path().join(run);
        let staged = Pipe::through(body.into_data_stream(), move |bytes| stage(&dir, &sha256, bytes)).await.unwrap();
        answer(staged)
    }
}

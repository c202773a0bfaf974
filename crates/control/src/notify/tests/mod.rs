//! Notifications from the change of a run to the request that a channel gets: a real scheduler on the fake backend, a
//! real HTTP server as the other side, and a clock that the test moves.

mod events;
mod forge;
mod incidents;
mod outbox;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use jiff::SignedDuration;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::ir::BackendKind;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_exec::Backend;
use pitcrew_exec::fake::FakeBackend;
use pitcrew_exec::worker::{Hub, LEASE};
use pitcrew_store::{Notice, NoticeFilter, Paging, Store, StoreUrl};
use serde_json::Value;
use tokio::sync::mpsc;

use super::outbox::{Desk, Outbox};
use crate::app::{App, Trigger};
use crate::backends::Backends;
use crate::catalog::{self, Catalog};
use crate::config::{Overrides, Settings};
use crate::metrics::Metrics;
use crate::paths::DataDir;
use crate::scheduler::recovery::NoRecovery;
use crate::scheduler::{Claim, Parts, Pick, Scheduler};
use crate::vault::Vault;
use crate::{clock, folder};

/// What the other side answers.
#[derive(Clone)]
enum Reply {
    Status(u16),
    /// 429 with `Retry-After`.
    Wait(u64),
    Redirect(String),
    /// 403, with no requests left for so many seconds.
    Spent(i64),
    Json(Value),
    /// Never.
    Hang,
}

/// A request that the other side got.
struct Got {
    path: String,
    method: String,
    headers: HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// An HTTP server on loopback that answers as it is told, and else with 200.
struct Hook {
    url: String,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    got: mpsc::UnboundedReceiver<Got>,
}

type Shared = (Arc<Mutex<VecDeque<Reply>>>, mpsc::UnboundedSender<Got>);

impl Hook {
    async fn start() -> Hook {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let replies = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, got) = mpsc::unbounded_channel();
        let router = Router::new().fallback(answer).with_state((replies.clone(), sender));
        tokio::spawn(axum::serve(listener, router).into_future());
        Hook { url, replies, got }
    }

    fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.replies.lock().unwrap().extend(replies);
    }

    /// The next request; waits for it.
    async fn next(&mut self) -> Got {
        self.got.recv().await.unwrap()
    }

    fn is_quiet(&mut self) -> bool {
        self.got.try_recv().is_err()
    }
}

async fn answer(
    State((replies, got)): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let reply = replies.lock().unwrap().pop_front();
    let method = method.to_string();
    got.send(Got { path: uri.path().to_owned(), method, headers, body: String::from_utf8(body.to_vec()).unwrap() })
        .unwrap();
    match reply {
        None => StatusCode::OK.into_response(),
        Some(Reply::Status(status)) => (StatusCode::from_u16(status).unwrap(), "not <now>").into_response(),
        Some(Reply::Wait(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Some(Reply::Redirect(to)) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Some(Reply::Spent(seconds)) => {
            let reset = (clock::now().as_second() + seconds).to_string();
            let headers = [("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", reset)];
            (StatusCode::FORBIDDEN, headers).into_response()
        }
        Some(Reply::Json(body)) => axum::Json(body).into_response(),
        Some(Reply::Hang) => std::future::pending().await,
    }
}

/// A server's scheduler and outbox; the outbox does a turn when it is told to.
struct Rig {
    app: App,
    outbox: Outbox,
    desk: Desk,
    /// Seconds that the outbox's clock is ahead.
    ahead: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl Rig {
    /// `config` is the text of `pitcrew.yaml`, `workflows` that of a workflow file.
    async fn new(config: &str, workflows: &str) -> Rig {
        // No harm if another test did it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pitcrew.yaml");
        std::fs::write(&file, config).unwrap();
        let overrides = Overrides { config: Some(file), ..Overrides::default() };
        let settings = Settings::read(&overrides, &|_| None).unwrap_or_else(|error| panic!("{error:?}"));
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let owner = Arc::new(store.register_owner().await.unwrap());
        let data = DataDir::open(dir.path()).unwrap();
        let (sender, events) = mpsc::unbounded_channel();
        let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(sender.clone()));
        let workers = Hub::new(data.root().to_owned(), LEASE, sender);
        let (catalog, metrics) = (Arc::new(Catalog::default()), Metrics::default());
        let kinds = [BackendKind::Local, BackendKind::Fake];
        let backends = Backends::new(kinds.map(|kind| (kind, backend.clone())));
        let vault = Vault::new(&data, &|_| None).unwrap();
        let aws = crate::secrets::aws("us-east-1").unwrap();
        let fleet = crate::fleet::Fleet::of(store.clone(), Vec::new());
        let scheduler = Scheduler::start(Parts {
            store: store.clone(),
            owner,
            data: data.clone(),
            catalog: catalog.clone(),
            vault: vault.clone(),
            backends: backends.clone(),
            ssh: pitcrew_exec::ssh::Defaults::default(),
            secrets: crate::secrets::open(&store, &vault, &aws).unwrap(),
            aws_region: String::new(),
            sandbox: Default::default(),
            events,
            parallelism: 64,
            policy: settings.placement_policy(),
            nodes: fleet.nodes(),
            fleet: fleet.clone(),
            claim: Claim::Leading,
            notify: settings.notify.clone(),
            base_url: String::new(),
            metrics: metrics.clone(),
            tracer: None,
            default_queue: None,
            recoverer: Arc::new(NoRecovery),
        });
        let app = App {
            store: store.clone(),
            scheduler,
            catalog,
            aws,
            vault,
            data,
            metrics,
            backends,
            notify: settings.notify,
            schedules: Arc::default(),
            hooks: Arc::default(),
            fleet,
            workers,
            recovery: crate::recovery::Desk::off(),
        };
        for compiled in catalog::compile(workflows, "test.yaml").unwrap() {
            let row = folder::row(&compiled, "test.yaml");
            store.put_workflow(&row, &compiled.source, clock::now()).await.unwrap();
        }
        let mut outbox = Outbox::new(&app, "https://ci.example.com".to_owned()).unwrap();
        let ahead = Arc::new(AtomicI64::new(0));
        let shift = ahead.clone();
        outbox.now = Arc::new(move || clock::now() + SignedDuration::from_secs(shift.load(Ordering::Relaxed)));
        Rig { app, outbox, desk: Desk::default(), ahead, _dir: dir }
    }

    /// Lets a run come to its end.
    async fn run(&self, workflow: &str) -> RunRecord {
        let mut changes = self.app.scheduler.subscribe();
        let run = self.start(workflow).await;
        loop {
            let change = changes.recv().await.unwrap();
            if change.run == run.key && change.finished {
                return run;
            }
        }
    }

    async fn start(&self, workflow: &str) -> RunRecord {
        let trigger = Trigger { by: "tester".into(), ..Trigger::default() };
        self.app.trigger(&WorkflowId::new(workflow).unwrap(), trigger).await.unwrap()
    }

    /// One look at the outbox, to the end of everything that it leads to.
    async fn turn(&mut self) {
        self.outbox.turn(&mut self.desk).await.unwrap();
        while self.desk.done().await.is_some() {}
    }

    fn later(&self, seconds: i64) {
        self.ahead.fetch_add(seconds, Ordering::Relaxed);
    }

    /// All notices, from the first.
    async fn notices(&self) -> Vec<Notice> {
        let mut rows = self.app.store.notices(&NoticeFilter::default(), Paging::ALL).await.unwrap().rows;
        rows.reverse();
        rows
    }

    /// State and error of each notice.
    async fn states(&self) -> Vec<(&'static str, String)> {
        self.notices().await.into_iter().map(|notice| (notice.state.name(), notice.error)).collect()
    }

    /// Waits until a task of a run is in a state.
    async fn until(&self, run: RunKey, task: &str, state: &str) {
        let mut changes = self.app.scheduler.subscribe();
        loop {
            let rows = self.app.scheduler.snapshot(run).await.map(|snapshot| snapshot.instances).unwrap_or_default();
            if rows.iter().any(|row| row.task == *task && row.state.name() == state) {
                return;
            }
            changes.recv().await.unwrap();
        }
    }

    async fn mark_failed(&self, run: RunKey, task: &str) {
        let pick = Pick { task: task.to_owned(), map_index: None };
        self.app.scheduler.mark(run, pick, false, "tester").await.unwrap();
    }
}

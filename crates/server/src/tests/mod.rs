//! The server in one process: a store in memory, the fake backend, and requests without a network.

mod access;
mod admin;
mod api;
mod backfills;
mod documents;
mod ecs;
mod incidents;
mod metrics;
mod pages;
mod placement;
mod resources;
mod second;
mod trigger;
mod walk;
mod workers;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures::StreamExt as _;
use pitcrew_control::app::{App, Trigger};
use pitcrew_control::backends::Backends;
use pitcrew_control::base_url::BaseUrl;
use pitcrew_control::catalog::{self, Catalog};
use pitcrew_control::config::{Overrides, Settings};
use pitcrew_control::metrics::Metrics;
use pitcrew_control::paths::DataDir;
use pitcrew_control::scheduler::recovery::NoRecovery;
use pitcrew_control::scheduler::{Claim, Parts, Scheduler};
use pitcrew_control::vault::Vault;
use pitcrew_control::{clock, fleet, folder};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::fleet::{Amount, Gpu, Node};
use pitcrew_core::ir::BackendKind;
use pitcrew_core::{RunKey, WorkflowId};
use pitcrew_exec::Backend;
use pitcrew_exec::fake::FakeBackend;
use pitcrew_exec::worker::{Hub, LEASE};
use pitcrew_store::{Store, StoreUrl};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::auth::manage::{self, NewUser};
use super::auth::{Auth, Role, Use, User};
use super::{AuthConfig, LINK, Shared, Site, router};

const PASSWORD: &str = "correct horse";

/// A server with everything behind it.
struct Rig {
    app: App,
    site: Site,
    router: Router,
    token: String,
    _dir: tempfile::TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// A page with its names in code between backticks, as its sentences are written.
    fn said(&self) -> String {
        self.text.replace("<code>", "`").replace("</code>", "`")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Rig {
    async fn new() -> Rig {
        Rig::on(fleet::fixed(vec![fleet::FleetNode {
            node: Node::new("local", Amount::whole(8), 1 << 16, vec![Gpu::new("gpu-0", "pretend", 0)]),
            reach: fleet::Reach::Local,
        }]))
        .await
    }

    /// A server with these nodes.
    async fn on(nodes: fleet::Nodes) -> Rig {
        Rig::placing(Some(nodes)).await
    }

    /// A server with these nodes, or with those of its fleet.
    async fn placing(nodes: Option<fleet::Nodes>) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let metrics = Metrics::default();
        let store = store.observed(metrics.store_observer());
        let owner = Arc::new(store.register_owner().await.unwrap());
        let data = DataDir::open(dir.path()).unwrap();
        let catalog = Arc::new(Catalog::default());
        let (sender, events) = mpsc::unbounded_channel();
        let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(sender.clone()));
        let kinds = [BackendKind::Local, BackendKind::Fake, BackendKind::Ssh];
        let workers = Hub::new(data.root().to_owned(), LEASE, sender);
        let backends = Backends::new(kinds.map(|kind| (kind, backend.clone()))).with_hub(workers.clone());
        let vault = Vault::new(&data, &|_| None).unwrap();
        let aws = pitcrew_control::secrets::aws("us-east-1").unwrap();
        let gpu: fleet::SeenGpu = serde_json::from_value(json!({ "id": "gpu-0", "model": "NVIDIA A100" })).unwrap();
        let seen = fleet::Seen { cores: Some(8), memory_mib: Some(1 << 16), gpus: vec![gpu], ..Default::default() };
        let fleet = fleet::Fleet::of(store.clone(), vec![(fleet::NodeConfig::plain(fleet::LOCAL), Some(seen))]);
        let scheduler = Scheduler::start(Parts {
            store: store.clone(),
            owner,
            data: data.clone(),
            catalog: catalog.clone(),
            vault: vault.clone(),
            backends: backends.clone(),
            ssh: pitcrew_exec::ssh::Defaults::default(),
            secrets: pitcrew_control::secrets::open(&store, &vault, &aws).unwrap(),
            aws_region: String::new(),
            sandbox: Default::default(),
            events,
            parallelism: 8,
            policy: pitcrew_core::fleet::Policy::default(),
            nodes: nodes.unwrap_or_else(|| fleet.nodes()),
            fleet: fleet.clone(),
            claim: Claim::Leading,
            notify: Arc::default(),
            base_url: String::new(),
            metrics: metrics.clone(),
            tracer: None,
            default_queue: None,
            recoverer: Arc::new(NoRecovery),
        });
        let app = App {
            store,
            scheduler,
            catalog,
            data,
            aws,
            vault,
            metrics,
            backends,
            notify: Arc::default(),
            schedules: Arc::default(),
            hooks: Arc::default(),
            fleet,
            workers,
            recovery: pitcrew_control::recovery::Desk::off(),
        };
        let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
        let config = AuthConfig::Password(PASSWORD.into());
        let (auth, _) = Auth::open(&app.store, &config, listen, None, clock::now()).await.unwrap();
        let admin = User::of(&app.store.user("admin").await.unwrap().unwrap());
        let token = auth.issue(&admin, Use::Api, LINK, clock::now());
        let site = Site::of(Shared {
            app: app.clone(),
            auth,
            listen,
            hosts: Arc::default(),
            base_url: BaseUrl::of(listen),
            proxies: Arc::default(),
            provider: None,
            metrics_open: false,
            settings: Settings::read(&Overrides::default(), &|_| None).unwrap().into(),
            figures: Default::default(),
            closing: CancellationToken::new(),
            live: Default::default(),
            wire: Default::default(),
        });
        Rig { app, router: router(site.clone()), site, token, _dir: dir }
    }

    /// A server that knows the workflows of this source.
    async fn with(source: &str) -> Rig {
        Rig::new().await.knowing(source).await
    }

    /// The same server, once it knows the workflows of this source.
    async fn knowing(self, source: &str) -> Rig {
        let rig = self;
        for compiled in catalog::compile(source, "test.yaml").unwrap() {
            let row = folder::row(&compiled, "test.yaml");
            rig.app.store.put_workflow(&row, &compiled.source, clock::now()).await.unwrap();
        }
        rig
    }

    /// A user of the store, without a password.
    async fn user(&self, name: &str, role: Role) -> User {
        let new = NewUser { name: name.into(), role: Some(role), ..NewUser::default() };
        let row = manage::create_user(&self.app.store, &User::local("test"), new, clock::now()).await.unwrap();
        User::of(&row)
    }

    /// What a program of that user sends.
    fn token_of(&self, user: &User) -> String {
        self.site.auth.issue(user, Use::Api, LINK, clock::now())
    }

    /// What a program of some user with that role sends; the user is called `role-1`.
    async fn token_for(&self, role: Role) -> String {
        let name = format!("{role}-1");
        let user = match self.app.store.user(&name).await.unwrap() {
            Some(row) => User::of(&row),
            None => self.user(&name, role).await,
        };
        self.token_of(&user)
    }

    /// Also checks an answer of the API against its document.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 8 << 20).await.unwrap();
        let answer =
            Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() };
        documents::check(&method, &path, &answer);
        answer
    }

    /// A request as a program sends it, with its token.
    async fn ask(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        let request = self.request(method, path).header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        self.send(request.body(body.into()).unwrap()).await
    }

    /// An answer that goes on.
    async fn stream(&self, path: &str) -> axum::body::BodyDataStream {
        let request = self.request(Method::GET, path).header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        let response = self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        response.into_body().into_data_stream()
    }

    /// The next event of a stream, as it was sent.
    async fn event(&self, stream: &mut axum::body::BodyDataStream) -> String {
        let bytes = stream.next().await.unwrap().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path, body.to_string()).await
    }

    /// What a form of a page sends.
    async fn submit(&self, path: &str, form: &str) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ORIGIN, "http://localhost:8080");
        self.send(request.body(form.to_owned().into()).unwrap()).await
    }

    fn request(&self, method: Method, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header(header::HOST, "localhost:8080")
    }

    /// Starts a run under the name `r`.
    async fn start(&self, workflow: &str, conf: Value) -> RunRecord {
        let Value::Object(conf) = conf else { panic!("not an object") };
        let trigger = Trigger { conf, run_id: Some("r".parse().unwrap()), by: "admin".into(), ..Trigger::default() };
        self.app.trigger(&WorkflowId::new(workflow).unwrap(), trigger).await.unwrap()
    }

    /// Starts a run and waits for its end.
    async fn finish(&self, workflow: &str) -> RunRecord {
        let mut changes = self.app.scheduler.subscribe();
        let run = self.start(workflow, json!({})).await;
        loop {
            let change = changes.recv().await.unwrap();
            if change.run == run.key && change.finished {
                return self.run(run.key).await;
            }
        }
    }

    /// Waits until a task of a run is in a state.
    async fn until(&self, run: RunKey, task: &str, state: &str) {
        let mut changes = self.app.scheduler.subscribe();
        loop {
            let snapshot = self.app.scheduler.snapshot(run).await;
            let rows = snapshot.map(|snapshot| snapshot.instances).unwrap_or_default();
            if rows.iter().any(|row| row.task == *task && row.state.name() == state) {
                return;
            }
            changes.recv().await.unwrap();
        }
    }

    async fn run(&self, key: RunKey) -> RunRecord {
        self.app.store.run(key).await.unwrap().unwrap()
    }
}

/// Replaces what differs from run to run: times, hashes, ids.
fn settled(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for (key, entry) in map.iter_mut() {
                let is_loose =
                    matches!(key.as_str(), "id" | "bundle_version" | "duration" | "timestamp" | "file_token");
                let is_time = key.ends_with("_date") || key.ends_with("_at") || key.ends_with("_when");
                let is_loose = is_loose || is_time || key == "run_after" || key == "last_scheduling_decision";
                *entry = if is_loose && !entry.is_null() { json!("…") } else { settled(entry.take()) };
            }
            value
        }
        Value::Array(list) => Value::Array(list.iter_mut().map(|entry| settled(entry.take())).collect()),
        _ => value,
    }
}

//! Several real servers on one PostgreSQL database, each a process of its own; a client that may ask any of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde_json::Value;

/// More than anything here takes on a machine that does a lot beside it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A database of its own, with folders; gone at the end.
pub struct World {
    pub dir: PathBuf,
    _temp: tempfile::TempDir,
    admin: String,
    name: String,
    pub store: String,
    pub client: Client,
}

/// One server process, or a worker, which has no address.
pub struct Server {
    pub child: Child,
    pub url: String,
    pub log: PathBuf,
}

/// How to start one.
#[derive(Default, Clone)]
pub struct Start<'a> {
    /// The name of its data directory.
    pub data: &'a str,
    /// The database, if not as everybody else reaches it.
    pub store: Option<String>,
    /// The password of `admin`; none asks nobody.
    pub password: Option<&'a str>,
    /// Live tasks at most; 32 unless said.
    pub parallelism: Option<&'a str>,
    pub env: &'a [(&'a str, &'a str)],
}

impl World {
    /// `None`, with a word about it, where no PostgreSQL is named.
    pub fn new(name: &str) -> Option<World> {
        let Ok(admin) = std::env::var("PITCREW_TEST_POSTGRES") else {
            eprintln!("PITCREW_TEST_POSTGRES is not set; `scripts/test` sets it");
            return None;
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let temp = tempfile::tempdir().unwrap();
        let name = format!("servers_{name}_{}", std::process::id());
        let (base, query) = admin.split_once('?').unwrap_or((&admin, ""));
        let (server, _) = base.rsplit_once('/').expect("an address with a database");
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        let store = format!("{server}/{name}{query}");
        let dir = temp.path().to_owned();
        for folder in ["workflows", "effects"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let client = Client::builder().no_proxy().build().unwrap();
        let world = World { dir, _temp: temp, admin, name, store, client };
        world.sql(&world.admin, &format!("create database {}", world.name));
        Some(world)
    }

    fn sql(&self, address: &str, text: &str) -> String {
        let out = Command::new("psql").args([address, "-qAtc", text]).output().expect("psql starts");
        assert!(out.status.success(), "{text}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Asks the database itself.
    pub fn query(&self, text: &str) -> String {
        self.sql(&self.store, text).trim().to_owned()
    }

    /// `HOST:PORT` of the database server.
    pub fn database(&self) -> String {
        let (_, rest) = self.store.rsplit_once('@').expect("an address with a user");
        rest.split(['/', '?']).next().unwrap_or_default().to_owned()
    }

    /// The address of the database by another way.
    pub fn store_at(&self, host: &str) -> String {
        self.store.replace(&format!("@{}", self.database()), &format!("@{host}"))
    }

    pub fn workflow(&self, name: &str, text: &str) {
        std::fs::write(self.dir.join(format!("workflows/{name}.yaml")), text).unwrap();
    }

    pub fn effects(&self) -> PathBuf {
        self.dir.join("effects")
    }

    /// Starts a server and returns when it answers.
    pub fn start(&self, start: &Start<'_>) -> Server {
        let log = self.dir.join(format!("{}.log", uuid::Uuid::now_v7()));
        let out = File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(["server", "--listen", "127.0.0.1:0", "--parallelism", start.parallelism.unwrap_or("32")]);
        command.arg("--data-dir").arg(self.dir.join(start.data)).arg("--workflows").arg(self.dir.join("workflows"));
        match start.password {
            Some(password) => command.env("PITCREW_ADMIN_PASSWORD", password),
            None => command.arg("--no-auth"),
        };
        command.env("PITCREW_STORE", start.store.as_ref().unwrap_or(&self.store)).env("NO_COLOR", "1");
        command.env("PITCREW_SECRET_KEY", "of all servers of this test together").env("PITCREW_GPUS", "0");
        command.envs(start.env.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let mut server = Server { child, url: String::new(), log };
        wait_now("a server answers", &server.log.clone(), || {
            let text = std::fs::read_to_string(&server.log).unwrap_or_default();
            let line = text.lines().find_map(|line| line.trim().strip_prefix("pages"));
            server.url = line.unwrap_or_default().trim().to_owned();
            !server.url.is_empty() && text.contains("Ctrl-C")
        });
        server
    }

    /// Starts a worker of a queue, with a token of this server, that knows servers by this address; it is called like its queue.
    pub async fn worker(&self, server: &Server, address: &str, queue: &str) -> Server {
        let token = serde_json::json!({ "uses": 1 });
        let token = self.ask(Method::POST, server, "/api/pitcrew/v1/workers/token", Some(token)).await;
        let log = self.dir.join(format!("{}.log", uuid::Uuid::now_v7()));
        let out = File::create(&log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(["worker", "--name", queue, "--queue", queue, "--server", address]);
        command.arg("--data-dir").arg(self.dir.join(queue)).env("PITCREW_GPUS", "0").env("NO_COLOR", "1");
        command.env("PITCREW_WORKER_TOKEN", token["token"].as_str().expect("a token"));
        let child = command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
        let worker = Server { child, url: String::new(), log };
        wait_now("a worker takes work", &worker.log, || worker.has_said("takes work from"));
        worker
    }

    /// Sends a request; what came back, and its JSON if it has some.
    pub async fn send(&self, method: Method, server: &Server, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", server.url));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}\n{}", server.tail()));
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The same, where it must succeed.
    pub async fn ask(&self, method: Method, server: &Server, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.send(method.clone(), server, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}\n{}", server.tail());
        answer
    }

    pub async fn get(&self, server: &Server, path: &str) -> Value {
        self.ask(Method::GET, server, path, None).await
    }

    /// Returns when the server knows the workflow.
    pub async fn knows(&self, server: &Server, workflow: &str) {
        let path = format!("/api/v2/dags/{workflow}");
        wait(&format!("{workflow} is known"), &server.log, async || {
            self.send(Method::GET, server, &path, None).await.0.is_success()
        })
        .await;
    }

    pub async fn trigger(&self, server: &Server, workflow: &str, run: &str) {
        let body = serde_json::json!({ "dag_run_id": run, "logical_date": null });
        self.ask(Method::POST, server, &format!("/api/v2/dags/{workflow}/dagRuns"), Some(body)).await;
    }

    pub async fn state(&self, server: &Server, workflow: &str, run: &str) -> String {
        let run = self.get(server, &format!("/api/v2/dags/{workflow}/dagRuns/{run}")).await;
        run["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Returns when the run is in that state.
    pub async fn becomes(&self, server: &Server, workflow: &str, run: &str, state: &str) {
        wait(&format!("{run} is {state}"), &server.log, async || self.state(server, workflow, run).await == state)
            .await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let drop = format!("drop database if exists {} with (force)", self.name);
        let _ = Command::new("psql").args([self.admin.as_str(), "-qc", &drop]).output();
    }
}

impl Server {
    /// As a crash would end it; what it runs goes on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The most memory that it ever had, in bytes.
    pub fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    pub fn has_said(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap_or_default().contains(text)
    }

    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Looks until it holds. Not a pause for luck: it fails, loudly, when it never does.
pub async fn wait(what: &str, log: &Path, mut holds: impl AsyncFnMut() -> bool) {
    let begun = now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}\n{}", tail(log));
        pause(Duration::from_millis(50));
    }
}

pub fn wait_now(what: &str, log: &Path, mut holds: impl FnMut() -> bool) {
    let begun = now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}\n{}", tail(log));
        pause(Duration::from_millis(50));
    }
}

#[allow(clippy::disallowed_methods, reason = "other processes take real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "other processes take real time")]
pub fn pause(by: Duration) {
    std::thread::sleep(by);
}

//! A server, workers, and a client that looks.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

/// More than anything here takes on a machine that does a lot beside it.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// The shortest there is: a worker that is not heard ends what it runs after it, and its tasks are lost some time later.
pub const LEASE: &str = "10s";

pub struct World {
    pub dir: PathBuf,
    _temp: tempfile::TempDir,
    client: Client,
    pub server: Process,
    pub url: String,
    port: u16,
}

/// One process of Pitcrew.
pub struct Process {
    pub child: Child,
    pub log: PathBuf,
}

impl World {
    pub fn new() -> World {
        World::with(&[])
    }

    /// Where these settings differ, as variables of the environment of the server.
    pub fn with(env: &[(&str, &str)]) -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().canonicalize().unwrap();
        for folder in ["workflows", "effects"] {
            std::fs::create_dir_all(dir.join(folder)).unwrap();
        }
        let client = Client::builder().no_proxy().build().unwrap();
        // The port is kept over restarts, since workers know it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = serve(&dir, port, env);
        World { _temp: temp, client, server, url: format!("http://127.0.0.1:{port}"), port, dir }
    }

    pub fn restart_server(&mut self) {
        self.server.kill();
        self.server = serve(&self.dir, self.port, &[]);
    }

    pub fn workflow(&self, name: &str, tasks: &str) {
        let text = format!("workflow: {name}\ntasks:\n{tasks}");
        std::fs::write(self.dir.join(format!("workflows/{name}.yaml")), text).unwrap();
    }

    pub fn effects(&self, name: &str) -> PathBuf {
        self.dir.join("effects").join(name)
    }

    /// A worker that is enrolled and takes work, with more arguments and variables.
    pub async fn worker(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        let token = self.post("/api/pitcrew/v1/workers/token", json!({ "uses": 1 })).await;
        let token = token["token"].as_str().expect("a token").to_owned();
        let env: Vec<(&str, &str)> = env.iter().copied().chain([("PITCREW_WORKER_TOKEN", token.as_str())]).collect();
        let worker = self.start(name, &self.url, args, &env);
        worker.says("takes work from");
        worker
    }

    /// A worker of this name in its own data directory; enrolled before, unless a token is among the variables.
    pub fn start(&self, name: &str, url: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.args(["worker", "--name", name, "--server", url]).args(args);
        command.arg("--data-dir").arg(self.dir.join(name)).envs(env.iter().copied());
        spawned(&self.dir, command)
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = &body {
            request = request.json(body);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.server.tail()));
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        assert!(status.is_success(), "{method} {path}: {status} {text}\n{}", self.server.tail());
        serde_json::from_str(&text).unwrap_or(Value::String(text))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ask(Method::GET, path, None).await
    }

    /// A page, as its text.
    pub async fn page(&self, path: &str) -> String {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().text().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Triggers a run of a workflow as soon as the server knows it.
    pub async fn trigger(&self, workflow: &str) {
        let path = format!("{}/api/v2/dags/{workflow}", self.url);
        self.wait(&format!("{workflow} is known"), async || {
            self.client.get(&path).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        let body = json!({ "dag_run_id": "r", "logical_date": null });
        self.post(&format!("/api/v2/dags/{workflow}/dagRuns"), body).await;
    }

    pub async fn state(&self, workflow: &str) -> String {
        let path = format!("{}/api/v2/dags/{workflow}/dagRuns/r", self.url);
        let Ok(answer) = self.client.get(path).send().await else { return String::new() };
        let run: Value = answer.json().await.unwrap_or_default();
        run["state"].as_str().unwrap_or_default().to_owned()
    }

    pub async fn becomes(&self, workflow: &str, state: &str) {
        self.wait(&format!("{workflow} is {state}"), async || self.state(workflow).await == state).await;
    }

    /// Looks until it holds; it fails, loudly, when it never does.
    pub async fn wait(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let begun = now();
        while !holds().await {
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}\n{}", self.everything());
            pause(Duration::from_millis(50));
        }
    }

    pub fn wait_now(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begun = now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "after {PATIENCE:?} still not: {what}\n{}", self.everything());
            pause(Duration::from_millis(50));
        }
    }

    /// The lines that tasks left there.
    pub fn lines(&self, effect: &str) -> Vec<String> {
        std::fs::read_to_string(self.effects(effect)).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Returns when there are so many of them.
    pub fn wait_lines(&self, effect: &str, count: usize) -> Vec<String> {
        self.wait_now(&format!("{effect} has {count} lines"), || self.lines(effect).len() >= count);
        self.lines(effect)
    }

    /// What every process said, for a failure.
    fn everything(&self) -> String {
        let mut all = String::new();
        for entry in std::fs::read_dir(&self.dir).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "log") {
                all.push_str(&format!("--- {}\n{}\n", entry.path().display(), tail(&entry.path())));
            }
        }
        all
    }
}

fn serve(dir: &Path, port: u16, env: &[(&str, &str)]) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command.args(["server", "--no-auth", "--listen", &format!("127.0.0.1:{port}")]);
    command.arg("--data-dir").arg(dir.join("server")).arg("--workflows").arg(dir.join("workflows"));
    command.env("PITCREW_WORKER_LEASE", LEASE).env("PITCREW_GPUS", "0").envs(env.iter().copied());
    let server = spawned(dir, command);
    server.says("Ctrl-C");
    server
}

pub fn spawned(dir: &Path, mut command: Command) -> Process {
    let log = dir.join(format!("{}.log", uuid::Uuid::now_v7()));
    let out = File::create(&log).unwrap();
    command.env("NO_COLOR", "1").env_remove("PITCREW_STORE").env_remove("PITCREW_SERVER").stdin(Stdio::null());
    let child = command.stdout(out.try_clone().unwrap()).stderr(out).spawn().unwrap();
    Process { child, log }
}

impl Process {
    /// As a crash would end it; what it runs goes on.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns when it has said that.
    pub fn says(&self, text: &str) {
        let begun = now();
        while !self.text().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "it never said `{text}`:\n{}", self.tail());
            pause(Duration::from_millis(20));
        }
    }

    pub fn ends(&mut self) -> ExitStatus {
        let begun = now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it never ended:\n{}", self.tail());
            pause(Duration::from_millis(20));
        }
    }

    pub fn tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(30).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

/// Is there such a process?
pub fn exists(pid: &str) -> bool {
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("the number of a process");
    rustix::process::test_kill_process(pid).is_ok()
}

#[allow(clippy::disallowed_methods, reason = "other processes take real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "other processes take real time")]
pub fn pause(by: Duration) {
    std::thread::sleep(by);
}

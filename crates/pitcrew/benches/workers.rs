//! The figures of workers in `docs/PERFORMANCE.md`, on the real binary: `cargo bench --profile release -p pitcrew --bench
//! workers [-- NAME…]`; `-- slots 20 tasks=1000` picks numbers of slots and of tasks.
//!
//! Nothing here passes or fails; it prints. Clients of `idle` are tasks of this process that say what a worker with nothing
//! to do says, over connections of their own; all other workers are processes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// How many idle workers there are.
const WORKERS: usize = 1_000;
/// How long is looked.
const LOOK: Duration = Duration::from_secs(60);

struct Bench {
    dir: tempfile::TempDir,
    client: Client,
    server: Child,
    url: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A worker process; it and its runner end with this.
struct Worker(Child, PathBuf);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(1200), "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Bench {
    async fn start() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("workflows")).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new(env!("CARGO_BIN_EXE_pitcrew"))
            .args(["server", "--no-auth", "--parallelism", "10000", "--listen", &format!("127.0.0.1:{port}")])
            .arg("--data-dir")
            .arg(dir.path().join("server"))
            .arg("--workflows")
            .arg(dir.path().join("workflows"))
            .env("PITCREW_GPUS", "0")
            .env_remove("PITCREW_STORE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let bench = Bench { dir, client, server, url: format!("http://127.0.0.1:{port}") };
        until("the server answers", async || bench.client.get(format!("{}/health", bench.url)).send().await.is_ok())
            .await;
        bench
    }

    async fn post(&self, path: &str, bearer: Option<&str>, body: Value) -> Value {
        let mut request = self.client.post(format!("{}{path}", self.url)).json(&body);
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Value {
        self.client.get(format!("{}{path}", self.url)).send().await.unwrap().json().await.unwrap_or_default()
    }

    async fn token(&self) -> String {
        let made = self.post("/api/pitcrew/v1/workers/token", None, json!({})).await;
        made["token"].as_str().expect("a token").to_owned()
    }

    async fn worker(&self, name: &str, slots: usize) -> Worker {
        let data = self.dir.path().join(name);
        let child = Command::new(env!("CARGO_BIN_EXE_pitcrew"))
            .args(["worker", "--name", name, "--server", &self.url, "--slots", &slots.to_string(), "--data-dir"])
            .arg(&data)
            .env("PITCREW_WORKER_TOKEN", self.token().await)
            .env("PITCREW_GPUS", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let path = format!("/api/pitcrew/v1/workers/{name}");
        until("a worker is known", async || self.get(&path).await["name"] == name).await;
        Worker(child, data)
    }

    /// So that nothing but slots of workers limits anything.
    async fn no_limits(&self) {
        let path = "/api/v2/pools/default_pool?update_mask=slots";
        let request = self.client.patch(format!("{}{path}", self.url));
        let answer = request.json(&json!({ "pool": "default_pool", "slots": 100_000 })).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    /// Runs a workflow of these tasks to its end; the seconds that it took.
    async fn run(&self, name: &str, tasks: &str) -> f64 {
        let limit = Duration::from_secs(1200);
        self.run_within(name, tasks, limit).await.unwrap_or_else(|done| panic!("{name}: only {done} done in {limit:?}"))
    }

    /// The same, or how many were done when the time was up.
    async fn run_within(&self, name: &str, tasks: &str, limit: Duration) -> Result<f64, u64> {
        let file = self.dir.path().join(format!("workflows/{name}.yaml"));
        std::fs::write(file, format!("workflow: {name}\nmax_active_tasks: 10000\ntasks:\n{tasks}")).unwrap();
        let path = format!("/api/v2/dags/{name}");
        until("the workflow is known", async || self.get(&path).await["dag_id"] == name).await;
        let body = json!({ "dag_run_id": "r", "logical_date": null });
        self.post(&format!("{path}/dagRuns"), None, body).await;
        let run = format!("{path}/dagRuns/r");
        let begun = now();
        loop {
            let last = self.get(&run).await;
            match last["state"].as_str() {
                Some("success") => return Ok(seconds(&last, "end_date") - seconds(&last, "start_date")),
                Some("failed") => panic!("{last}"),
                _ if begun.elapsed() > limit => {
                    let done = self.get(&format!("{run}/taskInstances?limit=1&state=success")).await;
                    return Err(done["total_entries"].as_u64().unwrap_or(0));
                }
                // Whoever looks costs the server something, too.
                _ => tokio::time::sleep(Duration::from_millis(250)).await,
            }
        }
    }
}

fn seconds(row: &Value, key: &str) -> f64 {
    let at: jiff::Timestamp = row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}")).parse().unwrap();
    at.as_nanosecond() as f64 / 1e9
}

fn percentile(sorted: &[f64], p: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * p).round() as usize]
}

/// Seconds of a processor that a process has used.
fn cpu(child: &Child) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// MiB of a process.
struct Memory {
    /// Resident: half of the time no more than this, and never more than that.
    usual: f64,
    most: f64,
    /// What no other process has mapped, and its part of the rest, in the end (PSS); and what is in no file.
    part: f64,
    own: f64,
}

/// Looks every second at what a process has.
async fn memory_of(pid: u32, time: Duration) -> Memory {
    let read = |file: &str, key: &str| -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    let mut seen = Vec::new();
    for _ in 0..time.as_secs() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        seen.push(read("status", "VmRSS:"));
    }
    seen.sort_by(f64::total_cmp);
    let rollup = |key: &str| read("smaps_rollup", key);
    Memory {
        usual: percentile(&seen, 0.5),
        most: percentile(&seen, 1.0),
        part: rollup("Pss:"),
        own: rollup("Anonymous:"),
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Memory { usual, most, part, own } = self;
        write!(f, "{usual:.1} MiB resident, {most:.1} at most; PSS {part:.1}, in no file {own:.1}")
    }
}

/// A worker that never gets anything to do.
async fn simulated(url: String, token: String, number: usize) {
    let client = Client::builder().no_proxy().build().unwrap();
    let root = format!("{url}/api/pitcrew/v1/worker");
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"), "host": format!("host{number}"), "data_dir": "/var/lib/pitcrew/worker",
        "program": "/usr/bin/pitcrew", "queues": [format!("q{}", number % 10)], "slots": 8,
    });
    let enrol = json!({ "protocol": 1, "name": format!("idle-{number}"), "about": about });
    let answer = client.post(format!("{root}/enrol")).bearer_auth(token).json(&enrol).send().await.unwrap();
    let enrolled: Value = answer.error_for_status().unwrap().json().await.unwrap();
    let credential = enrolled["credential"].as_str().unwrap().to_owned();
    let mut server = Value::Null;
    for seq in 1.. {
        let wait = if seq == 1 { 0 } else { 25_000 };
        let mut sync = json!({
            "protocol": 1, "incarnation": 1, "seq": seq, "has": [], "wait_ms": wait, "server": server,
            "load": {"load1": 0.5, "memory_used_mib": 1024},
        });
        if seq == 1 {
            sync["about"] = about.clone();
        }
        let answer = client.post(format!("{root}/sync")).bearer_auth(&credential).json(&sync).send().await;
        let Ok(answer) = answer else { return };
        let answer: Value = answer.error_for_status().unwrap().json().await.unwrap();
        server = answer["server"].clone();
    }
}

async fn idle(bench: &Bench) {
    let token = bench.token().await;
    let clients: Vec<_> =
        (0..WORKERS).map(|number| tokio::spawn(simulated(bench.url.clone(), token.clone(), number))).collect();
    until("all enrolled", async || {
        bench.get("/api/pitcrew/v1/workers").await["total_entries"].as_u64() == Some(WORKERS as u64)
    })
    .await;
    // What belongs to the beginning is over after the first wait.
    tokio::time::sleep(Duration::from_secs(40)).await;
    let before = cpu(&bench.server);
    let memory = memory_of(bench.server.id(), LOOK).await;
    let used = (cpu(&bench.server) - before) / LOOK.as_secs_f64() * 100.0;
    println!(
        "idle       {WORKERS} workers with nothing to do  {used:.1} % of a core (aim ≤ 5); {memory} (aim ≤ 100 MB)"
    );
    assert!(clients.iter().all(|client| !client.is_finished()), "a simulated worker gave up");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn dispatch(bench: &Bench) {
    let _worker = bench.worker("dispatch", 4).await;
    let tasks: String = (0..300)
        .map(|i| {
            let needs = if i == 0 { String::new() } else { format!("needs: [t{}], ", i - 1) };
            format!("  t{i}: {{queue: default, {needs}run: 'true'}}\n")
        })
        .collect();
    bench.run("dispatch", &tasks).await;
    let mut rows = Vec::new();
    for offset in (0..300).step_by(100) {
        let path = format!("/api/v2/dags/dispatch/dagRuns/r/taskInstances?limit=100&offset={offset}");
        rows.extend(bench.get(&path).await["task_instances"].as_array().expect("a list").iter().cloned());
    }
    let gaps = |from: &[f64], to: &[f64]| -> Vec<f64> {
        let mut gaps: Vec<f64> = from.iter().zip(to).map(|(from, to)| (to - from) * 1e3).collect();
        gaps.sort_by(f64::total_cmp);
        gaps
    };
    rows.sort_by(|a, b| seconds(a, "start_date").total_cmp(&seconds(b, "start_date")));
    let column = |key: &str| -> Vec<f64> { rows.iter().map(|row| seconds(row, key)).collect() };
    let (queued, start, end) = (column("queued_when"), column("start_date"), column("end_date"));
    let dispatched = gaps(&queued, &start);
    let chained = gaps(&end[..end.len() - 1], &start[1..]);
    println!(
        "dispatch   queued → begun on a waiting worker  p50 {:.1} ms (aim ≤ 10), p99 {:.1} ms (aim ≤ 50); end of a task → begin of \
         the next, p50 {:.1} ms, p99 {:.1} ms",
        percentile(&dispatched, 0.5),
        percentile(&dispatched, 0.99),
        percentile(&chained, 0.5),
        percentile(&chained, 0.99),
    );
}

async fn memory(bench: &Bench) {
    let worker = bench.worker("memory", 8).await;
    // What belongs to the beginning is over by then; and it talks with the server twice while it is looked at.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let fresh = memory_of(worker.0.id(), LOOK).await;
    println!("memory     a worker with nothing to do  {fresh} (aim ≤ 15 MB)");
    let tasks: String = (0..200).map(|i| format!("  t{i}: {{queue: default, run: 'true'}}\n")).collect();
    bench.run("memory", &tasks).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("           after 200 tasks  {}", memory_of(worker.0.id(), LOOK).await);
    for runner in runners(bench.dir.path()) {
        println!("           its runner  {}", memory_of(runner, Duration::from_secs(10)).await);
    }
}

/// Seconds of a processor: of a process, and of its children that it has waited for.
fn cpu_of(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<f64> = text.rsplit(')').next().unwrap_or("").split_whitespace().flat_map(str::parse).collect();
    // The state, which is no number, is left out.
    let at = |place: usize| fields.get(place).copied().unwrap_or(0.0) / 100.0;
    (at(10) + at(11), at(12) + at(13))
}

/// The runners of workers below this directory.
fn runners(dir: &Path) -> Vec<u32> {
    let is_ours = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        words.contains(&format!("internal runner --dir {}", dir.display()))
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}

/// What this machine makes of so many shells at a time without anything of ours: the part of the ideal that is reached.
fn bare_shells(slots: usize) -> f64 {
    const ROUNDS: usize = 80;
    let begun = now();
    std::thread::scope(|scope| {
        for _ in 0..slots {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    Command::new("/bin/sh").args(["-c", "sleep 0.1"]).status().unwrap();
                }
            });
        }
    });
    ROUNDS as f64 * 0.1 / begun.elapsed().as_secs_f64()
}

/// With a server of its own for each number of slots. Numbers behind the name say which, `tasks=N` how many tasks.
async fn slots() {
    const WORKERS: usize = 4;
    let word = |arg: String| arg.strip_prefix("tasks=").and_then(|n| n.parse::<usize>().ok());
    let count = std::env::args().find_map(word).unwrap_or(10_000);
    let asked: Vec<usize> = std::env::args().filter_map(|arg| arg.parse().ok()).collect();
    let asked = if asked.is_empty() { vec![4, 20, 40, 100] } else { asked };
    for slots in asked {
        let bare = bare_shells(slots) * 100.0;
        let bench = Bench::start().await;
        bench.no_limits().await;
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            workers.push(bench.worker(&format!("w{number}"), slots.div_ceil(WORKERS)).await);
        }
        let ideal = count as f64 * 0.1 / slots as f64;
        let tasks: String = (0..count).map(|i| format!("  t{i}: {{queue: default, run: 'sleep 0.1'}}\n")).collect();
        let before = cpu_of(bench.server.id()).0;
        let limit = Duration::from_secs_f64(ideal * 3.0 + 60.0);
        let took = bench.run_within("slots", &tasks, limit).await;
        let own: f64 = workers.iter().map(|worker| cpu_of(worker.0.id()).0).sum();
        let (kept, children) = runners(bench.dir.path())
            .into_iter()
            .map(cpu_of)
            .fold((0.0, 0.0), |(a, b), (own, children)| (a + own, b + children));
        let each = |seconds: f64| seconds * 1e3 / count as f64;
        match took {
            Ok(took) => println!(
                "slots      {count} × `sleep 0.1` on {slots} slots of {WORKERS} workers  {took:.1} s, {:.1} % of the ideal {ideal:.1} s \
                 (aim ≥ 97); bare shells, so many at a time, {bare:.1} %; processor time of a task: server {:.2} ms, workers {:.2} ms, \
                 runners {:.2} ms, its own processes {:.2} ms",
                ideal / took * 100.0,
                each(cpu_of(bench.server.id()).0 - before),
                each(own),
                each(kept),
                each(children),
            ),
            Err(done) => println!(
                "slots      {count} × `sleep 0.1` on {slots} slots of {WORKERS} workers  given up: {done} were done after {:.0} s, of an \
                 ideal {ideal:.1} s for all; bare shells, so many at a time, {bare:.1} %",
                limit.as_secs_f64()
            ),
        }
    }
}

fn is_asked(name: &str) -> bool {
    let is_name = |arg: &String| arg.chars().all(|c| c.is_ascii_alphabetic());
    let asked: Vec<String> = std::env::args().skip(1).filter(is_name).collect();
    asked.is_empty() || asked.iter().any(|word| word == name)
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Each with a server of its own.
    if is_asked("idle") {
        idle(&Bench::start().await).await;
    }
    if is_asked("dispatch") {
        dispatch(&Bench::start().await).await;
    }
    if is_asked("memory") {
        memory(&Bench::start().await).await;
    }
    if is_asked("slots") {
        slots().await;
    }
}

//! How the server answers with a million task instances in its database: `cargo bench --profile release -p pitcrew
//! --bench pages -- DATABASE [NAME…]`, on a copy of a database that `cargo run --release -p pitcrew-store --example fill
//! -- DATABASE` made.
//!
//! The pages and the API's reads are taken from the server's own table of routes, so none is forgotten. Nothing here
//! passes or fails; it prints each figure beside its aim. `grid` needs Chromium and its `chromedriver`.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// The workflow of `fill` with 500 tasks and 100 runs, and one of the ordinary ones.
const WIDE: &str = "wide";
const FLOW: &str = "flow_007";
/// Requests of each route.
const TIMES: usize = 40;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn pause(by: Duration) {
    std::thread::sleep(by);
}

struct Server {
    child: Child,
    address: String,
    data: tempfile::TempDir,
}

impl Server {
    /// Starts one on a copy of `database`, or on an empty one, and waits until it has nothing to do.
    fn start(database: Option<&Path>, workflow: Option<&str>) -> Server {
        let data = tempfile::tempdir().unwrap();
        let store = data.path().join("pitcrew.db");
        if let Some(database) = database {
            std::fs::copy(database, &store).unwrap();
        }
        let folder = data.path().join("workflows");
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(text) = workflow {
            std::fs::write(folder.join("one.yaml"), text).unwrap();
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_pitcrew"))
            .args(["server", "--no-auth", "--listen", "127.0.0.1:0"])
            .env("PITCREW_DATA_DIR", data.path())
            .env("PITCREW_STORE", &store)
            .env("PITCREW_RETENTION_DAYS", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let address = lines.find_map(|line| Some(line.split_once("http://")?.1.trim_end_matches('/').to_owned()));
        std::thread::spawn(move || lines.for_each(drop));
        let server = Server { child, address: address.expect("the server prints its address"), data };
        // Runs of the database that are not over are taken over first.
        while server.load(Duration::from_secs(2)) > 0.02 {}
        server
    }

    /// Seconds of CPU since its start.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<f64> =
            text.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        (fields[11] + fields[12]) / 100.0
    }

    /// The share of a core that it uses from now on.
    fn load(&self, over: Duration) -> f64 {
        let before = self.cpu();
        pause(over);
        (self.cpu() - before) / over.as_secs_f64()
    }

    /// `VmRSS` or `VmHWM`, in MiB.
    fn memory(&self, key: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }

    fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        send(&self.address, method, path, body)
    }

    fn json(&self, method: &str, path: &str, body: &str) -> Value {
        json_of(self.send(method, path, body)).unwrap_or_else(|text| panic!("{method} {path}: {text}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(address: &str, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The body of an answer that is not in chunks.
fn json_of(mut stream: TcpStream) -> Result<Value, String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.to_string())?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|_| text)
}

fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * p).round() as usize]
}

/// The first byte of every page and of every read of the API.
fn first_byte(database: &Path) {
    let server = Server::start(Some(database), None);
    let routes = Command::new(env!("CARGO_BIN_EXE_pitcrew")).args(["internal", "routes"]).output().unwrap().stdout;
    let newest = server.json("GET", &format!("/api/v2/dags/{WIDE}/dagRuns?limit=1&order_by=-run_after"), "");
    let run_id = newest["dag_runs"][0]["dag_run_id"].as_str().expect("a database that `fill` made").replace('+', "%2B");
    let all = server.json("GET", "/api/v2/dags/~/dagRuns?limit=1", "")["total_entries"].to_string();
    let mut worst = [("pages", 150.0, 0.0_f64, 0), ("api", 50.0, 0.0, 0)];
    println!("first byte, {TIMES} requests of each route, in ms:");
    for line in String::from_utf8_lossy(&routes).lines() {
        let [method, surface, path] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let is_stream = path.contains("/live/") || path.ends_with("/events");
        if method != "GET" || is_stream || path.starts_with("/assets/") {
            continue;
        }
        for workflow in [WIDE, FLOW] {
            let task = if workflow == WIDE { "stage_00.task_001" } else { "train" };
            let run = if workflow == WIDE { run_id.clone() } else { "~".to_owned() };
            let path = path.split('/').map(|part| match part {
                "{workflow}" | "{dag}" | "{dag_id}" => workflow,
                "{run_key}" => &all,
                "{run}" | "{run_id}" | "{dag_run_id}" => &run,
                "{task}" | "{task_id}" => task,
                "{map_index}" => "-1",
                "{try}" | "{try_number}" | "{attempt}" | "{task_try_number}" | "{version_number}" => "1",
                other => other,
            });
            let path = path.collect::<Vec<_>>().join("/");
            // Other runs and things have to be named; and a route without a workflow is asked once.
            if path.contains('{') || (workflow == FLOW && (path.contains('~') || !path.contains(FLOW))) {
                continue;
            }
            let mut status = String::new();
            let mut times: Vec<f64> = (0..TIMES)
                .map(|_| {
                    let begun = now();
                    let mut stream = server.send("GET", &path, "");
                    let mut first = [0; 12];
                    stream.read_exact(&mut first).unwrap();
                    let took = begun.elapsed().as_secs_f64() * 1e3;
                    status = String::from_utf8_lossy(&first[9..]).into_owned();
                    std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
                    took
                })
                .collect();
            let (p50, p95) = (percentile(&mut times, 0.5), percentile(&mut times, 0.95));
            let of = &mut worst[usize::from(surface == "api")];
            let mark = if p95 > of.1 { "  ← over" } else { "" };
            println!("  {p50:8.1} {p95:8.1}  {status} {path}{mark}");
            if status.starts_with(['2', '3']) {
                (of.2, of.3) = (of.2.max(p95), of.3 + 1);
            }
        }
    }
    for (what, aim, p95, count) in worst {
        println!("first byte {what:<26} slowest p95 {p95:.1} ms (aim ≤ {aim}) of {count} answered");
    }
    println!(
        "           resident memory            {:.0} MiB, at most {:.0} MiB",
        server.memory("VmRSS"),
        server.memory("VmHWM")
    );
}

/// A hundred open live pages, on which nothing happens.
fn live(database: &Path) {
    let server = Server::start(Some(database), None);
    let runs = server.json("GET", "/api/v2/dags/~/dagRuns?limit=1", "")["total_entries"].to_string();
    let pages =
        ["/live/overview", "/live/workflows", "/live/runs", "/live/workflows/wide", &format!("/live/runs/{runs}")];
    for path in pages.iter().cycle().take(100) {
        let mut stream = server.send("GET", path, "");
        std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
    }
    while server.load(Duration::from_secs(2)) > 0.2 {}
    let load = server.load(Duration::from_secs(20));
    println!(
        "live       100 open live pages, idle  {:.2} % of a core (aim ≤ 5), {:.0} MiB",
        load * 100.0,
        server.memory("VmRSS")
    );
}

/// A log that grows to 1 GiB while a page follows it, and its download.
fn log() {
    let pipe = tempfile::tempdir().unwrap();
    let pipe = pipe.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = format!("workflow: big\ntasks:\n  write: {{run: 'read line < {}'}}\n", pipe.display());
    let server = Server::start(None, Some(&text));
    server.json("POST", "/api/v2/dags/big/dagRuns", &json!({ "logical_date": null }).to_string());
    let file = loop {
        match find(&server.data.path().join("runs/1/attempts"), "log") {
            Some(file) => break file,
            None => pause(Duration::from_millis(20)),
        }
    };
    let url = "/live/logs/1/write/-1/1";
    // Once around, so that what is only needed once is there.
    drop(server.send("GET", "/runs/1", ""));
    let mut follower = BufReader::new(server.send("GET", url, ""));
    pause(Duration::from_secs(1));
    let before = server.memory("VmRSS");
    let follows = std::thread::spawn(move || {
        let mut line = Vec::new();
        let mut bytes = 0;
        while follower.read_until(b'\n', &mut line).unwrap() > 0 && !line.starts_with(b"event: end") {
            bytes += line.len();
            line.clear();
        }
        bytes
    });
    let mut file = File::options().append(true).open(file).unwrap();
    let record = format!("1767225600000000 o0 {}\n", "a line of a log that grows and grows ".repeat(4));
    let block = record.repeat((8 << 20) / record.len());
    let mut written = 0;
    while written < 1 << 30 {
        file.write_all(block.as_bytes()).unwrap();
        written += block.len();
    }
    let mut peak = server.memory("VmHWM");
    let mut download = server.send("GET", "/logs/1/write/-1/1", "");
    let loaded = std::io::copy(&mut download, &mut std::io::sink()).unwrap();
    let peak_after = server.memory("VmHWM");
    File::options().write(true).open(&pipe).unwrap().write_all(b"go\n").unwrap();
    let followed = follows.join().unwrap();
    peak = peak.max(server.memory("VmHWM").min(peak_after));
    println!(
        "log        following a 1 GiB log      {:.1} MiB more (aim ≤ 20), {:.1} MiB sent; with its download of {} MiB {:.1} MiB more",
        peak - before,
        followed as f64 / f64::from(1 << 20),
        loaded >> 20,
        peak_after - before,
    );
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

/// The grid of 500 tasks and 100 runs, from the click until Chromium has painted it.
fn grid(database: &Path) {
    let server = Server::start(Some(database), None);
    let Ok(mut driver) = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn() else {
        println!("grid       needs `chromedriver` (Debian: apt install chromium-driver)");
        return;
    };
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port = lines.find_map(|line| Some(line.split_once("on port ")?.1.trim_end_matches('.').to_owned()));
    let driver_at = format!("127.0.0.1:{}", port.expect("a port"));
    let ask = |method: &str, path: &str, body: Value| -> Value {
        let answer = json_of(send(&driver_at, method, path, &body.to_string())).unwrap();
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].clone()
    };
    let options = json!({ "args": ["--headless=new", "--no-sandbox", "--window-size=1400,1000"] });
    let wanted =
        json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
    let session = ask("POST", "/session", wanted)["sessionId"].as_str().unwrap().to_owned();
    let at = |what: &str| format!("/session/{session}/{what}");
    let page = format!("http://{}/workflows/{WIDE}?runs=100", server.address);
    let mut painted = Vec::new();
    let mut cells = Value::Null;
    for _ in 0..10 {
        ask("POST", &at("url"), json!({ "url": "about:blank" }));
        ask("POST", &at("url"), json!({ "url": page }));
        let script = "const done = arguments[0];
            const page = performance.getEntriesByType('navigation')[0];
            new PerformanceObserver(list => requestAnimationFrame(() => done([
                Math.max(page.loadEventEnd, list.getEntries().at(-1).startTime, performance.getEntriesByName('first-contentful-paint')[0].startTime),
                document.querySelectorAll('[data-grid] td, .grid td, .grid a, svg rect').length,
            ]))).observe({type: 'largest-contentful-paint', buffered: true});";
        let answer = ask("POST", &at("execute/async"), json!({ "script": script, "args": [] }));
        painted.push(answer[0].as_f64().unwrap());
        cells = answer[1].clone();
    }
    let _ = ask("DELETE", &format!("/session/{session}"), json!({}));
    let _ = driver.kill();
    let _ = driver.wait();
    let (p50, p95) = (percentile(&mut painted, 0.5), percentile(&mut painted, 0.95));
    println!(
        "grid       500 × 100 in Chromium      painted after {p50:.0} ms, p95 {p95:.0} ms (aim ≤ 1000); {cells} cells"
    );
}

fn main() {
    let mut asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    if asked.is_empty() {
        eprintln!(
            "usage: cargo bench --profile release -p pitcrew --bench pages -- DATABASE [first_byte|live|log|grid]…"
        );
        return;
    }
    let database = PathBuf::from(asked.remove(0));
    let figures: [(&str, &dyn Fn()); 4] = [
        ("first_byte", &|| first_byte(&database)),
        ("live", &|| live(&database)),
        ("log", &log),
        ("grid", &|| grid(&database)),
    ];
    for (name, figure) in figures {
        if asked.is_empty() || asked.iter().any(|word| word == name) {
            figure();
        }
    }
}

//! A server to be measured, and the little HTTP that measuring it takes: one connection for each request, so that
//! nothing of one figure is left for the next.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;

/// Twice as many looks as a server needs that takes over the runs of a full database.
const LOOKS: usize = 60;

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark is about the days before it")]
pub fn today() -> Timestamp {
    Timestamp::now()
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub fn pause(by: Duration) {
    std::thread::sleep(by);
}

pub struct Server {
    child: Child,
    pub address: String,
    pub data: tempfile::TempDir,
}

impl Server {
    /// Starts one on a copy of `database`, or on an empty one, and waits until it has nothing to do.
    pub fn start(database: Option<&Path>, workflow: Option<&str>) -> Server {
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
            .env("PITCREW_WORKFLOWS", &folder)
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
        server.calm(0.02);
        server
    }

    /// Waits until it uses less than this share of a core.
    pub fn calm(&self, share: f64) {
        let calm = (0..LOOKS).any(|_| self.load(Duration::from_secs(2)) < share);
        assert!(calm, "the server is still busy after {LOOKS} looks");
    }

    /// Seconds of CPU since its start.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<f64> =
            text.rsplit(')').next().unwrap().split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
        (fields[11] + fields[12]) / 100.0
    }

    /// The share of a core that it uses from now on.
    pub fn load(&self, over: Duration) -> f64 {
        let before = self.cpu();
        pause(over);
        (self.cpu() - before) / over.as_secs_f64()
    }

    /// `VmRSS` or `VmHWM`, in MiB.
    pub fn memory(&self, key: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// From now on `VmHWM` is the most that it will have used since now.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    pub fn send(&self, method: &str, path: &str, body: &str) -> TcpStream {
        send(&self.address, method, path, body)
    }

    pub fn json(&self, method: &str, path: &str, body: &str) -> Value {
        json_of(self.send(method, path, body)).unwrap_or_else(|text| panic!("{method} {path}: {text}"))
    }

    /// How many runs there are: the key of the newest too, if none was ever deleted.
    pub fn runs(&self) -> u64 {
        self.json("GET", "/api/v2/dags/~/dagRuns?limit=1", "")["total_entries"].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send(address: &str, method: &str, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The JSON of an answer that is not in chunks; else what it was. `chromedriver` keeps the connection open whatever it
/// is told, so the length counts.
pub fn json_of(stream: TcpStream) -> Result<Value, String> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), u64::MAX);
    loop {
        let start = head.len();
        let read = stream.read_line(&mut head).map_err(|error| error.to_string())?;
        let line = head[start..].trim_end();
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().map_err(|_| format!("`{name}` is not a number: {line}"))?;
        }
        if read == 0 || line.is_empty() {
            break;
        }
    }
    let mut body = String::new();
    stream.take(length).read_to_string(&mut body).map_err(|error| error.to_string())?;
    serde_json::from_str(&body).map_err(|_| head + &body)
}

pub fn percentile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * p).round() as usize]
}

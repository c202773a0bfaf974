//! Airflow's own clients against the real binary, and a fuzzer that reads the OpenAPI documents.
//!
//! The programs come from the Python package index, into one environment that is kept in `PITCREW_TEST_CACHE`, or in the
//! system's directory for temporary files. The fuzzer's seed is fixed, so a failure comes again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use pitcrew_exec::python::{Env, EnvRequest, ensure, ensure_in};
use rustix::process::Signal;

use crate::harness::{Place, line_with, signal};

const PASSWORD: &str = "a long enough passphrase";
const CLIENTS: [&str; 3] = ["apache-airflow-client==3.3.2", "apache-airflow-ctl==0.1.5", "schemathesis==4.32.5"];

const DEMO: &str = "
workflow: demo
tags: [clients]
params: {n: {type: integer, default: 3}}
tasks:
  first: {backend: fake, run: x, env: {FAKE_LOG: hello, FAKE_OUTPUT_size: '5'}}
  second: {backend: fake, needs: [first], run: x}
";

/// One environment for all tests here, built by uv, which is itself a package.
fn clients() -> &'static Env {
    static ENV: OnceLock<Env> = OnceLock::new();
    ENV.get_or_init(|| {
        let kept = std::env::var_os("PITCREW_TEST_CACHE").map(PathBuf::from);
        let cache = kept.unwrap_or_else(|| std::env::temp_dir().join("pitcrew-test-cache")).join("python");
        let request = |requirements: &[&str]| EnvRequest {
            requirements: requirements.iter().map(|r| (*r).to_owned()).collect(),
            ..EnvRequest::default()
        };
        let uv = ensure(&request(&["uv"]), &cache, &mut |line| eprintln!("{line}")).unwrap();
        let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
        ensure_in(&request(&CLIENTS), &cache, &path, &mut |line| eprintln!("{line}")).unwrap()
    })
}

/// A server with the workflow `demo`, and its address.
struct Served {
    place: Place,
    server: Child,
    url: String,
}

impl Served {
    fn new() -> Served {
        let place = Place::new();
        place.file("flows/demo.yaml", DEMO);
        let mut command = place.command("server --workflows flows --listen 127.0.0.1:0");
        let mut server = command.env("PITCREW_ADMIN_PASSWORD", PASSWORD).spawn().unwrap();
        let line = line_with(&mut server, "http://127.0.0.1:");
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
        Served { place, server, url }
    }

    /// Runs a program that talks to the server; panics unless it ends well.
    fn run(&self, mut command: Command) {
        let output = command
            .current_dir(self.place.path("."))
            .env("PITCREW_URL", &self.url)
            .env("PITCREW_PASSWORD", PASSWORD)
            .env("HOME", self.place.path("home"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    }

    fn script(&self, name: &str, text: &str) -> Command {
        let mut command = Command::new(&clients().python);
        command.arg(self.place.file(name, text));
        command
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        signal(&self.server, Signal::TERM);
        let _ = self.server.wait();
    }
}

#[test]
fn the_official_python_client_understands_every_answer() {
    let served = Served::new();
    served.run(served.script("official.py", include_str!("official.py")));
}

#[test]
fn airflowctl_works_as_with_airflow() {
    let served = Served::new();
    let mut script = served.script("ctl.py", include_str!("ctl.py"));
    script.env("AIRFLOWCTL", clients().bin().join("airflowctl")).env("AIRFLOW_HOME", served.place.path("airflow"));
    served.run(script);
}

/// Each operation is asked in ways that fit its document and in ways that do not: never a fault of the server, never an
/// answer that the document does not describe.
#[test]
fn no_request_makes_the_server_fail() {
    let served = Served::new();
    for (document, examples) in
        [("/api/v2/openapi.json", 6), ("/api/v1/openapi.json", 4), ("/api/pitcrew/v1/openapi.json", 10)]
    {
        served.run(served.script("token.py", TOKEN));
        let token = std::fs::read_to_string(served.place.path("token")).unwrap();
        let mut fuzz = Command::new(clients().bin().join("schemathesis"));
        fuzz.args(["run", &format!("{}{document}", served.url), "--url", &served.url])
            .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
            .args(["--checks", "not_a_server_error,status_code_conformance,response_schema_conformance"])
            .args(["--phases", "fuzzing", "--max-examples", &examples.to_string(), "--seed", "1", "--workers", "2"])
            .args(["--suppress-health-check", "all", "--request-timeout", "10", "--warnings", "off", "--no-color"])
            .args(["--continue-on-failure", "--generation-database", "none"])
            // These two answer for as long as a run goes on.
            .args(["--exclude-path-regex", "/(wait|events)$"]);
        served.run(fuzz);
    }
}

const TOKEN: &str = r#"
import json, os, urllib.request
body = json.dumps({"username": "admin", "password": os.environ["PITCREW_PASSWORD"]}).encode()
request = urllib.request.Request(os.environ["PITCREW_URL"] + "/auth/token", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    open("token", "w").write(json.load(answer)["access_token"])
"#;

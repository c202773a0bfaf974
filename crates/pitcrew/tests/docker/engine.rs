//! The engine of the tests, and containers in it that are gone afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

/// A door to the engine beside the one that is tested.
pub struct Engine {
    socket: PathBuf,
}

/// A container that runs until it is dropped.
pub struct Container<'a> {
    pub name: String,
    engine: &'a Engine,
}

impl Engine {
    /// `None` where there is none, which is said.
    pub fn new() -> Option<Engine> {
        let address = std::env::var("PITCREW_TEST_DOCKER").ok().filter(|address| !address.is_empty());
        let Some(address) = address else {
            eprintln!("NOT TESTED: `PITCREW_TEST_DOCKER` names no engine; `scripts/docker` starts one");
            return None;
        };
        let socket = address.strip_prefix("unix://").expect("the engine of the tests has a socket of this machine");
        Some(Engine { socket: socket.into() })
    }

    /// An engine of the test's own, which it may restart.
    pub fn own(folder: &Path) -> Option<Engine> {
        Engine::new()?;
        script("start", folder);
        Some(Engine { socket: folder.join("docker.sock") })
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "-X", method, "-H", "Content-Type: application/json", "--unix-socket"]);
        curl.arg(&self.socket).arg(format!("http://engine/v1.41{path}"));
        if let Some(body) = body {
            curl.args(["-d", &body.to_string()]);
        }
        let output = curl.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{method} {path}: {text}{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// A container with this command, which runs.
    pub fn container(&self, command: &[&str]) -> Container<'_> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "Image": "busybox", "Cmd": command, "Env": ["PLACE=inside"], "WorkingDir": "/home" });
        self.ask("POST", &format!("/containers/create?name={name}"), Some(&body));
        let container = Container { name, engine: self };
        self.ask("POST", &format!("/containers/{}/start", container.name), None);
        container
    }
}

impl Container<'_> {
    /// The commands of its processes.
    pub fn processes(&self) -> Vec<String> {
        let top = self.engine.ask("GET", &format!("/containers/{}/top?ps_args=-eo%20pid,args", self.name), None);
        let rows = top["Processes"].as_array().unwrap();
        rows.iter().map(|row| row[1].as_str().unwrap().to_owned()).collect()
    }

    pub fn stop(&self) {
        self.engine.ask("POST", &format!("/containers/{}/kill", self.name), None);
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-X", "DELETE", "--unix-socket"]).arg(&self.engine.socket);
        let _ = curl.arg(format!("http://engine/v1.41/containers/{}?force=true", self.name)).output();
    }
}

/// `scripts/docker`, on an engine of one's own.
pub fn script(what: &str, folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/docker");
    let output = Command::new(script).arg(what).env("PITCREW_DOCKER_DIR", folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

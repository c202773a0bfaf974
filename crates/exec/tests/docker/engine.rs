//! A door to an engine beside the one that is tested.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

pub struct Engine {
    socket: PathBuf,
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
    pub fn own(folder: &Path) -> Engine {
        script("start", folder);
        Engine { socket: folder.join("docker.sock") }
    }

    /// As [`Engine::own`], which listens on a port as well.
    pub fn with_port(folder: &Path, port: u16) -> Engine {
        scripted("start", folder, &[("PITCREW_DOCKER_PORT", port.to_string())]);
        Engine { socket: folder.join("docker.sock") }
    }

    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    pub fn ask(&self, method: &str, path: &str) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-X", method, "--unix-socket"]).arg(&self.socket).arg(format!("http://engine/v1.41{path}"));
        let output = curl.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// Names of the containers and volumes that have this label.
    pub fn labelled(&self, label: &str) -> Vec<String> {
        let filters: String =
            json!({ "label": [label] }).to_string().bytes().map(|byte| format!("%{byte:02X}")).collect();
        let containers = self.ask("GET", &format!("/containers/json?all=true&filters={filters}"));
        let volumes = self.ask("GET", &format!("/volumes?filters={filters}"));
        let containers = containers.as_array().into_iter().flatten().map(|one| &one["Names"][0]);
        let volumes = volumes["Volumes"].as_array().into_iter().flatten().map(|one| &one["Name"]);
        containers.chain(volumes).map(|name| name.as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// `scripts/docker`, on an engine of one's own.
pub fn script(what: &str, folder: &Path) {
    scripted(what, folder, &[]);
}

fn scripted(what: &str, folder: &Path, env: &[(&str, String)]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/docker");
    let mut script = Command::new(script);
    script.arg(what).env("PITCREW_DOCKER_DIR", folder).env_remove("PITCREW_DOCKER_PORT");
    let output = script.envs(env.iter().map(|(name, value)| (*name, value))).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

//! The cluster of the tests, as whoever owns it sees it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A cluster that `scripts/kubernetes` has started.
#[derive(Clone)]
pub struct Cluster {
    pub kubeconfig: PathBuf,
}

impl Cluster {
    /// `None`: there is none, and so nothing to test with.
    pub fn find() -> Option<Cluster> {
        let kubeconfig = std::env::var_os("PITCREW_TEST_KUBERNETES").filter(|path| !path.is_empty());
        if kubeconfig.is_none() {
            eprintln!("NOT TESTED: `PITCREW_TEST_KUBERNETES` names no cluster; `scripts/kubernetes` makes one");
        }
        Some(Cluster { kubeconfig: kubeconfig?.into() })
    }

    pub fn kubectl(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// A command that must succeed; gives what it wrote.
    pub fn ok(&self, args: &[&str], input: &str) -> String {
        let out = self.kubectl(args, input);
        assert!(out.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Things that are to be, as YAML or JSON.
    pub fn apply(&self, what: &str) {
        self.ok(&["apply", "-f", "-"], what);
    }

    /// One or several things; null: there are none.
    pub fn get(&self, args: &[&str]) -> Value {
        let out = self.kubectl(&[&["get", "--output", "json"], args].concat(), "");
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    /// Those of a list.
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        self.get(args)["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn node(&self, name: &str) -> Value {
        self.get(&["node", name])
    }

    /// Does not wait until it is gone.
    pub fn delete(&self, args: &[&str]) {
        self.ok(&[&["delete", "--wait=false", "--ignore-not-found"], args].concat(), "");
    }

    /// Writes what `change` makes of the status of a thing, which may be changed by others at the same time.
    pub fn set_status(&self, path: &str, change: impl Fn(&mut Value)) {
        for _ in 0..20 {
            let out = self.kubectl(&["get", "--raw", path], "");
            let Ok(mut thing) = serde_json::from_slice::<Value>(&out.stdout) else { return };
            change(&mut thing["status"]);
            let put = self.kubectl(&["replace", "--raw", &format!("{path}/status"), "-f", "-"], &thing.to_string());
            if put.status.success() {
                return;
            }
        }
        panic!("the status of {path} cannot be written");
    }
}

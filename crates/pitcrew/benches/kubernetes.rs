//! What a Pipeline of four tasks in sequence takes on a cluster, beside four bare pods in sequence made with `kubectl`:
//! `PITCREW_TEST_KUBERNETES=$(scripts/kubernetes start) cargo bench --profile release -p pitcrew --bench kubernetes [-- ROUNDS]`.
//!
//! Both take turns, in one namespace and with the same image and the same script, so that what the machine does besides meets
//! both. Of each the whole commands count, from the first that is called to the end of the last; what is deleted is deleted
//! outside of that time by kubectl, and within it by Pitcrew. It prints; nothing here passes or fails.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: usize = 5;
const TASKS: usize = 4;
const IMAGE: &str = "busybox:local";
const SCRIPT: &str = "echo Hello, World!";

struct Cluster {
    kubeconfig: String,
    namespace: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.kubectl().args(["delete", "namespace", "--wait=false", &self.namespace]).output();
    }
}

impl Cluster {
    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig", &self.kubeconfig, "--namespace", &self.namespace]).stdin(Stdio::null());
        command
    }

    fn call(&self, args: &[&str], what: Option<&Value>) {
        let mut command = self.kubectl();
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(what.map(Value::to_string).unwrap_or_default().as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "kubectl {args:?}");
    }

    /// Pods that `kubectl` makes, each once the one before has succeeded; in seconds.
    fn bare(&self, round: usize) -> f64 {
        let begun = now();
        for task in 0..TASKS {
            let name = format!("bare-{round}-{task}");
            let container = json!({
                "name": "step", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT],
            });
            let spec = json!({ "restartPolicy": "Never", "containers": [container] });
            let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
            self.call(&["create", "--filename", "-"], Some(&pod));
            let mut watch = self.kubectl();
            watch.args(["get", "pod", &name, "--watch", "--output", "jsonpath={.status.phase}{\"\\n\"}"]);
            let mut watch = watch.stdout(Stdio::piped()).spawn().unwrap();
            let mut phases = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
            let last = phases.find(|phase| matches!(phase.as_str(), "Succeeded" | "Failed"));
            assert_eq!(last.as_deref(), Some("Succeeded"));
            let _ = watch.kill();
            let _ = watch.wait();
        }
        begun.elapsed().as_secs_f64()
    }

    /// The same as a PipelineRun; in seconds.
    fn pipeline(&self, dir: &Path) -> f64 {
        let step = json!({ "name": "step", "image": IMAGE, "imagePullPolicy": "Never", "script": format!("#!/bin/sh\n{SCRIPT}\n") });
        let task = |at: usize| {
            let mut task = json!({ "name": format!("task-{at}"), "taskSpec": { "steps": [step] } });
            if at > 0 {
                task["runAfter"] = json!([format!("task-{}", at - 1)]);
            }
            task
        };
        let run = json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": { "generateName": "four-" },
            "spec": { "pipelineSpec": { "tasks": (0..TASKS).map(task).collect::<Vec<_>>() } },
        });
        let file = dir.join("run.yaml");
        std::fs::write(&file, run.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
        command.env("PITCREW_DATA_DIR", dir.join("data")).env("PITCREW_GPUS", "0").env("NO_COLOR", "1");
        command.env_remove("PITCREW_STORE").env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null());
        command.args(["run", "--on", "kubernetes", "-n", &self.namespace, "-f"]).arg(&file);
        let begun = now();
        let done = command.output().unwrap();
        let took = begun.elapsed().as_secs_f64();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        took
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn main() {
    let Some(kubeconfig) = std::env::var("PITCREW_TEST_KUBERNETES").ok().filter(|path| !path.is_empty()) else {
        return println!("NOT MEASURED: `PITCREW_TEST_KUBERNETES` names no cluster; `scripts/kubernetes` makes one");
    };
    let rounds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(ROUNDS);
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster { kubeconfig, namespace: format!("bench-{}", std::process::id()) };
    cluster.call(&["create", "namespace", &cluster.namespace], None);
    // Pods are refused before their account has a token.
    let account = ["get", "serviceaccount", "default", "--ignore-not-found", "--output", "jsonpath={.secrets[0].name}"];
    while cluster.kubectl().args(account).output().unwrap().stdout.is_empty() {}
    // What both do for the first time is not counted.
    cluster.bare(usize::MAX);
    cluster.pipeline(dir.path());
    let (mut bare, mut own) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        bare.push(cluster.bare(round));
        own.push(cluster.pipeline(dir.path()));
        cluster.call(&["delete", "pods", "--all"], None);
    }
    let ratio = median(own.iter().zip(&bare).map(|(own, bare)| own / bare).collect());
    println!(
        "kubernetes {TASKS} tasks in sequence, {rounds} rounds   {:.2} s as a PipelineRun, {:.2} s as bare pods with kubectl: {ratio:.2} × \
         (aim ≤ 1.3), medians",
        median(own),
        median(bare)
    );
}

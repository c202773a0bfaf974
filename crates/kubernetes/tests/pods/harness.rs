//! A namespace of its own for each test, and a backend with its events.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::AttemptId;
use pitcrew_core::pod::PodEnded;
use pitcrew_exec::{
    AttemptSpec, Backend, BackendEvent, Ended, Handle, KubernetesPlace, Observation, Place, PodRun, Runtime,
};
use pitcrew_kubernetes::backend::KubernetesBackend;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// The image that the cluster of the tests has.
pub const IMAGE: &str = "busybox:local";
/// The one that has bash beside, as its entry point.
pub const BASH: &str = "bash:local";
/// Nothing that is waited for takes so long.
const LONG: Duration = Duration::from_secs(180);

pub struct World {
    pub kubeconfig: PathBuf,
    pub namespace: String,
    pub backend: KubernetesBackend,
    pub events: mpsc::UnboundedReceiver<BackendEvent>,
    dir: tempfile::TempDir,
}

fn backend() -> (KubernetesBackend, mpsc::UnboundedReceiver<BackendEvent>) {
    let (sender, events) = mpsc::unbounded_channel();
    (KubernetesBackend::new("tests", Arc::new(|_: &str| None), sender), events)
}

impl World {
    /// `None`: there is no cluster, and so nothing to test with.
    pub fn find(name: &str) -> Option<World> {
        let Some(kubeconfig) = std::env::var_os("PITCREW_TEST_KUBERNETES").filter(|path| !path.is_empty()) else {
            eprintln!("NOT TESTED: `PITCREW_TEST_KUBERNETES` names no cluster; `scripts/kubernetes` makes one");
            return None;
        };
        let (backend, events) = backend();
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().file_name().unwrap().to_string_lossy().to_lowercase().replace(['.', '_'], "");
        let namespace = format!("pods-{name}-{own}");
        let world = World { kubeconfig: kubeconfig.into(), namespace, backend, events, dir };
        world.kubectl(&["create", "namespace", &world.namespace]);
        // Before its account has a token, pods are refused for now, which their logs would tell.
        let has_token = || {
            let accounts = world.list("serviceaccounts");
            accounts.iter().any(|one| one["metadata"]["name"] == "default" && one["secrets"][0]["name"].is_string())
        };
        assert!((0..1000).any(|_| has_token()), "the account of `{}` has no token", world.namespace);
        Some(world)
    }

    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut command = Command::new("kubectl");
        let out = command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Things of this kind in the namespace.
    pub fn list(&self, kind: &str) -> Vec<Value> {
        let text = self.kubectl(&["--namespace", &self.namespace, "get", kind, "--output", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap()
    }

    /// Those that are of an attempt.
    pub fn ours(&self, kind: &str) -> Vec<Value> {
        let all = self.list(kind).into_iter();
        all.filter(|one| one["metadata"]["annotations"]["pitcrew.dev/attempt"].is_string()).collect()
    }

    /// An attempt with these steps and whatever else is said of its pod.
    pub fn attempt(&self, number: u32, steps: Value, more: Value) -> AttemptSpec {
        let mut pod = json!({
            "name": "build-pod", "hostname": "build-pod", "namespace": self.namespace, "steps": steps, "shape": "tekton",
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            pod[key] = value.clone();
        }
        let id: AttemptId = serde_json::from_value(json!({
            "run": 7, "task": "build", "map_index": -1, "number": number,
        }))
        .unwrap();
        let mut spec = AttemptSpec::new(id, self.dir.path().join(number.to_string()), "/");
        let place = KubernetesPlace { kubeconfig: Some(self.kubeconfig.clone()), ..KubernetesPlace::default() };
        spec.place = Some(Place::Kubernetes(place));
        spec.grace = SignedDuration::from_secs(2);
        spec.pod = Some(Box::new(PodRun {
            pod: serde_json::from_value(pod).unwrap(),
            runtime: Runtime::Sandbox,
            deadline: None,
            data: self.dir.path().to_owned(),
            sandbox: Default::default(),
        }));
        spec
    }

    pub async fn start(&self, spec: AttemptSpec) -> Handle {
        let handle = self.backend.prepare(&spec);
        self.backend.start(&handle, spec).await.unwrap();
        handle
    }

    /// The server that had the backend is gone, and another one comes.
    pub fn restart(&mut self) {
        (self.backend, self.events) = backend();
    }

    /// The end of an attempt.
    pub async fn ended(&mut self) -> Ended {
        match self.last().await {
            BackendEvent::Ended { ended, .. } => ended,
            other => panic!("{other:?}"),
        }
    }

    /// The event that ends an attempt.
    pub async fn last(&mut self) -> BackendEvent {
        loop {
            let event = tokio::time::timeout(LONG, self.events.recv()).await.expect("no event came").unwrap();
            if matches!(event, BackendEvent::Ended { .. } | BackendEvent::Lost { .. }) {
                return event;
            }
        }
    }

    pub async fn run(&mut self, steps: Value, more: Value) -> (Ended, Vec<String>) {
        let handle = self.start(self.attempt(1, steps, more)).await;
        let ended = self.ended().await;
        (ended, self.log(&handle).await)
    }

    pub async fn log(&self, handle: &Handle) -> Vec<String> {
        let chunk = self.backend.logs(handle, 0, 1 << 20).await.unwrap();
        chunk.records.into_iter().map(|record| record.text).collect()
    }

    /// Until this is so.
    pub async fn until(&self, what: &str, mut is: impl FnMut(&World) -> bool) {
        for _ in 0..LONG.as_millis() / 100 {
            if is(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what} did not come");
    }

    /// Until its log has this.
    pub async fn says(&self, handle: &Handle, what: &str) {
        for _ in 0..LONG.as_millis() / 100 {
            if self.log(handle).await.iter().any(|line| line.contains(what)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("its log never had `{what}`: {:?}", self.log(handle).await);
    }

    pub async fn observed(&self, handle: &Handle) -> Observation {
        self.backend.attach(handle).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).args([
            "delete",
            "namespace",
            "--wait=false",
            &self.namespace,
        ]);
        let _ = command.stdin(Stdio::null()).output();
    }
}

/// A step that runs a script.
pub fn step(name: &str, script: &str) -> Value {
    json!({
        "name": format!("step-{name}"), "image": IMAGE, "pull": "never", "script": format!("#!/bin/sh\nset -e\n{script}"),
    })
}

/// With these fields as well.
pub fn with(mut step: Value, more: Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        step[key] = value.clone();
    }
    step
}

pub fn pod(ended: &Ended) -> &PodEnded {
    ended.pod.as_deref().expect("an end without a pod")
}

/// Why each container ended, by Tekton's words.
pub fn reasons(ended: &Ended) -> Vec<String> {
    let state = |one: &pitcrew_core::pod::ContainerEnded| {
        let state = serde_json::to_value(&one.state).unwrap();
        let (kind, of) = state.as_object().unwrap().iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap();
        format!("{} {kind} {}", one.name, of["reason"].as_str().unwrap_or_default())
    };
    pod(ended).containers.iter().map(state).collect()
}

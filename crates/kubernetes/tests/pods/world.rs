//! A cluster, as a world of the sentences that hold for every backend of pods.

use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use pitcrew_conformance::{Ability, World};
use pitcrew_core::pod::{Pod, Pull};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Handle};
use serde_json::json;

use super::harness::{self, BASH, IMAGE};

pub struct Cluster(harness::World);

#[async_trait]
impl World for Cluster {
    async fn new() -> Option<Cluster> {
        harness::World::find("suite").map(Cluster)
    }

    fn backend(&self) -> &dyn Backend {
        &self.0.backend
    }

    async fn event(&mut self) -> BackendEvent {
        self.0.events.recv().await.expect("the backend lives")
    }

    fn spec(&self, name: &str, mut pod: Pod) -> AttemptSpec {
        // The cluster of the tests has two images of its own.
        for container in pod.steps.iter_mut().chain(&mut pod.sidecars) {
            match container.image.as_str() {
                "alpine" | "busybox" => container.image = IMAGE.to_owned(),
                "bash" => container.image = BASH.to_owned(),
                _ => {}
            }
            container.pull = Pull::Never;
        }
        pod.namespace.clone_from(&self.0.namespace);
        let mut spec = self.0.attempt(1, json!([harness::step("none", "")]), json!({}));
        spec.id.task = name.parse().unwrap();
        spec.dir = spec.dir.join(name);
        spec.grace = SignedDuration::from_secs(2);
        if let Some(run) = &mut spec.pod {
            run.pod = pod;
        }
        spec
    }

    async fn restart(&mut self) {
        self.0.restart();
    }

    async fn kill_keeper(&mut self, _: &Handle) {
        for pod in self.0.ours("pods") {
            let name = pod["metadata"]["name"].as_str().unwrap();
            self.0.kubectl(&["--namespace", &self.0.namespace, "delete", "pod", name, "--grace-period=0", "--force"]);
        }
    }

    async fn left(&self, handle: &Handle) -> Vec<String> {
        let files = std::fs::read_dir(&handle.dir).into_iter().flatten().flatten();
        let files = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut left: Vec<String> = files.filter(|name| name != "exit.json" && name != "log").collect();
        let objects = self.0.ours("pods").into_iter().chain(self.0.ours("secrets"));
        left.extend(objects.map(|one| format!("{} {}", one["kind"], one["metadata"]["name"])));
        left
    }

    fn lacks(&self, ability: Ability) -> Option<String> {
        match ability {
            Ability::ProtectedSteps => Some("all steps of a pod may write what others left".to_owned()),
            Ability::Sidecars
            | Ability::UsualImages
            | Ability::OtherUsers
            | Ability::MemoryVolumes
            | Ability::PartsOfVolumes
            | Ability::NetworkProbes
            | Ability::LastWords
            | Ability::Copies
            | Ability::KeeperDies => None,
        }
    }

    /// A kubelet of this version ends a container whose startup probe failed when it looks at its pod again, every 60 to 90 s.
    fn patience(&self) -> Duration {
        Duration::from_secs(300)
    }
}

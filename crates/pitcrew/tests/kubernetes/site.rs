//! A server that looks after nodes of the cluster, and what the test has put there.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::harness::{Running, World};
use crate::kubelet::Kubelet;

static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Site {
    pub world: World,
    pub cluster: Cluster,
    pub kubelet: Kubelet,
    /// The only node, unless there are more.
    pub node: String,
    /// For pods of this test.
    pub namespace: String,
}

impl Site {
    /// A cluster with one node, and a server that is told to look after it. `kubernetes` and `recovery` are lines of those
    /// sections.
    pub fn new(cluster: &Cluster, kubernetes: &str, recovery: &str) -> Site {
        let name = format!("t{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let node = json!({ "apiVersion": "v1", "kind": "Node",
                           "metadata": { "name": name, "labels": { "test": name, "kubernetes.io/hostname": name } } });
        cluster.apply(&node.to_string());
        cluster.apply(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }).to_string());
        let kubelet = Kubelet::start(cluster, &[&name]);
        let mut world = World::new();
        let config = format!(
            "kubernetes:\n  clusters: [{{name: gpus, kubeconfig: kubeconfig, selector: test={name}}}]\n  namespace: {name}\n\
             {kubernetes}\nrecovery:\n{recovery}\n"
        );
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        std::fs::copy(&cluster.kubeconfig, world.path("kubeconfig")).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        Site { world, cluster: cluster.clone(), kubelet, node: name.clone(), namespace: name }
    }

    /// The usual one: an agent that heeds an annotation, a condition that calls for a reboot, and a pod that checks.
    pub fn usual(cluster: &Cluster) -> Site {
        Site::new(cluster, &format!("{CONDITIONS}{CHECK}{ANNOTATION}"), AUTO)
    }

    /// A server that knows the node, and which boot it runs.
    pub fn serve(&self) -> Running {
        let server = self.world.serve();
        self.until_shown("it is ready", |node| {
            node["standing"] == "ready" && node["gpus"].as_array().unwrap().len() == 4
        });
        server
    }

    /// The server dies, and another one comes after it.
    pub fn again(&self, server: &mut Running) {
        let before = self.count("this server leads");
        server.kill();
        *server = self.world.serve();
        self.world.wait("the next server leads", || self.count("this server leads") > before);
    }

    /// How often the servers have said so.
    pub fn count(&self, words: &str) -> usize {
        std::fs::read_to_string(self.world.path("server.log")).unwrap_or_default().matches(words).count()
    }

    /// Until a server has said so.
    pub fn until_logged(&self, words: &str) {
        self.world.wait(words, || self.count(words) > 0);
    }

    /// Until a server says so once more.
    pub fn until_said(&self, words: &str) {
        let before = self.count(words);
        self.world.wait(words, || self.count(words) > before);
    }

    /// The node problem detector has found something.
    pub fn breaks(&self) {
        self.shows("GpuXid", 1);
    }

    /// This condition is so since then.
    pub fn shows(&self, condition: &str, since: u32) {
        self.kubelet.set(&self.node, |machine| {
            machine.conditions.insert(condition.to_owned(), since);
        });
    }

    pub fn shown(&self) -> Value {
        let out = self.world.run(&["nodes", "show", &self.node, "--output", "json"]);
        serde_json::from_slice(&out.stdout).unwrap_or_default()
    }

    pub fn until_shown(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        self.world.wait(&format!("{}: {what}", self.node), || {
            let node = self.shown();
            node.is_object() && is_so(&node)
        });
    }

    pub fn incidents(&self) -> Vec<Value> {
        self.world.json(&["incidents", "list", "--output", "json"]).as_array().unwrap().clone()
    }

    pub fn until_state(&self, state: &str) {
        self.world.wait(&format!("the incident is {state}"), || {
            let all = self.incidents();
            all.first().is_some_and(|incident| {
                let last = incident["trail"].as_array().and_then(|trail| trail.last().cloned()).unwrap_or_default();
                incident["outcome"].is_null() && last["to"] == state
            })
        });
    }

    /// Until the only incident is over, in this way.
    pub fn until_over(&self, outcome: &str) -> Value {
        self.world.wait(&format!("the incident is over ({outcome})"), || {
            self.incidents().first().is_some_and(|incident| !incident["outcome"].is_null())
        });
        let all = self.incidents();
        assert_eq!((all.len(), &all[0]["outcome"]), (1, &Value::from(outcome)), "{all:#?}");
        all[0].clone()
    }

    /// Whether the cluster gives it pods, and what we have written there.
    pub fn marks(&self) -> (bool, Vec<String>) {
        let node = self.cluster.node(&self.node);
        let annotations = node["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let ours = |key: &&String| key.starts_with("pitcrew/") || key.starts_with("example.com/");
        (node["spec"]["unschedulable"] == true, annotations.keys().filter(ours).cloned().collect())
    }

    /// Until it takes pods, and nothing of ours is left there.
    pub fn until_as_before(&self) {
        self.world.wait("the node is as before", || self.marks() == (false, Vec::new()));
        self.until_shown("it serves again", |node| node["standing"] == "ready");
    }

    /// Pods that are kept on the node, by this kind of controller.
    pub fn keep(&self, kind: &str) {
        let labels = json!({ "app": kind.to_lowercase() });
        let container = json!({ "name": "main", "image": "busybox:local", "imagePullPolicy": "Never", "command": ["sleep", "3600"] });
        let spec = json!({ "nodeSelector": { "test": self.node }, "containers": [container] });
        let mut set = json!({ "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": spec } });
        if kind == "ReplicaSet" {
            set["replicas"] = json!(1);
        }
        let meta = json!({ "name": kind.to_lowercase(), "namespace": self.namespace });
        self.cluster
            .apply(&json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": set }).to_string());
        self.world.wait(&format!("its {kind} has a pod there"), || self.pods(kind) == 1);
    }

    /// How many of its pods run on the node.
    pub fn pods(&self, kind: &str) -> usize {
        let app = format!("app={}", kind.to_lowercase());
        let all = self.cluster.list(&["pods", "--namespace", &self.namespace, "--selector", &app]);
        all.iter().filter(|pod| pod["spec"]["nodeName"] == *self.node && pod["status"]["phase"] == "Running").count()
    }

    /// No pod of the replica set may be disturbed.
    pub fn forbid(&self) {
        let meta = json!({ "name": "budget", "namespace": self.namespace });
        let spec = json!({ "minAvailable": 1, "selector": { "matchLabels": { "app": "replicaset" } } });
        let budget =
            json!({ "apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", "metadata": meta, "spec": spec });
        self.cluster.apply(&budget.to_string());
        let budget = || self.cluster.get(&["pdb", "budget", "--namespace", &self.namespace]);
        self.world.wait("the budget is counted", || budget()["status"]["currentHealthy"] == 1);
    }

    pub fn allow(&self) {
        self.cluster.delete(&["pdb", "budget", "--namespace", &self.namespace]);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // What is left is nobody's, and the cluster goes with the tests.
        if !std::thread::panicking() {
            self.cluster.delete(&["namespace", &self.namespace]);
            self.cluster.delete(&["node", &self.node]);
        }
    }
}

pub const CONDITIONS: &str = "  conditions: {GpuXid: reboot, GpuOdd: check}\n";
pub const CHECK: &str = "  check: {image: 'busybox:local', pull: Never}\n";
pub const ANNOTATION: &str = "  reboot: {annotation: example.com/reboot}\n";
pub const POD: &str = "  reboot: {pod: {image: 'busybox:local', pull: Never}}\n";
pub const AUTO: &str = "  mode: auto\n  deadlines: {observe: 1s, recheck: 1s, suspected: 1m}\n";

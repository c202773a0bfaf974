//! A kubelet that is none: it says that its nodes are ready, lets pods run there and end, and reboots when its agent is told to.
//! What happens is up to the test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pitcrew_kubernetes::Client;
use pitcrew_kubernetes::client::{Call, NODES, PODS};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::harness::now;

/// What the reboot agent of the cluster heeds.
pub const REBOOT: &str = "example.com/reboot";
/// Between two rounds.
const ROUND: Duration = Duration::from_millis(200);
/// Between two words that a node is there.
const BEAT: Duration = Duration::from_secs(4);

/// A machine.
#[derive(Debug, Clone)]
pub struct Machine {
    pub boot: u32,
    pub gpus: u32,
    /// It answers; else its cluster finds out some time.
    pub is_ready: bool,
    /// What its checks end with.
    pub check: i32,
    /// Whoever looks after it does not reboot it, and it does not end its checks.
    pub hold_reboot: bool,
    pub hold_check: bool,
    /// Conditions that are so, until it is rebooted.
    pub conditions: BTreeMap<String, u32>,
    /// What was done to it, in order.
    pub done: Vec<String>,
    /// How often it was looked after.
    pub rounds: u32,
    told: Option<(Instant, u32, bool, u32, BTreeMap<String, u32>)>,
}

impl Machine {
    pub fn boot_id(&self, name: &str) -> String {
        format!("{name}-boot-{}", self.boot)
    }

    fn reboot(&mut self, how: &str) {
        self.boot += 1;
        self.conditions.clear();
        self.done.push(format!("reboot by {how}"));
    }
}

/// Plays all of its machines until it is dropped.
pub struct Kubelet {
    machines: Arc<Mutex<BTreeMap<String, Machine>>>,
    stop: Arc<()>,
}

impl Kubelet {
    pub fn start(cluster: &Cluster, names: &[&str]) -> Kubelet {
        let machine = Machine {
            boot: 1,
            gpus: 4,
            is_ready: true,
            check: 0,
            hold_reboot: false,
            hold_check: false,
            conditions: BTreeMap::new(),
            done: Vec::new(),
            rounds: 0,
            told: None,
        };
        let machines = names.iter().map(|name| ((*name).to_owned(), machine.clone())).collect();
        let (machines, stop) = (Arc::new(Mutex::new(machines)), Arc::new(()));
        let played = Player {
            client: Client::find(Some(&cluster.kubeconfig), None, &|_| None).unwrap(),
            machines: Arc::clone(&machines),
        };
        let stopped = Arc::downgrade(&stop);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                while stopped.strong_count() > 0 {
                    played.round().await;
                    tokio::time::sleep(ROUND).await;
                }
            });
        });
        Kubelet { machines, stop }
    }

    pub fn machines(&self) -> MutexGuard<'_, BTreeMap<String, Machine>> {
        self.machines.lock().unwrap()
    }

    /// Changes a machine.
    pub fn set(&self, name: &str, change: impl FnOnce(&mut Machine)) {
        change(self.machines().get_mut(name).unwrap());
    }

    pub fn done(&self, name: &str) -> Vec<String> {
        self.machines()[name].done.clone()
    }

    pub fn reboots(&self, name: &str) -> usize {
        self.done(name).iter().filter(|done| done.starts_with("reboot")).count()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop = Arc::new(());
    }
}

struct Player {
    client: Client,
    machines: Arc<Mutex<BTreeMap<String, Machine>>>,
}

impl Player {
    async fn round(&self) {
        let names: Vec<String> = self.machines.lock().unwrap().keys().cloned().collect();
        for name in names {
            // What fails is done in the next round.
            let _ = self.play(&name).await;
        }
    }

    fn machine<T>(&self, name: &str, of: impl FnOnce(&mut Machine) -> T) -> T {
        of(self.machines.lock().unwrap().get_mut(name).unwrap())
    }

    async fn play(&self, name: &str) -> Result<(), pitcrew_kubernetes::Fault> {
        let node: Value = self.client.ask(Call::get(NODES, None, name)).await?;
        let boot = self.machine(name, |machine| machine.boot_id(name));
        let order = node["metadata"]["annotations"][REBOOT].as_str();
        self.machine(name, |machine| {
            machine.rounds += 1;
            if order == Some(&boot) && !machine.hold_reboot {
                machine.reboot("annotation");
            }
        });
        let on = Call::list(PODS, None).query("fieldSelector", format!("spec.nodeName={name}"));
        for pod in self.client.all::<Value>(on).await? {
            self.pod(name, &pod).await?;
        }
        self.beat(name).await
    }

    async fn beat(&self, name: &str) -> Result<(), pitcrew_kubernetes::Fault> {
        let machine = self.machine(name, |machine| machine.clone());
        let state = (machine.boot, machine.is_ready, machine.gpus, machine.conditions.clone());
        let is_told = machine.told.as_ref().is_some_and(|(at, boot, ready, gpus, conditions)| {
            at.elapsed() < BEAT && (*boot, *ready, *gpus, conditions.clone()) == state
        });
        if is_told {
            return Ok(());
        }
        let at = wall();
        let condition = |kind: &str, is: bool, since: &str, why: &str| {
            let status = if is { "True" } else { "False" };
            json!({ "type": kind, "status": status, "reason": why, "message": format!("{kind} of {name}"),
                    "lastHeartbeatTime": at, "lastTransitionTime": since })
        };
        let mut conditions = vec![condition("Ready", machine.is_ready, "2024-01-01T00:00:00Z", "KubeletReady")];
        for (kind, minute) in &machine.conditions {
            conditions.push(condition(kind, true, &format!("2024-05-01T00:{minute:02}:00Z"), "KernelLog"));
        }
        let has = json!({ "cpu": "8", "memory": "16Gi", "pods": "50", "nvidia.com/gpu": machine.gpus.to_string() });
        let info = json!({ "bootID": machine.boot_id(name) });
        let status =
            json!({ "status": { "conditions": conditions, "capacity": has, "allocatable": has, "nodeInfo": info } });
        self.client.tell(Call::patch(NODES, None, name, status).below("status")).await?;
        self.machine(name, |machine| machine.told = Some((now(), state.0, state.1, state.2, state.3)));
        Ok(())
    }

    async fn pod(&self, node: &str, pod: &Value) -> Result<(), pitcrew_kubernetes::Fault> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (name, namespace) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["namespace"]));
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            let at_once = json!({ "gracePeriodSeconds": 0 });
            return self.client.tell(Call::delete(PODS, Some(&namespace), &name, at_once)).await;
        }
        let phase = text(&pod["status"]["phase"]);
        let role = text(&pod["metadata"]["labels"]["pitcrew/role"]);
        let ended = |code: i32| {
            let end = json!({ "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" } });
            (if code == 0 { "Succeeded" } else { "Failed" }, json!({ "terminated": end }))
        };
        let (phase, state) = match (role.as_str(), phase.as_str()) {
            (_, "Succeeded" | "Failed") => return Ok(()),
            ("check", "Pending") if self.machine(node, |machine| !machine.hold_check) => {
                self.machine(node, |machine| {
                    machine.done.push("check".to_owned());
                    ended(machine.check)
                })
            }
            ("check", _) => return Ok(()),
            ("reboot", "Running") if self.machine(node, |machine| !machine.hold_reboot) => {
                let is_meant = self.machine(node, |machine| variable(pod, "PITCREW_BOOT_ID") == machine.boot_id(node));
                if !is_meant {
                    ended(86)
                } else {
                    self.machine(node, |machine| machine.reboot("pod"));
                    ended(137)
                }
            }
            (_, "Running") => return Ok(()),
            _ => ("Running", json!({ "running": { "startedAt": wall() } })),
        };
        let is_up = phase == "Running";
        let condition = json!({ "type": "Ready", "status": if is_up { "True" } else { "False" } });
        let containers = json!([{ "name": "main", "image": "busybox:local", "imageID": "", "restartCount": 0,
                                  "ready": is_up, "state": state }]);
        let status =
            json!({ "status": { "phase": phase, "conditions": [condition], "containerStatuses": containers } });
        self.client.tell(Call::patch(PODS, Some(&namespace), &name, status).below("status")).await
    }
}

fn variable(pod: &Value, name: &str) -> String {
    let all = pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
    all.iter().find(|one| one["name"] == name).and_then(|one| one["value"].as_str()).unwrap_or_default().to_owned()
}

/// As the API server writes times.
#[allow(clippy::disallowed_methods, reason = "a node says when it was seen last by the wall clock")]
fn wall() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

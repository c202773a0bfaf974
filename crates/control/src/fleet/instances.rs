//! Machines of ECS as nodes: the container instances of the configured clusters, under the ids of their machines.
//!
//! Polled, and looked at sooner when an event says that something happened. Invariants: ECS gives out what they have, so
//! nothing is placed there by us; that ECS cannot be asked says nothing of any machine, and an agent that is away for a moment
//! (it reconnects several times a day) is no reason to call its machine lost.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::fleet::Standing;
use pitcrew_ecs::client::MachineState;
use pitcrew_ecs::events::Wake;
use pitcrew_ecs::fleet::EcsNode;
use pitcrew_exec::gpu::Reading;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use super::Fleet;
use super::assemble::Assembled;
use super::clustered::named;
use super::config::NodeConfig;
use crate::clock;
use crate::ecs::{Cluster, Clusters, Machine};

/// Between two looks at a cluster, unless an event comes.
const POLL: Duration = Duration::from_secs(10);
/// After a cluster could not be asked, at most.
const LONGEST: Duration = Duration::from_secs(120);
/// Events that come at once are one reason to look.
const GATHER: Duration = Duration::from_millis(200);
/// So long an agent may be away before its machine counts as lost.
const AGENT: SignedDuration = SignedDuration::from_secs(60);
/// So long a machine that its cluster does not list any more stays among the nodes.
const GONE: SignedDuration = SignedDuration::from_mins(10);

/// What is known of a node that is a machine of ECS, beside what is known of every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub at: Machine,
    pub labels: BTreeMap<String, String>,
    pub is_draining: bool,
    /// Its agent is connected.
    pub agent: bool,
    /// Since when it is not, or the cluster does not list it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// How others are told that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// It is no node any more.
    #[serde(default)]
    pub is_gone: bool,
}

impl Instance {
    /// The node with what only such a machine has.
    pub(super) fn over(&self, assembled: Assembled) -> Assembled {
        let Assembled { mut node, mut remarks } = assembled;
        // ECS does not tell what kind they are.
        if node.labels.get("gpu-type").is_some_and(|kind| kind == "unknown") {
            node.labels.remove("gpu-type");
        }
        if self.is_draining && node.standing == Standing::Ready {
            node.standing = Standing::Cordoned;
            remarks.push(format!("it is being drained in the cluster `{}`", self.at.cluster));
        }
        Assembled { node, remarks }
    }
}

/// What is configured of such a machine: what its attributes say.
pub(super) fn config(name: &str, instance: &Instance) -> NodeConfig {
    NodeConfig { labels: instance.labels.clone(), ..NodeConfig::plain(name) }
}

/// Why it cannot be used.
fn down(instance: &Instance, node: &EcsNode, state: Option<&MachineState>, now: Timestamp) -> Option<String> {
    let away = instance.away_since.map(|since| now.duration_since(since)).filter(|_| !node.agent);
    match (state, away) {
        (Some(state), Some(_)) if *state != MachineState::Running => {
            Some(format!("its agent of ECS is not connected, and EC2 says that it is {state:?}").to_lowercase())
        }
        (_, Some(away)) if away >= AGENT => Some("its agent of ECS is not connected".to_owned()),
        _ if !node.is_active && !node.is_draining => {
            Some("ECS gives it no tasks: it is neither active nor draining".to_owned())
        }
        _ => None,
    }
}

impl Fleet {
    /// What is known of a machine of ECS; `None`: the node is none.
    pub fn instance(&self, name: &str) -> Option<Instance> {
        self.lock().iter().find(|known| known.config.name == name).and_then(|known| known.instance().cloned())
    }

    /// All nodes that are machines of ECS.
    pub fn instances(&self) -> Vec<(String, Instance)> {
        let all = self.lock();
        all.iter().filter_map(|known| Some((known.config.name.clone(), known.instance()?.clone()))).collect()
    }

    /// Its `status` was written.
    pub fn mirrored(&self, name: &str, status: &str) {
        let mut all = self.lock();
        let known = all.iter_mut().find(|known| known.config.name == name);
        if let Some(instance) = known.and_then(|known| known.seen.as_mut()).and_then(|seen| seen.ecs.as_mut()) {
            instance.status = Some(status.to_owned());
        }
    }

    /// Looks at all clusters from time to time, for as long as this is polled. The server that leads writes what they tell.
    pub async fn follow_clusters(self, clusters: Clusters, leads: watch::Receiver<bool>) {
        let leads_now = *leads.borrow();
        self.keep_to(&clusters, leads_now).await;
        let each = clusters.all().iter().map(|cluster| self.follow_cluster(cluster, &clusters, leads.clone()));
        futures::future::join_all(each).await;
    }

    /// Nodes of clusters that are not configured any more are none.
    async fn keep_to(&self, clusters: &Clusters, leads: bool) {
        let others = self.instances().into_iter().filter(|(_, instance)| clusters.of(&instance.at).is_none());
        let names: Vec<String> = others.map(|(name, _)| name).collect();
        self.leave_clusters(&names, leads).await;
    }

    async fn follow_cluster(&self, cluster: &Cluster, clusters: &Clusters, leads: watch::Receiver<bool>) {
        let mut wakes = clusters.wakes().subscribe();
        let mut failures = 0;
        loop {
            let leads = *leads.borrow();
            let wait = match self.look_at(cluster, leads).await {
                Ok(()) => {
                    failures = 0;
                    POLL
                }
                Err(fault) => {
                    failures += 1;
                    tracing::warn!(cluster = %cluster.name, "the machines of a cluster cannot be asked for: {fault}");
                    LONGEST.min(POLL * 2u32.saturating_pow(failures - 1))
                }
            };
            // An event is a reason to look once; whatever came with it is seen as well.
            if tokio::time::timeout(wait, heard(&mut wakes)).await.is_ok() {
                tokio::time::sleep(GATHER).await;
                wakes = wakes.resubscribe();
            }
        }
    }

    async fn look_at(&self, cluster: &Cluster, leads: bool) -> Result<(), pitcrew_ecs::Fault> {
        let nodes = cluster.fleet.nodes().await?;
        let away: Vec<String> = nodes.iter().filter(|node| !node.agent).map(|node| node.machine.clone()).collect();
        let mut states = BTreeMap::new();
        if !away.is_empty() {
            // Who may not ask EC2 has the word of ECS alone.
            let known = cluster.fleet.client.machines(&away).await.unwrap_or_default();
            states.extend(known.into_iter().map(|machine| (machine.id, machine.state)));
        }
        let now = clock::now();
        let (changed, gone) = self.take_instances(cluster, nodes, &states, now);
        self.publish();
        if leads {
            for name in &changed {
                self.write(name, now).await;
            }
        }
        self.leave_clusters(&gone, leads).await;
        Ok(())
    }

    /// Takes what a cluster tells: which nodes it told of, and which are none any more.
    fn take_instances(
        &self,
        cluster: &Cluster,
        nodes: Vec<EcsNode>,
        states: &BTreeMap<String, MachineState>,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        // Of several registrations of one machine, the one whose agent is there.
        let mut by_machine: BTreeMap<String, EcsNode> = BTreeMap::new();
        for node in nodes.into_iter().filter(|node| !node.machine.is_empty()) {
            let is_better = |other: &EcsNode| (node.agent, node.is_active) > (other.agent, other.is_active);
            if by_machine.get(&node.machine).is_none_or(is_better) {
                by_machine.insert(node.machine.clone(), node);
            }
        }
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        let mut all = self.lock();
        for known in all.iter_mut() {
            let is_listed = by_machine.contains_key(&known.config.name);
            let Some(seen) = known.seen.as_mut() else { continue };
            let Some(instance) = seen.ecs.as_mut().filter(|instance| cluster.is_of(&instance.at)) else { continue };
            if is_listed {
                continue;
            }
            let since = *instance.away_since.get_or_insert(now);
            instance.agent = false;
            seen.down = Some(format!("the cluster `{}` does not list it any more", cluster.name));
            let name = known.config.name.clone();
            if now.duration_since(since) >= GONE { gone.push(name) } else { told.push(name) }
        }
        for (name, node) in by_machine {
            let known = named(&mut all, &name);
            let is_other = known.config.connection.is_some() || known.worker.is_some();
            let Some(seen) = known.seen.as_mut().filter(|_| !is_other) else { continue };
            let before = seen.ecs.take().unwrap_or_default();
            let machine = Machine {
                region: cluster.region().to_owned(),
                cluster: cluster.name.clone(),
                id: name.clone(),
                instance: node.instance.clone(),
            };
            let instance = Instance {
                at: machine,
                labels: node.labels.clone(),
                is_draining: node.is_draining,
                agent: node.agent,
                away_since: (!node.agent).then(|| before.away_since.unwrap_or(now)),
                status: node.status.clone(),
                is_gone: false,
            };
            let reading = |(index, uuid): (usize, &String)| Reading {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                uuid: uuid.clone(),
                ..Reading::default()
            };
            let readings: Vec<Reading> = node.gpus.iter().enumerate().map(reading).collect();
            seen.devices(&readings, "ECS does not list it among the devices of its machine any more", now);
            seen.cores = u32::try_from(node.cpu_milli / 1000).ok();
            seen.memory_mib = Some(node.memory_mib);
            seen.down = down(&instance, &node, states.get(&name), now);
            known.config = config(&name, &instance);
            seen.ecs = Some(instance);
            told.push(name);
        }
        (told, gone)
    }
}

/// Something happened to an instance or a machine.
async fn heard(wakes: &mut broadcast::Receiver<Wake>) {
    loop {
        match wakes.recv().await {
            Ok(Wake::Instance { .. } | Wake::Machine { .. } | Wake::Interruption { .. }) => return,
            Ok(Wake::Task { .. }) => {}
            Err(broadcast::error::RecvError::Lagged(_)) => return,
            // Nobody will tell anything any more; polling goes on.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

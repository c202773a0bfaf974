//! Nodes of Kubernetes as nodes: those of the configured clusters, under their own names.
//!
//! Listed, and watched from there on. Invariants: Kubernetes gives out what they have, so nothing is placed there by us; that an API server cannot be
//! asked says nothing of any node. GPUs have no names there: they are counted, and called by number.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::fleet::Standing;
use pitcrew_exec::gpu::Reading;
use pitcrew_kubernetes::client::Change;
use pitcrew_kubernetes::fleet::CORDONED;
use pitcrew_kubernetes::node::{Condition, KubeNode};
use pitcrew_kubernetes::reboot::ordered;
use pitcrew_kubernetes::{Fault, Kind};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Fleet;
use super::assemble::Assembled;
use super::clustered::named;
use super::config::{NodeConfig, check_name};
use super::seen::Seen;
use crate::clock;
use crate::kubernetes::{KubeCluster, KubeClusters, KubePlace};

/// Between two looks at a cluster that cannot be watched, and at what only time changes.
const POLL: Duration = Duration::from_secs(5);
/// Between two watches, at least.
const BETWEEN: Duration = Duration::from_secs(1);
/// The most GPUs that a node has; whoever counts something else by them is not taken at the word.
const MOST_GPUS: u32 = 1024;
/// A list is read anew after this long, although changes are heard of.
const RELIST: Duration = Duration::from_secs(300);
/// After a cluster could not be asked, at most.
const LONGEST: Duration = Duration::from_secs(60);
/// So long a node may have fewer GPUs before one counts as lost: as long as what tells of them is started anew.
const FEWER: SignedDuration = SignedDuration::from_secs(60);
/// The label that says which cluster it is of.
const CLUSTER_LABEL: &str = "pitcrew/kubernetes-cluster";

/// What is known of a node of Kubernetes, beside what is known of every node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeSeen {
    pub at: KubePlace,
    pub labels: BTreeMap<String, String>,
    pub is_cordoned: bool,
    /// Which Pitcrew says that it cordoned it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marked_by: Option<String>,
    /// It is ready, as its cluster says.
    pub is_ready: bool,
    pub boot_id: String,
    /// Which boot is to end by an annotation of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reboot_of: Option<String>,
    /// Conditions that are to be heeded, as they are now.
    #[serde(skip)]
    pub conditions: Vec<Condition>,
    /// Since when it has fewer GPUs than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fewer_since: Option<Timestamp>,
    /// Since when its cluster does not list it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// It is no node any more.
    #[serde(default)]
    pub is_gone: bool,
}

impl KubeSeen {
    /// The node with what only such a node has.
    pub(super) fn over(&self, assembled: Assembled) -> Assembled {
        let Assembled { mut node, mut remarks } = assembled;
        // Kubernetes does not tell what kind they are, but by labels that somebody gave.
        if node.labels.get("gpu-type").is_some_and(|kind| kind == "unknown") {
            node.labels.remove("gpu-type");
        }
        if self.is_cordoned && node.standing == Standing::Ready {
            node.standing = Standing::Cordoned;
            remarks.push(format!("it is cordoned in the cluster `{}`", self.at.cluster));
        }
        Assembled { node, remarks }
    }
}

/// What is configured of such a node: what its labels say.
pub(super) fn config(name: &str, seen: &KubeSeen) -> NodeConfig {
    NodeConfig { labels: seen.labels.clone(), ..NodeConfig::plain(name) }
}

impl Fleet {
    /// What is known of a node of Kubernetes; `None`: the node is none.
    pub fn kube(&self, name: &str) -> Option<KubeSeen> {
        self.lock().iter().find(|known| known.config.name == name).and_then(|known| known.kube().cloned())
    }

    /// All nodes that are of Kubernetes.
    pub fn kubes(&self) -> Vec<(String, KubeSeen)> {
        let all = self.lock();
        all.iter().filter_map(|known| Some((known.config.name.clone(), known.kube()?.clone()))).collect()
    }

    /// Looks at all clusters from time to time, for as long as this is polled. The server that leads writes what they tell.
    pub async fn follow_kubernetes(self, clusters: KubeClusters, leads: watch::Receiver<bool>) {
        let leads_now = *leads.borrow();
        let others = self.kubes().into_iter().filter(|(_, kube)| clusters.of(&kube.at.cluster).is_none());
        let others: Vec<String> = others.map(|(name, _)| name).collect();
        self.leave_clusters(&others, leads_now).await;
        let each = clusters.all().iter().map(|cluster| self.follow_kube(cluster, &clusters, leads.clone()));
        futures::future::join_all(each).await;
    }

    /// Lists the nodes, and then hears of changes for as long as that goes on. Where it may not watch, it lists them again.
    async fn follow_kube(&self, cluster: &KubeCluster, clusters: &KubeClusters, leads: watch::Receiver<bool>) {
        let (mut failures, mut is_told) = (0, false);
        loop {
            let listed = cluster.fleet.nodes().await;
            let wait = match listed {
                Ok((nodes, version)) => {
                    failures = 0;
                    let mut nodes = by_name(nodes);
                    self.take_all(cluster, clusters, &nodes, &leads).await;
                    match self.hear(cluster, clusters, &mut nodes, &version, &leads).await {
                        // Whoever cuts watches at once is not asked all the time.
                        Ok(()) => BETWEEN,
                        Err(fault) => {
                            // That it may not watch is said once; it is right without.
                            if fault.kind == Kind::Denied && !std::mem::replace(&mut is_told, true) {
                                let name = &cluster.name;
                                tracing::warn!(cluster = %name, "its nodes are asked for every 5 s, since they cannot be watched: {fault}");
                            }
                            POLL
                        }
                    }
                }
                Err(fault) => {
                    failures += 1;
                    tracing::warn!(cluster = %cluster.name, "the nodes of a cluster cannot be asked for: {fault}");
                    let wait = LONGEST.min(POLL * 2u32.saturating_pow(failures - 1));
                    wait.max(fault.after.unwrap_or_default())
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Until the watch is over, or the list is old.
    async fn hear(
        &self,
        cluster: &KubeCluster,
        clusters: &KubeClusters,
        nodes: &mut BTreeMap<String, KubeNode>,
        version: &str,
        leads: &watch::Receiver<bool>,
    ) -> Result<(), Fault> {
        let mut watch = cluster.fleet.watch(version).await?;
        let old = clock::instant() + RELIST;
        let mut look = clock::instant() + POLL;
        while clock::instant() < old {
            let until = tokio::time::Instant::from_std(look);
            let changed = match tokio::time::timeout_at(until, watch.next()).await {
                Ok(change) => take_change(nodes, change?),
                // What only time changes: who is away for good, what is missing for good.
                Err(_) => Some(true),
            };
            match changed {
                None => return Ok(()),
                Some(false) => {}
                Some(true) => {
                    self.take_all(cluster, clusters, nodes, leads).await;
                    look = clock::instant() + POLL;
                }
            }
        }
        Ok(())
    }

    async fn take_all(
        &self,
        cluster: &KubeCluster,
        clusters: &KubeClusters,
        nodes: &BTreeMap<String, KubeNode>,
        leads: &watch::Receiver<bool>,
    ) {
        let leads = *leads.borrow();
        let now = clock::now();
        let (changed, gone) = self.take_kubes(cluster, clusters, nodes, now);
        self.publish();
        clusters.heard().notify_one();
        if leads {
            for name in &changed {
                self.write(name, now).await;
            }
        }
        for name in gone.iter().filter(|_| leads) {
            // It may only be none of ours any more, as by a label that was taken from it.
            if let Err(fault) = cluster.fleet.uncordon(name).await {
                tracing::warn!(node = name, "a node of Kubernetes cannot be uncordoned: {fault}");
            }
        }
        self.leave_clusters(&gone, leads).await;
    }

    /// Takes what a cluster tells: which nodes it told of, and which are none any more.
    fn take_kubes(
        &self,
        cluster: &KubeCluster,
        clusters: &KubeClusters,
        nodes: &BTreeMap<String, KubeNode>,
        now: Timestamp,
    ) -> (Vec<String>, Vec<String>) {
        let settings = clusters.settings();
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        let mut all = self.lock();
        for known in all.iter_mut().filter(|known| !nodes.contains_key(&known.config.name)) {
            let name = known.config.name.clone();
            let Some(seen) = known.seen.as_mut() else { continue };
            let Some(kube) = seen.kubernetes.as_mut().filter(|kube| kube.at.cluster == cluster.name) else { continue };
            let since = *kube.away_since.get_or_insert(now);
            (kube.is_ready, kube.conditions) = (false, Vec::new());
            seen.down = Some(format!("the cluster `{}` does not list it any more", cluster.name));
            if now.duration_since(since) >= settings.gone_after { gone.push(name) } else { told.push(name) }
        }
        for (name, node) in nodes {
            let name = name.clone();
            let known = named(&mut all, &name);
            // One that is reached in another way, or is of another cluster, stays that.
            let is_other = known.config.connection.is_some() || known.worker.is_some() || known.instance().is_some();
            let is_new = |seen: &Seen| seen.kubernetes.is_none() && seen != &Seen::default();
            let of_other = |kube: &KubeSeen| kube.at.cluster != cluster.name && clusters.of(&kube.at.cluster).is_some();
            let Some(seen) = known.seen.as_mut().filter(|seen| !is_other && !is_new(seen)) else { continue };
            if seen.kubernetes.as_ref().is_some_and(of_other) {
                continue;
            }
            let before = seen.kubernetes.take().unwrap_or_default();
            let kube = take(seen, &cluster.name, &before, node, &settings.conditions, now);
            known.config = config(&name, &kube);
            seen.kubernetes = Some(kube);
            told.push(name);
        }
        (told, gone)
    }
}

/// Those whose names can be names here.
fn by_name(nodes: Vec<KubeNode>) -> BTreeMap<String, KubeNode> {
    let fit = nodes.into_iter().filter(|node| check_name(&node.name).is_ok());
    fit.map(|node| (node.name.clone(), node)).collect()
}

/// Whether something is otherwise than before that matters here; `None`: the watch is over.
fn take_change(nodes: &mut BTreeMap<String, KubeNode>, change: Change<KubeNode>) -> Option<bool> {
    match change {
        Change::Is(node) if check_name(&node.name).is_err() => Some(false),
        // Kubelets write every few minutes, or seconds, that they are there.
        Change::Is(node) => {
            let version = node.version.clone();
            let before = nodes.insert(node.name.clone(), node.clone());
            Some(before.is_none_or(|before| KubeNode { version, ..before } != node))
        }
        Change::Gone(node) => Some(nodes.remove(&node.name).is_some()),
        Change::Over => None,
    }
}

/// Takes what a cluster tells of one node.
fn take<T>(
    seen: &mut Seen,
    cluster: &str,
    before: &KubeSeen,
    node: &KubeNode,
    heeded: &BTreeMap<String, T>,
    now: Timestamp,
) -> KubeSeen {
    let had = seen.gpus.iter().filter(|gpu| gpu.gone_since.is_none()).count();
    let is_fewer = (node.gpus.min(MOST_GPUS) as usize) < had;
    // What tells of devices begins anew with the kubelet, and with a new version of it.
    let fewer_since = is_fewer.then(|| before.fewer_since.unwrap_or(now));
    let is_lasting = fewer_since.is_some_and(|since| now.duration_since(since) >= FEWER);
    if !is_fewer || (is_lasting && node.unready.is_none()) {
        let reading = |index: u32| Reading { index, uuid: format!("{}/gpu-{index}", node.name), ..Reading::default() };
        let readings: Vec<Reading> = (0..node.gpus.min(MOST_GPUS)).map(reading).collect();
        seen.devices(&readings, "its cluster counts one GPU less than before", now);
    }
    seen.cores = u32::try_from(node.cpu_milli / 1000).ok();
    seen.memory_mib = Some(node.memory_mib);
    seen.down = node.unready.as_ref().map(|why| format!("its cluster does not hold it for ready: {why}"));
    let is_heeded = |one: &&Condition| one.is_true() && heeded.contains_key(&one.kind);
    let mut labels = node.labels.clone();
    labels.insert(CLUSTER_LABEL.to_owned(), cluster.to_owned());
    KubeSeen {
        at: KubePlace { cluster: cluster.to_owned(), node: node.name.clone() },
        labels,
        is_cordoned: node.is_cordoned,
        marked_by: node.annotations.get(CORDONED).cloned(),
        is_ready: node.unready.is_none(),
        reboot_of: ordered(node).map(str::to_owned),
        boot_id: node.boot_id.clone(),
        conditions: node.conditions.iter().filter(|one| is_heeded(one)).cloned().collect(),
        fewer_since,
        away_since: None,
        is_gone: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(gpus: u32) -> KubeNode {
        KubeNode { name: "n1".to_owned(), gpus, gpus_in_all: 4, boot_id: "b1".to_owned(), ..KubeNode::default() }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    #[test]
    fn a_device_counts_as_lost_once_it_was_away_for_as_long_as_a_device_plugin_takes_to_begin() {
        let (mut seen, mut kube) = (Seen::default(), KubeSeen::default());
        let heeded = BTreeMap::<String, ()>::new();
        let mut after = |seconds, node: KubeNode| {
            kube = take(&mut seen, "gpus", &kube, &node, &heeded, at(seconds));
            seen.gpus.iter().map(|gpu| gpu.gone_since.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(after(0, node(4)), [false; 4]);
        assert_eq!(after(10, node(0)), [false; 4], "its plugin begins anew");
        assert_eq!(after(20, node(4)), [false; 4]);
        assert_eq!(after(30, node(3)), [false; 4]);
        let away = KubeNode { unready: Some("x".to_owned()), ..node(3) };
        assert_eq!(after(95, away), [false; 4], "who is away has lost nothing that is known");
        assert_eq!(after(96, node(3)), [false, false, false, true]);
        assert_eq!(after(97, node(4)), [false; 4]);
    }

    #[test]
    fn that_a_node_is_there_yet_is_no_news() {
        let mut nodes = BTreeMap::new();
        let of = |version: &str, gpus| Change::Is(KubeNode { version: version.to_owned(), ..node(gpus) });
        let mut take = |change| take_change(&mut nodes, change);
        assert_eq!([take(of("1", 4)), take(of("2", 4)), take(of("3", 3))], [Some(true), Some(false), Some(true)]);
        assert_eq!(
            [take(Change::Gone(node(3))), take(Change::Gone(node(3))), take(Change::Over)],
            [Some(true), Some(false), None]
        );
    }
}

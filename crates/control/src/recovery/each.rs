//! A task for each node, for as long as it is one that is looked after; so none waits for another.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};

use crate::fleet::{Fleet, FleetNode};

/// Until it is dropped, which ends all of them.
pub(super) async fn each_node<F>(
    fleet: &Fleet,
    is_meant: impl Fn(&FleetNode) -> bool,
    mut begin: impl FnMut(&FleetNode) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut nodes = fleet.nodes();
    let mut tasks = JoinSet::new();
    let mut begun: BTreeMap<String, AbortHandle> = BTreeMap::new();
    loop {
        let list = nodes.borrow_and_update().clone();
        let meant: Vec<&FleetNode> = list.iter().filter(|node| is_meant(node)).collect();
        let names: BTreeSet<&str> = meant.iter().map(|node| node.node.name.as_str()).collect();
        begun.retain(|name, task| {
            let stays = names.contains(name.as_str());
            if !stays {
                task.abort();
            }
            stays && !task.is_finished()
        });
        for node in meant {
            if !begun.contains_key(&node.node.name) {
                begun.insert(node.node.name.clone(), tasks.spawn(begin(node)));
            }
        }
        while tasks.try_join_next().is_some() {}
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

/// A part of `every` that is always the same for this node: a thousand that were met together are not asked together for
/// ever.
pub(super) fn share(node: &str, every: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    every.mul_f64(f64::from(hasher.finish() as u16) / f64::from(u16::MAX))
}

//! Nodes that a cluster tells of, whichever kind of cluster it is.
//!
//! Invariant: one that is no node any more stays in the store with a mark, so no server takes it for one that it has not heard of yet.

use std::collections::BTreeMap;

use pitcrew_store::NodeRow;

use super::config::NodeConfig;
use super::seen::Seen;
use super::service::Known;
use super::{Fleet, instances, kubernetes};
use crate::clock;

/// The node of this name, which may not have been one so far.
pub(super) fn named<'k>(all: &'k mut Vec<Known>, name: &str) -> &'k mut Known {
    let at = all.iter().position(|known| known.config.name == name).unwrap_or_else(|| {
        all.push(Known::new(NodeConfig::plain(name), Some(Seen::default()), None));
        all.len() - 1
    });
    &mut all[at]
}

/// What its cluster says of it; `None`: it is of none, or no node any more.
fn config(name: &str, seen: &Seen) -> Option<NodeConfig> {
    let instance = seen.ecs.as_ref().filter(|instance| !instance.is_gone);
    let kube = seen.kubernetes.as_ref().filter(|kube| !kube.is_gone);
    instance.map(|instance| instances::config(name, instance)).or_else(|| Some(kubernetes::config(name, kube?)))
}

impl Fleet {
    /// Nodes of clusters as they were seen last, by whichever server.
    pub(super) fn read_clusters(&self, rows: &BTreeMap<String, NodeRow>) {
        let mut all = self.lock();
        for (name, row) in rows {
            let Ok(seen) = serde_json::from_value::<Seen>(row.seen.clone()) else { continue };
            let Some(config) = config(name, &seen) else { continue };
            if !all.iter().any(|known| known.config.name == *name) {
                all.push(Known::new(config, Some(seen), None));
            }
        }
    }

    /// These are no nodes any more, which the server that leads writes.
    pub(super) async fn leave_clusters(&self, names: &[String], leads: bool) {
        if names.is_empty() {
            return;
        }
        for known in self.lock().iter_mut().filter(|known| names.contains(&known.config.name)) {
            let Some(seen) = known.seen.as_mut() else { continue };
            if let Some(instance) = &mut seen.ecs {
                instance.is_gone = true;
            }
            if let Some(kube) = &mut seen.kubernetes {
                kube.is_gone = true;
            }
        }
        if leads {
            for name in names {
                self.write(name, clock::now()).await;
            }
        }
        let is_of_none = |known: &Known| known.instance().is_none() && known.kube().is_none();
        self.lock().retain(|known| !names.contains(&known.config.name) || is_of_none(known));
        self.publish();
    }
}

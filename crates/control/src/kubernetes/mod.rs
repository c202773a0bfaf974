//! Clusters of Kubernetes, as a server knows them: how each is asked, and what is done to their nodes.
//!
//! What is asked and done there is [`pitcrew_kubernetes`]'s; their nodes among the nodes are [`crate::fleet`]'s, and what
//! recovery does to them stands beside the rest of it.

pub mod config;

use std::sync::Arc;

use pitcrew_kubernetes::Client;
use pitcrew_kubernetes::client::Env;
use pitcrew_kubernetes::fleet::KubeFleet;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use config::KubernetesSettings;

/// The clusters of this server. Cheap to clone; none is fine.
#[derive(Clone)]
pub struct KubeClusters(Arc<Inner>);

struct Inner {
    all: Vec<KubeCluster>,
    settings: KubernetesSettings,
    heard: Notify,
}

/// One cluster.
#[derive(Clone)]
pub struct KubeCluster {
    pub name: String,
    pub fleet: KubeFleet,
    /// Where our pods are.
    pub namespace: String,
}

/// A node of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubePlace {
    pub cluster: String,
    pub node: String,
}

impl KubeClusters {
    /// None at all.
    pub fn none() -> KubeClusters {
        KubeClusters(Arc::new(Inner { all: Vec::new(), settings: KubernetesSettings::default(), heard: Notify::new() }))
    }

    /// Asks nobody yet. `owner`: one word for this store, always the same.
    pub fn new(settings: &KubernetesSettings, owner: &str, env: Env<'_>) -> Result<KubeClusters, String> {
        let mut all = Vec::new();
        for cluster in &settings.clusters {
            let client = Client::find(cluster.kubeconfig.as_deref(), cluster.context.as_deref(), env);
            let client = client.map_err(|why| format!("the cluster `{}`: {why}", cluster.name))?;
            let namespace = settings.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
            let fleet = KubeFleet {
                client,
                selector: cluster.selector.clone(),
                resource: settings.resource.clone(),
                owner: owner.to_owned(),
            };
            all.push(KubeCluster { name: cluster.name.clone(), fleet, namespace });
        }
        Ok(KubeClusters(Arc::new(Inner { all, settings: settings.clone(), heard: Notify::new() })))
    }

    pub fn all(&self) -> &[KubeCluster] {
        &self.0.all
    }

    pub fn of(&self, cluster: &str) -> Option<&KubeCluster> {
        self.0.all.iter().find(|one| one.name == cluster)
    }

    /// Something is otherwise than before among the nodes.
    pub fn heard(&self) -> &Notify {
        &self.0.heard
    }

    pub fn settings(&self) -> &KubernetesSettings {
        &self.0.settings
    }
}

//! Clusters of Amazon ECS, as a server knows them: how each is asked, and who is told when something happened there.
//!
//! What is asked and done there is [`pitcrew_ecs`]'s; their machines among the nodes are [`crate::fleet`]'s, and what
//! recovery does to them stands beside the rest of it.

pub mod config;
pub mod import;
pub mod keep;

use std::sync::Arc;

use pitcrew_ecs::Client;
use pitcrew_ecs::backend::{Gate, Gates};
use pitcrew_ecs::events::{Wake, Warning};
use pitcrew_ecs::fleet::EcsFleet;
use pitcrew_exec::aws::Aws;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard, broadcast, mpsc};

use config::EcsSettings;

/// Events that wait for whoever listens; more than that are missed, and polling finds what they told of.
const WAITING: usize = 1024;

/// The clusters of this server. Cheap to clone; none is fine.
#[derive(Clone)]
pub struct Clusters(Arc<Inner>);

struct Inner {
    all: Vec<Cluster>,
    /// Tells what this server starts from what others do.
    instance: String,
    stop_start: bool,
    wakes: broadcast::Sender<Wake>,
    warnings: (mpsc::UnboundedSender<Warning>, Mutex<mpsc::UnboundedReceiver<Warning>>),
    gates: Gates,
}

/// One cluster.
#[derive(Clone)]
pub struct Cluster {
    pub name: String,
    pub fleet: EcsFleet,
    /// The task definition that checks a machine.
    pub check: Option<String>,
}

/// A machine of a cluster, as work and repairs get there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub region: String,
    pub cluster: String,
    /// By EC2's id; it stays when its agent registers anew.
    pub id: String,
    /// The ARN of its container instance.
    pub instance: String,
}

impl Clusters {
    /// None at all.
    pub fn none() -> Clusters {
        let wakes = broadcast::channel(1).0;
        Clusters(Arc::new(Inner {
            all: Vec::new(),
            instance: String::new(),
            stop_start: false,
            wakes,
            warnings: warnings(),
            gates: Gates::default(),
        }))
    }

    /// Asks nobody yet. `instance`: one word for this store, always the same.
    pub fn new(settings: &EcsSettings, aws: &Aws, instance: &str) -> Result<Clusters, pitcrew_ecs::Fault> {
        let mut all = Vec::new();
        for cluster in &settings.clusters {
            let region = cluster.region.clone().unwrap_or_else(|| aws.region());
            let client = Client::new(aws.clone(), &region)?.as_role(cluster.role.as_deref());
            let fleet = EcsFleet::new(client, &cluster.name);
            let check = cluster.check.clone().or_else(|| settings.check.clone());
            all.push(Cluster { name: cluster.name.clone(), fleet, check });
        }
        let (instance, stop_start) = (instance.to_owned(), settings.stop_start);
        let wakes = broadcast::channel(WAITING).0;
        let inner = Inner { all, instance, stop_start, wakes, warnings: warnings(), gates: Gates::default() };
        Ok(Clusters(Arc::new(inner)))
    }

    pub fn all(&self) -> &[Cluster] {
        &self.0.all
    }

    /// That of a machine.
    pub fn of(&self, machine: &Machine) -> Option<&Cluster> {
        self.0.all.iter().find(|cluster| cluster.name == machine.cluster && cluster.region() == machine.region)
    }

    pub fn may_stop_start(&self) -> bool {
        self.0.stop_start
    }

    pub fn instance(&self) -> &str {
        &self.0.instance
    }

    /// Keeps what is placed off instances that are active for a check alone.
    pub fn gates(&self) -> &Gates {
        &self.0.gates
    }

    pub fn gate(&self, cluster: &Cluster) -> Gate {
        self.0.gates.of(cluster.region(), &cluster.name)
    }

    /// Where whatever is heard of changes is to be told.
    pub fn wakes(&self) -> &broadcast::Sender<Wake> {
        &self.0.wakes
    }

    /// Where warnings are to be told, which stay in their queue until recovery has written them.
    pub fn warnings(&self) -> Option<mpsc::UnboundedSender<Warning>> {
        (!self.0.all.is_empty()).then(|| self.0.warnings.0.clone())
    }

    /// They wait for one at a time.
    pub async fn warned(&self) -> MutexGuard<'_, mpsc::UnboundedReceiver<Warning>> {
        self.0.warnings.1.lock().await
    }
}

fn warnings() -> (mpsc::UnboundedSender<Warning>, Mutex<mpsc::UnboundedReceiver<Warning>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (sender, Mutex::new(receiver))
}

impl Cluster {
    pub fn region(&self) -> &str {
        self.fleet.client.region()
    }

    pub fn is_of(&self, machine: &Machine) -> bool {
        self.name == machine.cluster && self.region() == machine.region
    }
}

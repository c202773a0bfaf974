//! The nodes of this server: what is known of each, and how work gets there.
//!
//! What is configured ([`config`]), what a node told of itself ([`seen`]) and what people did to it are put together
//! ([`assemble`]) into one list, replaced as a whole and watched by whoever places work. Invariant: every node of it has
//! a name of its own, and one that cannot be used stands in it with the reason.

mod ask;
mod assemble;
pub mod change;
mod clustered;
mod columns;
pub mod config;
mod instances;
mod kubernetes;
mod places;
mod seen;
mod series;
mod service;
mod tasks;
mod twins;
mod view;
pub mod workers;

use std::sync::Arc;

use pitcrew_core::fleet::Node;
use pitcrew_exec::WorkerPlace;
use tokio::sync::watch;

pub use ask::{Asker, Following, this_machine};
pub use config::NodeConfig;
pub use instances::Instance;
pub use kubernetes::KubeSeen;
pub use seen::{Seen, SeenGpu};
pub use series::Sample;
pub use service::{Beside, Fleet, Lost};
pub use tasks::{TaskOnNode, ended, tasks};
pub use view::{GpuView, NodeView};
pub use workers::WorkerView;

/// The name of the machine of the server, unless it is configured.
pub const LOCAL: &str = "local";

/// A node, and how work gets there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetNode {
    pub node: Node,
    pub reach: Reach,
}

/// How work gets to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It is the machine of the server.
    Local,
    /// Over SSH, by the stored connection of this id.
    Connection(String),
    /// It comes for it.
    Worker(WorkerPlace),
    /// ECS gives it tasks; repairs get there by SSM and EC2.
    Ecs(crate::ecs::Machine),
    /// Kubernetes gives it pods; repairs get there by its API server.
    Kubernetes(crate::kubernetes::KubePlace),
}

/// All nodes as they are now; cheap to clone.
pub type Nodes = watch::Receiver<Arc<Vec<FleetNode>>>;

/// A list that stays as it is.
pub fn fixed(nodes: Vec<FleetNode>) -> Nodes {
    watch::channel(Arc::new(nodes)).1
}

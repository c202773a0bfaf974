//! The nodes of this server: what is known of each, and how work gets there.
//!
//! One list at a time, replaced as a whole and watched by whoever places work. Invariant: every node of it has a name of
//! its own, and one that cannot be used stands in it with the reason.

mod machine;

use std::sync::Arc;

use pitcrew_core::fleet::Node;
use tokio::sync::watch;

pub use machine::this_machine;

/// The name of the machine of the server itself.
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
    #[allow(dead_code, reason = "none is made until nodes can be configured")]
    Connection(String),
}

/// All nodes as they are now; cheap to clone.
pub type Nodes = watch::Receiver<Arc<Vec<FleetNode>>>;

/// A list that stays as it is.
pub fn fixed(nodes: Vec<FleetNode>) -> Nodes {
    watch::channel(Arc::new(nodes)).1
}

//! The nodes of one cluster: seen, and cordoned or made to take pods again.
//!
//! Invariants: a node that we cordon bears our mark, which is written in the same call, so what a person cordoned is never
//! uncordoned by us. What is written to a node is bound to the state in which it was read.

use serde_json::{Value, json};

use crate::client::{Call, Change, Client, Fault, Kind, NODES, Watch};
use crate::node::{KubeNode, Raw};

/// The annotation of a node that we cordoned; its value says which Pitcrew that was.
pub const CORDONED: &str = "pitcrew/cordoned-by";
/// What GPUs are called, unless something else is said.
pub const GPU: &str = "nvidia.com/gpu";
/// So often something is read anew that somebody else changes at the same time.
const TRIES: u32 = 8;

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It is known that nothing happened, and why.
    Refused(String),
    /// It may have happened.
    Unknown(String),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Outcome {
        match fault.kind {
            Kind::Unknown => Outcome::Unknown(fault.to_string()),
            Kind::Away | Kind::Later | Kind::NotFound | Kind::Denied | Kind::Conflict | Kind::Invalid => {
                Outcome::Refused(fault.to_string())
            }
        }
    }
}

/// Changes of nodes as they happen.
pub struct NodeWatch {
    watch: Watch,
    resource: String,
}

impl NodeWatch {
    /// The next change; may be dropped and asked again without losing any.
    pub async fn next(&mut self) -> Result<Change<KubeNode>, Fault> {
        Ok(match self.watch.next::<Raw>().await? {
            Change::Is(raw) => Change::Is(raw.read(&self.resource)),
            Change::Gone(raw) => Change::Gone(raw.read(&self.resource)),
            Change::Over => Change::Over,
        })
    }
}

/// The nodes of one cluster. Cheap to clone.
#[derive(Clone)]
pub struct KubeFleet {
    pub client: Client,
    /// Which nodes are meant; `None`: all.
    pub selector: Option<String>,
    /// What GPUs are called there.
    pub resource: String,
    /// One word for this Pitcrew: letters, digits, `-`.
    pub owner: String,
}

impl KubeFleet {
    /// All that are meant, and the version from which they can be watched.
    pub async fn nodes(&self) -> Result<(Vec<KubeNode>, String), Fault> {
        let (all, version) = self.client.all_at::<Raw>(self.list()).await?;
        Ok((all.into_iter().map(|raw| raw.read(&self.resource)).collect(), version))
    }

    /// What happens to them after that version.
    pub async fn watch(&self, version: &str) -> Result<NodeWatch, Fault> {
        let watch = self.client.watch(self.list(), version).await?;
        Ok(NodeWatch { watch, resource: self.resource.clone() })
    }

    fn list(&self) -> Call {
        let call = Call::list(NODES, None);
        match &self.selector {
            Some(selector) => call.query("labelSelector", selector),
            None => call,
        }
    }

    /// `None`: there is none.
    pub async fn node(&self, name: &str) -> Result<Option<KubeNode>, Fault> {
        match self.client.ask::<Raw>(Call::get(NODES, None, name)).await {
            Ok(raw) => Ok(Some(raw.read(&self.resource))),
            Err(fault) if fault.kind == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Lets it take no new pods. What a person cordoned stays that person's.
    pub async fn cordon(&self, name: &str) -> Result<(), Fault> {
        let change =
            json!({ "metadata": { "annotations": { CORDONED: self.owner } }, "spec": { "unschedulable": true } });
        self.change(name, |node| (!node.is_cordoned).then(|| change.clone())).await
    }

    /// Lets it take pods again, if it was us who cordoned it.
    pub async fn uncordon(&self, name: &str) -> Result<(), Fault> {
        let change = json!({ "metadata": { "annotations": { CORDONED: null } }, "spec": { "unschedulable": null } });
        let is_ours = |node: &KubeNode| node.annotations.get(CORDONED) == Some(&self.owner);
        self.change(name, |node| is_ours(node).then(|| change.clone())).await
    }

    /// A node that somebody else has uncordoned bears our mark no more.
    pub async fn unmark(&self, name: &str) -> Result<(), Fault> {
        let change = json!({ "metadata": { "annotations": { CORDONED: null } } });
        let is_stale = |node: &KubeNode| !node.is_cordoned && node.annotations.get(CORDONED) == Some(&self.owner);
        self.change(name, |node| is_stale(node).then(|| change.clone())).await
    }

    /// Changes a node as it is now, if it needs to be; one that is not there needs nothing.
    pub(crate) async fn change(&self, name: &str, what: impl Fn(&KubeNode) -> Option<Value>) -> Result<(), Fault> {
        let mut last = None;
        for _ in 0..TRIES {
            let Some(node) = self.node(name).await? else { return Ok(()) };
            let Some(mut change) = what(&node) else { return Ok(()) };
            change["metadata"]["resourceVersion"] = json!(node.version);
            match self.client.tell(Call::patch(NODES, None, name, change)).await {
                Ok(()) => return Ok(()),
                Err(fault) if fault.kind == Kind::Conflict => last = Some(fault),
                Err(fault) if fault.kind == Kind::NotFound => return Ok(()),
                Err(fault) => return Err(fault),
            }
        }
        Err(last.unwrap_or_else(|| Fault::unknown("somebody else changes the node all the time")))
    }
}

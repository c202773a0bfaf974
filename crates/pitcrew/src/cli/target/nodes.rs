//! Nodes, here or on a server.

use anyhow::bail;
use pitcrew_control::fleet::{self, Fleet, NodeView};
use pitcrew_control::records::What;
use pitcrew_control::recovery;
use pitcrew_core::RunKey;
use pitcrew_server::node_audit;
use pitcrew_store::NodeChange;
use serde::Deserialize;
use serde_json::json;

use super::Target;
use super::settings::refused;
use crate::cli::context::{self, Context};
use crate::cli::error::invalid;
use crate::cli::session::home;

const NODES: [&str; 4] = ["api", "pitcrew", "v1", "nodes"];

impl Target {
    /// Every node, as it was last seen by whoever serves it.
    pub async fn nodes(&self) -> anyhow::Result<Vec<NodeView>> {
        match self {
            Target::Here(context) => {
                let fleet = of(context).await?;
                let mut nodes = fleet.views();
                let mut tasks = fleet::tasks(&context.store, &nodes).await?;
                for node in &mut nodes {
                    node.tasks = tasks.remove(&node.name).unwrap_or_default();
                }
                Ok(nodes)
            }
            Target::There(remote) => {
                #[derive(Deserialize)]
                struct Answer {
                    nodes: Vec<NodeView>,
                }
                let answer: Answer = remote.get(&NODES, &[]).await?;
                Ok(answer.nodes)
            }
        }
    }

    /// The node of that name.
    pub async fn node(&self, name: &str) -> anyhow::Result<NodeView> {
        let found = self.nodes().await?.into_iter().find(|node| node.name == name);
        found.ok_or_else(|| {
            let hint = format!("`{} nodes list` shows all of them", self.pitcrew());
            invalid(format!("there is no node `{name}`\nhint: {hint}"))
        })
    }

    /// Does something to a node.
    pub async fn change_node(&self, name: &str, change: NodeChange) -> anyhow::Result<NodeView> {
        match self {
            Target::Here(context) => {
                let audit = node_audit(&context::who(), name, &change);
                let changed = of(context).await?.change(name, change, audit).await.map_err(refused)?;
                self.changed().await;
                match changed {
                    Some(view) => Ok(view),
                    None => bail!("there is no node `{name}`"),
                }
            }
            Target::There(remote) => {
                let mut body = json!({ "labels": change.labels, "taints": change.taints });
                if let Some(cordoned) = change.cordoned {
                    body["cordoned"] = json!(cordoned);
                }
                let [api, own, version, nodes] = NODES;
                Ok(serde_json::from_value(remote.patch(&[api, own, version, nodes, name], body).await?)?)
            }
        }
    }

    /// Stops an instance that is live, and lets it run again.
    pub async fn repeat_task(&self, run: RunKey, task: &str, map_index: Option<i32>) -> anyhow::Result<()> {
        let Some(stored) = self.stored_run(run).await? else { return Ok(()) };
        match self.clear(&stored.run, &What::Tasks(vec![(task.to_owned(), map_index)])).await? {
            Some(_) => Ok(()),
            None => bail!("nobody works on run {run}, so it cannot be stopped: is its server running?"),
        }
    }
}

async fn of(context: &Context) -> anyhow::Result<Fleet> {
    let fleet = Fleet::look(context.store.clone(), &context.settings.nodes, home(context)?, context.now()).await?;
    if context.settings.recovery.is_some() {
        recovery::fence(&context.store, &fleet).await?;
    }
    Ok(fleet)
}

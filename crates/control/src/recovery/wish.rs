//! What people say about incidents, by way of the store: so it reaches whichever server leads, now or later.

use pitcrew_core::recovery::{IncidentId, Input, NodeState, Rung};
use pitcrew_store::{AuditEntry, Store, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Desk;

/// What somebody wants done about an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// The repair that it waits with may go ahead.
    Approve,
    /// The node is well.
    Dismiss,
    /// A node that is out of service is to be checked again.
    Retry,
}

impl Deed {
    pub const ALL: [Deed; 3] = [Deed::Approve, Deed::Dismiss, Deed::Retry];

    /// Whether it does anything while the node of the incident stands so.
    pub fn suits(self, node: NodeState) -> bool {
        match self {
            Deed::Approve => node == NodeState::AwaitingApproval,
            Deed::Dismiss => node.may_be_dismissed(),
            Deed::Retry => node == NodeState::OutOfService,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Deed::Approve => "approve",
            Deed::Dismiss => "dismiss",
            Deed::Retry => "retry",
        }
    }
}

/// A deed, in somebody's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub deed: Deed,
    pub by: String,
    #[serde(default)]
    pub why: String,
    /// Of an approval: the repair that they saw. What is planned by the time that it is heard may be a harder one.
    #[serde(default)]
    pub repair: Option<Rung>,
}

fn key(incident: IncidentId) -> String {
    format!("recovery.wish.{}", incident.0)
}

/// Writes a wish down, and who had it, or neither. The last one of an incident counts.
pub async fn put(store: &Store, incident: IncidentId, wish: &Wish, mut audit: AuditEntry) -> Result<(), StoreError> {
    audit.detail = json!({ "incident": incident.to_string(), "why": wish.why, "repair": wish.repair });
    // Texts and a word: nothing that JSON cannot hold.
    let text = serde_json::to_string(wish).expect("a wish is always valid JSON");
    store.put_setting_audited(&key(incident), &text, audit).await
}

/// Hands on what was wished about these incidents.
pub(super) async fn grant(store: &Store, desk: &Desk, incidents: &[IncidentId]) -> Result<(), StoreError> {
    for id in incidents {
        let Some(text) = store.setting(&key(*id)).await?.filter(|text| !text.is_empty()) else { continue };
        match serde_json::from_str::<Wish>(&text) {
            Ok(Wish { deed, by, why, repair }) => {
                let input = match deed {
                    Deed::Approve => Input::Approve { incident: *id, repair, by },
                    Deed::Dismiss => Input::Dismiss { incident: *id, by, why },
                    Deed::Retry => Input::Retry { incident: *id, by },
                };
                if desk.tell(input).await.is_err() {
                    return Ok(());
                }
            }
            Err(error) => tracing::warn!(%error, "what was wished about {id} cannot be read"),
        }
        // A newer wish stays.
        store.swap_setting(&key(*id), Some(&text), "").await?;
    }
    Ok(())
}

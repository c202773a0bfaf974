//! What the members of a gang are told of each other when they start.
//!
//! Invariant: all members are told the same, and so is one whose start is repeated after a crash: what they are told is
//! made from the rows of all their attempts, also of those that have ended.

use pitcrew_core::engine::record::AttemptRecord;
use pitcrew_core::engine::{Run, Slot};
use pitcrew_core::state::State;
use pitcrew_exec::spec::{HEAD, PEERS};
use pitcrew_exec::{EcsMember, Handle, Place};
use pitcrew_store::StoreError;

use super::Parts;
use super::active::Active;
use super::core_loop::{Core, LOOK};
use crate::fleet::FleetNode;

/// The label of a node by whose value the members on other nodes reach it.
pub const ADDRESS: &str = "peer-address";
/// What a machine calls itself.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Variables of a member's environment; none for a task that is no gang.
pub(super) fn environment(parts: &Parts, active: &Active, slot: Slot) -> Vec<(&'static str, String)> {
    let Some(members) = active.run.members(slot.task) else { return Vec::new() };
    let number = vec![("PITCREW_RANK", slot.index.to_string()), ("PITCREW_NODES", members.len().to_string())];
    if active.run.workflow.task(slot.task).gang.as_ref().is_some_and(|gang| gang.is_elsewhere) {
        // Their backend chooses the machines, and tells each member of them.
        return number;
    }
    let nodes = parts.nodes.borrow();
    let peers: Vec<String> = members
        .iter()
        .map(|member| active.attempts.get(member).map(|row| address(&nodes, row)).unwrap_or_default())
        .collect();
    let head = peers.first().cloned().unwrap_or_default();
    number.into_iter().chain([(HEAD, head), (PEERS, peers.join(","))]).collect()
}

/// What a member is told for whom ECS is to find a machine; `None`: it is of no gang.
pub(super) fn on_ecs(parts: &Parts, active: &Active, slot: Slot, number: u32) -> Option<EcsMember> {
    let members = active.run.members(slot.task)?;
    let topology = active.run.workflow.task(slot.task).gang.as_ref()?.topology.as_ref();
    let first = *members.first()?;
    Some(EcsMember {
        rank: slot.index,
        count: u32::try_from(members.len()).unwrap_or(u32::MAX),
        near: topology.map(|topology| topology.label.clone()),
        near_required: topology.is_some_and(|topology| topology.is_required),
        avoid: active.excluded.get(&slot).cloned().unwrap_or_default(),
        seats: parts.data.attempt(&active.run.attempt_id(first, number)),
    })
}

/// By what others reach the node of an attempt: its label, the host that we reach it by, what it calls itself, its name.
fn address(nodes: &[FleetNode], row: &AttemptRecord) -> String {
    let name = row.node.as_deref().unwrap_or_default();
    let labels = nodes.iter().find(|known| known.node.name == name).map(|known| &known.node.labels);
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).filter(|value| !value.is_empty()).cloned();
    let handle: Option<Handle> = serde_json::from_value(row.handle.clone()).ok();
    let host = match handle.and_then(|handle| handle.place) {
        Some(Place::Ssh(place)) => Some(place.host),
        Some(Place::Worker(_) | Place::Ecs(_) | Place::Kubernetes(_)) | None => None,
    };
    label(ADDRESS).or(host).or_else(|| label(HOSTNAME)).unwrap_or_else(|| name.to_owned())
}

/// Instances that have ended, and it is open what follows: members of whom a mate is live, and those that are recovering.
fn ended_and_open(run: &Run) -> Vec<Slot> {
    let is_open = |slot: &Slot| matches!(run.instance(*slot).state, State::Deferred | State::Recovering);
    run.all_slots().filter(is_open).collect()
}

impl Core {
    /// Reads the attempts of those that have ended, where it is open what follows: mates are told where they were, and
    /// recovery how they ended. Without them no mate may begin; so a database that is away is waited for, as for a commit.
    pub(super) async fn read_ended(&mut self, active: &mut Active) -> Result<(), StoreError> {
        for slot in ended_and_open(&active.run) {
            let (task, index) = (&active.run.workflow.task(slot.task).id, active.run.map_index(slot));
            let rows = loop {
                match self.parts.store.attempts(active.run.record.key, task, index).await {
                    Err(error) if error.is_transient() => {
                        tracing::warn!(%error, "cannot read the attempts of `{task}`; trying again");
                        tokio::time::sleep(LOOK).await;
                    }
                    other => break other?,
                }
            };
            let newest = rows.into_iter().find(|row| row.number == active.run.instance(slot).attempt);
            active.attempts.extend(newest.map(|row| (slot, row)));
        }
        Ok(())
    }
}

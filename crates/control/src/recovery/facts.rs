//! Which nodes recovery looks after: those with GPUs, as they are configured and labelled now.
//!
//! Level-triggered: the list of nodes is compared with what recovery knows whenever it changes, and told what differs.

use std::collections::BTreeMap;

use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{Advice, Input, Mode, NodeFacts, Rung, Signal, SignalKind};

use super::config::Commands;
use super::perform::Hands;
use crate::clock;
use crate::fleet::config::Declared;
use crate::fleet::{FleetNode, NodeConfig, Reach};

/// The label of a node that says what recovery may do there: `off`, `observe`, `approve` or `auto`.
pub const LABEL: &str = "recovery";

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    let mut nodes = hands.reached.fleet.nodes();
    let mut told: BTreeMap<String, NodeFacts> = BTreeMap::new();
    let mut down: BTreeMap<String, String> = BTreeMap::new();
    let mut missing: BTreeMap<(String, String), String> = BTreeMap::new();
    loop {
        let list = nodes.borrow_and_update().clone();
        let mut there: BTreeMap<String, NodeFacts> = BTreeMap::new();
        for node in list.iter().filter(|node| !node.node.gpus.is_empty()) {
            let config = hands.reached.fleet.config_of(&node.node.name);
            there.insert(node.node.name.clone(), facts(node, config.as_ref(), &hands.config.commands));
        }
        for (name, facts) in &there {
            if told.get(name) != Some(facts) {
                hands.desk.mention(Input::Node { node: name.clone(), facts: facts.clone() });
            }
        }
        let known: Vec<String> = hands.desk.look(|recovery| recovery.nodes().map(|node| node.name.clone()).collect());
        for name in known.into_iter().chain(told.keys().cloned()).filter(|name| !there.contains_key(name)) {
            // A node may have lost its GPUs and still be there: then it is sick, not gone.
            if !list.iter().any(|node| node.node.name == name) {
                let why = "it is not configured any more".to_owned();
                hands.desk.mention(Input::NodeGone { node: name, why });
            }
        }
        told = there;
        for node in list.iter().filter(|node| told.contains_key(&node.node.name)) {
            absence(&hands, node, &mut down).await;
            lost_devices(&hands, node, &mut missing);
        }
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

fn facts(node: &FleetNode, config: Option<&NodeConfig>, commands: &Commands) -> NodeFacts {
    let label = node.node.labels.get(LABEL).map(String::as_str);
    let mode = match label {
        Some("observe") => Some(Mode::Observe),
        Some("approve") => Some(Mode::Approve),
        Some("auto") => Some(Mode::Auto),
        Some(_) | None => None,
    };
    let gpus = config.and_then(|config| match &config.gpus {
        Some(Declared::Count { count, .. }) => Some(*count),
        Some(Declared::List(all)) => u32::try_from(all.len()).ok(),
        None => None,
    });
    let mut rungs: Vec<Rung> = Vec::new();
    match &node.reach {
        Reach::Connection(_) => rungs.extend([Rung::ResetGpu, Rung::Reboot]),
        // The server would end with its machine.
        Reach::Local => rungs.push(Rung::ResetGpu),
        Reach::Worker(_) => {}
    }
    rungs.extend(commands.hard_reboot.as_ref().map(|_| Rung::HardReboot));
    rungs.extend(commands.replace.as_ref().map(|_| Rung::Replace));
    NodeFacts { boot_id: None, gpus, mode, opted_out: label == Some("off"), rungs: rungs.into_iter().collect() }
}

/// A node that does not answer, and one that does so again.
async fn absence(hands: &Hands, node: &FleetNode, down: &mut BTreeMap<String, String>) {
    let name = &node.node.name;
    match &node.node.standing {
        Standing::Down(why) if down.get(name) != Some(why) => {
            let is_new = !down.contains_key(name);
            down.insert(name.clone(), why.clone());
            if is_new {
                let now = clock::now();
                hands.desk.mention(Input::Signal(Signal {
                    id: format!("{name}/down/{now}"),
                    node: name.clone(),
                    boot_id: None,
                    gpu: None,
                    job: None,
                    at: now,
                    kind: SignalKind::NodeLost,
                    advice: Advice::Check,
                    evidence: why.clone(),
                }));
            }
        }
        Standing::Down(_) => {}
        Standing::Ready | Standing::Cordoned => {
            if down.remove(name).is_some() {
                let seen = hands.observe(name).await;
                if seen.agent {
                    hands.desk.mention(Input::Observed { node: name.clone(), seen });
                }
            }
        }
    }
}

/// Devices that a node does not report any more, or that say that they are broken.
fn lost_devices(hands: &Hands, node: &FleetNode, missing: &mut BTreeMap<(String, String), String>) {
    let name = &node.node.name;
    if matches!(node.node.standing, Standing::Down(_)) {
        return;
    }
    for gpu in &node.node.gpus {
        let key = (name.clone(), gpu.id.clone());
        match &gpu.fault {
            None => drop(missing.remove(&key)),
            Some(_) if missing.contains_key(&key) => {}
            Some(why) => {
                let now = clock::now();
                missing.insert(key, why.clone());
                hands.desk.mention(Input::Signal(Signal {
                    id: format!("{name}/{}/{now}", gpu.id),
                    node: name.clone(),
                    boot_id: None,
                    gpu: Some(gpu.id.clone()),
                    job: None,
                    at: now,
                    kind: SignalKind::LostGpu,
                    advice: Advice::Check,
                    evidence: why.clone(),
                }));
            }
        }
    }
}

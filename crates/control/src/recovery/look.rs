//! What the driver of a node says of its GPUs by itself, and what DCGM has watched: errors of memory, rows that wait to be
//! replaced, devices that need something, heat, links. Every few minutes, and the driver alone whenever a line of the kernel log
//! alone does not say what it means.
//!
//! Asking disturbs nobody. What is found asks for a check at most, which lets work end before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{Advice, Input, Signal, SignalKind};
use pitcrew_exec::gpu::check::{LOOK_SECONDS, Looked, look_script, read_look};
use pitcrew_health::check::{Device, Ended, Expected, Fault, SmiGpu, Verdict, parse_smi, read_smi};
use pitcrew_health::kernel::Pci;
use pitcrew_health::vitals::Vital;
use pitcrew_health::{Shown, VitalRules, Vitals};
use tokio::sync::Semaphore;

use super::each::{each_node, share};
use super::perform::Hands;
use super::signals::faults;
use crate::clock;
use crate::fleet::{FleetNode, Reach};

const SCRIPT: &str = "command -v nvidia-smi >/dev/null 2>&1 || exit 127\nif command -v timeout >/dev/null 2>&1; then exec timeout -k 5 50 nvidia-smi -q; fi\nexec nvidia-smi -q";
const PATIENCE: Duration = Duration::from_secs(60);
/// Nodes that are asked at the same time: an answer is long.
const AT_ONCE: usize = 32;

/// What a look has shown.
#[derive(Debug)]
pub struct Look {
    pub gpus: Vec<SmiGpu>,
    pub faults: Vec<Fault>,
}

impl Look {
    pub fn uuid(&self, pci: Pci) -> Option<String> {
        self.gpus.iter().find(|gpu| gpu.pci == Some(pci))?.uuid.clone()
    }
}

/// `None`: the node did not tell.
pub async fn look(hands: &Hands, node: &str) -> Option<Look> {
    let ran = hands.reached.run(node, SCRIPT, PATIENCE).await.ok()?;
    let ended = ran.code.map_or(Ended::TimedOut, Ended::Code);
    let gpus = parse_smi(ran.stdout.as_bytes());
    let device = |(index, gpu): (u32, &SmiGpu)| Some(Device { index, uuid: gpu.uuid.clone()?, pci: gpu.pci });
    let expected = Expected { devices: (0..).zip(&gpus).filter_map(device).collect() };
    let faults = match read_smi(&ended, ran.stdout.as_bytes(), &expected).verdict {
        Verdict::Fail { faults } => faults,
        Verdict::Pass | Verdict::Inconclusive { .. } | Verdict::Infrastructure { .. } => Vec::new(),
    };
    Some(Look { gpus, faults })
}

/// What has lasted, as recovery takes it.
fn lasting(node: &str, vital: &Vital, boot: Option<&str>, at: Timestamp) -> Signal {
    Signal {
        id: format!("{node}/{}/{}/{at}", vital.gpu, vital.kind),
        node: node.to_owned(),
        boot_id: boot.map(str::to_owned),
        gpu: Some(vital.gpu.clone()),
        job: None,
        at,
        kind: vital.kind.clone(),
        advice: vital.action.advice().min(Advice::Check),
        evidence: format!("{}: {}", vital.gpu, vital.evidence),
    }
}

/// What was seen of nodes in earlier looks, since this server leads.
#[derive(Default)]
pub struct Looks(Mutex<BTreeMap<String, Before>>);

#[derive(Default)]
struct Before {
    /// A fault is told when it comes to be, and again only after it was away.
    standing: BTreeSet<String>,
    vitals: Vitals,
}

impl Looks {
    /// What is new of a node.
    fn see(&self, rules: &VitalRules, node: &str, looked: &mut Looked, now: Timestamp) -> Vec<Vital> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.entry(node.to_owned()).or_default();
        let key = |fault: &Fault| format!("{}/{}", fault.gpu.as_deref().unwrap_or_default(), fault.test);
        let standing = looked.faults.iter().map(key).collect();
        let past = std::mem::replace(&mut before.standing, standing);
        looked.faults.retain(|fault| !past.contains(&key(fault)));
        before.vitals.see(rules, &looked.shown, now)
    }

    fn retain(&self, names: &BTreeSet<&str>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name.as_str()));
    }

    fn fallen(&self, node: &str, shown: &Shown) -> Vec<(String, Vec<usize>)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(node).map(|before| before.vitals.fallen(shown)).unwrap_or_default()
    }
}

impl Hands {
    /// GPUs whose links were up and are not any more, and the words for it: a check may pass all the same.
    pub(super) async fn still_fallen(&self, node: &str) -> Option<(Vec<String>, String)> {
        let asked = self.desk.look(|recovery| {
            let incident = recovery.open_incident(node);
            incident.is_some_and(|incident| incident.signals.iter().any(|signal| signal.kind == SignalKind::NvLink))
        });
        if !asked {
            return None;
        }
        let fallen = self.desk.0.looks.fallen(node, &look_all(self, node).await?.shown);
        let words = |(gpu, links): &(String, Vec<usize>)| {
            let all: Vec<String> = links.iter().map(usize::to_string).collect();
            format!("{gpu}: down, and up before: NVLink {}", all.join(", "))
        };
        let text: Vec<String> = fallen.iter().map(words).collect();
        let gpus: Vec<String> = fallen.into_iter().map(|(gpu, _)| gpu).collect();
        (!gpus.is_empty()).then(|| (gpus, text.join("; ")))
    }
}

/// All that a node tells of its GPUs. `None`: it did not.
async fn look_all(hands: &Hands, node: &str) -> Option<Looked> {
    let within = Duration::from_secs(u64::from(LOOK_SECONDS));
    let ran = hands.reached.run(node, &look_script(), within).await.ok()?;
    read_look(ran.stdout.as_bytes())
}

/// Until it is aborted. A node is looked at when it is first there, or there again, and then every so often.
pub(super) async fn watch(hands: Hands) {
    let every = hands.config.look.unsigned_abs();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let is_asked = |node: &FleetNode| {
        let is_up = !matches!(node.node.standing, Standing::Down(_));
        // Each look at a machine of ECS would be a command in the books of its owner.
        !node.node.gpus.is_empty() && is_up && !matches!(node.reach, Reach::Ecs(_) | Reach::Kubernetes(_))
    };
    each_node(&hands.reached.fleet, is_asked, |node| {
        let (hands, name, room) = (hands.clone(), node.node.name.clone(), room.clone());
        async move {
            let mut pause = share(&name, every);
            loop {
                {
                    let _room = room.acquire().await;
                    look_for_faults(&hands, &name).await;
                }
                tokio::time::sleep(pause).await;
                pause = every;
            }
        }
    })
    .await;
}

async fn look_for_faults(hands: &Hands, name: &str) {
    // One that is down for its reboot is to come up with the links that it had.
    let nodes = hands.reached.fleet.nodes().borrow().clone();
    hands.desk.0.looks.retain(&nodes.iter().map(|node| node.node.name.as_str()).collect());
    let Some(mut looked) = look_all(hands, name).await else { return };
    let now = clock::now();
    let vitals = hands.desk.0.looks.see(&hands.config.signs.meanings().vitals, name, &mut looked, now);
    let boot = hands.desk.look(|recovery| recovery.node(name).and_then(|row| row.boot_id.clone()));
    let lasting = vitals.iter().map(|vital| lasting(name, vital, boot.as_deref(), now));
    for signal in faults(name, &looked.faults, boot.as_deref(), now).into_iter().chain(lasting) {
        hands.desk.mention(Input::Signal(signal));
    }
}

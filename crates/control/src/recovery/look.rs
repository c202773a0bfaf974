//! What the driver of a node says of its GPUs by itself: errors of memory, rows that wait to be replaced, devices that need
//! something. Every few minutes, and whenever a line of the kernel log alone does not say what it means.
//!
//! Asking disturbs nobody. What is found asks for a check at most, which lets work end before anything is done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::Input;
use pitcrew_health::check::{Device, Ended, Expected, Fault, SmiGpu, Verdict, parse_smi, read_smi};
use pitcrew_health::kernel::Pci;
use tokio::sync::Semaphore;

use super::each::{each_node, share};
use super::perform::Hands;
use super::signals::faults;
use crate::clock;
use crate::fleet::{FleetNode, Reach};

const SCRIPT: &str = "command -v nvidia-smi >/dev/null 2>&1 || exit 127\nif command -v timeout >/dev/null 2>&1; then exec timeout -k 5 50 nvidia-smi -q; fi\nexec nvidia-smi -q";
const PATIENCE: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_secs(300);
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

/// Until it is aborted. A node is looked at when it is first there, or there again, and then every so often.
pub(super) async fn watch(hands: Hands) {
    // A fault is told when it comes to be, and again only after it was away.
    let standing: Arc<Mutex<BTreeMap<String, BTreeSet<String>>>> = Arc::default();
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let is_asked = |node: &FleetNode| {
        let is_up = !matches!(node.node.standing, Standing::Down(_));
        // Each look at a machine of ECS would be a command in the books of its owner.
        !node.node.gpus.is_empty() && is_up && !matches!(node.reach, Reach::Ecs(_) | Reach::Kubernetes(_))
    };
    each_node(&hands.reached.fleet, is_asked, |node| {
        let (hands, name, standing, room) = (hands.clone(), node.node.name.clone(), standing.clone(), room.clone());
        async move {
            let mut pause = share(&name, EVERY);
            loop {
                {
                    let _room = room.acquire().await;
                    look_for_faults(&hands, &name, &standing).await;
                }
                tokio::time::sleep(pause).await;
                pause = EVERY;
            }
        }
    })
    .await;
}

async fn look_for_faults(hands: &Hands, name: &str, standing: &Mutex<BTreeMap<String, BTreeSet<String>>>) {
    let Some(mut seen) = look(hands, name).await else { return };
    let key = |fault: &Fault| format!("{}/{}", fault.gpu.as_deref().unwrap_or_default(), fault.test);
    let now = seen.faults.iter().map(key).collect();
    let before = standing.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), now);
    seen.faults.retain(|fault| before.as_ref().is_none_or(|before| !before.contains(&key(fault))));
    let boot = hands.desk.look(|recovery| recovery.node(name).and_then(|row| row.boot_id.clone()));
    for signal in faults(name, &seen, boot.as_deref(), clock::now()) {
        hands.desk.mention(Input::Signal(signal));
    }
}

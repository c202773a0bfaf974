//! Rebooting a node: by an annotation that a reboot agent of the cluster heeds, or by a pod of ours on it.
//!
//! Invariant: a reboot is bound to the boot that it is to end. It is ordered only while the cluster says that this boot runs; our
//! pod looks once more on the node; an annotation bears the boot, and is withdrawn as soon as another one runs, so that no
//! agent that is late ends that as well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::client::{Fault, Kind};
use crate::clock;
use crate::fleet::{KubeFleet, Outcome};
use crate::node::KubeNode;
use crate::pod::{Container, Plan, Stage, name_of};

/// The annotation that says which boot is to end.
pub const BOOT: &str = "pitcrew/reboot-of";
/// Exit code of our own command: the node is in another boot.
const OTHER_BOOT: i32 = 86;
/// Between two looks at our pod.
const LOOK: Duration = Duration::from_secs(2);
/// What our pod runs, unless it is told otherwise: in a moment, so that its node can tell that it runs.
const COMMAND: &str = "[ \"$(cat /proc/sys/kernel/random/boot_id)\" = \"$PITCREW_BOOT_ID\" ] || exit 86
sleep 3
exec nsenter --target 1 --mount --uts --ipc --net -- sh -c 'systemctl reboot || reboot'";

/// How nodes are rebooted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// `value`: what is written; `None`: the boot that is to end.
    Annotation {
        key: String,
        value: Option<String>,
    },
    Pod(Container),
}

/// The pod that reboots a node. `word`: this reboot, and no other.
fn plan(
    fleet: &KubeFleet,
    namespace: &str,
    container: &Container,
    node: &str,
    boot_id: &str,
    word: &str,
    within: Duration,
) -> Plan {
    let mut container = container.clone();
    if container.command.is_empty() {
        container.command = ["sh", "-c", COMMAND].map(str::to_owned).to_vec();
    }
    container.is_privileged = true;
    let env = [("PITCREW_NODE", node), ("PITCREW_BOOT_ID", boot_id)];
    Plan {
        namespace: namespace.to_owned(),
        name: name_of("reboot", word),
        node: node.to_owned(),
        role: "reboot",
        owner: fleet.owner.clone(),
        container,
        env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
        devices: None,
        is_host: true,
        limit_s: within.as_secs(),
    }
}

impl KubeFleet {
    /// Orders a reboot, if the node is in that boot; given twice with the same `word`, it is ordered once. Gives up after
    /// `within`. `Done` says no more than that it was ordered.
    pub async fn reboot(
        &self,
        how: &How,
        namespace: &str,
        node: &str,
        boot_id: &str,
        word: &str,
        within: Duration,
    ) -> Outcome {
        let until = clock::instant() + within;
        // It was sent, and nobody said what became of it.
        let mut perhaps = false;
        loop {
            let outcome = match self.node(node).await {
                Ok(None) => return Outcome::Refused("its cluster does not know it any more".to_owned()),
                Ok(Some(now)) if now.boot_id != boot_id => {
                    // Whoever brought that about, it is as good as what was ordered: it is looked at, and verified.
                    return match perhaps {
                        false => Outcome::Unknown("it is in another boot already".to_owned()),
                        true => Outcome::Done,
                    };
                }
                Ok(Some(_)) => match how {
                    How::Annotation { key, value } => self.annotate(node, boot_id, key, value.as_deref()).await,
                    How::Pod(container) => {
                        let left = until.saturating_duration_since(clock::instant()).max(LOOK);
                        return self.by_pod(&plan(self, namespace, container, node, boot_id, word, within), left).await;
                    }
                },
                Err(fault) => Err(fault),
            };
            match outcome {
                Ok(()) => return Outcome::Done,
                // The same call again changes nothing that it has changed already; what is forbidden may be allowed meanwhile.
                Err(fault) if fault.kind != Kind::NotFound && clock::instant() + LOOK < until => {
                    perhaps |= fault.kind == Kind::Unknown;
                    tracing::warn!(node, "a node of Kubernetes cannot be told to reboot yet: {fault}");
                }
                Err(fault) if perhaps => return Outcome::Unknown(fault.to_string()),
                Err(fault) => return fault.into(),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn annotate(&self, node: &str, boot_id: &str, key: &str, value: Option<&str>) -> Result<(), Fault> {
        let change = json!({ "metadata": { "annotations": { BOOT: boot_id, key: value.unwrap_or(boot_id) } } });
        self.change(node, |now| (now.boot_id == boot_id).then(|| change.clone())).await
    }

    /// Takes back an order that was carried out, or that is not wanted any more.
    pub async fn withdraw(&self, how: &How, node: &str, boot_id: &str) -> Result<(), Fault> {
        let How::Annotation { key, .. } = how else { return Ok(()) };
        let change = json!({ "metadata": { "annotations": { BOOT: null, key: null } } });
        self.change(node, |now| (ordered(now) == Some(boot_id)).then(|| change.clone())).await
    }

    /// Until it runs, which is as much as can be known here of what it does.
    async fn by_pod(&self, plan: &Plan, within: Duration) -> Outcome {
        let until = clock::instant() + within;
        let mut last = "its pod was not made".to_owned();
        let (mut is_made, mut perhaps) = (false, false);
        while clock::instant() < until {
            if !is_made {
                match plan.create(&self.client).await {
                    Ok(()) => is_made = true,
                    Err(fault) if fault.kind != Kind::NotFound => {
                        tracing::warn!(node = plan.node, "the pod that reboots a node cannot be made yet: {fault}");
                        perhaps |= fault.kind == Kind::Unknown;
                        last = fault.to_string();
                    }
                    Err(fault) if perhaps => return Outcome::Unknown(fault.to_string()),
                    Err(fault) => return fault.into(),
                }
            }
            match plan.find(&self.client).await {
                Ok(Some(pod)) => match pod.stage() {
                    Stage::Ended { code: 0 } | Stage::Running => return Outcome::Done,
                    Stage::Ended { code: OTHER_BOOT } => {
                        return Outcome::Unknown("it is in another boot already".to_owned());
                    }
                    Stage::Ended { code } => {
                        let said = plan.log(&self.client).await.unwrap_or_default();
                        let said: String = said.trim().lines().last().unwrap_or_default().chars().take(300).collect();
                        return Outcome::Unknown(format!(
                            "the pod `{}` ended with exit code {code}: {said}",
                            plan.name
                        ));
                    }
                    Stage::Waiting { why, hopeless: false } => last = why,
                    Stage::Waiting { why, hopeless: true } | Stage::Broken { why } => {
                        // It may be what the reboot itself looks like.
                        let left = plan.delete(&self.client).await;
                        return match left {
                            Ok(()) => Outcome::Unknown(format!("the pod `{}`: {why}", plan.name)),
                            Err(fault) => {
                                Outcome::Unknown(format!("the pod `{}`: {why}; it is there yet: {fault}", plan.name))
                            }
                        };
                    }
                },
                Ok(None) if is_made => return Outcome::Unknown(format!("the pod `{}` is gone", plan.name)),
                Ok(None) => {}
                Err(fault) => last = fault.to_string(),
            }
            tokio::time::sleep(LOOK).await;
        }
        if !is_made && !perhaps {
            return Outcome::Refused(format!("the pod `{}` could not be made: {last}", plan.name));
        }
        let left = plan.delete(&self.client).await.err().map(|fault| format!("; it is there yet: {fault}"));
        Outcome::Unknown(format!("the pod `{}` did not run in time: {last}{}", plan.name, left.unwrap_or_default()))
    }
}

/// Which boot of a node is to end by an annotation of ours.
pub fn ordered(node: &KubeNode) -> Option<&str> {
    node.annotations.get(BOOT).map(String::as_str)
}

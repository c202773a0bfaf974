//! Nodes of Kubernetes: fenced by cordoning them, emptied by evictions, checked by a pod that is pinned to them, rebooted by an
//! annotation or a pod.
//!
//! Invariants: what recovery has fenced is cordoned, also after its node was registered anew; what a person cordoned is never
//! uncordoned by us. An order to reboot is withdrawn as soon as it is carried out, or nobody waits for it any more. A node that
//! only is not ready is never rebooted for that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use pitcrew_core::recovery::{
    Act, Advice, CheckLevel, CheckOutcome, DrainPolicy, Effect, EffectId, Input, NodeState, Rung, Seen, Signal,
    SignalKind,
};
use pitcrew_kubernetes::check::{Checked, run};
use pitcrew_kubernetes::drain::{Evict, Staying};
use pitcrew_kubernetes::fleet::Outcome;
use pitcrew_kubernetes::node::KubeNode;
use pitcrew_kubernetes::pod::{Plan, Pod, ROLE, name_of, sweep};

use super::ecs::read;
use super::perform::{Hands, name};
use crate::clock;
use crate::fleet::KubeSeen;
use crate::kubernetes::{KubeCluster, KubePlace};

/// Between two looks at whether everything is as it should be.
const LOOK: Duration = Duration::from_secs(2);
/// After a call that may pass, and between two rounds of evictions.
const AGAIN: Duration = Duration::from_secs(3);
/// Between two looks for pods of ours that nobody wants any more.
const SWEEP: Duration = Duration::from_secs(30);
/// So long a check waits for GPUs that the node has not got yet: what tells of them begins after the node does.
const DEVICES: Duration = Duration::from_secs(60);

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    if hands.reached.kubernetes.all().is_empty() {
        return;
    }
    hands.desk.is_ready().await;
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut swept: Option<Instant> = None;
    let mut stray: BTreeSet<String> = BTreeSet::new();
    loop {
        let all = hands.reached.fleet.kubes();
        hands.get_to_know_kubes(&all);
        hands.tell_conditions(&all, &mut told);
        hands.keep_kubes(&all, &mut stray).await;
        if swept.is_none_or(|at| clock::instant() >= at + SWEEP) {
            swept = Some(clock::instant());
            hands.sweep_pods().await;
        }
        // Heard while this went round, it waits for the next time.
        let heard = hands.reached.kubernetes.heard().notified();
        let _ = tokio::time::timeout(LOOK, heard).await;
    }
}

impl Hands {
    /// The cluster and the place of a node, if it is one of Kubernetes.
    pub(super) fn kube(&self, node: &str) -> Option<(KubeCluster, KubePlace)> {
        let place = self.reached.fleet.kube(node)?.at;
        Some((self.reached.kubernetes.of(&place.cluster)?.clone(), place))
    }

    /// Performs what such a node has a way of its own for; gives back what it has not.
    pub(super) async fn on_kube(&self, effect: Effect) -> Result<Option<Input>, Effect> {
        let node = match &effect.act {
            Act::Fence { node, .. }
            | Act::Unfence { node }
            | Act::RunCheck { node, .. }
            | Act::Drain { node, .. }
            | Act::Reboot { node, .. }
            | Act::HardReboot { node, .. }
            | Act::Replace { node } => node.clone(),
            Act::ResetGpu { .. }
            | Act::Observe { .. }
            | Act::StopJob { .. }
            | Act::RestartJob { .. }
            | Act::FailJob { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => return Err(effect),
        };
        let Some((cluster, place)) = self.kube(&node) else { return Err(effect) };
        let id = effect.id.clone();
        let word = name(effect.incident, &id);
        if effect.act.is_once()
            && let Err(why) = self.emptied_again(&id, &node).await
        {
            return Ok(Some(Input::EffectFailed { effect: id, why, certain: true }));
        }
        Ok(match effect.act {
            Act::Fence { .. } => {
                self.set_cordoned(&id, &node, true).await;
                Some(Input::Done { effect: id })
            }
            Act::Unfence { .. } => {
                self.set_cordoned(&id, &node, false).await;
                Some(Input::Done { effect: id })
            }
            Act::Drain { .. } => {
                self.empty(&id, &node).await;
                Some(Input::Done { effect: id })
            }
            Act::RunCheck { level, passive, until, .. } => {
                let within = until.duration_since(clock::now());
                let within = if within.is_positive() { within.unsigned_abs() } else { Duration::from_secs(1) };
                let (outcome, evidence) = self.check_kube(&node, &cluster, &place, &word, level, passive, within).await;
                Some(Input::CheckEnded { effect: id, outcome, evidence })
            }
            Act::Reboot { boot_id, .. } => {
                let refused = |why: &str| Outcome::Refused(why.to_owned());
                let how = self.reached.kubernetes.settings().reboot.clone();
                let outcome = match (how, boot_id) {
                    (None, _) => refused("`reboot` of `kubernetes` does not say how"),
                    (_, None) => refused("which boot it runs is not known"),
                    (Some(how), Some(boot_id)) => {
                        let within = (self.config.policy.deadlines.reboot / 2).unsigned_abs();
                        let word = format!("{}/{word}", cluster.fleet.owner);
                        cluster.fleet.reboot(&how, &cluster.namespace, &place.node, &boot_id, &word, within).await
                    }
                };
                Some(match outcome {
                    Outcome::Done => Input::Done { effect: id },
                    Outcome::Refused(why) => Input::EffectFailed { effect: id, why, certain: true },
                    Outcome::Unknown(why) => Input::EffectFailed { effect: id, why, certain: false },
                })
            }
            _ => return Err(effect),
        })
    }

    /// Cordons it or makes it take pods again, as often as it takes.
    async fn set_cordoned(&self, effect: &EffectId, node: &str, cordoned: bool) {
        while self.is_wanted(effect) {
            let Some((cluster, place)) = self.kube(node) else { return };
            let done = match cordoned {
                true => cluster.fleet.cordon(&place.node).await,
                false => cluster.fleet.uncordon(&place.node).await,
            };
            match done {
                Ok(()) => return,
                Err(fault) => {
                    tracing::warn!(node, cordoned, "a node of Kubernetes cannot be cordoned or uncordoned: {fault}")
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Until no pod of others is there any more, or nobody wants to know.
    async fn empty(&self, effect: &EffectId, node: &str) {
        let evict = self.evicts();
        let mut before: Option<Result<Vec<Staying>, String>> = None;
        while self.is_wanted(effect) {
            let Some((cluster, place)) = self.kube(node) else { return };
            let now = match cluster.fleet.drain(&place.node, evict).await {
                Ok(staying) if staying.is_empty() => return,
                Ok(staying) => Ok(staying),
                Err(fault) => Err(fault.to_string()),
            };
            if before.as_ref() != Some(&now) {
                match &now {
                    Ok(staying) => {
                        tracing::info!(node, "pods are there yet: {}", shown(staying));
                    }
                    Err(fault) => tracing::warn!(node, "a node of Kubernetes cannot be emptied: {fault}"),
                }
                before = Some(now);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Pods may have come since it was emptied: a person uncordoned it, or it was registered anew. The error says what is there
    /// when half of the time for a reboot is over.
    async fn emptied_again(&self, effect: &EffectId, node: &str) -> Result<(), String> {
        let until = clock::instant() + (self.config.policy.deadlines.reboot / 2).unsigned_abs();
        loop {
            let Some((cluster, place)) = self.kube(node) else { return Err("it is no node any more".to_owned()) };
            let emptied = async {
                cluster.fleet.cordon(&place.node).await?;
                cluster.fleet.drain(&place.node, self.evicts()).await
            };
            let why = match emptied.await {
                Ok(staying) if staying.is_empty() => return Ok(()),
                Ok(staying) => format!("pods have come since: {}", shown(&staying)),
                Err(fault) => fault.to_string(),
            };
            if clock::instant() >= until || !self.is_wanted(effect) {
                return Err(why);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn evicts(&self) -> Evict {
        match self.config.policy.drain {
            DrainPolicy::Wait => Evict::Kept,
            DrainPolicy::Preempt => Evict::All,
        }
    }

    /// The check as a pod on exactly that node, or, where none is configured, what the cluster says of it. What never ran is no
    /// verdict.
    async fn check_kube(
        &self,
        name: &str,
        cluster: &KubeCluster,
        place: &KubePlace,
        word: &str,
        level: CheckLevel,
        passive: bool,
        within: Duration,
    ) -> (CheckOutcome, String) {
        let until = clock::instant() + within;
        let node = match self.with_devices(name, cluster, place, until).await {
            Ok(node) => node,
            Err(why) => return (CheckOutcome::Infrastructure, why),
        };
        let settings = self.reached.kubernetes.settings();
        let (outcome, words) = match &settings.check {
            None => (CheckOutcome::Pass, "no pod checks it; its cluster holds it for ready".to_owned()),
            Some(container) => {
                // Whoever has GPUs there is not disturbed, and is known to the cluster alone.
                let users = match cluster.fleet.users(&place.node).await {
                    Ok(users) => users,
                    Err(fault) => return (CheckOutcome::Infrastructure, fault.to_string()),
                };
                let passive = passive || !users.is_empty();
                // Beside others, only what puts no load on any device.
                let level = if passive { CheckLevel::Quick } else { level };
                let number = match level {
                    CheckLevel::Quick => "1",
                    CheckLevel::Medium => "2",
                    CheckLevel::Long => "3",
                };
                let passive_word = if passive { "1" } else { "" };
                let mut env = BTreeMap::new();
                env.extend([
                    ("PITCREW_NODE", name),
                    ("PITCREW_CHECK_LEVEL", number),
                    ("PITCREW_CHECK_PASSIVE", passive_word),
                ]);
                if passive {
                    env.insert("NVIDIA_VISIBLE_DEVICES", "all");
                }
                let left = until.saturating_duration_since(clock::instant());
                let plan = Plan {
                    namespace: cluster.namespace.clone(),
                    name: name_of("check", &format!("{}/{word}", cluster.fleet.owner)),
                    node: place.node.clone(),
                    role: "check",
                    owner: cluster.fleet.owner.clone(),
                    container: container.clone(),
                    env: env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                    devices: (!passive && node.gpus > 0).then(|| (cluster.fleet.resource.clone(), node.gpus)),
                    is_host: false,
                    limit_s: left.as_secs(),
                };
                match run(&cluster.fleet.client, &plan, left).await {
                    Checked::Ran { code, log } => {
                        let (outcome, words) = read(code, &log, self.config.signs.tables());
                        (outcome, format!("{words} (pod {})", plan.name))
                    }
                    Checked::NotRun { why } => (CheckOutcome::Infrastructure, why),
                }
            }
        };
        match (&outcome, self.trouble(name, &node)) {
            (CheckOutcome::Pass, Some((advice, why))) => (CheckOutcome::Fail { gpus: Vec::new(), advice }, why),
            _ => (outcome, words),
        }
    }

    /// The node, once it has all of its GPUs, or has had time enough for that; the error says why it cannot be checked.
    async fn with_devices(
        &self,
        name: &str,
        cluster: &KubeCluster,
        place: &KubePlace,
        until: Instant,
    ) -> Result<KubeNode, String> {
        let patience = until.min(clock::instant() + DEVICES);
        loop {
            let why = match cluster.fleet.node(&place.node).await {
                Ok(None) => return Err(format!("the cluster `{}` does not know it any more", place.cluster)),
                Ok(Some(node)) => match &node.unready {
                    None if self.missing(name, &node) == 0 || clock::instant() >= patience => return Ok(node),
                    None => String::new(),
                    Some(why) => format!("its cluster does not hold it for ready: {why}"),
                },
                Err(fault) if fault.may_pass() => fault.to_string(),
                Err(fault) => return Err(fault.to_string()),
            };
            if clock::instant() >= until {
                return Err(why);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How many GPUs it lacks, of those that it has had or says that it has.
    fn missing(&self, name: &str, node: &KubeNode) -> u32 {
        let nodes = self.reached.fleet.nodes();
        let known = nodes.borrow().iter().find(|one| one.node.name == name).map_or(0, |one| one.node.gpus.len());
        let known = u32::try_from(known).unwrap_or(u32::MAX).max(node.gpus_in_all);
        known.saturating_sub(node.gpus)
    }

    /// What its cluster says that no check can say better.
    fn trouble(&self, name: &str, node: &KubeNode) -> Option<(Advice, String)> {
        let missing = self.missing(name, node);
        if missing > 0 {
            let of = missing.saturating_add(node.gpus);
            return Some((Advice::Reboot, format!("{} of {of} GPUs can be had there", node.gpus)));
        }
        let heeded = self.reached.kubernetes.settings().conditions.iter();
        let has_check = self.reached.kubernetes.settings().check.is_some();
        let mut all = heeded.filter_map(|(kind, advice)| Some((*advice, node.condition(kind)?)));
        // Whether a node is well that something is only suspected of, a check says where there is one.
        let (advice, condition) = all.find(|(advice, _)| advice.is_conclusive() || !has_check)?;
        Some((advice, condition.words()))
    }

    /// Asks its cluster how it is.
    pub(super) async fn look_at_kube(&self, name: &str, cluster: &KubeCluster, place: &KubePlace) -> Seen {
        let node = match cluster.fleet.node(&place.node).await {
            Ok(Some(node)) => node,
            Ok(None) => return Seen::default(),
            Err(fault) => {
                tracing::debug!(node = name, "a node of Kubernetes cannot be looked at: {fault}");
                return Seen::default();
            }
        };
        let agent = node.unready.is_none();
        // Of one that is well, the list of nodes tells when GPUs are missing for good.
        let is_well = self.desk.look(|r| r.node(name).is_some_and(|row| row.state == NodeState::Healthy));
        Seen {
            boot_id: Some(node.boot_id).filter(|id| agent && !id.is_empty()),
            agent,
            gpus: (!is_well).then_some(node.gpus),
        }
    }

    /// Boots that recovery has not heard of.
    fn get_to_know_kubes(&self, all: &[(String, KubeSeen)]) {
        for (name, kube) in all.iter().filter(|(_, kube)| kube.is_ready && !kube.boot_id.is_empty()) {
            self.saw(name, &kube.boot_id);
        }
    }

    /// Conditions that are to be heeded, once each time that one comes to be so.
    fn tell_conditions(&self, all: &[(String, KubeSeen)], told: &mut BTreeSet<String>) {
        let heeded = &self.reached.kubernetes.settings().conditions;
        let mut now = BTreeSet::new();
        for (name, kube) in all {
            // One that is not known yet would be told to nobody; it is in the next round.
            let is_known = self.desk.look(|r| r.node(name).is_some());
            for condition in kube.conditions.iter().filter(|_| is_known) {
                let Some(advice) = heeded.get(&condition.kind) else { continue };
                let since = condition.last_transition_time.map(|at| at.to_string()).unwrap_or_default();
                let id = format!("{name}/{}/{}/{since}", condition.kind, kube.boot_id);
                if now.insert(id.clone()) && !told.contains(&id) {
                    self.desk.mention(Input::Signal(Signal {
                        id,
                        node: name.clone(),
                        boot_id: Some(kube.boot_id.clone()),
                        gpu: None,
                        job: None,
                        at: clock::now(),
                        kind: SignalKind::Condition { what: condition.kind.clone() },
                        advice: *advice,
                        evidence: condition.words(),
                    }));
                }
            }
        }
        *told = now;
    }

    /// A node that was registered anew is not cordoned, and an order that was carried out must not be once more.
    /// What bears our mark, and is fenced by nobody in two rounds (`stray`), takes pods again; the mark goes where a person has
    /// uncordoned the node, so that a later cordon is that person's.
    async fn keep_kubes(&self, all: &[(String, KubeSeen)], stray: &mut BTreeSet<String>) {
        for (name, kube) in all {
            let Some((cluster, place)) = self.kube(name) else { continue };
            let is_free = |r: &pitcrew_core::recovery::Recovery| r.node(name).is_none_or(|node| !node.fenced);
            let is_ours = kube.marked_by.as_ref() == Some(&cluster.fleet.owner) && kube.away_since.is_none();
            if !is_ours || !self.desk.look(is_free) {
                stray.remove(name);
            } else if !stray.insert(name.clone()) && self.scheduler.holds_lead() {
                let done = match kube.is_cordoned {
                    true => cluster.fleet.uncordon(&place.node).await,
                    false => cluster.fleet.unmark(&place.node).await,
                };
                if let Err(fault) = done {
                    tracing::warn!(node = name, "a node of Kubernetes cannot be uncordoned: {fault}");
                }
            }
            let is_fenced = |r: &pitcrew_core::recovery::Recovery| r.node(name).is_some_and(|node| node.fenced);
            if kube.away_since.is_none()
                && !kube.is_cordoned
                && self.desk.look(is_fenced)
                && self.scheduler.holds_lead()
            {
                if let Err(fault) = cluster.fleet.cordon(&place.node).await {
                    tracing::warn!(node = name, "a node of Kubernetes cannot be cordoned: {fault}");
                }
                // It may have been let go meanwhile, and that said before.
                if !self.desk.look(is_fenced)
                    && let Err(fault) = cluster.fleet.uncordon(&place.node).await
                {
                    tracing::warn!(node = name, "a node of Kubernetes cannot be uncordoned: {fault}");
                }
            }
            let Some(boot) = &kube.reboot_of else { continue };
            let is_wanted = *boot == kube.boot_id
                && self.desk.look(|r| {
                    r.node(name).is_some_and(|row| row.state == NodeState::Remediating { rung: Rung::Reboot })
                });
            if let (false, true, Some(how)) =
                (is_wanted, self.scheduler.holds_lead(), &self.reached.kubernetes.settings().reboot)
                && let Err(fault) = cluster.fleet.withdraw(how, &place.node, boot).await
            {
                tracing::warn!(node = name, "an order to reboot a node of Kubernetes cannot be withdrawn: {fault}");
            }
        }
    }

    /// Pods of ours that nobody waits for: their server died, or they could not be removed.
    async fn sweep_pods(&self) {
        let settings = self.reached.kubernetes.settings();
        let has_pods =
            settings.check.is_some() || matches!(settings.reboot, Some(pitcrew_kubernetes::reboot::How::Pod(_)));
        for cluster in self.reached.kubernetes.all().iter().filter(|_| has_pods) {
            // One that begins late would reboot a node for which that was given up.
            let is_wanted = |pod: &Pod| {
                let state = self.desk.look(|r| r.node(&pod.spec.node_name).map(|row| row.state));
                match pod.metadata.labels.get(ROLE).map(String::as_str) {
                    Some("reboot") => state == Some(NodeState::Remediating { rung: Rung::Reboot }),
                    _ => matches!(state, Some(NodeState::Checking | NodeState::Verifying)),
                }
            };
            if !self.scheduler.holds_lead() {
                return;
            }
            if let Err(fault) = sweep(&cluster.fleet.client, &cluster.namespace, &cluster.fleet.owner, is_wanted).await
            {
                tracing::warn!(cluster = %cluster.name, "pods of ours that are over cannot be removed: {fault}");
            }
        }
    }
}

/// For people.
fn shown(staying: &[Staying]) -> String {
    staying.iter().map(|one| format!("{} ({})", one.pod, one.why)).collect::<Vec<_>>().join(", ")
}

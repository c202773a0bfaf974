//! Machines of ECS: fenced by draining them, checked by a task that is pinned to them, rebooted by SSM and EC2.
//!
//! Invariants: what recovery has fenced is drained, also after its agent has registered anew; what a person drained is not
//! made active by us: an instance says who drained it. The attribute `status` only tells others; nothing here is decided by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::StreamExt;
use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{
    Act, Advice, CheckLevel, CheckOutcome, Effect, EffectId, Input, NodeRecord, NodeState, Rung, Seen, Signal,
    SignalKind,
};
use pitcrew_ecs::check::{Checked, Plan};
use pitcrew_ecs::client::MachineState;
use pitcrew_ecs::events::Warning;
use pitcrew_ecs::fleet::Outcome;
use pitcrew_health::Tables;
use pitcrew_health::check::{Ended, Expected, read_diag};
use pitcrew_store::StoreError;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::check::{How, judge};
use super::perform::{DRAIN, Hands, ORDER};
use super::reach::{Ran, script};
use crate::clock;
use crate::ecs::{Cluster, Machine};

/// Between two looks at whether everything is as it should be.
const LOOK: Duration = Duration::from_secs(2);
/// Between two questions who a machine is that did not answer.
const ASK: Duration = Duration::from_secs(60);
/// Machines that are asked at the same time.
const AT_ONCE: usize = 16;
/// So long a machine that is nobody's is awaited among the nodes: then it is gone.
const NOTICE: Duration = Duration::from_secs(120);
/// After a call that may pass.
const AGAIN: Duration = Duration::from_secs(3);

/// What `dcgmi diag` ends with when it has found an error.
const FOUND: i32 = 226;

/// Words for how a node is that others, and those from before, know it by.
pub mod status {
    pub const AVAILABLE: &str = "AVAILABLE";
    pub const IN_PROGRESS: &str = "IN_PROGRESS";
    pub const PENDING: &str = "PENDING";
    pub const PENDING_HEALTHCHECK: &str = "PENDING_HEALTHCHECK";
    pub const REBOOTING: &str = "REBOOTING";
    pub const FAILED: &str = "FAILED";
    pub const UNKNOWN: &str = "UNKNOWN";
}

/// The word for a node.
pub fn word(state: Option<NodeState>, standing: &Standing, is_used: bool) -> &'static str {
    match (state, standing) {
        (Some(NodeState::Fenced | NodeState::AwaitingApproval | NodeState::Queued | NodeState::Draining), _) => {
            status::PENDING
        }
        (Some(NodeState::Checking), _) => status::PENDING_HEALTHCHECK,
        (Some(NodeState::Remediating { .. } | NodeState::Verifying), _) => status::REBOOTING,
        (Some(NodeState::OutOfService), _) => status::FAILED,
        (Some(NodeState::Suspected), _) | (Some(NodeState::Healthy) | None, Standing::Down(_)) => status::UNKNOWN,
        (Some(NodeState::Healthy) | None, Standing::Ready | Standing::Cordoned) if is_used => status::IN_PROGRESS,
        (Some(NodeState::Healthy) | None, Standing::Ready | Standing::Cordoned) => status::AVAILABLE,
    }
}

/// Until it is aborted. What takes minutes keeps nothing waiting that has two.
pub(super) async fn watch(hands: Hands) {
    if hands.reached.clusters.all().is_empty() {
        return;
    }
    tokio::join!(hands.hear(), hands.get_to_know(), hands.keep());
}

impl Hands {
    /// What is told of machines that will be taken away. One that nobody knows yet is found when its cluster is looked at.
    async fn hear(&self) {
        let mut warnings = self.reached.clusters.warned().await;
        let mut waiting: Vec<Waiting> = Vec::new();
        loop {
            let heard = match waiting.is_empty() {
                true => Some(warnings.recv().await),
                false => tokio::time::timeout(LOOK, warnings.recv()).await.ok(),
            };
            match heard {
                Some(Some(Warning { id, action, heard, taken })) => {
                    waiting.push(Waiting { id, action, until: heard.into_std() + NOTICE, taken: Some(taken) });
                }
                Some(None) => return,
                None => {}
            }
            for warning in std::mem::take(&mut waiting) {
                waiting.extend(self.warned(warning).await.filter(|warning| clock::instant() < warning.until));
            }
        }
    }

    /// Gives back what is to be tried again. What cannot be written here stays in its queue, for whoever leads.
    async fn warned(&self, mut warning: Waiting) -> Option<Waiting> {
        let is_ours = self.reached.fleet.instance(&warning.id).is_some();
        match self.interruption(&warning.id, &warning.action) {
            Some(signal) => match self.desk.tell(Input::Signal(signal)).await {
                Ok(()) => {
                    // Its message is deleted now; if nobody does, it is told once more, and known.
                    warning.taken.map(|taken| taken.send(()));
                    None
                }
                Err(_) => warning.taken.is_none().then_some(warning),
            },
            None => {
                // The queue tells of all machines of the account.
                if !is_ours && let Some(taken) = warning.taken.take() {
                    let _ = taken.send(());
                }
                Some(warning)
            }
        }
    }

    /// Drains again what is fenced, and tells others how each machine is.
    async fn keep(&self) {
        loop {
            self.keep_fenced().await;
            self.mirror().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The cluster and the machine of a node, if it is one of ECS.
    pub(super) fn machine(&self, node: &str) -> Option<(Cluster, Machine)> {
        let machine = self.reached.fleet.instance(node)?.at;
        Some((self.reached.clusters.of(&machine)?.clone(), machine))
    }

    /// Performs what such a machine has a way of its own for; gives back what it has not.
    pub(super) async fn on_machine(&self, effect: Effect) -> Result<Option<Input>, Effect> {
        let node = match &effect.act {
            Act::Fence { node, .. }
            | Act::Unfence { node }
            | Act::RunCheck { node, .. }
            | Act::Drain { node, .. }
            | Act::ResetGpu { node, .. }
            | Act::Reboot { node, .. }
            | Act::HardReboot { node, .. }
            | Act::Replace { node } => node.clone(),
            Act::Observe { .. }
            | Act::StopJob { .. }
            | Act::RestartJob { .. }
            | Act::FailJob { .. }
            | Act::Notify { .. }
            | Act::Cancel { .. } => return Err(effect),
        };
        let Some((cluster, machine)) = self.machine(&node) else { return Err(effect) };
        let commands = &self.config.commands;
        let id = effect.id.clone();
        Ok(match effect.act {
            Act::Fence { .. } => {
                self.set_drained(&id, &node, true, status::PENDING).await;
                Some(Input::Done { effect: id })
            }
            Act::Unfence { .. } => {
                self.set_drained(&id, &node, false, status::AVAILABLE).await;
                Some(Input::Done { effect: id })
            }
            Act::RunCheck { level, passive, until, .. }
                if cluster.check.is_some() && !passive && commands.check.is_none() =>
            {
                let within = until.duration_since(clock::now());
                let within = if within.is_positive() { within.unsigned_abs() } else { Duration::from_secs(1) };
                let (outcome, evidence) = self.check_task(&id, &cluster, &machine, level, within).await;
                Some(Input::CheckEnded { effect: id, outcome, evidence })
            }
            // By SSM; of the machine as a whole, since nobody tells here which number a device has.
            Act::RunCheck { level, passive, until, .. } => {
                let (outcome, evidence) = self.check(&node, &BTreeSet::new(), level, passive, until).await;
                Some(Input::CheckEnded { effect: id, outcome, evidence })
            }
            Act::Drain { gpus, .. } => {
                self.drained(&node, &gpus).await;
                self.left_alone(&id, &node, &gpus).await;
                Some(Input::Done { effect: id })
            }
            Act::ResetGpu { gpus, .. } if commands.reset_gpu.is_none() => {
                self.end_checks(&node).await;
                let gpus: Vec<String> = gpus.into_iter().collect();
                Some(said(id, cluster.fleet.reset_gpus(&machine.id, &gpus).await))
            }
            Act::Reboot { boot_id, .. } if commands.reboot.is_none() && commands.boot_id.is_none() => {
                Some(said(id, cluster.fleet.reboot(&machine.id, boot_id.as_deref()).await))
            }
            Act::HardReboot { boot_id, .. } if commands.hard_reboot.is_none() => {
                if self.is_other_boot(&node, boot_id.as_deref()).await {
                    let why = "it is in another boot already".to_owned();
                    // A look shows it, and a check what it needs.
                    return Ok(Some(Input::EffectFailed { effect: id, why, certain: false }));
                }
                Some(said(id, cluster.fleet.hard_reboot(&machine.id).await))
            }
            Act::Replace { .. } if commands.replace.is_none() && self.reached.clusters.may_stop_start() => {
                let within = self.config.policy.deadlines.replace.unsigned_abs();
                Some(said(id, cluster.fleet.stop_start(&machine.id, within).await))
            }
            _ => return Err(effect),
        })
    }

    /// Whether it is known to have been started anew since.
    async fn is_other_boot(&self, node: &str, boot_id: Option<&str>) -> bool {
        let Some(meant) = boot_id else { return false };
        self.observe(node).await.boot_id.is_some_and(|now| now != meant)
    }

    /// Whether this is to be done yet, and by this server.
    pub(super) fn is_wanted(&self, effect: &EffectId) -> bool {
        self.desk.look(|recovery| recovery.is_open(effect)) && self.scheduler.holds_lead()
    }

    /// Drains its container instance or makes it active, as often as it takes; whoever registered anew is another one.
    async fn set_drained(&self, effect: &EffectId, node: &str, drained: bool, status: &str) {
        while self.is_wanted(effect) {
            let Some((cluster, machine)) = self.machine(node) else { return };
            let gate = self.reached.clusters.gate(&cluster);
            let done = async {
                let owner = self.owner().await.map_err(|error| error.to_string())?;
                let _changing = gate.changing().await;
                let done = match drained {
                    true => cluster.fleet.fence(&machine.instance, &owner, Some(status)).await,
                    false => cluster.fleet.unfence(&machine.instance, &owner, status).await,
                };
                done.map_err(|fault| fault.to_string())
            };
            match done.await {
                Ok(()) => return,
                Err(why) => {
                    tracing::warn!(node, drained, "its container instance cannot be drained or made active: {why}")
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// As whom instances are drained here: the same of all servers of a store, since another one may lead when they are to be active.
    async fn owner(&self) -> Result<String, StoreError> {
        self.store.setting_or_insert("ecs.owner", &uuid::Uuid::now_v7().to_string()).await
    }

    /// Until no task of others runs there either.
    async fn left_alone(&self, effect: &EffectId, node: &str, gpus: &BTreeSet<String>) {
        while self.is_wanted(effect) {
            let Some((cluster, machine)) = self.machine(node) else { return };
            match cluster.fleet.tasks_with(&machine.instance, gpus).await {
                Ok(tasks) if tasks.is_empty() => return,
                Ok(_) => {}
                Err(fault) => tracing::warn!(node, "the tasks of a machine cannot be listed: {fault}"),
            }
            tokio::time::sleep(DRAIN).await;
        }
    }

    /// The check as a task on exactly that instance. What never ran is no verdict.
    async fn check_task(
        &self,
        effect: &EffectId,
        cluster: &Cluster,
        machine: &Machine,
        level: CheckLevel,
        within: Duration,
    ) -> (CheckOutcome, String) {
        let definition = cluster.check.as_deref().unwrap_or_default();
        let word = hex(&Sha256::digest(format!("{}/{effect}", self.reached.clusters.instance())));
        let mut plan = Plan::new(&cluster.name, definition, &machine.instance, &word[..20]);
        plan.limit = within;
        plan.look = cluster.fleet.look;
        let is_fenced = self.desk.look(|recovery| recovery.node(&machine.id).is_some_and(|node| node.fenced));
        let number = match level {
            CheckLevel::Quick => "1",
            CheckLevel::Medium => "2",
            CheckLevel::Long => "3",
        };
        plan.env.insert("PITCREW_CHECK_LEVEL".to_owned(), number.to_owned());
        plan.env.insert("PITCREW_NODE".to_owned(), machine.id.clone());
        let client = &cluster.fleet.client;
        let checked = match is_fenced {
            true => pitcrew_ecs::check::run_drained(client, &plan, &self.reached.clusters.gate(cluster)).await,
            false => pitcrew_ecs::check::run(client, &plan).await,
        };
        match checked {
            Checked::Ran { code, log, task } => {
                let (outcome, words) = read(code, &log, self.config.signs.tables());
                (outcome, format!("{words} (task {})", task.rsplit('/').next().unwrap_or_default()))
            }
            Checked::NotRun { why, .. } => (CheckOutcome::Infrastructure, why),
        }
    }

    /// Asks a machine who it is, and ECS what it has.
    pub(super) async fn look_at(&self, node: &str, cluster: &Cluster, machine: &Machine) -> Seen {
        let look = match cluster.fleet.look(&machine.id).await {
            Ok(look) => look,
            Err(fault) => {
                tracing::debug!(node, "a machine cannot be looked at: {fault}");
                return Seen::default();
            }
        };
        if look.state == Some(MachineState::Stopped) && self.is_to_start(node) {
            tracing::info!(node, "it was stopped to be started, and its server ended before that");
            if let Err(fault) = cluster.fleet.start(&machine.id).await {
                tracing::warn!(node, "it is stopped, and does not start: {fault}");
            }
        }
        let mut seen = Seen { boot_id: look.boot_id, agent: look.agent, gpus: look.gpus };
        if let Some(own) = &self.config.commands.boot_id {
            let ran = self.reached.run(node, &script(&[("PITCREW_NODE", node.to_owned())], own), ORDER).await;
            let first = |ran: Ran| ran.stdout.lines().next().map(|line| line.trim().to_owned());
            seen.boot_id = ran.ok().filter(Ran::is_success).and_then(first).filter(|id| !id.is_empty());
        }
        seen
    }

    /// It was ordered to be stopped and started, and nobody is at that any more: whoever was may have ended between the two.
    fn is_to_start(&self, node: &str) -> bool {
        let is_left = |row: &NodeRecord| {
            row.state == NodeState::Remediating { rung: Rung::Replace }
                && !row.open.iter().any(|effect| effect.act.is_once())
        };
        let is_ours = self.config.commands.replace.is_none() && self.reached.clusters.may_stop_start();
        is_ours && self.scheduler.holds_lead() && self.desk.look(|recovery| recovery.node(node).is_some_and(is_left))
    }

    /// Asks machines that recovery has never heard of which boot this is.
    async fn get_to_know(&self) {
        let mut asked: BTreeMap<String, Instant> = BTreeMap::new();
        loop {
            let now = clock::instant();
            let is_wanted = |name: &String| {
                let is_new = self.desk.look(|recovery| recovery.node(name).is_some_and(|node| node.boot_id.is_none()));
                is_new && asked.get(name).is_none_or(|at| now >= *at + ASK)
            };
            let there = self.reached.fleet.instances().into_iter().filter(|(_, instance)| instance.agent);
            let new: Vec<String> = there.map(|(name, _)| name).filter(is_wanted).collect();
            asked.extend(new.iter().map(|name| (name.clone(), now)));
            futures::stream::iter(new)
                .for_each_concurrent(AT_ONCE, |node| async move {
                    let seen = self.observe(&node).await;
                    self.desk.mention(Input::Observed { node, seen });
                })
                .await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An agent that registers anew after a reboot is active, whatever its instance was before.
    async fn keep_fenced(&self) {
        for (name, instance) in self.reached.fleet.instances() {
            let is_wanted = |recovery: &pitcrew_core::recovery::Recovery| {
                // A check may have to make it active for a moment, and drains it again by itself.
                recovery.node(&name).is_some_and(|node| node.fenced && node.state != NodeState::Checking)
            };
            if instance.is_draining || !instance.agent || !self.desk.look(is_wanted) {
                continue;
            }
            let Some((cluster, machine)) = self.machine(&name) else { continue };
            // Asked again where nobody makes it active meanwhile: what is said here must not come after that.
            let gate = self.reached.clusters.gate(&cluster);
            let owner = match self.owner().await {
                Ok(owner) => owner,
                Err(error) => return tracing::warn!(%error, "the settings cannot be read"),
            };
            let _changing = gate.changing().await;
            if !self.desk.look(is_wanted) {
                continue;
            }
            if let Err(fault) = cluster.fleet.fence(&machine.instance, &owner, None).await {
                tracing::warn!(node = name, "its container instance cannot be drained: {fault}");
            }
        }
    }

    /// Writes how each is where others look for it, where that differs.
    async fn mirror(&self) {
        let instances = self.reached.fleet.instances();
        if instances.is_empty() {
            return;
        }
        let nodes = self.reached.fleet.nodes().borrow().clone();
        let standings: BTreeMap<&str, &Standing> =
            nodes.iter().map(|one| (one.node.name.as_str(), &one.node.standing)).collect();
        let used = match self.store.used_nodes().await {
            Ok(used) => used,
            Err(error) => return tracing::warn!(%error, "what runs on nodes cannot be read"),
        };
        for (name, instance) in instances {
            let Some(standing) = standings.get(name.as_str()) else { continue };
            let known = self.desk.look(|recovery| {
                recovery.may_act(&name).then(|| recovery.node(&name).map(|node| node.state)).flatten()
            });
            // Where recovery only watches, it touches nothing.
            let Some(state) = known else { continue };
            let imported = self.imported(&name).filter(|_| state == NodeState::Healthy);
            let word = imported.unwrap_or_else(|| word(Some(state), standing, used.contains(&name)).to_owned());
            if instance.status.as_ref() == Some(&word) {
                continue;
            }
            let Some((cluster, machine)) = self.machine(&name) else { continue };
            match cluster.fleet.mirror(&machine.instance, &word).await {
                Ok(()) => self.reached.fleet.mirrored(&name, &word),
                Err(fault) => tracing::warn!(node = name, "its `status` cannot be written: {fault}"),
            }
        }
    }

    /// What it was imported as, for as long as it is cordoned for that.
    fn imported(&self, node: &str) -> Option<String> {
        let view = self.reached.fleet.view(node).filter(|view| view.is_cordoned)?;
        view.labels.get(pitcrew_store::IMPORTED_STATUS).cloned()
    }

    /// Its provider takes it away, usually in two minutes. `None`: it is no node that recovery knows.
    fn interruption(&self, machine: &str, action: &str) -> Option<Signal> {
        let node = self.reached.fleet.instance(machine)?;
        let boot_id = self.desk.look(|recovery| recovery.node(machine).map(|node| node.boot_id.clone()))?;
        Some(Signal {
            // Once for each boot, however often it is told.
            id: format!("{machine}/spot/{}", boot_id.as_deref().unwrap_or("unknown")),
            node: machine.to_owned(),
            boot_id,
            gpu: None,
            job: None,
            at: clock::now(),
            kind: SignalKind::SpotInterruption,
            advice: Advice::Check,
            evidence: format!("EC2 takes this Spot machine of `{}` away: {action}", node.at.cluster),
        })
    }
}

/// A warning that is not written down yet.
struct Waiting {
    id: String,
    action: String,
    /// By then the machine is gone.
    until: Instant,
    /// `None`: it is taken out of the queue.
    taken: Option<oneshot::Sender<()>>,
}

/// What a check's end means: by the codes of `dcgmi`, or those of a wrapper, which has 0 and 1.
pub(super) fn read(code: i32, log: &str, tables: &Tables) -> (CheckOutcome, String) {
    if code == FOUND && log.trim().is_empty() {
        // Its log may lie where nobody can read it. That it found something is what it ended with.
        let outcome = CheckOutcome::Fail { gpus: Vec::new(), advice: Advice::Check };
        return (outcome, "`dcgmi` ended with 226: it found an error; what it wrote cannot be read".to_owned());
    }
    // ECS does not tell the numbers of devices, by which DCGM calls them: what is broken is broken of the machine.
    let expected = Expected::default();
    if matches!(code, 0 | 1 | 75 | 126 | 127) {
        let ran = Ran { code: Some(code), stdout: log.to_owned(), stderr: String::new() };
        return judge(Ok(ran), &How::Own, &expected, tables);
    }
    let report = read_diag(&Ended::Code(code), log.as_bytes(), &expected, tables);
    (report.outcome(), report.in_words())
}

fn said(effect: EffectId, outcome: Outcome) -> Input {
    match outcome {
        Outcome::Done => Input::Done { effect },
        Outcome::Refused(why) => Input::EffectFailed { effect, why, certain: true },
        Outcome::Unknown(why) => Input::EffectFailed { effect, why, certain: false },
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use pitcrew_core::recovery::Rung;

    use super::*;

    /// Weakness 5: an end of the check is one of four answers, and only two of them are about the GPUs.
    #[test]
    fn the_end_of_a_check_is_read_by_its_code_and_its_log() {
        let of = |code, log: &str| read(code, log, Tables::usual()).0;
        assert_eq!(of(0, "all is well\n"), CheckOutcome::Pass);
        assert!(matches!(of(1, "bad\n"), CheckOutcome::Fail { .. }));
        assert_eq!(of(217, ""), CheckOutcome::Infrastructure, "another diagnosis is under way");
        assert_eq!(of(137, ""), CheckOutcome::Infrastructure, "it was killed");
        assert!(matches!(of(226, ""), CheckOutcome::Fail { .. }), "it found an error");
        assert_eq!(of(127, ""), CheckOutcome::Infrastructure);
    }

    #[test]
    fn a_node_is_called_as_others_know_it() {
        let of = |state, is_used| word(Some(state), &Standing::Ready, is_used);
        assert_eq!((of(NodeState::Healthy, false), of(NodeState::Healthy, true)), ("AVAILABLE", "IN_PROGRESS"));
        assert_eq!(of(NodeState::Checking, true), "PENDING_HEALTHCHECK");
        assert_eq!(of(NodeState::Remediating { rung: Rung::Reboot }, false), "REBOOTING");
        assert_eq!(word(Some(NodeState::Healthy), &Standing::Down("x".into()), false), "UNKNOWN");
    }
}

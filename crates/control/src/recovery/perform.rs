//! Does what recovery wants to nodes, and tells it what came of that.
//!
//! Invariant: whatever must not happen twice is noted as begun, and that is written, before it begins; and right before that it is
//! looked at once more whether it may be done there, since somebody may have said otherwise while nobody led.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{
    Act, Advice, CheckLevel, CheckOutcome, DrainPolicy, Effect, EffectId, IncidentId, Input, NodeRecord, NodeState,
    Rung, Seen,
};
use pitcrew_exec::gpu::Smi;
use pitcrew_exec::limited::was_ended;
use pitcrew_exec::worker::errands;
use pitcrew_store::Store;
use tokio::task::JoinHandle;

use super::config::RecoveryConfig;
use super::reach::{NotRun, Ran, Reached, script};
use super::workers::{self, Order};
use super::{Desk, check, ecs, facts, kubernetes, look, signals, spot, wish};
use crate::clock;
use crate::fleet::Reach;
use crate::metrics::Metrics;
use crate::scheduler::Scheduler;

/// For a command that orders a repair; the repair itself has its own deadline.
pub(super) const ORDER: Duration = Duration::from_secs(60);
/// For asking who a node is.
const LOOK: Duration = Duration::from_secs(20);
/// Between two looks at a node that comes up anew.
const SOON: Duration = Duration::from_millis(500);
/// Between two looks at what still runs on a node.
pub(super) const DRAIN: Duration = Duration::from_secs(1);
/// Between two attempts to give an order that certainly reached nobody.
const ORDER_AGAIN: Duration = Duration::from_secs(5);
/// How soon what somebody wishes about an incident is noticed.
const WISHES: Duration = Duration::from_secs(2);

/// GPUs of the machine of a worker.
const COUNT: &str = "nvidia-smi --query-gpu=index --format=csv,noheader | grep -c .";
const DEVICES: &str = "nvidia-smi --query-gpu=index,uuid --format=csv,noheader";
const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";
const REBOOT: &str = "{ [ \"$(id -u)\" = 0 ] || sudo=\"sudo -n\"; }; $sudo systemctl reboot || $sudo reboot";
const RESET: &str = "{ [ \"$(id -u)\" = 0 ] || sudo=\"sudo -n\"; }
[ -n \"$PITCREW_GPUS\" ] || exec $sudo nvidia-smi --gpu-reset
for gpu in $PITCREW_GPUS; do $sudo nvidia-smi --gpu-reset -i \"$gpu\" || exit 1; done";

/// What doing needs. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    pub desk: Desk,
    pub reached: Reached,
    pub scheduler: Scheduler,
    pub store: Store,
    pub config: Arc<RecoveryConfig>,
    /// Who is told what.
    pub notify: Arc<crate::notify::config::Config>,
    pub metrics: Metrics,
}

impl Hands {
    /// Watches nodes and their logs, until they are aborted.
    pub(super) fn watch(&self) -> Vec<JoinHandle<()>> {
        let wishes = self.clone();
        vec![
            tokio::spawn(facts::watch(self.clone())),
            tokio::spawn(signals::watch(self.clone())),
            tokio::spawn(look::watch(self.clone())),
            tokio::spawn(self.clone().ask_after_jobs()),
            tokio::spawn(ecs::watch(self.clone())),
            tokio::spawn(kubernetes::watch(self.clone())),
            tokio::spawn(workers::watch(self.clone())),
            tokio::spawn(spot::watch(self.clone())),
            tokio::spawn(async move { wishes.grant().await }),
        ]
    }

    /// What people wish about incidents, soon after they do.
    async fn grant(&self) {
        loop {
            let ids: Vec<IncidentId> = self.desk.look(|recovery| {
                let out = |node: &NodeRecord| node.state == NodeState::OutOfService;
                let open = recovery.incidents().filter(|incident| incident.is_open()).map(|incident| incident.id);
                open.chain(recovery.nodes().filter(|node| out(node)).filter_map(|node| node.incident)).collect()
            });
            if let Err(error) = wish::grant(&self.store, &self.desk, &ids).await {
                tracing::warn!(%error, "what people wish about incidents cannot be read");
            }
            tokio::select! {
                () = tokio::time::sleep(WISHES) => {}
                () = self.desk.0.wished.notified() => {}
            }
        }
    }

    pub(super) async fn perform(self: Arc<Self>, effect: Effect) {
        let id = effect.id.clone();
        tracing::info!(effect = %id, act = effect.act.name(), "recovery");
        if effect.act.is_once() {
            // Another server may lead by now, and this one has not heard of it: what is open is then that one's.
            if !self.scheduler.holds_lead() {
                return;
            }
            if let EffectId::Node { node, .. } = &id
                && let Some(facts) = self.facts_now(node)
                && self.desk.tell(facts).await.is_err()
            {
                return;
            }
            // Not written, so not done: whoever leads next decides anew. Nothing is begun that is not wanted any more.
            if self.desk.tell(Input::Begun { effect: id.clone() }).await.is_err() {
                return;
            }
            if !self.desk.look(|recovery| recovery.is_open(&id)) || !self.scheduler.holds_lead() {
                return;
            }
        }
        let answer = self.answer(effect).await;
        if let Some(answer) = answer {
            self.desk.mention(answer);
        }
    }

    /// What came of it; `None`: it is told otherwise, or not at all.
    async fn answer(&self, effect: Effect) -> Option<Input> {
        // A machine of ECS has ways of its own for most of it.
        let effect = match self.on_machine(effect).await {
            Ok(answer) => return answer,
            Err(effect) => effect,
        };
        let effect = match self.on_kube(effect).await {
            Ok(answer) => return answer,
            Err(effect) => effect,
        };
        let id = effect.id;
        let commands = &self.config.commands;
        Some(match effect.act {
            // The list of nodes that are fenced was given out when this was written.
            Act::Unfence { .. } | Act::Cancel { .. } => Input::Done { effect: id },
            Act::Fence { .. } => {
                // Until the scheduler heeds it, work may still be placed there.
                self.scheduler.settled().await.ok()?;
                Input::Done { effect: id }
            }
            Act::RunCheck { node, gpus, level, passive, until } => {
                let (outcome, evidence) = self.check(&node, &gpus, level, passive, until).await;
                Input::CheckEnded { effect: id, outcome, evidence }
            }
            Act::Drain { node, gpus } => {
                self.scheduler.settled().await.ok()?;
                if gpus.is_empty() && self.config.policy.drain == DrainPolicy::Preempt {
                    self.scheduler.make_room(&node, "its node needs a repair").await.ok()?;
                }
                self.drained(&node, &gpus).await;
                Input::Done { effect: id }
            }
            Act::ResetGpu { node, gpus } => {
                self.end_checks(&node).await;
                let gpus: Vec<&str> = gpus.iter().map(String::as_str).collect();
                let body = commands.reset_gpu.as_deref().unwrap_or(RESET);
                let script = script(&[("PITCREW_NODE", node.clone()), ("PITCREW_GPUS", gpus.join(" "))], body);
                let within = self.config.policy.deadlines.reset_gpu.unsigned_abs();
                let order = Order { kind: errands::RESET_GPU, id: name(effect.incident, &id) };
                let ran = self
                    .insist(&id, Rung::ResetGpu, || self.reached.order(&node, order.clone(), &script, within))
                    .await;
                reset(id, ran)
            }
            Act::Reboot { node, boot_id } => {
                let body = commands.reboot.as_deref().unwrap_or(REBOOT);
                let script = self.on_boot(&node, boot_id, body);
                let order = Order { kind: errands::REBOOT, id: name(effect.incident, &id) };
                let ran =
                    self.insist(&id, Rung::Reboot, || self.reached.order(&node, order.clone(), &script, ORDER)).await;
                match ran {
                    // The order was given, and that ends the connection; whether it is followed, the node shows.
                    Err(NotRun { broke: true, .. }) => Input::Done { effect: id },
                    ran => ordered(id, ran),
                }
            }
            Act::HardReboot { node, boot_id } => {
                let body = commands.hard_reboot.as_deref()?;
                let env = [("PITCREW_NODE", node), ("PITCREW_BOOT_ID", boot_id.unwrap_or_default())];
                let script = script(&env, body);
                let ran = self.insist(&id, Rung::HardReboot, || self.reached.run_here(&script, ORDER)).await;
                ordered(id, ran)
            }
            Act::Replace { node } => {
                let body = commands.replace.as_deref()?;
                let within = self.config.policy.deadlines.replace.unsigned_abs();
                let script = script(&[("PITCREW_NODE", node)], body);
                let ran = self.insist(&id, Rung::Replace, || self.reached.run_here(&script, within)).await;
                ordered(id, ran)
            }
            Act::Observe { node } => {
                let seen = self.observe(&node).await;
                if self.comes_up(&node) {
                    tokio::spawn(self.clone().catch(node.clone()));
                }
                Input::Observed { node, seen }
            }
            act @ (Act::StopJob { .. } | Act::RestartJob { .. } | Act::FailJob { .. }) => {
                return self.of_job(id, act).await;
            }
            Act::Notify { notice } => return self.tell(id, effect.incident, notice).await,
        })
    }

    /// A script that does nothing on another boot than the one that was meant.
    pub(super) fn on_boot(&self, node: &str, boot_id: Option<String>, body: &str) -> String {
        let look = self.config.commands.boot_id.as_deref().unwrap_or(BOOT_ID);
        let guard = "[ -z \"$PITCREW_BOOT_ID\" ] || [ \"$(BOOT)\" = \"$PITCREW_BOOT_ID\" ] || \
             { echo 'the node has been started anew since' >&2; exit 86; }\n";
        let body = format!("{}{body}", guard.replace("BOOT)", &format!("{look})")));
        script(&[("PITCREW_NODE", node.to_owned()), ("PITCREW_BOOT_ID", boot_id.unwrap_or_default())], &body)
    }

    /// Gives an order. A connection that cannot be made now says nothing of the repair: while it is certain that nothing
    /// has happened it is tried again, for half of the time that the rung has, so that it is not used up by that.
    async fn insist<F>(&self, id: &EffectId, rung: Rung, give: impl Fn() -> F) -> Result<Ran, NotRun>
    where
        F: Future<Output = Result<Ran, NotRun>>,
    {
        let deadlines = &self.config.policy.deadlines;
        let within = match rung {
            Rung::ResetGpu => deadlines.reset_gpu,
            Rung::Reboot => deadlines.reboot,
            Rung::HardReboot => deadlines.hard_reboot,
            Rung::Replace => deadlines.replace,
        };
        let began = clock::now();
        loop {
            let ran = give().await;
            let Err(NotRun { why, certain: true, .. }) = &ran else { return ran };
            let is_wanted = self.desk.look(|recovery| recovery.is_open(id)) && self.scheduler.holds_lead();
            if !is_wanted || clock::now().duration_since(began) >= within / 2 {
                return ran;
            }
            tracing::warn!(effect = %id, "a repair cannot be ordered yet: {why}");
            tokio::time::sleep(ORDER_AGAIN).await;
        }
    }

    pub(super) async fn check(
        &self,
        node: &str,
        gpus: &BTreeSet<String>,
        level: CheckLevel,
        passive: bool,
        until: Timestamp,
    ) -> (CheckOutcome, String) {
        let within = until.duration_since(clock::now());
        let within = if within.is_positive() { within.unsigned_abs() } else { Duration::from_secs(1) };
        let own = self.config.commands.check.as_deref();
        let name = match self.name_of_checks(node).await {
            Ok(name) => name,
            Err(error) => return (CheckOutcome::Infrastructure, error.to_string()),
        };
        let mut devices = self.reached.fleet.devices(node);
        let is_known = |uuid: &String| devices.iter().any(|(_, there)| there == uuid);
        if devices.is_empty() || !gpus.iter().all(is_known) {
            // As after a reboot: the fleet has not asked it since. What cannot be named would be checked by halves.
            devices = match self.devices_now(node).await {
                Some(now) => now,
                None if own.is_some() || self.calls(node) == Some(true) => devices,
                None => return (CheckOutcome::Infrastructure, "its GPUs cannot be asked for".to_owned()),
            };
        }
        let most = u32::try_from(within.as_secs()).unwrap_or(u32::MAX);
        let (how, body, expected) = check::How::of(own, level, passive, gpus, devices, most);
        let gpus: Vec<&str> = gpus.iter().map(String::as_str).collect();
        let number = match level {
            CheckLevel::Quick => "1",
            CheckLevel::Medium => "2",
            CheckLevel::Long => "3",
        };
        let env = [
            ("PITCREW_NODE", node.to_owned()),
            ("PITCREW_GPUS", gpus.join(" ")),
            ("PITCREW_CHECK_LEVEL", number.to_owned()),
            ("PITCREW_CHECK_PASSIVE", if passive { "1" } else { "" }.to_owned()),
        ];
        let ran = self.reached.run(node, &check::named(&name, &env, &body), within).await;
        // Whoever was cut off in the middle has not shown that the node is sick.
        let ran = ran.map_err(|not| NotRun { certain: not.certain || not.broke, ..not });
        let (outcome, words) = check::judge(ran, &how, &expected, self.config.signs.tables());
        match (&outcome, self.still_gone(node).await) {
            (CheckOutcome::Pass, gone) if !gone.is_empty() => {
                let words = format!("{} is not there any more; what is left: {words}", gone.join(", "));
                (CheckOutcome::Fail { gpus: gone, advice: Advice::Reboot }, words)
            }
            (CheckOutcome::Pass, _) => match self.still_fallen(node).await {
                Some((gpus, why)) => (CheckOutcome::Fail { gpus, advice: Advice::ResetGpu }, why),
                None => (outcome, words),
            },
            _ => (outcome, words),
        }
    }

    /// Devices that the node had, and that it lacks now: what is left may be well.
    async fn still_gone(&self, node: &str) -> Vec<String> {
        let gone = self.reached.fleet.lost(node).into_iter().filter(|lost| lost.since.is_some());
        let gone: Vec<String> = gone.map(|lost| lost.id).collect();
        if gone.is_empty() {
            return gone;
        }
        // Where nobody tells, a check that passed without it knows no better.
        let Some(now) = self.devices_now(node).await else { return Vec::new() };
        gone.into_iter().filter(|id| !now.iter().any(|(_, there)| there == id)).collect()
    }

    /// The devices that a node has at this moment, by their numbers; `None`: it does not tell.
    async fn devices_now(&self, node: &str) -> Option<Vec<(u32, String)>> {
        let reach = self.reached.fleet.nodes().borrow().iter().find(|one| one.node.name == node)?.reach.clone();
        match reach {
            Reach::Local | Reach::Connection(_) => {
                let config = self.reached.fleet.config_of(node)?;
                let probe = self.reached.probe(&config).await.filter(|probe| probe.smi == Smi::Answered)?;
                Some(probe.gpus.into_iter().map(|gpu| (gpu.index, gpu.uuid)).collect())
            }
            Reach::Worker(_) => {
                let ran = self.reached.run(node, DEVICES, LOOK).await.ok().filter(Ran::is_success)?;
                let read = |line: &str| {
                    let (index, uuid) = line.split_once(',')?;
                    Some((index.trim().parse().ok()?, uuid.trim().to_owned()))
                };
                ran.stdout.lines().map(read).collect()
            }
            // Its check is a task, or a pod, that has the devices of the machine.
            Reach::Ecs(_) | Reach::Kubernetes(_) => None,
        }
    }

    /// Until nothing runs there any more, or nobody wants to know.
    pub(super) async fn drained(&self, node: &str, gpus: &BTreeSet<String>) {
        let is_drain = |effect: &Effect| matches!(effect.act, Act::Drain { .. });
        let is_wanted = || self.desk.look(|r| r.node(node).is_some_and(|row| row.open.iter().any(is_drain)));
        while is_wanted() {
            match self.store.live_attempts_on(node).await {
                Ok(live) => {
                    let is_there = |attempt: &pitcrew_store::RunAttempt| {
                        gpus.is_empty() || attempt.attempt.gpus.iter().any(|gpu| gpus.contains(gpu))
                    };
                    if !live.iter().any(is_there) {
                        return;
                    }
                }
                Err(error) => tracing::warn!(%error, "what runs on a node cannot be read"),
            }
            tokio::time::sleep(DRAIN).await;
        }
    }

    /// Whether a worker is heard of that does nothing but tasks; `None`: it is none, and can be asked.
    fn calls(&self, node: &str) -> Option<bool> {
        if self.reached.fleet.errands_of(node).iter().any(|does| does == errands::ASK) {
            return None;
        }
        let nodes = self.reached.fleet.nodes();
        let list = nodes.borrow();
        let known = list.iter().find(|known| known.node.name == node)?;
        let is_up = !matches!(known.node.standing, Standing::Down(_));
        matches!(known.reach, Reach::Worker(_)).then_some(is_up)
    }

    /// It was told to start anew, and is awaited.
    fn comes_up(&self, node: &str) -> bool {
        let is_restarted =
            |row: &NodeRecord| matches!(row.state, NodeState::Remediating { rung } if rung.restarts_node());
        self.scheduler.holds_lead() && self.desk.look(|recovery| recovery.node(node).is_some_and(is_restarted))
    }

    /// Until the next look is due, looks often whether it has come up: else it would stand idle for half of that time.
    async fn catch(self, node: String) {
        let until = clock::now() + self.config.policy.deadlines.observe;
        let reach = self.reached.fleet.nodes().borrow().iter().find(|one| one.node.name == node).cloned();
        // A worker calls by itself; each look at a machine of ECS is a command in the books of its owner.
        let Some(Reach::Connection(connection)) = reach.map(|node| node.reach) else { return };
        loop {
            tokio::time::sleep(SOON).await;
            if clock::now() >= until || !self.comes_up(&node) {
                return;
            }
            self.reached.asker.hurry(&connection).await;
            let seen = self.observe(&node).await;
            let is_new = self.desk.look(|recovery| recovery.node(&node).is_some_and(|row| row.boot_id != seen.boot_id));
            if seen.agent && is_new {
                return self.desk.mention(Input::Observed { node, seen });
            }
        }
    }

    /// Asks a node who it is, and what it has.
    pub(super) async fn observe(&self, node: &str) -> Seen {
        if let Some(agent) = self.calls(node) {
            return Seen { boot_id: None, agent, gpus: None };
        }
        if let Some((cluster, machine)) = self.machine(node) {
            return self.look_at(node, &cluster, &machine).await;
        }
        if let Some((cluster, place)) = self.kube(node) {
            return self.look_at_kube(node, &cluster, &place).await;
        }
        let body = self.config.commands.boot_id.as_deref().unwrap_or(BOOT_ID);
        let script = script(&[("PITCREW_NODE", node.to_owned())], body);
        let boot_id = match self.reached.run(node, &script, LOOK).await {
            Ok(ran) if ran.is_success() => ran.stdout.lines().next().map(|line| line.trim().to_owned()),
            Ok(_) | Err(_) => None,
        };
        let Some(boot_id) = boot_id.filter(|id| !id.is_empty()) else { return Seen::default() };
        let nodes = self.reached.fleet.nodes().borrow().clone();
        let is_worker = nodes.iter().any(|one| one.node.name == node && matches!(one.reach, Reach::Worker(_)));
        let gpus = match self.reached.fleet.config_of(node) {
            // What it told last may be of before.
            Some(_) if is_worker => match self.reached.run(node, COUNT, LOOK).await {
                Ok(ran) if ran.is_success() => ran.stdout.trim().parse().ok(),
                Ok(_) | Err(_) => None,
            },
            Some(config) => self.reached.probe(&config).await.and_then(|probe| match probe.smi {
                Smi::Answered => Some(probe.gpus.len() as u32),
                _ => None,
            }),
            None => None,
        };
        Seen { boot_id: Some(boot_id), agent: true, gpus }
    }
}

fn ordered(effect: EffectId, ran: Result<Ran, NotRun>) -> Input {
    match ran {
        // A connection that breaks is what a reboot looks like; whether it was one, the node shows.
        Ok(ran) if ran.is_success() || ran.code.is_none() => Input::Done { effect },
        // The node shows what came of it. One that is in another boot already needs a check, and no harder repair.
        Ok(ran) => Input::EffectFailed { effect, why: ran.words(), certain: false },
        Err(not) => Input::EffectFailed { effect, why: not.why, certain: not.certain },
    }
}

/// Nothing of the node shows later whether its GPUs were reset: what the command says counts.
fn reset(effect: EffectId, ran: Result<Ran, NotRun>) -> Input {
    match ran {
        Ok(ran) if ran.is_success() => Input::Done { effect },
        Ok(ran) => {
            // One that was ended, by its limit or otherwise, may have reset some of them.
            let certain = ran.code.is_some_and(|code| !was_ended(code));
            Input::EffectFailed { effect, why: ran.words(), certain }
        }
        Err(not) => Input::EffectFailed { effect, why: not.why, certain: not.certain },
    }
}

/// For ever: numbers of nodes begin anew when one was forgotten, and those of incidents never do.
pub(super) fn name(incident: Option<IncidentId>, effect: &EffectId) -> String {
    incident.map_or_else(|| effect.to_string(), |incident| format!("{incident}/{effect}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_in_another_boot_already_is_looked_at_and_not_repaired_harder() {
        let effect = EffectId::Node { node: "n0".to_owned(), step: 4 };
        let ran =
            Ran { code: Some(86), stdout: String::new(), stderr: "the node has been started anew since".to_owned() };
        let why = "exit code 86: the node has been started anew since".to_owned();
        let told = ordered(effect.clone(), Ok(ran));
        assert_eq!(told, Input::EffectFailed { effect: effect.clone(), why, certain: false });
        let never = Err(NotRun::never("there is no node `n0`"));
        let why = "there is no node `n0`".to_owned();
        assert_eq!(ordered(effect.clone(), never), Input::EffectFailed { effect, why, certain: true });
    }

    #[test]
    fn a_reset_that_was_refused_is_no_reset_and_one_that_was_ended_may_be() {
        let effect = EffectId::Node { node: "n0".to_owned(), step: 4 };
        let of = |code, stderr: &str| {
            let ran = Ran { code, stdout: String::new(), stderr: stderr.to_owned() };
            reset(effect.clone(), Ok(ran))
        };
        let failed = |why: &str, certain| Input::EffectFailed { effect: effect.clone(), why: why.to_owned(), certain };
        let in_use = "GPU 00000000:9B:00.0 is currently in use by one or more other processes";
        assert_eq!(of(Some(255), in_use), failed(&format!("exit code 255: {in_use}"), true));
        assert_eq!(of(Some(0), ""), Input::Done { effect: effect.clone() });
        for (code, why) in [(None, "it was cut off"), (Some(124), "exit code 124"), (Some(137), "exit code 137")] {
            assert_eq!(of(code, ""), failed(why, false));
        }
        assert_eq!(
            reset(effect.clone(), Err(NotRun::perhaps("it took longer than 9 s"))),
            failed("it took longer than 9 s", false)
        );
    }
}

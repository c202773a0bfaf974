//! Which nodes recovery looks after: those with GPUs, as they are configured and labelled now.
//!
//! Level-triggered: whenever the list of nodes changes, those that differ are compared with what recovery knows, and it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pitcrew_core::fleet::Standing;
use pitcrew_core::recovery::{
    Advice, Input, Mode, NodeFacts, NodeRecord, NodeState, Recovery, Rung, Signal, SignalKind,
};
use pitcrew_exec::worker::errands;
use tokio::task::{AbortHandle, JoinSet};

use super::config::Commands;
use super::perform::Hands;
use crate::clock;
use crate::fleet::{Beside, FleetNode, Lost, Reach};

/// The label of a node that says what recovery may do there: `off`, `observe`, `approve` or `auto`.
pub const LABEL: &str = "recovery";
/// Between two looks at a node that answers its server again, and not us.
const AGAIN: Duration = Duration::from_secs(15);

/// Until it is aborted.
pub(super) async fn watch(hands: Hands) {
    // What is known of nodes from before decides who is awaited.
    hands.desk.is_ready().await;
    let mut nodes = hands.reached.fleet.nodes();
    let mut watched = Watched {
        told: BTreeMap::new(),
        absent: Absent { down: hands.desk.look(awaited), looks: JoinSet::new() },
        missing: BTreeMap::new(),
    };
    let mut before = Round::default();
    loop {
        let round = Round { list: nodes.borrow_and_update().clone(), beside: hands.reached.fleet.beside() };
        for (at, node) in round.list.iter().enumerate() {
            if !round.is_as(&before, at) {
                watched.look(&hands, node, round.beside(node));
            }
        }
        watched.let_go(&hands, &before, &round);
        before = round;
        if nodes.changed().await.is_err() {
            return;
        }
    }
}

/// The nodes at one moment.
#[derive(Default)]
struct Round {
    list: Arc<Vec<FleetNode>>,
    beside: BTreeMap<String, Beside>,
}

impl Round {
    fn beside(&self, node: &FleetNode) -> Option<&Beside> {
        self.beside.get(&node.node.name)
    }

    /// Whether nothing is new of the node at this place: of a thousand that are looked at since one of them changed, that holds for
    /// all but that one.
    fn is_as(&self, before: &Round, at: usize) -> bool {
        let node = &self.list[at];
        before.list.get(at) == Some(node) && before.beside(node) == self.beside(node)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|node| node.node.name.as_str())
    }
}

/// What recovery was told of nodes.
struct Watched {
    told: BTreeMap<String, NodeFacts>,
    absent: Absent,
    missing: BTreeMap<(String, String), String>,
}

impl Watched {
    fn look(&mut self, hands: &Hands, node: &FleetNode, beside: Option<&Beside>) {
        let name = &node.node.name;
        if node.node.gpus.is_empty() {
            self.told.remove(name);
            return;
        }
        let nothing = Beside::default();
        let Beside { errands, lost } = beside.unwrap_or(&nothing);
        let facts = hands.facts_of(node, errands);
        if self.told.get(name) != Some(&facts) {
            hands.desk.mention(Input::Node { node: name.clone(), facts: facts.clone() });
            self.told.insert(name.clone(), facts);
            if node.reach == Reach::Local {
                // Its log is not read in rounds, which would show its boot id.
                let (hands, name) = (hands.clone(), name.clone());
                self.absent.looks.spawn(async move { hands.awaited(&name).await });
            }
            if let Some(odd) = odd_label(node) {
                tracing::warn!(
                    node = name,
                    "the label `{LABEL}={odd}` of the node `{name}` means nothing, so recovery only \
                     watches it: the values are `off`, `observe`, `approve` and `auto`"
                );
            }
        }
        self.absent.look(hands, node);
        lost_devices(hands, node, lost, &mut self.missing);
    }

    /// Nodes that are not there any more. One may have lost its GPUs and still be there: then it is sick, not gone.
    fn let_go(&mut self, hands: &Hands, before: &Round, round: &Round) {
        // At first, those that were known before this server led.
        let is_first = before.list.is_empty();
        if !is_first && before.names().eq(round.names()) {
            return;
        }
        let there: BTreeSet<&str> = round.names().collect();
        let mut known: BTreeSet<String> =
            hands.desk.look(|recovery| recovery.nodes().map(|node| node.name.clone()).collect());
        // What was told last may not have been taken yet.
        known.extend(self.told.keys().cloned());
        for name in known.into_iter().filter(|name| !there.contains(name.as_str())) {
            let why = "it is not configured any more".to_owned();
            hands.desk.mention(Input::NodeGone { node: name, why });
        }
        self.told.retain(|name, _| there.contains(name.as_str()));
    }
}

impl Hands {
    fn facts_of(&self, node: &FleetNode, does: &[String]) -> NodeFacts {
        let may = match &node.reach {
            Reach::Ecs(_) => self.reached.clusters.may_stop_start(),
            Reach::Kubernetes(_) => self.reached.kubernetes.settings().reboot.is_some(),
            Reach::Local | Reach::Connection(_) | Reach::Worker(_) => false,
        };
        facts(node, &self.config.commands, does, may)
    }

    /// Of a node that is to be repaired, at this moment; `None`: nobody tells of it.
    pub(super) fn facts_now(&self, name: &str) -> Option<Input> {
        let list = self.reached.fleet.nodes().borrow().clone();
        let node = list.iter().find(|node| node.node.name == name && !node.node.gpus.is_empty())?;
        let does = self.reached.fleet.errands_of(name);
        Some(Input::Node { node: name.to_owned(), facts: self.facts_of(node, &does) })
    }
}

/// A value that nobody has given a meaning. Whoever wrote it may have meant `off`.
fn odd_label(node: &FleetNode) -> Option<&str> {
    let label = node.node.labels.get(LABEL).map(String::as_str)?;
    (!matches!(label, "off" | "observe" | "approve" | "auto")).then_some(label)
}

/// `may`: what its cluster may be asked for, which is to stop and start a machine of ECS, and to reboot a node of Kubernetes.
fn facts(node: &FleetNode, commands: &Commands, does: &[String], may: bool) -> NodeFacts {
    let label = node.node.labels.get(LABEL).map(String::as_str);
    let mut mode = match label {
        Some("observe") => Some(Mode::Observe),
        Some("approve") => Some(Mode::Approve),
        Some("auto") => Some(Mode::Auto),
        Some("off") | None => None,
        // Whoever mistyped `off` must not get a reboot, and whoever mistyped `auto` no broken node in use.
        Some(_) => Some(Mode::Observe),
    };
    let opted_out = label == Some("off");
    let mut rungs: Vec<Rung> = Vec::new();
    match &node.reach {
        Reach::Connection(_) => {
            rungs.extend([Rung::ResetGpu, Rung::Reboot]);
            rungs.extend(commands.hard_reboot.as_ref().map(|_| Rung::HardReboot));
            rungs.extend(commands.replace.as_ref().map(|_| Rung::Replace));
        }
        // The server would end with its machine, however that is done.
        Reach::Local => rungs.push(Rung::ResetGpu),
        // What its owner allowed. One that does not even ask cannot say that its machine is well.
        Reach::Worker(_) => {
            let may_do = |kind: &str| does.iter().any(|may| may == kind);
            rungs.extend(may_do(errands::RESET_GPU).then_some(Rung::ResetGpu));
            rungs.extend(may_do(errands::REBOOT).then_some(Rung::Reboot));
            if !may_do(errands::ASK) {
                mode = Some(Mode::Observe);
            }
        }
        Reach::Ecs(_) => {
            rungs.extend([Rung::ResetGpu, Rung::Reboot, Rung::HardReboot]);
            rungs.extend((may || commands.replace.is_some()).then_some(Rung::Replace));
        }
        Reach::Kubernetes(_) => {
            rungs.extend(may.then_some(Rung::Reboot));
            rungs.extend(commands.hard_reboot.as_ref().map(|_| Rung::HardReboot));
            rungs.extend(commands.replace.as_ref().map(|_| Rung::Replace));
        }
    }
    // With those that are gone: the most that are known.
    let gpus = u32::try_from(node.node.gpus.len()).ok();
    NodeFacts { boot_id: None, gpus, mode, opted_out, rungs: rungs.into_iter().collect() }
}

/// Nodes that were taken out of service since they did not answer. If they have come back, nobody may have seen that.
fn awaited(recovery: &Recovery) -> BTreeMap<String, Option<AbortHandle>> {
    let was_away = |row: &&NodeRecord| {
        let incident = row.incident.and_then(|id| recovery.incident(id));
        row.state == NodeState::OutOfService && incident.is_some_and(|incident| incident.absent)
    };
    recovery.nodes().filter(was_away).map(|row| (row.name.clone(), None)).collect()
}

/// Nodes that do not answer, and those that do so again.
struct Absent {
    /// With the look at one that is back.
    down: BTreeMap<String, Option<AbortHandle>>,
    /// Looks at those that are back. Ends with us.
    looks: JoinSet<()>,
}

impl Absent {
    fn look(&mut self, hands: &Hands, node: &FleetNode) {
        let name = &node.node.name;
        while self.looks.try_join_next().is_some() {}
        match &node.node.standing {
            Standing::Down(why) => match self.down.insert(name.clone(), None) {
                // Down again before it was seen.
                Some(Some(looking)) if !looking.is_finished() => looking.abort(),
                Some(None) => {}
                Some(Some(_)) | None => hands.desk.mention(Input::Signal(away(name, why))),
            },
            Standing::Ready | Standing::Cordoned => match self.down.get_mut(name) {
                Some(looking) if looking.is_none() => {
                    let (hands, name) = (hands.clone(), name.clone());
                    *looking = Some(self.looks.spawn(async move { hands.awaited(&name).await }));
                }
                Some(looking) if looking.as_ref().is_some_and(AbortHandle::is_finished) => {
                    self.down.remove(name);
                }
                Some(_) | None => {}
            },
        }
    }
}

fn away(name: &str, why: &str) -> Signal {
    let now = clock::now();
    Signal {
        id: format!("{name}/down/{now}"),
        node: name.to_owned(),
        boot_id: None,
        gpu: None,
        job: None,
        at: now,
        kind: SignalKind::NodeLost,
        advice: Advice::Check,
        evidence: why.to_owned(),
    }
}

impl Hands {
    /// It answers its server again. Looks until it answers us as well.
    async fn awaited(&self, name: &str) {
        loop {
            let seen = self.observe(name).await;
            if seen.agent {
                return self.desk.mention(Input::Observed { node: name.to_owned(), seen });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Somebody has read the boot id of a node. If it is another one than is known, the node is looked at: that it was
    /// rebooted, by us or not, is known by nothing else.
    pub(super) fn saw(&self, name: &str, boot_id: &str) {
        let is_known =
            self.desk.look(|recovery| recovery.node(name).is_none_or(|row| row.boot_id.as_deref() == Some(boot_id)));
        if !is_known {
            let (hands, node) = (self.clone(), name.to_owned());
            tokio::spawn(async move {
                let seen = hands.observe(&node).await;
                if seen.agent {
                    hands.desk.mention(Input::Observed { node, seen });
                }
            });
        }
    }
}

/// Devices that a node had and does not report any more, or that say that they are broken. Told once, whoever leads: what
/// only differs from the configuration is no trouble of the device.
fn lost_devices(hands: &Hands, node: &FleetNode, lost: &[Lost], missing: &mut BTreeMap<(String, String), String>) {
    let name = &node.node.name;
    if matches!(node.node.standing, Standing::Down(_)) {
        return;
    }
    missing.retain(|(of, gpu), _| of != name || lost.iter().any(|lost| lost.id == *gpu));
    for lost in lost {
        if missing.insert((name.clone(), lost.id.clone()), lost.why.clone()).is_none() {
            hands.desk.mention(Input::Signal(lost_gpu(hands, name, lost.clone())));
        }
    }
}

/// Of each device that the node lacks, as it is known now; the same for the same device, however often it is told.
pub(super) fn lost(hands: &Hands, name: &str) -> Vec<Signal> {
    hands.reached.fleet.lost(name).into_iter().map(|lost| lost_gpu(hands, name, lost)).collect()
}

fn lost_gpu(hands: &Hands, name: &str, lost: Lost) -> Signal {
    let Lost { id: gpu, why, since } = lost;
    let boot_id = hands.desk.look(|recovery| recovery.node(name).and_then(|row| row.boot_id.clone()));
    let id = match since {
        Some(since) => format!("{name}/{gpu}/gone/{since}"),
        None => format!("{name}/{gpu}/broken/{}", boot_id.unwrap_or_default()),
    };
    Signal {
        id,
        node: name.to_owned(),
        boot_id: None,
        gpu: Some(gpu),
        job: None,
        at: since.unwrap_or_else(clock::now),
        kind: SignalKind::LostGpu,
        advice: Advice::Check,
        evidence: why,
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::fleet::{Amount, Gpu, Node};
    use pitcrew_exec::WorkerPlace;

    use super::*;

    fn node(reach: Reach, label: Option<&str>) -> FleetNode {
        let gpus = (0..2).map(|at| Gpu::new(format!("GPU-{at}"), "NVIDIA A100", 81_920)).collect();
        let mut node = Node::new("n", Amount::whole(8), 8_192, gpus);
        node.labels.extend(label.map(|value| (LABEL.to_owned(), value.to_owned())));
        FleetNode { node, reach }
    }

    fn by_command() -> Commands {
        let command = Some("true".to_owned());
        Commands { hard_reboot: command.clone(), replace: command, ..Commands::default() }
    }

    #[test]
    fn the_server_never_restarts_its_own_machine() {
        let rungs = |reach| facts(&node(reach, None), &by_command(), &[], false).rungs.into_iter().collect::<Vec<_>>();
        assert_eq!(rungs(Reach::Local), [Rung::ResetGpu]);
        assert_eq!(rungs(Reach::Connection("gpu".to_owned())), Rung::LADDER);
    }

    #[test]
    fn where_nothing_can_be_run_nothing_is_done() {
        let (worker, program) = ("w1".to_owned(), "/pitcrew".to_owned());
        let place = WorkerPlace { worker, name: "n".to_owned(), data_dir: "/data".to_owned(), program };
        let worker = Reach::Worker(place);
        let of = |does: &[&str]| {
            let does: Vec<String> = does.iter().map(|kind| (*kind).to_owned()).collect();
            let facts = facts(&node(worker.clone(), Some("auto")), &by_command(), &does, false);
            (facts.mode, facts.rungs.into_iter().collect::<Vec<_>>(), facts.gpus)
        };
        assert_eq!(of(&[]), (Some(Mode::Observe), vec![], Some(2)));
        assert_eq!(of(&[errands::ASK]), (Some(Mode::Auto), vec![], Some(2)));
        let repairs = of(&[errands::ASK, errands::RESET_GPU, errands::REBOOT]);
        assert_eq!(repairs, (Some(Mode::Auto), vec![Rung::ResetGpu, Rung::Reboot], Some(2)));
    }

    #[test]
    fn where_a_label_means_nothing_recovery_only_watches() {
        let of = |label| facts(&node(Reach::Local, label), &by_command(), &[], false);
        assert!(of(Some("off")).opted_out && !of(None).opted_out);
        let modes = [None, Some("auto"), Some("Off"), Some("none"), Some("")].map(|label| of(label).mode);
        assert_eq!(modes, [None, Some(Mode::Auto), Some(Mode::Observe), Some(Mode::Observe), Some(Mode::Observe)]);
    }

    /// A thousand machines say each half minute that nothing happened, and each time one of them may differ.
    #[test]
    fn a_node_is_looked_at_again_only_when_something_of_it_is_new() {
        let named = |name: &str, label| {
            let mut node = node(Reach::Local, label);
            node.node.name = name.to_owned();
            node
        };
        let beside = |errands: &[&str], lost: &[&str]| Beside {
            errands: errands.iter().map(|kind| (*kind).to_owned()).collect(),
            lost: lost.iter().map(|id| Lost { id: (*id).to_owned(), why: String::new(), since: None }).collect(),
        };
        let round = |list: Vec<FleetNode>, b: Beside| Round {
            list: Arc::new(list),
            beside: [("a".to_owned(), beside(&[], &[])), ("b".to_owned(), b)].into(),
        };
        let first = round(vec![named("a", None), named("b", None)], beside(&["ask"], &[]));
        let new = |next: &Round| (0..next.list.len()).filter(|at| !next.is_as(&first, *at)).collect::<Vec<_>>();
        assert_eq!(new(&round(vec![named("a", None), named("b", None)], beside(&["ask"], &[]))), [0; 0]);
        assert_eq!(new(&round(vec![named("a", Some("off")), named("b", None)], beside(&["ask"], &[]))), [0]);
        assert_eq!(new(&round(vec![named("a", None), named("b", None)], beside(&["ask"], &["GPU-1"]))), [1]);
        assert_eq!(new(&round(vec![named("a", None), named("b", None)], beside(&[], &[]))), [1]);
        assert_eq!(new(&round(vec![named("b", None)], beside(&["ask"], &[]))), [0], "at another place");
    }
}

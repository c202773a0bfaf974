//! Container instances as nodes: what they have, how they are, and what can be done to them: taken out of use, looked
//! at, reset, rebooted, stopped and started.
//!
//! Invariants: a reboot is bound to the boot that it is to end, so one that is delivered late, or twice, ends no other.
//! That nobody answers is told as that, and says nothing about the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use pitcrew_exec::limited::{limited, was_ended};

use crate::client::ecs::{Attribute, Instance, InstanceState, Listed};
use crate::client::{Client, Fault, Kind, MachineState, Ran};
use crate::clock;

/// The attribute of an instance that mirrors how it is.
pub const STATUS: &str = "status";
/// The attribute of an instance that says who drained it: what another one drained is not ours to make active.
pub const FENCED_BY: &str = "pitcrew-fenced-by";
/// Its value where nobody of us did; an attribute has one.
const NOBODY: &str = "nobody";
/// How long a machine may take to fetch a command.
const DELIVER_S: u32 = 60;
/// How long an order that AWS puts off is given anew.
const PUT_OFF: Duration = Duration::from_secs(90);
/// Between two looks at a command, or at a machine.
const LOOK: Duration = Duration::from_secs(2);
/// The longest output that SSM hands back.
pub const MOST_OUTPUT: usize = 24_000;

/// A container instance, as a node of the fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct EcsNode {
    /// The id that EC2 gave the machine; it stays when the agent registers anew.
    pub machine: String,
    pub instance: String,
    pub labels: BTreeMap<String, String>,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// UUIDs.
    pub gpus: Vec<String>,
    pub free_gpus: Vec<String>,
    /// It takes new tasks.
    pub is_active: bool,
    pub is_draining: bool,
    /// ECS hears of it.
    pub agent: bool,
    pub tasks: u32,
    /// What was mirrored last.
    pub status: Option<String>,
}

impl EcsNode {
    /// Attributes become labels, under their names; ECS's own begin with `ecs.`.
    pub fn of(instance: &Instance, cluster: &str) -> EcsNode {
        let own =
            instance.attributes.iter().filter(|attribute| attribute.name != STATUS && attribute.name != FENCED_BY);
        let mut labels: BTreeMap<String, String> =
            own.map(|attribute| (attribute.name.clone(), attribute.value.clone().unwrap_or_default())).collect();
        labels.insert("pitcrew/ecs-cluster".to_owned(), crate::arn::cluster_name(cluster).to_owned());
        EcsNode {
            machine: instance.ec2_instance_id.clone(),
            instance: instance.container_instance_arn.clone(),
            labels,
            cpu_milli: instance.cpu() * 1000 / 1024,
            memory_mib: instance.memory(),
            gpus: instance.gpus().to_vec(),
            free_gpus: instance.free_gpus().to_vec(),
            is_active: instance.status == InstanceState::Active,
            is_draining: instance.status == InstanceState::Draining,
            agent: instance.agent_connected,
            tasks: instance.running_tasks_count + instance.pending_tasks_count,
            status: instance.attribute(STATUS).map(str::to_owned),
        }
    }
}

/// What a look at a machine has shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Look {
    /// `None`: SSM does not reach it.
    pub boot_id: Option<String>,
    /// The agent of ECS is connected, and the instance takes or drains tasks.
    pub agent: bool,
    /// As its container instance says.
    pub gpus: Option<u32>,
    pub state: Option<MachineState>,
    pub launched_at: Option<Timestamp>,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It is known that nothing happened, and why.
    Refused(String),
    /// It may have happened.
    Unknown(String),
}

impl From<Fault> for Outcome {
    fn from(fault: Fault) -> Outcome {
        match fault.kind {
            Kind::Unreached => Outcome::Unknown(fault.to_string()),
            Kind::Throttled | Kind::Capacity | Kind::NotFound | Kind::Denied | Kind::Conflict | Kind::Invalid => {
                Outcome::Refused(fault.to_string())
            }
        }
    }
}

fn attribute(name: &str, value: &str) -> Attribute {
    Attribute { name: name.to_owned(), value: Some(value.to_owned()) }
}

/// The nodes of one cluster.
#[derive(Clone)]
pub struct EcsFleet {
    pub client: Client,
    pub cluster: String,
    /// Between two looks at a command.
    pub look: Duration,
}

impl EcsFleet {
    pub fn new(client: Client, cluster: &str) -> EcsFleet {
        EcsFleet { client, cluster: cluster.to_owned(), look: LOOK }
    }

    /// All instances of the cluster, those that are being drained included.
    pub async fn nodes(&self) -> Result<Vec<EcsNode>, Fault> {
        self.listed(None).await
    }

    async fn listed(&self, machine: Option<&str>) -> Result<Vec<EcsNode>, Fault> {
        let all = self.client.list_instances(&self.cluster, machine).await?;
        let known = self.client.instances(&self.cluster, &all).await?;
        Ok(known.iter().map(|instance| EcsNode::of(instance, &self.cluster)).collect())
    }

    /// The instance of a machine, found anew: after a reboot the agent may have registered as another one.
    pub async fn node(&self, machine: &str) -> Result<Option<EcsNode>, Fault> {
        let mut found: Vec<_> =
            self.listed(Some(machine)).await?.into_iter().filter(|node| node.machine == machine).collect();
        // Of several registrations, the one whose agent is there.
        found.sort_by_key(|node| (!node.agent, !node.is_active));
        Ok(found.into_iter().next())
    }

    /// Lets an instance take no new tasks, and says by whom that is, and how the node is, in its attributes. What runs goes on; one that
    /// somebody else drained stays theirs.
    pub async fn fence(&self, instance: &str, owner: &str, status: Option<&str>) -> Result<(), Fault> {
        let by = self.drained_by(instance).await?;
        let mut said: Vec<Attribute> = status.map(|status| attribute(STATUS, status)).into_iter().collect();
        // Before it is drained: a drain of which nobody says so would be somebody else's.
        said.extend(by.is_none_or(|by| by == owner).then(|| attribute(FENCED_BY, owner)));
        self.client.put_attributes(&self.cluster, instance, &said).await?;
        self.client.drain(&self.cluster, &[instance.to_owned()], true).await
    }

    /// Lets it take tasks again, unless somebody else has drained it.
    pub async fn unfence(&self, instance: &str, owner: &str, status: &str) -> Result<(), Fault> {
        let by = self.drained_by(instance).await?;
        let mut said = vec![attribute(STATUS, status)];
        if by.is_none_or(|by| by == owner) {
            self.client.drain(&self.cluster, &[instance.to_owned()], false).await?;
            // Then, so that whoever dies between the two does both again.
            said.push(attribute(FENCED_BY, NOBODY));
        }
        self.client.put_attributes(&self.cluster, instance, &said).await
    }

    /// Who drained an instance, as it says; empty where nobody of us did. `None`: it takes tasks.
    async fn drained_by(&self, instance: &str) -> Result<Option<String>, Fault> {
        let known = self.client.instances(&self.cluster, &[instance.to_owned()]).await?;
        let drained = known.first().filter(|known| known.status == InstanceState::Draining);
        Ok(drained.map(|known| known.attribute(FENCED_BY).unwrap_or_default().to_owned()))
    }

    /// Writes how a node is where others look for it.
    pub async fn mirror(&self, instance: &str, status: &str) -> Result<(), Fault> {
        self.client.put_attributes(&self.cluster, instance, &[attribute(STATUS, status)]).await
    }

    /// The tasks that run on an instance; `others` leaves out those that were started by these words.
    pub async fn tasks_on(&self, instance: &str, but: &[String]) -> Result<Vec<String>, Fault> {
        let arns = self.client.list_tasks(&self.cluster, Listed::On(instance)).await?;
        let known = self.client.tasks(&self.cluster, &arns).await?;
        let others = known.whole()?.into_iter().filter(|task| {
            !task.last_status.is_over() && task.started_by.as_ref().is_none_or(|word| !but.contains(word))
        });
        Ok(others.map(|task| task.task_arn).collect())
    }

    /// The tasks on an instance that have one of these devices; all of them if none is named.
    pub async fn tasks_with(&self, instance: &str, gpus: &BTreeSet<String>) -> Result<Vec<String>, Fault> {
        let arns = self.client.list_tasks(&self.cluster, Listed::On(instance)).await?;
        let known = self.client.tasks(&self.cluster, &arns).await?;
        let has = |task: &crate::client::ecs::Task| {
            gpus.is_empty() || task.containers.iter().flat_map(|one| &one.gpu_ids).any(|gpu| gpus.contains(gpu))
        };
        Ok(known
            .whole()?
            .into_iter()
            .filter(|t| !t.last_status.is_over() && has(t))
            .map(|task| task.task_arn)
            .collect())
    }

    /// Runs shell lines on a machine as root and waits for their end, at most `limit`.
    pub async fn command(&self, machine: &str, lines: &[&str], why: &str, limit: Duration) -> Result<Ran, Fault> {
        let run_s = u32::try_from(limit.as_secs()).unwrap_or(u32::MAX).max(1);
        // The agent of SSM ends the shell, and not what that began.
        let script = limited(&lines.join("\n"), limit);
        let lines = [script.as_str()];
        let sent = self.patiently(|| self.client.send_command(machine, &lines, why, DELIVER_S, run_s).boxed()).await?;
        let until = clock::instant() + limit + Duration::from_secs(DELIVER_S.into());
        loop {
            match self.client.command_result(&sent).await {
                Ok(Ran::Pending) if clock::instant() < until => {}
                Ok(Ran::Pending) => return Ok(Ran::Undelivered { status: "no answer in time".to_owned() }),
                Ok(ran) => return Ok(ran),
                Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) && clock::instant() < until => {}
                // It was sent, and may have run.
                Err(fault) => return Ok(Ran::Undelivered { status: fault.to_string() }),
            }
            tokio::time::sleep(self.look).await;
        }
    }

    /// Asks again for as long as AWS only puts it off: what was refused for haste was not done, and is worth another try.
    async fn patiently<'a, T>(&self, ask: impl Fn() -> BoxFuture<'a, Result<T, Fault>>) -> Result<T, Fault> {
        let until = clock::instant() + PUT_OFF;
        loop {
            match ask().await {
                Err(fault) if fault.kind == Kind::Throttled && clock::instant() < until => {
                    tokio::time::sleep(self.look).await;
                }
                other => return other,
            }
        }
    }

    /// The boot of a machine, if SSM reaches it.
    pub async fn boot_id(&self, machine: &str) -> Result<Option<String>, Fault> {
        if self.client.is_online(machine).await? == Some(false) {
            return Ok(None);
        }
        let read = "cat /proc/sys/kernel/random/boot_id";
        match self.command(machine, &[read], "pitcrew: which boot this is", Duration::from_secs(20)).await {
            Ok(Ran::Ended { code: 0, stdout, .. }) => Ok(Some(stdout.trim().to_owned()).filter(|id| !id.is_empty())),
            Ok(_) => Ok(None),
            // SSM does not know the machine (any more), or not yet.
            Err(fault) if fault.kind == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// Looks at a machine: its boot, its agent, its GPUs.
    pub async fn look(&self, machine: &str) -> Result<Look, Fault> {
        let node = self.node(machine).await?;
        let known = self.client.machines(&[machine.to_owned()]).await?;
        let known = known.into_iter().next();
        let is_up = known.as_ref().is_none_or(|machine| machine.state == MachineState::Running);
        let boot_id = if is_up { self.boot_id(machine).await? } else { None };
        Ok(Look {
            boot_id,
            agent: node.as_ref().is_some_and(|node| node.agent && (node.is_active || node.is_draining)),
            gpus: node.as_ref().and_then(|node| u32::try_from(node.gpus.len()).ok()),
            state: known.as_ref().map(|machine| machine.state.clone()),
            launched_at: known.and_then(|machine| machine.launched_at),
        })
    }

    /// Resets GPUs that nobody uses, by UUID; all of the machine if none is named.
    pub async fn reset_gpus(&self, machine: &str, gpus: &[String]) -> Outcome {
        if let Some(odd) = gpus.iter().find(|uuid| !uuid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')) {
            return Outcome::Refused(format!("`{odd}` is no UUID of a GPU"));
        }
        let which = if gpus.is_empty() { String::new() } else { format!(" -i {}", gpus.join(",")) };
        let line = format!("nvidia-smi --gpu-reset{which}");
        match self.command(machine, &[&line], "pitcrew: reset GPUs", Duration::from_secs(120)).await {
            Ok(Ran::Ended { code: 0, .. }) => Outcome::Done,
            Ok(Ran::Ended { code, .. }) if was_ended(code) => {
                Outcome::Unknown(format!("`{line}` did not end in time, and was ended"))
            }
            Ok(Ran::Ended { code, stdout, stderr }) => {
                let said = [stdout.trim(), stderr.trim()].join(" ");
                Outcome::Refused(format!("`{line}` ended with exit code {code}: {}", said.trim()))
            }
            Ok(Ran::Undelivered { status }) => Outcome::Unknown(format!("SSM: {status}")),
            Ok(Ran::Pending) => Outcome::Unknown("SSM gave no answer in time".to_owned()),
            Err(fault) => fault.into(),
        }
    }

    /// Reboots a machine from within, if it still is in that boot. `Done` says that it was ordered.
    pub async fn reboot(&self, machine: &str, boot_id: Option<&str>) -> Outcome {
        let fits = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        let guard = match boot_id {
            Some(id) if fits(id) => format!("[ \"$(cat /proc/sys/kernel/random/boot_id)\" = '{id}' ] || exit 75"),
            Some(odd) => return Outcome::Refused(format!("`{odd}` is no id of a boot")),
            None => ":".to_owned(),
        };
        // In a moment, so that the answer comes first.
        let order = "nohup sh -c 'sleep 3; systemctl reboot || reboot' >/dev/null 2>&1 &";
        let lines = [guard.as_str(), order];
        match self.command(machine, &lines, "pitcrew: reboot", Duration::from_secs(30)).await {
            Ok(Ran::Ended { code: 0, .. }) => Outcome::Done,
            // Which a look shows; it is no reason for anything harder.
            Ok(Ran::Ended { code: 75, .. }) => Outcome::Unknown("it is in another boot already".to_owned()),
            Ok(Ran::Ended { code, stderr, .. }) => {
                Outcome::Refused(format!("the reboot could not be ordered: exit code {code}: {}", stderr.trim()))
            }
            Ok(Ran::Undelivered { status }) => Outcome::Unknown(format!("SSM: {status}")),
            Ok(Ran::Pending) => Outcome::Unknown("SSM gave no answer in time".to_owned()),
            Err(fault) => fault.into(),
        }
    }

    /// Lets EC2 reboot a machine, whatever it does. `Done` says that it was ordered.
    pub async fn hard_reboot(&self, machine: &str) -> Outcome {
        match self.patiently(|| self.client.reboot(machine).boxed()).await {
            Ok(()) => Outcome::Done,
            Err(fault) => fault.into(),
        }
    }

    /// Stops a machine and starts it again, usually on other hardware; within `limit`. What lies on its own disks is gone.
    pub async fn stop_start(&self, machine: &str, limit: Duration) -> Outcome {
        if let Err(fault) = self.patiently(|| self.client.stop(machine).boxed()).await {
            return fault.into();
        }
        let until = clock::instant() + limit;
        loop {
            match self.client.machines(&[machine.to_owned()]).await {
                Ok(all) => match all.first().map(|machine| &machine.state) {
                    Some(MachineState::Stopped) => break,
                    Some(MachineState::Terminated | MachineState::ShuttingDown) => {
                        return Outcome::Unknown("it is being terminated".to_owned());
                    }
                    None => return Outcome::Unknown("EC2 does not know it any more".to_owned()),
                    Some(_) => {}
                },
                Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) => {}
                Err(fault) => return Outcome::Unknown(fault.to_string()),
            }
            if clock::instant() >= until {
                return Outcome::Unknown("it did not stop in time".to_owned());
            }
            tokio::time::sleep(self.look).await;
        }
        match self.start(machine).await {
            Ok(()) => Outcome::Done,
            // It is stopped, and somebody has to know.
            Err(fault) => Outcome::Unknown(format!("it is stopped, and does not start: {fault}")),
        }
    }

    /// Starts a machine that is stopped; one that runs goes on.
    pub async fn start(&self, machine: &str) -> Result<(), Fault> {
        self.patiently(|| self.client.start(machine).boxed()).await
    }
}

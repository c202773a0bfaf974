//! Gangs: attempts that are started together, each on a machine of its own.
//!
//! None of them is started before all have a machine. Which ones, and by what they reach each other, is written down once
//! (`gang.json` of the first member), and from then on it stays: each member takes its place from there, writes it into its own
//! `sent.json`, and is started as any attempt is, bound to its machine. Invariants: nothing is started without that file, so
//! that after a death at any moment the next server either chooses anew or goes on with what was chosen; two members never
//! share a machine; and what cannot be had is told in the log of each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use pitcrew_core::AttemptId;
use serde::{Deserialize, Serialize};

use super::follow::{Definitions, Follow};
use super::marks::Mark;
use super::seats::{Wanted, choose};
use super::watch::Shared;
use crate::client::ecs::{Instance, Listed, Needs, Task};
use crate::client::{Fault, Kind};
use crate::clock;

/// The attribute of an instance by whose value members on other machines reach it.
const ADDRESS: &str = "peer-address";

/// Where the members of a gang are, by rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seats {
    pub at: Timestamp,
    /// By the ids that EC2 gave them.
    pub machines: Vec<String>,
    /// By what each is reached.
    pub peers: Vec<String>,
    /// For the logs of its members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

impl Mark for Seats {
    const FILE: &str = "gang.json";
}

/// Why a gang cannot begin.
pub enum Unseated {
    /// Not all members are here yet.
    Mates,
    /// There are too few machines.
    Room(String),
    /// Its mates were started by somebody else, and nobody knows any more which machine was to be its own.
    Stranded,
    /// Nobody can be asked now.
    Later(String),
    Never(String),
}

impl From<Fault> for Unseated {
    fn from(fault: Fault) -> Unseated {
        match fault.kind {
            Kind::Throttled | Kind::Unreached => Unseated::Later(fault.to_string()),
            Kind::Capacity => Unseated::Room(fault.to_string()),
            Kind::NotFound | Kind::Denied | Kind::Invalid | Kind::Conflict => Unseated::Never(fault.to_string()),
        }
    }
}

impl From<io::Error> for Unseated {
    fn from(error: io::Error) -> Unseated {
        Unseated::Later(format!("what was chosen for its gang cannot be read or written: {error}"))
    }
}

/// What all members of a gang agree in.
fn gang_of(id: &AttemptId) -> (pitcrew_core::RunKey, String, u32) {
    (id.run, id.task.to_string(), id.number)
}

impl Shared {
    /// Those of these attempts that may be started now. Of a gang, all of them may once each has a machine; until then, or
    /// until it is known that there will be none, its members are put off.
    pub async fn seated(&self, new: Vec<Arc<Follow>>) -> Vec<(Arc<Follow>, Option<Arc<Unseated>>)> {
        let (mut may, mut gangs) = (Vec::new(), BTreeSet::new());
        for follow in new {
            match follow.place.gang.is_some() && !follow.is_cancelled() && !follow.has_seat() {
                true => drop(gangs.insert(gang_of(&follow.handle.id))),
                false => may.push((follow, None)),
            }
        }
        for gang in gangs {
            let _alone = self.seating.lock().await;
            let mut members: Vec<(u32, Arc<Follow>)> = self
                .all()
                .into_iter()
                .filter(|follow| gang_of(&follow.handle.id) == gang)
                .filter_map(|follow| Some((follow.place.gang.as_ref()?.rank, follow)))
                .collect();
            members.sort_by_key(|(rank, _)| *rank);
            let waiting: Vec<Arc<Follow>> = members
                .iter()
                .map(|(_, follow)| follow.clone())
                .filter(|follow| follow.task().is_none() && !follow.is_cancelled() && !follow.has_seat())
                .collect();
            let why = self.seat(&members).await.err().map(Arc::new);
            may.extend(waiting.into_iter().map(|follow| (follow, why.clone())));
        }
        may
    }

    /// Gives each member its machine.
    async fn seat(&self, members: &[(u32, Arc<Follow>)]) -> Result<(), Unseated> {
        let Some(dir) = members.first().and_then(|(_, follow)| Some(follow.place.gang.as_ref()?.seats.clone())) else {
            return Ok(());
        };
        let mut definitions = Definitions::new();
        let seats = match read(dir.clone()).await? {
            Some(seats) => seats,
            None => {
                self.adopt(members).await?;
                let seats = self.chosen(members, &mut definitions).await?;
                let written = seats.clone();
                super::blocking(move || written.write(&dir)).await?;
                seats
            }
        };
        for (rank, follow) in members {
            follow.take_seat(self, &mut definitions, &seats, *rank as usize).await?;
        }
        Ok(())
    }

    /// Where nothing is written down here, somebody else may have had this gang, with another directory: its tasks are found by the
    /// words that they were started by. If there are any, nobody can be given a machine beside them any more.
    async fn adopt(&self, members: &[(u32, Arc<Follow>)]) -> Result<(), Unseated> {
        let mut over: Option<Vec<Task>> = None;
        for (_, follow) in members.iter().filter(|(_, follow)| follow.task().is_none()) {
            let Some((word, definition)) = follow.is_sought().await else { continue };
            let running = self.client.list_tasks(&self.cluster, Listed::StartedBy(&word)).await?;
            if over.is_none() {
                let family =
                    definition.parse::<crate::arn::Family>().map_err(|wrong| Unseated::Never(wrong.to_string()))?;
                let named = self.client.list_tasks(&self.cluster, Listed::Stopped(&family.name)).await?;
                over = Some(self.client.tasks(&self.cluster, &named).await?.whole()?);
            }
            let ended = over.iter().flatten().find(|task| task.started_by.as_deref() == Some(word.as_str()));
            let found = running.into_iter().next().or(ended.map(|task| task.task_arn.clone()));
            follow.adopt(found).await?;
        }
        match members.iter().any(|(_, follow)| follow.task().is_some()) {
            true => Err(Unseated::Stranded),
            false => Ok(()),
        }
    }

    async fn chosen(&self, members: &[(u32, Arc<Follow>)], known: &mut Definitions) -> Result<Seats, Unseated> {
        let first = members.first().and_then(|(_, follow)| follow.place.gang.as_ref());
        let Some(gang) = first.filter(|gang| members.len() >= gang.count as usize) else {
            return Err(Unseated::Mates);
        };
        let mut needs = Needs::default();
        for (_, follow) in members {
            let one = follow.needs(self, known).await?;
            needs = Needs {
                gpus: needs.gpus.max(one.gpus),
                cpu: needs.cpu.max(one.cpu),
                memory: needs.memory.max(one.memory),
            };
        }
        // An instance that is active for a check alone is not to be chosen: it would be drained again by the time that it is asked for.
        let placing = self.gate.placing().await;
        let listed = self.client.list_instances(&self.cluster, None).await?;
        let instances = self.client.instances(&self.cluster, &listed).await?;
        drop(placing);
        let mut claimed: BTreeMap<String, Needs> = BTreeMap::new();
        // What has its task is counted by ECS.
        for (machine, needs) in
            self.all().iter().filter(|other| other.task().is_none()).filter_map(|other| other.claim())
        {
            let sum = claimed.entry(machine).or_default();
            *sum = Needs { gpus: sum.gpus + needs.gpus, cpu: sum.cpu + needs.cpu, memory: sum.memory + needs.memory };
        }
        let wanted = Wanted {
            count: gang.count as usize,
            needs,
            near: gang.near.as_deref(),
            near_required: gang.near_required,
            avoid: &gang.avoid,
            claimed: &claimed,
        };
        let machines = choose(&instances, &wanted).map_err(Unseated::Room)?;
        let (peers, notice) = self.addresses(&machines, &instances).await?;
        Ok(Seats { at: clock::now(), machines, peers, notice })
    }

    /// By what members reach each of these machines: what its attribute says, else its address in its network.
    async fn addresses(
        &self,
        machines: &[String],
        instances: &[Instance],
    ) -> Result<(Vec<String>, Option<String>), Unseated> {
        let told = |machine: &String| {
            let instance = instances.iter().find(|instance| instance.ec2_instance_id == *machine);
            instance.and_then(|instance| instance.attribute(ADDRESS)).filter(|told| !told.is_empty()).map(str::to_owned)
        };
        let unknown: Vec<String> = machines.iter().filter(|machine| told(machine).is_none()).cloned().collect();
        let (known, notice) = match self.client.machines(&unknown).await {
            Ok(known) => (known, None),
            Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) => return Err(fault.into()),
            Err(fault) => {
                let remedy = format!("allow that, or give the instances the attribute `{ADDRESS}`");
                let why = format!("members are told the ids of machines as their peers: {fault}; {remedy}");
                (Vec::new(), Some(why))
            }
        };
        let address = |machine: &String| {
            let found = known.iter().find(|one| one.id == *machine).map(|one| one.address.clone());
            told(machine).or(found.filter(|address| !address.is_empty())).unwrap_or_else(|| machine.clone())
        };
        Ok((machines.iter().map(address).collect(), notice))
    }
}

async fn read(dir: PathBuf) -> io::Result<Option<Seats>> {
    super::blocking(move || Seats::read(&dir)).await
}

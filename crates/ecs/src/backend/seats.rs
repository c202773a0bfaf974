//! Which machines the members of a gang get: each one of its own, all of them or none.
//!
//! ECS would find a machine for each task, but only when it is started, and members have to be told of each other before.
//! So they are chosen here, among the instances that take tasks and have room, and each task is bound to its machine.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::client::ecs::{Instance, InstanceState, Needs};

/// Machines that are named where there are too few; the others are counted.
const NAMED: usize = 8;

/// What is asked for.
pub struct Wanted<'w> {
    pub count: usize,
    pub needs: Needs,
    /// Machines with the same value of this attribute are near each other.
    pub near: Option<&'w str>,
    pub near_required: bool,
    /// Machines that will do only if there are too few others.
    pub avoid: &'w BTreeSet<String>,
    /// What members of other gangs will take, and ECS does not count yet.
    pub claimed: &'w BTreeMap<String, Needs>,
}

/// A machine that has room.
struct Room<'i> {
    machine: &'i str,
    near: Option<&'i str>,
    gpus: usize,
    is_avoided: bool,
}

/// The machines by rank, by the ids that EC2 gave them; the error says why there are too few.
pub fn choose(instances: &[Instance], wanted: &Wanted<'_>) -> Result<Vec<String>, String> {
    let (mut rooms, mut misses) = (BTreeMap::new(), BTreeMap::new());
    for instance in instances.iter().filter(|instance| !instance.ec2_instance_id.is_empty()) {
        let machine = instance.ec2_instance_id.as_str();
        match room(instance, wanted) {
            Ok(room) => drop(rooms.insert(machine, room)),
            Err(why) => drop(misses.insert(machine, why)),
        }
    }
    let all: Vec<&Room<'_>> = rooms.values().collect();
    let liked: Vec<&Room<'_>> = all.iter().copied().filter(|room| !room.is_avoided).collect();
    let found = pick(&liked, wanted).or_else(|| pick(&all, wanted));
    found.map(|found| found.into_iter().map(|room| room.machine.to_owned()).collect()).ok_or_else(|| {
        let near = match wanted.near.filter(|_| wanted.near_required) {
            Some(label) => format!(" that agree in the attribute `{label}`"),
            None => String::new(),
        };
        let mut why = format!("of its {} members {} would find a machine now{near}", wanted.count, most(&all, wanted));
        let told: Vec<String> = misses.iter().take(NAMED).map(|(machine, why)| format!("{machine}: {why}")).collect();
        if !told.is_empty() {
            why.push_str(&format!("; {}", told.join("; ")));
        }
        if misses.len() > NAMED {
            why.push_str(&format!("; and {} more", misses.len() - NAMED));
        }
        why
    })
}

/// Whether a member finds room there; the error is half a sentence.
fn room<'i>(instance: &'i Instance, wanted: &Wanted<'_>) -> Result<Room<'i>, String> {
    match &instance.status {
        InstanceState::Active => {}
        InstanceState::Draining => return Err("it is being drained".to_owned()),
        InstanceState::Other(state) => return Err(format!("it is {state}")),
    }
    if !instance.agent_connected {
        return Err("its agent is not connected".to_owned());
    }
    let claimed = wanted.claimed.get(&instance.ec2_instance_id).copied().unwrap_or_default();
    let gpus = instance.free_gpus().len().saturating_sub(claimed.gpus);
    if gpus < wanted.needs.gpus {
        return Err(format!("{gpus} of its {} GPUs are free", instance.gpus().len()));
    }
    let (cpu, memory) = instance.free();
    for (what, free, claimed, needs) in [
        ("units of CPU", cpu, claimed.cpu, wanted.needs.cpu),
        ("MiB of memory", memory, claimed.memory, wanted.needs.memory),
    ] {
        if let Some(free) = free.map(|free| free.saturating_sub(claimed)).filter(|free| *free < needs) {
            return Err(format!("{free} {what} are free"));
        }
    }
    Ok(Room {
        machine: &instance.ec2_instance_id,
        near: wanted.near.and_then(|label| instance.attribute(label)),
        gpus,
        is_avoided: wanted.avoid.contains(&instance.ec2_instance_id),
    })
}

/// Those that are near each other, those that are near nobody last.
fn groups<'r, 'i>(rooms: &[&'r Room<'i>]) -> Vec<Vec<&'r Room<'i>>> {
    let mut groups: BTreeMap<(bool, Option<&str>), Vec<&Room<'_>>> = BTreeMap::new();
    for room in rooms {
        groups.entry((room.near.is_none(), room.near)).or_default().push(room);
    }
    groups.into_values().collect()
}

/// How many find a machine at most, as it is asked for.
fn most(rooms: &[&Room<'_>], wanted: &Wanted<'_>) -> usize {
    match wanted.near.filter(|_| wanted.near_required) {
        None => rooms.len(),
        Some(_) => {
            let near = |group: &Vec<&Room<'_>>| group.first().is_some_and(|room| room.near.is_some());
            groups(rooms).iter().filter(|group| near(group)).map(Vec::len).max().unwrap_or_default()
        }
    }
}

/// As many as are wanted, by rank. Machines of one group follow each other by their names.
fn pick<'r, 'i>(rooms: &[&'r Room<'i>], wanted: &Wanted<'_>) -> Option<Vec<&'r Room<'i>>> {
    let of_all = |mut group: Vec<&'r Room<'i>>, count: usize| {
        // Those with the least to spare: what is wholly free stays so for whoever needs that.
        group.sort_by_key(|room| (room.gpus, room.machine));
        group.truncate(count);
        group.sort_by_key(|room| room.machine);
        group
    };
    if wanted.near.is_none() {
        return (rooms.len() >= wanted.count).then(|| of_all(rooms.to_vec(), wanted.count));
    }
    let mut groups = groups(rooms);
    let is_near = |group: &&Vec<&Room<'_>>| group.first().is_some_and(|room| room.near.is_some());
    let whole = groups.iter().filter(is_near).filter(|group| group.len() >= wanted.count);
    let idle = |group: &&Vec<&Room<'_>>| group.iter().map(|room| room.gpus).sum::<usize>();
    if let Some(group) = whole.min_by_key(idle) {
        return Some(of_all(group.clone(), wanted.count));
    }
    if wanted.near_required || rooms.len() < wanted.count {
        return None;
    }
    groups.sort_by_key(|group| (!is_near(&group), Reverse(group.len())));
    let mut picked = Vec::new();
    for group in groups {
        picked.extend(of_all(group, wanted.count - picked.len()));
    }
    Some(picked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance(machine: &str, rack: &str, free: usize) -> Instance {
        let gpus: Vec<String> = (0..4).map(|n| format!("{machine}-{n}")).collect();
        serde_json::from_value(json!({
            "ec2InstanceId": machine, "status": "ACTIVE", "agentConnected": true,
            "attributes": [{"name": "rack", "value": rack}],
            "registeredResources": [{"name": "GPU", "stringSetValue": gpus}],
            "remainingResources": [
                {"name": "GPU", "stringSetValue": gpus[..free]}, {"name": "CPU", "integerValue": 1024},
                {"name": "MEMORY", "integerValue": 100},
            ],
        }))
        .unwrap()
    }

    fn all() -> Vec<Instance> {
        vec![instance("i-d", "1", 4), instance("i-a", "1", 2), instance("i-c", "2", 4), instance("i-b", "2", 4)]
    }

    struct Ask {
        count: usize,
        gpus: usize,
        near: Option<bool>,
        avoid: &'static [&'static str],
    }

    const ASK: Ask = Ask { count: 2, gpus: 2, near: None, avoid: &[] };

    fn chosen(instances: &[Instance], ask: &Ask, claimed: &[(&str, usize)]) -> Result<Vec<String>, String> {
        let needs = |gpus: usize| Needs { gpus, cpu: 512, memory: 50 };
        let claimed = claimed.iter().map(|(name, gpus)| ((*name).to_owned(), needs(*gpus))).collect();
        let avoid = ask.avoid.iter().map(|name| (*name).to_owned()).collect();
        let wanted = Wanted {
            count: ask.count,
            needs: needs(ask.gpus),
            near: ask.near.map(|_| "rack"),
            near_required: ask.near == Some(true),
            avoid: &avoid,
            claimed: &claimed,
        };
        choose(instances, &wanted)
    }

    #[test]
    fn members_get_machines_with_the_least_to_spare_and_their_ranks_follow_names() {
        assert_eq!(chosen(&all(), &ASK, &[]).unwrap(), ["i-a", "i-b"]);
        assert_eq!(chosen(&all(), &Ask { gpus: 3, ..ASK }, &[]).unwrap(), ["i-b", "i-c"]);
        assert_eq!(chosen(&all(), &Ask { count: 4, ..ASK }, &[]).unwrap(), ["i-a", "i-b", "i-c", "i-d"]);
        // What others will take is theirs, of GPUs as of memory.
        assert_eq!(chosen(&all(), &Ask { count: 3, ..ASK }, &[("i-b", 3)]).unwrap(), ["i-a", "i-c", "i-d"]);
        // Rather on a machine that it should keep off than nowhere.
        assert_eq!(chosen(&all(), &Ask { avoid: &["i-a"], ..ASK }, &[]).unwrap(), ["i-b", "i-c"]);
        assert_eq!(chosen(&all(), &Ask { count: 4, avoid: &["i-a"], ..ASK }, &[]).unwrap().len(), 4);
    }

    #[test]
    fn members_are_near_each_other_where_that_is_possible_and_where_it_must_be() {
        let near = |count, is_required| chosen(&all(), &Ask { count, near: Some(is_required), ..ASK }, &[]);
        assert_eq!(near(2, true).unwrap(), ["i-a", "i-d"], "the group with the least idle GPUs");
        assert_eq!(near(3, false).unwrap(), ["i-a", "i-d", "i-b"], "group by group");
        let told = near(3, true).unwrap_err();
        assert_eq!(told, "of its 3 members 2 would find a machine now that agree in the attribute `rack`");
    }

    #[test]
    fn where_there_are_too_few_each_other_machine_says_why_not() {
        let mut some = all();
        some[0] = serde_json::from_value(json!({ "ec2InstanceId": "i-d", "status": "DRAINING" })).unwrap();
        some[2] = serde_json::from_value(json!({ "ec2InstanceId": "i-c", "status": "ACTIVE" })).unwrap();
        let told = chosen(&some, &Ask { gpus: 3, ..ASK }, &[]).unwrap_err();
        let why = "i-a: 2 of its 4 GPUs are free; i-c: its agent is not connected; i-d: it is being drained";
        assert_eq!(told, format!("of its 2 members 1 would find a machine now; {why}"));
        let told = chosen(&all(), &Ask { count: 5, ..ASK }, &[("i-b", 0), ("i-a", 0)]).unwrap_err();
        assert_eq!(told, "of its 5 members 4 would find a machine now");
        let mut full = all();
        full.truncate(1);
        let told = chosen(&full, &Ask { count: 1, ..ASK }, &[("i-d", 1), ("i-d", 1)]);
        assert_eq!(told.unwrap(), ["i-d"], "as much as is left is enough");
    }
}

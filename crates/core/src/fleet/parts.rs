//! How much of a device somebody holds: what its energy is divided by, and what counts of it.

use super::amount::Amount;
use super::node::{Gpu, MigInstance, Node, Sharing};
use super::place::{Fleet, Lease};
use super::request::{Gpus, Request};
use super::room::{Part, Room, does, part};

/// A device of a node that somebody holds, or a part of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// As it was given: of a GPU, or of an instance.
    pub id: String,
    /// The GPU, by its id.
    pub gpu: String,
    /// More than 0, at most 1.
    pub part: f64,
}

/// What a request has with the devices `ids` of this node. All instances of a GPU together are all of it.
pub fn held(node: &Node, ids: &[String], request: &Request) -> Vec<Held> {
    let one = |id: &String| {
        let found = node.gpus.iter().find_map(|gpu| Some((gpu, share(gpu, id, request)?)));
        let (gpu, part) = found.map_or((id.clone(), 1.0), |(gpu, part)| (gpu.id.clone(), part));
        Held { id: id.clone(), gpu, part }
    };
    ids.iter().map(one).collect()
}

fn share(gpu: &Gpu, id: &str, request: &Request) -> Option<f64> {
    if let Sharing::Mig { instances } = &gpu.sharing
        && let Some(mine) = instances.iter().find(|one| one.id == id)
    {
        let all: u32 = instances.iter().map(slices).sum();
        return Some(f64::from(slices(mine)) / f64::from(all.max(1)));
    }
    (gpu.id == id).then(|| part(gpu, &request.gpus).map_or(1.0, |part| part.to_f64().clamp(0.0, 1.0)))
}

/// The compute slices of a profile: 3 of `3g.20gb`.
fn slices(instance: &MigInstance) -> u32 {
    let digits = instance.profile.split('g').next().and_then(|digits| digits.rsplit('.').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(1)
}

/// How much of a GPU an instance of this profile is: of `2g.…` two sevenths.
pub fn of_profile(profile: &str) -> Amount {
    let sevenths = profile.split_once('g').and_then(|(slices, _)| slices.parse().ok());
    let slices = sevenths.filter(|slices| (1..=7).contains(slices)).unwrap_or(7u64);
    Amount::ten_thousandths(slices * 10_000 / 7)
}

impl Fleet {
    /// The largest part of a GPU that the request would be given on any node that could ever take it; `None`: it asks for
    /// no part, or there is no such node.
    pub fn most_of_a_gpu(&self, request: &Request) -> Option<Amount> {
        if !matches!(request.gpus, Gpus::Share(_) | Gpus::MemoryMib(_)) {
            return None;
        }
        let could = self.nodes.iter().map(|held| &held.node);
        let could = could.filter(|node| Room::sound(node).could(node, request).is_ok());
        let gpus = could.flat_map(|node| node.gpus.iter().filter(|gpu| does(gpu, &request.models)));
        gpus.filter_map(|gpu| part(gpu, &request.gpus)).max()
    }

    /// How much of GPUs a lease holds; `None`: some of its devices are not there now.
    pub fn gpus_of(&self, lease: &Lease) -> Option<Amount> {
        let node = &self.nodes[self.at(&lease.node)?].node;
        if lease.devices.len() < lease.ids.len() {
            return None;
        }
        let one = |(gpu, part): (usize, Part)| match (part, &node.gpus.get(gpu)?.sharing) {
            (Part::Share(part), _) => Some(part),
            (Part::Instance(at), Sharing::Mig { instances }) => Some(of_profile(&instances.get(at)?.profile)),
            (Part::Instance(_), _) => None,
        };
        lease.devices.iter().map(|device| one((device.gpu, device.part))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_device_are_one_device_together() {
        let mut node =
            Node::new("n", Amount::ONE, 0, vec![Gpu::new("GPU-a", "A100", 80_000), Gpu::new("GPU-b", "A100", 1)]);
        let told = |node: &Node, gpus: Gpus, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let all = held(node, &ids, &Request { gpus, ..Request::default() });
            all.iter().map(|one| format!("{} {} {}", one.id, one.gpu, one.part)).collect::<Vec<_>>()
        };
        assert_eq!(told(&node, Gpus::Count(2), &["GPU-a", "GPU-b"]), ["GPU-a GPU-a 1", "GPU-b GPU-b 1"]);
        node.gpus[0].sharing = Sharing::TimeSlicing { replicas: 4 };
        assert_eq!(told(&node, Gpus::Share(Amount::ten_thousandths(2_500)), &["GPU-a"]), ["GPU-a GPU-a 0.25"]);
        assert_eq!(told(&node, Gpus::MemoryMib(30_000), &["GPU-a"]), ["GPU-a GPU-a 0.5"], "as placement counts it");
        let mig = |id: &str, profile: &str| MigInstance { id: id.into(), profile: profile.into() };
        node.gpus[0].sharing =
            Sharing::Mig { instances: vec![mig("MIG-1", "3g.40gb"), mig("MIG-2", "1g.10gb"), mig("MIG-3", "odd")] };
        let asked = Gpus::Mig { profile: "3g.40gb".into(), count: 1 };
        assert_eq!(told(&node, asked, &["MIG-1", "MIG-3"]), ["MIG-1 GPU-a 0.6", "MIG-3 GPU-a 0.2"]);
        assert_eq!(told(&node, Gpus::Count(1), &["GPU-gone"]), ["GPU-gone GPU-gone 1"]);
    }
}

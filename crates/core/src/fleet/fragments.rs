//! How much of what is idle the usual work could not use: the measure that the policy `fgd` keeps small.
//!
//! From Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): on one node, for one kind of task, idle GPU is a
//! fragment if the task does not run there, or lies on a GPU with less left than the task needs; a node's measure is
//! the mean over the kinds, weighted by how often they come. To it we add what their measure sees too late: GPUs that
//! the CPU which is left will not suffice for, at the CPU per GPU that the usual work takes.

use std::collections::BTreeMap;

use super::amount::Amount;
use super::request::{Gpus, Request};
use super::room::{Left, Room};

/// Kinds of tasks are looked at from the most frequent on, until so much of all tasks is covered.
const COVERED: f64 = 0.5;
/// What a stranded GPU counts, beside a fragment of one.
const STRANDED: f64 = 2.0;

/// Kinds of tasks that are counted; beyond, the rare ones are forgotten.
const KINDS: usize = 512;

/// How often which kind of task came: cores, and what of GPUs.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: BTreeMap<(Amount, Option<Need>), u64>,
}

/// What usually comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Workload {
    kinds: Vec<Kind>,
    /// Cores per GPU; 0: nothing with GPUs comes.
    cores_per_gpu: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Kind {
    cpu: Amount,
    /// Wholly free GPUs, or one with this much left.
    need: Need,
    /// How often, of all kinds that are looked at.
    weight: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Whole(u32),
    Share(Amount),
}

impl Tally {
    pub fn count(&mut self, request: &Request) {
        let need = match request.gpus {
            Gpus::Count(count) => Some(Need::Whole(count)),
            Gpus::Share(share) => Some(Need::Share(share)),
            // How much of a GPU these are differs from node to node.
            Gpus::None | Gpus::MemoryMib(_) | Gpus::Mig { .. } => None,
        };
        *self.counts.entry((request.cpu, need)).or_default() += 1;
    }

    /// Lets what came long ago count less.
    pub fn halve(&mut self) {
        self.counts.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
    }

    pub fn is_large(&self) -> bool {
        self.counts.len() > KINDS
    }

    pub fn workload(&self) -> Workload {
        let (mut cores, mut gpus, mut all) = (0.0, 0.0, 0);
        for ((cpu, need), count) in &self.counts {
            if let Some(need) = need {
                cores += cpu.to_f64() * *count as f64;
                gpus += need.amount().to_f64() * *count as f64;
            }
            all += count;
        }
        let mut counts: Vec<_> = self.counts.iter().map(|(kind, count)| (*kind, *count)).collect();
        // Stable: of kinds that come as often, the smaller first.
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let (mut kinds, mut covered) = (Vec::new(), 0);
        for ((cpu, need), count) in counts {
            if covered as f64 >= COVERED * all as f64 {
                break;
            }
            covered += count;
            // Tasks without GPUs can use no idle GPU anywhere: the same for all nodes.
            let Some(need) = need else { continue };
            kinds.push(Kind { cpu, need, weight: count as f64 });
        }
        let total: f64 = kinds.iter().map(|kind| kind.weight).sum();
        for kind in &mut kinds {
            kind.weight /= total;
        }
        Workload { kinds, cores_per_gpu: if gpus > 0.0 { cores / gpus } else { 0.0 } }
    }
}

impl Workload {
    /// The usual work, from what came.
    pub fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Workload {
        let mut tally = Tally::default();
        requests.into_iter().for_each(|request| tally.count(request));
        tally.workload()
    }

    /// GPUs of the node that lie idle to no use.
    pub fn waste(&self, room: &Room) -> f64 {
        self.fragments(room) + STRANDED * self.stranded(room)
    }

    /// Idle GPUs that the usual task cannot use.
    pub fn fragments(&self, room: &Room) -> f64 {
        let idle = room.idle_gpus().to_f64();
        let of_kind = |kind: &Kind| {
            let least = kind.need.each();
            let usable = || room.gpus.iter().map(Left::share).filter(|left| *left >= least);
            let runs = kind.cpu <= room.cpu && usable().count() >= kind.need.count();
            match runs {
                true => idle - usable().sum::<Amount>().to_f64(),
                false => idle,
            }
        };
        self.kinds.iter().map(|kind| kind.weight * of_kind(kind)).sum()
    }

    /// Idle GPUs beyond what the CPU that is left suffices for.
    fn stranded(&self, room: &Room) -> f64 {
        if self.cores_per_gpu == 0.0 {
            return 0.0;
        }
        (room.idle_gpus().to_f64() - room.cpu.to_f64() / self.cores_per_gpu).max(0.0)
    }
}

impl Need {
    fn amount(self) -> Amount {
        match self {
            Need::Whole(count) => Amount::whole(count),
            Need::Share(share) => share,
        }
    }

    /// What has to be left on each GPU that it takes.
    fn each(self) -> Amount {
        match self {
            Need::Whole(_) => Amount::ONE,
            Need::Share(share) => share,
        }
    }

    fn count(self) -> usize {
        match self {
            Need::Whole(count) => count as usize,
            Need::Share(_) => 1,
        }
    }
}

//! Which of the nodes that fit, and which of its GPUs.

use std::fmt;
use std::str::FromStr;

use super::amount::Amount;
use super::fragments::Workload;
use super::node::Node;
use super::request::Request;
use super::room::{Device, Part, Room, Taking};

/// What the room of a node counts, beside a fragment of a GPU: enough to decide between nodes where as little is wasted.
const FULLER: f64 = 1e-6;

/// What placement is after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Fill nodes up, so that whole ones stay free.
    Pack,
    /// Keep load even.
    Spread,
    /// Leave as little idle as possible that the usual work could not use.
    #[default]
    Fgd,
}

impl Policy {
    pub const ALL: [(&str, Policy); 3] = [("pack", Policy::Pack), ("spread", Policy::Spread), ("fgd", Policy::Fgd)];

    /// Which of the nodes with room it takes.
    pub fn aim(self) -> &'static str {
        match self {
            Policy::Pack => "of the nodes with room the fullest",
            Policy::Spread => "of the nodes with room the emptiest",
            Policy::Fgd => "of the nodes with room the one that is left with the least idle GPU to no use",
        }
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        let found = Policy::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, policy)| policy).ok_or_else(|| format!("there is no policy `{text}`: `pack`, `spread` or `fgd`"))
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Policy::ALL.into_iter().find(|(_, policy)| policy == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// The most that any node of the fleet has: what loads are measured by.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scale {
    pub cpu: f64,
    pub gpus: f64,
}

impl Scale {
    /// How full the room could still be made, 0 to 1: idle CPU and GPUs, in equal parts.
    fn idle(self, room: &Room) -> f64 {
        let part = |left: f64, most: f64| if most > 0.0 { left / most } else { 0.0 };
        0.5 * part(room.cpu.to_f64(), self.cpu) + 0.5 * part(room.idle_gpus().to_f64(), self.gpus)
    }
}

/// The worth of a node for a request, and the devices that it would take there.
#[derive(Debug, Clone)]
pub struct Choice {
    pub worth: f64,
    pub devices: Vec<Device>,
}

/// By what a worth is measured.
#[derive(Debug, Clone, Copy)]
pub struct Measure<'a> {
    pub policy: Policy,
    pub workload: &'a Workload,
    pub scale: Scale,
}

impl Measure<'_> {
    /// What the node is worth to the request, which fits into its room by `taking`. The greater the better; only the
    /// worths of one request compare. The room is as it was afterwards.
    pub fn choose(self, node: &Node, room: &mut Room, request: &Request, taking: Taking) -> Choice {
        let candidates: Vec<Vec<Device>> = match taking {
            Taking::These(devices) => vec![devices],
            Taking::Whole(count) => vec![room.whole(node, request, count)],
            Taking::OneOf(parts) => {
                let one = |(gpu, part)| vec![Device { gpu, part: Part::Share(part) }];
                self.candidates(parts, room).into_iter().map(one).collect()
            }
        };
        // A node is as good as what it is afterwards, or as what becomes better by the request; and of those where that is
        // the same, the fuller one.
        let before = if self.policy == Policy::Fgd { self.worth(node, room) } else { 0.0 };
        let mut best = Choice { worth: f64::NEG_INFINITY, devices: Vec::new() };
        for devices in candidates {
            room.change(request, &devices, true);
            let fuller = if self.policy == Policy::Fgd { FULLER * self.scale.idle(room) } else { 0.0 };
            let worth = self.worth(node, room) - before - fuller;
            room.change(request, &devices, false);
            if worth > best.worth {
                best = Choice { worth, devices };
            }
        }
        best
    }

    fn worth(self, node: &Node, room: &Room) -> f64 {
        match self.policy {
            Policy::Pack => -self.scale.idle(room),
            // By each node's own size, so that small ones are not left for last.
            Policy::Spread => Scale { cpu: node.cpu.to_f64(), gpus: node.gpus.len() as f64 }.idle(room),
            Policy::Fgd => -self.workload.waste(room),
        }
    }

    /// The GPUs of one node whose part is looked at: what is left on each does not change the load of the node, so for
    /// load alone one is enough; and those with as much left are alike.
    fn candidates(self, mut parts: Vec<(usize, Amount)>, room: &Room) -> Vec<(usize, Amount)> {
        let left = |(gpu, part): &(usize, Amount)| room.gpus[*gpu].share() - *part;
        parts.sort_by_key(left);
        match self.policy {
            Policy::Pack => parts.truncate(1),
            Policy::Spread => parts = parts.pop().into_iter().collect(),
            Policy::Fgd => parts.dedup_by_key(|one| left(one)),
        }
        parts
    }
}

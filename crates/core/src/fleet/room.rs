//! What is left of one node, and whether a request fits into it: with devices, or with the reason why not.
//!
//! Invariant: a device is never held beyond what it has; what was taken is given back exactly as it was taken.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::DEFAULT_QUEUE;
use super::amount::Amount;
use super::node::{Effect, Gpu, Node, Sharing, Standing};
use super::request::{Gpus, Request, Toleration};

/// What is left.
#[derive(Debug, Clone, PartialEq)]
pub struct Room {
    pub cpu: Amount,
    /// Below zero where the node has less than when its leases began; so can the amounts and slots be.
    pub memory_mib: i64,
    custom: BTreeMap<String, Amount>,
    /// How many more can have something of it; `None`: that is not counted.
    pub slots: Option<i64>,
    /// Of each GPU of the node, in its order.
    pub gpus: Vec<Left>,
}

/// What is left of one GPU.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    Share(Amount),
    /// Which of its instances are free, in their order.
    Instances(Vec<bool>),
    /// It is faulty.
    Nothing,
}

/// A device, or a part of one, of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The place of the GPU on its node.
    pub gpu: usize,
    pub part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Share(Amount),
    /// The place of the instance on its GPU.
    Instance(usize),
}

/// Why a request does not fit a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    Standing(Standing),
    Taint(String),
    /// It takes no tasks of this queue.
    Queue(String),
    /// What its labels do not meet.
    Labels(String),
    /// So many have something of it, and no more can.
    Slots {
        of: u32,
    },
    Cpu {
        asked: Amount,
        free: Amount,
    },
    Memory {
        asked: u64,
        free: u64,
    },
    Custom {
        name: String,
        asked: Amount,
        free: Amount,
    },
    /// It has no GPU of a model that will do.
    Model(Vec<String>),
    /// Devices or parts that would do, and how many of them are free.
    Gpus {
        asked: Gpus,
        free: usize,
        of: usize,
        /// How many of them must not be used, and why the first of those.
        faulty: Option<(usize, String)>,
    },
    /// Its GPUs are not shared in a way that could give it.
    Sharing(Gpus),
    /// So much memory of one is asked for, and none of its GPUs has more than this; 0: nobody told how much they have.
    GpuMemory {
        asked: u64,
        most: u64,
    },
}

impl Miss {
    /// How far the request came: of two misses, the greater is the nearer.
    pub fn nearness(&self) -> u8 {
        match self {
            Miss::Queue(_) | Miss::Standing(_) => 0,
            Miss::Labels(_) => 1,
            Miss::Taint(_) => 2,
            Miss::Model(_) => 3,
            Miss::Custom { .. } => 4,
            Miss::Sharing(_) | Miss::GpuMemory { .. } => 5,
            Miss::Cpu { .. } | Miss::Memory { .. } | Miss::Gpus { .. } | Miss::Slots { .. } => 6,
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Miss::Standing(Standing::Down(why)) => write!(f, "it is down: {why}"),
            Miss::Standing(_) => f.write_str("it is cordoned"),
            Miss::Taint(taint) => write!(f, "its taint `{taint}` is not tolerated"),
            Miss::Queue(queue) => write!(f, "it does not serve the queue `{queue}`"),
            Miss::Slots { of: 1 } => f.write_str("its one slot is taken"),
            Miss::Slots { of } => write!(f, "all {of} slots are taken"),
            Miss::Labels(expression) => write!(f, "its labels do not meet `{expression}`"),
            Miss::Cpu { asked, free } => write!(f, "{asked} cores are asked for and {free} are free"),
            Miss::Memory { asked, free } => write!(f, "{asked} MiB of memory are asked for and {free} are free"),
            Miss::Custom { name, asked, free } => write!(f, "{asked} of `{name}` are asked for and {free} are free"),
            Miss::Model(models) => write!(f, "it has no GPU of the model {}", models.join(" or ")),
            Miss::Gpus { asked, free, of, faulty } => {
                match free {
                    0 => write!(f, "{asked} asked for; none of its {of} has as much free")?,
                    free => write!(f, "{asked} asked for; {free} of its {of} free")?,
                }
                match faulty {
                    None => Ok(()),
                    Some((1, why)) => write!(f, ", and one cannot be used: {why}"),
                    Some((count, why)) => write!(f, ", and {count} cannot be used, such as: {why}"),
                }
            }
            Miss::Sharing(asked @ Gpus::Mig { .. }) => write!(f, "{asked} asked for; its GPUs have none"),
            Miss::Sharing(asked) => write!(f, "{asked} asked for; its GPUs are not shared"),
            Miss::GpuMemory { asked, most: 0 } => {
                write!(f, "{asked} MiB of a GPU asked for; nobody told how much memory its GPUs have")
            }
            Miss::GpuMemory { asked, most } => {
                write!(f, "{asked} MiB of a GPU asked for; its GPUs have {most} at most")
            }
        }
    }
}

impl Device {
    /// A part of the GPU at this place.
    pub fn share(gpu: usize, part: Amount) -> Device {
        Device { gpu, part: Part::Share(part) }
    }
}

/// What a request would take of one GPU.
pub enum Taking {
    /// So many of those that are wholly free.
    Whole(u32),
    /// A part of any one of these: the GPU's place, and the part.
    OneOf(Vec<(usize, Amount)>),
    /// Exactly these.
    These(Vec<Device>),
}

impl Room {
    /// All of the node that can be used.
    pub fn of(node: &Node) -> Room {
        let mut room = Room::sound(node);
        for (left, _) in room.gpus.iter_mut().zip(&node.gpus).filter(|(_, gpu)| gpu.fault.is_some()) {
            *left = Left::Nothing;
        }
        room
    }

    /// All of the node, were none of its GPUs faulty.
    pub fn sound(node: &Node) -> Room {
        let left = |gpu: &Gpu| match &gpu.sharing {
            Sharing::Mig { instances } => Left::Instances(vec![true; instances.len()]),
            _ => Left::Share(Amount::ONE),
        };
        Room {
            cpu: node.cpu,
            memory_mib: i64::try_from(node.memory_mib).unwrap_or(i64::MAX),
            custom: node.custom.clone(),
            slots: node.slots.map(i64::from),
            gpus: node.gpus.iter().map(left).collect(),
        }
    }

    /// The undivided GPUs and parts of GPUs that nobody has; instances count by their number.
    pub fn idle_gpus(&self) -> Amount {
        self.gpus.iter().map(Left::share).sum()
    }

    /// How much is left of something with a name of its own.
    pub(super) fn custom(&self, name: &str) -> Amount {
        self.custom.get(name).copied().unwrap_or_default()
    }

    /// How many GPUs are wholly free.
    pub fn free_gpus(&self) -> usize {
        self.gpus.iter().filter(|left| left.share() == Amount::ONE).count()
    }

    /// What the request would take of the node's GPUs; the devices of whole GPUs and of shares are still to be chosen.
    pub fn fits(&self, node: &Node, request: &Request) -> Result<Taking, Miss> {
        if node.standing != Standing::Ready {
            return Err(Miss::Standing(node.standing.clone()));
        }
        self.takes(node, request)
    }

    /// The same, whether or not the node takes new work now.
    pub fn takes(&self, node: &Node, request: &Request) -> Result<Taking, Miss> {
        admits(node, request, false)?;
        self.has(node, request)
    }

    /// The same, were its taints gone and the labels that people changed as the request wants them.
    pub fn could(&self, node: &Node, request: &Request) -> Result<Taking, Miss> {
        admits(node, request, true)?;
        self.has(node, request)
    }

    fn has(&self, node: &Node, request: &Request) -> Result<Taking, Miss> {
        if self.slots.is_some_and(|left| left <= 0) {
            return Err(Miss::Slots { of: node.slots.unwrap_or_default() });
        }
        if request.cpu > self.cpu.max(Amount::ZERO) {
            return Err(Miss::Cpu { asked: request.cpu, free: self.cpu.max(Amount::ZERO) });
        }
        if mib(request) > self.memory_mib.max(0) {
            let free = u64::try_from(self.memory_mib).unwrap_or_default();
            return Err(Miss::Memory { asked: request.memory_mib, free });
        }
        for (name, asked) in &request.custom {
            let free = self.custom(name);
            if *asked > free {
                return Err(Miss::Custom { name: name.clone(), asked: *asked, free });
            }
        }
        self.gpus_for(node, request)
    }

    pub(super) fn gpus_for(&self, node: &Node, request: &Request) -> Result<Taking, Miss> {
        if request.gpus == Gpus::None {
            return Ok(Taking::These(Vec::new()));
        }
        let does = |gpu: &Gpu| does(gpu, &request.models);
        let usable = || node.gpus.iter().zip(&self.gpus).enumerate().filter(|(_, (gpu, _))| does(gpu));
        if usable().next().is_none() {
            return Err(match node.gpus.is_empty() || request.models.is_empty() {
                true => Miss::Gpus { asked: request.gpus.clone(), free: 0, of: node.gpus.len(), faulty: None },
                false => Miss::Model(request.models.clone()),
            });
        }
        let missed = |free: usize, of: usize| {
            let mut faulty = usable().filter(|(_, (_, left))| **left == Left::Nothing).map(|(_, (gpu, _))| gpu);
            let first = faulty.next().map(|gpu| {
                let why = gpu.fault.as_deref().unwrap_or("it was not there");
                (faulty.count() + 1, format!("`{}`, {why}", gpu.id))
            });
            Miss::Gpus { asked: request.gpus.clone(), free, of, faulty: first }
        };
        match &request.gpus {
            Gpus::None => Ok(Taking::These(Vec::new())),
            Gpus::Count(count) => {
                let free = usable().filter(|(_, (_, left))| left.share() == Amount::ONE).count();
                if free >= *count as usize { Ok(Taking::Whole(*count)) } else { Err(missed(free, usable().count())) }
            }
            Gpus::Share(_) | Gpus::MemoryMib(_) => {
                let parts = usable().filter_map(|(at, (gpu, left))| Some((at, part(gpu, &request.gpus)?, left)));
                let parts: Vec<_> = parts.collect();
                if parts.is_empty() {
                    let most = usable().map(|(_, (gpu, _))| gpu.memory_mib).max().unwrap_or_default();
                    return Err(match &request.gpus {
                        Gpus::MemoryMib(asked) if *asked > most => Miss::GpuMemory { asked: *asked, most },
                        asked => Miss::Sharing(asked.clone()),
                    });
                }
                let free = parts.into_iter().filter(|(_, part, left)| left.share() >= *part);
                let free: Vec<_> = free.map(|(at, part, _)| (at, part)).collect();
                if free.is_empty() { Err(missed(0, usable().count())) } else { Ok(Taking::OneOf(free)) }
            }
            Gpus::Mig { profile, count } => {
                let (mut devices, mut known) = (Vec::new(), 0);
                for (at, (gpu, left)) in usable() {
                    let Sharing::Mig { instances } = &gpu.sharing else { continue };
                    let Left::Instances(free) = left else {
                        known += instances.iter().filter(|one| one.profile == *profile).count();
                        continue;
                    };
                    let fitting =
                        instances.iter().zip(free).enumerate().filter(|(_, (one, _))| one.profile == *profile);
                    for (instance, (_, is_free)) in fitting {
                        known += 1;
                        if *is_free && devices.len() < *count as usize {
                            devices.push(Device { gpu: at, part: Part::Instance(instance) });
                        }
                    }
                }
                match (known, devices.len() == *count as usize) {
                    (0, _) => Err(Miss::Sharing(request.gpus.clone())),
                    (_, true) => Ok(Taking::These(devices)),
                    (_, false) => Err(missed(devices.len(), known)),
                }
            }
        }
    }

    /// The first wholly free GPUs that will do; those that others could have parts of come last.
    pub fn whole(&self, node: &Node, request: &Request, count: u32) -> Vec<Device> {
        let free = |is_shared: bool| {
            let all = node.gpus.iter().zip(&self.gpus).enumerate();
            let is_one = move |gpu: &Gpu| gpu.sharing.replicas().is_some() == is_shared && does(gpu, &request.models);
            all.filter(move |(_, (gpu, left))| left.share() == Amount::ONE && is_one(gpu))
        };
        let free = free(false).chain(free(true));
        free.take(count as usize).map(|(gpu, _)| Device::share(gpu, Amount::ONE)).collect()
    }

    /// Takes, or gives back, what a request has with these devices.
    pub fn change(&mut self, request: &Request, devices: &[Device], take: bool) {
        let change = |left: &mut Amount, by: Amount| if take { *left -= by } else { *left += by };
        change(&mut self.cpu, request.cpu);
        match take {
            true => self.memory_mib -= mib(request),
            false => self.memory_mib += mib(request),
        }
        if let Some(left) = &mut self.slots {
            *left += if take { -1 } else { 1 };
        }
        for (name, by) in &request.custom {
            change(self.custom.entry(name.clone()).or_default(), *by);
        }
        for device in devices {
            match (&mut self.gpus[device.gpu], device.part) {
                (Left::Share(left), Part::Share(by)) => change(left, by),
                (Left::Instances(free), Part::Instance(at)) => free[at] = !take,
                // It became faulty, or is shared in another way, since.
                _ => {}
            }
        }
    }
}

impl Left {
    pub fn share(&self) -> Amount {
        match self {
            Left::Share(amount) => (*amount).max(Amount::ZERO),
            Left::Instances(_) | Left::Nothing => Amount::ZERO,
        }
    }
}

/// Whether the GPU is of one of these models.
pub(super) fn does(gpu: &Gpu, models: &[String]) -> bool {
    models.is_empty() || models.iter().any(|model| is_model(&gpu.model, model))
}

/// Whether `wanted` means a device that the driver calls `told`: by whole words in a row, in capitals or not. `A100` and
/// `a100 sxm4` mean `NVIDIA A100-SXM4-80GB`, and `A10` does not.
pub fn is_model(told: &str, wanted: &str) -> bool {
    fn words(text: &str) -> impl Iterator<Item = &str> + Clone {
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty())
    }
    if told == wanted {
        return true;
    }
    let (wanted, mut rest) = (words(wanted), words(told));
    if wanted.clone().next().is_none() {
        return false;
    }
    loop {
        let mut from_here = rest.clone();
        if wanted.clone().all(|word| from_here.next().is_some_and(|told| told.eq_ignore_ascii_case(word))) {
            return true;
        }
        if rest.next().is_none() {
            return false;
        }
    }
}

fn mib(request: &Request) -> i64 {
    // No machine has a millionth of it; so sums cannot overflow.
    i64::try_from(request.memory_mib).unwrap_or(i64::MAX).min(1 << 50)
}

/// The devices of these ids, as parts that the request would have of them. One that the node no longer has is left out.
pub fn devices(node: &Node, request: &Request, ids: &[String]) -> Vec<Device> {
    let find = |id: &String| {
        node.gpus.iter().enumerate().find_map(|(at, gpu)| match &gpu.sharing {
            Sharing::Mig { instances } => {
                let instance = instances.iter().position(|one| one.id == *id)?;
                Some(Device { gpu: at, part: Part::Instance(instance) })
            }
            _ => {
                let part = part(gpu, &request.gpus).unwrap_or(Amount::ONE);
                (gpu.id == *id).then_some(Device { gpu: at, part: Part::Share(part) })
            }
        })
    };
    ids.iter().filter_map(find).collect()
}

/// The part of this GPU that the request would have; `None`: it is not given in parts.
pub(super) fn part(gpu: &Gpu, asked: &Gpus) -> Option<Amount> {
    match (asked, gpu.sharing.replicas()) {
        (Gpus::Share(share), Some(replicas)) => Some(share.up_to_part(replicas)),
        (Gpus::MemoryMib(memory), Some(replicas)) if *memory <= gpu.memory_mib => {
            // Rounded up, so that the part has as much.
            let share = Amount::ten_thousandths((memory * 10_000).div_ceil(gpu.memory_mib.max(1)));
            Some(share.up_to_part(replicas))
        }
        (Gpus::MemoryMib(memory), None) if *memory <= gpu.memory_mib && gpu.sharing == Sharing::Whole => {
            Some(Amount::ONE)
        }
        _ => None,
    }
}

/// Whether the request could ever have something of this device.
pub(super) fn is_wanted(node: &Node, device: Device, request: &Request) -> bool {
    let Some(gpu) = node.gpus.get(device.gpu).filter(|gpu| does(gpu, &request.models)) else { return false };
    match (&request.gpus, &gpu.sharing, device.part) {
        (Gpus::None, _, _) => false,
        (Gpus::Count(_), sharing, _) => !matches!(sharing, Sharing::Mig { .. }),
        (Gpus::Share(_) | Gpus::MemoryMib(_), _, _) => part(gpu, &request.gpus).is_some(),
        (Gpus::Mig { profile, .. }, Sharing::Mig { instances }, Part::Instance(at)) => {
            instances.get(at).is_some_and(|one| one.profile == *profile)
        }
        (Gpus::Mig { .. }, _, _) => false,
    }
}

/// Whether work like this may go to the node, room or not; `ever`: also when people took back what they did to it.
fn admits(node: &Node, request: &Request, ever: bool) -> Result<(), Miss> {
    if !node.serves(request.queue.as_deref()) {
        return Err(Miss::Queue(request.queue.clone().unwrap_or_else(|| DEFAULT_QUEUE.to_owned())));
    }
    let hard = node.taints.iter().filter(|taint| taint.effect != Effect::PreferNoSchedule);
    for taint in hard.filter(|_| !ever) {
        // What would end it again soon takes nothing new.
        let stays = |one: &Toleration| taint.effect != Effect::NoExecute || one.seconds.is_none();
        if !request.tolerations.iter().any(|one| one.tolerates(taint) && stays(one)) {
            return Err(Miss::Taint(taint.to_string()));
        }
    }
    let is_open = |key: &String| ever && node.marked.contains(key);
    for (key, value) in request.node_selector.iter().filter(|(key, _)| !is_open(key)) {
        if node.labels.get(key) != Some(value) {
            return Err(Miss::Labels(format!("{key} = {value}")));
        }
    }
    if !request.required.is_empty() && !request.required.iter().any(|term| term.holds_but(&node.labels, is_open)) {
        let terms = request
            .required
            .iter()
            .map(|term| term.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "));
        return Err(Miss::Labels(terms.collect::<Vec<_>>().join(", or ")));
    }
    Ok(())
}

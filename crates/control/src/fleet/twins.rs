//! Nodes that are one machine: a worker beside the server, two workers on a host, a host that is reached in two ways.
//!
//! Pure. Invariant: of all nodes, one at most has a device without a fault. Configured nodes come before workers, in their
//! order, and workers in the order in which they enrolled; so whoever comes later takes nothing from whoever is there,
//! whatever it says of itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use pitcrew_core::fleet::{Amount, Gpu, Sharing};

use super::assemble::Assembled;
use super::seen::Seen;

/// A node among all nodes.
pub struct One<'a> {
    pub assembled: Assembled,
    pub seen: Option<&'a Seen>,
    /// When it enrolled, if it is a worker.
    pub enrolled: Option<Timestamp>,
}

/// Who has a device.
struct Holder<'a> {
    node: String,
    boot: Option<&'a str>,
    /// It is not reported any more.
    is_gone: bool,
    gpu: Gpu,
}

/// Takes from each node the devices that one before it has, and says of those that are one machine what they count
/// together.
pub fn sort_out(nodes: &mut [One<'_>]) {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    // Of equal ones the order stays.
    order.sort_by_key(|at| nodes[*at].enrolled);
    let mut holders: BTreeMap<String, Vec<Holder<'_>>> = BTreeMap::new();
    for at in &order {
        let One { assembled, seen, .. } = &mut nodes[*at];
        let Some(seen) = seen else { continue };
        let boot = seen.boot.as_deref();
        let name = assembled.node.name.clone();
        for gpu in &mut assembled.node.gpus {
            // What is declared and not there is nobody's.
            let Some(told) = seen.gpus.iter().find(|told| told.id == gpu.id && !told.is_pretend()) else { continue };
            let all = holders.entry(gpu.id.clone()).or_default();
            // A device that is gone from another machine was moved; gone from this one, it is the same trouble.
            let has = |other: &&Holder<'_>| {
                overlap(&other.gpu, gpu) && (!other.is_gone || (boot.is_some() && boot == other.boot))
            };
            if let Some(other) = all.iter().find(has) {
                let why =
                    format!("it is also on the node `{}`, which has it first: it is used there alone", other.node);
                gpu.fault = gpu.fault.take().or(Some(why));
                continue;
            }
            all.push(Holder { node: name.clone(), boot, is_gone: told.gone_since.is_some(), gpu: gpu.clone() });
        }
    }
    count_once(nodes);
}

/// Whether two nodes mean the same part of a device; instances of it are devices of their own.
fn overlap(one: &Gpu, other: &Gpu) -> bool {
    match (&one.sharing, &other.sharing) {
        (Sharing::Mig { instances: a }, Sharing::Mig { instances: b }) => {
            a.is_empty() || b.is_empty() || a.iter().any(|a| b.iter().any(|b| a.id == b.id))
        }
        _ => true,
    }
}

/// Nodes on one machine that together count more than it has say so, and what to do.
fn count_once(nodes: &mut [One<'_>]) {
    let mut machines: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        let boot = node.seen.filter(|seen| seen.down.is_none()).and_then(|seen| seen.boot.as_deref());
        machines.entry(boot.unwrap_or_default()).or_default().push(at);
    }
    machines.remove("");
    let mut remarks = Vec::new();
    for group in machines.into_values().filter(|group| group.len() > 1) {
        let all = || group.iter().map(|at| &nodes[*at]);
        let cores = all().filter_map(|one| one.seen?.cores).max().map_or(Amount::ZERO, Amount::whole);
        let memory = all().filter_map(|one| one.seen?.memory_mib).max().unwrap_or(0);
        let cpu: Amount = all().map(|one| one.assembled.node.cpu).sum();
        let mib = all().map(|one| one.assembled.node.memory_mib).fold(0, u64::saturating_add);
        if cpu <= cores && mib <= memory {
            continue;
        }
        let names: BTreeSet<&str> = all().map(|one| one.assembled.node.name.as_str()).collect();
        for at in &group {
            let mine = nodes[*at].assembled.node.name.as_str();
            let others: Vec<String> = names.iter().filter(|name| **name != mine).map(|n| format!("`{n}`")).collect();
            let remark = format!(
                "it is one machine with {}: together they count {cpu} cores of {cores} and {mib} MiB of {memory}; give each \
                 its part, with `cpu` and `memory` in the configuration, or `--cpu` and `--memory` of a worker",
                others.join(", ")
            );
            remarks.push((*at, remark));
        }
    }
    for (at, remark) in remarks {
        nodes[at].assembled.remarks.push(remark);
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_exec::gpu::MigDevice;

    use super::super::assemble::assemble;
    use super::super::config::NodeConfig;
    use super::super::seen::SeenGpu;
    use super::*;

    fn gpu(id: &str) -> SeenGpu {
        SeenGpu {
            id: id.into(),
            model: "NVIDIA A100".into(),
            memory_mib: Some(81920),
            mig: Vec::new(),
            fault: None,
            gone_since: None,
        }
    }

    fn seen(boot: &str, gpus: Vec<SeenGpu>) -> Seen {
        Seen { cores: Some(64), memory_mib: Some(1000), boot: Some(boot.into()), gpus, ..Seen::default() }
    }

    /// The faults of each device of each node, after the nodes were put together.
    fn faults(nodes: &[(&str, Option<i64>, &Seen)]) -> Vec<String> {
        let mut all: Vec<One<'_>> = nodes
            .iter()
            .map(|(name, enrolled, seen)| One {
                assembled: assemble(&NodeConfig::plain(name), Some(seen), None),
                seen: Some(seen),
                enrolled: enrolled.map(|second| Timestamp::from_second(second).unwrap()),
            })
            .collect();
        sort_out(&mut all);
        let of = |one: &One<'_>| {
            let name = one.assembled.node.name.clone();
            let gpu = move |gpu: &Gpu| format!("{name} {} {}", gpu.id, gpu.fault.as_deref().unwrap_or("ok"));
            one.assembled.node.gpus.iter().map(gpu).collect::<Vec<_>>()
        };
        all.iter().flat_map(of).collect()
    }

    const TAKEN: &str = "it is also on the node `local`, which has it first: it is used there alone";

    #[test]
    fn a_device_is_that_of_the_first_node_which_has_it() {
        let machine = seen("m", vec![gpu("GPU-a"), gpu("GPU-b")]);
        let foreign = seen("other", vec![gpu("GPU-b"), gpu("GPU-c")]);
        assert_eq!(
            faults(&[("late", Some(2), &machine), ("liar", Some(1), &foreign), ("local", None, &machine)]),
            [
                format!("late GPU-a {TAKEN}"),
                format!("late GPU-b {TAKEN}"),
                format!("liar GPU-b {TAKEN}"),
                "liar GPU-c ok".to_owned(),
                "local GPU-a ok".to_owned(),
                "local GPU-b ok".to_owned(),
            ]
        );
        let pretend = seen("m", vec![gpu("pretend-0")]);
        assert_eq!(
            faults(&[("local", None, &pretend), ("w", Some(1), &pretend)]),
            ["local pretend-0 ok", "w pretend-0 ok"]
        );
    }

    #[test]
    fn a_device_that_was_moved_is_used_where_it_is_and_one_that_fails_nowhere() {
        let gone = SeenGpu { gone_since: Some(Timestamp::UNIX_EPOCH), fault: Some("gone".into()), ..gpu("GPU-a") };
        let was = seen("m", vec![gone]);
        let now = seen("other", vec![gpu("GPU-a")]);
        assert_eq!(faults(&[("local", None, &was), ("s22", None, &now)]), ["local GPU-a gone", "s22 GPU-a ok"]);
        let same = seen("m", vec![gpu("GPU-a")]);
        let both = faults(&[("local", None, &was), ("w", Some(1), &same)]);
        assert_eq!(both, ["local GPU-a gone".to_owned(), format!("w GPU-a {TAKEN}")]);
    }

    #[test]
    fn instances_of_one_device_may_be_on_several_nodes() {
        let cut = |instances: &[&str]| {
            let mig = |id: &&str| MigDevice { uuid: (*id).into(), profile: "1g.10gb".into() };
            seen("m", vec![SeenGpu { mig: instances.iter().map(mig).collect(), ..gpu("GPU-a") }])
        };
        let (one, other, both) = (cut(&["MIG-1"]), cut(&["MIG-2"]), cut(&["MIG-1", "MIG-2"]));
        assert_eq!(faults(&[("local", None, &one), ("w", Some(1), &other)]), ["local GPU-a ok", "w GPU-a ok"]);
        let taken = faults(&[("local", None, &one), ("w", Some(1), &both)]);
        assert_eq!(taken, ["local GPU-a ok".to_owned(), format!("w GPU-a {TAKEN}")]);
        let whole = seen("m", vec![gpu("GPU-a")]);
        let taken = faults(&[("local", None, &one), ("w", Some(1), &whole)]);
        assert_eq!(taken, ["local GPU-a ok".to_owned(), format!("w GPU-a {TAKEN}")]);
    }

    #[test]
    fn nodes_that_count_one_machine_twice_say_so_until_each_has_its_part() {
        let remarks = |first: Option<u32>, second: Option<u32>, boot: &str| {
            let (a, b) = (seen("m", Vec::new()), seen(boot, Vec::new()));
            let one = |name: &str, seen, cpu: Option<u32>| {
                let cpu = cpu.map(Amount::whole);
                let memory_mib = cpu.map(|_| 500);
                let config = NodeConfig { cpu, memory_mib, ..NodeConfig::plain(name) };
                One { assembled: assemble(&config, Some(seen), None), seen: Some(seen), enrolled: None }
            };
            let mut all = [one("local", &a, first), one("w", &b, second)];
            sort_out(&mut all);
            all.map(|one| one.assembled.remarks.join("; "))
        };
        let [local, other] = remarks(None, None, "m");
        assert_eq!(
            local,
            "it is one machine with `w`: together they count 128 cores of 64 and 2000 MiB of 1000; give each its part, with \
             `cpu` and `memory` in the configuration, or `--cpu` and `--memory` of a worker"
        );
        assert!(other.starts_with("it is one machine with `local`: "), "{other}");
        assert_eq!(remarks(Some(60), Some(4), "m"), [String::new(), String::new()]);
        assert_eq!(remarks(None, None, "n"), [String::new(), String::new()]);
    }
}

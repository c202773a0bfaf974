//! This machine as a node: its cores, memory and name, and the devices that its backend found.

use pitcrew_core::fleet::{Amount, Gpu, Node};
use pitcrew_exec::gpu;

use super::{FleetNode, LOCAL, Reach};

/// The label that tells a node's host, as Kubernetes names it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// This machine, with these devices.
pub fn this_machine(gpus: &[gpu::Gpu]) -> FleetNode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = Amount::whole(u32::try_from(cores).unwrap_or(u32::MAX));
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| gpu::parse_meminfo(&text));
    let mut node = Node::new(LOCAL, cores, memory.unwrap_or(0), gpus.iter().map(device).collect());
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        node.labels.insert(HOSTNAME.to_owned(), name.trim().to_owned());
    }
    FleetNode { node, reach: Reach::Local }
}

/// A device as placement knows it. One that does not tell its memory has none to ask for by size.
fn device(gpu: &gpu::Gpu) -> Gpu {
    Gpu::new(&gpu.uuid, &gpu.name, gpu.memory_bytes.unwrap_or(0) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_memory_a_name_and_the_devices_that_were_found() {
        let found = gpu::parse_inventory("0, GPU-a, NVIDIA A100, 81920\n1, GPU-b, NVIDIA A100, [N/A]\n").gpus;
        let node = this_machine(&found).node;
        assert!(node.cpu >= Amount::ONE && node.memory_mib > 16, "{node:?}");
        assert!(!node.labels[HOSTNAME].is_empty());
        let gpus: Vec<_> = node.gpus.iter().map(|gpu| (gpu.id.as_str(), gpu.memory_mib)).collect();
        assert_eq!(gpus, [("GPU-a", 81920), ("GPU-b", 0)]);
    }
}

//! What a task is told of its part of a GPU that the Multi-Process Service shares.
//!
//! Placement counts parts; that a task keeps to its own is up to CUDA, which reads these variables when the task's
//! first process begins to use the GPU.

use super::amount::Amount;
use super::node::{Node, Sharing};
use super::request::Request;
use super::room::part;

/// The variables for a task that holds the devices `ids` of this node: its part of the threads and of the memory. Empty
/// where it has whole GPUs, or GPUs that are shared in another way.
pub fn mps_environment(node: &Node, ids: &[String], request: &Request) -> Vec<(&'static str, String)> {
    let [id] = ids else { return Vec::new() };
    let Some(gpu) = node.gpus.iter().find(|gpu| gpu.id == *id) else { return Vec::new() };
    let part = match (&gpu.sharing, part(gpu, &request.gpus)) {
        (Sharing::Mps { .. }, Some(part)) if part < Amount::ONE => part.to_f64(),
        _ => return Vec::new(),
    };
    let mut told = vec![("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", format!("{:.0}", (part * 100.0).ceil()))];
    if gpu.memory_mib > 0 {
        // The task sees one device, so its number is 0.
        told.push(("CUDA_MPS_PINNED_DEVICE_MEM_LIMIT", format!("0={}M", (part * gpu.memory_mib as f64) as u64)));
    }
    told
}

#[cfg(test)]
mod tests {
    use crate::fleet::{Gpu, Gpus};

    use super::*;

    #[test]
    fn only_a_part_of_a_gpu_that_mps_shares_is_told() {
        let mut gpu = Gpu::new("GPU-a", "A100", 80_000);
        gpu.sharing = Sharing::Mps { replicas: 4 };
        let mut node = Node::new("n", Amount::ONE, 0, vec![gpu]);
        let told = |node: &Node, gpus: Gpus, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            let told = mps_environment(node, &ids, &Request { gpus, ..Request::default() });
            told.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        let quarter = Amount::ten_thousandths(2_500);
        let both = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25 CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=20000M";
        assert_eq!(told(&node, Gpus::Share(quarter), &["GPU-a"]), both);
        assert_eq!(told(&node, Gpus::MemoryMib(15_000), &["GPU-a"]), both, "rounded up to what placement counts");
        assert_eq!(told(&node, Gpus::Count(1), &["GPU-a"]), "");
        assert_eq!(told(&node, Gpus::Share(quarter), &[]), "");
        assert_eq!(told(&node, Gpus::Share(quarter), &["GPU-gone"]), "");
        node.gpus[0].memory_mib = 0;
        assert_eq!(told(&node, Gpus::Share(quarter), &["GPU-a"]), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25");
        node.gpus[0].sharing = Sharing::TimeSlicing { replicas: 4 };
        assert_eq!(told(&node, Gpus::Share(quarter), &["GPU-a"]), "");
    }
}

//! The instances that a GPU is cut into, as `nvidia-smi -L` lists them under their GPU.

use serde::{Deserialize, Serialize};

/// An instance: a device of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigDevice {
    /// `MIG-…`; of drivers before R470 `MIG-GPU-…/7/0`.
    pub uuid: String,
    /// `1g.10gb`.
    pub profile: String,
}

/// The instances of each GPU, by its UUID; what is none is passed over.
pub fn parse_list(text: &str) -> Vec<(String, Vec<MigDevice>)> {
    let mut all: Vec<(String, Vec<MigDevice>)> = Vec::new();
    for line in text.lines().map(str::trim) {
        let uuid = line.split_once("(UUID: ").and_then(|(_, rest)| rest.split(')').next());
        let Some(uuid) = uuid.filter(|uuid| uuid.len() <= 100 && uuid.bytes().all(|b| b.is_ascii_graphic())) else {
            continue;
        };
        if line.starts_with("GPU ") && uuid.starts_with("GPU-") {
            all.push((uuid.to_owned(), Vec::new()));
        } else if let (Some(rest), Some((_, instances))) = (line.strip_prefix("MIG "), all.last_mut())
            && let Some(profile) = rest.split_whitespace().next()
            && uuid.starts_with("MIG-")
        {
            instances.push(MigDevice { uuid: uuid.to_owned(), profile: profile.to_owned() });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_belong_to_the_gpu_above_them() {
        let found = parse_list(
            "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-a)\n  \
               MIG 3g.20gb     Device  0: (UUID: MIG-1)\n  \
               MIG 1g.5gb+me   Device  1: (UUID: MIG-GPU-a/7/0)\n\
             GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-b)\n\
             Unable to list\n  MIG 1g.5gb Device 2: (UUID: GPU-odd)\n",
        );
        let shown: Vec<_> = found
            .iter()
            .map(|(gpu, all)| {
                let all = all.iter().map(|mig| format!("{} {}", mig.profile, mig.uuid));
                (gpu.as_str(), all.collect::<Vec<_>>().join(", "))
            })
            .collect();
        assert_eq!(shown, [("GPU-a", "3g.20gb MIG-1, 1g.5gb+me MIG-GPU-a/7/0".to_owned()), ("GPU-b", String::new())]);
        assert!(parse_list("  MIG 1g.5gb Device 0: (UUID: MIG-1)\nNo devices were found").is_empty());
    }
}

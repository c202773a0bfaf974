//! What a node comes to: what is configured, what it told of itself, and what people did to it, put together.
//!
//! Pure. Invariant: a device that is declared and not there, or there and not declared, is never given to anybody, and
//! why is said.

use std::collections::BTreeMap;

use pitcrew_core::fleet::{Amount, Gpu, MigInstance, Node, Sharing, Standing, Taint, is_model};
use pitcrew_store::{IMPORTED_STATUS, NodeRow};

use super::config::{Declared, NodeConfig, Shared, parse_effect};
use super::seen::{Seen, SeenGpu};

/// Labels that a node has by itself, unless it is given others.
const HOSTNAME: &str = "kubernetes.io/hostname";
const GPU_TYPE: &str = "gpu-type";
const GPU_COUNT: &str = "gpu-count";

/// A node, and what people should know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    pub node: Node,
    pub remarks: Vec<String>,
}

/// `seen` is `None` before the node answered for the first time.
pub fn assemble(config: &NodeConfig, seen: Option<&Seen>, marks: Option<&NodeRow>) -> Assembled {
    let nothing = Seen::default();
    let told = seen.unwrap_or(&nothing);
    let mut remarks = told.remarks.clone();
    let gpus = gpus(config, told, &mut remarks);
    let mut labels = BTreeMap::new();
    labels.extend(told.host.as_ref().filter(|host| !host.is_empty()).map(|host| (HOSTNAME.to_owned(), host.clone())));
    if let Some(first) = gpus.first() {
        labels.insert(GPU_TYPE.to_owned(), gpu_type(&first.model));
        labels.insert(GPU_COUNT.to_owned(), gpus.len().to_string());
    }
    labels.extend(config.labels.clone());
    let mut taints = config.taints.clone();
    if let Some(marks) = marks {
        over(&mut labels, marks);
        over_taints(&mut taints, marks);
    }
    let down = match seen {
        None => Some("it has not been asked yet"),
        Some(seen) => seen.down.as_deref(),
    };
    let standing = match (down, marks.is_some_and(|marks| marks.cordoned)) {
        (Some(why), _) => Standing::Down(why.to_owned()),
        (None, true) => Standing::Cordoned,
        (None, false) => Standing::Ready,
    };
    if marks.is_some_and(|marks| marks.cordoned)
        && let Some(status) = labels.get(IMPORTED_STATUS)
    {
        remarks.push(format!("it is cordoned, since it was `{status}` when it was imported"));
    }
    let node = Node {
        name: config.name.clone(),
        labels,
        marked: marks.map(|marks| marks.labels.keys().cloned().collect()).unwrap_or_default(),
        taints,
        cpu: config.cpu.unwrap_or(Amount::whole(told.cores.unwrap_or(0))),
        memory_mib: config.memory_mib.or(told.memory_mib).unwrap_or(0),
        custom: config.resources.clone(),
        gpus,
        slots: None,
        standing,
    };
    Assembled { node, remarks }
}

fn over(labels: &mut BTreeMap<String, String>, marks: &NodeRow) {
    for (key, value) in &marks.labels {
        match value {
            Some(value) => drop(labels.insert(key.clone(), value.clone())),
            None => drop(labels.remove(key)),
        }
    }
}

fn over_taints(taints: &mut Vec<Taint>, marks: &NodeRow) {
    for (name, value) in &marks.taints {
        let Some((key, effect)) = name.rsplit_once(':') else { continue };
        let Ok(effect) = parse_effect(effect) else { continue };
        taints.retain(|taint| (taint.key.as_str(), taint.effect) != (key, effect));
        taints.extend(value.as_ref().map(|value| Taint { key: key.to_owned(), value: value.clone(), effect }));
    }
}

fn gpus(config: &NodeConfig, told: &Seen, remarks: &mut Vec<String>) -> Vec<Gpu> {
    let mut kept: Vec<Gpu> = Vec::new();
    match &config.gpus {
        None => kept.extend(told.gpus.iter().map(|gpu| device(config, gpu, None, None))),
        Some(Declared::Count { count, model, memory_mib }) => {
            let count = *count as usize;
            // Those that work come first, so that one that is gone takes the place of none.
            let mut all: Vec<&SeenGpu> = told.gpus.iter().collect();
            all.sort_by_key(|gpu| gpu.gone_since.is_some());
            let there = all.iter().filter(|gpu| gpu.gone_since.is_none()).count();
            for extra in all.iter().skip(count).filter(|gpu| gpu.gone_since.is_none()) {
                remarks
                    .push(format!("it reports `{}`, and {count} GPUs are configured: this one is not used", extra.id));
            }
            kept.extend(all.iter().take(count).map(|gpu| device(config, gpu, model.as_deref(), *memory_mib)));
            if there < count {
                remarks.push(format!("{count} GPUs are configured, and it reports {there}"));
            }
            for missing in kept.len()..count {
                let mut gpu = Gpu::new(
                    format!("{}-missing-{missing}", config.name),
                    model.clone().unwrap_or_default(),
                    memory_mib.unwrap_or(0),
                );
                gpu.fault = Some("it is configured, and the node does not report it".to_owned());
                kept.push(gpu);
            }
        }
        Some(Declared::List(declared)) => {
            for wanted in declared {
                let found = told.gpus.iter().find(|gpu| gpu.id == wanted.id);
                kept.push(match found {
                    Some(gpu) => device(config, gpu, wanted.model.as_deref(), wanted.memory_mib),
                    None => {
                        let mut gpu = Gpu::new(
                            &wanted.id,
                            wanted.model.clone().unwrap_or_default(),
                            wanted.memory_mib.unwrap_or(0),
                        );
                        gpu.fault = Some("it is configured, and the node does not report it".to_owned());
                        gpu
                    }
                });
            }
            let is_declared = |gpu: &&SeenGpu| declared.iter().any(|wanted| wanted.id == gpu.id);
            for extra in told.gpus.iter().filter(|gpu| gpu.gone_since.is_none() && !is_declared(gpu)) {
                remarks.push(format!("it reports `{}`, which is not configured: it is not used", extra.id));
            }
        }
    }
    kept
}

fn device(config: &NodeConfig, told: &SeenGpu, model: Option<&str>, memory_mib: Option<u64>) -> Gpu {
    let is_pretend = told.is_pretend();
    // Pretend devices are whatever they are said to be.
    let name = if is_pretend { model.unwrap_or(&told.model) } else { &told.model };
    let mut gpu = Gpu::new(&told.id, name, told.memory_mib.or(memory_mib).unwrap_or(0));
    let other = model.filter(|model| !is_pretend && !told.model.is_empty() && !is_model(&told.model, model));
    let wrong = other.map(|model| format!("it is a `{}`, and `{model}` is configured", told.model));
    let (sharing, odd) = shared(config.sharing, told);
    gpu.sharing = sharing;
    gpu.fault = told.fault.clone().or(wrong).or(odd);
    gpu
}

/// A device that is cut into instances can be used in no other way.
fn shared(wanted: Shared, told: &SeenGpu) -> (Sharing, Option<String>) {
    let instance =
        |mig: &pitcrew_exec::gpu::MigDevice| MigInstance { id: mig.uuid.clone(), profile: mig.profile.clone() };
    let instances: Vec<MigInstance> = told.mig.iter().map(instance).collect();
    let count = instances.len();
    match wanted {
        Shared::Mig(Some(expected)) if expected as usize != count => {
            (Sharing::Mig { instances }, Some(format!("{expected} MIG instances are configured, and it has {count}")))
        }
        Shared::Mig(_) if count == 0 => {
            (Sharing::Mig { instances }, Some("MIG is configured, and it has no instance".to_owned()))
        }
        Shared::Mig(_) => (Sharing::Mig { instances }, None),
        Shared::Whole if count > 0 => (Sharing::Mig { instances }, None),
        Shared::TimeSlicing(_) | Shared::Mps(_) if count > 0 => (
            Sharing::Mig { instances },
            Some("it is cut into MIG instances, and another sharing is configured".to_owned()),
        ),
        Shared::Whole => (Sharing::Whole, None),
        Shared::TimeSlicing(replicas) => (Sharing::TimeSlicing { replicas }, None),
        Shared::Mps(replicas) => (Sharing::Mps { replicas }, None),
    }
}

/// A word for the kind of a GPU: `nvidia-a100` for a `NVIDIA A100-SXM4-80GB`.
fn gpu_type(model: &str) -> String {
    let lower = model.to_lowercase();
    let is_size = |word: &str| word.ends_with("gb") && word.starts_with(|c: char| c.is_ascii_digit());
    let brands = ["nvidia", "tesla", "geforce", "quadro"];
    let mut words: Vec<String> = Vec::new();
    for word in lower.split_whitespace().filter(|word| !brands.contains(word)) {
        let kind = word.split(['-', ',']).next().unwrap_or_default();
        if is_size(kind) {
            break;
        }
        words.push(kind.chars().filter(|c| c.is_ascii_alphanumeric() || "._".contains(*c)).collect());
        if kind.len() < word.len() {
            break;
        }
    }
    words.retain(|word| !word.is_empty());
    match (lower.starts_with("pretend"), words.is_empty()) {
        (true, _) => "pretend".to_owned(),
        (false, true) => "unknown".to_owned(),
        (false, false) => format!("nvidia-{}", words.join("-")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(id: &str, model: &str) -> SeenGpu {
        SeenGpu {
            id: id.into(),
            model: model.into(),
            memory_mib: Some(81920),
            mig: Vec::new(),
            fault: None,
            gone_since: None,
        }
    }

    fn seen(gpus: Vec<SeenGpu>) -> Seen {
        Seen { cores: Some(64), memory_mib: Some(1000), host: Some("s21.lan".into()), gpus, ..Seen::default() }
    }

    fn faults(assembled: &Assembled) -> Vec<(&str, Option<&str>)> {
        assembled.node.gpus.iter().map(|gpu| (gpu.id.as_str(), gpu.fault.as_deref())).collect()
    }

    #[test]
    fn a_node_labels_itself_and_people_have_the_last_word() {
        let mut config = NodeConfig::plain("s21");
        config.labels = [("gpu-count".to_owned(), "9".to_owned()), ("rack".to_owned(), "a".to_owned())].into();
        config.taints = vec!["gpu:NoSchedule", "old:NoExecute"]
            .into_iter()
            .map(|t| super::super::config::parse_taint(t).unwrap())
            .collect();
        let mut marks = NodeRow { cordoned: true, ..NodeRow::default() };
        marks.labels = [("rack".to_owned(), None), ("team".to_owned(), Some("vision".to_owned()))].into();
        marks.taints = [("gpu:NoSchedule".to_owned(), None), ("x:NoExecute".to_owned(), Some("y".to_owned()))].into();
        let seen = seen(vec![gpu("GPU-a", "NVIDIA A100-SXM4-80GB")]);
        let node = assemble(&config, Some(&seen), Some(&marks)).node;
        let labels: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["gpu-count=9", "gpu-type=nvidia-a100", "kubernetes.io/hostname=s21.lan", "team=vision"]);
        let taints: Vec<String> = node.taints.iter().map(ToString::to_string).collect();
        assert_eq!((taints.join(" "), &node.standing), ("old:NoExecute x=y:NoExecute".to_owned(), &Standing::Cordoned));
        let down = Seen { down: Some("no route".into()), ..seen };
        assert_eq!(assemble(&config, Some(&down), Some(&marks)).node.standing, Standing::Down("no route".into()));
        assert!(matches!(assemble(&config, None, None).node.standing, Standing::Down(_)));
    }

    #[test]
    fn what_is_declared_and_what_is_there_are_held_against_each_other() {
        let mut config = NodeConfig::plain("s21");
        config.gpus = Some(Declared::Count { count: 2, model: Some("a100".into()), memory_mib: None });
        let one = assemble(&config, Some(&seen(vec![gpu("GPU-a", "NVIDIA H100")])), None);
        assert_eq!(
            faults(&one),
            [
                ("GPU-a", Some("it is a `NVIDIA H100`, and `a100` is configured")),
                ("s21-missing-1", Some("it is configured, and the node does not report it")),
            ]
        );
        assert_eq!(one.remarks, ["2 GPUs are configured, and it reports 1"]);
        let a100 = |id: &str| gpu(id, "NVIDIA A100");
        let three = assemble(&config, Some(&seen(vec![a100("GPU-a"), a100("GPU-b"), a100("GPU-c")])), None);
        assert_eq!(faults(&three), [("GPU-a", None), ("GPU-b", None)]);
        assert_eq!(three.remarks, ["it reports `GPU-c`, and 2 GPUs are configured: this one is not used"]);
        let listed = super::super::config::DeclaredGpu { id: "GPU-b".into(), model: None, memory_mib: None };
        config.gpus = Some(Declared::List(vec![listed]));
        let other = assemble(&config, Some(&seen(vec![a100("GPU-a")])), None);
        assert_eq!(faults(&other), [("GPU-b", Some("it is configured, and the node does not report it"))]);
        assert_eq!(other.remarks, ["it reports `GPU-a`, which is not configured: it is not used"]);
    }

    #[test]
    fn sharing_is_what_the_device_can_do() {
        let mig = pitcrew_exec::gpu::MigDevice { uuid: "MIG-1".into(), profile: "1g.10gb".into() };
        let cut = SeenGpu { mig: vec![mig], ..gpu("GPU-a", "NVIDIA A100") };
        for (sharing, device, shown, fault) in [
            (Shared::Whole, &cut, "MIG, 1 instances", None),
            (Shared::Mig(Some(7)), &cut, "MIG, 1 instances", Some("7 MIG instances are configured, and it has 1")),
            (
                Shared::Mps(2),
                &cut,
                "MIG, 1 instances",
                Some("it is cut into MIG instances, and another sharing is configured"),
            ),
            (
                Shared::Mig(None),
                &gpu("GPU-a", "A"),
                "MIG, 0 instances",
                Some("MIG is configured, and it has no instance"),
            ),
            (Shared::TimeSlicing(4), &gpu("GPU-a", "A"), "time-slicing by 4", None),
        ] {
            let config = NodeConfig { sharing, ..NodeConfig::plain("n") };
            let gpu = assemble(&config, Some(&seen(vec![device.clone()])), None).node.gpus.remove(0);
            assert_eq!((gpu.sharing.to_string().as_str(), gpu.fault.as_deref()), (shown, fault));
        }
    }

    #[test]
    fn kinds_of_gpus_have_short_words() {
        for (model, word) in [
            ("NVIDIA A100-SXM4-80GB", "nvidia-a100"),
            ("Tesla V100-SXM2-16GB", "nvidia-v100"),
            ("NVIDIA H100 80GB HBM3", "nvidia-h100"),
            ("NVIDIA GeForce RTX 4090", "nvidia-rtx-4090"),
            ("pretend GPU", "pretend"),
            ("<script>", "nvidia-script"),
            ("", "unknown"),
        ] {
            assert_eq!(gpu_type(model), word);
        }
    }
}

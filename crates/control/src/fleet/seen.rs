//! What a node told of itself: its last answer, and the devices that it had before.
//!
//! Invariant: a device that was there and is not reported any more stays for a day, with that as its fault; so nothing is
//! placed on it, and whoever looks finds out.

use jiff::{SignedDuration, Timestamp};
use pitcrew_exec::gpu::{self, MigDevice, Probe, Reading, Smi};
use serde::{Deserialize, Serialize};

/// How long a device that is gone is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

/// What is known of a node by its own words; kept in the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub cores: Option<u32>,
    pub memory_mib: Option<u64>,
    pub host: Option<String>,
    /// By what its system can be told from any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    pub gpus: Vec<SeenGpu>,
    /// Why it cannot be used.
    pub down: Option<String>,
    /// For people.
    pub remarks: Vec<String>,
    /// It is a machine of ECS, which tells all of this for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<super::Instance>,
    /// It is a node of Kubernetes, which tells all of this for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<super::KubeSeen>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenGpu {
    pub id: String,
    pub model: String,
    pub memory_mib: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mig: Vec<MigDevice>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Since when it is not reported any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<Timestamp>,
}

impl SeenGpu {
    /// It is declared in the environment, for trying things out.
    pub fn is_pretend(&self) -> bool {
        self.id.starts_with("pretend-")
    }
}

impl Seen {
    /// This machine without its devices, which take longer to ask for.
    pub fn of_machine() -> Seen {
        Seen {
            cores: std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()),
            memory_mib: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| gpu::parse_meminfo(&text)),
            ..Seen::default()
        }
    }

    /// Takes an answer.
    pub fn answered(&mut self, probe: &Probe, now: Timestamp) {
        self.cores = probe.cores.or(self.cores);
        self.memory_mib = probe.memory_mib.or(self.memory_mib);
        self.host = probe.host.clone().or(self.host.take());
        self.boot = probe.boot.clone().or(self.boot.take());
        self.remarks.clone_from(&probe.remarks);
        self.down = None;
        let gone = match &probe.smi {
            Smi::Answered => "the node does not report it any more".to_owned(),
            Smi::Absent => "the node has no `nvidia-smi` any more".to_owned(),
            Smi::Failed(why) => {
                self.remarks.push(why.clone());
                why.clone()
            }
            Smi::Hung => {
                // Whatever is asked of the driver next would hang as well.
                let why =
                    format!("`nvidia-smi` does not answer within {} s: the driver or a device hangs", gpu::SMI_SECONDS);
                self.down = Some(why.clone());
                why
            }
        };
        self.devices(&probe.gpus, &gone, now);
    }

    /// Takes what is reported of its devices; `gone` is the fault of those that are not.
    pub fn devices(&mut self, reported: &[Reading], gone: &str, now: Timestamp) {
        for old in self.gpus.iter_mut().filter(|old| !reported.iter().any(|new| new.uuid == old.id)) {
            old.gone_since = old.gone_since.or(Some(now));
            old.fault = Some(gone.to_owned());
        }
        let is_remembered = |gpu: &SeenGpu, since| !gpu.is_pretend() && now.duration_since(since) < REMEMBERED;
        self.gpus.retain(|gpu| gpu.gone_since.is_none_or(|since| is_remembered(gpu, since)));
        for new in reported {
            let old = self.gpus.iter().position(|old| old.id == new.uuid);
            let before = old.map(|at| self.gpus[at].clone());
            let gpu = SeenGpu {
                id: new.uuid.clone(),
                model: match (new.name.is_empty(), &before) {
                    (true, Some(before)) => before.model.clone(),
                    _ => new.name.clone(),
                },
                // A sick device does not tell what it has.
                memory_mib: new.memory_mib.or(before.as_ref().and_then(|before| before.memory_mib)),
                mig: new.mig.clone(),
                fault: match (&new.fault, new.is_mig && new.mig.is_empty()) {
                    (None, true) => Some("MIG is on, and it has no instance".to_owned()),
                    (fault, _) => fault.clone(),
                },
                gone_since: None,
            };
            match old {
                Some(at) => self.gpus[at] = gpu,
                None => self.gpus.push(gpu),
            }
        }
    }

    /// Nobody answered.
    pub fn unreachable(&mut self, why: String) {
        self.down = Some(why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn probe(lines: &str) -> Probe {
        gpu::parse_probe(&format!("pitcrew-probe\ncores 8\n{lines}")).unwrap()
    }

    const BOTH: &str = "smi 0\ngpu 0, GPU-a, Disabled, 81920, 1, 0, 60, 30, NVIDIA A100\n\
                        gpu 1, GPU-b, Disabled, 81920, 1, 0, 60, 30, NVIDIA A100\n";

    #[test]
    fn a_device_that_is_lost_stays_with_the_reason_until_a_day_has_passed() {
        let mut seen = Seen::default();
        seen.answered(&probe(BOTH), at(0));
        seen.answered(&probe("smi 0\ngpu 0, GPU-a, Disabled, 81920, 1, 0, 60, 30, NVIDIA A100\n"), at(10));
        let faults = |seen: &Seen| seen.gpus.iter().map(|gpu| gpu.fault.clone()).collect::<Vec<_>>();
        assert_eq!(faults(&seen), [None, Some("the node does not report it any more".to_owned())]);
        seen.answered(&probe("smi 15\ngpu Unable to determine the device handle\n"), at(20));
        assert!(faults(&seen).iter().all(|fault| fault.as_ref().unwrap().contains("ended with 15")), "{seen:?}");
        assert_eq!((seen.gpus[1].gone_since, &seen.down), (Some(at(10)), &None));
        seen.answered(&probe(BOTH), at(30));
        assert_eq!(faults(&seen), [None, None]);
        seen.answered(&probe("smi none\n"), at(40));
        seen.answered(&probe("smi none\n"), at(40 + 24 * 3600));
        assert!(seen.gpus.is_empty());
    }

    #[test]
    fn a_hang_takes_the_node_down_until_it_answers() {
        let mut seen = Seen::default();
        seen.answered(&probe("smi 124\ngpu \n"), at(0));
        assert!(seen.down.as_ref().unwrap().contains("does not answer within 20 s"));
        seen.unreachable("no route to host".to_owned());
        seen.answered(&probe(BOTH), at(10));
        assert_eq!((seen.down, seen.gpus.len(), seen.cores), (None, 2, Some(8)));
    }
}

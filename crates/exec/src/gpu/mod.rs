//! GPUs, by `nvidia-smi`, the driver's library NVML, or a DCGM exporter.
//!
//! Reading an answer is apart from asking: the parsers take text and can be tried on any machine. Asking is always
//! under a deadline, because a sick driver makes `nvidia-smi` hang, and that hang is itself a finding.

pub mod check;
mod dcgm;
pub mod kernel_log;
pub mod kmsg;
mod mig;
pub mod nvml;
mod probe;
mod reading;
mod tally;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use dcgm::{parse_dcgm, with_exporter};
pub use mig::{MigDevice, parse_list};
pub use probe::{PROBE_MARK, Probe, SMI_SECONDS, Smi, parse_probe, probe_script};
pub use reading::{Reading, Readings, parse_readings};
pub use tally::{HeldGpu, Mean, Tally};

/// Declares a number of pretend devices, for trying things out on a machine without any.
pub const PRETEND_VARIABLE: &str = "PITCREW_GPUS";

/// Where libraries are besides the usual places, such as the driver's in some containers.
pub(crate) const LIBRARY_PATH: &str = "LD_LIBRARY_PATH";
pub(crate) const INVENTORY_ARGS: [&str; 2] =
    ["--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"];
pub(crate) const SAMPLE_ARGS: [&str; 2] =
    ["--query-gpu=index,uuid,utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits"];

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// In the order of the PCI bus.
    pub index: u32,
    /// `GPU-…`; `pretend-0` for a pretend device.
    pub uuid: String,
    /// As the vendor calls it: `NVIDIA A100-SXM4-80GB`.
    pub name: String,
    /// `None` where the device does not tell.
    pub memory_bytes: Option<u64>,
}

/// What a search for devices came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub gpus: Vec<Gpu>,
    /// For people: what went wrong, if anything.
    pub remarks: Vec<String>,
}

/// The use of one device at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub index: u32,
    pub uuid: String,
    /// What the device does not tell is `None`.
    pub utilization_percent: Option<f64>,
    pub memory_mib: Option<f64>,
    pub power_watts: Option<f64>,
}

/// The version of the NVIDIA driver that is loaded, without asking any program.
pub fn driver_version() -> Option<String> {
    parse_driver_version(&std::fs::read_to_string("/proc/driver/nvidia/version").ok()?)
}

/// Reads `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …`, also of the open modules, which say
/// `NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build …`.
fn parse_driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_version = |word: &&str| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    line.split_whitespace().find(is_version).map(str::to_owned)
}

/// Reads lines such as `0, GPU-5e2b…, NVIDIA A100-SXM4-80GB, 81920`, memory in MiB. `[N/A]` and its like mean unknown; a line that is none is a remark.
pub fn parse_inventory(text: &str) -> Inventory {
    let mut found = Inventory::default();
    for line in text.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let gpu = match fields.as_slice() {
            // A name may contain commas, so it is whatever lies between.
            [index, uuid, name @ .., memory] if !name.is_empty() && uuid.starts_with("GPU-") => {
                index.parse().ok().map(|index| Gpu {
                    index,
                    uuid: (*uuid).to_owned(),
                    name: name.join(", "),
                    memory_bytes: memory.parse::<u64>().ok().and_then(|mib| mib.checked_mul(1 << 20)),
                })
            }
            _ => None,
        };
        match gpu {
            Some(gpu) => found.gpus.push(gpu),
            None => found.remarks.push(format!("`nvidia-smi` printed `{}`, which is no device", shorten(line))),
        }
    }
    found
}

/// The memory of a machine in MiB, out of `/proc/meminfo`.
pub fn parse_meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

/// Reads lines such as `0, GPU-5e2b…, 97, 40536, 312.5`. A GPU that is cut into instances tells no use, and all else.
pub fn parse_samples(text: &str) -> Vec<Sample> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(str::trim);
            Some(Sample {
                index: fields.next()?.parse().ok()?,
                uuid: fields.next().filter(|uuid| uuid.starts_with("GPU-"))?.to_owned(),
                utilization_percent: fields.next().and_then(reading::percent),
                memory_mib: fields.next().and_then(reading::number),
                power_watts: fields.next().and_then(reading::number),
            })
        })
        .collect()
}

/// A line of another program, fit to be shown.
fn shorten(line: &str) -> String {
    line.trim().chars().filter(|c| !c.is_control()).take(80).collect()
}

/// The devices of this machine, asked with the `PATH` in `env`, or the pretend ones that `env` declares. `program` is this
/// one, where it can stand in for `nvidia-smi`.
pub async fn detect(env: &BTreeMap<String, String>, program: Option<&Path>, patience: Duration) -> Inventory {
    if let Some(declared) = env.get(PRETEND_VARIABLE) {
        return pretend(declared);
    }
    let path = env.get("PATH").map_or("", String::as_str);
    let none = || Inventory { gpus: Vec::new(), remarks: vec!["no GPU: there is no `nvidia-smi` in PATH".to_owned()] };
    let mut command = match (crate::program::find("nvidia-smi", path, Path::new("/")), program) {
        (Some(found), _) => tokio::process::Command::new(found),
        (None, Some(program)) => {
            let mut command = tokio::process::Command::new(program);
            command.args(nvml::STAND_IN);
            command
        }
        (None, None) => return none(),
    };
    let is_stand_in = command.as_std().get_args().next().is_some();
    command
        .args(INVENTORY_ARGS)
        .env_clear()
        .env("PATH", path)
        .envs(env.get_key_value(LIBRARY_PATH))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let remark = match tokio::time::timeout(patience, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            return parse_inventory(&String::from_utf8_lossy(&output.stdout));
        }
        Ok(Ok(output)) if is_stand_in && output.status.code() == Some(nvml::NO_LIBRARY.into()) => return none(),
        Ok(Ok(output)) => {
            let said = [&output.stdout[..], &output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let said = said.lines().find(|l| !l.trim().is_empty()).unwrap_or("and said nothing");
            format!("no GPU: `nvidia-smi` failed ({}): {}", output.status, shorten(said))
        }
        Ok(Err(error)) => format!("no GPU: `nvidia-smi` could not be started: {error}"),
        Err(_) => format!(
            "no GPU: `nvidia-smi` did not answer within {} s; the driver or a device hangs",
            patience.as_secs_f64()
        ),
    };
    Inventory { gpus: Vec::new(), remarks: vec![remark] }
}

fn pretend(declared: &str) -> Inventory {
    match declared.trim().parse::<u32>() {
        Ok(count) if count <= 1024 => Inventory {
            gpus: (0..count)
                .map(|index| Gpu {
                    index,
                    uuid: format!("pretend-{index}"),
                    name: "pretend GPU".to_owned(),
                    memory_bytes: None,
                })
                .collect(),
            remarks: vec![format!("`{PRETEND_VARIABLE}` declares {count} pretend devices")],
        },
        _ => Inventory {
            gpus: Vec::new(),
            remarks: vec![format!("`{PRETEND_VARIABLE}` is `{}`; give a number up to 1024", shorten(declared))],
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_tells_its_version() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version: 12.2.0";
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs@x)";
        assert_eq!(parse_driver_version(closed).as_deref(), Some("550.54.15"));
        assert_eq!(parse_driver_version(open).as_deref(), Some("560.35.03"));
        assert_eq!(parse_driver_version("no driver"), None);
    }

    #[test]
    fn inventories_are_read_and_garbage_is_told() {
        let found = parse_inventory(
            "0, GPU-5e2bd7a4-1111-2222-3333-444455556666, NVIDIA A100-SXM4-80GB, 81920\n\
             1, GPU-0f, Tesla V100, SXM2, [N/A]\n\
             \n\
             No devices were found\n",
        );
        assert_eq!(found.gpus.len(), 2);
        assert_eq!(found.gpus[0].memory_bytes, Some(80 << 30));
        assert_eq!((found.gpus[1].name.as_str(), found.gpus[1].memory_bytes), ("Tesla V100, SXM2", None));
        assert_eq!(found.remarks, ["`nvidia-smi` printed `No devices were found`, which is no device"]);
    }

    #[test]
    fn samples_leave_out_what_is_not_told() {
        let text =
            "0, GPU-a, 97, 40536, 312.5\n1, GPU-b, [N/A], 3\n2, GPU-c, 5, x\nUnable to …\n3, [Unknown Error], 1\n";
        let sample = |index, uuid: &str, utilization_percent, memory_mib, power_watts| Sample {
            index,
            uuid: uuid.to_owned(),
            utilization_percent,
            memory_mib,
            power_watts,
        };
        assert_eq!(
            parse_samples(text),
            [
                sample(0, "GPU-a", Some(97.0), Some(40536.0), Some(312.5)),
                sample(1, "GPU-b", None, Some(3.0), None),
                sample(2, "GPU-c", Some(5.0), None, None),
            ]
        );
    }

    async fn detect_with(script: &str, patience: Duration) -> Inventory {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("nvidia-smi");
        // By a process of its own: a file that somebody has open for writing cannot be run, and a fork elsewhere in this
        // process would have it open.
        let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#;
        let written = std::process::Command::new("/bin/sh").args(["-c", write]).arg(&program).arg(script).status();
        assert!(written.unwrap().success());
        let path = format!("{}:/bin:/usr/bin", dir.path().display());
        detect(&BTreeMap::from([("PATH".to_owned(), path)]), None, patience).await
    }

    #[tokio::test]
    async fn every_way_in_which_nvidia_smi_fails_is_told() {
        let long = Duration::from_secs(20);
        let found = detect_with("echo '0, GPU-a, A, 1'", long).await;
        assert_eq!(found.gpus[0].memory_bytes, Some(1 << 20));
        let failed = detect_with("echo 'NVIDIA-SMI has failed'; exit 9", long).await;
        assert!(failed.remarks[0].contains("exit status: 9") && failed.remarks[0].contains("has failed"), "{failed:?}");
        let hung = detect_with("exec tail -f /dev/null", Duration::from_millis(50)).await;
        assert!(hung.remarks[0].contains("did not answer within 0.05 s"), "{hung:?}");
        let none = detect(&BTreeMap::new(), None, long).await;
        assert!(none.remarks[0].contains("no `nvidia-smi`"), "{none:?}");
        let pretended = detect(&BTreeMap::from([(PRETEND_VARIABLE.to_owned(), "2".to_owned())]), None, long).await;
        assert_eq!(pretended.gpus.len(), 2);
    }
}

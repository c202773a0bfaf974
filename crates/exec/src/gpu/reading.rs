//! Devices at one moment, as `nvidia-smi --query-gpu=… --format=csv,noheader,nounits` tells of them.
//!
//! Invariant: what a device does not tell is unknown and never 0; a device that says that it is broken has a fault, and a
//! line that is no device is a remark.

use serde::{Deserialize, Serialize};

use super::{MigDevice, shorten};

/// What is asked, in the order in which it is read. The name comes last, for it may hold commas.
pub const READING_FIELDS: &str =
    "index,uuid,mig.mode.current,memory.total,memory.used,utilization.gpu,power.draw,temperature.gpu,name";

/// More MiB, watts or degrees no device has: what DCGM writes for "blank" is far above.
const MOST: f64 = 1e9;

/// One device at one moment, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// In the order of the PCI bus.
    pub index: u32,
    /// `GPU-…`.
    pub uuid: String,
    /// As the vendor calls it; may be empty.
    pub name: String,
    pub memory_mib: Option<u64>,
    pub used_mib: Option<u64>,
    pub use_percent: Option<f64>,
    pub power_watts: Option<f64>,
    pub celsius: Option<f64>,
    /// It is cut into instances, which are to be listed.
    pub is_mig: bool,
    pub mig: Vec<MigDevice>,
    /// Why it cannot be used, if it says so.
    pub fault: Option<String>,
}

/// Devices, and what was no device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Readings {
    pub gpus: Vec<Reading>,
    /// For people.
    pub remarks: Vec<String>,
}

/// Reads lines such as `0, GPU-5e2b…, Disabled, 81920, 4, 0, 69.22, 31, NVIDIA A100-SXM4-80GB`.
pub fn parse_readings(text: &str) -> Readings {
    let mut found = Readings::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match reading(line) {
            Some(gpu) if found.gpus.iter().any(|other| other.uuid == gpu.uuid) => {
                found.remarks.push(format!("`nvidia-smi` lists `{}` twice", shorten(&gpu.uuid)));
            }
            Some(gpu) => found.gpus.push(gpu),
            None => found.remarks.push(format!("`nvidia-smi` printed `{}`, which is no device", shorten(line))),
        }
    }
    found
}

fn reading(line: &str) -> Option<Reading> {
    let fields: Vec<&str> = line.splitn(9, ',').map(str::trim).collect();
    let [index, uuid, mig, total, used, busy, power, celsius, name] = fields[..] else { return None };
    if !uuid.starts_with("GPU-") || uuid.len() > 80 {
        return None;
    }
    Some(Reading {
        index: index.parse().ok()?,
        uuid: uuid.to_owned(),
        name: name.to_owned(),
        memory_mib: number(total).map(|mib| mib as u64).filter(|mib| *mib > 0),
        used_mib: number(used).map(|mib| mib as u64),
        use_percent: percent(busy),
        power_watts: number(power),
        celsius: number(celsius),
        is_mig: mig == "Enabled",
        mig: Vec::new(),
        fault: fields.iter().find_map(|field| fault(field)),
    })
}

/// A number that a device can mean.
pub(super) fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| (0.0..MOST).contains(number))
}

pub(super) fn percent(text: &str) -> Option<f64> {
    number(text).filter(|percent| *percent <= 100.0)
}

/// What a field in brackets says of the device; `[N/A]` and `[Not Supported]` say nothing.
fn fault(field: &str) -> Option<String> {
    let words = field.strip_prefix('[')?.strip_suffix(']')?.to_ascii_lowercase();
    match words.as_str() {
        "gpu requires reset" => Some("it requires a reset".to_owned()),
        "gpu is lost" => Some("it is lost: it has fallen off the bus".to_owned()),
        "unknown error" => Some("the driver cannot read it (`[Unknown Error]`)".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_not_tell_is_unknown_and_what_it_complains_of_is_a_fault() {
        let found = parse_readings(
            "0, GPU-a, Disabled, 81559, 4, 0, 69.22, 31, NVIDIA H100 80GB HBM3\n\
             1, GPU-b, [N/A], [N/A], [Not Supported], 9223372036854775794, 12.5, -3, Tesla V100, SXM2\n\
             2, GPU-c, Enabled, 40960, [Unknown Error], 101, [GPU requires reset], 40, NVIDIA A100\n\
             2, GPU-c, Enabled, 40960, 1, 1, 1, 40, NVIDIA A100\n\
             3, [Unknown Error], Disabled, 1, 1, 1, 1, 1, NVIDIA A100\n\
             Unable to determine the device handle for GPU 0000:9B:00.0: Unknown Error\n\
             \u{0}\u{1b}[31mgarbage, <script>\n\n",
        );
        let [whole, shy, sick] = &found.gpus[..] else { panic!("{found:?}") };
        assert_eq!((whole.memory_mib, whole.used_mib, whole.power_watts), (Some(81559), Some(4), Some(69.22)));
        assert_eq!((whole.use_percent, whole.celsius, &whole.fault), (Some(0.0), Some(31.0), &None));
        assert_eq!((shy.memory_mib, shy.used_mib, shy.use_percent, shy.celsius), (None, None, None, None));
        assert_eq!((shy.name.as_str(), shy.power_watts, &shy.fault), ("Tesla V100, SXM2", Some(12.5), &None));
        assert!(sick.is_mig && sick.fault.as_deref() == Some("the driver cannot read it (`[Unknown Error]`)"));
        assert_eq!(found.remarks.len(), 4, "{:?}", found.remarks);
        assert_eq!(found.remarks[0], "`nvidia-smi` lists `GPU-c` twice");
        assert!(found.remarks.iter().all(|remark| !remark.contains(['\u{0}', '\u{1b}'])), "{:?}", found.remarks);
    }
}

//! Devices at one moment, out of what a DCGM exporter writes for Prometheus.
//!
//! Only what is measured is taken. Its gauge of the last XID stays after a repair and hides repeats, so nothing is
//! decided by it.

use std::collections::BTreeMap;

use super::probe::{Probe, Smi};
use super::reading::{Reading, Readings, number, percent};

/// Reads the text of `/metrics`. A blank value (9223372036854775794) is unknown.
pub fn parse_dcgm(text: &str) -> Readings {
    let mut gpus: BTreeMap<String, (Reading, [Option<f64>; 3])> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_")) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.rsplit_once('}') else { continue };
        let labels = labels_of(labels);
        let label = |name: &str| labels.get(name).map(String::as_str).unwrap_or_default();
        let uuid = label("UUID");
        if !uuid.starts_with("GPU-") || uuid.len() > 80 {
            continue;
        }
        let (gpu, memory) = gpus.entry(uuid.to_owned()).or_default();
        gpu.uuid = uuid.to_owned();
        gpu.index = label("gpu").parse().unwrap_or(gpu.index);
        gpu.name = label("modelName").to_owned();
        // Of an instance's own figures there is one line more, beside that of the whole device.
        if !label("GPU_I_ID").is_empty() {
            gpu.is_mig = true;
            gpu.fault = Some(CUT.to_owned());
            continue;
        }
        // A time may follow the value.
        let value = value.split_whitespace().next().unwrap_or_default();
        match name {
            "DCGM_FI_DEV_GPU_UTIL" => gpu.use_percent = percent(value),
            "DCGM_FI_DEV_POWER_USAGE" => gpu.power_watts = number(value),
            "DCGM_FI_DEV_GPU_TEMP" => gpu.celsius = number(value),
            "DCGM_FI_DEV_FB_USED" => memory[0] = number(value),
            "DCGM_FI_DEV_FB_FREE" => memory[1] = number(value),
            "DCGM_FI_DEV_FB_RESERVED" => memory[2] = number(value),
            _ => {}
        }
    }
    let mut found = Readings::default();
    for (mut gpu, [used, free, reserved]) in gpus.into_values() {
        gpu.used_mib = used.map(|mib| mib as u64);
        gpu.memory_mib = used.zip(free).map(|(used, free)| (used + free + reserved.unwrap_or(0.0)) as u64);
        found.gpus.push(gpu);
    }
    if found.gpus.is_empty() {
        found.remarks.push("the DCGM exporter tells of no device".to_owned());
    }
    found.gpus.sort_by_key(|gpu| gpu.index);
    found
}

/// An exporter tells of instances by number, and a task is given one by its name.
const CUT: &str = "it is cut into MIG instances, and without `nvidia-smi` nobody tells how they are named";

/// What a machine told, with the figures of an exporter. Which devices there are, how they are cut and what is wrong with
/// them is `nvidia-smi`'s to tell, where there is one; where there is none, the exporter stands in for it.
pub fn with_exporter(mut probe: Probe, told: Readings) -> Probe {
    probe.remarks.extend(told.remarks);
    let why = match &probe.smi {
        // Whatever the exporter remembers: a driver that hangs does no work.
        Smi::Hung => return probe,
        Smi::Absent => {
            (probe.smi, probe.gpus) = (Smi::Answered, told.gpus);
            return probe;
        }
        Smi::Answered => None,
        Smi::Failed(why) => Some(why.clone()),
    };
    for figures in told.gpus {
        match (probe.gpus.iter_mut().find(|gpu| gpu.uuid == figures.uuid), &why) {
            (Some(gpu), _) => {
                gpu.use_percent = figures.use_percent.or(gpu.use_percent);
                gpu.used_mib = figures.used_mib.or(gpu.used_mib);
                gpu.memory_mib = gpu.memory_mib.or(figures.memory_mib);
                gpu.power_watts = figures.power_watts.or(gpu.power_watts);
                gpu.celsius = figures.celsius.or(gpu.celsius);
            }
            (None, Some(why)) => probe.gpus.push(Reading { fault: Some(why.clone()), ..figures }),
            // It has fallen off since the exporter looked, or is another machine's.
            (None, None) => {}
        }
    }
    probe
}

/// `gpu="0", UUID="GPU-…"`, with what Prometheus escapes.
fn labels_of(text: &str) -> BTreeMap<&str, String> {
    let mut all = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => value.extend(chars.next().map(|(_, c)| if c == 'n' { ' ' } else { c })),
                Some((at, '"')) => break at + 1,
                Some((_, c)) => value.push(c),
                None => return all,
            }
        };
        all.insert(name.trim_start_matches([',', ' ']), value);
        rest = &after[end..];
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exporter_adds_figures_and_hides_nothing_that_nvidia_smi_tells() {
        let probe = |lines: &str| super::super::parse_probe(&format!("pitcrew-probe\n{lines}")).unwrap();
        let told = || {
            parse_dcgm(
                "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA A100\"} 97\n\
                 DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",GPU_I_ID=\"1\",GPU_I_PROFILE=\"1g.10gb\"} 40\n\
                 DCGM_FI_DEV_POWER_USAGE{gpu=\"1\",UUID=\"GPU-b\",modelName=\"NVIDIA A100\"} 300\n",
            )
        };
        let cut = "smi 0\ngpu 0, GPU-a, Enabled, 81920, 4, [N/A], 70, 31, NVIDIA A100\n\
                   list GPU 0: NVIDIA A100 (UUID: GPU-a)\nlist   MIG 1g.10gb     Device  0: (UUID: MIG-1)\n";
        let merged = with_exporter(probe(cut), told());
        let [gpu] = &merged.gpus[..] else { panic!("{merged:?}") };
        assert_eq!((gpu.use_percent, gpu.power_watts, gpu.used_mib), (Some(97.0), Some(70.0), Some(4)));
        assert_eq!((gpu.mig[0].uuid.as_str(), &gpu.fault), ("MIG-1", &None));
        let sick = "smi 0\ngpu 0, GPU-a, Disabled, 81920, 4, 1, [GPU requires reset], 31, NVIDIA A100\n";
        assert_eq!(with_exporter(probe(sick), told()).gpus[0].fault.as_deref(), Some("it requires a reset"));
        let hung = with_exporter(probe("smi 124\ngpu \n"), told());
        assert_eq!((hung.smi, hung.gpus.len()), (Smi::Hung, 0));
        let lost = with_exporter(probe("smi 15\ngpu 0, GPU-a, Disabled, 81920, 4, 1, 70, 31, NVIDIA A100\n"), told());
        assert!(lost.gpus[1].fault.as_ref().unwrap().contains("fallen off the bus"), "{lost:?}");
        assert_eq!((lost.gpus[0].use_percent, &lost.gpus[0].fault), (Some(97.0), &None));
        let alone = with_exporter(probe("smi none\n"), told());
        assert_eq!((alone.smi, alone.gpus.len(), alone.gpus[0].fault.as_deref()), (Smi::Answered, 2, Some(CUT)));
    }

    #[test]
    fn an_exporter_tells_use_memory_power_and_temperature() {
        let found = parse_dcgm(
            "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n\
             # TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
             DCGM_FI_DEV_GPU_UTIL{gpu=\"1\", UUID=\"GPU-b\",device=\"nvidia1\",modelName=\"NVIDIA \\\"H100\\\"\"} 9223372036854775794\n\
             DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\",pod=\"\"} 97 1700000000\n\
             DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",GPU_I_ID=\"1\",modelName=\"NVIDIA H100 80GB HBM3\"} 3\n\
             DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\"} 40000\n\
             DCGM_FI_DEV_FB_FREE{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\"} 41000\n\
             DCGM_FI_DEV_FB_RESERVED{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\"} 559\n\
             DCGM_FI_DEV_POWER_USAGE{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\"} 512.3\n\
             DCGM_FI_DEV_XID_ERRORS{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA H100 80GB HBM3\"} 79\n\
             DCGM_FI_DEV_GPU_TEMP{gpu=\"0\",UUID=\"GPU-a\n\
             DCGM_FI_DEV_GPU_TEMP{gpu=\"9\",UUID=\"<script>\"} 4\n",
        );
        let [first, second] = &found.gpus[..] else { panic!("{found:?}") };
        assert_eq!((first.is_mig, first.fault.as_deref(), second.is_mig), (true, Some(CUT), false));
        assert_eq!((first.use_percent, first.power_watts, first.celsius), (Some(97.0), Some(512.3), None));
        assert_eq!((first.memory_mib, first.used_mib), (Some(81559), Some(40000)));
        assert_eq!((second.use_percent, second.name.as_str()), (None, "NVIDIA \"H100\""));
        for garbage in ["", "<html>404</html>", "DCGM_FI_DEV_GPU_UTIL 3\nDCGM_FI_DEV_GPU_UTIL{gpu=\"\\"] {
            assert!(parse_dcgm(garbage).gpus.is_empty());
        }
    }
}

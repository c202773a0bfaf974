//! What a machine has, asked by one script that runs here or over a connection, and leaves nothing there.
//!
//! Running the script is the caller's, under a deadline; here is what it prints and what that means. A device or driver
//! that hangs is told apart from one that fails: `timeout` ends `nvidia-smi`, and says so.

use serde::{Deserialize, Serialize};

use super::nvml::{NO_LIBRARY, STAND_IN};
use super::reading::{READING_FIELDS, Reading, parse_readings};
use super::{parse_list, parse_meminfo, shorten};

/// Before this line a shell's own files may have said something.
pub const PROBE_MARK: &str = "pitcrew-probe";
/// How long `nvidia-smi` may take before the script ends it, in seconds.
pub const SMI_SECONDS: u32 = 20;
/// Remarks that are kept of one answer.
const MOST_REMARKS: usize = 8;

/// What the devices of a machine answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Smi {
    /// There is no `nvidia-smi`.
    Absent,
    Answered,
    /// It said why it cannot tell; devices that it lists all the same are read.
    Failed(String),
    /// It had to be ended.
    Hung,
}

/// A machine at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub cores: Option<u32>,
    pub memory_mib: Option<u64>,
    pub host: Option<String>,
    /// By what its system can be told from any other; anew at each boot, and the same in all containers of a machine.
    #[serde(default)]
    pub boot: Option<String>,
    pub smi: Smi,
    pub gpus: Vec<Reading>,
    /// For people.
    pub remarks: Vec<String>,
}

/// The script, for `/bin/sh -s`. Its argument, if any, is a program that can stand in for `nvidia-smi`, see [`super::nvml`].
pub fn probe_script() -> String {
    let stand_in = STAND_IN.join(" ");
    // Without `timeout`, as on the smallest systems, the caller's deadline is what ends it.
    format!(
        "limit() {{ if command -v timeout >/dev/null 2>&1; then timeout -k 2 \"$@\"; else shift; \"$@\"; fi; }}\n\
         echo {PROBE_MARK}\n\
         echo \"cores $(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN 2>/dev/null)\"\n\
         sed -n 's/^MemTotal:/memory MemTotal:/p' /proc/meminfo 2>/dev/null\n\
         echo \"host $(cat /proc/sys/kernel/hostname 2>/dev/null || uname -n)\"\n\
         echo \"boot $(cat /proc/sys/kernel/random/boot_id 2>/dev/null)\"\n\
         if command -v nvidia-smi >/dev/null 2>&1; then set -- nvidia-smi; none=; else\n\
         [ $# = 1 ] || {{ echo 'smi none'; exit 0; }}; set -- \"$1\" {stand_in}; none={NO_LIBRARY}; fi\n\
         out=$(limit {SMI_SECONDS} \"$@\" --query-gpu={READING_FIELDS} --format=csv,noheader,nounits 2>&1)\n\
         code=$?\n\
         [ \"$code\" != \"$none\" ] || {{ echo 'smi none'; exit 0; }}\n\
         echo \"smi $code\"\n\
         printf '%s\\n' \"$out\" | sed 's/^/gpu /'\n\
         case \"$out\" in *Enabled*) limit {SMI_SECONDS} \"$@\" -L 2>/dev/null | sed 's/^/list /';; esac\n\
         exit 0\n"
    )
}

/// Reads what the script printed; `None`: it did not run.
pub fn parse_probe(text: &str) -> Option<Probe> {
    let mut lines = text.lines().skip_while(|line| line.trim_end() != PROBE_MARK);
    lines.next()?;
    let mut probe = Probe {
        cores: None,
        memory_mib: None,
        host: None,
        boot: None,
        smi: Smi::Absent,
        gpus: Vec::new(),
        remarks: Vec::new(),
    };
    let (mut code, mut rows, mut list) = (None, String::new(), String::new());
    for line in lines.take(2000) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "cores" => probe.cores = rest.trim().parse().ok().filter(|cores| (1..100_000).contains(cores)),
            "memory" => probe.memory_mib = parse_meminfo(rest),
            "host" => probe.host = Some(shorten(rest)).filter(|host| !host.is_empty()),
            "boot" => probe.boot = Some(shorten(rest)).filter(|boot| !boot.is_empty()),
            "smi" => code = rest.trim().parse::<u32>().ok(),
            "gpu" => rows.extend([rest, "\n"]),
            "list" => list.extend([rest, "\n"]),
            _ => {}
        }
    }
    if let Some(code) = code {
        let read = parse_readings(&rows);
        let said = read.remarks.first().map_or(String::new(), |remark| format!(": {remark}"));
        probe.smi = match code {
            0 => Smi::Answered,
            124 | 137 => Smi::Hung,
            code => Smi::Failed(format!("`nvidia-smi` ended with {code} ({}){said}", meaning(code))),
        };
        probe.gpus = read.gpus;
        // What follows the exit status is what the failure says already.
        probe.remarks = if code == 0 { read.remarks } else { Vec::new() };
        probe.remarks.truncate(MOST_REMARKS);
    }
    for (uuid, instances) in parse_list(&list) {
        if let Some(gpu) = probe.gpus.iter_mut().find(|gpu| gpu.uuid == uuid && gpu.is_mig) {
            gpu.mig = instances;
        }
    }
    Some(probe)
}

/// What the exit status of `nvidia-smi` stands for.
fn meaning(code: u32) -> &'static str {
    match code {
        2 => "it does not know what it was asked",
        3 => "not available on this device",
        4 => "no permission",
        6 => "a device could not be asked",
        8 => "a power cable is missing",
        9 => "the driver is not loaded",
        10 => "the kernel reports a problem with interrupts",
        12 => "the library NVML is missing",
        14 => "the infoROM is corrupted",
        15 => "a GPU has fallen off the bus",
        126 | 127 => "it cannot be run",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_script_prints_is_read_after_the_mark_alone() {
        let text = "Welcome!\ncores 999\npitcrew-probe\ncores 64\nmemory MemTotal:       528000000 kB\nhost s21\nboot 7b-1\nsmi 0\n\
                    gpu 0, GPU-a, Enabled, 81920, 4, [N/A], 70, 31, NVIDIA A100\ngpu what\n\
                    list GPU 0: NVIDIA A100 (UUID: GPU-a)\nlist   MIG 1g.10gb     Device  0: (UUID: MIG-1)\n";
        let probe = parse_probe(text).unwrap();
        assert_eq!((probe.cores, probe.memory_mib, probe.host.as_deref()), (Some(64), Some(515_625), Some("s21")));
        assert_eq!(probe.boot.as_deref(), Some("7b-1"));
        assert_eq!((probe.smi, probe.gpus[0].mig[0].uuid.as_str()), (Smi::Answered, "MIG-1"));
        assert_eq!(probe.remarks, ["`nvidia-smi` printed `what`, which is no device"]);
        assert_eq!(parse_probe("This account is not available.\n"), None);
    }

    #[test]
    fn a_hang_a_failure_and_no_driver_are_told_apart() {
        let smi = |lines: &str| parse_probe(&format!("pitcrew-probe\n{lines}")).unwrap();
        assert_eq!(smi("smi none\n").smi, Smi::Absent);
        assert_eq!(smi("smi 124\ngpu \n").smi, Smi::Hung);
        let lost = smi("smi 15\ngpu Unable to determine the device handle for GPU 0000:9B:00.0: GPU is lost.\n");
        let Smi::Failed(why) = &lost.smi else { panic!("{lost:?}") };
        assert!(why.starts_with("`nvidia-smi` ended with 15 (a GPU has fallen off the bus): "), "{why}");
        assert!(lost.gpus.is_empty() && lost.cores.is_none());
        let odd = smi("cores -4\nmemory MemTotal: x kB\nhost \nsmi 99999999999999\n");
        assert_eq!((odd.cores, odd.memory_mib, odd.host, odd.smi), (None, None, None, Smi::Absent));
    }
}

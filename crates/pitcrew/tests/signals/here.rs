//! The machine of the server: its kernel log as it is written, and what its driver says.

use serde_json::Value;

use crate::machine::Machine;

const WELL: &str = "GPU 00000000:9B:00.0\n    GPU UUID                              : GPU-a\n    Remapped Rows\n        Pending                           : No\n";

pub fn evidence(incidents: &[Value]) -> Vec<&str> {
    let signals = incidents.iter().flat_map(|incident| incident["signals"].as_array().unwrap());
    signals.map(|signal| signal["evidence"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_the_real_kernel_log_is_an_incident_at_once_in_a_drill() {
    let write = |line: &str| std::fs::write("/dev/kmsg", format!("{line}\n"));
    if let Err(error) = write("pitcrew: a test begins") {
        eprintln!("NOT TESTED: /dev/kmsg cannot be written: {error}");
        return;
    }
    // Nobody polls in this time.
    let machine = Machine::new("  mode: observe\n  drill: true\n  watch: 1h");
    let _server = machine.serve();
    let pid = std::process::id();
    let line =
        format!("NVRM: Xid (PCI:00fd:{:02x}:{:02x}): 79, pid={pid}, name=drill, by a test", pid / 32 % 256, pid % 32);
    // Whatever was written before it was followed is history.
    machine.world.wait("the log is followed", || {
        write(&line).unwrap();
        evidence(&machine.incidents()).iter().any(|evidence| evidence.contains(&format!("pid={pid},")))
    });
    assert_eq!(machine.node()["standing"], "ready", "it is only told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_driver_says_of_memory_is_a_reason_to_check() {
    let machine = Machine::new("  mode: auto");
    machine.set("said", &WELL.replace(": No", ": Yes"));
    let _server = machine.serve();
    let incidents = machine.until_over(1);
    assert_eq!(incidents[0]["signals"][0]["kind"]["kind"], "remap_pending", "{:#}", incidents[0]);
    assert!(evidence(&incidents)[0].contains("memory waits for a reset"), "{:?}", evidence(&incidents));
    assert_eq!(machine.done(), ["check 2"], "a short check would not see it");
}

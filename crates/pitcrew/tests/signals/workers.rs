//! The machine of a worker: its kernel log, and what its worker does there for the server.

use serde_json::json;

use crate::here::evidence;
use crate::machine::Machine;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_checks_its_machine_and_reboots_it_once_where_its_owner_allowed_it() {
    let machine = Machine::of_worker("s31", "  mode: auto", true);
    machine.task("", "[ $ATTEMPT = 2 ] && exit 0; exit 1");
    machine.set("broken", "GPU-a");
    let _server = machine.world.serve();
    let mut worker = machine.worker(&["--allow-repair"]);
    machine.run_to("success");
    let incidents = machine.until_over(1);
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["class"]), (&json!("repaired"), &json!("infrastructure")));
    assert_eq!(machine.done(), ["check 2", "reboot", "check 1"]);
    // Whatever comes later finds it done.
    worker.kill();
    machine.world.wait("it does not call", || machine.node()["standing"] != "ready");
    let _worker = machine.worker(&["--allow-repair"]);
    assert_eq!(machine.done().iter().filter(|done| *done == "reboot").count(), 1, "{:?}", machine.done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_repaired_on_the_machine_of_a_worker_whose_owner_did_not_allow_it() {
    let machine = Machine::of_worker("s32", "  mode: auto", true);
    machine.task("", "exit 1");
    machine.set("broken", "GPU-a");
    let _server = machine.world.serve();
    let _worker = machine.worker(&[]);
    machine.world.wait("it is triggered", || machine.world.run(&["dags", "trigger", "w"]).status.success());
    let incidents = machine.until_over(1);
    assert_eq!(incidents[0]["outcome"], "out_of_service", "{:#}", incidents[0]);
    assert_eq!(machine.done(), ["check 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_the_kernel_log_of_a_workers_machine_is_told_when_it_is_written() {
    let write = |line: &str| std::fs::write("/dev/kmsg", format!("{line}\n"));
    if let Err(error) = write("pitcrew: a test begins") {
        eprintln!("NOT TESTED: /dev/kmsg cannot be written: {error}");
        return;
    }
    let machine = Machine::of_worker("s33", "  mode: observe\n  drill: true\n  watch: 1h", false);
    let _server = machine.world.serve();
    let _worker = machine.worker(&[]);
    let pid = std::process::id();
    let line =
        format!("NVRM: Xid (PCI:00fc:{:02x}:{:02x}): 79, pid={pid}, name=drill, by a test", pid / 32 % 256, pid % 32);
    let is_told = || evidence(&machine.incidents()).iter().any(|evidence| evidence.contains(&format!("pid={pid},")));
    machine.world.wait("the line is told", || {
        write(&line).unwrap();
        is_told()
    });
}

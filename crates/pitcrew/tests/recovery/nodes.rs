//! Nodes alone: from a sign to the repair, without a job.

use serde_json::json;

use crate::machine::{FALLEN, Machine};

/// A sign of no weight, so that the log goes on.
const HARMLESS: &str = "NVRM: Xid (PCI:0000:9c:00): 43, pid=1, name=train, Ch 00000010";
const REMAP: &str = "NVRM: Xid (PCI:0000:9b:00): 95, pid=1, name=train, Uncontained ECC error";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_fell_off_the_bus_is_rebooted_once_and_its_node_serves_again() {
    let machine = Machine::new("  mode: auto").await;
    machine.log("NVRM: GPU at PCI:0000:9b:00: GPU-a");
    machine.log(FALLEN);
    let mut server = machine.serve();
    machine.until_read();
    assert!(machine.incidents().is_empty(), "what stood in the log before anybody watched is history");
    machine.log(HARMLESS);
    machine.log(FALLEN);
    machine.until_done(&["reboot", "check 1"]);
    machine.until("it serves again", |node| node["standing"] == "ready");
    let incidents = machine.incidents();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["verdict"]), (&json!("repaired"), &json!("fail")));
    assert_eq!(incidents[0]["tried"][0]["rung"], "reboot");
    let shown = machine.world.ok(&["incidents", "show", "inc-1"]);
    for part in ["XID 79", "has fallen off the bus", "tried        reboot", "verifying → healthy"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // Whoever comes next knows that it was done.
    server.kill();
    let _server = machine.serve();
    machine.until_read();
    machine.log(HARMLESS);
    machine.until_read();
    assert_eq!(machine.done(), ["reboot", "check 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_that_does_not_come_is_given_up_and_people_decide() {
    let machine = Machine::new("  mode: auto").await;
    machine.set("stuck", "");
    let _server = machine.serve();
    machine.until_read();
    machine.log(FALLEN);
    machine.world.wait("it is out of service", || machine.incidents().iter().any(|i| i["outcome"] == "out_of_service"));
    assert_eq!(machine.done(), ["reboot"], "an order is given once");
    assert_eq!(machine.node()["standing"], "cordoned");
    assert!(
        machine.world.run(&["incidents", "approve", "inc-1"]).status.code() == Some(2),
        "there is nothing to approve"
    );
    machine.world.ok(&["incidents", "retry", "inc-1"]);
    machine.until("it was checked, and is well", |node| node["standing"] == "ready");
    assert_eq!(machine.done()[0], "reboot");
    assert!(machine.done()[1..].iter().all(|done| done.starts_with("check")), "{:?}", machine.done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_people_approve_nothing_is_done_before_and_a_dismissal_ends_it() {
    let machine = Machine::new("  mode: approve").await;
    let _server = machine.serve();
    machine.until_read();
    machine.log(REMAP);
    let waits = |incident: &serde_json::Value| incident["trail"].to_string().contains("awaiting_approval");
    machine.world.wait("it waits for a person", || machine.incidents().iter().any(waits));
    assert!(machine.done().is_empty(), "{:?}", machine.done());
    assert_eq!(machine.node()["standing"], "cordoned");
    machine.world.ok(&["incidents", "dismiss", "inc-1", "--reason", "a known one"]);
    machine.until("it serves again", |node| node["standing"] == "ready");
    assert_eq!(machine.incidents()[0]["outcome"], "dismissed");
    machine.log(HARMLESS);
    machine.log(FALLEN);
    machine.world.wait("it waits again", || machine.incidents().iter().any(|i| i["id"] == 2 && waits(i)));
    machine.world.ok(&["incidents", "approve", "2"]);
    machine.until_done(&["reboot", "check 1"]);
    machine.until("it serves again", |node| node["standing"] == "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_watches_touches_nothing() {
    let machine = Machine::new("  mode: observe").await;
    let _server = machine.serve();
    machine.until_read();
    machine.log(FALLEN);
    machine.world.wait("it is told", || machine.incidents().iter().any(|incident| incident["watched"] == true));
    machine.until_read();
    assert_eq!((machine.node()["standing"].as_str(), machine.done().len()), (Some("ready"), 0));
}

//! Nodes alone: from a sign to the repair, without a job.

use serde_json::json;

use crate::machine::FALLEN;
use crate::site::Site;

/// A sign of no weight, so that the log goes on.
const HARMLESS: &str = "NVRM: Xid (PCI:0000:9c:00): 43, pid=1, name=train, Ch 00000010";
const REMAP: &str = "NVRM: Xid (PCI:0000:9b:00): 95, pid=1, name=train, Uncontained ECC error";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_fell_off_the_bus_is_rebooted_once_and_its_node_serves_again() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    let machine = site.machine("s21");
    machine.name_gpu(&machine.gpu("a"));
    machine.log(FALLEN);
    let mut server = site.serve();
    assert!(site.incidents().is_empty(), "what stood in the log before anybody watched is history");
    machine.log(HARMLESS);
    machine.log(FALLEN);
    site.until_done("s21", &["reboot", "check 1"]);
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
    let incidents = site.incidents();
    assert_eq!(incidents.len(), 1, "{incidents:?}");
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["verdict"]), (&json!("repaired"), &json!("fail")));
    assert_eq!(incidents[0]["tried"][0]["rung"], "reboot");
    assert_eq!(incidents[0]["gpus"], json!([machine.gpu("a")]));
    let shown = site.world.ok(&["incidents", "show", "inc-1"]);
    for part in ["XID 79", "has fallen off the bus", "tried        reboot", "verifying → healthy"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    // Whoever comes next knows that it was done.
    server.kill();
    let _server = site.serve();
    machine.log(HARMLESS);
    site.until_read(machine);
    assert_eq!(machine.done(), ["reboot", "check 1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_that_does_not_come_is_given_up_and_people_decide() {
    let site = Site::new(&["s21"], "  mode: auto", ", reboot: 20s").await;
    let machine = site.machine("s21");
    machine.set("stuck", "");
    let _server = site.serve();
    machine.log(FALLEN);
    site.world.wait("it is out of service", || site.incidents().iter().any(|i| i["outcome"] == "out_of_service"));
    assert_eq!(machine.done(), ["reboot"], "an order is given once");
    assert_eq!(site.node("s21")["standing"], "cordoned");
    assert!(site.world.run(&["incidents", "approve", "inc-1"]).status.code() == Some(2), "there is nothing to approve");
    site.world.ok(&["incidents", "retry", "inc-1"]);
    site.until("s21", "it was checked, and is well", |node| node["standing"] == "ready");
    assert_eq!(machine.done()[0], "reboot");
    assert!(machine.done()[1..].iter().all(|done| done.starts_with("check")), "{:?}", machine.done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_people_approve_nothing_is_done_before_and_a_dismissal_ends_it() {
    let site = Site::new(&["s21"], "  mode: approve", "").await;
    let machine = site.machine("s21");
    let _server = site.serve();
    machine.log(REMAP);
    let waits = |incident: &serde_json::Value| incident["trail"].to_string().contains("awaiting_approval");
    site.world.wait("it waits for a person", || site.incidents().iter().any(waits));
    assert!(machine.done().is_empty(), "{:?}", machine.done());
    assert_eq!(site.node("s21")["standing"], "cordoned");
    site.world.ok(&["incidents", "dismiss", "inc-1", "--reason", "a known one"]);
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
    assert_eq!(site.incidents()[0]["outcome"], "dismissed");
    machine.log(HARMLESS);
    machine.log(FALLEN);
    site.world.wait("it waits again", || site.incidents().iter().any(|i| i["id"] == 2 && waits(i)));
    site.world.ok(&["incidents", "approve", "2"]);
    site.until_done("s21", &["reboot", "check 1"]);
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
}

/// A driver that hangs is asked what a line means, and nothing else waits for that: no other node, and not what the same log
/// says next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_hangs_keeps_no_line_of_any_log_waiting() {
    let site = Site::new(&["s21", "s22"], "  mode: observe", "").await;
    let (hanging, other) = (site.machine("s21"), site.machine("s22"));
    let _server = site.serve();
    let is_told = |name: &str, line: &str| {
        let of =
            |incident: &serde_json::Value| incident["node"] == name && incident["signals"].to_string().contains(line);
        site.incidents().iter().any(of)
    };
    // Whoever is asked is given up after a while; a machine that is too slow for that gets another try.
    for number in 1..=3 {
        let line = |code: u32| format!("NVRM: Xid (PCI:0000:{number:02x}:00): {code}, pid={number}, name=train, x");
        hanging.set("hold-driver", "");
        hanging.set("driver", "");
        hanging.log(&line(48));
        site.world.wait("its driver is asked", || hanging.read("driver").contains("asked"));
        hanging.log(&line(79));
        other.log(&line(79));
        site.world.wait("both are told", || is_told("s21", &line(79)) && is_told("s22", &line(79)));
        let was_asked = !is_told("s21", &line(48));
        hanging.remove("hold-driver");
        site.world.wait("what waited for it is told", || is_told("s21", &line(48)));
        if was_asked {
            return;
        }
    }
    panic!("what could be told waited for a driver that hangs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_connection_leads_elsewhere_by_now_is_asked_there() {
    let site = Site::new(&["s21", "s22"], "  mode: observe", "").await;
    let _server = site.serve();
    let has = |node: &serde_json::Value, gpu: &str| node["gpus"].to_string().contains(gpu);
    site.until("s21", "it was asked", |node| has(node, &site.machine("s21").gpu("a")));
    site.lead_to("s21", "s22");
    site.until("s21", "the other machine is asked", |node| has(node, &site.machine("s22").gpu("a")));
}

/// Nothing but its boot id shows that it is back, and the next look would be due in an hour.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_up_anew_is_seen_soon_and_not_only_when_the_next_look_is_due() {
    let site = Site::with(&["s21"], "  mode: auto\n  watch: 1h\n  deadlines: {observe: 1h, reboot: 2h}").await;
    site.job("train", 1, "");
    let _server = site.world.serve();
    site.until("s21", "it is ready", |node| node["standing"] == "ready");
    let machine = site.machine("s21");
    site.trigger("train");
    let first = site.until_begun(&["train.1.0"]);
    machine.set("broken", &first[0].gpu);
    machine.set("hold-reboot", "");
    site.end("train.1.0", 1);
    site.until_done("s21", &["check 2", "reboot"]);
    machine.remove("hold-reboot");
    site.until_over("s21", "repaired");
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.end("train.2.0", 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_watches_touches_nothing() {
    let site = Site::new(&["s21"], "  mode: observe", "").await;
    let machine = site.machine("s21");
    let _server = site.serve();
    machine.log(FALLEN);
    site.world.wait("it is told", || site.incidents().iter().any(|incident| incident["watched"] == true));
    site.until_read(machine);
    assert_eq!((site.node("s21")["standing"].as_str(), machine.done().len()), (Some("ready"), 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gpu_that_is_gone_fails_its_check_and_the_reboot_is_known_by_the_boot_id_alone() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    let machine = site.machine("s21");
    let mut server = site.serve();
    machine.set("hold-reboot", "");
    machine.set("rows", &machine.rows(&["a"]));
    site.until_done("s21", &["check 1", "reboot"]);
    machine.set("rows", &machine.rows(&["a", "b"]));
    machine.remove("hold-reboot");
    site.until_done("s21", &["check 1", "reboot", "check 1"]);
    site.until_over("s21", "repaired");
    let shown = site.world.ok(&["incidents", "show", "inc-1"]);
    for part in ["lost GPU", "GPU-00000021-b is not there any more", "it has a new boot id, boot-2"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
    server.kill();
    let _server = site.serve();
    assert_eq!(site.incidents().len(), 1, "what is over is not told anew by the next server");
}

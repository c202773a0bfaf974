//! A server that is killed while it recovers, in each state: the next one goes on, and what comes of it is the same.

use crate::harness::Running;
use crate::machine::{FALLEN, Machine};
use crate::site::{Site, state_of};

/// A job on a machine that breaks. The server is killed once the machine is in this state, where it is held by `hold` until
/// the next server has come.
async fn killed_while(state: &str, hold: &str) {
    let (site, mut server, run) = failing(&[hold]).await;
    site.until_state("s21", state);
    site.again(&mut server);
    site.machine("s21").remove(hold);
    repaired_once(&site, &run);
}

/// A job has failed on a machine that is broken, and is held by these.
async fn failing(holds: &[&str]) -> (Site, Running, String) {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    let server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]);
    let machine = site.machine("s21");
    machine.set("broken", &first[0].gpu);
    holds.iter().for_each(|hold| machine.set(hold, ""));
    site.end("train.1.0", 1);
    (site, server, run)
}

fn repaired_once(site: &Site, run: &str) {
    site.until_over("s21", "repaired");
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.end("train.2.0", 0);
    site.until_run(run, "success");
    assert_eq!((site.machine("s21").reboots(), site.incidents().len()), (1, 1), "{:#?}", site.incidents());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_checked_and_its_job_waits_for_the_verdict() {
    killed_while("checking", "hold-check").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_rebooted_and_its_job_waits_for_it() {
    killed_while("remediating (reboot)", "hold-reboot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_verified() {
    killed_while("verifying", "hold-verify").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_job_that_is_to_begin_anew_was_handed_out_and_finds_no_room() {
    let (site, mut server, run) = failing(&["hold-check"]).await;
    site.until_state("s21", "checking");
    // Somebody keeps the node for themselves, whatever recovery says of it.
    site.world.ok(&["nodes", "cordon", "s21"]);
    site.machine("s21").remove("hold-check");
    site.until_over("s21", "repaired");
    let waits = || site.run(&run)["tasks"][0]["state"] != "recovering";
    site.world.wait("its restart was handed out", waits);
    for _ in 0..2 {
        site.again(&mut server);
        site.until_read(site.machine("s21"));
        assert_eq!(site.begun().len(), 1, "{:#}", site.run(&run));
    }
    site.world.ok(&["nodes", "uncordon", "s21"]);
    repaired_once(&site, &run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_each_state_one_after_the_other() {
    let holds = ["hold-check", "hold-reboot", "hold-verify"];
    let (site, mut server, run) = failing(&holds).await;
    for (state, hold) in ["checking", "remediating (reboot)", "verifying"].into_iter().zip(holds) {
        site.until_state("s21", state);
        site.again(&mut server);
        site.machine("s21").remove(hold);
    }
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.again(&mut server);
    repaired_once(&site, &run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_others_work_is_waited_for() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    site.job("other", 1, "");
    let mut server = site.serve();
    let (run, other) = (site.trigger("train"), site.trigger("other"));
    let begun = site.until_begun(&["train.1.0", "other.1.0"]);
    site.machine("s21").set("broken", &begun[0].gpu);
    site.end("train.1.0", 1);
    site.until_state("s21", "draining");
    site.again(&mut server);
    assert_eq!(site.machine("s21").reboots(), 0);
    site.end("other.1.0", 0);
    site.until_run(&other, "success");
    site.until_begun(&["train.1.0", "other.1.0", "train.2.0"]);
    site.until_over("s21", "repaired");
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    assert_eq!((site.machine("s21").reboots(), site.incidents().len(), site.stopped().len()), (1, 1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_job_ends_on_a_node_that_is_fenced() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", ", stop: 10m").await;
    site.job("train", 2, "    grace: 10m\n");
    let mut server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0", "train.1.1"]);
    site.hold_stops();
    site.machine("s21").set("broken", &first[0].gpu);
    site.end("train.1.0", 1);
    // Its sibling is to end, and takes its time; meanwhile its node shows something as well.
    site.until_incident("s21", "is there", |incident| !incident.is_null());
    site.machine("s22").log(Machine::ODD);
    site.until_state("s22", "fenced");
    site.again(&mut server);
    site.let_stop();
    let all = site.until_begun(&["train.1.0", "train.1.1", "train.2.0", "train.2.1"]);
    assert_eq!(site.stopped(), ["train.1.1"], "{all:?}");
    site.until_over("s22", "passed");
    site.until_over("s21", "repaired");
    site.end("train.2.0", 0);
    site.end("train.2.1", 0);
    site.until_run(&run, "success");
    assert_eq!((site.machine("s21").reboots(), site.machine("s22").reboots()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_is_out_of_reach_which_is_never_a_reason_to_reboot_it() {
    let mut site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    let mut server = site.serve();
    let run = site.trigger("train");
    site.until_begun(&["train.1.0"]);
    site.machine_mut("s21").cut();
    site.until_state("s21", "suspected");
    site.again(&mut server);
    site.machine_mut("s21").sshd.up().await;
    site.until_over("s21", "passed");
    site.until("s21", "it serves again", |node| node["standing"] == "ready");
    site.end("train.1.0", 0);
    site.until_run(&run, "success");
    assert_eq!((site.machine("s21").reboots(), site.begun().len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_repair_waits_for_a_person_who_allows_it_when_no_server_runs() {
    let site = Site::new(&["s21"], "  mode: approve", "").await;
    site.job("train", 1, "");
    let mut server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]);
    site.machine("s21").set("broken", &first[0].gpu);
    site.end("train.1.0", 1);
    site.until_state("s21", "awaiting_approval");
    server.kill();
    assert_eq!(site.machine("s21").reboots(), 0);
    site.world.ok(&["incidents", "approve", "inc-1"]);
    let _server = site.world.serve();
    repaired_once(&site, &run);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_node_waits_for_its_turn() {
    let site = Site::new(&["s21", "s22"], "  mode: auto\n  repair_share: 50%", "").await;
    let mut server = site.serve();
    for name in ["s21", "s22"] {
        site.machine(name).set("hold-reboot", "");
        site.machine(name).log(FALLEN);
    }
    let stands = |state: &str| -> Option<String> {
        let incident = site.incidents().into_iter().find(|incident| state_of(incident) == state)?;
        incident["node"].as_str().map(str::to_owned)
    };
    site.world.wait("one waits", || stands("remediating (reboot)").is_some() && stands("queued").is_some());
    let queued = stands("queued").unwrap();
    site.again(&mut server);
    site.until_state(&queued, "queued");
    assert!(site.machine(&queued).done().is_empty());
    for name in ["s21", "s22"] {
        site.machine(name).remove("hold-reboot");
    }
    for name in ["s21", "s22"] {
        site.until_over(name, "repaired");
        site.until_done(name, &["reboot", "check 1"]);
    }
    assert_eq!(site.incidents().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_the_note_that_a_repair_begins_and_its_order_which_is_then_never_given() {
    let mut site = Site::new(&["s21"], "  mode: approve", ", reboot: 20s").await;
    let mut server = site.serve();
    site.machine("s21").log(FALLEN);
    site.until_state("s21", "awaiting_approval");
    // Nobody gets in, so the order waits.
    site.machine_mut("s21").cut();
    site.world.ok(&["incidents", "approve", "inc-1", "--repair", "reboot"]);
    let log = || std::fs::read_to_string(site.world.path("server.log")).unwrap();
    site.world.wait("it is noted, and cannot be ordered", || log().contains("a repair cannot be ordered yet"));
    site.until_state("s21", "remediating (reboot)");
    server.kill();
    site.machine_mut("s21").sshd.up().await;
    let _server = site.world.serve();
    // The next server cannot know that it was not given: it looks, and in the end leaves that to people.
    site.until_over("s21", "out_of_service");
    assert!(site.machine("s21").done().is_empty(), "{:?}", site.machine("s21").done());
    site.world.ok(&["incidents", "retry", "inc-1"]);
    site.until("s21", "it was checked, and is well", |node| node["standing"] == "ready");
    assert_eq!(site.machine("s21").reboots(), 0);
}

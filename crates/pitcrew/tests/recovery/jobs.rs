//! Jobs, from the failure to the restart.

use serde_json::json;

use crate::machine::{FALLEN, Machine};
use crate::site::{Site, state_of};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_whose_gpu_fails_is_ended_its_node_repaired_and_it_goes_on_from_its_checkpoint() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", "").await;
    site.job("train", 2, "    resume_from: /checkpoints/here\n");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0", "train.1.1"]);
    assert_eq!((&*first[0].node, &*first[1].node), ("s21", "s22"), "{first:?}");
    assert!(first.iter().all(|one| one.resume_from == "-"), "{first:?}");
    let machine = site.machine("s21");
    machine.set("broken", &first[0].gpu);
    machine.set("hold-check", "");
    machine.set("hold-reboot", "");
    machine.name_gpu(&first[0].gpu);
    machine.log(Machine::ODD);
    site.until_state("s21", "checking");
    site.end("train.1.0", 1);
    site.world.wait("its sibling is told to end", || site.stopped() == ["train.1.1"]);
    site.until_run(&run, "recovering");
    machine.remove("hold-check");
    site.until_state("s21", "remediating (reboot)");
    assert_eq!(site.node("s21")["standing"], "cordoned");
    assert_eq!(site.begun().len(), 2, "it waits for its node");
    machine.remove("hold-reboot");
    let second = site.until_begun(&["train.1.0", "train.1.1", "train.2.0", "train.2.1"]);
    assert!(second[2..].iter().all(|one| one.resume_from == "/checkpoints/here"), "{second:?}");
    let incident = site.until_over("s21", "repaired");
    assert_eq!((&incident["verdict"], &incident["class"]), (&json!("fail"), &json!("infrastructure")), "{incident:#}");
    let signals = incident["signals"].to_string();
    assert!(signals.contains("Xid") && incident["jobs"].to_string().contains("train"), "{incident:#}");
    assert_eq!(machine.reboots(), 1);
    assert!(site.machine("s22").done().iter().all(|done| done.starts_with("check")));
    site.end("train.2.0", 0);
    site.end("train.2.1", 0);
    site.until_run(&run, "success");
    assert_eq!(site.node("s21")["standing"], "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_runs_on_when_its_node_fails_a_check_is_waited_for_and_is_not_to_blame_when_it_fails() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]);
    let machine = site.machine("s21");
    machine.set("broken", &first[0].gpu);
    machine.log(Machine::ODD);
    site.until_state("s21", "draining");
    site.until_read(machine);
    assert_eq!(machine.done(), ["check 1 passive"]);
    site.end("train.1.0", 1);
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.until_done("s21", &["check 1 passive", "reboot", "check 1"]);
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_on_a_gpu_that_is_well_is_the_jobs_own_and_draws_on_its_retries() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "    retries: 1\n    retry_delay: 0s\n");
    let _server = site.serve();
    let run = site.trigger("train");
    site.until_begun(&["train.1.0"]);
    site.end("train.1.0", 3);
    site.until_begun(&["train.1.0", "train.2.0"]);
    assert_eq!(site.until_over("s21", "passed")["class"], "application");
    site.end("train.2.0", 3);
    let failed = site.until_run(&run, "failed");
    assert!(failed["tasks"][0]["message"].to_string().contains("begun anew 1 times of 1"), "{failed:#}");
    site.world
        .wait("both were looked into", || site.incidents().iter().filter(|i| i["outcome"] == "passed").count() == 2);
    assert_eq!(site.machine("s21").reboots(), 0);
    assert_eq!(site.begun().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_spare_node_a_job_begins_anew_there_while_its_own_is_repaired() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", "").await;
    site.job("train", 1, "    resume_from: /checkpoints/here\n");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    let machine = site.machine(&first.node);
    machine.set("hold-reboot", "");
    machine.name_gpu(&first.gpu);
    machine.log(FALLEN);
    let second = site.until_begun(&["train.1.0", "train.2.0"]).remove(1);
    assert_ne!(second.node, first.node);
    assert_eq!((&*second.resume_from, &*site.stopped()), ("/checkpoints/here", &["train.1.0".to_owned()][..]));
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    site.until_state(machine.name, "remediating (reboot)");
    machine.remove("hold-reboot");
    site.until_over(machine.name, "repaired");
    assert_eq!((machine.done(), site.machine(&second.node).done()), (vec!["reboot".into(), "check 1".into()], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weakness_16_others_work_on_the_node_is_waited_for_and_never_ended() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    site.job("other", 1, "");
    let _server = site.serve();
    let (run, other) = (site.trigger("train"), site.trigger("other"));
    let begun = site.until_begun(&["train.1.0", "other.1.0"]);
    let machine = site.machine("s21");
    machine.name_gpu(&begun[0].gpu);
    machine.log(FALLEN);
    site.world.wait("the job on the GPU is ended", || site.stopped() == ["train.1.0"]);
    site.until_state("s21", "draining");
    site.until_read(machine);
    assert!(machine.done().is_empty(), "{:?}", machine.done());
    site.end("other.1.0", 0);
    site.until_run(&other, "success");
    site.until_begun(&["train.1.0", "other.1.0", "train.2.0"]);
    assert_eq!(machine.done(), ["reboot", "check 1"]);
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    assert_eq!(site.stopped(), ["train.1.0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_checks_come_to_no_end_is_rebooted_once_and_its_job_goes_on() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    site.until_begun(&["train.1.0"]);
    site.machine("s21").set("unsure", "");
    site.end("train.1.0", 1);
    site.until_begun(&["train.1.0", "train.2.0"]);
    let incident = site.until_over("s21", "repaired");
    assert_eq!(incident["verdict"], "inconclusive", "{incident:#}");
    site.until_done("s21", &["check 2", "check 2", "check 2", "reboot", "check 1"]);
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_checks_come_to_no_end_is_left_to_people_where_they_want_that() {
    let site = Site::new(&["s21", "s22"], "  mode: auto\n  inconclusive: out_of_service", "").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    site.machine(&first.node).set("unsure", "");
    site.end("train.1.0", 1);
    let second = site.until_begun(&["train.1.0", "train.2.0"]).remove(1);
    assert_ne!(second.node, first.node);
    site.until_over(&first.node, "out_of_service");
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    assert_eq!(
        (site.node(&first.node)["standing"].as_str(), site.machine(&first.node).reboots()),
        (Some("cordoned"), 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_that_fail_at_once_are_each_repaired_once_and_no_more_at_a_time_than_may_be() {
    let names = ["s21", "s22", "s23", "s24"];
    let site = Site::new(&names, "  mode: auto\n  repair_share: 50%", "").await;
    site.job("train", 3, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0", "train.1.1", "train.1.2"]);
    // None of its ranks ends before all three have failed; each node is read by itself, at another moment.
    site.hold_stops();
    for one in &first {
        let machine = site.machine(&one.node);
        machine.set("hold-reboot", "");
        machine.name_gpu(&one.gpu);
        machine.log(FALLEN);
    }
    site.let_stop();
    let stands = |state: &str| -> Vec<String> {
        let there = site.incidents().into_iter().filter(|incident| state_of(incident) == state);
        there.map(|incident| incident["node"].as_str().unwrap().to_owned()).collect()
    };
    site.world.wait("one waits its turn", || stands("remediating (reboot)").len() == 2 && stands("queued").len() == 1);
    let queued = stands("queued").remove(0);
    site.until_read(site.machine(&queued));
    assert!(site.machine(&queued).done().is_empty());
    first.iter().for_each(|one| site.machine(&one.node).remove("hold-reboot"));
    for one in &first {
        site.until_over(&one.node, "repaired");
        site.until_done(&one.node, &["reboot", "check 1"]);
    }
    // One restart, however many nodes have failed: so it drew once on its budget, and did not wait for a second time.
    let second = ["train.2.0", "train.2.1", "train.2.2"];
    site.until_begun(&[&["train.1.0", "train.1.1", "train.1.2"][..], &second].concat());
    second.iter().for_each(|name| site.end(name, 0));
    let over = site.until_run(&run, "success");
    assert!(over["tasks"].as_array().unwrap().iter().all(|task| task["attempts"] == 2), "{over:#}");
    assert_eq!(site.incidents().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_people_want_that_others_work_makes_room_and_it_costs_them_nothing() {
    let site = Site::new(&["s21", "s22"], "  mode: auto\n  drain: preempt", "").await;
    site.job("train", 1, "    node_selector: {place: here}\n");
    site.job("other", 1, "    node_selector: {place: here}\n");
    site.world.ok(&["nodes", "label", "s21", "place=here"]);
    let _server = site.serve();
    let (run, other) = (site.trigger("train"), site.trigger("other"));
    let begun = site.until_begun(&["train.1.0", "other.1.0"]);
    site.world.ok(&["nodes", "label", "s22", "place=here"]);
    let machine = site.machine("s21");
    machine.set("hold-reboot", "");
    machine.name_gpu(&begun[0].gpu);
    machine.log(FALLEN);
    let begun = site.until_begun(&["train.1.0", "other.1.0", "train.2.0", "other.2.0"]);
    assert!(begun[2..].iter().all(|one| one.node == "s22"), "{begun:?}");
    site.end("train.2.0", 0);
    site.end("other.2.0", 0);
    site.until_run(&run, "success");
    site.until_run(&other, "success");
    machine.remove("hold-reboot");
    site.until_over("s21", "repaired");
    assert_eq!(machine.done(), ["reboot", "check 1"]);
}

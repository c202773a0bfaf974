//! Where a recovery ends: budgets, repairs that do not help, and people who want something else.

use crate::machine::FALLEN;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_that_never_comes_back_leaves_the_node_to_people_and_the_job_goes_on_elsewhere() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", ", reboot: 20s").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    let machine = site.machine(&first.node);
    machine.set("broken", &first.gpu);
    machine.set("stuck", "");
    site.end("train.1.0", 1);
    let second = site.until_begun(&["train.1.0", "train.2.0"]).remove(1);
    assert_ne!(second.node, first.node);
    site.until_over(&first.node, "out_of_service");
    assert_eq!(machine.done(), ["check 2", "reboot"], "an order is given once");
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    assert_eq!(site.node(&first.node)["standing"], "cordoned");
}

/// Weakness 2: the second failure of a job is looked into like the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_again_on_its_repaired_node_is_told_apart_by_a_check() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    site.machine("s21").set("broken", &first.gpu);
    site.end("train.1.0", 1);
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.until_over("s21", "repaired");
    // By now the machine is well.
    site.end("train.2.0", 1);
    site.until_run(&run, "failed");
    site.until_over("s21", "passed");
    site.until_done("s21", &["check 2", "reboot", "check 1", "check 2"]);
    assert_eq!((site.begun().len(), site.incidents().len()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_breaks_again_is_not_rebooted_beyond_its_budget_and_people_give_it_back_to_the_job() {
    let site = Site::new(&["s21"], "  mode: auto\n  reboots_per_day: 1", "").await;
    site.job("train", 1, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    let machine = site.machine("s21");
    machine.set("broken", &first.gpu);
    site.end("train.1.0", 1);
    site.until_begun(&["train.1.0", "train.2.0"]);
    site.until_over("s21", "repaired");
    machine.log(FALLEN);
    site.world.wait("the job on it is ended", || site.stopped() == ["train.2.0"]);
    let incident = site.until_over("s21", "out_of_service");
    assert!(incident["trail"].to_string().contains("it was rebooted 1 times in 24 hours"), "{incident:#}");
    assert_eq!((machine.reboots(), site.node("s21")["standing"].as_str()), (1, Some("cordoned")));
    site.until_read(machine);
    assert_eq!(site.begun().len(), 2, "there is no room for the job");
    site.world.ok(&["incidents", "dismiss", "inc-2", "--reason", "the riser was swapped"]);
    site.until_begun(&["train.1.0", "train.2.0", "train.3.0"]);
    site.end("train.3.0", 0);
    site.until_run(&run, "success");
    assert_eq!(machine.reboots(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_finds_no_room_to_begin_anew_is_given_up() {
    let site = Site::new(&["s21"], "  mode: auto", ", room: 1s, room_at_most: 2s").await;
    site.job("train", 1, "    retries: 2\n");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    let machine = site.machine("s21");
    machine.set("broken", &first.gpu);
    machine.set("stuck", "");
    site.end("train.1.0", 1);
    let failed = site.until_run(&run, "failed");
    assert!(failed["tasks"][0]["message"].to_string().contains("there was no room to begin anew"), "{failed:#}");
    assert_eq!(site.begun().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_stops_a_job_is_no_failure() {
    let site = Site::new(&["s21"], "  mode: auto", "").await;
    site.job("train", 1, "    retries: 3\n");
    let mut server = site.serve();
    let run = site.trigger("train");
    site.until_begun(&["train.1.0"]);
    site.world.ok(&["runs", "cancel", &run]);
    site.world.wait("it is cancelled", || site.run(&run)["state"] == "cancelled");
    site.again(&mut server);
    site.until_read(site.machine("s21"));
    assert_eq!((site.incidents().len(), site.machine("s21").done().len(), site.begun().len()), (0, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_who_stops_a_job_that_waits_is_heard_and_its_node_is_repaired() {
    for (hold, state) in [("hold-check", "checking"), ("hold-reboot", "remediating (reboot)")] {
        let site = Site::new(&["s21"], "  mode: auto", "").await;
        site.job("train", 1, "");
        let _server = site.serve();
        let run = site.trigger("train");
        let first = site.until_begun(&["train.1.0"]).remove(0);
        let machine = site.machine("s21");
        machine.set("broken", &first.gpu);
        machine.set(hold, "");
        site.end("train.1.0", 1);
        site.until_state("s21", state);
        site.world.ok(&["runs", "cancel", &run]);
        site.world.wait("it is cancelled", || site.run(&run)["state"] == "cancelled");
        machine.remove(hold);
        site.until_over("s21", "repaired");
        site.until("s21", "it serves again", |node| node["standing"] == "ready");
        site.until_read(machine);
        assert_eq!((machine.reboots(), site.begun().len()), (1, 1));
    }
}

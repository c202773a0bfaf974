//! Jobs, from the failure to the restart.

use serde_json::json;

use crate::site::Site;

/// Of a GPU that nobody knows anything about yet: it is to be checked.
const ODD: &str = "NVRM: Xid (PCI:0000:9b:00): 999, pid=1, name=train, something new";
const NAME: &str = "NVRM: GPU at PCI:0000:9b:00: GPU-s21-a";

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
    machine.log(NAME);
    machine.log(ODD);
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
    machine.log(ODD);
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

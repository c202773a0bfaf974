//! Gangs, of which the member that fails first need not be the one whose machine is sick.

use serde_json::json;

use crate::site::Site;

const FIRST: [&str; 2] = ["train.1.0", "train.1.1"];
const BOTH: [&str; 4] = ["train.1.0", "train.1.1", "train.2.0", "train.2.1"];

/// The outcomes and causes of all incidents, the oldest first.
fn ends(site: &Site) -> Vec<(String, String, String)> {
    let text = |incident: &serde_json::Value, key: &str| incident[key].as_str().unwrap_or_default().to_owned();
    let of =
        |one: &serde_json::Value| (text(one, "node"), text(&one["signals"][0]["kind"], "kind"), text(one, "outcome"));
    let mut all: Vec<_> = site.incidents().iter().map(of).collect();
    all.reverse();
    all
}

fn end(node: &str, kind: &str, outcome: &str) -> (String, String, String) {
    (node.to_owned(), kind.to_owned(), outcome.to_owned())
}

/// Weakness 1: it begins with the node of the member that failed, also where that is not the first one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_no_node_is_to_blame_all_were_checked_and_the_failure_is_the_gangs_own() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", "").await;
    site.job("train", 2, "");
    let _server = site.serve();
    let run = site.trigger("train");
    site.until_begun(&FIRST);
    site.end("train.1.1", 3);
    site.until_run(&run, "failed");
    for name in ["s21", "s22"] {
        site.until_over(name, "passed");
    }
    assert_eq!(ends(&site), [end("s22", "exit_code", "passed"), end("s21", "peer", "passed")]);
    assert_eq!((site.machine("s21").reboots(), site.machine("s22").reboots(), site.begun().len()), (0, 0, 2));
}

/// Weakness 1: the nodes of the other members are checked as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_fails_because_of_anothers_gpu_leads_to_that_one() {
    let site = Site::new(&["s21", "s22"], "  mode: auto", "").await;
    site.job("train", 2, "");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&FIRST);
    site.machine("s22").set("broken", &first[1].gpu);
    site.end("train.1.0", 3);
    site.until_begun(&BOTH);
    site.until_over("s22", "repaired");
    assert_eq!(ends(&site), [end("s21", "exit_code", "passed"), end("s22", "peer", "repaired")]);
    assert_eq!(site.incidents()[0]["gpus"], json!([first[1].gpu]));
    assert_eq!((site.machine("s21").reboots(), site.machine("s22").reboots()), (0, 1));
    site.end("train.2.0", 0);
    site.end("train.2.1", 0);
    site.until_run(&run, "success");
}

//! What tasks say: by their exit codes, by their last words, and by falling silent.

use serde_json::{Value, json};

use crate::machine::Machine;

const SPOKE: &str = "RuntimeError: CUDA error: uncorrectable ECC error encountered";

/// The kinds of what an incident was opened for, and what joined it.
fn kinds(incident: &Value) -> Vec<&str> {
    incident["signals"].as_array().unwrap().iter().map(|signal| signal["kind"]["kind"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_words_of_a_task_are_evidence_and_come_before_its_end() {
    let machine = Machine::new("  mode: auto");
    machine.task("    retries: 1\n", &format!("[ $ATTEMPT = 2 ] && exit 0\necho loading\necho '{SPOKE}' >&2\nexit 1"));
    let _server = machine.serve();
    machine.run_to("success");
    let incidents = machine.until_over(1);
    assert_eq!(kinds(&incidents[0]), ["log_pattern", "exit_code"], "{:#}", incidents[0]);
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["class"]), (&json!("passed"), &json!("application")));
    assert!(incidents[0]["signals"][0]["evidence"].as_str().unwrap().contains(SPOKE), "{:#}", incidents[0]);
    assert_eq!(machine.done(), ["check 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_application_is_told_by_its_words_or_by_its_code_and_no_node_is_looked_at() {
    let machine = Machine::new("  mode: auto\n  exit_codes: {9: application, 7: diagnose}");
    let keys = "    retries: 2\n    recovery: {exit_codes: {7: application}}\n";
    let script =
        "case $ATTEMPT in 1) echo 'torch: CUDA out of memory. Tried to allocate'; exit 1;; 2) exit 7;; esac\nexit 9";
    machine.task(keys, script);
    let _server = machine.serve();
    let run = machine.run_to("failed");
    let task = &run["tasks"][0];
    assert_eq!((&task["attempts"], &task["exit_code"]), (&json!(3), &json!(9)), "{run:#}");
    assert_eq!((machine.incidents().len(), machine.done().len()), (0, 0), "{:?}", machine.incidents());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_and_codes_of_the_configuration_count() {
    let machine = Machine::new("  mode: auto\n  tables: signs.yaml\n  exit_codes: {otherwise: application}");
    let tables = "exit_codes: {otherwise: diagnose}\nlog:\n  patterns:\n  - {name: mine, pattern: 'the shelf \\w+ broke', about: our own words, action: diagnose}\n";
    std::fs::write(machine.world.path("signs.yaml"), tables).unwrap();
    machine.task("", "echo 'the shelf A7 broke'; exit 4");
    let _server = machine.serve();
    machine.run_to("failed");
    let incidents = machine.until_over(1);
    assert_eq!(kinds(&incidents[0]), ["log_pattern"], "the code is the application's: {:#}", incidents[0]);
    assert!(incidents[0]["signals"][0]["evidence"].as_str().unwrap().contains("our own words: the shelf A7 broke"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_falls_silent_is_ended_its_node_checked_and_it_begins_anew() {
    let machine = Machine::new("  mode: auto");
    machine.task(
        "    retries: 1\n    hang: {silence: 3s}\n",
        "[ $ATTEMPT = 2 ] && exit 0\nfor i in 1 2 3 4 5 6; do echo step $i; sleep 1; done\nexec sleep 1000",
    );
    let _server = machine.serve();
    machine.run_to("success");
    let incidents = machine.until_over(1);
    assert_eq!(kinds(&incidents[0]), ["silence"], "{:#}", incidents[0]);
    assert_eq!((&incidents[0]["outcome"], &incidents[0]["class"]), (&json!("passed"), &json!("application")));
    let evidence = incidents[0]["signals"][0]["evidence"].as_str().unwrap();
    assert!(evidence.contains("it has written nothing since") && evidence.contains("train"), "{evidence}");
    let store = pitcrew_store::StoreUrl::Sqlite(machine.world.path("data/pitcrew.db"));
    let store = pitcrew_store::Store::open(&store).await.unwrap();
    let rows = store.attempts(pitcrew_core::RunKey(1), &pitcrew_core::TaskId::new("train").unwrap(), -1).await.unwrap();
    assert!(rows[0].message.contains("silence of the log"), "its row says why: {:?}", rows[0]);
    assert_eq!(machine.done(), ["check 2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_writes_and_does_not_get_on_or_says_that_it_is_stuck_hangs_as_well() {
    let machine = Machine::new("  mode: auto");
    machine.task(
        "    retries: 2\n    recovery: {restart: after_verdict}\n    \
         hang: {pattern: 'barrier \\w+ stuck', progress: {pattern: 'step \\d+', first_within: 1h, every: 3s}}\n",
        "[ $ATTEMPT = 3 ] && exit 0\necho step 1\n[ $ATTEMPT = 2 ] && { echo barrier B stuck; exec sleep 1000; }\n\
         while :; do echo waiting; sleep 1; done",
    );
    let _server = machine.serve();
    machine.run_to("success");
    let incidents = machine.until_over(2);
    assert_eq!((kinds(&incidents[1]), kinds(&incidents[0])), (vec!["silence"], vec!["log_pattern"]), "{incidents:#?}");
    let evidence = incidents[1]["signals"][0]["evidence"].as_str().unwrap();
    assert!(evidence.contains("no line like `step \\d+`"), "{evidence}");
    assert_eq!(machine.done(), ["check 2", "check 2"]);
}

//! Runs in the foreground: how they are told, steered, left and taken over.

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Place, read, release, signal};
use crate::snapshot;

const CHAIN: &str = "\
workflow: chain
params: {who: {type: string, default: world}}
tasks:
  greet: {run: 'echo hello {{ params.who }}'}
  count: {needs: [greet], foreach: {i: [1, 2]}, max_parallel: 1, run: 'echo item {{ item.i }}'}
  answer: {needs: [count], run: 'echo answer=42 >> \"$PITCREW_OUTPUT\"'}
";

/// Fails until the file `mended` is there.
fn breaks(place: &Place) -> String {
    let mended = place.path("mended");
    format!(
        "workflow: breaks\ntasks:\n  prepare: {{run: echo ready}}\n  train:\n    needs: [prepare]\n    run: |\n      echo epoch 1\n      echo 'out of luck' >&2\n      test -e {} || exit 3\n  after: {{needs: [train], run: echo done}}\n",
        mended.display()
    )
}

#[test]
fn a_run_is_told_in_plain_lines_and_in_one_document() {
    let place = Place::new();
    place.file("chain.yaml", CHAIN);
    let text = place.run("run chain.yaml -p who=you").ends(0);
    assert!(text.stderr.is_empty(), "{text}");
    let quiet = place.run("run chain.yaml -q").ends(0);
    assert!(quiet.stdout.is_empty() && quiet.stderr.is_empty(), "{quiet}");
    let mut document = place.run("run chain.yaml --output json --run-id mine").ends(0).json();
    assert!(document["duration_ms"].is_i64());
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["run_id", "workflow", "state", "duration_ms", "tasks"]);
    for task in document["tasks"].as_array_mut().unwrap() {
        for time in ["start", "end"] {
            let at = task.as_object_mut().unwrap().remove(time).unwrap();
            at.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        }
    }
    let task = |id: &str, map_index: i32, outputs: serde_json::Value| json!({"id": id, "map_index": map_index, "state": "success", "attempts": 1, "exit_code": 0, "message": null, "outputs": outputs});
    let expected = json!([
        task("greet", -1, json!({})),
        task("count", 0, json!({})),
        task("count", 1, json!({})),
        task("answer", -1, json!({"answer": "42"})),
    ]);
    assert_eq!(document["tasks"], expected);
    assert_eq!((&document["run_id"], &document["state"]), (&json!("mine"), &json!("success")));
    let again = place.run("run chain.yaml --run-id mine").ends(2);
    snapshot!("run", format!("{text}\n{again}\n{}", place.run("runs list").ends(0)));
}

#[test]
fn a_failure_shows_the_end_of_its_log_and_can_be_retried_when_mended() {
    let place = Place::new();
    place.file("breaks.yaml", breaks(&place));
    let failed = place.run("run breaks.yaml").ends(1);
    let document = place.run("run breaks.yaml --output json").ends(1).json();
    assert_eq!((&document["state"], &document["tasks"][1]["exit_code"]), (&json!("failed"), &json!(3)));
    let message = document["tasks"][1]["message"].as_str().unwrap();
    assert!(message.lines().last().unwrap().contains("exit code 3"), "{message}");
    let shown = place.run("runs show 1").ends(0);
    let logs = place.run("logs 1").ends(0);
    let one = place.run("logs 1 train").ends(0);
    let none = place.run("logs 1 after").ends(0);
    let why = place.run("explain 1 after").ends(0);
    place.file("mended", "");
    let retried = place.run("runs retry 1 --failed").ends(0);
    let nothing = place.run("runs retry 1 --failed").ends(0);
    let first = place.run("logs 1 train --attempt 1 --output json").ends(0);
    let line: serde_json::Value = serde_json::from_str(first.stdout.lines().next().unwrap()).unwrap();
    assert_eq!((&line["text"], &line["stream"], &line["attempt"]), (&json!("epoch 1"), &json!("stdout"), &json!(1)));
    assert_eq!(place.run("runs show 1 --output json").ends(0).json()["tasks"][1]["attempts"], 2);
    let all = [failed, shown, logs, one, none, why, retried, nothing].map(|ran| format!("{ran}\n")).concat();
    snapshot!("failure", all);
}

/// A task that says when it has begun, and ends when it is told to; and one that cleans up.
fn waits(place: &Place) -> (std::path::PathBuf, std::path::PathBuf) {
    let (begun, go) = (place.pipe("begun"), place.pipe("go"));
    let source = format!(
        "workflow: waits\ntasks:\n  hold: {{run: 'echo begun > {}; read x < {}; echo held'}}\n  next: {{needs: [hold], run: echo next}}\nfinally:\n  clean: {{run: echo cleaned}}\n",
        begun.display(),
        go.display()
    );
    place.file("waits.yaml", source);
    (begun, go)
}

#[test]
fn a_task_that_will_be_tried_again_says_when() {
    let place = Place::new();
    let text = "workflow: again\ntasks:\n  once: {retries: 1, retry_delay: 1s, run: 'test -e begun || { touch begun; exit 3; }'}\n";
    place.file("again.yaml", text.replace("begun", &place.path("begun").display().to_string()));
    let ran = place.run("run again.yaml").ends(0).stdout;
    assert!(ran.contains("↻ once  failed; attempt 2 "), "{ran}");
    assert!(ran.contains("✓ once  "), "{ran}");
}

#[test]
fn ctrl_c_cancels_and_what_cleans_up_still_runs() {
    let place = Place::new();
    let (begun, _go) = waits(&place);
    let child = place.start("run waits.yaml");
    read(&begun);
    signal(&child, Signal::INT);
    let ran = place.ran("run waits.yaml", child.wait_with_output().unwrap()).ends(1);
    assert!(ran.stdout.contains("✓ clean") && ran.stdout.contains("was cancelled"), "{ran}");
    assert!(!ran.stdout.contains("held"), "{ran}");
    assert_eq!(place.run("runs show 1 --output json").ends(0).json()["state"], "cancelled");
}

#[test]
fn another_command_explains_and_cancels_a_run_in_the_foreground() {
    let place = Place::new();
    let (begun, _go) = waits(&place);
    let child = place.start("run waits.yaml");
    read(&begun);
    let why = place.run("explain waits next").ends(0);
    assert_eq!(why.stdout, "`next` waits for `hold`, which is running\n");
    let refused = place.run("runs resume latest").ends(2);
    assert!(refused.stderr.contains("works on run 1"), "{refused}");
    place.run("runs cancel latest").ends(0);
    place.ran("run waits.yaml", child.wait_with_output().unwrap()).ends(1);
}

#[test]
fn a_run_whose_process_was_killed_is_taken_over_without_running_anything_twice() {
    let place = Place::new();
    let (begun, go) = waits(&place);
    let mut child = place.start("run waits.yaml");
    read(&begun);
    child.kill().unwrap();
    child.wait().unwrap();
    let orphan = place.run("runs show 1").ends(0);
    assert!(orphan.stderr.contains("nobody works on run 1"), "{orphan}");
    let resumed = place.start("runs resume 1");
    let followed = place.start("logs 1 -f");
    release(&go);
    let resumed = place.ran("runs resume 1", resumed.wait_with_output().unwrap()).ends(0);
    let followed = place.ran("logs 1 -f", followed.wait_with_output().unwrap()).ends(0);
    for wanted in ["✓ hold", "✓ next", "✓ clean"] {
        assert!(resumed.stdout.contains(wanted), "{resumed}");
    }
    for wanted in ["held", "next", "cleaned"] {
        assert!(followed.stdout.contains(&format!("│ {wanted}")), "{followed}");
    }
    let document = place.run("runs show 1 --output json").ends(0).json();
    assert_eq!(document["tasks"][0]["attempts"], 1, "it went on and was not run again");
}

#[test]
fn on_the_fake_backend_nothing_real_is_started() {
    let place = Place::new();
    let proof = place.path("proof");
    place.file("w.yaml", format!("workflow: w\ntasks:\n  a: {{run: 'touch {}'}}\n", proof.display()));
    place.run("run w.yaml --backend fake").ends(0);
    assert!(!proof.exists());
    place.run("runs retry 1").ends(0);
    assert!(!proof.exists(), "nor when it is run again");
    place.run("run w.yaml").ends(0);
    assert!(proof.exists());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    place.file("w.yaml", "workflow: w\ntasks:\n  a: {run: 'seq 1 200000'}\n");
    place.run("run w.yaml").ends(0);
    let mut child = place.start("logs 1");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ran = place.ran("logs 1", child.wait_with_output().unwrap()).ends(0);
    assert!(line == "1\n" && ran.stderr.is_empty(), "{ran}");
}

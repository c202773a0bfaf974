//! How far a run is stopped: `tkn`'s `cancel`, and its `--grace`.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use crate::harness::{Place, has_sandbox};

const RUN: &str = "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {name: all}\nspec:\n  pipelineSpec:\n    tasks:\n    - name: long\n      \
                   taskSpec: {steps: [{name: s, image: busybox, script: \"trap 'exit 1' TERM; echo begun; while :; do sleep 0.1; done\"}]}\n    \
                   finally:\n    - name: last\n      taskSpec: {steps: [{name: s, image: busybox, script: echo at last}]}\n";

/// Cancels a run whose first task runs; what the run said after that, and its condition's reason.
fn cancelled(flags: &str) -> (String, String) {
    let place = Place::new();
    let file = place.file("all.yaml", RUN);
    let mut command = place.command(&format!("run -f {}", file.display()));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("begun") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended before it began");
    }
    place.run(&format!("pr cancel all{flags}")).ends(0);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    child.wait().unwrap();
    let run = place.run("pr desc all -o json").ends(0).json();
    (rest, run["status"]["conditions"][0]["reason"].as_str().unwrap().to_owned())
}

#[test]
fn a_run_is_cancelled_with_its_finally_tasks_only_where_that_is_said() {
    if !has_sandbox() {
        return;
    }
    let (said, reason) = cancelled("");
    assert!(!said.contains("at last"), "{said}");
    assert_eq!(reason, "Cancelled");
    let (said, reason) = cancelled(" --grace CancelledRunFinally");
    assert!(said.contains("[last : s] at last"), "{said}");
    assert_eq!(reason, "Cancelled");
}

//! A server, and the commands that talk about what it does.

use std::process::Child;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Place, line_with, read, release, signal};

const NIGHTLY: &str = "workflow: nightly\nschedule: {cron: '0 2 * * *', timezone: Asia/Seoul}\nparams: {n: {type: integer, default: 1}}\ntasks:\n  a: {run: 'echo n={{ params.n }}'}\n";

fn serve(place: &Place) -> Child {
    let mut server = place.start("server --workflows flows --listen 127.0.0.1:0");
    line_with(&mut server, "Ctrl-C ends the server");
    server
}

fn end(server: Child) {
    signal(&server, Signal::TERM);
    assert!(server.wait_with_output().unwrap().status.success());
}

/// Runs a command until it succeeds: the server reads its folder in its own time.
fn eventually(place: &Place, line: &str) -> serde_json::Value {
    let deadline = 200;
    for _ in 0..deadline {
        let ran = place.run(line);
        if ran.status == Some(0) {
            return ran.json();
        }
    }
    panic!("{}", place.run(line));
}

#[test]
fn a_server_takes_workflows_from_its_folder_and_runs_what_is_triggered() {
    let place = Place::new();
    place.file("flows/nightly.yaml", NIGHTLY);
    let server = serve(&place);
    let made = eventually(&place, "dags trigger nightly -c {\"n\":5} --run-id mine --output json");
    assert_eq!(made["run_id"], "mine");
    let waited = place.run("dags trigger nightly -p n=6 --wait --output json").ends(0).json();
    assert_eq!(waited["state"], "success");
    assert_eq!(place.run("logs 2").ends(0).stdout, "n=6\n");
    for (line, what) in [
        ("dags trigger nightly --run-id mine", "already"),
        ("dags trigger nightly -c [1]", "must be a JSON object"),
        ("dags trigger nightly -p n=x", "whole number"),
        ("dags trigger nigtly", "did you mean `nightly`?"),
    ] {
        let ran = place.run(line).ends(2);
        assert!(ran.stderr.contains(what), "{ran}");
    }
    place.run("dags pause nightly").ends(0);
    let listed = place.run("dags list --output json").ends(0).json();
    assert_eq!((&listed[0]["workflow"], &listed[0]["is_paused"]), (&json!("nightly"), &json!(true)));
    let planned =
        place.run("dags backfill nightly --from 2026-01-01 --to 2026-01-02 --dry-run --output json").ends(0).json();
    let dates: Vec<&str> = planned.as_array().unwrap().iter().filter_map(|run| run["logical_date"].as_str()).collect();
    assert_eq!(dates, ["2025-12-31T17:00:00Z", "2026-01-01T17:00:00Z"]);
    let made =
        place.run("dags backfill nightly --from 2026-01-01 --to 2026-01-02 --reverse --output json").ends(0).json();
    assert_eq!(made[0]["logical_date"], "2026-01-01T17:00:00Z");
    end(server);
    assert_eq!(place.run("runs list --output json").ends(0).json().as_array().unwrap().len(), 4);
}

#[test]
fn tasks_outlive_the_server_and_the_next_one_goes_on_with_them() {
    let place = Place::new();
    let (begun, go) = (place.pipe("begun"), place.pipe("go"));
    let run = format!("echo begun > {}; read x < {}; echo went on", begun.display(), go.display());
    place.file("flows/w.yaml", format!("workflow: w\ntasks:\n  a: {{run: '{run}'}}\n"));
    let server = serve(&place);
    eventually(&place, "dags trigger w --output json");
    read(&begun);
    end(server);
    assert_eq!(place.run("runs show 1 --output json").ends(0).json()["state"], "running");
    let server = serve(&place);
    let logs = place.start("logs 1 -f");
    release(&go);
    let logs = place.ran("logs 1 -f", logs.wait_with_output().unwrap()).ends(0);
    assert_eq!(logs.stdout, "went on\n");
    let document = place.run("runs show 1 --output json").ends(0).json();
    assert_eq!((&document["state"], &document["tasks"][0]["attempts"]), (&json!("success"), &json!(1)));
    end(server);
}

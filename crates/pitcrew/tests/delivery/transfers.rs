//! Files to a host and back, by workflows; and a server that is killed in the middle of an upload.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{World, text};
use crate::proxy::{Proxy, Way};
use crate::sshd::{Sshd, keygen, user};

const LARGE: &str = "
workflow: large
defaults: {backend: {ssh: {host: 127.0.0.1, port: PORT, user: USER, key: 'file:KEY', workdir: WORKDIR, timeout: 5s}}}
tasks:
  build: {backend: local, run: head -c 16777216 /dev/urandom > large.bin}
  ship: {uses: ssh.upload, needs: [build], with: {from: large.bin, to: sub/}}
  fetch: {uses: ssh.download, needs: [ship], with: {from: sub/large.bin, to: back.bin}}
  compare: {backend: local, needs: [fetch], run: 'cmp large.bin back.bin && echo the same'}
";

fn trigger(pitcrew: &World, workflow: &str, conf: &Value) -> String {
    pitcrew
        .wait("the workflow is there", || text(&pitcrew.run(&["dags", "list", "--output", "json"])).contains(workflow));
    let run = pitcrew.json(&["dags", "trigger", workflow, "--conf", &conf.to_string(), "--output", "json"]);
    let run = run.get(0).unwrap_or(&run);
    run["dag_run_id"].as_str().or(run["run_id"].as_str()).unwrap_or_else(|| panic!("{run}")).to_owned()
}

fn logs(pitcrew: &World, run: &str) -> String {
    text(&pitcrew.run(&["runs", "show", run])) + &text(&pitcrew.run(&["logs", run]))
}

fn succeeds(pitcrew: &World, run: &str) -> String {
    let state = || pitcrew.json(&["runs", "show", run, "--output", "json"])["state"].as_str().unwrap().to_owned();
    pitcrew.wait("the run is over", || ["success", "failed"].contains(&state().as_str()));
    let log = logs(pitcrew, run);
    assert_eq!(state(), "success", "{log}");
    log
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_ships_a_model_and_an_upload_outlives_the_server() {
    let pitcrew = World::new();
    let (key, there) = (pitcrew.path("key"), pitcrew.path("there's a place"));
    keygen(&key, "ed25519", "");
    let sshd = Sshd::start("Subsystem sftp internal-sftp").await;
    sshd.admit(&key);
    let proxy = Proxy::to(sshd.port).await;
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/ship-model.yaml");
    pitcrew.workflow("ship-model", &std::fs::read_to_string(example).unwrap());
    let large = LARGE
        .replace("PORT", &proxy.port.to_string())
        .replace("USER", &user())
        .replace("KEY", &key.display().to_string())
        .replace("WORKDIR", &json!(there).to_string());
    pitcrew.workflow("large", &large);
    let mut server = pitcrew.serve();

    let conf = json!({
        "server": "127.0.0.1", "user": user(), "port": sshd.port, "key": format!("file:{}", key.display()), "directory": there,
    });
    let run = trigger(&pitcrew, "ship-model", &conf);
    let log = succeeds(&pitcrew, &run);
    assert!(log.contains("`run`: ") && log.contains("SHA-256 "), "{log}");
    let weights = std::fs::read(there.join("model/weights.bin")).unwrap();
    assert_eq!(
        (&*weights, std::fs::read_to_string(there.join("model/results/bytes")).unwrap().trim()),
        (&b"weights"[..], "7")
    );

    let size = |dir: &Path| {
        let parts = std::fs::read_dir(dir).into_iter().flatten().flatten();
        parts
            .filter(|e| e.file_name().to_string_lossy().ends_with(".part"))
            .map(|e| e.metadata().unwrap().len())
            .sum::<u64>()
    };
    proxy.set(Way::StalledAfter(8 << 20));
    let run = trigger(&pitcrew, "large", &json!({}));
    pitcrew.wait("half of it is there", || size(&there.join("sub")) >= 4 << 20);
    server.kill();
    proxy.set(Way::Open);
    let _server = pitcrew.serve();
    let log = succeeds(&pitcrew, &run);
    assert!(log.contains(" of it before, SHA-256 ") && log.contains("the same"), "{log}");
    // One attempt each: the death of the server was none of the task.
    let tasks = pitcrew.json(&["runs", "show", &run, "--output", "json"]);
    assert!(!tasks.to_string().contains("up_for_retry"), "{tasks}");
    let found = Command::new("find").arg(&there).args(["-name", "*.part"]).output().unwrap();
    assert_eq!(text(&found), "");
}

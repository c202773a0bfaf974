//! An engine on another machine, by SSH: a real sshd of this machine leads to the engine of the tests.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pitcrew_conformance::{pod, pod_with, step, step_with};
use pitcrew_core::state::Exit;
use pitcrew_exec::Runtime;
use pitcrew_exec::docker::keeper::EnginePlace;
use serde_json::json;

use crate::engine::Engine;
use crate::sshd::{Sshd, keygen, user};
use crate::world::{Docker, world};

/// Who may sign in there, and knows the host.
fn home(sshd: &Sshd, dir: &Path) {
    let ssh = dir.join(".ssh");
    std::fs::create_dir_all(&ssh).unwrap();
    let key = ssh.join("id_ed25519");
    keygen(&key, "ed25519", "");
    sshd.admit(&key);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let known = format!("[127.0.0.1]:{} {}\n", sshd.port, sshd.host_key("ed25519"));
    std::fs::write(ssh.join("known_hosts"), known).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_behind_ssh_runs_pods_for_who_may_sign_in_and_nobody_else() {
    let Some(mut bench) = world().await else { return };
    let sshd = Sshd::start("").await;
    let dir = tempfile::tempdir().unwrap();
    home(&sshd, dir.path());
    let engine = Engine::new().unwrap();
    let host = format!("ssh://{}@127.0.0.1:{}{}", user(), sshd.port, engine.address().trim_start_matches("unix://"));
    bench.world = Docker::at_home(engine, dir.path());
    let at = |spec: &mut pitcrew_exec::AttemptSpec, host: &str| {
        let engine = EnginePlace { host: host.to_owned(), certificates: None };
        spec.pod.as_mut().unwrap().runtime = Runtime::Docker { engine, registries: Vec::new() };
    };
    let steps = json!([
        step_with("a", "echo over ssh; printf value > /tekton/results/r", json!({})),
        step("b", "i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done"),
    ]);
    let mut spec = bench.spec("with", pod_with(steps, json!({"results": [{"name": "r"}]})));
    at(&mut spec, &host);
    let handle = bench.start(spec).await;
    let done = bench.done(&handle).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["over ssh"]);
    assert_eq!(done.lines(1).len(), 2000, "{}", done.story());
    assert_eq!(done.pod().results, [("r".to_owned(), json!("value"))]);
    assert_eq!(bench.engine.labelled(&format!("pitcrew.attempt={}", handle.id)), Vec::<String>::new());

    // A host that nobody knows is not believed.
    std::fs::write(dir.path().join(".ssh/known_hosts"), "").unwrap();
    let mut spec = bench.spec("unknown", pod(json!([step("a", "echo ran")])));
    at(&mut spec, &host);
    let done = bench.run_spec(spec).await;
    let Exit::StartFailed { reason, lasting: true } = &done.ended.exit else { panic!("{}", done.story()) };
    assert!(reason.contains("ssh://") && reason.contains("127.0.0.1"), "{reason}");
}

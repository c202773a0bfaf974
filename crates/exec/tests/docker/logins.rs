//! Who one is elsewhere: at registries that ask for a password, and with the credentials of a ServiceAccount.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use pitcrew_conformance::{pod, pod_with, step, step_with};
use pitcrew_core::pod::{CREDENTIALS, PodFailure};
use pitcrew_exec::Runtime;
use pitcrew_exec::docker::Registry;
use serde_json::json;

use crate::world::world;

/// `hush-hush`, as `htpasswd -B` writes it.
const USERS: &str = "ada:$2y$05$abcdefghijklmnopqrstuu4uoW5CdSDmY8cLkib7pLDRBlvRVo8Pe\n";

/// Debian's registry, for ada alone.
struct Private {
    host: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Private {
    fn start() -> Option<Private> {
        let Some(program) = std::env::var_os("PITCREW_TEST_REGISTRY").filter(|path| !path.is_empty()) else {
            eprintln!(
                "NOT TESTED: `PITCREW_TEST_REGISTRY` names no registry: it is in Debian's package `docker-registry`"
            );
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("users"), USERS).unwrap();
        let config = json!({
            "version": 0.1, "log": { "level": "info", "formatter": "json" }, "http": { "addr": "127.0.0.1:0" },
            "storage": { "filesystem": { "rootdirectory": dir.path().join("held") } },
            "auth": { "htpasswd": { "realm": "tests", "path": dir.path().join("users") } },
        });
        std::fs::write(dir.path().join("config.yml"), config.to_string()).unwrap();
        let mut child = Command::new(program)
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It says where it listens, and then is read on, so that it never waits for who reads.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let host = loop {
            let line = lines.next().expect("it says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split(['"', ' ', ',']).next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Some(Private { host, child, _dir: dir })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn login(server: &str, password: &str) -> Registry {
    let (username, password) = ("ada".to_owned(), password.to_owned());
    Registry { server: server.to_owned(), username, password, identity_token: String::new() }
}

/// Puts `busybox` there, and forgets that name of it.
fn push(socket: &Path, host: &str) {
    let name = format!("{host}/team/private");
    let auth = json!({ "username": "ada", "password": "hush-hush", "serveraddress": host }).to_string();
    let curl = |method: &str, path: &str| {
        let output = Command::new("curl")
            .args(["-sS", "-X", method, "--unix-socket"])
            .arg(socket)
            .args(["-H", &format!("X-Registry-Auth: {}", URL_SAFE.encode(&auth))])
            .arg(format!("http://engine/v1.41{path}"))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl("POST", &format!("/images/busybox/tag?repo={name}&tag=1")), "");
    let pushed = curl("POST", &format!("/images/{name}/push?tag=1"));
    assert!(!pushed.contains("error"), "{pushed}");
    curl("DELETE", &format!("/images/{name}:1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_image_is_had_by_who_may_have_it_alone() {
    let Some(mut bench) = world().await else { return };
    let Some(registry) = Private::start() else { return };
    let host = registry.host.clone();
    push(Path::new(bench.engine.address().strip_prefix("unix://").unwrap()), &host);
    let image = format!("{host}/team/private:1");
    let steps = || pod(json!([{"name": "step-a", "image": image, "script": "echo ran"}]));
    let right = login(&host, "hush-hush");
    for (task, registries, runs) in [
        ("nobody", vec![], false),
        ("wrong", vec![login(&host, "something else")], false),
        ("elsewhere", vec![login("registry.invalid", "hush-hush")], false),
        // The more exact one is refused, and the other one tried.
        ("second", vec![right.clone(), login(&format!("{host}/team"), "something else")], true),
    ] {
        let mut spec = bench.spec(task, steps());
        if let Runtime::Docker { registries: own, .. } = &mut spec.pod.as_mut().unwrap().runtime {
            *own = registries;
        }
        let done = bench.run_spec(spec).await;
        if runs {
            done.assert_success();
            assert!(done.lines(0).contains(&"ran"), "{}", done.story());
        } else {
            let Some(PodFailure::ImagePull { message, .. }) = &done.pod().failure else { panic!("{}", done.story()) };
            assert!(message.contains("private") && !message.contains("something else"), "{message}");
        }
        assert!(!done.story().contains("hush-hush"));
    }
    bench.engine.ask("DELETE", &format!("/images/{image}?force=true"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_each_steps_home_as_its_own_and_on_no_disk() {
    let Some(mut bench) = world().await else { return };
    let file = json!({"path": ".ssh/id_key", "bytes": b"a-private-key".as_slice(), "mode": 0o600, "is_secret": true});
    let config = json!({"path": ".gitconfig", "bytes": b"[user]".as_slice(), "mode": 0o600, "is_secret": true});
    let volume = json!({"volumes": [{"name": CREDENTIALS, "source": {"files": [file, config]}}]});
    let script = "cat $HOME/.ssh/id_key /tekton/creds/.ssh/id_key; echo; cat $HOME/.gitconfig; echo
        stat -L -c '%a %u' $HOME/.ssh/id_key $HOME/.ssh; mount | grep -c 'tmpfs on /tekton/creds'";
    let own = json!({"security": {"run_as_user": 1234}, "env": [{"name": "HOME", "from": {"text": "/tekton/home"}}]});
    let missing = json!({"env": [{"name": "HOME", "from": {"text": "/not/there"}}]});
    let none = json!({"image": "bash"});
    let mut steps = json!([step("a", script), step_with("b", script, own), step_with("c", script, missing)]);
    steps.as_array_mut().unwrap().push(step_with("d", script, none));
    let done = bench.run("a", pod_with(steps, volume)).await;
    done.assert_success();
    for (step, uid) in [(0, 0), (1, 1234), (2, 0), (3, 0)] {
        let (key, home) = (format!("600 {uid}"), format!("700 {uid}"));
        let expected = ["a-private-keya-private-key", "[user]", &key, &home, "1"];
        assert_eq!(done.lines(step), expected, "step {step}: {}", done.story());
    }
}

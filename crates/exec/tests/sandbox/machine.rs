//! The machine is as it was, whatever a container does and however it ends.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pitcrew_conformance::{pod, pod_with, step, step_with};
use pitcrew_core::pod::{CREDENTIALS, TerminationReason};
use pitcrew_core::state::Exit;
use pitcrew_exec::Backend as _;
use rustix::process::Signal;
use serde_json::json;

use crate::world::{signal, until, world};

/// Size, mode, owner and time of change of what is there.
fn state_of(paths: &[&str]) -> BTreeMap<PathBuf, (u64, u32, u32, i64)> {
    let told = paths.iter().filter_map(|path| {
        let meta = Path::new(path).symlink_metadata().ok()?;
        Some((PathBuf::from(path), (meta.len(), meta.mode(), meta.uid(), meta.ctime())))
    });
    told.collect()
}

#[tokio::test]
async fn whatever_root_breaks_in_a_container_is_whole_on_the_machine() {
    let Some(mut world) = world().await else { return };
    let paths =
        ["/etc/passwd", "/etc/ssl", "/etc/hosts", "/etc/localtime", "/usr/bin/env", "/usr/bin/perl", "/usr/bin/perl2"];
    let before = state_of(&paths);
    let script = "rm -rf /etc/ssl; chown 1:1 /etc/hosts; chmod 777 /usr/bin/env; echo broken > /etc/passwd
                  mv /usr/bin/perl /usr/bin/perl2; ln -sf /nowhere /etc/localtime
                  (setsid sleep 3600 &) ; kill -9 -1; echo alone";
    let done = world.run("a", pod(json!([step("a", script)]))).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["alone"]);
    assert_eq!(state_of(&paths), before);
}

/// The processes whose command line is this, and their ancestors up to the runner, nearest first.
fn lineage(command: &str, runner: i32) -> Option<Vec<i32>> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pid = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command
    })?;
    let mut line = Vec::new();
    while pid != runner {
        line.push(pid);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        pid = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().nth(1)?.parse().ok()?;
    }
    Some(line)
}

#[tokio::test]
async fn whoever_of_a_container_is_killed_it_ends_whole() {
    let Some(mut world) = world().await else { return };
    // The program, then the container's first process, then its box.
    for (number, wanted) in [(0, 137), (1, 137), (2, 137)] {
        let name = format!("a{number}");
        let command = format!("sleep 76500{number}");
        let script = format!("setsid sleep 3600 & exec {command}");
        let handle = world.start(world.spec(&name, pod(json!([step("a", &script)])))).await;
        let mut line = Vec::new();
        until(|| {
            let found = world.root.join("runner/runner.pid").exists().then(|| lineage(&command, world.runner_pid()));
            line = found.flatten().unwrap_or_default();
            line.len() == 3
        })
        .await;
        signal(line[number], Signal::KILL);
        let ended = world.ended(&handle).await;
        assert_eq!(ended.exit.code(), Some(wanted), "{number}: {:?}", ended.exit);
        for pid in line {
            assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "process {pid} still runs");
        }
        world.cleanup(&handle).await;
        world.gone(&handle).await;
    }
}

#[tokio::test]
async fn a_container_beyond_its_memory_is_told_as_that() {
    let Some(mut world) = world().await else { return };
    if !world.backend.capabilities().await.memory_limit {
        eprintln!("NOT TESTED: this machine has no cgroup for memory");
        return;
    }
    let script = "#!/usr/bin/env python3\nx = bytearray(512 << 20)\nprint(len(x))\n";
    let steps = json!([step_with("a", script, json!({"image": "python"})), step("b", "true")]);
    let mut spec = world.spec("a", pod(steps));
    spec.limits.memory_bytes = Some(96 << 20);
    let done = world.run_spec(spec).await;
    assert_eq!(done.ended.exit, Exit::OutOfMemory, "{}", done.story());
    assert_eq!(done.states(), [(137, TerminationReason::OutOfMemory), (1, TerminationReason::Skipped)]);
}

/// All files below a directory, as far as they can be read.
fn texts(dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            texts(&entry.path(), found);
        } else if let Ok(bytes) = std::fs::read(entry.path()) {
            found.insert(entry.path(), String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

#[tokio::test]
async fn credentials_are_in_each_steps_home_as_its_own() {
    let Some(mut world) = world().await else { return };
    let file = json!({"path": ".ssh/id_key", "bytes": b"a-private-key".as_slice(), "mode": 0o600, "is_secret": true});
    let volume = json!({"volumes": [{"name": CREDENTIALS, "source": {"files": [file]}}]});
    let script = "cat $HOME/.ssh/id_key /tekton/creds/.ssh/id_key; echo; stat -L -c '%a %u' $HOME/.ssh/id_key";
    let user = json!({"security": {"run_as_user": 1234}, "env": [{"name": "HOME", "from": {"text": "/tekton/home"}}]});
    let steps = json!([step("a", script), step_with("b", script, user)]);
    let done = world.run("a", pod_with(steps, volume)).await;
    done.assert_success();
    assert_eq!(done.lines(0), ["a-private-keya-private-key", "600 0"]);
    assert_eq!(done.lines(1), ["a-private-keya-private-key", "600 1234"]);
    // The second one's home is shared by all steps, and on a disk.
    let mut kept = BTreeMap::new();
    texts(&world.root.join("attempts"), &mut kept);
    assert!(kept.values().any(|text| text.contains("600 1234")), "{kept:?}");
    let found: Vec<_> =
        kept.iter().filter(|(path, text)| text.contains("a-private-key") && !path.ends_with("log")).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[tokio::test]
async fn what_is_masked_is_in_no_result_of_a_pod() {
    let Some(mut world) = world().await else { return };
    let script = "echo hunter2-hunter2 > /tekton/results/r; printf hunter2-hunter2 > /tekton/steps/step-a/results/own
        echo '{\"outputs\": [{\"name\": \"o\", \"values\": [{\"uri\": \"hunter2-hunter2\"}]}]}' > /tekton/artifacts/provenance.json";
    let steps = json!([
        step_with("a", script, json!({"results": [{"name": "own"}]})),
        step_with("b", "test \"$1\" = hunter2-hunter2", json!({"args": ["$(steps.a.results.own)"]})),
    ]);
    let mut spec = world.spec("a", pod_with(steps, json!({"results": [{"name": "r"}]})));
    spec.masks = vec!["hunter2-hunter2".into()];
    let done = world.run_spec(spec).await;
    done.assert_success();
    let pod = serde_json::to_string(done.pod()).unwrap();
    assert!(pod.contains("***\\n") && !pod.contains("hunter2"), "{pod}");
}

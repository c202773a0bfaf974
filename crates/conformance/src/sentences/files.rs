//! Volumes, and what is written to them.

use serde_json::{Value, json};

use crate::{Ability, Bench, World, pod, pod_with, step, step_with};

fn scratch(medium: &str) -> Value {
    json!({"volumes": [{"name": "v", "source": {"scratch": {"medium": medium, "limit": null}}}]})
}

fn files() -> Value {
    let file =
        |path: &str, text: &str| json!({"path": path, "bytes": text.as_bytes(), "mode": 0o400, "is_secret": true});
    json!({"volumes": [{"name": "s", "source": {"files": [file("key", "needle-in-a-haystack"), file("d/e", "deep")]}}]})
}

pub async fn a_read_only_mount_cannot_be_written_also_by_root(bench: &mut Bench<impl World>) {
    let mount = |read_only: bool| json!({"mounts": [{"volume": "v", "at": "/data", "read_only": read_only}]});
    let read = "cat /data/f; if (echo x > /data/f) 2>/dev/null; then echo wrote; fi; if rm /data/f 2>/dev/null; then echo removed; fi";
    let steps = json!([step_with("a", "echo a > /data/f", mount(false)), step_with("b", read, mount(true))]);
    let done = bench.run("a", pod_with(steps, scratch("disk"))).await;
    assert_eq!(done.lines(1), ["a"], "{}", done.story());
}

pub async fn a_volume_in_memory_is_shared_as_one_on_a_disk(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::MemoryVolumes) {
        return;
    }
    let mount = json!({"mounts": [{"volume": "v", "at": "/data"}]});
    let steps = json!([
        step_with("a", "echo a > /data/f; grep ' /data ' /proc/mounts | cut -d' ' -f3", mount.clone()),
        step_with("b", "cat /data/f", mount),
    ]);
    let done = bench.run("a", pod_with(steps, scratch("memory"))).await;
    done.assert_success();
    assert_eq!((done.lines(0), done.lines(1)), (vec!["tmpfs"], vec!["a"]));
}

pub async fn a_part_of_a_volume_is_a_directory_of_it(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::PartsOfVolumes) {
        return;
    }
    let part = json!({"mounts": [{"volume": "v", "at": "/part", "sub_path": "deep/er"}]});
    let whole = json!({"mounts": [{"volume": "v", "at": "/whole"}]});
    let steps = json!([step_with("a", "echo a > /part/f", part), step_with("b", "cat /whole/deep/er/f", whole)]);
    let done = bench.run("a", pod_with(steps, scratch("disk"))).await;
    done.assert_success();
    assert_eq!(done.lines(1), ["a"]);
}

pub async fn given_files_have_their_modes_and_cannot_be_written(bench: &mut Bench<impl World>) {
    let mounts = json!({"mounts": [{"volume": "s", "at": "/s"}]});
    let script = "stat -L -c %a /s/key; cat /s/d/e; echo; wc -c < /s/key
                  if (echo x > /s/key) 2>/dev/null; then echo wrote; fi; if (echo x > /s/new) 2>/dev/null; then echo wrote; fi";
    let done = bench.run("a", pod_with(json!([step_with("a", script, mounts)]), files())).await;
    assert_eq!(done.lines(0), ["400", "deep", "20"], "{}", done.story());
}

pub async fn what_a_secret_holds_is_not_in_the_log(bench: &mut Bench<impl World>) {
    let mounts = json!({"mounts": [{"volume": "s", "at": "/s"}], "results": [{"name": "r"}]});
    let script = "cat /s/key; echo; cp /s/key /tekton/results/r; echo told";
    let result = json!({"results": [{"name": "r"}]});
    let mut fields = files();
    if let (Value::Object(fields), Value::Object(result)) = (&mut fields, result) {
        fields.extend(result);
    }
    let mut spec = bench.spec("a", pod_with(json!([step_with("a", script, mounts)]), fields));
    spec.masks = vec!["needle-in-a-haystack".to_owned()];
    let done = bench.run_spec(spec).await;
    done.assert_success();
    assert_eq!(done.lines(0).last(), Some(&"told"));
    assert!(!done.story().contains("needle"), "{}", done.story());
}

pub async fn what_a_step_writes_goes_to_its_files_and_to_the_log(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::Copies) {
        return;
    }
    let both = json!({"stdout_to": "/workspace/logs/out", "stderr_to": "/workspace/logs/err"});
    let one = json!({"stdout_to": "/workspace/one", "stderr_to": "/workspace/one"});
    let steps = json!([
        step_with("a", "echo to stdout; echo to stderr >&2; (sleep 3600; echo late) & exit 0", both),
        step_with("b", "cat /workspace/logs/out /workspace/logs/err; echo err >&2", one),
        step("c", "sort /workspace/one"),
    ]);
    let done = bench.run("a", pod(steps)).await;
    done.assert_success();
    let mut lines = done.lines(0);
    lines.sort_unstable();
    assert_eq!(lines, ["to stderr", "to stdout"]);
    assert_eq!(done.lines(2), ["err", "to stderr", "to stdout"]);
}

//! What is only true of sidecars in the sandbox, and what is told.

use pitcrew_conformance::{Bench, World, pod_with, probe, step, step_with};
use serde_json::json;

use crate::world::world;

#[tokio::test]
async fn a_container_cannot_write_to_the_program_that_made_it() {
    let Some(mut world) = world().await else { return };
    assert_program_is_safe(&mut world).await;
}

pub async fn assert_program_is_safe(world: &mut Bench<impl World>) {
    // It executes its box by the only name that it has for it, and another program of the container tries to write there.
    let ask = "for p in /proc/[0-9]*; do case $(cat $p/comm) in exe) (echo > $p/exe) 2>>/workspace/said;; esac; done; test -s /workspace/said";
    let probe = probe(json!({"exec": ["sh", "-c", ask]}), 1000);
    let command = json!(["/proc/self/exe", "--dir", "/tmp/runner"]);
    let sidecars = json!({"sidecars": [{"name": "sidecar-s", "image": "alpine", "command": command, "probes": {"startup": probe}}]});
    let done = world.run("a", pod_with(json!([step("a", "cat /workspace/said")]), sidecars)).await;
    done.assert_success();
    assert!(done.lines(0)[0].ends_with("Read-only file system"), "{}", done.story());
}

#[tokio::test]
async fn what_a_sandbox_does_not_do_is_told() {
    let Some(mut world) = world().await else { return };
    let volume = json!({"volumes": [{"name": "v", "source": {"scratch": {"medium": "disk", "limit": 1000}}}]});
    let steps = json!([step_with("a", "true", json!({"cluster": {"tty": true}}))]);
    let done = world.run("a", pod_with(steps, volume)).await;
    done.assert_success();
    assert_eq!(
        done.told(),
        [
            "the size limit of the volume `v` is not enforced in a sandbox",
            "`tty` of `step-a` has no effect in a sandbox"
        ]
    );
}

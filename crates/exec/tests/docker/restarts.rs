//! An engine that goes away and comes back, whatever a pod is doing: nothing is lost, nothing runs twice, nothing is left.

use jiff::SignedDuration;
use pitcrew_conformance::{Bench, Over, pod, pod_with, step, step_with};
use pitcrew_core::state::Exit;
use serde_json::json;

use crate::engine::{Engine, script};
use crate::world::{Docker, world};

/// A world with an engine of its own, that ends with it.
struct Own {
    bench: Bench<Docker>,
    folder: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Own {
    async fn new() -> Option<Own> {
        let mut bench = world().await?;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("engine");
        bench.world = Docker::at(Engine::own(&folder));
        Some(Own { bench, folder, _dir: dir })
    }

    fn engine(&self, what: &str) {
        script(what, &self.folder);
    }

    fn left(&self, handle: &pitcrew_exec::Handle) -> Vec<String> {
        self.bench.engine.labelled(&format!("pitcrew.attempt={}", handle.id))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.engine("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_away_when_a_pod_begins_is_waited_for() {
    let Some(mut own) = Own::new().await else { return };
    own.engine("halt");
    let handle = own.bench.start(own.bench.spec("a", pod(json!([step("a", "echo ran")])))).await;
    let waits = async || own.bench.log(&handle).await.iter().any(|line| line.text.contains("waiting for the engine"));
    own.bench.until("it waits", waits).await;
    own.engine("start");
    let done = own.bench.done(&handle).await;
    done.assert_success();
    assert_eq!(done.lines(0).iter().filter(|line| **line == "ran").count(), 1, "{}", done.story());
    assert_eq!(own.left(&handle), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_an_engine_can_be_cancelled() {
    let Some(mut own) = Own::new().await else { return };
    own.engine("halt");
    let handle = own.bench.start(own.bench.spec("a", pod(json!([step("a", "echo ran")])))).await;
    let waits = async || own.bench.log(&handle).await.iter().any(|line| line.text.contains("waiting for the engine"));
    own.bench.until("it waits", waits).await;
    own.bench.cancel(&handle, SignedDuration::from_secs(5)).await;
    assert_eq!(own.bench.ended(&handle).await.exit, Exit::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_restarts_between_two_steps_loses_the_pod_and_no_step_runs_after_it() {
    let Some(mut own) = Own::new().await else { return };
    let steps = json!([step("a", "echo a > /workspace/f; echo up; sleep 3600"), step("b", "echo b")]);
    let mut spec = own.bench.spec("a", pod(steps));
    spec.grace = SignedDuration::from_secs(1);
    let handle = own.bench.start(spec).await;
    own.bench.says(&handle, 0, "up").await;
    own.engine("halt");
    own.engine("start");
    let Over::Lost(_) = own.bench.over(&handle).await else { panic!("it was lost") };
    let log = own.bench.log(&handle).await;
    assert!(log.iter().all(|line| line.text != "b"), "{log:?}");
    assert_eq!(own.left(&handle), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_is_killed_again_and_again_makes_no_step_run_twice() {
    let Some(mut own) = Own::new().await else { return };
    // Each run of the step leaves a line in a volume that outlives the pod.
    let volumes = json!({"volumes": [{"name": "c", "source": {"shared": {"dir": "claims/default/c"}}}]});
    let mounts = json!({"mounts": [{"volume": "c", "at": "/c"}]});
    for round in 0..3 {
        let name = format!("t{round}");
        let mark = format!("echo {name} >> /c/ran; sync; sleep 0.2; echo value > /tekton/results/r");
        let mut fields = volumes.clone();
        fields["results"] = json!([{"name": "r"}]);
        let handle = own
            .bench
            .start(own.bench.spec(&name, pod_with(json!([step_with("a", &mark, mounts.clone())]), fields)))
            .await;
        // At whatever point it is.
        own.engine("restart");
        match own.bench.over(&handle).await {
            Over::Ended(ended) => {
                assert!(ended.exit.is_success(), "{:?}", own.bench.log(&handle).await);
                assert_eq!(ended.outputs.len(), 1, "{:?}", own.bench.log(&handle).await);
            }
            Over::Lost(_) => {}
            Over::NeverBegan => panic!("it began"),
        }
        assert_eq!(own.left(&handle), Vec::<String>::new());
    }
    let look = json!([step_with("a", "sort /c/ran 2>/dev/null | uniq -d", mounts)]);
    let done = own.bench.run("look", pod_with(look, volumes)).await;
    done.assert_success();
    assert_eq!(done.lines(0), Vec::<&str>::new(), "these ran twice");
}

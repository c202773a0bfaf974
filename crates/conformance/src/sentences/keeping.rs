//! What survives whom, and what is left.

use pitcrew_core::state::Exit;
use pitcrew_exec::{LogStream, Observation};
use serde_json::json;

use crate::{Ability, Bench, Over, World, pod, pod_with, probe, sidecar, step};

pub async fn the_server_dies_during_a_step_and_the_pod_goes_on(bench: &mut Bench<impl World>) {
    let steps =
        json!([step("a", "echo begun; sleep 4; echo on"), step("b", "echo after; printf r > /tekton/results/r")]);
    let spec = bench.spec("a", pod_with(steps, json!({"results": [{"name": "r"}]})));
    let handle = bench.start(spec).await;
    bench.says(&handle, 0, "begun").await;
    // A handle is all that a server keeps.
    let stored = serde_json::to_string(&handle).unwrap_or_else(|e| panic!("it cannot be stored: {e}"));
    bench.world.restart().await;
    let handle = serde_json::from_str(&stored).unwrap_or_else(|e| panic!("it was not stored: {e}"));
    let observed = bench.observe(&handle).await;
    assert!(matches!(observed, Observation::Running { .. } | Observation::Ended(_)), "{observed:?}");
    let done = bench.done(&handle).await;
    done.assert_success();
    assert_eq!((done.lines(0), done.lines(1)), (vec!["begun", "on"], vec!["after"]));
    assert_eq!(done.pod().results, [("r".to_owned(), json!("r"))]);
}

pub async fn started_twice_is_started_once(bench: &mut Bench<impl World>) {
    let spec = bench.spec("a", pod(json!([step("a", "echo ran >> /workspace/ran; cat /workspace/ran; sleep 1")])));
    let handle = bench.start(spec.clone()).await;
    bench.start_again(&handle, spec.clone()).await;
    let first = bench.done(&handle).await;
    first.assert_success();
    // Also after its end, and after a restart.
    bench.start_again(&handle, spec.clone()).await;
    bench.world.restart().await;
    bench.start_again(&handle, spec).await;
    let last = bench.done(&handle).await;
    assert_eq!(last.ended, first.ended);
    assert_eq!(last.lines(0), ["ran"]);
}

pub async fn the_keeper_dies_and_the_end_is_told_as_what_it_is(bench: &mut Bench<impl World>) {
    if bench.lacks(Ability::KeeperDies) {
        return;
    }
    let spec = bench.spec("a", pod(json!([step("a", "echo begun; sleep 3600"), step("b", "echo b")])));
    let handle = bench.start(spec.clone()).await;
    bench.says(&handle, 0, "begun").await;
    bench.world.kill_keeper(&handle).await;
    assert_lost(bench.over(&handle).await);
    // Lost is an end: also for the next server, and it is not begun anew.
    bench.world.restart().await;
    bench.start_again(&handle, spec).await;
    assert_lost(bench.over(&handle).await);
    bench.cleanup(&handle).await;
    bench.gone(&handle).await;
}

/// Neither a success nor a failure of its own.
#[track_caller]
fn assert_lost(over: Over) {
    match over {
        Over::Lost(reason) => assert!(!reason.is_empty()),
        Over::Ended(ended) => assert!(matches!(ended.exit, Exit::Lost { .. }), "{ended:?}"),
        Over::NeverBegan => panic!("it began"),
    }
}

pub async fn a_log_resumes_at_every_offset_by_container(bench: &mut Bench<impl World>) {
    let script = "for n in 0 1 2 3 4 5 6 7 8 9; do echo line $n; done";
    let steps = json!([step("a", script), step("b", script)]);
    let spec = if bench.lacks(Ability::Sidecars) {
        bench.spec("a", pod(steps))
    } else {
        let ready = probe(json!({"exec": ["test", "-e", "/workspace/ready"]}), 1000);
        let fields =
            sidecar(&format!("{script}; touch /workspace/ready; exec sleep 3600"), json!({"readiness": ready}));
        bench.spec("a", pod_with(steps, fields))
    };
    let mut spec = spec;
    spec.grace = jiff::SignedDuration::ZERO;
    let handle = bench.start(spec).await;
    let done = bench.done(&handle).await;
    let wanted: Vec<String> = (0..10).map(|n| format!("line {n}")).collect();
    for container in 0..u32::try_from(done.pod().containers.len()).unwrap_or(0) {
        assert_eq!(done.lines(container), wanted, "container {container}: {}", done.story());
    }
    let backend = bench.world.backend();
    let whole = backend.logs(&handle, 0, 1 << 20).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(whole.ended);
    for offset in 1..=whole.next_offset {
        let part = backend.logs(&handle, offset, 1 << 20).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(part.next_offset, whole.next_offset);
        assert!(part.records.len() < whole.records.len(), "offset {offset}");
        assert_eq!(part.records, whole.records[whole.records.len() - part.records.len()..], "offset {offset}");
    }
    let (mut parts, mut offset) = (Vec::new(), 0);
    while offset < whole.next_offset {
        let part = backend.logs(&handle, offset, 1).await.unwrap_or_else(|e| panic!("{e}"));
        assert!(part.next_offset > offset);
        offset = part.next_offset;
        parts.extend(part.records);
    }
    assert_eq!(parts, whole.records);
}

pub async fn cleanup_leaves_the_log_and_the_end_and_nothing_else(bench: &mut Bench<impl World>) {
    let fields = json!({"volumes": [{"name": "v", "source": {"scratch": {"medium": "disk", "limit": null}}}]});
    let mounts = json!({"mounts": [{"volume": "v", "at": "/data"}]});
    let script = "echo kept; echo x > /data/f; mkdir -m 0 /workspace/closed; (sleep 3600 > /dev/null 2>&1 &); exit 3";
    let spec = bench.spec("a", pod_with(json!([crate::step_with("a", script, mounts)]), fields));
    let handle = bench.start(spec).await;
    let done = bench.done(&handle).await;
    assert_eq!(done.ended.exit, Exit::Code { code: 3 }, "{}", done.story());
    bench.cleanup(&handle).await;
    bench.cleanup(&handle).await;
    bench.gone(&handle).await;
    assert_eq!(bench.observe(&handle).await, Observation::Ended(done.ended));
    let kept = bench.log(&handle).await;
    assert!(kept.iter().any(|record| record.stream == LogStream::Stdout && record.text == "kept"), "{kept:?}");
}

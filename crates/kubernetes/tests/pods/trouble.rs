//! Ends that are not the steps' own, and servers that come and go.

use jiff::SignedDuration;
use pitcrew_core::state::Exit;
use pitcrew_exec::{Backend, BackendEvent, Observation};
use serde_json::json;

use super::harness::{World, pod, reasons, step, with};

#[tokio::test]
async fn another_server_goes_on_with_the_same_pod_and_the_same_log() {
    let Some(mut world) = World::find("restart") else { return };
    let script = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); sleep 0.2; done";
    let handle = world.start(world.attempt(1, json!([step("counts", script)]), json!({}))).await;
    world.says(&handle, "line 3").await;
    world.restart();
    assert!(matches!(world.observed(&handle).await, Observation::Running { .. }));
    assert_eq!(world.ours("pods").len(), 1);
    let ended = world.ended().await;
    assert_eq!(ended.exit, Exit::Code { code: 0 });
    let wanted: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
    assert_eq!(world.log(&handle).await, wanted);
}

#[tokio::test]
async fn a_cancel_asks_the_step_to_end_and_deletes_its_pod() {
    let Some(mut world) = World::find("cancel") else { return };
    let script = "trap 'echo asked; exit 0' TERM; echo begins; while :; do sleep 0.1; done";
    let task = json!({"results": [{"name": "r", "kind": "text"}]});
    let handle = world.start(world.attempt(1, json!([step("waits", script), step("next", "echo never")]), task)).await;
    world.says(&handle, "begins").await;
    world.backend.cancel(&handle, SignedDuration::from_secs(5)).await.unwrap();
    let ended = world.ended().await;
    assert_eq!(ended.exit, Exit::Cancelled);
    assert!(world.log(&handle).await.contains(&"asked".to_owned()), "{:?}", world.log(&handle).await);
    assert_eq!(reasons(&ended)[1], "step-next terminated Skipped");
    world.until("the end of its pod", |world| world.ours("pods").is_empty()).await;
    // One that never began cannot be started any more.
    let other = world.attempt(2, json!([step("never", "echo never")]), json!({}));
    let handle = world.backend.prepare(&other);
    world.backend.cancel(&handle, SignedDuration::ZERO).await.unwrap();
    assert_eq!(world.ended().await.exit, Exit::Cancelled);
    world.backend.start(&handle, other).await.unwrap();
    assert_eq!(world.ended().await.exit, Exit::Cancelled);
    assert!(world.ours("pods").is_empty());
}

#[tokio::test]
async fn an_image_that_does_not_come_is_told_in_words() {
    let Some(mut world) = World::find("image") else { return };
    let steps = json!([with(step("a", "echo never"), json!({"image": "nowhere.example/none:1"}))]);
    let (ended, _) = world.run(steps, json!({})).await;
    let Exit::StartFailed { reason, lasting } = &ended.exit else { panic!("{ended:?}") };
    assert!(*lasting && reason.contains("nowhere.example/none:1") && reason.contains("ErrImageNeverPull"), "{reason}");
    let failure = serde_json::to_value(&pod(&ended).failure).unwrap();
    assert_eq!(failure["image_pull"]["container"], "step-a");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_127() {
    let Some(mut world) = World::find("program") else { return };
    let plain = json!([{"name": "step-a", "image": super::harness::IMAGE, "pull": "never", "command": ["/no/such"]}]);
    let (ended, _) = world.run(plain, json!({})).await;
    assert_eq!(ended.exit, Exit::Code { code: 127 }, "{ended:?}");
}

#[tokio::test]
async fn what_a_pod_waits_for_is_told_and_it_can_be_cancelled_meanwhile() {
    let Some(mut world) = World::find("room") else { return };
    let steps = json!([with(step("a", "echo never"), json!({"resources": {"limits": {"nvidia.com/gpu": "64"}}}))]);
    let handle = world.start(world.attempt(1, steps, json!({}))).await;
    world.says(&handle, "Insufficient nvidia.com/gpu").await;
    assert_eq!(world.observed(&handle).await, Observation::Waiting);
    world.backend.cancel(&handle, SignedDuration::from_secs(1)).await.unwrap();
    assert_eq!(world.ended().await.exit, Exit::Cancelled);
}

#[tokio::test]
async fn room_in_a_quota_is_waited_for() {
    let Some(mut world) = World::find("quota") else { return };
    world.kubectl(&["--namespace", &world.namespace, "create", "quota", "none", "--hard=pods=0"]);
    world.until("the quota", |world| world.list("resourcequotas")[0]["status"]["hard"]["pods"] == "0").await;
    let handle = world.start(world.attempt(1, json!([step("a", "echo hello")]), json!({}))).await;
    world.says(&handle, "exceeded quota").await;
    assert_eq!(world.observed(&handle).await, Observation::Waiting);
    world.kubectl(&["--namespace", &world.namespace, "delete", "quota", "none"]);
    assert_eq!(world.ended().await.exit, Exit::Code { code: 0 });
}

#[tokio::test]
async fn a_pod_that_somebody_else_deletes_is_lost_and_not_failed() {
    let Some(mut world) = World::find("deleted") else { return };
    // It goes on for as long as it may.
    let script = "trap 'echo asked' TERM; echo begins; while :; do sleep 0.1; done";
    let handle = world.start(world.attempt(1, json!([step("a", script)]), json!({}))).await;
    world.says(&handle, "begins").await;
    let name = world.ours("pods")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    world.kubectl(&["--namespace", &world.namespace, "delete", "pod", &name, "--grace-period=4", "--wait=false"]);
    let BackendEvent::Lost { reason, .. } = world.last().await else { panic!("it was not lost") };
    assert!(reason.contains("deleted"), "{reason}");
    // The next attempt may use the same claim: nothing of this one runs any more.
    assert_eq!(world.ours("pods"), Vec::<serde_json::Value>::new());
    assert!(matches!(world.observed(&handle).await, Observation::Lost { .. }));
}

#[tokio::test]
async fn what_kubernetes_cannot_do_is_refused_with_its_name() {
    let Some(mut world) = World::find("refused") else { return };
    let task = json!({"results": [{"name": "r", "kind": "text"}]});
    let steps = json!([{"name": "step-a", "image": super::harness::IMAGE, "pull": "never"}]);
    let (ended, _) = world.run(steps, task).await;
    let Exit::StartFailed { reason, lasting: true } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("`step-a`: it names no command"), "{reason}");
    assert!(world.ours("pods").is_empty() && world.ours("secrets").is_empty());
}

#[tokio::test]
async fn a_registry_that_does_not_answer_may_answer_the_next_attempt() {
    let Some(mut world) = World::find("registry") else { return };
    // Of a domain that never is.
    let image = json!({"image": "registry.invalid/none:1", "pull": "if_not_present"});
    let (ended, _) = world.run(json!([with(step("a", "echo never"), image)]), json!({})).await;
    let Exit::StartFailed { reason, lasting: false } = &ended.exit else { panic!("{ended:?}") };
    assert!(reason.contains("registry.invalid/none:1") && reason.contains("ImagePullBackOff"), "{reason}");
}

/// Its time counts from when it was begun, and not from when it has room.
#[tokio::test]
async fn a_pod_that_finds_no_room_in_its_time_is_too_late() {
    let Some(mut world) = World::find("late") else { return };
    let steps = json!([with(step("a", "echo never"), json!({"resources": {"limits": {"nvidia.com/gpu": "64"}}}))]);
    let mut spec = world.attempt(1, steps, json!({}));
    spec.pod.as_mut().unwrap().deadline = Some(SignedDuration::from_secs(4));
    let handle = world.start(spec).await;
    world.until("its pod", |world| !world.ours("pods").is_empty()).await;
    // Whoever is gone meanwhile cannot end it: so the cluster has it written down as well.
    assert_eq!(world.ours("pods")[0]["spec"]["activeDeadlineSeconds"], 4);
    world.restart();
    assert_eq!(world.observed(&handle).await, Observation::Waiting);
    let ended = world.ended().await;
    assert_eq!(ended.exit, Exit::TimedOut, "{ended:?}");
    assert_eq!(serde_json::to_value(&pod(&ended).failure).unwrap(), json!("deadline"));
    world.until("the end of its pod", |world| world.ours("pods").is_empty()).await;
}

//! Events let the backend look now: here it would not look by itself for an hour.

use std::time::Duration;

use pitcrew_core::id::UNMAPPED;
use pitcrew_core::{AttemptId, RunKey, TaskId};
use pitcrew_ecs::backend::Gates;
use pitcrew_ecs::events::Wake;
use pitcrew_ecs::{EcsBackend, EcsConfig, Timing};
use pitcrew_exec::{AttemptSpec, Backend, BackendEvent, Command, EcsPlace, Place, StepSpec};
use serde_json::{Value, json};

use crate::harness::{aws, client, cluster};
use crate::moto::Moto;

const HOUR: Duration = Duration::from_secs(3600);
/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn changed(task: &str, version: u64) -> String {
    let detail = json!({"taskArn": task, "clusterArn": "arn:aws:ecs:us-east-1:123456789012:cluster/gpus",
                        "lastStatus": "STOPPED", "desiredStatus": "STOPPED", "version": version});
    json!({"id": format!("e-{version}"), "detail-type": "ECS Task State Change", "source": "aws.ecs", "detail": detail})
        .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_task_is_seen_when_the_queue_tells_of_it_and_the_server_leads() {
    let moto = Moto::start();
    cluster(&moto, "gpus");
    // A task runs until somebody stops it.
    let forever = json!({ "model_name": "ecs::task", "transition": { "progression": "manual", "times": 1_000_000 } });
    let head = "Content-Type: application/json\r\n";
    moto.request("none", "POST", "/moto-api/state-manager/set-transition", head, &forever.to_string());
    let url = moto.json("sqs", "AmazonSQS.CreateQueue", &json!({ "QueueName": "events" }))["QueueUrl"].clone();
    let send = |body: &str| {
        moto.json("sqs", "AmazonSQS.SendMessage", &json!({ "QueueUrl": url, "MessageBody": body }));
    };
    let dir = tempfile::tempdir().unwrap();
    let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    let (wakes, mut heard) = tokio::sync::broadcast::channel(16);
    let config = EcsConfig {
        instance: "test".to_owned(),
        region: "us-east-1".to_owned(),
        aws: aws(&moto),
        events: Some("events".to_owned()),
        wakes,
        warnings: None,
        gates: Gates::default(),
        timing: Timing { soonest: HOUR, poll: HOUR, ..Timing::default() },
    };
    let backend = EcsBackend::new(config, sender);
    let id = AttemptId { run: RunKey(1), task: TaskId::new("a").unwrap(), map_index: UNMAPPED, number: 1 };
    let place = EcsPlace { cluster: "gpus".into(), task_definition: "train".into(), ..EcsPlace::default() };
    let spec = AttemptSpec {
        steps: vec![StepSpec::new("main", Command::Argv(vec![]))],
        place: Some(Place::Ecs(place)),
        ..AttemptSpec::new(id, dir.path().join("a"), "")
    };
    let handle = backend.prepare(&spec);
    backend.start(&handle, spec).await.unwrap();
    let known: Value = serde_json::from_slice(&std::fs::read(handle.dir.join("task.json")).unwrap()).unwrap();
    let task = known["arn"].as_str().unwrap();
    let started = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
    assert!(
        matches!(started, BackendEvent::Named { .. } | BackendEvent::Placed { .. } | BackendEvent::Started { .. }),
        "{started:?}"
    );

    client(&moto).stop_task("gpus", task, "anna").await.unwrap();
    send(&changed(task, 4));
    backend.lead();
    // Moto tells neither who stopped it nor a code of its container, so whether it is lost is not the matter here.
    let over = async {
        while !matches!(events.recv().await.unwrap(), BackendEvent::Ended { .. } | BackendEvent::Lost { .. }) {}
    };
    tokio::time::timeout(PATIENCE, over).await.expect("the event lets it look");
    // Whoever listens was told, too; the same once more, and an older one, wake nobody.
    send(&changed(task, 4));
    send(&changed(task, 2));
    send(&changed(task, 5));
    let mut told = Vec::new();
    while told.len() < 2 {
        told.push(tokio::time::timeout(PATIENCE, heard.recv()).await.unwrap().unwrap());
    }
    assert!(told.iter().all(|wake| matches!(wake, Wake::Task { arn, .. } if arn == task)), "{told:?}");
    let left = || {
        moto.json("sqs", "AmazonSQS.GetQueueAttributes", &json!({
        "QueueUrl": url, "AttributeNames": ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    }))
    };
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    let is_empty = |left: &Value| left["Attributes"].as_object().unwrap().values().all(|number| number == "0");
    tokio::time::timeout(PATIENCE, async {
        while !is_empty(&left()) {
            looks.tick().await;
        }
    })
    .await
    .expect("all are taken out of the queue");
    assert!(heard.try_recv().is_err(), "two of four told of something new");
}

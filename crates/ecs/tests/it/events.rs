//! A queue with a dead-letter queue, and what is heard of it.

use std::time::Duration;

use pitcrew_ecs::events::{Listener, Wake};
use serde_json::{Value, json};

use crate::harness::client;
use crate::moto::Moto;

fn task(id: &str, version: u64) -> String {
    let arn = |kind: &str, rest: &str| format!("arn:aws:ecs:us-east-1:1:{kind}/{rest}");
    json!({
        "id": format!("{id}-{version}"), "detail-type": "ECS Task State Change", "source": "aws.ecs", "account": "1",
        "region": "us-east-1", "time": "2025-03-20T06:21:11Z",
        "detail": {"taskArn": arn("task", &format!("gpus/{id}")), "clusterArn": arn("cluster", "gpus"),
                   "lastStatus": "STOPPED", "version": version},
    })
    .to_string()
}

/// Weakness 20: what cannot be read is put aside by the queue itself, and holds up nobody.
#[tokio::test]
async fn a_poisoned_message_becomes_a_dead_letter_and_the_others_are_heard() {
    let moto = Moto::start();
    let make =
        |input: Value| moto.json("sqs", "AmazonSQS.CreateQueue", &input)["QueueUrl"].as_str().unwrap().to_owned();
    let dead = make(json!({ "QueueName": "dead" }));
    let redrive = json!({ "deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": 2 });
    let url = make(json!({
        "QueueName": "events", "Attributes": { "RedrivePolicy": redrive.to_string(), "VisibilityTimeout": "0" },
    }));
    let send = |body: &str| {
        moto.json("sqs", "AmazonSQS.SendMessage", &json!({ "QueueUrl": url, "MessageBody": body }));
    };
    send("{ poison");
    send(&task("a", 4));
    send(&task("a", 4));
    send(&task("a", 2));
    send(&task("b", 1));
    let client = client(&moto);
    let mut listener = Listener::new(client.clone(), "events", vec!["gpus".into()]);
    let mut woken = Vec::new();
    // Until the queue has nothing more to give; each message is given out at most twice.
    loop {
        let heard = listener
            .once(Duration::ZERO, |wake| {
                woken.push(wake);
                true
            })
            .await
            .unwrap();
        if heard.messages == 0 {
            break;
        }
    }
    let arns = woken.iter().map(|wake| match wake {
        Wake::Task { arn, .. } => arn.rsplit('/').next().unwrap().to_owned(),
        other => panic!("{other:?}"),
    });
    let mut arns: Vec<_> = arns.collect();
    arns.sort();
    // However they came, each task is looked at, and a doubled event wakes nobody again.
    arns.dedup();
    assert_eq!(arns, ["a", "b"]);
    assert!(listener.heard.unreadable >= 2 && listener.heard.stale >= 1, "{:?}", listener.heard);
    let left = client.receive(&dead, Duration::from_secs(5)).await.unwrap();
    assert_eq!(left.iter().map(|message| message.body.as_str()).collect::<Vec<_>>(), ["{ poison"]);
}

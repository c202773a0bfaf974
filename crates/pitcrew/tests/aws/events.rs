//! Runs that messages of a queue start: once each, also when the server is killed in between.

use serde_json::{Value, json};

use crate::harness::World;
use crate::moto::Moto;

const WORKFLOW: &str = r#"
workflow: deliver
params: {server: {type: string, pattern: "^gpu-"}, count: {type: integer, default: 1}}
on:
  sqs:
    queue: deliveries
    filter: {source: [my.app], detail: {stage: [prod]}}
    conf: {server: "{{ event.detail.server }}", count: "{{ event.detail.count }}"}
tasks: {a: {run: "echo to {{ params.server }} x {{ params.count }}"}}
"#;

fn event(id: &str, stage: &str, server: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "Ready", "source": "my.app", "account": "1", "region": "us-east-1",
        "time": "2026-01-01T00:00:00Z", "resources": [], "detail": {"stage": stage, "server": server, "count": 2},
    })
}

struct Queue<'m> {
    moto: &'m Moto,
    url: Value,
}

impl Queue<'_> {
    fn make(moto: &Moto) -> Queue<'_> {
        let url = moto.json("sqs", "AmazonSQS.CreateQueue", &json!({ "QueueName": "deliveries" }))["QueueUrl"].clone();
        Queue { moto, url }
    }

    fn send(&self, body: &str) {
        self.moto.json("sqs", "AmazonSQS.SendMessage", &json!({ "QueueUrl": self.url, "MessageBody": body }));
    }

    /// Messages that are there, also those that somebody is working on.
    fn length(&self) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let input = json!({ "QueueUrl": self.url, "AttributeNames": names });
        let answer = self.moto.json("sqs", "AmazonSQS.GetQueueAttributes", &input);
        names.iter().map(|name| answer["Attributes"][*name].as_str().unwrap().parse::<u64>().unwrap()).sum()
    }
}

fn runs(world: &World) -> Vec<Value> {
    let out = world.run(&["dags", "list-runs", "deliver", "--output", "json"]);
    serde_json::from_slice::<Value>(&out.stdout).ok().and_then(|list| list.as_array().cloned()).unwrap_or_default()
}

#[test]
fn an_event_starts_one_run_of_the_workflow_that_waits_for_it() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let queue = Queue::make(&moto);
    world.workflow("deliver", WORKFLOW);
    let _server = world.serve();
    queue.send(&event("e-1", "prod", "gpu-1").to_string());
    queue.send(&event("e-1", "prod", "gpu-1").to_string());
    queue.send(&event("e-2", "test", "gpu-2").to_string());
    queue.send(&event("e-3", "prod", "other").to_string());
    queue.send("<script>alert(1)</script>");
    let wrapped =
        json!({"Type": "Notification", "MessageId": "n", "Message": event("e-4", "prod", "gpu-4").to_string()});
    queue.send(&wrapped.to_string());
    world.wait("the queue is empty", || queue.length() == 0);
    world.wait("both runs are over", || runs(&world).iter().filter(|run| run["state"] == "success").count() == 2);
    let all = runs(&world);
    let mut ids: Vec<&str> = all.iter().filter_map(|run| run["run_id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["sqs__e-1", "sqs__e-4"], "{all:?}");
    assert!(world.ok(&["logs", "sqs__e-4"]).contains("to gpu-4 x 2"));
    let log = std::fs::read_to_string(world.path("server.log")).unwrap();
    assert_eq!(log.matches("was refused").count(), 2, "{log}");
    assert!(log.contains("no JSON object") && log.contains("`server`"), "{log}");
}

/// The message is received, the run is committed, and then the server is gone before it could delete the message.
#[test]
fn a_server_that_is_killed_makes_no_run_twice_and_loses_none() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let queue = Queue::make(&moto);
    world.workflow("deliver", WORKFLOW);
    let mut sent = 0;
    for round in 0..4 {
        let before = runs(&world).len();
        let mut server = world.serve();
        for _ in 0..10 {
            sent += 1;
            queue.send(&event(&format!("e-{sent}"), "prod", "gpu-1").to_string());
        }
        // At another moment each time: as soon as there are so many runs.
        world.wait("some runs are made", || runs(&world).len() > before + round);
        server.kill();
    }
    // What a killed server had received comes again after a minute.
    let _server = world.serve();
    world.wait("every event has its run", || runs(&world).len() == sent);
    world.wait("the queue is empty", || queue.length() == 0);
    assert_eq!(runs(&world).len(), sent);
}

//! Events of a cluster, by way of a queue: they wake the server that leads, once each, whatever comes with them.

use serde_json::{Value, json};

use crate::drill::{Drill, variable};

const QUEUE: &str = "ecs_events: pitcrew-events\n";

struct Queue<'d> {
    drill: &'d Drill,
    url: Value,
    dead: Value,
}

impl<'d> Queue<'d> {
    /// A queue with a dead-letter queue, as the template makes it, but that hands out again at once what was not deleted.
    fn make(drill: &'d Drill) -> Queue<'d> {
        let make = |input: Value| drill.moto.json("sqs", "AmazonSQS.CreateQueue", &input)["QueueUrl"].clone();
        let dead = make(json!({ "QueueName": "pitcrew-events-dead" }));
        let target = "arn:aws:sqs:us-east-1:123456789012:pitcrew-events-dead";
        let redrive = json!({ "deadLetterTargetArn": target, "maxReceiveCount": 2 }).to_string();
        let attributes = json!({ "RedrivePolicy": redrive, "VisibilityTimeout": "1" });
        let url = make(json!({ "QueueName": "pitcrew-events", "Attributes": attributes }));
        Queue { drill, url, dead }
    }

    fn send(&self, body: &str) {
        self.drill.moto.json("sqs", "AmazonSQS.SendMessage", &json!({ "QueueUrl": self.url, "MessageBody": body }));
    }

    /// Messages that are there, also those that somebody is working on.
    fn length(&self, url: &Value) -> u64 {
        let names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"];
        let input = json!({ "QueueUrl": url, "AttributeNames": names });
        let answer = self.drill.moto.json("sqs", "AmazonSQS.GetQueueAttributes", &input);
        names.iter().map(|name| answer["Attributes"][*name].as_str().unwrap().parse::<u64>().unwrap()).sum()
    }
}

fn event(kind: &str, source: &str, detail: &Value) -> String {
    json!({
        "version": "0", "id": "e-1", "detail-type": kind, "source": source, "account": "123456789012",
        "region": "us-east-1", "time": "2026-01-01T00:00:00Z", "resources": [], "detail": detail,
    })
    .to_string()
}

fn interruption(machine: &str) -> String {
    let detail = json!({ "instance-id": machine, "instance-action": "terminate" });
    event("EC2 Spot Instance Interruption Warning", "aws.ec2", &detail)
}

fn changed(task: &Value, version: u64) -> String {
    let detail = json!({
        "taskArn": task["taskArn"], "clusterArn": task["clusterArn"], "containerInstanceArn": task["containerInstanceArn"],
        "lastStatus": "RUNNING", "desiredStatus": "RUNNING", "version": version,
    });
    event("ECS Task State Change", "aws.ecs", &detail)
}

/// A Spot machine is about to go: it is drained, and its job goes on elsewhere without a try of its own. The warning comes twice, other
/// events late and in another order, and what nobody can read ends among the dead letters.
#[test]
fn weakness_20_a_machine_that_is_taken_away_is_drained_and_its_job_goes_on_elsewhere() {
    let drill = Drill::of(2, "retries: 0", QUEUE);
    let queue = Queue::make(&drill);
    let _server = drill.serve();
    let first = drill.begin();
    drill.until_placed_on(&drill.agent.machine_of(&first), 1);
    let machine = drill.agent.machine_of(&first);
    queue.send("{ garbage");
    queue.send(&changed(&first, 7));
    queue.send(&changed(&first, 3));
    queue.send(&changed(&first, 7));
    for _ in 0..2 {
        queue.send(&interruption(&machine));
    }
    queue.send(&interruption("i-00000000000000000"));
    let second = drill.until_running(&[&first]);
    assert_ne!(drill.agent.machine_of(&second), machine);
    assert_eq!(variable(&second, "ATTEMPT"), "2");
    assert_eq!(drill.agent.instance(&machine)["status"], "DRAINING");
    drill.world.wait("what is of use is taken", || queue.length(&queue.url) == 0);
    drill.world.wait("what is of none is put aside", || queue.length(&queue.dead) == 1);
    drill.agent.end(&second, 0);
    drill.world.wait("the run has succeeded", || drill.run_state() == "success");
    // Nothing is checked or rebooted for it, and nothing happened twice.
    let mut done = drill.done();
    // Nothing new comes there from the first moment on, so which of these two is first is all the same.
    done[1..3].sort();
    assert_eq!(done, ["RunTask train", "DRAINING", "StopTask", "RunTask train"]);
    assert_eq!(drill.incidents().len(), 1);
    let log = std::fs::read_to_string(drill.world.path("server.log")).unwrap();
    assert_eq!(log.matches("a message is left in the queue").count(), 1, "{log}");
}

/// Machines are being asked who they are, which SSM answers when it likes. A warning has two minutes, and waits for none of that.
#[test]
fn a_warning_waits_for_no_machine_that_is_slow_to_answer() {
    let drill = Drill::of(6, "retries: 0", QUEUE);
    let queue = Queue::make(&drill);
    drill.agent.hold("DescribeInstanceInformation");
    let _server = drill.serve();
    drill.world.wait("machines are being asked", || drill.agent.world().waiting > 0);
    queue.send(&interruption(&drill.machine));
    drill.world.wait("it is drained", || drill.agent.instance(&drill.machine)["status"] == "DRAINING");
    assert!(!drill.agent.world().holds.is_empty(), "none has answered");
    drill.agent.release();
}

//! Each call of the client, once with what it is for and once with what it is refused.

use std::collections::BTreeMap;
use std::time::Duration;

use pitcrew_ecs::client::ecs::{Attribute, InstanceState, Listed, Overrides, Run, Tag, TaskStatus};
use pitcrew_ecs::client::{Condition, Invocation, MachineState, Ran, Typed};
use pitcrew_ecs::doctor::{Grade, examine_tables};
use pitcrew_ecs::tables::Tables;
use pitcrew_ecs::{Kind, arn};
use serde_json::json;

use crate::harness::{World, client, cluster, ecs, machine, now_ms};
use crate::moto::Moto;

fn run(started_by: &str) -> Run {
    Run {
        cluster: "gpus".into(),
        definition: "train".into(),
        overrides: Some(Overrides {
            container: "train".into(),
            command: Some(vec!["train.py".into()]),
            env: BTreeMap::from([("ATTEMPT".into(), "2".into())]),
            gpus: Some(8),
            ..Overrides::default()
        }),
        started_by: started_by.into(),
        token: format!("token-{started_by}"),
        tags: BTreeMap::from([("job_id".into(), "j1".into())]),
        ..Run::default()
    }
}

#[tokio::test]
async fn tasks_are_started_described_listed_and_stopped() {
    let moto = Moto::start();
    let (machine, instance) = cluster(&moto, "gpus");
    let client = client(&moto);
    let task = client.run_task(&run("pitcrew-1")).await.unwrap();
    let resident = arn::Resident::task(&task.task_arn).unwrap();
    assert_eq!(resident.cluster.as_deref(), Some("gpus"));
    assert!(arn::is_same_cluster("gpus", &task.cluster_arn));
    let family: arn::Family = task.task_definition_arn.parse().unwrap();
    assert!("train".parse::<arn::Family>().unwrap().has(&family));

    let pinned = client.start_task(&run("pitcrew-2"), &instance).await.unwrap();
    assert_eq!(pinned.container_instance_arn.as_deref(), Some(instance.as_str()));
    // Nothing is missing but what is: more than one call's worth.
    let mut asked = vec![task.task_arn.clone(), pinned.task_arn.clone()];
    asked.extend((0..250).map(|n| format!("arn:aws:ecs:us-east-1:123456789012:task/gpus/{n:032}")));
    let described = client.tasks("gpus", &asked).await.unwrap();
    assert_eq!(described.tasks.len(), 2);
    assert!(described.tasks.iter().all(|task| task.tag("job_id") == Some("j1")), "tags are asked for");

    let started = client.list_tasks("gpus", Listed::StartedBy("pitcrew-2")).await.unwrap();
    assert_eq!(started, std::slice::from_ref(&pinned.task_arn));
    assert_eq!(client.list_tasks("gpus", Listed::Running("train")).await.unwrap().len(), 2);
    client.tag(&task.task_arn, &[Tag { key: "more".into(), value: "yes".into() }]).await.unwrap();
    client.stop_task("gpus", &task.task_arn, "pitcrew: a sibling failed").await.unwrap();
    let stopped = &client.tasks("gpus", std::slice::from_ref(&task.task_arn)).await.unwrap().tasks[0];
    assert_eq!((stopped.tag("more"), &stopped.last_status), (Some("yes"), &TaskStatus::Stopped));
    assert_eq!(stopped.stopped_reason.as_deref(), Some("pitcrew: a sibling failed"));
    assert_eq!(
        client.list_tasks("gpus", Listed::Stopped("train")).await.unwrap(),
        std::slice::from_ref(&task.task_arn)
    );

    let none = client.run_task(&Run { definition: "none".into(), ..run("x") }).await.unwrap_err();
    assert_eq!(none.kind, Kind::NotFound, "{none}");
    let none = client.tasks("none", &[task.task_arn]).await.unwrap_err();
    assert_eq!((none.kind, none.action.as_str()), (Kind::NotFound, "ecs:DescribeTasks"), "{none}");

    // Instances.
    let list = client.list_instances("gpus", None).await.unwrap();
    assert_eq!(list, std::slice::from_ref(&instance));
    let all = client.instances("gpus", &list).await.unwrap();
    assert_eq!((all[0].ec2_instance_id.as_str(), &all[0].status), (machine.as_str(), &InstanceState::Active));
    assert_eq!((all[0].cpu(), all[0].memory(), all[0].gpus().len()), (4096, 7482, 0));
    let status = Attribute { name: "status".into(), value: Some("REBOOTING".into()) };
    client.put_attributes("gpus", &instance, &[status]).await.unwrap();
    client.drain("gpus", &list, true).await.unwrap();
    let all = client.instances("gpus", &list).await.unwrap();
    assert_eq!((all[0].attribute("status"), &all[0].status), (Some("REBOOTING"), &InstanceState::Draining));
    client.drain("gpus", &list, false).await.unwrap();
    assert_eq!(client.instances("gpus", &list).await.unwrap()[0].status, InstanceState::Active);

    let definition = client.definition("train").await.unwrap();
    assert_eq!((definition.family.as_str(), definition.revision), ("train", 1));
    let stream = definition.main().unwrap().log_stream(&resident.id).unwrap();
    assert_eq!(stream.0, "/ecs/train");
    assert_eq!(client.cluster("gpus").await.unwrap().unwrap().status, "ACTIVE");
    assert_eq!(client.cluster("none").await.unwrap(), None);
}

/// Weakness 17: a table of more than one page is read whole, and what is left out is told.
#[tokio::test]
async fn lists_of_several_pages_are_read_whole() {
    let moto = Moto::start();
    cluster(&moto, "gpus");
    let client = client(&moto);
    // DynamoDB gives a page of 1 MB at most.
    let table = json!({
        "TableName": "t", "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    });
    moto.json("dynamodb", "DynamoDB_20120810.CreateTable", &table);
    for n in 0..7 {
        let row = [("id", Typed::text(n.to_string())), ("fill", Typed::text("x".repeat(300_000)))];
        let row = row.map(|(name, value)| (name.to_owned(), value)).into();
        client.put_item("t", &row, None).await.unwrap();
    }
    let all = client.scan("t", 100).await.unwrap();
    assert_eq!((all.items.len(), all.cut), (7, false));
    let some = client.scan("t", 3).await.unwrap();
    assert_eq!((some.items.len(), some.cut), (3, true));
    // A write with a condition happens once.
    let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), Typed::text(*v))).collect();
    let condition = Condition {
        expression: "attribute_not_exists(#s) OR #s = :old".into(),
        names: BTreeMap::from([("#s".into(), "status".into())]),
        values: BTreeMap::from([(":old".into(), Typed::text("IN_PROGRESS"))]),
    };
    let set = of(&[("status", "COMPLETE")]);
    assert!(client.update_item("t", &of(&[("id", "1")]), &set, Some(&condition)).await.unwrap());
    assert!(!client.update_item("t", &of(&[("id", "1")]), &set, Some(&condition)).await.unwrap());
    assert!(client.update_item("t", &of(&[("id", "1")]), &set, None).await.unwrap());
    let none = client.scan("none", 1).await.unwrap_err();
    assert_eq!(none.kind, Kind::NotFound, "{none}");
}

#[tokio::test]
async fn machines_commands_queues_topics_and_logs() {
    let moto = Moto::start();
    let client = client(&moto);
    let id = machine(&moto);
    let known = client.machines(&[id.clone(), "i-0123456789abcdef0".into()]).await.unwrap();
    assert_eq!((known.len(), &known[0].state), (1, &MachineState::Running));
    assert!(known[0].launched_at.is_some() && known[0].address.contains('.'));
    client.reboot(&id).await.unwrap();
    client.stop(&id).await.unwrap();
    assert_eq!(client.machines(std::slice::from_ref(&id)).await.unwrap()[0].state, MachineState::Stopped);
    client.start(&id).await.unwrap();
    assert_eq!(client.machines(std::slice::from_ref(&id)).await.unwrap()[0].state, MachineState::Running);
    client.may("RebootInstances", &id).await.unwrap();
    let none = client.reboot("i-0123456789abcdef0").await.unwrap_err();
    assert_eq!((none.kind, none.action.as_str()), (Kind::NotFound, "ec2:RebootInstances"), "{none}");

    let sent = client.send_command(&id, &["cat /proc/sys/kernel/random/boot_id"], "boot id", 30, 10).await.unwrap();
    assert!(matches!(client.command_result(&sent).await.unwrap(), Ran::Ended { code: 0, .. }));
    let elsewhere = Invocation { instance: "i-0123456789abcdef0".into(), ..sent };
    assert_eq!(client.command_result(&elsewhere).await.unwrap(), Ran::Pending, "it is not known there yet");
    let unknown = Invocation { command: "0f3a5b3c-0000-4000-8000-000000000000".into(), ..elsewhere };
    assert_eq!(client.command_result(&unknown).await.unwrap_err().kind, Kind::NotFound);

    moto.json("sqs", "AmazonSQS.CreateQueue", &json!({ "QueueName": "events" }));
    let url = client.queue_url("events").await.unwrap();
    assert_eq!(client.queue_url(&url).await.unwrap(), url);
    for n in 0..12 {
        moto.json("sqs", "AmazonSQS.SendMessage", &json!({ "QueueUrl": url, "MessageBody": n.to_string() }));
    }
    let mut bodies = Vec::new();
    while bodies.len() < 12 {
        let some = client.receive(&url, Duration::from_secs(20)).await.unwrap();
        assert!(some.iter().all(|message| message.received == 1));
        client.delete(&url, &some).await.unwrap();
        bodies.extend(some.into_iter().map(|message| message.body));
    }
    assert!(client.receive(&url, Duration::ZERO).await.unwrap().is_empty());
    let attributes = client.queue_attributes(&url).await.unwrap();
    assert_eq!(attributes["ApproximateNumberOfMessages"], "0");
    assert_eq!(client.queue_url("none").await.unwrap_err().kind, Kind::NotFound);

    moto.form("sns", "Version=2010-03-31&Action=CreateTopic&Name=people");
    let topic = "arn:aws:sns:us-east-1:123456789012:people";
    assert!(!client.publish(topic, "a\nnode", "is out of service").await.unwrap().is_empty());
    assert_eq!(client.publish(&format!("{topic}x"), "", "x").await.unwrap_err().kind, Kind::NotFound);

    moto.json("logs", "Logs_20140328.CreateLogGroup", &json!({ "logGroupName": "/g" }));
    moto.json("logs", "Logs_20140328.CreateLogStream", &json!({ "logGroupName": "/g", "logStreamName": "s" }));
    let now = now_ms() - 10_000;
    let put = |from: i64| {
        let events: Vec<_> =
            (from..from + 2).map(|n| json!({ "timestamp": now + n, "message": n.to_string() })).collect();
        moto.json(
            "logs",
            "Logs_20140328.PutLogEvents",
            &json!({ "logGroupName": "/g", "logStreamName": "s", "logEvents": events }),
        );
    };
    put(0);
    let first = client.log_events("/g", "s", None, None).await.unwrap();
    let texts = |page: &pitcrew_ecs::client::LogPage| -> Vec<String> {
        page.events.iter().map(|event| event.message.clone()).collect()
    };
    assert_eq!(texts(&first), ["0", "1"]);
    put(2);
    let second = client.log_events("/g", "s", Some(&first.next), None).await.unwrap();
    assert_eq!(texts(&second), ["2", "3"]);
    let third = client.log_events("/g", "s", Some(&second.next), None).await.unwrap();
    assert_eq!((third.events.len(), &third.next), (0, &second.next), "the same token: no more for now");
    assert_eq!(texts(&client.log_events("/g", "s", None, Some(now + 3)).await.unwrap()), ["3"]);
    let none = client.log_events("/none", "s", None, None).await.unwrap_err();
    assert_eq!(none.kind, Kind::NotFound, "{none}");
    assert!(client.identity().await.unwrap().starts_with("arn:aws:"));
}

#[tokio::test]
async fn a_denial_names_the_action_that_is_missing() {
    let moto = Moto::start();
    let (_, instance) = cluster(&moto, "gpus");
    let (key, secret) = moto.user("ci", &["ecs:DescribeTasks"]);
    ecs(&moto, "DescribeClusters", &json!({}));
    moto.check_everything();
    let mut world = World::default();
    moto.serve(&mut world);
    world.env.extend([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)]);
    let client = world.client();
    let denied = client.run_task(&run("pitcrew-1")).await.unwrap_err();
    assert_eq!((denied.kind, denied.action.as_str()), (Kind::Denied, "ecs:RunTask"), "{denied}");
    assert!(denied.to_string().contains("allow `ecs:RunTask`"), "{denied}");
    let denied = client.drain("gpus", &[instance], true).await.unwrap_err();
    assert_eq!(denied.action, "ecs:UpdateContainerInstancesState");
    let denied = client.reboot("i-0123456789abcdef0").await.unwrap_err();
    assert_eq!(denied.action, "ec2:RebootInstances", "{denied}");
}

#[tokio::test]
async fn the_doctor_looks_at_the_tables() {
    let moto = Moto::start();
    let client = client(&moto);
    let make = |name: &str, key: &str| {
        let table = json!({
            "TableName": name, "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}], "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"}],
        });
        moto.json("dynamodb", "DynamoDB_20120810.CreateTable", &table);
    };
    make("ecs_job", "job_id");
    make("ecs_node", "host");
    let row = [("host".to_owned(), Typed::text("a".to_owned()))].into();
    client.put_item("ecs_node", &row, None).await.unwrap();
    let found = examine_tables(&client, &Tables::default()).await;
    let [job, task, node] = &found[..] else { panic!("{found:?}") };
    assert_eq!((job.grade, job.words.as_str()), (Grade::Good, "the table `ecs_job` can be read, and is empty"));
    assert!(task.grade == Grade::Bad && task.words.starts_with("the table `ecs_task` cannot be read: "), "{task:?}");
    let words = "rows of the table `ecs_node` have no `node_name`: `NODE_TABLE_NAME` names another";
    assert_eq!((node.grade, node.words.as_str()), (Grade::Bad, words));
}

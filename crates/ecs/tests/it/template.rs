//! The template, as CloudFormation's own checker and a CloudFormation see it.

use std::collections::BTreeMap;
use std::process::Command;

use pitcrew_ecs::doctor::{Finding, Grade, Subject, examine};
use pitcrew_ecs::template::template;
use pitcrew_exec::python::{Env, EnvRequest, ensure, ensure_in};

use crate::harness::{client, cluster};
use crate::moto::Moto;

/// The checker, and moto with its CloudFormation, which needs more than the other tests do.
fn python() -> Env {
    let kept = std::env::var_os("PITCREW_TEST_CACHE")
        .map_or_else(|| std::env::temp_dir().join("pitcrew-test-cache"), Into::into);
    let cache = kept.join("python");
    let of = |requirements: &[&str]| EnvRequest {
        requirements: requirements.iter().map(|r| (*r).to_owned()).collect(),
        ..EnvRequest::default()
    };
    let mut say = |line: &str| eprintln!("{line}");
    let uv = ensure(&of(&["uv"]), &cache, &mut say).unwrap();
    let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
    let all = ["moto[cloudformation,s3]>=5,<6", "flask", "flask-cors", "cfn-lint>=1,<2"];
    ensure_in(&of(&all), &cache, &path, &mut say).unwrap()
}

#[tokio::test]
async fn the_template_is_right_and_can_be_deployed() {
    let env = python();
    let names = BTreeMap::from([
        ("ECS_CLUSTER_NAME".to_owned(), "gpus".to_owned()),
        ("SNS_TOPIC_NAME".to_owned(), "people".to_owned()),
    ]);
    let text = template(&names).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pitcrew.yaml");
    std::fs::write(&file, &text).unwrap();
    let lint = |file: &std::path::Path| Command::new(env.bin().join("cfn-lint")).arg(file).output().unwrap();
    let checked = lint(&file);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    // The checker finds what is wrong.
    let wrong = dir.path().join("wrong.yaml");
    std::fs::write(&wrong, text.replace("MetricName: ", "MetrikName: ")).unwrap();
    assert!(!lint(&wrong).status.success());

    let moto = Moto::start_in(&env);
    let encoded = pitcrew_exec::aws::encode(&text);
    let form = format!(
        "Version=2010-05-15&Action=CreateStack&StackName=pitcrew&Capabilities.member.1=CAPABILITY_NAMED_IAM\
         &Parameters.member.1.ParameterKey=TaskRoleArns\
         &Parameters.member.1.ParameterValue=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Ftrain&TemplateBody={encoded}"
    );
    moto.form("cloudformation", &form);
    let stacks = moto.form("cloudformation", "Version=2010-05-15&Action=DescribeStacks&StackName=pitcrew");
    assert!(stacks.contains("CREATE_COMPLETE"), "{stacks}");
    let client = client(&moto);
    let url = client.queue_url("pitcrew-ecs-events").await.unwrap();
    let attributes = client.queue_attributes(&url).await.unwrap();
    assert!(attributes["RedrivePolicy"].as_str().unwrap().contains(":pitcrew-ecs-events-dead"));
    let topic = "arn:aws:sns:us-east-1:123456789012:people";
    assert!(!client.publish(topic, "a", "b").await.unwrap().is_empty());
    let rules = moto.json("events", "AWSEvents.ListRules", &serde_json::json!({}));
    let rules = rules["Rules"].as_array().unwrap();
    assert_eq!(rules.len(), 4);
    assert!(rules.iter().any(|rule| rule["EventPattern"].as_str().unwrap().contains("cluster/gpus")));

    // What was deployed is what the doctor looks for.
    let (machine, _) = cluster(&moto, "gpus");
    let subject =
        Subject { cluster: "gpus".into(), queue: Some("pitcrew-ecs-events".into()), check: Some("train".into()) };
    let words = |found: &[Finding], grade: Grade| -> Vec<String> {
        found.iter().filter(|one| one.grade == grade).map(|one| one.words.clone()).collect()
    };
    let found = examine(&client, &subject).await;
    assert_eq!(words(&found, Grade::Bad), Vec::<String>::new());
    let good = words(&found, Grade::Good).join("\n");
    for part in [
        "tasks of the cluster `gpus` can be listed",
        "1 container instances with 0 GPUs",
        &format!("`RebootInstances` is allowed for `{machine}`"),
        "puts aside what cannot be read",
        "events of `ECS Task State Change` come to",
        "events of `EC2 Spot Instance Interruption Warning` come to",
        "`train` is there, and writes to `/ecs/train`",
    ] {
        assert!(good.contains(part), "{part}: {good}");
    }
    // What is missing is told, with a remedy.
    moto.json("sqs", "AmazonSQS.CreateQueue", &serde_json::json!({ "QueueName": "bare" }));
    let wrong = Subject { queue: Some("bare".into()), check: Some("none".into()), ..subject.clone() };
    let bad = words(&examine(&client, &wrong).await, Grade::Bad).join("\n");
    for part in [
        "has no dead-letter queue",
        "no rule brings `ECS Task State Change` to `bare`",
        "refused `DescribeTaskDefinition`",
    ] {
        assert!(bad.contains(part), "{part}: {bad}");
    }
    let nowhere = Subject { cluster: "none".into(), ..Subject::default() };
    assert!(
        words(&examine(&client, &nowhere).await, Grade::Bad)[0].contains("there is no cluster `none` in us-east-1")
    );
}

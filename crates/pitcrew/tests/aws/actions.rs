//! Actions at AWS, run as tasks, against moto and, where it has nothing, a small server of our own.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{World, text};
use crate::moto::Moto;
use crate::service::{Answer, serve};

/// Runs one task of an action; its outputs, or what was said when it failed.
fn act(world: &World, uses: &str, with: &Value) -> Result<Value, String> {
    std::fs::write(
        world.path("w.yaml"),
        json!({ "workflow": "w", "tasks": { "t": { "uses": uses, "with": with } } }).to_string(),
    )
    .unwrap();
    let out = world.run(&["run", "w.yaml", "--output", "json"]);
    let document: Value = serde_json::from_slice(&out.stdout).map_err(|_| text(&out))?;
    let task = &document["tasks"][0];
    if task["state"] == "success" {
        Ok(task["outputs"].clone())
    } else {
        Err(format!("{task} {}", world.ok(&["logs", "latest"])))
    }
}

const TOPIC: &str = "arn:aws:sns:us-east-1:123456789012:done";

#[test]
fn what_is_done_is_told_to_other_services_and_they_are_heard() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    // SNS, with a queue that hears what is published.
    moto.form("sns", "Version=2010-03-31&Action=CreateTopic&Name=done");
    let queue = moto.json("sqs", "AmazonSQS.CreateQueue", &json!({ "QueueName": "ear" }))["QueueUrl"].clone();
    moto.form(
        "sns",
        &format!("Version=2010-03-31&Action=Subscribe&TopicArn={TOPIC}&Protocol=sqs&Endpoint=arn:aws:sqs:us-east-1:123456789012:ear"),
    );
    let with = json!({"topic": TOPIC, "subject": "ready", "message": {"build": 7}, "attributes": {"stage": "prod", "tries": 2}});
    let published = act(&world, "sns.publish", &with).unwrap();
    let heard = moto.json("sqs", "AmazonSQS.ReceiveMessage", &json!({ "QueueUrl": queue }));
    let heard: Value = serde_json::from_str(heard["Messages"][0]["Body"].as_str().unwrap()).unwrap();
    assert_eq!((&heard["Message"], &heard["Subject"]), (&json!("{\"build\":7}"), &json!("ready")));
    assert_eq!(heard["MessageId"], published["message_id"]);
    assert_eq!(heard["MessageAttributes"]["tries"], json!({"Type": "Number", "Value": "2"}));
    let none = act(&world, "sns.publish", &json!({"topic": format!("{TOPIC}x"), "message": "x"})).unwrap_err();
    assert!(none.contains("`sns` in us-east-1 refused `Publish`: NotFound"), "{none}");

    // Lambda.
    let config = json!({"lambda": {"use_docker": false}, "stepfunctions": {"execute_state_machine": true}});
    moto.request("none", "POST", "/moto-api/config", "Content-Type: application/json\r\n", &config.to_string());
    let role = moto.form("iam", "Version=2010-05-08&Action=CreateRole&RoleName=r&AssumeRolePolicyDocument=%7B%7D");
    let role = role.split_once("<Arn>").unwrap().1.split_once('<').unwrap().0.to_owned();
    let function = json!({"FunctionName": "f", "Runtime": "python3.11", "Role": role, "Handler": "x.h", "Code": {"ZipFile": "eA=="}});
    moto.request(
        "lambda",
        "POST",
        "/2015-03-31/functions",
        "Content-Type: application/json\r\n",
        &function.to_string(),
    );
    let answers = json!({"results": ["{\"answer\": 42}"]}).to_string();
    moto.request(
        "none",
        "POST",
        "/moto-api/static/lambda-simple/response",
        "Content-Type: application/json\r\n",
        &answers,
    );
    let arn = "arn:aws:lambda:us-east-1:123456789012:function:f";
    let called = act(&world, "lambda.invoke", &json!({"function": arn, "payload": {"question": 6}})).unwrap();
    assert_eq!((&called["result"], &called["status"]), (&json!({"answer": 42}), &json!(200)));

    // Step Functions.
    let machine = |name: &str, state: Value| {
        let definition = json!({"StartAt": "A", "States": {"A": state}}).to_string();
        let input = json!({"name": name, "definition": definition, "roleArn": role});
        moto.json("states", "AWSStepFunctions.CreateStateMachine", &input)["stateMachineArn"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let good = machine("good", json!({"Type": "Pass", "Result": {"x": 1}, "End": true}));
    let bad = machine("bad", json!({"Type": "Fail", "Error": "Boom", "Cause": "because of it"}));
    let done = act(&world, "sfn.start", &json!({"state_machine": good, "input": {"a": 1}, "wait": true})).unwrap();
    assert_eq!((&done["status"], &done["output"]), (&json!("SUCCEEDED"), &json!({"x": 1})));
    let failed = act(&world, "sfn.start", &json!({"state_machine": bad, "wait": true})).unwrap_err();
    assert!(failed.contains("the execution ended as FAILED: Boom: because of it"), "{failed}");
    let none = act(&world, "sfn.start", &json!({"state_machine": format!("{good}x")})).unwrap_err();
    assert!(none.contains("refused `StartExecution`: StateMachineDoesNotExist"), "{none}");

    // SageMaker.
    let job = json!({
        "AlgorithmSpecification": {"TrainingImage": "image", "TrainingInputMode": "File"}, "RoleArn": role,
        "OutputDataConfig": {"S3OutputPath": "s3://b/o"}, "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        "ResourceConfig": {"InstanceType": "ml.m4.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "HyperParameters": {"epochs": 3},
    });
    let trained = act(&world, "sagemaker.train", &json!({"spec": job})).unwrap();
    assert_eq!(trained["status"], "Completed");
    let name = trained["name"].as_str().unwrap();
    assert_eq!(trained["model"], format!("s3://b/o/{name}/output/model.tar.gz"));
    let found = moto.json("sagemaker", "SageMaker.DescribeTrainingJob", &json!({ "TrainingJobName": name }));
    assert_eq!(found["HyperParameters"], json!({"epochs": "3"}), "SageMaker takes texts");

    // With a checked signature, as somebody to whom only one thing is allowed.
    let (key, secret) = moto.user("ci", &["states:StartExecution"]);
    moto.check_everything();
    world.env.extend([("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret.clone())]);
    assert!(act(&world, "sfn.start", &json!({"state_machine": good})).unwrap()["execution_arn"].is_string());
    let denied = act(&world, "lambda.invoke", &json!({"function": arn})).unwrap_err();
    assert!(denied.contains("in the policy of `arn:aws:iam::123456789012:user/ci`"), "{denied}");
    assert!(denied.contains("\"exit_code\":78"), "{denied}");
    assert_eq!(world.files_with(&secret), Vec::<std::path::PathBuf>::new());
}

#[test]
fn files_go_to_s3_and_come_back_in_parts() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    moto.request("s3", "PUT", "/bucket", "", "");
    // Three parts, and two small files.
    let make = "python3 -c \"import random; random.seed(1); open('big','wb').write(random.randbytes(20_000_000))\"; printf small > 'a b'; : > none";
    let workflow = json!({"workflow": "s3", "tasks": {
        "make": {"run": make},
        "put": {"needs": ["make"], "uses": "s3.put", "with": {"file": "big", "to": "s3://bucket/deep/"}},
        "small": {"needs": ["make"], "uses": "s3.put", "with": {"file": "a b", "to": "s3://bucket/a b+c.txt"}},
        "none": {"needs": ["make"], "uses": "s3.put", "with": {"file": "none", "to": "s3://bucket/none"}},
        "get": {"needs": ["put"], "uses": "s3.get", "with": {"from": "s3://bucket/deep/big", "file": "back/big"}},
        "get-small": {"needs": ["small"], "uses": "s3.get", "with": {"from": "s3://bucket/a b+c.txt"}},
        "get-none": {"needs": ["none"], "uses": "s3.get", "with": {"from": "s3://bucket/none", "file": "none-again"}},
        "compare": {"needs": ["get", "get-small", "get-none"], "run": "cmp big back/big; cmp 'a b' 'a b+c.txt'; cmp none none-again; ls -A . back > names; cat names"},
    }});
    std::fs::write(world.path("w.yaml"), workflow.to_string()).unwrap();
    let out = world.run(&["run", "w.yaml", "--output", "json"]);
    assert!(out.status.success(), "{}\n{}", text(&out), world.ok(&["logs", "latest"]));
    let document: Value = serde_json::from_slice(&out.stdout).unwrap();
    let outputs =
        |id: &str| document["tasks"].as_array().unwrap().iter().find(|t| t["id"] == id).unwrap()["outputs"].clone();
    assert_eq!(outputs("put")["bytes"], 20_000_000);
    assert_eq!(outputs("put")["sha256"], outputs("get")["sha256"]);
    assert!(outputs("put")["etag"].as_str().unwrap().contains("-3"), "three parts: {}", outputs("put"));
    let log = world.ok(&["logs", "latest", "compare"]);
    assert!(!log.contains(".part"), "{log}");

    for (uses, with, why) in [
        ("s3.get", json!({"from": "s3://bucket/nothing"}), "NoSuchKey: there is no `s3://bucket/nothing`"),
        ("s3.get", json!({"from": "s3://bucket/none", "file": "../x"}), "does not lie in the workspace"),
        ("s3.put", json!({"file": "gone", "to": "s3://bucket/x"}), "there is no file `gone`"),
        ("s3.put", json!({"file": "gone", "to": "bucket/x"}), "is no address of an object"),
    ] {
        let said = act(&world, uses, &with).unwrap_err();
        assert!(said.contains(why) && said.contains("\"exit_code\":78"), "{uses}: {said}");
    }
}

#[test]
fn a_training_job_that_nobody_wants_any_more_is_stopped() {
    let mut world = World::new();
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = calls.clone();
    let endpoint = serve(move |asked| {
        let (target, mut seen) = (asked.target.as_str(), seen.lock().unwrap());
        seen.push(target.to_owned());
        let stopped = seen.iter().any(|call| call == "SageMaker.StopTrainingJob");
        match target {
            "SageMaker.CreateTrainingJob" => (200, "{\"TrainingJobArn\":\"arn\"}".into()),
            "SageMaker.DescribeTrainingJob" if stopped => (200, "{\"TrainingJobStatus\":\"Stopped\"}".into()),
            "SageMaker.DescribeTrainingJob" => (200, "{\"TrainingJobStatus\":\"InProgress\"}".into()),
            _ => (200, String::new()),
        }
    });
    world.env.extend([
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "id".into()),
        ("AWS_SECRET_ACCESS_KEY", "x".into()),
    ]);
    world.workflow("train", "workflow: train\ntasks: {t: {uses: sagemaker.train, grace: 30s, with: {spec: {}}}}\n");
    let _server = world.serve();
    world.wait("the workflow is known", || world.run(&["dags", "trigger", "train"]).status.success());
    world
        .wait("the job is followed", || calls.lock().unwrap().iter().any(|call| call.ends_with("DescribeTrainingJob")));
    world.ok(&["runs", "cancel", "latest"]);
    world.wait("the run is over", || world.ok(&["runs", "show", "latest"]).contains("cancelled"));
    assert!(calls.lock().unwrap().iter().any(|call| call == "SageMaker.StopTrainingJob"));
    world.wait("its log is whole", || world.ok(&["logs", "latest"]).contains("the training job is stopped"));
}

#[test]
fn a_function_that_fails_fails_the_task_and_an_upload_goes_on_where_it_broke() {
    let mut world = World::new();
    let sent = Arc::new(AtomicUsize::new(0));
    let broken = Arc::new(AtomicUsize::new(0));
    let (count, breaks) = (sent.clone(), broken.clone());
    let endpoint = serve(move |asked| {
        let path = asked.path.as_str();
        if path.contains("/functions/broken/") {
            let body =
                json!({"errorType": "KeyError", "errorMessage": "'gpu'", "stackTrace": ["  File \"f.py\", line 3"]});
            return Answer(200, "X-Amz-Function-Error: Unhandled\r\n", body.to_string());
        }
        if path.contains("/functions/") {
            return Answer(403, "", "{\"message\":\"User: arn:aws:iam::1:user/x is not authorized to perform: lambda:InvokeFunction\",\"__type\":\"AccessDeniedException\"}".into());
        }
        if path.contains("?uploads=") {
            return Answer(200, "", "<R><UploadId>u-1</UploadId></R>".into());
        }
        if path.contains("partNumber=") {
            count.fetch_add(1, Ordering::SeqCst);
            // The second part does not get through, in the first attempt.
            if path.contains("partNumber=2&") && breaks.fetch_add(1, Ordering::SeqCst) < 1 {
                return Answer(403, "", "<Error><Code>AccessDenied</Code><Message>not now</Message></Error>".into());
            }
            return Answer(200, "", String::new());
        }
        if path.contains("uploadId=u-1") && !path.contains("partNumber") {
            // Asked which parts there are, and to put them together.
            let part = |n: u64, size: u64| {
                format!("<Part><PartNumber>{n}</PartNumber><ETag>\"e\"</ETag><Size>{size}</Size></Part>")
            };
            return Answer(
                200,
                "",
                format!(
                    "<R><ETag>\"whole-3\"</ETag><IsTruncated>false</IsTruncated>{}{}</R>",
                    part(1, 8 << 20),
                    part(3, 20_000_000 - (16 << 20))
                ),
            );
        }
        Answer(404, "", String::new())
    });
    world.env.extend([
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "id".into()),
        ("AWS_SECRET_ACCESS_KEY", "x".into()),
    ]);
    let workflow = json!({"workflow": "s3", "tasks": {
        "make": {"run": "head -c 20000000 /dev/zero > big"},
        "put": {"needs": ["make"], "uses": "s3.put", "with": {"file": "big", "to": "s3://bucket/big"}},
    }});
    std::fs::write(world.path("s3.yaml"), workflow.to_string()).unwrap();
    let first = world.fails(1, &["run", "s3.yaml"]);
    assert!(first.contains("AccessDenied: not now"), "{first}");
    let before = sent.load(Ordering::SeqCst);
    assert!((1..=3).contains(&before), "{before}");
    world.ok(&["runs", "retry", "latest", "put"]);
    let log = world.ok(&["logs", "latest", "put"]);
    assert!(log.contains("going on with an upload of which 2 parts are there"), "{log}");
    assert_eq!(sent.load(Ordering::SeqCst), before + 1, "only what is missing is sent");

    let denied = act(&world, "lambda.invoke", &json!({"function": "f"})).unwrap_err();
    assert!(denied.contains("AccessDeniedException") && denied.contains("allow `lambda:InvokeFunction`"), "{denied}");

    let broke = act(&world, "lambda.invoke", &json!({"function": "broken"})).unwrap_err();
    assert!(broke.contains("the function `broken` failed (Unhandled): KeyError: 'gpu'"), "{broke}");
    assert!(broke.contains("line 3") && broke.contains("\"exit_code\":1"), "{broke}");
}

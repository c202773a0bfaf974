//! A task of ECS, from a workflow file to its end.

use serde_json::{Value, json};

use crate::harness::{World, text};
use crate::moto::Moto;

#[test]
fn a_task_of_ecs_runs_from_a_workflow_and_one_that_cannot_says_why() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let ecs = |operation: &str, input: &Value| {
        moto.json("ecs", &format!("AmazonEC2ContainerServiceV20141113.{operation}"), input)
    };
    ecs("CreateCluster", &json!({ "clusterName": "gpus" }));
    let machine = moto.form("ec2", "Version=2016-11-15&Action=RunInstances&ImageId=ami-12c6146b&MinCount=1&MaxCount=1");
    let machine = machine.split_once("<instanceId>").unwrap().1.split_once('<').unwrap().0.to_owned();
    let document = json!({ "instanceId": machine, "region": "us-east-1" }).to_string();
    let instance =
        json!({ "cluster": "gpus", "instanceIdentityDocument": document, "instanceIdentityDocumentSignature": "x" });
    ecs("RegisterContainerInstance", &instance);
    let containers = json!([{ "name": "train", "image": "train:1", "memory": 64, "cpu": 1 }]);
    ecs("RegisterTaskDefinition", &json!({ "family": "train", "containerDefinitions": containers }));
    // Each question brings a task a state further, to its end.
    let transition = json!({ "model_name": "ecs::task", "transition": { "progression": "manual", "times": 1 } });
    let head = "Content-Type: application/json\r\n";
    moto.request("none", "POST", "/moto-api/state-manager/set-transition", head, &transition.to_string());

    let workflow = json!({
        "workflow": "w",
        "params": { "rev": { "type": "string", "default": "train:1" } },
        "tasks": {
            "good": { "backend": { "ecs": { "cluster": "gpus", "task_definition": "{{ params.rev }}", "gpus": 8 } },
                      "env": { "RESUME_FROM": "s3://b/9" } },
            "bad": { "backend": { "ecs": { "cluster": "gpus", "task_definition": "none" } }, "retries": 3 },
        },
    });
    std::fs::write(world.path("w.yaml"), workflow.to_string()).unwrap();
    let out = world.run(&["run", "w.yaml", "--output", "json"]);
    let document: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|_| panic!("{}", text(&out)));
    let of = |id: &str| document["tasks"].as_array().unwrap().iter().find(|task| task["id"] == id).unwrap().clone();
    assert_eq!(of("good")["state"], "success", "{document} {}", text(&out));
    // No retry can help.
    assert_eq!((&of("bad")["state"], &of("bad")["attempts"]), (&json!("failed"), &json!(1)), "{document}");
    assert!(world.ok(&["logs", "latest"]).contains("Unable to describe task definition"), "{document}");

    // What was asked for is what the workflow says.
    let listed = ecs("ListTasks", &json!({ "cluster": "gpus", "family": "train" }));
    let tasks = ecs("DescribeTasks", &json!({ "cluster": "gpus", "tasks": listed["taskArns"], "include": ["TAGS"] }));
    assert_eq!(tasks["tasks"].as_array().unwrap().len(), 1, "{tasks}");
    let overrides = &tasks["tasks"][0]["overrides"]["containerOverrides"][0];
    assert_eq!(overrides["resourceRequirements"], json!([{ "type": "GPU", "value": "8" }]), "{tasks}");
    let env: Vec<_> =
        overrides["environment"].as_array().unwrap().iter().map(|pair| pair["name"].as_str().unwrap()).collect();
    assert!(env.contains(&"RESUME_FROM") && env.contains(&"ATTEMPT"), "{env:?}");
    assert!(tasks["tasks"][0]["tags"].as_array().unwrap().iter().any(|tag| tag["value"] == "training_job"), "{tasks}");

    let template = world.ok(&["aws", "template", "--set", "ECS_CLUSTER_NAME=gpus"]);
    assert!(template.starts_with("AWSTemplateFormatVersion") && template.contains("Default: \"gpus\""));
    assert!(world.fails(2, &["aws", "template", "--set", "ECS_CLUSTER_NAME=a b"]).contains("cannot hold"));
    let looked = world.run(&["aws", "doctor", "--cluster", "gpus", "--check", "none"]);
    assert!(
        !looked.status.success() && text(&looked).contains("good  tasks of the cluster `gpus` can be listed"),
        "{}",
        text(&looked)
    );
}

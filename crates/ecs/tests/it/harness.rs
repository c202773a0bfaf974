//! What moto's harness needs of a world, and how these tests ask.

use std::collections::HashMap;
use std::process::Child;
use std::sync::Arc;

use pitcrew_ecs::Client;
use pitcrew_exec::aws::Aws;
use serde_json::{Value, json};

use crate::moto::Moto;

/// A process that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Variables of the environment; those of this process count for nothing.
#[derive(Default)]
pub struct World {
    pub env: Vec<(&'static str, String)>,
}

impl World {
    pub fn aws(&self) -> Aws {
        let env: HashMap<&str, String> = self.env.iter().cloned().collect();
        Aws::new(Arc::new(move |name| env.get(name).cloned())).unwrap()
    }

    pub fn client(&self) -> Client {
        Client::new(self.aws(), "us-east-1").unwrap()
    }
}

/// A door to that server.
pub fn aws(moto: &Moto) -> Aws {
    let mut world = World::default();
    moto.serve(&mut world);
    world.aws()
}

/// A client of that server, as somebody whom everything is allowed to.
pub fn client(moto: &Moto) -> Client {
    let mut world = World::default();
    moto.serve(&mut world);
    world.client()
}

pub fn ecs(moto: &Moto, operation: &str, input: &Value) -> Value {
    moto.json("ecs", &format!("AmazonEC2ContainerServiceV20141113.{operation}"), input)
}

/// A cluster with one instance, and a task definition `train`: the ids of the machine and of the container instance.
pub fn cluster(moto: &Moto, name: &str) -> (String, String) {
    ecs(moto, "CreateCluster", &json!({ "clusterName": name }));
    let machine = machine(moto);
    let document = json!({ "instanceId": machine, "region": "us-east-1" }).to_string();
    let instance = ecs(
        moto,
        "RegisterContainerInstance",
        &json!({ "cluster": name, "instanceIdentityDocument": document, "instanceIdentityDocumentSignature": "x" }),
    );
    let log = json!({ "logDriver": "awslogs", "options": {
        "awslogs-group": "/ecs/train", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs" } });
    let containers = json!([{ "name": "train", "image": "train:1", "memory": 64, "cpu": 1, "logConfiguration": log }]);
    ecs(moto, "RegisterTaskDefinition", &json!({ "family": "train", "containerDefinitions": containers }));
    (machine, instance["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned())
}

pub fn machine(moto: &Moto) -> String {
    let form = "Version=2016-11-15&Action=RunInstances&ImageId=ami-12c6146b&MinCount=1&MaxCount=1";
    let answer = moto.form("ec2", form);
    answer.split_once("<instanceId>").unwrap().1.split_once('<').unwrap().0.to_owned()
}

/// Milliseconds since 1970: CloudWatch refuses events of long ago.
#[allow(clippy::disallowed_methods, reason = "the server of these tests has a real clock")]
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

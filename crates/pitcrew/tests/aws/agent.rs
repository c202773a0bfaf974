//! The machines of a cluster of moto's: what moto has not, since nothing runs there. It stands between a server and moto, passes on
//! whatever is asked, and puts into the answers what agents and machines would have told: devices, boots, ends of containers,
//! what commands wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::harness::pause;
use crate::moto::Moto;
use crate::service::{Asked, serve};

const ECS: &str = "AmazonEC2ContainerServiceV20141113";
/// The task definition that checks machines.
pub const CHECK: &str = "dcgm";

/// Machines, and how to make them fail.
#[derive(Clone)]
pub struct Agent {
    world: Arc<Mutex<World>>,
    moto: String,
    pub url: String,
}

#[derive(Default)]
pub struct World {
    pub machines: BTreeMap<String, Machine>,
    /// How containers ended, by the ARN of their task.
    ended: BTreeMap<String, i32>,
    /// What commands of SSM came to.
    ran: BTreeMap<String, (i32, String)>,
    /// What was asked that changes something, in order: the operation, and the most telling part of it.
    pub done: Vec<String>,
    /// Checks go on until the test ends them.
    pub held: bool,
    /// ECS refuses to drain.
    pub undrained: bool,
    /// Nobody answers for DynamoDB.
    pub tables_away: bool,
    /// What was to be written to tables of DynamoDB, in order.
    pub rows: Vec<Row>,
    /// Tasks that were asked to stop: each, once.
    pub stopped: BTreeSet<String>,
    /// What was started on machines that it was bound to, by its token.
    bound: BTreeMap<String, Value>,
    /// How often somebody was told what a command came to.
    pub told: usize,
    /// Operations that wait for as long as they stand here, and how many do or did.
    pub holds: BTreeSet<&'static str>,
    /// Once a machine is stopped, nobody hears how it is.
    pub mute: bool,
    pub waiting: usize,
}

/// A row of a table of DynamoDB that was to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub table: String,
    pub key: String,
    pub status: String,
    /// It was written, and not refused.
    pub written: bool,
}

pub struct Machine {
    pub boot: u32,
    pub gpus: Vec<String>,
    /// What a check ends with, and writes, until the machine is started anew.
    pub check: i32,
    pub instance: String,
    /// SSM reaches it; what is started anew is reached again.
    pub ssm: bool,
    /// What is broken is its hardware: no reboot mends that, and on other hardware it is well.
    pub worn: bool,
}

impl Machine {
    fn boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.boot)
    }

    fn starts_anew(&mut self) {
        (self.boot, self.ssm) = (self.boot + 1, true);
        if !self.worn {
            self.check = 0;
        }
    }
}

impl Agent {
    /// A cluster `gpus` of so many machines, the task definitions `train` and [`CHECK`], and whoever answers for them.
    pub fn start(moto: &Moto, machines: usize) -> Agent {
        let ecs = |operation: &str, input: Value| moto.json("ecs", &format!("{ECS}.{operation}"), &input);
        ecs("CreateCluster", json!({ "clusterName": "gpus" }));
        for family in ["train", CHECK] {
            let containers = json!([{ "name": family, "image": "x:1", "memory": 64, "cpu": 1 }]);
            ecs("RegisterTaskDefinition", json!({ "family": family, "containerDefinitions": containers }));
        }
        // A task runs until somebody ends it.
        let transition =
            json!({ "model_name": "ecs::task", "transition": { "progression": "manual", "times": 1_000_000 } });
        let head = "Content-Type: application/json\r\n";
        moto.request("none", "POST", "/moto-api/state-manager/set-transition", head, &transition.to_string());
        let mut world = World::default();
        for number in 1..=machines {
            let form = "Version=2016-11-15&Action=RunInstances&ImageId=ami-12c6146b&MinCount=1&MaxCount=1";
            let answer = moto.form("ec2", form);
            let id = answer.split_once("<instanceId>").unwrap().1.split_once('<').unwrap().0.to_owned();
            let document = json!({ "instanceId": id, "region": "us-east-1" }).to_string();
            let registered = ecs(
                "RegisterContainerInstance",
                json!({ "cluster": "gpus", "instanceIdentityDocument": document, "instanceIdentityDocumentSignature": "x" }),
            );
            let instance = registered["containerInstance"]["containerInstanceArn"].as_str().unwrap().to_owned();
            let gpus = ["a", "b"].map(|letter| format!("GPU-{number}{letter}")).to_vec();
            world.machines.insert(id, Machine { boot: 1, gpus, check: 0, instance, ssm: true, worn: false });
        }
        let world = Arc::new(Mutex::new(world));
        let mut agent = Agent { world, moto: moto.address.clone(), url: String::new() };
        let answering = agent.clone();
        agent.url = serve(move |asked| answering.answer(asked));
        agent
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Calls of that operation wait from now on, until nothing is held any more.
    pub fn hold(&self, operation: &'static str) {
        let mut world = self.world();
        world.holds.insert(operation);
        world.waiting = 0;
    }

    pub fn release(&self) {
        self.world().holds.clear();
    }

    /// The only machine, or the first.
    pub fn machine(&self) -> String {
        self.world().machines.keys().next().unwrap().clone()
    }

    /// What ECS says of the instance of a machine.
    pub fn instance(&self, machine: &str) -> Value {
        let arn = self.world().machines[machine].instance.clone();
        let input = json!({ "cluster": "gpus", "containerInstances": [arn] });
        self.ecs("DescribeContainerInstances", &input)["containerInstances"][0].clone()
    }

    /// The value of `status` of a machine.
    pub fn status(&self, machine: &str) -> String {
        let instance = self.instance(machine);
        let all = instance["attributes"].as_array().unwrap();
        let found = all.iter().find(|attribute| attribute["name"] == "status");
        found.and_then(|attribute| attribute["value"].as_str()).unwrap_or_default().to_owned()
    }

    /// The tasks of a family, as ECS tells of them.
    pub fn tasks(&self, family: &str) -> Vec<Value> {
        let named = |desired: &str| {
            let listed =
                self.ecs("ListTasks", &json!({ "cluster": "gpus", "family": family, "desiredStatus": desired }));
            listed["taskArns"].as_array().unwrap().clone()
        };
        let arns: Vec<Value> = named("RUNNING").into_iter().chain(named("STOPPED")).collect();
        if arns.is_empty() {
            return Vec::new();
        }
        let known = self.ecs("DescribeTasks", &json!({ "cluster": "gpus", "tasks": arns }));
        known["tasks"].as_array().unwrap().iter().filter(|task| is_of(task, family)).cloned().collect()
    }

    /// The one task of `train` that runs, if there is one.
    pub fn running(&self) -> Option<Value> {
        self.all_running().into_iter().next()
    }

    pub fn all_running(&self) -> Vec<Value> {
        self.tasks("train").into_iter().filter(|task| task["lastStatus"] == "RUNNING").collect()
    }

    /// The machine that a task is on.
    pub fn machine_of(&self, task: &Value) -> String {
        let world = self.world();
        let found = world.machines.iter().find(|(_, machine)| task["containerInstanceArn"] == *machine.instance);
        found.map(|(id, _)| id.clone()).unwrap_or_else(|| panic!("{task}"))
    }

    /// Its container ends.
    pub fn end(&self, task: &Value, code: i32) {
        let arn = task["taskArn"].as_str().unwrap();
        self.world().ended.insert(arn.to_owned(), code);
        self.ecs(
            "StopTask",
            &json!({ "cluster": "gpus", "task": arn, "reason": "Essential container in task exited" }),
        );
    }

    /// Past the agent, as nobody's deed.
    pub fn ecs(&self, operation: &str, input: &Value) -> Value {
        let asked = Asked {
            method: "POST".into(),
            path: "/".into(),
            target: format!("{ECS}.{operation}"),
            authorization: "/us-east-1/ecs/aws4_request".into(),
            body: input.to_string(),
        };
        let (status, body) = self.pass_on(&asked);
        assert_eq!(status, 200, "{operation}: {body}");
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        self.complete(operation, &mut answer);
        answer
    }

    fn answer(&self, asked: &Asked) -> (u16, String) {
        let operation = asked.target.rsplit('.').next().unwrap_or_default().to_owned();
        let input: Value = serde_json::from_str(&asked.body).unwrap_or_default();
        self.wait(&operation);
        if asked.body.contains("Action=DescribeInstances") {
            self.wait("DescribeInstances");
        }
        if operation == "DescribeInstanceInformation" {
            let is_there = input["Filters"][0]["Values"][0].as_str().is_some_and(|id| self.world().machines[id].ssm);
            let status = if is_there { "Online" } else { "ConnectionLost" };
            return (200, json!({ "InstanceInformationList": [{ "PingStatus": status }] }).to_string());
        }
        if operation == "SendCommand" && !self.world().machines[input["InstanceIds"][0].as_str().unwrap()].ssm {
            let why = "Instances not in a valid state for account";
            return (400, json!({ "__type": "InvalidInstanceId", "message": why }).to_string());
        }
        if operation == "StopTask" && !self.world().stopped.insert(input["task"].as_str().unwrap().to_owned()) {
            return (200, json!({ "task": {} }).to_string());
        }
        if operation == "RunTask"
            && let Some(bound) = input["placementConstraints"][0]["expression"].as_str()
        {
            return self.run_bound(asked, input.clone(), bound.trim_start_matches("ec2InstanceId == "));
        }
        let arns = |key: &str| input[key].as_array().cloned().unwrap_or_default();
        if operation == "StartTask" && self.is_draining(&arns("containerInstances")[0]) {
            // What is drained takes nothing, not even a check.
            let failure = json!({ "arn": arns("containerInstances")[0], "reason": "INACTIVE" });
            return (200, json!({ "tasks": [], "failures": [failure] }).to_string());
        }
        if operation == "UpdateContainerInstancesState" && self.world().undrained {
            return (400, json!({ "__type": "InvalidParameterException", "message": "not now" }).to_string());
        }
        if asked.target.starts_with("DynamoDB") && self.world().tables_away {
            return (500, json!({ "__type": "InternalServerError", "message": "away" }).to_string());
        }
        let (status, body) = self.pass_on(asked);
        if operation == "UpdateItem" {
            self.world().rows.push(row(&input, status == 200));
        }
        let Ok(mut answer) = serde_json::from_str::<Value>(&body) else {
            self.note_form(&asked.body);
            return (status, body);
        };
        self.note(&operation, &input, &answer);
        self.complete(&operation, &mut answer);
        (status, answer.to_string())
    }

    fn wait(&self, operation: &str) {
        if self.world().holds.contains(operation) {
            self.world().waiting += 1;
            while self.world().holds.contains(operation) {
                pause();
            }
        }
    }

    /// Moto places wherever there is room: whoever is bound to a machine is started there instead.
    fn run_bound(&self, asked: &Asked, mut input: Value, machine: &str) -> (u16, String) {
        let instance = Value::from(self.world().machines[machine].instance.clone());
        if self.is_draining(&instance) {
            let failure = json!({ "arn": instance, "reason": "MemberOf placement constraint unsatisfied." });
            return (200, json!({ "tasks": [], "failures": [failure] }).to_string());
        }
        let token = input["clientToken"].as_str().unwrap().to_owned();
        if let Some(answer) = self.world().bound.get(&token) {
            return (200, answer.to_string());
        }
        input["containerInstances"] = json!([instance]);
        let target = format!("{ECS}.StartTask");
        let body = input.to_string();
        let (status, body) = self.pass_on(&Asked {
            target,
            body,
            method: asked.method.clone(),
            path: asked.path.clone(),
            authorization: asked.authorization.clone(),
        });
        let answer: Value = serde_json::from_str(&body).unwrap();
        self.world().bound.insert(token, answer.clone());
        self.note("RunTask", &input, &answer);
        (status, answer.to_string())
    }

    fn note_form(&self, form: &str) {
        let field =
            |name: &str| form.split('&').find_map(|pair| pair.strip_prefix(name)).unwrap_or_default().to_owned();
        let mut world = self.world();
        match field("Action=").as_str() {
            "RebootInstances" => {
                world.done.push("RebootInstances".to_owned());
                world.machines.get_mut(&field("InstanceId.1=")).unwrap().starts_anew();
            }
            "StopInstances" => {
                world.done.push("StopInstances".to_owned());
                if world.mute {
                    world.holds.insert("DescribeInstances");
                }
            }
            "StartInstances" => {
                world.done.push("StartInstances".to_owned());
                let machine = world.machines.get_mut(&field("InstanceId.1=")).unwrap();
                machine.worn = false;
                machine.starts_anew();
            }
            _ => {}
        }
    }

    fn is_draining(&self, instance: &Value) -> bool {
        let asked = json!({ "cluster": "gpus", "containerInstances": [instance] });
        self.ecs("DescribeContainerInstances", &asked)["containerInstances"][0]["status"] == "DRAINING"
    }

    /// What was done, and what the machines make of it.
    fn note(&self, operation: &str, input: &Value, answer: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match operation {
            // Whoever says it twice says no more than once.
            "UpdateContainerInstancesState" => {
                let mut world = self.world();
                let is_state = |done: &&String| matches!(done.as_str(), "ACTIVE" | "DRAINING");
                let status = text(&input["status"]);
                if world.done.iter().rev().find(is_state) != Some(&status) {
                    world.done.push(status);
                }
            }
            "RunTask" | "StartTask" => {
                let Some(task) = answer["tasks"].get(0) else { return };
                let family = if is_of(task, CHECK) { CHECK } else { "train" };
                self.world().done.push(format!("{operation} {family}"));
                if family == CHECK && !self.world().held {
                    let instance = text(&input["containerInstances"][0]);
                    let code = self.world().machines.values().find(|m| m.instance == instance).map(|m| m.check);
                    self.end(task, code.unwrap());
                }
            }
            "StopTask" => self.world().done.push("StopTask".to_owned()),
            "SendCommand" => {
                let lines: Vec<String> = input["Parameters"]["commands"].as_array().unwrap().iter().map(text).collect();
                let lines = lines.join("\n");
                let id = text(&input["InstanceIds"][0]);
                let mut world = self.world();
                let machine = world.machines.get_mut(&id).unwrap();
                let boot = machine.boot_id();
                let (ran, done) = if lines.contains("systemctl reboot") {
                    match lines.contains("boot_id") && !lines.contains(&boot) {
                        true => ((75, String::new()), None),
                        false => {
                            machine.starts_anew();
                            ((0, String::new()), Some("reboot"))
                        }
                    }
                } else if lines.contains("boot_id") {
                    ((0, format!("{boot}\n")), None)
                } else {
                    ((127, String::new()), Some("another command"))
                };
                world.done.extend(done.map(str::to_owned));
                world.ran.insert(text(&answer["Command"]["CommandId"]), ran);
            }
            _ => {}
        }
    }

    /// Puts into an answer what only agents know.
    fn complete(&self, operation: &str, answer: &mut Value) {
        let mut world = self.world();
        match operation {
            "DescribeContainerInstances" => {
                for instance in answer["containerInstances"].as_array_mut().unwrap() {
                    let machine = &world.machines[instance["ec2InstanceId"].as_str().unwrap()];
                    let gpus = json!({ "name": "GPU", "type": "STRINGSET", "stringSetValue": machine.gpus });
                    instance["registeredResources"].as_array_mut().unwrap().push(gpus);
                    // A task has all of them.
                    let is_free = instance["runningTasksCount"].as_i64().unwrap() <= 0;
                    let free = if is_free { machine.gpus.clone() } else { Vec::new() };
                    let free = json!({ "name": "GPU", "type": "STRINGSET", "stringSetValue": free });
                    instance["remainingResources"].as_array_mut().unwrap().push(free);
                }
            }
            "DescribeTasks" => {
                for task in answer["tasks"].as_array_mut().unwrap() {
                    let instance = task["containerInstanceArn"].as_str().unwrap_or_default();
                    let machine = world.machines.values().find(|machine| machine.instance == instance);
                    task["containers"][0]["gpuIds"] = json!(machine.map(|machine| &machine.gpus));
                    task["containers"][0]["exitCode"] = Value::Null;
                    if task["lastStatus"] == "STOPPED" {
                        let code = world.ended.get(task["taskArn"].as_str().unwrap());
                        let (stop, code) =
                            code.map_or(("UserInitiated", 143), |code| ("EssentialContainerExited", *code));
                        (task["stopCode"], task["containers"][0]["exitCode"]) = (json!(stop), json!(code));
                        task["startedAt"] = json!(1_767_225_600.0);
                    }
                }
            }
            "GetCommandInvocation" => {
                let id = answer["CommandId"].as_str().unwrap().to_owned();
                let (code, stdout) = &world.ran[&id];
                let status = if *code == 0 { "Success" } else { "Failed" };
                (answer["ResponseCode"], answer["Status"]) = (json!(code), json!(status));
                answer["StandardOutputContent"] = json!(stdout);
                world.told += 1;
            }
            _ => {}
        }
    }

    /// Asks moto: the status and the body.
    fn pass_on(&self, asked: &Asked) -> (u16, String) {
        let service = asked.authorization.split("us-east-1/").nth(1).and_then(|rest| rest.split('/').next());
        let kind = if asked.target.is_empty() { "x-www-form-urlencoded" } else { "x-amz-json-1.1" };
        let target = match asked.target.as_str() {
            "" => String::new(),
            target => format!("X-Amz-Target: {target}\r\n"),
        };
        let mut stream = TcpStream::connect(&self.moto).unwrap();
        write!(
            stream,
            "{} {} HTTP/1.1\r\nHost: {}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=id/20260301/us-east-1/{}/aws4_request, \
             SignedHeaders=host, Signature=0\r\nContent-Type: application/{kind}\r\n{target}Content-Length: {}\r\n\
             Connection: close\r\n\r\n{}",
            asked.method,
            asked.path,
            self.moto,
            service.unwrap_or("ec2"),
            asked.body.len(),
            asked.body
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(500);
        (status, body.to_owned())
    }
}

/// What a write is about: its key, and what it sets the status to.
fn row(input: &Value, written: bool) -> Row {
    let text = |value: &Value| value["S"].as_str().unwrap_or_default().to_owned();
    let names = input["ExpressionAttributeNames"].as_object().unwrap();
    let status =
        names.iter().find(|(_, name)| name.as_str().unwrap().ends_with("_status")).map(|(name, _)| name.clone());
    let value = status.map(|name| name.replace('#', ":")).unwrap_or_default();
    Row {
        table: input["TableName"].as_str().unwrap().to_owned(),
        key: input["Key"].as_object().unwrap().values().map(text).collect(),
        status: text(&input["ExpressionAttributeValues"][value]),
        written,
    }
}

/// Whether a task is of that family: by all of its name.
fn is_of(task: &Value, family: &str) -> bool {
    let arn = task["taskDefinitionArn"].as_str().unwrap_or_default();
    arn.rsplit('/').next().and_then(|name| name.split(':').next()) == Some(family)
}

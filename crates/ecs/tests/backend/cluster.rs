//! A cluster of ECS with one machine, and what EC2 and SSM say of that. Its tasks really run: their command is a process of this machine, with no other
//! environment than what the task was started with; what it writes goes to a stream of CloudWatch Logs.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

pub const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";

#[derive(Clone)]
pub struct Cluster {
    shared: Arc<Shared>,
    pub url: String,
}

struct Shared {
    state: Mutex<World>,
}

#[derive(Default)]
pub struct World {
    tasks: Vec<Task>,
    streams: HashMap<String, Vec<(i64, String)>>,
    /// Each call: its operation and its input.
    pub calls: Vec<(String, Value)>,
    /// What is answered next to an operation instead of doing it: a status and a body.
    pub answers: HashMap<String, Vec<(u16, Value)>>,
    /// Operations that are done, and whose answer is lost then.
    pub unheard: Vec<String>,
    /// Tasks of these words go down with their machine as soon as they run.
    doomed: Vec<String>,
    /// What a container does that is given no command.
    pub command: Option<String>,
    /// In the queue.
    pub messages: Vec<String>,
    /// What the definition says of its container.
    pub definition: Option<Value>,
    /// All is forgotten that is asked for.
    pub forgets: bool,
    /// Tasks are described without their tags.
    pub untagged: bool,
    /// New tasks stay where they are.
    pub pending: bool,
    /// A task that is not told of, for a reason that passes.
    pub untold: Option<String>,
    /// Machines beside the first, as ECS describes their instances.
    pub others: Vec<Value>,
    pub machine: Machine,
    port: u16,
}

/// The machine of the cluster.
pub struct Machine {
    /// Grows with each boot.
    pub boot: u32,
    pub agent: bool,
    pub online: bool,
    pub draining: bool,
    pub status: String,
    pub fenced_by: Option<String>,
    pub gpus: Vec<&'static str>,
    pub state: &'static str,
    /// What a command ends with that is no reboot and no question: code, stdout, stderr.
    pub says: (i32, &'static str, &'static str),
    ran: Vec<(i32, String, String)>,
}

pub const MACHINE: &str = "i-0f1";
pub const CONTAINER_INSTANCE: &str = "arn:aws:ecs:us-east-1:123456789012:container-instance/gpus/8f";

impl Default for Machine {
    fn default() -> Self {
        Machine {
            boot: 1,
            agent: true,
            online: true,
            draining: false,
            status: "AVAILABLE".into(),
            fenced_by: None,
            gpus: vec!["GPU-1", "GPU-2"],
            state: "running",
            says: (0, "", ""),
            ran: Vec::new(),
        }
    }
}

impl Machine {
    pub fn boot_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.boot)
    }

    /// Runs the lines of a command, as far as they are known here.
    fn run(&mut self, lines: &[String]) -> usize {
        let text = lines.join("\n");
        let ran = if text.contains("\ncat /proc") {
            (0, format!("{}\n", self.boot_id()), String::new())
        } else if text.contains("systemctl reboot") {
            match text.contains("boot_id)") && !text.contains(&self.boot_id()) {
                true => (75, String::new(), String::new()),
                false => {
                    self.boot += 1;
                    (0, String::new(), String::new())
                }
            }
        } else {
            (self.says.0, self.says.1.to_owned(), self.says.2.to_owned())
        };
        self.ran.push(ran);
        self.ran.len() - 1
    }

    fn instance(&self) -> Value {
        let mut attributes = vec![
            json!({"name": "status", "value": self.status}),
            json!({"name": "ecs.instance-type", "value": "p5.48xlarge"}),
        ];
        attributes.extend(self.fenced_by.as_ref().map(|by| json!({"name": "pitcrew-fenced-by", "value": by})));
        json!({
            "containerInstanceArn": CONTAINER_INSTANCE, "ec2InstanceId": MACHINE, "agentConnected": self.agent,
            "status": if self.draining { "DRAINING" } else { "ACTIVE" }, "version": 7,
            "attributes": attributes,
            "registeredResources": [
                {"name": "CPU", "type": "INTEGER", "integerValue": 4096},
                {"name": "MEMORY", "type": "INTEGER", "integerValue": 1000},
                {"name": "GPU", "type": "STRINGSET", "stringSetValue": self.gpus},
            ],
            "remainingResources": [{"name": "GPU", "type": "STRINGSET", "stringSetValue": []}],
        })
    }

    /// The older protocol: a form, and XML.
    fn ec2(&mut self, action: &str) -> (u16, String) {
        let answer = |inner: String| (200, format!("<{action}Response>{inner}</{action}Response>"));
        match action {
            "DescribeInstances" => answer(format!(
                "<reservationSet><item><instancesSet><item><instanceId>{MACHINE}</instanceId><instanceState>\
                 <name>{}</name></instanceState><launchTime>2026-01-01T00:00:00.000Z</launchTime></item>\
                 </instancesSet></item></reservationSet>",
                self.state
            )),
            "RebootInstances" => {
                self.boot += 1;
                answer("<return>true</return>".to_owned())
            }
            "StopInstances" => {
                self.state = "stopped";
                answer(String::new())
            }
            "StartInstances" => {
                if self.state != "running" {
                    (self.state, self.boot) = ("running", self.boot + 1);
                }
                answer(String::new())
            }
            other => (
                400,
                format!(
                    "<Response><Errors><Error><Code>InvalidAction</Code><Message>{other}</Message></Error></Errors></Response>"
                ),
            ),
        }
    }
}

struct Task {
    arn: String,
    id: String,
    input: Value,
    status: &'static str,
    desired: &'static str,
    stop_code: Option<String>,
    reason: String,
    exit: Option<i32>,
    pid: Option<u32>,
    version: u64,
    at: BTreeMap<&'static str, f64>,
}

#[allow(clippy::disallowed_methods, reason = "tasks run at real times")]
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

impl Cluster {
    pub fn start() -> Cluster {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { state: Mutex::new(World { port, ..World::default() }) });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Cluster { shared, url }
    }

    pub fn state(&self) -> MutexGuard<'_, World> {
        lock(&self.shared.state)
    }

    /// How often an operation was asked for.
    pub fn count(&self, operation: &str) -> usize {
        self.state().calls.iter().filter(|(name, _)| name == operation).count()
    }

    /// The inputs of an operation.
    pub fn inputs(&self, operation: &str) -> Vec<Value> {
        self.state().calls.iter().filter(|(name, _)| name == operation).map(|(_, input)| input.clone()).collect()
    }

    /// Answers the next call of that operation so, after those that were given before.
    pub fn answer(&self, operation: &str, status: u16, body: Value) {
        self.state().answers.entry(operation.to_owned()).or_default().push((status, body));
    }

    /// The machine of the task that was started by this word goes down, now or as soon as it runs.
    pub fn lose(&self, started_by: &str) {
        let mut state = self.state();
        state.doomed.push(started_by.to_owned());
        state.strike();
    }

    /// Somebody stops all tasks, for this reason and with this code.
    pub fn stop_all(&self, code: &str, reason: &str) {
        let mut state = self.state();
        for task in &mut state.tasks {
            if task.status != "STOPPED" {
                (task.stop_code, task.reason) = (Some(code.to_owned()), reason.to_owned());
                task.kill();
            }
        }
    }

    /// Its container has ended, and all that it wrote is there.
    pub fn is_over(&self, arn: &str) -> bool {
        self.state().task(arn).is_some_and(|task| task.status == "STOPPED")
    }

    /// The task that was started by this word is not known any more.
    pub fn forget(&self, started_by: &str) {
        let mut state = self.state();
        state.tasks.iter().filter(|task| task.input["startedBy"] == started_by).for_each(Task::kill);
        state.tasks.iter_mut().filter(|task| task.input["startedBy"] == started_by).for_each(|task| {
            (task.desired, task.input["startedBy"]) = ("STOPPED", json!("nobody"));
        });
    }

    /// What is pending runs now.
    pub fn run_pending(&self) {
        let ids: Vec<String> = {
            let mut state = self.state();
            state.pending = false;
            state.tasks.iter().filter(|task| task.status == "PENDING").map(|task| task.id.clone()).collect()
        };
        ids.iter().for_each(|id| run(&self.shared, id));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        lock(&self.state).tasks.iter().for_each(Task::kill);
    }
}

impl Task {
    fn new(id: String, input: Value) -> Task {
        let mut task = Task {
            arn: Task::arn_of(&id),
            id,
            input,
            status: "PENDING",
            desired: "RUNNING",
            stop_code: None,
            reason: String::new(),
            exit: None,
            pid: None,
            version: 1,
            at: BTreeMap::new(),
        };
        task.change("PENDING", "createdAt");
        task
    }

    fn arn_of(id: &str) -> String {
        format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task/gpus/{id}")
    }

    /// Kills every process of it, also those that begin meanwhile: each has its id in the environment.
    fn kill(&self) {
        let word = format!("TEST_TASK={}\0", self.id);
        // One that was started just now does not show its environment yet.
        if let Some(pid) = self.pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        let mut some = true;
        while std::mem::take(&mut some) {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
                if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw)
                    && environ.windows(word.len()).any(|part| part == word.as_bytes())
                {
                    some = true;
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
    }

    fn json(&self) -> Value {
        let definition = self.input["taskDefinition"].as_str().unwrap();
        let mut task = json!({
            "taskArn": self.arn, "clusterArn": format!("arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/gpus"),
            "taskDefinitionArn": definition_arn(definition), "lastStatus": self.status, "desiredStatus": self.desired,
            "startedBy": self.input["startedBy"], "stoppedReason": self.reason, "version": self.version,
            "containers": [
                {"name": "sidecar", "lastStatus": self.status, "exitCode": 0},
                {"name": "train", "lastStatus": self.status, "exitCode": self.exit, "gpuIds": ["GPU-1"]},
            ],
            "tags": self.input["tags"],
        });
        if let Some(code) = &self.stop_code {
            task["stopCode"] = json!(code);
        }
        for (name, at) in &self.at {
            task[*name] = json!(at);
        }
        task
    }

    fn change(&mut self, status: &'static str, time: &'static str) {
        self.status = status;
        self.version += 1;
        self.at.insert(time, now_ms() as f64 / 1000.0);
    }
}

impl World {
    fn task(&mut self, arn: &str) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.arn == arn)
    }

    fn instances(&self) -> Vec<Value> {
        std::iter::once(self.machine.instance()).chain(self.others.clone()).collect()
    }

    fn strike(&mut self) {
        let doomed = self.doomed.clone();
        for task in self.tasks.iter_mut().filter(|task| task.status == "RUNNING") {
            if doomed.iter().any(|word| task.input["startedBy"] == word.as_str()) {
                task.stop_code = Some("TerminationNotice".to_owned());
                task.reason = "Host EC2 (instance i-0f1) terminated.".to_owned();
                task.kill();
            }
        }
    }

    fn definition(&self) -> Value {
        self.definition.clone().unwrap_or_else(|| {
            let log =
                json!({"logDriver": "awslogs", "options": {"awslogs-group": "/ecs", "awslogs-stream-prefix": "p"}});
            let sidecar = json!({"name": "sidecar", "essential": false});
            json!({"taskDefinition": {
                "taskDefinitionArn": definition_arn("train:3"), "family": "train", "revision": 3, "status": "ACTIVE",
                "containerDefinitions": [sidecar, {"name": "train", "image": "t", "logConfiguration": log}],
            }})
        })
    }
}

fn definition_arn(name: &str) -> String {
    match name.starts_with("arn:") {
        true => name.to_owned(),
        false => format!("arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/{name}"),
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> (StatusCode, String) {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = target.rsplit_once('.').map_or("", |(_, name)| name).to_owned();
    if operation.is_empty() {
        let form = String::from_utf8_lossy(&body).into_owned();
        let action = form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or_default().to_owned();
        let mut state = lock(&shared.state);
        state.calls.push((action.clone(), json!(form)));
        let (status, text) = state.machine.ec2(&action);
        return (StatusCode::from_u16(status).unwrap(), text);
    }
    let input: Value = serde_json::from_slice(&body).unwrap();
    let (status, body) = tokio::task::spawn_blocking(move || act(&shared, &operation, &input)).await.unwrap();
    (StatusCode::from_u16(status).unwrap(), body.to_string())
}

fn act(shared: &Arc<Shared>, operation: &str, input: &Value) -> (u16, Value) {
    let mut state = lock(&shared.state);
    state.calls.push((operation.to_owned(), input.clone()));
    if let Some(given) = state.answers.get_mut(operation).filter(|given| !given.is_empty()) {
        return given.remove(0);
    }
    let is_heard = match state.unheard.iter().position(|name| name == operation) {
        Some(at) => {
            state.unheard.remove(at);
            false
        }
        None => true,
    };
    let (status, body, begin) = done(&mut state, operation, input);
    let stays = state.pending;
    drop(state);
    if let Some(id) = begin.filter(|_| !stays) {
        run(shared, &id);
    }
    match is_heard {
        true => (status, body),
        false => (503, json!({"__type": "ServiceUnavailableException", "message": "lost"})),
    }
}

fn done(state: &mut World, operation: &str, input: &Value) -> (u16, Value, Option<String>) {
    let ok = |body: Value| (200, body, None);
    match operation {
        "GetQueueUrl" => ok(json!({"QueueUrl": "http://queue"})),
        "ReceiveMessage" => {
            let all = std::mem::take(&mut state.messages);
            let all = all.iter().map(|body| json!({"MessageId": "m", "Body": body, "ReceiptHandle": "r"}));
            ok(json!({"Messages": all.collect::<Vec<_>>()}))
        }
        "DeleteMessageBatch" => ok(json!({"Successful": []})),
        "ListContainerInstances" => {
            let arns: Vec<Value> =
                state.instances().into_iter().map(|instance| instance["containerInstanceArn"].clone()).collect();
            ok(json!({"containerInstanceArns": arns}))
        }
        "DescribeContainerInstances" => {
            let asked = input["containerInstances"].as_array().unwrap();
            let is_asked = |instance: &Value| asked.contains(&instance["containerInstanceArn"]);
            let found: Vec<Value> = state.instances().into_iter().filter(is_asked).collect();
            ok(json!({"containerInstances": found, "failures": []}))
        }
        "UpdateContainerInstancesState" => {
            state.machine.draining = input["status"] == "DRAINING";
            ok(json!({"containerInstances": [state.machine.instance()], "failures": []}))
        }
        "PutAttributes" => {
            for attribute in input["attributes"].as_array().unwrap() {
                assert_eq!(attribute["targetId"], json!("8f"));
                let value = attribute["value"].as_str().unwrap().to_owned();
                match attribute["name"].as_str().unwrap() {
                    "status" => state.machine.status = value,
                    "pitcrew-fenced-by" => state.machine.fenced_by = Some(value),
                    other => panic!("{other} is written"),
                }
            }
            ok(json!({}))
        }
        "DescribeInstanceInformation" => {
            let status = if state.machine.online { "Online" } else { "ConnectionLost" };
            ok(json!({"InstanceInformationList": [{"InstanceId": MACHINE, "PingStatus": status}]}))
        }
        "SendCommand" => {
            assert_eq!(input["DocumentName"], "AWS-RunShellScript");
            let lines: Vec<String> = serde_json::from_value(input["Parameters"]["commands"].clone()).unwrap();
            let number = state.machine.run(&lines);
            ok(json!({"Command": {"CommandId": number.to_string()}}))
        }
        "GetCommandInvocation" => {
            let (code, out, err) = &state.machine.ran[input["CommandId"].as_str().unwrap().parse::<usize>().unwrap()];
            let status = if *code == 0 { "Success" } else { "Failed" };
            ok(
                json!({"Status": status, "ResponseCode": code, "StandardOutputContent": out, "StandardErrorContent": err}),
            )
        }
        "StartTask" => {
            let id = format!("{:08x}{:08x}{:016x}", std::process::id(), state.port, state.tasks.len() + 1);
            let task = Task::new(id.clone(), input.clone());
            let body = json!({"tasks": [task.json()], "failures": []});
            state.tasks.push(task);
            (200, body, Some(id))
        }
        "RunTask" => {
            if let Some(known) = state.tasks.iter().find(|task| task.input["clientToken"] == input["clientToken"]) {
                if known.input != *input {
                    return (400, json!({"__type": "ConflictException", "message": "other words"}), None);
                }
                return ok(json!({"tasks": [known.json()], "failures": []}));
            }
            // Processes are found by it, also beside those of other tests.
            let id = format!("{:08x}{:08x}{:016x}", std::process::id(), state.port, state.tasks.len() + 1);
            let task = Task::new(id.clone(), input.clone());
            let body = json!({"tasks": [task.json()], "failures": []});
            state.tasks.push(task);
            (200, body, Some(id))
        }
        "DescribeTasks" => {
            assert!(input["tasks"].as_array().unwrap().len() <= 100);
            let (mut tasks, mut failures) = (Vec::new(), Vec::new());
            let (forgets, untagged) = (state.forgets, state.untagged);
            let untold = state.untold.clone();
            for arn in input["tasks"].as_array().unwrap() {
                if untold.as_deref() == arn.as_str() {
                    failures.push(json!({"arn": arn, "reason": "INTERNAL"}));
                    continue;
                }
                match state.task(arn.as_str().unwrap()).filter(|_| !forgets) {
                    Some(task) => {
                        let mut told = task.json();
                        if untagged {
                            told["tags"] = json!([]);
                        }
                        tasks.push(told);
                    }
                    None => failures.push(json!({"arn": arn, "reason": "MISSING"})),
                }
            }
            ok(json!({"tasks": tasks, "failures": failures}))
        }
        "ListTasks" => {
            let fits = |task: &&Task| match input["startedBy"].as_str() {
                // As ECS has it: only tasks that are to run.
                Some(word) => task.input["startedBy"] == word && task.desired == "RUNNING",
                None => {
                    assert_eq!(input["family"], "train");
                    task.desired == input["desiredStatus"].as_str().unwrap_or("RUNNING")
                }
            };
            let arns: Vec<_> = state.tasks.iter().filter(fits).map(|task| task.arn.clone()).collect();
            ok(json!({"taskArns": arns}))
        }
        "StopTask" => {
            let Some(task) = state.task(input["task"].as_str().unwrap()) else {
                return (
                    400,
                    json!({"__type": "InvalidParameterException", "message": "The referenced task was not found."}),
                    None,
                );
            };
            if task.desired != "STOPPED" {
                task.desired = "STOPPED";
                task.stop_code = Some("UserInitiated".to_owned());
                task.reason = input["reason"].as_str().unwrap().to_owned();
                match task.pid.and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
                    Some(pid) => drop(rustix::process::kill_process(pid, rustix::process::Signal::TERM)),
                    None => task.change("STOPPED", "stoppedAt"),
                }
            }
            ok(json!({"task": task.json()}))
        }
        "DescribeTaskDefinition" => ok(state.definition()),
        "GetLogEvents" => {
            let name = input["logStreamName"].as_str().unwrap();
            let Some(events) = state.streams.get(name) else {
                return (400, json!({"__type": "ResourceNotFoundException", "message": "no such stream"}), None);
            };
            let from = match (input["nextToken"].as_str(), input["startTime"].as_i64()) {
                (Some(token), _) => token.parse::<usize>().unwrap(),
                (None, Some(since)) => events.iter().position(|(at, _)| *at >= since).unwrap_or(events.len()),
                (None, None) => 0,
            };
            let some: Vec<_> = events[from..].iter().take(30).collect();
            let next = (from + some.len()).to_string();
            let some: Vec<_> = some.iter().map(|(at, text)| json!({"timestamp": at, "message": text})).collect();
            ok(json!({"events": some, "nextForwardToken": next}))
        }
        other => (400, json!({"__type": "UnknownOperationException", "message": other}), None),
    }
}

/// Runs the container of a task: its command is a process, what it writes are events.
fn run(shared: &Arc<Shared>, id: &str) {
    let mut state = lock(&shared.state);
    let own = state.command.clone();
    let Some(task) = state.tasks.iter_mut().find(|task| task.id == id) else { return };
    if task.desired == "STOPPED" {
        return;
    }
    let container = &task.input["overrides"]["containerOverrides"][0];
    assert_eq!(container["name"], "train");
    let words = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap_or_default() };
    let mut command = words(&container["command"]);
    if command.is_empty() {
        // The command of the definition.
        let own = own.unwrap_or_else(|| "echo attempt $ATTEMPT from $RESUME_FROM".to_owned());
        command = vec!["/bin/sh".to_owned(), "-c".to_owned(), own];
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let mut process = std::process::Command::new(&command[0]);
    process.args(&command[1..]).env_clear().env("PATH", std::env::var("PATH").unwrap()).env("TEST_TASK", id);
    for pair in container["environment"].as_array().into_iter().flatten() {
        process.env(pair["name"].as_str().unwrap(), pair["value"].as_str().unwrap());
    }
    process.stdin(std::process::Stdio::null()).stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut child = process.process_group(0).spawn().unwrap();
    drop(process);
    task.pid = Some(child.id());
    task.change("RUNNING", "startedAt");
    let stream = format!("p/train/{id}");
    state.strike();
    drop(state);
    let weak = Arc::downgrade(shared);
    let id = id.to_owned();
    std::thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let Some(shared) = weak.upgrade() else { break };
            let line = String::from_utf8_lossy(&line).into_owned();
            lock(&shared.state).streams.entry(stream.clone()).or_default().push((now_ms(), line));
        }
        let status = child.wait().unwrap();
        let Some(shared) = weak.upgrade() else { return };
        let mut state = lock(&shared.state);
        let task = state.tasks.iter_mut().find(|task| task.id == id).unwrap();
        task.exit = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        task.pid = None;
        task.desired = "STOPPED";
        if task.stop_code.is_none() {
            task.stop_code = Some("EssentialContainerExited".to_owned());
            task.reason = "Essential container in task exited".to_owned();
        }
        task.change("STOPPED", "stoppedAt");
    });
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

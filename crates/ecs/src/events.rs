//! Events of EventBridge, by way of a queue of SQS: tasks, instances and machines that changed.
//!
//! An event only wakes whoever asks AWS. It comes late, twice, in any order, or not at all, and nothing is decided by
//! what it says.
//!
//! Invariant: a message is deleted once it was taken (a warning that a machine goes: once that is written), or is of no use to us. One that cannot be read is left: the queue
//! hands it out again and, by its redrive policy, puts it aside as a dead letter; the others go on meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::arn::is_same_cluster;
use crate::client::ecs::{Instance, Task};
use crate::client::{Client, Fault, MachineState, Message};
use crate::moment;

/// Things whose last version is remembered.
const REMEMBERED: usize = 20_000;
/// How long a question waits for a first message.
const WAIT: Duration = Duration::from_secs(20);
/// After the queue could not be asked: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Task(Box<Task>),
    Instance(Box<Instance>),
    Machine {
        id: String,
        state: MachineState,
    },
    /// A machine of the spot market will be taken away, usually in two minutes: `terminate`, `stop` or `hibernate`.
    Interruption {
        id: String,
        action: String,
    },
    /// Something that is nothing to us.
    Other {
        kind: String,
    },
}

/// An event with what stands around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    pub id: String,
    pub region: String,
    pub account: String,
    pub at: Option<Timestamp>,
    pub event: Event,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    id: String,
    #[serde(rename = "detail-type")]
    kind: String,
    source: String,
    account: String,
    region: String,
    #[serde(deserialize_with = "moment::optional")]
    time: Option<Timestamp>,
    detail: Value,
}

/// Reads the body of a message; the error is a sentence for people.
pub fn parse(body: &str) -> Result<Envelope, String> {
    let document: Value = serde_json::from_str(body).map_err(|error| format!("it is no JSON: {error}"))?;
    // A topic wraps what it passes on.
    if document["Type"] == "Notification"
        && let Some(inner) = document["Message"].as_str()
    {
        return parse(inner);
    }
    let raw: Raw = serde_json::from_value(document).map_err(|error| format!("it is no event: {error}"))?;
    if raw.id.is_empty() || raw.kind.is_empty() {
        return Err("it is no event of EventBridge: it has no `id` and `detail-type`".to_owned());
    }
    let text = |name: &str| raw.detail[name].as_str().unwrap_or_default().to_owned();
    let machine = || match text("instance-id") {
        id if id.is_empty() => Err(format!("the event `{}` names no `instance-id`", raw.kind)),
        id => Ok(id),
    };
    let wrong = |error: serde_json::Error| format!("the event `{}` cannot be read: {error}", raw.kind);
    let event = match (raw.source.as_str(), raw.kind.as_str()) {
        ("aws.ecs", "ECS Task State Change") => {
            let task: Task = serde_json::from_value(raw.detail.clone()).map_err(wrong)?;
            if task.task_arn.is_empty() {
                return Err("the event of a task names no `taskArn`".to_owned());
            }
            Event::Task(Box::new(task))
        }
        ("aws.ecs", "ECS Container Instance State Change") => {
            let instance: Instance = serde_json::from_value(raw.detail.clone()).map_err(wrong)?;
            if instance.container_instance_arn.is_empty() {
                return Err("the event of an instance names no `containerInstanceArn`".to_owned());
            }
            Event::Instance(Box::new(instance))
        }
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            Event::Machine { id: machine()?, state: MachineState::read(&text("state")) }
        }
        ("aws.ec2", "EC2 Spot Instance Interruption Warning") => {
            Event::Interruption { id: machine()?, action: text("instance-action") }
        }
        (_, kind) => Event::Other { kind: kind.to_owned() },
    };
    Ok(Envelope { id: raw.id, region: raw.region, account: raw.account, at: raw.time, event })
}

/// Why somebody is to be looked at now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// A task, by its ARN, and the container instance that it runs on.
    Task { arn: String, instance: Option<String> },
    /// A container instance, by its ARN, and its machine.
    Instance { arn: String, machine: String },
    /// A machine, by the id that EC2 gave it.
    Machine { id: String },
    /// A machine that will be taken away.
    Interruption { id: String, action: String },
}

/// Whether somebody has heard of it, so that its message is deleted.
#[derive(Debug)]
pub enum Word {
    Heard,
    /// It comes again.
    Nobody,
    /// As soon as this says so; it comes again if that never does.
    Awaited(oneshot::Receiver<()>),
}

impl From<bool> for Word {
    fn from(heard: bool) -> Word {
        if heard { Word::Heard } else { Word::Nobody }
    }
}

/// That a machine will be taken away. Nobody tells that again, so whoever takes it says when it is safe.
#[derive(Debug)]
pub struct Warning {
    pub id: String,
    pub action: String,
    pub heard: Instant,
    /// To be told once it is written down; dropped, it comes again.
    pub taken: oneshot::Sender<()>,
}

/// The last version of each thing that was heard of.
#[derive(Debug, Default)]
pub struct Versions(HashMap<String, u64>);

impl Versions {
    /// Whether that version is news. What has no version always is.
    pub fn is_news(&mut self, arn: &str, version: u64) -> bool {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(arn) {
            // What was forgotten is at worst looked at once more.
            self.0.clear();
        }
        let known = self.0.entry(arn.to_owned()).or_insert(0);
        let is_news = version == 0 || version > *known;
        *known = version.max(*known);
        is_news
    }
}

/// What became of some messages.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    /// Each with its message, which is to be deleted once somebody has heard of it.
    pub wakes: Vec<(Wake, Message)>,
    /// To be deleted.
    pub done: Vec<Message>,
    /// To be left, with what is wrong with each.
    pub unreadable: Vec<(Message, String)>,
    /// How many told of what was known.
    pub stale: usize,
}

/// Takes messages; only of these clusters (names or ARNs), unless there are none.
pub fn take(messages: Vec<Message>, clusters: &[String], versions: &mut Versions) -> Taken {
    let mut taken = Taken::default();
    let is_ours = |arn: &str| clusters.is_empty() || clusters.iter().any(|cluster| is_same_cluster(cluster, arn));
    for message in messages {
        let envelope = match parse(&message.body) {
            Ok(envelope) => envelope,
            Err(why) => {
                taken.unreadable.push((message, why));
                continue;
            }
        };
        let wake = match envelope.event {
            Event::Task(task) if is_ours(&task.cluster_arn) => {
                let is_news = versions.is_news(&task.task_arn, task.version);
                taken.stale += usize::from(!is_news);
                is_news.then_some(Wake::Task { arn: task.task_arn, instance: task.container_instance_arn })
            }
            Event::Instance(instance) if is_ours(&instance.cluster_arn) => {
                let is_news = versions.is_news(&instance.container_instance_arn, instance.version);
                taken.stale += usize::from(!is_news);
                let (arn, machine) = (instance.container_instance_arn, instance.ec2_instance_id);
                is_news.then_some(Wake::Instance { arn, machine })
            }
            Event::Machine { id, .. } => Some(Wake::Machine { id }),
            Event::Interruption { id, action } => Some(Wake::Interruption { id, action }),
            Event::Task(_) | Event::Instance(_) | Event::Other { .. } => None,
        };
        match wake {
            Some(wake) => taken.wakes.push((wake, message)),
            None => taken.done.push(message),
        }
    }
    taken
}

/// Figures of a queue that is listened to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heard {
    pub messages: u64,
    pub wakes: u64,
    pub stale: u64,
    pub unreadable: u64,
}

/// Listens to one queue.
pub struct Listener {
    client: Client,
    queue: String,
    clusters: Vec<String>,
    versions: Versions,
    /// What was complained about, by the id of its message, so that it is said once.
    told: BTreeMap<String, ()>,
    pub heard: Heard,
}

impl Listener {
    /// Of a queue, by its name or URL; of events of these clusters only, unless there are none.
    pub fn new(client: Client, queue: &str, clusters: Vec<String>) -> Listener {
        let versions = Versions::default();
        Listener { client, queue: queue.to_owned(), clusters, versions, told: BTreeMap::new(), heard: Heard::default() }
    }

    /// Waits for messages once, at most `wait`, and tells whom to look at. They are deleted after `wake` has returned, or when
    /// what it gave back says so, which holds up nothing else; those of which it says that nobody has heard come again.
    pub async fn once<W: Into<Word>>(
        &mut self,
        wait: Duration,
        mut wake: impl FnMut(Wake) -> W,
    ) -> Result<Heard, Fault> {
        let url = self.client.queue_url(&self.queue).await?;
        let messages = self.client.receive(&url, wait).await?;
        let before = self.heard;
        self.heard.messages += messages.len() as u64;
        let taken = take(messages, &self.clusters, &mut self.versions);
        self.heard.stale += taken.stale as u64;
        self.heard.wakes += taken.wakes.len() as u64;
        self.heard.unreadable += taken.unreadable.len() as u64;
        let mut done = taken.done;
        for (told, message) in taken.wakes {
            match wake(told).into() {
                Word::Heard => done.push(message),
                Word::Nobody => {}
                Word::Awaited(taken) => {
                    drop(tokio::spawn(delete_once(taken, self.client.clone(), url.clone(), message)))
                }
            }
        }
        for (message, why) in taken.unreadable {
            if self.told.len() >= 1000 {
                self.told.clear();
            }
            if self.told.insert(message.id.clone(), ()).is_none() {
                tracing::warn!(queue = %self.queue, message = %message.id, "a message is left in the queue: {why}");
            }
        }
        self.client.delete(&url, &done).await?;
        let (now, was) = (self.heard, before);
        Ok(Heard {
            messages: now.messages - was.messages,
            wakes: now.wakes - was.wakes,
            stale: now.stale - was.stale,
            unreadable: now.unreadable - was.unreadable,
        })
    }

    /// Listens until it is dropped. While the queue cannot be asked, polling goes on without it.
    pub async fn run<W: Into<Word>>(mut self, mut wake: impl FnMut(Wake) -> W) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.once(WAIT, &mut wake).await {
                Ok(_) => pause = FIRST_PAUSE,
                Err(fault) => {
                    tracing::warn!(queue = %self.queue, "cannot listen to events of ECS: {fault}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// One that is not deleted is told once more, and known.
async fn delete_once(taken: oneshot::Receiver<()>, client: Client, url: String, message: Message) {
    if taken.await.is_ok()
        && let Err(fault) = client.delete(&url, &[message]).await
    {
        tracing::warn!("a warning that was taken could not be deleted from the queue, and comes again: {fault}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(id: &str, body: &Value) -> Message {
        Message { id: id.into(), body: body.to_string(), receipt: format!("r-{id}"), received: 1 }
    }

    fn event(kind: &str, source: &str, detail: Value) -> Value {
        json!({"version": "0", "id": "3317b2af", "detail-type": kind, "source": source, "account": "1",
               "time": "2025-03-20T06:21:11Z", "region": "us-west-2", "resources": [], "detail": detail})
    }

    fn task(id: &str, cluster: &str, version: u64) -> Value {
        let arn = |kind: &str, rest: &str| format!("arn:aws:ecs:us-west-2:1:{kind}/{rest}");
        event(
            "ECS Task State Change",
            "aws.ecs",
            json!({
                "clusterArn": arn("cluster", cluster), "taskArn": arn("task", &format!("{cluster}/{id}")),
                "containerInstanceArn": arn("container-instance", &format!("{cluster}/8f")),
                "taskDefinitionArn": arn("task-definition", "llm:11"), "lastStatus": "STOPPED", "desiredStatus": "STOPPED",
                "stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited",
                "containers": [{"name": "train", "lastStatus": "STOPPED", "exitCode": 1, "gpuIds": ["GPU-1"]}],
                "startedAt": "2025-03-20T05:21:11.123Z", "version": version,
            }),
        )
    }

    #[test]
    fn the_shapes_of_all_events_are_read() {
        let Event::Task(read) = parse(&task("9e", "train", 4).to_string()).unwrap().event else { panic!() };
        assert_eq!((read.version, read.containers[0].exit_code, read.containers[0].gpu_ids.len()), (4, Some(1), 1));
        assert_eq!(read.started_at.unwrap().to_string(), "2025-03-20T05:21:11.123Z");
        assert!(read.tags.is_empty(), "events carry no tags");
        let instance = event(
            "ECS Container Instance State Change",
            "aws.ecs",
            json!({
                "agentConnected": true, "attributes": [{"name": "status", "value": "AVAILABLE"}],
                "containerInstanceArn": "arn:aws:ecs:us-west-2:1:container-instance/train/8f", "ec2InstanceId": "i-0f",
                "registeredResources": [{"name": "GPU", "type": "STRINGSET", "stringSetValue": ["GPU-1", "GPU-2"]}],
                "status": "ACTIVE", "version": 14801, "versionInfo": {"agentVersion": "1.91.0"},
            }),
        );
        let wrapped = json!({"Type": "Notification", "MessageId": "m", "Message": instance.to_string()});
        let envelope = parse(&wrapped.to_string()).unwrap();
        let Event::Instance(read) = envelope.event else { panic!() };
        assert_eq!((read.gpus().len(), read.agent_connected, read.attribute("status")), (2, true, Some("AVAILABLE")));
        assert_eq!(
            (envelope.at.unwrap().to_string().as_str(), envelope.region.as_str()),
            ("2025-03-20T06:21:11Z", "us-west-2")
        );
        let of = |kind: &str, detail: Value| parse(&event(kind, "aws.ec2", detail).to_string()).unwrap().event;
        let state =
            of("EC2 Instance State-change Notification", json!({"instance-id": "i-1", "state": "shutting-down"}));
        assert_eq!(state, Event::Machine { id: "i-1".into(), state: MachineState::ShuttingDown });
        let spot = json!({"instance-id": "i-1", "instance-action": "terminate"});
        assert!(matches!(of("EC2 Spot Instance Interruption Warning", spot), Event::Interruption { .. }));
        assert!(matches!(of("EBS Volume Notification", json!({})), Event::Other { .. }));
        for broken in ["", "{", "[]", "7", "{\"id\": \"x\"}"] {
            assert!(parse(broken).is_err(), "{broken}");
        }
        let nobody = event("EC2 Instance State-change Notification", "aws.ec2", json!({"state": "running"}));
        assert!(parse(&nobody.to_string()).unwrap_err().contains("names no `instance-id`"));
    }

    /// Delivery is at least once and in any order; (ARN, version) tells what is news.
    #[test]
    fn doubled_and_late_events_wake_nobody() {
        let mut versions = Versions::default();
        let mut wakes = |messages: Vec<Message>| {
            let taken = take(messages, &["train".to_owned()], &mut versions);
            (taken.wakes.len(), taken.done.len() + taken.wakes.len(), taken.stale)
        };
        assert_eq!(wakes(vec![message("a", &task("9e", "train", 4))]), (1, 1, 0));
        assert_eq!(
            wakes(vec![message("a", &task("9e", "train", 4)), message("b", &task("9e", "train", 3))]),
            (0, 2, 2)
        );
        assert_eq!(
            wakes(vec![message("c", &task("9e", "train", 5)), message("d", &task("9f", "train", 1))]),
            (2, 2, 0)
        );
        // Weakness 21: a cluster that begins like ours is not ours; its events are of no use, and are deleted.
        assert_eq!(wakes(vec![message("e", &task("9e", "train-2", 9))]), (0, 1, 0));
    }

    #[test]
    fn one_that_cannot_be_read_is_left_and_holds_up_nobody() {
        let poison = Message { body: "{".into(), ..message("p", &Value::Null) };
        let taken = take(vec![poison.clone(), message("a", &task("9e", "train", 4))], &[], &mut Versions::default());
        assert_eq!((taken.wakes.len(), taken.done.len()), (1, 0));
        assert_eq!(taken.unreadable[0].0, poison);
    }
}

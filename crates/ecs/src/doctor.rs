//! Looks over what Pitcrew needs on AWS: who it is, what it may do, what hears of events, and whether the machines can
//! be reached. It changes nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::arn::Family;
use crate::client::ecs::{InstanceState, Listed};
use crate::client::{Client, Kind, Rule};
use crate::tables::{Table, Tables};

/// Machines that are asked for one by one.
const FEW: usize = 20;

/// What is looked at. What is not named is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    pub cluster: String,
    /// The queue of events, by its name or URL.
    pub queue: Option<String>,
    /// The task definition that checks machines.
    pub check: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Good,
    /// It works without, but not as well.
    Warning,
    Bad,
}

impl Grade {
    pub fn word(self) -> &'static str {
        match self {
            Grade::Good => "good",
            Grade::Warning => "warn",
            Grade::Bad => "bad",
        }
    }
}

/// One thing that was looked at, in a sentence with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub grade: Grade,
    pub words: String,
}

/// Everything, in the order in which it is worth mending.
pub async fn examine(client: &Client, subject: &Subject) -> Vec<Finding> {
    let mut found = Findings::default();
    match client.identity().await {
        Ok(who) => found.good(format!("AWS knows us as `{who}` in {}", client.region())),
        Err(fault) => {
            found.bad(fault.to_string());
            return found.0;
        }
    }
    cluster(client, subject, &mut found).await;
    if let Some(queue) = &subject.queue {
        events(client, queue, &mut found).await;
    }
    if let Some(check) = &subject.check {
        checks(client, check, &mut found).await;
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn good(&mut self, words: String) {
        self.0.push(Finding { grade: Grade::Good, words });
    }

    fn warn(&mut self, words: String) {
        self.0.push(Finding { grade: Grade::Warning, words });
    }

    fn bad(&mut self, words: String) {
        self.0.push(Finding { grade: Grade::Bad, words });
    }
}

/// The tables that are written for whoever reads them: that they are there, may be read, and have rows of the kind.
pub async fn examine_tables(client: &Client, tables: &Tables) -> Vec<Finding> {
    let mut found = Findings::default();
    for table in Table::ALL {
        let (name, key) = (tables.of(table), table.key());
        match client.scan(name, 1).await {
            Ok(scanned) => match scanned.items.first() {
                Some(row) if !row.contains_key(key) => {
                    found.bad(format!(
                        "rows of the table `{name}` have no `{key}`: `{}` names another",
                        table.variable()
                    ));
                }
                Some(_) => found.good(format!("the table `{name}` can be read")),
                None => found.good(format!("the table `{name}` can be read, and is empty")),
            },
            Err(fault) => found.bad(format!("the table `{name}` cannot be read: {fault}")),
        }
    }
    found.0
}

async fn cluster(client: &Client, subject: &Subject, found: &mut Findings) {
    let name = &subject.cluster;
    match client.cluster(name).await {
        Ok(Some(cluster)) if cluster.status == "ACTIVE" => {}
        Ok(Some(cluster)) => return found.bad(format!("the cluster `{name}` is {}", cluster.status)),
        Ok(None) => return found.bad(format!("there is no cluster `{name}` in {}", client.region())),
        Err(fault) => return found.bad(fault.to_string()),
    }
    match client.list_tasks(name, Listed::StartedBy("pitcrew-doctor")).await {
        Ok(_) => found.good(format!("tasks of the cluster `{name}` can be listed")),
        Err(fault) => found.bad(fault.to_string()),
    }
    let instances = match client.list_instances(name, None).await {
        Ok(arns) => client.instances(name, &arns).await,
        Err(fault) => Err(fault),
    };
    let instances = match instances {
        Ok(instances) => instances,
        Err(fault) => return found.bad(fault.to_string()),
    };
    if instances.is_empty() {
        return found.warn(format!("the cluster `{name}` has no container instance: only Fargate can run tasks there"));
    }
    let gpus: usize = instances.iter().map(|instance| instance.gpus().len()).sum();
    found.good(format!("{} container instances with {gpus} GPUs", instances.len()));
    for instance in &instances {
        let id = &instance.ec2_instance_id;
        if !instance.agent_connected {
            found.bad(format!("`{id}`: the agent of ECS is not connected; look at `systemctl status ecs` there"));
        } else if instance.status != InstanceState::Active {
            found.warn(format!("`{id}`: takes no new tasks ({:?})", instance.status));
        }
    }
    let mut unknown = None;
    for instance in instances.iter().take(FEW) {
        let id = &instance.ec2_instance_id;
        match client.is_online(id).await {
            Ok(Some(true)) => found.good(format!("`{id}`: SSM reaches it")),
            Ok(Some(false)) => found.bad(format!("`{id}`: SSM has lost its agent; without it only EC2 can reboot it")),
            Ok(None) => found.bad(format!(
                "`{id}`: SSM does not know it; give its role `AmazonSSMManagedInstanceCore`, and a way to SSM"
            )),
            Err(fault) => unknown = Some(fault),
        }
    }
    if let Some(fault) = unknown {
        found.warn(format!("whether SSM reaches the machines is not known: {fault}"));
    }
    let Some(machine) = instances.iter().map(|instance| &instance.ec2_instance_id).find(|id| id.starts_with("i-"))
    else {
        return;
    };
    for operation in ["RebootInstances", "StopInstances", "StartInstances"] {
        match client.may(operation, machine).await {
            Ok(()) => found.good(format!("`{operation}` is allowed for `{machine}`")),
            Err(fault) if fault.kind == Kind::Denied => {
                found.bad(format!("{fault}; or tag `{machine}` as the template says, so that its role may repair it"))
            }
            Err(fault) => found.warn(fault.to_string()),
        }
    }
}

async fn events(client: &Client, queue: &str, found: &mut Findings) {
    let read = async {
        let url = client.queue_url(queue).await?;
        client.queue_attributes(&url).await
    };
    let attributes = match read.await {
        Ok(attributes) => attributes,
        Err(fault) => return found.bad(fault.to_string()),
    };
    let text = |name: &str| attributes.get(name).and_then(Value::as_str).unwrap_or_default();
    let redrive: Value = serde_json::from_str(text("RedrivePolicy")).unwrap_or_default();
    match redrive["deadLetterTargetArn"].as_str() {
        Some(dead) => {
            found.good(format!("the queue `{queue}` puts aside what cannot be read"));
            let name = dead.rsplit(':').next().unwrap_or(dead);
            let waiting = async {
                let url = client.queue_url(name).await?;
                client.queue_attributes(&url).await
            };
            let waiting =
                waiting.await.ok().and_then(|all| all.get("ApproximateNumberOfMessages")?.as_str()?.parse().ok());
            if let Some(count @ 1..) = waiting {
                let count: u64 = count;
                found.warn(format!("{count} messages lie in the dead-letter queue `{name}`"));
            }
        }
        None => found.bad(format!(
            "the queue `{queue}` has no dead-letter queue: what cannot be read comes again until it is too old"
        )),
    }
    let rules = match client.rules_to(text("QueueArn")).await {
        Ok(rules) => rules,
        Err(fault) => return found.warn(format!("which rules lead to `{queue}` is not known: {fault}")),
    };
    let wanted: BTreeMap<&str, bool> = BTreeMap::from([
        ("ECS Task State Change", true),
        ("ECS Container Instance State Change", true),
        ("EC2 Instance State-change Notification", false),
        ("EC2 Spot Instance Interruption Warning", false),
    ]);
    for (kind, is_needed) in wanted {
        let of = rules.iter().find(|rule| kinds(rule).iter().any(|known| known == kind));
        match of {
            Some(rule) if rule.state == "DISABLED" => {
                found.bad(format!("the rule `{}` for `{kind}` is disabled", rule.name));
            }
            Some(_) => found.good(format!("events of `{kind}` come to `{queue}`")),
            None if is_needed => found.bad(format!(
                "no rule brings `{kind}` to `{queue}`: changes are seen by polling only; `pitcrew aws template` has it"
            )),
            None => found.warn(format!("no rule brings `{kind}` to `{queue}`")),
        }
    }
}

fn kinds(rule: &Rule) -> Vec<String> {
    let pattern: Value = serde_json::from_str(&rule.event_pattern).unwrap_or_default();
    let list = pattern["detail-type"].as_array().cloned().unwrap_or_default();
    list.iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect()
}

async fn checks(client: &Client, check: &str, found: &mut Findings) {
    let definition = match client.definition(check).await {
        Ok(definition) => definition,
        Err(fault) => return found.bad(fault.to_string()),
    };
    let is_meant = match (check.parse::<Family>(), definition.task_definition_arn.parse::<Family>()) {
        (Ok(wanted), Ok(given)) => wanted.has(&given),
        _ => false,
    };
    if !is_meant {
        return found.bad(format!("asked for `{check}`, ECS gave `{}`", definition.task_definition_arn));
    }
    match definition.main().map(|container| container.log_stream("task")) {
        Some(Some((group, _, _))) => found.good(format!("`{check}` is there, and writes to `{group}`")),
        Some(None) => found.bad(format!(
            "`{check}` writes no log that can be read: give its container `awslogs` with a group and a stream prefix"
        )),
        None => found.bad(format!("`{check}` has no container")),
    }
}

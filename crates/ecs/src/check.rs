//! The check of a node: a task definition (DCGM, or whatever a user has) that is run on exactly that instance, and what
//! it said. What that means is for others to judge.
//!
//! Invariant: it is a check only if the container ran and ended by itself. Whatever else happens, an image that is not
//! there, a node without free GPUs, a deadline, is told as "not run", with its reason.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::arn::{Family, Resident};
use crate::backend::{Cause, Gate, STARTED_BY, end, main_container};
use crate::client::ecs::{Definition, Described, Listed, Overrides, Run, Task};
use crate::client::{Client, Fault, Kind};
use crate::clock;

/// Between two looks, and between tries to start.
const LOOK: Duration = Duration::from_secs(3);
/// The longest log that is kept, from its end.
const MOST_LOG: usize = 1 << 20;
/// How long a log may be behind its task.
const LAG: Duration = Duration::from_secs(5);

/// What is to be run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub cluster: String,
    /// `family`, `family:revision` or an ARN.
    pub definition: String,
    /// The ARN of the container instance.
    pub instance: String,
    /// One word for this check, the same whenever it is asked for again: letters, digits, `-`.
    pub word: String,
    /// `None`: as the definition says.
    pub gpus: Option<u32>,
    /// For the container: which level, which GPUs.
    pub env: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    /// From the first try to start until its end.
    pub limit: Duration,
    pub look: Duration,
}

impl Plan {
    pub fn new(cluster: &str, definition: &str, instance: &str, word: &str) -> Plan {
        Plan {
            cluster: cluster.to_owned(),
            definition: definition.to_owned(),
            instance: instance.to_owned(),
            word: word.to_owned(),
            gpus: None,
            env: BTreeMap::new(),
            tags: BTreeMap::new(),
            limit: Duration::from_secs(360),
            look: LOOK,
        }
    }

    /// What the check is started by: 36 letters at most.
    pub fn started_by(&self) -> String {
        let fits = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
        let word: String = self.word.chars().filter(fits).collect();
        let begin = format!("{STARTED_BY}check-");
        format!("{begin}{}", &word[word.len().saturating_sub(36 - begin.len())..])
    }
}

/// What came of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It ran and ended by itself, with this code, and wrote this.
    Ran { code: i32, log: String, task: String },
    /// It says nothing about the node: it never ran, or did not come to its end.
    NotRun { why: String, log: String },
}

/// Runs a check to its end. Asked for again with the same word, it finds the task that was started before.
pub async fn run(client: &Client, plan: &Plan) -> Checked {
    run_on(client, plan, None).await
}

/// The same on an instance that was drained, and is to be afterwards.
pub async fn run_drained(client: &Client, plan: &Plan, gate: &Gate) -> Checked {
    run_on(client, plan, Some(gate)).await
}

async fn run_on(client: &Client, plan: &Plan, gate: Option<&Gate>) -> Checked {
    let until = clock::instant() + plan.limit;
    let not_run = |why: String| Checked::NotRun { why, log: String::new() };
    let definition = match read_definition(client, plan, until).await {
        Ok(definition) => definition,
        Err(fault) => return not_run(fault.to_string()),
    };
    let task = match started(client, plan, &definition, until, gate).await {
        Ok(task) => task,
        Err(why) => return not_run(why),
    };
    match watched(client, plan, &task, until).await {
        Ok(task) => judged(client, plan, &definition, &task).await,
        Err(why) => {
            let log = log_of(client, &definition, &task).await;
            if let Err(fault) = client.stop_task(&plan.cluster, &task, "pitcrew: the check took too long").await {
                tracing::warn!("cannot stop the check {task}: {fault}");
            }
            Checked::NotRun { why, log }
        }
    }
}

async fn read_definition(client: &Client, plan: &Plan, until: Instant) -> Result<Definition, Fault> {
    let wanted: Family = plan
        .definition
        .parse()
        .map_err(|wrong: crate::arn::NoName| Fault::invalid("ecs:DescribeTaskDefinition", wrong.to_string()))?;
    let definition = again(plan, until, || client.definition(&plan.definition).boxed()).await?;
    // Weakness 21: by its whole name, never by how it begins.
    match definition.task_definition_arn.parse::<Family>() {
        Ok(found) if wanted.has(&found) => Ok(definition),
        _ => Err(Fault::invalid(
            "ecs:DescribeTaskDefinition",
            format!("asked for `{}`, ECS gave `{}`", plan.definition, definition.task_definition_arn),
        )),
    }
}

/// Starts it, waiting for GPUs that others still hold; the error says why it could not be started in time.
async fn started(
    client: &Client,
    plan: &Plan,
    definition: &Definition,
    until: Instant,
    gate: Option<&Gate>,
) -> Result<String, String> {
    let container = definition.main().map(|container| container.name.clone()).unwrap_or_default();
    let overrides = Overrides { container, env: plan.env.clone(), gpus: plan.gpus, ..Overrides::default() };
    let run = Run {
        cluster: plan.cluster.clone(),
        definition: definition.task_definition_arn.clone(),
        overrides: Some(overrides),
        started_by: plan.started_by(),
        tags: plan.tags.clone(),
        ..Run::default()
    };
    loop {
        // This call has no token, so what was started before is looked for first.
        let family = &definition.family;
        match again(plan, until, || find(client, plan, family).boxed()).await {
            Ok(Some(task)) => return Ok(task),
            Ok(None) => {}
            Err(fault) => return Err(fault.to_string()),
        }
        let last = match start(client, plan, &run, gate).await {
            Ok(task) => return Ok(task),
            Err(fault) => match fault.kind {
                // Weakness 6: those who were stopped hold their GPUs for half a minute yet.
                Kind::Capacity | Kind::Throttled | Kind::Unreached => fault.to_string(),
                Kind::NotFound | Kind::Denied | Kind::Conflict | Kind::Invalid => return Err(fault.to_string()),
            },
        };
        if clock::instant() + plan.look >= until {
            return Err(format!("it could not be started in time: {last}"));
        }
        tokio::time::sleep(plan.look).await;
    }
}

/// An instance that is being drained may refuse whatever is started there. Then it is active for as long as that call takes, and
/// nothing of ours is placed anywhere meanwhile: it would come there as well.
async fn start(client: &Client, plan: &Plan, run: &Run, gate: Option<&Gate>) -> Result<String, Fault> {
    let refused = match client.start_task(run, &plan.instance).await {
        Ok(task) => return Ok(task.task_arn),
        Err(fault) => fault,
    };
    let is_closed = ["INACTIVE", "DRAINING"].iter().any(|word| refused.code.eq_ignore_ascii_case(word));
    let Some(gate) = gate.filter(|_| is_closed) else { return Err(refused) };
    let _alone = gate.alone().await;
    let instance = [plan.instance.clone()];
    client.drain(&plan.cluster, &instance, false).await?;
    let started = client.start_task(run, &plan.instance).await;
    again_drained(client, plan, &instance).await;
    started.map(|task| task.task_arn)
}

/// It is out of use whatever came of the check; an instance that stays active is told.
async fn again_drained(client: &Client, plan: &Plan, instance: &[String]) {
    for _ in 0..5 {
        match client.drain(&plan.cluster, instance, true).await {
            Ok(()) => return,
            Err(fault) => tracing::warn!("`{}` is active, and was to be drained: {fault}", plan.instance),
        }
        tokio::time::sleep(plan.look).await;
    }
}

async fn find(client: &Client, plan: &Plan, family: &str) -> Result<Option<String>, Fault> {
    let word = plan.started_by();
    let running = client.list_tasks(&plan.cluster, Listed::StartedBy(&word)).await?;
    if let Some(task) = running.into_iter().next() {
        return Ok(Some(task));
    }
    let over = client.list_tasks(&plan.cluster, Listed::Stopped(family)).await?;
    let known = client.tasks(&plan.cluster, &over).await?;
    let ours = known.whole()?.into_iter().find(|task| task.started_by.as_deref() == Some(word.as_str()));
    Ok(ours.map(|task| task.task_arn))
}

/// The task, once it is over; the error says what it was doing when the time was up.
async fn watched(client: &Client, plan: &Plan, task: &str, until: Instant) -> Result<Task, String> {
    let mut last = "ECS does not tell of it".to_owned();
    loop {
        match client.tasks(&plan.cluster, &[task.to_owned()]).await.and_then(Described::whole) {
            Ok(known) => match known.into_iter().next() {
                Some(task) if task.last_status.is_over() => return Ok(task),
                Some(task) => last = format!("it is {:?}", task.last_status),
                None => {}
            },
            Err(fault) => last = fault.to_string(),
        }
        if clock::instant() >= until {
            return Err(format!("it did not end within {} s: {last}", plan.limit.as_secs()));
        }
        tokio::time::sleep(plan.look).await;
    }
}

async fn judged(client: &Client, plan: &Plan, definition: &Definition, task: &Task) -> Checked {
    let main = main_container(task, None, Some(definition));
    let ended = end(task, main, None);
    // What CloudWatch was given last it shows a moment later.
    let mut log = log_of(client, definition, &task.task_arn).await;
    let until = clock::instant() + LAG.min(plan.look * 3);
    while log.is_empty() && clock::instant() < until {
        tokio::time::sleep(plan.look.min(Duration::from_secs(1))).await;
        log = log_of(client, definition, &task.task_arn).await;
    }
    match (ended.cause, main.and_then(|container| container.exit_code)) {
        (Cause::Success | Cause::Itself, Some(code)) => Checked::Ran { code, log, task: task.task_arn.clone() },
        _ => Checked::NotRun { why: ended.evidence, log },
    }
}

/// What it wrote, the end of it if it is long; empty where it cannot be read.
async fn log_of(client: &Client, definition: &Definition, task: &str) -> String {
    let Ok(id) = Resident::task(task).map(|task| task.id) else { return String::new() };
    let stream = definition.main().and_then(|container| container.log_stream(&id));
    let Some((group, region, stream)) = stream else { return String::new() };
    let client = match region {
        Some(region) if region != client.region() => client.in_region(&region),
        _ => Ok(client.clone()),
    };
    let Ok(client) = client else { return String::new() };
    let (mut log, mut token) = (String::new(), None::<String>);
    for _ in 0..100 {
        let Ok(page) = client.log_events(&group, &stream, token.as_deref(), None).await else { break };
        for event in &page.events {
            log.push_str(event.message.trim_end_matches('\n'));
            log.push('\n');
        }
        if log.len() > MOST_LOG {
            let from = log.len() - MOST_LOG;
            let from = (from..=log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(log.len());
            log.drain(..from);
        }
        if page.events.is_empty() || token.as_ref() == Some(&page.next) {
            break;
        }
        token = Some(page.next);
    }
    log
}

/// Asks again while what is in the way may pass and there is time.
async fn again<'a, T>(
    plan: &Plan,
    until: Instant,
    ask: impl Fn() -> BoxFuture<'a, Result<T, Fault>>,
) -> Result<T, Fault> {
    loop {
        match ask().await {
            Err(fault) if matches!(fault.kind, Kind::Throttled | Kind::Unreached) && clock::instant() < until => {
                tokio::time::sleep(plan.look).await;
            }
            other => return other,
        }
    }
}

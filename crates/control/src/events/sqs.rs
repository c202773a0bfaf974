//! One queue: receive, start runs, delete.

use std::time::Duration;

use pitcrew_core::RunId;
use pitcrew_core::engine::record::RunType;
use pitcrew_exec::aws::{Aws, AwsError, Call, Service};
use pitcrew_lang::event;
use pitcrew_store::AuditEntry;
use serde_json::{Value, json};

use super::message::{Message, Read};
use super::{Listeners, Queue, Waiting};
use crate::app::{App, Trigger, TriggerError};
use crate::clock;

/// How long one request waits for messages, in seconds: the most that SQS allows.
const LONG_POLL: u64 = 20;
/// For so many seconds nobody else gets a message that was received.
const HIDDEN: u64 = 60;
/// Between tries at a queue that cannot be read.
const LEAST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(60);

/// What an event came to, for one workflow.
enum Became {
    /// Also: the run was there.
    Run,
    /// It does not fit the filter.
    Other,
    /// It never can become a run; why.
    Refused(String),
    /// Not now: the message must come again.
    Later(String),
}

/// Takes messages from the queue until it is aborted.
pub async fn consume(app: App, queue: Queue, listeners: Listeners) {
    let mut wait = LEAST;
    loop {
        let error = match serve(&app, &queue, &listeners, &mut wait).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        app.metrics.event(&queue.name, "error");
        tracing::warn!("cannot take events from the queue `{}`: {error}; trying again in {wait:?}", queue.name);
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(MOST);
    }
}

async fn serve(
    app: &App,
    queue: &Queue,
    listeners: &Listeners,
    wait: &mut Duration,
) -> Result<std::convert::Infallible, AwsError> {
    let (aws, region) = (&app.aws, queue.region.as_str());
    let url = if queue.name.starts_with("https://") || queue.name.starts_with("http://") {
        queue.name.clone()
    } else {
        let answer = aws.json(Service::Sqs, region, "GetQueueUrl", &json!({ "QueueName": queue.name })).await?;
        answer["QueueUrl"].as_str().unwrap_or_default().to_owned()
    };
    loop {
        let input = json!({
            "QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": LONG_POLL, "VisibilityTimeout": HIDDEN,
        });
        let mut call = Call::json(Service::Sqs, region, "ReceiveMessage", &input);
        call.timeout = Duration::from_secs(LONG_POLL + 10);
        let answer = aws.send(&call).await?.json()?;
        *wait = LEAST;
        let messages: Vec<Message> =
            answer["Messages"].as_array().into_iter().flatten().filter_map(Message::of).collect();
        let mut done = Vec::new();
        for message in &messages {
            if settle(app, queue, listeners, message).await {
                done.push(message);
            }
        }
        delete(aws, region, &url, &done).await?;
    }
}

/// Starts what a message starts; says whether it may be deleted.
async fn settle(app: &App, queue: &Queue, listeners: &Listeners, message: &Message) -> bool {
    let (event, run) = match message.read() {
        Read::Event(event, run) => (event, run),
        Read::Nothing => return true,
        Read::Refused(why) => {
            app.metrics.event(&queue.name, "refused");
            return refuse(app, queue, message, None, &why).await;
        }
    };
    let mut is_done = true;
    for waiting in listeners.iter() {
        let (result, settled) = match start(app, queue, waiting, &event, &run).await {
            Became::Run => ("run", true),
            Became::Other => ("other", true),
            Became::Refused(why) => ("refused", refuse(app, queue, message, Some(waiting), &why).await),
            Became::Later(why) => {
                let workflow = &waiting.workflow;
                tracing::warn!("an event of `{}` cannot start `{workflow}` now: {why}", queue.name);
                ("later", false)
            }
        };
        app.metrics.event(&queue.name, result);
        is_done &= settled;
    }
    is_done
}

async fn start(app: &App, queue: &Queue, waiting: &Waiting, event: &Value, run: &RunId) -> Became {
    if waiting.pattern.as_ref().is_some_and(|pattern| !pattern.matches(event)) {
        return Became::Other;
    }
    let conf = match event::conf(waiting.source.conf.as_ref(), event) {
        Ok(conf) => conf,
        Err(why) => return Became::Refused(why),
    };
    let trigger = Trigger {
        conf,
        run_id: Some(run.clone()),
        run_type: Some(RunType::Event),
        note: described(event),
        by: format!("sqs {}", queue.name.rsplit('/').next().unwrap_or_default()),
        ..Trigger::default()
    };
    match app.trigger(&waiting.workflow, trigger).await {
        Ok(run) => {
            tracing::info!(run = run.key.0, "an event made run `{}` of `{}`", run.run_id, run.workflow);
            Became::Run
        }
        Err(TriggerError::Exists(_)) => Became::Run,
        Err(error @ (TriggerError::Params(_) | TriggerError::NoSuchWorkflow(_))) => Became::Refused(error.to_string()),
        Err(error @ (TriggerError::Store(_) | TriggerError::Other(_))) => Became::Later(error.to_string()),
    }
}

/// What people see of an event at its run.
fn described(event: &Value) -> String {
    let of = |name: &str| event[name].as_str().map(|text| text.chars().take(100).collect::<String>());
    match (of("detail-type"), of("source")) {
        (Some(kind), Some(source)) => format!("{kind}, from {source}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    }
}

/// Notes an event that never becomes a run; says whether that is written, since after that nothing of it is left.
async fn refuse(app: &App, queue: &Queue, message: &Message, waiting: Option<&Waiting>, why: &str) -> bool {
    tracing::warn!("an event of the queue `{}` was refused: {why}", queue.name);
    let mut audit = AuditEntry::new(clock::now(), format!("sqs {}", queue.name), "trigger.refused");
    audit.workflow = waiting.map(|waiting| waiting.workflow.clone());
    audit.detail = json!({ "queue": queue.name, "message": message.id, "reason": why });
    let written = app.store.record_audit(audit).await;
    written.map_err(|error| tracing::warn!(%error, "cannot note that an event was refused")).is_ok()
}

async fn delete(aws: &Aws, region: &str, url: &str, done: &[&Message]) -> Result<(), AwsError> {
    if done.is_empty() {
        return Ok(());
    }
    let entries: Vec<Value> = (0..)
        .zip(done)
        .map(|(number, message)| json!({ "Id": format!("m{number}"), "ReceiptHandle": message.receipt }))
        .collect();
    let input = json!({ "QueueUrl": url, "Entries": entries });
    let answer = aws.json(Service::Sqs, region, "DeleteMessageBatch", &input).await?;
    for failed in answer["Failed"].as_array().into_iter().flatten() {
        // It comes again, and finds its run.
        tracing::debug!("a message was not deleted: {}", failed["Message"].as_str().unwrap_or_default());
    }
    Ok(())
}

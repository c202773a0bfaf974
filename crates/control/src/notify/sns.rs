//! Amazon SNS as a channel.

use std::time::Duration;

use pitcrew_exec::aws::{Call, Service};

use super::config::Sns;
use super::message::Message;
use super::send::{Failed, Sender};
use super::text;

/// SNS refuses longer subjects, and those that are not ASCII.
const SUBJECT: usize = 100;
/// SNS refuses more than 256 KiB.
const MESSAGE: usize = 200_000;

pub async fn send(sender: &Sender, sns: &Sns, message: &Message) -> Result<(), Failed> {
    let text = text::cut(&message.text, MESSAGE / 4);
    let subject = subject(message);
    let mut fields = vec![
        ("TopicArn", sns.topic.as_str()),
        ("Subject", &subject),
        ("Message", &text),
        ("MessageAttributes.entry.1.Name", "event"),
        ("MessageAttributes.entry.1.Value.DataType", "String"),
        ("MessageAttributes.entry.1.Value.StringValue", &message.event),
    ];
    if sns.topic.ends_with(".fifo") {
        fields.extend([("MessageGroupId", "pitcrew"), ("MessageDeduplicationId", &message.id)]);
    }
    let mut call = Call::form(Service::Sns, &sns.region, "Publish", "2010-03-31", &fields);
    // What perhaps arrived is not sent twice by itself.
    call.repeatable = sns.topic.ends_with(".fifo");
    match sender.aws.send(&call).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Failed {
            // Credentials may come, too; the outbox gives up by itself.
            passing: error.passing || error.status == 0,
            wait: error.is_throttled().then_some(Duration::from_secs(30)),
            error: error.to_string(),
        }),
    }
}

/// Printable ASCII that begins with a letter or digit, at most 100 characters.
fn subject(message: &Message) -> String {
    let subject = format!("pitcrew: {}", message.subject);
    let ascii: String = subject.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    ascii.chars().take(SUBJECT).collect::<String>().trim_end().to_owned()
}

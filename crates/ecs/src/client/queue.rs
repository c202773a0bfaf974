//! SQS: messages that wake.

use std::time::Duration;

use pitcrew_exec::aws::{Call, Service};
use serde::Deserialize;
use serde_json::json;

use super::{Client, Fault, beyond};

/// What SQS gives at once.
const MOST: u32 = 10;

/// A message that was received; it comes again unless it is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: String,
    pub body: String,
    /// Deletes it.
    pub receipt: String,
    /// How often it was received, this time included.
    pub received: u32,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Raw {
    message_id: String,
    body: String,
    receipt_handle: String,
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Attributes {
    #[serde(rename = "ApproximateReceiveCount")]
    received: String,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<Raw>,
}

#[derive(Deserialize)]
struct Deleted {
    #[serde(rename = "Failed", default)]
    failed: Vec<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    #[serde(rename = "Code", default)]
    code: String,
    #[serde(rename = "Message", default)]
    message: String,
}

impl Client {
    /// The URL of a queue of that name; a URL is given back as it is.
    pub async fn queue_url(&self, queue: &str) -> Result<String, Fault> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(rename = "QueueUrl")]
            url: String,
        }
        if queue.starts_with("https://") || queue.starts_with("http://") {
            return Ok(queue.to_owned());
        }
        let found: Found = self.json(Service::Sqs, "GetQueueUrl", &json!({ "QueueName": queue }), true).await?;
        Ok(found.url)
    }

    /// Attributes of a queue, all of them.
    pub async fn queue_attributes(&self, url: &str) -> Result<serde_json::Map<String, serde_json::Value>, Fault> {
        #[derive(Deserialize)]
        struct Found {
            #[serde(rename = "Attributes", default)]
            attributes: serde_json::Map<String, serde_json::Value>,
        }
        let input = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let found: Found = self.json(Service::Sqs, "GetQueueAttributes", &input, true).await?;
        Ok(found.attributes)
    }

    /// Up to ten messages; waits for the first one, at most 20 seconds.
    pub async fn receive(&self, url: &str, wait: Duration) -> Result<Vec<Message>, Fault> {
        let wait = wait.min(Duration::from_secs(20));
        let input = json!({
            "QueueUrl": url,
            "MaxNumberOfMessages": MOST,
            "WaitTimeSeconds": wait.as_secs(),
            "AttributeNames": ["ApproximateReceiveCount"],
        });
        let mut call = Call::json(Service::Sqs, self.region(), "ReceiveMessage", &input);
        call.timeout = beyond(wait);
        let received: Received = self.read(&call).await?;
        let message = |raw: Raw| Message {
            id: raw.message_id,
            body: raw.body,
            receipt: raw.receipt_handle,
            received: raw.attributes.received.parse().unwrap_or(1),
        };
        Ok(received.messages.into_iter().map(message).collect())
    }

    /// Deletes messages that were received.
    pub async fn delete(&self, url: &str, messages: &[Message]) -> Result<(), Fault> {
        for batch in messages.chunks(MOST as usize) {
            let entries: Vec<_> = batch
                .iter()
                .enumerate()
                .map(|(number, message)| json!({ "Id": number.to_string(), "ReceiptHandle": message.receipt }))
                .collect();
            let input = json!({ "QueueUrl": url, "Entries": entries });
            let deleted: Deleted = self.json(Service::Sqs, "DeleteMessageBatch", &input, true).await?;
            if let Some(failed) = deleted.failed.first() {
                let why = format!("leaves {} messages: {}: {}", deleted.failed.len(), failed.code, failed.message);
                return Err(Fault::strange(Service::Sqs, "DeleteMessageBatch", &why));
            }
        }
        Ok(())
    }
}

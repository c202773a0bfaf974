//! `sns.publish`: a message to a topic of Amazon SNS.

use std::collections::BTreeMap;
use std::process::ExitCode;

use pitcrew_exec::aws::{Aws, Call as AwsCall, Service, xml_text};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Action, Call, Job, Plan, WrongInput, block_on, read, write_outputs};
use super::{Common, as_text, plan, schema, told};

pub struct SnsPublish;

/// SNS refuses longer messages.
const LONGEST: usize = 256 << 10;

#[derive(Deserialize)]
struct With {
    topic: String,
    message: Value,
    subject: Option<String>,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
    group: Option<String>,
    deduplication: Option<String>,
    #[serde(flatten)]
    common: Common,
}

impl Action for SnsPublish {
    fn name(&self) -> &'static str {
        "sns.publish"
    }

    fn schema(&self) -> Value {
        schema(
            &["topic", "message"],
            json!({
                "topic": { "type": "string", "description": "The ARN of the topic." },
                "message": { "description": "A text; everything else is sent as JSON." },
                "subject": { "type": "string" },
                "attributes": {
                    "type": "object",
                    "additionalProperties": { "type": ["string", "number"] },
                    "description": "Name and value of each attribute, for filters of subscriptions."
                },
                "group": { "type": "string", "description": "Of a FIFO topic. Default: `pitcrew`." },
                "deduplication": { "type": "string", "description": "Of a FIFO topic. Default: one for each attempt." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        Ok(plan(call))
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let message = as_text(&with.message);
        if message.is_empty() || message.len() > LONGEST {
            let size = message.len();
            return Err(WrongInput(format!("`message` has {size} bytes: SNS takes 1 to {LONGEST}")).into());
        }
        let aws = Aws::from_env().map_err(told)?;
        let region = with.common.region(&aws, &with.topic)?;
        let mut fields = vec![("TopicArn".to_owned(), with.topic.clone()), ("Message".to_owned(), message)];
        fields.extend(with.subject.map(|subject| ("Subject".to_owned(), subject)));
        for (number, (name, value)) in (1..).zip(&with.attributes) {
            let of = |field: &str| format!("MessageAttributes.entry.{number}.{field}");
            let kind = if value.is_number() { "Number" } else { "String" };
            fields.push((of("Name"), name.clone()));
            fields.push((of("Value.DataType"), kind.to_owned()));
            fields.push((of("Value.StringValue"), as_text(value)));
        }
        let is_fifo = with.topic.ends_with(".fifo");
        if is_fifo {
            let own = || super::unique_name(&job.scratch, 100);
            fields.push(("MessageGroupId".to_owned(), with.group.unwrap_or_else(|| "pitcrew".to_owned())));
            fields.push(("MessageDeduplicationId".to_owned(), with.deduplication.unwrap_or_else(own)));
        }
        let pairs: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut call = AwsCall::form(Service::Sns, &region, "Publish", "2010-03-31", &pairs);
        // What perhaps arrived is not sent twice.
        call.repeatable = is_fifo;
        call.role = with.common.role();
        block_on(async {
            let answer = aws.send(&call).await.map_err(told)?;
            let id = xml_text(&String::from_utf8_lossy(&answer.body), "MessageId").unwrap_or_default();
            println!("published to {}: message {id}", with.topic);
            write_outputs(&json!({ "message_id": id }))?;
            Ok(ExitCode::SUCCESS)
        })
    }
}

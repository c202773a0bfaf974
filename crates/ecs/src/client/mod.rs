//! Calls of AWS, typed, in one region: ECS and what belongs to it.
//!
//! Every call is bounded: by a time, by how many items one call may name (batches) and by how many pages are read.
//! What may pass is tried again a few times by `exec::aws`; an operation that must not happen twice never is, unless it
//! was refused.

mod dynamo;
mod ec2;
pub mod ecs;
mod fault;
mod logs;
mod queue;
mod rules;
mod ssm;

use std::time::Duration;

use pitcrew_exec::aws::{Aws, Call, Element, Service, check_region};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use dynamo::{Condition, Item, Scanned, Typed};
pub use ec2::{Machine, MachineState};
pub use fault::{Fault, Kind};
pub use logs::{LogEvent, LogPage};
pub use queue::Message;
pub use rules::Rule;
pub use ssm::{Invocation, Ran};

/// Pages that are read of one list, before it counts as endless.
const MOST_PAGES: usize = 200;

/// A door to the services of one region. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    aws: Aws,
    region: String,
    role: Option<String>,
}

impl Client {
    /// Asks nobody yet.
    pub fn new(aws: Aws, region: &str) -> Result<Client, Fault> {
        check_region(region).map_err(|error| Fault::invalid("sts:GetCallerIdentity", error.to_string()))?;
        Ok(Client { aws, region: region.to_owned(), role: None })
    }

    /// As this role, by its ARN.
    pub fn as_role(self, role: Option<&str>) -> Client {
        Client { role: role.map(str::to_owned), ..self }
    }

    /// The same in another region.
    pub fn in_region(&self, region: &str) -> Result<Client, Fault> {
        Ok(Client { role: self.role.clone(), ..Client::new(self.aws.clone(), region)? })
    }

    pub fn region(&self) -> &str {
        &self.region
    }

    /// Calls an operation of a service that speaks JSON. `repeatable`: a second time does what the first did.
    async fn json<T: DeserializeOwned>(
        &self,
        service: Service,
        operation: &str,
        input: &Value,
        repeatable: bool,
    ) -> Result<T, Fault> {
        let mut call = Call::json(service, &self.region, operation, input);
        call.repeatable = repeatable;
        self.read(&call).await
    }

    async fn read<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Fault> {
        let body = self.send(call).await?;
        // An operation with nothing to say may answer with nothing.
        let body = if body.is_empty() { b"{}" } else { &body[..] };
        serde_json::from_slice(body)
            .map_err(|error| Fault::strange(call.service, call.operation, &format!("cannot be read: {error}")))
    }

    /// Calls an operation of a service that takes a form and answers with XML.
    async fn form(
        &self,
        service: Service,
        operation: &str,
        version: &str,
        fields: &[(&str, &str)],
        repeatable: bool,
    ) -> Result<Element, Fault> {
        let mut call = Call::form(service, &self.region, operation, version, fields);
        call.repeatable = repeatable;
        let body = self.send(&call).await?;
        Element::parse(&String::from_utf8_lossy(&body)).ok_or_else(|| Fault::strange(service, operation, "is no XML"))
    }

    async fn send(&self, call: &Call<'_>) -> Result<Vec<u8>, Fault> {
        let call = Call { role: self.role.as_deref(), ..call.clone() };
        match self.aws.send(&call).await {
            Ok(answer) => Ok(answer.body),
            Err(error) => Err(Fault::of(call.service, call.operation, &error)),
        }
    }

    /// Who asks: the ARN of the user or role.
    pub async fn identity(&self) -> Result<String, Fault> {
        let answer = self.form(Service::Sts, "GetCallerIdentity", "2011-06-15", &[], true).await?;
        Ok(answer.at(&["GetCallerIdentityResult", "Arn"]).to_owned())
    }

    /// Publishes to a topic; the id of the message. What perhaps arrived is not sent twice.
    pub async fn publish(&self, topic: &str, subject: &str, message: &str) -> Result<String, Fault> {
        // A subject is one line of at most 100 letters.
        let subject: String = subject.chars().filter(|c| !c.is_control()).take(99).collect();
        let mut fields = vec![("TopicArn", topic), ("Message", message)];
        if !subject.is_empty() {
            fields.push(("Subject", &subject));
        }
        let answer = self.form(Service::Sns, "Publish", "2010-03-31", &fields, false).await?;
        Ok(answer.at(&["PublishResult", "MessageId"]).to_owned())
    }
}

/// How long a call may take that waits for something this long.
fn beyond(wait: Duration) -> Duration {
    wait + Duration::from_secs(10)
}

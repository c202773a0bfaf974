//! `notify`: puts a message into the outbox, together with the success of the task.

use serde::Deserialize;
use serde_json::{Value, json};

use super::pytest::OneOrMany;
use super::{Action, Call, Plan, object, read};

pub struct Notify;

/// The longest message, in bytes.
const LONGEST: usize = 30_000;

#[derive(Deserialize)]
struct With {
    to: OneOrMany,
    message: String,
    subject: Option<String>,
}

/// A message that a task sends.
pub struct Letter {
    /// Names of channels.
    pub to: Vec<String>,
    pub subject: String,
    pub message: String,
}

impl Action for Notify {
    fn name(&self) -> &'static str {
        "notify"
    }

    fn schema(&self) -> Value {
        object(
            &["to", "message"],
            json!({
                "to": {
                    "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }],
                    "description": "The channel or channels, by their names in the server's configuration."
                },
                "message": { "type": "string", "description": "The text." },
                "subject": { "type": "string", "description": "The first line. Default: the workflow and the task." }
            }),
        )
    }

    fn on_workers(&self) -> bool {
        false
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let with: With = read(call.with).map_err(|error| format!("{error:#}"))?;
        if with.message.len() > LONGEST {
            return Err(format!("`message` has {} bytes; at most {LONGEST} can be sent", with.message.len()));
        }
        let workflow = &call.run.workflow;
        let subject = with.subject.filter(|subject| !subject.trim().is_empty());
        let subject = subject.unwrap_or_else(|| format!("{}: {}", workflow.id, workflow.task(call.slot.task).id));
        let mut to = with.to.into_vec();
        to.sort();
        to.dedup();
        Ok(Plan::Notify(Letter { to, subject, message: with.message }))
    }
}

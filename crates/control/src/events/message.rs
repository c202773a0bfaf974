//! What a message of a queue says: the event in it, and the id that tells it from others.

use pitcrew_core::RunId;
use serde_json::Value;

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: String,
    /// Names this delivery, to delete it by.
    pub receipt: String,
    pub body: String,
}

/// What became of the text of a message.
#[derive(Debug, PartialEq)]
pub enum Read {
    /// An event, and the run id that it gives.
    Event(Value, RunId),
    /// A test of the connection: nothing happened.
    Nothing,
    /// Why it is no event.
    Refused(String),
}

impl Message {
    /// Reads one entry of an answer of SQS.
    pub fn of(entry: &Value) -> Option<Message> {
        let text = |name: &str| entry[name].as_str().map(str::to_owned);
        Some(Message { id: text("MessageId")?, receipt: text("ReceiptHandle")?, body: text("Body")? })
    }

    /// The event: as EventBridge writes it, as SNS wraps it (once), or any other object.
    pub fn read(&self) -> Read {
        let Ok(mut event @ Value::Object(_)) = serde_json::from_str::<Value>(&self.body) else {
            return Read::Refused("the message is no JSON object".to_owned());
        };
        let mut id = self.id.clone();
        if event["Type"] == "Notification"
            && let Some(text) = event["Message"].as_str()
        {
            id = event["MessageId"].as_str().unwrap_or(&id).to_owned();
            event = match serde_json::from_str::<Value>(text) {
                Ok(inner @ Value::Object(_)) => inner,
                _ => return Read::Refused("the message that SNS handed on is no JSON object".to_owned()),
            };
        }
        if event["Event"] == "s3:TestEvent" {
            return Read::Nothing;
        }
        // The same event may come by two messages; then it is known by its own id.
        if event["detail-type"].is_string()
            && let Some(own) = event["id"].as_str()
        {
            id = own.to_owned();
        }
        let run = RunId::new(&format!("sqs__{id}")).or_else(|_| RunId::new(&format!("sqs__{}", self.id)));
        match run {
            Ok(run) => Read::Event(event, run),
            Err(error) => Read::Refused(format!("the id of the message cannot name a run: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &str) -> Read {
        Message { id: "m-1".into(), receipt: "r".into(), body: body.into() }.read()
    }

    #[test]
    fn events_are_known_by_their_own_ids() {
        let run = |body: Value| match read(&body.to_string()) {
            Read::Event(event, run) => (event, run.to_string()),
            other => panic!("{other:?}"),
        };
        let event = json!({"id": "e-1", "detail-type": "x", "source": "me", "detail": {}});
        assert_eq!(run(event.clone()), (event.clone(), "sqs__e-1".to_owned()));
        let wrapped = json!({"Type": "Notification", "MessageId": "n-1", "Message": event.to_string()});
        assert_eq!(run(wrapped), (event, "sqs__e-1".to_owned()));
        let plain = json!({"Type": "Notification", "MessageId": "n-1", "Message": "{\"a\":1}"});
        assert_eq!(run(plain), (json!({"a": 1}), "sqs__n-1".to_owned()));
        assert_eq!(run(json!({"id": "not an event's", "x": 1})).1, "sqs__m-1");
        let strange = json!({"id": "a/../b\n", "detail-type": "x"});
        assert_eq!(run(strange).1, "sqs__m-1");
    }

    #[test]
    fn what_is_no_event_is_told_apart() {
        assert_eq!(read(r#"{"Event":"s3:TestEvent","Bucket":"b"}"#), Read::Nothing);
        for body in ["", "hello", "[1]", "{", r#"{"Type":"Notification","Message":"hello"}"#] {
            assert!(matches!(read(body), Read::Refused(_)), "{body}");
        }
    }
}

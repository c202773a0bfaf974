//! Watches: an answer that does not end, with a line for each change.

use std::time::Duration;

use reqwest::Response;
use serde::Deserialize;
use serde_json::Value;

use super::{Call, Client, Fault, broken};

/// So long one lasts; then it is begun anew.
const LASTS: Duration = Duration::from_secs(290);
/// The longest line.
const MOST: usize = 4 << 20;

/// Changes as they happen.
pub struct Watch {
    call: Call,
    answer: Response,
    /// What came and was not given out yet.
    rest: Vec<u8>,
}

/// What became of a thing: as it is now, or as it was last.
#[derive(Debug)]
pub enum Change<T> {
    Is(T),
    Gone(T),
    /// What happened since then is not known any more, or the watch is over: the list is to be read anew.
    Over,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl Client {
    /// Changes after this version of a list.
    pub async fn watch(&self, mut list: Call, version: &str) -> Result<Watch, Fault> {
        list.right.verb = "watch";
        list.within = LASTS + Duration::from_secs(30);
        let list = list.query("watch", "true").query("resourceVersion", version);
        let call = list.query("timeoutSeconds", LASTS.as_secs().to_string());
        let mut answer = self.send(&call).await?;
        let code = answer.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(Watch { call, answer, rest: Vec::new() });
        }
        let said = answer.chunk().await.ok().flatten().unwrap_or_default();
        Err(Fault::of(code, &said, call.right))
    }
}

impl Watch {
    /// The next change; may be dropped and asked again without losing any.
    pub async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Change<T>, Fault> {
        loop {
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if let Some(change) = read(&line).map_err(|why| self.odd(&why))? {
                    return Ok(change);
                }
            }
            if self.rest.len() > MOST {
                return Err(self.odd("it is too long"));
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk),
                Ok(None) => return Ok(Change::Over),
                Err(error) => return Err(broken(&self.call, &error)),
            }
        }
    }

    fn odd(&self, why: &str) -> Fault {
        Fault::unknown(format!("`{}`: a change cannot be read: {why}", self.call.right))
    }
}

/// `None`: it says nothing of any thing.
fn read<T: serde::de::DeserializeOwned>(line: &[u8]) -> Result<Option<Change<T>>, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let thing = || serde_json::from_value(line.object).map_err(|error| error.to_string());
    Ok(match line.kind.as_str() {
        "ADDED" | "MODIFIED" => Some(Change::Is(thing()?)),
        "DELETED" => Some(Change::Gone(thing()?)),
        "ERROR" => Some(Change::Over),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_change() {
        let of = |line: &str| read::<serde_json::Value>(line.as_bytes());
        assert!(matches!(of(r#"{"type":"ADDED","object":{"a":1}}"#), Ok(Some(Change::Is(thing))) if thing["a"] == 1));
        assert!(matches!(of(r#"{"type":"DELETED","object":{}}"#), Ok(Some(Change::Gone(_)))));
        assert!(matches!(of(r#"{"type":"ERROR","object":{"code":410}}"#), Ok(Some(Change::Over))));
        assert!(matches!(of(r#"{"type":"BOOKMARK","object":{}}"#), Ok(None)));
        assert!(of("{").is_err());
    }
}

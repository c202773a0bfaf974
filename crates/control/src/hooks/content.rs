//! What a delivery holds: the address, the headers and the body, sealed as one text. Tokens are among the headers.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use pitcrew_lang::triggers::event::{Body, Event, Headers};
use serde::{Deserialize, Serialize};

use crate::vault::Vault;

#[derive(Serialize, Deserialize)]
struct Content {
    url: String,
    headers: Vec<(String, Vec<String>)>,
    received: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// In base64, if it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

pub fn seal(vault: &Vault, event: &Event) -> anyhow::Result<String> {
    let raw = event.body.raw();
    let text = std::str::from_utf8(raw).ok().map(str::to_owned);
    let bytes = text.is_none().then(|| BASE64.encode(raw));
    let headers = event.headers.iter().map(|(name, values)| (name.to_owned(), values.to_vec())).collect();
    let content = Content { url: event.url.clone(), headers, received: event.received, text, bytes };
    vault.seal(&serde_json::to_string(&content)?)
}

/// The event as it came, under the name of a delivery.
pub fn open(vault: &Vault, sealed: &str, id: &str) -> anyhow::Result<Event> {
    let text = vault.open(sealed).context("what was posted cannot be read any more")?;
    let damaged = || anyhow::anyhow!("what was posted is damaged");
    let content: Content = serde_json::from_str(&text).map_err(|_| damaged())?;
    let raw = match (content.text, content.bytes) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(bytes)) => BASE64.decode(bytes).map_err(|_| damaged())?,
        (None, None) => Vec::new(),
    };
    let mut headers = Headers::default();
    for (name, values) in &content.headers {
        values.iter().for_each(|value| headers.add(name, value));
    }
    Ok(Event { id: id.to_owned(), url: content.url, headers, body: Body::new(raw), received: content.received })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::DataDir;

    #[test]
    fn what_was_posted_comes_back_byte_by_byte_and_cannot_be_read_without_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        for raw in [&b"{\"a\": \"hunter2\"}"[..], &[0xff, 0, 1], b""] {
            let event = Event {
                id: "first".into(),
                url: "/hooks/ci/el?x=1".into(),
                headers: Headers::new([("X-Gitlab-Token", "hunter2"), ("a", "1"), ("A", "2")]),
                body: Body::new(raw),
                received: Timestamp::from_second(1_800_000_000).unwrap(),
            };
            let sealed = seal(&vault, &event).unwrap();
            assert!(!sealed.contains("hunter2"));
            let back = open(&vault, &sealed, "second").unwrap();
            assert_eq!((back.id.as_str(), back.url, back.received), ("second", event.url, event.received));
            assert_eq!((back.body.raw(), &back.headers), (raw, &event.headers));
        }
        assert!(open(&vault, "v1:AAAA", "x").is_err());
    }
}

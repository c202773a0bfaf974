//! Webhooks: JSON by POST, signed if there is a secret.
//!
//! The signature is over time and body, so that neither can be changed and an old request can be told: the receiver
//! computes HMAC-SHA256 of `<x-pitcrew-timestamp>.<body>` and compares.

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use super::config::{Channel, Webhook};
use super::http;
use super::message::Message;
use super::send::{Failed, Sender};

/// Grows when a field changes its meaning; new fields do not count.
const VERSION: u32 = 1;

pub async fn send(
    sender: &Sender,
    channel: &Channel,
    hook: &Webhook,
    message: &Message,
    now: Timestamp,
) -> Result<(), Failed> {
    let what = |key: &str| format!("`{key}` of the channel `{}`", channel.name);
    let url = sender.secrets.get(&hook.url, &what("url")).await?;
    let url = http::secret_address(&url, &what("url"))?;
    let host = http::host(url.as_str());
    let body = body(channel, message).to_string();
    let at = now.as_second().to_string();
    let mut request = sender.clients.client_for(&url, hook.allow_link_local)?.post(url);
    for (name, source) in &hook.headers {
        let value = sender.secrets.get(source, &what(&format!("headers.{name}"))).await?;
        let (name, value) = http::header(name, &value).map_err(|error| Failed::lasting(format!("{error:#}")))?;
        request = request.header(name, value);
    }
    if let Some(secret) = &hook.secret {
        let secret = sender.secrets.get(secret, &what("secret")).await?;
        request = request.header("x-pitcrew-signature-256", sign(&secret, &at, &body));
    }
    let request = request
        .header("content-type", "application/json")
        .header("x-pitcrew-event", &message.event)
        .header("x-pitcrew-delivery", &message.id)
        .header("x-pitcrew-timestamp", at)
        .body(body);
    let response = request.send().await.map_err(|error| http::unanswered(error, &host))?;
    http::answered(response, &host, now).await
}

/// `sha256=` and the HMAC in hexadecimal.
pub fn sign(secret: &str, at: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

fn body(channel: &Channel, message: &Message) -> Value {
    let mut body = json!({
        "version": VERSION,
        "id": message.id,
        "event": message.event,
        "channel": channel.name,
        "subject": message.subject,
        "text": message.text,
        "url": message.url,
    });
    if let (Some(body), Some(facts)) = (body.as_object_mut(), message.json.as_object()) {
        body.extend(facts.clone());
    }
    body
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_signature_is_what_a_receiver_computes() {
        // printf '1767225600.{"a":1}' | openssl dgst -sha256 -hmac 'a secret'
        let signature = super::sign("a secret", "1767225600", "{\"a\":1}");
        assert_eq!(signature, "sha256=3ab19d245ff89b0d7fd77dc06116c131d468f5365e2e6f66cec64aaf76886080");
    }
}

//! Amazon SNS: one signed request. Credentials are looked for where the AWS tools look: the environment, a web
//! identity, the container's role, the machine's role.

use std::time::Duration;

use axum::http::Request;
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AwsAuthorizer};
use object_store::client::{HttpRequest, HttpRequestBody};

use super::config::{Channel, Sns};
use super::message::Message;
use super::send::{Failed, Sender};
use super::{http, text};

/// SNS refuses longer subjects, and those that are not ASCII.
const SUBJECT: usize = 100;
/// SNS refuses more than 256 KiB.
const MESSAGE: usize = 200_000;

pub async fn send(
    sender: &Sender,
    channel: &Channel,
    sns: &Sns,
    message: &Message,
    now: Timestamp,
) -> Result<(), Failed> {
    let lasting =
        |error: &dyn std::fmt::Display| Failed::lasting(format!("the request to SNS cannot be made: {error}"));
    let endpoint = endpoint(&sns.region, &|name| std::env::var(name).ok());
    let what = format!("the address of SNS for the channel `{}`", channel.name);
    let url = http::secret_address(&endpoint, &what)?;
    let mut request: HttpRequest = Request::post(url.as_str())
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(HttpRequestBody::from(form(sns, message)))
        .map_err(|error| lasting(&error))?;
    // The builder of the storage client is the public door to its credentials; no bucket is ever asked.
    let client = AmazonS3Builder::from_env().with_bucket_name("none").with_region(&sns.region).build();
    let client = client.map_err(|error| lasting(&error))?;
    let credential = client.credentials().get_credential().await;
    let credential = credential.map_err(|error| Failed::passing(format!("no credentials of AWS: {error}")))?;
    AwsAuthorizer::new(&credential, "sns", &sns.region)
        .try_authorize(&mut request, None)
        .map_err(|error| lasting(&error))?;
    let (parts, body) = request.into_parts();
    let bytes = body.as_bytes().cloned().unwrap_or_default();
    let host = http::host(url.as_str());
    let request = sender.clients.client_for(&url, false)?.post(url).headers(parts.headers).body(bytes);
    let response = request.send().await.map_err(|error| http::unanswered(error, &host))?;
    http::answered(response, &host, now).await.map_err(|failed| {
        // Throttling is answered with 400.
        let throttled = failed.error.contains("Throttl");
        let wait = failed.wait.or(throttled.then_some(Duration::from_secs(30)));
        Failed { passing: failed.passing || throttled, wait, ..failed }
    })
}

/// `AWS_ENDPOINT_URL_SNS`, else `AWS_ENDPOINT_URL`, else the service of the region.
fn endpoint(region: &str, env: &dyn Fn(&str) -> Option<String>) -> String {
    let given = ["AWS_ENDPOINT_URL_SNS", "AWS_ENDPOINT_URL"].into_iter().filter_map(env).find(|url| !url.is_empty());
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    given.unwrap_or_else(|| format!("https://sns.{region}.{suffix}/"))
}

fn form(sns: &Sns, message: &Message) -> String {
    let text = text::cut(&message.text, MESSAGE / 4);
    let subject = subject(message);
    let mut fields = vec![
        ("Action", "Publish"),
        ("Version", "2010-03-31"),
        ("TopicArn", &sns.topic),
        ("Subject", &subject),
        ("Message", &text),
        ("MessageAttributes.entry.1.Name", "event"),
        ("MessageAttributes.entry.1.Value.DataType", "String"),
        ("MessageAttributes.entry.1.Value.StringValue", &message.event),
    ];
    if sns.topic.ends_with(".fifo") {
        fields.extend([("MessageGroupId", "pitcrew"), ("MessageDeduplicationId", &message.id)]);
    }
    let pairs = fields.iter().map(|(name, value)| format!("{name}={}", crate::server::links::encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Printable ASCII that begins with a letter or digit, at most 100 characters.
fn subject(message: &Message) -> String {
    let subject = format!("pitcrew: {}", message.subject);
    let ascii: String = subject.chars().map(|c| if (' '..='~').contains(&c) { c } else { '?' }).collect();
    ascii.chars().take(SUBJECT).collect::<String>().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn the_endpoint_is_that_of_the_region_unless_the_environment_names_one() {
        let none = |_: &str| None;
        assert_eq!(endpoint("eu-west-1", &none), "https://sns.eu-west-1.amazonaws.com/");
        assert_eq!(endpoint("cn-north-1", &none), "https://sns.cn-north-1.amazonaws.com.cn/");
        let both = |name: &str| Some(format!("http://localhost/{}", name.len()));
        assert_eq!(endpoint("eu-west-1", &both), "http://localhost/20");
    }
}

//! One request: made, signed, sent, and sent again when what stood in its way may pass.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpRequest, HttpRequestBody};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{Aws, AwsError, Service};

/// Tries after the first.
const RETRIES: u32 = 4;
/// The wait before the first retry is below this, before the next below twice as much, …
const BACKOFF: Duration = Duration::from_millis(200);
/// The largest answer that is read, unless the call says otherwise: a function of Lambda may give 6 MB.
const MOST: usize = 16 << 20;

/// What is asked of a service.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    pub service: Service,
    pub region: &'a str,
    /// As AWS calls it, for messages.
    pub operation: &'a str,
    pub method: Method,
    /// With its query, percent-encoded once; begins with `/`.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// From the connection to the last byte of the answer.
    pub timeout: Duration,
    /// A second time does what the first did; so it is repeated also when it is not known whether it arrived.
    pub repeatable: bool,
    /// The largest answer that is read, in bytes.
    pub most: usize,
    /// The role that asks, by its ARN.
    pub role: Option<&'a str>,
}

/// A success.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    fn new(service: Service, region: &'a str, operation: &'a str, body: Vec<u8>) -> Self {
        Call {
            service,
            region,
            operation,
            method: Method::POST,
            path: "/".to_owned(),
            headers: Vec::new(),
            body,
            timeout: Duration::from_secs(30),
            repeatable: true,
            most: MOST,
            role: None,
        }
    }

    /// An operation of a service that speaks JSON.
    pub fn json(service: Service, region: &'a str, operation: &'a str, input: &Value) -> Self {
        let mut call = Call::new(service, region, operation, input.to_string().into_bytes());
        if let Some((prefix, version)) = service.json() {
            call.headers.push(("content-type", format!("application/x-amz-json-{version}")));
            call.headers.push(("x-amz-target", format!("{prefix}.{operation}")));
        }
        call
    }

    /// An operation of a service that takes a form and answers with XML.
    pub fn form(service: Service, region: &'a str, operation: &'a str, version: &str, fields: &[(&str, &str)]) -> Self {
        let all = [("Action", operation), ("Version", version)].into_iter().chain(fields.iter().copied());
        let pairs: Vec<String> = all.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
        let mut call = Call::new(service, region, operation, pairs.join("&").into_bytes());
        call.headers.push(("content-type", "application/x-www-form-urlencoded; charset=utf-8".to_owned()));
        call
    }

    pub(super) fn what(&self) -> String {
        format!("`{}` in {} refused `{}`", self.service.name(), self.region, self.operation)
    }
}

/// Everything but letters, digits and `-._~` becomes `%XX`, as signatures want it.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Answer {
    /// The body of a service that speaks JSON.
    pub fn json(&self) -> Result<Value, AwsError> {
        serde_json::from_slice(&self.body).map_err(|_| AwsError::local("the answer of AWS is no JSON"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Aws {
    /// Calls an operation of a service that speaks JSON.
    pub async fn json(
        &self,
        service: Service,
        region: &str,
        operation: &str,
        input: &Value,
    ) -> Result<Value, AwsError> {
        self.send(&Call::json(service, region, operation, input)).await?.json()
    }

    /// Sends a request, up to a few times when what stands in its way may pass.
    pub async fn send(&self, call: &Call<'_>) -> Result<Answer, AwsError> {
        let mut renewed = false;
        let mut tries = 0;
        loop {
            let sent = async {
                let credential = self.credentials(call.role).get(self, call.region).await?;
                self.send_as(call, &credential).await
            };
            let error = match sent.await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.is_expired() && !std::mem::replace(&mut renewed, true) {
                self.credentials(call.role).forget().await;
                continue;
            }
            // What was refused was not done; what was not answered perhaps was.
            let may_repeat = error.passing && (call.repeatable || error.is_throttled());
            if !may_repeat || tries == RETRIES {
                return Err(error);
            }
            let longest = BACKOFF.as_millis() as u64 * (1 << tries);
            tokio::time::sleep(Duration::from_millis(RandomState::new().hash_one(tries) % longest)).await;
            tries += 1;
        }
    }

    /// Sends a request once, with these credentials.
    pub(super) async fn send_as(&self, call: &Call<'_>, credential: &AwsCredential) -> Result<Answer, AwsError> {
        let endpoint = self.endpoint(call.service, call.region)?;
        let wrong = |error: String| {
            AwsError::local(format!("the request to `{}` cannot be made: {error}", call.service.name()))
        };
        let mut request = HttpRequest::new(HttpRequestBody::from(call.body.clone()));
        *request.method_mut() = call.method.clone();
        let url = format!("{endpoint}{}", call.path);
        *request.uri_mut() = url.parse().map_err(|_| wrong(format!("`{endpoint}` is no address")))?;
        for (name, value) in &call.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| wrong(format!("the header `{name}` has strange characters")))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        AwsAuthorizer::new(credential, call.service.name(), call.region)
            .try_authorize(&mut request, None)
            .map_err(|error| wrong(error.to_string()))?;
        let (parts, body) = request.into_parts();
        let host = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
        let unanswered = |error: reqwest::Error| {
            let timed_out = error.is_timeout();
            let passing = error.is_connect() || call.repeatable;
            let why = if timed_out { format!("none within {:?}", call.timeout) } else { reasons(&error.without_url()) };
            AwsError::unanswered(call, &host, &why, passing)
        };
        let sent = self.0.http.request(call.method.clone(), &url).headers(parts.headers).timeout(call.timeout);
        let mut response = sent.body(body.as_bytes().cloned().unwrap_or_default()).send().await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unanswered)? {
            body.extend_from_slice(&chunk);
            if body.len() > call.most {
                return Err(AwsError::local(format!(
                    "the answer to `{}` has more than {} bytes",
                    call.operation, call.most
                )));
            }
        }
        match status.is_success() {
            true => Ok(Answer { status: status.as_u16(), headers, body }),
            false => Err(AwsError::answered(call, status.as_u16(), &headers, &body)),
        }
    }
}

/// The innermost cause says what happened.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut deepest = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        deepest = next.to_string();
        cause = next.source();
    }
    deepest
}

//! What AWS said, in one line, with what to do about it where that is known.

use std::fmt;

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::{Call, xml};

/// Why a call did not succeed.
#[derive(Debug, Clone)]
pub struct AwsError {
    /// The code that AWS gives, such as `ResourceNotFoundException`; empty when AWS gave no answer.
    pub code: String,
    /// In AWS's words, or ours.
    pub message: String,
    /// To ask AWS's support about.
    pub request_id: Option<String>,
    /// The status of the answer; 0 when there was none.
    pub status: u16,
    /// Whether another try may succeed.
    pub passing: bool,
    /// ``` `lambda` in us-east-1 refused `Invoke` ```; empty for what failed before anybody was asked.
    pub call: String,
}

/// The longest message that is shown.
const LONGEST: usize = 1000;

/// Codes of what may pass, beside all answers with a status from 500.
const PASSING: [&str; 12] = [
    "Throttl",
    "TooManyRequests",
    "RequestLimitExceeded",
    "ProvisionedThroughputExceeded",
    "InternalServiceError",
    "InternalFailure",
    "ServiceUnavailable",
    "RequestTimeout",
    "SlowDown",
    "RequestThrottled",
    "PriorRequestNotComplete",
    "OverLimit",
];

impl AwsError {
    /// Something is wrong on this side.
    pub fn local(message: impl Into<String>) -> Self {
        AwsError {
            code: String::new(),
            message: message.into(),
            request_id: None,
            status: 0,
            passing: false,
            call: String::new(),
        }
    }

    /// Nobody answered.
    pub(super) fn unanswered(call: &Call<'_>, host: &str, why: &str, passing: bool) -> Self {
        let message = format!("no answer from `{host}`: {why}");
        AwsError { passing, call: call.what(), ..AwsError::local(message) }
    }

    /// An answer that is no success, in any of the forms that services give it.
    pub(super) fn answered(call: &Call<'_>, status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = String::from_utf8_lossy(body);
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let field = |names: &[&str]| names.iter().find_map(|name| document[*name].as_str().map(str::to_owned));
        let first = |text: String| text.split(';').next().unwrap_or_default().to_owned();
        let code = header("x-amzn-query-error")
            .map(first)
            .or_else(|| header("x-amzn-errortype"))
            .or_else(|| field(&["__type", "code", "Code"]))
            .or_else(|| xml::text(&text, "Code"))
            .unwrap_or_else(|| format!("HTTP {status}"));
        // `namespace#Code:address`.
        let code = code.rsplit_once('#').map_or(code.as_str(), |(_, code)| code);
        let code = code.split_once(':').map_or(code, |(code, _)| code).to_owned();
        let message = field(&["message", "Message", "errorMessage"]).or_else(|| xml::text(&text, "Message"));
        let message = message.unwrap_or_else(|| if document.is_null() { text.into_owned() } else { String::new() });
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let message = message.chars().take(LONGEST).collect();
        let request_id = header("x-amzn-requestid").or_else(|| header("x-amz-request-id"));
        let passing = status >= 500 || status == 429 || PASSING.iter().any(|part| code.contains(part));
        AwsError { code, message, request_id, status, passing, call: call.what() }
    }

    /// The credentials are not good any more; new ones may be.
    pub(super) fn is_expired(&self) -> bool {
        self.code.contains("ExpiredToken")
    }

    pub fn is_denied(&self) -> bool {
        self.code.contains("AccessDenied") || self.code == "AuthorizationError" || self.code == "UnauthorizedOperation"
    }

    pub fn is_throttled(&self) -> bool {
        self.status == 429 || ["Throttl", "TooManyRequests", "RequestLimit"].iter().any(|part| self.code.contains(part))
    }

    /// Who was refused what, by AWS's own words.
    pub fn denial(&self) -> Option<(&str, &str)> {
        let rest = self.message.split_once("User: ")?.1;
        let (who, rest) = rest.split_once(" is not authorized to perform: ")?;
        let action = rest.split([' ', ',']).next()?.trim_end_matches('.');
        (!who.contains(' ') && action.contains(':')).then_some((who, action))
    }

    fn hint(&self) -> Option<String> {
        let code = self.code.as_str();
        if let (true, Some((who, action))) = (self.is_denied(), self.denial()) {
            return Some(format!("allow `{action}` in the policy of `{who}`"));
        }
        Some(match code {
            "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => {
                "AWS does not know this access key: check `AWS_ACCESS_KEY_ID`, or the profile".to_owned()
            }
            "ExpiredToken" | "ExpiredTokenException" => "the session is over: log in again, or use a role".to_owned(),
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => {
                "check the secret key, and the clock of this machine".to_owned()
            }
            _ => return None,
        })
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.call.is_empty() {
            write!(f, "{}: ", self.call)?;
        }
        match (self.code.is_empty(), self.message.is_empty()) {
            (true, _) => f.write_str(&self.message)?,
            (false, true) => f.write_str(&self.code)?,
            (false, false) => write!(f, "{}: {}", self.code, self.message)?,
        }
        if let Some(id) = &self.request_id {
            write!(f, " (request {id})")?;
        }
        if let Some(hint) = self.hint() {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AwsError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::Service;

    #[test]
    fn what_aws_says_is_told_whatever_its_form() {
        let call = Call::json(Service::Lambda, "us-east-1", "Invoke", &Value::Null);
        let said = |status: u16, header: Option<(&'static str, &str)>, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-amzn-requestid", "7f3".parse().unwrap());
            if let Some((name, value)) = header {
                headers.insert(name, value.parse().unwrap());
            }
            let error = AwsError::answered(&call, status, &headers, body.as_bytes());
            (error.to_string(), error.passing)
        };
        let (text, passing) = said(
            404,
            Some(("x-amzn-errortype", "ResourceNotFoundException:http://internal/")),
            r#"{"Type":"User","Message":"Function not found: f"}"#,
        );
        assert_eq!(
            text,
            "`lambda` in us-east-1 refused `Invoke`: ResourceNotFoundException: Function not found: f (request 7f3)"
        );
        assert!(!passing);
        let denied = r#"{"__type":"com.amazon#AccessDeniedException","message":"User: arn:aws:iam::1:user/ci is not authorized to perform: lambda:InvokeFunction on resource: x"}"#;
        let (text, _) = said(400, None, denied);
        assert!(text.ends_with("; allow `lambda:InvokeFunction` in the policy of `arn:aws:iam::1:user/ci`"), "{text}");
        let xml = "<ErrorResponse><Error><Type>Sender</Type><Code>Throttling</Code><Message>Rate &amp; more</Message></Error></ErrorResponse>";
        assert_eq!(
            said(400, None, xml),
            ("`lambda` in us-east-1 refused `Invoke`: Throttling: Rate & more (request 7f3)".into(), true)
        );
        let queue = said(400, Some(("x-amzn-query-error", "AWS.SimpleQueueService.NonExistentQueue;Sender")), "{}");
        assert!(queue.0.contains("AWS.SimpleQueueService.NonExistentQueue"), "{queue:?}");
        assert_eq!(
            said(502, None, "<html>bad\ngateway"),
            ("`lambda` in us-east-1 refused `Invoke`: HTTP 502: <html>bad gateway (request 7f3)".into(), true)
        );
    }
}

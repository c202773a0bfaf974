//! Why an API server did not do what it was asked to, by what can be done about it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody could be connected to: nothing has happened, and the same call may succeed later.
    Away,
    /// It was sent, and no answer came that says what became of it.
    Unknown,
    /// Too much at once, or something stands in the way for now: the same call succeeds later.
    Later,
    /// There is no such thing, or no longer.
    NotFound,
    /// Whoever we are there may not do it, or nobody knows who we are.
    Denied,
    /// Somebody else changed it first, or it is there already.
    Conflict,
    /// The request itself is wrong: the same call never succeeds.
    Invalid,
}

/// A call that did not succeed.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: Kind,
    /// One sentence, in the words of the API server where it gave some.
    pub words: String,
    /// What to allow, such as `patch` on `nodes`; for what was denied.
    pub right: Option<Right>,
    /// How long to wait, if it says so.
    pub after: Option<Duration>,
}

/// A verb on a resource, as a rule of a role says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    /// `nodes`, or with what is below it: `pods/eviction`.
    pub resource: String,
    /// `None`: of the whole cluster.
    pub namespace: Option<String>,
}

/// How an API server tells why not.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u64,
}

impl Fault {
    /// An answer that is no success.
    pub(crate) fn of(code: u16, body: &[u8], right: Right) -> Fault {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let kind = match code {
            401 | 403 => Kind::Denied,
            404 => Kind::NotFound,
            409 => Kind::Conflict,
            429 => Kind::Later,
            // What it did before it failed is not known.
            500.. => Kind::Unknown,
            _ => Kind::Invalid,
        };
        let said = match (status.message.trim(), status.reason.as_str()) {
            ("", "") => format!("status {code}"),
            ("", reason) => reason.to_owned(),
            (message, _) => message.chars().take(500).collect(),
        };
        let after = status.details.map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0);
        let words = match code {
            401 => format!("the API server does not take our credentials ({said}): renew those of the kubeconfig"),
            403 => said,
            _ => format!("`{right}`: {said}"),
        };
        Fault {
            kind,
            words,
            right: (code == 403).then_some(right),
            after: after.map(|seconds| Duration::from_secs(seconds.min(60))),
        }
    }

    /// What is wrong with a call before anybody is asked.
    pub(crate) fn invalid(words: impl Into<String>) -> Fault {
        Fault { kind: Kind::Invalid, words: words.into(), right: None, after: None }
    }

    /// Nobody could be asked: nothing has happened.
    pub(crate) fn away(words: impl Into<String>) -> Fault {
        Fault { kind: Kind::Away, words: words.into(), right: None, after: None }
    }

    pub(crate) fn unknown(words: impl Into<String>) -> Fault {
        Fault { kind: Kind::Unknown, words: words.into(), right: None, after: None }
    }

    /// The same call may succeed later.
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, Kind::Away | Kind::Later | Kind::Unknown)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)?;
        let Some(Right { verb, resource, namespace }) = &self.right else { return Ok(()) };
        let whose = match namespace {
            Some(namespace) => format!("a Role of the namespace `{namespace}`"),
            None => "a ClusterRole".to_owned(),
        };
        write!(f, "; allow `{verb}` on `{resource}` in {whose}, as `deploy/kubernetes/recovery.yaml` does")
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, body: &str) -> Fault {
        let right = Right { verb: "patch", resource: "nodes".to_owned(), namespace: None };
        Fault::of(code, body.as_bytes(), right)
    }

    #[test]
    fn a_denial_names_what_to_allow() {
        let fault = of(403, r#"{"message": "nodes \"n1\" is forbidden", "reason": "Forbidden"}"#);
        assert_eq!(
            fault.to_string(),
            "nodes \"n1\" is forbidden; allow `patch` on `nodes` in a ClusterRole, as `deploy/kubernetes/recovery.yaml` does"
        );
        assert!(of(401, "{}").to_string().contains("renew those of the kubeconfig"));
    }

    #[test]
    fn faults_are_told_apart_by_what_can_be_done() {
        let kinds = [401, 403, 404, 409, 422, 429, 500, 503].map(|code| of(code, "not JSON").kind);
        use Kind::{Conflict, Denied, Invalid, Later, NotFound, Unknown};
        assert_eq!(kinds, [Denied, Denied, NotFound, Conflict, Invalid, Later, Unknown, Unknown]);
        let blocked = of(429, r#"{"message": "no", "details": {"retryAfterSeconds": 10}}"#);
        assert_eq!((blocked.after, blocked.may_pass()), (Some(Duration::from_secs(10)), true));
        assert_eq!(of(404, "").to_string(), "`patch nodes`: status 404");
    }
}

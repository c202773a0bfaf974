//! Why an engine did not do what it was asked to, by what can be done about it.

use std::fmt;

use serde::Deserialize;

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Nobody could be connected to: nothing has happened, and the same call may succeed later.
    Away,
    /// It was sent, and no answer came that says what became of it.
    Unknown,
    /// The engine says that it failed at it; what it did before is not known.
    Failed,
    /// There is no such thing, or no longer.
    NotFound,
    /// It is there already, or not in a state in which this could be done.
    Conflict,
    /// The request itself is wrong: the same call never succeeds.
    Invalid,
}

/// A call that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// One sentence, in the words of the engine where it gave some.
    pub words: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    message: String,
}

impl Fault {
    /// An answer that is no success.
    pub(super) fn of(code: u16, body: &[u8], engine: &str) -> Fault {
        let said: Said = serde_json::from_slice(body).unwrap_or_default();
        let kind = match code {
            404 => Kind::NotFound,
            409 => Kind::Conflict,
            500.. => Kind::Failed,
            _ => Kind::Invalid,
        };
        let words = match said.message.trim() {
            "" => format!("{engine} answers with status {code}"),
            message => message.chars().take(500).collect(),
        };
        Fault { kind, words }
    }

    /// No answer came, or not all of it.
    pub(super) fn broken(engine: &str, error: &reqwest::Error) -> Fault {
        // The innermost reason is the one that says something, such as a certificate that nobody here trusts.
        let mut inner: Option<&dyn std::error::Error> = std::error::Error::source(error);
        let mut why = String::new();
        while let Some(error) = inner {
            why = error.to_string();
            inner = error.source();
        }
        let (kind, what) = match (error.is_connect(), error.is_timeout()) {
            _ if is_distrust(error) => (Kind::Invalid, "and this side do not trust each other"),
            (true, _) => (Kind::Away, "cannot be connected to"),
            (false, true) => (Kind::Unknown, "gave no answer in time"),
            (false, false) => (Kind::Unknown, "did not answer to the end"),
        };
        let why = if why.is_empty() { why } else { format!(": {why}") };
        Fault { kind, words: format!("{engine} {what}{why}") }
    }

    pub(super) fn invalid(words: impl Into<String>) -> Fault {
        Fault { kind: Kind::Invalid, words: words.into() }
    }

    pub(super) fn unknown(words: impl Into<String>) -> Fault {
        Fault { kind: Kind::Unknown, words: words.into() }
    }

    /// The same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self.kind {
            Kind::Away | Kind::Unknown | Kind::Failed => true,
            Kind::NotFound | Kind::Conflict | Kind::Invalid => false,
        }
    }

    /// Nobody answered: the engine is away, or on its way out.
    pub fn is_unanswered(&self) -> bool {
        matches!(self.kind, Kind::Away | Kind::Unknown)
    }
}

/// A certificate that one side does not take: waiting does not mend that.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut inner: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = inner {
        let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = error.downcast_ref().or_else(|| held.and_then(|held| held.downcast_ref()));
        if let Some(rustls::Error::AlertReceived(_) | rustls::Error::InvalidCertificate(_)) = found {
            return true;
        }
        inner = held.map_or_else(|| error.source(), |held| Some(held as &(dyn std::error::Error + 'static)));
    }
    false
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_speak_with_the_words_of_the_engine() {
        let fault = Fault::of(404, br#"{"message":"No such container: web"}"#, "the engine");
        assert_eq!((fault.kind, fault.to_string().as_str()), (Kind::NotFound, "No such container: web"));
        let fault = Fault::of(502, b"<html>", "the engine");
        assert_eq!((fault.kind, fault.to_string().as_str()), (Kind::Failed, "the engine answers with status 502"));
        assert!(fault.may_pass() && !fault.is_unanswered());
    }
}

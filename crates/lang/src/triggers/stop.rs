//! Why a trigger starts nothing.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopKind {
    /// The event is not one that the trigger is for.
    Filtered,
    /// It is not proved to come from who may send it.
    Refused,
    /// Something is wrong: an expression, a binding, a template, an answer.
    Failed,
}

/// Why a trigger starts nothing, as its delivery tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub kind: StopKind,
    /// The interceptor, or the part of the trigger.
    pub by: String,
    pub message: String,
}

impl Stop {
    pub fn filtered(message: impl Into<String>) -> Stop {
        Stop { kind: StopKind::Filtered, by: String::new(), message: message.into() }
    }

    pub fn refused(message: impl Into<String>) -> Stop {
        Stop { kind: StopKind::Refused, by: String::new(), message: message.into() }
    }

    pub fn failed(message: impl Into<String>) -> Stop {
        Stop { kind: StopKind::Failed, by: String::new(), message: message.into() }
    }

    pub fn by(self, by: &str) -> Stop {
        if self.by.is_empty() { Stop { by: by.to_owned(), ..self } } else { self }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.by, self.message) }
    }
}

impl std::error::Error for Stop {}

//! What is wrong with an expression, and where in it.

use std::fmt;

/// A place in an expression; both count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub line: u32,
    pub column: u32,
}

/// Why an expression has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It is not an expression.
    Syntax,
    /// Names or types are wrong, whatever the values are.
    Check,
    NoSuchKey,
    NoSuchOverload,
    /// Out of range, not convertible, divided by zero, …
    Value,
    /// It takes too long or makes too much; nothing absorbs it.
    Budget,
}

/// Why an expression has no value, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub at: At,
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let At { line, column } = self.at;
        if line == 1 {
            write!(f, "{} (at character {column})", self.message)
        } else {
            write!(f, "{} (at line {line}, character {column})", self.message)
        }
    }
}

impl std::error::Error for Fault {}

/// A fault that does not know its place yet: what functions return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub kind: FaultKind,
    pub message: String,
}

impl Problem {
    pub fn value(message: impl Into<String>) -> Problem {
        Problem { kind: FaultKind::Value, message: message.into() }
    }

    pub fn overload(message: impl Into<String>) -> Problem {
        Problem { kind: FaultKind::NoSuchOverload, message: format!("no such overload: {}", message.into()) }
    }

    pub fn key(key: impl fmt::Display) -> Problem {
        Problem { kind: FaultKind::NoSuchKey, message: format!("no such key: {key}") }
    }

    pub fn at(self, at: At) -> Fault {
        Fault { kind: self.kind, at, message: self.message }
    }
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, at: At, message: impl Into<String>) -> Fault {
        Fault { kind, at, message: message.into() }
    }
}

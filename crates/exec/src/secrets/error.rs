//! Why a secret cannot be had.

/// What is wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretErrorKind {
    /// There is none of that name.
    Missing,
    /// It is there, and may not be read.
    Denied,
    /// It is marked for deletion.
    Deleted,
    /// The reference, or the value, is not of the form that is needed.
    Malformed,
    /// The place was asked too often.
    Throttled,
    /// The place cannot be reached.
    Unreachable,
    /// Something else that waiting does not mend.
    Other,
}

/// A sentence that names the reference and never the value.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{words}")]
pub struct SecretError {
    pub kind: SecretErrorKind,
    pub words: String,
}

impl SecretError {
    pub fn new(kind: SecretErrorKind, words: impl Into<String>) -> Self {
        SecretError { kind, words: words.into() }
    }

    pub fn missing(words: impl Into<String>) -> Self {
        SecretError::new(SecretErrorKind::Missing, words)
    }

    pub fn malformed(words: impl Into<String>) -> Self {
        SecretError::new(SecretErrorKind::Malformed, words)
    }

    /// Waiting and trying again cannot help.
    pub fn lasting(&self) -> bool {
        !matches!(self.kind, SecretErrorKind::Throttled | SecretErrorKind::Unreachable)
    }
}

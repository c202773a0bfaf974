//! Secrets, where they are kept: a text names one ([`SecretRef`]), a [`Provider`] fetches it, and [`Secrets`] remembers
//! it for a short time.
//!
//! Invariant: what is stored, shown and sent is the reference. The value is a [`Secret`]: it has no text form, is wiped
//! from memory with its last owner, and is part of no error.

mod aws_sm;
mod cache;
mod error;
mod local;
mod reference;
mod secret;

pub use aws_sm::SecretsManager;
pub use cache::{LIFETIME, Secrets, version};
pub use error::{SecretError, SecretErrorKind};
pub use local::{EnvProvider, FileProvider};
pub use reference::{SecretRef, Source};
pub use secret::Secret;

use async_trait::async_trait;

/// The largest secret, in bytes: what the AWS Secrets Manager takes.
pub const LARGEST: usize = 64 << 10;

/// A secret as it was found.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub value: Secret,
    /// Tells this value from an earlier or later one of the same reference; opaque, and says nothing about the value.
    pub version: String,
}

/// One place where secrets are kept.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Which references are its own.
    fn has(&self, source: &Source) -> bool;

    /// To ask costs next to nothing, so nothing is remembered: a change counts at once.
    fn is_near(&self) -> bool {
        false
    }

    /// Fetches the value, the whole of it: [`Secrets`] takes the field that the reference names.
    async fn get(&self, reference: &SecretRef) -> Result<Fetched, SecretError>;

    /// Makes the secret, or gives it a new value; returns the version. `token` is the same when the same put is
    /// repeated after a broken connection.
    async fn put(&self, reference: &SecretRef, value: &Secret, token: &str) -> Result<String, SecretError> {
        let _ = (value, token);
        Err(SecretError::malformed(format!("`{reference}` can only be read: write it where it is kept")))
    }
}

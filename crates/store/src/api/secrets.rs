//! Secrets under names.

use jiff::Timestamp;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    pub async fn secret(&self, name: &str) -> Result<Option<SecretRow>> {
        ask!(self, secret(name))
    }

    /// By name in order.
    pub async fn secrets(&self, paging: Paging) -> Result<Page<SecretRow>> {
        ask!(self, secrets(paging))
    }

    /// Makes a secret, or gives it another value; returns its revision.
    pub async fn put_secret(&self, name: &str, sealed: &str, mut now: Timestamp, mut audit: AuditEntry) -> Result<i64> {
        normalise::name("secret", name)?;
        normalise::time(&mut now);
        normalise::audit(&mut audit);
        ask!(self, put_secret(name, sealed, now, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_secret(&self, name: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_secret(name, audit))
    }
}

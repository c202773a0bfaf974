//! What each namespace may hold of the nodes.

use pitcrew_core::admission::Quota;

use super::ask;
use crate::error::{Result, StoreError};
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    /// By namespace in order.
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        ask!(self, quotas())
    }

    pub async fn put_quota(&self, quota: Quota, mut audit: AuditEntry) -> Result<()> {
        check(&quota)?;
        normalise::audit(&mut audit);
        ask!(self, put_quota(quota, audit))
    }

    /// The same, where the quota is still as it was `before`; otherwise nothing is done, and the answer is `false`.
    pub async fn change_quota(&self, before: Option<Quota>, quota: Quota, mut audit: AuditEntry) -> Result<bool> {
        check(&quota)?;
        normalise::audit(&mut audit);
        ask!(self, change_quota(before, quota, audit))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_quota(&self, namespace: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_quota(namespace, audit))
    }
}

fn check(quota: &Quota) -> Result<()> {
    normalise::name("namespace", &quota.namespace)?;
    if let Some(cohort) = &quota.cohort {
        normalise::name("cohort", cohort)?;
    }
    match quota.weight {
        1..=1000 => Ok(()),
        weight => Err(StoreError::Invalid(format!("a weight is 1 to 1000, and this is {weight}"))),
    }
}

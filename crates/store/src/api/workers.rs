//! Machines that come for their work, and what they enrol with.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

impl Store {
    /// Notes what machines may enrol with.
    pub async fn put_worker_token(&self, mut token: WorkerToken, mut audit: AuditEntry) -> Result<()> {
        normalise::name("worker token", &token.id)?;
        normalise::time(&mut token.created);
        normalise::times(&mut token.expires);
        normalise::text(&mut token.made_by);
        normalise::audit(&mut audit);
        ask!(self, put_worker_token(token, audit))
    }

    /// Every token, the oldest first, also those that no longer work.
    pub async fn worker_tokens(&self) -> Result<Vec<WorkerToken>> {
        ask!(self, worker_tokens())
    }

    /// The token of this digest.
    pub async fn worker_token(&self, hash: &str) -> Result<Option<WorkerToken>> {
        ask!(self, worker_token(hash))
    }

    /// Says whether it was there, and only then writes the audit entry.
    pub async fn delete_worker_token(&self, id: &str, mut audit: AuditEntry) -> Result<bool> {
        normalise::audit(&mut audit);
        ask!(self, delete_worker_token(id, audit))
    }

    /// Enrols a worker with the token of this digest, and uses that up by one; or does nothing.
    pub async fn enrol_worker(&self, token: &str, mut worker: WorkerRow, mut audit: AuditEntry) -> Result<Enrolment> {
        normalise::name("worker", &worker.name)?;
        normalise::time(&mut worker.enrolled);
        normalise::audit(&mut audit);
        let now = worker.enrolled;
        ask!(self, enrol_worker(token, worker, now, audit))
    }

    /// Every worker that is not revoked, by name, and then those that are.
    pub async fn workers(&self) -> Result<Vec<WorkerRow>> {
        ask!(self, workers())
    }

    /// The worker whose credential has this digest, if it is not revoked.
    pub async fn worker_by_credential(&self, credential: &str) -> Result<Option<WorkerRow>> {
        ask!(self, worker_by_credential(credential))
    }

    /// What ended on each worker since it enrolled, by its id; of one on which nothing ended there is nothing.
    pub async fn worker_ends(&self) -> Result<BTreeMap<String, WorkerEnds>> {
        ask!(self, worker_ends())
    }

    /// Does something to a worker that is not revoked; returns the row that then is. Without an audit entry it is the
    /// worker that tells of itself.
    pub async fn change_worker(
        &self,
        id: &str,
        mut change: WorkerChange,
        mut audit: Option<AuditEntry>,
    ) -> Result<Option<WorkerRow>> {
        normalise::times(&mut change.revoked);
        audit.iter_mut().for_each(normalise::audit);
        ask!(self, change_worker(id, change, audit))
    }
}

impl WorkerToken {
    /// Whether it works no more, and why.
    pub fn refusal(&self, now: Timestamp) -> Option<Enrolment> {
        match self {
            _ if self.expires.is_some_and(|at| at <= now) => Some(Enrolment::Expired),
            _ if self.uses == Some(0) => Some(Enrolment::UsedUp),
            _ => None,
        }
    }
}

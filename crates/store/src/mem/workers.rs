//! Workers in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Mem;
use crate::error::{Result, StoreError};
use crate::types::*;

impl Mem {
    pub fn put_worker_token(&self, token: WorkerToken, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        if state.worker_tokens.iter().any(|other| other.id == token.id || other.hash == token.hash) {
            return Err(StoreError::Conflict(format!("there is a token `{}` already", token.id)));
        }
        state.worker_tokens.push(token);
        state.worker_tokens.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        state.write_audit([audit]);
        Ok(())
    }

    pub fn worker_tokens(&self) -> Result<Vec<WorkerToken>> {
        Ok(self.lock().worker_tokens.clone())
    }

    pub fn worker_token(&self, hash: &str) -> Result<Option<WorkerToken>> {
        Ok(self.lock().worker_tokens.iter().find(|token| token.hash == hash).cloned())
    }

    pub fn delete_worker_token(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let before = state.worker_tokens.len();
        state.worker_tokens.retain(|token| token.id != id);
        let was_there = state.worker_tokens.len() < before;
        if was_there {
            state.write_audit([audit]);
        }
        Ok(was_there)
    }

    pub fn enrol_worker(&self, hash: &str, worker: WorkerRow, now: Timestamp, audit: AuditEntry) -> Result<Enrolment> {
        let mut state = self.lock();
        let Some(at) = state.worker_tokens.iter().position(|token| token.hash == hash) else {
            return Ok(Enrolment::NoSuchToken);
        };
        if let Some(refusal) = state.worker_tokens[at].refusal(now) {
            return Ok(refusal);
        }
        if state.workers.values().any(|other| other.revoked.is_none() && other.name == worker.name) {
            return Ok(Enrolment::NameTaken);
        }
        let uses = &mut state.worker_tokens[at].uses;
        *uses = uses.map(|uses| uses - 1);
        state.workers.insert(worker.id.clone(), worker);
        state.write_audit([audit]);
        Ok(Enrolment::Done)
    }

    pub fn workers(&self) -> Result<Vec<WorkerRow>> {
        let mut all: Vec<WorkerRow> = self.lock().workers.values().cloned().collect();
        all.sort_by(|a, b| {
            let key = |row: &WorkerRow| (row.revoked.is_some(), row.name.clone(), row.enrolled, row.id.clone());
            key(a).cmp(&key(b))
        });
        Ok(all)
    }

    pub fn worker_ends(&self) -> Result<BTreeMap<String, WorkerEnds>> {
        Ok(self.lock().worker_ends.clone())
    }

    pub fn worker_by_credential(&self, credential: &str) -> Result<Option<WorkerRow>> {
        let state = self.lock();
        let is_it = |row: &&WorkerRow| row.credential == credential && row.revoked.is_none();
        Ok(state.workers.values().find(is_it).cloned())
    }

    pub fn change_worker(
        &self,
        id: &str,
        change: WorkerChange,
        audit: Option<AuditEntry>,
    ) -> Result<Option<WorkerRow>> {
        let mut state = self.lock();
        let Some(row) = state.workers.get_mut(id).filter(|row| row.revoked.is_none()) else { return Ok(None) };
        row.apply(change);
        let row = row.clone();
        if row.revoked.is_some() {
            state.worker_ends.remove(id);
        }
        state.write_audit(audit);
        Ok(Some(row))
    }
}

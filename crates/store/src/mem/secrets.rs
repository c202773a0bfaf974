//! Secrets in memory.

use jiff::Timestamp;

use super::{Mem, reads::page};
use crate::error::Result;
use crate::types::*;

impl Mem {
    pub fn secret(&self, name: &str) -> Result<Option<SecretRow>> {
        Ok(self.lock().secrets.get(name).cloned())
    }

    pub fn secrets(&self, paging: Paging) -> Result<Page<SecretRow>> {
        Ok(page(self.lock().secrets.values().cloned().collect(), paging))
    }

    pub fn put_secret(&self, name: &str, sealed: &str, now: Timestamp, audit: AuditEntry) -> Result<i64> {
        let mut state = self.lock();
        let revision = state.secrets.get(name).map_or(1, |old| old.revision + 1);
        let row = SecretRow { name: name.to_owned(), value: sealed.to_owned(), revision, updated: now };
        state.secrets.insert(name.to_owned(), row);
        state.write_audit([audit]);
        Ok(revision)
    }

    pub fn delete_secret(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.secrets.remove(name).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }
}

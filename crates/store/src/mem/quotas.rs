//! Quotas in memory.

use pitcrew_core::admission::Quota;

use super::Mem;
use crate::error::Result;
use crate::types::*;

impl Mem {
    pub fn quotas(&self) -> Result<Vec<Quota>> {
        Ok(self.lock().quotas.values().cloned().collect())
    }

    pub fn put_quota(&self, quota: Quota, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        state.quotas.insert(quota.namespace.clone(), quota);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn change_quota(&self, before: Option<Quota>, quota: Quota, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let is_same = state.quotas.get(&quota.namespace) == before.as_ref();
        if is_same {
            state.quotas.insert(quota.namespace.clone(), quota);
            state.write_audit([audit]);
        }
        Ok(is_same)
    }

    pub fn delete_quota(&self, namespace: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.quotas.remove(namespace).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }
}

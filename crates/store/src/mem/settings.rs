//! Variables, pools, audit log and settings in memory.

use std::collections::BTreeSet;

use super::reads::{capped, page};
use super::{Mem, State};
use crate::error::Result;
use crate::types::*;

impl State {
    pub(super) fn set_variable(&mut self, set: VariableSet) {
        let old = self.variables.get(&set.key).map(|old| old.description.clone());
        let description = set.description.or(old).unwrap_or_default();
        self.variables.insert(set.key.clone(), Variable { key: set.key, value: set.value, description });
    }
}

impl Mem {
    pub fn variable(&self, key: &str) -> Result<Option<Variable>> {
        Ok(self.lock().variables.get(key).cloned())
    }

    pub fn variables(&self, paging: Paging) -> Result<Page<Variable>> {
        Ok(page(self.lock().variables.values().cloned().collect(), paging))
    }

    pub fn set_variable(&self, set: VariableSet, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        state.set_variable(set);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn delete_variable(&self, key: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.variables.remove(key).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }

    pub fn pool(&self, name: &str) -> Result<Option<Pool>> {
        Ok(self.lock().pools.get(name).cloned())
    }

    pub fn pools(&self) -> Result<Vec<Pool>> {
        Ok(self.lock().pools.values().cloned().collect())
    }

    pub fn put_pool(&self, pool: Pool, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        state.pools.insert(pool.name.clone(), pool);
        state.write_audit([audit]);
        Ok(())
    }

    pub fn delete_pool(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let existed = state.pools.remove(name).is_some();
        if existed {
            state.write_audit([audit]);
        }
        Ok(existed)
    }

    pub fn record_audit(&self, entry: AuditEntry) -> Result<()> {
        self.lock().write_audit([entry]);
        Ok(())
    }

    pub fn audit(&self, filter: &AuditFilter, paging: Paging) -> Result<Page<AuditRow>> {
        let state = self.lock();
        let kept = state.audit.iter().rev().filter(|AuditRow { id, entry }| {
            filter.workflow.as_ref().is_none_or(|workflow| entry.workflow.as_ref() == Some(workflow))
                && (filter.among.is_empty() || entry.workflow.as_ref().is_some_and(|id| filter.among.contains(id)))
                && filter.run.as_ref().is_none_or(|run| entry.run.as_ref() == Some(run))
                && filter.event.as_ref().is_none_or(|event| entry.event == *event)
                && filter.event_prefix.as_ref().is_none_or(|prefix| entry.event.starts_with(prefix))
                && filter.who.as_ref().is_none_or(|who| entry.who == *who)
                && filter.at.holds(Some(entry.at))
                && filter.before.is_none_or(|before| *id < before)
        });
        Ok(capped(kept.cloned().collect(), paging))
    }

    pub fn audit_entry(&self, id: i64) -> Result<Option<AuditRow>> {
        Ok(self.lock().audit.iter().find(|row| row.id == id).cloned())
    }

    pub fn audit_events(&self) -> Result<Vec<String>> {
        let state = self.lock();
        let events: BTreeSet<&String> = state.audit.iter().map(|row| &row.entry.event).collect();
        Ok(events.into_iter().cloned().collect())
    }

    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        Ok(self.lock().settings.get(key).cloned())
    }

    pub fn put_setting(&self, key: &str, value: &str) -> Result<()> {
        self.lock().settings.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    pub fn put_setting_audited(&self, key: &str, value: &str, audit: AuditEntry) -> Result<()> {
        let mut state = self.lock();
        state.settings.insert(key.to_owned(), value.to_owned());
        state.write_audit([audit]);
        Ok(())
    }

    pub fn swap_setting(&self, key: &str, before: Option<&str>, value: &str) -> Result<bool> {
        let settings = &mut self.lock().settings;
        let is_same = settings.get(key).map(String::as_str) == before;
        if is_same {
            settings.insert(key.to_owned(), value.to_owned());
        }
        Ok(is_same)
    }

    pub fn setting_or_insert(&self, key: &str, value: &str) -> Result<String> {
        Ok(self.lock().settings.entry(key.to_owned()).or_insert_with(|| value.to_owned()).clone())
    }
}

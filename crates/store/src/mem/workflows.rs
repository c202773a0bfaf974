//! Workflows and broken files in memory.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pitcrew_core::id::WorkflowId;

use super::{Mem, reads::page};
use crate::error::{Result, StoreError};
use crate::types::*;

impl Mem {
    pub fn put_workflow(&self, row: &WorkflowRow, source: &str, now: Timestamp) -> Result<PutWorkflow> {
        let mut state = self.lock();
        let key = (row.id.clone(), row.version.clone());
        let known_version = state.versions.contains_key(&key);
        if !known_version {
            state.versions.insert(key, (now, source.to_owned()));
        }
        let Some(old) = state.workflows.get_mut(&row.id) else {
            state.workflows.insert(row.id.clone(), row.clone());
            return Ok(PutWorkflow::Created);
        };
        let new = WorkflowRow { is_paused: old.is_paused, ..row.clone() };
        if *old == new && known_version {
            return Ok(PutWorkflow::Unchanged);
        }
        *old = new;
        Ok(PutWorkflow::Updated)
    }

    pub fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRow>> {
        Ok(self.lock().workflows.get(id).cloned())
    }

    pub fn workflows(&self, filter: &WorkflowFilter, paging: Paging) -> Result<Page<WorkflowRow>> {
        let part = filter.contains.as_deref().unwrap_or("").to_ascii_lowercase();
        let state = self.lock();
        let kept = state.workflows.values().filter(|row| {
            row.id.as_str().to_ascii_lowercase().contains(&part)
                && filter.tags.iter().all(|tag| row.tags.contains(tag))
                && filter.paused.is_none_or(|paused| row.is_paused == paused)
                && filter.active.is_none_or(|active| row.active == active)
        });
        Ok(page(kept.cloned().collect(), paging))
    }

    pub fn tags(&self) -> Result<Vec<String>> {
        let state = self.lock();
        let tags: BTreeSet<&String> =
            state.workflows.values().filter(|row| row.active).flat_map(|row| &row.tags).collect();
        Ok(tags.into_iter().cloned().collect())
    }

    pub fn version_source(&self, workflow: &WorkflowId, hash: &str) -> Result<Option<String>> {
        let state = self.lock();
        Ok(state.versions.get(&(workflow.clone(), hash.to_owned())).map(|(_, source)| source.clone()))
    }

    pub fn versions(&self, workflow: &WorkflowId) -> Result<Vec<Version>> {
        let state = self.lock();
        let of_workflow = state.versions.iter().filter(|((id, _), _)| id == workflow);
        let mut versions: Vec<Version> =
            of_workflow.map(|((_, hash), (created, _))| Version { hash: hash.clone(), created: *created }).collect();
        versions.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.hash.cmp(&b.hash)));
        Ok(versions)
    }

    pub fn set_paused(&self, workflow: &WorkflowId, paused: bool, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let row = state.workflows.get_mut(workflow).ok_or_else(|| StoreError::not_found("workflow", workflow))?;
        let changed = row.is_paused != paused;
        row.is_paused = paused;
        if changed {
            state.write_audit([audit]);
        }
        Ok(changed)
    }

    pub fn set_next_run(&self, workflow: &WorkflowId, next_run: Option<Timestamp>) -> Result<()> {
        let mut state = self.lock();
        let row = state.workflows.get_mut(workflow).ok_or_else(|| StoreError::not_found("workflow", workflow))?;
        row.next_run = next_run;
        Ok(())
    }

    pub fn deactivate(&self, workflow: &WorkflowId) -> Result<bool> {
        let mut state = self.lock();
        Ok(state.workflows.get_mut(workflow).is_some_and(|row| std::mem::replace(&mut row.active, false)))
    }

    pub fn put_file_error(&self, error: FileError) -> Result<()> {
        let mut state = self.lock();
        if state.file_errors.get(&error.path).is_none_or(|old| old.message != error.message) {
            state.file_errors.insert(error.path.clone(), error);
        }
        Ok(())
    }

    pub fn clear_file_error(&self, path: &str) -> Result<bool> {
        Ok(self.lock().file_errors.remove(path).is_some())
    }

    pub fn file_errors(&self) -> Result<Vec<FileError>> {
        Ok(self.lock().file_errors.values().cloned().collect())
    }
}

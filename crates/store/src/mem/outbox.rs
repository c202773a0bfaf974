//! The outbox and backfills in memory.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::reads::{capped, page};
use super::{Mem, State};
use crate::error::{Result, StoreError};
use crate::types::*;

impl State {
    /// Writes those that are new, and says how many.
    pub(super) fn add_notices(&mut self, notices: Vec<NewNotice>) -> u64 {
        let before = self.notices.len();
        for notice in notices {
            if self.notices.values().any(|old| old.notice.dedupe == notice.dedupe) {
                continue;
            }
            self.last_notice += 1;
            let (id, due) = (self.last_notice, notice.created);
            let state = NoticeState::Waiting;
            let row = Notice { id, notice, state, due, tries: 0, error: String::new(), sent: None, merged_into: None };
            self.notices.insert(id, row);
        }
        (self.notices.len() - before) as u64
    }
}

impl Mem {
    pub fn add_notices(&self, notices: Vec<NewNotice>) -> Result<u64> {
        let added = self.lock().add_notices(notices);
        self.bell.ring();
        Ok(added)
    }

    pub fn notice(&self, id: i64) -> Result<Option<Notice>> {
        Ok(self.lock().notices.get(&id).cloned())
    }

    fn waiting(&self) -> Vec<Notice> {
        let state = self.lock();
        let waiting = state.notices.values().filter(|notice| notice.state == NoticeState::Waiting);
        let mut waiting: Vec<Notice> = waiting.cloned().collect();
        waiting.sort_by_key(|notice| (notice.due, notice.id));
        waiting
    }

    pub fn due_notices(&self, now: Timestamp, limit: u32) -> Result<Vec<Notice>> {
        let due = self.waiting().into_iter().filter(|notice| notice.due <= now);
        Ok(due.take(limit as usize).collect())
    }

    pub fn next_notice_due(&self) -> Result<Option<Timestamp>> {
        Ok(self.waiting().first().map(|notice| notice.due))
    }

    pub fn settle_notices(&self, settled: Vec<(i64, Settled)>) -> Result<u64> {
        let mut state = self.lock();
        let mut changed = 0;
        for (id, settled) in settled {
            let notice = state.notices.get_mut(&id).filter(|notice| notice.state == NoticeState::Waiting);
            let Some(notice) = notice else { continue };
            changed += 1;
            match settled {
                Settled::Sent { at } => {
                    (notice.state, notice.sent) = (NoticeState::Sent, Some(at));
                    notice.tries += 1;
                }
                Settled::Retry { at, error } => {
                    (notice.due, notice.error) = (at, error);
                    notice.tries += 1;
                }
                Settled::Failed { error } => {
                    (notice.state, notice.error) = (NoticeState::Failed, error);
                    notice.tries += 1;
                }
                Settled::Merged { into } => (notice.state, notice.merged_into) = (NoticeState::Merged, Some(into)),
                Settled::Later { at } => notice.due = at,
            }
        }
        Ok(changed)
    }

    pub fn retry_notice(&self, id: i64, at: Timestamp, audit: AuditEntry) -> Result<bool> {
        let mut state = self.lock();
        let again = |notice: &&mut Notice| matches!(notice.state, NoticeState::Failed | NoticeState::Waiting);
        let Some(notice) = state.notices.get_mut(&id).filter(again) else { return Ok(false) };
        (notice.state, notice.due, notice.tries) = (NoticeState::Waiting, at, 0);
        state.write_audit([audit]);
        drop(state);
        self.bell.ring();
        Ok(true)
    }

    pub fn notices(&self, filter: &NoticeFilter, paging: Paging) -> Result<Page<Notice>> {
        let state = self.lock();
        let kept = state.notices.values().rev().filter(|row| {
            filter.state.is_none_or(|state| row.state == state)
                && filter.channel.as_ref().is_none_or(|channel| row.notice.channel == *channel)
                && filter.workflow.as_ref().is_none_or(|workflow| row.notice.workflow.as_ref() == Some(workflow))
        });
        Ok(capped(kept.cloned().collect(), paging))
    }

    pub fn create_backfill(&self, new: NewBackfill, audit: AuditEntry) -> Result<Backfill> {
        let mut state = self.lock();
        let open = |old: &&Backfill| old.completed.is_none() && !old.cancelled;
        if let Some(old) = state.backfills.values().filter(open).find(|old| old.new.workflow == new.workflow) {
            return Err(StoreError::Conflict(format!("`{}` has backfill {} under way", new.workflow, old.id)));
        }
        state.last_backfill += 1;
        let backfill = Backfill {
            id: state.last_backfill,
            updated: new.created,
            new,
            is_paused: false,
            planned: false,
            cancelled: false,
            completed: None,
        };
        state.backfills.insert(backfill.id, backfill.clone());
        state.write_audit([audit]);
        Ok(backfill)
    }

    pub fn backfill(&self, id: i64) -> Result<Option<Backfill>> {
        Ok(self.lock().backfills.get(&id).cloned())
    }

    pub fn backfills(&self, filter: &BackfillFilter, paging: Paging) -> Result<Page<Backfill>> {
        let state = self.lock();
        let kept = state.backfills.values().rev().filter(|row| {
            filter.workflow.as_ref().is_none_or(|workflow| row.new.workflow == *workflow)
                && filter.open.is_none_or(|open| row.is_open() == open)
        });
        Ok(page(kept.cloned().collect(), paging))
    }

    pub fn update_backfill(
        &self,
        id: i64,
        change: BackfillChange,
        at: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool> {
        let mut state = self.lock();
        let row = state.backfills.get_mut(&id).ok_or_else(|| StoreError::not_found("backfill", id))?;
        let old = row.clone();
        match change {
            _ if old.completed.is_some() => {}
            BackfillChange::Completed => row.completed = Some(at),
            _ if old.cancelled => {}
            BackfillChange::Pause(paused) => row.is_paused = paused,
            BackfillChange::Planned => row.planned = true,
            BackfillChange::Cancelled => row.cancelled = true,
        }
        let changed = *row != old;
        if changed {
            row.updated = at;
            state.write_audit(audit);
        }
        Ok(changed)
    }

    pub fn backfill_counts(&self, ids: &[i64]) -> Result<BTreeMap<i64, RunCounts>> {
        let mut counts: BTreeMap<i64, RunCounts> = BTreeMap::new();
        for run in self.lock().runs.values() {
            if let Some(id) = run.record.backfill.filter(|id| ids.contains(id)) {
                *counts.entry(id).or_default().of_mut(run.record.state) += 1;
            }
        }
        Ok(counts)
    }
}

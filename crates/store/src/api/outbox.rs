//! The outbox and backfills: work that the server has to come back to.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::ask;
use crate::error::Result;
use crate::types::*;
use crate::{Kind, Store, normalise};

/// The outbox.
impl Store {
    /// Puts notices into the outbox that belong to no commit of a run, and says how many were new.
    pub async fn add_notices(&self, mut notices: Vec<NewNotice>) -> Result<u64> {
        notices.iter_mut().for_each(normalise::notice);
        if notices.is_empty() {
            return Ok(0);
        }
        ask!(self, add_notices(notices))
    }

    pub async fn notice(&self, id: i64) -> Result<Option<Notice>> {
        ask!(self, notice(id))
    }

    /// The notices that are to be tried now, the one that waits longest first.
    pub async fn due_notices(&self, now: Timestamp, limit: u32) -> Result<Vec<Notice>> {
        ask!(self, due_notices(now, limit))
    }

    /// When the next notice is due; it may be past.
    pub async fn next_notice_due(&self) -> Result<Option<Timestamp>> {
        ask!(self, next_notice_due())
    }

    /// Notes how a try ended. Says whether the notice was still waiting: one that is settled stays as it is.
    pub async fn settle_notice(&self, id: i64, settled: Settled) -> Result<bool> {
        Ok(self.settle_notices(vec![(id, settled)]).await? == 1)
    }

    /// Notes how tries ended, all or none; of notices that are settled already nothing changes. Says how many were
    /// still waiting.
    pub async fn settle_notices(&self, mut settled: Vec<(i64, Settled)>) -> Result<u64> {
        for (_, settled) in &mut settled {
            match settled {
                Settled::Sent { at } | Settled::Later { at } => normalise::time(at),
                Settled::Retry { at, error } => {
                    normalise::time(at);
                    normalise::text(error);
                }
                Settled::Failed { error } => normalise::text(error),
                Settled::Merged { .. } => {}
            }
        }
        if settled.is_empty() {
            return Ok(0);
        }
        ask!(self, settle_notices(settled))
    }

    /// Lets a notice that was given up, or that waits for its next try, be tried at once and as often as a new one.
    /// Says whether it was one of these, and only then writes the audit entry.
    pub async fn retry_notice(&self, id: i64, mut at: Timestamp, mut audit: AuditEntry) -> Result<bool> {
        normalise::time(&mut at);
        normalise::audit(&mut audit);
        ask!(self, retry_notice(id, at, audit))
    }

    /// The newest first. `total` is counted up to [`TOTAL_CAP`].
    pub async fn notices(&self, filter: &NoticeFilter, paging: Paging) -> Result<Page<Notice>> {
        ask!(self, notices(filter, paging))
    }
}

/// Backfills.
impl Store {
    /// Makes a backfill that is not planned yet. A workflow whose backfill still makes or begins runs cannot have a
    /// second one: that is a [`StoreError::Conflict`](crate::StoreError::Conflict).
    pub async fn create_backfill(&self, mut new: NewBackfill, mut audit: AuditEntry) -> Result<Backfill> {
        normalise::backfill(&mut new)?;
        normalise::audit(&mut audit);
        ask!(self, create_backfill(new, audit))
    }

    pub async fn backfill(&self, id: i64) -> Result<Option<Backfill>> {
        ask!(self, backfill(id))
    }

    /// The newest first.
    pub async fn backfills(&self, filter: &BackfillFilter, paging: Paging) -> Result<Page<Backfill>> {
        ask!(self, backfills(filter, paging))
    }

    /// Says whether that changed anything, and only then writes the audit entry. One that is completed stays as
    /// it is; a cancelled one can only be completed.
    pub async fn update_backfill(
        &self,
        id: i64,
        change: BackfillChange,
        mut at: Timestamp,
        mut audit: Option<AuditEntry>,
    ) -> Result<bool> {
        normalise::time(&mut at);
        audit.iter_mut().for_each(normalise::audit);
        ask!(self, update_backfill(id, change, at, audit))
    }

    /// How many runs of these backfills are in which state; those without runs are left out.
    pub async fn backfill_counts(&self, ids: &[i64]) -> Result<BTreeMap<i64, RunCounts>> {
        ask!(self, backfill_counts(ids))
    }
}

//! The outbox and backfills.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::state::RunState;
use sqlx::AssertSqlSafe;

use super::db::{Row, Tx, Value, args};
use super::lists::{LIST, Where, in_list};
use super::{Sql, commit, rows};
use crate::error::{Result, StoreError};
use crate::types::*;

const NOTICE: &str = "SELECT id, dedupe, channel, event, workflow, run, body, created, state, due, tries, error, \
     sent, merged_into FROM notices";

fn notice(row: &Row) -> Result<Notice> {
    let mut row = row.fields();
    Ok(Notice {
        id: row.take()?,
        notice: NewNotice {
            dedupe: row.take()?,
            channel: row.take()?,
            event: row.take()?,
            workflow: row.parse_optional()?,
            run: row.take::<Option<i64>>()?.map(pitcrew_core::id::RunKey),
            body: row.json()?,
            created: row.time()?,
        },
        state: row.word(NoticeState::from_name)?,
        due: row.time()?,
        tries: row.int()?,
        error: row.take()?,
        sent: row.time_optional()?,
        merged_into: row.take()?,
    })
}

const BACKFILL: &str = "SELECT id, workflow, from_date, to_date, reprocess, reversed, max_active_runs, conf, made_by, \
     created, is_paused, planned, cancelled, completed, updated FROM backfills";

fn backfill(row: &Row) -> Result<Backfill> {
    let mut row = row.fields();
    Ok(Backfill {
        id: row.take()?,
        new: NewBackfill {
            workflow: row.parse()?,
            from: row.time()?,
            to: row.time()?,
            reprocess: row.word(Reprocess::from_name)?,
            reverse: row.take()?,
            max_active_runs: row.int()?,
            conf: row.json()?,
            by: row.take()?,
            created: row.time()?,
        },
        is_paused: row.take()?,
        planned: row.take()?,
        cancelled: row.take()?,
        completed: row.time_optional()?,
        updated: row.time()?,
    })
}

/// Writes notices that are new, and says how many.
pub(super) async fn write_notices<'a>(tx: &mut Tx, notices: impl IntoIterator<Item = &'a NewNotice>) -> Result<u64> {
    let mut notices: Vec<&NewNotice> = notices.into_iter().collect();
    // Stable, so the first of equal ones wins; ordered, so that two servers never wait for each other.
    notices.sort_by(|a, b| a.dedupe.cmp(&b.dedupe));
    let sql = "INSERT INTO notices (dedupe, channel, event, workflow, run, body, created, due) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (dedupe) DO NOTHING";
    let mut added = 0;
    for notice in notices {
        let workflow = notice.workflow.as_ref().map(|id| id.as_str());
        let (run, body) = (notice.run.map(|key| key.0), rows::json(&notice.body)?);
        let (dedupe, channel, event) = (&notice.dedupe, &notice.channel, &notice.event);
        added += tx.execute(sql, args![dedupe, channel, event, workflow, run, body, notice.created]).await?;
    }
    Ok(added)
}

impl Sql {
    pub async fn add_notices(&self, notices: Vec<NewNotice>) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let added = write_notices(&mut tx, &notices).await?;
        tx.commit().await?;
        self.bell.ring();
        Ok(added)
    }

    pub async fn notice(&self, id: i64) -> Result<Option<Notice>> {
        self.one(format!("{NOTICE} WHERE id = $1"), args![id], notice).await
    }

    pub async fn due_notices(&self, now: Timestamp, limit: u32) -> Result<Vec<Notice>> {
        let sql = format!("{NOTICE} WHERE state = 'waiting' AND due <= $1 ORDER BY due, id LIMIT $2");
        self.all(sql, args![now, limit], notice).await
    }

    pub async fn next_notice_due(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT due FROM notices WHERE state = 'waiting' ORDER BY due, id LIMIT 1".to_owned();
        self.one(sql, args![], |row| row.fields().time()).await
    }

    pub async fn settle_notices(&self, settled: Vec<(i64, Settled)>) -> Result<u64> {
        let waiting = "WHERE id = $1 AND state = 'waiting'";
        let mut changed = 0;
        let mut tx = self.db.begin().await?;
        for (id, settled) in settled {
            let (set, values) = match settled {
                Settled::Sent { at } => ("state = 'sent', sent = $2, tries = tries + 1", args![id, at]),
                Settled::Retry { at, error } => ("due = $2, error = $3, tries = tries + 1", args![id, at, error]),
                Settled::Failed { error } => ("state = 'failed', error = $2, tries = tries + 1", args![id, error]),
                Settled::Merged { into } => ("state = 'merged', merged_into = $2", args![id, into]),
                Settled::Later { at } => ("due = $2", args![id, at]),
            };
            changed += tx.execute(AssertSqlSafe(format!("UPDATE notices SET {set} {waiting}")), values).await?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    pub async fn retry_notice(&self, id: i64, at: Timestamp, audit: AuditEntry) -> Result<bool> {
        let sql = "UPDATE notices SET state = 'waiting', due = $2, tries = 0 \
             WHERE id = $1 AND (state = 'failed' OR state = 'waiting')";
        let mut tx = self.db.begin().await?;
        let changed = tx.execute(sql, args![id, at]).await? > 0;
        if changed {
            commit::write_audit(&mut tx, [&audit]).await?;
            Sql::tell_others(&mut tx).await?;
        }
        tx.commit().await?;
        self.bell.ring();
        Ok(changed)
    }

    pub async fn notices(&self, filter: &NoticeFilter, paging: Paging) -> Result<Page<Notice>> {
        let mut kept = Where::default();
        if let Some(state) = filter.state {
            kept.and("state = ?", state.name());
        }
        if let Some(channel) = &filter.channel {
            kept.and("channel = ?", channel);
        }
        if let Some(workflow) = &filter.workflow {
            kept.and("workflow = ?", workflow.as_str());
        }
        let (limit, args) = kept.paged(paging);
        let text = kept.text();
        let rows = self.all(format!("{NOTICE}{text} ORDER BY id DESC{limit}"), args, notice).await?;
        let counted = self.count_capped(&format!("FROM notices{text}"), kept.args()).await?;
        Ok(Page::capped(rows, counted, paging))
    }

    pub async fn create_backfill(&self, new: NewBackfill, audit: AuditEntry) -> Result<Backfill> {
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO backfills (workflow, from_date, to_date, reprocess, reversed, max_active_runs, conf, \
             made_by, created, updated) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) RETURNING id";
        let (workflow, reprocess, most) = (new.workflow.as_str(), new.reprocess.name(), new.max_active_runs);
        let conf = rows::json(&new.conf)?;
        let values = args![workflow, new.from, new.to, reprocess, new.reverse, most, conf, &new.by, new.created];
        let row = match tx.fetch_one(sql, values).await {
            Err(StoreError::Conflict(_)) => {
                drop(tx);
                let sql = "SELECT id FROM backfills WHERE workflow = $1 AND completed IS NULL AND NOT cancelled";
                let old = self.db.read_one(sql, args![workflow]).await?;
                let old: i64 = old.map_or(Ok(0), |row| row.get(0))?;
                return Err(StoreError::Conflict(format!("`{workflow}` has backfill {old} under way")));
            }
            row => row?,
        };
        let id = row.ok_or_else(|| StoreError::Backend("an insert returned no id".to_owned()))?.get(0)?;
        commit::write_audit(&mut tx, [&audit]).await?;
        Sql::tell_others(&mut tx).await?;
        tx.commit().await?;
        self.bell.ring();
        let updated = new.created;
        let (is_paused, planned, cancelled, completed) = (false, false, false, None);
        Ok(Backfill { id, new, is_paused, planned, cancelled, completed, updated })
    }

    pub async fn backfill(&self, id: i64) -> Result<Option<Backfill>> {
        self.one(format!("{BACKFILL} WHERE id = $1"), args![id], backfill).await
    }

    pub async fn backfills(&self, filter: &BackfillFilter, paging: Paging) -> Result<Page<Backfill>> {
        let mut kept = Where::default();
        if let Some(workflow) = &filter.workflow {
            kept.and("workflow = ?", workflow.as_str());
        }
        match filter.open {
            Some(true) => kept.is("completed IS NULL"),
            Some(false) => kept.is("completed IS NOT NULL"),
            None => {}
        }
        let (limit, args) = kept.paged(paging);
        let text = kept.text();
        let rows = self.all(format!("{BACKFILL}{text} ORDER BY id DESC{limit}"), args, backfill).await?;
        let total = self.count(format!("SELECT count(*) FROM backfills{text}"), kept.args()).await?;
        Ok(Page { rows, total })
    }

    pub async fn update_backfill(
        &self,
        id: i64,
        change: BackfillChange,
        at: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool> {
        let (set, unless) = match change {
            BackfillChange::Pause(true) => ("is_paused = TRUE", "cancelled OR is_paused"),
            BackfillChange::Pause(false) => ("is_paused = FALSE", "cancelled OR NOT is_paused"),
            BackfillChange::Planned => ("planned = TRUE", "cancelled OR planned"),
            BackfillChange::Cancelled => ("cancelled = TRUE", "cancelled"),
            BackfillChange::Completed => ("completed = $2", "FALSE"),
        };
        let sql =
            format!("UPDATE backfills SET {set}, updated = $2 WHERE id = $1 AND completed IS NULL AND NOT ({unless})");
        let mut tx = self.db.begin().await?;
        let changed = tx.execute(AssertSqlSafe(sql), args![id, at]).await? > 0;
        if changed {
            commit::write_audit(&mut tx, &audit).await?;
            Sql::tell_others(&mut tx).await?;
        } else {
            let found = tx.fetch_one("SELECT 1 FROM backfills WHERE id = $1", args![id]).await?;
            found.ok_or_else(|| StoreError::not_found("backfill", id))?;
        }
        tx.commit().await?;
        self.bell.ring();
        Ok(changed)
    }

    pub async fn backfill_counts(&self, ids: &[i64]) -> Result<BTreeMap<i64, RunCounts>> {
        let mut counts: BTreeMap<i64, RunCounts> = BTreeMap::new();
        for part in ids.chunks(LIST) {
            let (list, args) = in_list(1, part.iter().map(|id| Value::from(*id)).collect());
            let sql = format!(
                "SELECT backfill, state, count(*) FROM runs WHERE backfill IN ({list}) GROUP BY backfill, state"
            );
            for row in &self.db.read(AssertSqlSafe(sql), args).await? {
                let mut row = row.fields();
                let (id, state) = (row.take()?, row.word(RunState::from_name)?);
                *counts.entry(id).or_default().of_mut(state) = row.int()?;
            }
        }
        Ok(counts)
    }
}

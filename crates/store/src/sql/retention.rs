//! Removing what is old, a little at a time.
//!
//! A run goes in two steps. Its row is deleted and its key noted in one transaction: from then on it is gone
//! for everybody. Its other rows follow in batches, and the note stays until the caller has deleted what else
//! there is. So a crash at any point leaves nothing behind that nobody knows of.

use jiff::Timestamp;
use pitcrew_core::id::{RunKey, WorkflowId};

use super::db::{Row, args};
use super::{Sql, commit};
use crate::error::{Result, StoreError};
use crate::types::{AuditEntry, Removed, RemovedRun};

/// Rows per transaction: other writers wait for one at most.
const BATCH: u32 = 2000;
/// Runs per transaction.
const RUNS: u32 = 100;

/// `state || ''` keeps SQLite from looking for final runs first, which nearly all are, instead of old ones.
const DELETE_RUNS: &str = "DELETE FROM runs WHERE key IN (SELECT key FROM runs \
       WHERE ended < $1 AND state || '' IN ('success', 'failed', 'cancelled') ORDER BY ended LIMIT $2) \
     AND ended < $1 AND state IN ('success', 'failed', 'cancelled') RETURNING key, workflow, run_id";

const DELETE_INSTANCES: &str = "DELETE FROM instances WHERE run = $1 AND (task, map_index) IN \
     (SELECT task, map_index FROM instances WHERE run = $1 LIMIT $2)";

const DELETE_ATTEMPTS: &str = "DELETE FROM attempts WHERE run = $1 AND (task, map_index, number) IN \
     (SELECT task, map_index, number FROM attempts WHERE run = $1 LIMIT $2)";

const DELETE_AUDIT: &str = "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 LIMIT $2)";

const DELETE_NOTICES: &str = "DELETE FROM notices WHERE id IN \
     (SELECT id FROM notices WHERE created < $1 AND state <> 'waiting' LIMIT $2)";

const DELETE_BACKFILLS: &str = "DELETE FROM backfills WHERE completed < $1 \
     AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.backfill = backfills.id)";

const DELETE_VERSIONS: &str = "DELETE FROM versions WHERE created < $1 \
     AND NOT EXISTS (SELECT 1 FROM workflows WHERE workflows.id = versions.workflow \
                     AND workflows.version = versions.hash) \
     AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.workflow = versions.workflow AND runs.version = versions.hash)";

impl Sql {
    pub async fn retention(&self, before: Timestamp) -> Result<Removed> {
        while self.remove_runs(before).await? == RUNS as usize {}
        let noted = self.db.read("SELECT key, workflow, run_id FROM removed_runs ORDER BY key", args![]).await?;
        let runs = noted.iter().map(removed_run).collect::<Result<Vec<_>>>()?;
        for run in &runs {
            self.remove_rows(run.key).await?;
        }
        let audit = self.delete_batches(DELETE_AUDIT, before).await?;
        let notices = self.delete_batches(DELETE_NOTICES, before).await?;
        let backfills = self.execute(DELETE_BACKFILLS, args![before]).await?;
        let versions = self.execute(DELETE_VERSIONS, args![before]).await?;
        if !runs.is_empty() {
            self.bell.ring();
        }
        Ok(Removed { runs, audit, versions, notices, backfills })
    }

    /// Deletes a batch after the other, and says how many rows there were.
    async fn delete_batches(&self, sql: &'static str, before: Timestamp) -> Result<u64> {
        let mut all = 0;
        loop {
            let deleted = self.execute(sql, args![before, BATCH]).await?;
            all += deleted;
            if deleted < u64::from(BATCH) {
                return Ok(all);
            }
        }
    }

    /// Deletes the rows of some runs, notes their keys, and says how many there were.
    async fn remove_runs(&self, before: Timestamp) -> Result<usize> {
        let mut tx = self.db.begin().await?;
        let deleted = tx.fetch(DELETE_RUNS, args![before, RUNS]).await?;
        for run in &deleted {
            let run = removed_run(run)?;
            let sql = "INSERT INTO removed_runs (key, workflow, run_id) VALUES ($1, $2, $3)";
            tx.execute(sql, args![run.key.0, run.workflow.as_str(), run.run_id.as_str()]).await?;
        }
        tx.commit().await?;
        Ok(deleted.len())
    }

    pub async fn delete_run(&self, key: RunKey, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let sql = "DELETE FROM runs WHERE key = $1 AND state IN ('success', 'failed', 'cancelled') \
             RETURNING key, workflow, run_id";
        let Some(row) = tx.fetch(sql, args![key.0]).await?.first().map(removed_run).transpose()? else {
            let is_there = !tx.fetch("SELECT key FROM runs WHERE key = $1", args![key.0]).await?.is_empty();
            return if is_there { Err(StoreError::not_over(key)) } else { Ok(false) };
        };
        let sql = "INSERT INTO removed_runs (key, workflow, run_id) VALUES ($1, $2, $3)";
        tx.execute(sql, args![row.key.0, row.workflow.as_str(), row.run_id.as_str()]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        self.remove_rows(key).await?;
        self.bell.ring();
        Ok(true)
    }

    pub async fn delete_workflow(&self, id: &WorkflowId, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let sql = "DELETE FROM workflows WHERE id = $1 AND NOT active \
             AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.workflow = workflows.id)";
        if tx.execute(sql, args![id.as_str()]).await? == 0 {
            let is_there = !tx.fetch("SELECT id FROM workflows WHERE id = $1", args![id.as_str()]).await?.is_empty();
            return if is_there { Err(StoreError::still_used(id)) } else { Ok(false) };
        }
        tx.execute("DELETE FROM workflow_tags WHERE workflow = $1", args![id.as_str()]).await?;
        tx.execute("DELETE FROM versions WHERE workflow = $1", args![id.as_str()]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes what hangs on a run, batch by batch.
    async fn remove_rows(&self, key: RunKey) -> Result<()> {
        for delete in [DELETE_ATTEMPTS, DELETE_INSTANCES] {
            while self.execute(delete, args![key.0, BATCH]).await? == u64::from(BATCH) {}
        }
        self.execute("DELETE FROM objects WHERE run = $1", args![key.0]).await?;
        Ok(())
    }

    /// One statement in a transaction of its own; the number of rows it changed.
    pub(super) async fn execute(&self, sql: &'static str, args: Vec<super::db::Value<'_>>) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let count = tx.execute(sql, args).await?;
        tx.commit().await?;
        Ok(count)
    }

    pub async fn retention_done(&self, keys: &[RunKey]) -> Result<()> {
        let mut tx = self.db.begin().await?;
        for key in keys {
            tx.execute("DELETE FROM run_files WHERE run = $1", args![key.0]).await?;
            tx.execute("DELETE FROM removed_runs WHERE key = $1", args![key.0]).await?;
        }
        tx.commit().await
    }
}

fn removed_run(row: &Row) -> Result<RemovedRun> {
    let mut row = row.fields();
    Ok(RemovedRun { key: RunKey(row.take()?), workflow: row.parse()?, run_id: row.parse()? })
}

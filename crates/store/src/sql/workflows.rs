//! Workflows, their versions and tags, and broken files. What is unchanged is not written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::id::WorkflowId;
use sqlx::AssertSqlSafe;

use super::db::{Value, args};
use super::lists::{LIST, Where, containing, in_list};
use super::{Sql, commit, rows};
use crate::error::{Result, StoreError};
use crate::types::*;

/// `is_paused` is not updated: it is the users'.
const PUT: &str = "INSERT INTO workflows (id, path, version, description, schedule, is_paused, active, next_run) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (id) DO UPDATE SET path = excluded.path, \
     version = excluded.version, description = excluded.description, schedule = excluded.schedule, \
     active = excluded.active, next_run = excluded.next_run";

impl Sql {
    pub async fn put_workflow(&self, row: &WorkflowRow, source: &str, now: Timestamp) -> Result<PutWorkflow> {
        let old = self.workflow(&row.id).await?;
        if let Some(old) = &old
            && *old == (WorkflowRow { is_paused: old.is_paused, ..row.clone() })
            && self.has_version(&row.id, &row.version).await?
        {
            return Ok(PutWorkflow::Unchanged);
        }
        let id = row.id.as_str();
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO versions (workflow, hash, source, created) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (workflow, hash) DO NOTHING";
        tx.execute(sql, args![id, &row.version, source, now]).await?;
        let (schedule, paused) = (row.schedule.as_deref(), row.is_paused);
        let values = args![id, &row.path, &row.version, &row.description, schedule, paused, row.active, row.next_run];
        tx.execute(PUT, values).await?;
        if old.as_ref().is_none_or(|old| old.tags != row.tags) {
            tx.execute("DELETE FROM workflow_tags WHERE workflow = $1", args![id]).await?;
            for tag in &row.tags {
                let sql = "INSERT INTO workflow_tags (workflow, tag) VALUES ($1, $2) ON CONFLICT DO NOTHING";
                tx.execute(sql, args![id, tag]).await?;
            }
        }
        tx.commit().await?;
        Ok(if old.is_some() { PutWorkflow::Updated } else { PutWorkflow::Created })
    }

    async fn has_version(&self, workflow: &WorkflowId, hash: &str) -> Result<bool> {
        let sql = "SELECT 1 FROM versions WHERE workflow = $1 AND hash = $2";
        Ok(self.db.read_one(sql, args![workflow.as_str(), hash]).await?.is_some())
    }

    pub async fn workflow(&self, id: &WorkflowId) -> Result<Option<WorkflowRow>> {
        let sql = format!("SELECT {} FROM workflows WHERE id = $1", rows::WORKFLOW_COLUMNS);
        let Some(row) = self.db.read_one(AssertSqlSafe(sql), args![id.as_str()]).await? else { return Ok(None) };
        Ok(self.with_tags(vec![rows::workflow(&row)?]).await?.pop())
    }

    pub async fn workflows(&self, filter: &WorkflowFilter, paging: Paging) -> Result<Page<WorkflowRow>> {
        let mut kept = Where::default();
        if let Some(part) = &filter.contains {
            kept.and(r"lower(id) LIKE ? ESCAPE '\'", containing(part));
        }
        for tag in &filter.tags {
            kept.and("EXISTS (SELECT 1 FROM workflow_tags WHERE workflow = id AND tag = ?)", tag);
        }
        if let Some(paused) = filter.paused {
            kept.and("is_paused = ?", paused);
        }
        if let Some(active) = filter.active {
            kept.and("active = ?", active);
        }
        let (limit, args) = kept.paged(paging);
        let (columns, text) = (rows::WORKFLOW_COLUMNS, kept.text());
        let sql = format!("SELECT {columns} FROM workflows{text} ORDER BY id{limit}");
        let found = self.db.read(AssertSqlSafe(sql), args).await?;
        let total = self.count(format!("SELECT count(*) FROM workflows{text}"), kept.args()).await?;
        let found = found.iter().map(rows::workflow).collect::<Result<_>>()?;
        Ok(Page { rows: self.with_tags(found).await?, total })
    }

    async fn with_tags(&self, mut workflows: Vec<WorkflowRow>) -> Result<Vec<WorkflowRow>> {
        let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for part in workflows.chunks(LIST) {
            let (list, args) = in_list(1, part.iter().map(|row| Value::from(row.id.as_str())).collect());
            let sql =
                format!("SELECT workflow, tag FROM workflow_tags WHERE workflow IN ({list}) ORDER BY workflow, tag");
            for row in &self.db.read(AssertSqlSafe(sql), args).await? {
                tags.entry(row.get(0)?).or_default().push(row.get(1)?);
            }
        }
        for row in &mut workflows {
            row.tags = tags.remove(row.id.as_str()).unwrap_or_default();
        }
        Ok(workflows)
    }

    pub async fn tags(&self) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT tag FROM workflow_tags \
             WHERE EXISTS (SELECT 1 FROM workflows WHERE id = workflow AND active) ORDER BY tag";
        self.db.read(sql, args![]).await?.iter().map(|row| row.get(0)).collect()
    }

    pub async fn version_source(&self, workflow: &WorkflowId, hash: &str) -> Result<Option<String>> {
        let sql = "SELECT source FROM versions WHERE workflow = $1 AND hash = $2";
        self.db.read_one(sql, args![workflow.as_str(), hash]).await?.map(|row| row.get(0)).transpose()
    }

    pub async fn versions(&self, workflow: &WorkflowId) -> Result<Vec<Version>> {
        let sql = "SELECT hash, created FROM versions WHERE workflow = $1 ORDER BY created DESC, hash";
        let found = self.db.read(sql, args![workflow.as_str()]).await?;
        let version = |row: &super::db::Row| {
            let mut row = row.fields();
            Ok(Version { hash: row.take()?, created: row.time()? })
        };
        found.iter().map(version).collect()
    }

    pub async fn set_paused(&self, workflow: &WorkflowId, paused: bool, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let sql = "UPDATE workflows SET is_paused = $2 WHERE id = $1 AND is_paused <> $2";
        let changed = tx.execute(sql, args![workflow.as_str(), paused]).await? > 0;
        if changed {
            commit::write_audit(&mut tx, [&audit]).await?;
        } else {
            let found = tx.fetch_one("SELECT 1 FROM workflows WHERE id = $1", args![workflow.as_str()]).await?;
            found.ok_or_else(|| StoreError::not_found("workflow", workflow))?;
        }
        tx.commit().await?;
        Ok(changed)
    }

    pub async fn set_next_run(&self, workflow: &WorkflowId, next_run: Option<Timestamp>) -> Result<()> {
        let old = self.workflow(workflow).await?.ok_or_else(|| StoreError::not_found("workflow", workflow))?;
        if old.next_run != next_run {
            self.execute("UPDATE workflows SET next_run = $2 WHERE id = $1", args![workflow.as_str(), next_run])
                .await?;
        }
        Ok(())
    }

    pub async fn deactivate(&self, workflow: &WorkflowId) -> Result<bool> {
        let sql = "UPDATE workflows SET active = FALSE WHERE id = $1 AND active";
        Ok(self.execute(sql, args![workflow.as_str()]).await? > 0)
    }

    pub async fn put_file_error(&self, error: FileError) -> Result<()> {
        let sql = "INSERT INTO file_errors (path, message, at) VALUES ($1, $2, $3) \
             ON CONFLICT (path) DO UPDATE SET message = excluded.message, at = excluded.at \
             WHERE file_errors.message <> excluded.message";
        self.execute(sql, args![&error.path, &error.message, error.at]).await?;
        Ok(())
    }

    pub async fn clear_file_error(&self, path: &str) -> Result<bool> {
        Ok(self.execute("DELETE FROM file_errors WHERE path = $1", args![path]).await? > 0)
    }

    pub async fn file_errors(&self) -> Result<Vec<FileError>> {
        let found = self.db.read("SELECT path, message, at FROM file_errors ORDER BY path", args![]).await?;
        let file_error = |row: &super::db::Row| {
            let mut row = row.fields();
            Ok(FileError { path: row.take()?, message: row.take()?, at: row.time()? })
        };
        found.iter().map(file_error).collect()
    }
}

//! Variables, pools, the audit log and the server's own settings.

use pitcrew_core::id::WorkflowId;
use sqlx::AssertSqlSafe;

use super::db::{Row, Tx, args};
use super::lists::{Listing, Where};
use super::{Sql, across, commit, rows};
use crate::error::Result;
use crate::types::*;

pub(super) async fn write_variable(tx: &mut Tx, set: &VariableSet) -> Result<()> {
    let sql = "INSERT INTO variables (key, value, description) VALUES ($1, $2, COALESCE($3, '')) \
         ON CONFLICT (key) DO UPDATE SET value = excluded.value, description = COALESCE($3, variables.description)";
    tx.execute(sql, args![&set.key, &set.value, set.description.as_deref()]).await?;
    Ok(())
}

fn variable(row: &Row) -> Result<Variable> {
    let mut row = row.fields();
    Ok(Variable { key: row.take()?, value: row.take()?, description: row.take()? })
}

fn pool(row: &Row) -> Result<Pool> {
    let mut row = row.fields();
    Ok(Pool { name: row.take()?, slots: row.int()?, description: row.take()? })
}

async fn write_setting(tx: &mut Tx, key: &str, value: &str) -> Result<()> {
    let sql =
        "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    tx.execute(sql, args![key, value]).await?;
    Ok(())
}

/// With the number that [`rows::audit`] reads first.
const AUDIT_COLUMNS: &str = "id, at, who, event, workflow, run, task, detail";

impl Sql {
    pub async fn variable(&self, key: &str) -> Result<Option<Variable>> {
        let row = self.db.read_one("SELECT key, value, description FROM variables WHERE key = $1", args![key]).await?;
        row.as_ref().map(variable).transpose()
    }

    pub async fn variables(&self, paging: Paging) -> Result<Page<Variable>> {
        let (limit, args) = Where::default().paged(paging);
        let sql = format!("SELECT key, value, description FROM variables ORDER BY key{limit}");
        let found = self.db.read(AssertSqlSafe(sql), args).await?;
        let total = self.count("SELECT count(*) FROM variables".to_owned(), args![]).await?;
        Ok(Page { rows: found.iter().map(variable).collect::<Result<_>>()?, total })
    }

    pub async fn set_variable(&self, set: VariableSet, audit: AuditEntry) -> Result<()> {
        let mut tx = self.db.begin().await?;
        write_variable(&mut tx, &set).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }

    pub async fn delete_variable(&self, key: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM variables WHERE key = $1", key, audit).await
    }

    /// Deletes one row, with an audit entry if it was there.
    pub(super) async fn delete_named(&self, sql: &'static str, name: &str, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        let existed = tx.execute(sql, args![name]).await? > 0;
        if existed {
            commit::write_audit(&mut tx, [&audit]).await?;
        }
        tx.commit().await?;
        Ok(existed)
    }

    pub async fn pool(&self, name: &str) -> Result<Option<Pool>> {
        let row = self.db.read_one("SELECT name, slots, description FROM pools WHERE name = $1", args![name]).await?;
        row.as_ref().map(pool).transpose()
    }

    pub async fn pools(&self) -> Result<Vec<Pool>> {
        let found = self.db.read("SELECT name, slots, description FROM pools ORDER BY name", args![]).await?;
        found.iter().map(pool).collect()
    }

    pub async fn put_pool(&self, pool: Pool, audit: AuditEntry) -> Result<()> {
        let sql = "INSERT INTO pools (name, slots, description) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, description = excluded.description";
        let mut tx = self.db.begin().await?;
        tx.execute(sql, args![&pool.name, pool.slots, &pool.description]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }

    pub async fn delete_pool(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM pools WHERE name = $1", name, audit).await
    }

    pub async fn record_audit(&self, entry: AuditEntry) -> Result<()> {
        let mut tx = self.db.begin().await?;
        commit::write_audit(&mut tx, [&entry]).await?;
        tx.commit().await
    }

    pub async fn audit(&self, filter: &AuditFilter, paging: Paging) -> Result<Page<AuditRow>> {
        let mut kept = Where::default();
        if let Some(workflow) = &filter.workflow {
            kept.and("workflow = ?", workflow.as_str());
        }
        kept.any_of("workflow", filter.among.iter().map(WorkflowId::as_str));
        if let Some(run) = &filter.run {
            kept.and("run = ?", run.as_str());
        }
        if let Some(event) = &filter.event {
            kept.and("event = ?", event);
        }
        if let Some(who) = &filter.who {
            kept.and("who = ?", who);
        }
        if let Some(before) = filter.before {
            kept.and("id < ?", before);
        }
        // Left alone, SQLite looks for the end of a span of time through every entry since.
        let is_span = filter.at.from.is_some() && filter.at.to.is_some() && filter.event_prefix.is_none();
        let from = match kept.text().is_empty() && is_span && self.db.is_sqlite() {
            true => "audit INDEXED BY audit_at",
            false => "audit",
        };
        kept.between("at", filter.at);
        // There are few different events, so a prefix is a list of them.
        let mut events = Vec::new();
        if let Some(prefix) = &filter.event_prefix {
            events = self.audit_events().await?;
            events.retain(|event| event.starts_with(prefix));
            if events.is_empty() {
                return Ok(Page { rows: Vec::new(), total: 0 });
            }
        }
        let any = ("event", events.iter().map(String::as_str).collect());
        let listing = Listing { from, link: "", columns: "id", kept, any, order: "id DESC" };
        let (page, args) = listing.page(paging);
        // As with runs: the ids first.
        let sql =
            format!("SELECT {AUDIT_COLUMNS} FROM audit WHERE id IN (SELECT id FROM ({page}) AS page) ORDER BY id DESC");
        let rows = self.all(sql, args, rows::audit).await?;
        self.with_total(rows, paging, &listing).await
    }

    pub async fn audit_entry(&self, id: i64) -> Result<Option<AuditRow>> {
        self.one(format!("SELECT {AUDIT_COLUMNS} FROM audit WHERE id = $1"), args![id], rows::audit).await
    }

    pub async fn audit_events(&self) -> Result<Vec<String>> {
        self.all(across::AUDIT_EVENTS.to_owned(), args![], across::text).await
    }

    pub async fn setting(&self, key: &str) -> Result<Option<String>> {
        let row = self.db.read_one("SELECT value FROM settings WHERE key = $1", args![key]).await?;
        row.map(|row| row.get(0)).transpose()
    }

    pub async fn put_setting(&self, key: &str, value: &str) -> Result<()> {
        if self.setting(key).await?.as_deref() == Some(value) {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        write_setting(&mut tx, key, value).await?;
        tx.commit().await
    }

    pub async fn put_setting_audited(&self, key: &str, value: &str, audit: AuditEntry) -> Result<()> {
        let mut tx = self.db.begin().await?;
        write_setting(&mut tx, key, value).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }

    pub async fn swap_setting(&self, key: &str, before: Option<&str>, value: &str) -> Result<bool> {
        let changed = match before {
            Some(before) => {
                let sql = "UPDATE settings SET value = $3 WHERE key = $1 AND value = $2";
                self.execute(sql, args![key, before, value]).await?
            }
            None => {
                let sql = "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
                self.execute(sql, args![key, value]).await?
            }
        };
        Ok(changed > 0)
    }

    pub async fn setting_or_insert(&self, key: &str, value: &str) -> Result<String> {
        if let Some(old) = self.setting(key).await? {
            return Ok(old);
        }
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING";
        tx.execute(sql, args![key, value]).await?;
        let row = tx.fetch_one("SELECT value FROM settings WHERE key = $1", args![key]).await?;
        tx.commit().await?;
        row.map_or(Ok(value.to_owned()), |row| row.get(0))
    }
}

//! Secrets under names.

use jiff::Timestamp;

use super::db::{Row, args};
use super::lists::Where;
use super::{Sql, commit};
use crate::error::Result;
use crate::types::*;

const SECRET: &str = "SELECT name, value, revision, updated FROM secrets";

fn secret(row: &Row) -> Result<SecretRow> {
    let mut row = row.fields();
    Ok(SecretRow { name: row.take()?, value: row.take()?, revision: row.take()?, updated: row.time()? })
}

impl Sql {
    pub async fn secret(&self, name: &str) -> Result<Option<SecretRow>> {
        self.one(format!("{SECRET} WHERE name = $1"), args![name], secret).await
    }

    pub async fn secrets(&self, paging: Paging) -> Result<Page<SecretRow>> {
        let (limit, args) = Where::default().paged(paging);
        let rows = self.all(format!("{SECRET} ORDER BY name{limit}"), args, secret).await?;
        let total = self.count("SELECT count(*) FROM secrets".to_owned(), args![]).await?;
        Ok(Page { rows, total })
    }

    pub async fn put_secret(&self, name: &str, sealed: &str, now: Timestamp, audit: AuditEntry) -> Result<i64> {
        let sql = "INSERT INTO secrets (name, value, revision, updated) VALUES ($1, $2, 1, $3) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value, revision = secrets.revision + 1, \
             updated = excluded.updated";
        let mut tx = self.db.begin().await?;
        tx.execute(sql, args![name, sealed, now]).await?;
        let row = tx.fetch_one("SELECT revision FROM secrets WHERE name = $1", args![name]).await?;
        let revision = row.map_or(Ok(1), |row| row.get(0))?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(revision)
    }

    pub async fn delete_secret(&self, name: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM secrets WHERE name = $1", name, audit).await
    }
}

//! What each namespace may hold of the nodes.

use pitcrew_core::admission::Quota;
use sqlx::AssertSqlSafe;

use super::db::{Row, args};
use super::rows::json;
use super::{Sql, commit};
use crate::error::Result;
use crate::types::*;

fn quota(row: &Row) -> Result<Quota> {
    let mut row = row.fields();
    Ok(Quota {
        namespace: row.take()?,
        cohort: row.take()?,
        weight: row.int()?,
        limits: row.json()?,
        borrow: row.json()?,
    })
}

impl Sql {
    pub async fn quotas(&self) -> Result<Vec<Quota>> {
        let sql = "SELECT namespace, cohort, weight, limits, borrow FROM quotas ORDER BY namespace";
        self.all(sql.to_owned(), args![], quota).await
    }

    pub async fn put_quota(&self, quota: Quota, audit: AuditEntry) -> Result<()> {
        let sql = "INSERT INTO quotas (namespace, cohort, weight, limits, borrow) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (namespace) DO UPDATE SET cohort = excluded.cohort, weight = excluded.weight, \
             limits = excluded.limits, borrow = excluded.borrow";
        let (limits, borrow) = (json(&quota.limits)?, json(&quota.borrow)?);
        let mut tx = self.db.begin().await?;
        tx.execute(sql, args![&quota.namespace, quota.cohort.as_deref(), quota.weight, limits, borrow]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }

    pub async fn change_quota(&self, before: Option<Quota>, quota: Quota, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        // Where there is none, no row can be locked: whoever inserts first is the one.
        let sql = "INSERT INTO quotas (namespace, cohort, weight, limits, borrow) VALUES ($1, NULL, 1, '{}', '{}') \
             ON CONFLICT (namespace) DO NOTHING";
        if before.is_none() && tx.execute(sql, args![&quota.namespace]).await? == 0 {
            return Ok(false);
        }
        if before.is_some() {
            let lock = if tx.is_postgres() { " FOR UPDATE" } else { "" };
            let sql =
                format!("SELECT namespace, cohort, weight, limits, borrow FROM quotas WHERE namespace = $1{lock}");
            let found = tx.fetch_one(AssertSqlSafe(sql), args![&quota.namespace]).await?;
            if found.as_ref().map(self::quota).transpose()? != before {
                return Ok(false);
            }
        }
        let (limits, borrow) = (json(&quota.limits)?, json(&quota.borrow)?);
        let sql = "UPDATE quotas SET cohort = $2, weight = $3, limits = $4, borrow = $5 WHERE namespace = $1";
        tx.execute(sql, args![&quota.namespace, quota.cohort.as_deref(), quota.weight, limits, borrow]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub async fn delete_quota(&self, namespace: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM quotas WHERE namespace = $1", namespace, audit).await
    }
}

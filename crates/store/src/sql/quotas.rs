//! What each namespace may hold of the nodes.

use pitcrew_core::admission::Quota;

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

    pub async fn delete_quota(&self, namespace: &str, audit: AuditEntry) -> Result<bool> {
        self.delete_named("DELETE FROM quotas WHERE namespace = $1", namespace, audit).await
    }
}

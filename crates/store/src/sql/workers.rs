//! Machines that come for their work, and what they enrol with.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::db::{Row, Tx, args};
use super::rows::json;
use super::{Sql, commit};
use crate::error::Result;
use crate::types::*;

const WORKER: &str = "SELECT id, name, credential, about, drain, enrolled, revoked FROM workers";
const TOKEN: &str = "SELECT id, hash, queues, made_by, created, expires, uses FROM worker_tokens";

fn worker(row: &Row) -> Result<WorkerRow> {
    let mut row = row.fields();
    Ok(WorkerRow {
        id: row.take()?,
        name: row.take()?,
        credential: row.take()?,
        about: row.json()?,
        drain: row.take()?,
        enrolled: row.time()?,
        revoked: row.time_optional()?,
    })
}

fn token(row: &Row) -> Result<WorkerToken> {
    let mut row = row.fields();
    Ok(WorkerToken {
        id: row.take()?,
        hash: row.take()?,
        queues: row.json()?,
        made_by: row.take()?,
        created: row.time()?,
        expires: row.time_optional()?,
        uses: row.take::<Option<i64>>()?.map(|uses| u32::try_from(uses).unwrap_or(u32::MAX)),
    })
}

/// Adds to what is counted of workers; in the order of their ids, so that two servers never wait for each other.
pub(super) async fn add_ends(tx: &mut Tx, ends: &BTreeMap<&String, WorkerEnds>) -> Result<()> {
    let sql = "INSERT INTO worker_ends (worker, ended, failed) VALUES ($1, $2, $3) ON CONFLICT (worker) DO UPDATE SET \
         ended = worker_ends.ended + excluded.ended, failed = worker_ends.failed + excluded.failed";
    for (worker, WorkerEnds { ended, failed }) in ends {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        tx.execute(sql, args![worker.as_str(), count(*ended), count(*failed)]).await?;
    }
    Ok(())
}

impl Sql {
    pub async fn put_worker_token(&self, token: WorkerToken, audit: AuditEntry) -> Result<()> {
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO worker_tokens (id, hash, queues, made_by, created, expires, uses) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let WorkerToken { id, hash, queues, made_by, created, expires, uses } = token;
        tx.execute(sql, args![&id, &hash, json(&queues)?, &made_by, created, expires, uses.map(i64::from)]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await
    }

    pub async fn worker_tokens(&self) -> Result<Vec<WorkerToken>> {
        self.all(format!("{TOKEN} ORDER BY created, id"), args![], token).await
    }

    pub async fn worker_token(&self, hash: &str) -> Result<Option<WorkerToken>> {
        Ok(self.all(format!("{TOKEN} WHERE hash = $1"), args![hash], token).await?.pop())
    }

    pub async fn delete_worker_token(&self, id: &str, audit: AuditEntry) -> Result<bool> {
        let mut tx = self.db.begin().await?;
        if tx.execute("DELETE FROM worker_tokens WHERE id = $1", args![id]).await? == 0 {
            return Ok(false);
        }
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(true)
    }

    pub async fn enrol_worker(
        &self,
        hash: &str,
        worker: WorkerRow,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Enrolment> {
        let mut tx = self.db.begin().await?;
        // Locks the token, so that of two at the same moment one gets the last use.
        let sql = "UPDATE worker_tokens SET uses = uses - 1 WHERE hash = $1 AND (expires IS NULL OR expires > $2) \
             AND (uses IS NULL OR uses > 0)";
        if tx.execute(sql, args![hash, now]).await? == 0 {
            let found = tx.fetch_one("SELECT expires FROM worker_tokens WHERE hash = $1", args![hash]).await?;
            return Ok(match found {
                None => Enrolment::NoSuchToken,
                Some(row) => match row.fields().time_optional()? {
                    Some(at) if at <= now => Enrolment::Expired,
                    _ => Enrolment::UsedUp,
                },
            });
        }
        let WorkerRow { id, name, credential, about, drain, enrolled, revoked } = worker;
        let sql = "INSERT INTO workers (id, name, credential, about, drain, enrolled, revoked) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) WHERE revoked IS NULL DO NOTHING";
        let made = tx.execute(sql, args![&id, &name, &credential, json(&about)?, drain, enrolled, revoked]).await?;
        if made == 0 {
            return Ok(Enrolment::NameTaken);
        }
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(Enrolment::Done)
    }

    pub async fn workers(&self) -> Result<Vec<WorkerRow>> {
        self.all(format!("{WORKER} ORDER BY revoked IS NOT NULL, name, enrolled, id"), args![], worker).await
    }

    pub async fn worker_by_credential(&self, credential: &str) -> Result<Option<WorkerRow>> {
        let sql = format!("{WORKER} WHERE credential = $1 AND revoked IS NULL");
        Ok(self.all(sql, args![credential], worker).await?.pop())
    }

    pub async fn worker_ends(&self) -> Result<BTreeMap<String, WorkerEnds>> {
        let ends = |row: &Row| {
            let mut row = row.fields();
            let number = |number: i64| u64::try_from(number).unwrap_or_default();
            let worker: String = row.take()?;
            Ok((worker, WorkerEnds { ended: number(row.take()?), failed: number(row.take()?) }))
        };
        let all = self.all("SELECT worker, ended, failed FROM worker_ends".to_owned(), args![], ends).await?;
        Ok(all.into_iter().collect())
    }

    pub async fn change_worker(
        &self,
        id: &str,
        change: WorkerChange,
        audit: Option<AuditEntry>,
    ) -> Result<Option<WorkerRow>> {
        let mut tx = self.db.begin().await?;
        // Locks the row.
        let sql = "UPDATE workers SET drain = drain WHERE id = $1 AND revoked IS NULL";
        if tx.execute(sql, args![id]).await? == 0 {
            return Ok(None);
        }
        let sql = "SELECT id, name, credential, about, drain, enrolled, revoked FROM workers WHERE id = $1";
        let Some(mut row) = tx.fetch_one(sql, args![id]).await?.as_ref().map(worker).transpose()? else {
            return Ok(None);
        };
        row.apply(change);
        let sql = "UPDATE workers SET about = $2, drain = $3, revoked = $4 WHERE id = $1";
        tx.execute(sql, args![id, json(&row.about)?, row.drain, row.revoked]).await?;
        if row.revoked.is_some() {
            tx.execute("DELETE FROM worker_ends WHERE worker = $1", args![id]).await?;
        }
        commit::write_audit(&mut tx, &audit).await?;
        tx.commit().await?;
        Ok(Some(row))
    }
}

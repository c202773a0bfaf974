//! What was posted to listeners.

use jiff::Timestamp;
use serde_json::Value;

use super::db::{Row, Tx, args};
use super::lists::Where;
use super::rows::json;
use super::{Sql, commit};
use crate::error::{Result, StoreError};
use crate::types::*;

/// Rows per transaction when old ones go.
const BATCH: u32 = 1000;

const FIELDS: &str = "state, outcome, again_of, duplicate_of, settled FROM deliveries";
const HEAD: &str = "SELECT id, event, namespace, listener, received, source, about, bytes";

fn delivery(row: &Row) -> Result<DeliveryRow> {
    let mut row = row.fields();
    Ok(DeliveryRow {
        id: row.take()?,
        event: row.take()?,
        namespace: row.take()?,
        listener: row.take()?,
        received: row.time()?,
        source: row.take()?,
        about: row.take()?,
        bytes: row.int()?,
        sealed: row.take()?,
        state: row.word(DeliveryState::from_name)?,
        outcome: row.json()?,
        again_of: row.take()?,
        duplicate_of: row.take()?,
        settled: row.time_optional()?,
    })
}

async fn write(tx: &mut Tx, new: &NewDelivery, first: Option<i64>) -> Result<i64> {
    let state = if first.is_some() { DeliveryState::Duplicate } else { new.state };
    let settled = (state != DeliveryState::Waiting).then_some(new.received);
    let sql = "INSERT INTO deliveries (event, namespace, listener, received, source, about, bytes, sealed, state, \
         outcome, again_of, duplicate_of, settled) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
         RETURNING id";
    let outcome = json(&new.outcome)?;
    let (event, namespace, listener) = (&new.event, &new.namespace, &new.listener);
    let (source, about, sealed) = (&new.source, &new.about, new.sealed.as_deref());
    let values = args![
        event,
        namespace,
        listener,
        new.received,
        source,
        about,
        new.bytes,
        sealed,
        state.name(),
        outcome,
        new.again_of,
        first,
        settled
    ];
    let row = tx.fetch_one(sql, values).await?;
    row.ok_or_else(|| StoreError::not_found("delivery", event))?.get(0)
}

impl Sql {
    pub async fn add_delivery(&self, new: NewDelivery) -> Result<Added> {
        let mut tx = self.db.begin().await?;
        let mut first = None;
        if let Some((digest, until)) = &new.guard {
            // Who comes second waits here for the first to commit, and then finds it.
            let sql = "INSERT INTO replays (digest, delivery, event, until) VALUES ($1, 0, $2, $3) \
                 ON CONFLICT (digest) DO UPDATE SET event = excluded.event, until = excluded.until \
                 WHERE replays.until <= $4";
            if tx.execute(sql, args![digest, &new.event, *until, new.received]).await? == 0 {
                let known =
                    tx.fetch_one("SELECT delivery, event FROM replays WHERE digest = $1", args![digest]).await?;
                first = known.map(|row| Ok::<_, StoreError>((row.get(0)?, row.get(1)?))).transpose()?;
            }
        }
        let id = write(&mut tx, &new, first.as_ref().map(|(id, _): &(i64, String)| *id)).await?;
        if let (None, Some((digest, _))) = (&first, &new.guard) {
            tx.execute("UPDATE replays SET delivery = $2 WHERE digest = $1", args![digest, id]).await?;
        }
        tx.commit().await?;
        Ok(Added { id, first })
    }

    pub async fn repeat_delivery(&self, id: i64, event: &str, at: Timestamp, audit: AuditEntry) -> Result<Option<i64>> {
        let sql = "INSERT INTO deliveries (event, namespace, listener, received, source, about, bytes, sealed, state, \
             outcome, again_of) SELECT $2, namespace, listener, $3, source, about, bytes, sealed, 'waiting', '[]', id \
             FROM deliveries WHERE id = $1 AND sealed IS NOT NULL RETURNING id";
        let mut tx = self.db.begin().await?;
        let Some(row) = tx.fetch_one(sql, args![id, event, at]).await? else { return Ok(None) };
        let made = row.get(0)?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(Some(made))
    }

    pub async fn delivery(&self, id: i64) -> Result<Option<DeliveryRow>> {
        self.one(format!("{HEAD}, sealed, {FIELDS} WHERE id = $1"), args![id], delivery).await
    }

    pub async fn deliveries(&self, filter: &DeliveryFilter, paging: Paging) -> Result<Page<DeliveryRow>> {
        let mut kept = Where::default();
        if let Some(namespace) = &filter.namespace {
            kept.and("namespace = ?", namespace);
        }
        if let Some(listener) = &filter.listener {
            kept.and("listener = ?", listener);
        }
        if let Some(state) = filter.state {
            kept.and("state = ?", state.name());
        }
        let text = kept.text();
        let (limit, args) = kept.paged(paging);
        let sql = format!("{HEAD}, CAST(NULL AS TEXT), {FIELDS}{text} ORDER BY id DESC{limit}");
        let rows = self.all(sql, args, delivery).await?;
        let total = match paging.total_after(rows.len()) {
            Some(total) => total,
            None => self.count(format!("SELECT count(*) FROM deliveries{text}"), kept.args()).await?,
        };
        Ok(Page { rows, total })
    }

    pub async fn waiting_deliveries(&self, limit: u32) -> Result<Vec<i64>> {
        let sql = "SELECT id FROM deliveries WHERE state = 'waiting' ORDER BY id LIMIT $1".to_owned();
        self.all(sql, args![limit], |row| row.get(0)).await
    }

    pub async fn settle_delivery(&self, id: i64, outcome: Value, at: Timestamp) -> Result<bool> {
        let sql =
            "UPDATE deliveries SET state = 'done', outcome = $2, settled = $3 WHERE id = $1 AND state = 'waiting'";
        Ok(self.execute(sql, args![id, json(&outcome)?, at]).await? > 0)
    }

    pub async fn remove_deliveries(&self, before: Timestamp, now: Timestamp) -> Result<u64> {
        let old = "DELETE FROM deliveries WHERE id IN \
             (SELECT id FROM deliveries WHERE received < $1 AND state <> 'waiting' LIMIT $2)";
        let mut all = 0;
        loop {
            let deleted = self.execute(old, args![before, BATCH]).await?;
            all += deleted;
            if deleted < u64::from(BATCH) {
                break;
            }
        }
        self.execute("DELETE FROM replays WHERE until <= $1", args![now]).await?;
        Ok(all)
    }
}

//! What people did to nodes, and what was seen of them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use pitcrew_core::id::RunKey;
use serde_json::Value;

use super::db::{Row, Tx, args};
use super::rows::json;
use super::{Sql, commit, rows};
use crate::error::{Result, StoreError};
use crate::types::*;

const NODE: &str = "SELECT name, cordoned, labels, taints, seen, seen_at FROM nodes";

fn node(row: &Row) -> Result<NodeRow> {
    let mut row = row.fields();
    Ok(NodeRow {
        name: row.take()?,
        cordoned: row.take()?,
        labels: row.json()?,
        taints: row.json()?,
        seen: row.json_optional()?.unwrap_or_default(),
        seen_at: row.time_optional()?,
    })
}

fn sample(row: &Row) -> Result<NodeSample> {
    let mut row = row.fields();
    Ok(NodeSample { node: row.take()?, at: row.time()?, sample: row.json()? })
}

/// Attempts with their runs.
fn select() -> String {
    let columns = rows::ATTEMPT_COLUMNS.split(", ").map(|name| format!("a.{name}")).collect::<Vec<_>>().join(", ");
    format!("SELECT {columns}, a.run, r.workflow, r.run_id FROM attempts a JOIN runs r ON r.key = a.run")
}

fn of_run(row: &Row) -> Result<RunAttempt> {
    let after = rows::ATTEMPT_COLUMNS.split(", ").count();
    let (run, workflow, run_id): (i64, String, String) = (row.get(after)?, row.get(after + 1)?, row.get(after + 2)?);
    let odd = |text: &str| StoreError::Corrupt(format!("a stored row cannot be read: `{text}` is no id"));
    Ok(RunAttempt {
        run: RunKey(run),
        workflow: workflow.parse().map_err(|_| odd(&workflow))?,
        run_id: run_id.parse().map_err(|_| odd(&run_id))?,
        attempt: rows::attempt(row)?,
    })
}

/// Makes the row where there is none. Either way it is locked until the transaction ends, so that nobody's change is lost.
async fn lock(tx: &mut Tx, name: &str) -> Result<()> {
    let sql = "INSERT INTO nodes (name, cordoned, labels, taints) VALUES ($1, $2, '{}', '{}') \
         ON CONFLICT (name) DO UPDATE SET name = excluded.name";
    tx.execute(sql, args![name, false]).await.map(drop)
}

impl Sql {
    pub async fn nodes(&self) -> Result<Vec<NodeRow>> {
        self.all(format!("{NODE} ORDER BY name"), args![], node).await
    }

    pub async fn marks(&self) -> Result<Marks> {
        let sql = "SELECT name, cordoned, labels, taints FROM nodes WHERE cordoned OR labels <> '{}' OR taints <> '{}' ORDER BY name";
        let node = |row: &Row| {
            let mut row = row.fields();
            let (name, cordoned): (String, bool) = (row.take()?, row.take()?);
            Ok(format!("{name}\n{cordoned}\n{}\n{}", row.take::<String>()?, row.take::<String>()?))
        };
        let mut all = self.all(sql.to_owned(), args![], node).await?;
        let worker = |row: &Row| {
            let mut row = row.fields();
            let (id, name, drain): (String, String, bool) = (row.take()?, row.take()?, row.take()?);
            Ok(format!("{id}\n{name}\n{drain}\n{}", row.take::<String>()?))
        };
        let sql = "SELECT id, name, drain, about FROM workers WHERE revoked IS NULL ORDER BY id";
        all.extend(self.all(sql.to_owned(), args![], worker).await?);
        Ok(Marks(all))
    }

    pub async fn change_node(&self, name: &str, change: NodeChange, audit: AuditEntry) -> Result<NodeRow> {
        let mut tx = self.db.begin().await?;
        lock(&mut tx, name).await?;
        let sql = "SELECT name, cordoned, labels, taints, seen, seen_at FROM nodes WHERE name = $1";
        let found = tx.fetch_one(sql, args![name]).await?;
        let mut row = found.as_ref().map(node).transpose()?.unwrap_or_default();
        row.apply(change);
        let sql = "UPDATE nodes SET cordoned = $2, labels = $3, taints = $4 WHERE name = $1";
        tx.execute(sql, args![name, row.cordoned, json(&row.labels)?, json(&row.taints)?]).await?;
        commit::write_audit(&mut tx, [&audit]).await?;
        tx.commit().await?;
        Ok(row)
    }

    pub async fn see_node(&self, name: &str, seen: &Value, at: Timestamp) -> Result<()> {
        let mut tx = self.db.begin().await?;
        lock(&mut tx, name).await?;
        let sql = "UPDATE nodes SET seen = $2, seen_at = $3 WHERE name = $1";
        tx.execute(sql, args![name, json(seen)?, at]).await?;
        tx.commit().await
    }

    pub async fn live_attempts(&self, limit: u32) -> Result<Vec<RunAttempt>> {
        let sql = format!("{} WHERE a.exit IS NULL ORDER BY a.run, a.task, a.map_index LIMIT $1", select());
        self.all(sql, args![limit], of_run).await
    }

    pub async fn live_attempts_on(&self, node: &str) -> Result<Vec<RunAttempt>> {
        let sql = format!("{} WHERE a.exit IS NULL AND a.node = $1 ORDER BY a.run, a.task, a.map_index", select());
        self.all(sql, args![node], of_run).await
    }

    pub async fn used_nodes(&self) -> Result<BTreeSet<String>> {
        let sql = "SELECT DISTINCT node FROM attempts WHERE exit IS NULL AND node IS NOT NULL";
        let names = self.all(sql.to_owned(), args![], |row: &Row| row.get::<String>(0)).await?;
        Ok(names.into_iter().collect())
    }

    pub async fn attempts_ended_on(&self, node: &str, limit: u32) -> Result<Vec<RunAttempt>> {
        let sql = format!(
            "{} WHERE a.node = $1 AND a.ended IS NOT NULL \
             ORDER BY a.ended DESC, a.run DESC, a.task, a.map_index, a.number DESC LIMIT $2",
            select()
        );
        self.all(sql, args![node, limit], of_run).await
    }

    pub async fn put_node_sample(&self, sample: NodeSample, keep: Timestamp) -> Result<()> {
        let mut tx = self.db.begin().await?;
        tx.execute("DELETE FROM node_samples WHERE node = $1 AND at < $2", args![&sample.node, keep]).await?;
        let sql = "INSERT INTO node_samples (node, at, sample) VALUES ($1, $2, $3) \
             ON CONFLICT (node, at) DO UPDATE SET sample = excluded.sample";
        tx.execute(sql, args![&sample.node, sample.at, json(&sample.sample)?]).await?;
        tx.commit().await
    }

    pub async fn node_samples(&self, node: &str) -> Result<Vec<NodeSample>> {
        let sql = "SELECT node, at, sample FROM node_samples WHERE node = $1 ORDER BY at";
        self.all(sql.to_owned(), args![node], sample).await
    }
}

//! What recovery knows of nodes and jobs, and the incidents there were.

use jiff::Timestamp;
use pitcrew_core::RunKey;
use pitcrew_core::recovery::{Incident, IncidentId, Key, Record};
use sqlx::AssertSqlSafe;

use super::Sql;
use super::db::{Row, Value, args};
use super::rows::json;
use crate::error::{Result, StoreError};
use crate::normalise;
use crate::types::*;

/// As many incidents of a run are found.
const MOST: i64 = 100;

/// Which row it is, where it is none of an incident.
fn place(key: &Key) -> (&'static str, &str) {
    match key {
        Key::Fleet => ("fleet", ""),
        Key::Node(name) => ("node", name),
        Key::Job(job) => ("job", job),
        Key::Incident(_) => ("incident", ""),
    }
}

/// As JSON that views can read into, see [`normalise::plain`].
fn plain(record: &impl serde::Serialize) -> Result<String> {
    let text = json(record)?;
    if !text.contains("\\u0000") {
        return Ok(text);
    }
    let mut value = serde_json::from_str(&text).unwrap_or_default();
    normalise::plain(&mut value);
    json(&value)
}

fn record(row: &Row) -> Result<Record> {
    let mut row = row.fields();
    let kind: String = row.take()?;
    Ok(match kind.as_str() {
        "fleet" => Record::Fleet(row.json()?),
        "node" => Record::Node(row.json()?),
        "job" => Record::Job(row.json()?),
        other => return Err(StoreError::Corrupt(format!("recovery has no rows of the kind `{other}`"))),
    })
}

fn incident(row: &Row) -> Result<Incident> {
    row.fields().json()
}

impl Sql {
    pub async fn recovery_records(&self) -> Result<Vec<Record>> {
        let sql = "SELECT kind, body FROM recovery WHERE kind <> 'term' ORDER BY kind, name";
        let mut records = self.all(sql.to_owned(), args![], record).await?;
        let sql = "SELECT body FROM incidents WHERE closed IS NULL \
             OR id IN (SELECT MAX(id) FROM incidents GROUP BY node) ORDER BY id";
        let incidents = self.all(sql.to_owned(), args![], incident).await?;
        records.extend(incidents.into_iter().map(Record::Incident));
        Ok(records)
    }

    pub async fn take_recovery(&self) -> Result<u64> {
        let mut tx = self.db.begin().await?;
        let sql = "INSERT INTO recovery (kind, name, body) VALUES ('term', '', '1') ON CONFLICT (kind, name) \
             DO UPDATE SET body = CAST(CAST(recovery.body AS BIGINT) + 1 AS TEXT)";
        tx.execute(sql, args![]).await?;
        let found = tx.fetch_one("SELECT body FROM recovery WHERE kind = 'term'", args![]).await?;
        let term: Option<String> = found.map(|row| row.get(0)).transpose()?;
        tx.commit().await?;
        let term = term.and_then(|term| term.parse().ok());
        term.ok_or_else(|| StoreError::Corrupt("the term of recovery is no number".to_owned()))
    }

    pub async fn write_recovery(&self, term: u64, put: &[Record], removed: &[Key]) -> Result<()> {
        let mut tx = self.db.begin().await?;
        // The row is locked by that: whoever takes recovery waits until this is written, or this is refused.
        let sql = "UPDATE recovery SET body = body WHERE kind = 'term' AND name = '' AND body = $1";
        if tx.execute(sql, args![term.to_string()]).await? == 0 {
            return Err(StoreError::superseded());
        }
        for record in put {
            let key = record.key();
            let body = match record {
                Record::Fleet(fleet) => json(fleet)?,
                Record::Node(node) => plain(node)?,
                Record::Job(job) => plain(job)?,
                Record::Incident(incident) => {
                    let sql = "INSERT INTO incidents (id, node, opened, closed, body) VALUES ($1, $2, $3, $4, $5) \
                         ON CONFLICT (id) DO UPDATE SET closed = excluded.closed, body = excluded.body";
                    let id = incident.id.0 as i64;
                    let body = json(incident)?;
                    tx.execute(sql, args![id, &incident.node, incident.opened, incident.closed, body]).await?;
                    continue;
                }
            };
            let (kind, name) = place(&key);
            let sql = "INSERT INTO recovery (kind, name, body) VALUES ($1, $2, $3) \
                 ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body";
            tx.execute(sql, args![kind, name, body]).await?;
        }
        for key in removed {
            match key {
                Key::Incident(id) => {
                    tx.execute("DELETE FROM incidents WHERE id = $1", args![id.0 as i64]).await?;
                }
                Key::Fleet | Key::Node(_) | Key::Job(_) => {
                    let (kind, name) = place(key);
                    tx.execute("DELETE FROM recovery WHERE kind = $1 AND name = $2", args![kind, name]).await?;
                }
            }
        }
        tx.commit().await
    }

    pub async fn incidents(&self, filter: &IncidentFilter, paging: Paging) -> Result<Page<Incident>> {
        let mut terms = vec![match filter.open {
            None => "1 = 1",
            Some(true) => "closed IS NULL",
            Some(false) => "closed IS NOT NULL",
        }];
        let mut values: Vec<Value<'_>> = Vec::new();
        if let Some(node) = &filter.node {
            terms.push("node = $1");
            values.extend(args![node]);
        }
        let terms = terms.join(" AND ");
        let count = format!("SELECT COUNT(*) FROM incidents WHERE {terms}");
        let counted = self.db.read_one(AssertSqlSafe(count), values.clone()).await?;
        let total: i64 = counted.map(|row| row.get(0)).transpose()?.unwrap_or_default();
        let next = values.len() + 1;
        let sql =
            format!("SELECT body FROM incidents WHERE {terms} ORDER BY id DESC LIMIT ${next} OFFSET ${}", next + 1);
        values.extend(args![paging.limit, paging.offset as i64]);
        let rows = self.all(sql, values, incident).await?;
        Ok(Page { rows, total: total as u64 })
    }

    pub async fn incidents_of_run(&self, run: RunKey, queued_at: Timestamp) -> Result<Vec<Incident>> {
        // What begins a text of the row may be something else than a job; jobs themselves are looked at after that.
        let sql = "SELECT body FROM incidents WHERE opened >= $1 AND body LIKE $2 ORDER BY id DESC LIMIT $3";
        let named = format!("%\"{run}/%");
        let rows = self.all(sql.to_owned(), args![queued_at, named, MOST], incident).await?;
        Ok(rows.into_iter().filter(|incident| incident.is_of_run(run)).collect())
    }

    pub async fn incident(&self, id: IncidentId) -> Result<Option<Incident>> {
        self.one("SELECT body FROM incidents WHERE id = $1".to_owned(), args![id.0 as i64], incident).await
    }
}

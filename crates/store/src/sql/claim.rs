//! Taking runs over from nobody, and from the dead.
//!
//! Invariant: a run changes hands only inside a transaction in which its old owner was found dead. The dead do
//! not come back, since no id is used twice, so what was found stays true.

use std::collections::BTreeMap;

use pitcrew_core::engine::record::StoredRun;
use pitcrew_core::id::RunKey;
use sqlx::AssertSqlSafe;

use super::db::{Tx, Value, args};
use super::lists::{LIST, in_list};
use super::{Place, Sql, postgres, rows};
use crate::error::Result;
use crate::owner::Owner;
use crate::types::ClaimFilter;

/// Owners other than `$1` of runs that are not final.
const OTHER_OWNERS: &str =
    "SELECT DISTINCT owner FROM runs WHERE state IN ('queued', 'running') AND (owner IS NULL OR owner <> $1)";

impl Sql {
    pub async fn claim_runs(&self, owner: &Owner, filter: ClaimFilter) -> Result<Vec<StoredRun>> {
        // A server asks often, and mostly there is nothing: that should not stand in the way of writers.
        if filter == ClaimFilter::All && self.db.read(OTHER_OWNERS, args![owner.id()]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.db.begin().await?;
        let keys = match filter {
            ClaimFilter::All => self.claim_all(&mut tx, owner).await?,
            ClaimFilter::Only(key) => self.claim_one(&mut tx, owner, key).await?,
        };
        let claimed = load(&mut tx, &keys).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    async fn claim_all(&self, tx: &mut Tx, owner: &Owner) -> Result<Vec<RunKey>> {
        const CLAIM: &str = "UPDATE runs SET owner = $1 WHERE state IN ('queued', 'running') AND ";
        let mut dead = Vec::new();
        for row in tx.fetch(OTHER_OWNERS, args![owner.id()]).await? {
            if let Some(id) = row.get::<Option<String>>(0)?
                && !self.lives(tx, &id).await?
            {
                dead.push(Value::from(id));
            }
        }
        let mut claimed =
            tx.fetch(AssertSqlSafe(format!("{CLAIM} owner IS NULL RETURNING key")), args![owner.id()]).await?;
        for part in dead.chunks(LIST) {
            let (list, values) = in_list(2, part.to_vec());
            let mut args = args![owner.id()];
            args.extend(values);
            claimed.extend(tx.fetch(AssertSqlSafe(format!("{CLAIM} owner IN ({list}) RETURNING key")), args).await?);
        }
        claimed.iter().map(|row| row.get(0).map(RunKey)).collect()
    }

    async fn claim_one(&self, tx: &mut Tx, owner: &Owner, key: RunKey) -> Result<Vec<RunKey>> {
        let lock = if tx.is_postgres() { " FOR NO KEY UPDATE" } else { "" };
        let sql = AssertSqlSafe(format!("SELECT owner FROM runs WHERE key = $1{lock}"));
        let Some(row) = tx.fetch_one(sql, args![key.0]).await? else { return Ok(Vec::new()) };
        match row.get::<Option<String>>(0)? {
            Some(id) if id == owner.id() => {}
            Some(id) if self.lives(tx, &id).await? => return Ok(Vec::new()),
            _ => drop(tx.execute("UPDATE runs SET owner = $1 WHERE key = $2", args![owner.id(), key.0]).await?),
        }
        Ok(vec![key])
    }

    async fn lives(&self, tx: &mut Tx, id: &str) -> Result<bool> {
        match &self.place {
            Place::Sqlite(locks) => locks.lives(id),
            Place::Postgres(_) => postgres::lives(tx, id).await,
        }
    }

    pub async fn release_runs(&self, owner: &Owner, keys: &[RunKey]) -> Result<()> {
        let keys: Vec<Value<'_>> = keys.iter().map(|key| Value::from(key.0)).collect();
        let mut tx = self.db.begin().await?;
        for part in keys.chunks(LIST) {
            let (list, values) = in_list(2, part.to_vec());
            let mut args = args![owner.id()];
            args.extend(values);
            let sql = format!("UPDATE runs SET owner = NULL WHERE owner = $1 AND key IN ({list})");
            tx.execute(AssertSqlSafe(sql), args).await?;
        }
        Sql::tell_others(&mut tx).await?;
        tx.commit().await?;
        self.bell.ring();
        Ok(())
    }

    pub async fn stored_run(&self, key: RunKey) -> Result<Option<StoredRun>> {
        let mut tx = self.db.snapshot().await?;
        Ok(load(&mut tx, &[key]).await?.pop())
    }
}

/// The runs of these keys that exist, with their rows, by key in order.
async fn load(tx: &mut Tx, keys: &[RunKey]) -> Result<Vec<StoredRun>> {
    let mut found = BTreeMap::new();
    for part in keys.chunks(LIST) {
        let (list, args) = in_list(1, part.iter().map(|key| Value::from(key.0)).collect());
        let sql = format!("SELECT {} FROM runs WHERE key IN ({list})", rows::RUN_COLUMNS);
        for row in tx.fetch(AssertSqlSafe(sql), args.clone()).await? {
            let run = rows::run(&row)?;
            found.insert(run.key, StoredRun { run, instances: Vec::new(), live: Vec::new() });
        }
        // `run` comes last here, so that the record's columns stay where its reader expects them.
        let sql = format!(
            "SELECT {columns}, run FROM instances WHERE run IN ({list}) ORDER BY run, task, map_index",
            columns = rows::INSTANCE_COLUMNS
        );
        for row in tx.fetch(AssertSqlSafe(sql), args.clone()).await? {
            let after = rows::INSTANCE_COLUMNS.split(", ").count();
            if let Some(stored) = found.get_mut(&RunKey(row.get(after)?)) {
                stored.instances.push(rows::instance(&row)?);
            }
        }
        let sql = format!(
            "SELECT {columns}, run FROM attempts WHERE run IN ({list}) AND exit IS NULL ORDER BY run, task, map_index",
            columns = rows::ATTEMPT_COLUMNS
        );
        for row in tx.fetch(AssertSqlSafe(sql), args).await? {
            let after = rows::ATTEMPT_COLUMNS.split(", ").count();
            if let Some(stored) = found.get_mut(&RunKey(row.get(after)?)) {
                stored.live.push(rows::attempt(&row)?);
            }
        }
    }
    Ok(found.into_values().collect())
}

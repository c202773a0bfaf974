//! Making runs.

use super::db::{Tx, args};
use super::{Sql, commit, objects, rows};
use crate::error::{Result, StoreError};
use crate::owner::Owner;
use crate::types::{CreateRun, NewObject, NewRun, Same};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::id::RunKey;
use sqlx::AssertSqlSafe;

impl Sql {
    pub async fn create_run(&self, run: NewRun, owner: Option<&Owner>) -> Result<CreateRun> {
        self.create_run_as(run, owner, None).await
    }

    pub async fn create_run_as(
        &self,
        run: NewRun,
        owner: Option<&Owner>,
        object: Option<NewObject>,
    ) -> Result<CreateRun> {
        // Twice at most: only if retention deletes the old run just after it was in the way.
        for _ in 0..3 {
            let mut tx = self.db.begin().await?;
            if let Some(id) = run.backfill {
                backfill_is_open(&mut tx, id).await?;
            }
            let values = rows::new_run_values(&run, owner.map(Owner::id))?;
            if let Some(row) = tx.fetch_one(rows::INSERT_RUN, values).await? {
                let key = RunKey(row.get(0)?);
                if let Some(new) = &object
                    && !objects::insert(&mut tx, new, key).await?
                {
                    match of_object(&mut tx, new).await? {
                        // What was written so far goes with the transaction.
                        Some(run) => return Ok(CreateRun::Exists { run, same: Same::RunId }),
                        None => return Err(StoreError::name_taken(&new.kind, &new.name)),
                    }
                }
                commit::write_audit(&mut tx, &run.audit).await?;
                Sql::tell_others(&mut tx).await?;
                tx.commit().await?;
                self.bell.ring();
                return Ok(CreateRun::Created(run.into_record(key)));
            }
            if let Some((run, same)) = existing(&mut tx, &run).await? {
                return Ok(CreateRun::Exists { run, same });
            }
        }
        Err(StoreError::Unavailable(format!(
            "run `{}` of `{}` could not be made: another one of its name comes and goes",
            run.run_id, run.workflow
        )))
    }
}

/// Refuses a run of a backfill that is over, and keeps it from ending until the transaction does.
async fn backfill_is_open(tx: &mut Tx, id: i64) -> Result<()> {
    let lock = if tx.is_postgres() { "FOR SHARE" } else { "" };
    let sql = format!("SELECT 1 FROM backfills WHERE id = $1 AND completed IS NULL AND NOT cancelled {lock}");
    let open = tx.fetch_one(AssertSqlSafe(sql), args![id]).await?;
    open.map(drop).ok_or_else(|| StoreError::backfill_over(id))
}

/// The run that the object of this name stands for.
async fn of_object(tx: &mut Tx, new: &NewObject) -> Result<Option<RunRecord>> {
    let sql = format!(
        "SELECT {} FROM runs WHERE key = (SELECT run FROM objects WHERE kind = $1 AND namespace = $2 AND name = $3)",
        rows::RUN_COLUMNS
    );
    let found = tx.fetch_one(AssertSqlSafe(sql), args![&new.kind, &new.namespace, &new.name]).await?;
    found.as_ref().map(rows::run).transpose()
}

/// The run that is in the way of a new one.
async fn existing(tx: &mut Tx, run: &NewRun) -> Result<Option<(RunRecord, Same)>> {
    let select = format!("SELECT {} FROM runs WHERE workflow = $1 AND", rows::RUN_COLUMNS);
    let by_id = AssertSqlSafe(format!("{select} run_id = $2"));
    if let Some(row) = tx.fetch_one(by_id, args![run.workflow.as_str(), run.run_id.as_str()]).await? {
        return Ok(Some((rows::run(&row)?, Same::RunId)));
    }
    let by_date = AssertSqlSafe(format!("{select} logical_date = $2"));
    match tx.fetch_one(by_date, args![run.workflow.as_str(), run.logical_date]).await? {
        Some(row) => Ok(Some((rows::run(&row)?, Same::LogicalDate))),
        None => Ok(None),
    }
}

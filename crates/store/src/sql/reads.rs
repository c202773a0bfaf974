//! Reading runs and their rows. Every list is answered out of an index that the schema has for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::id::{RunId, RunKey, TaskId, WorkflowId};
use pitcrew_core::state::{RunState, State};
use sqlx::AssertSqlSafe;

use super::db::{Fields, Row, Value, args};
use super::lists::{LIST, Listing, Where, containing, in_list};
use super::{Sql, rows};
use crate::error::Result;
use crate::types::*;

impl Sql {
    /// The first run that matches.
    async fn one_run(&self, condition: &str, args: Vec<Value<'_>>) -> Result<Option<RunRecord>> {
        let sql = format!("SELECT {} FROM runs WHERE {condition}", rows::RUN_COLUMNS);
        self.db.read_one(AssertSqlSafe(sql), args).await?.as_ref().map(rows::run).transpose()
    }

    pub async fn run(&self, key: RunKey) -> Result<Option<RunRecord>> {
        self.one_run("key = $1", args![key.0]).await
    }

    pub async fn run_by_id(&self, workflow: &WorkflowId, run_id: &RunId) -> Result<Option<RunRecord>> {
        self.one_run("workflow = $1 AND run_id = $2", args![workflow.as_str(), run_id.as_str()]).await
    }

    pub async fn latest_run(&self, workflow: &WorkflowId) -> Result<Option<RunRecord>> {
        self.one_run("workflow = $1 ORDER BY key DESC LIMIT 1", args![workflow.as_str()]).await
    }

    pub async fn runs(&self, filter: &RunFilter, paging: Paging) -> Result<Page<RunRecord>> {
        let mut kept = Where::default();
        if let Some(workflow) = &filter.workflow {
            kept.and("workflow = ?", workflow.as_str());
        }
        kept.any_of("workflow", filter.among.iter().map(WorkflowId::as_str));
        if let Some(run_type) = filter.run_type {
            kept.and("run_type = ?", run_type.name());
        }
        if let Some(backfill) = filter.backfill {
            kept.and("backfill = ?", backfill);
        }
        if let Some(part) = &filter.contains {
            kept.and(&self.db.has_part("run_id"), containing(part));
        }
        if let Some(before) = filter.before {
            kept.and("key < ?", before.0);
        }
        kept.between("logical_date", filter.logical_date);
        kept.between("run_after", filter.run_after);
        kept.between("queued_at", filter.queued);
        kept.between("started", filter.start);
        kept.between("ended", filter.end);
        // What a page is found by, and no more: an index has that.
        let (order, columns) = match filter.order {
            RunOrder::Newest => ("key DESC", "key"),
            RunOrder::Oldest => ("key", "key"),
            RunOrder::LogicalDate => ("logical_date NULLS LAST, key", "key, logical_date"),
            RunOrder::LogicalDateDescending => ("logical_date DESC NULLS LAST, key DESC", "key, logical_date"),
            RunOrder::Start => ("started NULLS LAST, key", "key, started"),
            RunOrder::StartDescending => ("started DESC NULLS LAST, key DESC", "key, started"),
            RunOrder::End => ("ended NULLS LAST, key", "key, ended"),
            RunOrder::EndDescending => ("ended DESC NULLS LAST, key DESC", "key, ended"),
        };
        let any = ("state", filter.states.iter().map(|state| state.name()).collect());
        let listing = Listing { from: "runs", link: "", columns, kept, any, order };
        let (page, args) = listing.page(paging);
        let columns = rows::RUN_COLUMNS;
        // The keys first: what is sorted, or passed over, need not be read as a whole.
        let sql =
            format!("SELECT {columns} FROM runs WHERE key IN (SELECT key FROM ({page}) AS page) ORDER BY {order}");
        let found = self.all(sql, args, rows::run).await?;
        if filter.is_plain() && paging.total_after(found.len()).is_none() {
            let (from, args) = listing.everything();
            let total = self.count(format!("SELECT count(*) {from}"), args).await?;
            return Ok(Page { rows: found, total });
        }
        self.with_total(found, paging, &listing).await
    }

    pub(super) async fn count(&self, sql: String, args: Vec<Value<'_>>) -> Result<u64> {
        let row = self.db.read_one(AssertSqlSafe(sql), args).await?;
        row.map_or(Ok(0), |row| row.fields().int())
    }

    pub async fn run_counts(&self) -> Result<BTreeMap<WorkflowId, RunCounts>> {
        let found =
            self.db.read("SELECT workflow, state, count(*) FROM runs GROUP BY workflow, state", args![]).await?;
        let mut counts: BTreeMap<WorkflowId, RunCounts> = BTreeMap::new();
        for row in &found {
            let mut row = row.fields();
            let (workflow, state) = (row.parse()?, row.word(RunState::from_name)?);
            *counts.entry(workflow).or_default().of_mut(state) = row.int()?;
        }
        Ok(counts)
    }

    pub async fn open_run_counts(&self, workflow: &WorkflowId) -> Result<RunCounts> {
        let sql =
            "SELECT state, count(*) FROM runs WHERE workflow = $1 AND state IN ('queued', 'running') GROUP BY state";
        let mut counts = RunCounts::default();
        for row in &self.db.read(sql, args![workflow.as_str()]).await? {
            let mut row = row.fields();
            let state = row.word(RunState::from_name)?;
            *counts.of_mut(state) = row.int()?;
        }
        Ok(counts)
    }

    pub async fn previous_run(&self, workflow: &WorkflowId, before: Before) -> Result<Option<RunRecord>> {
        let (condition, point) = match before {
            Before::LogicalDate(at) => {
                ("workflow = $1 AND logical_date < $2 ORDER BY logical_date DESC LIMIT 1", Value::from(at))
            }
            Before::Key(key) => ("workflow = $1 AND key < $2 ORDER BY key DESC LIMIT 1", Value::from(key.0)),
        };
        self.one_run(condition, vec![Value::from(workflow.as_str()), point]).await
    }

    pub async fn last_logical_date(&self, workflow: &WorkflowId, run_type: RunType) -> Result<Option<Timestamp>> {
        let sql = "SELECT logical_date FROM runs WHERE workflow = $1 AND run_type = $2 AND logical_date IS NOT NULL \
             ORDER BY logical_date DESC LIMIT 1";
        let row = self.db.read_one(sql, args![workflow.as_str(), run_type.name()]).await?;
        row.map(|row| row.fields().time()).transpose()
    }

    pub async fn instances(
        &self,
        run: RunKey,
        filter: &InstanceFilter,
        paging: Paging,
    ) -> Result<Page<InstanceRecord>> {
        let mut kept = Where::default();
        kept.and("run = ?", run.0);
        kept.any_of("state", filter.states.iter().copied());
        if let Some(task) = &filter.task {
            kept.and("task = ?", task.as_str());
        }
        let (limit, args) = kept.paged(paging);
        let (columns, text) = (rows::INSTANCE_COLUMNS, kept.text());
        let sql = format!("SELECT {columns} FROM instances{text} ORDER BY task, map_index{limit}");
        let found = self.db.read(AssertSqlSafe(sql), args).await?;
        let total = self.count(format!("SELECT count(*) FROM instances{text}"), kept.args()).await?;
        Ok(Page { rows: found.iter().map(rows::instance).collect::<Result<_>>()?, total })
    }

    pub async fn instance(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Option<InstanceRecord>> {
        let columns = rows::INSTANCE_COLUMNS;
        let sql = format!("SELECT {columns} FROM instances WHERE run = $1 AND task = $2 AND map_index = $3");
        let row = self.db.read_one(AssertSqlSafe(sql), args![run.0, task.as_str(), map_index]).await?;
        row.as_ref().map(rows::instance).transpose()
    }

    pub async fn attempts(&self, run: RunKey, task: &TaskId, map_index: i32) -> Result<Vec<AttemptRecord>> {
        let columns = rows::ATTEMPT_COLUMNS;
        let sql =
            format!("SELECT {columns} FROM attempts WHERE run = $1 AND task = $2 AND map_index = $3 ORDER BY number");
        let found = self.db.read(AssertSqlSafe(sql), args![run.0, task.as_str(), map_index]).await?;
        found.iter().map(rows::attempt).collect()
    }

    pub async fn state_counts(&self, runs: &[RunKey]) -> Result<BTreeMap<RunKey, StateCounts>> {
        let mut counts: BTreeMap<RunKey, StateCounts> = BTreeMap::new();
        for part in runs.chunks(LIST) {
            let (list, args) = in_list(1, part.iter().map(|key| Value::from(key.0)).collect());
            let sql = format!("SELECT run, state, count(*) FROM instances WHERE run IN ({list}) GROUP BY run, state");
            for row in &self.db.read(AssertSqlSafe(sql), args).await? {
                let (run, state, count) = state_count(row)?;
                counts.entry(run).or_default().insert(state, count);
            }
        }
        Ok(counts)
    }
}

fn state_count(row: &Row) -> Result<(RunKey, &'static str, u64)> {
    let mut row: Fields<'_> = row.fields();
    let run = RunKey(row.take()?);
    // The time of the state does not matter here, only its word.
    let state = row.word(|name| State::from_name(name, Some(Timestamp::UNIX_EPOCH)))?.name();
    Ok((run, state, row.int()?))
}

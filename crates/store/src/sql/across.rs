//! Questions over many runs.
//!
//! Invariant: no question reads more than its answer, up to a factor that does not grow with the store. A list of
//! all runs is read state by state, each in the order of an index, and merged; long lists are counted up to a cap;
//! what has many small rows comes out of the database as few texts, since each row has its price.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use pitcrew_core::id::{RunKey, TaskId, UNMAPPED, WorkflowId};
use pitcrew_core::state::{RunState, State};
use serde_json::Value as Json;
use sqlx::AssertSqlSafe;

use super::db::{Row, Value, args};
use super::lists::{LIST, Listing, Where, in_list};
use super::{Sql, rows};
use crate::error::Result;
use crate::figures;
use crate::types::*;

/// Workflows in one question.
const FLOWS: usize = 256;

impl Sql {
    pub async fn task_instances(&self, query: &InstanceQuery, paging: Paging) -> Result<Page<InstanceOfRun>> {
        let mut kept = Where::default();
        let by_workflow = query.workflow.is_some() || !query.among.is_empty();
        if let Some(workflow) = &query.workflow {
            kept.and("w.workflow = ?", workflow.as_str());
        }
        kept.any_of("w.workflow", query.among.iter().map(WorkflowId::as_str));
        if let Some(run) = query.run {
            kept.and("i.run = ?", run.0);
        }
        if let Some(task) = &query.task {
            kept.and("i.task = ?", task.as_str());
        }
        if let Some(index) = query.map_index {
            kept.and("i.map_index = ?", index);
        }
        kept.between("i.queued_at", query.queued);
        kept.between("i.started", query.start);
        kept.between("i.ended", query.end);
        // What a page is found by, and no more: an index has that.
        const PLACE: &str = "i.run, i.task, i.map_index";
        const STARTED: &str = "i.run, i.task, i.map_index, i.started";
        const ENDED: &str = "i.run, i.task, i.map_index, i.ended";
        let (order, columns) = match query.order {
            // By the table that is read first, which comes in this order.
            InstanceOrder::Newest if by_workflow => ("w.key DESC, i.task, i.map_index", PLACE),
            InstanceOrder::Oldest if by_workflow => ("w.key, i.task, i.map_index", PLACE),
            InstanceOrder::Newest => ("i.run DESC, i.task, i.map_index", PLACE),
            InstanceOrder::Oldest => ("i.run, i.task, i.map_index", PLACE),
            InstanceOrder::Start => ("i.started NULLS LAST, i.run, i.task, i.map_index", STARTED),
            InstanceOrder::StartDescending => {
                ("i.started DESC NULLS LAST, i.run DESC, i.task DESC, i.map_index DESC", STARTED)
            }
            InstanceOrder::End => ("i.ended NULLS LAST, i.run, i.task, i.map_index", ENDED),
            InstanceOrder::EndDescending => {
                ("i.ended DESC NULLS LAST, i.run DESC, i.task DESC, i.map_index DESC", ENDED)
            }
        };
        let by_run = matches!(query.order, InstanceOrder::Newest | InstanceOrder::Oldest);
        let narrow = by_workflow || query.run.is_some();
        let any_time = !query.start.is_open() || !query.end.is_open();
        // Over everything, the indices for times begin with the state.
        let states = match narrow || !query.states.is_empty() || (by_run && !any_time) {
            true => query.states.clone(),
            false => State::PROMINENCE.to_vec(),
        };
        let listing = Listing {
            from: match (by_workflow, columns) {
                // The join is in this order in both databases, if SQLite is told so.
                (true, _) => "runs w CROSS JOIN instances i",
                // Without statistics SQLite takes another index of states, and sorts a million rows.
                (false, STARTED) if self.db.is_sqlite() && !narrow => "instances i INDEXED BY instances_started",
                (false, ENDED) if self.db.is_sqlite() && !narrow => "instances i INDEXED BY instances_ended",
                (false, _) => "instances i",
            },
            link: if by_workflow { "i.run = w.key" } else { "" },
            columns,
            kept,
            any: ("i.state", states),
            order,
        };
        let (page, args) = listing.page(paging);
        let order = order.replace("w.key", "i.run");
        let sql = format!(
            // SQLite keeps the order of a cross join: first the page, then its rows.
            "SELECT {instance}, {brief} FROM ({page}) AS p CROSS JOIN instances i CROSS JOIN runs r \
             WHERE i.run = p.run AND i.task = p.task AND i.map_index = p.map_index AND r.key = p.run \
             ORDER BY {order}",
            instance = rows::qualified("i", rows::INSTANCE_COLUMNS),
            brief = rows::qualified("r", rows::BRIEF_COLUMNS),
        );
        let found = self.db.read(AssertSqlSafe(sql), args).await?;
        let rows = found.iter().map(rows::instance_of_run).collect::<Result<_>>()?;
        self.with_total(rows, paging, &listing).await
    }

    /// The page with the length of the list, which is counted only if the page does not tell.
    pub(super) async fn with_total<T>(&self, rows: Vec<T>, paging: Paging, listing: &Listing<'_>) -> Result<Page<T>> {
        if let Some(total) = paging.total_after(rows.len()) {
            return Ok(Page { rows, total });
        }
        let (from, args) = listing.everything();
        let counted = self.count_capped(&from, args).await?;
        Ok(Page::capped(rows, counted, paging))
    }

    /// Counts the rows of `FROM …`, up to one more than the cap.
    pub(super) async fn count_capped(&self, from: &str, args: Vec<Value<'_>>) -> Result<u64> {
        let most = TOTAL_CAP + 1;
        self.count(format!("SELECT count(*) FROM (SELECT 1 {from} LIMIT {most}) AS counted"), args).await
    }

    pub async fn grid(&self, workflow: &WorkflowId, before: Option<RunKey>, runs: u32) -> Result<Grid> {
        let mut kept = Where::default();
        kept.and("workflow = ?", workflow.as_str());
        if let Some(before) = before {
            kept.and("key < ?", before.0);
        }
        let (limit, args) = kept.paged(Paging::first(runs));
        let sql = format!("SELECT {} FROM runs{} ORDER BY key DESC{limit}", rows::BRIEF_COLUMNS, kept.text());
        let mut tx = self.db.snapshot().await?;
        let found = tx.fetch(AssertSqlSafe(sql), args).await?;
        let briefs = found.iter().map(rows::brief).collect::<Result<Vec<_>>>()?;
        let mut cells = Cells::default();
        for part in briefs.chunks(LIST) {
            let (list, args) = in_list(1, part.iter().map(|run| Value::from(run.key.0)).collect());
            // In the order of an index, so that nothing is sorted; what is mapped is counted there, not sent.
            let sql = format!(
                "SELECT run, state, string_agg(task, ',') FROM instances WHERE run IN ({list}) AND map_index = {UNMAPPED} \
                 GROUP BY run, state"
            );
            for row in &tx.fetch(AssertSqlSafe(sql), args.clone()).await? {
                let mut row = row.fields();
                let (run, state) = (RunKey(row.take()?), row.word(prominent)?);
                let tasks: String = row.take()?;
                tasks.split(',').for_each(|task| cells.add(run, task, state, 1));
            }
            let sql = format!(
                "SELECT run, state, task, count(*) FROM instances WHERE run IN ({list}) AND map_index > {UNMAPPED} \
                 GROUP BY run, state, task"
            );
            for row in &tx.fetch(AssertSqlSafe(sql), args).await? {
                let mut row = row.fields();
                let (run, state) = (RunKey(row.take()?), row.word(prominent)?);
                let task: String = row.take()?;
                cells.add(run, &task, state, row.int()?);
            }
        }
        cells.grid(briefs)
    }

    pub async fn run_days(&self, workflow: Option<&WorkflowId>, bounds: &[Timestamp]) -> Result<Vec<RunCounts>> {
        let mut days = vec![RunCounts::default(); bounds.len().saturating_sub(1)];
        let spans: Vec<(usize, &[Timestamp])> = bounds.windows(2).enumerate().collect();
        for part in spans.chunks(LIST) {
            let mut values = Vec::new();
            let mut args = Vec::new();
            for (day, span) in part {
                let n = args.len();
                values.push(format!("(${}, ${}, ${})", n + 1, n + 2, n + 3));
                args.extend(args![*day as i64, span[0], span[1]]);
            }
            let mut of = String::new();
            if let Some(workflow) = workflow {
                args.push(Value::from(workflow.as_str()));
                of = format!("r.workflow = ${} AND ", args.len());
            }
            // One day after the other, each out of an index: SQLite keeps the order of a cross join.
            let sql = format!(
                "SELECT d.column1, r.state, count(*) FROM (VALUES {}) AS d CROSS JOIN runs r \
                 WHERE {of}r.run_after >= d.column2 AND r.run_after < d.column3 GROUP BY d.column1, r.state",
                values.join(", ")
            );
            for row in &self.db.read(AssertSqlSafe(sql), args).await? {
                let mut row = row.fields();
                let (day, state): (usize, _) = (row.int()?, row.word(RunState::from_name)?);
                *days[day].of_mut(state) = row.int()?;
            }
        }
        Ok(days)
    }

    pub async fn figures(&self, of: &FiguresOf) -> Result<Figures> {
        let mut figures = figures::Builder::default();
        let mut kept = Where::default();
        kept.and("ended >= ?", of.since);
        kept.and("ended < ?", of.until);
        if let Some(workflow) = &of.workflow {
            kept.and("workflow = ?", workflow.as_str());
        }
        let text = kept.text();
        let finals = "state IN ('success', 'failed', 'cancelled')";
        let sql = format!("SELECT state, count(*) FROM runs{text} AND {finals} GROUP BY state");
        for row in &self.db.read(AssertSqlSafe(sql), kept.args()).await? {
            let mut row = row.fields();
            figures.count(row.word(RunState::from_name)?, row.int()?);
        }
        let (limit, args) = kept.paged(Paging::first(FIGURES_OF));
        // As in `retention`: by time and not by state.
        let sql = format!(
            "SELECT workflow, string_agg(state || ' ' || queued_at || ' ' || COALESCE(CAST(started AS TEXT), '') \
             || ' ' || ended, ',') FROM (SELECT workflow, state, queued_at, started, ended FROM runs{text} \
             AND state || '' IN ('success', 'failed', 'cancelled') ORDER BY ended DESC, key DESC{limit}) AS newest \
             GROUP BY workflow"
        );
        for row in &self.db.read(AssertSqlSafe(sql), args).await? {
            let (workflow, text): (String, String) = (row.get(0)?, row.get(1)?);
            for run in text.split(',') {
                let read = || {
                    let mut words = run.split(' ');
                    let state = RunState::from_name(words.next()?)?;
                    let mut time = || Timestamp::from_microsecond(words.next()?.parse().ok()?).ok();
                    let (queued, start, end) = (time()?, time(), time()?);
                    Some((state, queued, start, end))
                };
                let (state, queued, start, end) = read().ok_or_else(|| rows::damaged(run))?;
                figures.run(&workflow, state, queued, start, end);
            }
        }
        let mut kept = Where::default();
        kept.and("a.ended >= ?", of.since);
        kept.and("a.ended < ?", of.until);
        let mut from = "attempts a";
        if let Some(workflow) = &of.workflow {
            kept.and("r.workflow = ?", workflow.as_str());
            from = "attempts a JOIN runs r ON r.key = a.run";
        }
        let (limit, args) = kept.paged(Paging::first(FIGURES_OF));
        let sql = format!(
            "SELECT a.started, a.ended, a.usage FROM {from}{} AND a.gpus IS NOT NULL ORDER BY a.ended DESC{limit}",
            kept.text()
        );
        for row in &self.db.read(AssertSqlSafe(sql), args).await? {
            let mut row = row.fields();
            let (start, end) = (row.time_optional()?, row.time()?);
            figures.attempt(start, end, &row.json_optional::<Json>()?.unwrap_or_default());
        }
        Ok(figures.finish())
    }

    pub async fn recent_runs(
        &self,
        workflows: &[WorkflowId],
        limit: u32,
    ) -> Result<BTreeMap<WorkflowId, Vec<RunBrief>>> {
        let mut recent: BTreeMap<WorkflowId, Vec<RunBrief>> = BTreeMap::new();
        let distinct: BTreeSet<&WorkflowId> = workflows.iter().collect();
        let distinct: Vec<&WorkflowId> = distinct.into_iter().collect();
        for part in distinct.chunks(FLOWS) {
            // Filled up with a name that no workflow has, so that few different texts arise.
            let mut args: Vec<Value<'_>> = part.iter().map(|id| Value::from(id.as_str())).collect();
            args.resize(part.len().next_power_of_two(), Value::from(""));
            let names = (1..=args.len()).map(|n| format!("(${n})")).collect::<Vec<_>>().join(", ");
            args.push(Value::from(limit));
            let sql = format!(
                "SELECT (SELECT string_agg({run}, ',') FROM (SELECT {columns} FROM runs WHERE workflow = w.column1 \
                 ORDER BY key DESC LIMIT ${limit}) AS newest) FROM (VALUES {names}) AS w",
                run = rows::brief_text(),
                columns = rows::BRIEF_COLUMNS,
                limit = args.len(),
            );
            for row in &self.db.read(AssertSqlSafe(sql), args).await? {
                let Some(text) = row.get::<Option<String>>(0)? else { continue };
                let mut runs = text.split(',').map(rows::brief_of_text).collect::<Result<Vec<_>>>()?;
                runs.sort_by_key(|run| std::cmp::Reverse(run.key));
                if let Some(newest) = runs.first() {
                    recent.insert(newest.workflow.clone(), runs);
                }
            }
        }
        Ok(recent)
    }

    pub async fn runs_in(&self, state: RunState) -> Result<u64> {
        self.count_capped("FROM runs WHERE state = $1", args![state.name()]).await
    }

    pub async fn instances_in(&self) -> Result<StateCounts> {
        let most = TOTAL_CAP + 1;
        let one = |state: &&str| {
            format!("(SELECT count(*) FROM (SELECT 1 FROM instances WHERE state = '{state}' LIMIT {most}) AS counted)")
        };
        let sql = format!("SELECT {}", State::PROMINENCE.iter().map(one).collect::<Vec<_>>().join(", "));
        let mut counts = StateCounts::new();
        if let Some(row) = self.db.read_one(AssertSqlSafe(sql), args![]).await? {
            let mut row = row.fields();
            for state in State::PROMINENCE {
                counts.insert(state, row.int()?);
            }
        }
        counts.retain(|_, count| *count > 0);
        Ok(counts)
    }
}

/// A word of `State::name`.
fn prominent(name: &str) -> Option<&'static str> {
    State::PROMINENCE.into_iter().find(|state| *state == name)
}

/// The cells of a grid, as they are read.
#[derive(Default)]
struct Cells {
    /// Tasks, numbered as they come.
    places: HashMap<String, u32>,
    of_run: HashMap<RunKey, Vec<GridCell>>,
}

impl Cells {
    fn add(&mut self, run: RunKey, task: &str, state: &'static str, count: u32) {
        let next = self.places.len() as u32;
        let task = match self.places.get(task) {
            Some(place) => *place,
            None => *self.places.entry(task.to_owned()).or_insert(next),
        };
        self.of_run.entry(run).or_default().push(GridCell { task, state, count });
    }

    /// With the tasks numbered in order.
    fn grid(mut self, briefs: Vec<RunBrief>) -> Result<Grid> {
        let mut names: Vec<(String, u32)> = self.places.into_iter().collect();
        names.sort_unstable();
        let mut place_of = vec![0; names.len()];
        let mut tasks = Vec::with_capacity(names.len());
        for (name, came) in names {
            place_of[came as usize] = tasks.len() as u32;
            tasks.push(TaskId::new(&name).map_err(|_| rows::damaged(&name))?);
        }
        let column = |run: RunBrief| {
            let mut cells = self.of_run.remove(&run.key).unwrap_or_default();
            cells.iter_mut().for_each(|cell| cell.task = place_of[cell.task as usize]);
            cells.sort_unstable_by_key(|cell| (cell.task, cell.state));
            // Before it is known that it is mapped, a task is one instance that is not.
            cells.dedup_by(|next, kept| {
                let same = (next.task, next.state) == (kept.task, kept.state);
                kept.count += u32::from(same) * next.count;
                same
            });
            GridRun { run, cells }
        };
        Ok(Grid { tasks, runs: briefs.into_iter().map(column).collect() })
    }
}

/// The events of the audit log: one probe of the index for each, however many entries there are.
pub(super) const AUDIT_EVENTS: &str = "WITH RECURSIVE events (event) AS (SELECT min(event) FROM audit UNION ALL \
     SELECT (SELECT min(audit.event) FROM audit WHERE audit.event > events.event) FROM events \
     WHERE events.event IS NOT NULL) SELECT event FROM events WHERE event IS NOT NULL ORDER BY event";

pub(super) fn text(row: &Row) -> Result<String> {
    row.get(0)
}

//! Records to columns and back. Each list of columns stands beside the function that reads it in that order.

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType, SkipReason};
use pitcrew_core::id::{RunKey, WorkflowId};
use pitcrew_core::state::{RunState, State};
use serde::Serialize;

use super::db::{Fields, Row, Value, args};
use crate::error::{Result, StoreError};
use crate::types::{AuditEntry, AuditRow, InstanceOfRun, NewRun, RunBrief, WorkflowRow};

/// A record that cannot be written as JSON is a fault of its maker.
pub fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Invalid(format!("a value is no JSON: {error}")))
}

fn json_optional<T: Serialize>(value: &Option<T>) -> Result<Option<String>> {
    value.as_ref().map(json).transpose()
}

pub const RUN_COLUMNS: &str = "key, workflow, run_id, run_type, version, params, conf, logical_date, interval_start, \
     interval_end, run_after, queued_at, triggered_by, state, started, ended, stop, note, backfill, finally_start";

pub fn run(row: &Row) -> Result<RunRecord> {
    let row = &mut row.fields();
    Ok(RunRecord {
        key: RunKey(row.take()?),
        workflow: row.parse()?,
        run_id: row.parse()?,
        run_type: row.word(RunType::from_name)?,
        version: row.take()?,
        params: row.json()?,
        conf: row.json()?,
        logical_date: row.time_optional()?,
        data_interval: row.time_optional()?.zip(row.time_optional()?),
        run_after: row.time()?,
        queued_at: row.time()?,
        triggered_by: row.take()?,
        state: row.word(RunState::from_name)?,
        start: row.time_optional()?,
        end: row.time_optional()?,
        stop: row.json_optional()?,
        note: row.take()?,
        backfill: row.take()?,
        finally_start: row.time_optional()?,
    })
}

/// Each of the columns with the table's name before it.
pub fn qualified(table: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{table}.{}", column.trim())).collect::<Vec<_>>().join(", ")
}

pub const BRIEF_COLUMNS: &str = "key, workflow, run_id, run_type, version, logical_date, run_after, queued_at, \
     started, ended, state, backfill";

pub fn brief(row: &Row) -> Result<RunBrief> {
    brief_fields(&mut row.fields())
}

fn brief_fields(row: &mut Fields<'_>) -> Result<RunBrief> {
    Ok(RunBrief {
        key: RunKey(row.take()?),
        workflow: row.parse()?,
        run_id: row.parse()?,
        run_type: row.word(RunType::from_name)?,
        version: row.take()?,
        logical_date: row.time_optional()?,
        run_after: row.time()?,
        queued_at: row.time()?,
        start: row.time_optional()?,
        end: row.time_optional()?,
        state: row.word(RunState::from_name)?,
        backfill: row.take()?,
    })
}

/// [`BRIEF_COLUMNS`] as one text, for many at once: each row, and each value of it, has its price.
pub fn brief_text() -> String {
    let texts = BRIEF_COLUMNS.split(", ").map(|column| format!("COALESCE(CAST({} AS TEXT), '')", column.trim()));
    texts.collect::<Vec<_>>().join(" || ' ' || ")
}

/// Reads what [`brief_text`] wrote. Neither ids nor versions have a space.
pub fn brief_of_text(text: &str) -> Result<RunBrief> {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |at: usize| match words.get(at).copied() {
        Some("") => Some(None),
        Some(word) => word.parse::<i64>().ok().map(Some),
        None => None,
    };
    let time = |at: usize| match number(at)? {
        Some(micros) => Timestamp::from_microsecond(micros).ok().map(Some),
        None => Some(None),
    };
    let read = || {
        Some(RunBrief {
            key: RunKey(number(0)??),
            workflow: words.get(1)?.parse().ok()?,
            run_id: words.get(2)?.parse().ok()?,
            run_type: RunType::from_name(words.get(3)?)?,
            version: (*words.get(4)?).to_owned(),
            logical_date: time(5)?,
            run_after: time(6)??,
            queued_at: time(7)??,
            start: time(8)?,
            end: time(9)?,
            state: RunState::from_name(words.get(10)?)?,
            backfill: number(11)?,
        })
    };
    read().ok_or_else(|| damaged(text))
}

/// The error for a text that nothing here has written.
pub fn damaged(found: &str) -> StoreError {
    let found: String = found.chars().take(80).collect();
    StoreError::Corrupt(format!("a stored row cannot be read: found `{found}`; was the database changed by hand?"))
}

/// [`INSTANCE_COLUMNS`], then [`BRIEF_COLUMNS`].
pub fn instance_of_run(row: &Row) -> Result<InstanceOfRun> {
    let row = &mut row.fields();
    let instance = instance_fields(row)?;
    Ok(InstanceOfRun { run: brief_fields(row)?, instance })
}

/// All columns of a new run but `key`, with its owner.
pub const INSERT_RUN: &str = "INSERT INTO runs (workflow, run_id, run_type, version, params, conf, logical_date, \
     interval_start, interval_end, run_after, queued_at, triggered_by, state, note, backfill, owner) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING RETURNING key";

pub fn new_run_values<'a>(run: &'a NewRun, owner: Option<&'a str>) -> Result<Vec<Value<'a>>> {
    Ok(args![
        run.workflow.as_str(),
        run.run_id.as_str(),
        run.run_type.name(),
        &run.version,
        json(&run.params)?,
        json(&run.conf)?,
        run.logical_date,
        run.data_interval.map(|(start, _)| start),
        run.data_interval.map(|(_, end)| end),
        run.run_after,
        run.queued_at,
        &run.triggered_by,
        RunState::Queued.name(),
        &run.note,
        run.backfill,
        owner,
    ])
}

/// What of a run may change.
pub const UPDATE_RUN: &str = "UPDATE runs SET version = $2, run_after = $3, queued_at = $4, state = $5, started = $6, \
     ended = $7, stop = $8, note = $9, backfill = $10, finally_start = $11, reopened = reopened + $12 WHERE key = $1";

pub fn update_run_values(run: &RunRecord, reopen: bool) -> Result<Vec<Value<'_>>> {
    Ok(args![
        run.key.0,
        &run.version,
        run.run_after,
        run.queued_at,
        run.state.name(),
        run.start,
        run.end,
        json_optional(&run.stop)?,
        &run.note,
        run.backfill,
        run.finally_start,
        i64::from(reopen),
    ])
}

pub const INSTANCE_COLUMNS: &str = "task, map_index, state, wake_at, attempt, max_attempt, lost, queued_at, started, \
     ended, exit, message, outputs, item, followed, stop, skip";

pub fn instance(row: &Row) -> Result<InstanceRecord> {
    instance_fields(&mut row.fields())
}

fn instance_fields(row: &mut Fields<'_>) -> Result<InstanceRecord> {
    Ok(InstanceRecord {
        task: row.parse()?,
        map_index: row.int()?,
        state: {
            let name: String = row.take()?;
            let at = row.time_optional()?;
            State::from_name(&name, at)
                .ok_or_else(|| StoreError::Corrupt(format!("a stored instance has the unknown state `{name}`")))?
        },
        attempt: row.int()?,
        max_attempt: row.int()?,
        lost: row.int()?,
        queued_at: row.time_optional()?,
        start: row.time_optional()?,
        end: row.time_optional()?,
        exit: row.json_optional()?,
        message: row.take()?,
        outputs: row.json_optional()?.unwrap_or_default(),
        item: row.json_optional()?,
        followed: row.json_optional()?,
        stop: row.json_optional()?,
        // One that another version wrote and this one does not know is as good as none: its sentence is kept beside it.
        skip: row.take::<Option<String>>()?.and_then(|name| SkipReason::from_name(&name)),
    })
}

/// `run`, then [`INSTANCE_COLUMNS`].
pub fn push_instance<'a>(to: &mut Vec<Value<'a>>, run: RunKey, instance: &'a InstanceRecord) -> Result<()> {
    let wake_at = match instance.state {
        State::UpForRetry { at } | State::UpForReschedule { at } => Some(at),
        _ => None,
    };
    let outputs = if instance.outputs.is_empty() { None } else { Some(json(&instance.outputs)?) };
    to.extend(args![
        run.0,
        instance.task.as_str(),
        instance.map_index,
        instance.state.name(),
        wake_at,
        instance.attempt,
        instance.max_attempt,
        instance.lost,
        instance.queued_at,
        instance.start,
        instance.end,
        json_optional(&instance.exit)?,
        &instance.message,
        outputs,
        json_optional(&instance.item)?,
        json_optional(&instance.followed)?,
        json_optional(&instance.stop)?,
        instance.skip.map(SkipReason::name),
    ]);
    Ok(())
}

pub const ATTEMPT_COLUMNS: &str = "task, map_index, number, backend, handle, queued_at, started, ended, exit, message, gpus, usage, node, request, names, \
     detail";

pub fn attempt(row: &Row) -> Result<AttemptRecord> {
    let row = &mut row.fields();
    Ok(AttemptRecord {
        task: row.parse()?,
        map_index: row.int()?,
        number: row.int()?,
        backend: row.take()?,
        handle: row.json()?,
        queued_at: row.time()?,
        start: row.time_optional()?,
        end: row.time_optional()?,
        exit: row.json_optional()?,
        message: row.take()?,
        gpus: row.json_optional()?.unwrap_or_default(),
        usage: row.json_optional()?.unwrap_or_default(),
        node: row.take()?,
        // One that another version wrote and this one does not understand is as good as none.
        request: row.json_optional::<serde_json::Value>()?.and_then(|granted| serde_json::from_value(granted).ok()),
        names: row.json_optional()?.unwrap_or_default(),
        detail: row.json_optional()?.unwrap_or_default(),
    })
}

/// `run`, then [`ATTEMPT_COLUMNS`].
pub fn push_attempt<'a>(to: &mut Vec<Value<'a>>, run: RunKey, attempt: &'a AttemptRecord) -> Result<()> {
    let gpus = if attempt.gpus.is_empty() { None } else { Some(json(&attempt.gpus)?) };
    let usage = if attempt.usage.is_null() { None } else { Some(json(&attempt.usage)?) };
    let names = if attempt.names.is_null() { None } else { Some(json(&attempt.names)?) };
    let detail = if attempt.detail.is_null() { None } else { Some(json(&attempt.detail)?) };
    to.extend(args![
        run.0,
        attempt.task.as_str(),
        attempt.map_index,
        attempt.number,
        &attempt.backend,
        json(&attempt.handle)?,
        attempt.queued_at,
        attempt.start,
        attempt.end,
        json_optional(&attempt.exit)?,
        &attempt.message,
        gpus,
        usage,
        attempt.node.as_deref(),
        json_optional(&attempt.request)?,
        names,
        detail,
    ]);
    Ok(())
}

pub const AUDIT_COLUMNS: &str = "at, who, event, workflow, run, task, detail";

/// `id`, then [`AUDIT_COLUMNS`].
pub fn audit(row: &Row) -> Result<AuditRow> {
    let row = &mut row.fields();
    let id = row.take()?;
    let entry = AuditEntry {
        at: row.time()?,
        who: row.take()?,
        event: row.take()?,
        workflow: row.parse_optional()?,
        run: row.parse_optional()?,
        task: row.parse_optional()?,
        detail: row.json_optional()?.unwrap_or_default(),
    };
    Ok(AuditRow { id, entry })
}

/// [`AUDIT_COLUMNS`].
pub fn push_audit<'a>(to: &mut Vec<Value<'a>>, entry: &'a AuditEntry) -> Result<()> {
    let detail = if entry.detail.is_null() { None } else { Some(json(&entry.detail)?) };
    to.extend(args![
        entry.at,
        &entry.who,
        &entry.event,
        entry.workflow.as_ref().map(|id| id.as_str()),
        entry.run.as_ref().map(|id| id.as_str()),
        entry.task.as_ref().map(|id| id.as_str()),
        detail,
    ]);
    Ok(())
}

pub const WORKFLOW_COLUMNS: &str = "id, path, version, description, schedule, is_paused, active, next_run";

/// The workflow without its tags, which are rows of their own.
pub fn workflow(row: &Row) -> Result<WorkflowRow> {
    let row = &mut row.fields();
    Ok(WorkflowRow {
        id: row.parse::<WorkflowId>()?,
        path: row.take()?,
        version: row.take()?,
        description: row.take()?,
        tags: Vec::new(),
        schedule: row.take()?,
        is_paused: row.take()?,
        active: row.take()?,
        next_run: row.time_optional()?,
    })
}

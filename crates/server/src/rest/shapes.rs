//! Our rows as Airflow's JSON. Pure: what a shape needs is given to it.

use jiff::Timestamp;
use pitcrew_core::engine::record::{AttemptRecord, InstanceRecord, RunRecord, RunType};
use pitcrew_core::ir::{Task, Work, Workflow};
use pitcrew_core::state::{Exit, RunState, State};
use pitcrew_core::timetable::Schedule;
use pitcrew_core::{TaskId, WorkflowId};
use pitcrew_store::{DEFAULT_POOL, RunBrief, Version, WorkflowRow};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The one bundle that there is, in Airflow's words: the folder of workflow files.
pub const BUNDLE: &str = "workflows";

/// A version of a workflow, numbered from 1.
pub struct DagVersion {
    pub number: usize,
    pub version: Version,
}

/// Numbers versions that come the newest first.
pub fn find_version(versions: &[Version], hash: &str) -> Option<DagVersion> {
    let at = versions.iter().position(|version| version.hash == hash)?;
    Some(DagVersion { number: versions.len() - at, version: versions[at].clone() })
}

pub fn dag_version(dag: &WorkflowId, found: &DagVersion) -> Value {
    json!({
        "id": stable_uuid(&["version", dag.as_str(), &found.version.hash]),
        "version_number": found.number,
        "dag_id": dag,
        "bundle_name": BUNDLE,
        "bundle_version": found.version.hash,
        "bundle_url": null,
        "created_at": found.version.created,
        "dag_display_name": dag,
    })
}

/// The keys that a DAG has in lists and alone. Without the compiled workflow its limits are not known.
pub fn dag(row: &WorkflowRow, workflow: Option<&Workflow>, has_errors: bool) -> Map<String, Value> {
    let tag = |name: &String| json!({ "name": name, "dag_id": row.id, "dag_display_name": row.id });
    let due = row.next_run.filter(|_| !row.is_paused);
    let value = json!({
        "dag_id": row.id,
        "dag_display_name": row.id,
        "is_paused": row.is_paused,
        "is_stale": !row.active,
        "last_parsed_time": null,
        "last_parse_duration": null,
        "last_expired": null,
        "bundle_name": BUNDLE,
        "bundle_version": row.version,
        "relative_fileloc": row.path.rsplit('/').next(),
        "fileloc": row.path,
        "description": text_or_null(&row.description),
        "timetable_summary": row.schedule,
        "timetable_description": row.schedule.as_deref().unwrap_or("Never, external triggers only"),
        "timetable_partitioned": false,
        "timetable_periodic": row.schedule.is_some(),
        "tags": row.tags.iter().map(tag).collect::<Vec<_>>(),
        "max_active_tasks": workflow.and_then(|w| w.max_active_tasks).unwrap_or(i32::MAX as u32),
        "max_active_runs": workflow.map(|w| w.max_active_runs),
        "max_consecutive_failed_dag_runs": 0,
        "has_task_concurrency_limits": workflow.is_some_and(|w| w.tasks.iter().any(|t| t.max_parallel.is_some())),
        "has_import_errors": has_errors,
        "next_dagrun_logical_date": due,
        "next_dagrun_data_interval_start": null,
        "next_dagrun_data_interval_end": due,
        "next_dagrun_run_after": due,
        "allowed_run_types": null,
        "owners": [],
        "is_backfillable": row.schedule.is_some(),
        "file_token": stable_uuid(&["file", &row.path]),
    });
    let Value::Object(map) = value else { unreachable!("an object literal") };
    map
}

/// What the details add to [`dag`].
pub fn dag_details(
    row: &WorkflowRow,
    workflow: Option<&Workflow>,
    latest: Option<&DagVersion>,
    active_runs: u64,
    has_errors: bool,
) -> Value {
    let mut map = dag(row, workflow, has_errors);
    let params = workflow.map(|w| w.params.iter().map(|p| (p.name.clone(), param(p))).collect::<Map<_, _>>());
    let schedule: Option<&Schedule> = workflow.and_then(|w| w.schedule.as_ref());
    let Value::Object(more) = json!({
        "active_runs_count": active_runs,
        "asset_expression": null,
        "catchup": schedule.is_some_and(|s| s.catchup),
        "concurrency": map["max_active_tasks"],
        "dag_run_timeout": workflow.and_then(|w| w.timeouts.run).map(|t| format!("PT{}S", t.as_secs())),
        "default_args": null,
        "doc_md": null,
        "start_date": schedule.and_then(|s| s.start),
        "end_date": schedule.and_then(|s| s.end),
        "is_favorite": false,
        "is_paused_upon_creation": null,
        "last_parsed": null,
        "latest_dag_version": latest.map(|version| dag_version(&row.id, version)),
        "owner_links": null,
        "params": params.map_or(Value::Null, Value::Object),
        "render_template_as_native_obj": true,
        "rerun_with_latest_version": false,
        "template_search_path": null,
        "timezone": "UTC",
    }) else {
        unreachable!("an object literal")
    };
    map.extend(more);
    Value::Object(map)
}

fn param(param: &pitcrew_core::ir::Param) -> Value {
    json!({
        "value": param.default,
        "schema": param.schema,
        "description": param.schema.get("description"),
        "source": "dag",
    })
}

pub fn run(run: &RunRecord, version: Option<&DagVersion>) -> Value {
    json!({
        "dag_run_id": run.run_id,
        "dag_id": run.workflow,
        "dag_display_name": run.workflow,
        "logical_date": run.logical_date,
        "queued_at": run.queued_at,
        "start_date": run.start,
        "end_date": run.end,
        "duration": seconds(run.start, run.end),
        "data_interval_start": run.data_interval.map(|(start, _)| start),
        "data_interval_end": run.data_interval.map(|(_, end)| end),
        "run_after": run.run_after,
        "last_scheduling_decision": run.end.or(run.start),
        "run_type": run_type(run.run_type),
        "state": run_state(run.state),
        "triggered_by": triggered_by(run),
        "triggering_user_name": text_or_null(&run.triggered_by),
        "conf": run.conf,
        "note": text_or_null(&run.note),
        "dag_versions": version.map(|version| dag_version(&run.workflow, version)).into_iter().collect::<Vec<_>>(),
        "bundle_version": run.version,
        "partition_key": null,
        "partition_date": null,
    })
}

/// Airflow has no cancelled runs; there they are failed.
pub fn run_state(state: RunState) -> &'static str {
    match state {
        RunState::Cancelled => RunState::Failed.name(),
        RunState::Queued | RunState::Running | RunState::Success | RunState::Failed => state.name(),
    }
}

/// Airflow knows one kind of event: that an asset changed.
pub fn run_type(run_type: RunType) -> &'static str {
    match run_type {
        RunType::Event => "asset_triggered",
        RunType::Manual | RunType::Scheduled | RunType::Backfill => run_type.name(),
    }
}

fn triggered_by(run: &RunRecord) -> &'static str {
    match run.run_type {
        RunType::Scheduled => "timetable",
        RunType::Backfill => "backfill",
        RunType::Event => "asset",
        RunType::Manual if run.triggered_by == "cli" => "cli",
        RunType::Manual => "rest_api",
    }
}

/// What the shape of an instance needs besides its row.
pub struct Around<'a> {
    pub run: &'a RunBrief,
    pub workflow: Option<&'a Workflow>,
    pub version: Option<&'a DagVersion>,
}

impl Around<'_> {
    fn task(&self, id: &TaskId) -> Option<&Task> {
        let workflow = self.workflow?;
        workflow.by_name.get(id).map(|ix| workflow.task(*ix))
    }

    pub fn instance(&self, row: &InstanceRecord) -> Value {
        let Value::Object(mut map) = self.common(&row.task, row.map_index) else { unreachable!("an object literal") };
        let key = format!("{}/{}/{}/{}", self.run.key, row.task, row.map_index, row.attempt);
        let Value::Object(own) = json!({
            "id": stable_uuid(&["instance", &key]),
            "run_after": self.run.run_after,
            "logical_date": self.run.logical_date,
            "try_number": row.attempt,
            "state": instance_state(row.state),
            "start_date": row.start,
            "end_date": row.end,
            "duration": seconds(row.start, row.end),
            "queued_when": row.queued_at,
            "scheduled_when": row.queued_at,
            "note": text_or_null(&row.message),
            "rendered_map_index": row.item.as_ref().map(|item| short(item, 250)),
            "rendered_fields": {},
            "trigger": null,
            "triggerer_job": null,
        }) else {
            unreachable!("an object literal")
        };
        map.extend(own);
        Value::Object(map)
    }

    /// One attempt, as Airflow's history has it.
    pub fn attempt(&self, attempt: &AttemptRecord) -> Value {
        let Value::Object(mut map) = self.common(&attempt.task, attempt.map_index) else {
            unreachable!("an object literal")
        };
        let Value::Object(own) = json!({
            "try_number": attempt.number,
            "state": attempt_state(attempt),
            "start_date": attempt.start,
            "end_date": attempt.end,
            "duration": seconds(attempt.start, attempt.end),
            "queued_when": attempt.queued_at,
            "scheduled_when": attempt.queued_at,
            "executor": attempt.backend,
            "hostname": attempt.node,
        }) else {
            unreachable!("an object literal")
        };
        map.extend(own);
        Value::Object(map)
    }

    fn common(&self, id: &TaskId, map_index: i32) -> Value {
        let task = self.task(id);
        let operator = task.map(|task| operator(&task.work));
        json!({
            "task_id": id,
            "task_display_name": id,
            "dag_id": self.run.workflow,
            "dag_display_name": self.run.workflow,
            "dag_run_id": self.run.run_id,
            "map_index": map_index,
            "max_tries": task.map_or(0, |task| task.retry.retries),
            "hostname": null,
            "unixname": null,
            "pid": null,
            "pool": task.and_then(|task| task.pool.as_deref()).unwrap_or(DEFAULT_POOL),
            "pool_slots": task.map_or(1, |task| task.pool_slots),
            "queue": null,
            "priority_weight": task.map(|task| task.priority),
            "operator": operator,
            "operator_name": operator,
            "executor": task.map(|task| task.backend.name()),
            "executor_config": "{}",
            "dag_version": self.version.map(|version| dag_version(&self.run.workflow, version)),
        })
    }
}

pub fn operator(work: &Work) -> &str {
    match work {
        Work::Noop => "noop",
        Work::Steps(_) => "shell",
        Work::Action { uses, .. } => uses,
        Work::Pod { .. } => "pod",
    }
}

/// Airflow's word for the state of an instance; `none` is `null` there.
pub fn instance_state(state: State) -> Option<&'static str> {
    match state {
        State::None => None,
        State::Recovering => Some("restarting"),
        other => Some(other.name()),
    }
}

fn attempt_state(attempt: &AttemptRecord) -> &'static str {
    match (&attempt.exit, attempt.start) {
        (Some(exit), _) if exit.is_success() => "success",
        (Some(Exit::Cancelled), _) => "skipped",
        (Some(_), _) => "failed",
        (None, Some(_)) => "running",
        (None, None) => "queued",
    }
}

fn seconds(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<f64> {
    Some(end?.duration_since(start?).as_secs_f64())
}

pub fn text_or_null(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A value in one line of at most that many characters; a text stands without quotes.
pub fn short(value: &Value, max: usize) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.chars().count() <= max { text } else { text.chars().take(max - 1).chain(['…']).collect() }
}

/// Airflow's rows have UUIDs; ours are named by what they are, and the same row has the same one for ever.
pub fn stable_uuid(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

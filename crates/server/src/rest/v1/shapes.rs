//! Airflow 2's shapes, made from those of Airflow 3: keys are left out, renamed and added.

use serde_json::{Map, Value, json};

/// Some keys of an object, in this order; one that it has not is `null`.
fn keep(from: &mut Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter().map(|key| ((*key).to_owned(), from.get_mut(*key).map(Value::take).unwrap_or_default())).collect()
}

pub fn dag(mut dag: Value) -> Value {
    let schedule = dag["timetable_summary"].take();
    let tags = dag["tags"].as_array().into_iter().flatten().map(|tag| json!({ "name": tag["name"] }));
    let tags: Vec<Value> = tags.collect();
    let is_active = dag["is_stale"] == json!(false);
    let next = dag["next_dagrun_logical_date"].clone();
    let after = dag["next_dagrun_run_after"].clone();
    let mut shape = keep(
        &mut dag,
        &[
            "dag_id",
            "dag_display_name",
            "description",
            "fileloc",
            "file_token",
            "has_import_errors",
            "has_task_concurrency_limits",
            "is_paused",
            "last_expired",
            "last_parsed_time",
            "max_active_runs",
            "max_active_tasks",
            "max_consecutive_failed_dag_runs",
            "next_dagrun_data_interval_end",
            "next_dagrun_data_interval_start",
            "owners",
            "timetable_description",
        ],
    );
    let Value::Object(own) = json!({
        "default_view": "grid",
        "is_active": is_active,
        "is_subdag": false,
        "last_pickled": null,
        "next_dagrun": next,
        "next_dagrun_create_after": after,
        "pickle_id": null,
        "root_dag_id": null,
        "schedule_interval": schedule.as_str().map(|text| json!({ "__type": "CronExpression", "value": text })),
        "scheduler_lock": null,
        "tags": tags,
    }) else {
        unreachable!("an object literal")
    };
    shape.extend(own);
    Value::Object(shape)
}

/// Airflow 2 knows no run without a date: one that stands for none has that of its trigger.
pub fn run(mut run: Value) -> Value {
    let date = match &run["logical_date"] {
        Value::Null => run["run_after"].clone(),
        date => date.clone(),
    };
    let is_external = run["run_type"] == "manual";
    run["logical_date"] = date.clone();
    let keys = [
        "conf",
        "dag_id",
        "dag_run_id",
        "data_interval_end",
        "data_interval_start",
        "end_date",
        "last_scheduling_decision",
        "logical_date",
        "note",
        "run_type",
        "start_date",
        "state",
    ];
    let mut shape = keep(&mut run, &keys);
    shape.insert("execution_date".to_owned(), date);
    shape.insert("external_trigger".to_owned(), json!(is_external));
    Value::Object(shape)
}

pub fn instance(mut instance: Value) -> Value {
    let date = match &instance["logical_date"] {
        Value::Null => instance["run_after"].clone(),
        date => date.clone(),
    };
    let keys = [
        "dag_id",
        "dag_run_id",
        "duration",
        "end_date",
        "executor",
        "executor_config",
        "hostname",
        "map_index",
        "max_tries",
        "note",
        "operator",
        "pid",
        "pool",
        "pool_slots",
        "priority_weight",
        "queue",
        "queued_when",
        "rendered_fields",
        "rendered_map_index",
        "start_date",
        "state",
        "task_display_name",
        "task_id",
        "trigger",
        "triggerer_job",
        "try_number",
        "unixname",
    ];
    let mut shape = keep(&mut instance, &keys);
    shape.insert("execution_date".to_owned(), date);
    shape.insert("sla_miss".to_owned(), Value::Null);
    Value::Object(shape)
}

/// A cleared instance, by its names alone.
pub fn reference(instance: Value) -> Value {
    let Value::Object(mut shape) = self::instance(instance) else { return Value::Null };
    shape.retain(|key, _| matches!(key.as_str(), "dag_id" | "dag_run_id" | "execution_date" | "task_id"));
    Value::Object(shape)
}

pub fn variable(mut variable: Value) -> Value {
    Value::Object(keep(&mut variable, &["key", "value", "description"]))
}

pub fn connection(mut connection: Value) -> Value {
    let keys = ["connection_id", "conn_type", "description", "host", "login", "schema", "port", "extra"];
    Value::Object(keep(&mut connection, &keys))
}

pub fn pool(mut pool: Value) -> Value {
    let keys = [
        "name",
        "slots",
        "description",
        "include_deferred",
        "occupied_slots",
        "running_slots",
        "queued_slots",
        "scheduled_slots",
        "open_slots",
        "deferred_slots",
    ];
    Value::Object(keep(&mut pool, &keys))
}

pub fn import_error(mut error: Value) -> Value {
    Value::Object(keep(&mut error, &["import_error_id", "timestamp", "filename", "stack_trace"]))
}

/// An output in a list, which is without its value.
pub fn xcom_brief(mut xcom: Value) -> Value {
    let date = match &xcom["logical_date"] {
        Value::Null => xcom["run_after"].clone(),
        date => date.clone(),
    };
    let mut shape = keep(&mut xcom, &["key", "timestamp", "map_index", "task_id", "dag_id"]);
    shape.insert("execution_date".to_owned(), date);
    Value::Object(shape)
}

/// The value is a text there.
pub fn xcom(mut xcom: Value) -> Value {
    let value = match xcom["value"].take() {
        Value::String(text) => text,
        value => value.to_string(),
    };
    let mut shape = xcom_brief(xcom);
    shape["value"] = json!(value);
    shape
}

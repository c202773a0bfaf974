//! The names that templates know, for the checks, the messages and the rendering.

/// Top-level names.
pub const ROOTS: &[&str] = &[
    "attempt",
    "conf",
    "conn",
    "dag_run",
    "data_interval_end",
    "data_interval_start",
    "ds",
    "ds_nodash",
    "item",
    "logical_date",
    "map_index",
    "outputs",
    "params",
    "run",
    "task",
    "tasks",
    "try_number",
    "ts",
    "ts_nodash",
    "var",
];

/// What `run.…` knows.
pub const RUN: &[&str] = &[
    "id",
    "key",
    "workflow",
    "type",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "triggered_by",
    "url",
    "start",
];

/// What `dag_run.…` knows: Airflow's names for the same.
pub const DAG_RUN: &[&str] =
    &["conf", "run_id", "dag_id", "run_type", "logical_date", "data_interval_start", "data_interval_end", "start_date"];

/// What `conn.name.…` knows: Airflow's names.
pub const CONN: &[&str] =
    &["conn_id", "conn_type", "description", "extra", "host", "login", "password", "port", "schema"];

/// What `task.…` knows of the task itself.
pub const TASK: &[&str] = &["id", "group", "description"];

/// What `tasks.name.…` knows of another task.
pub const TASKS: &[&str] = &["outputs", "state"];

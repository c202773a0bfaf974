//! The shapes of Airflow 2's API, for the calls that its users script.

use super::Api;

pub const API: Api = Api {
    title: "Pitcrew in Airflow 2's shapes",
    description: "The calls of Airflow's stable API (version 1) that scripts use. New scripts do better with /api/v2.",
    prefixes: &["/api/v1/"],
    components: COMPONENTS,
    errors: "application/problem+json",
};

const COMPONENTS: &str = "
Error
  title: text, status: int, detail: text, type: text
Version
  version: text, git_version: text?
Health
  metadatabase: object, scheduler: object, triggerer: object, dag_processor: object
Tag
  name: text
Schedule
  __type: text, value: text
DAG
  dag_id: text, dag_display_name: text, description: text?, fileloc: text, file_token: text, has_import_errors: bool
  has_task_concurrency_limits: bool, is_paused: bool, last_expired: time?, last_parsed_time: time?
  max_active_runs: int?, max_active_tasks: int, max_consecutive_failed_dag_runs: int
  next_dagrun_data_interval_end: time?, next_dagrun_data_interval_start: time?, owners: [text]
  timetable_description: text?, default_view: text, is_active: bool, is_subdag: bool, last_pickled: time?
  next_dagrun: time?, next_dagrun_create_after: time?, pickle_id: text?, root_dag_id: text?
  schedule_interval: Schedule?, scheduler_lock: bool?, tags: [Tag]
DAGCollection
  dags: [DAG], total_entries: int
DAGPatch
  is_paused: bool
DAGRun
  conf: object, dag_id: text, dag_run_id: text, data_interval_end: time?, data_interval_start: time?, end_date: time?
  last_scheduling_decision: time?, logical_date: time, note: text?, run_type: text
  start_date: time?, state: queued|running|success|failed, execution_date: time, external_trigger: bool
DAGRunCollection
  dag_runs: [DAGRun], total_entries: int
DAGRunBody
  conf?: object?, dag_run_id?: text?, execution_date?: time?, logical_date?: time?, note?: text?
  data_interval_start?: time?, data_interval_end?: time?
DAGRunState
  state: queued|success|failed
TaskInstance
  dag_id: text, dag_run_id: text, duration: number?, end_date: time?, executor: text?, executor_config: text
  hostname: text?, map_index: int, max_tries: int, note: text?, operator: text?, pid: int?, pool: text, pool_slots: int
  priority_weight: int?, queue: text?, queued_when: time?, rendered_fields: object, rendered_map_index: text?
  start_date: time?, state: text?, task_display_name: text, task_id: text, trigger: object?, triggerer_job: object?
  try_number: int, unixname: text?, execution_date: time, sla_miss: object?
TaskInstanceCollection
  task_instances: [TaskInstance], total_entries: int
TaskInstanceReference
  task_id: text, dag_id: text, dag_run_id: text, execution_date: time
TaskInstanceReferenceCollection
  task_instances: [TaskInstanceReference], total_entries: int
ClearTaskInstances
  dry_run?: bool?, task_ids?: [text]?, dag_run_id?: text?, only_failed?: bool?, only_running?: bool?
  include_upstream?: bool?, include_downstream?: bool?, include_future?: bool?, include_past?: bool?
  include_subdags?: bool?, include_parentdag?: bool?, reset_dag_runs?: bool?, start_date?: time?, end_date?: time?
Log
  content: text, continuation_token: text?
XComBrief
  key: text, timestamp: time, map_index: int, task_id: text, dag_id: text, execution_date: time
XCom
  key: text, timestamp: time, map_index: int, task_id: text, dag_id: text, execution_date: time, value: text
XComCollection
  xcom_entries: [XComBrief], total_entries: int
Variable
  key: text, value: text?, description: text?
VariableCollection
  variables: [Variable], total_entries: int
VariableBody
  key: text, value: text, description?: text?
Connection
  connection_id: text, conn_type: text, description: text?, host: text?, login: text?, schema: text?, port: int?
  extra: text?
ConnectionCollection
  connections: [Connection], total_entries: int
ConnectionBody
  connection_id: text, conn_type: text, description?: text?, host?: text?, login?: text?, schema?: text?, port?: int?
  password?: text?, extra?: text?
Pool
  name: text, slots: int, description: text?, include_deferred: bool, occupied_slots: int, running_slots: int
  queued_slots: int, scheduled_slots: int, open_slots: int, deferred_slots: int
PoolCollection
  pools: [Pool], total_entries: int
PoolBody
  name: text, slots: int, description?: text?, include_deferred?: bool?
ImportError
  import_error_id: int, timestamp: time, filename: text, stack_trace: text
ImportErrorCollection
  import_errors: [ImportError], total_entries: int
";

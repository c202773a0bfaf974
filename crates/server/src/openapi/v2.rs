//! The shapes of Airflow 3's API. Of what Pitcrew has not (assets, plugins, …) only the empty list is described.

use super::Api;

pub const API: Api = Api {
    title: "Pitcrew in Airflow's shapes",
    description: "The part of Airflow's stable API (version 2) that Pitcrew answers. Clients written for Airflow work.",
    prefixes: &["/api/v2/", "/auth/", "/aws_mwaa/"],
    components: COMPONENTS,
    errors: "application/json",
};

const COMPONENTS: &str = "
Error
  detail: text or [Problem]
Problem
  loc: [text or int], msg: text, type: text
HTTPExceptionResponse
  detail: text
LoginBody
  username: text, password: text
LoginResponse
  access_token: text
VersionInfo
  version: text, git_version: text?
HealthInfoResponse
  metadatabase: BaseInfo, scheduler: SchedulerInfo, triggerer: TriggererInfo, dag_processor: DagProcessorInfo
BaseInfo
  status: text
SchedulerInfo
  status: text, latest_scheduler_heartbeat: text
TriggererInfo
  status: text, latest_triggerer_heartbeat: text
DagProcessorInfo
  status: text, latest_dag_processor_heartbeat: text
DagTagResponse
  name: text, dag_id: text, dag_display_name: text
DAGResponse
  dag_id: text, dag_display_name: text, is_paused: bool, is_stale: bool, last_parsed_time: time?
  last_parse_duration: number?, last_expired: time?, bundle_name: text, bundle_version: text?, relative_fileloc: text?
  fileloc: text, description: text?, timetable_summary: text?, timetable_description: text?
  timetable_partitioned: bool, timetable_periodic: bool, tags: [DagTagResponse], max_active_tasks: int
  max_active_runs: int?, max_consecutive_failed_dag_runs: int, has_task_concurrency_limits: bool
  has_import_errors: bool, next_dagrun_logical_date: time?, next_dagrun_data_interval_start: time?
  next_dagrun_data_interval_end: time?, next_dagrun_run_after: time?, allowed_run_types: [text]?, owners: [text]
  is_backfillable: bool, file_token: text
DAGDetailsResponse
  ...DAGResponse, active_runs_count: int, asset_expression: object?, catchup: bool, concurrency: int
  dag_run_timeout: text?, default_args: object?, doc_md: text?, start_date: time?, end_date: time?, is_favorite: bool
  is_paused_upon_creation: bool?, last_parsed: time?, latest_dag_version: DagVersionResponse?, owner_links: {text}?
  params: {DagParam}?, render_template_as_native_obj: bool, rerun_with_latest_version: bool
  template_search_path: [text]?, timezone: text
DagParam
  value: any, schema: object, description: text?, source: text
DAGCollectionResponse
  dags: [DAGResponse], total_entries: int
DAGPatchBody
  is_paused: bool
DAGTagCollectionResponse
  tags: [text], total_entries: int
DAGSourceResponse
  content: text?, dag_id: text, version_number: int?, dag_display_name: text
DagVersionResponse
  id: uuid, version_number: int, dag_id: text, bundle_name: text, bundle_version: text?, bundle_url: text?
  created_at: time, dag_display_name: text
DAGVersionCollectionResponse
  dag_versions: [DagVersionResponse], total_entries: int
DagStatsCollectionResponse
  dags: [DagStatsResponse], total_entries: int
DagStatsResponse
  dag_id: text, dag_display_name: text, stats: [DagStatsStateResponse]
DagStatsStateResponse
  state: queued|running|success|failed, count: int
ImportErrorResponse
  import_error_id: int, timestamp: time, filename: text, bundle_name: text, stack_trace: text
ImportErrorCollectionResponse
  import_errors: [ImportErrorResponse], total_entries: int
TaskResponse
  task_id: text, task_display_name: text, owner: text?, start_date: time?, end_date: time?, trigger_rule: text
  depends_on_past: bool, wait_for_downstream: bool, retries: int, queue: text?, pool: text, pool_slots: int
  execution_timeout: TimeDelta?, retry_delay: TimeDelta?, retry_exponential_backoff: number, priority_weight: int
  weight_rule: text, ui_color: text?, ui_fgcolor: text?, template_fields: [text], downstream_task_ids: [text]
  doc_md: text?, operator_name: text, params: object, class_ref: object, is_mapped: bool, extra_links: [text]
TimeDelta
  __type: text, days: int, seconds: int, microseconds: int
TaskCollectionResponse
  tasks: [TaskResponse], total_entries: int
DAGRunResponse
  dag_run_id: text, dag_id: text, dag_display_name: text, logical_date: time?, queued_at: time?, start_date: time?
  end_date: time?, duration: number?, data_interval_start: time?, data_interval_end: time?, run_after: time
  last_scheduling_decision: time?, run_type: backfill|scheduled|manual|asset_triggered, state: queued|running|success|failed
  triggered_by: cli|rest_api|ui|timetable|backfill, triggering_user_name: text?, conf: object, note: text?
  dag_versions: [DagVersionResponse], bundle_version: text?, partition_key: text?, partition_date: time?
DAGRunCollectionResponse
  dag_runs: [DAGRunResponse], total_entries: int?, total_entries_limit: int?, next_cursor: text?, previous_cursor: text?
TriggerDAGRunPostBody
  conf?: object?, dag_run_id?: text?, logical_date?: time?, run_after?: time?, note?: text?
  data_interval_start?: time?, data_interval_end?: time?, partition_key?: text?
DAGRunPatchBody
  state?: queued|success|failed?, note?: text?
DAGRunClearBody
  dry_run?: bool?, only_failed?: bool?, only_new?: bool?, run_on_latest_version?: bool?, note?: text?
DAGRunsBatchBody
  dag_ids?: [text]?, states?: [queued|running|success|failed?]?, order_by?: text?, page_limit?: int?, page_offset?: int?
  run_after_gte?: time?, run_after_gt?: time?, run_after_lte?: time?, run_after_lt?: time?
  logical_date_gte?: time?, logical_date_gt?: time?, logical_date_lte?: time?, logical_date_lt?: time?
  start_date_gte?: time?, start_date_gt?: time?, start_date_lte?: time?, start_date_lt?: time?
  end_date_gte?: time?, end_date_gt?: time?, end_date_lte?: time?, end_date_lt?: time?
  duration_gte?: number?, duration_gt?: number?, duration_lte?: number?, duration_lt?: number?, conf_contains?: text?
RunProgress
  state: queued|running|success|failed, results?: object
TaskInstanceState = \
  removed|scheduled|queued|running|success|restarting|failed|up_for_retry|up_for_reschedule|upstream_failed|skipped|deferred
TaskInstanceResponse
  id: uuid, task_id: text, task_display_name: text, dag_id: text, dag_display_name: text, dag_run_id: text
  map_index: int, max_tries: int, hostname: text?, unixname: text?, pid: int?, pool: text, pool_slots: int, queue: text?
  priority_weight: int?, operator: text?, operator_name: text?, executor: text?, executor_config: text
  dag_version: DagVersionResponse?, run_after: time, logical_date: time?, try_number: int, state: TaskInstanceState?
  start_date: time?, end_date: time?, duration: number?, queued_when: time?, scheduled_when: time?, note: text?
  rendered_map_index: text?, rendered_fields: object, trigger: object?, triggerer_job: object?
TaskInstanceHistoryResponse
  task_id: text, task_display_name: text, dag_id: text, dag_display_name: text, dag_run_id: text
  map_index: int, max_tries: int, hostname: text?, unixname: text?, pid: int?, pool: text, pool_slots: int, queue: text?
  priority_weight: int?, operator: text?, operator_name: text?, executor: text?, executor_config: text
  dag_version: DagVersionResponse?, try_number: int, state: TaskInstanceState?, start_date: time?, end_date: time?
  duration: number?, queued_when: time?, scheduled_when: time?
TaskInstanceCollectionResponse
  task_instances: [TaskInstanceResponse], total_entries: int?, total_entries_limit: int?, next_cursor: text?
  previous_cursor: text?
TaskInstanceHistoryCollectionResponse
  task_instances: [TaskInstanceHistoryResponse], total_entries: int
ClearTaskInstanceCollectionResponse
  task_instances: [TaskInstanceResponse], total_entries: int
ClearTaskInstancesBody
  dry_run?: bool?, start_date?: time?, end_date?: time?, only_failed?: bool?, only_running?: bool?
  reset_dag_runs?: bool?, task_ids?: [text or [any]]?, dag_run_id?: text?, include_upstream?: bool?
  include_downstream?: bool?, include_future?: bool?, include_past?: bool?, run_on_latest_version?: bool?
  prevent_running_task?: bool?, note?: text?
PatchTaskInstanceBody
  new_state?: TaskInstanceState?, note?: text?, include_upstream?: bool?, include_downstream?: bool?
  include_future?: bool?, include_past?: bool?
TaskInstancesBatchBody
  dag_ids?: [text]?, dag_run_ids?: [text]?, task_ids?: [text]?, state?: [TaskInstanceState?]?, pool?: [text]?
  queue?: [text]?, executor?: [text]?, order_by?: text?, page_limit?: int?, page_offset?: int?
  run_after_gte?: time?, run_after_gt?: time?, run_after_lte?: time?, run_after_lt?: time?
  logical_date_gte?: time?, logical_date_gt?: time?, logical_date_lte?: time?, logical_date_lt?: time?
  start_date_gte?: time?, start_date_gt?: time?, start_date_lte?: time?, start_date_lt?: time?
  end_date_gte?: time?, end_date_gt?: time?, end_date_lte?: time?, end_date_lt?: time?
  duration_gte?: number?, duration_gt?: number?, duration_lte?: number?, duration_lt?: number?
TaskDependencyCollectionResponse
  dependencies: [TaskDependencyResponse]
TaskDependencyResponse
  name: text, reason: text
ExtraLinkCollectionResponse
  extra_links: {text}, total_entries: int
TaskInstancesLogResponse
  content: [StructuredLogMessage], continuation_token: text?
StructuredLogMessage
  event: text, timestamp: time?, level: text, logger: text, step: int
XComResponse
  key: text, timestamp: time, logical_date: time?, run_after: time, map_index: int, task_id: text, dag_id: text
  run_id: text, dag_display_name: text, task_display_name: text
XComResponseNative
  ...XComResponse, value: any
XComCollectionResponse
  xcom_entries: [XComResponse], total_entries: int
XComCreateBody
  key: text, value: any, map_index?: int?
XComUpdateBody
  value: any, map_index?: int?
VariableResponse
  key: text, value: text?, description: text?, is_encrypted: bool, team_name: text?
VariableCollectionResponse
  variables: [VariableResponse], total_entries: int
VariableBody
  key: text, value: any, description?: text?, team_name?: text?
PoolResponse
  name: text, slots: int, description: text?, include_deferred: bool, occupied_slots: int, running_slots: int
  queued_slots: int, scheduled_slots: int, open_slots: int, deferred_slots: int, team_name: text?
PoolCollectionResponse
  pools: [PoolResponse], total_entries: int
PoolBody
  name: text, slots: int, description?: text?, include_deferred?: bool?, team_name?: text?
PoolPatchBody
  pool?: text?, slots?: int?, description?: text?, include_deferred?: bool?, team_name?: text?
ConnectionResponse
  connection_id: text, conn_type: text, description: text?, host: text?, login: text?, schema: text?, port: int?
  password: text?, extra: text?, team_name: text?
ConnectionCollectionResponse
  connections: [ConnectionResponse], total_entries: int
ConnectionBody
  connection_id: text, conn_type: text, description?: text?, host?: text?, login?: text?, schema?: text?, port?: int?
  password?: text?, extra?: text?, team_name?: text?
BulkBody
  actions: [BulkAction]
BulkAction
  action: create|update|delete, entities: [any], action_on_existence?: fail|skip|overwrite?
  action_on_non_existence?: fail|skip?, update_mask?: [text]?
BulkResponse
  create: BulkActionResponse?, update: BulkActionResponse?, delete: BulkActionResponse?
BulkActionResponse
  success: [text], errors: [BulkError]
BulkError
  error: text, status_code: int
EventLogResponse
  event_log_id: int, when: time, event: text, dag_id: text?, dag_display_name: text?, task_id: text?
  task_display_name: text?, run_id: text?, map_index: int?, try_number: int?, logical_date: time?, owner: text?
  extra: text?
EventLogCollectionResponse
  event_logs: [EventLogResponse], total_entries: int
BackfillResponse
  id: int, dag_id: text, dag_display_name: text, from_date: time, to_date: time, dag_run_conf: object?, is_paused: bool
  reprocess_behavior: failed|completed|none, max_active_runs: int, created_at: time, completed_at: time?
  updated_at: time
BackfillCollectionResponse
  backfills: [BackfillResponse], total_entries: int
BackfillPostBody
  dag_id: text, from_date: time, to_date: time, run_backwards?: bool?, dag_run_conf?: object?
  reprocess_behavior?: failed|completed|none?, max_active_runs?: int?, run_on_latest_version?: bool?
DryRunBackfillCollectionResponse
  backfills: [DryRunBackfillResponse], total_entries: int
DryRunBackfillResponse
  logical_date: time?, partition_key: text?, partition_date: time?
JobResponse
  id: int, dag_id: text?, dag_display_name: text?, state: text?, job_type: text?, start_date: time?, end_date: time?
  latest_heartbeat: time?, executor_class: text?, hostname: text?, unixname: text?
JobCollectionResponse
  jobs: [JobResponse], total_entries: int
ProviderResponse
  package_name: text, description: text, version: text, documentation_url: text?
ProviderCollectionResponse
  providers: [ProviderResponse], total_entries: int
Config
  sections: [ConfigSection]
ConfigSection
  name: text, options: [ConfigOption]
ConfigOption
  key: text, value: text
AssetCollectionResponse
  assets: [object], total_entries: int
AssetAliasCollectionResponse
  asset_aliases: [object], total_entries: int
AssetEventCollectionResponse
  asset_events: [object], total_entries: int
QueuedEventCollectionResponse
  queued_events: [object], total_entries: int
DAGWarningCollectionResponse
  dag_warnings: [object], total_entries: int
PluginCollectionResponse
  plugins: [object], total_entries: int
PluginImportErrorCollectionResponse
  import_errors: [object], total_entries: int
MwaaAnswer
  stdout: text, stderr: text
";

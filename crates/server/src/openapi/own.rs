//! The shapes of our own API.

use super::Api;

pub const API: Api = Api {
    title: "Pitcrew",
    description: "What Airflow has no word for: why a task waits, kept files, reports, events as they happen.",
    prefixes: &["/api/pitcrew/v1/", "/hooks/"],
    components: COMPONENTS,
    errors: "application/json",
};

const COMPONENTS: &str = "
Error
  detail: text or [Problem], code?: worker_revoked|worker_replaced
Problem
  loc: [text or int], msg: text, type: text
Run
  key: int, workflow: text, run_id: text, run_type: manual|scheduled|backfill|event
  state: queued|running|success|failed|cancelled, params: object, logical_date: time?, queued_at: time, start: time?
  end: time?, triggered_by: text, stop: object?, note: text, page: text
Explanation
  task: text, map_index: int, state: text?, reasons: [text]
Artifact
  path: text, bytes: int, modified: time?, content_type: text, url: text
Report
  folder: text, modified: time?, html: text?, pdf: text?, json: text?
Reports
  reports: [Report], total_entries: int, elsewhere: bool
Artifacts
  artifacts: [Artifact], total_entries: int, elsewhere: bool
Nodes
  nodes: [Node], total_entries: int
Node
  name: text, standing: ready|cordoned|down, reason: text?, is_cordoned: bool, connection: text?, is_worker: bool, cluster: text?, labels: {text}
  taints: [text], cpu: number, memory_mib: int, resources: {number}, gpus: [Gpu], tasks: [TaskOnNode], remarks: [text], seen_at: time?
Gpu
  id: text, model: text, memory_mib: int, sharing: text, isolation: text, fault: text?, instances: [text]
  use_percent: number?, used_mib: int?, power_watts: number?, celsius: number?
TaskOnNode
  run: int, workflow: text, run_id: text, task: text, map_index: int, attempt: int, since: time?, gpus: [text]
  is_placed: bool, page: text
NodeSamples
  samples: [NodeSample]
NodeSample
  at: time, gpus: {GpuPoint}
GpuPoint
  use_percent: number?, used_mib: number?, power_watts: number?, celsius: number?, seconds?: number, joules?: number
  max_use_percent?: number, max_used_mib?: number
Workers
  workers: [Worker], total_entries: int
Worker
  name: text, id: text, standing: ready|cordoned|draining|down, reason: text?, queues: [text], slots: int, prefetch: int
  running: int, waiting: int, ended: int, failed: int, gpus: int, version: text, host: text, labels: {text}, drain: bool
  load1: number?, load5: number?, load15: number?, memory_used_mib: int?, memory_mib: int, cpu: number, enrolled: time, heard_at: time?
WorkerToken
  id: text, token: text, queues: [text], expires: time?, uses: int?
WorkerTokens
  tokens: [WorkerTokenRow], total_entries: int
WorkerTokenRow
  id: text, queues: [text], made_by: text, created: time, expires: time?, uses: int?, works: bool
WorkerTokenBody
  queues?: [text]?, expires?: text?, uses?: int?
NodePatch
  cordoned?: bool?, labels?: object?, taints?: object?
Incidents
  incidents: [Incident], total_entries: int
Incident
  id: text, node: text, gpus: [text], state: text, is_open: bool, cause: text, fault_of: text, verdict: text?, outcome: text?
  opened: time, closed: time?, plan: text?, may: [text], signals: [IncidentSignal], more_signals: int, tried: [IncidentRepair]
  trail: [IncidentStep], jobs: [IncidentJob], runbooks: [Runbook], page: text
IncidentSignal
  at: time, kind: text, xid: int?, gpu: text?, advice: text, evidence: text
IncidentRepair
  at: time, what: text, result: text?
IncidentStep
  at: time, from: text, to: text, why: text, again: IncidentAgain?
IncidentAgain
  times: int, last: time
IncidentJob
  name: text, workflow: text?, run_id: text?, state: text?, page: text
Runbook
  xid: int, name: text, about: text, action: text, does: text, person: text, page: text
IncidentApproval
  repair?: text
IncidentDismissal
  reason?: text
EcsJobs
  jobs: [EcsJob], total_entries: int
EcsJob
  job_id: text, num_nodes: int, assigned_nodes: [text], submitted_container_inst_ids: [text], submitted_ecs_task_ids: [text], retry: int
  job_status: IN_PROGRESS|PENDING_HEALTHCHECK|PENDING_RESTART|RESTARTING|COMPLETE|FAILED|USER_STOPPED|FAILED_OTHERS
  origin: pitcrew|imported, source: text?, job: text?, run: int?, task: text?, began: time?, ended: time?
EcsTasks
  tasks: [EcsTask], total_entries: int
EcsTask
  ecs_task_id: text, node_name: text?, node_index_in_job: int?, job_id: text?, job_num_nodes: int?, task_def_arn: text?
  container_inst_id: text?, container_instance_arn: text?, retry: int, task_status: IN_PROGRESS|COMPLETE|TERMINATED|FAILED
  origin: pitcrew|imported, source: text?, ecs_task_arn: text?, job: text?, run: int?, task: text?, map_index: int?, attempt: int?, began: time?, ended: time?
EcsNodes
  nodes: [EcsNode], total_entries: int
EcsNode
  node_name: text, container_instance_id: text?, container_instance_arn: text?
  node_status: AVAILABLE|ASSIGNED|IN_PROGRESS|PENDING|PENDING_HEALTHCHECK|REBOOTING|FAILED|UNKNOWN, ip: text?, ibdev: text?
  origin: pitcrew|imported, source: text?, node: text?, cluster: text?, incident: int?
Quotas
  quotas: [Quota], total_entries: int
Quota
  namespace: text, has_quota: bool, cohort: text?, weight: int, limits: QuotaAmounts, borrow: QuotaAmounts
  used: QuotaAmounts?, borrowed: QuotaAmounts?, waiting: int
QuotaAmounts
  gpus?: number, cpu?: number, memory_mib?: int
QuotaPatch
  gpus?: any, cpu?: any, memory?: any, cohort?: text?, borrow_gpus?: any, borrow_cpu?: any, borrow_memory?: any, weight?: any
";

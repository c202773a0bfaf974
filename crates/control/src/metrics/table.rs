//! Every metric in one table: what `docs/metrics.md` documents, what is registered, and what tests walk.
//!
//! Invariant: a series exists only once something was recorded in it (those of recovery at 0, from when it may be
//! next: what is rare would else be missed by every rate), and the number of series is bounded whatever
//! users do: each label takes its values from the program, or from [`super::Names`], which stops at a cap.

use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry};

/// What a metric is, and the upper bounds of its buckets in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// One metric family.
#[derive(Debug, Clone, Copy)]
pub struct Def {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// From a millisecond to a minute: what should be quick.
const SHORT: Kind = Kind::Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0]);
/// From a tenth of a second to a day: what does the work.
const LONG: Kind =
    Kind::Histogram(&[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0]);

/// From a twentieth of a second to four hours: the steps of a recovery.
const STEPS: Kind =
    Kind::Histogram(&[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0]);

macro_rules! table {
    ($($id:ident = $kind:expr, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        $(pub const $id: Def = Def { name: $name, kind: $kind, labels: &[$($label),*], help: $help };)*
        /// All of them, for what checks the documentation and the dashboard.
        pub const ALL: &[Def] = &[$($id),*];
    };
}

use Kind::{Counter, Gauge};

table! {
    RUNS = Gauge, "pitcrew_runs", ["state"],
        "Runs that this server holds now, `queued` or `running`.";
    RUNS_STARTED = Counter, "pitcrew_runs_started_total", ["workflow"],
        "Runs that began.";
    RUNS_FINISHED = Counter, "pitcrew_runs_finished_total", ["workflow", "state"],
        "Runs that ended, by their final state.";
    RUN_DURATION = LONG, "pitcrew_run_duration_seconds", ["workflow"],
        "From the start of a run to its end.";
    RUN_WAIT = LONG, "pitcrew_run_wait_seconds", [],
        "From the time a run was due to its start.";

    TASKS_FINISHED = Counter, "pitcrew_tasks_finished_total", ["workflow", "state"],
        "Task instances that reached a final state.";
    TASK_RETRIES = Counter, "pitcrew_task_retries_total", ["workflow"],
        "Task instances that failed or were lost, and are tried again.";
    TASK_WAIT = LONG, "pitcrew_task_wait_seconds", ["pool"],
        "From the time a task instance could run to its slot: the waiting time of the queue.";
    TASK_DURATION = LONG, "pitcrew_task_duration_seconds", ["workflow"],
        "Attempts, from the start of their first step to their end.";
    ACTION_DURATION = LONG, "pitcrew_action_duration_seconds", ["action"],
        "Attempts of built-in actions, with their start; for `git.checkout` see also `pitcrew_git_fetch_seconds`.";
    GIT_SECONDS = LONG, "pitcrew_git_fetch_seconds", [],
        "Asking a repository and fetching from it, by `git.checkout`.";
    GIT_BYTES = Counter, "pitcrew_git_fetch_bytes_total", [],
        "Bytes by which clones grew, by `git.checkout`.";
    ATTEMPTS = Counter, "pitcrew_attempts_total", ["backend", "outcome"],
        "Attempts that ended: `success`, `failed`, `oom`, `timed_out`, `cancelled`, `start_failed` or `lost`.";
    ATTEMPT_START = SHORT, "pitcrew_attempt_start_seconds", ["backend"],
        "From the slot of an attempt to the start of its first step.";
    TASKS_WAITING = Gauge, "pitcrew_tasks_waiting", ["pool"],
        "Task instances in line for a slot: the length of the queue.";
    TASKS_RUNNING = Gauge, "pitcrew_tasks_running", [],
        "Task instances that hold a slot.";
    PARALLELISM = Gauge, "pitcrew_parallelism", [],
        "The most task instances that may hold a slot, over all pools.";
    POOL_SLOTS = Gauge, "pitcrew_pool_slots", ["pool"],
        "Slots of a pool.";
    POOL_USED = Gauge, "pitcrew_pool_slots_used", ["pool"],
        "Slots of a pool in use.";
    QUOTA_USED = Gauge, "pitcrew_quota_used", ["namespace", "resource"],
        "What the tasks of a namespace hold: `gpus`, `cpu` (cores) and `memory_mib`.";
    QUOTA_LIMIT = Gauge, "pitcrew_quota_limit", ["namespace", "resource"],
        "What a namespace has of its own, where it has a quota; what it holds beyond that, it borrows.";

    GPUS = Gauge, "pitcrew_gpus", [],
        "GPUs of all nodes.";
    GPUS_USED = Gauge, "pitcrew_gpus_used", [],
        "GPUs that an attempt holds.";
    GPU_HELD = Counter, "pitcrew_gpu_held_seconds_total", ["workflow"],
        "GPU seconds that ended attempts held.";
    GPU_BUSY = Counter, "pitcrew_gpu_busy_seconds_total", ["workflow"],
        "Of those, weighted with the sampled utilisation: divided by the held seconds it is the utilisation.";

    NODES = Gauge, "pitcrew_nodes", ["standing"],
        "Nodes that are `ready`, `cordoned` or `down`.";
    NODE_GPUS = Gauge, "pitcrew_node_gpus", ["node", "condition"],
        "GPUs of a node that are `usable`, or have a `fault`.";
    NODE_GPU_USE = Gauge, "pitcrew_node_gpu_use_percent", ["node"],
        "The mean use of a node's GPUs, where they tell it.";
    NODE_POWER = Gauge, "pitcrew_node_gpu_power_watts", ["node"],
        "What the GPUs of a node draw together, where they tell it.";

    WORKERS = Gauge, "pitcrew_workers", ["standing"],
        "Workers that are `ready`, `cordoned`, `draining` or `down`.";
    WORKER_SLOTS = Gauge, "pitcrew_worker_slots", ["worker"],
        "Task instances that a worker runs at a time.";
    WORKER_SLOTS_USED = Gauge, "pitcrew_worker_slots_used", ["worker"],
        "Task instances that run on a worker.";
    WORKER_SILENCE = Gauge, "pitcrew_worker_silence_seconds", ["worker"],
        "Since a worker was heard, where this server has heard it.";
    WORKER_ATTEMPTS = Counter, "pitcrew_worker_attempts_total", ["worker", "outcome"],
        "Attempts that ended on a worker, by outcome as in `pitcrew_attempts_total`.";
    QUEUE_WAITING = Gauge, "pitcrew_queue_waiting", ["queue"],
        "Task instances in line for the workers of a queue.";
    QUEUE_SLOTS = Gauge, "pitcrew_queue_slots", ["queue"],
        "Slots of the workers of a queue that take work: 0 where nobody serves it.";

    SSH_CONNECT = SHORT, "pitcrew_ssh_connect_seconds", ["host"],
        "Connects to hosts over SSH, jump hosts and sign-in included.";
    SSH_FAILURES = Counter, "pitcrew_ssh_connect_failures_total", ["host", "reason"],
        "Connects that failed: `unknown_host`, `unreachable`, `broken`, `protocol`, `host_key`, `refused`, `key`, `session`, `configuration` or `jump`.";
    SSH_CONNECTIONS = Gauge, "pitcrew_ssh_connections", [],
        "Connections to hosts over SSH that are open.";
    SSH_SESSIONS = Gauge, "pitcrew_ssh_sessions", [],
        "Commands under way on them.";

    VARIABLES_SET = Counter, "pitcrew_variables_set_total", ["by"],
        "Variables that were set, by a `task` or a `user` of this server.";
    NOTIFICATIONS = Counter, "pitcrew_notifications_total", ["channel", "result"],
        "Tries to send a notice to a channel: `sent`, `merged` into a message that was sent, `retried` later, or `failed` for good.";
    EVENTS = Counter, "pitcrew_events_total", ["queue", "result"],
        "Events from queues, for each workflow that waits there: a `run`, `other` than its filter wants, `refused`, `later` once more; and `error` where a queue cannot be read.";
    BROKEN_FILES = Gauge, "pitcrew_broken_files", [],
        "Workflow files that do not compile.";
    LEADER = Gauge, "pitcrew_leader", [],
        "1 if this server works on the runs, 0 if it stands by for another.";

    INCIDENTS_OPEN = Gauge, "pitcrew_incidents_open", ["state"],
        "Incidents that are not over, by where their node stands, such as `checking` or `awaiting_approval`.";
    NODES_WATCHED = Gauge, "pitcrew_nodes_watched", [],
        "Nodes that recovery looks after.";
    NODES_IN_REPAIR = Gauge, "pitcrew_nodes_in_repair", [],
        "Of those, nodes that are drained, repaired or verified.";
    NODES_OUT = Gauge, "pitcrew_nodes_out_of_service", [],
        "Of those, nodes that wait for a person; nothing more happens to them by itself.";
    INCIDENTS = Counter, "pitcrew_incidents_total", ["cause", "verdict"],
        "Incidents that are over, by what they began with, and whether the node was to blame: `pass`, `fail` or `inconclusive`.";
    INCIDENT_SECONDS = STEPS, "pitcrew_incident_seconds", ["cause", "outcome"],
        "Incidents, from their first signal to their end; those with the outcome `repaired` are the time to repair.";
    RECOVERY_STEPS = STEPS, "pitcrew_recovery_step_seconds", ["step", "cause"],
        "Steps of an incident: `detect` (from the signal until it was heard: a log that is polled is told late), `suspect` (it cannot be reached), `fence` (until nothing more is placed there: what Pitcrew itself takes), `check`, `approval`, `queue`, `drain`, `repair` and `verify`.";
    JOB_RECOVERY = STEPS, "pitcrew_job_recovery_seconds", ["step", "class"],
        "Steps of a job that begins anew: `stop`, `verdict`, `restart` (until it has its nodes), `start`, and `whole`; by whose fault it was.";
    REPAIRS = Counter, "pitcrew_repairs_total", ["rung"],
        "Repairs that were begun: `reset_gpu`, `reboot`, `hard_reboot` or `replace`.";
    JOB_RESTARTS = Counter, "pitcrew_job_restarts_total", ["class"],
        "Jobs that began anew, by whose fault it was, as far as was known then: `application`, `infrastructure`, `unknown`, or `moved` to make room.";
    BUDGETS = Counter, "pitcrew_recovery_budgets_total", ["budget"],
        "Jobs and nodes that came to the end of a budget: `application_restarts`, `infrastructure_restarts`, `reboots_per_day`, `remediations_per_week`, or had to wait for the `repair_share`.";

    STORE_SECONDS = SHORT, "pitcrew_store_seconds", ["operation"],
        "Calls of the store.";
    STORE_ERRORS = Counter, "pitcrew_store_errors_total", ["operation"],
        "Calls of the store that failed.";
    HTTP_REQUESTS = Counter, "pitcrew_http_requests_total", ["method", "route", "status"],
        "Answered requests; `route` is the template, `status` is `2xx` to `5xx`.";
    HTTP_SECONDS = SHORT, "pitcrew_http_request_seconds", ["route"],
        "From a request to the head of its answer.";

    SPANS = Counter, "pitcrew_trace_spans_total", ["result"],
        "Spans for the collector of traces, `sent` or `dropped`.";
    BUILD_INFO = Gauge, "pitcrew_build_info", ["version"],
        "1, with the version of the program.";
    PROCESS_CPU = Counter, "process_cpu_seconds_total", [],
        "User and system CPU time of the server.";
    PROCESS_MEMORY = Gauge, "process_resident_memory_bytes", [],
        "Resident memory of the server.";
    PROCESS_FDS = Gauge, "process_open_fds", [],
        "Open file descriptors of the server.";
    PROCESS_MAX_FDS = Gauge, "process_max_fds", [],
        "The most file descriptors that the server may open.";
    PROCESS_START = Gauge, "process_start_time_seconds", [],
        "When the server started, in seconds since 1970.";
}

const FIXED: &str = "names and labels of the table are right";

impl Def {
    fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    /// A counter of the table, registered.
    pub fn counter(&self, registry: &Registry) -> CounterVec {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        let family = CounterVec::new(self.opts(), self.labels).expect(FIXED);
        registry.register(Box::new(family.clone())).expect(FIXED);
        family
    }

    /// A gauge of the table, registered.
    pub fn gauge(&self, registry: &Registry) -> GaugeVec {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        let family = GaugeVec::new(self.opts(), self.labels).expect(FIXED);
        registry.register(Box::new(family.clone())).expect(FIXED);
        family
    }

    /// A histogram of the table, registered.
    pub fn histogram(&self, registry: &Registry) -> HistogramVec {
        let Kind::Histogram(buckets) = self.kind else { unreachable!("{} is no histogram", self.name) };
        let opts = HistogramOpts::from(self.opts()).buckets(buckets.to_vec());
        let family = HistogramVec::new(opts, self.labels).expect(FIXED);
        registry.register(Box::new(family.clone())).expect(FIXED);
        family
    }
}

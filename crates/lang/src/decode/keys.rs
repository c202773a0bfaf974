//! The keys of the language, by the mapping they stand in. The decoder refuses every other key, and the JSON Schema
//! has exactly these; tests hold both to it.

pub const WORKFLOW: &[&str] = &[
    "workflow",
    "description",
    "tags",
    "schedule",
    "namespace",
    "max_active_runs",
    "max_active_tasks",
    "fail_fast",
    "timeout",
    "params",
    "env",
    "defaults",
    "workspaces",
    "tasks",
    "finally",
    "notify",
    "on",
];

pub const ON: &[&str] = &["sqs", "github", "gitlab", "bitbucket", "generic"];

pub const HOOK: &[&str] = &["secret", "events", "branches", "paths", "filter", "params", "sample", "report"];

pub const HOOK_REPORT: &[&str] = &["token", "url", "context", "checks"];

pub const SQS: &[&str] = &["queue", "region", "filter", "conf"];

pub const SCHEDULE: &[&str] = &["cron", "interval", "timezone", "catchup", "start", "end"];

pub const DEFAULTS: &[&str] = &[
    "retries",
    "retry_delay",
    "retry_backoff",
    "retry_max_delay",
    "retry_jitter",
    "timeout",
    "grace",
    "pool",
    "priority",
    "preemptible",
    "trigger_rule",
    "env",
    "resources",
    "node_selector",
    "affinity",
    "tolerations",
    "queue",
    "backend",
    "shell",
];

pub const TASK: &[&str] = &[
    "needs",
    "run",
    "steps",
    "uses",
    "with",
    "tasks",
    "description",
    "when",
    "trigger_rule",
    "foreach",
    "foreach_max",
    "max_parallel",
    "env",
    "workdir",
    "shell",
    "outputs",
    "retries",
    "retry_delay",
    "retry_backoff",
    "retry_max_delay",
    "retry_jitter",
    "resume_from",
    "recovery",
    "hang",
    "timeout",
    "grace",
    "pool",
    "pool_slots",
    "priority",
    "preemptible",
    "depends_on_past",
    "skip_exit_codes",
    "branch",
    "setup",
    "teardown",
    "resources",
    "nodes",
    "node_selector",
    "affinity",
    "tolerations",
    "queue",
    "backend",
];

pub const GROUP: &[&str] = &["needs", "tasks", "description", "when", "foreach", "foreach_max", "max_parallel"];

pub const STEP: &[&str] = &["name", "run", "shell", "env", "workdir", "timeout", "on_error"];

pub const OUTPUT: &[&str] = &["from", "parse", "required"];

pub const TEARDOWN: &[&str] = &["of", "fails_run"];

pub const NOTIFY: &[&str] = &["on", "to", "after", "subject", "message"];

/// Of a task.
pub const RECOVERY: &[&str] = &["restart", "infrastructure_restarts", "check_peers", "exit_codes"];

pub const HANG: &[&str] = &["silence", "pattern", "progress"];

/// Under `hang`.
pub const PROGRESS: &[&str] = &["pattern", "first_within", "every"];

/// Under `backend: {ssh: …}`.
pub const SSH: &[&str] =
    &["connection", "host", "user", "port", "key", "passphrase", "jump", "workdir", "host_keys", "timeout"];

/// Under `backend: {ecs: …}`.
pub const ECS: &[&str] = &[
    "cluster",
    "task_definition",
    "container",
    "command",
    "region",
    "gpus",
    "machine",
    "job",
    "role",
    "launch_type",
    "subnets",
    "security_groups",
];

/// Other names are those of what nodes have beside that.
pub const RESOURCES: &[&str] = &["gpu", "cpu", "memory"];

pub const NODES: &[&str] = &["count", "near", "near_required"];

pub const AFFINITY: &[&str] = &["required", "preferred"];

pub const EXPRESSION: &[&str] = &["key", "operator", "values"];

pub const TOLERATION: &[&str] = &["key", "operator", "value", "effect", "tolerationSeconds"];

/// Words of JSON Schema that a param may use.
pub const PARAM: &[&str] = &[
    "type",
    "title",
    "description",
    "default",
    "enum",
    "const",
    "examples",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "items",
    "prefixItems",
    "contains",
    "minItems",
    "maxItems",
    "uniqueItems",
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "deprecated",
    "readOnly",
    "writeOnly",
    "contentMediaType",
    "contentEncoding",
    "$comment",
];

/// Keys that are planned; refused so that nobody believes they work.
pub const LATER: &[(&str, &str)] = &[
    ("placement", "say what a node must have with `resources`, `node_selector`, `affinity` and `tolerations`"),
    ("recover", "for now, use `retries`; a task lost with its machine is repeated by itself"),
    ("isolation", "for now, tasks run as plain processes"),
    ("image", "for now, tasks run as plain processes; call your container tool in `run`"),
];

/// What other languages call our keys.
pub const ELSEWHERE: &[(&str, &str)] = &[
    ("name", "workflow"),
    ("dag_id", "workflow"),
    ("dag", "workflow"),
    ("jobs", "tasks"),
    ("schedule_interval", "schedule"),
    ("cron", "schedule"),
    ("start_date", "schedule"),
    ("depends_on", "needs"),
    ("dependsOn", "needs"),
    ("runAfter", "needs"),
    ("dependencies", "needs"),
    ("depends", "needs"),
    ("after", "needs"),
    ("upstream", "needs"),
    ("command", "run"),
    ("script", "run"),
    ("cmd", "run"),
    ("bash", "run"),
    ("bash_command", "run"),
    ("action", "uses"),
    ("operator", "uses"),
    ("if", "when"),
    ("condition", "when"),
    ("environment", "env"),
    ("cwd", "workdir"),
    ("dir", "workdir"),
    ("working_directory", "workdir"),
    ("working-directory", "workdir"),
    ("workingDir", "workdir"),
    ("matrix", "foreach"),
    ("for_each", "foreach"),
    ("with_items", "foreach"),
    ("expand", "foreach"),
    ("max_active_tis_per_dag", "max_parallel"),
    ("retry", "retries"),
    ("attempts", "retries"),
    ("execution_timeout", "timeout"),
    ("dagrun_timeout", "timeout"),
    ("timeout-minutes", "timeout"),
    ("priority_weight", "priority"),
    ("skip_on_exit_code", "skip_exit_codes"),
    ("results", "outputs"),
    ("default_args", "defaults"),
    ("parameters", "params"),
    ("inputs", "params"),
    ("every", "interval"),
    ("continue_on_error", "on_error"),
    ("continue-on-error", "on_error"),
    ("tz", "timezone"),
    ("parse_as", "parse"),
    ("source", "from"),
    ("event", "on"),
    ("events", "on"),
    ("channel", "to"),
    ("channels", "to"),
    ("on_failure_callback", "notify"),
    ("on_success_callback", "notify"),
    ("email_on_failure", "notify"),
    ("notifications", "notify"),
    ("handlerOn", "notify"),
    ("gpus", "gpu"),
    ("cpus", "cpu"),
    ("cores", "cpu"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("nvidia.com/gpu", "gpu"),
    ("nodeSelector", "node_selector"),
    ("num_nodes", "nodes"),
    ("nnodes", "nodes"),
    ("gang", "nodes"),
];

/// Says where a key does belong, for one that is right but in the wrong mapping.
pub fn elsewhere_in_the_file(name: &str, here: &[&str]) -> Option<String> {
    let places: [(&[&str], &str); 6] = [
        (TASK, "a task"),
        (WORKFLOW, "the workflow, beside `tasks`"),
        (DEFAULTS, "`defaults`"),
        (STEP, "a step of `steps`"),
        (SCHEDULE, "`schedule`"),
        (RESOURCES, "`resources`"),
    ];
    if here == GROUP && TASK.contains(&name) {
        return Some(format!("an entry with `tasks` is a group, and a group has no `{name}`; give it to its tasks"));
    }
    let found = places.iter().find(|(keys, _)| *keys != here && keys.contains(&name))?;
    Some(format!("`{name}` belongs into {}", found.1))
}

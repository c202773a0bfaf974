//! The workflow as the engine sees it: every language compiles to this, and the engine knows no other.
//!
//! Invariants, which the front-end's compiler establishes with [`Workflow::link`] and which the engine relies on:
//! the graph has no cycle; every index is in range; a task is mapped by itself or by at most one of its groups;
//! a `finally` task needs only `finally` tasks and no other task needs one.

mod ends;
mod link;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::DEFAULT_NAMESPACE;
use crate::fleet::{Gang, Preferred, Term, Toleration};
use crate::id::{TaskId, WorkflowId};
use crate::recovery::Asks;
use crate::retry::RetryPolicy;
use crate::timetable::Schedule;
use crate::trigger_rule::TriggerRule;

pub use ends::{OnFailure, Timeouts};
pub use link::Cycle;

/// The place of a task in [`Workflow::tasks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskIx(pub u32);

impl TaskIx {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// The place of a group in [`Workflow::groups`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupIx(pub u32);

impl GroupIx {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A text that may hold `{{ … }}`; rendered when its task starts.
pub type Template = String;

/// A graph of tasks with params, from one source document.
#[derive(Debug, Clone, Serialize)]
pub struct Workflow {
    pub id: WorkflowId,
    /// Who answers what the engine asks of it.
    #[serde(skip_serializing_if = "Language::is_native")]
    pub language: Language,
    /// It cannot run: a run of it fails at its start, with these words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// Whose quota its tasks count against.
    pub namespace: String,
    pub description: String,
    pub tags: Vec<String>,
    /// In the order of the source; the trigger form shows them so.
    pub params: Vec<Param>,
    pub schedule: Option<Schedule>,
    /// Runs beyond this many stay queued.
    pub max_active_runs: u32,
    /// Live task instances in one run; `None` has no limit of its own.
    pub max_active_tasks: Option<u32>,
    #[serde(rename = "fail_fast")]
    pub on_failure: OnFailure,
    #[serde(rename = "timeout")]
    pub timeouts: Timeouts,
    /// Names of directories that the tasks of a run share.
    pub workspaces: Vec<String>,
    /// Environment of every step; a task's own wins.
    pub env: BTreeMap<String, Template>,
    /// Who is told of what becomes of a run.
    pub notify: Vec<NotifyRule>,
    /// Events of other services that start runs.
    pub on: Vec<SqsSource>,
    /// Webhooks that start runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookSource>,
    pub tasks: Vec<Task>,
    pub groups: Vec<Group>,
    /// Derived by [`Workflow::link`]: who needs task *i*.
    #[serde(skip)]
    pub downstream: Vec<Vec<TaskIx>>,
    /// Derived by [`Workflow::link`]: the tasks whose end decides the state of the run.
    #[serde(skip)]
    pub leaves: Vec<TaskIx>,
    /// Derived by [`Workflow::link`]: name to index.
    #[serde(skip)]
    pub by_name: BTreeMap<TaskId, TaskIx>,
}

/// The language that a workflow was written in, and that knows what its guards and its pods mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    #[default]
    Native,
    Tekton,
}

impl Language {
    pub fn is_native(&self) -> bool {
        *self == Language::Native
    }
}

/// Why no run of a workflow can begin, in a word and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One word of the language, such as `ParameterMissing`.
    pub reason: String,
    pub message: String,
}

/// A queue of Amazon SQS whose messages start runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SqsSource {
    /// Its name or its URL.
    pub queue: String,
    /// `None`: that of the URL, else the server's own.
    pub region: Option<String>,
    /// A pattern that an event must fit, as Amazon EventBridge has them.
    pub filter: Option<Value>,
    /// What the run is given, with templates over the event; `None`: the event's `detail`.
    pub conf: Option<serde_json::Map<String, Value>>,
}

/// Events that a forge, or any program, posts to the server, and that start runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookSource {
    pub sender: HookSender,
    /// A reference to the secret that the sender signs with, or sends.
    pub secret: String,
    /// As the sender calls them; empty: all.
    pub events: Vec<String>,
    /// Patterns; empty: all.
    pub branches: Vec<String>,
    /// Patterns, of which one must fit a file that has changed; empty: whatever changed.
    pub paths: Vec<String>,
    /// An expression in CEL that must come to true.
    pub filter: Option<String>,
    /// What the run is given, with templates over the event.
    pub params: serde_json::Map<String, Value>,
    /// The share of commits that start a run: `10%`.
    pub sample: Option<String>,
    pub report: Option<HookReport>,
}

/// Who posts an event, and so how it is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookSender {
    Github,
    Gitlab,
    Bitbucket,
    Generic,
}

impl HookSender {
    pub const ALL: [HookSender; 4] =
        [HookSender::Github, HookSender::Gitlab, HookSender::Bitbucket, HookSender::Generic];

    pub fn name(self) -> &'static str {
        match self {
            HookSender::Github => "github",
            HookSender::Gitlab => "gitlab",
            HookSender::Bitbucket => "bitbucket",
            HookSender::Generic => "generic",
        }
    }
}

/// The state of a run is written to the commit that its event is about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookReport {
    /// A reference to the secret that is the token.
    pub token: String,
    /// The address of the API of a forge of one's own.
    pub url: Option<String>,
    /// The name of the status.
    pub context: Option<String>,
    /// As a check run instead of a status.
    pub checks: bool,
}

/// Which events of a run are told to which channels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NotifyRule {
    /// Each once; at least one.
    pub on: Vec<NotifyEvent>,
    /// Names of channels, which the server's configuration gives; at least one.
    pub to: Vec<String>,
    /// For [`NotifyEvent::Late`]: how long a run may take, from its start.
    pub after: Option<SignedDuration>,
    /// Instead of the channel's own first line.
    pub subject: Option<Template>,
    /// Instead of the channel's own text.
    pub message: Option<Template>,
}

/// What people can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotifyEvent {
    /// The run failed.
    Failure,
    Success,
    /// Somebody stopped the run.
    Cancelled,
    /// The run succeeded, and the one of its workflow that ended before had failed.
    Recovery,
    /// The first task of the run failed for good; the others may still run.
    TaskFailure,
    /// An attempt failed, and there will be another.
    Retry,
    /// The run takes longer than the rule allows.
    Late,
}

impl NotifyEvent {
    pub const ALL: [NotifyEvent; 7] = [
        NotifyEvent::Failure,
        NotifyEvent::Success,
        NotifyEvent::Cancelled,
        NotifyEvent::Recovery,
        NotifyEvent::TaskFailure,
        NotifyEvent::Retry,
        NotifyEvent::Late,
    ];

    pub fn name(self) -> &'static str {
        match self {
            NotifyEvent::Failure => "failure",
            NotifyEvent::Success => "success",
            NotifyEvent::Cancelled => "cancelled",
            NotifyEvent::Recovery => "recovery",
            NotifyEvent::TaskFailure => "task_failure",
            NotifyEvent::Retry => "retry",
            NotifyEvent::Late => "late",
        }
    }

    pub fn from_name(name: &str) -> Option<NotifyEvent> {
        NotifyEvent::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// One declared param of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Param {
    pub name: String,
    /// A JSON Schema for the value, without `default`.
    pub schema: Value,
    /// `None`: the param must be given.
    pub default: Option<Value>,
}

/// A node of the graph.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    pub id: TaskId,
    pub description: String,
    pub group: Option<GroupIx>,
    pub kind: Kind,
    /// Direct upstream tasks, each once, sorted; groups already resolved to their tasks. For a teardown also
    /// every task between it and its setups. A `finally` task waits for all ordinary ones without naming them; here
    /// it names other `finally` tasks, whose end it awaits too.
    pub needs: Vec<TaskIx>,
    /// Derived by [`Workflow::link`]: setups in whose scope the task is. It waits for them whatever its rule says.
    pub setups: Vec<TaskIx>,
    pub trigger_rule: TriggerRule,
    /// The task is skipped when it comes out false.
    pub when: Option<When>,
    /// The task's own mapping; see [`Workflow::mapping_of`] for one inherited from a group.
    pub foreach: Option<Foreach>,
    /// Its instances are members that begin together, on a node each. It is then mapped by itself, over the ranks of its
    /// members, has no `branch` and no `max_parallel`, and no group of it is mapped.
    pub gang: Option<Gang>,
    /// Live instances of a mapped task at a time, in one run.
    pub max_parallel: Option<u32>,
    pub work: Work,
    pub env: BTreeMap<String, Template>,
    /// Relative to the run's workspace root; `None` is that root.
    pub workdir: Option<Template>,
    pub outputs: Vec<OutputDecl>,
    pub retry: RetryPolicy,
    /// When it fails for good, that counts as a success; how it failed is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_failure: bool,
    /// What attempts after the first are told to go on from.
    pub resume_from: Option<Template>,
    /// What recovery is to know of it.
    pub recovery: Asks,
    /// Of one attempt, from its start.
    pub timeout: Option<SignedDuration>,
    /// Between the polite and the forced end of a cancelled attempt.
    pub grace: SignedDuration,
    /// `None`: the default pool.
    pub pool: Option<String>,
    pub pool_slots: u32,
    /// Higher goes first.
    pub priority: i64,
    /// Its attempts may be made to end for a task of higher priority, and begin anew.
    pub is_preemptible: bool,
    /// Waits until the same task succeeded, or was skipped, in the previous run of the workflow.
    pub depends_on_past: bool,
    /// Exit codes that mean "nothing to do": the instance is skipped.
    pub skip_exit_codes: Vec<i32>,
    /// Evaluated after success: the name or names of the direct downstream tasks to go on with; the others are skipped.
    pub branch: Option<Template>,
    pub resources: Resources,
    pub backend: BackendKind,
    /// Which nodes it may go to.
    pub placement: Placement,
    /// For [`BackendKind::Ssh`] and [`BackendKind::Ecs`], what stands under `ssh` or `ecs`: a mapping whose texts may be templates. Rendered before an
    /// attempt's row is written.
    pub place: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Normal,
    /// Makes something that a teardown removes.
    Setup,
    /// Runs once everything between it and its setups is finished, if a setup succeeded, whatever else failed.
    Teardown {
        /// The setups whose work it removes; may be empty.
        of: Vec<TaskIx>,
        /// Its failure fails the run; by default it does not.
        fails_run: bool,
    },
    /// Runs when all other tasks are finished, whatever became of them, also when the run is cancelled.
    Finally,
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Succeeds without a process: a join, a milestone.
    Noop,
    /// Scripts in order, on one placement.
    Steps(Vec<Step>),
    /// A built-in action by name; strings inside `with` may be templates.
    Action { uses: String, with: Value },
    /// Containers. Only its language reads the template; an attempt runs the [`crate::pod::Pod`] that the language makes of
    /// it when the attempt starts.
    Pod { template: Arc<Value> },
}

/// A condition of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum When {
    /// An expression or template, asked of each instance.
    Expression(Template),
    /// Only the workflow's language reads it. Asked once, before the task is mapped.
    Guard(Arc<Value>),
}

/// One process inside a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub name: String,
    pub run: Template,
    /// Empty: `/bin/sh -e`; else an interpreter and its options, to which the script's path is added.
    pub shell: Vec<String>,
    pub env: BTreeMap<String, Template>,
    pub workdir: Option<Template>,
    pub timeout: Option<SignedDuration>,
    /// A failure of this step does not end the task.
    pub continue_on_error: bool,
}

/// An output that a task declares. Undeclared `name=value` lines in `$PITCREW_OUTPUT` are outputs too, as texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputDecl {
    pub name: String,
    pub from: OutputSource,
    pub parse: OutputParse,
    /// A success without this output is a failure.
    pub required: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputSource {
    /// A `name=value` line, or a file of that name, in `$PITCREW_OUTPUT`.
    Named,
    /// Everything that the last step wrote to stdout.
    Stdout,
    /// A file, relative to the workspace root.
    File(Template),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputParse {
    /// The text without the line break at its end.
    Text,
    Json,
    Yaml,
    /// A list of the lines that are not empty.
    Lines,
}

/// A set of tasks under one name, to need, map and show them together.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// The full name; its tasks are called `group.task`.
    pub id: TaskId,
    pub description: String,
    pub parent: Option<GroupIx>,
    pub foreach: Option<Foreach>,
    pub max_parallel: Option<u32>,
}

/// Dynamic mapping: one instance per item.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Foreach {
    pub shape: Shape,
    /// Name and list of each axis; a list is literal, or one template that gives a list (or an object, mapped as
    /// `{key, value}` items).
    pub axes: Vec<(String, Value)>,
    /// The tasks whose outputs the axes name; sorted. Empty: expanded when the run starts.
    pub refs: Vec<TaskIx>,
    /// More items than this fail the task.
    pub max_items: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    Product,
    Zip,
}

/// What one attempt holds while it is live. Values may be templates.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Resources {
    /// A count, a part of one, or a mapping that says more.
    pub gpu: Option<Value>,
    /// Cores: `2`, `0.5` or `500m`.
    pub cpu: Option<Value>,
    /// Bytes or `16Gi`.
    pub memory: Option<Value>,
    /// Amounts of what nodes have beside that, by name.
    pub custom: BTreeMap<String, Value>,
}

/// Which nodes an attempt may go to, in the words of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Placement {
    /// Labels that the node has to have.
    pub node_selector: BTreeMap<String, Template>,
    /// One of these has to hold, if there are any.
    pub required: Vec<Term>,
    pub preferred: Vec<Preferred>,
    pub tolerations: Vec<Toleration>,
    /// No backend is named, and it can run anywhere: the node decides.
    pub is_free: bool,
    /// The queue whose workers take it; `None`: that of all who name none.
    pub queue: Option<Template>,
    /// No backend is named, and a worker can run it.
    pub may_queue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendKind {
    /// Processes on this machine.
    Local,
    /// Nothing real: follows the script in the task's environment; for tests and demonstrations.
    Fake,
    /// Processes on another machine, reached over SSH.
    Ssh,
    /// Tasks of a cluster of Amazon ECS.
    Ecs,
    /// Pods of a cluster of Kubernetes. No workflow names it: a run of Tekton's documents goes there as a whole.
    Kubernetes,
    /// On a machine that comes for its work. No workflow names it: a task gets there by its queue, or by its node.
    Worker,
}

impl BackendKind {
    /// Those that a workflow can name.
    pub const NAMED: [BackendKind; 4] = [BackendKind::Local, BackendKind::Fake, BackendKind::Ssh, BackendKind::Ecs];

    pub fn name(self) -> &'static str {
        match self {
            BackendKind::Local => "local",
            BackendKind::Fake => "fake",
            BackendKind::Ssh => "ssh",
            BackendKind::Ecs => "ecs",
            BackendKind::Kubernetes => "kubernetes",
            BackendKind::Worker => "worker",
        }
    }
}

/// What is mapped together: instance *i* of every task in it belongs to item *i*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapUnit {
    Task(TaskIx),
    Group(GroupIx),
}

impl Workflow {
    /// An empty workflow with the defaults of the native language.
    pub fn new(id: WorkflowId) -> Self {
        Workflow {
            id,
            language: Language::Native,
            refusal: None,
            description: String::new(),
            tags: Vec::new(),
            params: Vec::new(),
            schedule: None,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            max_active_runs: 16,
            max_active_tasks: None,
            on_failure: OnFailure::GoOn,
            timeouts: Timeouts::default(),
            workspaces: Vec::new(),
            env: BTreeMap::new(),
            notify: Vec::new(),
            on: Vec::new(),
            hooks: Vec::new(),
            tasks: Vec::new(),
            groups: Vec::new(),
            downstream: Vec::new(),
            leaves: Vec::new(),
            by_name: BTreeMap::new(),
        }
    }

    pub fn task(&self, ix: TaskIx) -> &Task {
        &self.tasks[ix.at()]
    }

    pub fn group(&self, ix: GroupIx) -> &Group {
        &self.groups[ix.at()]
    }

    pub fn indices(&self) -> impl Iterator<Item = TaskIx> + use<> {
        (0..self.tasks.len() as u32).map(TaskIx)
    }

    pub fn find(&self, name: &str) -> Option<TaskIx> {
        let id = TaskId::new(name).ok()?;
        self.by_name.get(&id).copied()
    }

    /// The unit that maps a task, if any: the task itself or one of the groups around it.
    pub fn mapping_of(&self, ix: TaskIx) -> Option<(MapUnit, &Foreach)> {
        let task = self.task(ix);
        if let Some(foreach) = &task.foreach {
            return Some((MapUnit::Task(ix), foreach));
        }
        let mut group = task.group;
        while let Some(at) = group {
            if let Some(foreach) = &self.group(at).foreach {
                return Some((MapUnit::Group(at), foreach));
            }
            group = self.group(at).parent;
        }
        None
    }

    /// The tasks of a unit, in order.
    pub fn unit_tasks(&self, unit: MapUnit) -> Vec<TaskIx> {
        match unit {
            MapUnit::Task(ix) => vec![ix],
            MapUnit::Group(group) => self.indices().filter(|ix| self.is_inside(self.task(*ix).group, group)).collect(),
        }
    }

    /// Is `inner` the group `outer` or somewhere inside it?
    pub fn is_inside(&self, mut inner: Option<GroupIx>, outer: GroupIx) -> bool {
        while let Some(at) = inner {
            if at == outer {
                return true;
            }
            inner = self.group(at).parent;
        }
        false
    }
}

impl Foreach {
    /// The ranks of a gang.
    pub fn ranks(count: u32) -> Foreach {
        let ranks = (0..count).map(Value::from).collect();
        Foreach {
            shape: Shape::Product,
            axes: vec![(String::new(), Value::Array(ranks))],
            refs: Vec::new(),
            max_items: count,
        }
    }
}

impl Task {
    /// A task with the defaults of the native language.
    pub fn new(id: TaskId, work: Work) -> Self {
        Task {
            id,
            description: String::new(),
            group: None,
            kind: Kind::Normal,
            needs: Vec::new(),
            setups: Vec::new(),
            trigger_rule: TriggerRule::AllSuccess,
            when: None,
            foreach: None,
            gang: None,
            max_parallel: None,
            work,
            env: BTreeMap::new(),
            workdir: None,
            outputs: Vec::new(),
            retry: RetryPolicy::default(),
            ignore_failure: false,
            resume_from: None,
            recovery: Asks::default(),
            timeout: None,
            grace: SignedDuration::from_secs(10),
            pool: None,
            pool_slots: 1,
            priority: 0,
            is_preemptible: false,
            depends_on_past: false,
            skip_exit_codes: vec![99],
            branch: None,
            resources: Resources::default(),
            placement: Placement::default(),
            backend: BackendKind::Local,
            place: None,
        }
    }

    pub fn is_action(&self) -> bool {
        matches!(self.work, Work::Action { .. })
    }

    /// Is what an attempt gave before it failed for others to see all the same?
    pub fn keeps_outputs(&self) -> bool {
        self.ignore_failure || matches!(self.work, Work::Pod { .. })
    }

    pub fn is_teardown(&self) -> bool {
        matches!(self.kind, Kind::Teardown { .. })
    }
}

//! The flags of `pipelineruns`, `taskruns`, `pipelines` and `task`, in the words of `tkn`.

use pitcrew_control::tekton::objects;

use crate::cli::run::RunFormat;

/// Which namespace, and in which form.
#[derive(Debug, Clone, clap::Args)]
pub struct Scope {
    /// The namespace
    #[arg(short, long, value_name = "NAME", default_value = objects::DEFAULT_NAMESPACE)]
    pub namespace: String,
    /// How to write the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: RunFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Only runs of this Pipeline or Task
    pub of: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// How many at most; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub limit: usize,
    /// Only with this label; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// The oldest first
    #[arg(long)]
    pub reverse: bool,
    /// Without the line of headings
    #[arg(long)]
    pub no_headers: bool,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Debug, Clone, clap::Args)]
pub struct OneArgs {
    pub name: Option<String>,
    /// The newest
    #[arg(short = 'L', long, conflicts_with = "name")]
    pub last: bool,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Debug, Clone, clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    pub which: OneArgs,
    /// Of a PipelineRun: run its `finally` tasks, after its tasks are ended or after they came to their own end
    #[arg(long, value_name = "HOW")]
    pub grace: Option<Grace>,
}

/// In the words of a PipelineRun's `spec.status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Grace {
    /// End what runs, then run `finally`
    #[value(name = "CancelledRunFinally")]
    CancelledRunFinally,
    /// Let what runs come to its end, then run `finally`
    #[value(name = "StoppedRunFinally")]
    StoppedRunFinally,
}

#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    pub name: Option<String>,
    /// The newest
    #[arg(short = 'L', long, conflicts_with = "name")]
    pub last: bool,
    /// Go on until the run is over
    #[arg(short, long)]
    pub follow: bool,
    /// Only this task of the pipeline; can be given several times
    #[arg(short, long, value_name = "TASK")]
    pub task: Vec<String>,
    /// Only this step; can be given several times
    #[arg(short, long, value_name = "STEP")]
    pub step: Vec<String>,
    /// Begin each line with its time
    #[arg(long)]
    pub timestamps: bool,
    /// End with the state of the run: 0 succeeded, 1 failed, 2 not over
    #[arg(short = 'E', long)]
    pub exit_with_run_status: bool,
    /// The namespace
    #[arg(short, long, value_name = "NAME", default_value = objects::DEFAULT_NAMESPACE)]
    pub namespace: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct DeleteArgs {
    #[arg(required_unless_present_any = ["keep", "keep_since", "all", "label"])]
    #[arg(conflicts_with_all = ["keep", "keep_since", "all", "label", "pipeline", "task"])]
    pub names: Vec<String>,
    /// Delete what is over, but for the newest so many
    #[arg(long, value_name = "N")]
    pub keep: Option<usize>,
    /// Delete what is over, but for what ended in the last so many minutes
    #[arg(long, value_name = "MINUTES")]
    pub keep_since: Option<u32>,
    /// Delete all that are over
    #[arg(long)]
    pub all: bool,
    /// Only runs of this Pipeline
    #[arg(short, long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// Only runs of this Task
    #[arg(short, long, value_name = "NAME")]
    pub task: Option<String>,
    /// Only with this label; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Do not ask; nothing is ever asked here
    #[arg(short, long)]
    pub force: bool,
    #[command(flatten)]
    pub scope: Scope,
}

#[derive(Debug, clap::Subcommand)]
pub enum RunsCommand {
    /// List them, the newest first
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one with its status
    #[command(visible_alias = "desc")]
    Describe(OneArgs),
    /// Show what its steps wrote
    Logs(LogsArgs),
    /// Stop one
    Cancel(CancelArgs),
    /// Delete what is over
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

#[derive(Debug, clap::Subcommand)]
pub enum DefinitionsCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show what one asks for and gives
    #[command(visible_alias = "desc")]
    Describe(OneArgs),
    /// Start a run of one
    Start(StartArgs),
    /// Show what the newest run of one wrote
    Logs(LogsArgs),
    /// Delete some
    #[command(visible_alias = "rm")]
    Delete(DeleteArgs),
}

#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    pub name: String,
    /// A param; can be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub param: Vec<String>,
    /// A workspace; can be given several times
    #[arg(short, long, value_name = "BINDING")]
    pub workspace: Vec<String>,
    /// A label of the run; can be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// What the name of the run begins with
    #[arg(long, value_name = "TEXT")]
    pub prefix_name: Option<String>,
    /// The ServiceAccount
    #[arg(short, long, value_name = "NAME")]
    pub serviceaccount: Option<String>,
    /// Of the whole run
    #[arg(long, alias = "timeout", value_name = "DURATION")]
    pub pipeline_timeout: Option<String>,
    /// Of its tasks
    #[arg(long, value_name = "DURATION")]
    pub tasks_timeout: Option<String>,
    /// Of its `finally` tasks
    #[arg(long, value_name = "DURATION")]
    pub finally_timeout: Option<String>,
    /// With the params and workspaces of the newest run
    #[arg(short = 'L', long)]
    pub last: bool,
    /// Show what it writes until it is over
    #[arg(long)]
    pub showlog: bool,
    /// Only print the run that would be made
    #[arg(long)]
    pub dry_run: bool,
    /// Params that are not given have their defaults; nothing is ever asked here
    #[arg(long)]
    pub use_param_defaults: bool,
    #[command(flatten)]
    pub scope: Scope,
}

/// Look at, stop and delete PipelineRuns
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct PipelineRunsArgs {
    #[command(subcommand)]
    pub command: RunsCommand,
}

/// Look at, stop and delete TaskRuns
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct TaskRunsArgs {
    #[command(subcommand)]
    pub command: RunsCommand,
}

/// Look at, start and delete Tekton's Pipelines
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct PipelinesArgs {
    #[command(subcommand)]
    pub command: DefinitionsCommand,
}

/// Look at, start and delete Tekton's Tasks
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct TektonTasksArgs {
    #[command(subcommand)]
    pub command: DefinitionsCommand,
}

//! The command line.
//!
//! Data goes to stdout, talk to stderr; nothing is coloured that no person sees. A command that only reads a file
//! needs no data directory, and one that only reads the store needs no server. What only the process that works on a
//! run may do is asked of that process, see [`control`].

mod aws;
mod backfills;
mod connections;
mod context;
mod control;
mod dags;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod deploy_kubernetes;
mod doctor;
mod error;
mod explain;
mod format;
mod hooks;
mod images;
mod incidents;
mod internal;
mod load;
mod logs;
mod nodes;
mod notify;
mod password;
mod pools;
mod quotas;
mod report;
mod retention;
mod run;
mod runs;
mod secrets;
mod server;
mod session;
mod simulate;
mod ssh;
mod target;
mod tasks;
mod tekton;
mod tokens;
mod ui;
mod users;
mod variables;
mod worker;
mod workers;
mod workflow_files;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use context::Context;
use pitcrew_control::config::{Overrides, Settings};
use target::Target;
use ui::Ui;

pub use internal::dispatch as internal;

/// What other parts of the binary need to serve and to watch runs.
pub mod parts {
    pub use super::context::Context;
    pub use super::error::{config as config_error, invalid};
    pub use super::format::one_line;
    pub use super::run::{Screen, Stream, Watch, Watched, exit_code};
    pub use super::server::{Serving, shutdown_signal};
    pub use super::ui::Ui;
}

const EXAMPLES: &str = "\
Begin with:
  pitcrew demo                       a sample pipeline, from a notebook to a report
  pitcrew run FILE                   run a workflow file now, without a server
  pitcrew server --workflows DIR     serve a folder of workflow files, with pages and an API

Exit status: 0 success, 1 something failed, 2 the input was refused and nothing was done.";

/// Runs workflows and CI on GPU machines.
#[derive(Debug, Parser)]
#[command(name = "pitcrew", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Where runs, logs and the database lie [env: PITCREW_DATA_DIR]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The database: a path, or `postgres://…` [env: PITCREW_STORE]
    #[arg(long, global = true, value_name = "URL", hide_short_help = true)]
    store: Option<String>,
    /// Read this file instead of `pitcrew.yaml` [env: PITCREW_CONFIG]
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    config: Option<PathBuf>,
    /// Ask the server at this address, not a data directory here [env: PITCREW_SERVER]
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// The environment of the configuration to use [env: PITCREW_ENV]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    env: Option<String>,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_short_help = true)]
    color: ColorChoice,
    /// Say more; twice for much more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, hide_short_help = true)]
    verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, hide_short_help = true)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

/// What a schema is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SchemaOf {
    Workflow,
    Report,
}

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    Text,
    Json,
}

/// For commands that list something.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Output {
    /// How to write the answer
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,
}

impl Output {
    pub fn is_json(self) -> bool {
        self.output == Format::Json
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Demo(crate::demo::DemoArgs),
    Server(server::ServerArgs),
    Worker(worker::WorkerArgs),
    Validate(workflow_files::ValidateArgs),
    Graph(workflow_files::GraphArgs),
    Explain(explain::ExplainArgs),
    Simulate(simulate::SimulateArgs),
    Runs(runs::RunsArgs),
    Logs(logs::LogsArgs),
    Report(report::ReportArgs),
    Dags(dags::DagsArgs),
    Tasks(tasks::TasksArgs),
    Apply(tekton::ApplyArgs),
    #[command(visible_alias = "p", alias = "pipeline")]
    Pipelines(tekton::PipelinesArgs),
    #[command(visible_alias = "pr", alias = "pipelinerun")]
    Pipelineruns(tekton::PipelineRunsArgs),
    #[command(name = "task", visible_alias = "t")]
    TektonTasks(tekton::TektonTasksArgs),
    #[command(visible_alias = "tr", alias = "taskrun")]
    Taskruns(tekton::TaskRunsArgs),
    Backfill(backfills::BackfillsArgs),
    Variables(variables::VariablesArgs),
    Connections(connections::ConnectionsArgs),
    Secrets(secrets::SecretsArgs),
    Pools(pools::PoolsArgs),
    Nodes(nodes::NodesArgs),
    Incidents(incidents::IncidentsArgs),
    Workers(workers::WorkersArgs),
    Quotas(quotas::QuotasArgs),
    Ssh(ssh::SshArgs),
    Users(users::UsersArgs),
    Tokens(tokens::TokensArgs),
    Notify(notify::NotifyArgs),
    Hooks(hooks::HooksArgs),
    Aws(aws::AwsArgs),
    Images(images::ImagesArgs),
    Config(ConfigArgs),
    Doctor(doctor::DoctorArgs),
    /// Print the JSON Schema of the workflow language, for editors, or of `report.json`
    Schema {
        #[arg(default_value = "workflow")]
        of: SchemaOf,
    },
    /// Print a script for your shell's completion
    Completions {
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// Show the settings and where each comes from
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show every setting with its origin: default, file and line, environment or flag
    Show(Output),
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    let cli = parse();
    let ui = Ui::new(cli.global.color, cli.global.quiet);
    let result = command(cli, ui);
    error::finish(result, &ui)
}

/// The same command line with one command. A worker stays for months on machines whose memory is for others, and what
/// describes all the other commands would stay in memory with it.
#[derive(Debug, Parser)]
#[command(name = "pitcrew", version, disable_help_subcommand = true, max_term_width = 100)]
struct WorkerCli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(Debug, Subcommand)]
enum WorkerCommand {
    Worker(worker::WorkerArgs),
}

fn parse() -> Cli {
    if std::env::args_os().nth(1).is_none_or(|word| word != "worker") {
        return Cli::parse();
    }
    let WorkerCli { global, command: WorkerCommand::Worker(args) } = WorkerCli::parse();
    Cli { global, command: Command::Worker(args) }
}

fn command(cli: Cli, ui: Ui) -> anyhow::Result<ExitCode> {
    // These read no settings.
    match &cli.command {
        Command::Schema { of } => {
            let text = match of {
                SchemaOf::Workflow => pitcrew_lang::schema::TEXT,
                SchemaOf::Report => pitcrew_exec::report::SCHEMA,
            };
            ui.line(text.trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "pitcrew", &mut script);
            ui.print(&String::from_utf8_lossy(&script))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Version => {
            ui.line(format!("pitcrew {}", env!("CARGO_PKG_VERSION")))?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Validate(args) => {
            // A workflow can be checked where no server is configured, or not rightly.
            let settings = Settings::read(&overrides(&cli), &|name| std::env::var(name).ok());
            let channels = settings.ok().map(|settings| settings.notify.names());
            return workflow_files::validate(args, channels.as_deref(), ui);
        }
        Command::Graph(args) => return workflow_files::graph(args, ui),
        Command::Simulate(args) if args.faults().is_none() => return simulate::command(args, ui),
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Template(args) }) => return aws::print(args, ui),
        _ => {}
    }
    let settings = Settings::read(&overrides(&cli), &|name| std::env::var(name).ok()).map_err(error::config)?;
    if let Command::Config(ConfigArgs { command: ConfigCommand::Show(output) }) = &cli.command {
        return show_config(&settings, *output, ui);
    }
    start_tracing(&cli, &settings, ui)?;
    // One provider for every TLS connection; a second installation, which only a test makes, changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if let Command::Worker(args) = cli.command {
        // It mostly waits: one thread, and none of the parts of a server.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(worker::command(args, ui, settings));
        runtime.shutdown_background();
        return result;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async_command(cli.command, ui, settings));
    // What runs goes on in its own processes; threads that wait for a disk or a name server must not hold us up.
    runtime.shutdown_background();
    result
}

async fn async_command(command: Command, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let is_for_here = matches!(
        command,
        Command::Run(_)
            | Command::Demo(_)
            | Command::Simulate(_)
            | Command::Server(_)
            | Command::Doctor(_)
            | Command::Images(_)
            | Command::Users(_)
            | Command::Tokens(_)
            | Command::Ssh(_)
            | Command::Secrets(_)
            | Command::Apply(_)
            | Command::Pipelines(_)
            | Command::Pipelineruns(_)
            | Command::TektonTasks(_)
            | Command::Taskruns(_)
            | Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Doctor(_) | aws::AwsCommand::Import(_) })
    );
    if is_for_here && settings.server_is_typed() {
        return Err(error::invalid("`--server` does not go with this command: it works on this machine"));
    }
    match command {
        Command::Run(args) => run::command(args, ui, settings).await,
        Command::Demo(args) => crate::demo::command(args, ui, settings).await,
        Command::Simulate(args) => simulate::drill(args, ui, settings).await,
        Command::Server(args) => server::command(args, ui, settings).await,
        Command::Doctor(args) => doctor::command(args, ui, settings).await,
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Doctor(args) }) => {
            aws::look_over(args, ui, settings).await
        }
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Template(args) }) => aws::print(&args, ui),
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Jobs(args) }) => {
            aws::jobs(args, Target::open(ui, settings).await?).await
        }
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Tasks(args) }) => {
            aws::tasks(args, Target::open(ui, settings).await?).await
        }
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Nodes(args) }) => {
            aws::nodes(args, Target::open(ui, settings).await?).await
        }
        Command::Aws(aws::AwsArgs { command: aws::AwsCommand::Import(args) }) => {
            aws::import(args, Context::open(ui, settings).await?).await
        }
        Command::Explain(args) => explain::command(args, Target::open(ui, settings).await?).await,
        Command::Runs(args) => runs::command(args, Target::open(ui, settings).await?).await,
        Command::Logs(args) => logs::command(args, Target::open(ui, settings).await?).await,
        Command::Report(args) => report::command(args, Target::open(ui, settings).await?).await,
        Command::Dags(args) => dags::command(args, Target::open(ui, settings).await?).await,
        Command::Backfill(args) => backfills::command(args, Target::open(ui, settings).await?).await,
        Command::Tasks(args) => tasks::command(args, Target::open(ui, settings).await?).await,
        Command::Apply(args) => tekton::apply(args, Context::open(ui, settings).await?).await,
        Command::Pipelines(args) => {
            tekton::definitions("Pipeline", "PipelineRun", args.command, Context::open(ui, settings).await?).await
        }
        Command::TektonTasks(args) => {
            tekton::definitions("Task", "TaskRun", args.command, Context::open(ui, settings).await?).await
        }
        Command::Pipelineruns(args) => {
            tekton::runs("PipelineRun", args.command, Context::open(ui, settings).await?).await
        }
        Command::Taskruns(args) => tekton::runs("TaskRun", args.command, Context::open(ui, settings).await?).await,
        Command::Variables(args) => variables::command(args, Target::open(ui, settings).await?).await,
        Command::Connections(args) => connections::command(args, Target::open(ui, settings).await?).await,
        Command::Secrets(args) => secrets::command(args, Context::open(ui, settings).await?).await,
        Command::Pools(args) => pools::command(args, Target::open(ui, settings).await?).await,
        Command::Nodes(args) => nodes::command(args, Target::open(ui, settings).await?).await,
        Command::Incidents(args) => incidents::command(args, Target::open(ui, settings).await?).await,
        Command::Workers(args) => workers::command(args, Target::open(ui, settings).await?).await,
        Command::Quotas(args) => quotas::command(args, Target::open(ui, settings).await?).await,
        Command::Ssh(args) => ssh::command(args, Context::open(ui, settings).await?).await,
        Command::Users(args) => users::command(args, Context::open(ui, settings).await?).await,
        Command::Tokens(args) => tokens::command(args, Context::open(ui, settings).await?).await,
        Command::Images(args) => images::command(args, ui, settings).await,
        Command::Notify(args) => notify::command(args, Target::open(ui, settings).await?).await,
        Command::Hooks(args) => hooks::command(args, Target::open(ui, settings).await?).await,
        Command::Validate(_)
        | Command::Graph(_)
        | Command::Config(_)
        | Command::Schema { .. }
        | Command::Completions { .. }
        | Command::Version => unreachable!("handled before the settings were read"),
        Command::Worker(_) => unreachable!("it has a runtime of its own"),
    }
}

/// Flags that are settings.
fn overrides(cli: &Cli) -> Overrides {
    let mut flags: BTreeMap<&'static str, (&'static str, String)> = BTreeMap::new();
    let mut flag = |key: &'static str, name: &'static str, value: Option<String>| {
        if let Some(value) = value {
            flags.insert(key, (name, value));
        }
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    flag("data_dir", "--data-dir", path(&cli.global.data_dir));
    flag("store", "--store", cli.global.store.clone());
    flag("server", "--server", cli.global.server.clone());
    match &cli.command {
        Command::Run(args) => flag("parallelism", "--parallelism", args.parallelism.map(|n| n.to_string())),
        Command::Server(args) => {
            flag("workflows", "--workflows", path(&args.workflows));
            flag("listen", "--listen", args.listen.clone());
            flag("advertise", "--advertise", args.advertise.clone());
            flag("parallelism", "--parallelism", args.parallelism.map(|n| n.to_string()));
            flag("auth", "--no-auth", args.no_auth.then(|| "false".to_owned()));
        }
        _ => {}
    }
    Overrides { config: cli.global.config.clone(), environment: cli.global.env.clone(), flags }
}

fn show_config(settings: &Settings, output: Output, ui: Ui) -> anyhow::Result<ExitCode> {
    let shown = settings.shown();
    if output.is_json() {
        let entry = |setting: &pitcrew_control::config::Setting| {
            let value = serde_json::json!({ "value": setting.text, "origin": setting.origin.to_string() });
            (setting.key.name.to_owned(), value)
        };
        let section = |line: &pitcrew_control::config::SectionLine| {
            (line.name.clone(), serde_json::json!({ "value": line.text, "origin": line.origin.to_string() }))
        };
        let sections = settings.sections();
        ui.json(&shown.iter().map(entry).chain(sections.iter().map(section)).collect::<serde_json::Map<_, _>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    match (&settings.file, &settings.environment) {
        (None, _) => ui.say("no configuration file; these are defaults, the environment and flags"),
        (Some(file), None) => ui.say(format!("configuration: {}", file.display())),
        (Some(file), Some(name)) => ui.say(format!("configuration: {}, environment `{name}`", file.display())),
    }
    let row = |setting: &pitcrew_control::config::Setting| {
        let text = if setting.text.is_empty() { "-".to_owned() } else { setting.text.clone() };
        vec![setting.key.name.to_owned(), text, setting.origin.to_string(), setting.key.about.to_owned()]
    };
    let section = |line: pitcrew_control::config::SectionLine| {
        vec![line.name, line.text, line.origin.to_string(), line.about.to_owned()]
    };
    let rows = shown.iter().map(row).chain(settings.sections().into_iter().map(section)).collect();
    ui.table(&["key", "value", "from", "what it is"], rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Messages for operators go to stderr: a server's one line per event, other commands' only when asked for.
fn start_tracing(cli: &Cli, settings: &Settings, ui: Ui) -> anyhow::Result<()> {
    use tracing_subscriber::EnvFilter;
    let default =
        match (cli.global.quiet, cli.global.verbose, matches!(cli.command, Command::Server(_) | Command::Worker(_))) {
            (true, ..) | (false, 0, false) => "error",
            (false, 0, true) => "pitcrew=info,warn",
            (false, 1, _) => "pitcrew=debug,info",
            (false, 2.., _) => "debug",
        };
    let filter = match settings.log() {
        Some(text) => EnvFilter::try_new(text)
            .map_err(|error| error::invalid(format!("the log filter `{text}` is not right: {error}")))?,
        None => EnvFilter::new(default),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ui.err.on)
        .with_target(false)
        .init();
    Ok(())
}

/// A panic is a fault of ours; the user gets one line and what to do with it.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    use std::io::Write;
    let place = info.location().map_or_else(String::new, |at| format!(" ({}:{})", at.file(), at.line()));
    let what = info.payload_as_str().unwrap_or("unknown");
    let _ = writeln!(std::io::stderr(), "pitcrew has a fault{place}: {what}; tasks that run go on, please report this");
}

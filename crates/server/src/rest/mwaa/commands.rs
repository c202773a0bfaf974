//! The commands of Airflow's command line that make sense on a server, as their users type them.

use clap::{Args, Parser, Subcommand, ValueEnum};

#[derive(Debug, Parser)]
#[command(name = "airflow", disable_version_flag = true, color = clap::ColorChoice::Never, term_width = 100)]
pub struct Line {
    #[command(subcommand)]
    pub group: Group,
}

#[derive(Debug, Subcommand)]
pub enum Group {
    /// Workflows and their runs
    #[command(subcommand)]
    Dags(Dags),
    /// Tasks of workflows and runs
    #[command(subcommand)]
    Tasks(Tasks),
    /// Variables
    #[command(subcommand)]
    Variables(Variables),
    /// Connections
    #[command(subcommand)]
    Connections(Connections),
    /// Pools
    #[command(subcommand)]
    Pools(Pools),
    /// The version of the server
    Version,
}

/// How a list is written.
#[derive(Debug, Clone, Args)]
pub struct Output {
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Plain,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub enum Dags {
    /// List workflows
    List(Output),
    /// Show a workflow
    Details {
        dag_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a run
    Trigger {
        dag_id: String,
        /// Params as a JSON object
        #[arg(short, long)]
        conf: Option<String>,
        #[arg(short, long)]
        run_id: Option<String>,
        /// The time that the run stands for
        #[arg(short = 'e', long = "exec-date", visible_alias = "logical-date", alias = "execution-date")]
        exec_date: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Let no more runs begin
    Pause { dag_id: String },
    /// Let runs begin again
    Unpause { dag_id: String },
    /// Show the state of the run that stands for a time, or that has an id
    State { dag_id: String, logical_date_or_run_id: String },
    /// List runs
    ListRuns {
        #[arg(short, long)]
        dag_id: String,
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Delete the history of a workflow
    Delete {
        dag_id: String,
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Tasks {
    /// List the tasks of a workflow
    List { dag_id: String },
    /// Show the state of a task instance
    State {
        dag_id: String,
        task_id: String,
        run_id: String,
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        map_index: i32,
    },
    /// Show the states of all task instances of a run
    StatesForDagRun {
        dag_id: String,
        run_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let the tasks of a run go again
    Clear {
        dag_id: String,
        /// The run
        #[arg(short, long)]
        run_id: String,
        /// Only this task
        #[arg(short, long)]
        task_id: Option<String>,
        #[arg(short = 'f', long)]
        only_failed: bool,
        #[arg(short, long)]
        downstream: bool,
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Variables {
    /// List variables
    List(Output),
    /// Show a variable
    Get {
        key: String,
        /// Written when there is no such variable
        #[arg(short, long)]
        default: Option<String>,
    },
    /// Set a variable
    Set {
        key: String,
        value: String,
        #[arg(long)]
        description: Option<String>,
        /// The value is JSON already
        #[arg(short, long)]
        json: bool,
    },
    /// Delete a variable
    Delete { key: String },
}

#[derive(Debug, Subcommand)]
pub enum Connections {
    /// List connections
    List(Output),
    /// Show a connection
    Get {
        conn_id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a connection
    Add {
        conn_id: String,
        #[arg(long)]
        conn_type: String,
        #[arg(long)]
        conn_description: Option<String>,
        #[arg(long)]
        conn_host: Option<String>,
        #[arg(long)]
        conn_login: Option<String>,
        #[arg(long)]
        conn_password: Option<String>,
        #[arg(long)]
        conn_schema: Option<String>,
        #[arg(long)]
        conn_port: Option<u16>,
        /// A JSON object
        #[arg(long)]
        conn_extra: Option<String>,
    },
    /// Delete a connection
    Delete { conn_id: String },
}

#[derive(Debug, Subcommand)]
pub enum Pools {
    /// List pools
    List(Output),
    /// Show a pool
    Get {
        pool: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a pool, or change it
    Set {
        pool: String,
        #[arg(allow_negative_numbers = true)]
        slots: i64,
        description: String,
    },
    /// Delete a pool
    Delete { pool: String },
}

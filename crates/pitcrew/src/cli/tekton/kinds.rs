//! `pipelineruns`, `taskruns` and `pipelines`: lists, descriptions, logs and changes, with the words and flags of `tkn`.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use pitcrew_control::clock;
use pitcrew_control::tekton::start::How;
use pitcrew_control::tekton::{keep, objects, status};
use pitcrew_core::engine::record::RunRecord;
use pitcrew_lang::tekton::model::Origin;
use pitcrew_lang::tekton::status::StatusDocs;
use pitcrew_store::{ObjectFilter, ObjectRow, Paging};
use serde_json::{Value, json};

use super::{Document, create, given, logs, run, text};
use crate::cli::context::{Context, who};
use crate::cli::control::Peers;
use crate::cli::error::{invalid, refused};
use crate::cli::run::RunFormat;

/// Which namespace, and in which form.
#[derive(Debug, Clone, clap::Args)]
pub struct Scope {
    /// The namespace
    #[arg(short, long, value_name = "NAME", default_value = objects::DEFAULT_NAMESPACE)]
    namespace: String,
    /// How to write the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: RunFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    /// Only runs of this Pipeline or Task
    of: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How many at most; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Only with this label; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The oldest first
    #[arg(long)]
    reverse: bool,
    /// Without the line of headings
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, Clone, clap::Args)]
pub struct OneArgs {
    name: Option<String>,
    /// The newest
    #[arg(short = 'L', long, conflicts_with = "name")]
    last: bool,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    name: Option<String>,
    /// The newest
    #[arg(short = 'L', long, conflicts_with = "name")]
    last: bool,
    /// Go on until the run is over
    #[arg(short, long)]
    follow: bool,
    /// Only this task of the pipeline; can be given several times
    #[arg(short, long, value_name = "TASK")]
    task: Vec<String>,
    /// Only this step; can be given several times
    #[arg(short, long, value_name = "STEP")]
    step: Vec<String>,
    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
    /// End with the state of the run: 0 succeeded, 1 failed, 2 not over
    #[arg(short = 'E', long)]
    exit_with_run_status: bool,
    /// The namespace
    #[arg(short, long, value_name = "NAME", default_value = objects::DEFAULT_NAMESPACE)]
    namespace: String,
}

#[derive(Debug, Clone, clap::Args)]
pub struct DeleteArgs {
    #[arg(required_unless_present_any = ["keep", "keep_since", "all"])]
    names: Vec<String>,
    /// Delete what is over, but for the newest so many
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Delete what is over, but for what ended in the last so many minutes
    #[arg(long, value_name = "MINUTES")]
    keep_since: Option<u32>,
    /// Delete all that are over
    #[arg(long)]
    all: bool,
    /// Only runs of this Pipeline
    #[arg(short, long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only runs of this Task
    #[arg(short, long, value_name = "NAME")]
    task: Option<String>,
    /// Only with this label; can be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Do not ask; nothing is ever asked here
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    scope: Scope,
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
    Cancel(OneArgs),
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
    name: String,
    /// A param; can be given several times
    #[arg(short, long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// A workspace; can be given several times
    #[arg(short, long, value_name = "BINDING")]
    workspace: Vec<String>,
    /// A label of the run; can be given several times
    #[arg(short, long, value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// What the name of the run begins with
    #[arg(long, value_name = "TEXT")]
    prefix_name: Option<String>,
    /// The ServiceAccount
    #[arg(short, long, value_name = "NAME")]
    serviceaccount: Option<String>,
    /// Of the whole run
    #[arg(long, alias = "timeout", value_name = "DURATION")]
    pipeline_timeout: Option<String>,
    /// Of its tasks
    #[arg(long, value_name = "DURATION")]
    tasks_timeout: Option<String>,
    /// Of its `finally` tasks
    #[arg(long, value_name = "DURATION")]
    finally_timeout: Option<String>,
    /// With the params and workspaces of the newest run
    #[arg(short = 'L', long)]
    last: bool,
    /// Show what it writes until it is over
    #[arg(long)]
    showlog: bool,
    /// Only print the run that would be made
    #[arg(long)]
    dry_run: bool,
    /// Params that are not given have their defaults; nothing is ever asked here
    #[arg(long)]
    use_param_defaults: bool,
    #[command(flatten)]
    scope: Scope,
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

pub async fn runs(kind: &'static str, command: RunsCommand, context: Context) -> anyhow::Result<ExitCode> {
    match command {
        RunsCommand::List(args) => list_runs(kind, &args, &context).await,
        RunsCommand::Describe(args) => {
            let (_, docs) = one(kind, args.name.as_deref(), None, &args.scope.namespace, &context).await?;
            match args.scope.output {
                RunFormat::Text => context.ui.print(&text::describe(&docs.run, &docs.task_runs, context.now()))?,
                output => run::write(&context.ui, output, &[docs.run])?,
            }
            Ok(ExitCode::SUCCESS)
        }
        RunsCommand::Logs(args) => show_logs(kind, None, args, context).await,
        RunsCommand::Cancel(args) => cancel(kind, &args, &context).await,
        RunsCommand::Delete(args) => delete_runs(kind, &args, &context).await,
    }
}

pub async fn definitions(
    kind: &'static str,
    of_runs: &'static str,
    command: DefinitionsCommand,
    context: Context,
) -> anyhow::Result<ExitCode> {
    match command {
        DefinitionsCommand::List(args) => list_definitions(kind, &args, &context).await,
        DefinitionsCommand::Describe(args) => {
            let name = args.name.as_deref().ok_or_else(|| invalid(format!("which {kind}? name one")))?;
            let document = objects::document(&definition(kind, name, &args.scope.namespace, &context).await?);
            match args.scope.output {
                RunFormat::Text => context.ui.print(&text::describe_definition(&document))?,
                output => run::write(&context.ui, output, &[document])?,
            }
            Ok(ExitCode::SUCCESS)
        }
        DefinitionsCommand::Start(args) => start(kind, of_runs, args, context).await,
        DefinitionsCommand::Logs(mut args) => {
            let of = args.name.take();
            show_logs(of_runs, of, args, context).await
        }
        DefinitionsCommand::Delete(args) => {
            if args.keep.is_some() || args.keep_since.is_some() {
                return Err(invalid(format!("`--keep` is for runs, and a {kind} is none")));
            }
            delete_definitions(kind, &args, &context).await
        }
    }
}

/// Objects of a kind, the newest first.
async fn rows(kind: &str, namespace: Option<&str>, context: &Context) -> anyhow::Result<Vec<ObjectRow>> {
    let filter = ObjectFilter { kinds: vec![kind.to_owned()], namespace: namespace.map(str::to_owned), run: None };
    let mut rows = context.store.objects(&filter, Paging::ALL).await?.rows;
    rows.sort_by_key(|row| std::cmp::Reverse((row.created, row.run)));
    Ok(rows)
}

async fn docs(row: &ObjectRow, context: &Context) -> anyhow::Result<Option<(RunRecord, StatusDocs)>> {
    let Some(key) = row.run else { return Ok(None) };
    let found = status::of_run(&context.store, &context.catalog, key).await?;
    Ok(found.map(|(stored, docs)| (stored.run, docs)))
}

/// What a document says it is a run of.
fn is_of(document: &Value, of: &str) -> bool {
    document["spec"]["pipelineRef"]["name"] == of || document["spec"]["taskRef"]["name"] == of
}

fn has_labels(document: &Value, wanted: &[String]) -> bool {
    wanted.iter().all(|label| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        document["metadata"]["labels"][key].as_str().is_some_and(|found| value.is_empty() || found == value)
    })
}

async fn list_runs(kind: &str, args: &ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let namespace = (!args.all_namespaces).then_some(args.scope.namespace.as_str());
    let mut found = Vec::new();
    for row in rows(kind, namespace, context).await? {
        let Some((_, docs)) = docs(&row, context).await? else { continue };
        if args.of.as_deref().is_none_or(|of| is_of(&docs.run, of)) && has_labels(&docs.run, &args.label) {
            found.push(docs.run);
        }
        if args.limit > 0 && found.len() == args.limit {
            break;
        }
    }
    if args.reverse {
        found.reverse();
    }
    show_list(kind, args, found, &["NAME", "STARTED", "DURATION", "STATUS"], text::row, context)
}

async fn list_definitions(kind: &str, args: &ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let namespace = (!args.all_namespaces).then_some(args.scope.namespace.as_str());
    let mut rows = rows(kind, namespace, context).await?;
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let mut found: Vec<Value> = rows.iter().map(objects::document).collect();
    found.retain(|document| has_labels(document, &args.label));
    if args.reverse {
        found.reverse();
    }
    if args.limit > 0 {
        found.truncate(args.limit);
    }
    let row = |document: &Value, now: Timestamp| {
        let at = document["metadata"]["creationTimestamp"].as_str().and_then(|at| at.parse().ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        vec![text(&document["metadata"]["name"]), text(&document["spec"]["description"]), text::age(at, now)]
    };
    show_list(kind, args, found, &["NAME", "DESCRIPTION", "AGE"], row, context)
}

fn show_list(
    kind: &str,
    args: &ListArgs,
    found: Vec<Value>,
    headings: &[&str],
    row: impl Fn(&Value, Timestamp) -> Vec<String>,
    context: &Context,
) -> anyhow::Result<ExitCode> {
    match args.scope.output {
        RunFormat::Text if found.is_empty() => context.ui.say(format!("No {kind}s found")),
        RunFormat::Text => {
            let mut headings = headings.to_vec();
            let mut rows: Vec<Vec<String>> = found.iter().map(|document| row(document, context.now())).collect();
            if args.all_namespaces {
                headings.insert(0, "NAMESPACE");
                for (row, document) in rows.iter_mut().zip(&found) {
                    row.insert(0, document["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
                }
            }
            let headings = if args.no_headers { Vec::new() } else { headings };
            context.ui.print(&text::table(&headings, &rows))?;
        }
        output => run::write(&context.ui, output, &found)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The run of that name; without one, the newest.
async fn one(
    kind: &str,
    name: Option<&str>,
    of: Option<&str>,
    namespace: &str,
    context: &Context,
) -> anyhow::Result<(RunRecord, StatusDocs)> {
    if let Some(name) = name {
        let row = context.store.object(kind, namespace, name).await?;
        let missing = || invalid(format!("there is no {kind} `{name}` in the namespace `{namespace}`"));
        return docs(&row.ok_or_else(missing)?, context).await?.ok_or_else(missing);
    }
    for row in rows(kind, Some(namespace), context).await? {
        if let Some((record, docs)) = docs(&row, context).await?
            && of.is_none_or(|of| is_of(&docs.run, of))
        {
            return Ok((record, docs));
        }
    }
    let of = of.map(|of| format!(" of `{of}`")).unwrap_or_default();
    Err(invalid(format!("there is no {kind}{of} in the namespace `{namespace}`")))
}

async fn definition(kind: &str, name: &str, namespace: &str, context: &Context) -> anyhow::Result<ObjectRow> {
    let found = context.store.object(kind, namespace, name).await?;
    found.ok_or_else(|| {
        invalid(format!(
            "there is no {kind} `{name}` in the namespace `{namespace}`\nhint: `pitcrew apply -f FILE` makes it"
        ))
    })
}

async fn show_logs(kind: &str, of: Option<String>, args: LogsArgs, context: Context) -> anyhow::Result<ExitCode> {
    let (record, _) = one(kind, args.name.as_deref(), of.as_deref(), &args.namespace, &context).await?;
    let filter = logs::Filter { tasks: args.task, steps: args.step, timestamps: args.timestamps };
    let state = logs::show(context, record, filter, args.follow).await?;
    Ok(match (args.exit_with_run_status, state.is_final(), state) {
        (false, ..) | (true, true, pitcrew_core::state::RunState::Success) => ExitCode::SUCCESS,
        (true, true, _) => ExitCode::from(1),
        (true, false, _) => ExitCode::from(2),
    })
}

async fn cancel(kind: &str, args: &OneArgs, context: &Context) -> anyhow::Result<ExitCode> {
    if args.name.is_none() && !args.last {
        return Err(invalid(format!("which {kind}? name one, or say `--last`")));
    }
    let (record, docs) = one(kind, args.name.as_deref(), None, &args.scope.namespace, context).await?;
    let name = docs.run["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if record.state.is_final() {
        return Err(invalid(format!("{kind} `{name}` is over already: {}", text::condition(&docs.run))));
    }
    let mut peers = Peers::find(&context.data).await;
    let Some(peer) = peers.responsible(record.key).await else {
        return Err(refused(format!(
            "nobody works on {kind} `{name}`\nhint: `{} runs cancel {}` takes it over and cancels it",
            context.pitcrew(),
            record.key
        )));
    };
    peer.cancel(record.key, who()).await?;
    context.ui.line(format!("{kind} cancelled: {name}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn delete_runs(kind: &str, args: &DeleteArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let mut gone: Vec<(RunRecord, String)> = Vec::new();
    for name in &args.names {
        let (record, _) = one(kind, Some(name), None, &args.scope.namespace, context).await?;
        gone.push((record, name.clone()));
    }
    if args.names.is_empty() {
        let of = args.pipeline.as_deref().or(args.task.as_deref());
        let mut kept = 0;
        for row in rows(kind, Some(&args.scope.namespace), context).await? {
            let Some((record, docs)) = docs(&row, context).await? else { continue };
            let is_meant = of.is_none_or(|of| is_of(&docs.run, of)) && has_labels(&docs.run, &args.label);
            if !record.state.is_final() || !is_meant {
                continue;
            }
            let since = args.keep_since.map(|minutes| context.now() - SignedDuration::from_mins(minutes.into()));
            let is_recent = since.is_some_and(|since| record.end.is_some_and(|end| end >= since));
            kept += 1;
            if !is_recent && args.keep.is_none_or(|keep| kept > keep) {
                gone.push((record, row.name));
            }
        }
    }
    for (record, name) in &gone {
        if !record.state.is_final() {
            return Err(invalid(format!("{kind} `{name}` is not over: cancel it first")));
        }
    }
    for (record, name) in &gone {
        let mut audit = context.audit("run.delete");
        audit.workflow = Some(record.workflow.clone());
        audit.run = Some(record.run_id.clone());
        keep::remove(&context.store, &context.data, record.key, audit).await?;
        context.ui.line(format!("{kind} deleted: {name}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete_definitions(kind: &str, args: &DeleteArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let namespace = &args.scope.namespace;
    let names = match args.names.is_empty() {
        true => rows(kind, Some(namespace), context).await?.into_iter().map(|row| row.name).collect(),
        false => args.names.clone(),
    };
    for name in &names {
        definition(kind, name, namespace, context).await?;
    }
    for name in names {
        let mut audit = context.audit("object.delete");
        audit.detail = json!({ "kind": kind, "namespace": namespace, "name": name });
        context.store.delete_object(kind, namespace, &name, audit).await?;
        context.ui.line(format!("{kind} deleted: {name}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn start(kind: &str, of_runs: &str, args: StartArgs, context: Context) -> anyhow::Result<ExitCode> {
    let namespace = args.scope.namespace.clone();
    definition(kind, &args.name, &namespace, &context).await?;
    let known = create::definitions(&context, &[], &namespace).await?;
    let field = if kind == "Pipeline" { "pipelineRef" } else { "taskRef" };
    let prefix = args.prefix_name.clone().unwrap_or_else(|| format!("{}-run", args.name));
    let mut document = json!({
        "apiVersion": "tekton.dev/v1",
        "kind": of_runs,
        "metadata": { "generateName": format!("{prefix}-"), "namespace": namespace },
        "spec": { field: { "name": args.name } },
    });
    if args.last {
        let (_, docs) = one(of_runs, None, Some(&args.name), &namespace, &context).await?;
        document["spec"] = docs.run["spec"].clone();
    }
    for label in &args.labels {
        let (key, value) = label.split_once('=').ok_or_else(|| invalid(format!("`-l {label}` is not `KEY=VALUE`")))?;
        document["metadata"]["labels"][key] = json!(value);
    }
    if let Some(account) = &args.serviceaccount {
        match kind {
            "Pipeline" => document["spec"]["taskRunTemplate"]["serviceAccountName"] = json!(account),
            _ => document["spec"]["serviceAccountName"] = json!(account),
        }
    }
    let limits = [("tasks", &args.tasks_timeout), ("finally", &args.finally_timeout)];
    match (kind, &args.pipeline_timeout) {
        ("Pipeline", Some(limit)) => document["spec"]["timeouts"]["pipeline"] = json!(limit),
        (_, Some(limit)) => document["spec"]["timeout"] = json!(limit),
        (_, None) => {}
    }
    for (name, limit) in limits {
        if let Some(limit) = limit {
            if kind != "Pipeline" {
                return Err(invalid(format!("`--{name}-timeout` is for Pipelines, and this is a {kind}")));
            }
            document["spec"]["timeouts"][name] = json!(limit);
        }
    }
    let declared = run::declared(&document, &known);
    given::params(&mut document, &declared, &args.param)?;
    given::workspaces(&mut document, &args.workspace)?;
    if args.dry_run {
        let output = if args.scope.output == RunFormat::Text { RunFormat::Yaml } else { args.scope.output };
        run::write(&context.ui, output, &[document])?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = How { namespace: &namespace, one_machine: false, on: None, by: &who(), now: clock::now() };
    let document = Document { json: document, origin: Origin::default() };
    let new = run::make(&document, &known, how)?;
    let name = new.object.name.clone();
    let record = create::create(&context, new).await?;
    if args.scope.output != RunFormat::Text {
        let (_, docs) = one(of_runs, Some(&name), None, &namespace, &context).await?;
        run::write(&context.ui, args.scope.output, &[docs.run])?;
    } else {
        context.ui.line(format!("{of_runs} started: {name}"))?;
    }
    if args.showlog {
        let state = logs::show(context, record, logs::Filter::default(), true).await?;
        return Ok(crate::cli::run::exit_code(state));
    }
    Ok(ExitCode::SUCCESS)
}

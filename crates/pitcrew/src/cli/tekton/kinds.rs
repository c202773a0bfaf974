//! `pipelineruns`, `taskruns` and `pipelines`: lists, descriptions, logs and changes, with the words and flags of `tkn`.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use pitcrew_control::clock;
use pitcrew_control::tekton::start::How;
use pitcrew_control::tekton::{keep, objects, status};
use pitcrew_core::engine::record::{RunRecord, StopHow};
use pitcrew_lang::tekton::model::Origin;
use pitcrew_lang::tekton::status::StatusDocs;
use pitcrew_store::{ObjectFilter, ObjectRow, Paging};
use serde_json::{Value, json};

use super::args::{CancelArgs, DefinitionsCommand, DeleteArgs, Grace, ListArgs, LogsArgs, RunsCommand, StartArgs};
use super::{Document, create, given, logs, run, text};
use crate::cli::context::{Context, who};
use crate::cli::control::Peers;
use crate::cli::error::{invalid, refused};
use crate::cli::run::RunFormat;

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
            if args.last {
                return Err(invalid(format!("`--last` is for runs, and a {kind} is none")));
            }
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
            let of_runs = [
                (args.keep.is_some(), "--keep"),
                (args.keep_since.is_some(), "--keep-since"),
                (args.pipeline.is_some(), "--pipeline"),
                (args.task.is_some(), "--task"),
            ];
            if let Some((_, flag)) = of_runs.iter().find(|(given, _)| *given) {
                return Err(invalid(format!("`{flag}` is for runs, and a {kind} is none")));
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

/// What is done writes lines, and no documents.
fn only_text(what: &str, output: RunFormat) -> anyhow::Result<()> {
    match output {
        RunFormat::Text => Ok(()),
        _ => Err(invalid(format!("`{what}` has no other output than its lines: leave `-o` out"))),
    }
}

async fn list_definitions(kind: &str, args: &ListArgs, context: &Context) -> anyhow::Result<ExitCode> {
    if let Some(of) = &args.of {
        return Err(invalid(format!("a {kind} is of nothing else: leave `{of}` out, or describe it")));
    }
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

async fn cancel(kind: &str, args: &CancelArgs, context: &Context) -> anyhow::Result<ExitCode> {
    let CancelArgs { which: args, grace } = args;
    let how = match (kind, grace) {
        (_, None) => StopHow::Everything,
        ("PipelineRun", Some(Grace::CancelledRunFinally)) => StopHow::ThenFinally,
        ("PipelineRun", Some(Grace::StoppedRunFinally)) => StopHow::DrainThenFinally,
        (_, Some(_)) => return Err(invalid("`--grace` is for PipelineRuns: a TaskRun has no `finally`")),
    };
    only_text("cancel", args.scope.output)?;
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
    peer.stop(record.key, how, who()).await?;
    context.ui.line(format!("{kind} cancelled: {name}"))?;
    Ok(ExitCode::SUCCESS)
}

async fn delete_runs(kind: &str, args: &DeleteArgs, context: &Context) -> anyhow::Result<ExitCode> {
    only_text("delete", args.scope.output)?;
    if let Some((_, flag)) = [(args.pipeline.is_some(), "PipelineRun"), (args.task.is_some(), "TaskRun")]
        .iter()
        .find(|(given, of)| *given && *of != kind)
    {
        return Err(invalid(format!("that flag is for {flag}s, and these are {kind}s")));
    }
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
    only_text("delete", args.scope.output)?;
    let names = match args.names.is_empty() {
        true => {
            let all = rows(kind, Some(namespace), context).await?;
            all.into_iter().filter(|row| has_labels(&objects::document(row), &args.label)).map(|row| row.name).collect()
        }
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

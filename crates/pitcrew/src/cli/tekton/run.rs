//! `run -f`: PipelineRuns and TaskRuns of files, in the foreground, without a server.

use std::path::Path;
use std::process::ExitCode;

use pitcrew_control::clock;
use pitcrew_control::config::Settings;
use pitcrew_control::tekton::start::{self, How, New, StartError};
use pitcrew_control::tekton::{objects, status};
use pitcrew_core::RunKey;
use pitcrew_core::ir::BackendKind;
use pitcrew_core::state::RunState;
use pitcrew_exec::KubernetesPlace;
use pitcrew_store::CreateRun;
use serde_json::{Value, json};

use super::follow::{Follower, To};
use super::{Document, Documents, given, placed, resolve};
use crate::cli::context::{Context, who};
use crate::cli::error::{BadFile, FAILED, invalid, refused};
use crate::cli::load::Source;
use crate::cli::run::{OnArg, RunArgs, RunFormat, Watched};
use crate::cli::session::Prepared;
use crate::cli::ui::Ui;

/// Runs all that the files say is to run, one after the other; the others of the documents are what they use.
pub async fn run(args: RunArgs, sources: Vec<Source>, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let native = [
        (args.params_file.is_some(), "--params-file"),
        (args.workflow.is_some(), "--workflow"),
        (args.run_id.is_some(), "--run-id"),
        (args.backend.is_some(), "--backend"),
    ];
    if let Some((_, flag)) = native.iter().find(|(given, _)| *given) {
        return Err(invalid(format!("`{flag}` is for workflows, and these are Tekton's documents")));
    }
    let Documents { mut runs, others } = super::read(&sources, &args.namespace, &ui)?;
    if runs.is_empty() {
        let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
        return Err(invalid(format!(
            "there is no PipelineRun and no TaskRun in `{}`: nothing is to run\nhint: add the file of one with `-f`",
            names.join("`, `")
        )));
    }
    let on = (args.on == Some(OnArg::Kubernetes)).then(|| {
        let place = KubernetesPlace { context: args.context.clone(), ..KubernetesPlace::default() };
        json!({ BackendKind::Kubernetes.name(): place })
    });
    if on.is_none() && args.context.is_some() {
        return Err(invalid("`--context` is for `--on kubernetes`"));
    }
    let how =
        How { namespace: &args.namespace, one_machine: on.is_none(), on: on.as_ref(), by: &who(), now: clock::now() };
    let mut all = Vec::new();
    for document in &mut runs {
        let declared = declared(&document.json, &others);
        given::params(&mut document.json, &declared, &args.param)?;
        given::workspaces(&mut document.json, &args.workspace)?;
        // Everything that can be refused is refused before anything is made.
        let mut new = make(document, &others, how)?;
        let engine = match args.on {
            Some(OnArg::Docker) => Some(settings.docker()),
            Some(OnArg::Sandbox | OnArg::Kubernetes) => None,
            None => settings.pods(),
        };
        engine.iter().for_each(|place| new.on_engine(place));
        all.push(new);
    }
    let mut code = ExitCode::SUCCESS;
    let mut documents = Vec::new();
    for new in all {
        super::warn(&new.compiled.warnings, &ui);
        let context = Context::open(ui, settings.clone()).await?;
        for document in others.iter().filter(|doc| is_data(doc)) {
            objects::put(&context.store, &context.vault, document, &args.namespace, &who(), clock::now()).await?;
        }
        let path = Path::new(&sources[0].name);
        let (state, told) = execute(&context, new, path, args.output, args.taskruns).await?;
        documents.extend(told);
        if state != Some(RunState::Success) {
            code = ExitCode::from(FAILED);
        }
    }
    write(&ui, args.output, &documents)?;
    Ok(code)
}

/// What runs look up when they run.
pub fn is_data(document: &Value) -> bool {
    ["ConfigMap", "Secret", "ServiceAccount"].iter().any(|kind| document["kind"] == *kind)
}

pub fn make(document: &Document, others: &[Value], how: How<'_>) -> anyhow::Result<New> {
    start::new_resolving(document.json.clone(), others, how, &resolve::remote).map_err(|error| match error {
        StartError::Compile(found) => BadFile(placed(&document.origin, found)).into(),
        StartError::Other(error) => invalid(format!("{error:#}")),
    })
}

/// The params that what a run refers to declares.
pub fn declared(run: &Value, others: &[Value]) -> Vec<Value> {
    let spec = &run["spec"];
    let (kind, reference, inline) = match run["kind"] == "PipelineRun" {
        true => ("Pipeline", &spec["pipelineRef"], &spec["pipelineSpec"]),
        false => ("Task", &spec["taskRef"], &spec["taskSpec"]),
    };
    let named = others.iter().find(|doc| doc["kind"] == kind && doc["metadata"]["name"] == reference["name"]);
    let params = match reference["name"].is_string() {
        true => named.map(|doc| &doc["spec"]["params"]),
        false => Some(&inline["params"]),
    };
    params.and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Executes a run to its end; gives how it ended, and its documents with their status.
async fn execute(
    context: &Context,
    new: New,
    path: &Path,
    output: RunFormat,
    taskruns: bool,
) -> anyhow::Result<(Option<RunState>, Vec<Value>)> {
    let prepared = Prepared::new(context).await?;
    let (kind, name) = (new.object.kind.clone(), new.object.name.clone());
    let path = std::path::absolute(path)?.display().to_string();
    let made = start::create(&context.store, new.run, new.object, &new.compiled, &path, Some(&prepared.owner)).await;
    let record = match made.map_err(refused)? {
        CreateRun::Created(record) => record,
        CreateRun::Exists { run, .. } => {
            return Err(invalid(format!(
                "there is a {kind} `{name}` already: run {} of `{}`\nhint: give it another name, or a `generateName`",
                run.key, run.workflow
            )));
        }
    };
    let key = record.key;
    let workflow = context.catalog.insert_for(&record, new.compiled.workflow);
    let session = prepared.work_on(context, key, &workflow).await?;
    let to = if output == RunFormat::Text { To::Stdout } else { To::Stderr };
    let watched = Follower::new(&session.app, context, record, &workflow, to).until_end().await;
    let told = match watched {
        Ok(Watched::Finished) => tell(context, key, output, taskruns).await,
        Ok(Watched::Left) => Ok((None, Vec::new())),
        Err(error) => Err(error),
    };
    session.shutdown().await;
    told
}

async fn tell(
    context: &Context,
    key: RunKey,
    output: RunFormat,
    taskruns: bool,
) -> anyhow::Result<(Option<RunState>, Vec<Value>)> {
    let Some((stored, docs)) = status::of_run(&context.store, &context.catalog, key).await? else {
        anyhow::bail!("run {key} was removed while it ran");
    };
    if output == RunFormat::Text && !context.ui.quiet {
        context.ui.say(sentence(&docs.run));
    }
    let mut documents = if taskruns { docs.task_runs } else { Vec::new() };
    documents.push(docs.run);
    Ok((Some(stored.run.state), documents))
}

/// How it ended, in a line: `PipelineRun build-x7k2p Failed: …`.
fn sentence(run: &Value) -> String {
    let condition = &run["status"]["conditions"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let head = format!("{} {}", text(&run["kind"]), text(&run["metadata"]["name"]));
    format!("{head} {}: {}", text(&condition["reason"]), text(&condition["message"]))
}

/// Writes the documents in the form that was asked for.
pub fn write(ui: &Ui, output: RunFormat, documents: &[Value]) -> anyhow::Result<()> {
    match output {
        RunFormat::Text => Ok(()),
        RunFormat::Yaml => ui.print(&pitcrew_lang::yaml::write::to_documents(documents)),
        RunFormat::Json => match documents {
            [one] => ui.json(one),
            all => ui.json(&serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": all })),
        },
        RunFormat::Name => documents.iter().try_for_each(|document| {
            let kind = document["kind"].as_str().unwrap_or_default().to_lowercase();
            ui.line(format!("{kind}.tekton.dev/{}", document["metadata"]["name"].as_str().unwrap_or_default()))
        }),
    }
}

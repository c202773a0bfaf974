//! `demo`: the whole product on a sample, with nothing to set up.
//!
//! The demo is a server like any other, on a data directory of its own, so that it touches nothing of the user's and
//! one deleted folder undoes it.

mod samples;
mod webhook;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use pitcrew_control::app::{App, Trigger};
use pitcrew_control::config::Settings;
use pitcrew_control::folder;
use pitcrew_control::links;
use pitcrew_core::WorkflowId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_server::{ADMIN, AuthConfig};
use serde_json::{Map, Value};
use tokio::net::TcpListener;

use crate::cli::parts::{Context, Screen, Serving, Stream, Ui, Watch, Watched, exit_code, invalid, shutdown_signal};
use samples::Samples;
use webhook::Webhook;

const WORKFLOW: &str = "gpu-notebook-ci";
const SOURCE: &str = include_str!("../../../../examples/gpu-notebook-ci.yaml");
/// The port of a server, if it is free.
const PORT: u16 = 8793;

/// Run a sample pipeline for real, and look at it in a browser
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// End after the run, with its exit status
    #[arg(long)]
    exit: bool,
    /// Answer on this port of 127.0.0.1; 8793 or a free one unless given
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

pub async fn command(args: DemoArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let context = Context::open(ui, settings.inside("demo")).await?;
    let root = context.data.root().to_owned();
    introduce(&context, root.join("environments").is_dir());
    if let Some(url) = context.server_url().await {
        return Err(invalid(format!("the demo runs already, at {url}\nhint: end it with Ctrl-C where it was started")));
    }
    let samples = samples::make(&root)?;
    let folder = root.join("workflows");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{WORKFLOW}.yaml"));
    std::fs::write(&file, SOURCE).with_context(|| format!("cannot write `{}`", file.display()))?;

    let webhook = Webhook::start().await?;
    let listener = listen(args.port).await?;
    let serving = Serving::start(&context, listener, AuthConfig::Generated, None).await?;
    let app = serving.session.app.clone();
    let base = serving.server.base_url();
    let password = serving.server.fresh_password().map(str::to_owned);
    folder::read_once(&app, &folder).await?;
    let run = trigger(&app, &samples, &webhook, &root).await?;
    let page = format!("/runs/{}", run.key);
    let [login, again] = [(); 2].map(|()| serving.server.login_link(&page));
    if !args.exit {
        ui.say(format!("  Watch it: {}", ui.err.cyan(&login)));
    }
    ui.say("");

    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serving.until(async move { drop(ended.await) }));
    let workflow = context.catalog.load_for(&context.store, &run).await?;
    let screen = Screen::new(&ui, Stream::Stdout);
    let watched = Watch::new(&app, &context, run.clone(), workflow, screen).until_end(None).await?;
    let over = context.store.run(run.key).await?.unwrap_or(run);
    let code = exit_code(over.state);
    if watched == Watched::Finished {
        tell(&context, &over, &base, &again, &webhook, args.exit);
    }
    if watched == Watched::Finished && !args.exit {
        if let Some(password) = password {
            ui.say(format!("  log in as `{ADMIN}` with {password} (shown only now), or open the address above"));
        }
        ui.say("\nThe server goes on until Ctrl-C.");
        shutdown_signal()?.await;
    }
    let _ = end.send(());
    server.await??;
    Ok(code)
}

fn introduce(context: &Context, used_before: bool) {
    let ui = &context.ui;
    ui.say(ui.err.bold("This is a small notebook pipeline, run for real on this machine:"));
    ui.say("  check out two sample repositories, run a notebook, convert and test it, report, publish, notify.");
    ui.say(format!("  Everything goes into {}; delete that folder to undo it.", context.data.root().display()));
    ui.say(match used_before {
        true => "  Its Python environment is there already, so this takes seconds.",
        false => "  The first time makes a Python environment, which takes a few minutes.",
    });
}

/// On this port of this machine, or on the usual one, or where there is room.
pub async fn listen(port: Option<u16>) -> anyhow::Result<TcpListener> {
    let bind = |port| TcpListener::bind(("127.0.0.1", port));
    match port {
        Some(port) => bind(port).await.map_err(|error| {
            invalid(format!("cannot listen on 127.0.0.1:{port}: {error}\nhint: leave `--port` out to take a free one"))
        }),
        None => match bind(PORT).await {
            Ok(listener) => Ok(listener),
            Err(_) => bind(0).await.context("cannot listen on the loopback address"),
        },
    }
}

async fn trigger(app: &App, samples: &Samples, webhook: &Webhook, root: &Path) -> anyhow::Result<RunRecord> {
    let conf = params(samples, &webhook.url(), root);
    let trigger = Trigger { conf, by: "demo".to_owned(), ..Trigger::default() };
    Ok(app.trigger(&WorkflowId::new(WORKFLOW)?, trigger).await?)
}

fn params(samples: &Samples, notify_url: &str, root: &Path) -> Map<String, Value> {
    let text = |path: PathBuf| Value::from(path.display().to_string());
    Map::from_iter([
        ("repo".to_owned(), text(samples.notebook.clone())),
        ("tests".to_owned(), text(samples.tests.clone())),
        ("publish_to".to_owned(), text(root.join("published"))),
        ("notify_url".to_owned(), Value::from(notify_url)),
    ])
}

/// Says what came out, and where to look at it.
fn tell(context: &Context, run: &RunRecord, base: &str, login: &str, webhook: &Webhook, exit: bool) {
    let ui = &context.ui;
    let line = |name: &str, text: String| ui.say(format!("  {} {text}", ui.err.dim(format!("{name:<16}"))));
    ui.say("");
    for body in webhook.received() {
        line("notification", crate::cli::parts::one_line(&body));
    }
    let address = |path: &str| match exit {
        true => context.data.artifacts(run.key).join(path).display().to_string(),
        false => format!("{base}{}", links::artifact(run.key, path)),
    };
    if !exit {
        line("run", format!("{login} (logs you in, once)"));
    }
    for (name, path) in results(&context.data.artifacts(run.key)) {
        line(name, address(&path));
    }
    line("from the shell", format!("{} logs {}", context.pitcrew(), run.key));
    if exit {
        line("with pages", "pitcrew demo".to_owned());
    }
}

/// The files that a person wants to see: name, and path among the artifacts.
fn results(artifacts: &Path) -> Vec<(&'static str, String)> {
    const WANTED: [(&str, &str); 3] =
        [("notebook", "analysis.html"), ("report", "report.html"), ("report (PDF)", "report.pdf")];
    let found = |(name, file): (&'static str, &str)| Some((name, find(artifacts, file)?));
    WANTED.into_iter().filter_map(found).collect()
}

/// The first file of that name, as a path below `root`.
fn find(root: &Path, name: &str) -> Option<String> {
    let mut open: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).ok()?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if entry.file_name() == name {
                return Some(path.strip_prefix(root).ok()?.to_str()?.to_owned());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_workflow_is_right_and_takes_the_params_of_the_demo() {
        let compiled = pitcrew_control::catalog::compile(SOURCE, "demo.yaml").unwrap();
        assert_eq!(compiled[0].workflow.id.as_str(), WORKFLOW);
        let samples = Samples { notebook: "/n".into(), tests: "/t".into() };
        let conf = params(&samples, "http://127.0.0.1:1/notify", Path::new("/d"));
        pitcrew_lang::resolve_params(&compiled[0].workflow, &conf).unwrap();
    }
}

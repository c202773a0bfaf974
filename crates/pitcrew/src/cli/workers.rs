//! `workers`: the machines that come for their work, and the tokens that they enrol with.

use std::process::ExitCode;

use pitcrew_control::fleet::WorkerView;

use super::error::invalid;
use super::target::{Target, TokenView, WorkerDeed};
use super::{Output, format};

/// List workers, make tokens for them, drain and revoke them
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct WorkersArgs {
    #[command(subcommand)]
    command: WorkersCommand,
}

#[derive(Debug, clap::Subcommand)]
enum WorkersCommand {
    /// List all workers
    List(Output),
    /// Show a worker
    Show {
        worker: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a token with which machines enrol, and print it: it cannot be shown again
    Token {
        /// A queue that its workers may serve; any unless given; repeat for more
        #[arg(long = "queue", value_name = "QUEUE")]
        queues: Vec<String>,
        /// How long it is good, such as `1h` or `30d`
        #[arg(long, value_name = "DURATION", default_value = "1h", conflicts_with = "never_expires")]
        expires: String,
        /// It is good until its uses are used up
        #[arg(long)]
        never_expires: bool,
        /// How many workers may enrol with it; any number unless given
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        uses: Option<u32>,
        #[command(flatten)]
        output: Output,
    },
    /// List the tokens that machines enrol with, and take them back
    #[command(arg_required_else_help = true)]
    Tokens {
        #[command(subcommand)]
        command: TokensCommand,
    },
    /// Let a worker take no more work; what it has goes on, and it stays
    Drain { worker: String },
    /// Let a worker that is drained take work again
    Undrain { worker: String },
    /// Let a worker in no more; what it runs is lost once its lease is over
    Revoke { worker: String },
}

#[derive(Debug, clap::Subcommand)]
enum TokensCommand {
    /// List all tokens; themselves they are never shown again
    List(Output),
    /// Take a token back; workers that enrolled with it stay
    Revoke {
        /// Its id, as `list` shows it
        token: String,
    },
}

pub async fn command(args: WorkersArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = *target.ui();
    match args.command {
        WorkersCommand::List(output) => list(&target, &target.workers().await?, &output)?,
        WorkersCommand::Show { worker, output } => {
            let worker = target.worker(&worker).await?;
            if output.is_json() { ui.json(&worker)? } else { show(&target, &worker)? }
        }
        WorkersCommand::Token { queues, expires, never_expires, uses, output } => {
            let life = if never_expires { None } else { Some(expires) };
            if let Some(Err(why)) = life.as_deref().map(pitcrew_lang::parse_duration) {
                return Err(invalid(format!("`--expires`: {why}")));
            }
            let token = target.worker_token(queues, life, uses).await?;
            match output.is_json() {
                true => ui.json(&token)?,
                false => {
                    ui.say("a machine enrols with this token; it is shown only now:");
                    ui.line(token["token"].as_str().unwrap_or_default())?;
                }
            }
        }
        WorkersCommand::Tokens { command: TokensCommand::List(output) } => {
            tokens(&target, &target.worker_tokens().await?, &output)?;
        }
        WorkersCommand::Tokens { command: TokensCommand::Revoke { token } } => {
            target.revoke_worker_token(&token).await?;
            ui.say(format!("nobody enrols with the token `{token}` any more"));
        }
        WorkersCommand::Drain { worker } => {
            target.do_to_worker(&worker, WorkerDeed::Drain).await?;
            ui.say(format!("the worker `{worker}` takes no new work; what it runs goes on"));
            ui.hint(format!("`{} workers undrain {worker}` takes that back", target.pitcrew()));
        }
        WorkersCommand::Undrain { worker } => {
            target.do_to_worker(&worker, WorkerDeed::Undrain).await?;
            ui.say(format!("the worker `{worker}` takes work"));
        }
        WorkersCommand::Revoke { worker } => {
            target.do_to_worker(&worker, WorkerDeed::Revoke).await?;
            ui.say(format!("the worker `{worker}` is revoked; what it runs is lost once its lease is over"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn standing(worker: &WorkerView) -> String {
    match &worker.reason {
        Some(why) => format!("{}: {}", worker.standing, format::one_line(why)),
        None => worker.standing.clone(),
    }
}

fn list(target: &Target, workers: &[WorkerView], output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return target.ui().json(&workers);
    }
    if workers.is_empty() {
        target.ui().say("no workers");
        target.ui().hint(format!("`{} workers token` makes what a machine enrols with", target.pitcrew()));
        return Ok(());
    }
    let now = target.now();
    let row = |worker: &WorkerView| {
        vec![
            worker.name.clone(),
            standing(worker),
            worker.queues.join(" "),
            format!("{} of {}", worker.running, worker.slots),
            worker.waiting.to_string(),
            worker.ended.to_string(),
            worker.failed.to_string(),
            worker.gpus.to_string(),
            worker.version.clone(),
            worker.heard_at.map_or("-".to_owned(), |at| format::relative(at, now)),
        ]
    };
    let head = ["worker", "standing", "queues", "running", "waiting", "ended", "failed", "gpus", "version", "heard"];
    target.ui().table(&head, workers.iter().map(row).collect())
}

fn tokens(target: &Target, tokens: &[TokenView], output: &Output) -> anyhow::Result<()> {
    if output.is_json() {
        return target.ui().json(&tokens);
    }
    if tokens.is_empty() {
        target.ui().say("no tokens");
        return Ok(());
    }
    let now = target.now();
    let row = |token: &TokenView| {
        vec![
            token.id.clone(),
            if token.works { "works" } else { "over" }.to_owned(),
            token.queues.join(" "),
            token.uses.map_or("any".to_owned(), |uses| uses.to_string()),
            token.expires.map_or("never".to_owned(), format::date_time),
            token.made_by.clone(),
            format::relative(token.created, now),
        ]
    };
    let head = ["token", "state", "queues", "uses left", "expires", "made by", "made"];
    target.ui().table(&head, tokens.iter().map(row).collect())
}

fn show(target: &Target, worker: &WorkerView) -> anyhow::Result<()> {
    let ui = target.ui();
    let line = |name: &str, text: String| ui.line(format!("{name:<12} {}", format::one_line(&text)));
    line("worker", worker.name.clone())?;
    line("standing", standing(worker))?;
    line("host", worker.host.clone())?;
    line("version", worker.version.clone())?;
    line("queues", worker.queues.join(" "))?;
    line("slots", format!("{}, and {} ahead", worker.slots, worker.prefetch))?;
    line("tasks", format!("{} running, {} waiting", worker.running, worker.waiting))?;
    line("ended", format!("{}, of which {} failed", worker.ended, worker.failed))?;
    line("gpus", worker.gpus.to_string())?;
    for (key, value) in &worker.labels {
        line("label", format!("{key}={value}"))?;
    }
    if let Some(load) = worker.load1 {
        let longer: String =
            [worker.load5, worker.load15].into_iter().flatten().map(|load| format!(" {load:.2}")).collect();
        line("load", format!("{load:.2}{longer} on {} cores", worker.cpu))?;
    }
    if let Some(used) = worker.memory_used_mib {
        line("memory", format!("{used} of {} MiB", worker.memory_mib))?;
    }
    line("enrolled", format::date_time(worker.enrolled))?;
    if let Some(at) = worker.heard_at {
        line("heard", format::relative(at, target.now()))?;
    }
    Ok(())
}

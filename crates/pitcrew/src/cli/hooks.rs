//! `hooks`: what was posted to listeners, here or on a server, and what it came to.

use std::process::ExitCode;

use pitcrew_control::hooks::view::{Line, sentence};
use pitcrew_store::{DeliveryFilter, DeliveryState};
use serde_json::Value;

use super::Output;
use super::error::invalid;
use super::format;
use super::target::Target;

/// See what was posted to listeners, and send it once more
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct HooksArgs {
    #[command(subcommand)]
    command: HooksCommand,
}

#[derive(Debug, clap::Subcommand)]
enum HooksCommand {
    /// List deliveries, the newest first
    List {
        /// Only those of listeners in this namespace
        #[arg(short, long, value_name = "NAME")]
        namespace: Option<String>,
        /// Only those of this listener
        #[arg(long, value_name = "NAME")]
        listener: Option<String>,
        /// Only those that are waiting, done, refused or duplicate
        #[arg(long, value_parser = state)]
        state: Option<DeliveryState>,
        /// Deliveries at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Show a delivery: what each trigger came to, the headers, and the body
    Show {
        /// Its number
        id: i64,
        #[command(flatten)]
        output: Output,
    },
    /// Send deliveries once more, as if they had just come
    Redeliver {
        /// Their numbers
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
}

fn state(text: &str) -> Result<DeliveryState, String> {
    DeliveryState::from_name(text).ok_or_else(|| "expected waiting, done, refused or duplicate".to_owned())
}

pub async fn command(args: HooksArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        HooksCommand::List { namespace, listener, state, limit, output } => {
            let rows = target.deliveries(&DeliveryFilter { namespace, listener, state }, limit).await?;
            list(&target, &rows, output)?;
        }
        HooksCommand::Show { id, output } => {
            let shown = target.delivery(id).await?.ok_or_else(|| missing(id))?;
            show(&target, &shown, output)?;
        }
        HooksCommand::Redeliver { ids } => {
            for id in ids {
                let made = target.redeliver(id).await?.ok_or_else(|| missing(id))?;
                target.ui().say(format!("delivery {id} is sent once more, as delivery {made}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn missing(id: i64) -> anyhow::Error {
    let hint = "`pitcrew hooks list` shows those that there are; of one that was refused nothing is kept";
    invalid(format!("there is no delivery {id} with what was posted\nhint: {hint}"))
}

fn list(target: &Target, rows: &[Line], output: Output) -> anyhow::Result<()> {
    let ui = target.ui();
    if output.is_json() {
        return ui.json(&rows);
    }
    if rows.is_empty() {
        ui.say("no deliveries");
        return Ok(());
    }
    let now = target.now();
    let row = |line: &Line| {
        vec![
            line.id.to_string(),
            format::relative(line.received, now),
            line.at(),
            line.about.clone(),
            line.state.clone(),
            format::one_line(&line.summary()),
        ]
    };
    ui.table(&["id", "received", "listener", "event", "state", "outcome"], rows.iter().map(row).collect())
}

fn show(target: &Target, shown: &Value, output: Output) -> anyhow::Result<()> {
    let ui = target.ui();
    if output.is_json() {
        return ui.json(shown);
    }
    let line: Line = serde_json::from_value(shown.clone())?;
    let Line { id, event, about, source, bytes, state, .. } = &line;
    ui.line(format!("delivery {id} ({event}) of {}: {state}", line.at()))?;
    ui.line(format!("  {about} from {source} at {}, {bytes} bytes", format::date_time(line.received)))?;
    if let Some(first) = line.again_of {
        ui.line(format!("  sent once more of delivery {first}"))?;
    }
    match line.outcome.as_array().filter(|lines| !lines.is_empty()) {
        Some(lines) => lines.iter().try_for_each(|one| ui.line(format!("  {}", sentence(one))))?,
        None => ui.line(format!("  {}", line.summary()))?,
    }
    let posted = &shown["posted"];
    if posted.is_null() {
        return Ok(());
    }
    ui.line(format!("\n{}", posted["url"].as_str().unwrap_or_default()))?;
    for (name, value) in posted["headers"].as_object().into_iter().flatten() {
        ui.line(format!("{name}: {}", value.as_str().unwrap_or_default()))?;
    }
    ui.line(format!("\n{}", serde_json::to_string_pretty(&posted["body"])?))
}

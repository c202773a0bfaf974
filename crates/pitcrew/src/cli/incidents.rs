//! `incidents`: what went wrong with nodes, what recovery did about it, and what people say to that.

use std::process::ExitCode;

use pitcrew_control::recovery::Signs;
use pitcrew_control::recovery::runbook::Runbook;
use pitcrew_control::recovery::wish::Deed;
use pitcrew_core::recovery::{Incident, Verdict};
use pitcrew_store::IncidentFilter;

use super::target::Target;
use super::{Output, format};

/// Rows of a list.
const MOST: u32 = 200;

/// List incidents of nodes and what was done about them; approve a repair, dismiss one, check a node again
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct IncidentsArgs {
    #[command(subcommand)]
    command: IncidentsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum IncidentsCommand {
    /// List incidents, the newest first
    List {
        /// Only those that are not over
        #[arg(long)]
        open: bool,
        /// Only those of this node
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Show an incident: what was seen, what was done and why
    Show {
        incident: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let the repair go ahead that an incident waits with
    Approve {
        incident: String,
        /// Only if it is this one: `reset_gpu`, `reboot`, `hard_reboot` or `replace`; unless said, the one that it waits with now
        #[arg(long, value_name = "REPAIR")]
        repair: Option<String>,
    },
    /// Say that the node is well
    Dismiss {
        incident: String,
        /// Why, for whoever reads it later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Check a node again that is out of service
    Retry { incident: String },
}

pub async fn command(args: IncidentsArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        IncidentsCommand::List { open, node, output } => {
            let filter = IncidentFilter { open: open.then_some(true), node };
            let all = target.incidents(&filter, MOST).await?;
            match output.is_json() {
                true => target.ui().json(&all)?,
                false => list(&target, &filter, &all)?,
            }
        }
        IncidentsCommand::Show { incident, output } => {
            let incident = target.incident(&incident).await?;
            // What a server elsewhere says of signs stands in its own configuration.
            let signs = match &target {
                Target::Here(context) => context.settings.recovery.as_ref().map(|config| config.signs.clone()),
                Target::There(_) => None,
            };
            let signs = signs.unwrap_or_default();
            match output.is_json() {
                true => target.ui().json(&incident)?,
                false => show(&target, &incident, &signs)?,
            }
        }
        IncidentsCommand::Approve { incident, repair } => {
            said(&target, &incident, Deed::Approve, None, repair).await?;
        }
        IncidentsCommand::Dismiss { incident, reason } => {
            said(&target, &incident, Deed::Dismiss, reason, None).await?;
        }
        IncidentsCommand::Retry { incident } => said(&target, &incident, Deed::Retry, None, None).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn said(
    target: &Target,
    text: &str,
    deed: Deed,
    reason: Option<String>,
    repair: Option<String>,
) -> anyhow::Result<()> {
    let incident = target.incident(text).await?;
    let id = incident.id;
    let what = match incident.plan.filter(|_| deed == Deed::Approve) {
        Some(plan) => format!("{id}: {plan}"),
        None => id.to_string(),
    };
    match target.say_to_incident(&incident, deed, reason.unwrap_or_default(), repair).await? {
        true => target.ui().say(format!("{what}: told; `{} incidents show {id}` shows what follows", target.pitcrew())),
        false => target.ui().say(format!("{what}: written down; the next server of this database hears of it")),
    }
    Ok(())
}

fn verdict(incident: &Incident) -> String {
    match incident.verdict {
        None => "-".to_owned(),
        Some(verdict @ (Verdict::Pass | Verdict::Fail | Verdict::Inconclusive)) => verdict.name().to_owned(),
    }
}

/// Where it stands.
fn state(incident: &Incident) -> String {
    match (incident.outcome, incident.trail.last()) {
        (Some(outcome), _) => outcome.name().to_owned(),
        (None, Some(last)) => last.to.clone(),
        (None, None) => "open".to_owned(),
    }
}

fn list(target: &Target, filter: &IncidentFilter, all: &[Incident]) -> anyhow::Result<()> {
    if all.is_empty() {
        let which = if filter.open.is_some() { "no incident is open" } else { "there were no incidents" };
        let of = filter.node.as_ref().map(|node| format!(" of the node `{node}`")).unwrap_or_default();
        target.ui().say(format!("{which}{of}"));
        return Ok(());
    }
    let row = |incident: &Incident| {
        let cause = incident.chief().map(|signal| signal.kind.to_string()).unwrap_or_default();
        let tried: Vec<&str> = incident.tried.iter().map(|tried| tried.rung.name()).collect();
        vec![
            incident.id.to_string(),
            incident.node.clone(),
            cause,
            verdict(incident),
            state(incident),
            if tried.is_empty() { "-".to_owned() } else { tried.join(" ") },
            format::date_time(incident.opened),
            format::span(Some(incident.opened), incident.closed),
        ]
    };
    let head = ["incident", "node", "cause", "verdict", "state", "tried", "opened", "took"];
    target.ui().table(&head, all.iter().map(row).collect())
}

fn show(target: &Target, incident: &Incident, signs: &Signs) -> anyhow::Result<()> {
    let ui = target.ui();
    let line = |name: &str, text: String| ui.line(format!("{name:<12} {}", format::one_line(&text)));
    line("incident", incident.id.to_string())?;
    line("node", incident.node.clone())?;
    for gpu in &incident.gpus {
        line("gpu", gpu.clone())?;
    }
    line("state", state(incident))?;
    line("verdict", verdict(incident))?;
    line("fault of", incident.class.to_string())?;
    for job in &incident.jobs {
        line("job", job.clone())?;
    }
    for signal in &incident.signals {
        line("signal", format!("{} (advice: {})", signal.words(), signal.advice))?;
    }
    if incident.more_signals > 0 {
        line("", format!("and {} more", incident.more_signals))?;
    }
    for book in Runbook::all(incident, signs.tables()) {
        line("runbook", format!("{}, {}: {}", book.title(), book.page, book.about))?;
        line("", format!("left to you: {}", book.person))?;
    }
    for tried in &incident.tried {
        line("tried", format!("{}: {}", tried.rung, tried.result.as_deref().unwrap_or("not known yet")))?;
    }
    line("opened", format::date_time(incident.opened))?;
    if let Some(closed) = incident.closed {
        line("closed", format::date_time(closed))?;
    }
    for step in &incident.trail {
        let change = if step.from == step.to { step.to.clone() } else { format!("{} → {}", step.from, step.to) };
        let again = match step.again {
            Some(again) => format!(" ({} times, last at {})", again.times + 1, format::clock_time(again.last)),
            None => String::new(),
        };
        ui.line(format!("  {} {change}: {}{again}", format::clock_time(step.at), format::one_line(&step.why)))?;
    }
    Ok(())
}

//! `incidents`: what went wrong with nodes, what recovery did about it, and what people say to that.

use std::process::ExitCode;

use pitcrew_control::recovery::Signs;
use pitcrew_control::recovery::runbook::Runbook;
use pitcrew_control::recovery::wish::{self, Deed, Wish};
use pitcrew_core::recovery::{Incident, IncidentId, Outcome, Verdict};
use pitcrew_store::{IncidentFilter, Paging};

use super::context::{self, Context};
use super::error::invalid;
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
    let Target::Here(context) = &target else {
        let hint = "leave out `--server`, and name the database with `--store` or `--data-dir`";
        return Err(invalid(format!("incidents are read from the database itself\nhint: {hint}")));
    };
    match args.command {
        IncidentsCommand::List { open, node, output } => {
            let filter = IncidentFilter { open: open.then_some(true), node };
            let all = context.store.incidents(&filter, Paging::first(MOST)).await?.rows;
            match output.is_json() {
                true => target.ui().json(&all)?,
                false => list(&target, &all)?,
            }
        }
        IncidentsCommand::Show { incident, output } => {
            let incident = find(context, &incident).await?;
            let signs = context.settings.recovery.as_ref().map(|config| config.signs.clone()).unwrap_or_default();
            match output.is_json() {
                true => target.ui().json(&incident)?,
                false => show(&target, &incident, &signs)?,
            }
        }
        IncidentsCommand::Approve { incident, repair } => {
            wished(context, &incident, Deed::Approve, None, repair).await?;
        }
        IncidentsCommand::Dismiss { incident, reason } => {
            wished(context, &incident, Deed::Dismiss, reason, None).await?;
        }
        IncidentsCommand::Retry { incident } => wished(context, &incident, Deed::Retry, None, None).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `inc-7`, or `7`.
async fn find(context: &Context, text: &str) -> anyhow::Result<Incident> {
    let number = text.strip_prefix("inc-").unwrap_or(text).parse();
    let number = number.map_err(|_| invalid(format!("`{text}` is no incident: it is called like `inc-7`")))?;
    let found = context.store.incident(IncidentId(number)).await?;
    let hint = || format!("`{} incidents list` shows all of them", context.pitcrew());
    found.ok_or_else(|| invalid(format!("there is no incident `{text}`\nhint: {}", hint())))
}

async fn wished(
    context: &Context,
    text: &str,
    deed: Deed,
    reason: Option<String>,
    repair: Option<String>,
) -> anyhow::Result<()> {
    let incident = find(context, text).await?;
    let id = incident.id;
    match (deed, incident.is_open(), incident.outcome) {
        (Deed::Retry, false, Some(Outcome::OutOfService)) | (Deed::Approve | Deed::Dismiss, true, _) => {}
        (Deed::Dismiss, false, Some(Outcome::OutOfService)) => {}
        (Deed::Retry, _, _) => return Err(invalid(format!("{id} is not out of service, so it is not tried again"))),
        (Deed::Approve | Deed::Dismiss, false, _) => return Err(invalid(format!("{id} is over"))),
    }
    let plan = incident.plan.filter(|_| deed == Deed::Approve);
    match (deed, plan, repair) {
        (Deed::Approve, None, _) => {
            return Err(invalid(format!("{id} waits with no repair: there is nothing to approve")));
        }
        (Deed::Approve, Some(now), Some(seen)) if seen != now.name() => {
            return Err(invalid(format!("{id} needs `{now}`, and not `{seen}`\nhint: look at it again")));
        }
        (Deed::Approve | Deed::Dismiss | Deed::Retry, _, _) => {}
    }
    let wish = Wish { deed, by: context::who(), why: reason.unwrap_or_default(), repair: plan };
    wish::put(&context.store, id, &wish, context.audit(&format!("incident.{}", deed.name()))).await?;
    let id = plan.map_or(id.to_string(), |plan| format!("{id}: {plan}"));
    match context.server_url().await {
        Some(_) => context.ui.say(format!(
            "{id}: told; `{} incidents show {}` shows what follows",
            context.pitcrew(),
            incident.id
        )),
        None => context.ui.say(format!("{id}: written down; the next server of this database hears of it")),
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

fn list(target: &Target, all: &[Incident]) -> anyhow::Result<()> {
    if all.is_empty() {
        target.ui().say("no incidents");
        return Ok(());
    }
    let row = |incident: &Incident| {
        let cause = incident.signals.first().map(|signal| signal.kind.to_string()).unwrap_or_default();
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
        line("signal", format!("{}: {} (advice: {})", signal.kind, signal.evidence, signal.advice))?;
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
        ui.line(format!("  {} {change}: {}", format::clock_time(step.at), format::one_line(&step.why)))?;
    }
    Ok(())
}

//! `quotas`: how much of the nodes each namespace may hold, and what it may borrow.

use std::process::ExitCode;

use pitcrew_control::quotas::{QuotaView, memory};
use pitcrew_core::fleet::Amount;

use super::error::invalid;
use super::target::Target;
use super::{Output, format};

/// List and set quotas of namespaces
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct QuotasArgs {
    #[command(subcommand)]
    command: QuotasCommand,
}

#[derive(Debug, clap::Subcommand)]
enum QuotasCommand {
    /// List all quotas; with `--server` also what is in use
    List(Output),
    /// Show the quota of a namespace
    Show {
        namespace: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a quota, or change what is named; `none` takes away
    Set {
        namespace: String,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a quota: nothing limits the namespace any more
    Delete { namespace: String },
}

#[derive(Debug, clap::Args)]
struct Change {
    /// GPUs of its own, such as `8` or `7.5`
    #[arg(long)]
    gpus: Option<String>,
    /// Cores of its own
    #[arg(long)]
    cpu: Option<String>,
    /// Memory of its own, such as `256Gi`
    #[arg(long)]
    memory: Option<String>,
    /// Quotas of one cohort lend each other what they do not use
    #[arg(long)]
    cohort: Option<String>,
    /// GPUs that it may borrow; without a limit unless set
    #[arg(long)]
    borrow_gpus: Option<String>,
    /// Cores that it may borrow
    #[arg(long)]
    borrow_cpu: Option<String>,
    /// Memory that it may borrow
    #[arg(long)]
    borrow_memory: Option<String>,
    /// Its weight when namespaces share, 1 to 1000
    #[arg(long)]
    weight: Option<String>,
}

impl Change {
    fn pairs(self) -> Vec<(String, Option<String>)> {
        let all = [
            ("gpus", self.gpus),
            ("cpu", self.cpu),
            ("memory", self.memory),
            ("cohort", self.cohort),
            ("borrow_gpus", self.borrow_gpus),
            ("borrow_cpu", self.borrow_cpu),
            ("borrow_memory", self.borrow_memory),
            ("weight", self.weight),
        ];
        let named = all.into_iter().filter_map(|(key, text)| Some((key.to_owned(), text?)));
        named.map(|(key, text)| (key, Some(text).filter(|text| text != "none"))).collect()
    }
}

pub async fn command(args: QuotasArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    match args.command {
        QuotasCommand::List(output) => show(&target, target.quotas().await?, output)?,
        QuotasCommand::Show { namespace, output } => {
            let found: Vec<QuotaView> =
                target.quotas().await?.into_iter().filter(|quota| quota.namespace == namespace).collect();
            let Some(quota) = found.first() else { return Err(missing(&target, &namespace)) };
            match output.is_json() {
                true => ui.json(quota)?,
                false => show(&target, found, output)?,
            }
        }
        QuotasCommand::Set { namespace, change } => {
            let changes = change.pairs();
            if changes.is_empty() {
                return Err(invalid(
                    "say what the quota is: `--gpus 8`, `--cpu 64`, `--memory 256Gi`, `--cohort NAME`, …",
                ));
            }
            target.set_quota(&namespace, changes).await?;
            target.changed().await;
            ui.say(format!("set the quota of the namespace `{namespace}`"));
        }
        QuotasCommand::Delete { namespace } => {
            if !target.delete_quota(&namespace).await? {
                return Err(missing(&target, &namespace));
            }
            target.changed().await;
            ui.say(format!("deleted the quota of the namespace `{namespace}`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn missing(target: &Target, namespace: &str) -> anyhow::Error {
    let hint = format!("`{} quotas list` shows all of them", target.pitcrew());
    invalid(format!("the namespace `{namespace}` has no quota\nhint: {hint}"))
}

/// `7.5 of 8`, `7.5`, `8`, or `-` where neither is known.
fn of(used: Option<String>, own: Option<String>) -> String {
    match (used, own) {
        (Some(used), Some(own)) => format!("{used} of {own}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "-".to_owned(),
    }
}

fn show(target: &Target, all: Vec<QuotaView>, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return target.ui().json(&all);
    }
    let row = |quota: &QuotaView| {
        let amount = |amount: Amount| amount.to_string();
        let used = quota.used.unwrap_or_default();
        vec![
            quota.namespace.clone(),
            of(used.gpus.map(amount), quota.limits.gpus.map(amount)),
            of(used.cpu.map(amount), quota.limits.cpu.map(amount)),
            of(used.memory_mib.map(memory), quota.limits.memory_mib.map(memory)),
            quota.cohort.as_deref().map_or_else(|| "-".to_owned(), format::one_line),
            quota.weight.to_string(),
            quota.waiting.to_string(),
        ]
    };
    let head = ["namespace", "gpus", "cpu", "memory", "cohort", "weight", "waiting"];
    target.ui().table(&head, all.iter().map(row).collect())
}

//! `pools`: how many tasks of a kind may be live at a time, over all runs, in Airflow's words.

use std::path::PathBuf;
use std::process::ExitCode;

use pitcrew_store::Pool;
use serde_json::{Map, Value, json};

use super::error::invalid;
use super::target::Target;
use super::{Output, format, load};

/// List and set pools of slots
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct PoolsArgs {
    #[command(subcommand)]
    command: PoolsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PoolsCommand {
    /// List all pools
    List(Output),
    /// Show one pool
    Get {
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Make a pool, or change it
    Set {
        name: String,
        /// Live tasks at most; 0 holds all of them
        slots: u32,
        /// What it is for
        #[arg(default_value = "")]
        description: String,
    },
    /// Delete a pool
    Delete { name: String },
    /// Set pools from a JSON file, as `export` writes it
    Import { file: PathBuf },
    /// Write all pools as one JSON document
    Export {
        /// The file to write; stdout unless given
        file: Option<PathBuf>,
    },
}

pub async fn command(args: PoolsArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    match args.command {
        PoolsCommand::List(output) => show(&target, target.pools().await?, output)?,
        PoolsCommand::Get { name, output } => {
            let found: Vec<Pool> = target.pools().await?.into_iter().filter(|pool| pool.name == name).collect();
            if found.is_empty() {
                return Err(missing(&name));
            }
            show(&target, found, output)?;
        }
        PoolsCommand::Set { name, slots, description } => {
            target.put_pool(Pool { name: name.clone(), slots, description }).await?;
            target.changed().await;
            ui.say(format!("pool `{name}` has {slots} slots"));
        }
        PoolsCommand::Delete { name } => {
            if !target.delete_pool(&name).await? {
                return Err(missing(&name));
            }
            target.changed().await;
            ui.say(format!("deleted the pool `{name}`"));
        }
        PoolsCommand::Import { file } => {
            let pools = import(&file)?;
            let count = pools.len() as u64;
            for pool in pools {
                target.put_pool(pool).await?;
            }
            target.changed().await;
            ui.say(format!("set {} from `{}`", format::plural(count, "pool"), file.display()));
        }
        PoolsCommand::Export { file } => {
            let entry = |pool: Pool| {
                let fields = json!({ "slots": pool.slots, "description": pool.description, "include_deferred": false });
                (pool.name, fields)
            };
            let document: Map<String, Value> = target.pools().await?.into_iter().map(entry).collect();
            load::export(ui, &document, file.as_deref(), "pool")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(target: &Target, pools: Vec<Pool>, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        let shown = |p: &Pool| json!({ "name": p.name, "slots": p.slots, "description": p.description });
        return target.ui().json(&pools.iter().map(shown).collect::<Vec<_>>());
    }
    let row = |p: &Pool| vec![p.name.clone(), p.slots.to_string(), format::one_line(&p.description)];
    target.ui().table(&["pool", "slots", "description"], pools.iter().map(row).collect())
}

fn missing(name: &str) -> anyhow::Error {
    invalid(format!("there is no pool `{name}`\nhint: `pitcrew pools list` shows all of them"))
}

/// `{"name": {"slots": 4, "description": "…"}}`.
fn import(file: &std::path::Path) -> anyhow::Result<Vec<Pool>> {
    let pool = |(name, fields): (String, Value)| {
        let slots = fields["slots"].as_u64().and_then(|slots| u32::try_from(slots).ok());
        let slots = slots
            .ok_or_else(|| invalid(format!("`{name}` in `{}`: `slots` must be a whole number", file.display())))?;
        let description = fields["description"].as_str().unwrap_or_default().to_owned();
        Ok(Pool { name, slots, description })
    };
    load::object(file, "pools")?.into_iter().map(pool).collect()
}

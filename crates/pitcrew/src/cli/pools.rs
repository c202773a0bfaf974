//! `pools`: how many tasks of a kind may be live at a time, over all runs.

use std::process::ExitCode;

use pitcrew_store::{Pool, StoreError};
use serde_json::json;

use super::Output;
use super::context::Context;
use super::control::Peers;
use super::error::invalid;

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
}

pub async fn command(args: PoolsArgs, context: Context) -> anyhow::Result<ExitCode> {
    let ui = &context.ui;
    match args.command {
        PoolsCommand::List(output) => {
            let pools = context.store.pools().await?;
            if output.is_json() {
                let shown = |p: &Pool| json!({ "name": p.name, "slots": p.slots, "description": p.description });
                ui.json(&pools.iter().map(shown).collect::<Vec<_>>())?;
            } else {
                let row = |p: &Pool| vec![p.name.clone(), p.slots.to_string(), p.description.clone()];
                ui.table(&["pool", "slots", "description"], pools.iter().map(row).collect())?;
            }
        }
        PoolsCommand::Set { name, slots, description } => {
            let mut audit = context.audit("pool.set");
            audit.detail = json!({ "name": name, "slots": slots });
            let pool = Pool { name: name.clone(), slots, description };
            context.store.put_pool(pool, audit).await.map_err(refused)?;
            Peers::find(&context.data).await.look().await;
            ui.say(format!("pool `{name}` has {slots} slots"));
        }
        PoolsCommand::Delete { name } => {
            let mut audit = context.audit("pool.delete");
            audit.detail = json!({ "name": name });
            if !context.store.delete_pool(&name, audit).await.map_err(refused)? {
                return Err(invalid(format!(
                    "there is no pool `{name}`\nhint: `pitcrew pools list` shows all of them"
                )));
            }
            Peers::find(&context.data).await.look().await;
            ui.say(format!("deleted the pool `{name}`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn refused(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Invalid(why) => invalid(why),
        other => other.into(),
    }
}

//! `tokens`: what programs prove themselves with. A token is shown once, when it is made.

use std::process::ExitCode;

use jiff::SignedDuration;
use pitcrew_core::WorkflowId;
use pitcrew_server::User;
use pitcrew_server::manage::{self, NewToken, TOKEN_DAYS};
use pitcrew_store::{Role, TokenRow};
use serde_json::json;

use super::context::{Context, who};
use super::users::explain;
use super::{Output, format};

/// List, make and revoke tokens for programs
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct TokensArgs {
    #[command(subcommand)]
    command: TokensCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TokensCommand {
    /// List the tokens of all users
    List(Output),
    /// Make a token and print it: it cannot be shown again
    Create {
        /// What it is for
        name: String,
        /// Whose token it is
        #[arg(long)]
        user: String,
        /// The most that it may do: `viewer`, `user`, `op` or `admin`; what its user may unless given
        #[arg(long)]
        role: Option<Role>,
        /// A workflow that it is for; all unless given; repeat for more
        #[arg(long = "workflow", value_name = "WORKFLOW")]
        workflows: Vec<WorkflowId>,
        /// How long it is good
        #[arg(long, default_value_t = TOKEN_DAYS as u32, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
        /// It is good until it is revoked
        #[arg(long, conflicts_with = "days")]
        never_expires: bool,
    },
    /// Revoke a token
    Revoke {
        /// As `tokens list` shows it
        id: String,
    },
}

pub async fn command(args: TokensArgs, context: Context) -> anyhow::Result<ExitCode> {
    let (ui, store, now, by) = (&context.ui, &context.store, context.now(), User::local(who()));
    match args.command {
        TokensCommand::List(output) => {
            let tokens = manage::tokens(store, &by).await.map_err(explain)?;
            if output.is_json() {
                ui.json(&tokens.iter().map(shown).collect::<Vec<_>>())?;
            } else if tokens.is_empty() {
                ui.say("no tokens");
            } else {
                let row = |token: &TokenRow| {
                    let expires = match token.expires {
                        None => "never".to_owned(),
                        Some(at) if at <= now => "expired".to_owned(),
                        Some(at) => format::date_time(at),
                    };
                    let used = token.last_used.map_or("never".to_owned(), |at| format::relative(at, now));
                    let workflows = token.workflows.iter().map(WorkflowId::as_str).collect::<Vec<_>>().join(",");
                    let workflows = if workflows.is_empty() { "all".to_owned() } else { workflows };
                    let name = format::one_line(&token.name);
                    vec![token.id.clone(), token.user.clone(), name, token.role.to_string(), workflows, expires, used]
                };
                let headings = ["id", "user", "name", "role", "workflows", "expires", "last used"];
                ui.table(&headings, tokens.iter().map(row).collect())?;
            }
        }
        TokensCommand::Create { name, user, role, workflows, days, never_expires } => {
            let life = (!never_expires).then(|| SignedDuration::from_hours(i64::from(days) * 24));
            let new = NewToken { user, name, role, workflows, life };
            let (row, token) = manage::create_token(store, &by, new, now).await.map_err(explain)?;
            let until =
                row.expires.map_or("until it is revoked".to_owned(), |at| format!("until {}", format::date_time(at)));
            ui.say(format!("token `{}` of `{}`, good {until}; it is shown only now:", row.id, row.user));
            ui.line(token)?;
        }
        TokensCommand::Revoke { id } => {
            let token = manage::revoke_token(store, &by, &id, now).await.map_err(explain)?;
            ui.say(format!("revoked `{}` of `{}`", token.name, token.user));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(token: &TokenRow) -> serde_json::Value {
    json!({
        "id": token.id,
        "user": token.user,
        "name": token.name,
        "role": token.role.name(),
        "workflows": token.workflows,
        "created": token.created,
        "expires": token.expires,
        "last_used": token.last_used,
    })
}

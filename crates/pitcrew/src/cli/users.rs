//! `users`: who may use the server, as what. Works on the store, so a server need not run; one that does notices
//! within a second.

use std::process::ExitCode;

use pitcrew_server::User;
use pitcrew_server::manage::{self, NewUser, Refused};
use pitcrew_store::{Paging, Role, UserRow};
use serde_json::json;

use super::context::{Context, who};
use super::error::{invalid, refused};
use super::{Output, format, password};

/// List, make and change users
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct UsersArgs {
    #[command(subcommand)]
    command: UsersCommand,
}

#[derive(Debug, clap::Subcommand)]
enum UsersCommand {
    /// List all users
    List(Output),
    /// Make a user; asks for the password, or reads it from stdin
    Create {
        name: String,
        /// `viewer`, `user`, `op` or `admin`
        #[arg(long)]
        role: Role,
        #[arg(long, default_value = "")]
        full_name: String,
        #[arg(long, default_value = "")]
        email: String,
        /// Make one that comes in by tokens, or by the provider of logins
        #[arg(long)]
        no_password: bool,
    },
    /// Give a user another role
    SetRole {
        name: String,
        /// `viewer`, `user`, `op` or `admin`
        role: Role,
    },
    /// Give a user a new password; asks for it, or reads it from stdin
    SetPassword { name: String },
    /// Keep a user out, with all sessions and tokens
    Deactivate { name: String },
    /// Let a user in again
    Activate { name: String },
    /// Delete a user with all tokens
    Delete { name: String },
}

pub async fn command(args: UsersArgs, context: Context) -> anyhow::Result<ExitCode> {
    let (ui, store, now, by) = (&context.ui, &context.store, context.now(), User::local(who()));
    match args.command {
        UsersCommand::List(output) => {
            let users = store.users(Paging::ALL).await?.rows;
            if output.is_json() {
                ui.json(&users.iter().map(shown).collect::<Vec<_>>())?;
            } else if users.is_empty() {
                ui.say("no users yet: the first start of a server makes `admin`");
            } else {
                let last = |user: &UserRow| user.last_login.map_or("never".to_owned(), |at| format::relative(at, now));
                let row = |user: &UserRow| {
                    let state = if user.active { "active" } else { "deactivated" };
                    let name = format::one_line(&user.full_name);
                    vec![user.name.clone(), user.role.to_string(), state.to_owned(), last(user), name]
                };
                ui.table(&["user", "role", "account", "last login", "name"], users.iter().map(row).collect())?;
            }
        }
        UsersCommand::Create { name, role, full_name, email, no_password } => {
            let password = if no_password { None } else { Some(password::read(&name, ui)?) };
            let new = NewUser { name, role: Some(role), password, full_name, email };
            let user = manage::create_user(store, &by, new, now).await.map_err(explain)?;
            ui.say(format!("made the user `{}` with the role `{role}`", user.name));
        }
        UsersCommand::SetRole { name, role } => {
            manage::set_role(store, &by, &name, role, now).await.map_err(explain)?;
            ui.say(format!("`{name}` has the role `{role}` now and must log in again"));
        }
        UsersCommand::SetPassword { name } => {
            let password = password::read(&name, ui)?;
            manage::set_password(store, &by, &name, &password, now).await.map_err(explain)?;
            ui.say(format!("`{name}` has a new password and must log in again"));
        }
        UsersCommand::Deactivate { name } => {
            manage::set_active(store, &by, &name, false, now).await.map_err(explain)?;
            ui.say(format!("`{name}` is kept out"));
        }
        UsersCommand::Activate { name } => {
            manage::set_active(store, &by, &name, true, now).await.map_err(explain)?;
            ui.say(format!("`{name}` is let in again"));
        }
        UsersCommand::Delete { name } => {
            manage::delete_user(store, &by, &name, now).await.map_err(explain)?;
            ui.say(format!("deleted the user `{name}`"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(user: &UserRow) -> serde_json::Value {
    json!({
        "name": user.name,
        "role": user.role.name(),
        "active": user.active,
        "full_name": user.full_name,
        "email": user.email,
        "has_password": user.password.is_some(),
        "from_provider": user.subject.is_some(),
        "created": user.created,
        "last_login": user.last_login,
    })
}

/// What was asked for is at fault, unless the store is.
pub fn explain(error: Refused) -> anyhow::Error {
    match error {
        Refused::Store(pitcrew_store::StoreError::Invalid(why)) => invalid(why),
        Refused::Store(error) => error.into(),
        Refused::Other(error) => error,
        refusal => refused(refusal),
    }
}

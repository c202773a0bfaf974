//! `secrets`: those of the store, and whether the ones that are kept elsewhere can be had.
//!
//! A value comes from stdin or is typed without an echo, never from an argument, which every user of a machine can read.
//! It goes to stdout only when that is asked for, and that is written to the audit log.

use std::io::Write;
use std::process::ExitCode;

use pitcrew_exec::secrets::{Fetched, LARGEST, Secret, SecretError, SecretRef, Source};
use pitcrew_lang::diagnostic::closest;
use pitcrew_store::{Paging, SecretRow};
use serde_json::json;

use super::context::Context;
use super::error::{invalid, refused};
use super::{Output, format, password};

/// Look secrets up, and keep some in the store
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct SecretsArgs {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SecretsCommand {
    /// List the secrets of the store, without their values
    List(Output),
    /// Look a secret up, and tell of it without its value
    Get {
        /// A name in the store, or `aws-sm:NAME`, an ARN, `env:NAME`, `file:/PATH`
        secret: String,
        /// Write the value to stdout; the audit log tells that you did
        #[arg(long)]
        show: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Keep a secret, in the store or in AWS; its value is typed, or read from stdin
    Put {
        /// A name in the store, or `aws-sm:NAME`, or an ARN
        secret: String,
    },
    /// Delete a secret of the store
    Delete {
        /// Its name
        name: String,
    },
    /// Say whether secrets can be had, and if not, why
    Test {
        #[arg(required = true)]
        secrets: Vec<String>,
    },
}

pub async fn command(args: SecretsArgs, context: Context) -> anyhow::Result<ExitCode> {
    let ui = &context.ui;
    match args.command {
        SecretsCommand::List(output) => list(&context, output).await?,
        SecretsCommand::Get { secret, show, output } => {
            let reference = read(&secret)?;
            let fetched = fetch(&context, &reference).await?;
            if show {
                let mut audit = context.audit("secret.show");
                audit.detail = json!({ "secret": reference.to_string() });
                context.store.record_audit(audit).await.map_err(refused)?;
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(fetched.value.expose()).and_then(|()| stdout.flush())?;
            } else if output.is_json() {
                ui.json(&about(&reference, &fetched))?;
            } else {
                ui.line(described(&reference, &fetched))?;
            }
        }
        SecretsCommand::Put { secret } => put(&context, &read(&secret)?).await?,
        SecretsCommand::Delete { name } => {
            let Source::Store(name) = read(&name)?.source else {
                return Err(invalid("only secrets of the store are deleted here: delete others where they are kept"));
            };
            let mut audit = context.audit("secret.delete");
            audit.detail = json!({ "secret": format!("store:{name}") });
            if !context.store.delete_secret(&name, audit).await.map_err(refused)? {
                return Err(missing(&context, &name).await);
            }
            ui.say(format!("deleted the secret `{name}`"));
        }
        SecretsCommand::Test { secrets } => {
            let mut all_there = true;
            for secret in &secrets {
                match read(secret).map_err(|error| error.to_string()) {
                    Err(why) => {
                        all_there = false;
                        ui.line(format!("no   {why}"))?;
                    }
                    Ok(reference) => match context.secrets.get(&reference).await {
                        Ok(fetched) => ui.line(format!("yes  {}", described(&reference, &fetched)))?,
                        Err(error) => {
                            all_there = false;
                            ui.line(format!("no   {error}"))?;
                        }
                    },
                }
            }
            if !all_there {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A bare name is one of the store.
fn read(text: &str) -> anyhow::Result<SecretRef> {
    let is_name = !text.is_empty() && !text.contains(':');
    let read = if is_name { format!("store:{text}").parse() } else { text.parse::<SecretRef>() };
    read.map_err(|error| invalid(error.to_string()))
}

async fn fetch(context: &Context, reference: &SecretRef) -> anyhow::Result<Fetched> {
    match context.secrets.get(reference).await {
        Ok(fetched) => Ok(fetched),
        Err(error) => match &reference.source {
            Source::Store(name) if context.store.secret(name).await.is_ok_and(|row| row.is_none()) => {
                Err(missing(context, name).await)
            }
            _ => Err(explain(error)),
        },
    }
}

/// What cannot be had for good is the user's to mend; the rest may pass.
fn explain(error: SecretError) -> anyhow::Error {
    if error.lasting() { invalid(error.to_string()) } else { error.into() }
}

async fn put(context: &Context, reference: &SecretRef) -> anyhow::Result<()> {
    let value = password::secret(&reference.to_string(), &context.ui, LARGEST)?;
    let mut audit = context.audit("secret.set");
    audit.detail = json!({ "secret": reference.to_string() });
    let revision = match &reference.source {
        Source::Store(name) if reference.field.is_none() => {
            let Some(text) = value.expose_text() else {
                return Err(invalid("a secret of the store is text: encode it first, for example by `base64`"));
            };
            let sealed = context.vault.seal(text).map_err(refused)?;
            context.store.put_secret(name, &sealed, context.now(), audit).await.map_err(refused)?.to_string()
        }
        _ => {
            let token = uuid::Uuid::now_v7().simple().to_string();
            let version = context.secrets.put(reference, &value, &token).await.map_err(explain)?;
            context.store.record_audit(audit).await.map_err(refused)?;
            version
        }
    };
    context.ui.say(format!("set the secret `{reference}`, version {revision}"));
    Ok(())
}

async fn list(context: &Context, output: Output) -> anyhow::Result<()> {
    let rows = context.store.secrets(Paging::ALL).await.map_err(refused)?.rows;
    let ui = &context.ui;
    if output.is_json() {
        let shown = |row: &SecretRow| json!({ "name": row.name, "version": row.revision, "updated": row.updated });
        return ui.json(&rows.iter().map(shown).collect::<Vec<_>>());
    }
    if rows.is_empty() {
        ui.say("no secrets");
        return Ok(());
    }
    let row = |row: &SecretRow| vec![row.name.clone(), row.revision.to_string(), format::date_time(row.updated)];
    ui.table(&["secret", "version", "updated"], rows.iter().map(row).collect())
}

async fn missing(context: &Context, name: &str) -> anyhow::Error {
    let known = context.store.secrets(Paging::ALL).await.map(|page| page.rows).unwrap_or_default();
    let hint = match closest(name, known.iter().map(|row| row.name.as_str())) {
        Some(meant) => format!("\nhint: did you mean `{meant}`?"),
        None => String::new(),
    };
    invalid(format!("the store has no secret `{name}`{hint}"))
}

/// What may be known of a value: where it is from, its length, and what kind of text it is.
fn about(reference: &SecretRef, fetched: &Fetched) -> serde_json::Value {
    json!({
        "secret": reference.to_string(),
        "version": fetched.version,
        "bytes": fetched.value.expose().len(),
        "kind": kind(&fetched.value),
    })
}

fn described(reference: &SecretRef, fetched: &Fetched) -> String {
    let count = format::count(fetched.value.expose().len() as u64);
    format!("{reference}: {}, {count} bytes, version {}", kind(&fetched.value), fetched.version)
}

fn kind(value: &Secret) -> String {
    let Some(text) = value.expose_text() else { return "bytes".to_owned() };
    let first = text.trim_start().lines().next().unwrap_or_default();
    match (first.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")), value.field_names()) {
        (Some(what), _) => what.to_lowercase(),
        (None, Some(names)) => format!("an object with {}", format::one_line(&names.join(", "))),
        (None, None) => "text".to_owned(),
    }
}

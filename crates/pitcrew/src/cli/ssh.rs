//! `ssh`: which hosts this machine's server trusts.

use std::process::ExitCode;

use anyhow::Context as _;
use pitcrew_control::ssh;
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{Draft, Pin, Setup, address, host_name, scan, told};
use serde_json::json;

use super::context::{Context, who};
use super::error::{invalid, refused};
use super::{Output, format};

/// Hosts that are reached over SSH
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct SshArgs {
    #[command(subcommand)]
    command: SshCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SshCommand {
    /// The host keys that were accepted, beside those of `~/.ssh/known_hosts`
    #[command(subcommand)]
    Hosts(HostsCommand),
}

#[derive(Debug, clap::Subcommand)]
enum HostsCommand {
    /// List them, with when and for whom each was accepted
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Ask a host for its key, and accept it
    Trust {
        /// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`
        host: String,
        /// Only if its key has this fingerprint: `SHA256:…`
        #[arg(long, value_name = "SHA256")]
        fingerprint: Option<String>,
    },
    /// Forget a host: its next key is a new one
    Forget {
        /// `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`
        host: String,
    },
}

pub async fn command(args: SshArgs, context: Context) -> anyhow::Result<ExitCode> {
    let SshCommand::Hosts(command) = args.command;
    match command {
        HostsCommand::List { output } => list(&context, output).await?,
        HostsCommand::Trust { host, fingerprint } => trust(&context, &host, fingerprint.as_deref()).await?,
        HostsCommand::Forget { host } => forget(&context, &host).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn setup(context: &Context) -> Setup {
    ssh::setup(&context.data, &context.secrets)
}

/// The host that was typed, as it is connected to and as it is recorded.
fn named(context: &Context, setup: &Setup, host: &str) -> anyhow::Result<(SshPlace, String)> {
    let file = setup.config_file().map_err(refused)?;
    let (user, host, port) = address(host).map_err(refused)?;
    let draft = Draft { user, port, ..Draft::new(host) };
    let place = draft.place(&file, &context.settings.ssh()).map_err(refused)?;
    let name = host_name(&place, &file).map_err(refused)?;
    Ok((place, name))
}

async fn list(context: &Context, output: Output) -> anyhow::Result<()> {
    let pins = setup(context).pins.pins().await.map_err(refused)?;
    if output.is_json() {
        let shown = |pin: &Pin| json!({ "host": pin.name, "key": told(&pin.key), "at": pin.at, "for": pin.who });
        return context.ui.json(&pins.iter().map(shown).collect::<Vec<_>>());
    }
    if pins.is_empty() {
        context.ui.say("no host was accepted yet");
        return Ok(());
    }
    let now = context.now();
    let row = |pin: &Pin| {
        vec![format::one_line(&pin.name), told(&pin.key), format::relative(pin.at, now), format::one_line(&pin.who)]
    };
    context.ui.table(&["host", "key", "accepted", "for"], pins.iter().map(row).collect())
}

async fn trust(context: &Context, host: &str, fingerprint: Option<&str>) -> anyhow::Result<()> {
    let setup = setup(context);
    let (place, name) = named(context, &setup, host)?;
    let key = scan(&place, &setup).await.context("cannot ask the host for its key")?;
    if let Some(expected) = fingerprint
        && !told(&key).ends_with(&format!(" {expected}"))
    {
        return Err(invalid(format!("the host shows another key: {}", told(&key))));
    }
    let pin = Pin { name: name.clone(), key: key.clone(), at: context.now(), who: who() };
    if let Some(other) = setup.pins.add(pin).await.map_err(refused)? {
        let (known, shown) = (told(&other.key), told(&key));
        let hint = format!("compare, then `{} ssh hosts forget {name}`", context.pitcrew());
        return Err(invalid(format!("another key of `{name}` is accepted: {known}; it shows {shown}\nhint: {hint}")));
    }
    audit(context, "ssh.host.trust", &name, &told(&key)).await?;
    context.ui.say(format!("accepted the key of `{name}`: {}", told(&key)));
    if fingerprint.is_none() {
        context.ui.hint("compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` says there");
    }
    Ok(())
}

async fn forget(context: &Context, host: &str) -> anyhow::Result<()> {
    let setup = setup(context);
    let (_, name) = named(context, &setup, host)?;
    if setup.pins.remove(&name).await.map_err(refused)? == 0 {
        let hint = "keys in `~/.ssh/known_hosts` are forgotten by `ssh-keygen -R`";
        return Err(invalid(format!("no key of `{name}` was accepted here\nhint: {hint}")));
    }
    audit(context, "ssh.host.forget", &name, "").await?;
    context.ui.say(format!("forgot `{name}`; the key that it shows next is accepted as new"));
    Ok(())
}

async fn audit(context: &Context, event: &str, host: &str, key: &str) -> anyhow::Result<()> {
    let mut entry = context.audit(event);
    entry.detail = json!({ "host": host, "key": key });
    Ok(context.store.record_audit(entry).await?)
}

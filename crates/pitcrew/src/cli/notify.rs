//! `notify`: what was sent to whom, here or on a server, and whether a channel of this machine works.

use std::process::ExitCode;

use pitcrew_control::notify::message::Words;
use pitcrew_control::notify::send::Sender;
use pitcrew_control::notify::view::Line;
use pitcrew_control::vault::Vault;
use pitcrew_lang::diagnostic::closest;
use pitcrew_store::{NoticeFilter, NoticeState};

use super::Output;
use super::context::Context;
use super::error::{invalid, refused};
use super::format;
use super::target::Target;

/// Test channels, and see what was sent to whom
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct NotifyArgs {
    #[command(subcommand)]
    command: NotifyCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NotifyCommand {
    /// Send a message by a channel of the configuration, now
    Test { channel: String },
    /// Show the outbox, the newest first
    List {
        /// Only those that are waiting, sent, failed or merged
        #[arg(long, value_parser = state)]
        state: Option<NoticeState>,
        /// Only those of this channel
        #[arg(long)]
        channel: Option<String>,
        /// Notices at most
        #[arg(long, default_value_t = 50)]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Let notices that were given up be tried again
    Retry {
        /// Their numbers
        #[arg(required_unless_present = "failed", value_name = "ID")]
        ids: Vec<i64>,
        /// All that were given up
        #[arg(long, conflicts_with = "ids")]
        failed: bool,
    },
}

fn state(text: &str) -> Result<NoticeState, String> {
    NoticeState::from_name(text).ok_or_else(|| "expected waiting, sent, failed or merged".to_owned())
}

pub async fn command(args: NotifyArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        NotifyCommand::Test { channel } => match &target {
            Target::Here(context) => test(context, &channel).await?,
            Target::There(_) => {
                return Err(invalid(
                    "`--server` does not go with `notify test`: channels and secrets are on its machine",
                ));
            }
        },
        NotifyCommand::List { state, channel, limit, output } => {
            let rows = target.notices(NoticeFilter { state, channel, workflow: None }, limit).await?;
            list(&target, &rows, output)?;
        }
        NotifyCommand::Retry { ids, failed } => retry(&target, ids, failed).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn test(context: &Context, name: &str) -> anyhow::Result<()> {
    let config = &context.settings.notify;
    let Some(channel) = config.channels.get(name) else {
        let names = config.names();
        let hint = match closest(name, names.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if names.is_empty() => "add `channels` to `pitcrew.yaml`".to_owned(),
            None => format!("there are {}", names.join(", ")),
        };
        return Err(invalid(format!("there is no channel `{name}`\nhint: {hint}")));
    };
    let vault = Vault::new(&context.data, &|name| std::env::var(name).ok())?;
    let sender = Sender::new(context.store.clone(), vault, context.aws.clone())?;
    let secrets = sender.secrets.known(config).await;
    let base_url = context.server_url().await.unwrap_or_default();
    let now = context.now();
    let message = Words { channel, base_url: &base_url, secrets: &secrets }.test(now);
    match sender.send(channel, &message, now).await {
        Ok(()) => context.ui.say(format!("sent a message by `{name}` ({channel})")),
        Err(failed) => return Err(refused(format!("the channel `{name}` does not work: {failed}"))),
    }
    Ok(())
}

fn list(target: &Target, rows: &[Line], output: Output) -> anyhow::Result<()> {
    let ui = target.ui();
    if output.is_json() {
        return ui.json(&rows);
    }
    if rows.is_empty() {
        ui.say("no notices");
        return Ok(());
    }
    let now = target.now();
    let row = |notice: &Line| {
        let state = match notice.due {
            Some(due) if notice.tries > 0 => format!("{}, next try {}", notice.state, format::until(due, now)),
            _ => notice.state.clone(),
        };
        vec![
            notice.id.to_string(),
            format::relative(notice.created, now),
            notice.channel.clone(),
            format::one_line(&notice.subject),
            state,
            notice.tries.to_string(),
            format::one_line(&notice.error),
        ]
    };
    ui.table(&["id", "created", "channel", "what", "state", "tries", "error"], rows.iter().map(row).collect())
}

async fn retry(target: &Target, mut ids: Vec<i64>, failed: bool) -> anyhow::Result<()> {
    if failed {
        let filter = NoticeFilter { state: Some(NoticeState::Failed), ..NoticeFilter::default() };
        ids = target.notices(filter, u32::MAX).await?.iter().map(|notice| notice.id).collect();
    }
    for id in &ids {
        if !target.retry_notice(*id).await? && !failed {
            let hint = "`pitcrew notify list --state failed` shows those that were given up";
            return Err(invalid(format!("there is no notice {id} that could be tried again\nhint: {hint}")));
        }
    }
    target.ui().say(format!("{} will be tried again", format::plural(ids.len() as u64, "notice")));
    Ok(())
}

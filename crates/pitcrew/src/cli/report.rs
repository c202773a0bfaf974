//! `report`: where the report of a run lies, and the digest of the last days.

use std::process::ExitCode;

use jiff::SignedDuration;
use serde_json::json;

use super::context::Context;
use super::error::invalid;
use crate::digest;
use crate::reports::{self, Form};

/// Find the report of a run, or sum up the last days
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReportArgs {
    #[command(subcommand)]
    command: Option<ReportCommand>,
    /// Its number, its id, `latest`, or a workflow for its latest run
    #[arg(required = true)]
    run: Option<String>,
    #[command(flatten)]
    output: super::Output,
}

#[derive(Debug, clap::Subcommand)]
enum ReportCommand {
    /// Sum up the last days: success rate, durations, failures, flaky tests, GPU use, compared with the days before
    Digest {
        /// How far back: `24h`, `30d`, `2w`; a week unless given
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// How to write it
        #[arg(long, value_name = "FORMAT", default_value = "text")]
        output: DigestFormat,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum DigestFormat {
    Text,
    Json,
    Html,
}

pub async fn command(args: ReportArgs, context: Context) -> anyhow::Result<ExitCode> {
    match (args.command, args.run) {
        (Some(ReportCommand::Digest { since, output }), _) => sum_up(since.as_deref(), output, &context).await,
        (None, run) => find(&run.unwrap_or_default(), args.output, &context).await,
    }
}

async fn sum_up(since: Option<&str>, output: DigestFormat, context: &Context) -> anyhow::Result<ExitCode> {
    let length = since.map(length).transpose()?;
    let url = context.server_url().await.unwrap_or_default();
    let (store, data, now) = (&context.store, &context.data, context.now());
    let digest = match length {
        Some(length) => digest::over(store, data, &url, length, now).await?,
        None => digest::week(store, data, &url, now).await?,
    };
    match output {
        DigestFormat::Text => context.ui.print(&digest.text())?,
        DigestFormat::Html => context.ui.print(&digest.html()?)?,
        DigestFormat::Json => context.ui.json(&digest)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `7d`, `24h`, `1w`: whole days, hours or weeks, at most ten years.
fn length(text: &str) -> anyhow::Result<SignedDuration> {
    let wrong = || invalid(format!("`{text}` is no stretch of time\nhint: write it like `7d`, `24h` or `2w`"));
    let at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at)).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(at);
    let hours = match unit {
        "h" => 1,
        "d" => 24,
        "w" => 7 * 24,
        _ => return Err(wrong()),
    };
    let hours = number.parse::<i64>().ok().and_then(|number| number.checked_mul(hours));
    let hours = hours.filter(|hours| (1..=10 * 366 * 24).contains(hours)).ok_or_else(wrong)?;
    Ok(SignedDuration::from_hours(hours))
}

async fn find(run: &str, output: super::Output, context: &Context) -> anyhow::Result<ExitCode> {
    let run = context.run(run).await?;
    let kept = reports::of_run(&context.data, run.key);
    if kept.is_empty() {
        let hint = "a task with `uses: report` makes one";
        return Err(invalid(format!("run {} has no report\nhint: {hint}", run.key)));
    }
    if output.is_json() {
        let entry = |kept: &reports::Kept| {
            let [json, html, pdf] = [Form::Json, Form::Html, Form::Pdf].map(|form| kept.path(form));
            json!({ "task": kept.name, "made": kept.made, "json": json, "html": html, "pdf": pdf })
        };
        context.ui.json(&kept.iter().map(entry).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    for kept in kept {
        for form in [Form::Html, Form::Pdf, Form::Json] {
            context.ui.line(kept.path(form).display())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn a_stretch_of_time_is_a_number_and_a_unit() {
        assert_eq!(["7d", "24h", "1w"].map(|text| length(text).unwrap().as_hours()), [168, 24, 168]);
        for wrong in ["", "d", "7", "-1d", "0h", "7 days", "9999999999999999d", "7é"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }
}

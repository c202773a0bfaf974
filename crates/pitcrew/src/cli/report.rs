//! `report`: where the report of a run lies, and the digest of the last days; here or on a server.

use std::process::ExitCode;

use jiff::{SignedDuration, Timestamp};
use pitcrew_control::digest::{self, Digest, HOURS_MAX};
use pitcrew_control::reports::{self, Form};
use pitcrew_core::RunKey;
use serde::{Deserialize, Serialize};

use super::error::invalid;
use super::target::{Remote, Target};

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

pub async fn command(args: ReportArgs, target: Target) -> anyhow::Result<ExitCode> {
    match (args.command, args.run) {
        (Some(ReportCommand::Digest { since, output }), _) => sum_up(since.as_deref(), output, &target).await,
        (None, run) => find(&run.unwrap_or_default(), args.output, &target).await,
    }
}

async fn sum_up(since: Option<&str>, output: DigestFormat, target: &Target) -> anyhow::Result<ExitCode> {
    let length = since.map(length).transpose()?.unwrap_or(digest::WEEK);
    let digest: Digest = match target {
        Target::Here(context) => {
            let url = context.server_url().await.unwrap_or_default();
            digest::over(&context.store, &context.data, &url, length, context.now()).await?
        }
        Target::There(remote) => {
            let hours = ("hours", length.as_hours().to_string());
            remote.get(&["api", "pitcrew", "v1", "digest"], &[hours]).await?
        }
    };
    let ui = target.ui();
    match output {
        DigestFormat::Text => ui.print(&digest.text())?,
        DigestFormat::Html => ui.print(&digest.html()?)?,
        DigestFormat::Json => ui.json(&digest)?,
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
    let hours = hours.filter(|hours| (1..=HOURS_MAX).contains(hours)).ok_or_else(wrong)?;
    Ok(SignedDuration::from_hours(hours))
}

async fn find(run: &str, output: super::Output, target: &Target) -> anyhow::Result<ExitCode> {
    let run = target.run(run).await?;
    let found = match target {
        Target::Here(context) => reports::of_run(&context.data, run.key).iter().map(Report::here).collect(),
        Target::There(remote) => Report::there(remote, run.key).await?,
    };
    if found.is_empty() {
        let hint = "a task with `uses: report` makes one";
        return Err(invalid(format!("run {} has no report\nhint: {hint}", run.key)));
    }
    let ui = target.ui();
    if output.is_json() {
        ui.json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    for report in found {
        for place in [report.html, report.pdf, report.json].into_iter().flatten() {
            ui.line(place)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A report of a run: paths of this machine, or addresses of a server.
#[derive(Debug, Serialize)]
struct Report {
    /// The task that made it; on a server, the folder of the kept files that it is in.
    task: String,
    made: Option<Timestamp>,
    json: Option<String>,
    html: Option<String>,
    pdf: Option<String>,
}

impl Report {
    fn here(kept: &reports::Kept) -> Report {
        let [json, html, pdf] =
            [Form::Json, Form::Html, Form::Pdf].map(|form| Some(kept.path(form).display().to_string()));
        Report { task: kept.name.clone(), made: kept.made, json, html, pdf }
    }

    async fn there(remote: &Remote, run: RunKey) -> anyhow::Result<Vec<Report>> {
        #[derive(Deserialize)]
        struct Answer {
            reports: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            folder: String,
            modified: Option<Timestamp>,
            html: Option<String>,
            pdf: Option<String>,
            json: Option<String>,
        }
        let found: Answer = remote.get(&["api", "pitcrew", "v1", "runs", &run.to_string(), "reports"], &[]).await?;
        let full = |path: Option<String>| path.map(|path| format!("{}{path}", remote.address()));
        let report = |row: Row| Report {
            task: row.folder,
            made: row.modified,
            json: full(row.json),
            html: full(row.html),
            pdf: full(row.pdf),
        };
        Ok(found.reports.into_iter().map(report).collect())
    }
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

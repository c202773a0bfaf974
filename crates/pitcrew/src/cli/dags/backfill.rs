//! `dags backfill`: the runs that a schedule names between two times.

use std::process::ExitCode;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use pitcrew_control::backfill::{self, BackfillError, MAX_ACTIVE_RUNS, Outlook, Step};
use pitcrew_core::timetable::{Schedule, Timing};
use pitcrew_store::{NewBackfill, Reprocess};
use serde_json::{Value, json};

use crate::cli::context::{Context, who};
use crate::cli::control::Peers;
use crate::cli::error::{invalid, refused};
use crate::cli::target::{Remote, Target};
use crate::cli::{Output, format};

#[derive(Debug, clap::Args)]
pub struct BackfillArgs {
    /// The workflow; it must have a schedule
    pub workflow: String,
    #[command(flatten)]
    pub wish: WishArgs,
}

/// Which times of a workflow, and how.
#[derive(Debug, clap::Args)]
pub struct WishArgs {
    /// The first time: a date, or a time such as `2026-01-02T06:00:00Z`
    #[arg(long, visible_alias = "from-date", value_name = "TIME")]
    from: String,
    /// The last time; a date means the whole day
    #[arg(long, visible_alias = "to-date", value_name = "TIME")]
    to: String,
    /// What to do with a time that has a run: nothing, run it again if it failed, or run it again
    #[arg(long, visible_alias = "reprocess-behavior", value_name = "WHICH", default_value = "none",
          value_parser = ["none", "failed", "completed"])]
    reprocess: String,
    /// Runs of this backfill at a time
    #[arg(long, value_name = "COUNT", default_value_t = MAX_ACTIVE_RUNS,
          value_parser = clap::value_parser!(u32).range(1..))]
    max_active_runs: u32,
    /// Params of its runs, as a JSON object
    #[arg(short, long, visible_alias = "dag-run-conf", value_name = "JSON", default_value = "{}")]
    conf: String,
    /// Begin with the newest time
    #[arg(long, visible_alias = "run-backwards")]
    reverse: bool,
    /// Only say what would become of which time
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(workflow: &str, args: WishArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let found = target.workflow(workflow).await?;
    let workflow = target.version(&found.workflow, &found.version).await?;
    let Some(schedule) = &workflow.schedule else {
        return Err(told(BackfillError::NoSchedule(found.workflow)));
    };
    let zone = zone(schedule)?;
    let conf = serde_json::from_str(&args.conf)
        .map_err(|error| invalid(format!("`--conf` must be a JSON object: {error}")))?;
    let wish = NewBackfill {
        workflow: found.workflow,
        from: time("--from", &args.from, &zone, false)?,
        to: time("--to", &args.to, &zone, true)?,
        reprocess: Reprocess::from_name(&args.reprocess).unwrap_or_default(),
        reverse: args.reverse,
        max_active_runs: args.max_active_runs,
        conf,
        by: who(),
        created: target.now(),
    };
    match target {
        Target::Here(context) => here(context, wish, args.dry_run, args.output).await,
        Target::There(remote) => there(remote, wish, args.dry_run, args.output).await,
    }
}

async fn here(context: &Context, wish: NewBackfill, dry_run: bool, output: Output) -> anyhow::Result<ExitCode> {
    let (store, catalog) = (&context.store, &context.catalog);
    let planned = backfill::steps(store, catalog, &wish, None).await.map_err(told)?;
    let count = |outlook| planned.iter().filter(|step| step.outlook == outlook).count() as u64;
    let (new, again, left) = (count(Outlook::New), count(Outlook::Again), count(Outlook::Left));
    if dry_run {
        show(context, output, &planned, true)?;
        context.ui.say(format!("{new} would be made, {again} run again, {left} left; nothing was done"));
        return Ok(ExitCode::SUCCESS);
    }
    let made = backfill::create(store, catalog, wish.clone()).await.map_err(told)?;
    show(context, output, &backfill::steps(store, catalog, &wish, Some(made.id)).await.map_err(told)?, false)?;
    context.ui.say(format!(
        "backfill {}: {}, {again} to run again, {left} left as they are",
        made.id,
        format::plural(new, "new run")
    ));
    let mut peers = Peers::find(&context.data).await;
    peers.look().await;
    if peers.server().is_none() {
        context.ui.hint("no server works on this data directory: the runs begin once `pitcrew server` does");
    }
    Ok(ExitCode::SUCCESS)
}

/// A server says which times get a run, and makes the backfill; what became of the others is on its pages.
async fn there(remote: &Remote, wish: NewBackfill, dry_run: bool, output: Output) -> anyhow::Result<ExitCode> {
    let body = json!({
        "dag_id": wish.workflow, "from_date": wish.from, "to_date": wish.to, "run_backwards": wish.reverse,
        "dag_run_conf": wish.conf, "reprocess_behavior": wish.reprocess.name(), "max_active_runs": wish.max_active_runs,
    });
    let planned: Value = remote.post(&["api", "v2", "backfills", "dry_run"], body.clone()).await?;
    let times = planned["backfills"].as_array().map(Vec::as_slice).unwrap_or_default();
    let times: Vec<&Value> = times.iter().map(|row| &row["logical_date"]).collect();
    let made: Option<Value> = match dry_run {
        true => None,
        false => Some(remote.post(&["api", "v2", "backfills"], body).await?),
    };
    let result = if dry_run { "would be made or run again" } else { "follows" };
    if output.is_json() {
        let shown = times.iter().map(|at| json!({ "logical_date": at, "run_id": null, "result": result }));
        remote.ui.json(&shown.collect::<Vec<_>>())?;
    } else if !times.is_empty() {
        let shown = times.iter().map(|at| vec![at.as_str().unwrap_or_default().to_owned(), result.to_owned()]);
        remote.ui.table(&["time", "run"], shown.collect())?;
    }
    let runs = format::plural(times.len() as u64, "run");
    remote.ui.say(match made {
        None => format!("{runs} would be made or run again; nothing was done"),
        Some(made) => format!("backfill {}: {runs}", made["id"]),
    });
    Ok(ExitCode::SUCCESS)
}

/// Which of them are mistakes of the one who asked.
fn told(error: BackfillError) -> anyhow::Error {
    match error {
        BackfillError::Store(error) => error.into(),
        BackfillError::Other(error) => error,
        BackfillError::UnderWay(_) => refused(error),
        error => invalid(error.to_string()),
    }
}

fn show(context: &Context, output: Output, steps: &[Step], dry_run: bool) -> anyhow::Result<()> {
    let result = |step: &Step| match (step.outlook, &step.run) {
        (Outlook::Done, Some(run)) => format!("run {}", run.key),
        (Outlook::Again, Some(run)) => format!("run {} again", run.key),
        (Outlook::Left, Some(run)) => format!("left: run {} is {}", run.key, run.state),
        _ if dry_run => "would be made".to_owned(),
        _ => "follows".to_owned(),
    };
    if output.is_json() {
        let shown = steps.iter().map(|step| {
            let run_id = step.run.as_ref().map(|run| &run.run_id);
            json!({ "logical_date": step.occurrence.logical_date, "run_id": run_id, "result": result(step) })
        });
        return context.ui.json(&shown.collect::<Vec<_>>());
    }
    if steps.is_empty() {
        return Ok(());
    }
    let lines = steps.iter().map(|step| vec![step.occurrence.logical_date.to_string(), result(step)]);
    context.ui.table(&["time", "run"], lines.collect())
}

/// Plain dates are meant in the schedule's own time zone.
fn zone(schedule: &Schedule) -> anyhow::Result<TimeZone> {
    match &schedule.timing {
        Timing::Cron { timezone, .. } => TimeZone::get(timezone).map_err(refused),
        Timing::Interval(_) => Ok(TimeZone::UTC),
    }
}

fn time(flag: &str, text: &str, zone: &TimeZone, end_of_day: bool) -> anyhow::Result<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let wrong =
        |_| invalid(format!("`{flag}` must be a date or a time such as `2026-01-02T06:00:00Z`, found `{text}`"));
    let date: Date = text.parse().map_err(wrong)?;
    let date = if end_of_day { date.tomorrow().map_err(wrong)? } else { date };
    let at = date.to_zoned(zone.clone()).map_err(wrong)?.timestamp();
    Ok(if end_of_day { at - SignedDuration::from_nanos(1) } else { at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_a_whole_day_of_the_schedule() {
        let seoul = TimeZone::get("Asia/Seoul").unwrap();
        let shown = |text, end| time("--from", text, &seoul, end).unwrap().to_string();
        assert_eq!(shown("2026-01-02", false), "2026-01-01T15:00:00Z");
        assert_eq!(shown("2026-01-02", true), "2026-01-02T14:59:59.999999999Z");
        assert_eq!(shown("2026-01-02T06:00:00Z", true), "2026-01-02T06:00:00Z");
        assert!(time("--from", "yesterday", &seoul, false).is_err());
    }
}

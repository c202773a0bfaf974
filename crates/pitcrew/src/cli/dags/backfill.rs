//! `dags backfill`: the runs that a schedule names between two times.

use std::process::ExitCode;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use pitcrew_core::engine::record::RunType;
use pitcrew_core::timetable::{Schedule, Timing};
use pitcrew_store::{CreateRun, Same};
use serde_json::json;

use crate::cli::context::who;
use crate::cli::control::Peers;
use crate::cli::error::{invalid, refused};
use crate::cli::target::Target;
use crate::cli::{Output, format};
use crate::scheduler::schedules;

/// More runs than this are asked for by mistake.
const MOST: usize = 10_000;

#[derive(Debug, clap::Args)]
pub struct BackfillArgs {
    /// The workflow; it must have a schedule
    workflow: String,
    /// The first time: a date, or a time such as `2026-01-02T06:00:00Z`
    #[arg(long, visible_alias = "from-date", value_name = "TIME")]
    from: String,
    /// The last time; a date means the whole day
    #[arg(long, visible_alias = "to-date", value_name = "TIME")]
    to: String,
    /// Make the newest run first
    #[arg(long)]
    reverse: bool,
    /// Only say which runs would be made
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: BackfillArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let Target::Here(context) = target else {
        return Err(invalid("`dags backfill` works on a data directory here; ask a server with `backfill create`"));
    };
    let row = context.workflow(&args.workflow).await?;
    let workflow = context.catalog.load(&context.store, &row.id, &row.version).await?;
    let Some(schedule) = &workflow.schedule else {
        return Err(invalid(format!("`{}` has no schedule, so there is nothing to make up for", row.id)));
    };
    let zone = zone(schedule)?;
    let from = time("--from", &args.from, &zone, false)?;
    let to = time("--to", &args.to, &zone, true)?;
    if to < from {
        return Err(invalid(format!("`--to` ({to}) is before `--from` ({from})")));
    }
    let timetable = schedules::timetable(&context.store, &row.id, &workflow).await?;
    let mut occurrences = timetable.map(|table| table.between(from, to, MOST + 1)).unwrap_or_default();
    if occurrences.len() > MOST {
        return Err(invalid(format!(
            "the schedule names more than {} runs there\nhint: choose a shorter time",
            format::count(MOST as u64)
        )));
    }
    if args.reverse {
        occurrences.reverse();
    }
    let (mut made, mut there) = (0u64, 0u64);
    let mut listed = Vec::new();
    for occurrence in occurrences {
        let mut new = schedules::scheduled(&workflow, &row.version, occurrence, RunType::Backfill, "backfill")
            .map_err(refused)?;
        new.queued_at = context.now();
        let mut audit = context.audit("run.backfill");
        audit.workflow = Some(row.id.clone());
        audit.run = Some(new.run_id.clone());
        new.audit.push(audit);
        let (date, run_id) = (occurrence.logical_date, new.run_id.clone());
        let state = if args.dry_run {
            "would be made".to_owned()
        } else {
            match context.store.create_run(new, None).await? {
                CreateRun::Created(run) => {
                    made += 1;
                    format!("run {}", run.key)
                }
                CreateRun::Exists { run, same: Same::RunId | Same::LogicalDate } => {
                    there += 1;
                    format!("there already: run {}", run.key)
                }
            }
        };
        listed.push((date, run_id, state));
    }
    if args.output.is_json() {
        let shown =
            listed.iter().map(|(date, id, state)| json!({ "logical_date": date, "run_id": id, "result": state }));
        context.ui.json(&shown.collect::<Vec<_>>())?;
    } else if !listed.is_empty() {
        let shown = listed.iter().map(|(date, _, state)| vec![date.to_string(), state.clone()]);
        context.ui.table(&["time", "run"], shown.collect())?;
    }
    let planned = listed.len() as u64;
    context.ui.say(match args.dry_run {
        true => format!("{} would be made or are there; nothing was done", format::plural(planned, "run")),
        false => format!("made {}; {there} were there already ({})", format::plural(made, "run"), who()),
    });
    let mut peers = Peers::find(&context.data).await;
    if made > 0 {
        peers.look().await;
        if peers.server().is_none() {
            context.ui.hint("no server works on this data directory: the runs begin once `pitcrew server` does");
        }
    }
    Ok(ExitCode::SUCCESS)
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

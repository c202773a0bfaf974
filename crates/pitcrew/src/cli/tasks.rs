//! `tasks`: the tasks of workflows and of their runs, in the words that Airflow's users type.

use std::process::ExitCode;

use jiff::Timestamp;
use pitcrew_control::records::What;
use pitcrew_core::engine::record::{InstanceRecord, RunRecord};
use pitcrew_core::state::State;
use pitcrew_store::RunFilter;
use regex::Regex;
use serde_json::json;

use super::dags::find_run;
use super::error::invalid;
use super::target::Target;
use super::{Output, format, run};

/// List, look at and clear tasks
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct TasksArgs {
    #[command(subcommand)]
    command: TasksCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TasksCommand {
    /// List the tasks of a workflow
    List {
        workflow: String,
        #[command(flatten)]
        output: Output,
    },
    /// Print the state of a task in a run
    State {
        workflow: String,
        /// One instance of a mapped task is `task[3]`
        task: String,
        /// The run's id or its logical date; the latest run unless given
        run: Option<String>,
    },
    /// List the tasks of a run with their states
    StatesForDagRun {
        workflow: String,
        /// The run's id or its logical date; the latest run unless given
        run: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Run tasks of past runs again, and what comes after them
    Clear(ClearArgs),
}

#[derive(Debug, clap::Args)]
struct ClearArgs {
    workflow: String,
    /// Only tasks whose id this regular expression finds
    #[arg(short, long, value_name = "REGEX")]
    task_regex: Option<String>,
    /// Only runs for this time or later
    #[arg(short, long, value_name = "TIME")]
    start_date: Option<String>,
    /// Only runs for this time or earlier
    #[arg(short, long, value_name = "TIME")]
    end_date: Option<String>,
    /// Only this run, by its id or its logical date
    #[arg(long, value_name = "RUN", conflicts_with_all = ["start_date", "end_date"])]
    run_id: Option<String>,
    /// Only what failed, and what could not run because of that
    #[arg(short = 'f', long)]
    only_failed: bool,
    /// Only what runs
    #[arg(short = 'r', long, conflicts_with = "only_failed")]
    only_running: bool,
    /// Do it, and do not ask first
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: TasksArgs, target: Target) -> anyhow::Result<ExitCode> {
    match args.command {
        TasksCommand::List { workflow, output } => list(&workflow, output, &target).await,
        TasksCommand::State { workflow, task, run } => state(&workflow, &task, run.as_deref(), &target).await,
        TasksCommand::StatesForDagRun { workflow, run, output } => {
            let run = find_run(&workflow, run.as_deref(), &target).await?;
            states(&run, output, &target).await
        }
        TasksCommand::Clear(args) => clear(args, &target).await,
    }
}

async fn list(text: &str, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let found = target.workflow(text).await?;
    let workflow = target.version(&found.workflow, &found.version).await?;
    if output.is_json() {
        let task = |task: &pitcrew_core::ir::Task| {
            let needs: Vec<&str> = task.needs.iter().map(|need| workflow.task(*need).id.as_str()).collect();
            json!({ "task": task.id, "needs": needs, "trigger_rule": task.trigger_rule.name() })
        };
        target.ui().json(&workflow.tasks.iter().map(task).collect::<Vec<_>>())?;
    } else {
        for task in &workflow.tasks {
            target.ui().line(&task.id)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn state(workflow: &str, task: &str, run: Option<&str>, target: &Target) -> anyhow::Result<ExitCode> {
    let run = find_run(workflow, run, target).await?;
    let (name, index) = super::context::task(&*target.definition(&run).await?, task)?;
    let rows = instances(&run, target).await?;
    let mut found = rows.iter().filter(|row| row.task == *name && index.is_none_or(|index| row.map_index == index));
    let Some(first) = found.next() else {
        return Err(invalid(format!("run {} has no `{task}`", run.key)));
    };
    if found.next().is_some() {
        return Err(invalid(format!("`{task}` is mapped: name one instance, such as `{name}[0]`")));
    }
    target.ui().line(first.state.name())?;
    Ok(ExitCode::SUCCESS)
}

async fn states(run: &RunRecord, output: Output, target: &Target) -> anyhow::Result<ExitCode> {
    let rows = instances(run, target).await?;
    if output.is_json() {
        let shown = |row: &InstanceRecord| {
            json!({
                "workflow": run.workflow, "run_id": run.run_id, "logical_date": run.logical_date, "task": row.task,
                "map_index": row.map_index, "state": row.state.name(), "start": row.start, "end": row.end,
            })
        };
        target.ui().json(&rows.iter().map(shown).collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), format::date_time);
    let row = |row: &InstanceRecord| {
        let name = format::instance(row.task.as_str(), row.map_index);
        vec![name, format::task_state(row.state), time(row.start), time(row.end)]
    };
    target.ui().table(&["task", "state", "start", "end"], rows.iter().map(row).collect())?;
    Ok(ExitCode::SUCCESS)
}

/// Every instance of a run in the order of its file, those that were never tried too.
async fn instances(run: &RunRecord, target: &Target) -> anyhow::Result<Vec<InstanceRecord>> {
    let Some(mut stored) = target.stored_run(run.key).await? else {
        return Err(invalid(format!("run {} was just removed", run.key)));
    };
    let workflow = target.definition(run).await?;
    run::complete(&mut stored, &workflow);
    Ok(run::ordered(&stored, &workflow).into_iter().cloned().collect())
}

async fn clear(args: ClearArgs, target: &Target) -> anyhow::Result<ExitCode> {
    let regex = args.task_regex.as_deref().map(Regex::new).transpose();
    let regex = regex.map_err(|error| invalid(format!("`--task-regex` is not right: {error}")))?;
    let wants = |row: &InstanceRecord| {
        let state = match (args.only_failed, args.only_running) {
            (true, _) => matches!(row.state, State::Failed | State::UpstreamFailed),
            (_, true) => row.state.is_live(),
            _ => row.state.is_final() || row.state.is_live(),
        };
        state && regex.as_ref().is_none_or(|regex| regex.is_match(row.task.as_str()))
    };
    let mut chosen = Vec::new();
    for run in runs(&args, target).await? {
        let rows = instances(&run, target).await?;
        let tasks: Vec<(String, Option<i32>)> =
            rows.into_iter().filter(wants).map(|row| (row.task.to_string(), Some(row.map_index))).collect();
        if !tasks.is_empty() {
            chosen.push((run, tasks));
        }
    }
    let ui = target.ui();
    let count = chosen.iter().map(|(_, tasks)| tasks.len() as u64).sum();
    if count == 0 {
        ui.say("nothing to clear");
        return Ok(ExitCode::SUCCESS);
    }
    if !args.yes {
        for (run, tasks) in &chosen {
            for (task, index) in tasks {
                ui.line(format!("{}  {}", run.run_id, format::instance(task, index.unwrap_or(-1))))?;
            }
        }
        ui.say(format!("{} would run again, with what comes after", format::plural(count, "task")));
        return Err(invalid("nothing was cleared\nhint: `--yes` does it"));
    }
    let mut cleared = Vec::new();
    for (run, tasks) in chosen {
        match target.clear(&run, &What::Tasks(tasks)).await? {
            Some(names) => cleared.extend(names.into_iter().map(|(task, index)| (run.run_id.clone(), task, index))),
            None => {
                return Err(invalid(format!(
                    "nobody works on run {}: start `{} server`, or use `{} runs retry {}`",
                    run.key,
                    target.pitcrew(),
                    target.pitcrew(),
                    run.key
                )));
            }
        }
    }
    if args.output.is_json() {
        let shown = |(run, task, index): &(_, _, _)| json!({ "run_id": run, "task": task, "map_index": index });
        ui.json(&cleared.iter().map(shown).collect::<Vec<_>>())?;
    }
    ui.say(format!("{} and what comes after will run again", format::plural(cleared.len() as u64, "task")));
    Ok(ExitCode::SUCCESS)
}

/// The runs that the flags choose.
async fn runs(args: &ClearArgs, target: &Target) -> anyhow::Result<Vec<RunRecord>> {
    if let Some(text) = &args.run_id {
        return Ok(vec![find_run(&args.workflow, Some(text), target).await?]);
    }
    let time = |flag: &str, text: &Option<String>| {
        let wrong = || invalid(format!("`{flag}` must be a time such as `2026-01-02T06:00:00Z`, or a date"));
        let read = |text: &String| pitcrew_server::parse_time(text).or_else(|| date(text)).ok_or_else(wrong);
        text.as_ref().map(read).transpose()
    };
    let (start, end) = (time("--start-date", &args.start_date)?, time("--end-date", &args.end_date)?);
    let workflow = Some(target.workflow(&args.workflow).await?.workflow);
    let all = target.runs(&RunFilter { workflow, ..RunFilter::default() }, u32::MAX).await?.rows;
    let at = |run: &RunRecord| run.logical_date.unwrap_or(run.run_after);
    let within = |run: &RunRecord| start.is_none_or(|start| at(run) >= start) && end.is_none_or(|end| at(run) <= end);
    Ok(all.into_iter().filter(within).collect())
}

fn date(text: &str) -> Option<Timestamp> {
    let date: jiff::civil::Date = text.parse().ok()?;
    Some(date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

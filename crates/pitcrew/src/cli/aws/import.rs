//! `aws import`: what lasts of the system before is taken over from its tables of DynamoDB.

use std::process::ExitCode;

use pitcrew_control::ecs::import::{self, Plan, Report};
use pitcrew_ecs::Client;
use pitcrew_ecs::tables::{Table, Tables};

use super::super::context::{self, Context};
use super::super::error::refused;
use super::super::{Output, format};
use super::variable;

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The table of jobs, `ecs_job` unless given [env: JOB_TABLE_NAME]
    #[arg(long, value_name = "TABLE")]
    jobs: Option<String>,
    /// The table of tasks, `ecs_task` unless given [env: TASK_TABLE_NAME]
    #[arg(long, value_name = "TABLE")]
    tasks: Option<String>,
    /// The table of nodes, `ecs_node` unless given [env: NODE_TABLE_NAME]
    #[arg(long, value_name = "TABLE")]
    nodes: Option<String>,
    /// The cluster of instances that do not name theirs [env: ECS_CLUSTER_NAME]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The region; else as AWS's own tools find it
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Only say what would be taken over
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: Output,
}

pub async fn command(args: ImportArgs, context: Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings.ecs.as_ref();
    let configured = settings.and_then(|ecs| ecs.tables.as_ref());
    let mut tables = configured.map_or_else(|| Tables::from_env(&variable), |tables| tables.names());
    for (table, given) in [(Table::Job, args.jobs), (Table::Task, args.tasks), (Table::Node, args.nodes)] {
        if let Some(name) = given {
            *tables.of_mut(table) = name;
        }
    }
    let region = args.region.or_else(|| configured?.region.clone()).unwrap_or_else(|| context.aws.region());
    let role = configured.and_then(|tables| tables.role.as_deref());
    let client = Client::new(context.aws.clone(), &region).map_err(refused)?.as_role(role);
    let configured = settings.and_then(|ecs| ecs.clusters.first()).map(|one| one.name.clone());
    let cluster = args.cluster.or_else(|| variable("ECS_CLUSTER_NAME")).or(configured);
    let plan = Plan { tables, cluster, who: context::who(), dry_run: args.dry_run };
    let report = import::import(&context.store, &client, &plan).await?;
    match args.output.is_json() {
        true => context.ui.json(&report)?,
        false => tell(&context, &report, args.dry_run)?,
    }
    for problem in &report.problems {
        let key = problem.key.as_ref().map(|key| format!(" `{key}`")).unwrap_or_default();
        context.ui.warn(format!("`{}`{key}: {}", problem.table, problem.why));
    }
    Ok(if report.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(context: &Context, report: &Report, dry_run: bool) -> anyhow::Result<()> {
    let ui = &context.ui;
    let row = |table: &import::TableReport| {
        let counts = [table.added, table.changed, table.same, table.ours, table.bad];
        [table.table.clone()].into_iter().chain(counts.map(|count| count.to_string())).collect()
    };
    ui.table(&["table", "new", "changed", "known", "ours", "bad"], report.tables.iter().map(row).collect())?;
    for node in &report.cordoned {
        let is = if dry_run { "would be cordoned" } else { "is cordoned" };
        ui.line(format!("{} {is}: it was `{}` as `{}`", node.node, node.status, node.node_name))?;
    }
    if !report.cordoned.is_empty() && !dry_run {
        let pitcrew = context.pitcrew();
        ui.hint(format!("`{pitcrew} nodes uncordon NODE` lets one serve again, once it is active in its cluster"));
    }
    if dry_run {
        let rows: u32 = report.tables.iter().map(|table| table.added + table.changed).sum();
        ui.say(format!("{} would be taken over; nothing was written", format::plural(rows.into(), "row")));
    }
    Ok(())
}

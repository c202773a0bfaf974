//! `aws jobs`, `aws tasks` and `aws nodes`: what is on ECS, in the fields and words of the system before.

use std::process::ExitCode;

use pitcrew_store::{EcsFilter, EcsJob, EcsJobStatus, EcsNode, EcsNodeStatus, EcsOrigin, EcsTask, EcsTaskStatus};

use super::super::error::invalid;
use super::super::target::Target;
use super::super::{Output, format};

/// Rows of a list, unless more are wanted.
const ROWS: u32 = 200;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those in this state, such as `IN_PROGRESS`
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only our own (`pitcrew`), or only those that were imported (`imported`)
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = ROWS)]
    limit: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub struct JobListArgs {
    /// Only of this job, by its `job_id`
    #[arg(long, value_name = "JOB")]
    job: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

impl ListArgs {
    fn filter<S: std::str::FromStr<Err = String>>(&self) -> anyhow::Result<EcsFilter> {
        if let Some(status) = &self.status {
            status.parse::<S>().map_err(|wrong| invalid(format!("`--status`: {wrong}")))?;
        }
        let origin = self.origin.as_deref().map(str::parse::<EcsOrigin>).transpose();
        let origin = origin.map_err(|wrong| invalid(format!("`--origin`: {wrong}")))?;
        Ok(EcsFilter { status: self.status.clone(), origin, ..EcsFilter::default() })
    }
}

pub async fn jobs(args: JobListArgs, target: Target) -> anyhow::Result<ExitCode> {
    let filter = EcsFilter { job_id: args.job, ..args.list.filter::<EcsJobStatus>()? };
    let (all, total) = target.ecs_jobs(&filter, args.list.limit).await?;
    let row = |job: &EcsJob| {
        vec![
            job.job_id.clone(),
            job.job_status.to_string(),
            job.num_nodes.to_string(),
            job.retry.to_string(),
            listed(&job.assigned_nodes),
            job.began.map_or("-".to_owned(), format::date_time),
            job.origin.to_string(),
        ]
    };
    let head = ["job", "status", "nodes", "retry", "assigned", "began", "origin"];
    show(&target, &all, total, args.list.output, &head, row)
}

pub async fn tasks(args: JobListArgs, target: Target) -> anyhow::Result<ExitCode> {
    let filter = EcsFilter { job_id: args.job, ..args.list.filter::<EcsTaskStatus>()? };
    let (all, total) = target.ecs_tasks(&filter, args.list.limit).await?;
    let row = |task: &EcsTask| {
        // The ARN without what all of them share.
        let id = task.ecs_task_id.rsplit('/').next().unwrap_or_default().to_owned();
        vec![
            id,
            task.task_status.to_string(),
            task.job_id.clone().unwrap_or_else(|| "-".to_owned()),
            task.node_index_in_job.map_or("-".to_owned(), |index| index.to_string()),
            task.retry.to_string(),
            task.node_name.clone().unwrap_or_else(|| "-".to_owned()),
            task.origin.to_string(),
        ]
    };
    let head = ["task", "status", "job", "index", "retry", "node", "origin"];
    show(&target, &all, total, args.list.output, &head, row)
}

pub async fn nodes(args: ListArgs, target: Target) -> anyhow::Result<ExitCode> {
    let filter = args.filter::<EcsNodeStatus>()?;
    let (all, total) = target.ecs_nodes(&filter, args.limit).await?;
    let row = |node: &EcsNode| {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            node.node_name.clone(),
            node.node_status.to_string(),
            or_none(&node.node),
            or_none(&node.container_instance_id),
            or_none(&node.ip),
            node.incident.map_or("-".to_owned(), |id| format!("inc-{id}")),
            node.origin.to_string(),
        ]
    };
    let head = ["node", "status", "machine", "instance", "ip", "incident", "origin"];
    show(&target, &all, total, args.output, &head, row)
}

fn listed(all: &[String]) -> String {
    if all.is_empty() { "-".to_owned() } else { all.join(" ") }
}

fn show<T: serde::Serialize>(
    target: &Target,
    all: &[T],
    total: u64,
    output: Output,
    head: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<ExitCode> {
    match output.is_json() {
        true => target.ui().json(&all)?,
        false => target.ui().table(head, all.iter().map(row).collect())?,
    }
    if total > all.len() as u64 {
        target.ui().say(format!("{} of {total}; `--limit` shows more", all.len()));
    }
    Ok(ExitCode::SUCCESS)
}

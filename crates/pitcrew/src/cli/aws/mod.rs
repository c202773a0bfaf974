//! `aws`: what has to be there on AWS, printed as a template, and looked over; and what is there, in the words of the
//! system before, whose tables can be imported.

mod import;
mod lists;

use std::collections::BTreeMap;
use std::process::ExitCode;

use pitcrew_control::config::Settings;
use pitcrew_control::secrets;
use pitcrew_ecs::Client;
use pitcrew_ecs::doctor::{Grade, Subject, examine, examine_tables};
use pitcrew_ecs::template::{NAMES, meaning, template};
use serde_json::json;

pub use import::command as import;
pub use lists::{jobs, nodes, tasks};

use super::Output;
use super::error::{invalid, refused};
use super::ui::Ui;

/// Print what has to be there on AWS for tasks of ECS and look it over; list what is on ECS, import tables
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct AwsArgs {
    #[command(subcommand)]
    pub command: AwsCommand,
}

#[derive(Debug, clap::Subcommand)]
pub enum AwsCommand {
    /// Print a template of CloudFormation: rules, a queue, a topic, alarms, a role
    Template(TemplateArgs),
    /// Look over a cluster: permissions, rules, queue, machines; changes nothing
    Doctor(DoctorArgs),
    /// List jobs on ECS, in the fields of the system before, and those imported from it
    Jobs(lists::JobListArgs),
    /// List tasks that ECS was given, in the same way
    Tasks(lists::JobListArgs),
    /// List the machines of ECS, in the same way
    Nodes(lists::ListArgs),
    /// Take over nodes, jobs and tasks from the tables of DynamoDB of the system before; changes nothing there
    Import(import::ImportArgs),
}

#[derive(Debug, clap::Args)]
pub struct TemplateArgs {
    /// A name to use, such as `ECS_CLUSTER_NAME=gpus`; each can be a variable of the environment as well
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// List the names, what they mean, and what they are now
    #[arg(long)]
    names: bool,
}

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// The cluster, by its name [env: ECS_CLUSTER_NAME]
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The queue of events, by its name or URL [env: EVENT_QUEUE_NAME]
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// The task definition that checks machines [env: DCGM_HEALTH_CHECK_TASK]
    #[arg(long, value_name = "FAMILY")]
    check: Option<String>,
    /// The region; else as AWS's own tools find it
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Prints the template, for which nothing need be configured.
pub fn print(args: &TemplateArgs, ui: Ui) -> anyhow::Result<ExitCode> {
    let mut given: BTreeMap<String, String> =
        NAMES.iter().filter_map(|(name, _)| Some(((*name).to_owned(), variable(name)?))).collect();
    for set in &args.set {
        let (name, value) = set.split_once('=').ok_or_else(|| invalid(format!("`--set {set}` is not `NAME=VALUE`")))?;
        given.insert(name.to_owned(), value.to_owned());
    }
    let text = template(&given).map_err(refused)?;
    if args.names {
        for (name, default) in NAMES {
            let value = given.get(name).map_or(default, String::as_str);
            ui.line(format!("{name}={value}  {}", meaning(name)))?;
        }
    } else {
        ui.print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks over what is there.
pub async fn look_over(args: DoctorArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let cluster = args.cluster.or_else(|| variable("ECS_CLUSTER_NAME"));
    let cluster = cluster.ok_or_else(|| invalid("say which cluster: `--cluster NAME`"))?;
    let subject = Subject {
        cluster,
        queue: args.queue.or_else(|| variable("EVENT_QUEUE_NAME")),
        check: args.check.or_else(|| variable("DCGM_HEALTH_CHECK_TASK")),
    };
    let aws = secrets::aws(settings.aws_region())?;
    let region = args.region.unwrap_or_else(|| aws.region());
    let client = Client::new(aws.clone(), &region).map_err(refused)?;
    let mut found = examine(&client, &subject).await;
    if let Some(tables) = settings.ecs.as_ref().and_then(|ecs| ecs.tables.as_ref()) {
        let client = match &tables.region {
            Some(region) => Client::new(aws, region).map_err(refused)?,
            None => client,
        };
        found.extend(examine_tables(&client.as_role(tables.role.as_deref()), &tables.names()).await);
    }
    if args.output.is_json() {
        let all: Vec<_> = found.iter().map(|one| json!({ "grade": one.grade.word(), "words": one.words })).collect();
        ui.json(&all)?;
    } else {
        for one in &found {
            ui.line(format!("{}  {}", one.grade.word(), one.words))?;
        }
    }
    let is_bad = found.iter().any(|one| one.grade == Grade::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

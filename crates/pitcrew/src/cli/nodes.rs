//! `nodes`: the machines that work can go to, with kubectl's words for what is done to them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use pitcrew_control::clock;
use pitcrew_control::fleet::{NodeView, TaskOnNode, change};
use pitcrew_store::NodeChange;

use super::error::invalid;
use super::target::Target;
use super::{Output, format};

/// How often a drain looks what still runs.
const LOOK: Duration = Duration::from_millis(500);

/// List nodes and their GPUs; cordon, drain, label and taint them
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct NodesArgs {
    #[command(subcommand)]
    command: NodesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum NodesCommand {
    /// List all nodes
    List(Output),
    /// Show a node: its GPUs, labels, taints and what runs there
    Show {
        node: String,
        #[command(flatten)]
        output: Output,
    },
    /// Let a node take no new work; what runs there goes on
    Cordon { node: String },
    /// Cordon a node, and wait until nothing runs there
    Drain {
        node: String,
        /// How long to wait, such as `30m`; without end unless given
        #[arg(long, value_name = "DURATION")]
        timeout: Option<String>,
        /// Stop at once what runs there, and let it run again elsewhere
        #[arg(long)]
        repeat: bool,
    },
    /// Let a node take work again
    Uncordon { node: String },
    /// Set labels (`key=value`) and take them away (`key-`)
    Label {
        node: String,
        #[arg(required = true, value_name = "LABEL", allow_hyphen_values = true)]
        labels: Vec<String>,
    },
    /// Set taints (`key=value:Effect`) and take them away (`key:Effect-`)
    Taint {
        node: String,
        #[arg(required = true, value_name = "TAINT", allow_hyphen_values = true)]
        taints: Vec<String>,
    },
}

pub async fn command(args: NodesArgs, target: Target) -> anyhow::Result<ExitCode> {
    let ui = *target.ui();
    match args.command {
        NodesCommand::List(output) => list(&target, target.nodes().await?, output)?,
        NodesCommand::Show { node, output } => {
            let node = target.node(&node).await?;
            match output.is_json() {
                true => ui.json(&node)?,
                false => show(&target, &node)?,
            }
        }
        NodesCommand::Cordon { node } => {
            let beside = beside(&cordon(&target, &node, true).await?);
            ui.say(format!("the node `{node}` takes no new work"));
            if let Some(words) = beside {
                ui.say(words);
            }
        }
        NodesCommand::Uncordon { node } => {
            cordon(&target, &node, false).await?;
            ui.say(format!("the node `{node}` takes work"));
        }
        NodesCommand::Drain { node, timeout, repeat } => {
            return drain(&target, &node, timeout.as_deref(), repeat).await;
        }
        NodesCommand::Label { node, labels } => {
            let change = change::labels(&labels).map_err(invalid)?;
            let node = target.change_node(&target.node(&node).await?.name, change).await?;
            let shown: Vec<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            ui.say(format!("the node `{}` has the labels {}", node.name, listed(&shown)));
        }
        NodesCommand::Taint { node, taints } => {
            let there = target.node(&node).await?;
            let change = change::taints(&taints, &there).map_err(invalid)?;
            let node = target.change_node(&there.name, change).await?;
            ui.say(format!("the node `{}` has the taints {}", node.name, listed(&node.taints)));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(all: &[String]) -> String {
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

async fn cordon(target: &Target, name: &str, cordoned: bool) -> anyhow::Result<NodeView> {
    let node = target.node(name).await?;
    let change = NodeChange { cordoned: Some(cordoned), ..NodeChange::default() };
    target.change_node(&node.name, change).await
}

/// What is said beside of a machine of ECS: there it is ECS that places.
fn beside(node: &NodeView) -> Option<String> {
    let cluster = node.cluster.as_ref()?;
    Some(format!(
        "ECS goes on placing tasks on `{}`, also those of Pitcrew: `aws ecs \
         update-container-instances-state --cluster {cluster} --status DRAINING --container-instances ID` drains it there",
        node.name
    ))
}

async fn drain(target: &Target, name: &str, timeout: Option<&str>, repeat: bool) -> anyhow::Result<ExitCode> {
    let ui = target.ui();
    let timeout = match timeout.map(pitcrew_lang::parse_duration).transpose() {
        Ok(timeout) => timeout.map(|span| span.unsigned_abs()),
        Err(why) => return Err(invalid(format!("`--timeout`: {why}"))),
    };
    cordon(target, name, true).await?;
    let begun = clock::instant();
    let mut told = usize::MAX;
    let mut stopped = BTreeSet::new();
    loop {
        let tasks = target.node(name).await?.tasks;
        let (tasks, others): (Vec<_>, Vec<_>) = tasks.into_iter().partition(|task| task.is_placed);
        if tasks.is_empty() {
            // Those go where they go, cordoned or not: stopped, they would begin there again.
            let rest = match others.len() {
                0 => "nothing runs there, and nothing new comes".to_owned(),
                count => {
                    let tasks = format::plural(count as u64, "task");
                    format!(
                        "nothing that was placed there runs, and nothing new comes; not counted: \
                         {tasks} that asked for no node"
                    )
                }
            };
            ui.say(format!("the node `{name}` is drained: {rest}"));
            return Ok(ExitCode::SUCCESS);
        }
        if repeat {
            // Once only for each: who is told to stop needs a while for it. A server that has not noticed yet that the node
            // is cordoned may begin one there again.
            let fresh = tasks.iter().filter(|t| stopped.insert((t.run, t.task.clone(), t.map_index, t.attempt)));
            again(target, fresh).await?;
        }
        if tasks.len() != told {
            told = tasks.len();
            let names: Vec<String> = tasks.iter().take(10).map(|t| format!("{} of run {}", t.name(), t.run)).collect();
            ui.say(format!("waiting for {}: {}", format::plural(told as u64, "task"), names.join(", ")));
        }
        if timeout.is_some_and(|timeout| begun.elapsed() >= timeout) {
            ui.say(format!("the node `{name}` is cordoned, and {} still there", format::plural(told as u64, "task")));
            ui.hint(format!("`{} nodes drain {name} --repeat` lets them run again elsewhere", target.pitcrew()));
            return Ok(ExitCode::FAILURE);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Stops tasks and lets them run again, where the placement then says.
async fn again(target: &Target, tasks: impl Iterator<Item = &TaskOnNode>) -> anyhow::Result<()> {
    for task in tasks {
        let index = (task.map_index >= 0).then_some(task.map_index);
        target.repeat_task(task.run, &task.task, index).await?;
    }
    Ok(())
}

fn list(target: &Target, nodes: Vec<NodeView>, output: Output) -> anyhow::Result<()> {
    if output.is_json() {
        return target.ui().json(&nodes);
    }
    let row = |node: &NodeView| {
        let gpus = match (node.usable_gpus(), node.gpus.len()) {
            (_, 0) => "-".to_owned(),
            (usable, all) if usable == all => all.to_string(),
            (usable, all) => format!("{usable} of {all}"),
        };
        vec![
            node.name.clone(),
            node.standing.clone(),
            gpus,
            node.gpu_type().to_owned(),
            node.cpu.to_string(),
            memory(node.memory_mib),
            node.tasks.len().to_string(),
            node.taints.join(" "),
        ]
    };
    let head = ["node", "standing", "gpus", "type", "cpu", "memory", "tasks", "taints"];
    target.ui().table(&head, nodes.iter().map(row).collect())?;
    for (node, why) in nodes.iter().filter_map(|node| Some((node, node.reason.as_ref()?))) {
        target.ui().line(format!("{} is {}: {}", node.name, node.standing, format::one_line(why)))?;
    }
    Ok(())
}

fn memory(mib: u64) -> String {
    match mib {
        0 => "-".to_owned(),
        1..1024 => format!("{mib} MiB"),
        _ => format!("{:.0} GiB", mib as f64 / 1024.0),
    }
}

fn show(target: &Target, node: &NodeView) -> anyhow::Result<()> {
    let ui = target.ui();
    let line = |name: &str, text: String| ui.line(format!("{name:<12} {}", format::one_line(&text)));
    line("node", node.name.clone())?;
    line("standing", node.reason.as_ref().map_or(node.standing.clone(), |why| format!("{}: {why}", node.standing)))?;
    let reached = match &node.connection {
        Some(id) => format!("over the connection `{id}`"),
        None if node.cluster.is_some() => {
            format!("by ECS, in the cluster `{}`", node.cluster.as_deref().unwrap_or_default())
        }
        None if node.is_worker => "it is a worker, which comes for its work".to_owned(),
        None => "it is the server's machine".to_owned(),
    };
    line("reached", reached)?;
    line("cpu", node.cpu.to_string())?;
    line("memory", memory(node.memory_mib))?;
    for (name, amount) in &node.resources {
        line("resource", format!("{name}: {amount}"))?;
    }
    for (key, value) in &node.labels {
        line("label", format!("{key}={value}"))?;
    }
    for taint in &node.taints {
        line("taint", taint.clone())?;
    }
    for remark in &node.remarks {
        line("remark", remark.clone())?;
    }
    for gpu in &node.gpus {
        let now = [
            gpu.use_percent.map(|percent| format!("{percent:.0} %")),
            gpu.used_mib.map(|mib| format!("{} used", memory(mib))),
            gpu.power_watts.map(|watts| format!("{watts:.0} W")),
            gpu.celsius.map(|celsius| format!("{celsius:.0} °C")),
            gpu.fault.as_ref().map(|fault| format!("not used: {fault}")),
        ];
        let has = Some(memory(gpu.memory_mib)).filter(|_| gpu.memory_mib > 0);
        let facts: Vec<String> =
            has.into_iter().chain([gpu.sharing.clone()]).chain(now.into_iter().flatten()).collect();
        line("gpu", format!("{} {}: {}", gpu.id, gpu.model, facts.join(", ")))?;
    }
    if let Some(gpu) = node.gpus.first() {
        line("sharing", format!("{}: {}", gpu.sharing, gpu.isolation))?;
    }
    for task in &node.tasks {
        line("runs", format!("{} of run {} of `{}` {}", task.name(), task.run, task.workflow, task.gpus.join(" ")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_machine_of_ecs_it_is_said_that_ecs_places_there() {
        let node = |cluster: Option<&str>| -> NodeView {
            let view = serde_json::json!({
                "name": "i-0f", "standing": "cordoned", "reason": null, "is_cordoned": true, "connection": null,
                "cluster": cluster, "labels": {}, "taints": [], "cpu": 8, "memory_mib": 1000, "gpus": [], "remarks": [],
                "seen_at": null,
            });
            serde_json::from_value(view).unwrap()
        };
        assert_eq!(beside(&node(None)), None);
        let said = beside(&node(Some("gpus"))).unwrap();
        assert!(said.starts_with("ECS goes on placing tasks on `i-0f`") && said.contains("--cluster gpus "), "{said}");
    }
}

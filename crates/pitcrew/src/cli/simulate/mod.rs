//! `simulate`: what placement would make of a trace on a fleet; how good a policy is, and what more nodes would bring.

mod trace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use pitcrew_control::clock;
use pitcrew_control::config::Settings;
use pitcrew_core::admission::Quota;
use pitcrew_core::admission::replay::{Timed as Played, Waits, timed};
use pitcrew_core::fleet::replay::{self, Job};
use pitcrew_core::fleet::{Amount, Fleet, Node, Policy};
use serde::Serialize;

use super::{Output, Ui, error};
use crate::drill::FaultsArgs;
use trace::{AddedNodes, AskedQuota};

/// Say how much of a trace's work a fleet takes, with the placement that servers use
///
/// Without --timed, pods come in an order that the seed decides, have one try each, and never end: the protocol of
/// published comparisons. With --timed, they come and go as the trace says, and wait in line as tasks of a server do.
///
/// `simulate faults` breaks a machine on purpose instead, with a real server, and shows how that is dealt with.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SimulateArgs {
    #[command(subcommand)]
    command: Option<SimulateCommand>,
    /// Nodes, CSV: sn,cpu_milli,memory_mib,gpu,model
    #[arg(long, value_name = "CSV", required = true)]
    nodes: Option<PathBuf>,
    /// Pods, CSV: name,cpu_milli,memory_mib,num_gpu,gpu_milli, and for more gpu_spec,creation_time,deletion_time,
    /// gang,namespace,priority,preemptible
    #[arg(long, value_name = "CSV", required = true)]
    pods: Option<PathBuf>,
    /// pack, spread or fgd
    #[arg(long, value_name = "POLICY", default_value = "fgd")]
    policy: Policy,
    /// Repeat pods of the trace until they ask for so many times the GPUs of the fleet; with --timed, let them come
    /// closer together until they bring so many times the work that it can do
    #[arg(long, value_name = "LOAD", allow_negative_numbers = true)]
    load: Option<f64>,
    /// The order of pods and which are repeated, 42 unless told; FIRST..LAST for the mean over several. With --timed,
    /// which pod comes at which moment: as in the trace unless told
    #[arg(long, value_name = "SEED", value_parser = seeds)]
    seed: Option<Seeds>,
    /// Play arrivals and departures in virtual time, with the queue of servers: promises, priorities, quotas
    #[arg(long)]
    timed: bool,
    /// Nodes beside those of the file: count=2,gpus=8,model=A100,cpu=96,memory=786432
    #[arg(long, value_name = "NODE")]
    add_node: Vec<AddedNodes>,
    /// With --timed, what a namespace may hold, in the words of `quotas set`:
    /// namespace=ml,gpus=8,cpu=64,memory=256Gi,cohort=research,borrow-gpus=2,weight=3
    #[arg(long, value_name = "QUOTA", requires = "timed")]
    quota: Vec<AskedQuota>,
    /// Into how many parts a GPU can be divided
    #[arg(long, value_name = "PARTS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum SimulateCommand {
    Faults(FaultsArgs),
}

/// From the first to the last, both included.
#[derive(Debug, Clone, Copy)]
struct Seeds(u64, u64);

impl std::fmt::Display for Seeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seeds(first, last) = self;
        if first == last { write!(f, "seed {first}") } else { write!(f, "mean of the seeds {first} to {last}") }
    }
}

fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` is no whole number"));
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if first > last || last - first >= 1000 {
        return Err("the last seed comes after the first, at most 999 later".to_owned());
    }
    Ok(Seeds(first, last))
}

/// What is told of arrivals alone, over all seeds.
#[derive(Debug, Serialize)]
struct Filled {
    policy: String,
    nodes: usize,
    gpus: f64,
    seeds: [u64; 2],
    load: f64,
    allocated_gpu_percent: f64,
    fragmented_gpu_percent: f64,
    placed: f64,
    failed: f64,
    placements_per_second: f64,
}

/// What is told of a trace in time.
#[derive(Debug, Serialize)]
struct Timed {
    policy: String,
    nodes: usize,
    gpus: f64,
    /// `None`: in the order of the trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: Option<[u64; 2]>,
    /// The work that arrives, of what the GPUs can do in that time.
    load: f64,
    /// At the moment when most was held.
    allocated_gpu_percent: f64,
    fragmented_gpu_percent: f64,
    placed: f64,
    failed: f64,
    mean_wait_s: f64,
    p99_wait_s: f64,
    utilisation_percent: f64,
    placements_per_second: f64,
    /// How often a pod was made to end for another.
    preempted: f64,
    namespaces: BTreeMap<String, Namespace>,
}

/// How it went with the pods of one namespace.
#[derive(Debug, Serialize)]
struct Namespace {
    /// What is its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_gpus: Option<f64>,
    placed: f64,
    failed: f64,
    preempted: f64,
    mean_wait_s: f64,
    p99_wait_s: f64,
    /// Of all GPUs over the time, what it held.
    gpu_percent: f64,
}

impl SimulateArgs {
    /// What breaks, if that is what is wanted.
    pub fn faults(&self) -> Option<&FaultsArgs> {
        self.command.as_ref().map(|SimulateCommand::Faults(args)| args)
    }
}

pub async fn drill(args: SimulateArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(SimulateCommand::Faults(args)) => crate::drill::command(args, ui, settings).await,
        None => command(&args, ui),
    }
}

pub fn command(args: &SimulateArgs, ui: Ui) -> anyhow::Result<ExitCode> {
    let (Some(nodes), Some(pods)) = (&args.nodes, &args.pods) else {
        let hint = "`--nodes CSV --pods CSV`, or `simulate faults`";
        return Err(error::invalid(format!("it is not said what to simulate\nhint: {hint}")));
    };
    if args.load.is_some_and(|load| !(0.01..=100.0).contains(&load)) {
        return Err(error::invalid("`--load` is 0.01 to 100: how many times the GPUs of the fleet are asked for"));
    }
    let mut nodes = trace::nodes(nodes, args.replicas)?;
    for (at, added) in args.add_node.iter().enumerate() {
        nodes.extend(added.nodes(at, args.replicas));
    }
    let jobs = trace::jobs(pods, args.timed)?;
    match args.timed {
        true => in_time(args, nodes, &jobs, ui)?,
        false => filled(args, nodes, &jobs, ui)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fleet(nodes: Vec<Node>, policy: Policy, jobs: &[Job]) -> anyhow::Result<Fleet> {
    Fleet::new(nodes, policy, replay::workload(jobs)).map_err(|why| error::invalid(format!("`--nodes`: {why}")))
}

fn filled(args: &SimulateArgs, nodes: Vec<Node>, jobs: &[Job], ui: Ui) -> anyhow::Result<()> {
    let empty = fleet(nodes, args.policy, jobs)?;
    let gpus = empty.gpus();
    let Seeds(first, last) = args.seed.unwrap_or(Seeds(42, 42));
    let (mut took, mut all) = (Duration::ZERO, Vec::new());
    for seed in first..=last {
        let work = match args.load {
            Some(load) => replay::inflated(jobs, gpus, load, seed),
            None => replay::shuffled(jobs, seed),
        };
        let mut fleet = empty.clone();
        let begun = clock::instant();
        all.push(replay::fill(&mut fleet, &work));
        took += clock::instant().saturating_duration_since(begun);
    }
    let mean = |of: fn(&replay::Filled) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let tried: usize = all.iter().map(|one| one.placed + one.failed).sum();
    let told = Filled {
        policy: args.policy.to_string(),
        nodes: empty.nodes().count(),
        gpus: gpus.to_f64(),
        seeds: [first, last],
        load: mean(|one| one.load_percent) / 100.0,
        allocated_gpu_percent: mean(|one| one.allocated_gpu_percent),
        fragmented_gpu_percent: mean(|one| one.fragmented_gpu_percent),
        placed: mean(|one| one.placed as f64),
        failed: mean(|one| one.failed as f64),
        placements_per_second: tried as f64 / took.as_secs_f64().max(1e-9),
    };
    if args.output.is_json() {
        ui.json(&told)?;
        return Ok(());
    }
    let seeds = Seeds(first, last);
    ui.line(format!("fleet       {} nodes, {} GPUs; policy {}", told.nodes, told.gpus, told.policy))?;
    ui.line(format!("work        {:.1} % of the GPUs asked for; {seeds}", told.load * 100.0))?;
    ui.line(format!("allocated   {:.2} % of the GPUs", told.allocated_gpu_percent))?;
    ui.line(format!("fragmented  {:.2} % of the GPUs are idle to no use", told.fragmented_gpu_percent))?;
    ui.line(format!("placed      {:.0} pods, {:.0} found no room", told.placed, told.failed))?;
    ui.line(format!("speed       {:.0} placements a second", told.placements_per_second))?;
    Ok(())
}

fn in_time(args: &SimulateArgs, nodes: Vec<Node>, jobs: &[Job], ui: Ui) -> anyhow::Result<()> {
    let empty = fleet(nodes.clone(), args.policy, jobs)?;
    let gpus = empty.gpus();
    let quotas: Vec<Quota> = args.quota.iter().map(|AskedQuota(quota)| quota.clone()).collect();
    for (at, quota) in quotas.iter().enumerate() {
        if quotas[..at].iter().any(|other| other.namespace == quota.namespace) {
            return Err(error::invalid(format!("`--quota` is there twice for the namespace `{}`", quota.namespace)));
        }
    }
    let order: Vec<Option<u64>> = match args.seed {
        Some(Seeds(first, last)) => (first..=last).map(Some).collect(),
        None => vec![None],
    };
    let load = args.load.unwrap_or_else(|| replay::load_of(jobs, gpus));
    let (mut took, mut all) = (Duration::ZERO, Vec::new());
    for seed in order {
        let work = replay::squeezed(jobs, gpus, load, seed);
        let begun = clock::instant();
        let played = timed(nodes.clone(), args.policy, quotas.clone(), &work);
        all.push(played.map_err(|why| error::invalid(format!("`--nodes`: {why}")))?);
        took += clock::instant().saturating_duration_since(begun);
    }
    let mean = |of: &dyn Fn(&Played) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
    let namespace = |name: &String| {
        let mean = |of: fn(&Waits) -> f64| mean(&|one| one.namespaces.get(name).map_or(0.0, of));
        let quota = quotas.iter().find(|quota| quota.namespace == *name);
        let told = Namespace {
            quota_gpus: quota.and_then(|quota| quota.limits.gpus).map(Amount::to_f64),
            placed: mean(|one| one.placed as f64),
            failed: mean(|one| one.failed as f64),
            preempted: mean(|one| one.preempted as f64),
            mean_wait_s: mean(|one| one.mean_wait_s),
            p99_wait_s: mean(|one| one.p99_wait_s),
            gpu_percent: mean(|one| one.gpu_percent),
        };
        (name.clone(), told)
    };
    let told = Timed {
        policy: args.policy.to_string(),
        nodes: empty.nodes().count(),
        gpus: gpus.to_f64(),
        seeds: args.seed.map(|Seeds(first, last)| [first, last]),
        load,
        allocated_gpu_percent: mean(&|one| one.most_allocated_percent),
        fragmented_gpu_percent: mean(&|one| one.fragmented_gpu_percent),
        placed: mean(&|one| one.all.placed as f64),
        failed: mean(&|one| one.all.failed as f64),
        mean_wait_s: mean(&|one| one.all.mean_wait_s),
        p99_wait_s: mean(&|one| one.all.p99_wait_s),
        utilisation_percent: mean(&|one| one.utilisation_percent),
        placements_per_second: all.iter().map(|one| one.all.placed as f64).sum::<f64>() / took.as_secs_f64().max(1e-9),
        preempted: mean(&|one| one.all.preempted as f64),
        namespaces: all[0].namespaces.keys().map(namespace).collect(),
    };
    if args.output.is_json() {
        ui.json(&told)?;
        return Ok(());
    }
    tell(&told, args.seed, ui)
}

fn tell(told: &Timed, seeds: Option<Seeds>, ui: Ui) -> anyhow::Result<()> {
    ui.line(format!("fleet       {} nodes, {} GPUs; policy {}", told.nodes, told.gpus, told.policy))?;
    let seeds = seeds.map_or("in the order of the trace".to_owned(), |seeds| seeds.to_string());
    ui.line(format!("work        {:.2} % of what the GPUs can do; {seeds}", told.load * 100.0))?;
    ui.line(format!("placed      {:.0} pods; {:.0} no node or no quota can ever take", told.placed, told.failed))?;
    ui.line(format!("waited      {:.0} s on average, {:.0} s at most of 99 %", told.mean_wait_s, told.p99_wait_s))?;
    ui.line(format!(
        "held        {:.2} % of the GPUs over time, at most {:.2} %",
        told.utilisation_percent, told.allocated_gpu_percent
    ))?;
    ui.line(format!("fragmented  {:.2} % of the GPUs over time are idle to no use", told.fragmented_gpu_percent))?;
    if told.preempted > 0.0 {
        ui.line(format!("preempted   {:.0} times one made room for another", told.preempted))?;
    }
    ui.line(format!("speed       {:.0} placements a second", told.placements_per_second))?;
    for (name, one) in told.namespaces.iter().filter(|_| told.namespaces.len() > 1) {
        let quota = one.quota_gpus.map_or(String::new(), |gpus| format!(" (its own: {gpus} GPUs)"));
        ui.line(format!(
            "namespace   {name}{quota}: {:.0} pods, {:.0} never; waited {:.0} s on average, {:.0} s at most of 99 %; held {:.2} % of the GPUs",
            one.placed, one.failed, one.mean_wait_s, one.p99_wait_s, one.gpu_percent
        ))?;
    }
    Ok(())
}

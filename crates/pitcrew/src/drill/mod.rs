//! `simulate faults`: a drill. A real server with machines that can be broken, a training on them, and a fault; then
//! everything that recovery does about it, as it happens.
//!
//! The machines are directories on this computer ([`machine`]), reached over SSH as any node is ([`host`]). What watches,
//! fences, checks, repairs and restarts is the server's own recovery, by its own configuration; nothing of it is played here.

mod fault;
mod host;
mod machine;
mod story;
mod training;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use pitcrew_control::app::{App, Trigger};
use pitcrew_control::clock;
use pitcrew_control::config::{Overrides, Settings};
use pitcrew_control::connection::Connection;
use pitcrew_control::folder;
use pitcrew_core::WorkflowId;
use pitcrew_core::engine::record::RunRecord;
use pitcrew_core::recovery::{Incident, JobRecord, JobState, Outcome};
use pitcrew_core::state::RunState;
use pitcrew_server::AuthConfig;
use serde_json::json;
use tokio::sync::mpsc;

use crate::cli::parts::{Context, Serving, Ui, config_error, exit_code, invalid, one_line, shutdown_signal};
use crate::demo::listen;
use fault::Fault;
use host::{Host, Keys};
use machine::{Happened, Machine};
use story::{Line, Story};

/// A directory of a drill has this, so that only such a one is ever made anew.
const MARKER: &str = "this-is-a-drill";
/// Between two looks at what happened.
const LOOK: Duration = Duration::from_millis(100);
/// How long a machine takes to come up.
const BOOT: Duration = Duration::from_secs(3);

/// Break something on purpose, and watch how it is found, repaired, and how the work goes on
///
/// Starts a real server with machines that are directories on this computer, a training on some of them, and breaks one.
/// Everything that follows is done by the recovery that servers have. Nothing outside of the data directory is touched.
#[derive(Debug, clap::Args)]
pub struct FaultsArgs {
    /// What breaks; `random` lets the seed decide
    #[arg(long, value_name = "FAULT", default_value = "xid79", value_parser = parse_fault)]
    fault: Broken,
    /// Nodes: one is a spare, the training is on the others
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(3..=32))]
    nodes: u32,
    /// GPUs of each node
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    gpus: u32,
    /// Decides which node and which GPU it is, and when; another one each time unless told
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// End when it is over, with exit status 0 if the training has succeeded
    #[arg(long)]
    exit: bool,
    /// Answer on this port of 127.0.0.1; 8793 or a free one unless given
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// How long it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
}

/// A fault, or whichever the seed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    This(Fault),
    Random,
}

fn parse_fault(text: &str) -> Result<Broken, String> {
    use clap::ValueEnum as _;
    if text == "random" {
        return Ok(Broken::Random);
    }
    let found = Fault::from_str(text, false).map(Broken::This);
    let names: Vec<&str> = Fault::value_variants().iter().map(|fault| fault.name()).collect();
    found.map_err(|_| format!("it is one of {} and random", names.join(", ")))
}

pub async fn command(args: FaultsArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let seed = args.seed.unwrap_or_else(|| clock::now().as_microsecond().unsigned_abs() % 1_000_000);
    let fault = match args.fault {
        Broken::This(fault) => fault,
        Broken::Random => Fault::random(mixed(seed, 0)),
    };
    let root = prepare(&settings.data_dir().join("drill"))?;
    let (sender, happened) = mpsc::unbounded_channel();
    let machines = (1..=args.nodes)
        .map(|number| {
            let name = format!("m{number}");
            Machine::make(root.join("machines").join(&name), &name, args.gpus, BOOT, sender.clone()).map(Arc::new)
        })
        .collect::<anyhow::Result<Vec<Arc<Machine>>>>()?;
    let done = drill(&args, ui, &root, &machines, fault, seed, happened).await;
    // Whatever way it ended, nothing of it goes on.
    for machine in &machines {
        machine.cut().await;
    }
    done
}

async fn drill(
    args: &FaultsArgs,
    ui: Ui,
    root: &Path,
    machines: &[Arc<Machine>],
    fault: Fault,
    seed: u64,
    happened: mpsc::UnboundedReceiver<Happened>,
) -> anyhow::Result<ExitCode> {
    let checkpoints = root.join("checkpoints");
    let settings = written(root, machines, args.gpus, &checkpoints)?;
    let context = Context::open(ui, settings).await?;
    let hosts = connected(&context, root, machines).await?;
    let listener = listen(args.port).await?;
    let serving = Serving::start(&context, listener, AuthConfig::Generated, None).await?;
    let app = serving.session.app.clone();
    folder::read_once(&app, &root.join("workflows")).await?;
    let trigger = Trigger { by: "drill".to_owned(), ..Trigger::default() };
    let run = app.trigger(&WorkflowId::new(training::NAME)?, trigger).await?;
    let page = serving.server.login_link(&format!("/runs/{}", run.key));
    // For whoever looks only when it is over.
    let incidents = serving.server.login_link("/incidents");
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serving.until(async move { drop(ended.await) }));
    let drill = Drill { ui, app: &app, run: &run, machines, checkpoints: &checkpoints, fault, seed };
    drill.introduce(root, (!args.exit).then_some(page.as_str()));
    let limit = Duration::from_secs(args.limit);
    let watched = tokio::select! {
        watched = tokio::time::timeout(limit, drill.play(happened)) => match watched {
            Ok(played) => played,
            Err(_) => Err(anyhow::anyhow!("it is not over after {} s\nhint: {}", args.limit, drill.stands())),
        },
        () = shutdown_signal()? => Err(anyhow::anyhow!("the drill was ended before it was over")),
    };
    if watched.is_ok() && !args.exit {
        ui.say(format!("\nWhat was seen and done: {}", ui.err.cyan(incidents)));
        ui.say("The server goes on until Ctrl-C.");
        shutdown_signal()?.await;
    }
    let _ = end.send(());
    server.await??;
    drop(hosts);
    watched
}

/// An empty directory for it. One of an earlier drill is made anew; another one that is there is nobody's to remove.
fn prepare(root: &Path) -> anyhow::Result<PathBuf> {
    let is_used = std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some());
    if is_used && !root.join(MARKER).exists() {
        let hint = "choose another place with `--data-dir DIR`";
        return Err(invalid(format!("`{}` is there, and is of no drill\nhint: {hint}", root.display())));
    }
    let made = || -> std::io::Result<PathBuf> {
        if is_used {
            std::fs::remove_dir_all(root)?;
        }
        for inner in ["machines", "checkpoints", "workflows"] {
            std::fs::create_dir_all(root.join(inner))?;
        }
        std::fs::write(root.join(MARKER), "")?;
        root.canonicalize()
    };
    made().with_context(|| format!("cannot make `{}` for the drill", root.display()))
}

/// The configuration and the workflow, as files that people can look at; and the settings that follow from them, and from
/// nothing else.
fn written(root: &Path, machines: &[Arc<Machine>], gpus: u32, checkpoints: &Path) -> anyhow::Result<Settings> {
    let nodes = training::Nodes { names: machines.iter().map(|machine| machine.name.as_str()).collect(), gpus };
    let config = root.join("pitcrew.yaml");
    std::fs::write(&config, training::configuration(&nodes))?;
    let workflow = training::workflow(machines.len() - 1, gpus, checkpoints);
    std::fs::write(root.join("workflows").join(format!("{}.yaml", training::NAME)), workflow)?;
    let flags = BTreeMap::from([("data_dir", ("--data-dir", root.display().to_string()))]);
    let env = |name: &str| std::env::var(name).ok().filter(|_| name == "HOME");
    Settings::read(&Overrides { config: Some(config), flags, ..Overrides::default() }, &env).map_err(config_error)
}

/// The machines answer, and the store knows how they are reached.
async fn connected(context: &Context, root: &Path, machines: &[Arc<Machine>]) -> anyhow::Result<Vec<Host>> {
    let keys = Keys::new()?;
    let key_file = root.join("key");
    private(&key_file, &keys.user_file()?).with_context(|| format!("cannot write `{}`", key_file.display()))?;
    let mut hosts = Vec::new();
    for machine in machines {
        let host = Host::start(Arc::clone(machine), &keys).await?;
        let extra = json!({ "key_file": key_file, "host_key": keys.host_line()?, "jump": "none" });
        let connection = Connection {
            id: machine.name.clone(),
            conn_type: "ssh".to_owned(),
            description: "a machine of a drill".to_owned(),
            host: "127.0.0.1".to_owned(),
            schema: String::new(),
            login: "drill".to_owned(),
            port: Some(host.port),
            password: None,
            extra: Some(extra.to_string()),
        };
        context.store.put_connection(connection.seal(&context.vault)?, context.audit("connection.set")).await?;
        hosts.push(host);
    }
    Ok(hosts)
}

fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// A number that a seed stands for, another one for each `of` (splitmix64).
fn mixed(seed: u64, of: u64) -> u64 {
    let mut z = seed.wrapping_add(of.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A drill under way.
struct Drill<'a> {
    ui: Ui,
    app: &'a App,
    run: &'a RunRecord,
    machines: &'a [Arc<Machine>],
    checkpoints: &'a Path,
    fault: Fault,
    seed: u64,
}

impl Drill<'_> {
    fn introduce(&self, root: &Path, page: Option<&str>) {
        let ui = &self.ui;
        let members = self.machines.len() - 1;
        ui.say(ui.err.bold("A drill: a training on machines that are broken on purpose"));
        ui.say(format!(
            "  {} machines, a training on {members} of them; fault {}, seed {}",
            self.machines.len(),
            self.fault.name(),
            self.seed
        ));
        ui.say(format!("  Everything goes into {}; delete that folder to undo it.", root.display()));
        if let Some(page) = page {
            ui.say(format!("  Watch it: {}", ui.err.cyan(page)));
        }
        ui.say("");
    }

    /// From the first step of the training to its end, and that of all incidents.
    async fn play(&self, mut happened: mpsc::UnboundedReceiver<Happened>) -> anyhow::Result<ExitCode> {
        let (machine, gpu) = self.victim().await?;
        let began = clock::now();
        let what = self.fault.happens(&machine.uuid(gpu));
        let saved = training::saved(self.checkpoints);
        self.tell(began, &Line { at: began, who: machine.name.clone(), what: self.ui.out.red(what) })?;
        let (fault, broken) = (self.fault, Arc::clone(&machine));
        let others: Vec<_> = self.machines.iter().filter(|other| other.name != machine.name).cloned().collect();
        let suffers = tokio::spawn(async move {
            // All members wait for the one that hangs.
            for other in others.iter().filter(|_| fault == Fault::Hang) {
                other.suffer(fault, 0).await?;
            }
            broken.suffer(fault, gpu).await
        });
        let mut story = Story::default();
        loop {
            let run = self.app.store.run(self.run.key).await?.context("the run is gone")?;
            // Before what happened is read, so that nothing is missed of one that is over.
            let (incidents, jobs) = self.look();
            let is_open = |incident: &Incident| incident.is_open();
            let is_over = run.state.is_final() && !incidents.iter().any(is_open) && suffers.is_finished();
            let news = std::iter::from_fn(|| happened.try_recv().ok()).collect();
            for line in story.news(&incidents, &jobs, news) {
                self.tell(began, &line)?;
            }
            if is_over {
                suffers.await??;
                self.sum_up(began, &machine.name, saved, &run)?;
                return Ok(exit_code(run.state));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A machine that the training is on, and one of its GPUs; once there is a checkpoint to go on from.
    async fn victim(&self) -> anyhow::Result<(Arc<Machine>, u32)> {
        let least = training::EVERY * (1 + (mixed(self.seed, 1) % 3) as u32);
        loop {
            let run = self.app.store.run(self.run.key).await?.context("the run is gone")?;
            if run.state.is_final() {
                bail!(
                    "the training ended before anything was broken\nhint: `pitcrew --data-dir … logs latest` says why"
                );
            }
            let (_, jobs) = self.look();
            let ranks = jobs.first().filter(|job| job.state == JobState::Running).map(|job| &job.ranks);
            if let Some(ranks) = ranks.filter(|ranks| !ranks.is_empty() && training::saved(self.checkpoints) >= least) {
                let place = &ranks[(mixed(self.seed, 2) % ranks.len() as u64) as usize].place;
                let machine = self.machines.iter().find(|machine| machine.name == place.node);
                let machine = machine.with_context(|| format!("the training is on `{}`", place.node))?;
                let gpu = place.gpus.get((mixed(self.seed, 3) % place.gpus.len().max(1) as u64) as usize);
                let index = gpu.and_then(|uuid| uuid.rsplit_once('-')?.1.parse().ok());
                return Ok((Arc::clone(machine), index.unwrap_or(0)));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn look(&self) -> (Vec<Incident>, Vec<JobRecord>) {
        self.app.recovery.look(|recovery| (recovery.incidents().cloned().collect(), recovery.jobs().cloned().collect()))
    }

    fn tell(&self, began: Timestamp, line: &Line) -> anyhow::Result<()> {
        let since = line.at.duration_since(began).as_secs_f64().max(0.0);
        let paint = self.ui.out;
        let when = paint.dim(format!("{since:>6.1} s"));
        self.ui.line(format!("{when}  {} {}", paint.bold(format!("{:<4}", line.who)), one_line(&line.what)))
    }

    fn sum_up(&self, began: Timestamp, node: &str, saved: u32, run: &RunRecord) -> anyhow::Result<()> {
        let (incidents, jobs) = self.look();
        // Who is suspected first need not be who was broken.
        let incident = incidents.iter().filter(|incident| incident.opened >= began).min_by_key(|incident| incident.id);
        let node = incident.map_or(node, |incident| &incident.node);
        let job = jobs.first();
        let line = |name: &str, text: String| self.ui.line(format!("{name:<16} {text}"));
        self.ui.line("")?;
        for (name, took) in story::times(began, incident, job) {
            line(name, format!("{:.1} s", took.as_secs_f64()))?;
        }
        let outcome = incident.and_then(|incident| incident.outcome).map_or("untouched", Outcome::name);
        line(node, outcome.replace('_', " "))?;
        let attempts = job.map_or(1, |job| job.attempt);
        let again = match attempts {
            1 => String::new(),
            n => format!("; attempt {n} went on after step {saved} or later"),
        };
        let ended = if run.state == RunState::Success { "has succeeded" } else { "has failed" };
        line("training", format!("{ended}{again}"))
    }

    /// What it waits for, for somebody who has waited long enough.
    fn stands(&self) -> String {
        let (incidents, jobs) = self.look();
        let open = incidents.iter().filter(|incident| incident.is_open());
        let open =
            open.map(|i| format!("{} of {} is {}", i.id, i.node, i.trail.last().map_or("open", |step| &step.to)));
        let jobs = jobs.iter().map(|job| format!("the training is {}", job.state.name().replace('_', " ")));
        open.chain(jobs).collect::<Vec<_>>().join("; ")
    }
}

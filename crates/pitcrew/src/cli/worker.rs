//! `worker`: this machine takes work from a server elsewhere, and runs it here.
//!
//! Everything it has lies in the folder `worker` of its data directory, apart from what a server here has: the runner of a
//! worker ends what it keeps when the server does not answer any more, and a server's never does.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use pitcrew_control::actions;
use pitcrew_control::config::Settings;
use pitcrew_control::fleet;
use pitcrew_core::fleet::Amount;
use pitcrew_exec::local::LocalConfig;
use pitcrew_exec::worker::errands;
use pitcrew_exec::worker::protocol::{About, Enrol, PROTOCOL};
use pitcrew_exec::worker::{CourierError, Credential, Disk, DiskError, GLANCE, Said, Wire, WireError, Worker, work};
use pitcrew_server::fresh_credential;
use tokio::signal::unix::{SignalKind, signal};

use super::error::{invalid, refused};
use super::ui::Ui;

/// Take work from a server, and run it on this machine
///
/// The first time it needs a token, which `pitcrew workers token` makes on the server; later it is known. What runs goes on
/// while the server is away, and when the worker is started again. SIGTERM and Ctrl-C let what runs end first.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// What to enrol with, once; better in a file or in the environment, where no list of processes shows it
    /// [env: PITCREW_WORKER_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
    /// Read the token from this file; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The name of this worker; that of the machine unless given. It is for enrolling
    #[arg(long)]
    pub name: Option<String>,
    /// A queue whose tasks it takes; repeat for more
    #[arg(long = "queue", value_name = "QUEUE", default_value = "default")]
    pub queues: Vec<String>,
    /// Tasks at the same time; as many as the machine has cores unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub slots: Option<u32>,
    /// A label of its node; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,
    /// Something else that it has of which a task can take some, such as `licence=4`; repeat for more
    #[arg(long = "resource", value_name = "NAME=AMOUNT")]
    pub resources: Vec<String>,
    /// Cores for tasks, in place of all that the machine has
    #[arg(long, value_name = "N")]
    pub cpu: Option<String>,
    /// Memory for tasks, such as 64Gi, in place of all that the machine has
    #[arg(long, value_name = "AMOUNT")]
    pub memory: Option<String>,
    /// Let the server reset the GPUs of this machine and reboot it, where its recovery finds that this is needed
    #[arg(long)]
    pub allow_repair: bool,
    /// How long tasks may take to end when the worker is told to; then they are ended, and tried again elsewhere
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub drain_deadline: String,
}

pub(super) const TOKEN: &str = "PITCREW_WORKER_TOKEN";
/// Between tries to enrol.
const AGAIN: Duration = Duration::from_secs(3);
/// The longest text that is a token.
const LONGEST_TOKEN: u64 = 4096;

/// What of the arguments is right.
struct Plan {
    server: String,
    name: String,
    about: About,
    drain_deadline: Duration,
}

pub async fn command(args: WorkerArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    let mut drain = Signals::listen()?;
    let disk = open(&settings.data_dir().join("worker"))?;
    let token = token(&args)?;
    let known = disk.credential().with_context(|| format!("cannot read `{}`", disk.credential_file().display()))?;
    let mut plan = plan(&args, &settings, &disk, known.as_ref())?;
    if let Some(host) = travels_in_clear(&plan.server) {
        ui.warn(format!(
            "`{}` is not encrypted: the credential of this worker and the secrets of its tasks travel in clear to \
             `{host}`; use `https://`, or a tunnel",
            plan.server
        ));
    }
    let credential = match (known, token) {
        (Some(known), None) => known,
        // A token that lies in the environment of a service is there at every start.
        (Some(known), Some(_)) if known.server == plan.server => known,
        (_, Some(token)) => match enrol(&plan, &disk, &token, &ui, &mut drain).await? {
            Some(credential) => credential,
            None => return Ok(ExitCode::SUCCESS),
        },
        (None, None) => {
            return Err(invalid(format!(
                "this worker is not known to `{}` yet, and has no token\nhint: make one on the server with `pitcrew \
                 workers token`, and give it as `{TOKEN}` or with `--token-file FILE`",
                plan.server
            )));
        }
    };
    let wire = Wire::new(&plan.server, &credential.credential).map_err(invalid)?;
    let disk = disk.of(&credential.worker).map_err(|error| refused(error.to_string()))?;
    plan.about.data_dir = disk.own().display().to_string();
    let local = LocalConfig::new(disk.runner()).context("cannot find the program of this process")?;
    let file = disk.credential_file();
    let worker = Worker {
        disk,
        wire,
        about: plan.about.clone(),
        local,
        prober: Box::new(|| Box::pin(async { fleet::this_machine().await.ok() })),
        glance: GLANCE,
        drain_deadline: plan.drain_deadline,
    };
    let told = ui;
    let mut say = move |said: Said| tell(&told, &plan, &credential.name, said);
    match work(worker, drain.first(), &mut say).await {
        Ok(()) => {
            ui.say("the worker has ended; nothing runs here any more");
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ CourierError::Revoked { left, .. }) => anyhow::bail!(
            "{error}; {}\nhint: if that is right, remove `{}`; with a new token the worker enrols again",
            ended(left),
            file.display()
        ),
        Err(error @ CourierError::Replaced { left, .. }) => anyhow::bail!(
            "{error}; {}\nhint: two workers cannot share `{}`: remove it in the data directory that was \
             copied, and enrol there with a token of its own",
            ended(left),
            file.display()
        ),
        Err(error @ CourierError::Io(_)) => anyhow::bail!("{error}"),
    }
}

/// What became of what ran, when a worker is shut out.
fn ended(left: usize) -> String {
    match left {
        0 => "what ran was ended".to_owned(),
        _ => format!(
            "{} did not end in time, and may go on until the lease is over",
            super::format::plural(left as u64, "task")
        ),
    }
}

fn open(root: &Path) -> anyhow::Result<Disk> {
    Disk::open(root).map_err(|error| match error {
        DiskError::Taken(_) => {
            refused(format!("{error}\nhint: a second worker on this machine needs its own `--data-dir DIR`"))
        }
        DiskError::Io(..) | DiskError::NoId(_) => {
            refused(format!("{error}\nhint: choose another directory with `--data-dir DIR`"))
        }
    })
}

fn plan(args: &WorkerArgs, settings: &Settings, disk: &Disk, known: Option<&Credential>) -> anyhow::Result<Plan> {
    let server = settings.server().or_else(|| known.map(|known| known.server.clone()));
    let server = server.ok_or_else(|| invalid("which server? Give its address with `--server URL`"))?;
    let host = hostname();
    let name = args.name.clone().or_else(|| known.map(|known| known.name.clone())).unwrap_or_else(|| host.clone());
    if let Some(known) = known
        && known.name != name
    {
        return Err(invalid(format!(
            "this worker is `{}`, and cannot become `{name}`\nhint: give another one its own `--data-dir DIR`",
            known.name
        )));
    }
    let mut labels = BTreeMap::new();
    for label in &args.labels {
        let (key, value) = label
            .split_once('=')
            .ok_or_else(|| invalid(format!("the label `{label}` has no value: write it as KEY=VALUE")))?;
        labels.insert(key.to_owned(), value.to_owned());
    }
    let mut resources = BTreeMap::new();
    for resource in &args.resources {
        let read = resource.split_once('=').and_then(|(name, amount)| Some((name, amount.parse::<Amount>().ok()?)));
        let (name, amount) =
            read.ok_or_else(|| invalid(format!("`--resource {resource}` is no amount: write it as NAME=4")))?;
        resources.insert(name.to_owned(), amount);
    }
    let cpu = |text: &String| {
        let amount = text.parse::<Amount>().ok().filter(|amount| !amount.is_zero());
        amount.ok_or_else(|| invalid(format!("`--cpu {text}` is no number of cores: write `8` or `0.5`")))
    };
    let memory = |text: &String| {
        let bytes = pitcrew_lang::parse_memory(&text.clone().into()).ok().map(|bytes| bytes >> 20);
        bytes.filter(|mib| *mib > 0).ok_or_else(|| invalid(format!("`--memory {text}` is no memory: write `64Gi`")))
    };
    let drain_deadline = pitcrew_lang::parse_duration(&args.drain_deadline)
        .ok()
        .and_then(|deadline| Duration::try_from(deadline).ok())
        .ok_or_else(|| invalid(format!("`--drain-deadline {}` is no time; write `10m`", args.drain_deadline)))?;
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
    let mut queues = args.queues.clone();
    queues.sort();
    queues.dedup();
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host,
        // Until it knows who it is.
        data_dir: disk.own().display().to_string(),
        program: actions::program().context("cannot find the program of this process")?.display().to_string(),
        queues,
        slots: args.slots.unwrap_or(cores),
        labels,
        cpu: args.cpu.as_ref().map(cpu).transpose()?,
        memory_mib: args.memory.as_ref().map(memory).transpose()?,
        resources,
        place: disk.place(),
        errands: errands(args.allow_repair),
    };
    Ok(Plan { server: server.trim_end_matches('/').to_owned(), name, about, drain_deadline })
}

/// What it does for the server beside tasks.
fn errands(allow_repair: bool) -> Vec<String> {
    let kinds =
        if allow_repair { &[errands::ASK, errands::RESET_GPU, errands::REBOOT][..] } else { &[errands::ASK][..] };
    kinds.iter().map(|kind| (*kind).to_owned()).collect()
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Some(name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "worker".to_owned())
}

/// The token, from wherever it was given.
fn token(args: &WorkerArgs) -> anyhow::Result<Option<String>> {
    let text = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => {
            let failed = |error| invalid(format!("cannot read the token from `{}`: {error}", file.display()));
            let mut text = String::new();
            let source: Box<dyn std::io::Read> = match file.as_os_str() == "-" {
                true => Box::new(std::io::stdin()),
                false => Box::new(std::fs::File::open(file).map_err(failed)?),
            };
            source.take(LONGEST_TOKEN).read_to_string(&mut text).map_err(failed)?;
            Some(text)
        }
        (None, None) => std::env::var(TOKEN).ok(),
    };
    Ok(text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// The host, if it is another machine that is reached without encryption.
fn travels_in_clear(server: &str) -> Option<String> {
    let url: reqwest::Url = server.parse().ok()?;
    let host = url.host_str()?;
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    (url.scheme() == "http" && !here).then(|| host.to_owned())
}

/// Exchanges the token for a credential, and keeps that. `None`: somebody ended the worker first.
async fn enrol(
    plan: &Plan,
    disk: &Disk,
    token: &str,
    ui: &Ui,
    drain: &mut Signals,
) -> anyhow::Result<Option<Credential>> {
    let wire = Wire::new(&plan.server, token).map_err(invalid)?;
    let same = |wish: &Credential| wish.server == plan.server && wish.name == plan.name;
    let wish = match disk.wish().filter(same) {
        Some(wish) => wish,
        None => Credential {
            server: plan.server.clone(),
            worker: String::new(),
            name: plan.name.clone(),
            credential: fresh_credential()?,
        },
    };
    disk.keep_wish(&wish).with_context(|| format!("cannot write to `{}`", disk.root().display()))?;
    let (name, credential) = (plan.name.clone(), Some(wish.credential));
    let enrol = Enrol { protocol: PROTOCOL, name, about: plan.about.clone(), credential };
    let mut told = false;
    let enrolled = loop {
        match wire.enrol(&enrol).await {
            Ok(enrolled) => break enrolled,
            Err(WireError::Unreachable(reason)) => {
                if !std::mem::replace(&mut told, true) {
                    ui.warn(format!("`{}` cannot be reached: {reason}; trying again", plan.server));
                }
            }
            Err(WireError::Refused(status, message)) => {
                let hint = match status {
                    401 | 403 => "\nhint: make a new token on the server with `pitcrew workers token`",
                    404 => "\nhint: is it the address of a Pitcrew server that has workers?",
                    409 => {
                        "\nhint: choose another name with `--name NAME`, or revoke the other one: `pitcrew workers revoke`"
                    }
                    _ => "",
                };
                return Err(invalid(format!("`{}` does not take this worker: {message}{hint}", plan.server)));
            }
            Err(WireError::ShutOut(_, message)) => {
                return Err(invalid(format!("`{}` does not take this worker: {message}", plan.server)));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = drain.next() => return Ok(None),
        }
    };
    let credential = Credential {
        server: plan.server.clone(),
        worker: enrolled.worker,
        name: plan.name.clone(),
        credential: enrolled.credential,
    };
    disk.keep_credential(&credential)
        .with_context(|| format!("cannot write the credential to `{}`", disk.credential_file().display()))?;
    ui.say(format!("enrolled as {}", ui.err.bold(&plan.name)));
    Ok(Some(credential))
}

fn tell(ui: &Ui, plan: &Plan, name: &str, said: Said) {
    let tasks = |count: usize| super::format::plural(count as u64, "task");
    match said {
        Said::Connected { found } => {
            let queues = plan.about.queues.join(", ");
            ui.say(format!(
                "worker {} takes work from {}: queues {queues}; {} at a time",
                ui.err.bold(name),
                plan.server,
                tasks(plan.about.slots as usize)
            ));
            if found > 0 {
                ui.say(format!("{} of before go on", tasks(found)));
            }
        }
        Said::Unreachable { reason } => ui.warn(format!(
            "`{}` cannot be reached: {reason}; what runs goes on for now, and the server is tried again",
            plan.server
        )),
        Said::Refused { reason } => {
            ui.warn(format!("`{}` does not take what this worker says: {reason}; it is tried again", plan.server));
        }
        Said::Draining { left: 0 } => ui.say("no more work is taken"),
        Said::Draining { left } => ui.say(format!(
            "no more work is taken; {} may take {} to end (a second signal ends the worker at once)",
            tasks(left),
            super::format::duration(plan.drain_deadline.try_into().unwrap_or_default())
        )),
        Said::Drained { on: true } => ui.say("the server gives this worker no more work; what runs goes on"),
        Said::Drained { on: false } => ui.say("the server gives this worker work again"),
        Said::DrainOver { left } => ui.warn(format!("{} took too long and are ended", tasks(left))),
        Said::LeaseOver => {
            ui.warn("the server did not answer for too long: what ran here is ended, and tried elsewhere")
        }
    }
}

/// The first signal asks for a drain; a second one ends the process, and what runs goes on until its lease is over.
struct Signals(tokio::sync::watch::Receiver<bool>);

impl Signals {
    fn listen() -> anyhow::Result<Signals> {
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let (sender, asked) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if sender.send_replace(true) {
                    std::process::exit(130);
                }
            }
        });
        Ok(Signals(asked))
    }

    async fn next(&mut self) {
        // The sender lives as long as the runtime.
        let _ = self.0.wait_for(|asked| *asked).await;
    }

    async fn first(mut self) {
        self.next().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_machine_without_encryption_is_warned_about() {
        assert_eq!(travels_in_clear("http://10.0.0.7:8793").as_deref(), Some("10.0.0.7"));
        assert_eq!(travels_in_clear("http://pitcrew.example").as_deref(), Some("pitcrew.example"));
        for fine in ["https://pitcrew.example", "http://127.0.0.1:8793", "http://[::1]:1", "http://localhost:8793"] {
            assert_eq!(travels_in_clear(fine), None, "{fine}");
        }
    }
}

//! `doctor`: whether this machine, and the hosts that tasks run on, have what Pitcrew needs, and what to do where they
//! have not.

mod hosts;

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use pitcrew_control::config::Settings;
use pitcrew_control::ecs::Clusters;
use pitcrew_control::paths::DataDir;
use pitcrew_control::ssh;
use pitcrew_store::Store;
use serde_json::json;
use tokio::process::Command;

use hosts::Host;

use super::control::Peers;
use super::ui::Ui;
use super::{Output, format, session};
use crate::cli::context::{self, Context};

/// A program that says its version answers at once; one on a dead network disk must not hold us up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Below this a demo, with its Python environment, does not fit.
const LITTLE_SPACE: u64 = 2 << 30;

/// Check whether this machine, and hosts over SSH, have what Pitcrew needs
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Only the host of this connection; can be given several times. Without it: this machine, and the hosts of all
    /// connections of the type `ssh`
    #[arg(long, value_name = "CONNECTION")]
    host: Vec<String>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    /// Something that some workflows need is missing.
    Warn,
    /// Nothing works without it.
    Bad,
}

struct Finding {
    name: &'static str,
    grade: Grade,
    text: String,
    remedy: Option<String>,
}

impl Finding {
    fn good(name: &'static str, text: impl Into<String>) -> Self {
        Finding { name, grade: Grade::Good, text: text.into(), remedy: None }
    }

    fn warn(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { name, grade: Grade::Warn, text: text.into(), remedy: Some(remedy.into()) }
    }

    fn bad(name: &'static str, text: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding { name, grade: Grade::Bad, text: text.into(), remedy: Some(remedy.into()) }
    }
}

pub async fn command(args: DoctorArgs, ui: Ui, settings: Settings) -> anyhow::Result<ExitCode> {
    if !args.host.is_empty() {
        let context = Context::open(ui, settings).await?;
        return tell(&ui, &args.output, &[], &hosts::look(&context, &args.host).await?);
    }
    let mut hosts = Vec::new();
    let mut findings = vec![Finding::good("pitcrew", env!("CARGO_PKG_VERSION"))];
    findings.push(git().await);
    findings.push(python().await);
    findings.push(uv().await);
    match context::data_dir(&settings) {
        Ok(data) => {
            findings.extend(data_dir(&data));
            findings.push(database(&settings).await);
        }
        Err(error) => {
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default();
            findings.push(Finding::bad("data", why, "choose another with `--data-dir DIR`"));
        }
    }
    if let Ok(context) = Context::open(ui, settings.clone()).await {
        findings.extend(machine(&context).await);
        findings.push(server(&context).await);
        hosts = hosts::look(&context, &[]).await?;
    }
    tell(&ui, &args.output, &findings, &hosts)
}

/// Shows what was found, here and on hosts.
fn tell(ui: &Ui, output: &Output, here: &[Finding], hosts: &[Host]) -> anyhow::Result<ExitCode> {
    let of_hosts = hosts.iter().flat_map(|host| host.findings.iter().map(|finding| (Some(&host.id), finding)));
    let all: Vec<_> = here.iter().map(|finding| (None, finding)).chain(of_hosts).collect();
    if output.is_json() {
        let shown = |(host, f): &(Option<&String>, &Finding)| {
            let mut shown = json!({ "check": f.name, "grade": grade(f.grade), "finding": f.text, "remedy": f.remedy });
            if let Some(host) = host {
                shown["host"] = json!(host);
            }
            shown
        };
        ui.json(&all.iter().map(shown).collect::<Vec<_>>())?;
    } else {
        lines(ui, here)?;
        for host in hosts {
            ui.line(format!("host {}", format::one_line(&host.id)))?;
            lines(ui, &host.findings)?;
        }
    }
    let is_bad = all.iter().any(|(_, finding)| finding.grade == Grade::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn lines(ui: &Ui, findings: &[Finding]) -> anyhow::Result<()> {
    for finding in findings {
        let sign = match finding.grade {
            Grade::Good => ui.out.green("✓"),
            Grade::Warn => ui.out.yellow("!"),
            Grade::Bad => ui.out.red("✗"),
        };
        ui.line(format!("{sign} {:<9} {}", finding.name, format::one_line(&finding.text)))?;
        if let Some(remedy) = &finding.remedy {
            ui.line(format!("            {} {remedy}", ui.out.cyan("→")))?;
        }
    }
    Ok(())
}

fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Warn => "warning",
        Grade::Bad => "bad",
    }
}

/// What a program says first, if it can be run.
async fn first_line(program: &str, args: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

async fn git() -> Finding {
    match first_line("git", &["--version"]).await {
        Some(version) => Finding::good("git", version),
        None => Finding::warn(
            "git",
            "not found: `git.checkout` and the demo need it",
            "install it, for example `apt install git`",
        ),
    }
}

async fn python() -> Finding {
    const PROBE: &str = "import sys, venv, ensurepip; print(sys.version.split()[0], sys.executable)";
    match first_line("python3", &["-c", PROBE]).await {
        Some(version) => Finding::good("python", version),
        None => match first_line("python3", &["--version"]).await {
            Some(version) if first_line("uv", &["--version"]).await.is_some() => Finding::good("python", version),
            Some(version) => Finding::warn(
                "python",
                format!("{version} cannot make environments: `venv` or `ensurepip` is missing"),
                "install them, for example `apt install python3-venv`, or install `uv`",
            ),
            None => Finding::warn(
                "python",
                "not found: notebooks, pytest and the demo need it",
                "install it, for example `apt install python3 python3-venv`",
            ),
        },
    }
}

async fn uv() -> Finding {
    match first_line("uv", &["--version"]).await {
        Some(version) => Finding::good("uv", version),
        None => Finding::good("uv", "not found; `venv` and `pip` are used, which takes longer"),
    }
}

fn data_dir(data: &DataDir) -> Vec<Finding> {
    let root = data.root();
    let shown = root.display();
    let probe = root.join(format!(".doctor-{}", std::process::id()));
    let writable = std::fs::write(&probe, b"x").and_then(|()| std::fs::remove_file(&probe));
    let mut findings = vec![match writable {
        Ok(()) => Finding::good("data", shown.to_string()),
        Err(error) => Finding::bad(
            "data",
            format!("cannot write into `{shown}`: {error}"),
            "choose another with `--data-dir DIR`",
        ),
    }];
    findings.extend(space(root));
    findings
}

fn space(root: &Path) -> Option<Finding> {
    let stat = rustix::fs::statvfs(root).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
    Some(match free {
        0..LITTLE_SPACE => {
            Finding::warn("disk", text, "free some space, or put the data elsewhere with `--data-dir DIR`")
        }
        _ => Finding::good("disk", text),
    })
}

async fn database(settings: &Settings) -> Finding {
    let url = match settings.store() {
        Ok(url) => url,
        Err(error) => return Finding::bad("database", format!("{error:#}"), "see `pitcrew config show`"),
    };
    match tokio::time::timeout(PATIENCE * 2, Store::open(&url)).await {
        Ok(Ok(store)) => {
            store.close().await;
            Finding::good("database", url.to_string())
        }
        Ok(Err(error)) => Finding::bad(
            "database",
            format!("{url}: {error}"),
            "see `pitcrew config show` for where the address comes from",
        ),
        Err(_) => Finding::bad(
            "database",
            format!("{url} does not answer"),
            "check that the database server runs and can be reached",
        ),
    }
}

/// Limits and devices.
async fn machine(context: &Context) -> Vec<Finding> {
    let ssh = ssh::pool(&context.data, &context.secrets);
    let Ok((backends, ..)) = session::backends(context, &ssh, &Clusters::none()) else { return Vec::new() };
    let local = backends.of(pitcrew_core::ir::BackendKind::Local);
    let capabilities = local.capabilities().await;
    let mut findings = Vec::new();
    let limits = match (capabilities.memory_limit, capabilities.cpu_limit) {
        (true, true) => "memory and CPU limits are enforced",
        (true, false) => "memory limits are enforced, CPU limits are not",
        (false, true) => "CPU limits are enforced, memory limits are not",
        (false, false) => "limits on memory and CPU are not enforced",
    };
    let remarks = capabilities.remarks.join("; ");
    findings.push(match capabilities.memory_limit && capabilities.cpu_limit {
        true => Finding::good("cgroup", limits),
        false => {
            let remedy = "run as a systemd user service with `Delegate=yes`, or leave limits to the tasks";
            Finding::warn(
                "cgroup",
                limits,
                if remarks.is_empty() { remedy.to_owned() } else { format!("{remarks}; {remedy}") },
            )
        }
    });
    findings.push(match capabilities.gpus.as_slice() {
        [] => Finding::good("gpus", "none found; tasks that ask for one cannot run here"),
        gpus => {
            let names: Vec<&str> = gpus.iter().map(|gpu| gpu.name.as_str()).collect();
            Finding::good("gpus", format!("{}: {}", gpus.len(), names.join(", ")))
        }
    });
    findings
}

async fn server(context: &Context) -> Finding {
    let mut peers = Peers::find(&context.data).await;
    if let Some(peer) = peers.server() {
        return Finding::good("server", format!("runs at {} (process {})", peer.hello.url, peer.hello.pid));
    }
    let listen = context.settings.listen();
    match tokio::net::TcpListener::bind(listen).await {
        Ok(_) => Finding::good("server", format!("none runs; {listen} is free")),
        Err(error) => Finding::warn(
            "server",
            format!("none runs, and {listen} cannot be used: {error}"),
            "choose another with `--listen HOST:PORT`",
        ),
    }
}

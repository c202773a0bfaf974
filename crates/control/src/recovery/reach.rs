//! Runs shell commands on nodes, and on the machine of the server for nodes.
//!
//! Invariant: a command has a deadline, at which it is ended where it runs, and bounded output; whether it may have begun is always said.

use std::process::Stdio;
use std::time::Duration;

use pitcrew_ecs::Kind;
use pitcrew_ecs::client::Ran as OverSsm;
use pitcrew_exec::gpu::Probe;
use pitcrew_exec::limited::limited;
use pitcrew_exec::ssh::End;
use pitcrew_exec::worker::Hub;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::workers::Order;
use crate::clock;
use crate::ecs::{Clusters, Machine};
use crate::fleet::{Asker, Fleet, NodeConfig, Reach};
use crate::kubernetes::KubeClusters;

/// Bytes that are kept of what a command prints.
const MOST: u64 = 4 << 20;
/// For a connection to a node.
const CONNECT: Duration = Duration::from_secs(30);

/// What running commands needs. Cheap to clone.
#[derive(Clone)]
pub struct Reached {
    pub asker: Asker,
    pub fleet: Fleet,
    pub clusters: Clusters,
    pub kubernetes: KubeClusters,
    pub workers: Hub,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// `None`: it was ended by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Why it is not known how a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRun {
    pub why: String,
    /// It never began.
    pub certain: bool,
    /// The connection broke, so nobody knows how far it came. It did not take too long.
    pub broke: bool,
}

impl NotRun {
    pub(super) fn never(why: impl Into<String>) -> NotRun {
        NotRun { why: why.into(), certain: true, broke: false }
    }

    pub(super) fn perhaps(why: impl Into<String>) -> NotRun {
        NotRun { why: why.into(), certain: false, broke: false }
    }

    fn broke(why: impl Into<String>) -> NotRun {
        NotRun { why: why.into(), certain: false, broke: true }
    }
}

impl Ran {
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// The last words, for people.
    pub fn words(&self) -> String {
        let line = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        let said = line(&self.stderr).or_else(|| line(&self.stdout)).unwrap_or_default();
        let said: String = said.chars().take(300).collect();
        match (self.code, said.is_empty()) {
            (Some(code), true) => format!("exit code {code}"),
            (Some(code), false) => format!("exit code {code}: {said}"),
            (None, true) => "it was cut off".to_owned(),
            (None, false) => format!("it was cut off: {said}"),
        }
    }
}

/// A shell word that means exactly this text.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A script that begins with these variables.
pub fn script(env: &[(&str, String)], body: &str) -> String {
    let mut script = String::new();
    for (name, value) in env {
        script.push_str(&format!("export {name}={}\n", quoted(value)));
    }
    script.push_str(body);
    script.push('\n');
    script
}

impl Reached {
    /// On the node.
    pub async fn run(&self, node: &str, script: &str, within: Duration) -> Result<Ran, NotRun> {
        self.order(node, Order::ask(), script, within).await
    }

    /// What a node says that is asked this again and again; `None`: nothing, in time.
    pub async fn again(&self, node: &str, what: &'static str, script: &str, within: Duration) -> Option<Vec<u8>> {
        let reach = self.fleet.nodes().borrow().iter().find(|one| one.node.name == node).map(|one| one.reach.clone());
        match reach {
            Some(Reach::Connection(id)) => {
                tokio::time::timeout(within, self.asker.again(&id, what, script)).await.ok()?.ok()
            }
            _ => self.run(node, script, within).await.ok().map(|ran| ran.stdout.into_bytes()),
        }
    }

    /// On the node, what a worker does once by the name that the order has.
    pub async fn order(&self, node: &str, order: Order, script: &str, within: Duration) -> Result<Ran, NotRun> {
        let reach = self.fleet.nodes().borrow().iter().find(|one| one.node.name == node).map(|one| one.reach.clone());
        let ran = async {
            match reach {
                None => Err(NotRun::never(format!("there is no node `{node}`"))),
                Some(Reach::Local) => here(&limited(script, within)).await,
                Some(Reach::Connection(id)) => return self.over_ssh(&id, script, within).await,
                Some(Reach::Ecs(machine)) => return self.over_ssm(&machine, script, within).await,
                Some(Reach::Kubernetes(_)) => Err(NotRun::never("nothing is run on a node of Kubernetes but pods")),
                Some(Reach::Worker(place)) => return self.by_worker(&place.worker, node, order, script, within).await,
            }
        };
        tokio::time::timeout(within, ran).await.unwrap_or_else(|_| Err(late(within)))
    }

    /// On the machine of the server.
    pub async fn run_here(&self, script: &str, within: Duration) -> Result<Ran, NotRun> {
        tokio::time::timeout(within, here(&limited(script, within))).await.unwrap_or_else(|_| Err(late(within)))
    }

    /// What it has, asked now; the fleet knows it as well then. `None`: it does not answer.
    pub async fn probe(&self, node: &NodeConfig) -> Option<Probe> {
        let answer = self.asker.ask(node).await.ok()?;
        let probe = answer.probe.clone();
        self.fleet.found(&node.name, answer, clock::now());
        Some(probe)
    }

    /// By Systems Manager, as root.
    async fn over_ssm(&self, machine: &Machine, script: &str, within: Duration) -> Result<Ran, NotRun> {
        let Some(cluster) = self.clusters.of(machine) else {
            return Err(NotRun::never(format!("the cluster `{}` is not configured", machine.cluster)));
        };
        match cluster.fleet.command(&machine.id, &[script], "pitcrew", within).await {
            Ok(OverSsm::Ended { code, stdout, stderr }) => Ok(Ran { code: Some(code), stdout, stderr }),
            Ok(OverSsm::Undelivered { status }) => Err(NotRun::perhaps(format!("SSM: {status}"))),
            Ok(OverSsm::Pending) => Err(NotRun::perhaps("SSM gave no answer in time")),
            Err(fault) if fault.kind == Kind::Unreached => Err(NotRun::perhaps(fault.to_string())),
            Err(fault) => Err(NotRun::never(fault.to_string())),
        }
    }

    /// Connecting has a time of its own: a command that was never sent did not begin.
    async fn over_ssh(&self, id: &str, script: &str, within: Duration) -> Result<Ran, NotRun> {
        let lease = match tokio::time::timeout(within.min(CONNECT), self.asker.connect(id)).await {
            Ok(lease) => lease.map_err(NotRun::never)?,
            Err(_) => return Err(NotRun::never("it cannot be connected to: there is no answer")),
        };
        let script = limited(script, within);
        let run = async {
            // What has no script yet does nothing.
            let process = lease.open("exec /bin/sh -s").await.map_err(|error| NotRun::never(error.to_string()))?;
            let (is_sent, done) = process.finish(script.as_bytes()).await;
            done.map_err(
                |error| if is_sent { NotRun::broke(error.to_string()) } else { NotRun::perhaps(error.to_string()) },
            )
        };
        let done = tokio::time::timeout(within, run).await.map_err(|_| late(within))??;
        let code = match done.end {
            End::Code(code) => Some(code as i32),
            End::Signal(_) => None,
            End::Unknown => return Err(NotRun::broke("the connection ended before the command did")),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran { code, stdout: text(&done.stdout), stderr: text(&done.stderr) })
    }
}

pub(super) fn late(within: Duration) -> NotRun {
    NotRun::perhaps(format!("it took longer than {} s", within.as_secs()))
}

async fn here(script: &str) -> Result<Ran, NotRun> {
    let mut child = tokio::process::Command::new("/bin/sh")
        .arg("-s")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| NotRun::never(format!("`/bin/sh` cannot be run: {error}")))?;
    let input = child.stdin.take();
    let write = async {
        if let Some(mut input) = input {
            // A command that wants no more input has its reasons; its end tells them.
            let _ = input.write_all(script.as_bytes()).await;
        }
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ((), stdout, stderr) = tokio::join!(write, text_of(stdout), text_of(stderr));
    let status = child.wait().await.map_err(|error| NotRun::perhaps(error.to_string()))?;
    Ok(Ran { code: status.code(), stdout, stderr })
}

async fn text_of(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What came before an error is still something.
        let _ = pipe.take(MOST).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn variables_mean_exactly_their_text_and_the_last_words_are_told() {
        let odd = "a'b \"c\" $(d)\nend";
        let ran =
            here(&script(&[("ODD", odd.to_owned())], "printf %s \"$ODD\"; echo wrong >&2; exit 3")).await.unwrap();
        assert_eq!((ran.stdout.as_str(), ran.code), (odd, Some(3)));
        assert_eq!(ran.words(), "exit code 3: wrong");
    }
}

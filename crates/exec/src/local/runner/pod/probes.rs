//! Asking a container whether it is ready.

use std::time::Duration;

use jiff::SignedDuration;
use pitcrew_core::pod::{Container, Probe, ProbeHow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::Runner;
use super::super::process::{self, Plan};
use super::Letter;

/// Where a pod without a network of its own is reached.
pub const HERE: &str = "127.0.0.1";
/// The most of an answer that is read.
const HEAD: u64 = 4 << 10;

/// How a program begins beside that of a container: what it executes of this program, and its order.
pub struct Beside {
    pub argv: [String; 3],
    pub letter: Letter,
}

/// One question; the error says why the answer is no. `here` is where the pod is reached.
pub async fn ask(runner: &Runner, probe: &Probe, here: &str, beside: Option<Beside>) -> Result<(), String> {
    let patience = duration(probe.timeout).max(Duration::from_millis(100));
    let asked = async {
        match &probe.how {
            ProbeHow::Tcp { host, port } => {
                let host = host.as_deref().unwrap_or(here);
                TcpStream::connect((host, *port)).await.map(drop).map_err(|e| format!("port {port}: {e}"))
            }
            ProbeHow::Http { host, port, path, headers, .. } => {
                http(host.as_deref().unwrap_or(here), *port, path, headers).await
            }
            ProbeHow::Exec(_) => execute(runner, beside.ok_or("it has no process yet")?).await,
        }
    };
    tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err("it did not answer in time".to_owned()))
}

/// What cannot be asked.
pub fn refused(container: &Container) -> Option<String> {
    let probes = &container.probes;
    let all = [&probes.startup, &probes.readiness, &probes.liveness];
    all.into_iter().flatten().find_map(|probe| match &probe.how {
        ProbeHow::Http { https: true, .. } => {
            Some(format!("`{}` has a probe by HTTPS, which is not made here; use `tcpSocket` or HTTP", container.name))
        }
        ProbeHow::Http { .. } | ProbeHow::Tcp { .. } | ProbeHow::Exec(_) => None,
    })
}

async fn http(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("port {port}: {e}");
    let mut stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: pitcrew\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    stream.take(HEAD).read_to_end(&mut head).await.map_err(failed)?;
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let status: Option<u16> = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    match status {
        Some(200..=399) => Ok(()),
        _ => Err(format!("it answered `{line}`")),
    }
}

/// Runs a program beside the container's own.
async fn execute(runner: &Runner, beside: Beside) -> Result<(), String> {
    let patience_is_ours = |e: std::io::Error| e.to_string();
    let Beside { argv, letter } = beside;
    let mut env = if letter.is_keeper { super::keeper_env() } else { Default::default() };
    env.insert("PITCREW_RUNNER".to_owned(), runner.place.token().to_owned());
    let plan = Plan {
        argv: &argv,
        env: &env,
        workdir: std::path::Path::new("/"),
        cgroups: &[],
        open_files: runner.open_files,
        stdin: Some(letter.for_box().map_err(patience_is_ours)?),
    };
    let spawned = process::spawn(&runner.reaper, plan)?;
    // Whoever gives up on the answer ends the process as well.
    let _end = Ends(spawned.pid);
    let reaped = spawned.exit.await.map_err(|_| "its end was missed".to_owned())?;
    match reaped.status.code() {
        Some(0) => Ok(()),
        _ => Err(format!("its command ended with {}", reaped.status)),
    }
}

struct Ends(i32);

impl Drop for Ends {
    fn drop(&mut self) {
        process::signal_group(self.0, rustix::process::Signal::KILL);
    }
}

pub fn duration(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}
